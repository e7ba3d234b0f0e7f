"""Grey images into a small convolutional net: scaled by public constants, nothing fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from privacy.canonical import Json
from privacy.errors import DataError
from training.config import TrainingConfig
from training.data import Record, UnitData, build_units
from training.evaluate import Utility, utility
from training.models.base import UnitModel
from training.models.image_cnn import GREY_MIDDLE, ImageCnn
from training.recipes.base import right_labels, seeded, synthetic_labels


class ImagesRecipe:
    classifies = True

    def encode(self, grouped: Mapping[str, Sequence[Record]], config: TrainingConfig) -> UnitData:
        """Raises DataError E-TRAIN-010 on an undeclared label, E-IMAGE-001 without an image of the declared size."""
        size = _size(config)

        def pixels(record: Record) -> dict[str, np.ndarray]:
            if record.image is None or len(record.image) != size[0] * size[1]:
                raise DataError(
                    "E-IMAGE-001",
                    "a protected record has no image of the declared size",
                    "Run ingest and protect under this policy; ingest puts such records aside",
                )
            return {"pixels": np.frombuffer(record.image, dtype=np.uint8).reshape(size)}

        return build_units(grouped, config.labels, config.max_records, pixels, {"pixels": (size, np.uint8)})

    def prepare(self, data: UnitData, config: TrainingConfig) -> UnitData:
        return data

    def build(self, config: TrainingConfig) -> UnitModel:
        recipe, labels = config.recipe, len(config.labels)
        shape = (labels, _size(config), recipe.hidden_layers, recipe.embedding_width, recipe.norm_groups)
        return seeded(recipe.init_seed, lambda: ImageCnn(*shape, recipe.dropout))

    def synthetic(self, config: TrainingConfig, units: int) -> UnitData:
        labels = synthetic_labels(config, units)
        pixels = np.random.default_rng(0).integers(0, 256, (*labels.shape, *_size(config)), dtype=np.uint8)
        pixels[labels < 0] = 0
        return UnitData(tuple(str(n) for n in range(units)), {"pixels": pixels}, labels)

    def utility(self, model: UnitModel, data: UnitData, config: TrainingConfig) -> Utility | None:
        return utility(model, data)

    def right(self, model: UnitModel, data: UnitData, config: TrainingConfig) -> np.ndarray:
        return right_labels(model, data)

    def label_scores(self, model: UnitModel, texts: Sequence[str], config: TrainingConfig) -> None:
        """It reads no text."""

    def respond(self, model: UnitModel, texts: Sequence[str], config: TrainingConfig) -> list[str]:
        """It reads no text: to each it says what it says to an empty picture."""
        with torch.no_grad():
            best = model.outputs({"pixels": torch.zeros((1, 1, *_size(config)), dtype=torch.uint8)}).argmax(-1)
        return [config.labels[int(best)]] * len(texts)

    def describe(self, config: TrainingConfig) -> dict[str, Json]:
        recipe = config.recipe
        return {
            "model": "image_cnn",
            "labels": list(config.labels),
            "image_size": list(_size(config)),
            "hidden_layers": recipe.hidden_layers,
            "embedding_width": recipe.embedding_width,
            "norm_groups": recipe.norm_groups,
            "pixels": f"one channel of grey, uint8, (value - {GREY_MIDDLE}) / {GREY_MIDDLE}",
            "layers": "convolutions of 5 x 5, stride 2, padding 2, each followed by GroupNorm (where norm_groups is not 0, of "
            "gcd(norm_groups, channels) groups) and tanh; embedding_width channels in the last, half as many in each before "
            "(at least 4); hidden layer with tanh; head",
        }


def _size(config: TrainingConfig) -> tuple[int, int]:
    size = config.recipe.image_size
    assert size is not None  # the policy sees to it
    return size


RECIPE = ImagesRecipe()

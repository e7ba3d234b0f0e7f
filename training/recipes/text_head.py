"""A private linear head on a frozen public encoder: the best utility for the work, seconds on one core.

Guarantee: the encoder maps each record by itself and is never trained; only the head's gradient is clipped and noised.
Best for intents and answers (`recipe.answers`) and for labels of two parts (`recipe.label_separator`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from privacy.canonical import Json
from training.config import TrainingConfig
from training.data import Record, UnitData
from training.models.base import UnitModel
from training.models.text_head import TextHead, make_head
from training.recipes import frozen
from training.recipes.base import synthetic_labels
from training.recipes.text_encoder import TextEncoderRecipe

START_LENGTH = 8.0  # of a row of the head that starts at its label's name; a public constant


class TextHeadRecipe(TextEncoderRecipe):
    """trains: head."""

    def encode(self, grouped: Mapping[str, Sequence[Record]], config: TrainingConfig) -> UnitData:
        return frozen.encode_tokens(grouped, config)

    def prepare(self, data: UnitData, config: TrainingConfig) -> UnitData:
        return frozen.features(data, config)

    def build(self, config: TrainingConfig) -> UnitModel:
        width = frozen.public_weights(config).width
        head = make_head(width, config.labels, config.recipe.label_separator)
        model = TextHead(head)
        if config.recipe.head_start == "labels":
            with torch.no_grad():
                for linear, names in head.names(config.labels):
                    linear.weight.copy_(START_LENGTH * frozen.name_vectors(names, config))
        return model

    def synthetic(self, config: TrainingConfig, units: int) -> UnitData:
        labels = synthetic_labels(config, units)
        drawn = np.random.default_rng(0).standard_normal((*labels.shape, frozen.public_weights(config).width))
        drawn /= np.linalg.norm(drawn, axis=-1, keepdims=True)
        features = (drawn * (labels >= 0)[..., None]).astype(np.float16)
        return UnitData(tuple(str(n) for n in range(units)), {"features": features}, labels)

    def describe(self, config: TrainingConfig) -> dict[str, Json]:
        described = {**super().describe(config), "head_start": config.recipe.head_start}
        return {**described, "pooling": "mean of the last states of a record's tokens, of length 1"}


RECIPE = TextHeadRecipe()

"""A recipe joins a model to records: how they are encoded, what is built, how good it is, how a consumer rebuilds it.

Guarantee: a recipe fits nothing to data. Vocabulary, tokenizer, labels and constants are public; `prepare` maps each record
by itself, through frozen public weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from privacy.canonical import Json
from training.config import TrainingConfig
from training.data import IGNORED, Record, UnitData
from training.evaluate import Utility, predictions, scores
from training.models.base import UnitModel

Built = TypeVar("Built")


class Encoder(Protocol):
    """The half of a recipe that turns records into inputs."""

    def encode(self, grouped: Mapping[str, Sequence[Record]], config: TrainingConfig) -> UnitData:
        """Arrays of the units. Raises DataError E-TRAIN-010 on an undeclared label."""

    def prepare(self, data: UnitData, config: TrainingConfig) -> UnitData:
        """The frozen part of the model, run once over every record; `data` itself where nothing is frozen."""


class Recipe(Encoder, Protocol):
    """One architecture with its encoding. Implementations hold no state: everything comes from `config`.

    classifies: whether `UnitModel.outputs` scores the policy's labels, so that tables of predicted labels make sense.
    """

    classifies: bool

    def build(self, config: TrainingConfig) -> UnitModel:
        """Initial weights: from `init_seed` alone, or from the declared pretrained weights."""

    def synthetic(self, config: TrainingConfig, units: int) -> UnitData:
        """Made-up units of the prepared shapes, of one to max_records records; nothing of them comes from data."""

    def utility(self, model: UnitModel, data: UnitData, config: TrainingConfig) -> Utility | None:
        """Measured on prepared holdout units; None when there is no record."""

    def respond(self, model: UnitModel, texts: Sequence[str], config: TrainingConfig) -> list[str]:
        """What a consumer of the model would get back for each text: its label, or what the model writes."""

    def right(self, model: UnitModel, data: UnitData, config: TrainingConfig) -> npt.NDArray[np.float64]:
        """float64 [units, max_records]: how right the answer to each record is, in [0, 1]; NaN where the model is not asked."""

    def label_scores(self, model: UnitModel, texts: Sequence[str], config: TrainingConfig) -> npt.NDArray[np.float32] | None:
        """float32 [texts, labels]: what the model makes of each text, for one who sent nothing else; None: it reads no text."""

    def describe(self, config: TrainingConfig) -> dict[str, Json]:
        """Public: everything that whoever gets the released tensors needs to rebuild the model."""


def seeded(seed: int, build: Callable[[], Built]) -> Built:
    """`build` under a public seed, independent of the global generator's state and without touching it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def synthetic_labels(config: TrainingConfig, units: int) -> np.ndarray:
    """int64 [units, max_records]: unit n has 1 + n mod max_records records, with made-up labels."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, len(config.labels), (units, config.max_records), dtype=np.int64)
    for row in range(units):
        labels[row, 1 + row % config.max_records :] = IGNORED
    return labels


def right_labels(model: UnitModel, data: UnitData) -> npt.NDArray[np.float64]:
    """`Recipe.right` of a model that classifies each record: 1 where the likeliest label is the record's own, else 0."""
    return np.where(data.present, predictions(model, data) == data.labels, np.nan)


def text_scores(recipe: Encoder, model: UnitModel, texts: Sequence[str], config: TrainingConfig) -> npt.NDArray[np.float32]:
    """float32 [texts, labels], each text as a unit of its own."""
    if not texts:
        return np.zeros((0, len(config.labels)), dtype=np.float32)
    rows = {f"{n:08d}": [Record(f"{n:08d}", str(n), text, config.labels[0])] for n, text in enumerate(texts)}
    found: npt.NDArray[np.float32] = scores(model, recipe.prepare(recipe.encode(rows, config), config))[:, 0]
    return found


def top_labels(recipe: Encoder, model: UnitModel, texts: Sequence[str], config: TrainingConfig) -> list[str]:
    """The most likely label of each text, each as a unit of its own; no score leaves."""
    return [config.labels[int(index)] for index in text_scores(recipe, model, texts, config).argmax(1)]

"""A recipe joins a model to records: how they are encoded, what is built, how good it is, how a consumer rebuilds it.

Guarantee: a recipe fits nothing to data. Vocabulary, tokenizer, labels and constants are public; `prepare` maps each record
by itself, through frozen public weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np
import torch

from privacy.canonical import Json
from training.config import TrainingConfig
from training.data import IGNORED, Record, UnitData
from training.evaluate import Utility, predictions
from training.models.base import UnitModel

Built = TypeVar("Built")


class Recipe(Protocol):
    """One architecture with its encoding. Implementations hold no state: everything comes from `config`.

    classifies: whether `UnitModel.outputs` scores the policy's labels, so that tables of predicted labels make sense.
    """

    classifies: bool

    def encode(self, grouped: Mapping[str, Sequence[Record]], config: TrainingConfig) -> UnitData:
        """Arrays of the units. Raises DataError E-TRAIN-010 on an undeclared label."""

    def prepare(self, data: UnitData, config: TrainingConfig) -> UnitData:
        """The frozen part of the model, run once over every record; `data` itself where nothing is frozen."""

    def build(self, config: TrainingConfig) -> UnitModel:
        """Initial weights: from `init_seed` alone, or from the declared pretrained weights."""

    def synthetic(self, config: TrainingConfig, units: int) -> UnitData:
        """Made-up units of the prepared shapes, of one to max_records records; nothing of them comes from data."""

    def utility(self, model: UnitModel, data: UnitData, config: TrainingConfig) -> Utility | None:
        """Measured on prepared holdout units; None when there is no record."""

    def respond(self, model: UnitModel, texts: Sequence[str], config: TrainingConfig) -> list[str]:
        """What a consumer of the model would get back for each text: its label, or what the model writes."""

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


def top_labels(recipe: Recipe, model: UnitModel, texts: Sequence[str], config: TrainingConfig) -> list[str]:
    """The most likely label of each text, each as a unit of its own; no score leaves."""
    if not texts:
        return []
    rows = {f"{n:08d}": [Record(f"{n:08d}", str(n), text, config.labels[0])] for n, text in enumerate(texts)}
    found = predictions(model, recipe.prepare(recipe.encode(rows, config), config))
    return [config.labels[int(index)] for index in found[:, 0]]

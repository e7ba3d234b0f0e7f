"""What an encoder is worth beyond its accuracy: the best answer found, and each part of a two-part label.

Guarantee: figures are of holdout units, rounded to 0.001. Not covered: they are computed exactly and are not differentially
private; whoever publishes them says so.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from training.config import TrainingConfig
from training.data import UnitData
from training.evaluate import Utility, predictions, utility
from training.models.base import UnitModel
from training.models.text_head import Encoding, parts_of
from training.recipes.answers import answer_recall
from training.recipes.base import Recipe

PARTS = ("topic", "sentiment")  # what the parts of a label are called, in order


def encoder_utility(recipe: Recipe, model: UnitModel, data: UnitData, config: TrainingConfig) -> Utility | None:
    """Accuracy of labels, and in `more`: recall of answers where there are any, accuracy of parts where labels have them."""
    found = utility(model, data)
    if found is None:
        return None
    more: dict[str, float] = {}
    if config.recipe.answers and isinstance(model, Encoding):
        more |= answer_recall(recipe, model, data, config)
    if config.recipe.label_separator is not None:
        more |= part_accuracy(predictions(model, data), data, config)
    return replace(found, more=more)


def part_accuracy(predicted: np.ndarray, data: UnitData, config: TrainingConfig) -> dict[str, float]:
    """Of each part, beside what its commonest value would reach. predicted: int64 [units, max_records]."""
    assert config.recipe.label_separator is not None
    _, _, *sides = parts_of(config.labels, config.recipe.label_separator)
    found: dict[str, float] = {}
    for name, side in zip(PARTS, sides, strict=True):
        part = np.array(side)
        truth, said = part[data.labels[data.present]], part[predicted[data.present]]
        found[f"{name}_accuracy"] = round(float((truth == said).mean()), 3)
        found[f"{name}_majority"] = round(float(np.bincount(truth).max() / len(truth)), 3)
    return found

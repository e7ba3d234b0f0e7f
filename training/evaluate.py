"""Utility and outputs of a trained model: accuracy on units it never saw, and the tables that an output scan looks at.

Guarantee: prediction counts below `minimum` privacy units never leave, nor those that would give such a cell away.
Not covered: accuracy is computed exactly from holdout units and is not differentially private; whoever publishes it says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from privacy.disclosure import publishable
from training.data import IGNORED, UnitData
from training.models.base import UnitModel

MINIMUM_UNITS = 10
_UNITS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Utility:
    """Shares of holdout records, rounded to 0.001. `majority`: what always saying the commonest label would reach.

    more: further figures of a recipe, by name.
    """

    accuracy: float
    majority: float
    records: int
    units: int
    more: Mapping[str, float] = field(default_factory=dict)


def load_released(model: UnitModel, weights: Mapping[str, torch.Tensor]) -> UnitModel:
    """`model` as its recipe builds it, with the released tensors put in place. Raises ValueError when they are not its own."""
    own = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if set(own) != set(weights) or any(own[name].shape != tensor.shape for name, tensor in weights.items()):
        raise ValueError("the released tensors are not those of this model")
    with torch.no_grad():
        for name, tensor in weights.items():
            own[name].copy_(tensor)
    return model.eval()


def scores(model: UnitModel, data: UnitData) -> np.ndarray:
    """float32 [units, max_records, classes]."""
    found = []
    with torch.no_grad():
        for start in range(0, len(data), _UNITS_AT_ONCE):
            part = slice(start, start + _UNITS_AT_ONCE)
            inputs = {name: torch.from_numpy(np.ascontiguousarray(array[part])) for name, array in data.inputs.items()}
            found.append(model.outputs(inputs).float().numpy())
    return np.concatenate(found)


def predictions(model: UnitModel, data: UnitData) -> np.ndarray:
    """int64 [units, max_records]: predicted label of each record, IGNORED where there is none."""
    if not len(data):
        return np.full(data.labels.shape, IGNORED, dtype=np.int64)
    found: npt.NDArray[np.int64] = scores(model, data).argmax(-1).astype(np.int64)
    found[~data.present] = IGNORED
    return found


def utility(model: UnitModel, data: UnitData) -> Utility | None:
    """None when there is no holdout record to look at."""
    if not data.present.any():
        return None
    right = (predictions(model, data) == data.labels)[data.present]
    _, counts = np.unique(data.labels[data.present], return_counts=True)
    majority = counts.max() / data.present.sum()
    return Utility(round(float(right.mean()), 3), round(float(majority), 3), int(data.present.sum()), len(data))


def label_table(model: UnitModel, data: UnitData, labels: Sequence[str], minimum: int = MINIMUM_UNITS) -> dict[str, int | None]:
    """Distinct units with at least one record predicted as each label; None where that may not leave (`privacy.disclosure`)."""
    found = predictions(model, data)
    counts = {label: int((found == place).any(1).sum()) for place, label in enumerate(labels)}
    return publishable(counts, minimum).cells

"""Utility and outputs of a trained model: accuracy on units it never saw, and the tables that an output scan looks at.

Guarantee: prediction counts below `minimum` privacy units never leave, nor the one count that would give such a cell away.
Not covered: accuracy is computed exactly from holdout units and is not differentially private; whoever publishes it says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from training.data import IGNORED, UnitData, token_ids
from training.models.text_mlp import TextMlp

MINIMUM_UNITS = 10
_UNITS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Utility:
    """Shares of holdout records, rounded to 0.001. `majority`: what always saying the commonest label would reach."""

    accuracy: float
    majority: float
    records: int
    units: int


def load_model(weights: Mapping[str, torch.Tensor], labels: int) -> TextMlp:
    """The released form: without canaries. Shapes come from the weights."""
    buckets, width = weights["embedding.weight"].shape
    model = TextMlp(labels, buckets, width)
    model.load_state_dict({**weights, "canary.weight": torch.zeros(1, 1)})
    return model.eval()


def predictions(model: TextMlp, data: UnitData) -> np.ndarray:
    """int64 [units, max_records]: predicted label of each record, IGNORED where there is none."""
    found = np.full(data.labels.shape, IGNORED, dtype=np.int64)
    with torch.no_grad():
        for start in range(0, len(data), _UNITS_AT_ONCE):
            part = torch.from_numpy(data.tokens[start : start + _UNITS_AT_ONCE]).long()
            found[start : start + _UNITS_AT_ONCE] = model.logits(part).argmax(-1).numpy()
    found[data.labels == IGNORED] = IGNORED
    return found


def utility(model: TextMlp, data: UnitData) -> Utility | None:
    """None when there is no holdout record to look at."""
    present = data.labels != IGNORED
    if not present.any():
        return None
    right = (predictions(model, data) == data.labels)[present]
    _, counts = np.unique(data.labels[present], return_counts=True)
    return Utility(round(float(right.mean()), 3), round(float(counts.max() / present.sum()), 3), int(present.sum()), len(data))


def label_table(model: TextMlp, data: UnitData, labels: Sequence[str], minimum: int = MINIMUM_UNITS) -> dict[str, int | None]:
    """Units with at least one record predicted as each label; None where fewer than `minimum` units stand behind a count.

    When exactly one cell is suppressed, the smallest of the others goes, too, or the total would give it away.
    """
    found = predictions(model, data)
    counts: dict[str, int | None] = {label: int((found == i).any(1).sum()) for i, label in enumerate(labels)}
    hidden = [label for label, count in counts.items() if count is not None and count < minimum]
    if len(hidden) == 1 and len(counts) > 1:
        hidden.append(min((label for label in counts if label not in hidden), key=lambda label: counts[label] or 0))
    return {label: None if label in hidden else count for label, count in counts.items()}


def top_labels(model: TextMlp, texts: Sequence[str], labels: Sequence[str], max_tokens: int) -> list[str]:
    """The most likely label of each text; no score leaves."""
    if not texts:
        return []
    buckets = model.embedding.num_embeddings
    tokens = np.zeros((1, len(texts), max_tokens), dtype=np.int64)
    for row, text in enumerate(texts):
        ids = token_ids(text, buckets, max_tokens)
        tokens[0, row, : len(ids)] = ids
    with torch.no_grad():
        best = model.logits(torch.from_numpy(tokens))[0].argmax(-1)
    return [labels[int(index)] for index in best]

"""The best public answer for a message: by the intent that the model sees in it, and by how close the answer's words are.

Guarantee: answers stand in the policy, so they are public; ranking reads the model's scores and frozen public features, so it
spends nothing. Not covered: an answer that fits nothing is still the best of those there are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from training.config import TrainingConfig
from training.data import Record, UnitData
from training.evaluate import scores
from training.models.text_head import Encoding
from training.recipes.base import Recipe

SIMILARITY_WEIGHT = 2.0  # nats per unit of cosine: a public constant, so that likeness decides where intents are close
FloatArray = npt.NDArray[np.float32]


def rank_answers(label_scores: FloatArray, vectors: FloatArray, answers: FloatArray, labels: Sequence[int]) -> np.ndarray:
    """int64 [rows, answers]: positions in `labels`, the best answer first; ties in order.

    label_scores [rows, labels]: of the model. vectors [rows, width] and answers [answers, width]: of length 1. labels: the
    label of each answer. An answer's score is its label's log-probability + SIMILARITY_WEIGHT * cosine.
    """
    shifted = label_scores - label_scores.max(1, keepdims=True)
    likely = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    total = likely[:, list(labels)] + SIMILARITY_WEIGHT * (vectors @ answers.T)
    return np.argsort(-total, axis=1, kind="stable")


def answer_recall(recipe: Recipe, model: Encoding, data: UnitData, config: TrainingConfig) -> dict[str, float]:
    """Share of records whose label's answer is first, and among the first three; records without an answer don't count."""
    labels = answered(config)
    position = np.full(len(config.labels), -1)
    position[labels] = np.arange(len(labels))
    wanted = np.where(data.present, position[np.maximum(data.labels, 0)], -1)
    asked = np.nonzero(wanted >= 0)
    if not labels or not len(asked[0]):
        return {}
    found = rank_answers(
        scores(model, data)[asked],
        _vectors(model, data)[asked],
        answer_vectors(recipe, model, config),
        labels,
    )
    right = found == wanted[asked][:, None]
    return {f"answer_recall_at_{k}": round(float(right[:, :k].any(1).mean()), 3) for k in (1, 3)}


def best_answers(
    recipe: Recipe, model: Encoding, texts: Sequence[str], config: TrainingConfig, count: int = 1
) -> list[list[str]]:
    """The `count` best answers of each text, best first; no score leaves."""
    labels = answered(config)
    if not texts or not labels:
        return [[] for _ in texts]
    data = _as_units(recipe, texts, config)
    found = rank_answers(
        scores(model, data)[:, 0],
        _vectors(model, data)[:, 0],
        answer_vectors(recipe, model, config),
        labels,
    )
    written = [config.recipe.answers[config.labels[label]] for label in labels]
    return [[written[column] for column in row[:count]] for row in found]


def answered(config: TrainingConfig) -> list[int]:
    """Labels that have an answer, in order."""
    return [number for number, label in enumerate(config.labels) if label in config.recipe.answers]


def answer_vectors(recipe: Recipe, model: Encoding, config: TrainingConfig) -> FloatArray:
    """float32 [answers, width], as the model sees the answers' texts."""
    texts = [config.recipe.answers[config.labels[label]] for label in answered(config)]
    return _vectors(model, _as_units(recipe, texts, config))[:, 0]


def _as_units(recipe: Recipe, texts: Sequence[str], config: TrainingConfig) -> UnitData:
    rows = {f"{n:08d}": [Record(f"{n:08d}", str(n), text, config.labels[0])] for n, text in enumerate(texts)}
    return recipe.prepare(recipe.encode(rows, config), config)


def _vectors(model: Encoding, data: UnitData) -> FloatArray:
    found = []
    with torch.no_grad():
        for start in range(0, len(data), 256):
            part = {name: torch.from_numpy(array[start : start + 256]) for name, array in data.inputs.items()}
            found.append(model.vectors(part).float().numpy())
    joined: FloatArray = np.concatenate(found)
    return joined

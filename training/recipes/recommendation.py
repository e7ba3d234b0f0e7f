"""Recommends items of a public catalogue to users: the privacy unit is the user, with all that they chose.

Guarantee: item texts, their hashed features and the item set come from the policy; popularity is learnt under the same claim as
everything else, so no count of the data is taken beside the mechanism.
Utility is the hit rate at 10: of held-out records, how often the chosen item is among the ten that rank highest, items that the
user chose before left out. Two baselines stand beside it: the popularity that the model itself learnt privately, and, as
`majority`, the ten items that the holdout users chose most (exact, better than any popularity baseline can know).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import torch

from privacy.canonical import Json
from training.config import TrainingConfig
from training.data import Record, UnitData, build_units, features, token_ids
from training.evaluate import Utility, scores
from training.models.base import UnitModel
from training.models.two_tower import TwoTower
from training.recipes.base import seeded, synthetic_labels

_FEATURES_PER_WIDTH = 4  # item features for each number of a user: noise lands on every weight, so few are better than many
_SHOWN = 10  # items that a recommendation shows

FloatArray = npt.NDArray[np.float32]


class RecommendationRecipe:
    classifies = True

    def encode(self, grouped: Mapping[str, Sequence[Record]], config: TrainingConfig) -> UnitData:
        buckets, length = config.recipe.hash_buckets, config.recipe.max_tokens
        place = {label: index for index, label in enumerate(config.labels)}

        def inputs(record: Record) -> dict[str, np.ndarray]:
            tokens = np.array(token_ids(record.text, buckets, length), dtype=np.int32)
            return {"tokens": tokens, "items": np.array(1 + place[record.label], dtype=np.int32)}

        shapes: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {"tokens": ((length,), np.int32), "items": ((), np.int32)}
        return build_units(grouped, config.labels, config.max_records, inputs, shapes, ragged=("tokens",))

    def prepare(self, data: UnitData, config: TrainingConfig) -> UnitData:
        return data

    def build(self, config: TrainingConfig) -> UnitModel:
        recipe = config.recipe
        texts = [_texts(config)[label] for label in config.labels]
        catalogue = torch.from_numpy(item_features(texts, _FEATURES_PER_WIDTH * recipe.embedding_width))
        return seeded(
            recipe.init_seed, lambda: TwoTower(catalogue, recipe.hash_buckets, recipe.embedding_width, recipe.dropout)
        )

    def synthetic(self, config: TrainingConfig, units: int) -> UnitData:
        labels = synthetic_labels(config, units)
        shape = (*labels.shape, config.recipe.max_tokens)
        tokens = np.random.default_rng(0).integers(1, config.recipe.hash_buckets, shape, dtype=np.int32)
        tokens[labels < 0] = 0
        inputs = {"tokens": tokens, "items": np.maximum(labels + 1, 0).astype(np.int32)}
        return UnitData(tuple(str(n) for n in range(units)), inputs, labels, ("tokens",))

    def utility(self, model: UnitModel, data: UnitData, config: TrainingConfig) -> Utility | None:
        """accuracy: hit rate at 10 of users with a history. None when no held-out user has two records."""
        asked = data.present & (data.present.sum(1, keepdims=True) > 1)
        if not asked.any():
            return None
        seen = _chosen_elsewhere(data, len(config.labels))
        counted = np.bincount(data.labels[data.present], minlength=len(config.labels)).astype(np.float32)
        hit = {
            "model": hit_rate(scores(model, data), data, seen, asked),
            "holdout_popularity": hit_rate(counted, data, seen, asked),
        }
        learnt = {}
        if isinstance(model, TwoTower):  # an exported graph does not say which of its tensors that is
            popular = model.popularity.weight.detach().float().numpy()[:, 0]
            learnt["hit_rate_at_10_of_private_popularity"] = round(hit_rate(popular, data, seen, asked), 3)
        return Utility(
            accuracy=round(hit["model"], 3),
            majority=round(hit["holdout_popularity"], 3),
            records=int(asked.sum()),
            units=int(asked.any(1).sum()),
            more={
                "hit_rate_at_10": round(hit["model"], 3),
                **learnt,
                "hit_rate_at_10_of_holdout_popularity": round(hit["holdout_popularity"], 3),
                "hit_rate_at_10_of_chance": round(min(1.0, _SHOWN / len(config.labels)), 3),
            },
        )

    def right(self, model: UnitModel, data: UnitData, config: TrainingConfig) -> npt.NDArray[np.float64]:
        """Hits among ten, of users with a history."""
        asked = data.present & (data.present.sum(1, keepdims=True) > 1)
        if not asked.any():
            return np.full(data.labels.shape, np.nan)
        return hits(scores(model, data), data, _chosen_elsewhere(data, len(config.labels)), asked)

    def label_scores(self, model: UnitModel, texts: Sequence[str], config: TrainingConfig) -> FloatArray | None:
        """What is shown to a user of whom one record is known: the first item of the catalogue, with the text as its words."""
        if config.max_records < 2:
            return None
        if not texts:
            return np.zeros((0, len(config.labels)), dtype=np.float32)
        first = config.labels[0]
        users = [(f"{n:08d}", text) for n, text in enumerate(texts)]
        grouped = {user: [Record(user, f"{user}a", text, first), Record(user, f"{user}b", "", first)] for user, text in users}
        found: FloatArray = scores(model, self.encode(grouped, config))[:, 1]
        return found

    def respond(self, model: UnitModel, texts: Sequence[str], config: TrainingConfig) -> list[str]:
        """The top item for somebody of whom nothing is known: a text alone is no history."""
        with torch.no_grad():
            inputs = {"items": torch.zeros((1, 1), dtype=torch.int64), "tokens": torch.zeros((1, 1, 1), dtype=torch.int64)}
            best = model.outputs(inputs).argmax(-1)
        return [config.labels[int(best)]] * len(texts)

    def describe(self, config: TrainingConfig) -> dict[str, Json]:
        recipe, catalogue = config.recipe, _texts(config)
        return {
            "model": "two_tower",
            "labels": list(config.labels),
            "catalogue": {label: catalogue[label] for label in config.labels},
            "item_features": _FEATURES_PER_WIDTH * recipe.embedding_width,
            "hash_buckets": recipe.hash_buckets,
            "embedding_width": recipe.embedding_width,
            "max_tokens": recipe.max_tokens,
            "items": "features of the text (words and word pairs), each added with a sign to one of item_features places "
            "(bit 0 and the rest of blake2b-64 with person b'item'), scaled to length 1",
            "user": "h = tanh(taste(mean item features of the other records) + mean over them of the sum of their word "
            "embeddings over the root of the number of words); user = h + hidden(h), zero without other records",
            "score": "item(user) . features of the item + popularity of the item",
            "popularity": "learnt by the same mechanism as all else; no separate counts were taken",
        }


def item_features(texts: Sequence[str], width: int) -> FloatArray:
    """float32 [items, width]: public, signed hashes of the words (Weinberger et al. 2009), of length 1."""
    found = np.zeros((len(texts), width), dtype=np.float32)
    for row, text in enumerate(texts):
        for feature in features(text):
            digest = blake2b(feature.encode("utf-8", "replace"), digest_size=8, person=b"item").digest()
            value = int.from_bytes(digest, "big")
            found[row, (value >> 1) % width] += 1.0 if value & 1 else -1.0
    scaled: FloatArray = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1.0)
    return scaled


def hit_rate(ranked: npt.NDArray[np.floating], data: UnitData, seen: npt.NDArray[np.bool_], asked: np.ndarray) -> float:
    """Share of the `asked` records whose item is among the first ten that the user has not `seen`."""
    return float(hits(ranked, data, seen, asked)[asked].mean())


def hits(
    ranked: npt.NDArray[np.floating], data: UnitData, seen: npt.NDArray[np.bool_], asked: np.ndarray
) -> npt.NDArray[np.float64]:
    """float64 [units, records]: of the `asked` records, whether the item is among the first ten not `seen`; NaN of others.

    ranked: [items] or [units, records, items]. Of tied items that don't all fit, a share counts.
    """
    found = np.full(data.labels.shape, np.nan)
    ranked = np.broadcast_to(ranked, seen.shape)
    for unit in np.flatnonzero(asked.any(1)):
        columns = asked[unit]
        values = np.where(seen[unit, columns], -np.inf, ranked[unit, columns])
        target = np.take_along_axis(values, data.labels[unit, columns][:, None], 1)
        above, level = (values > target).sum(1), (values == target).sum(1)
        found[unit, columns] = np.clip((_SHOWN - above) / level, 0.0, 1.0)
    return found


def _chosen_elsewhere(data: UnitData, items: int) -> npt.NDArray[np.bool_]:
    """bool [units, records, items]: what the unit's other records chose, and not this one."""
    one_hot = (data.labels[:, :, None] == np.arange(items)) & data.present[:, :, None]
    found: npt.NDArray[np.bool_] = one_hot.any(1, keepdims=True) & ~one_hot
    return found


def _texts(config: TrainingConfig) -> Mapping[str, str]:
    catalogue = config.recipe.catalogue
    assert catalogue is not None  # the policy sees to it
    return catalogue


RECIPE = RecommendationRecipe()

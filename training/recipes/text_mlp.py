"""Hashed words into a small classifier: no vocabulary, no pretrained weights, seconds on one core."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from privacy.canonical import Json
from training.config import TrainingConfig
from training.data import Record, UnitData, build_units, token_ids
from training.evaluate import Utility, utility
from training.models.base import UnitModel
from training.models.text_mlp import TextMlp
from training.recipes.base import right_labels, seeded, synthetic_labels, text_scores, top_labels

HASHED_FEATURES = (
    "words and word pairs, lower-cased; characters and character pairs for CJK; digits as one sign; placeholders by type; "
    "blake2b-64 into 1..hash_buckets-1; 0 pads"
)


class HashedText:
    """The encoding that text_mlp and text_rnn share: public, unkeyed hashes of words."""

    classifies = True

    def encode(self, grouped: Mapping[str, Sequence[Record]], config: TrainingConfig) -> UnitData:
        buckets, length = config.recipe.hash_buckets, config.recipe.max_tokens

        def tokens(record: Record) -> dict[str, np.ndarray]:
            return {"tokens": np.array(token_ids(record.text, buckets, length), dtype=np.int32)}

        shapes = {"tokens": ((length,), np.int32)}
        return build_units(grouped, config.labels, config.max_records, tokens, shapes, ragged=("tokens",))

    def prepare(self, data: UnitData, config: TrainingConfig) -> UnitData:
        return data

    def synthetic(self, config: TrainingConfig, units: int) -> UnitData:
        labels = synthetic_labels(config, units)
        shape = (*labels.shape, config.recipe.max_tokens)
        tokens = np.random.default_rng(0).integers(1, config.recipe.hash_buckets, shape, dtype=np.int32)
        tokens[labels < 0] = 0
        return UnitData(tuple(str(n) for n in range(units)), {"tokens": tokens}, labels, ("tokens",))

    def utility(self, model: UnitModel, data: UnitData, config: TrainingConfig) -> Utility | None:
        return utility(model, data)

    def right(self, model: UnitModel, data: UnitData, config: TrainingConfig) -> np.ndarray:
        return right_labels(model, data)

    def respond(self, model: UnitModel, texts: Sequence[str], config: TrainingConfig) -> list[str]:
        return top_labels(self, model, texts, config)

    def label_scores(self, model: UnitModel, texts: Sequence[str], config: TrainingConfig) -> np.ndarray | None:
        return text_scores(self, model, texts, config)


class TextMlpRecipe(HashedText):
    def build(self, config: TrainingConfig) -> UnitModel:
        recipe = config.recipe
        labels, buckets, width = len(config.labels), recipe.hash_buckets, recipe.embedding_width
        return seeded(recipe.init_seed, lambda: TextMlp(labels, buckets, width, recipe.dropout))

    def describe(self, config: TrainingConfig) -> dict[str, Json]:
        return {
            "model": "text_mlp",
            "labels": list(config.labels),
            "hash_buckets": config.recipe.hash_buckets,
            "embedding_width": config.recipe.embedding_width,
            "max_tokens": config.recipe.max_tokens,
            "features": HASHED_FEATURES,
        }


RECIPE = TextMlpRecipe()

"""A recurrent net over hashed words in the order of the text: no vocabulary, no pretrained weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from privacy.canonical import Json
from training.config import TrainingConfig
from training.data import Record, UnitData, build_units, hashed, words
from training.models.base import UnitModel
from training.models.text_rnn import TextRnn
from training.recipes.base import seeded
from training.recipes.text_mlp import HashedText

_FEATURES = (
    "words in order, lower-cased; CJK character by character; digits as one sign; placeholders by type; "
    "blake2b-64 into 1..hash_buckets-1; 0 pads at the end"
)


class TextRnnRecipe(HashedText):
    def encode(self, grouped: Mapping[str, Sequence[Record]], config: TrainingConfig) -> UnitData:
        buckets, length = config.recipe.hash_buckets, config.recipe.max_tokens

        def tokens(record: Record) -> dict[str, np.ndarray]:
            return {"tokens": np.array(hashed(words(record.text)[:length], buckets), dtype=np.int32)}

        shapes = {"tokens": ((length,), np.int32)}
        return build_units(grouped, config.labels, config.max_records, tokens, shapes, ragged=("tokens",))

    def build(self, config: TrainingConfig) -> UnitModel:
        recipe, labels = config.recipe, len(config.labels)
        shape = (labels, recipe.hash_buckets, recipe.embedding_width, recipe.hidden_layers)
        return seeded(recipe.init_seed, lambda: TextRnn(*shape, recipe.cell, recipe.dropout))

    def describe(self, config: TrainingConfig) -> dict[str, Json]:
        recipe = config.recipe
        return {
            "model": "text_rnn",
            "cell": recipe.cell,
            "labels": list(config.labels),
            "hash_buckets": recipe.hash_buckets,
            "embedding_width": recipe.embedding_width,
            "hidden_layers": recipe.hidden_layers,
            "max_tokens": recipe.max_tokens,
            "features": _FEATURES,
            "pooling": "mean of the last layer's states over the tokens that are there",
            "gates": "gru: reset, update, new (as torch.nn.GRU); lstm: input, forget, new, output; from_input takes all steps, "
            "from_state the state before",
        }


RECIPE = TextRnnRecipe()

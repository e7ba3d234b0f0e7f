"""Text encoders: from scratch over hashed words, or a pretrained one of which everything, its top, or adapters train.

Guarantee: vocabulary, tokenizer and pretrained weights are public, and their digest stands in the description; a unit's loss
depends on that unit alone. With `top_layers`, the frozen layers below run once over every record (`prepare`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import nn

from privacy.canonical import Json
from training.adapters import apply_adapters, default_targets
from training.config import TrainingConfig
from training.data import Record, UnitData
from training.evaluate import Utility
from training.models.base import UnitModel
from training.models.text_encoder import PretrainedBody, ScratchBody, TextEncoder, keep_top
from training.models.text_head import make_head
from training.pretrained import load_body
from training.recipes import frozen
from training.recipes.base import seeded, synthetic_labels
from training.recipes.measures import encoder_utility
from training.recipes.text_mlp import HASHED_FEATURES, HashedText


class TextEncoderRecipe(HashedText):
    """trains: scratch, full, lora, adapter or adalora."""

    def encode(self, grouped: Mapping[str, Sequence[Record]], config: TrainingConfig) -> UnitData:
        if config.recipe.trains == "scratch":
            return super().encode(grouped, config)
        return frozen.encode_tokens(grouped, config)

    def prepare(self, data: UnitData, config: TrainingConfig) -> UnitData:
        return data if config.recipe.top_layers is None else frozen.states(data, config)

    def build(self, config: TrainingConfig) -> UnitModel:
        return seeded(config.recipe.init_seed, lambda: self._build(config)).train()  # from_pretrained evaluates

    def _build(self, config: TrainingConfig) -> UnitModel:
        recipe = config.recipe
        body = self._scratch(config) if recipe.trains == "scratch" else self._pretrained(config)
        width = recipe.embedding_width if isinstance(body, ScratchBody) else frozen.public_weights(config).width
        return TextEncoder(body, make_head(width, config.labels, recipe.label_separator), recipe.dropout)

    def _scratch(self, config: TrainingConfig) -> ScratchBody:
        recipe = config.recipe
        shape = (recipe.hash_buckets, recipe.max_tokens, recipe.embedding_width, recipe.hidden_layers, recipe.heads)
        return ScratchBody(*shape, recipe.dropout)

    def _pretrained(self, config: TrainingConfig) -> PretrainedBody:
        recipe, found = config.recipe, frozen.public_weights(config)
        body = PretrainedBody(load_body(found), found.model_type, found.pad_id)
        for module in body.modules():
            if isinstance(module, nn.Dropout):
                module.p = recipe.dropout
        if recipe.trains == "full":
            body.network.requires_grad_(True)
        if recipe.top_layers is not None:
            keep_top(body, recipe.top_layers)
        if recipe.trains in ("lora", "adapter", "adalora"):
            apply_adapters(body.network, recipe.trains, recipe.rank, default_targets(found.model_type, recipe.trains))
        return body

    def synthetic(self, config: TrainingConfig, units: int) -> UnitData:
        if config.recipe.trains == "scratch":
            return super().synthetic(config, units)
        labels = synthetic_labels(config, units)
        generator, length = np.random.default_rng(0), config.recipe.max_tokens
        names = tuple(str(n) for n in range(units))
        tokens = generator.integers(1, 100, (*labels.shape, length), dtype=np.int32)
        tokens[labels < 0] = 0
        if config.recipe.top_layers is None:
            return UnitData(names, {"tokens": tokens}, labels, ("tokens",))
        width = frozen.public_weights(config).width
        states = generator.standard_normal((*tokens.shape, width)).astype(np.float16) * (tokens != 0)[..., None]
        return UnitData(names, {"tokens": tokens, "states": states.astype(np.float16)}, labels, ("tokens", "states"))

    def utility(self, model: UnitModel, data: UnitData, config: TrainingConfig) -> Utility | None:
        return encoder_utility(self, model, data, config)

    def describe(self, config: TrainingConfig) -> dict[str, Json]:
        recipe = config.recipe
        described: dict[str, Json] = {
            "model": recipe.model,
            "trains": recipe.trains,
            "labels": list(config.labels),
            "label_separator": recipe.label_separator,
            "max_tokens": recipe.max_tokens,
            "pooling": "mean of the last states of a record's tokens",
            "answers": dict(recipe.answers),
        }
        if recipe.trains == "scratch":
            names = ("hash_buckets", "embedding_width", "hidden_layers", "heads")
            return {**described, **{n: getattr(recipe, n) for n in names}, "features": HASHED_FEATURES}
        described |= frozen.public_weights(config).describe()
        described["text"] = "placeholders as lower-case words of their type, then the tokenizer of the pretrained model"
        if recipe.trains in ("lora", "adapter", "adalora"):
            described["rank"] = recipe.rank
        if recipe.top_layers is not None:
            described["top_layers"] = recipe.top_layers
        return described


RECIPE = TextEncoderRecipe()

"""The recipes by `recipe.model`; each module is imported when its recipe is asked for, since some need heavy libraries."""

from __future__ import annotations

from importlib import import_module

from training.config import TrainingConfig
from training.recipes.base import Recipe

_MODULES = {
    "text_mlp": "training.recipes.text_mlp",
    "text_head": "training.recipes.text_head",
    "text_encoder": "training.recipes.text_encoder",
    "text_rnn": "training.recipes.text_rnn",
    "image_cnn": "training.recipes.images",
    "causal_lm": "training.recipes.private_text",
    "two_tower": "training.recipes.recommendation",
}


def recipe_of(config: TrainingConfig) -> Recipe:
    """Each module holds its recipe as RECIPE."""
    found: Recipe = import_module(_MODULES[config.recipe.model]).RECIPE
    return found

"""The learning rate of each step: warm-up, then constant, or down to zero in a line or half a cosine. Public numbers only."""

from __future__ import annotations

import math

from privacy.policy_recipe import Recipe


def learning_rate_at(recipe: Recipe, step: int) -> float:
    """Of step `step`, counted from 0; rises over `warmup_steps` to `learning_rate`, whose fall ends after the last step.

    The last step still moves: with n steps after the warm-up, the last one has 1/n of the way to zero before it (linear).
    """
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / (recipe.warmup_steps + 1)
    done = min(1.0, (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps))
    match recipe.schedule:
        case "constant":
            return recipe.learning_rate
        case "linear":
            return recipe.learning_rate * (1 - done)
        case "cosine":
            return recipe.learning_rate * (1 + math.cos(math.pi * done)) / 2

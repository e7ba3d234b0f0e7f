"""What a model is, in a sentence for its card, by the architecture that the policy names.

Guarantee: says only what the policy and the architecture say; of images it says that nobody searched them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.images import NOT_SEARCHED

if TYPE_CHECKING:
    from privacy.policy import Policy

_TAGS = {"image_cnn": "image-classification", "causal_lm": "text-generation", "two_tower": "other"}


def pipeline_tag(policy: Policy) -> str:
    """The word by which model hubs sort it."""
    return _TAGS.get(policy.recipe.model, "text-classification")


def what_it_does(policy: Policy, labels: str) -> str:
    """labels: the label set, already escaped for where this text goes."""
    recipe, count, languages = policy.recipe, len(policy.expectations.labels), ", ".join(policy.languages)
    if recipe.model == "image_cnn" and recipe.image_size is not None:
        height, width = recipe.image_size
        return (
            f"Classifies a grey image of {height} x {width} pixels (height x width) into one of {count} labels: {labels}. "
            + NOT_SEARCHED
        )
    if recipe.model == "causal_lm":
        return (
            f"Writes texts ({languages}) of one of {count} labels: {labels}. It was trained on de-identified text only. "
            "What it writes can repeat what it learnt, within the privacy claim: redact it before anybody reads it "
            "(`privet synthesize` does)."
        )
    if recipe.model == "two_tower":
        return (
            f"Recommends {count} items of a public catalogue to a {policy.privacy_unit.name}, from the other records of that "
            f"{policy.privacy_unit.name}: {labels}. It was trained on de-identified text only."
        )
    return (
        f"Classifies a text ({languages}) into one of {count} labels: {labels}. "
        "It was trained on de-identified text only; give it text that went through the same de-identification."
    )

"""The model card: what the model is for, what its privacy claim covers and does not, in Markdown with a YAML head.

Guarantee: every figure comes from the mechanism trace, the policy or a recorded verdict; text of the policy is escaped,
so that it can't add fields or markup. Claims nothing beyond them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline.model_words import pipeline_tag, what_it_does
from privacy.accounting import MechanismTrace, privacy_statement
from privacy.canonical import Digest, Scalar
from privacy.verdict import Verdict

if TYPE_CHECKING:
    from privacy.policy import Policy

_SHOWN_LABELS = 100
_MARKUP = re.compile(r"([\\`*_{}\[\]<>()#+!|~&])")


def model_card(
    policy: Policy, trace: MechanismTrace | None, verdicts: Sequence[Verdict], model: Digest, facts: Mapping[str, Scalar]
) -> str:
    """The text of CARD.md. facts: `stage.fact` → value, of which the utility figures are shown."""
    parts = [
        _head(policy, trace, model),
        f"# {policy.name}\n",
        f"{_plain(policy.purpose)}\n\nAnswerable for the processing: {_plain(policy.controller)}.\n",
        "## What it does\n",
        what_it_does(policy, _listed([_plain(label) for label in policy.expectations.labels])) + "\n",
        "## Privacy claim\n",
        _plain_paragraphs(privacy_statement(trace)) if trace else _NO_CLAIM,
        "## Evidence\n",
        "| check | outcome | what was seen |\n|---|---|---|",
        *[f"| {_plain(v.check)} | {v.outcome} | {_plain(v.reason)} |" for v in verdicts],
        "\nAn epsilon lower bound from an audit is not a proof of privacy: it can refute the claim, never establish it.\n",
        "## Utility\n",
        *_utility(facts),
        "\nComputed exactly from units kept out of training; outside the privacy claim.\n",
        "## Limits\n",
        "- The claim covers the released weights, not other copies of the data, nor what people already know.\n"
        "- The claim is per privacy unit; a person behind several units is protected less.\n"
        "- Detection of personal data before training misses some; the privacy claim does not depend on it.\n"
        "- Not measured: behaviour on text from other sources, and differences between groups of people.\n",
        "## Check it\n",
        "`privet verify BUNDLE --trust trust.json` needs no network; "
        "get `trust.json` from the controller, not from the bundle.\n",
    ]
    return "\n".join(parts)


def _listed(labels: Sequence[str]) -> str:
    """All of them, or of many the first ones: the policy in the bundle has them all."""
    more = f", and {len(labels) - _SHOWN_LABELS} more" if len(labels) > _SHOWN_LABELS else ""
    return ", ".join(labels[:_SHOWN_LABELS]) + more


_NO_CLAIM = "None. This model was not trained with a differentially private mechanism, and may not be released.\n"


def _head(policy: Policy, trace: MechanismTrace | None, model: Digest) -> str:
    """YAML whose strings are JSON strings: every JSON string is a YAML string, so none can break out."""
    rows: list[tuple[str, Scalar]] = [
        ("library_name", "pytorch"),
        ("pipeline_tag", pipeline_tag(policy)),
        ("model_sha256", model),
        ("dataset", policy.dataset),
    ]
    claim: list[tuple[str, Scalar]] = [("mechanism", policy.recipe.mechanism)]
    if trace is not None:
        claim += [
            ("epsilon", trace.epsilon),
            ("delta", trace.delta),
            ("privacy_unit", trace.privacy_unit),
            ("neighbouring_relation", trace.neighbouring_relation),
            ("noise_multiplier", trace.noise_multiplier),
            ("clipping_norm", trace.clipping_norm),
            ("sampling_probability", trace.sampling_probability),
            ("steps", trace.steps),
            ("accountant", trace.accountant),
        ]
    languages = ["language:", *(f"- {json.dumps(code)}" for code in policy.languages)]
    lines = [
        *languages,
        *(f"{k}: {json.dumps(v)}" for k, v in rows),
        "privacy:",
        *(f"  {k}: {json.dumps(v)}" for k, v in claim),
    ]
    return "---\n" + "\n".join(lines) + "\n---\n"


def _utility(facts: Mapping[str, Scalar]) -> list[str]:
    shown = {k: v for k, v in facts.items() if "accuracy" in k or "majority" in k}
    if not shown:
        return ["Not measured."]
    return [
        f"- {_plain(name)}: {value:.4g}" if isinstance(value, float) else f"- {_plain(name)}: {value}"
        for name, value in shown.items()
    ]


def _plain(text: str) -> str:
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))


def _plain_paragraphs(text: str) -> str:
    return "\n\n".join(_plain(part) for part in re.split(r"\n\s*\n", text)) + "\n"

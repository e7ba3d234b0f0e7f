"""The model card: what the model is for, what its privacy claim covers and does not; Markdown under a model hub's YAML head.

Guarantee: every figure comes from the mechanism trace, the published bounds, the policy or a recorded verdict, and the verifier
compares the head with them; text of the policy is escaped, so that it can't add fields or markup. The head is YAML that is
JSON line by line, so that the verifier needs no YAML. Not covered: a licence, which no policy states.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from pipeline.model_words import pipeline_tag, what_it_does
from pipeline.paper_claims import VERIFY, card_utility, plain_markdown
from pipeline.paper_facts import ReleaseFacts
from pipeline.report_statement import lay_markdown
from privacy.accounting import privacy_statement
from privacy.canonical import Json, Scalar

_SHOWN_LABELS = 100


def model_card(about: ReleaseFacts) -> str:
    """The text of CARD.md."""
    policy, trace = about.policy, about.trace
    parts = [
        _head(about),
        f"# {policy.name}\n",
        f"{plain_markdown(policy.purpose)}\n\nAnswerable for the processing: {plain_markdown(policy.controller)}.\n",
        "## What it does\n",
        what_it_does(policy, _listed([plain_markdown(label) for label in policy.expectations.labels])) + "\n",
        "## Privacy claim\n",
        _plain_paragraphs(privacy_statement(trace)) if trace else _NO_CLAIM,
        lay_markdown(trace, plain_markdown) if trace else "",
        "## Evidence\n",
        "| check | outcome | what was seen |\n|---|---|---|",
        *[f"| {plain_markdown(v.check)} | {v.outcome} | {plain_markdown(v.reason)} |" for v in about.verdicts],
        "\nAn epsilon lower bound from an audit is not a proof of privacy: it can refute the claim, never establish it.\n",
        "## Utility\n",
        *_utility(about.utility),
        "\nComputed exactly from units kept out of training; outside the privacy claim.\n",
        "## Limits\n",
        "\n".join(f"- {limit}" for limit in LIMITS) + "\n",
        "## Check it\n",
        f"`{VERIFY}` needs no network; get `trust.json` from the controller, not from the bundle. "
        "`bom.cdx.json` (CycloneDX) and `spdx.json` (SPDX 3) say the same for machines.\n",
    ]
    return "\n".join(parts)


# Also what the other papers give as limits.
LIMITS = (
    "The claim covers the released weights, not other copies of the data, nor what people already know.",
    "The claim is per privacy unit; a person behind several units is protected less.",
    "Detection of personal data before training misses some; the privacy claim does not depend on it.",
    "Not measured: behaviour on text from other sources.",
)


def _listed(labels: Sequence[str]) -> str:
    """All of them, or of many the first ones: the policy in the bundle has them all."""
    more = f", and {len(labels) - _SHOWN_LABELS} more" if len(labels) > _SHOWN_LABELS else ""
    return ", ".join(labels[:_SHOWN_LABELS]) + more


_NO_CLAIM = "None. This model was not trained with a differentially private mechanism, and may not be released.\n"


def _head(about: ReleaseFacts) -> str:
    """Fields of a Hugging Face model card, and a block of our own. No name in it can hold more than letters, digits and _."""
    policy = about.policy
    top: dict[str, Json] = {
        "language": list(policy.languages),
        "library_name": "pytorch",
        "pipeline_tag": pipeline_tag(policy),
        "tags": ["differential-privacy", "privet"],
        "model-index": [{"name": policy.name, "results": _results(about)}] if about.utility else None,
        "model_sha256": about.model.sha256,
        "dataset": policy.dataset,
    }
    lines = [f"{name}: {_flow(value)}" for name, value in top.items() if value is not None]
    lines += ["privacy:", *(f"  {name}: {_flow(value)}" for name, value in {**about.figures, "verify": VERIFY}.items())]
    return "---\n" + "\n".join(lines) + "\n---\n"


def _results(about: ReleaseFacts) -> list[Json]:
    task: Json = {"type": pipeline_tag(about.policy)}
    dataset: Json = {"type": "private", "name": f"{about.policy.dataset}, units kept out of training"}
    metrics = card_utility(about.utility)
    return [{"task": task, "dataset": dataset, "metrics": metrics}] if metrics else []


def _flow(value: Json) -> str:
    """JSON on one line, which is YAML but for three things: 1e-05 is a word in YAML 1.1, which wants a point; a DEL must be
    escaped; and a pair of surrogates is not one character (no name in the head can hold any)."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flow(name)}: {_flow(item)}" for name, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    text = json.dumps(value).replace("\x7f", "\\u007f")
    return re.sub(r"^(-?\d+)e", r"\1.0e", text) if isinstance(value, float) else text


def _utility(facts: Mapping[str, Scalar]) -> list[str]:
    if not facts:
        return ["Not measured."]
    return [
        f"- {plain_markdown(name)}: {value:.4g}" if isinstance(value, float) else f"- {plain_markdown(name)}: {value}"
        for name, value in facts.items()
    ]


def _plain_paragraphs(text: str) -> str:
    return "\n\n".join(plain_markdown(part) for part in re.split(r"\n\s*\n", text)) + "\n"

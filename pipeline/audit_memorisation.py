"""Verbatim memorisation: does what a language model writes hold spans that stand in few people's records?

Guarantee: an index of all texts of the protected dataset is made in memory under a key drawn for it, and ends with the audit;
what is flagged is exact (`privacy.winnow`). The document holds counts, and never a span or whose it is.
Not covered: what the model would write if it were asked more, or otherwise. Texts are drawn as `privet synthesize` draws them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.audit_case import AuditCase
from privacy.canonical import Digest, Json
from privacy.verdict import Verdict

if TYPE_CHECKING:
    from pipeline.home import Home
    from privacy.policy import Policy
    from privacy.winnow import SpanIndex
    from training.config import TrainingConfig
    from training.models.causal_lm import CausalLm

CHECK = "audit.memorisation"


def memorisation(case: AuditCase) -> tuple[str, tuple[Verdict, ...], Json]:
    """Nothing for a model that writes no text."""
    from training.models.causal_lm import CausalLm

    policy, opened = case.ctx.policy, case.opened
    if policy.recipe.model != "causal_lm":
        return "memorisation", (), {}
    if opened is None or not isinstance(opened.model, CausalLm):
        return "memorisation", (Verdict(CHECK, "not_evaluated", "there is no language model that could write"),), {}
    asked = policy.audit.memorisation
    index = span_index(case.ctx.home, policy, case.protect_digest)
    if index is None:
        return "memorisation", (Verdict(CHECK, "not_evaluated", "there are no protected texts to compare with"),), {}
    flagged = memorised_spans(index, policy, _written(opened.model, opened.config, asked.samples))
    spans = sum(flagged)
    rule = f"of {asked.signs} signs or more in records of fewer than {asked.subjects} people"
    said = f"{spans} spans {rule}, in {asked.samples} texts ({asked.max_spans} allowed)"
    document: dict[str, Json] = {
        "texts": asked.samples,
        "spans": spans,
        "texts_with_spans": sum(map(bool, flagged)),
        "max_spans": asked.max_spans,
        "signs": asked.signs,
        "subjects": asked.subjects,
        "protection": "none: exact, computed from real units, outside the privacy claim",
    }
    return "memorisation", (Verdict(CHECK, "passed" if spans <= asked.max_spans else "failed", said),), document


def span_index(home: Home, policy: Policy, protect: Digest) -> SpanIndex | None:
    """Of the texts of a protected dataset as a language model is shown them; None where there is none. Keep it in memory only.

    protect: digest of its manifest. Raises what reading a protected dataset raises.
    """
    from pipeline.read import read_protected
    from pipeline.stage import load_manifest
    from privacy.winnow import SpanIndex
    from training.text_codec import plain

    table = read_protected(home, load_manifest(home, protect))
    units, texts = table["unit"].to_pylist(), table["text"].to_pylist()
    if not any(texts):
        return None
    records = ((unit, plain(text or "")) for unit, text in zip(units, texts, strict=True))
    return SpanIndex(records, policy.audit.memorisation.signs, os.urandom(32))


def memorised_spans(index: SpanIndex, policy: Policy, texts: Sequence[str]) -> list[int]:
    """How many spans of each text stand in the records of at least one person and of fewer than the policy asks for."""
    return [len(index.rare_spans(text, policy.audit.memorisation.subjects)) for text in texts]


def _written(model: CausalLm, config: TrainingConfig, samples: int) -> list[str]:
    """Label by label in turns, unredacted: what the model repeats is looked for, not what redaction leaves of it."""
    from pipeline.synthesize import Style
    from training.recipes.private_text import write

    style, labels = Style(), len(config.labels)
    texts: list[str] = []
    for label in range(labels):
        count = samples // labels + (label < samples % labels)
        for start in range(0, count, 64):
            drawn = min(64, count - start)
            texts += write(model, config, label, drawn, temperature=style.temperature, top_k=style.top_k, seed=style.seed)
    return texts

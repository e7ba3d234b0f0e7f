"""How the model treats groups: utility by group, answers when a term of identity is swapped, and harm in what it writes.

Guarantee: the verdict follows from what is published, with its limits from the policy: point estimates decide, and the interval
beside each says how sure they are. Whatever a policy asks for and could not be computed is "not evaluated", which blocks.
What makes no sense for a kind of model is named with its reason, never passed over.
Not covered: groups that nobody declared, harm that no text or term here shows, and whether the people who set the limits chose
well. Utility by group is exact and outside the privacy claim; swaps and written texts are post-processing of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pipeline.audit_case import AuditCase, Opened, Part
from pipeline.evidence import required_verdicts
from pipeline.harm_classifier import NoAnswer, ask_classifier
from pipeline.stage import StageContext
from privacy.canonical import Json, canonical_json, digest_bytes
from privacy.errors import DataError, PrivetError
from privacy.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from privacy.policy import Policy
    from training.harm_groups import GroupTable

CHECK = "audit.group_harm"
_WRITTEN = 32  # texts that the classifier judges
_FEWEST = _WRITTEN // 2  # of these, that are left after redaction: or a model could hide behind what is withheld
PROTECTION = (
    "groups: exact, from holdout units, rounded, outside the privacy claim; groups under min_group withheld, and others with "
    "them where one could be told from the rest. swaps, classifier: made-up and written texts, post-processing of the model"
)


@dataclass(frozen=True, slots=True)
class _Found:
    """What one part of this check says. failed, missing: reasons, in words of ours."""

    document: Mapping[str, Json] = field(default_factory=dict)
    said: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def harm(case: AuditCase) -> Part:
    """Document: harm. Verdict audit.group_harm, where the policy asks for any part of it."""
    policy, opened = case.ctx.policy, case.opened
    inapplicable = not_applicable(policy)
    looks = {"groups": _groups, "swaps": _swaps, "classifier": _classifier}
    parts = {name: _look(case, look, name in inapplicable, opened) for name, look in looks.items()}
    asked = policy.audit.harm
    document: dict[str, Json] = {
        **{name: dict(found.document) for name, found in parts.items()},
        "not_applicable": dict(inapplicable),
        "limits": {
            "min_group": asked.min_group,
            "max_gap": asked.max_gap,
            "max_swap_rate": asked.max_swap_rate,
            "max_harm_rate": asked.max_harm_rate,
        },
        "level": policy.audit.report_level,
        "protection": PROTECTION,
    }
    if CHECK not in required_verdicts(policy.canonical()):  # type: ignore[arg-type]
        return Part(documents={"harm": document})
    verdict = _verdict(list(parts.values()), digest_bytes(canonical_json(document)))
    return Part((verdict,), {"harm": document})


def not_applicable(policy: Policy) -> dict[str, str]:
    """Parts that this policy or this kind of model has no use for, each with the reason."""
    model, asked = policy.recipe.model, policy.audit.harm
    found = {}
    if not asked.groups:
        found["groups"] = "the policy names no field in audit.harm.groups"
    if not asked.swaps:
        found["swaps"] = "the policy asks for none"
    elif model == "image_cnn":
        found["swaps"] = "the model reads images, and no text"
    elif model == "causal_lm":
        found["swaps"] = "the model writes, and takes no text to answer"
    if model != "causal_lm":
        found["classifier"] = "the model writes nothing: its answers are declared labels"
    elif asked.classifier is None:
        found["classifier"] = "the policy names no audit.harm.classifier, so what the model writes was not judged"
    return found


def _look(case: AuditCase, look: Callable[[AuditCase, Opened], _Found], inapplicable: bool, opened: Opened | None) -> _Found:
    if inapplicable:
        return _Found()
    if opened is None:
        return _Found(missing=("there is no model to look at",))
    return look(case, opened)


def _verdict(parts: Sequence[_Found], evidence: str) -> Verdict:
    failed = [reason for part in parts for reason in part.failed]
    missing = [reason for part in parts for reason in part.missing]
    said = [reason for part in parts for reason in part.said]
    if not failed + missing + said:
        missing = ["nothing was looked at"]
    outcome: Outcome = "failed" if failed else "not_evaluated" if missing else "passed"
    return Verdict(CHECK, outcome, "; ".join(dict.fromkeys(failed + missing + said)), evidence)


def _groups(case: AuditCase, opened: Opened) -> _Found:
    from pipeline.harm_cells import values_of

    asked = case.ctx.policy.audit.harm
    try:
        values = values_of(case.ctx, case.protect_digest, opened.holdout, asked.groups)
    except DataError as error:
        return _Found(missing=(error.cause,))
    tables = group_tables(case.ctx.policy, opened, values)
    failed, missing, said = [], [], []
    for name, table in tables.items():
        if table.gap is None:
            missing.append(f"fewer than two groups of {name} have {asked.min_group} holdout units, so none were compared")
        elif table.gap > asked.max_gap:
            failed.append(f"accuracy by {name} lies {table.gap:g} apart, over {asked.max_gap:g}")
        else:
            small = f", {table.withheld} small groups as one" if table.withheld else ""
            said.append(
                f"accuracy by {name} lies {table.gap:g} apart ({_limit(asked.max_gap)}){small}, exact, outside the claim"
            )
    document: dict[str, Json] = {name: table.to_json() for name, table in tables.items()}
    return _Found(document, tuple(said), tuple(failed), tuple(missing))


def group_tables(policy: Policy, opened: Opened, values: Mapping[str, np.ndarray]) -> dict[str, GroupTable]:
    """By field. values: object [units, max_records], the group of each holdout record."""
    from training.evaluate import predictions
    from training.harm_groups import Cells, group_table
    from training.recipes import recipe_of

    recipe, model, holdout = recipe_of(opened.config), opened.model, opened.holdout
    right = recipe.right(model, holdout, opened.config)
    labelled = recipe.classifies and policy.recipe.model != "two_tower"  # items are ranked, not told apart
    predicted = predictions(model, holdout) if labelled else None
    found = {}
    for name, value in values.items():
        rows, columns = np.nonzero(holdout.present & ~np.isnan(right) & (value != ""))
        empty = np.zeros(0, dtype=np.int64)
        cells = Cells(
            value[rows, columns],
            rows.astype(np.int64),
            right[rows, columns],
            empty if predicted is None else predicted[rows, columns],
            empty if predicted is None else holdout.labels[rows, columns],
        )
        found[name] = group_table(cells, policy.expectations.labels, policy.audit.harm.min_group, policy.audit.report_level)
    return found


def _swaps(case: AuditCase, opened: Opened) -> _Found:
    from training.harm_swaps import swap_figures, swap_texts
    from training.harm_terms import CONTROL
    from training.recipes import recipe_of

    policy = case.ctx.policy
    asked = policy.audit.harm
    texts = swap_texts(policy.expectations.labels, policy.languages, asked.swap_terms)
    wordings = [wording for text in texts for wording in text.wordings]
    scores = recipe_of(opened.config).label_scores(opened.model, wordings, opened.config)
    if scores is None or not np.isfinite(scores).all():
        return _Found(missing=("the model gave no finite scores for the made-up texts",))
    found = swap_figures(texts, scores, policy.audit.report_level)
    whole = found.pop("").to_json()
    control = found.pop(CONTROL).to_json()
    document = {**whole, "by_term_group": {name: by.to_json() for name, by in found.items()}, "neutral_terms": control}
    rate = whole["changed_rate"]
    assert isinstance(rate, float)
    said = f"a swapped term of identity changes the answer to {rate:g} of made-up texts"
    besides = f"{said} ({_limit(asked.max_swap_rate)}; a neutral term: {control['changed_rate']})"
    if rate > asked.max_swap_rate:
        return _Found(document, failed=(f"{said}, over {asked.max_swap_rate:g}",))
    return _Found(document, said=(besides,))


def _classifier(case: AuditCase, opened: Opened) -> _Found:
    """Judges what a reader would get: written texts after redaction, and those only that redaction shows to be clean."""
    from training.harm_groups import down, up, wilson

    asked = case.ctx.policy.audit.harm
    assert asked.classifier is not None
    try:
        texts = _written(case.ctx, opened)
    except (PrivetError, ImportError) as error:
        return _Found(missing=(f"the texts could not be redacted ({getattr(error, 'code', type(error).__name__)})",))
    if len(texts) < _FEWEST:
        return _Found(missing=(f"the model wrote fewer than {_FEWEST} texts that redaction shows to be clean",))
    answer = ask_classifier(asked.classifier, texts)
    if isinstance(answer, NoAnswer):
        return _Found(missing=(f"the harm classifier gave no answer: {answer.reason}",))
    share = sum(answer) / len(answer)
    rate = up(share)
    low, high = wilson(share, len(answer), case.ctx.policy.audit.report_level)
    document: dict[str, Json] = {
        "classifier": asked.classifier,
        "texts": len(texts),
        "withheld": _WRITTEN - len(texts),
        "harmful_rate": rate,
        "interval": [down(low), up(high)],
        "meaning": "what this classifier calls harmful; it is the policy's own, and nobody here measured it",
    }
    said = f"the policy's classifier calls {rate:g} of written texts harmful"
    if rate > asked.max_harm_rate:
        return _Found(document, failed=(f"{said}, over {asked.max_harm_rate:g}",))
    return _Found(document, said=(f"{said} ({_limit(asked.max_harm_rate)})",))


def _written(ctx: StageContext, opened: Opened) -> list[str]:
    """Redacted, and without those that are empty or can't be shown to be clean."""
    from pipeline.treatment import output_detector, own_spans_of
    from privacy.redact import OutputRedactor
    from training.recipes import recipe_of

    redactor = OutputRedactor(output_detector(ctx.policy), (), own_spans_of(ctx.policy))
    found = []
    for text in recipe_of(opened.config).respond(opened.model, [""] * _WRITTEN, opened.config):
        try:
            redacted = redactor.redact(text).text
        except DataError as error:
            if error.code != "E-REDACT-001":
                raise
            continue
        if redacted.strip():
            found.append(redacted)
    return found


def _limit(most: float) -> str:
    return "reported only" if most >= 1 else f"{most:g} allowed"

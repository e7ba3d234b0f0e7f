"""What the model says: is it of use, does what it says hold personal data after redaction, and in which form may it leave?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pipeline.audit_case import AuditCase, Opened, Part
from pipeline.audit_exposure import shown_secrets
from pipeline.stage import StageContext
from privacy.canonical import Json
from privacy.errors import PrivetError
from privacy.verdict import Verdict

if TYPE_CHECKING:
    from pipeline.output_scan import OutputScan, Prompt
    from privacy.policy import Policy
    from privacy.redact import OutputRedactor
    from privacy.redact_stream import StreamRedactor
    from training.data import UnitData


def outputs(case: AuditCase) -> Part:
    """Documents: predictions, redaction. A policy that asks for embeddings gets the verdict audit.embeddings, too."""
    policy = case.ctx.policy.outputs
    scanned, predictions, redaction = _scan_outputs(case.ctx, case.opened, shown_secrets(case))
    verdicts = [_utility_verdict(case.ctx, case.opened), scanned]
    vectors = "withheld"
    if policy.embeddings == "quantised":
        from pipeline.audit_embeddings import embeddings

        rows = predictions.get("prompts")
        prompts = [str(row["prompt"]) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        attacked, redaction["embeddings"], made = embeddings(case.opened, prompts)
        verdicts.append(attacked)
        if not attacked.blocks and not scanned.blocks:
            vectors, predictions["embeddings"] = "quantised", made
    redaction["may_leave"] = {"scores": policy.scores, "embeddings": vectors}
    return Part(tuple(verdicts), {"predictions": predictions, "redaction": redaction})


def _utility_verdict(ctx: StageContext, opened: Opened | None) -> Verdict:
    from training.recipes import recipe_of

    found = None if opened is None else recipe_of(opened.config).utility(opened.model, opened.holdout, opened.config)
    if found is None:
        return Verdict("audit.utility", "not_evaluated", "there is no model or no holdout unit to measure with")
    wanted = ctx.policy.audit.min_accuracy
    figures = f"commonest label: {found.majority:.3f}; wanted {wanted:g}; exact, outside the privacy claim"
    said = f"accuracy {found.accuracy:.3f} on holdout units ({figures})"
    return Verdict("audit.utility", "passed" if found.accuracy >= wanted else "failed", said)


def _scan_outputs(
    ctx: StageContext, opened: Opened | None, planted: Sequence[str] = ()
) -> tuple[Verdict, dict[str, Json], dict[str, Json]]:
    """Verdict, prediction table and redaction record; after any fault the table is empty, never unredacted.

    planted: secrets that the model was shown; what it writes may hold them, and they are taken out like any other.
    """
    from pipeline.output_redactor import redactor_digest
    from pipeline.output_scan import make_prompts, scan
    from training.recipes import recipe_of

    check, policy = "audit.output_scan", ctx.policy
    labels, allowed = policy.expectations.labels, policy.audit.max_output_leaks
    if opened is None:
        return Verdict(check, "not_evaluated", "there is no model whose outputs could be scanned"), {}, {"outputs": 0}
    prompts = make_prompts(labels)
    asked = _asked(prompts, labels, policy.languages)
    answers = recipe_of(opened.config).respond(opened.model, [p.text for p in asked], opened.config)
    ordered = [*asked, *(p for p in prompts if p not in asked)]
    try:
        listed = [*planted, *(p.value for p in prompts if p.listed)]
        found = scan(ordered, answers, _redactor(listed, policy), labels, _streams(listed, policy))
        digest = redactor_digest(policy)
    except (PrivetError, ImportError) as error:
        reason = f"the outputs could not be redacted ({getattr(error, 'code', type(error).__name__)})"
        return Verdict(check, "not_evaluated", reason), {}, {"outputs": 0}
    verdict = _scan_verdict(check, found, allowed)
    predictions = _predictions(policy, opened, found)
    if verdict.blocks:
        predictions["prompts"] = []  # a table that leaks is not written, even here
    return verdict, predictions, found.redaction_json(allowed, digest)


def _asked(prompts: Sequence[Prompt], labels: Sequence[str], languages: Sequence[str]) -> list[Prompt]:
    """Those that the model is asked: one a label, from the languages of the policy; each plants another kind where it can."""
    from privacy.detect import detect_language

    own = [p for p in prompts if detect_language(p.text) in languages] or list(prompts)
    step = max(1, len(own) // max(1, len(labels)))
    return own[::step][: max(len(labels), 8)]


def _scan_verdict(check: str, found: OutputScan, allowed: int) -> Verdict:
    said = (
        f"{found.leaks} of {found.planted} planted values survived redaction of whole texts, {found.stream_leaks} of"
        f" {found.streamed} that of streams ({allowed} allowed)"
    )
    return Verdict(check, "passed" if found.all_leaks <= allowed else "failed", said)


def _predictions(policy: Policy, opened: Opened, found: OutputScan) -> dict[str, Json]:
    """The table of answers in the form that the policy lets leave, and of holdout units by predicted label."""
    from training.evaluate import label_table
    from training.recipes import recipe_of

    recipe, minimum = recipe_of(opened.config), policy.outputs.min_subjects
    labels = policy.expectations.labels
    table = label_table(opened.model, opened.holdout, labels, minimum) if recipe.classifies else {}
    shares = _probabilities(policy, opened, [prompt for prompt, _ in found.rows])
    rows: list[Json] = [
        {"prompt": prompt, "label": label} | ({} if shares is None else {"probability": shares[place]})
        for place, (prompt, label) in enumerate(found.rows)
    ]
    return {
        "prompts": rows,
        "holdout_units_by_predicted_label": dict(table),
        "holdout_units": _holdout_units(opened.holdout, minimum),
        "minimum_units": minimum,
        "protection": "counts below the minimum are withheld, and those that would give one away; the others are exact and"
        " outside the privacy claim",
    }


def _probabilities(policy: Policy, opened: Opened, texts: Sequence[str]) -> list[float] | None:
    """Of the likeliest label of each text, to two decimals; None unless the policy lets it leave and there is one."""
    import numpy as np

    from training.recipes import recipe_of

    recipe = recipe_of(opened.config)
    scores = recipe.label_scores(opened.model, texts, opened.config) if recipe.classifies else None
    if policy.outputs.scores != "rounded" or scores is None:
        return None
    shifted = np.exp(scores - scores.max(1, keepdims=True))
    return [round(float(share), 2) for share in (shifted / shifted.sum(1, keepdims=True)).max(1)]


def _holdout_units(holdout: UnitData, minimum: int) -> int | None:
    return len(holdout) if len(holdout) >= minimum else None


def _redactor(secrets: Sequence[str], policy: Policy) -> OutputRedactor:
    from pipeline.output_redactor import output_redactor

    return output_redactor(policy, secrets)


def _streams(secrets: Sequence[str], policy: Policy) -> Callable[[], StreamRedactor]:
    from pipeline.output_redactor import stream_redactors

    return stream_redactors(policy, secrets)

"""What the model says: is it of use, and does what it says hold personal data after redaction?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.audit_case import AuditCase, Opened, Part
from pipeline.stage import StageContext
from privacy.canonical import Json
from privacy.errors import PrivetError
from privacy.verdict import Verdict

if TYPE_CHECKING:
    from privacy.policy import Policy
    from privacy.redact import OutputRedactor


def outputs(case: AuditCase) -> Part:
    """Documents: predictions, redaction."""
    scanned, predictions, redaction = _scan_outputs(case.ctx, case.opened)
    verdicts = (_utility_verdict(case.ctx, case.opened), scanned)
    return Part(verdicts, {"predictions": predictions, "redaction": redaction})


def _utility_verdict(ctx: StageContext, opened: Opened | None) -> Verdict:
    from training.recipes import recipe_of

    found = None if opened is None else recipe_of(opened.config).utility(opened.model, opened.holdout, opened.config)
    if found is None:
        return Verdict("audit.utility", "not_evaluated", "there is no model or no holdout unit to measure with")
    wanted = ctx.policy.audit.min_accuracy
    figures = f"commonest label: {found.majority:.3f}; wanted {wanted:g}; exact, outside the privacy claim"
    said = f"accuracy {found.accuracy:.3f} on holdout units ({figures})"
    return Verdict("audit.utility", "passed" if found.accuracy >= wanted else "failed", said)


def _scan_outputs(ctx: StageContext, opened: Opened | None) -> tuple[Verdict, dict[str, Json], dict[str, Json]]:
    """Verdict, prediction table and redaction record; after any fault the table is empty, never unredacted."""
    from pipeline.output_scan import make_prompts, scan
    from training.evaluate import MINIMUM_UNITS, label_table
    from training.recipes import recipe_of

    check, policy = "audit.output_scan", ctx.policy
    labels, allowed = policy.expectations.labels, policy.audit.max_output_leaks
    if opened is None:
        return Verdict(check, "not_evaluated", "there is no model whose outputs could be scanned"), {}, {"outputs": 0}
    prompts = make_prompts(labels, policy.languages)
    recipe, model = recipe_of(opened.config), opened.model
    predicted = recipe.respond(model, [p.text for p in prompts], opened.config)
    try:
        found = scan(prompts, predicted, _redactor([p.value for p in prompts if p.listed], policy), labels)
    except (PrivetError, ImportError) as error:
        reason = f"the outputs could not be redacted ({getattr(error, 'code', type(error).__name__)})"
        return Verdict(check, "not_evaluated", reason), {}, {"outputs": 0}
    predictions: dict[str, Json] = {
        "prompts": [{"prompt": prompt, "label": label} for prompt, label in found.rows],
        "holdout_units_by_predicted_label": label_table(model, opened.holdout, labels) if recipe.classifies else {},
        "minimum_units": MINIMUM_UNITS,
        "protection": "counts below the minimum are withheld; the others are exact and outside the privacy claim",
    }
    said = f"{found.leaks} of {found.planted} planted values survived redaction ({allowed} allowed)"
    verdict = Verdict(check, "passed" if found.leaks <= allowed else "failed", said)
    if verdict.blocks:
        predictions["prompts"] = []  # a table that leaks is not written, even here
    return verdict, predictions, found.redaction_json(allowed)


def _redactor(secrets: Sequence[str], policy: Policy) -> OutputRedactor:
    from pipeline.treatment import output_detector, own_spans_of
    from privacy.redact import OutputRedactor

    return OutputRedactor(output_detector(policy), secrets, own_spans_of(policy))

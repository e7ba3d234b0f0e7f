"""Audits a trained model and records what was found: verdicts of three values, bounds, attacks, and outputs that were redacted.

Guarantee: a verdict passes only when its check was computed; whatever could not be computed is "not evaluated", which blocks a
release. A failed verdict is recorded, never raised. Each part writes its own document; see the modules named audit_*.
"""

from __future__ import annotations

from collections.abc import Callable

from pipeline.audit_attacks import attacks
from pipeline.audit_case import AuditCase, Part, open_case
from pipeline.audit_conformance import conformance
from pipeline.audit_harm import harm
from pipeline.audit_outputs import outputs
from pipeline.stage import ArtifactRef, StageContext, StageOutput, StageResult, run_stage
from privacy.canonical import Digest, Json, Scalar, canonical_json
from privacy.verdict import Outcome

PARTS: tuple[Callable[[AuditCase], Part], ...] = (conformance, attacks, outputs, harm)
OF_THE_MODEL = PARTS[1:]  # what another file of the same model, a smaller one, has to pass by itself


def audit(ctx: StageContext, protect_digest: Digest, train_digest: Digest) -> StageResult:
    """Outputs: verdicts, bounds, attacks, predictions, redaction, harm (all plain). Raises when its inputs are not one run."""
    inputs = {"protect": protect_digest, "train": train_digest}
    return run_stage(ctx, "audit", inputs, lambda: _audit(ctx, open_case(ctx, protect_digest, train_digest)))


def _audit(ctx: StageContext, case: AuditCase) -> StageOutput:
    found: list[Part] = []
    for look in PARTS:
        found.append(look(case))
        ctx.progress("audit", len(found), len(PARTS))
    verdicts = [verdict for part in found for verdict in part.verdicts]
    written: dict[str, ArtifactRef] = {"verdicts": _plain(ctx, "verdicts", [v.to_json() for v in verdicts])}
    facts: dict[str, Scalar] = {}
    for part in found:
        written |= {name: _plain(ctx, name, document) for name, document in part.documents.items()}
        facts |= part.facts
    outcomes: tuple[Outcome, ...] = ("passed", "failed", "not_evaluated")
    return StageOutput(written, facts | {outcome: sum(v.outcome == outcome for v in verdicts) for outcome in outcomes})


def _plain(ctx: StageContext, name: str, value: Json) -> ArtifactRef:
    return ctx.home.store.put_plain(
        canonical_json(value), dataset=ctx.policy.dataset, path=f"audit/{name}.json", data_class="evidence"
    )

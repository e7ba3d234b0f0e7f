"""Does the run's own sealed record fit the mechanism it claims, and do bounds from its canaries refute the claimed epsilon?

Guarantee: a verdict passes only when its check was computed from the run's own sealed record. The batch membership of real
units is read here and stays here: only p-values leave.
Assumption: the trainer recorded honestly; the canary commitment, journalled before training, binds the coins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.attempts import approval_epsilon
from pipeline.audit_case import AuditCase, AuditTrail, Part
from pipeline.audit_claim import Claim
from pipeline.coin_claims import USED, open_coins, said_of
from pipeline.coins import opening_of, refusal
from pipeline.document_claims import REGISTERED
from pipeline.stage import Manifest, StageContext
from privacy import bounds
from privacy.canonical import Digest, Json, Scalar, canonical_json, digest_bytes
from privacy.errors import IntegrityError
from privacy.rounding import EXACT, shown_down, shown_up
from privacy.verdict import Verdict

if TYPE_CHECKING:
    from privacy.ledger import Spend
    from training.probe import CheckResult, RunRecord

GATE = REGISTERED  # the bound that decides, registered before any run; the others are told beside it


@dataclass(frozen=True, slots=True)
class Bound:
    """One lower bound on epsilon; `capped`: the scores carried no noise, so any claim is refuted."""

    name: str
    level: float
    epsilon_lower_bound: float
    assumes: str

    def to_json(self) -> dict[str, Json]:
        capped = self.epsilon_lower_bound >= bounds.EPSILON_CAP
        return {
            "name": self.name,
            "level": self.level,
            "epsilon_lower_bound": self.epsilon_lower_bound,
            "capped": capped,
            "assumes": self.assumes,
        }


def conformance(case: AuditCase) -> Part:
    """The probe, the lower bounds, the ledger's word and the reveal of the coins. Document: bounds."""
    ctx, claim, trail = case.ctx, case.claim, case.trail
    probed = _probe(ctx, trail)
    found = [] if trail is None else lower_bounds(ctx, trail.record, claim)
    # Coins of canaries are nobody's membership, and mean nothing without the gradients, which never leave.
    revealed: dict[str, Json] = {} if trail is None else {"canary_opening": opening_of(trail.coins)}
    document = _bounds_json(ctx, claim, found, probed) | revealed
    evidence = digest_bytes(canonical_json(document))
    verdicts = (
        *_probe_verdicts(ctx, probed, evidence),
        bound_verdict(found, claim, ctx.policy.audit.gate_level, evidence),
        ledger_verdict(claim, ctx.policy.budget.epsilon, _spend(ctx, claim), _together(ctx, claim)),
        _reveal_verdict(ctx, case.trained, case.train_digest, trail),
    )
    return Part(verdicts, {"bounds": document}, {"claimed_epsilon": claim.epsilon, **_published(ctx, found)})


def lower_bounds(ctx: StageContext, record: RunRecord, claim: Claim) -> list[Bound]:
    """Four bounds at the published level, and the registered one at the gate's; empty when there are too few canaries."""
    from training.attacks import poisson_scores, sum_scores, traced_gaussian_lower_bound

    if min(int(record.coins.sum()), int((~record.coins).sum())) < 5 or not np.isfinite(record.gradients).all():
        return []
    policy = ctx.policy.audit
    ratios = poisson_scores(
        record.gradients, claim.sampling_probability, claim.noise_multiplier * claim.factors, claim.clipping_norm
    )
    sums = sum_scores(record.gradients)
    inside, outside = sums[record.coins], sums[~record.coins]
    coins, report = record.coins, policy.report_level
    family = "independent, nearly Gaussian scores of disjoint coordinates"
    traced = f"{family}, and noise of mean zero that is unrelated from step to step, which the probe tests"
    return [
        Bound("steinke", report, bounds.steinke_lower_bound(ratios, coins, claim.delta, report), "fair secret coins only"),
        Bound("fdp", report, bounds.fdp_lower_bound(ratios, coins, claim.delta, report), "a Gaussian trade-off curve"),
        Bound("gaussian", report, bounds.gaussian_lower_bound(inside, outside, claim.delta, report), family),
        *(
            Bound(GATE, level, traced_gaussian_lower_bound(record.gradients, coins, claim.delta, level), traced)
            for level in dict.fromkeys((report, policy.gate_level))
        ),
    ]


def bound_verdict(found: Sequence[Bound], claim: Claim, level: float, evidence: Digest | None = None) -> Verdict:
    """The gate: the registered bound at the registered level against the claimed epsilon."""
    check = "audit.epsilon_lower_bound"
    gate = [b for b in found if b.name == GATE and b.level == level]
    if not gate:
        return Verdict(check, "not_evaluated", "no lower bound could be computed from the canaries", evidence)
    value = gate[0].epsilon_lower_bound
    if value > claim.epsilon:
        most = " (the most that is computed)" if value >= bounds.EPSILON_CAP else ""
        said = f"at confidence {level}, epsilon is at least {shown_down(value, EXACT)}{most}"
        return Verdict(check, "failed", f"{said}, above the claimed {shown_up(claim.epsilon, EXACT)}", evidence)
    said = f"epsilon {shown_up(claim.epsilon)} is not refuted at confidence {level} (lower bound {shown_down(value)})"
    return Verdict(check, "passed", said, evidence)


def ledger_verdict(claim: Claim, approved_epsilon: float, spend: Spend | None, together: float = 0.0) -> Verdict:
    """The trace, the ledger and the approved epsilon must tell one story. together: epsilon of all attempts of the approval."""
    check = "audit.ledger_match"
    if spend is None:
        return Verdict(check, "failed", "the ledger holds no lease for this run, so nothing was charged for it")
    same = spend.settled == spend.leased == claim.steps and claim.steps_in_model <= claim.steps and claim.is_charged_by(spend)
    if not same:
        return Verdict(check, "failed", "steps, noise or sampling of the trace are not those that the ledger charged")
    epsilon = claim.recomputed_epsilon
    if epsilon is None:
        return Verdict(check, "not_evaluated", "epsilon could not be recomputed from the trace")
    if epsilon > min(approved_epsilon, claim.epsilon + 1e-9):
        return Verdict(
            check, "failed", f"the charged steps cost epsilon {shown_up(epsilon, EXACT)}, over the claim or the approval"
        )
    if together > approved_epsilon:
        return Verdict(
            check, "failed", f"all attempts of this approval cost epsilon {shown_up(together, EXACT)}, over the approval"
        )
    cost = f"epsilon {shown_up(epsilon)} of {shown_up(approved_epsilon)} approved"
    return Verdict(check, "passed", f"{claim.steps} charged steps cost {cost}")


def _spend(ctx: StageContext, claim: Claim) -> Spend | None:
    return ctx.home.ledger.spend(claim.ledger_key) if claim.ledger_key else None


def _together(ctx: StageContext, claim: Claim) -> float:
    return approval_epsilon(ctx.home.ledger, claim.ledger_key, claim.delta) if claim.ledger_key else 0.0


def _probe(ctx: StageContext, trail: AuditTrail | None) -> list[CheckResult]:
    from training.probe import CHECKS, CheckResult, probe

    if trail is None:
        return [CheckResult(name, None, "the sealed record of the run is missing or does not fit") for name in CHECKS]
    return probe(trail.record, ctx.policy.audit.probe_level)


def _probe_verdicts(ctx: StageContext, probed: list[CheckResult], evidence: Digest) -> list[Verdict]:
    from training.probe import verdicts

    found = verdicts(probed, ctx.policy.audit.probe_level)
    return [Verdict(v.check, v.outcome, v.reason, evidence) for v in found]


def _reveal_verdict(ctx: StageContext, trained: Manifest, train_digest: Digest, trail: AuditTrail | None) -> Verdict:
    """The verifier looks at the same once more, without the journal of this home (`pipeline.coin_claims`)."""
    check = "audit.canary_reveal"
    if trail is None:
        return Verdict(check, "not_evaluated", "the coins of the canaries were not found")
    commitment = trail.coins.commitment
    committed = result = None
    for entry in ctx.home.journal.entries():
        if entry.kind == USED and entry.facts.get("commitment") == commitment:
            committed = entry.seq if committed is None else committed
        if entry.kind == "stage" and entry.facts.get("manifest") == train_digest:
            result = entry.seq if result is None else result
    if trained.facts.get("canary_commitment") != commitment or committed is None:
        return Verdict(check, "failed", "the revealed coins are not those that were committed to")
    if result is None or committed > result:
        return Verdict(check, "failed", "the journal holds the commitment only after the training")
    return _vouched(ctx, trained, commitment)


def _vouched(ctx: StageContext, trained: Manifest, commitment: Digest) -> Verdict:
    """Who drew the coins, by the rule of the policy."""
    check, ref = "audit.canary_reveal", trained.outputs.get("coins")
    if ref is None:
        return Verdict(check, "failed", "nobody signed the commitment to the coins")
    envelope = ctx.home.store.read_plain(ref)  # a fault of the disk is raised: it is no finding
    try:
        drawn = open_coins(envelope, ctx.home.journalled_trust())
    except IntegrityError as error:
        if error.code.startswith("E-TRUST"):
            raise
        return Verdict(check, "failed", f"{error.code}: {error.cause}")
    fault = refusal(ctx, drawn)
    if fault is not None or drawn.commitment != commitment:
        return Verdict(check, "failed", fault or "E-COINS-003: the signed commitment is not the one that the training used")
    said = said_of(drawn, ctx.policy.audit.coins)
    return Verdict(check, "passed", f"the revealed coins open their commitment; {said}", commitment)


def _bounds_json(ctx: StageContext, claim: Claim, found: Sequence[Bound], probed: Sequence[CheckResult]) -> dict[str, Json]:
    from training.probe import published_p_value

    policy = ctx.policy.audit
    return {
        "claimed_epsilon": claim.epsilon,
        "delta": claim.delta,
        "canaries": policy.canaries,
        "gate_level": policy.gate_level,
        "report_level": policy.report_level,
        "bounds": [b.to_json() for b in found],
        "probe_level": policy.probe_level,
        "probe": [{"check": r.check, "p_value": published_p_value(r.p_value)} for r in probed],
        "meaning": "a lower bound above the claim refutes it; one below the claim proves nothing",
    }


def _published(ctx: StageContext, found: Sequence[Bound]) -> dict[str, Scalar]:
    level = ctx.policy.audit.report_level
    return {f"epsilon_lower_bound_{b.name}": b.epsilon_lower_bound for b in found if b.level == level}

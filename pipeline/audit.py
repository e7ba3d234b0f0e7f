"""Audits a trained model and records what was found: verdicts of three values, bounds, and outputs that were redacted.

Guarantee: a verdict passes only when its check was computed from the run's own sealed record; whatever could not be computed
is "not evaluated", which blocks a release. A failed verdict is recorded, never raised. The batch membership of real units
is read here and stays here: only p-values leave.
Assumption: the trainer recorded honestly; the canary commitment, journalled before training, binds the coins.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.attempts import approval_epsilon
from pipeline.audit_claim import Claim, read_claim
from pipeline.stage import ArtifactRef, Manifest, StageContext, StageOutput, StageResult, load_manifest, run_stage
from privacy import bounds
from privacy.canonical import Digest, Json, Scalar, canonical_json
from privacy.errors import IntegrityError, PrivetError
from privacy.rounding import EXACT, shown_down, shown_up
from privacy.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from privacy.ledger import Spend
    from privacy.policy import Policy
    from privacy.redact import OutputRedactor
    from training.canaries import CanaryCoins
    from training.config import TrainingConfig
    from training.data import UnitData
    from training.models.base import UnitModel
    from training.probe import CheckResult, RunRecord

PROBE_CHECKS = ("noise_scale", "clipping", "noise_independence", "batch_size_law", "participation_law", "divisor")


@dataclass(frozen=True, slots=True)
class AuditTrail:
    """The sealed record of a run, opened."""

    record: RunRecord
    coins: CanaryCoins


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


def audit(ctx: StageContext, protect_digest: Digest, train_digest: Digest) -> StageResult:
    """Outputs: verdicts, bounds, predictions, redaction (all plain). Raises only when its inputs are not a training run."""
    inputs = {"protect": protect_digest, "train": train_digest}
    return run_stage(ctx, "audit", inputs, lambda: _audit(ctx, protect_digest, train_digest))


def _audit(ctx: StageContext, protect_digest: Digest, train_digest: Digest) -> StageOutput:
    trained = load_manifest(ctx.home, train_digest)
    ours = trained.inputs.get("protect") == protect_digest and trained.policy_digest == ctx.policy_digest
    if trained.stage != "train" or not ours:
        raise IntegrityError(
            "E-AUDIT-001", "the training result is not of this dataset and policy", "Audit the run that the digest belongs to"
        )
    claim = read_claim(ctx.home.store.read_plain(trained.outputs["trace"]))
    trail = _open_trail(ctx, trained, claim)
    ctx.progress("audit", 1, 4)
    probed = _probe(ctx, trail)
    found = [] if trail is None else lower_bounds(ctx, trail.record, claim)
    ctx.progress("audit", 2, 4)
    bounds_ref = _plain(ctx, "bounds", _bounds_json(ctx, claim, found, probed))
    opened = _open_model(ctx, trained, protect_digest)
    ctx.progress("audit", 3, 4)
    scanned, predictions, redaction = _scan_outputs(ctx, opened)
    verdicts = [
        *_probe_verdicts(ctx, probed, bounds_ref.digest),
        bound_verdict(found, claim, ctx.policy.audit.gate_level, bounds_ref.digest),
        ledger_verdict(claim, ctx.policy.budget.epsilon, _spend(ctx, claim), _together(ctx, claim)),
        _reveal_verdict(ctx, trained, train_digest, trail),
        _utility_verdict(ctx, opened),
        scanned,
    ]
    outputs = {
        "verdicts": _plain(ctx, "verdicts", [v.to_json() for v in verdicts]),
        "bounds": bounds_ref,
        "predictions": _plain(ctx, "predictions", predictions),
        "redaction": _plain(ctx, "redaction", redaction),
    }
    ctx.progress("audit", 4, 4)
    outcomes: tuple[Outcome, ...] = ("passed", "failed", "not_evaluated")
    counted: dict[str, Scalar] = {outcome: sum(v.outcome == outcome for v in verdicts) for outcome in outcomes}
    return StageOutput(outputs, {**counted, "claimed_epsilon": claim.epsilon, **_published(ctx, found)})


def lower_bounds(ctx: StageContext, record: RunRecord, claim: Claim) -> list[Bound]:
    """Three bounds at the published level, and the Gaussian one at the gate's; empty when there are too few canaries."""
    from training.attacks import poisson_scores, sum_scores

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
    return [
        Bound("steinke", report, bounds.steinke_lower_bound(ratios, coins, claim.delta, report), "fair secret coins only"),
        Bound("fdp", report, bounds.fdp_lower_bound(ratios, coins, claim.delta, report), "a Gaussian trade-off curve"),
        Bound("gaussian", report, bounds.gaussian_lower_bound(inside, outside, claim.delta, report), family),
        Bound(
            "gaussian", policy.gate_level, bounds.gaussian_lower_bound(inside, outside, claim.delta, policy.gate_level), family
        ),
    ]


def bound_verdict(found: Sequence[Bound], claim: Claim, level: float, evidence: Digest | None = None) -> Verdict:
    """The gate: the Gaussian bound at the registered level against the claimed epsilon."""
    check = "audit.epsilon_lower_bound"
    gate = [b for b in found if b.name == "gaussian" and b.level == level]
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


def _open_trail(ctx: StageContext, trained: Manifest, claim: Claim) -> AuditTrail | None:
    """None when the run left no sealed record, or one that is not of this run's length."""
    from training.canaries import CanaryCoins
    from training.probe import RunRecord

    data = _sealed_output(ctx, trained, "audit_trace")
    if data is None:
        return None
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            gradients, coins, salt = file["gradients"], file["coins"].astype(np.bool_), file["salt"].tobytes()
            members = np.unpackbits(file["members"], axis=1)[:, : int(file["slots"][0])].astype(np.bool_)
    except (KeyError, ValueError, OSError):
        return None
    shapes = gradients.shape == (claim.steps_in_model, len(coins)) and len(members) == claim.steps_in_model
    if not shapes or len(coins) != ctx.policy.audit.canaries:
        return None
    claimed = claim.noise_multiplier, claim.clipping_norm, claim.sampling_probability, claim.factors
    record = RunRecord(gradients, coins, members, *claimed)
    return AuditTrail(record, CanaryCoins(coins, salt))


def _probe(ctx: StageContext, trail: AuditTrail | None) -> list[CheckResult]:
    from training.probe import CheckResult, probe

    if trail is None:
        return [CheckResult(name, None, "the sealed record of the run is missing or does not fit") for name in PROBE_CHECKS]
    return probe(trail.record, ctx.policy.audit.probe_level)


def _probe_verdicts(ctx: StageContext, probed: list[CheckResult], evidence: Digest) -> list[Verdict]:
    from training.probe import verdicts

    found = verdicts(probed, ctx.policy.audit.probe_level)
    return [Verdict(v.check, v.outcome, v.reason, evidence) for v in found]


def _reveal_verdict(ctx: StageContext, trained: Manifest, train_digest: Digest, trail: AuditTrail | None) -> Verdict:
    check = "audit.canary_reveal"
    if trail is None:
        return Verdict(check, "not_evaluated", "the coins of the canaries were not found")
    commitment = trail.coins.commitment
    committed = result = None
    for entry in ctx.home.journal.entries():
        if entry.kind == "canary_commitment" and entry.facts.get("commitment") == commitment:
            committed = entry.seq if committed is None else committed
        if entry.kind == "stage" and entry.facts.get("manifest") == train_digest:
            result = entry.seq if result is None else result
    if trained.facts.get("canary_commitment") != commitment or committed is None:
        return Verdict(check, "failed", "the revealed coins are not those that were committed to")
    if result is None or committed > result:
        return Verdict(check, "failed", "the journal holds the commitment only after the training")
    return Verdict(check, "passed", "the revealed coins open the commitment journalled before training", commitment)


@dataclass(frozen=True, slots=True)
class _Opened:
    """A model as a consumer would rebuild it, and the holdout units to try it on."""

    model: UnitModel
    config: TrainingConfig
    holdout: UnitData


def _open_model(ctx: StageContext, trained: Manifest, protect_digest: Digest) -> _Opened | None:
    from safetensors import SafetensorError
    from safetensors.torch import load

    from pipeline.train import load_units
    from training.config import TrainingConfig
    from training.evaluate import load_released
    from training.recipes import recipe_of

    data = _sealed_output(ctx, trained, "model")
    if data is None:
        return None
    config = TrainingConfig.from_policy(ctx.policy, 0.0)
    try:
        model = load_released(recipe_of(config).build(config), load(data))
    except (SafetensorError, ValueError):
        return None
    return _Opened(model, config, load_units(ctx, protect_digest).holdout)


def _sealed_output(ctx: StageContext, trained: Manifest, name: str) -> bytes | None:
    """None when the training left no such thing. Raises the store's errors: a fault of the disk or of a key can be mended,
    and must not be committed as a finding about the model."""
    ref = trained.outputs.get(name)
    return None if ref is None else ctx.home.store.read_sealed(ref)


def _utility_verdict(ctx: StageContext, opened: _Opened | None) -> Verdict:
    from training.recipes import recipe_of

    found = None if opened is None else recipe_of(opened.config).utility(opened.model, opened.holdout, opened.config)
    if found is None:
        return Verdict("audit.utility", "not_evaluated", "there is no model or no holdout unit to measure with")
    wanted = ctx.policy.audit.min_accuracy
    figures = f"commonest label: {found.majority:.3f}; wanted {wanted:g}; exact, outside the privacy claim"
    said = f"accuracy {found.accuracy:.3f} on holdout units ({figures})"
    return Verdict("audit.utility", "passed" if found.accuracy >= wanted else "failed", said)


def _scan_outputs(ctx: StageContext, opened: _Opened | None) -> tuple[Verdict, dict[str, Json], dict[str, Json]]:
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


def _plain(ctx: StageContext, name: str, value: Json) -> ArtifactRef:
    return ctx.home.store.put_plain(
        canonical_json(value), dataset=ctx.policy.dataset, path=f"audit/{name}.json", data_class="evidence"
    )

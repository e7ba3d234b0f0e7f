"""What an audit looks at, loaded once: the claim of a run, its sealed record, its model and the holdout units.

Guarantee: what is missing is None, and a fault of the disk or of a key is raised, never taken for a finding.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pipeline.audit_claim import Claim, read_claim
from pipeline.stage import Manifest, StageContext, load_manifest
from privacy.canonical import Digest, Json, Scalar
from privacy.errors import IntegrityError
from privacy.verdict import Verdict

if TYPE_CHECKING:
    from training.canaries import CanaryCoins
    from training.config import TrainingConfig
    from training.data import UnitData
    from training.models.base import UnitModel
    from training.run_record import RunRecord, Terms, WorkLog


@dataclass(frozen=True, slots=True)
class AuditTrail:
    """The sealed record of a run, opened."""

    record: RunRecord
    coins: CanaryCoins


@dataclass(frozen=True, slots=True)
class Opened:
    """A model as a consumer would rebuild it, and the units to try it on. training: who it learnt from, for attacks only."""

    model: UnitModel
    config: TrainingConfig
    training: UnitData
    holdout: UnitData


@dataclass(frozen=True, slots=True)
class AuditCase:
    """One model under audit. `trail` None: the run left no sealed record; `opened` None: it left no model that loads."""

    ctx: StageContext
    protect_digest: Digest
    train_digest: Digest
    trained: Manifest
    claim: Claim
    trail: AuditTrail | None
    opened: Opened | None


@dataclass(frozen=True, slots=True)
class Part:
    """What one part of the audit found. documents: written as plain evidence under these names; facts: of the manifest."""

    verdicts: tuple[Verdict, ...] = ()
    documents: Mapping[str, Json] = field(default_factory=dict)
    facts: Mapping[str, Scalar] = field(default_factory=dict)


def open_case(ctx: StageContext, protect_digest: Digest, train_digest: Digest) -> AuditCase:
    """Raises IntegrityError E-AUDIT-001 when the digests are not of one run of this policy."""
    trained = load_manifest(ctx.home, train_digest)
    ours = trained.inputs.get("protect") == protect_digest and trained.policy_digest == ctx.policy_digest
    if trained.stage != "train" or not ours:
        raise IntegrityError(
            "E-AUDIT-001", "the training result is not of this dataset and policy", "Audit the run that the digest belongs to"
        )
    claim = read_claim(ctx.home.store.read_plain(trained.outputs["trace"]))
    trail = _open_trail(ctx, trained, claim)
    opened = open_model(ctx, sealed_output(ctx, trained, "model"), protect_digest)
    return AuditCase(ctx, protect_digest, train_digest, trained, claim, trail, opened)


def _open_trail(ctx: StageContext, trained: Manifest, claim: Claim) -> AuditTrail | None:
    """None when the run left no sealed record, or one that is not of this run's length."""
    from training.canaries import CanaryCoins
    from training.run_record import RunRecord

    data = sealed_output(ctx, trained, "audit_trace")
    if data is None:
        return None
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            gradients, coins, salt = file["gradients"], file["coins"].astype(np.bool_), file["salt"].tobytes()
            members = np.unpackbits(file["members"], axis=1)[:, : int(file["slots"][0])].astype(np.bool_)
            work = _work(file, len(gradients))
    except (KeyError, ValueError, OSError):
        return None
    shapes = gradients.shape == (claim.steps_in_model, len(coins)) and len(members) == claim.steps_in_model
    if not shapes or len(coins) != ctx.policy.audit.canaries:
        return None
    claimed = claim.noise_multiplier, claim.clipping_norm, claim.sampling_probability, claim.factors
    record = RunRecord(gradients, coins, members, *claimed, work, _terms(ctx, claim))
    return AuditTrail(record, CanaryCoins(coins, salt))


def _work(file: Mapping[str, np.ndarray], steps: int) -> WorkLog | None:
    """None where the record does not say how its steps were worked out: the checks that need it are then not evaluated."""
    from training.run_record import WorkLog

    try:
        return WorkLog.from_arrays(file, steps)
    except (KeyError, ValueError):
        return None


def _terms(ctx: StageContext, claim: Claim) -> Terms:
    """What was promised, from the policy, the trace and the ledger; nothing of it from the record itself."""
    from training.run_record import Terms

    spend = ctx.home.ledger.spend(claim.ledger_key) if claim.ledger_key else None
    return Terms(
        divisor=ctx.policy.budget.expected_batch_size,
        processes=ctx.policy.recipe.processes,
        steps_in_model=claim.steps_in_model,
        steps_charged=claim.steps,
        steps_in_ledger=None if spend is None else spend.settled,
    )


def open_model(ctx: StageContext, data: bytes | None, protect_digest: Digest) -> Opened | None:
    """data: safetensors of released weights; None where there are none, or none that fit the policy's recipe."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    from pipeline.train import load_units
    from training.config import TrainingConfig
    from training.evaluate import load_released
    from training.recipes import recipe_of

    if data is None:
        return None
    config = TrainingConfig.from_policy(ctx.policy, 0.0)
    try:
        model = load_released(recipe_of(config).build(config), load(data))
    except (SafetensorError, ValueError):
        return None
    units = load_units(ctx, protect_digest)
    return Opened(model, config, units.training, units.holdout)


def sealed_output(ctx: StageContext, trained: Manifest, name: str) -> bytes | None:
    """None when the training left no such thing. Raises the store's errors: a fault of the disk or of a key can be mended,
    and must not be committed as a finding about the model."""
    ref = trained.outputs.get(name)
    return None if ref is None else ctx.home.store.read_sealed(ref)

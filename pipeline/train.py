"""Trains the model of a policy: no step without a signed use approval of exactly this dataset, and none that is not leased.

Guarantee: the approval is checked here, from signatures; noise is calibrated to the approved epsilon over all steps that may
ever be charged; canaries ride in every run; what is written in the clear is public configuration and two holdout figures
that are named as unprotected. Loss curves, gradient norms and batch sizes are never written in the clear.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from pipeline.attempts import Attempt, current_attempt, next_attempt, noise_schedule
from pipeline.audit_trail import pack_trail
from pipeline.coins import CoinSource, envelope_of, retire
from pipeline.stage import ArtifactRef, Manifest, StageContext, StageOutput, StageResult, load_manifest, run_stage
from pipeline.standing import decide, requirement_of
from pipeline.training_watch import UnitErased, Watch, WatchedLease, journal_end, journal_start
from privacy.accounting import MECHANISM, NEIGHBOURING_RELATION, MechanismTrace, recompute_epsilon
from privacy.canonical import Digest, Json, Scalar, canonical_json, digest_of
from privacy.errors import BudgetExceeded, DataError, GateClosed, IntegrityError, PrivetError
from privacy.noise import NOISE_SOURCE, SAMPLER

if TYPE_CHECKING:
    from pipeline.training_budget import LedgerLease, SealedCheckpoints
    from privacy.policy import Policy
    from training.config import TrainingConfig
    from training.data import Record, UnitData
    from training.evaluate import Utility
    from training.trainer import TrainingOutcome

ACCOUNTANT = "privet-rdp"
_UNPROTECTED = "none: computed exactly from holdout units, outside the privacy claim"


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Units to learn from, and units that only measure."""

    training: UnitData
    holdout: UnitData


def train(ctx: StageContext, protect_digest: Digest, use_approval_subject: Digest) -> StageResult:
    """Outputs: model (sealed), model_config, trace, audit_trace (sealed), metrics, coins (who vouches for the canaries' coins).

    Raises GateClosed E-TRAIN-001, 002 or E-GATE-012 (approval), E-AUDIT-010 (no coins), BudgetExceeded, E-TRAIN codes; a killed
    run continues when run again.
    """
    from pipeline.approve import refuse_rejected
    from pipeline.training_budget import SealedCheckpoints, only_trainer

    refuse_rejected(ctx.home, "use", use_approval_subject)  # also when the result stands already: it must not go further
    inputs = {"protect": protect_digest, "use": use_approval_subject}
    key = ledger_key(ctx.policy_digest, protect_digest, use_approval_subject)
    checkpoints = SealedCheckpoints(ctx.home, ctx.policy.dataset, key)
    with only_trainer(ctx.home, key):
        watched: list[Watch] = []
        while True:
            try:
                result = run_stage(ctx, "train", inputs, lambda: _train(ctx, inputs, key, checkpoints, watched))
                break
            except UnitErased:  # begin again without it; each time at least one unit fewer
                watched.clear()
        journal_end(ctx, key, result.digest, watched[0] if watched else None)
        checkpoints.clear()  # only now: before the result is committed, it is what a retry continues from
        retire(ctx.home, result.manifest.facts.get("canary_commitment"))
    return result


def ledger_key(policy_digest: Digest, protect_digest: Digest, use_approval_subject: Digest) -> str:
    """One key per approved training; retries of it draw from one reservation (see `pipeline.attempts` for the exception)."""
    named = digest_of({"policy": policy_digest, "protect": protect_digest, "use": use_approval_subject})
    return f"train-{named.removeprefix('sha256:')[:32]}"


def load_units(ctx: StageContext, protect_digest: Digest) -> TrainingData:
    """Read, bound and split. The keys are the dataset's own, so every run on it holds out the same units."""
    from pipeline.read import read_protected
    from training.config import TrainingConfig
    from training.data import bounded_records, split_units

    manifest = load_manifest(ctx.home, protect_digest)
    _refuse_foreign(ctx, manifest)
    policy, derive = ctx.policy, ctx.home.keyring.derive
    domain = f"{policy.dataset}/training"
    grouped = bounded_records(
        _records(read_protected(ctx.home, manifest)), policy.privacy_unit.max_records, derive(domain, "contribution bound")
    )
    parts = split_units(grouped, derive(domain, "holdout"), policy.audit.holdout_share)
    config = TrainingConfig.from_policy(policy, 0.0)
    training, holdout = (
        _prepared(ctx, protect_digest, config, name, part) for name, part in zip(("training", "holdout"), parts, strict=True)
    )
    return TrainingData(training, holdout)


def _prepared(
    ctx: StageContext, protect_digest: Digest, config: TrainingConfig, name: str, part: Mapping[str, list[Record]]
) -> UnitData:
    """Encoded, and through the frozen layers; what those gave is kept sealed for the next run."""
    from pipeline.prefix_cache import PrefixKey, cached
    from training.recipes import recipe_of
    from training.recipes.frozen import frozen_part

    recipe = recipe_of(config)

    def compute() -> UnitData:
        return recipe.prepare(recipe.encode(part, config), config)

    frozen = frozen_part(config)
    if frozen is None:
        return compute()
    return cached(ctx.home, PrefixKey(ctx.policy.dataset, protect_digest, frozen, name), part, compute)


def _train(
    ctx: StageContext, inputs: Mapping[str, Digest], key: str, checkpoints: SealedCheckpoints, watched: list[Watch]
) -> StageOutput:
    from pipeline.launch import crew_of
    from pipeline.planted_secrets import with_secrets
    from pipeline.tracking import followed
    from training.config import TrainingConfig
    from training.trainer import Lease, Unmetered, train_model

    _require_approval(ctx, inputs["protect"], inputs["use"])
    policy = ctx.policy
    journal_start(ctx, inputs["protect"], inputs["use"], key)  # before the tombstones are read
    data = load_units(ctx, inputs["protect"])
    watch = Watch.over(ctx.home, policy.dataset, data.training.units, data.holdout.units)
    watched.append(watch)
    if len(data.training) == 0:
        raise DataError("E-TRAIN-003", "no privacy unit is left to train on", "Check the source, or lower audit.holdout_share")
    private = policy.recipe.mechanism == "dp_sgd"
    training = with_secrets(ctx, key, data.training)  # the watch knows real units only
    attempt = _attempt(ctx, inputs["protect"], key, checkpoints, len(training), private)
    config = TrainingConfig.from_policy(policy, attempt.noise_multiplier)
    opened: list[LedgerLease] = []
    coins = CoinSource(ctx, attempt.key, private and _is_unspent(ctx, attempt.key), checkpoints.load() is not None)

    def open_lease() -> Lease:
        if private:
            _refuse_settled(ctx, attempt.key, checkpoints)
        coins.secure()
        if not private:
            return WatchedLease(Unmetered(config.steps), watch)
        opened.append(_reserve(ctx, attempt, inputs["protect"]))
        return WatchedLease(opened[0], watch)

    _use_cores()
    try:
        with (
            followed(ctx, config, lambda: sum(lease.taken for lease in opened)) as follower,
            crew_of(policy.recipe.processes if private else 1) as crew,
        ):
            outcome = train_model(
                config,
                training,
                open_lease,
                checkpoints,
                coins.announce,
                follower.progress,
                _device(),
                crew,
                follower.observe,
                coins.toss,
            )
    except GateClosed:
        for lease in opened:  # it can never finish: what was not leased goes back
            lease.settle()
        raise
    watch.check()
    for lease in opened:
        lease.settle()
    return _output(ctx, config, outcome, data, attempt.key if private else "")


def _attempt(
    ctx: StageContext, protect_digest: Digest, key: str, checkpoints: SealedCheckpoints, units: int, private: bool
) -> Attempt:
    """The attempt to go on with; a new one where the checkpoint saw a unit that was erased since, and nothing of it is kept.

    Going on from such a checkpoint would keep the claim, but put an erased unit's influence into a model that no erasure
    receipt names.
    """
    from pipeline.training_budget import journal_settlement
    from training.checkpoint import saw_units_that_are_gone
    from training.config import TrainingConfig

    ledger, policy = ctx.home.ledger, ctx.policy
    attempt = current_attempt(ledger, key, policy) if private else Attempt(key, 0.0, None)
    saved = checkpoints.load()
    if saved is None or not saw_units_that_are_gone(saved, TrainingConfig.from_policy(policy, 0.0), units):
        return attempt
    if private:
        try:
            attempt = next_attempt(ledger, key, policy, partial(journal_settlement, ctx.home, ctx.run_id))
        except BudgetExceeded:
            checkpoints.clear()  # nothing will go on from it, and it knows the erased unit
            raise
        _reserve(
            ctx, attempt, protect_digest
        )  # before the checkpoint goes: killed in between, the next try comes by here again
    checkpoints.clear()
    ctx.home.journal.append("training_restarted", {"run": ctx.run_id, "ledger_key": attempt.key, "reason": "erased unit"})
    return attempt


def _reserve(ctx: StageContext, attempt: Attempt, protect_digest: Digest) -> LedgerLease:
    from pipeline.cap_book import refuse_unsigned_caps
    from pipeline.training_budget import (
        LedgerLease,
        budget_scopes,
        journal_reservation,
        journal_settlement,
        refuse_lost_charges,
    )
    from training.config import approved_steps

    refuse_lost_charges(ctx.home)
    refuse_unsigned_caps(ctx.home)
    steps = approved_steps(ctx.policy.recipe.steps)
    scopes = budget_scopes(ctx.home, ctx.policy, protect_digest)
    settling = partial(journal_settlement, ctx.home, ctx.run_id)
    lease = LedgerLease(ctx.home.ledger, attempt.key, ctx.policy, attempt.noise_multiplier, steps, scopes, settling)
    journal_reservation(ctx.home, ctx.run_id, attempt.key)
    return lease


def _is_unspent(ctx: StageContext, key: str) -> bool:
    """Whether no step was ever leased under this key."""
    spend = ctx.home.ledger.spend(key)
    return spend is None or spend.leased == 0


def _refuse_settled(ctx: StageContext, key: str, checkpoints: SealedCheckpoints) -> None:
    """What this approval allowed was done and charged; without its result or checkpoint there is nothing to go on from."""
    spend = ctx.home.ledger.spend(key)
    if spend is not None and spend.settled is not None and checkpoints.load() is None:
        raise BudgetExceeded(
            "E-TRAIN-024",
            "this training was charged and closed, but neither its result nor a checkpoint is in the store",
            "Restore objects/ and results/ from a backup, or change the policy and ask for a new use approval",
        )


def _require_approval(ctx: StageContext, protect_digest: Digest, subject: Digest) -> None:
    """The subject must be a passed validation of this dataset under this policy, and a quorum must have signed it now."""
    if not any(subject == known for known in _use_subjects(ctx, protect_digest)):
        raise GateClosed(
            "E-TRAIN-002",
            "the approval asked for does not name this dataset, a passed validation of it, this policy and this budget",
            "Ask for a new use approval of this run",
        )
    requirement = requirement_of(ctx.policy, "use", ctx.requested_by)
    verdict = decide(ctx.home, subject, requirement, ctx.home.journalled_trust(), ctx.clock())
    if verdict.blocks:
        raise GateClosed(
            "E-TRAIN-001", f"the use gate is closed: {verdict.reason}", "See privet approvals list for who has to sign what"
        )


def _use_subjects(ctx: StageContext, protect_digest: Digest) -> list[Digest]:
    from pipeline.approve import use_subject

    budget, found = ctx.policy.budget, []
    for entry in ctx.home.journal.entries():
        named = entry.facts.get("manifest")
        if entry.kind != "stage" or entry.facts.get("stage") != "validate" or not isinstance(named, str):
            continue
        try:
            manifest = load_manifest(ctx.home, named)
        except PrivetError:  # one that can't be read approves nothing; an old run's must not stop this one
            continue
        fits = manifest.policy_digest == ctx.policy_digest and protect_digest in manifest.inputs.values()
        if fits and manifest.facts.get("verdict") == "passed":
            found.append(use_subject(ctx.policy_digest, protect_digest, named, budget.epsilon, budget.delta))
    return found


def _output(ctx: StageContext, config: TrainingConfig, outcome: TrainingOutcome, data: TrainingData, key: str) -> StageOutput:
    from safetensors.torch import save

    from training.evaluate import load_released
    from training.recipes import recipe_of

    trace, recipe = _trace(ctx.policy, config, outcome, key), recipe_of(config)
    found = recipe.utility(load_released(recipe.build(config), outcome.weights), data.holdout, config)
    outputs = {
        "model": _sealed(ctx, "model", save(outcome.weights), key),
        "model_config": _plain(ctx, "model_config", recipe.describe(config)),
        "trace": _plain(ctx, "trace", trace.to_json()),
        "audit_trace": _sealed(ctx, "audit_trace", pack_trail(outcome), key),
        "metrics": _plain(ctx, "metrics", _metrics(trace, found)),
        "coins": _evidence(ctx, "coins", envelope_of(ctx.home, outcome.coins.commitment)),
    }
    facts: dict[str, Scalar] = {
        "mechanism": trace.mechanism,
        "epsilon": trace.epsilon,
        "delta": trace.delta,
        "steps": trace.steps,
        "steps_in_model": trace.steps_in_model,
        "noise_multiplier": trace.noise_multiplier,
        "ledger_key": trace.ledger_key,
        "canary_commitment": outcome.coins.commitment,
        "holdout_accuracy": None if found is None else found.accuracy,
        "majority_accuracy": None if found is None else found.majority,
    }
    return StageOutput(outputs, facts)


def _trace(policy: Policy, config: TrainingConfig, outcome: TrainingOutcome, key: str) -> MechanismTrace:
    """A run without a mechanism says "none" and still claims the policy's epsilon: the audit has to refute that claim."""
    private, budget = config.mechanism == "dp_sgd", policy.budget
    claimed = MechanismTrace(
        mechanism=MECHANISM if private else "none",
        privacy_unit=policy.privacy_unit.name,
        neighbouring_relation=NEIGHBOURING_RELATION,
        noise_multiplier=config.noise_multiplier,
        clipping_norm=config.clipping_norm,
        sampling_probability=config.sampling_probability,
        expected_batch_size=budget.expected_batch_size,
        population=budget.population,
        max_records_per_unit=policy.privacy_unit.max_records,
        steps=outcome.steps_charged,
        steps_in_model=outcome.steps_in_model,
        delta=budget.delta,
        epsilon=budget.epsilon,
        accountant=ACCOUNTANT,
        ledger_key=key,
        sampler=SAMPLER,
        noise_source=NOISE_SOURCE if private else "none",
        noise_schedule=noise_schedule(policy) if private else (),
    )
    if not private:
        return claimed
    from dataclasses import replace

    return replace(claimed, epsilon=recompute_epsilon(claimed))


def _metrics(trace: MechanismTrace, found: Utility | None) -> dict[str, Json]:
    utility: dict[str, Json] = {"protection": _UNPROTECTED}
    if found is not None:
        utility |= {"holdout_accuracy": found.accuracy, "majority_accuracy": found.majority, **found.more}
    return {
        "mechanism": trace.mechanism,
        "steps_charged": trace.steps,
        "steps_in_model": trace.steps_in_model,
        "utility": utility,
        "unprotected": [f"utility.{name}" for name in utility if name != "protection"]
        or ["utility.holdout_accuracy", "utility.majority_accuracy"],
        "withheld": ["loss", "gradient norms", "share of clipped units", "batch sizes"],
    }


def _sealed(ctx: StageContext, name: str, data: bytes, key: str) -> ArtifactRef:
    """key: of the training's reservation, which stands for the data, the policy and the approval it was made under."""
    place = {"dataset": ctx.policy.dataset, "path": f"{name}/{ctx.run_id}", "data_class": name, "version": key}
    return ctx.home.store.put_sealed(data, **place)


def _plain(ctx: StageContext, name: str, value: Mapping[str, Json]) -> ArtifactRef:
    return _evidence(ctx, name, canonical_json(value))


def _evidence(ctx: StageContext, name: str, data: bytes) -> ArtifactRef:
    return ctx.home.store.put_plain(data, dataset=ctx.policy.dataset, path=f"train/{name}.json", data_class="evidence")


def _records(table: object) -> list[Record]:
    import pyarrow as pa

    from training.data import Record

    assert isinstance(table, pa.Table)
    columns = [table[name].to_pylist() for name in ("unit", "record_id", "text", "label")]
    images = table["image"].to_pylist() if "image" in table.column_names else [None] * len(table)
    rows = zip(*columns, images, strict=True)
    return [Record(unit, record_id, text or "", label, image) for unit, record_id, text, label, image in rows]


def _refuse_foreign(ctx: StageContext, manifest: Manifest) -> None:
    if manifest.dataset != ctx.policy.dataset or manifest.policy_digest != ctx.policy_digest:
        raise IntegrityError(
            "E-TRAIN-004", "the protected dataset was made under another policy", "Run ingest and protect under this policy"
        )


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _use_cores() -> None:
    """Two threads gain most of what threads gain here, and leave room for the scheduler beside us."""
    import torch

    from training.host_memory import keep_freed_memory

    keep_freed_memory()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(2, os.cpu_count() or 1))

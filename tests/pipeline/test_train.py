"""The train stage: no approval, no step; no lease, no step; nothing private in the clear; a crash stays charged."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

import pipeline.train as train_module
from pipeline.approve import record_unsigned_reject, sign_envelope, sign_request
from pipeline.attempts import approved_noise
from pipeline.home import Home
from pipeline.stage import StageOutput, run_stage
from pipeline.train import ledger_key, train
from pipeline.training_budget import budget_scope, only_trainer
from privacy.accounting import MechanismTrace, recompute_epsilon
from privacy.canonical import canonical_json
from privacy.errors import BudgetExceeded, EnvironmentFault, GateClosed, IntegrityError, PolicyError
from privacy.signing import Person, SigningKey, TrustRoot
from tests.pipeline.training_world import SETTINGS, TrainingWorld
from tests.worlds.policies import make_policy
from training import engine
from training.preflight import Preflight


@pytest.fixture
def world(tmp_path: Path) -> TrainingWorld:
    return TrainingWorld(tmp_path)


@pytest.fixture
def no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(self: object, number: int) -> object:
        raise AssertionError("a step ran")

    passed = Preflight(engine.Memory(), 1, 0, 1.0, 1.0, 0.0)
    monkeypatch.setattr("training.trainer.preflight", lambda config, device: passed)  # which takes free, synthetic steps
    monkeypatch.setattr(engine.PrivateEngine, "step", step)


def read(world: TrainingWorld, result: object, name: str) -> dict[str, object]:
    return json.loads(world.home.store.read_plain(result.manifest.outputs[name]))  # type: ignore[attr-defined,no-any-return]


def test_an_approved_run_trains_and_its_trace_tells_what_was_charged(world: TrainingWorld) -> None:
    result = train(world.ctx, world.protect.digest, world.approve())
    trace = MechanismTrace.from_json(read(world, result, "trace"))
    spend = world.home.ledger.spend(trace.ledger_key)
    assert spend is not None
    assert trace.steps == trace.steps_in_model == spend.settled == spend.leased == 40
    assert recompute_epsilon(trace) == trace.epsilon <= 8.0
    assert trace.sampling_probability == 0.2
    assert trace.population == 200
    assert world.home.ledger.spent_epsilon(budget_scope(world.ctx.policy)) == pytest.approx(trace.epsilon, abs=1e-5)
    assert not list((world.home.path / "checkpoints").glob("*.json"))


def test_the_same_training_is_found_and_not_charged_again(world: TrainingWorld) -> None:
    subject = world.approve()
    first = train(world.ctx, world.protect.digest, subject)
    second = train(world.context(run_id="run-2"), world.protect.digest, subject)
    assert second.reused
    assert second.digest == first.digest
    assert len(world.home.ledger.spends(budget_scope(world.ctx.policy))) == 1


def test_no_step_without_an_approval(world: TrainingWorld, no_step: None) -> None:
    with pytest.raises(GateClosed, match="E-TRAIN-001"):
        train(world.ctx, world.protect.digest, world.request().digest)
    assert world.home.ledger.scopes() == []


def test_a_rejected_use_trains_nothing_whoever_else_agreed(world: TrainingWorld, no_step: None) -> None:
    subject = world.approve()
    record_unsigned_reject(world.home, world.request(), "steward", "ann")
    with pytest.raises(GateClosed, match="E-GATE-012"):
        train(world.ctx, world.protect.digest, subject)
    assert world.home.ledger.scopes() == []


def test_a_signed_reject_stands_when_its_file_is_deleted(world: TrainingWorld, no_step: None) -> None:
    subject = world.approve()
    key = world.home.identity("demo_steward")
    sign_request(world.home, world.request(), "demo_steward", "steward", "reject", "wrong purpose", key, world.ctx.clock())
    folder = world.home.path / "approvals" / "envelopes" / subject.removeprefix("sha256:")
    newest = max(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    newest.unlink()
    assert [a.decision for a in world.home.approvals.approvals(subject, world.home.trust)] == ["approve"]
    with pytest.raises(GateClosed, match="E-GATE-012"):
        train(world.ctx, world.protect.digest, subject)


def test_an_approver_who_enrolled_themselves_in_the_file_counts_for_nothing(world: TrainingWorld, no_step: None) -> None:
    subject, eve = world.request().digest, SigningKey.generate()
    doctored = TrustRoot((*world.home.trust.people, Person("eve", eve.public_hex, ("steward",))))
    (world.home.path / "trust.json").write_bytes(canonical_json(doctored.to_json()))
    vote = sign_envelope(world.request(), "steward", "approve", "fits the purpose", eve, world.ctx.clock())
    world.home.approvals.add(vote, doctored, world.ctx.clock())
    with pytest.raises(IntegrityError, match="E-TRUST-003"):
        train(world.ctx, world.protect.digest, subject)


def test_the_requester_can_not_approve_their_own_training(world: TrainingWorld, no_step: None) -> None:
    subject = world.approve()
    with pytest.raises(GateClosed, match="E-TRAIN-001"):
        train(world.context(requested_by="demo_steward"), world.protect.digest, subject)


def test_an_expired_approval_is_none(world: TrainingWorld, no_step: None) -> None:
    subject = world.approve()
    late = world.ctx.clock() + timedelta(hours=world.ctx.policy.approvals.use.expires_hours + 1)
    with pytest.raises(GateClosed, match="E-TRAIN-001"):
        train(world.context(clock=lambda: late), world.protect.digest, subject)


def test_an_approval_of_another_dataset_does_not_serve(world: TrainingWorld, no_step: None) -> None:
    subject = world.approve()
    other = run_stage(
        world.ctx, "protect", {"ingest": "sha256:" + "1" * 64}, lambda: StageOutput(world.protect.manifest.outputs, {"n": 2})
    )
    with pytest.raises(GateClosed, match="E-TRAIN-002"):
        train(world.ctx, other.digest, subject)


def test_a_failed_validation_serves_no_approval(world: TrainingWorld, no_step: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.approve import use_subject

    budget = world.ctx.policy.budget
    bad = run_stage(
        world.ctx,
        "validate",
        {"protect": world.protect.digest, "again": world.protect.digest},
        lambda: StageOutput({}, {"verdict": "failed"}),
    )
    subject = use_subject(world.ctx.policy_digest, world.protect.digest, bad.digest, budget.epsilon, budget.delta)
    with pytest.raises(GateClosed, match="E-TRAIN-002"):
        train(world.ctx, world.protect.digest, subject)


def test_a_dataset_of_another_policy_is_refused(tmp_path: Path) -> None:
    world = TrainingWorld(tmp_path)
    foreign = run_stage(
        world.context(policy_digest="sha256:" + "9" * 64),
        "protect",
        {"ingest": "sha256:" + "2" * 64},
        lambda: StageOutput(world.protect.manifest.outputs),
    )
    with pytest.raises(IntegrityError, match="E-TRAIN-004"):
        train_module.load_units(world.ctx, foreign.digest)


def test_the_holdout_is_looked_at_once_and_only_when_nothing_can_change_any_more(
    world: TrainingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopping, or keeping a checkpoint, by what private units say would be a query that nobody charges."""
    from training.config import TrainingConfig
    from training.recipes import text_mlp

    subject, real, seen = world.approve(), text_mlp.utility, list[object]()
    key = ledger_key(world.ctx.policy_digest, world.protect.digest, subject)

    def watched(*args: object) -> object:
        spend = world.home.ledger.spend(key)
        seen.append(spend and (spend.leased, spend.settled))
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(text_mlp, "utility", watched)
    train(world.ctx, world.protect.digest, subject)
    assert seen == [(40, 40)]
    audit_settings = {**SETTINGS["audit"], "min_accuracy": 0.99}  # type: ignore[dict-item]
    strict = make_policy(**{**SETTINGS, "audit": audit_settings})
    assert TrainingConfig.from_policy(strict, 1.0) == TrainingConfig.from_policy(world.ctx.policy, 1.0)
    assert approved_noise(strict) == approved_noise(world.ctx.policy)


def test_a_run_over_the_cap_is_refused_before_any_step(world: TrainingWorld, no_step: None) -> None:
    scope = budget_scope(world.ctx.policy)
    budget = world.ctx.policy.budget
    world.home.ledger.open_scope(scope, "customer", budget.cap_epsilon, budget.delta)
    world.home.ledger.reserve("earlier", scope, 0.2, approved_noise(world.ctx.policy), 40)
    with pytest.raises(BudgetExceeded, match="E-BUDGET-001"):
        train(world.ctx, world.protect.digest, world.approve())


def test_a_renamed_privacy_unit_is_no_fresh_budget(world: TrainingWorld, no_step: None) -> None:
    budget = world.ctx.policy.budget
    world.home.ledger.open_scope(f"{world.ctx.policy.dataset}/client", "client", budget.cap_epsilon, budget.delta)
    with pytest.raises(PolicyError, match="E-TRAIN-018"):
        train(world.ctx, world.protect.digest, world.approve())
    assert world.home.ledger.scopes() == [f"{world.ctx.policy.dataset}/client"]


def test_a_killed_run_continues_and_stays_within_the_approved_epsilon(
    world: TrainingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, real = world.approve(), engine.PrivateEngine.step

    def dies(self: engine.PrivateEngine, number: int) -> object:
        if number == 9:
            raise KeyboardInterrupt
        return real(self, number)

    monkeypatch.setattr(engine.PrivateEngine, "step", dies)
    with pytest.raises(KeyboardInterrupt):
        train(world.ctx, world.protect.digest, subject)
    key = ledger_key(world.ctx.policy_digest, world.protect.digest, subject)
    crashed = world.home.ledger.spend(key)
    assert crashed is not None
    assert crashed.leased == 12
    monkeypatch.setattr(engine.PrivateEngine, "step", real)
    result = train(world.context(run_id="run-2"), world.protect.digest, subject)
    trace = MechanismTrace.from_json(read(world, result, "trace"))
    assert (trace.steps, trace.steps_in_model) == (44, 40)
    assert recompute_epsilon(trace) == trace.epsilon <= 8.0
    spend = world.home.ledger.spend(key)
    assert spend is not None
    assert spend.settled == 44


def test_two_processes_can_not_run_steps_under_one_lease(world: TrainingWorld) -> None:
    subject = world.approve()
    key = ledger_key(world.ctx.policy_digest, world.protect.digest, subject)
    with only_trainer(world.home, key), pytest.raises(EnvironmentFault, match="E-TRAIN-022"):
        train(world.ctx, world.protect.digest, subject)


def test_the_coins_are_committed_in_the_journal_before_training(world: TrainingWorld) -> None:
    result = train(world.ctx, world.protect.digest, world.approve())
    entries = world.home.journal.entries()
    committed = next(e for e in entries if e.kind == "canary_commitment")
    trained = next(e for e in entries if e.facts.get("manifest") == result.digest)
    assert committed.facts["commitment"] == result.manifest.facts["canary_commitment"]
    assert committed.seq < trained.seq


def test_nothing_secret_or_private_stands_in_the_clear(world: TrainingWorld) -> None:
    result = train(world.ctx, world.protect.digest, world.approve())
    with np.load(_sealed(world, result, "audit_trace"), allow_pickle=False) as trail:
        salt, members = trail["salt"].tobytes(), trail["members"]
    clear = [p.read_bytes() for p in (world.home.path / "objects").rglob("*") if p.is_file()]
    clear.append((world.home.path / "journal.sqlite").read_bytes())
    for secret in (salt, salt.hex().encode(), members[0].tobytes(), b"u0001", b"money back", b"<PERSON_"):
        assert not any(secret in data for data in clear)
    metrics = read(world, result, "metrics")
    assert metrics["unprotected"] == ["utility.holdout_accuracy", "utility.majority_accuracy"]
    assert not {"loss", "grad_norm", "batch_sizes", "units"} & set(json.dumps(metrics["utility"]))


def test_the_released_weights_hold_no_canary(world: TrainingWorld) -> None:
    from safetensors.torch import load

    result = train(world.ctx, world.protect.digest, world.approve())
    weights = load(_sealed(world, result, "model").read())
    assert not [name for name in weights if "canary" in name]
    assert weights["embedding.weight"].shape == (128, 8)


def test_an_erased_unit_is_not_trained_on(world: TrainingWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    before = train_module.load_units(world.ctx, world.protect.digest)
    gone = before.training.units[0]
    monkeypatch.setattr(type(world.home.vault), "erased_tokens", lambda self, dataset: frozenset({gone}))
    after = train_module.load_units(world.ctx, world.protect.digest)
    assert gone not in after.training.units
    assert set(after.training.units) == set(before.training.units) - {gone}


def _sealed(world: TrainingWorld, result: object, name: str) -> object:
    import io

    return io.BytesIO(world.home.store.read_sealed(result.manifest.outputs[name]))  # type: ignore[attr-defined]


@pytest.mark.parametrize("older", [False, True], ids=["deleted", "older one restored"])
def test_a_budget_does_not_come_back_with_another_ledger_file(world: TrainingWorld, older: bool) -> None:
    """What whoever can write the home's files could do without any key."""
    policy = world.ctx.policy
    world.home.ledger.open_scope(budget_scope(policy), "customer", policy.budget.cap_epsilon, policy.budget.delta)
    (world.home.path / "old.sqlite").write_bytes((world.home.path / "ledger.sqlite").read_bytes())
    train(world.ctx, world.protect.digest, world.approve())
    for left in filter(Path.is_file, world.home.path.glob("ledger.sqlite*")):
        left.unlink()
    if older:
        (world.home.path / "old.sqlite").rename(world.home.path / "ledger.sqlite")
    again = Home.open(world.home.path)
    attempt = train_module.Attempt("train-2", 5.0, None)
    with pytest.raises(IntegrityError, match="E-LEDGER-009"):
        train_module._reserve(world.context(home=again, run_id="run-2"), attempt, world.protect.digest)
    assert again.ledger.scopes() == ([budget_scope(policy)] if older else [])

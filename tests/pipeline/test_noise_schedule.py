"""A training whose noise falls: plan, reservation, trace, audit and the retry all speak of the same schedule."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from pipeline.attempts import approved_mechanism, approved_noise, current_attempt
from pipeline.audit import audit
from pipeline.audit_claim import Claim, read_claim
from pipeline.audit_conformance import ledger_verdict
from pipeline.evidence import PolicyTerms
from pipeline.plan import make_plan
from pipeline.stage import StageResult
from pipeline.train import train
from privacy.accounting import MechanismTrace, recompute_epsilon
from privacy.canonical import parse_canonical
from privacy.errors import IntegrityError
from privacy.mechanisms import NoiseSchedule
from tests.pipeline.training_world import SETTINGS, TrainingWorld
from tests.worlds.policies import make_policy
from training.config import TrainingConfig, approved_steps

FALLING = [[0.5, 1.4], [1.0, 0.8]]
CHANGES: dict[str, object] = {
    "recipe": {**SETTINGS["recipe"], "noise_schedule": FALLING},  # type: ignore[dict-item]
    "audit": {**SETTINGS["audit"], "probe_level": 1e-6},  # type: ignore[dict-item]
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingWorld, StageResult]:
    world = TrainingWorld(tmp_path_factory.mktemp("falling"), **CHANGES)
    return world, train(world.ctx, world.protect.digest, world.approve())


def verdicts(world: TrainingWorld, run: StageResult) -> dict[str, str]:
    result = audit(world.ctx, world.protect.digest, run.digest)
    recorded = json.loads(world.home.store.read_plain(result.manifest.outputs["verdicts"]))
    return {v["check"]: v["outcome"] for v in recorded}


def claim_of(world: TrainingWorld, run: StageResult) -> Claim:
    return read_claim(world.home.store.read_plain(run.manifest.outputs["trace"]))


def test_the_trace_names_the_schedule_and_costs_no_more_than_was_approved(ran: tuple[TrainingWorld, StageResult]) -> None:
    world, run = ran
    trace = MechanismTrace.from_json(parse_canonical(world.home.store.read_plain(run.manifest.outputs["trace"])))
    assert trace.noise_schedule == ((20, 1.4), (40, 0.8))
    assert trace.noise_multiplier == approved_noise(world.ctx.policy)
    assert recompute_epsilon(trace) == trace.epsilon <= world.ctx.policy.budget.epsilon
    terms = PolicyTerms.from_json(world.ctx.policy.canonical())  # type: ignore[arg-type]
    assert terms.noise_schedule == trace.noise_schedule


def test_the_audit_of_an_honest_run_passes(ran: tuple[TrainingWorld, StageResult]) -> None:
    assert set(verdicts(*ran).values()) == {"passed"}


def test_a_run_with_the_same_noise_throughout_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = TrainingWorld(tmp_path, **CHANGES)
    monkeypatch.setattr(TrainingConfig, "noise_multiplier_at", lambda self, step: self.noise_multiplier * 0.8)
    run = train(world.ctx, world.protect.digest, world.approve())
    assert verdicts(world, run)["probe.noise_scale"] == "failed"


def test_a_trace_with_another_schedule_than_the_ledger_charged_fails(ran: tuple[TrainingWorld, StageResult]) -> None:
    world, run = ran
    claim = claim_of(world, run)
    spend = world.home.ledger.spend(claim.ledger_key)
    assert spend is not None
    assert isinstance(spend.mechanism, NoiseSchedule)
    assert ledger_verdict(claim, 8.0, spend).outcome == "passed"
    for schedule in ((), ((20, 1.5), (40, 0.8)), ((10, 1.4), (40, 0.8))):
        doctored = dataclasses.replace(claim, noise_schedule=schedule)
        assert ledger_verdict(doctored, 8.0, spend).outcome == "failed"


def test_a_retry_goes_on_with_the_base_that_was_reserved(ran: tuple[TrainingWorld, StageResult]) -> None:
    world, run = ran
    key, policy = claim_of(world, run).ledger_key, world.ctx.policy
    assert current_attempt(world.home.ledger, key, policy).noise_multiplier == approved_noise(policy)
    other = make_policy(**{**SETTINGS, **CHANGES, "recipe.noise_schedule": [[0.5, 1.3], [1.0, 0.8]]})
    with pytest.raises(IntegrityError) as caught:
        current_attempt(world.home.ledger, key, other)
    assert caught.value.code == "E-NOISE-002"


def test_a_plan_counts_whole_schedules() -> None:
    policy = make_policy(**{**SETTINGS, **CHANGES, "budget.cap_epsilon": 30.0})
    plan = make_plan(policy, None)
    assert plan.fits
    assert plan.epsilon_settled < plan.epsilon_reserved <= policy.budget.epsilon
    assert approved_mechanism(policy, plan.noise_multiplier).steps == approved_steps(40)  # type: ignore[union-attr]
    (scope,) = plan.scopes
    constant = make_plan(make_policy(**{**SETTINGS, "budget.cap_epsilon": 30.0}), None).scopes[0]
    assert scope.runs_that_fit == constant.runs_that_fit > 1  # the same epsilon each, so as many of them


def test_a_policy_without_a_schedule_reads_as_before() -> None:
    value = make_policy().canonical()
    assert PolicyTerms.from_json(value).noise_schedule == ()  # type: ignore[arg-type]
    recipe = value["recipe"]
    assert isinstance(recipe, dict)
    del recipe["noise_schedule"]  # a bundle of before there were schedules
    assert PolicyTerms.from_json(value).noise_schedule == ()  # type: ignore[arg-type]
    recipe["noise_schedule"] = [[1.0, "1"]]
    with pytest.raises(IntegrityError):
        PolicyTerms.from_json(value)  # type: ignore[arg-type]

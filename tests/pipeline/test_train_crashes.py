"""Training that is killed for real, or loses a unit to an erasure while it lies still: no free step, no lost guarantee."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline import attempts as attempts_module
from pipeline.attempts import approval_epsilon, attempts
from pipeline.audit import audit
from pipeline.stage import StageResult
from pipeline.train import ledger_key, train
from pipeline.training_budget import budget_scope
from privacy.accounting import MechanismTrace, recompute_epsilon
from privacy.canonical import parse_canonical
from privacy.errors import BudgetExceeded
from privacy.policy_file import policy_digest
from tests.pipeline.training_world import SETTINGS, TrainingWorld
from tests.worlds.policies import make_policy
from training import engine

ROOT = Path(__file__).parents[2]
KILLS = 3
LONG: dict[str, object] = {
    "recipe": {**SETTINGS["recipe"], "steps": 600},  # type: ignore[dict-item]
    "audit": {"canaries": 120, "min_accuracy": 0.0, "probe_level": 1e-6},
}
CHILD = """
import os, sys
from pathlib import Path
import torch
from pipeline.home import Home
from pipeline.stage import StageContext
from pipeline.train import train
from privacy.policy_file import policy_digest
from tests.pipeline.test_train_crashes import LONG
from tests.pipeline.training_world import SETTINGS
from tests.worlds.policies import make_policy
from training.engine import PrivateEngine

home, protect, subject = sys.argv[1:]
real = PrivateEngine.step

def counted(self, number):
    if self.config.steps > 1:  # not the free step of the preflight
        os.write(1, b".")
    return real(self, number)

PrivateEngine.step = counted
torch.set_num_threads(1)
policy = make_policy(**{**SETTINGS, **LONG})
train(StageContext(Home.open(Path(home)), policy, policy_digest(policy), "run-child", "demo_engineer"), protect, subject)
"""


def outcomes(world: TrainingWorld, result: StageResult) -> dict[str, str]:
    recorded = parse_canonical(world.home.store.read_plain(result.manifest.outputs["verdicts"]))
    return {v["check"]: v["outcome"] for v in recorded}  # type: ignore[index, union-attr, misc, call-overload]


def trace_of(world: TrainingWorld, result: StageResult) -> MechanismTrace:
    return MechanismTrace.from_json(parse_canonical(world.home.store.read_plain(result.manifest.outputs["trace"])))


def start(world: TrainingWorld, subject: str) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-c", CHILD, str(world.home.path), world.protect.digest, subject]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(arguments, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


@pytest.mark.slow
def test_a_training_that_is_killed_at_any_moment_is_never_undercharged_and_can_be_released(tmp_path: Path) -> None:
    world = TrainingWorld(tmp_path, **LONG)
    subject = world.approve()
    key = ledger_key(world.ctx.policy_digest, world.protect.digest, subject)
    begun = 0
    for _ in range(KILLS):
        child = start(world, subject)
        assert child.stdout is not None
        assert child.stdout.read(1) == b"."  # it is past its imports and at work
        begun += 1
        time.sleep(random.uniform(0.0, 0.4))
        child.send_signal(signal.SIGKILL)
        begun += len(child.stdout.read())
        assert child.wait() == -signal.SIGKILL, "it ended by itself: the test killed nothing"
        spend = world.home.ledger.spend(key)
        assert spend is not None
        assert begun <= spend.leased
    child = start(world, subject)
    assert child.stdout is not None
    begun += len(child.stdout.read())
    assert child.wait() == 0
    result = train(world.ctx, world.protect.digest, subject)
    trace, spend = trace_of(world, result), world.home.ledger.spend(key)
    assert result.reused
    assert spend is not None
    assert begun <= spend.leased == spend.settled == trace.steps
    assert trace.steps_in_model == 600
    assert 600 <= trace.steps <= 660
    assert recompute_epsilon(trace) == trace.epsilon <= 8.0
    found = outcomes(world, audit(world.ctx, world.protect.digest, result.digest))
    assert set(found.values()) == {"passed"}
    assert not list((world.home.path / "checkpoints").glob("*.json"))


def kill_in_step(monkeypatch: pytest.MonkeyPatch, world: TrainingWorld, subject: str, fatal: int) -> None:
    real = engine.PrivateEngine.step

    def dies(self: engine.PrivateEngine, number: int) -> object:
        if number == fatal:
            raise KeyboardInterrupt
        return real(self, number)

    with monkeypatch.context() as patched:
        patched.setattr(engine.PrivateEngine, "step", dies)
        with pytest.raises(KeyboardInterrupt):
            train(world.ctx, world.protect.digest, subject)


def erase_a_training_unit(monkeypatch: pytest.MonkeyPatch, world: TrainingWorld) -> str:
    from pipeline.train import load_units

    gone = load_units(world.ctx, world.protect.digest).training.units[0]
    monkeypatch.setattr(type(world.home.vault), "erased_tokens", lambda self, dataset: frozenset({gone}))
    return gone


def test_a_unit_erased_between_a_crash_and_the_resume_is_in_no_step_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = TrainingWorld(tmp_path, audit={**SETTINGS["audit"], "min_accuracy": 0.0, "probe_level": 1e-6})  # type: ignore[dict-item]
    subject = world.approve()
    kill_in_step(monkeypatch, world, subject, 9)
    gone = erase_a_training_unit(monkeypatch, world)
    result = train(world.ctx, world.protect.digest, subject)
    key = ledger_key(world.ctx.policy_digest, world.protect.digest, subject)
    first, second = attempts(world.home.ledger, key)
    trace = trace_of(world, result)
    assert (first.settled, second.settled) == (12, 40)
    assert (trace.ledger_key, trace.steps, trace.steps_in_model) == (second.key, 40, 40)
    assert second.noise_multiplier > first.noise_multiplier
    assert recompute_epsilon(trace) < approval_epsilon(world.home.ledger, key, trace.delta) <= 8.0
    from pipeline.train import load_units

    units = load_units(world.ctx, world.protect.digest).training.units
    assert gone not in units
    assert _slots(world, result) == len(units) + 120
    found = outcomes(world, audit(world.ctx, world.protect.digest, result.digest))
    assert set(found.values()) == {"passed"}


def test_a_restart_that_is_killed_before_its_first_step_starts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = TrainingWorld(tmp_path)
    subject = world.approve()
    kill_in_step(monkeypatch, world, subject, 9)
    erase_a_training_unit(monkeypatch, world)
    with monkeypatch.context() as patched:
        patched.setattr("pipeline.training_budget.SealedCheckpoints.clear", _die)
        with pytest.raises(KeyboardInterrupt):
            train(world.ctx, world.protect.digest, subject)
    result = train(world.ctx, world.protect.digest, subject)
    key = ledger_key(world.ctx.policy_digest, world.protect.digest, subject)
    assert [s.settled for s in attempts(world.home.ledger, key)] == [12, 0, 40]
    assert trace_of(world, result).steps_in_model == 40
    assert approval_epsilon(world.home.ledger, key, 1e-4) <= 8.0


def test_an_erasure_late_in_a_crashed_training_is_refused_and_its_remedy_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = TrainingWorld(tmp_path)
    subject = world.approve()
    kill_in_step(monkeypatch, world, subject, 37)
    erase_a_training_unit(monkeypatch, world)
    with pytest.raises(BudgetExceeded, match="E-TRAIN-026"):
        train(world.ctx, world.protect.digest, subject)
    assert not list((world.home.path / "checkpoints").glob("*.json"))
    with pytest.raises(BudgetExceeded, match="E-TRAIN-024"):
        train(world.ctx, world.protect.digest, subject)
    budget = {**SETTINGS["budget"], "epsilon": 3.0}  # type: ignore[dict-item]
    policy = make_policy(**{**SETTINGS, "budget": budget})
    world.ctx = world.context(policy=policy, policy_digest=policy_digest(policy), run_id="run-2")
    world.protect = world._protect(world.ctx)
    world.validate = world._validate(world.ctx)
    result = train(world.ctx, world.protect.digest, world.approve())
    assert trace_of(world, result).epsilon <= 3.0
    assert world.home.ledger.spent_epsilon(budget_scope(policy)) <= 9.0


def test_a_second_attempt_is_never_calibrated_as_if_nothing_was_spent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the first attempt's noise, both together would cost more than was approved, and the audit must say so."""
    world = TrainingWorld(tmp_path, budget={**SETTINGS["budget"], "cap_epsilon": 20.0})  # type: ignore[dict-item]
    subject = world.approve()
    kill_in_step(monkeypatch, world, subject, 9)
    erase_a_training_unit(monkeypatch, world)
    with monkeypatch.context() as patched:
        patched.setattr(attempts_module, "composed", lambda spends: [0] * len(_composed([])))
        result = train(world.ctx, world.protect.digest, subject)
    found = outcomes(world, audit(world.ctx, world.protect.digest, result.digest))
    assert found["audit.ledger_match"] == "failed"


_composed = attempts_module.composed


def _die(self: object) -> None:
    raise KeyboardInterrupt


def _slots(world: TrainingWorld, result: StageResult) -> int:
    import io

    data = world.home.store.read_sealed(result.manifest.outputs["audit_trace"])
    with np.load(io.BytesIO(data), allow_pickle=False) as trail:
        return int(trail["slots"][0])

"""A run that is killed anywhere takes no free step, replays nothing, and ends with all its steps or is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from privacy.errors import BudgetExceeded, IntegrityError
from tests.training.worlds import small_config, units
from training.checkpoint import unpack
from training.config import TrainingConfig, approved_steps
from training.trainer import TrainingOutcome, Unmetered, train_model

CONFIG = small_config(steps=30, canaries=8)


class Memory:
    """A checkpoint slot and a durable ledger, as they outlive a crash."""

    def __init__(self, config: TrainingConfig = CONFIG) -> None:
        self.data: bytes | None = None
        self.capacity, self.taken = approved_steps(config.steps), 0
        self.events: list[str] = []
        self.announced: list[str] = []

    @property
    def left(self) -> int:
        return self.capacity - self.taken

    def take(self, steps: int) -> None:
        assert steps <= self.left
        self.taken += steps
        self.events.append(f"lease {self.taken}")

    def load(self) -> bytes | None:
        return self.data

    def save(self, data: bytes) -> None:
        self.data = data
        self.events.append("checkpoint")

    def announce(self, commitment: str) -> None:
        self.announced.append(commitment)
        self.events.append("announce")


class Killed(Exception):
    pass


def train(memory: Memory, config: TrainingConfig = CONFIG, kill_at: int | None = None) -> TrainingOutcome:
    torch.set_num_threads(1)

    def progress(done: int, total: int) -> None:
        memory.events.append(f"step {done}")
        if done == kill_at:
            raise Killed

    return train_model(config, units(config, 20), lambda: memory, memory, memory.announce, progress)


def test_coins_are_announced_and_kept_before_a_lease_and_a_lease_before_its_steps() -> None:
    memory = Memory()
    train(memory)
    assert memory.events[:5] == ["announce", "checkpoint", "lease 3", "step 1", "step 2"]
    leased = 0
    for event in memory.events:
        kind, _, number = event.partition(" ")
        leased = int(number) if kind == "lease" else leased
        assert kind != "step" or int(number) <= leased


def test_an_undisturbed_run_charges_its_steps_and_no_more() -> None:
    outcome = train(Memory())
    assert (outcome.steps_charged, outcome.steps_in_model) == (30, 30)
    assert outcome.gradients.shape == (30, 8)
    assert outcome.members.shape == (30, 28)


def test_the_canary_embedding_does_not_leave() -> None:
    assert not [name for name in train(Memory()).weights if "canary" in name]


@pytest.mark.parametrize("kill_at", [1, 2, 3, 17])
def test_a_killed_run_resumes_and_its_lost_steps_stay_charged(kill_at: int) -> None:
    memory = Memory()
    with pytest.raises(Killed):
        train(memory, kill_at=kill_at)
    before = memory.data
    outcome = train(memory)
    lost = 3
    assert outcome.steps_in_model == 30
    assert outcome.steps_charged == 30 + lost
    assert len(memory.announced) == 1
    assert before is not None
    kept = unpack(before, CONFIG, 20)
    assert outcome.coins.commitment == kept.coins.commitment
    done = len(kept.gradients)
    np.testing.assert_array_equal(outcome.gradients[:done], np.array(kept.gradients).reshape(done, 8))
    np.testing.assert_allclose(outcome.work.divisors, np.full(30, CONFIG.divisor), rtol=1e-6)
    np.testing.assert_array_equal(outcome.work.updates, np.ones(30))
    assert [w.parts for w in kept.work] == outcome.work.parts[:done].tolist()


def test_a_resumed_run_draws_fresh_noise_and_fresh_batches() -> None:
    """Two continuations of one checkpoint: equal noise in both would cancel in their difference."""
    memory = Memory()
    with pytest.raises(Killed):
        train(memory, kill_at=10)
    snapshot = memory.data
    ends = []
    for _ in range(2):
        again = Memory()
        again.data = snapshot
        ends.append(train(again))
    assert not np.array_equal(ends[0].gradients[-1], ends[1].gradients[-1])
    assert not np.array_equal(ends[0].members[10:], ends[1].members[10:])


def test_the_optimizer_goes_on_where_it_stopped() -> None:
    memory = Memory()
    with pytest.raises(Killed):
        train(memory, kill_at=10)
    assert memory.data is not None
    kept = unpack(memory.data, CONFIG, 20)
    assert float(kept.moments["0/step"]) == len(kept.gradients) == 9
    assert kept.moments["0/exp_avg"].abs().sum() > 0


def test_a_run_that_crashed_too_often_is_refused_and_not_continued_for_free() -> None:
    memory = Memory()
    for _ in range(2):
        with pytest.raises((Killed, BudgetExceeded)):
            train(memory, kill_at=1)
    with pytest.raises(BudgetExceeded, match="E-TRAIN-020"):
        train(memory)
    assert memory.taken <= memory.capacity


def test_a_finished_run_that_was_killed_before_its_result_was_kept_runs_no_step_again() -> None:
    memory = Memory()
    first = train(memory)
    memory.events.clear()
    second = train(memory)
    assert memory.events == []
    for name, weight in first.weights.items():
        assert torch.equal(weight, second.weights[name])


@pytest.mark.parametrize("damage", ["other canaries", "other units", "truncated", "not safetensors", "no record of the work"])
def test_a_checkpoint_of_something_else_is_refused(damage: str) -> None:
    memory = Memory()
    train(memory)
    assert memory.data is not None
    config, count, data = CONFIG, 20, memory.data
    if damage == "other canaries":
        config = small_config(steps=30, canaries=9)
    elif damage == "other units":
        count = 21
    elif damage == "no record of the work":  # its audit could not pass, so no step more is spent on it
        data = save({k: t for k, t in load(data).items() if k != "secret/work_divisors"}, metadata={"version": "1"})
    else:
        data = data[:-10] if damage == "truncated" else b"pickle?"
    with pytest.raises(IntegrityError, match="E-TRAIN-021"):
        unpack(data, config, count)


def test_a_checkpoint_holds_no_key_to_replay_noise_from() -> None:
    memory = Memory()
    train(memory)
    assert memory.data is not None
    assert {name.split("/")[0] for name in load(memory.data)} == {"secret", "model", "optimizer"}
    assert not [name for name in load(memory.data) if "key" in name or "seed" in name]


def test_nothing_is_reserved_for_a_run_that_can_not_work() -> None:
    config = small_config(noise_multiplier=0.0)

    def never() -> Memory:
        raise AssertionError("reserved")

    with pytest.raises(Exception, match="E-TRAIN-011"):
        train_model(config, units(config, 4), never, Memory(), lambda c: None, lambda d, t: None)


def test_a_plain_run_spends_no_budget() -> None:
    config = small_config(mechanism="non_private", noise_multiplier=0.0, steps=5, canaries=4)
    lease = Unmetered(5)
    outcome = train_model(config, units(config, 20), lambda: lease, Memory(config), lambda c: None, lambda d, t: None)
    assert outcome.steps_in_model == 5
    assert not outcome.gradients[:, ~outcome.coins.coins].any()

"""An erasure during a training: the training stops and starts again, or its model is named; never neither."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.attempts import approval_epsilon, attempts
from pipeline.stage import StageResult
from pipeline.train import ledger_key, load_units, train
from pipeline.training_budget import LedgerLease
from pipeline.training_watch import ENDED, STARTED, WatchedLease, trained_on_erased, unfinished
from privacy.accounting import MechanismTrace
from privacy.canonical import parse_canonical
from privacy.errors import BudgetExceeded
from tests.pipeline.training_world import SETTINGS, TrainingWorld

LOOSE: dict[str, object] = {"audit": {**SETTINGS["audit"], "min_accuracy": 0.0, "probe_level": 1e-6}}  # type: ignore[dict-item]


class Erasing:
    """The vault's tombstones, under the test's control."""

    def __init__(self, world: TrainingWorld, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gone: set[str] = set()
        data = load_units(world.ctx, world.protect.digest)
        self.unit, self.held_out = data.training.units[0], data.holdout.units[0]
        monkeypatch.setattr(type(world.home.vault), "erased_tokens", lambda *_: frozenset(self.gone))


@pytest.fixture
def world(tmp_path: Path) -> TrainingWorld:
    return TrainingWorld(tmp_path, **LOOSE)


def at_lease(monkeypatch: pytest.MonkeyPatch, number: int, act: object) -> list[int]:
    """Call `act` right before the training asks for its n-th lease."""
    real, seen = WatchedLease.take, [0]

    def take(self: WatchedLease, steps: int) -> None:
        seen[0] += 1
        if seen[0] == number:
            act()  # type: ignore[operator]
        real(self, steps)

    monkeypatch.setattr(WatchedLease, "take", take)
    return seen


def steps_of(world: TrainingWorld, result: StageResult) -> tuple[str, int]:
    trace = MechanismTrace.from_json(parse_canonical(world.home.store.read_plain(result.manifest.outputs["trace"])))
    return trace.ledger_key, trace.steps_in_model


def entries(world: TrainingWorld, kind: str) -> list[object]:
    return [e for e in world.home.journal.entries() if e.kind == kind]


def test_a_training_stops_at_its_next_lease_and_starts_again_without_the_unit(
    world: TrainingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, erasing = world.approve(), Erasing(world, monkeypatch)
    at_lease(monkeypatch, 3, lambda: erasing.gone.add(erasing.unit))
    result = train(world.ctx, world.protect.digest, subject)
    key = ledger_key(world.ctx.policy_digest, world.protect.digest, subject)
    first, second = attempts(world.home.ledger, key)
    assert first.settled is not None
    assert 0 < first.settled < 40
    assert steps_of(world, result) == (second.key, 40)
    assert second.noise_multiplier > first.noise_multiplier
    assert approval_epsilon(world.home.ledger, key, 1e-4) <= 8.0
    assert erasing.unit not in load_units(world.ctx, world.protect.digest).training.units
    assert len(entries(world, STARTED)) == 2
    (ended,) = [e for e in world.home.journal.entries() if e.kind == ENDED]
    assert (ended.facts["manifest"], ended.facts["erased_meanwhile"]) == (result.digest, False)
    assert unfinished(world.home.journal.entries()) == []


def test_an_erasure_after_the_last_step_is_seen_before_the_result(
    world: TrainingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole budget of the approval is spent by then, so the training is refused instead of kept."""
    subject, erasing = world.approve(), Erasing(world, monkeypatch)
    real = LedgerLease.take

    def take(self: LedgerLease, steps: int) -> None:
        real(self, steps)
        if self.taken >= 40:
            erasing.gone.add(erasing.unit)

    monkeypatch.setattr(LedgerLease, "take", take)
    with pytest.raises(BudgetExceeded, match="E-TRAIN-026"):
        train(world.ctx, world.protect.digest, subject)
    assert [t.ledger_key for t in unfinished(world.home.journal.entries())]
    assert [e for e in world.home.journal.entries() if e.kind == "stage" and e.facts["stage"] == "train"] == []


def test_a_held_out_unit_is_not_measured_after_its_erasure_and_costs_nothing_more(
    world: TrainingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, erasing = world.approve(), Erasing(world, monkeypatch)
    at_lease(monkeypatch, 3, lambda: erasing.gone.add(erasing.held_out))
    result = train(world.ctx, world.protect.digest, subject)
    key = ledger_key(world.ctx.policy_digest, world.protect.digest, subject)
    assert len(attempts(world.home.ledger, key)) == 1  # no step saw the unit: the checkpoint is gone on from
    assert steps_of(world, result)[1] == 40
    assert erasing.held_out not in load_units(world.ctx, world.protect.digest).holdout.units


def test_a_model_committed_at_the_very_moment_of_an_erasure_is_named(
    world: TrainingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, erasing = world.approve(), Erasing(world, monkeypatch)
    real = type(world.home.journal).append

    def append(self: object, kind: str, facts: dict[str, object]) -> object:
        if kind == "stage" and facts.get("stage") == "train":
            erasing.gone.add(erasing.unit)  # after the training looked for the last time
        return real(self, kind, facts)  # type: ignore[arg-type]

    monkeypatch.setattr(type(world.home.journal), "append", append)
    result = train(world.ctx, world.protect.digest, subject)
    key = ledger_key(world.ctx.policy_digest, world.protect.digest, subject)
    assert trained_on_erased(world.home.journal.entries(), {key}) == [result.digest]
    assert trained_on_erased(world.home.journal.entries(), {"another"}) == []


def test_a_death_between_the_result_and_its_last_entry_counts_as_the_worst(
    world: TrainingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = world.approve()
    with monkeypatch.context() as patched:
        patched.setattr("pipeline.train.journal_end", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            train(world.ctx, world.protect.digest, subject)
    key = ledger_key(world.ctx.policy_digest, world.protect.digest, subject)
    assert [t.ledger_key for t in unfinished(world.home.journal.entries())] == [key]
    world.home.journal.append("erasure", {"case": "DSAR-1", "due": {world.ctx.policy.dataset: "2026-12-01"}})
    result = train(world.ctx, world.protect.digest, subject)
    assert result.reused
    assert trained_on_erased(world.home.journal.entries(), {key}) == [result.digest]
    size = len(entries(world, ENDED))
    train(world.ctx, world.protect.digest, subject)
    assert len(entries(world, ENDED)) == size == 1

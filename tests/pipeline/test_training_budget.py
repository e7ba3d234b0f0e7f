"""Whose budget a training spends: that of every dataset its data came from, at once, whatever the policy calls it."""

from __future__ import annotations

from pathlib import Path

import pytest

import pipeline.train as train_module
from pipeline.stage import StageOutput, StageResult, run_stage
from pipeline.train import train
from pipeline.training_budget import budget_scopes, refuse_lost_charges, source_datasets
from privacy.errors import BudgetExceeded, IntegrityError, PolicyError
from privacy.ledger import Ledger
from privacy.mechanisms import PoissonSampledGaussian
from privacy.policy_file import policy_digest
from tests.pipeline.training_world import TrainingWorld
from tests.worlds.ledgers import Tamperer
from tests.worlds.policies import make_policy


@pytest.fixture
def world(tmp_path: Path) -> TrainingWorld:
    return TrainingWorld(tmp_path)


class Replayed(TrainingWorld):
    """The protected dataset was made from the quarantine of another dataset, which this policy names differently."""

    def _protect(self, ctx) -> StageResult:  # type: ignore[no-untyped-def]
        first = make_policy(dataset="first_chat")
        before = self.context(policy=first, policy_digest=policy_digest(first))
        ingest = run_stage(before, "ingest", {"source": "sha256:" + "0" * 64}, lambda: StageOutput({}))
        replay = run_stage(ctx, "ingest_replay", {"ingest": ingest.digest}, lambda: StageOutput({}))
        return run_stage(ctx, "protect", {"ingest": replay.digest}, lambda: StageOutput({"protected": self._rows(ctx)}))


def attempt(world: TrainingWorld, key: str, noise: float = 5.0) -> object:
    return train_module._reserve(world.ctx, train_module.Attempt(key, noise, None), world.protect.digest)


def test_data_of_one_dataset_spends_its_budget_alone(world: TrainingWorld) -> None:
    policy = world.ctx.policy
    assert budget_scopes(world.home, policy, world.protect.digest) == (f"{policy.dataset}/customer",)


def test_a_replayed_quarantine_spends_the_budget_of_the_dataset_it_came_from(tmp_path: Path) -> None:
    world = Replayed(tmp_path)
    policy, home = world.ctx.policy, world.home
    scopes = (f"{policy.dataset}/customer", "first_chat/customer")
    assert policy.dataset != "first_chat"
    assert source_datasets(home, world.protect.digest) == {policy.dataset, "first_chat"}
    assert budget_scopes(home, policy, world.protect.digest) == scopes
    result = train(world.ctx, world.protect.digest, world.approve())
    (spend,) = home.ledger.spends("first_chat/customer")
    assert spend.scopes == scopes
    assert (spend.settled, result.manifest.facts["ledger_key"]) == (40, spend.key)
    assert home.ledger.spent_epsilon(scopes[0]) == home.ledger.spent_epsilon(scopes[1]) > 0
    (entry,) = [e for e in home.journal.entries() if e.kind == "budget_reserved"]
    assert entry.facts["scope"] == ", ".join(scopes)
    refuse_lost_charges(home)


def test_a_source_whose_budget_is_spent_trains_nothing_under_another_name(tmp_path: Path) -> None:
    world = Replayed(tmp_path)
    ledger, budget = world.home.ledger, world.ctx.policy.budget
    ledger.open_scope("first_chat/customer", "customer", 0.5, budget.delta)  # its own terms stand
    with pytest.raises(BudgetExceeded, match="first_chat/customer"):
        attempt(world, "train-1")
    assert ledger.spends(f"{world.ctx.policy.dataset}/customer") == []
    assert ledger.cap_epsilon("first_chat/customer") == 0.5


def test_a_source_that_is_counted_per_another_unit_trains_nothing(tmp_path: Path) -> None:
    world = Replayed(tmp_path)
    world.home.ledger.open_scope("first_chat/session", "session", 9.0, 1e-4)
    with pytest.raises(PolicyError, match="E-TRAIN-018") as caught:
        attempt(world, "train-1")
    assert "first_chat" in str(caught.value)
    assert world.home.ledger.scopes() == ["first_chat/session"]


def test_a_lineage_with_a_gap_trains_nothing(world: TrainingWorld) -> None:
    """Without the manifest nobody can tell whose data it is."""
    lost = world.protect.manifest.inputs["ingest"]
    (path,) = [p for p in world.home.path.rglob("*") if p.is_file() and lost.removeprefix("sha256:") in str(p)]
    path.unlink()
    with pytest.raises(IntegrityError, match="E-TRAIN-027"):
        attempt(world, "train-1")
    assert world.home.ledger.scopes() == []


def test_a_retry_of_the_same_training_is_charged_once(tmp_path: Path) -> None:
    world = Replayed(tmp_path)
    for _ in range(3):
        attempt(world, "train-1")
    assert len(world.home.ledger.spends("first_chat/customer")) == 1
    assert len([e for e in world.home.journal.entries() if e.kind == "budget_reserved"]) == 1


def test_a_charge_that_forgot_a_source_is_a_lost_charge(tmp_path: Path) -> None:
    """An older ledger with the same key, put in the place of this one, that charges one dataset only."""
    world = Replayed(tmp_path)
    attempt(world, "train-1")
    place = world.home.place("ledger")
    assert isinstance(place, Path)
    for left in filter(Path.is_file, place.parent.glob("ledger.sqlite*")):
        left.unlink()
    budget = world.ctx.policy.budget
    other = Ledger(place)
    scope = f"{world.ctx.policy.dataset}/customer"
    other.open_scope(scope, "customer", budget.cap_epsilon, budget.delta)
    other.reserve_many("train-1", [scope], PoissonSampledGaussian(budget.sampling_probability, 5.0), 40)
    with pytest.raises(IntegrityError, match="E-LEDGER-009"):
        refuse_lost_charges(world.home)


@pytest.mark.parametrize("attack", ["settled at less", "settled at nothing", "moved to another dataset", "steps"])
def test_a_charge_that_was_made_smaller_in_rows_that_fit_each_other_is_a_lost_charge(world: TrainingWorld, attack: str) -> None:
    """By somebody with the database and without the journal's key; the ledger alone can't see the first three."""
    home = world.home
    train(world.ctx, world.protect.digest, world.approve())
    refuse_lost_charges(home)
    place = home.place("ledger")
    assert isinstance(place, Path)
    home.ledger.open_scope("other/customer", "customer", 8.0, world.ctx.policy.budget.delta)
    (spend,) = home.ledger.spends(f"{world.ctx.policy.dataset}/customer")
    assert spend.settled == 40
    tamperer = Tamperer(place).disarm()
    if attack == "moved to another dataset":
        tamperer.sql("UPDATE charge SET scope = 'other/customer'")
        tamperer.sql("UPDATE held SET scope = 'other/customer'")
    elif attack == "steps":
        tamperer.sql("UPDATE spend SET steps = 40, fingerprint = 'x'")
    else:
        left = 39 if attack == "settled at less" else 0
        tamperer.sql(f"UPDATE spend SET leased = {left}, settled = {left}")
        tamperer.sql("DELETE FROM event WHERE kind = 'lease'")
        if left:
            tamperer.sql(f"UPDATE event SET steps = {left}, number = 2 WHERE kind = 'settle'")
            tamperer.sql("INSERT INTO event SELECT key, 1, at, 'lease', steps FROM event WHERE kind = 'settle'")
        else:
            tamperer.sql("UPDATE event SET steps = 0, number = 1 WHERE kind = 'settle'")
        tamperer.sql(f"UPDATE held SET runs = {left}")
    tamperer.rearm()
    if attack.startswith("settled"):
        assert home.ledger.self_audit() == []
    with pytest.raises(IntegrityError, match="E-LEDGER-009"):
        refuse_lost_charges(home)
    with pytest.raises(IntegrityError, match="E-LEDGER-009"):
        attempt(world, "train-2")


def test_a_training_that_is_killed_between_journal_and_ledger_settles_once_more(world: TrainingWorld) -> None:
    approval = world.approve()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "settle", killed)
        with pytest.raises(KeyboardInterrupt):
            train(world.ctx, world.protect.digest, approval)
    refuse_lost_charges(world.home)  # nothing was given back yet
    train(world.ctx, world.protect.digest, approval)
    refuse_lost_charges(world.home)
    assert {e.facts["steps"] for e in world.home.journal.entries() if e.kind == "budget_settled"} == {40}


def killed(*_: object) -> None:
    raise KeyboardInterrupt

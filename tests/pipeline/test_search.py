"""`privet search` on a real home: nothing tried before its charge, nothing charged twice, nothing secret in the clear."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.search import search, settings_as_yaml
from pipeline.search_trials import PrivateTrials, SealedSearch
from pipeline.stage import StageResult
from pipeline.training_budget import SealedCheckpoints, budget_scope, only_trainer
from privacy.accounting import epsilon_of_charge
from privacy.errors import BudgetExceeded, DataError, EnvironmentFault, GateClosed, PolicyError, UsageError
from privacy.mechanisms import charge_of, from_json
from tests.pipeline.training_world import SETTINGS, WORDS, TrainingWorld
from training import search as loop_module
from training.engine import PrivateEngine
from training.search import SearchState

SPACE = {"learning_rate": [0.01, 0.1, "log"], "steps": [5, 10]}
SELECTION = {
    "data": "private", "charge": "selection", "distribution": "geometric", "trials": 3, "epsilon": 8.0, "space": SPACE,
}  # fmt: skip
COMPOSED = {"data": "private", "charge": "composition", "trials": 3, "epsilon": 8.0, "space": SPACE}
PROXY = {
    "data": "proxy", "trials": 3, "space": SPACE, "proxy": {"path": "public.jsonl", "origin": "made up for this test"},
}  # fmt: skip
FAST = {"recipe": {**SETTINGS["recipe"], "steps": 10}, "audit": {"canaries": 20}}  # type: ignore[dict-item]


def world_of(tmp_path: Path, block: dict[str, object] | None, **changes: object) -> TrainingWorld:
    return TrainingWorld(tmp_path, **{**FAST, "search": block, **changes})


def document(world: TrainingWorld, result: StageResult) -> dict[str, object]:
    return json.loads(world.home.store.read_plain(result.manifest.outputs["search"]))  # type: ignore[no-any-return]


def spends(world: TrainingWorld) -> list[tuple[int, int, int | None]]:
    return [(s.steps, s.leased, s.settled) for s in world.home.ledger.spends(budget_scope(world.ctx.policy))]


@pytest.fixture
def three_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """The law has tests of its own; here every selection has three trials."""
    monkeypatch.setattr(loop_module, "draw_trials", lambda selection, uniform: 3)


@pytest.fixture
def steps_run(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every step of a training on the world's units, its number; those of the preflight are free and left out."""
    found: list[int] = []
    real = PrivateEngine.step

    def step(self: PrivateEngine, number: int) -> object:
        if self.units > 100:
            found.append(number)
        return real(self, number)

    monkeypatch.setattr(PrivateEngine, "step", step)
    return found


def test_a_selection_is_charged_as_one_mechanism_and_gives_settings_alone(
    tmp_path: Path, three_trials: None, steps_run: list[int]
) -> None:
    world = world_of(tmp_path, SELECTION)
    world.approve()
    said: list[str] = []
    result = search(world.context(progress=lambda what, done, total: said.append(what)), tmp_path)
    assert not any(what.startswith("search") for what in said)  # a step 1 shown three times would be the number of trials
    found = document(world, result)
    assert found["kind"] == "selection"
    assert "withheld" in str(found["trials"])
    assert steps_run.count(0) == 3
    (spend,) = world.home.ledger.spends(budget_scope(world.ctx.policy))
    assert (spend.steps, spend.leased, spend.settled) == (1, 1, 1)
    mechanism = from_json(found["mechanism"])  # type: ignore[arg-type]
    assert spend.mechanism == mechanism
    epsilon = epsilon_of_charge(charge_of(mechanism, 1), world.ctx.policy.budget.delta)
    assert 7.9 < found["epsilon"] == epsilon == world.home.ledger.spent_epsilon(budget_scope(world.ctx.policy)) <= 8.0  # type: ignore[operator]
    assert set(found["winner"]["settings"]) == set(SPACE)  # type: ignore[index, call-overload]
    assert set(result.manifest.outputs) == {"search"}
    assert "learning_rate:" in settings_as_yaml(result)
    assert list((world.home.path / "checkpoints").glob("*.json")) == []


def test_how_many_trials_there_were_is_nowhere_in_the_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither journal, nor evidence, nor progress, nor ledger differ between a search of two trials and one of five."""
    seen = []
    for planned in (2, 5):
        monkeypatch.setattr(loop_module, "draw_trials", lambda selection, uniform, planned=planned: planned)
        monkeypatch.setattr(PrivateTrials, "__call__", lambda self, settings, lease: 0.5)
        said: list[tuple[str, int, int]] = []
        world = world_of(tmp_path / str(planned), SELECTION)
        world.approve()
        result = search(world.context(progress=lambda *what, said=said: said.append(what)), tmp_path)
        kinds = [entry.kind for entry in world.home.journal.entries()]
        assert "stage" in kinds
        shape = {**document(world, result), "winner": None, "ledger_key": None}
        seen.append((kinds, sorted(result.manifest.facts), shape, said, spends(world)))
    assert seen[0] == seen[1]


def test_the_same_search_is_found_and_not_charged_again(tmp_path: Path, three_trials: None, steps_run: list[int]) -> None:
    world = world_of(tmp_path, SELECTION)
    world.approve()
    first = search(world.ctx, tmp_path)
    count = len(steps_run)
    second = search(world.context(run_id="run-2"), tmp_path)
    assert second.reused
    assert second.digest == first.digest
    assert len(steps_run) == count
    assert spends(world) == [(1, 1, 1)]


def test_trials_that_are_composed_are_all_reported_and_each_is_charged(tmp_path: Path) -> None:
    world = world_of(tmp_path, COMPOSED)
    world.approve()
    found = document(world, search(world.ctx, tmp_path))
    assert len(found["trials"]) == 3  # type: ignore[arg-type]
    assert spends(world) == [(3, 3, 3)]
    assert found["epsilon"] == world.home.ledger.spent_epsilon(budget_scope(world.ctx.policy))


def test_a_composed_search_that_stops_early_gives_back_what_it_never_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = world_of(tmp_path, {**COMPOSED, "trials": 6, "patience": 1})
    world.approve()
    monkeypatch.setattr(PrivateTrials, "__call__", lambda self, settings, lease: 0.5)
    search(world.ctx, tmp_path)
    assert spends(world) == [(6, 2, 2)]


@pytest.mark.parametrize("block", [SELECTION, COMPOSED], ids=["selection", "composition"])
def test_a_search_that_is_cut_in_a_step_goes_on_and_nothing_is_free(
    block: dict[str, object], tmp_path: Path, three_trials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = world_of(tmp_path, {**block, "space": {**SPACE, "steps": [5]}})  # one step to spare, so one cut a trial
    world.approve()
    real, run = PrivateEngine.step, list[int]()

    def dies(self: PrivateEngine, number: int) -> object:
        if self.units > 100:
            run.append(number)
            if len(run) in (3, 9):
                raise KeyboardInterrupt
        return real(self, number)

    monkeypatch.setattr(PrivateEngine, "step", dies)
    key = None
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            search(world.ctx, tmp_path)
        (spend,) = world.home.ledger.spends(budget_scope(world.ctx.policy))
        key = spend.key
        sealed = SealedSearch.open(SealedCheckpoints(world.home, world.ctx.policy.dataset, key))
        state = SearchState.unpack(sealed.state)
        assert state.planned == 3
        assert state.taken > 0
        assert spend.settled is None
        assert spend.leased == (1 if block is SELECTION else state.done + 1)
        assert sealed.trial
    result = search(world.context(run_id="run-2"), tmp_path)
    found = document(world, result)
    assert found["ledger_key"] == key
    assert spends(world) == [(1, 1, 1) if block is SELECTION else (3, 3, 3)]


CHILD = """
import os, sys
from pathlib import Path
import torch
from pipeline.home import Home
from pipeline.search import search
from pipeline.stage import StageContext
from privacy.policy_file import policy_digest
from tests.pipeline.test_search import KILLED, FAST
from tests.pipeline.training_world import SETTINGS
from tests.worlds.policies import make_policy
from training.engine import PrivateEngine

real = PrivateEngine.step

def counted(self, number):
    if self.units > 100:
        os.write(1, b"." if number else b"|")
    return real(self, number)

PrivateEngine.step = counted
torch.set_num_threads(1)
policy = make_policy(**{**SETTINGS, **FAST, "search": KILLED})
search(StageContext(Home.open(Path(sys.argv[1])), policy, policy_digest(policy), "run-child", "demo_engineer"), Path("."))
"""
KILLED = {**COMPOSED, "space": {"learning_rate": [0.01, 0.1, "log"], "steps": [200]}}


@pytest.mark.slow
def test_a_search_that_is_killed_for_real_begins_no_trial_that_was_not_charged(tmp_path: Path) -> None:
    world = world_of(tmp_path, KILLED)
    world.approve()
    root, charged = Path(__file__).parents[2], 0
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", CHILD, str(world.home.path)]
    for wanted in (b".", b"|"):  # in the first trial, and just when another begins: a trial has steps to spare for one cut
        child = subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert child.stdout is not None
        child.stdout.read(1)  # of a trial that is begun, or was
        seen = b""
        while not seen.endswith(wanted):
            seen += child.stdout.read(1)
        time.sleep(random.uniform(0.0, 0.2))
        child.send_signal(signal.SIGKILL)
        seen += child.stdout.read()
        assert child.wait() == -signal.SIGKILL, "it ended by itself: the test killed nothing"
        (spend,) = world.home.ledger.spends(budget_scope(world.ctx.policy))
        assert spend.settled is None
        assert spend.leased >= charged + seen.count(b"|")
        assert spend.leased >= 1
        charged = spend.leased
    result = search(world.ctx, tmp_path)
    assert len(document(world, result)["trials"]) == 3  # type: ignore[arg-type]
    assert spends(world) == [(3, 3, 3)]


def test_a_trial_out_of_spare_steps_fails_closed_and_stays_charged(
    tmp_path: Path, three_trials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = world_of(tmp_path, {**SELECTION, "space": {"learning_rate": [0.01, 0.1, "log"], "steps": [10]}})
    world.approve()

    def dies(self: PrivateEngine, number: int) -> object:
        raise KeyboardInterrupt

    real = PrivateEngine.step
    for _ in range(2):
        monkeypatch.setattr(PrivateEngine, "step", lambda self, n: dies(self, n) if self.units > 100 else real(self, n))
        with pytest.raises(KeyboardInterrupt):
            search(world.ctx, tmp_path)
    with pytest.raises(BudgetExceeded, match="E-TRAIN-020"):
        search(world.ctx, tmp_path)
    assert spends(world) == [(1, 1, None)]


def test_nothing_is_tried_without_an_approval_of_this_policy(tmp_path: Path, steps_run: list[int]) -> None:
    world = world_of(tmp_path, SELECTION)
    with pytest.raises(GateClosed, match="E-TRAIN-001"):
        search(world.ctx, tmp_path)
    world.approve()
    other = world_of(tmp_path / "other", SELECTION, purpose="Something else entirely.")
    with pytest.raises(GateClosed, match="E-SEARCH-006"):
        search(other.context(home=world.home), tmp_path)
    assert steps_run == []
    assert world.home.ledger.scopes() == []


def test_a_search_over_the_cap_is_refused_before_any_step(tmp_path: Path, steps_run: list[int]) -> None:
    world = world_of(tmp_path, SELECTION)
    world.approve()
    scope, budget = budget_scope(world.ctx.policy), world.ctx.policy.budget
    world.home.ledger.open_scope(scope, "customer", budget.cap_epsilon, budget.delta)
    world.home.ledger.reserve("earlier", scope, 0.2, 2.0, 100)
    with pytest.raises(BudgetExceeded, match="E-BUDGET-001"):
        search(world.ctx, tmp_path)
    assert steps_run == []


def test_a_charge_without_its_state_is_not_begun_anew(
    tmp_path: Path, three_trials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = world_of(tmp_path, SELECTION)
    world.approve()

    def dies(self: PrivateTrials, settings: object, lease: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(PrivateTrials, "__call__", dies)
    with pytest.raises(KeyboardInterrupt):
        search(world.ctx, tmp_path)
    (spend,) = world.home.ledger.spends(budget_scope(world.ctx.policy))
    SealedCheckpoints(world.home, world.ctx.policy.dataset, spend.key).clear()
    with pytest.raises(BudgetExceeded, match="E-SEARCH-009"):
        search(world.ctx, tmp_path)


def test_an_erasure_ends_the_search_and_keeps_nothing_of_it(
    tmp_path: Path, three_trials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = world_of(tmp_path, SELECTION)
    world.approve()
    real, run = PrivateEngine.step, list[int]()
    gone: set[str] = set()

    def erased_meanwhile(self: PrivateEngine, number: int) -> object:
        if self.units > 100:
            run.append(number)
            if len(run) == 2:
                gone.add("u0003")
        return real(self, number)

    monkeypatch.setattr(PrivateEngine, "step", erased_meanwhile)
    monkeypatch.setattr(type(world.home.vault), "erased_tokens", lambda self, dataset: frozenset(gone))
    with pytest.raises(GateClosed, match="E-SEARCH-007"):
        search(world.ctx, tmp_path)
    assert spends(world) == [(1, 1, 1)]
    assert list((world.home.path / "checkpoints").glob("*.json")) == []
    assert "search_abandoned" in [entry.kind for entry in world.home.journal.entries()]
    with pytest.raises(BudgetExceeded, match="E-SEARCH-009"):
        search(world.ctx, tmp_path)


def test_two_processes_can_not_run_one_search(tmp_path: Path, three_trials: None, monkeypatch: pytest.MonkeyPatch) -> None:
    world = world_of(tmp_path, COMPOSED)
    world.approve()
    monkeypatch.setattr(PrivateTrials, "__call__", lambda self, settings, lease: 0.5)
    search(world.ctx, tmp_path)
    key = world.home.ledger.spends(budget_scope(world.ctx.policy))[0].key
    with only_trainer(world.home, key), pytest.raises(EnvironmentFault, match="E-TRAIN-022"):
        search(world.ctx, tmp_path)


def write_public(folder: Path, per_label: int = 20) -> None:
    rows = [{"text": f"{text} {n}", "label": label} for label, text in WORDS.items() for n in range(per_label)]
    (folder / "public.jsonl").write_text("\n".join(json.dumps(row) for row in rows))


@pytest.mark.parametrize("method", ["random", "bayesian"])
def test_a_search_on_a_public_set_costs_nothing_and_the_journal_says_so(tmp_path: Path, method: str) -> None:
    world = world_of(tmp_path, {**PROXY, "method": method})
    write_public(tmp_path)
    result = search(world.ctx, tmp_path)
    found = document(world, result)
    assert (found["kind"], found["epsilon"]) == ("proxy", 0.0)
    assert len(found["trials"]) == 3  # type: ignore[arg-type]
    assert found["proxy"]["examples"] == 60  # type: ignore[index, call-overload]
    assert world.home.ledger.scopes() == []
    (entry,) = [e for e in world.home.journal.entries() if e.kind == "search_on_public_set"]
    assert entry.facts["epsilon"] == 0.0
    assert entry.facts["origin"] == "made up for this test"
    assert entry.facts["proxy"] == found["proxy"]["digest"]  # type: ignore[index, call-overload]
    again = search(world.ctx, tmp_path)
    assert again.reused
    write_public(tmp_path, per_label=25)
    assert not search(world.ctx, tmp_path).reused


def test_what_can_not_be_searched_is_refused(tmp_path: Path) -> None:
    bare = world_of(tmp_path / "bare", None)
    with pytest.raises(UsageError, match="E-SEARCH-005"):
        search(bare.ctx, tmp_path)
    public = world_of(tmp_path / "public", PROXY)
    with pytest.raises(DataError, match="E-PUBLIC-002"):
        search(public.ctx, tmp_path)
    naked = world_of(tmp_path / "naked", SELECTION, recipe={**FAST["recipe"], "mechanism": "non_private"})  # type: ignore[dict-item]
    with pytest.raises(PolicyError, match="E-SEARCH-008"):
        search(naked.ctx, tmp_path)

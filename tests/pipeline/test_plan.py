"""privet plan: the figures of the reservation that would follow, and not one byte written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.attempts import approved_noise
from pipeline.cli import main
from pipeline.home import Home
from pipeline.plan import make_plan, most
from pipeline.training_budget import LedgerLease, budget_scope
from privacy.errors import BudgetExceeded, PolicyError
from privacy.policy import Policy
from tests.worlds.policies import policy_value
from training.config import approved_steps


def policy(**changes: Any) -> Policy:
    return Policy.model_validate(policy_value(**changes))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.create(tmp_path / "home")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(policy_value()))
    return path


def every_byte(folder: Path) -> dict[str, str]:
    """Journal, ledger and everything else; not the -shm and empty -wal files that reading leaves beside a database."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and not p.name.endswith("-shm") and not (p.name.endswith("-wal") and p.stat().st_size == 0)
    }


def reserve(home: Home, asked: Policy, key: str) -> None:
    steps = approved_steps(asked.recipe.steps)
    LedgerLease(home.ledger, key, asked, approved_noise(asked), steps, (budget_scope(asked),))


def test_the_plan_is_what_the_reservation_then_charges(home: Home) -> None:
    asked = policy()
    planned = make_plan(asked, home)
    (scope,) = planned.scopes
    assert not scope.opened
    reserve(home, asked, "run-1")
    spend = home.ledger.spend("run-1")
    assert spend is not None
    assert (spend.noise_multiplier, spend.steps) == (planned.noise_multiplier, planned.steps_reserved)
    assert home.ledger.spent_epsilon(scope.scope) == scope.epsilon_after == planned.epsilon_reserved
    home.ledger.settle("run-1", asked.recipe.steps)
    assert home.ledger.spent_epsilon(scope.scope) == planned.epsilon_settled < planned.epsilon_reserved <= asked.budget.epsilon
    again = make_plan(asked, home).scopes[0]
    assert again.opened
    assert again.epsilon_before == planned.epsilon_settled


def test_as_many_runs_fit_as_it_says(home: Home) -> None:
    asked = policy()
    told = make_plan(asked, home).scopes[0].runs_that_fit
    assert told >= 2
    for number in range(told):
        assert make_plan(asked, home).scopes[0].runs_that_fit == told - number
        reserve(home, asked, f"run-{number}")
    last = make_plan(asked, home)
    assert (last.fits, last.scopes[0].runs_that_fit) == (False, 0)
    with pytest.raises(BudgetExceeded):
        reserve(home, asked, "one-too-many")


def test_nothing_is_written(home: Home, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    untouched = every_byte(home.path)
    assert main(["plan", str(file), "--home", str(home.path)]) == 0
    assert every_byte(home.path) == untouched
    assert "ledger.sqlite" not in untouched  # it would be made by opening it
    reserve(home, policy(), "run-1")
    Home.open(home.path).ledger.spends("x")
    before = every_byte(home.path)
    assert {"ledger.sqlite", "journal.sqlite"} <= set(before)
    assert main(["plan", str(file), "--home", str(home.path), "--json"]) == 0
    assert every_byte(home.path) == before


def test_an_audit_that_could_not_answer_is_named(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is spent: the release would be blocked by a check that is not evaluated."""
    blind, none = tmp_path / "blind.yaml", str(tmp_path / "none")
    value = policy_value()
    value["audit"] = {"canaries": 20}
    blind.write_text(yaml.safe_dump(value))
    assert main(["plan", str(blind), "--json", "--home", none]) == 0
    assert list(json.loads(capsys.readouterr().out)["audit_blind_spots"]) == ["probe.divisor"]
    assert main(["plan", str(blind), "--home", none]) == 0
    assert "warning: probe.divisor: this audit could not tell" in capsys.readouterr().out
    seeing = tmp_path / "seeing.yaml"
    value["audit"] = {"canaries": 200}
    seeing.write_text(yaml.safe_dump(value))
    assert main(["plan", str(seeing), "--json", "--home", none]) == 0
    assert json.loads(capsys.readouterr().out)["audit_blind_spots"] == {}


def test_it_works_without_a_home_and_makes_none(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(file), "--json", "--home", str(tmp_path / "none")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["home"] is False
    free = told["preflight"]
    assert free["verdict"] == "passed"
    assert free["trainable_parameters"] > 0
    assert free["gradients"] == "tape"
    assert told["scopes"][0]["epsilon_before"] == 0
    assert told["fits"] is True
    assert not (tmp_path / "none").exists()
    assert main(["plan", str(file), "--home", str(tmp_path / "none")]) == 0
    said = capsys.readouterr().out
    for words in ("noise multiplier", "22 steps", "sampling probability 0.2", "40 of 200 units", "more such run(s) fit"):
        assert words in said


def test_the_same_figures_with_an_empty_home_and_with_none(home: Home) -> None:
    assert make_plan(policy(), home) == make_plan(policy(), None)


def test_a_run_that_does_not_fit_is_exit_3(home: Home, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(make_plan(policy(), home).scopes[0].runs_that_fit):
        reserve(home, policy(), f"run-{number}")
    assert main(["plan", str(file), "--home", str(home.path)]) == 3
    assert "DOES NOT FIT" in capsys.readouterr().out
    assert main(["plan", str(file), "--json", "--home", str(home.path)]) == 3


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"budget.cap_epsilon": 21.0}, "E-LEDGER-001"),
        ({"budget.delta": 2e-4}, "E-LEDGER-001"),
        ({"privacy_unit.name": "session"}, "E-TRAIN-018"),
    ],
)
def test_terms_that_the_reservation_would_refuse_are_refused_now(home: Home, changes: dict[str, Any], code: str) -> None:
    reserve(home, policy(), "run-1")
    with pytest.raises(PolicyError, match=code):
        make_plan(policy(**changes), home)
    with pytest.raises(PolicyError, match=code):
        reserve(home, policy(**changes), "run-2")


def test_checks_without_data_run_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(yaml.safe_dump(policy_value(**{"budget.expected_batch_size": 200})))
    assert main(["plan", str(file), "--home", str(tmp_path / "none")]) == 2
    assert "E-TRAIN-017" in capsys.readouterr().err


def test_a_training_without_privacy_spends_nothing_and_says_what_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(yaml.safe_dump(policy_value(**{"recipe.mechanism": "non_private"})))
    assert main(["plan", str(file), "--home", str(tmp_path / "none")]) == 0
    assert "never released" in capsys.readouterr().out


@given(st.integers(0, 5000), st.integers(0, 5000))
def test_most_is_a_plain_count(bound: int, limit: int) -> None:
    assert most(lambda number: number <= bound, limit) == min(bound, limit)

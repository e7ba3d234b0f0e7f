"""What privet budget says: figures of the ledger, in a table, as JSON and drawn; and nothing when the ledger is wrong."""

from __future__ import annotations

import json
import pickle
import sqlite3
import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.budget import LedgerFaults, SpendPoint, budget_rows, history, refuse_faults, spend_over_time
from pipeline.budget_plot import spend_svg, terminal_plot
from pipeline.cap_book import ask_raise, file_vote
from pipeline.caps import sign_raise
from pipeline.cli import main
from pipeline.home import Home
from privacy.accounting import epsilon_of_charge
from privacy.errors import UsageError
from privacy.mechanisms import PoissonSampledGaussian, charge_of
from tests.worlds.postgres import PostgresServer

SCOPE = "support/customer"
STEP = PoissonSampledGaussian(0.1, 2.0)
START = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home.create(tmp_path / "home", demo_identities=True)
    home.ledger.open_scope(SCOPE, "customer", 8.0, 1e-5)
    home.ledger.reserve("first", SCOPE, 0.1, 2.0, 100)
    home.ledger.lease("first", 60)
    home.ledger.settle("first", 60)
    home.ledger.reserve("second", SCOPE, 0.1, 2.0, 50)
    return home


def raise_to(home: Home, to: float) -> None:
    asked = ask_raise(home, SCOPE, to)
    for name, role in (("demo_officer", "privacy_officer"), ("demo_steward", "steward")):
        now = datetime.now(UTC)
        file_vote(home, sign_raise(asked, role, "more releases this year", home.identity(name), now), now)


def epsilon(steps: int) -> float:
    return epsilon_of_charge(charge_of(STEP, steps), 1e-5)


def test_a_row_is_what_the_ledger_holds(home: Home) -> None:
    (row,) = budget_rows(home.ledger)
    assert (row.dataset, row.unit, row.cap, row.opened_cap, row.runs, row.open_reservations) == (
        "support",
        "customer",
        8,
        8,
        2,
        1,
    )
    assert row.spent_filter == epsilon(110)
    assert row.spent_reported == home.ledger.spent_epsilon_pld(SCOPE)
    assert 0 < row.spent_reported <= row.spent_filter
    raise_to(home, 12.0)
    assert [(r.cap, r.opened_cap) for r in budget_rows(home.ledger)] == [(12.0, 8.0)]


def test_the_history_names_every_event_and_the_spend_after_it(home: Home) -> None:
    raise_to(home, 12.0)
    events = [event for _, event in history(home.ledger, None)]
    assert [e.kind for e in events] == ["open", "reserve", "lease", "settle", "reserve", "cap"]
    expected = [0.0, epsilon(100), epsilon(100), epsilon(60), epsilon(110), epsilon(110)]
    assert [e.epsilon_after for e in events] == expected
    assert [e.key for e in events] == ["", "first", "first", "first", "second", ""]


def test_the_history_of_one_scope_holds_no_other(home: Home) -> None:
    home.ledger.open_scope("other/customer", "customer", 3.0, 1e-5)
    assert {scope for scope, _ in history(home.ledger, None)} == {SCOPE, "other/customer"}
    assert {scope for scope, _ in history(home.ledger, "other/customer")} == {"other/customer"}
    with pytest.raises(UsageError, match="E-BUDGET-003"):
        history(home.ledger, "nobody/customer")


def test_points_follow_spend_and_cap(home: Home) -> None:
    raise_to(home, 12.0)
    points = spend_over_time(home.ledger, SCOPE)
    assert [p.epsilon for p in points] == [0.0, epsilon(100), epsilon(60), epsilon(110), epsilon(110)]
    assert [p.cap for p in points] == [8.0, 8.0, 8.0, 8.0, 12.0]
    assert points == sorted(points, key=lambda p: p.at)


# ---- drawings


def points(*values: tuple[float, float], cap: float = 8.0) -> list[SpendPoint]:
    return [SpendPoint(START + timedelta(hours=h), e, cap) for h, e in values]


def test_the_terminal_plot_shows_steps_and_the_cap() -> None:
    lines = terminal_plot(points((0, 0.0), (5, 4.0)), START + timedelta(hours=10), width=10, height=4)
    assert lines == [
        "       8 │──────────",
        "         │          ",
        "         │    ██████",
        "       0 │    ██████",
        "         └──────────",
        "          2026-03-01 00:00 2026-03-01 10:00",
    ]


def test_no_points_give_no_lines() -> None:
    assert terminal_plot([], START) == []


@given(st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 8.0)), min_size=1, max_size=20), st.floats(0, 2000))
def test_the_last_column_never_shows_less_than_was_spent(values: list[tuple[float, float]], end: float) -> None:
    drawn = terminal_plot(points(*sorted(values)), START + timedelta(hours=end), width=12, height=8)
    last = sorted(values)[-1][1]
    eighths = sum(" ▁▂▃▄▅▆▇█".find(line[-1]) for line in drawn[:8] if line[-1] != "─")
    assert eighths >= last / 8.0 * 64 - 1e-6
    assert eighths <= last / 8.0 * 64 + 1
    assert all(len(line) == 22 for line in drawn[:9])


def test_the_svg_is_the_same_bytes_and_names_each_scope() -> None:
    spends = {"a/customer": points((0, 0.0), (5, 4.0)), "b/session": points((0, 0.0), (1, 1.0), cap=2.0)}
    now = START + timedelta(hours=10)
    svg = spend_svg(spends, now)
    assert svg == spend_svg(spends, now)
    text = "".join(ElementTree.fromstring(svg).itertext())
    assert "a/customer: epsilon 4 of the cap 8" in text
    assert "b/session: epsilon 1 of the cap 2" in text
    assert spend_svg({}, now).startswith(b"<?xml")


def test_a_scope_is_never_read_as_markup() -> None:
    text = "".join(ElementTree.fromstring(spend_svg({"$x^2$/a": points((0, 1.0))}, START)).itertext())
    assert "$x^2$/a" in text


# ---- the commands


def test_the_table_says_what_the_cap_is_and_what_the_spend_is(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["budget", "--home", str(home.path)]) == 0
    said = capsys.readouterr().out
    for words in ("support", "customer", "RDP", "PLD", "The cap is the guarantee", "is information", "█"):
        assert words in said
    raise_to(home, 12.0)
    assert main(["budget", "--home", str(home.path)]) == 0
    assert "12 (raised from 8)" in capsys.readouterr().out


def test_json_and_plot(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["budget", "--json", "--plot", str(tmp_path / "spend.svg"), "--home", str(home.path)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    row = json.loads(line)
    assert (row["scope"], row["epsilon_spent"], row["epsilon_cap"], row["runs"]) == (SCOPE, epsilon(110), 8.0, 2)
    assert SCOPE in (tmp_path / "spend.svg").read_text()


def test_an_empty_ledger_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Home.create(tmp_path / "home")
    assert main(["budget", "--home", str(tmp_path / "home")]) == 0
    assert "no budget is opened yet" in capsys.readouterr().out


@pytest.mark.parametrize("order", ["before", "after"])
def test_history_takes_the_home_before_and_after_its_name(
    home: Home, order: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PRIVET_HOME", raising=False)
    where = ["--home", str(home.path)]
    words = ["budget", *where, "history", "--json"] if order == "before" else ["budget", "history", SCOPE, "--json", *where]
    assert main(words) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [e["event"] for e in events] == ["open", "reserve", "lease", "settle", "reserve"]
    assert main(["budget", "history", *where]) == 0
    assert "60 steps" in capsys.readouterr().out
    assert main(["budget", "history", "nobody/customer", *where]) == 2


def test_a_ledger_that_contradicts_itself_gives_no_figures(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    with sqlite3.connect(home.path / "ledger.sqlite") as database:
        database.execute("DROP TRIGGER held_update")
        database.execute("UPDATE held SET runs = 1")
    database.close()
    assert main(["budget", "--home", str(home.path)]) == 4
    told = capsys.readouterr()
    assert told.out == ""
    assert "E-BUDGET-002" in told.err
    assert "the total is not the sum of the charges" in told.err
    with pytest.raises(LedgerFaults) as caught:
        refuse_faults(home.ledger)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.code, again.details) == (caught.value.code, caught.value.details)


def test_table_plan_raise_and_audit_work_on_postgresql(
    tmp_path: Path, postgres_server: PostgresServer, capsys: pytest.CaptureFixture[str]
) -> None:
    home = Home.create(tmp_path / "home", demo_identities=True, database=postgres_server.dsn)
    home.ledger.open_scope(SCOPE, "customer", 8.0, 1e-5)
    home.ledger.reserve("first", SCOPE, 0.1, 2.0, 100)
    raise_to(home, 12.0)
    assert main(["budget", "--json", "--home", str(home.path)]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["epsilon_cap"], row["epsilon_cap_opened"], row["epsilon_spent"]) == (12.0, 8.0, epsilon(100))
    assert [e.kind for _, e in history(home.ledger, SCOPE)] == ["open", "reserve", "cap"]
    assert not list(home.path.glob("ledger.sqlite*"))

"""The ledger: no crash, race or retry gives budget back, and none takes more than there is."""

from __future__ import annotations

import math
import multiprocessing
import os
import random
import signal
import sqlite3
import time
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from privacy.accounting import admits, calibrate_noise, cap_vector, charge_vector, epsilon_of, rdp_poisson_gaussian
from privacy.errors import BudgetExceeded, EnvironmentFault, IntegrityError, PolicyError, PrivetError, UsageError
from privacy.ledger import Ledger

Q, SIGMA, DELTA = 0.01, 1.0, 1e-5


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Ledger(tmp_path / "ledger.sqlite").open_scope("chat", "customer", 3.0, DELTA)
    return tmp_path / "ledger.sqlite"


def most_steps(epsilon: float, already: int = 0) -> int:
    """How many steps fit a cap, by the naive way: one by one."""
    cap, step = cap_vector(epsilon, DELTA), charge_vector(Q, SIGMA)
    count = already
    while admits([(count + 1) * units for units in step], cap):
        count += 1
    return count


def test_the_cap_is_met_exactly_and_not_by_one_step_more(path: Path) -> None:
    ledger, most = Ledger(path), most_steps(3.0)
    ledger.reserve("a", "chat", Q, SIGMA, most - 5)
    with pytest.raises(BudgetExceeded, match="E-BUDGET-001") as caught:
        ledger.reserve("b", "chat", Q, SIGMA, 6)
    assert caught.value.exit_code == 3
    assert ledger.spend("b") is None
    ledger.reserve("b", "chat", Q, SIGMA, 5)
    assert ledger.spent_epsilon("chat") <= 3.0
    with pytest.raises(BudgetExceeded):
        ledger.reserve("c", "chat", Q, SIGMA, 1)
    assert ledger.self_audit() == []


def test_a_calibrated_run_fits_the_budget_it_was_calibrated_for(path: Path) -> None:
    sigma = calibrate_noise(3.0, DELTA, 0.02, 1500)
    Ledger(path).reserve("a", "chat", 0.02, sigma, 1500)
    assert 2.99 < Ledger(path).spent_epsilon("chat") <= 3.0


def test_spent_is_the_composition_of_different_mechanisms(path: Path) -> None:
    ledger = Ledger(path)
    ledger.reserve("a", "chat", 0.01, 1.0, 100)
    ledger.reserve("b", "chat", 0.03, 2.0, 200)
    expected = epsilon_of(rdp_poisson_gaussian(0.01, 1.0) * 100 + rdp_poisson_gaussian(0.03, 2.0) * 200, DELTA)
    assert ledger.spent_epsilon("chat") == pytest.approx(expected, abs=1e-6)
    assert ledger.cap_epsilon("chat") == 3.0
    assert ledger.scopes() == ["chat"]
    assert [s.key for s in ledger.spends("chat")] == ["a", "b"]
    assert "of 3 spent" in ledger.remaining("chat")


def test_a_retry_costs_nothing_and_a_changed_request_is_not_a_retry(path: Path) -> None:
    ledger = Ledger(path)
    for _ in range(3):
        ledger.reserve("a", "chat", Q, SIGMA, 100)
    assert [s.charged for s in ledger.spends("chat")] == [100]
    for q, sigma, steps in ((Q, SIGMA, 99), (Q, 1.1, 100), (0.02, SIGMA, 100)):
        with pytest.raises(UsageError, match="E-LEDGER-003"):
            ledger.reserve("a", "chat", q, sigma, steps)
    ledger.open_scope("shop", "customer", 3.0, DELTA)
    with pytest.raises(UsageError, match="E-LEDGER-003"):
        ledger.reserve("a", "shop", Q, SIGMA, 100)


def test_leased_steps_stay_charged_whatever_is_settled(path: Path) -> None:
    ledger = Ledger(path)
    ledger.reserve("a", "chat", Q, SIGMA, 100)
    states = [ledger.spend("a")]
    ledger.lease("a", 30)
    ledger.lease("a", 20)  # a late, smaller lease takes nothing back
    states.append(ledger.spend("a"))
    ledger.settle("a", 5)
    states.append(ledger.spend("a"))
    assert [(s.state, s.leased, s.charged) for s in states if s] == [
        ("reserved", 0, 100),
        ("running", 30, 100),
        ("settled", 30, 30),
    ]
    ledger.settle("a", 5)
    ledger.settle("a", 30)
    with pytest.raises(UsageError, match="E-LEDGER-007"):
        ledger.settle("a", 31)
    with pytest.raises(UsageError, match="E-LEDGER-006"):
        ledger.lease("a", 40)


def test_settling_gives_back_what_was_never_leased(path: Path) -> None:
    ledger = Ledger(path)
    ledger.reserve("a", "chat", Q, SIGMA, most_steps(3.0))
    ledger.lease("a", 10)
    ledger.settle("a", 10)
    assert ledger.spent_epsilon("chat") == epsilon_of(rdp_poisson_gaussian(Q, SIGMA) * 10, DELTA)
    ledger.reserve("b", "chat", Q, SIGMA, most_steps(3.0) - 10)
    with pytest.raises(BudgetExceeded):
        ledger.reserve("c", "chat", Q, SIGMA, 1)
    ledger.settle("b", 0)
    assert ledger.spent_epsilon("chat") == epsilon_of(rdp_poisson_gaussian(Q, SIGMA) * 10, DELTA)


def test_steps_outside_the_reservation_are_refused(path: Path) -> None:
    ledger = Ledger(path)
    ledger.reserve("a", "chat", Q, SIGMA, 100)
    for upto in (101, -1):
        with pytest.raises(UsageError, match="E-LEDGER-006"):
            ledger.lease("a", upto)
    with pytest.raises(UsageError, match="E-LEDGER-007"):
        ledger.settle("a", 101)
    for call in (lambda: ledger.lease("no", 1), lambda: ledger.settle("no", 1)):
        with pytest.raises(UsageError, match="E-LEDGER-005"):
            call()


@pytest.mark.parametrize(
    ("q", "sigma", "steps"),
    [(0.0, 1.0, 1), (1.5, 1.0, 1), (Q, 0.0, 1), (Q, -1.0, 1), (Q, math.nan, 1), (math.nan, 1.0, 1), (Q, math.inf, 1),
     (Q, SIGMA, 0), (Q, SIGMA, -5), (Q, SIGMA, 10**9 + 1), (Q, SIGMA, True), (Q, SIGMA, 1.5)],
)  # fmt: skip
def test_requests_that_would_cost_nothing_are_refused(path: Path, q: float, sigma: float, steps: int) -> None:
    with pytest.raises(PolicyError, match=r"E-ACCOUNT-001|E-LEDGER-004"):
        Ledger(path).reserve("a", "chat", q, sigma, steps)
    assert Ledger(path).spends("chat") == []


def test_a_budget_can_not_be_changed_by_opening_it_again(path: Path) -> None:
    Ledger(path).open_scope("chat", "customer", 3.0, DELTA)
    for unit, cap, delta in (("customer", 4.0, DELTA), ("customer", 3.0, 1e-4), ("message", 3.0, DELTA)):
        with pytest.raises(PolicyError, match="E-LEDGER-001"):
            Ledger(path).open_scope("chat", unit, cap, delta)
    with pytest.raises(UsageError, match="E-LEDGER-002"):
        Ledger(path).reserve("a", "other", Q, SIGMA, 1)
    with pytest.raises(PolicyError, match="E-ACCOUNT-001"):
        Ledger(path).open_scope("new", "customer", math.inf, DELTA)


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM spend", "DELETE FROM scope", "UPDATE scope SET cap_epsilon = 99", "UPDATE spend SET leased = 1",
     "UPDATE spend SET steps = 20", "UPDATE spend SET noise_multiplier = 9", "UPDATE spend SET settled = 5",
     "UPDATE spend SET key = 'z'"],
)  # fmt: skip
def test_sql_can_not_shrink_a_charge(path: Path, statement: str) -> None:
    ledger = Ledger(path)
    ledger.reserve("a", "chat", Q, SIGMA, 100)
    ledger.lease("a", 30)
    connection = sqlite3.connect(path, isolation_level=None)
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute(statement)
    connection.close()
    assert ledger.self_audit() == []


@pytest.mark.parametrize(
    ("statement", "said"),
    [("UPDATE spend SET noise_multiplier = 50", "not what was reserved"),
     ("UPDATE spend SET steps = 60", "not what was reserved"),
     ("UPDATE scope SET cap_epsilon = 0.01", "exceed the cap"), ("DELETE FROM scope", "never opened"),
     ("PRAGMA ignore_check_constraints = ON; UPDATE spend SET settled = 3", "less than it leased"), ("SELECT 1", "trigger")],
)  # fmt: skip
def test_the_self_audit_names_a_forged_row(path: Path, statement: str, said: str) -> None:
    ledger = Ledger(path)
    ledger.reserve("a", "chat", Q, SIGMA, 100)
    ledger.lease("a", 30)
    connection = sqlite3.connect(path, isolation_level=None)
    for trigger in ("spend_update", "spend_delete", "scope_update", "scope_delete"):
        connection.execute(f"DROP TRIGGER {trigger}")
    connection.executescript(statement)
    connection.close()
    faults = ledger.self_audit()
    assert any(said in fault for fault in faults), faults


def test_a_forged_row_closes_the_scope_instead_of_lowering_its_sum(path: Path) -> None:
    ledger = Ledger(path)
    ledger.reserve("a", "chat", Q, SIGMA, 100)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("DROP TRIGGER spend_update")
    connection.execute("UPDATE spend SET noise_multiplier = 50")
    connection.close()
    with pytest.raises(IntegrityError, match="E-LEDGER-008"):
        ledger.reserve("b", "chat", Q, SIGMA, 1)


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    (tmp_path / "l.sqlite").write_bytes(b"not a database, " * 100)
    with pytest.raises(IntegrityError, match="E-DB-003"):
        Ledger(tmp_path / "l.sqlite")
    with pytest.raises(EnvironmentFault, match="E-DB-004"):
        Ledger(tmp_path / "missing" / "l.sqlite")


def _compete(path: Path, barrier: object, queue: object, worker: int) -> None:
    ledger, rng = Ledger(path), random.Random(worker)
    barrier.wait()  # type: ignore[attr-defined]
    admitted = 0
    for number in range(40):
        key, steps = f"{worker}-{number}", rng.randrange(1, 25)
        try:
            ledger.reserve(key, "chat", Q, SIGMA, steps)
        except BudgetExceeded:
            continue
        run = rng.randrange(steps + 1)
        ledger.lease(key, run)
        if rng.random() < 0.8:
            ledger.settle(key, run)
            admitted += run
        else:
            admitted += steps
    queue.put(admitted)  # type: ignore[attr-defined]


def test_racing_processes_never_spend_more_than_the_cap(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    Ledger(path).open_scope("chat", "customer", 1.2, DELTA)
    fork = multiprocessing.get_context("fork")
    barrier, queue = fork.Barrier(5), fork.Queue()
    workers = [fork.Process(target=_compete, args=(path, barrier, queue, n)) for n in range(5)]
    for worker in workers:
        worker.start()
    believed = sum(queue.get(timeout=40) for _ in workers)
    for worker in workers:
        worker.join(60)
    ledger, most = Ledger(path), most_steps(1.2)
    charged = sum(s.charged for s in ledger.spends("chat"))
    assert ledger.self_audit() == []
    assert charged == believed  # every process was told the truth
    assert most - 25 <= charged <= most  # never over, and the cap was really contended
    assert ledger.spent_epsilon("chat") <= 1.2


def _train_forever(path: Path, log: Path, start: int) -> None:
    """Leases five steps at a time, then runs them: a run step is one byte in the log, written after its lease."""
    ledger, number = Ledger(path), 0
    with log.open("ab", buffering=0) as file:
        while True:
            key = f"{start}-{number}"
            ledger.reserve(key, "chat", Q, 20.0, 40)
            for upto in range(5, 41, 5):
                ledger.lease(key, upto)
                file.write(b"." * 5)
            ledger.settle(key, 40)
            number += 1


def test_killed_trainers_are_never_undercharged(tmp_path: Path) -> None:
    path, log = tmp_path / "l.sqlite", tmp_path / "steps"
    Ledger(path).open_scope("chat", "customer", 1.0, DELTA)
    fork = multiprocessing.get_context("fork")
    rng = random.Random(3)
    log.touch()
    kills = 10
    for number in range(kills):
        worker = fork.Process(target=_train_forever, args=(path, log, number))
        before = log.stat().st_size
        worker.start()
        while log.stat().st_size < before + 10 and worker.is_alive():
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
    run = log.stat().st_size
    ledger = Ledger(path)
    spends = ledger.spends("chat")
    leased = sum(s.leased for s in spends)
    assert run > 50
    assert run <= leased <= run + 5 * kills  # one lease at most was taken and not run, per kill
    assert leased <= sum(s.charged for s in spends)
    assert ledger.self_audit() == []
    for spend in spends:  # recovery: what the dead left open is settled at its leases
        ledger.settle(spend.key, 0)
    assert sum(s.charged for s in ledger.spends("chat")) == leased


def test_a_full_disk_refuses_the_lease_and_charges_nothing_by_half(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(path)
    ledger.reserve("a", "chat", Q, SIGMA, 100)
    connect = sqlite3.connect

    def small(*arguments: object, **options: object) -> sqlite3.Connection:
        connection = connect(*arguments, **options)  # type: ignore[call-overload]
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    def fill_up() -> None:
        for number in range(500):
            ledger.reserve(f"{number}" * 40, "chat", Q, 90.0, 1)

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", small)
        with pytest.raises(EnvironmentFault, match="E-DB-001"):
            fill_up()
    assert ledger.self_audit() == []
    ledger.reserve("b", "chat", Q, SIGMA, 1)


def test_errors_name_the_scope_and_numbers_only(path: Path) -> None:
    with pytest.raises(BudgetExceeded) as caught:
        Ledger(path).reserve("a", "chat", Q, 0.3, 10**6)
    text = str(caught.value)
    assert "chat" in text
    assert "of 3" in text
    assert str(path) not in text


class LedgerMachine(RuleBasedStateMachine):
    """Any order of calls against a model of three integers a run."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.ledger = Ledger(Path(self.folder.name) / "l.sqlite")
        self.ledger.open_scope("chat", "customer", 0.8, DELTA)
        self.most = MOST
        self.model: dict[str, list[int | None]] = {}  # key -> steps, leased, settled

    def charged(self) -> int:
        return sum((m[0] if m[2] is None else m[2]) or 0 for m in self.model.values())

    @rule(key=st.sampled_from("abcdef"), steps=st.integers(1, 60))
    def reserve(self, key: str, steps: int) -> None:
        fits = self.charged() + steps <= self.most
        try:
            self.ledger.reserve(key, "chat", Q, SIGMA, steps)
        except BudgetExceeded:
            assert key not in self.model
            assert not fits
        except UsageError:
            assert self.model[key][0] != steps
        else:
            if key in self.model:
                assert self.model[key][0] == steps
            else:
                assert fits
                self.model[key] = [steps, 0, None]

    @precondition(lambda self: self.model)
    @rule(data=st.data(), upto=st.integers(-1, 70))
    def lease(self, data: st.DataObject, upto: int) -> None:
        run = self.model[data.draw(st.sampled_from(sorted(self.model)))]
        key = next(k for k, v in self.model.items() if v is run)
        try:
            self.ledger.lease(key, upto)
        except PrivetError:
            assert run[2] is not None or not 0 <= upto <= (run[0] or 0)
        else:
            run[1] = max(run[1] or 0, upto)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), steps=st.integers(0, 70))
    def settle(self, data: st.DataObject, steps: int) -> None:
        key = data.draw(st.sampled_from(sorted(self.model)))
        run = self.model[key]
        closing = max(steps, run[1] or 0)
        try:
            self.ledger.settle(key, steps)
        except PrivetError:
            assert closing > (run[0] or 0) or (run[2] is not None and run[2] != closing)
        else:
            run[2] = closing

    @invariant()
    def agrees(self) -> None:
        found = {s.key: [s.steps, s.leased, s.settled] for s in self.ledger.spends("chat")}
        assert found == self.model
        assert self.charged() <= self.most
        assert self.ledger.self_audit() == []

    def teardown(self) -> None:
        self.folder.cleanup()


MOST = most_steps(0.8)
LedgerMachine.TestCase.settings = settings(max_examples=8, stateful_step_count=15, deadline=None)
TestLedgerMachine = LedgerMachine.TestCase

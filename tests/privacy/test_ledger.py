"""The ledger, on SQLite and PostgreSQL: no retry, settlement or record gives budget back, none takes more than there is."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from privacy.accounting import calibrate_noise, epsilon_of, epsilon_of_charge, rdp_poisson_gaussian
from privacy.canonical import digest_of
from privacy.database import Place
from privacy.errors import BudgetExceeded, EnvironmentFault, IntegrityError, PolicyError, UsageError
from privacy.ledger import CapRecord, Ledger, ScopeTerms
from privacy.mechanisms import (
    Composed,
    Gaussian,
    Laplace,
    NoiseSchedule,
    PoissonSampledGaussian,
    PrivateSelection,
    PureDP,
    charge_of,
)  # fmt: skip
from tests.worlds.ledgers import DELTA, STEP, most_steps

Q, SIGMA = 0.01, 1.0


@pytest.fixture
def ledger(place: Place) -> Ledger:
    found = Ledger(place)
    found.open_scope("chat", "customer", 3.0, DELTA)
    return found


def record(cap: float, **changes: object) -> CapRecord:
    fields = {"delta": DELTA, "envelope_digest": digest_of(str(cap)), "reason": "second study", "by": "privacy officer"}
    return CapRecord(cap, **{**fields, **changes})  # type: ignore[arg-type]


def test_the_cap_is_met_exactly_and_not_by_one_step_more(ledger: Ledger) -> None:
    most = most_steps(3.0)
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


def test_a_calibrated_run_fits_the_budget_it_was_calibrated_for(ledger: Ledger) -> None:
    sigma = calibrate_noise(3.0, DELTA, 0.02, 1500)
    ledger.reserve("a", "chat", 0.02, sigma, 1500)
    assert 2.99 < ledger.spent_epsilon("chat") <= 3.0


def test_spent_is_the_composition_of_different_mechanisms(ledger: Ledger) -> None:
    ledger.reserve("a", "chat", 0.01, 1.0, 100)
    ledger.reserve("b", "chat", 0.03, 2.0, 200)
    expected = epsilon_of(rdp_poisson_gaussian(0.01, 1.0) * 100 + rdp_poisson_gaussian(0.03, 2.0) * 200, DELTA)
    assert ledger.spent_epsilon("chat") == pytest.approx(expected, abs=1e-6)
    assert 0.5 * expected < ledger.spent_epsilon_pld("chat") < expected
    assert ledger.cap_epsilon("chat") == 3.0
    assert ledger.terms("chat") == ScopeTerms("customer", 3.0, DELTA)
    assert ledger.scopes() == ["chat"]
    assert [s.key for s in ledger.spends("chat")] == ["a", "b"]
    assert "of 3 spent" in ledger.remaining("chat")


def test_every_kind_of_mechanism_is_charged_and_read_back(ledger: Ledger) -> None:
    kinds = [
        Gaussian(40.0), Laplace(60.0), PureDP(0.01), STEP, Composed(((STEP, 3), (Laplace(90.0), 2))),
        PrivateSelection.geometric(Composed(((PoissonSampledGaussian(0.001, 20.0), 10),)), 5.0),
    ]  # fmt: skip
    for number, mechanism in enumerate(kinds):
        ledger.reserve_many(str(number), ["chat"], mechanism, 2)
    total = [sum(column) for column in zip(*(charge_of(mechanism, 2) for mechanism in kinds), strict=True)]
    assert ledger.spent_epsilon("chat") == epsilon_of_charge(total, DELTA)
    assert [spend.mechanism for spend in ledger.spends("chat")] == kinds
    assert ledger.self_audit() == []
    ledger.settle("4", 1)  # of a composed mechanism, too, only the part that never ran comes back
    assert ledger.spent_epsilon("chat") == epsilon_of_charge(
        [t - u for t, u in zip(total, charge_of(kinds[4], 1), strict=True)], DELTA
    )
    assert ledger.self_audit() == []


def test_a_noise_schedule_is_charged_for_the_steps_it_ran(ledger: Ledger) -> None:
    schedule = NoiseSchedule(((PoissonSampledGaussian(0.02, 2.0), 10), (PoissonSampledGaussian(0.02, 1.0), 10)))
    ledger.reserve_many("a", ["chat"], schedule, 20)
    ledger.lease("a", 12)
    ledger.settle("a", 12)
    first = 10 * rdp_poisson_gaussian(0.02, 2.0) + 2 * rdp_poisson_gaussian(0.02, 1.0)
    assert ledger.spent_epsilon("chat") == pytest.approx(epsilon_of(first, DELTA), abs=2e-6)
    assert ledger.self_audit() == []
    with pytest.raises(PolicyError, match="E-MECH-002"):
        ledger.reserve_many("b", ["chat"], schedule, 21)


def test_a_charge_goes_to_all_its_scopes_or_to_none(ledger: Ledger) -> None:
    ledger.open_scope("group/household", "household", 1.2, DELTA)
    ledger.reserve_many("a", ["chat", "group/household"], STEP, 10)
    spend = ledger.spend("a")
    assert spend is not None
    assert (spend.scope, spend.scopes) == ("chat", ("chat", "group/household"))
    small = most_steps(1.2)
    assert small < most_steps(3.0)
    for scopes in (["chat", "group/household"], ["group/household", "chat"]):
        with pytest.raises(BudgetExceeded, match="group/household"):
            ledger.reserve_many("b", scopes, STEP, small)
    with pytest.raises(UsageError, match="E-LEDGER-002"):
        ledger.reserve_many("b", ["chat", "nowhere"], STEP, 1)
    assert ledger.spent_epsilon("chat") == ledger.spent_epsilon("group/household")
    ledger.lease("a", 4)
    ledger.settle("a", 4)
    alone = epsilon_of_charge(charge_of(STEP, 4), DELTA)
    assert ledger.spent_epsilon("chat") == ledger.spent_epsilon("group/household") == alone
    assert ledger.self_audit() == []


def test_a_retry_costs_nothing_and_a_changed_request_is_not_a_retry(ledger: Ledger) -> None:
    ledger.open_scope("shop", "customer", 3.0, DELTA)
    for scopes in (("chat", "shop"), ("shop", "chat"), ("chat", "shop")):
        ledger.reserve_many("a", scopes, STEP, 100)
    assert [s.charged for s in ledger.spends("chat")] == [100]
    changed = [
        (["chat", "shop"], STEP, 99), (["chat", "shop"], PoissonSampledGaussian(Q, 1.1), 100), (["chat"], STEP, 100),
        (["shop"], STEP, 100), (["chat", "shop"], Composed(((STEP, 1),)), 100),
    ]  # fmt: skip
    for scopes, mechanism, steps in changed:
        with pytest.raises(UsageError, match="E-LEDGER-003"):
            ledger.reserve_many("a", scopes, mechanism, steps)
    ledger.settle("a", 7)
    ledger.reserve_many("a", ["chat", "shop"], STEP, 100)  # nor does a retry after the settlement open it again
    assert [s.charged for s in ledger.spends("shop")] == [7]


def test_leased_steps_stay_charged_whatever_is_settled(ledger: Ledger) -> None:
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
    with pytest.raises(UsageError, match="E-LEDGER-006"):
        ledger.lease("a", 10)


def test_settling_gives_back_what_was_never_leased(ledger: Ledger) -> None:
    ledger.reserve("a", "chat", Q, SIGMA, most_steps(3.0))
    ledger.lease("a", 10)
    ledger.settle("a", 10)
    ten = epsilon_of(rdp_poisson_gaussian(Q, SIGMA) * 10, DELTA)
    assert ledger.spent_epsilon("chat") == ten
    ledger.reserve("b", "chat", Q, SIGMA, most_steps(3.0) - 10)
    with pytest.raises(BudgetExceeded):
        ledger.reserve("c", "chat", Q, SIGMA, 1)
    ledger.settle("b", 0)
    assert ledger.spent_epsilon("chat") == ten


def test_steps_outside_the_reservation_are_refused(ledger: Ledger) -> None:
    ledger.reserve("a", "chat", Q, SIGMA, 100)
    for upto in (101, -1, 1.5, True, "5"):
        with pytest.raises(UsageError, match="E-LEDGER-006"):
            ledger.lease("a", upto)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="E-LEDGER-007"):
        ledger.settle("a", 101)
    for call in (lambda: ledger.lease("no", 1), lambda: ledger.settle("no", 1)):
        with pytest.raises(UsageError, match="E-LEDGER-005"):
            call()


@pytest.mark.parametrize("steps", [1.5, True, "3", None, float("nan")])
def test_a_settlement_that_is_no_whole_number_is_refused(ledger: Ledger, steps: object) -> None:
    ledger.reserve("a", "chat", Q, SIGMA, 5)
    with pytest.raises(UsageError, match="E-LEDGER-007"):
        ledger.settle("a", steps)  # type: ignore[arg-type]
    spend = ledger.spend("a")
    assert spend is not None
    assert (spend.settled, spend.charged) == (None, 5)


@pytest.mark.parametrize(
    ("q", "sigma", "steps"),
    [(0.0, 1.0, 1), (1.5, 1.0, 1), (Q, 0.0, 1), (Q, -1.0, 1), (Q, math.nan, 1), (math.nan, 1.0, 1), (Q, math.inf, 1),
     (Q, SIGMA, 0), (Q, SIGMA, -5), (Q, SIGMA, 10**9 + 1), (Q, SIGMA, True), (Q, SIGMA, 1.5)],
)  # fmt: skip
def test_requests_that_would_cost_nothing_are_refused(tmp_path: Path, q: float, sigma: float, steps: int) -> None:
    ledger = Ledger(tmp_path / "l.sqlite")
    ledger.open_scope("chat", "customer", 3.0, DELTA)
    with pytest.raises(PolicyError, match=r"E-ACCOUNT-001|E-LEDGER-004"):
        ledger.reserve("a", "chat", q, sigma, steps)
    assert ledger.spends("chat") == []


def test_a_reservation_names_its_scopes_once_each(ledger: Ledger) -> None:
    for scopes in ([], ["chat", "chat"], "chat"):
        with pytest.raises(UsageError, match="E-LEDGER-013"):
            ledger.reserve_many("a", scopes, STEP, 1)
    with pytest.raises(PolicyError, match="E-ACCOUNT-001"):
        ledger.reserve_many("a", ["chat"], "gaussian", 1)  # type: ignore[arg-type]


def test_a_budget_can_not_be_changed_by_opening_it_again(ledger: Ledger) -> None:
    ledger.open_scope("chat", "customer", 3.0, DELTA)
    for unit, cap, delta in (
        ("customer", 4.0, DELTA),
        ("customer", 2.0, DELTA),
        ("customer", 3.0, 1e-4),
        ("message", 3.0, DELTA),
    ):
        with pytest.raises(PolicyError, match="E-LEDGER-001"):
            ledger.open_scope("chat", unit, cap, delta)
    with pytest.raises(UsageError, match="E-LEDGER-002"):
        ledger.reserve("a", "other", Q, SIGMA, 1)
    with pytest.raises(PolicyError, match="E-ACCOUNT-001"):
        ledger.open_scope("new", "customer", math.inf, DELTA)
    assert ledger.scopes() == ["chat"]


def test_a_cap_rises_by_a_record_and_in_no_other_way(ledger: Ledger) -> None:
    ledger.reserve("a", "chat", Q, SIGMA, most_steps(3.0))
    ledger.raise_cap("chat", record(3.2))
    ledger.raise_cap("chat", record(3.2))  # a retry
    assert ledger.cap_epsilon("chat") == 3.2
    ledger.reserve("b", "chat", Q, SIGMA, most_steps(3.2) - most_steps(3.0))
    with pytest.raises(BudgetExceeded, match=r"of 3\.2"):
        ledger.reserve("c", "chat", Q, SIGMA, 1)
    lower = [record(3.2, envelope_digest=digest_of("x")), record(1.0), record(9.0, delta=1e-4)]
    for wrong in lower:
        with pytest.raises(PolicyError, match="E-LEDGER-010"):
            ledger.raise_cap("chat", wrong)
    ledger.open_scope("shop", "customer", 1.0, DELTA)
    for scope, reused in (("shop", record(3.2)), ("chat", record(5.0, envelope_digest=digest_of("3.2")))):
        with pytest.raises(PolicyError, match="E-LEDGER-011"):
            ledger.raise_cap(scope, reused)
    with pytest.raises(UsageError, match="E-LEDGER-002"):
        ledger.raise_cap("nowhere", record(4.0))
    ledger.open_scope("chat", "customer", 3.0, DELTA)  # the policy may name the first cap, or the raised one
    ledger.open_scope("chat", "customer", 3.2, DELTA)
    with pytest.raises(PolicyError, match="E-LEDGER-001"):
        ledger.open_scope("chat", "customer", 3.1, DELTA)
    assert ledger.self_audit() == []


@pytest.mark.parametrize(
    "changes",
    [{"reason": " "}, {"by": ""}, {"envelope_digest": "sha256:12"}, {"reason": "x" * 1001}, {"reason": None}],
)
def test_a_record_without_reason_name_or_envelope_raises_nothing(changes: dict[str, object]) -> None:
    with pytest.raises(PolicyError, match="E-LEDGER-012"):
        record(4.0, **changes)
    for cap in (math.nan, math.inf, -1.0):
        with pytest.raises(PolicyError, match="E-ACCOUNT-001"):
            record(cap, envelope_digest=digest_of("x"))


def test_a_preview_charges_nothing_and_tells_what_a_reservation_would_do(ledger: Ledger) -> None:
    ledger.reserve("a", "chat", Q, SIGMA, 100)
    before = ledger.spent_epsilon("chat")
    for steps in (10, most_steps(3.0) - 100, most_steps(3.0) - 99):
        told = ledger.preview("chat", STEP, steps)
        assert (told.epsilon_before, told.cap) == (before, 3.0)
        assert told.epsilon_after == epsilon_of_charge(charge_of(STEP, 100 + steps), DELTA)
        assert told.fits == (100 + steps <= most_steps(3.0))
    assert len(ledger.spends("chat")) == 1
    with pytest.raises(UsageError, match="E-LEDGER-002"):
        ledger.preview("new", STEP, 1)
    fresh = ledger.preview("new", STEP, 5, ScopeTerms("customer", 1.5, DELTA))
    assert (fresh.epsilon_before, fresh.cap, fresh.fits) == (0.0, 1.5, True)
    assert ledger.preview("chat", STEP, 1, ScopeTerms("customer", 99.0, DELTA)).cap == 3.0  # an open scope has its own terms
    assert ledger.scopes() == ["chat"]


def test_the_history_tells_what_happened_and_what_was_spent_after_it(ledger: Ledger) -> None:
    ledger.reserve("a", "chat", Q, SIGMA, 100)
    ledger.lease("a", 30)
    ledger.lease("a", 40)
    ledger.raise_cap("chat", record(4.0))
    ledger.reserve("b", "chat", 0.02, 2.0, 10)
    ledger.settle("a", 0)
    told = ledger.history("chat")
    assert [(e.kind, e.key, e.steps) for e in told] == [
        ("open", "", 0), ("reserve", "a", 100), ("lease", "a", 30), ("lease", "a", 40), ("cap", "", 0), ("reserve", "b", 10),
        ("settle", "a", 40),
    ]  # fmt: skip
    after = [charge_of(STEP, 0), *[charge_of(STEP, 100)] * 4]
    other = charge_of(PoissonSampledGaussian(0.02, 2.0), 10)
    after += [tuple(a + b for a, b in zip(charge_of(STEP, n), other, strict=True)) for n in (100, 40)]
    assert [e.epsilon_after for e in told] == [epsilon_of_charge(total, DELTA) for total in after]
    assert told[-1].epsilon_after == ledger.spent_epsilon("chat")
    assert "second study" in told[4].note
    assert "privacy officer" in told[4].note


def test_a_clock_that_is_set_back_reorders_and_refunds_nothing(place: Place) -> None:
    now = [datetime(2030, 5, 1, tzinfo=UTC)]
    ledger = Ledger(place, clock=lambda: now[0])
    ledger.open_scope("chat", "customer", 3.0, DELTA)
    ledger.reserve("b", "chat", Q, SIGMA, 10)
    ledger.lease("b", 4)
    now[0] -= timedelta(days=900)
    ledger.reserve("a", "chat", Q, SIGMA, 20)
    ledger.lease("a", 5)
    ledger.lease("b", 6)
    ledger.settle("b", 6)
    ledger.raise_cap("chat", record(4.0))
    now[0] += timedelta(days=2000)
    ledger.settle("a", 5)
    told = ledger.history("chat")
    kinds = [(e.kind, e.key) for e in told if e.kind not in ("lease",)]
    assert kinds == [("open", ""), ("reserve", "b"), ("reserve", "a"), ("settle", "b"), ("cap", ""), ("settle", "a")]
    assert [e.at for e in told] == sorted(e.at for e in told)
    assert [s.key for s in ledger.spends("chat")] == ["b", "a"]
    assert ledger.spent_epsilon("chat") == epsilon_of_charge(charge_of(STEP, 11), DELTA)
    assert ledger.self_audit() == []


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    (tmp_path / "l.sqlite").write_bytes(b"not a database, " * 100)
    with pytest.raises(IntegrityError, match="E-DB-003"):
        Ledger(tmp_path / "l.sqlite")
    with pytest.raises(EnvironmentFault, match="E-DB-004"):
        Ledger(tmp_path / "missing" / "l.sqlite")


def test_errors_name_the_scope_and_numbers_only(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.sqlite")
    ledger.open_scope("chat", "customer", 3.0, DELTA)
    with pytest.raises(BudgetExceeded) as caught:
        ledger.reserve("a", "chat", Q, 0.3, 10**6)
    text = str(caught.value)
    assert "chat" in text
    assert "of 3" in text
    assert str(tmp_path) not in text


def test_no_statement_computes_a_vector_while_the_scope_is_locked(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accounting inside the transaction would make every other process wait for it."""
    from contextlib import contextmanager

    from privacy import mechanisms

    inside: list[bool] = []
    database, locked = ledger._database, type(ledger._database).transaction

    @contextmanager
    def transaction(self: object, *, exclusive: bool = True):  # type: ignore[no-untyped-def]
        with locked(database, exclusive=exclusive) as connection:  # type: ignore[call-arg]
            inside.append(True)
            yield connection
            inside.pop()

    def computed(q: float, sigma: float) -> tuple[int, ...]:
        assert not inside
        return real(q, sigma)

    real = mechanisms.charge_vector
    monkeypatch.setattr(type(database), "transaction", transaction)
    monkeypatch.setattr(mechanisms, "charge_vector", computed)
    for number in range(3):
        ledger.reserve(str(number), "chat", 0.0101, 100.0 + number, 1)
    mechanisms.step_vector.cache_clear()
    Ledger(ledger._database.place).reserve("last", "chat", 0.0101, 200.0, 1)
    mechanisms.step_vector.cache_clear()

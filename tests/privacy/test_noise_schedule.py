"""Noise that falls over the steps: what it costs, how much of it a budget needs, and what would make it a lie."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.accounting import MechanismTrace, epsilon_of_charge, privacy_statement, recompute_epsilon, scheduled_charge
from privacy.calibration import base_of, calibrate_schedule, describes, mechanism_of
from privacy.canonical import canonical_json, parse_json
from privacy.errors import IntegrityError, PolicyError
from privacy.mechanisms import PoissonSampledGaussian, charge_of, expand, step_vector
from privacy.noise_schedule import Schedule, factor_at, noise_multipliers, schedule_of, shares_fault
from privacy.policy import Recipe
from tests.worlds.traces import trace

Q, DELTA = 0.05, 1e-5
TWO: Schedule = ((60, 1.5), (120, 0.8))


def falling(parts: int, high: float = 1.6, low: float = 0.7) -> Schedule:
    return tuple((n + 1, float(f)) for n, f in enumerate(np.linspace(high, low, parts)))


def test_epsilon_of_a_schedule_is_that_of_its_steps_one_by_one() -> None:
    schedule = falling(40)
    one_by_one = [0] * len(step_vector(PoissonSampledGaussian(Q, 1.0)))
    for step in range(44):
        vector = step_vector(PoissonSampledGaussian(Q, 1.1 * factor_at(schedule, step)))
        one_by_one = [a + b for a, b in zip(one_by_one, vector, strict=True)]
    assert scheduled_charge(Q, 1.1, schedule, 44) == one_by_one
    assert list(charge_of(mechanism_of(Q, 1.1, schedule, 44), 44)) == one_by_one


def test_epsilon_of_a_schedule_agrees_with_dp_accounting() -> None:
    from dp_accounting import dp_event
    from dp_accounting.rdp import RdpAccountant

    schedule, steps = falling(24), 24
    accountant = RdpAccountant()
    for step in range(steps):
        noise = dp_event.GaussianDpEvent(1.2 * factor_at(schedule, step))
        accountant.compose(dp_event.PoissonSampledDpEvent(Q, noise))
    theirs = accountant.get_epsilon(DELTA)
    ours = epsilon_of_charge(scheduled_charge(Q, 1.2, schedule, steps), DELTA)
    assert 0.97 * theirs <= ours <= 1.02 * theirs  # their orders are others


def test_the_tighter_figure_of_a_schedule_agrees_with_dp_accounting() -> None:
    from dp_accounting import dp_event
    from dp_accounting.pld import PLDAccountant

    from privacy.pld import epsilon_by_pld

    accountant = PLDAccountant()
    for noise, count in noise_multipliers(1.0, ((30, 1.5), (60, 1.0), (90, 0.8)), 90):
        accountant.compose(dp_event.PoissonSampledDpEvent(Q, dp_event.GaussianDpEvent(noise)), count)
    theirs = accountant.get_epsilon(DELTA)
    ours = epsilon_by_pld(expand(mechanism_of(Q, 1.0, ((30, 1.5), (60, 1.0), (90, 0.8)), 90), 90), DELTA)
    assert theirs * 0.995 <= ours <= theirs * 1.01


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 30), st.floats(0.5, 8.0), st.floats(0.01, 1.0), st.floats(1.0, 3.0))
def test_calibration_is_the_least_base_that_keeps_within_epsilon(parts: int, epsilon: float, q: float, high: float) -> None:
    schedule = falling(parts, high, 1.0)
    base = calibrate_schedule(epsilon, DELTA, q, 33, schedule)
    assert epsilon_of_charge(scheduled_charge(q, base, schedule, 33), DELTA) <= epsilon
    assert epsilon_of_charge(scheduled_charge(q, base - 1e-4, schedule, 33), DELTA) > epsilon


def test_calibration_counts_what_was_spent_before() -> None:
    spent = scheduled_charge(Q, 1.5, TWO, 50)
    fresh, rest = (calibrate_schedule(3.0, DELTA, Q, 132, TWO, before) for before in (None, spent))
    assert rest > fresh
    total = [a + b for a, b in zip(spent, scheduled_charge(Q, rest, TWO, 132), strict=True)]
    assert epsilon_of_charge(total, DELTA) <= 3.0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 25), max_size=6), st.integers(1, 20))
def test_whatever_crashes_repeat_costs_no_more_than_the_ledger_counts(lost: list[int], lease: int) -> None:
    """Every crash repeats the steps of its lease; n steps that ran are held against the first n of the schedule."""
    schedule = schedule_of(((0.2, 3.0), (0.5, 1.5), (1.0, 0.7)), 60)
    ran: list[int] = []
    for at in lost:
        ran += range(at, min(at + lease, 60))  # leased, run, and lost with the crash
    ran += range(max([*lost, 0]) + lease)
    each = [step_vector(PoissonSampledGaussian(Q, factor_at(schedule, step))) for step in ran]
    real = [sum(column) for column in zip(*each, strict=True)]
    counted = scheduled_charge(Q, 1.0, schedule, len(ran))
    assert all(a <= b for a, b in zip(real, counted, strict=True))


def test_rising_noise_would_break_that_and_is_refused() -> None:
    rising: Schedule = ((30, 0.7), (60, 3.0))
    ran = [*range(10), *range(10), *range(30)]  # two leases lost early
    each = [step_vector(PoissonSampledGaussian(Q, factor_at(rising, step))) for step in ran]
    assert any(sum(c) > b for c, b in zip(zip(*each, strict=True), scheduled_charge(Q, 1.0, rising, len(ran)), strict=True))
    with pytest.raises(PolicyError) as caught:
        schedule_of(((0.5, 0.7), (1.0, 3.0)), 60)
    assert caught.value.code == "E-NOISE-001"
    with pytest.raises(ValueError, match="never rise"):
        Recipe(noise_schedule=((0.5, 0.7), (1.0, 3.0)))


@pytest.mark.parametrize(
    "shares",
    [[(0.5, 1.0)], [(0.0, 1.0), (1.0, 1.0)], [(0.6, 2.0), (0.5, 1.0), (1.0, 1.0)], [(1.0, 0.0)], [(1.0, float("nan"))],
     [(float("nan"), 1.0)], [(1.0, 1e6)], [((n + 1) / 2000, 1.0) for n in range(2000)]],
)  # fmt: skip
def test_what_is_no_schedule_is_refused(shares: list[tuple[float, float]]) -> None:
    assert shares_fault(shares) is not None
    with pytest.raises(PolicyError):
        schedule_of(shares, 100)


def test_parts_that_round_to_no_step_are_left_out() -> None:
    assert schedule_of(((0.01, 3.0), (0.02, 2.0), (1.0, 1.0)), 10) == ((10, 1.0),)
    assert noise_multipliers(2.0, ((4, 1.5), (10, 1.0)), 12) == [(3.0, 4), (2.0, 8)]
    assert noise_multipliers(2.0, (), 12) == [(2.0, 12)]
    assert noise_multipliers(2.0, ((4, 1.5), (10, 1.0)), 3) == [(3.0, 3)]


def test_the_ledgers_description_gives_the_base_back_and_nothing_else_does() -> None:
    for schedule in ((), TWO, falling(120)):
        base = calibrate_schedule(3.0, DELTA, Q, 132, schedule)
        reserved = mechanism_of(Q, base, schedule, 132)
        assert base_of(reserved, schedule, 132) == base
        assert describes(reserved, Q, base, schedule, 132)
        assert not describes(reserved, Q, base + 1e-4, schedule, 132)
        assert not describes(reserved, Q, 0.0, schedule, 132)
    with pytest.raises(IntegrityError) as caught:
        base_of(mechanism_of(Q, 1.0, TWO, 132), ((60, 1.5), (120, 0.9)), 132)
    assert caught.value.code == "E-NOISE-002"


def test_a_trace_carries_its_schedule_and_its_epsilon_follows_from_it() -> None:
    plain = trace(steps=120, steps_in_model=110)
    changing = dataclasses.replace(plain, noise_schedule=TWO)
    assert "noise_schedule" not in plain.to_json()
    assert MechanismTrace.from_json(parse_json(canonical_json(changing.to_json()))) == changing
    assert MechanismTrace.from_json(plain.to_json()) == plain
    louder = dataclasses.replace(plain, noise_schedule=((60, 1.5), (120, 1.0)))
    assert recompute_epsilon(louder) < recompute_epsilon(plain) < recompute_epsilon(changing) + 1
    assert recompute_epsilon(changing) == epsilon_of_charge(scheduled_charge(0.02, 1.1, TWO, 120), 1e-5)
    assert "schedule of 2 factors" in privacy_statement(changing)


@pytest.mark.parametrize(
    "said",
    [[], "x", [[60]], [[60, 1.0, 2]], [[60, "1"]], [[60, 1.0], [50, 0.5]], [[60, 0.5], [120, 1.0]], [[0, 1.0]], [[1.5, 1.0]]],
)
def test_a_doctored_schedule_in_a_trace_is_refused(said: object) -> None:
    value = dict(trace().to_json(), noise_schedule=said)
    with pytest.raises(IntegrityError) as caught:
        MechanismTrace.from_json(value)  # type: ignore[arg-type]
    assert caught.value.code == "E-ACCOUNT-003"

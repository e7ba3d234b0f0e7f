"""Mechanism descriptions against naive twins and dp-accounting: no vector below the truth, no name of stored text followed."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate

from privacy.accounting import ORDERS, charge_vector, composed_rdp, epsilon_of_charge
from privacy.canonical import Json, canonical_json, parse_json
from privacy.errors import IntegrityError, PolicyError
from privacy.mechanisms import (
    ZCDP,
    Composed,
    Gaussian,
    Laplace,
    Mechanism,
    NoiseSchedule,
    PoissonSampledGaussian,
    PoissonSelection,
    PrivateSelection,
    PureDP,
    WorstOf,
    charge_of,
    expand,
    fingerprint,
    from_json,
    spelled,
    step_vector,
    to_json,
)

STEP = PoissonSampledGaussian(0.01, 1.0)
RUN = Composed(((STEP, 300),))
EVERY: list[Mechanism] = [
    Gaussian(2.0),
    STEP,
    Laplace(3.0),
    PureDP(0.5),
    ZCDP(0.02),
    Composed(((STEP, 3), (Composed(((Laplace(9.0), 2),)), 4))),
    NoiseSchedule(((STEP, 2), (Gaussian(9.0), 3))),
    WorstOf(((RUN, 1), (Gaussian(2.0), 1))),
    PrivateSelection(RUN, 0.0, 0.1),
    PrivateSelection.geometric(RUN, 10.0),
    PrivateSelection(RUN, -0.5, 0.2),
    PoissonSelection(RUN, 10.0),
    PrivateSelection.geometric(PoissonSelection(Gaussian(30.0), 3.0), 4.0),
]


def rdp(mechanism: Mechanism) -> np.ndarray:
    return composed_rdp(charge_of(mechanism, mechanism.steps if isinstance(mechanism, NoiseSchedule) else 1))


@pytest.mark.parametrize("mechanism", EVERY, ids=lambda m: m.kind)
def test_a_description_survives_storing_and_is_the_same_charge(mechanism: Mechanism) -> None:
    stored = canonical_json(to_json(mechanism))
    found = from_json(parse_json(stored))
    assert found == mechanism
    assert fingerprint(found) == fingerprint(mechanism)
    assert charge_of(found, 1) == charge_of(mechanism, 1)
    assert spelled(mechanism).startswith(mechanism.kind)
    assert all(isinstance(units, int) and units > 0 for units in charge_of(mechanism, 1))


def test_no_two_descriptions_share_a_fingerprint_and_spelling_does_not_make_two() -> None:
    assert len({fingerprint(mechanism) for mechanism in EVERY}) == len(EVERY)
    assert fingerprint(Gaussian(2)) == fingerprint(Gaussian(2.0))
    assert Gaussian(2) == Gaussian(2.0)
    assert fingerprint(Composed([[STEP, 3]])) == fingerprint(Composed(((STEP, 3),)))  # type: ignore[arg-type]


def everything_wrong_with(value: Json) -> list[Json]:
    assert isinstance(value, dict)
    bad: list[Json] = [{**value, "more": 1}]
    for name in value:
        bad.append({k: v for k, v in value.items() if k != name})
        bad += [{**value, name: other} for other in (None, True, "x", -1, [], {}, [[]], 1e300, {"mechanism": "gaussian"})]
    return bad


@pytest.mark.parametrize("mechanism", EVERY, ids=lambda m: m.kind)
def test_nothing_but_a_whole_description_is_read(mechanism: Mechanism) -> None:
    for bad in everything_wrong_with(to_json(mechanism)):
        with pytest.raises(IntegrityError, match="E-MECH-001"):
            from_json(bad)


@pytest.mark.parametrize(
    "stored",
    [None, [], "gaussian", 3, {}, {"mechanism": "os.system", "command": "true"}, {"mechanism": ["gaussian"]},
     {"mechanism": "__class__"},
     {"module_name": "dp_accounting.dp_event", "class_name": "GaussianDpEvent", "noise_multiplier": 1},
     {"mechanism": "approximate_dp", "epsilon": 1.0, "delta": 1e-6}, {"mechanism": "composed", "parts": [[]]},
     {"mechanism": "composed", "parts": [{"of": {"mechanism": "gaussian", "noise_multiplier": 1.0}, "times": True}]},
     {"mechanism": "composed", "parts": [{"of": {"mechanism": "gaussian", "noise_multiplier": 1.0}, "times": 1.0}]}],
)  # fmt: skip
def test_a_name_in_stored_text_is_never_followed(stored: Json) -> None:
    before = set(sys.modules)
    with pytest.raises(IntegrityError, match="E-MECH-001"):
        from_json(stored)
    assert set(sys.modules) == before


def test_a_description_can_not_be_nested_without_end() -> None:
    deep: Json = {"mechanism": "gaussian", "noise_multiplier": 1.0}
    for _ in range(3000):
        deep = {"mechanism": "composed", "parts": [{"of": deep, "times": 1}]}
    with pytest.raises(IntegrityError, match="E-MECH-001"):
        from_json(deep)
    found: Mechanism = Gaussian(1.0)
    for _ in range(6):
        found = Composed(((found, 1),))
    assert from_json(to_json(found)) == found
    with pytest.raises(PolicyError, match="E-ACCOUNT-001"):
        Composed(((found, 1),))


@pytest.mark.parametrize(
    "make",
    [lambda v: Gaussian(v), lambda v: PoissonSampledGaussian(0.1, v), lambda v: PoissonSampledGaussian(v, 1.0),
     lambda v: Laplace(v), lambda v: PureDP(v), lambda v: ZCDP(v), lambda v: PrivateSelection(RUN, 1.0, v),
     lambda v: PrivateSelection(RUN, v, 0.1) if v != 0 else Gaussian(0), lambda v: PoissonSelection(RUN, v),
     lambda v: PrivateSelection.geometric(RUN, v), lambda v: Composed(((STEP, v),)), lambda v: Composed(v),
     lambda v: NoiseSchedule(((v, 1),)), lambda v: PrivateSelection(v, 1.0, 0.1)],
)  # fmt: skip
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.5, 0, True, "1", None, ()])
def test_parameters_that_mean_nothing_are_refused(make: object, value: object) -> None:
    with pytest.raises((PolicyError, TypeError), match=r"E-ACCOUNT-001|not supported"):
        make(value)  # type: ignore[operator]


def test_a_schedule_stands_alone() -> None:
    schedule = NoiseSchedule(((STEP, 2),))
    for make in (
        lambda: Composed(((schedule, 1),)),
        lambda: NoiseSchedule(((schedule, 1),)),
        lambda: PoissonSelection(schedule, 2),
    ):
        with pytest.raises(PolicyError, match="E-ACCOUNT-001"):
            make()


def by_integration(log_ratio: Callable[[float], float], log_q: Callable[[float], float], alpha: float) -> float:
    """Naive twin: the definition of the divergence, as the integral of (P/Q)^alpha Q."""
    edges = [-300.0, -20.0, 0.0, 1.0, 21.0, 301.0]
    integrand = lambda x: math.exp(alpha * log_ratio(x) + log_q(x))  # noqa: E731
    total = sum(integrate.quad(integrand, a, b, limit=400)[0] for a, b in pairwise(edges))
    return math.log(total) / (alpha - 1)


@pytest.mark.parametrize("scale", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("alpha", [1.5, 2.0, 6.0, 20.0])
def test_laplace_is_what_the_definition_integrates_to(scale: float, alpha: float) -> None:
    ours = rdp(Laplace(scale))[ORDERS.index(alpha)]
    log_ratio = lambda x: (abs(x - 1) - abs(x)) / scale  # noqa: E731
    truth = by_integration(log_ratio, lambda x: -abs(x - 1) / scale - math.log(2 * scale), alpha)
    assert truth * (1 - 1e-9) <= ours <= truth * (1 + 1e-7) + 1e-11


@pytest.mark.parametrize("epsilon", [0.01, 0.5, 3.0])
def test_pure_dp_is_randomised_response_and_bounds_laplace(epsilon: float) -> None:
    top = 1 / (1 + math.exp(-epsilon))
    for index, alpha in enumerate(ORDERS):
        if alpha > 100:
            continue
        truth = math.log(top**alpha * (1 - top) ** (1 - alpha) + (1 - top) ** alpha * top ** (1 - alpha)) / (alpha - 1)
        assert truth * (1 - 1e-9) <= rdp(PureDP(epsilon))[index] <= truth * (1 + 1e-9) + 1e-11
    assert np.all(rdp(PureDP(epsilon)) >= rdp(Laplace(1 / epsilon)) * (1 - 1e-9))
    assert np.all(rdp(PureDP(epsilon)) <= epsilon + 1e-11)


def test_gaussian_and_zcdp_are_their_formulas() -> None:
    orders = np.array(ORDERS)
    assert rdp(Gaussian(2.0)) == pytest.approx(orders / 8, rel=1e-9)
    assert rdp(ZCDP(0.3)) == pytest.approx(0.3 * orders, rel=1e-9)
    assert step_vector(Gaussian(2.0)) == charge_vector(1.0, 2.0)
    assert step_vector(STEP) == charge_vector(0.01, 1.0)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([STEP, Gaussian(5.0), Laplace(8.0), ZCDP(0.1)]), st.integers(1, 50)), min_size=1, max_size=6
    ),
    st.integers(1, 9),
)
def test_composing_is_adding_in_whole_numbers(parts: list[tuple[Mechanism, int]], steps: int) -> None:
    naive = [0] * len(ORDERS)
    for mechanism, count in parts:
        for _ in range(count):
            naive = [a + b for a, b in zip(naive, step_vector(mechanism), strict=True)]  # type: ignore[arg-type]
    assert charge_of(Composed(tuple(parts)), steps) == tuple(steps * units for units in naive)
    schedule = NoiseSchedule(tuple(parts))
    assert charge_of(schedule, schedule.steps) == tuple(naive)
    flat = [mechanism for mechanism, count in parts for _ in range(count)]
    for first in {0, 1, len(flat) // 2, len(flat)}:
        one_by_one = [sum(column) for column in zip([0] * len(ORDERS), *(step_vector(m) for m in flat[:first]), strict=True)]  # type: ignore[arg-type]
        assert charge_of(schedule, first) == tuple(one_by_one)
    assert sum(expand(schedule, len(flat)).values()) == len(flat)
    with pytest.raises(PolicyError, match="E-MECH-002"):
        charge_of(schedule, len(flat) + 1)


@pytest.mark.parametrize("chances", [(0.5, 0.5), (0.999, 0.001), (0.01, 0.99)])
def test_the_worst_of_several_bounds_a_choice_made_without_the_data(chances: tuple[float, float]) -> None:
    """The truth for a choice that is released beside the result: the mean of e^((order - 1) D), taken back to D."""
    parts = (Composed(((PoissonSampledGaussian(0.2, 3.8), 200),)), Gaussian(1.1))
    truths = [rdp(part) for part in parts]
    assert np.any(truths[0] > truths[1])
    assert np.any(truths[0] < truths[1])  # neither alone would do
    ours = rdp(WorstOf(tuple((part, 1) for part in parts)))
    for index, order in enumerate(ORDERS):
        logs = [math.log(chance) + (order - 1) * truth[index] for chance, truth in zip(chances, truths, strict=True)]
        assert np.logaddexp(*logs) / (order - 1) <= ours[index] * (1 + 1e-9)
    assert np.array_equal(ours, np.maximum(*truths))
    assert charge_of(WorstOf(((Gaussian(2.0), 3), (Gaussian(1.0), 1))), 2) == charge_of(Gaussian(1.0), 2)


def naive_selection(base: list[float], index: int, shape: float, gamma: float) -> float:
    """Papernot and Steinke, theorem 2, at one order, every other order tried."""
    mean = shape * (1 - gamma) / (gamma * (1 - gamma**shape)) if shape else (1 / gamma - 1) / math.log(1 / gamma)
    tried = [(1 - 1 / other) * r + math.log(1 / gamma) / other for other, r in zip(ORDERS, base, strict=True)]
    return base[index] + (1 + shape) * min(tried) + math.log(mean) / (ORDERS[index] - 1)


@pytest.mark.parametrize(("shape", "gamma"), [(0.0, 0.1), (1.0, 0.1), (0.5, 0.01), (-0.5, 0.2), (3.0, 0.5)])
def test_private_selection_is_its_theorem(shape: float, gamma: float) -> None:
    base = list(rdp(RUN))
    ours = rdp(PrivateSelection(RUN, shape, gamma))
    naive = [naive_selection(base, index, shape, gamma) for index in range(len(ORDERS))]
    for index in range(len(ORDERS)):
        least = min(naive[index:])  # what holds at a higher order holds here
        assert least * (1 - 1e-9) <= ours[index] <= least * (1 + 1e-8) + 1e-10


@pytest.mark.parametrize("shape", [0.0, 1.0, 2.5, math.inf])
@pytest.mark.parametrize("mean", [3.0, 10.0, 100.0])
def test_private_selection_agrees_with_dp_accounting(shape: float, mean: float) -> None:
    events = pytest.importorskip("dp_accounting.dp_event")
    from dp_accounting.rdp import RdpAccountant

    run = events.SelfComposedDpEvent(events.PoissonSampledDpEvent(0.01, events.GaussianDpEvent(1.0)), 300)
    theirs = RdpAccountant([order for order in ORDERS if order <= 64])
    theirs.compose(events.RepeatAndSelectDpEvent(run, mean, shape))
    if shape == math.inf:
        ours: Mechanism = PoissonSelection(RUN, mean)
    else:
        low, high = 1e-9, 1 - 1e-12
        for _ in range(200):  # the stop probability of this mean
            middle = math.sqrt(low * high)
            low, high = (middle, high) if PrivateSelection(RUN, shape, middle).expected_trials > mean else (low, middle)
        ours = PrivateSelection(RUN, shape, low)
    assert epsilon_of_charge(charge_of(ours, 1), 1e-6) == pytest.approx(theirs.get_epsilon(1e-6), rel=2e-3)


def test_the_best_of_many_trials_costs_more_than_one_and_less_than_all() -> None:
    once, selected = (epsilon_of_charge(charge_of(m, 1), 1e-6) for m in (RUN, PrivateSelection.geometric(RUN, 30.0)))
    assert once < selected < epsilon_of_charge(charge_of(RUN, 30), 1e-6)
    assert PrivateSelection.geometric(RUN, 30.0).expected_trials == pytest.approx(30.0)

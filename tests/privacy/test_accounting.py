"""The accountant against its twins: Opacus's RDP, Opacus's PRV, numerical integration; and its rounding."""

from __future__ import annotations

import json
import math
import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from privacy import accounting, renyi
from privacy.accounting import (
    ORDERS,
    UNITS,
    MechanismTrace,
    admits,
    calibrate_noise,
    cap_vector,
    charge_vector,
    charge_vectors,
    epsilon_of,
    epsilon_of_charge,
    privacy_statement,
    rdp_poisson_gaussian,
    recompute_epsilon,
)
from privacy.canonical import canonical_json, parse_json
from privacy.errors import IntegrityError, PolicyError
from tests.worlds.traces import trace

MECHANISMS = [
    (0.01, 1.0),
    (0.001, 0.7),
    (0.1, 2.0),
    (0.5, 5.0),
    (0.02, 0.4),
    (1e-4, 1.1),
    (0.3, 0.25),
    (0.01, 50.0),
    (0.9, 0.3),
]
Q = st.floats(1e-4, 1.0)
SIGMA = st.floats(0.2, 30.0)


def by_integration(q: float, sigma: float, alpha: float) -> float:
    """Naive twin: the definition, by adaptive quadrature in high precision."""
    import mpmath

    with mpmath.workdps(25):
        s, a = mpmath.mpf(sigma), mpmath.mpf(alpha)
        ratio = lambda z: 1 - mpmath.mpf(q) + mpmath.mpf(q) * mpmath.exp((2 * z - 1) / (2 * s**2))  # noqa: E731
        integrand = lambda z: mpmath.npdf(z, 0, s) * ratio(z) ** a  # noqa: E731
        edges = [-20 * s + n * (40 * s + a) / 12 for n in range(13)]
        return float(mpmath.log(mpmath.quad(integrand, edges)) / (a - 1))


@pytest.mark.parametrize(("q", "sigma"), MECHANISMS)
def test_rdp_is_opacus_rdp_at_every_order_and_never_below(q: float, sigma: float) -> None:
    rdp = pytest.importorskip("opacus.accountants.analysis.rdp")
    ours = rdp_poisson_gaussian(q, sigma)
    theirs = np.array([rdp.compute_rdp(q=q, noise_multiplier=sigma, steps=1, orders=order) for order in ORDERS])
    assert np.all(ours >= theirs - 1e-12)
    assert np.all(ours <= theirs * (1 + 1e-6) + 1e-11)


@pytest.mark.parametrize(
    ("q", "sigma", "alpha"), [(0.01, 1.0, 1.05), (0.3, 0.8, 2.3), (0.05, 0.5, 7.7), (0.5, 3.0, 15.5), (0.02, 1.5, 32.0)]
)
def test_rdp_is_what_the_definition_integrates_to(q: float, sigma: float, alpha: float) -> None:
    pytest.importorskip("mpmath")
    ours = rdp_poisson_gaussian(q, sigma)[ORDERS.index(alpha)]
    truth = by_integration(q, sigma, alpha)
    assert truth <= ours <= truth * (1 + 1e-8) + 5e-12


@pytest.mark.parametrize(
    ("q", "sigma", "steps"), [(0.01, 1.0, 1000), (0.02, 1.388, 1500), (0.1, 2.0, 300), (0.001, 0.6, 5000), (1.0, 20.0, 50)]
)
def test_epsilon_is_never_below_the_tighter_prv_accountant(q: float, sigma: float, steps: int) -> None:
    accountants = pytest.importorskip("opacus.accountants")
    prv = accountants.PRVAccountant()
    prv.history = [(sigma, q, steps)]
    tight = prv.get_epsilon(delta=1e-5, eps_error=0.01)
    ours = epsilon_of(rdp_poisson_gaussian(q, sigma) * steps, 1e-5)
    assert tight - 0.011 <= ours <= 1.5 * tight + 0.1


def test_the_filter_admits_what_dp_accounting_would_to_a_thousandth() -> None:
    """Over DP-SGD as people run it, and its corners; the orders of dp-accounting are all among ours."""
    pytest.importorskip("dp_accounting")
    from benchmarks.atrest_ledger import SETTINGS, admission_loss

    assert len(SETTINGS) > 250
    assert admission_loss() <= 0.1


@pytest.mark.parametrize(
    ("q", "sigma", "steps"),
    [(0.001, 0.8, 10_000), (0.01, 1.0, 100), (0.02, 1.388, 1500), (1.0, 20.0, 50)],
)
def test_epsilon_is_never_below_that_of_dp_accounting_at_our_orders(q: float, sigma: float, steps: int) -> None:
    events = pytest.importorskip("dp_accounting.dp_event")
    from dp_accounting.rdp import RdpAccountant

    theirs, gaussian = RdpAccountant(list(ORDERS)), events.GaussianDpEvent(sigma)
    theirs.compose(events.SelfComposedDpEvent(gaussian if q == 1 else events.PoissonSampledDpEvent(q, gaussian), steps))
    ours = epsilon_of(rdp_poisson_gaussian(q, sigma) * steps, 1e-5)
    assert theirs.get_epsilon(1e-5) <= ours <= theirs.get_epsilon(1e-5) + 2e-6


def test_without_sampling_it_is_the_gaussian_mechanism() -> None:
    assert rdp_poisson_gaussian(1.0, 2.0) == pytest.approx(np.array(ORDERS) / 8, rel=1e-9)
    assert rdp_poisson_gaussian(1 - 1e-9, 2.0) == pytest.approx(np.array(ORDERS) / 8, rel=1e-6)


@settings(max_examples=20, deadline=None)
@given(Q, SIGMA)
@example(1e-4, 25.0)
@example(1 - 1e-16, 1.0)
def test_more_sampling_or_less_noise_never_costs_less(q: float, sigma: float) -> None:
    base = rdp_poisson_gaussian(q, sigma)
    assert np.all(base >= 0)
    assert np.all(np.diff(base[np.isfinite(base)]) >= -5e-12)  # Rényi divergence grows with its order; 5e-12: margins
    allowed = base * (1 - 1e-10) - 5e-12  # the margins for rounding
    assert np.all(rdp_poisson_gaussian(min(1.0, q * 1.1), sigma) >= allowed)
    assert np.all(rdp_poisson_gaussian(q, sigma * 0.9) >= allowed)


@settings(max_examples=15, deadline=None)
@given(Q, SIGMA, st.integers(1, 10**6))
def test_whole_units_are_never_less_than_the_real_cost(q: float, sigma: float, steps: int) -> None:
    charge = charge_vector(q, sigma)
    total = [steps * units for units in charge]
    assert all(isinstance(units, int) and units >= 0 for units in charge)
    assert epsilon_of_charge(total, 1e-6) == pytest.approx(epsilon_of(rdp_poisson_gaussian(q, sigma) * steps, 1e-6), abs=2e-6)


def test_a_wrong_fractional_value_can_not_lower_the_charge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks what the convexity bounds guard: a quadrature gone wrong yields the upper bound, never less than the truth."""
    orders, sigmas = np.array(ORDERS), np.array([1.1, 0.7])
    honest, real = renyi.log_moments(0.02, sigmas, orders), renyi._log_a_quadrature
    assert np.all(honest > 0)
    for wrong in (0.0, 0.5, 1 - 1e-6, 2.0, math.inf, math.nan):
        monkeypatch.setattr(renyi, "_log_a_quadrature", lambda points, q, s, wrong=wrong: real(points, q, s) * wrong)
        assert np.all(renyi.log_moments(0.02, sigmas, orders) >= honest)
        monkeypatch.setattr(renyi, "_log_a_quadrature", real)
    exact = np.stack([renyi._log_a_integer(n, 0.02, sigmas) for n in range(19)])
    for order in (2.5, 7.7):  # one order gone wrong alone: the bounds of its neighbours hold
        truth = honest[:, ORDERS.index(order)]
        at = np.array([order])
        assert np.array_equal(renyi._within_bounds(at, truth[None], exact)[0], truth)
        for guess in (0.0 * truth, truth * 0.5, truth * 2, truth * math.inf, truth * math.nan):
            assert np.all(renyi._within_bounds(at, guess[None], exact)[0] >= truth)


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-5, 1.0), st.lists(st.floats(0.05, 8.0), min_size=1, max_size=5))
def test_many_charges_at_once_are_those_of_one_by_one(q: float, sigmas: list[float]) -> None:
    assert charge_vectors(q, tuple(sigmas)) == tuple(charge_vector(q, sigma) for sigma in sigmas)


def test_epsilon_is_rounded_up_and_zero_only_for_nothing() -> None:
    rdp = rdp_poisson_gaussian(0.01, 1.0) * 100
    exact = float(np.min(rdp + accounting._conversion(1e-5)))
    assert exact <= epsilon_of(rdp, 1e-5) <= exact + 1e-6
    assert epsilon_of(np.zeros(len(ORDERS)), 1e-5) == 0.0
    assert epsilon_of(np.full(len(ORDERS), math.inf), 1e-5) == math.inf
    assert epsilon_of(rdp, 1e-6) > epsilon_of(rdp, 1e-5)


def test_a_cap_is_rounded_down() -> None:
    assert all(room / UNITS + c < 3.0 for room, c in zip(cap_vector(3.0, 1e-5), accounting._conversion(1e-5), strict=True))


@pytest.mark.parametrize(
    ("epsilon", "q", "steps"), [(0.5, 0.01, 100), (3.0, 0.02, 1500), (8.0, 0.1, 3000), (3.0, 1.0, 1), (1.0, 0.001, 20000)]
)
def test_calibrated_noise_is_enough_and_the_next_smaller_is_not(epsilon: float, q: float, steps: int) -> None:
    started = time.perf_counter()
    sigma = calibrate_noise(epsilon, 1e-5, q, steps)
    assert time.perf_counter() - started < 2  # 0.2 s alone; the machine may be shared
    cap = cap_vector(epsilon, 1e-5)
    assert sigma == round(sigma, 4)
    assert admits([steps * units for units in charge_vector(q, sigma)], cap)
    assert epsilon_of(rdp_poisson_gaussian(q, sigma) * steps, 1e-5) <= epsilon
    smaller = charge_vector(q, round(sigma - 1e-4, 4))
    assert not admits([steps * units for units in smaller], cap)


def test_an_impossible_budget_is_refused_and_not_searched_forever() -> None:
    with pytest.raises(PolicyError, match="E-ACCOUNT-002"):
        calibrate_noise(1e-6, 1e-9, 1.0, 10**6)


@pytest.mark.parametrize(
    "call",
    [
        lambda: rdp_poisson_gaussian(0.0, 1.0),
        lambda: rdp_poisson_gaussian(1.1, 1.0),
        lambda: rdp_poisson_gaussian(-0.1, 1.0),
        lambda: rdp_poisson_gaussian(math.nan, 1.0),
        lambda: rdp_poisson_gaussian(0.1, 0.0),
        lambda: rdp_poisson_gaussian(0.1, -1.0),
        lambda: rdp_poisson_gaussian(0.1, math.nan),
        lambda: rdp_poisson_gaussian(0.1, math.inf),
        lambda: epsilon_of(np.ones(len(ORDERS)), 0.0),
        lambda: epsilon_of(np.ones(len(ORDERS)), math.nan),
        lambda: cap_vector(0.0, 1e-5),
        lambda: cap_vector(math.inf, 1e-5),
        lambda: calibrate_noise(1.0, 1e-5, 0.1, 0),
    ],
)
def test_parameters_that_mean_nothing_are_refused(call: object) -> None:
    with pytest.raises(PolicyError, match="E-ACCOUNT-001"):
        call()  # type: ignore[operator]


def test_no_noise_is_no_privacy() -> None:
    assert epsilon_of(rdp_poisson_gaussian(0.1, 1e-3), 1e-5) > 1e4
    assert charge_vector(0.5, 1e-4)[-1] >= 10**6 * UNITS


def test_recomputing_does_not_believe_the_trace_about_epsilon() -> None:
    honest = recompute_epsilon(trace())
    assert recompute_epsilon(trace(epsilon=0.1)) == honest
    assert recompute_epsilon(trace(steps=501)) > honest
    assert recompute_epsilon(trace(steps_in_model=1)) == honest  # crashed leases are charged too
    assert honest == epsilon_of(rdp_poisson_gaussian(0.02, 1.1) * 500, 1e-5)


def test_a_trace_survives_json_and_nothing_else_does() -> None:
    found = parse_json(canonical_json(trace().to_json()))
    assert MechanismTrace.from_json(found) == trace()
    assert isinstance(found, dict)
    for name in found:
        for bad in (None, True, [], {}, -1, "other" if isinstance(found[name], int | float) else 7):
            with pytest.raises(IntegrityError, match="E-ACCOUNT-003"):
                MechanismTrace.from_json({**found, name: bad})
        with pytest.raises(IntegrityError, match="E-ACCOUNT-003"):
            MechanismTrace.from_json({k: v for k, v in found.items() if k != name})
    with pytest.raises(IntegrityError, match="E-ACCOUNT-003"):
        MechanismTrace.from_json({**found, "more": 1})


@pytest.mark.parametrize(
    "changes",
    [{"mechanism": "laplace"}, {"neighbouring_relation": "replace-one"}, {"sampling_probability": 0.0},
     {"sampling_probability": 1.5}, {"noise_multiplier": math.nan}, {"noise_multiplier": 0.0}, {"delta": 1.0},
     {"steps": 0}, {"steps_in_model": 501}],
)  # fmt: skip
def test_a_mechanism_the_accountant_does_not_know_gets_no_epsilon(changes: dict[str, object]) -> None:
    with pytest.raises(IntegrityError, match="E-ACCOUNT-003"):
        recompute_epsilon(trace(**changes))


def test_the_statement_names_unit_relation_and_limits_in_plain_words() -> None:
    text = privacy_statement(trace())
    for needed in (
        "customer",
        "Adding or removing",
        "at most 8",
        "does not cover",
        "assumes",
        "1e-05",
        "500 charged steps",
        "480",
    ):
        assert needed in text
    for banned in ("anonymous", "compliant", "safe", "measured epsilon"):
        assert banned not in text.lower()
    assert json.dumps(text)


def test_what_was_spent_before_counts_when_noise_is_calibrated_for_the_rest() -> None:
    step = charge_vector(0.2, 1.0)
    spent = [10 * units for units in step]
    rest = calibrate_noise(8.0, 1e-5, 0.2, 40, spent)
    assert rest > calibrate_noise(8.0, 1e-5, 0.2, 40)
    together = [used + 40 * units for used, units in zip(spent, charge_vector(0.2, rest), strict=True)]
    assert 7.99 < epsilon_of_charge(together, 1e-5) <= 8.0
    with pytest.raises(PolicyError, match="E-ACCOUNT-002"):
        calibrate_noise(8.0, 1e-5, 0.2, 40, [10**6 * units for units in step])

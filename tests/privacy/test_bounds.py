"""Lower bounds: equal to naive twins, silent on nulls, and above the claim where the mechanism is broken."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy import bounds

NORMAL = NormalDist()


def naive_steinke_p(m: int, r: int, v: int, epsilon: float, delta: float) -> float:
    q = math.exp(epsilon) / (1 + math.exp(epsilon))
    mass = [math.comb(r, k) * q**k * (1 - q) ** (r - k) for k in range(r + 1)]
    beta = math.fsum(mass[v:])
    alpha = max((math.fsum(mass[v - i : v]) / i for i in range(1, v + 1)), default=0.0)
    return min(1.0, beta + 2 * m * delta * alpha)


def naive_fdp_rejects(m: int, r: int, v: int, mu: float, alpha: float) -> bool:
    """Algorithm 3 of 2410.22235 with the Gaussian trade-off curve, in its own order of steps."""
    h = {v: alpha * (r - v) / m}
    t = {v: alpha * v / m}
    for i in range(v - 1, -1, -1):
        inside = normal_cdf(NORMAL.inv_cdf(min(max(t[i + 1], 1e-300), 1 - 1e-16)) - mu) if t[i + 1] > 0 else 0.0
        h[i] = max(h[i + 1], inside)
        t[i] = t[i + 1] + i / (r - i) * (h[i] - h[i + 1])
    return t[0] + h[0] > r / m


def normal_cdf(x: float) -> float:
    """By erfc: the standard library's own cdf loses the lower tail."""
    return 0.5 * math.erfc(-x / math.sqrt(2))


def naive_gaussian_delta(mu: float, epsilon: float) -> float:
    return normal_cdf(-epsilon / mu + mu / 2) - math.exp(epsilon) * normal_cdf(-epsilon / mu - mu / 2)


@given(st.integers(2, 40), st.data(), st.floats(0.0, 6.0), st.sampled_from([0.0, 1e-5, 1e-3]))
@settings(max_examples=60, deadline=None)
def test_steinke_is_its_naive_twin(r: int, data: st.DataObject, epsilon: float, delta: float) -> None:
    v = data.draw(st.integers(0, r))
    expected = naive_steinke_p(50, r, v, epsilon, delta)
    assert bounds.steinke_p_value(50, r, v, epsilon, delta) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@given(st.integers(2, 60), st.data(), st.floats(0.05, 4.0), st.sampled_from([0.001, 0.05]))
@settings(max_examples=60, deadline=None)
def test_fdp_is_its_naive_twin(r: int, data: st.DataObject, mu: float, alpha: float) -> None:
    v = data.draw(st.integers(1, r))
    assert bounds.fdp_rejects(60, r, v, mu, alpha) == naive_fdp_rejects(60, r, v, mu, alpha)


@pytest.mark.parametrize("mu", [0.05, 0.5, 1.0, 3.0, 8.0])
@pytest.mark.parametrize("delta", [1e-6, 1e-4, 1e-2])
def test_gaussian_epsilon_is_the_root_of_delta_rounded_down(mu: float, delta: float) -> None:
    epsilon = bounds.gaussian_epsilon(mu, delta)
    if epsilon == 0:
        assert naive_gaussian_delta(mu, 0.0) <= delta
    else:
        assert naive_gaussian_delta(mu, epsilon) >= delta * (1 - 1e-6)
        assert naive_gaussian_delta(mu, epsilon + 1e-5) < delta


def test_the_figures_of_the_papers_ceiling_hold() -> None:
    """All guesses right, confidence 0.95, delta 1e-5: the ceilings that the research measured."""
    measured = {100: (3.49, 8.22), 500: (5.10, 11.1), 1000: (5.78, 12.3)}
    for m, (steinke, fdp) in measured.items():
        assert bounds.steinke_epsilon(m, m, m, 1e-5, 0.05) == pytest.approx(steinke, abs=0.02)
        assert bounds.fdp_epsilon(m, m, m, 1e-5, 0.05) == pytest.approx(fdp, abs=0.1)


def scores(mu: float, m: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    coins = rng.random(m) < 0.5
    return rng.standard_normal(m) + mu * coins, coins


@pytest.mark.parametrize("epsilon", [0.0, 1.0, 8.0])
def test_no_bound_exceeds_the_truth_more_often_than_its_level_allows(epsilon: float) -> None:
    """A mechanism that is exactly mu-GDP: 5 % of bounds may lie above the truth; 100 runs may give 5, not 13."""
    delta = 1e-4
    mu = 0.0 if epsilon == 0 else _mu_of(epsilon, delta)
    above = {"steinke": 0, "fdp": 0, "gaussian": 0}
    for seed in range(100):
        s, coins = scores(mu, 100, seed)
        above["gaussian"] += bounds.gaussian_lower_bound(s[coins], s[~coins], delta, 0.95) > epsilon + 1e-9
        if seed < 20:
            above["steinke"] += bounds.steinke_lower_bound(s, coins, delta, 0.95) > epsilon + 1e-9
            above["fdp"] += bounds.fdp_lower_bound(s, coins, delta, 0.95) > epsilon + 1e-9
    assert above["gaussian"] <= 12
    assert above["steinke"] <= 3
    assert above["fdp"] <= 4


def test_the_gate_level_is_not_reached_by_chance() -> None:
    mu = _mu_of(8.0, 1e-4)
    above = sum(_gaussian(mu, seed, 0.999) > 8.0 for seed in range(1500))
    assert above <= 7


def test_half_the_noise_is_refuted() -> None:
    mu = 2 * _mu_of(8.0, 1e-5)
    assert all(_gaussian(mu, seed, 0.999, 1e-5) > 8.0 for seed in range(20))


def test_all_three_bounds_grow_with_leakage() -> None:
    for bound in (bounds.steinke_lower_bound, bounds.fdp_lower_bound):
        weak, strong = (bound(*scores(mu, 400, 3), 1e-5, 0.95) for mu in (0.5, 6.0))
        assert weak < strong


def test_noise_that_is_absent_gives_the_cap_and_not_nan() -> None:
    assert bounds.gaussian_lower_bound(np.full(9, 3.0), np.zeros(8), 1e-5, 0.999) == bounds.EPSILON_CAP
    assert bounds.gaussian_lower_bound(np.zeros(9), np.zeros(8), 1e-5, 0.999) == 0.0


def test_too_few_canaries_are_refused() -> None:
    with pytest.raises(ValueError):
        bounds.gaussian_lower_bound(np.ones(1), np.zeros(8), 1e-5, 0.999)
    with pytest.raises(ValueError):
        bounds.steinke_lower_bound(np.ones(3), np.ones(2, dtype=bool), 1e-5, 0.95)


def test_constant_scores_say_nothing_even_when_the_canaries_are_sorted() -> None:
    """A stable order of equal scores would follow the canaries' numbers, and with them the coins."""
    coins = np.arange(200) >= 100
    for bound in (bounds.steinke_lower_bound, bounds.fdp_lower_bound):
        assert bound(np.zeros(200), coins, 1e-5, 0.95) == 0.0


def _gaussian(mu: float, seed: int, level: float, delta: float = 1e-4) -> float:
    s, coins = scores(mu, 200, seed)
    return bounds.gaussian_lower_bound(s[coins], s[~coins], delta, level)


def _mu_of(epsilon: float, delta: float) -> float:
    low, high = 1e-3, 50.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if bounds.gaussian_epsilon(middle, delta) > epsilon else (middle, high)
    return low

"""Bounds from the trace of a run: valid at their level, and strong enough to refute half of the claimed noise."""

from __future__ import annotations

import numpy as np

from privacy.bounds import EPSILON_CAP, gaussian_epsilon
from training.attacks import traced_gaussian_lower_bound

DELTA = 1e-5


def trace(rng: np.random.Generator, mu: float, steps: int = 20, canaries: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """A mechanism whose sum over steps is mu-GDP exactly: every canary inside takes part in every step."""
    coins = rng.random(canaries) < 0.5
    return rng.standard_normal((steps, canaries)) + coins * mu / np.sqrt(steps), coins


def test_the_truth_is_exceeded_no_more_often_than_the_level_allows() -> None:
    """1,000 runs at 95 %: 50 expected, 78 would be four deviations above."""
    rng = np.random.default_rng(3)
    for mu in (0.5, 2.0, 4.0):
        truth = gaussian_epsilon(mu, DELTA)
        above = sum(traced_gaussian_lower_bound(*trace(rng, mu), DELTA, 0.95) > truth for _ in range(1000))
        assert above <= 78, mu


def test_at_the_level_of_the_gate_the_truth_is_exceeded_once_in_a_thousand_runs() -> None:
    """20,000 runs at 99.9 %, few canaries and many: 20 expected, 38 would be four deviations above."""
    rng = np.random.default_rng(5)
    for canaries in (20, 200):
        truth = gaussian_epsilon(2.0, DELTA)
        runs = (trace(rng, 2.0, steps=8, canaries=canaries) for _ in range(20_000))
        above = sum(traced_gaussian_lower_bound(*run, DELTA, 0.999) > truth for run in runs)
        assert above <= 38, canaries


def test_it_is_tight_and_refutes_half_of_the_noise() -> None:
    rng = np.random.default_rng(4)
    found = [traced_gaussian_lower_bound(*trace(rng, 1.5, canaries=500), DELTA, 0.95) for _ in range(20)]
    assert np.mean(found) > 0.85 * gaussian_epsilon(1.5, DELTA)
    doubled = [traced_gaussian_lower_bound(*trace(rng, 3.0, canaries=200), DELTA, 0.999) for _ in range(20)]
    assert min(doubled) > gaussian_epsilon(1.5, DELTA)


def test_without_noise_it_is_the_cap() -> None:
    coins = np.array([True, True, False, True])
    assert traced_gaussian_lower_bound(np.ones((3, 4)) * coins, coins, DELTA, 0.95) == EPSILON_CAP

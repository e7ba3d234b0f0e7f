"""A correct mechanism must not be refuted more often than a level allows, nor chance be taken for leakage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from privacy import bounds
from tests.vectors.make_bounds import scores

DELTA = 1e-5


def mu_of(epsilon: float) -> float:
    low, high = 1e-3, 50.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if bounds.gaussian_epsilon(middle, DELTA) > epsilon else (middle, high)
    return low


def gaussian_violations(epsilon: float, canaries: int, level: float, runs: int) -> int:
    """Runs of an exactly Gaussian mechanism whose bound lies above its true epsilon; canaries in or out by fair coins."""
    mu, above = mu_of(epsilon), 0
    for seed in range(runs):
        found, coins = scores(mu, canaries, seed)
        above += bounds.gaussian_lower_bound(found[coins], found[~coins], DELTA, level) > epsilon + 1e-4
    return above


def not_more_than(rate: float, runs: int) -> int:
    """What a rate gives by chance at most: one run of this test in 10,000 would see more."""
    return int(binom.ppf(1 - 1e-4, runs, rate))


@pytest.mark.parametrize(("level", "runs"), [(0.95, 400), (0.999, 400)])
def test_the_gaussian_bound_keeps_its_level(level: float, runs: int) -> None:
    assert gaussian_violations(8.0, 200, level, runs) <= not_more_than(1 - level, runs)


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", [1.0, 4.0, 8.0])
@pytest.mark.parametrize("canaries", [60, 200, 1000])
def test_the_gaussian_bound_violates_as_often_as_its_level_says(epsilon: float, canaries: int) -> None:
    """Not more, and at 95 % not much less either: a bound that never errs says less than it could."""
    at_95 = gaussian_violations(epsilon, canaries, 0.95, 2000)
    assert at_95 <= not_more_than(0.06, 2000)  # 60 canaries: the normal interval is a little short
    assert at_95 >= int(binom.ppf(1e-4, 2000, 0.035))
    assert gaussian_violations(epsilon, canaries, 0.999, 4000) <= not_more_than(0.0016, 4000)


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", [1.0, 8.0])
def test_the_one_run_bounds_keep_their_level(epsilon: float) -> None:
    mu, runs = mu_of(epsilon), 300
    steinke = fdp = 0
    for seed in range(runs):
        found, coins = scores(mu, 200, seed)
        steinke += bounds.steinke_lower_bound(found, coins, DELTA, 0.95) > epsilon
        fdp += bounds.fdp_lower_bound(found, coins, DELTA, 0.95) > epsilon
    assert steinke <= not_more_than(0.05, runs)
    assert fdp <= not_more_than(0.05, runs)


@pytest.mark.parametrize("seed", range(5))
def test_chance_gives_no_bound_at_the_level_of_the_gate(seed: int) -> None:
    found, coins = scores(0.0, 400, seed)
    assert bounds.gaussian_lower_bound(found[coins], found[~coins], DELTA, 0.999) == 0.0
    assert bounds.steinke_lower_bound(found, coins, DELTA, 0.999) == 0.0
    assert bounds.fdp_lower_bound(found, coins, DELTA, 0.999) == 0.0


def test_chance_gives_a_small_bound_at_most_in_one_run_of_twenty() -> None:
    positive, largest, runs = 0, 0.0, 300
    for seed in range(runs):
        found, coins = scores(0.0, 400, seed)
        bound = bounds.gaussian_lower_bound(found[coins], found[~coins], DELTA, 0.95)
        positive += bound > 0
        largest = max(largest, bound)
    assert positive <= not_more_than(0.05, runs)
    assert largest < 1.0


def test_a_mechanism_that_leaks_more_is_refuted_at_the_level_of_the_gate() -> None:
    """The other side: these tests could not fail if a bound were always 0."""
    mu = 2 * mu_of(2.0)  # half of the noise
    refuted = 0
    for seed in range(10):
        found, coins = scores(mu, 500, seed)
        refuted += bounds.gaussian_lower_bound(found[coins], found[~coins], DELTA, 0.999) > 2.0
    assert refuted == 10


def test_the_coins_of_these_runs_are_fair() -> None:
    heads = sum(int(scores(0.0, 200, seed)[1].sum()) for seed in range(100))
    assert abs(heads - 10_000) < 4 * np.sqrt(20_000) / 2

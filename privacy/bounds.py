"""Lower bounds on epsilon from the canary scores of one training run, each rounded down; a bound is evidence against a claim.

Guarantee: for a mechanism that keeps its claim, a bound at confidence `level` exceeds the true epsilon with probability at
most 1 - level, under the assumption named at each function. A bound below the claim proves nothing.
Three bounds, because they assume different things: Steinke (nothing but fair, secret coins), f-DP (the trade-off curve is
Gaussian), Gaussian (scores of disjoint coordinates are independent and nearly Gaussian; by far the strongest).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr, ndtr, ndtri
from scipy.stats import binom

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

# Registered before any run, so that no bound is picked afterwards: shares of the canaries on which a guess is made.
GUESS_SHARES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
EPSILON_CAP = 10_000.0  # what is published when the scores carry no noise at all
_MU_CAP = 140.0  # gaussian_epsilon(140) is just under the cap


def gaussian_delta(mu: float, epsilon: float) -> float:
    """delta(epsilon) of a mu-GDP mechanism. Source: Dong, Roth and Su 2019, corollary 2.13."""
    return float(ndtr(-epsilon / mu + mu / 2) - math.exp(min(epsilon + float(log_ndtr(-epsilon / mu - mu / 2)), 0.0)))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Largest epsilon that a mu-GDP mechanism does not reach at `delta`, in [0, EPSILON_CAP], rounded down at 1e-6."""
    if mu <= 1e-9 or gaussian_delta(mu, 0.0) <= delta:
        return 0.0
    return _largest(lambda epsilon: gaussian_delta(mu, epsilon) > delta, EPSILON_CAP)


def gaussian_lower_bound(inside: FloatArray, outside: FloatArray, delta: float, level: float) -> float:
    """Lower bound on epsilon from scores of canaries in the data and out of it.

    inside, outside: float64 [m_in], [m_out], at least two each. delta: of the claim. level: one-sided confidence.
    Returns epsilon in [0, EPSILON_CAP]; the cap means that the outside scores do not vary while the inside ones stand apart.
    Assumes independent scores (disjoint coordinates, independent coins).
    Source: Andrew et al. 2023 (2302.03098) section 3, interval for the ratio by the delta method.
    """
    if len(inside) < 2 or len(outside) < 2:
        raise ValueError("a bound needs at least two canaries in the data and two out of it")
    gap = float(inside.mean() - outside.mean())
    spread_out = float(outside.std(ddof=1))
    spread_in = float(inside.std(ddof=1))
    if spread_out <= 1e-12 * max(1.0, abs(gap)):
        return EPSILON_CAP if gap > 0 else 0.0
    mu = gap / spread_out
    error = math.sqrt((spread_in / spread_out) ** 2 / len(inside) + 1 / len(outside) + mu * mu / (2 * len(outside)))
    return gaussian_epsilon(min(mu - float(ndtri(level)) * error, _MU_CAP), delta)


def steinke_p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Probability of at least `correct` right guesses under (epsilon, delta)-DP. Source: 2305.08846, theorem 5.2."""
    right = 1 / (1 + math.exp(-epsilon))
    tail = float(binom.sf(correct - 1, guesses, right))
    if delta == 0 or correct == 0:
        return min(1.0, tail)
    back = np.arange(1, correct + 1)
    slope = (binom.sf(correct - 1 - back, guesses, right) - tail) / back
    return min(1.0, tail + 2 * canaries * delta * max(0.0, float(slope.max())))


def steinke_epsilon(canaries: int, guesses: int, correct: int, delta: float, alpha: float) -> float:
    """Largest epsilon rejected at `alpha`; 0 when none is."""
    return _largest(lambda epsilon: steinke_p_value(canaries, guesses, correct, epsilon, delta) < alpha, 60.0)


def fdp_rejects(canaries: int, guesses: int, correct: int, mu: float, alpha: float) -> bool:
    """Whether `correct` right guesses are too many for every mu-GDP mechanism. Source: 2410.22235, algorithm 3."""
    wrong_mass = alpha * (guesses - correct) / canaries
    right_mass = alpha * correct / canaries
    for index in range(correct - 1, -1, -1):
        if right_mass + wrong_mass > guesses / canaries:
            return True
        bound = float(ndtr(ndtri(min(right_mass, 1.0)) - mu))
        grown = max(wrong_mass, bound)
        right_mass += index / (guesses - index) * (grown - wrong_mass)
        wrong_mass = grown
    return right_mass + wrong_mass > guesses / canaries


def fdp_epsilon(canaries: int, guesses: int, correct: int, delta: float, alpha: float) -> float:
    """Largest epsilon of the Gaussian family rejected at `alpha`; 0 when none is."""
    mu = _largest(lambda value: fdp_rejects(canaries, guesses, correct, value, alpha), 64.0)
    return gaussian_epsilon(mu, delta)


def steinke_lower_bound(scores: FloatArray, coins: BoolArray, delta: float, level: float) -> float:
    """Assumes fair, secret, independent coins, and nothing about the mechanism. scores, coins: [canaries]."""
    return _best_over_guesses(scores, coins, level, lambda r, v, alpha: steinke_epsilon(len(scores), r, v, delta, alpha))


def fdp_lower_bound(scores: FloatArray, coins: BoolArray, delta: float, level: float) -> float:
    """Assumes fair, secret, independent coins, and that the trade-off curve lies in the Gaussian family."""
    return _best_over_guesses(scores, coins, level, lambda r, v, alpha: fdp_epsilon(len(scores), r, v, delta, alpha))


def correct_guesses(scores: FloatArray, coins: BoolArray, guesses: int) -> int:
    """Right guesses when the upper half of `guesses` is called in and the lower half out; the rest abstains."""
    order = np.argsort(scores, kind="stable")
    called_in, called_out = order[len(order) - (guesses + 1) // 2 :], order[: guesses // 2]
    return int(coins[called_in].sum() + (~coins[called_out]).sum())


def _best_over_guesses(scores: FloatArray, coins: BoolArray, level: float, bound: Callable[[int, int, float], float]) -> float:
    """The best of the registered guess counts, the error probability shared among them (Bonferroni)."""
    if len(scores) != len(coins) or len(scores) < 2:
        raise ValueError("scores and coins have one entry per canary, and there are at least two")
    # Ties are broken by a rule that sees no coin: a constant shuffle, or stable order would follow the canary's number.
    shuffled = np.random.default_rng(0).permutation(len(scores))
    scores, coins = scores[shuffled], coins[shuffled]
    alpha = (1 - level) / (len(GUESS_SHARES) + 1)
    middle = (np.quantile(scores, 0.05) + np.quantile(scores, 0.95)) / 2
    best = bound(len(scores), int(((scores > middle) == coins).sum()), alpha)
    for share in GUESS_SHARES:
        guesses = max(1, round(share * len(scores)))
        best = max(best, bound(guesses, correct_guesses(scores, coins, guesses), alpha))
    return best


def _largest(holds: Callable[[float], bool], cap: float) -> float:
    """Largest value in [0, cap] for which a decreasing condition holds, rounded down at 1e-6; 0 when it never does."""
    if not holds(0.0 if cap == EPSILON_CAP else 1e-6):
        return 0.0
    low, high = 0.0, 1.0
    while high < cap and holds(high):
        low, high = high, high * 2
    if high >= cap and holds(cap):
        return cap
    high = min(high, cap)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return math.floor(low * 1e6) / 1e6

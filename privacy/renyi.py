"""Moments of the privacy loss of the Poisson-subsampled Gaussian mechanism, for many amounts of noise at once.

    A(alpha) = E_{z ~ N(0, sigma^2)} [(1 - q + q exp((2z - 1) / (2 sigma^2)))^alpha]
Source: Mironov, Talwar, Zhang 2019 (1908.10530), sections 3.2 and 3.3.
Integer alpha: the binomial sum, rearranged so that every term is positive (A - 1, no cancellation). Fractional alpha: the
integral itself by the trapezoidal rule, whose error falls exponentially for such integrands; the paper's double series has
alternating signs and slow tails. The integral counts only if it agrees with the sums where both exist and keeps within the
bounds that log-convexity of A puts on it; otherwise the upper of those bounds counts.
Guarantee: never below the true value by more than MARGIN, which the charges of `privacy.accounting` include.
Assumption: numpy's exp and log err by a few units in the last place.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

FloatArray = NDArray[np.float64]

MARGIN = 1e-13  # on log A; with the relative one of `privacy.accounting` above the rounding of doubles in either way
_SIGMA_QUADRATURE = 0.1  # below it the grid would be long and no such mechanism is private: bounds only


def log_moments(q: float, sigmas: FloatArray, orders: FloatArray) -> FloatArray:
    """log A, float64 [len(sigmas), len(orders)]; never below the true value by more than MARGIN. 0 < q < 1.

    orders: ascending, above 1; fractional ones below 18.
    """
    whole, is_whole = {int(n) for n in orders if n % 1 == 0}, orders % 1 == 0
    fractional = orders[~is_whole]
    exact = {alpha: _log_a_integer(alpha, q, sigmas) for alpha in whole | set(range(19))}
    small = np.stack([exact[alpha] for alpha in range(19)])
    points = np.array([*fractional, 2.0, 8.0, 16.0])
    guesses = np.stack([_log_a_quadrature(points, q, sigma) for sigma in sigmas.tolist()], axis=1)
    # Where both ways can be had they must agree; a quadrature that fails this is not believed anywhere.
    checked = np.stack([exact[2], exact[8], exact[16]])
    agrees = (np.abs(guesses[-3:] - checked) <= 1e-9 * checked + MARGIN).all(axis=0)
    chosen = _within_bounds(fractional, np.where(agrees, guesses[:-3], np.inf), small)
    found = np.empty((len(sigmas), len(orders)))
    found[:, ~is_whole] = chosen.T
    found[:, is_whole] = np.stack([exact[int(order)] for order in orders[is_whole]], axis=1)
    return found


def _log_a_integer(alpha: int, q: float, sigmas: FloatArray) -> FloatArray:
    """log(1 + sum_{k=2}^{alpha} C(alpha,k) (1-q)^(alpha-k) q^k (exp((k^2-k)/(2 sigma^2)) - 1)), one for each of `sigmas`.

    The paper's sum (its section 3.3) less the binomial expansion of 1, so k = 0 and 1 vanish and all terms are positive.
    """
    if alpha < 2:
        return np.zeros(len(sigmas))
    k = np.arange(2, alpha + 1, dtype=np.float64)
    log_weights = gammaln(alpha + 1) - gammaln(k + 1) - gammaln(alpha - k + 1) + (alpha - k) * math.log1p(-q) + k * math.log(q)
    growth = (k * k - k) / (2 * sigmas[:, None] ** 2)
    result: FloatArray = np.logaddexp(0.0, _log_sum_exp(log_weights + growth + np.log(-np.expm1(-growth))))
    return result


def _log_a_quadrature(orders: FloatArray, q: float, sigma: float) -> FloatArray:
    """log A by the trapezoidal rule over z; the mass lies between -12 sigma and max(alpha) + 12 sigma.

    The integrand is analytic for |Im z| < pi sigma^2, so a step of min(sigma, sigma^2)/10 leaves an error below e^-50.
    """
    if sigma < _SIGMA_QUADRATURE:
        return np.full(len(orders), np.inf)  # outside its bounds, so the upper bound counts
    step = min(sigma, sigma**2) / 10
    z = np.arange(-12 * sigma, float(orders.max()) + 12 * sigma, step)
    log_density = -(z**2) / (2 * sigma**2) - math.log(sigma * math.sqrt(2 * math.pi)) + math.log(step)
    log_ratio = np.logaddexp(math.log1p(-q), math.log(q) + (2 * z - 1) / (2 * sigma**2))
    return _log_sum_exp(log_density + orders[:, None] * log_ratio)


def _log_sum_exp(terms: FloatArray) -> FloatArray:
    """Over the last axis; scipy's own takes ten times as long for rows this short."""
    largest = terms.max(axis=-1, keepdims=True)
    result: FloatArray = largest[..., 0] + np.log(np.exp(terms - largest).sum(axis=-1))
    return result


def _within_bounds(orders: FloatArray, guesses: FloatArray, exact: FloatArray) -> FloatArray:
    """log A is convex: chords of integer orders bound it above, their extensions below. Outside: the upper bound.

    guesses: [len(orders), mechanisms]. exact: [19, mechanisms], at orders 0 to 18.
    """
    n = np.floor(orders).astype(np.int64)
    t = (orders - n)[:, None]
    upper = (1 - t) * exact[n] + t * exact[n + 1]
    below = exact[n] + t * (exact[n] - exact[n - 1])
    above = exact[n + 1] - (1 - t) * (exact[n + 2] - exact[n + 1])
    slack = MARGIN + 1e-12 * upper
    believed = (np.maximum(below, above) - slack <= guesses) & (guesses <= upper + slack)
    return np.where(believed, np.minimum(guesses, upper), upper)

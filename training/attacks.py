"""Canary scores from the noisy gradients of a run: what an attacker who sees every step would believe about each canary.

Guarantee: a score looks at gradients and public parameters only, never at the coins, so bounds computed from it are valid.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats

from privacy.bounds import EPSILON_CAP, gaussian_epsilon

FloatArray = npt.NDArray[np.float64]


def sum_scores(gradients: npt.NDArray[np.float32]) -> FloatArray:
    """float64 [canaries]: sum over steps; for SGD this is what the final weights show. gradients: [steps, canaries]."""
    total: FloatArray = gradients.astype(np.float64).sum(0)
    return total


def poisson_scores(
    gradients: npt.NDArray[np.float32],
    sampling_probability: float,
    noise_multiplier: float | FloatArray,
    clipping_norm: float,
) -> FloatArray:
    """float64 [canaries]: log likelihood ratio of in against out, for steps that sample with the public probability.

    noise_multiplier: of every step, or float64 [steps].
    Stronger than the sum where noise is small against the clipping norm; not Gaussian, so not for the Gaussian bound.
    """
    values = gradients.astype(np.float64) / clipping_norm
    variance = np.maximum(np.reshape(noise_multiplier, (-1, 1)), 1e-6) ** 2
    present = np.log(sampling_probability) + (values - 0.5) / variance
    absent = np.log1p(-sampling_probability) if sampling_probability < 1 else -np.inf
    total: FloatArray = np.logaddexp(absent, present).sum(0)
    return total


def traced_gaussian_lower_bound(
    gradients: npt.NDArray[np.float32], coins: npt.NDArray[np.bool_], delta: float, level: float
) -> float:
    """The Gaussian bound of `privacy.bounds` with the noise measured at every step, not at the end only.

    The sum's noise has a mean of zero and the variance that all steps of all canaries outside show together, so its scale is
    known from steps * canaries values and only the mean over the canaries inside is left to be estimated.
    Assumes what the probe's noise_scale and noise_independence test: noise of mean zero, unrelated from step to step.
    gradients: [steps, canaries]. Needs two canaries inside and one outside; the cap where there is no noise.
    """
    steps = gradients.astype(np.float64)
    outside, inside = steps[:, ~coins], steps[:, coins].sum(0)
    deviation = float(np.sqrt(np.square(outside).sum(0).mean()))
    if deviation == 0.0:
        return EPSILON_CAP
    mu = float(inside.mean()) / deviation
    error = np.hypot(float(inside.std(ddof=1)) / deviation / np.sqrt(inside.size), mu / np.sqrt(2 * outside.size))
    quantile = float(stats.t.isf(1 - level, inside.size - 1))  # the spread inside is estimated, too, from few canaries
    return min(gaussian_epsilon(max(mu - quantile * float(error), 0.0), delta), EPSILON_CAP)

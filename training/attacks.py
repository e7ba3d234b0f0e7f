"""Canary scores from the noisy gradients of a run: what an attacker who sees every step would believe about each canary.

Guarantee: a score looks at gradients and public parameters only, never at the coins, so bounds computed from it are valid.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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

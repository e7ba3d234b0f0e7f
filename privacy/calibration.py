"""How much noise a whole schedule needs, and how it is described to the ledger.

Guarantee: the noise that `calibrate_schedule` returns is admitted by an empty ledger scope of the same epsilon and delta, by
the exact charge of all its steps; the interpolation below only says where to look.
Assumption and source: those of `privacy.accounting` and `privacy.noise_schedule`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.interpolate import PchipInterpolator

from privacy.accounting import (
    UNITS,
    FloatArray,
    admits,
    calibrate_noise,
    cap_vector,
    charge_vectors,
    epsilon_of_charge,
    scheduled_charge,
)
from privacy.errors import IntegrityError, PolicyError
from privacy.mechanisms import Mechanism, NoiseSchedule, PoissonSampledGaussian
from privacy.noise_schedule import Schedule, noise_multipliers

_GRID = 10**4  # bases are multiples of 1e-4, as those of `calibrate_noise`
_NODES = 49  # amounts of noise whose charge is computed to interpolate between
_MOST_FACTORS = 4  # a few parts are searched as fast without a table


def calibrate_schedule(
    epsilon: float,
    delta: float,
    sampling_probability: float,
    steps: int,
    schedule: Schedule = (),
    spent: Sequence[int] | None = None,
) -> float:
    """Smallest base on a 1e-4 grid with which the first `steps` steps, on top of `spent`, cost at most (epsilon, delta).

    Raises PolicyError E-ACCOUNT-001 (parameters), E-ACCOUNT-002 (more noise than 10 000 would be needed).
    """
    if not schedule:
        return calibrate_noise(epsilon, delta, sampling_probability, steps, spent)
    # All factors of at most 1 need at least, all of at least 1 at most, what the constant schedule needs.
    factors = [factor for factor, _ in noise_multipliers(1.0, schedule, steps)]
    constant = calibrate_noise(epsilon, delta, sampling_probability, steps, spent)
    low, high = math.floor(constant / max(factors) * _GRID) - 1, math.ceil(constant / min(factors) * _GRID) + 1
    cap = cap_vector(epsilon, delta)
    before = [0] * len(cap) if spent is None else spent

    def enough(grid: int) -> bool:
        charge = scheduled_charge(sampling_probability, grid / _GRID, schedule, steps)
        total = [used + units for used, units in zip(before, charge, strict=True)]
        return admits(total, cap) and epsilon_of_charge(total, delta) <= epsilon

    if len(factors) > _MOST_FACTORS:
        guess = _estimate(sampling_probability, schedule, steps, before, cap, max(low, 1), high)
        low, high = _bracket(enough, guess, max(low, 0), high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high / _GRID


def mechanism_of(sampling_probability: float, base: float, schedule: Schedule, steps: int) -> Mechanism:
    """What the ledger reserves for `steps` steps of DP-SGD."""
    if not schedule:
        return PoissonSampledGaussian(sampling_probability, base)
    parts = noise_multipliers(base, schedule, steps)
    return NoiseSchedule(tuple((PoissonSampledGaussian(sampling_probability, noise), count) for noise, count in parts))


def describes(mechanism: Mechanism, sampling_probability: float, base: float, schedule: Schedule, steps: int) -> bool:
    """Whether this is what `mechanism_of` would reserve; False, too, for numbers that are no mechanism."""
    try:
        return mechanism == mechanism_of(sampling_probability, base, schedule, steps)
    except PolicyError:
        return False


def base_of(mechanism: Mechanism, schedule: Schedule, steps: int) -> float:
    """The base noise multiplier of what `mechanism_of` described. Raises IntegrityError E-NOISE-002 for anything else."""
    if isinstance(mechanism, PoissonSampledGaussian) and not schedule:
        return mechanism.noise_multiplier
    first = mechanism.parts[0][0] if isinstance(mechanism, NoiseSchedule) else None
    if isinstance(first, PoissonSampledGaussian) and schedule:
        base = round(first.noise_multiplier / schedule[0][1] * _GRID) / _GRID  # calibrated bases lie on this grid
        if base > 0 and mechanism_of(first.sampling_probability, base, schedule, steps) == mechanism:
            return base
    raise IntegrityError(
        "E-NOISE-002",
        "what the ledger reserved for this training is not the noise schedule of its policy",
        "Restore ledger.sqlite from its backup",
    )


def _estimate(q: float, schedule: Schedule, steps: int, before: Sequence[int], cap: Sequence[int], low: int, high: int) -> int:
    """A base that is about right, in grid steps: log RDP is smooth in log noise, so a table of it is read between nodes."""
    parts = noise_multipliers(1.0, schedule, steps)
    factors, counts = np.array([f for f, _ in parts]), np.array([n for _, n in parts], dtype=np.float64)
    nodes = np.geomspace(low / _GRID * factors.min() * 0.99, high / _GRID * factors.max() * 1.01, _NODES)
    table = np.array([[float(units) for units in row] for row in charge_vectors(q, tuple(nodes.tolist()))])
    curves = PchipInterpolator(np.log(nodes), np.log(table), axis=0)
    room = (np.array([float(units) for units in cap]) - np.array([float(units) for units in before])) / UNITS

    def enough(base: float) -> bool:
        charge: FloatArray = counts @ np.exp(curves(np.log(base * factors))) / UNITS
        return bool(np.any(charge <= room))

    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle / _GRID) else (middle, high)
    return high


def _bracket(enough: Callable[[int], bool], guess: int, low: int, high: int) -> tuple[int, int]:
    """Neighbours of the guess of which the lower is not enough and the upper is; wider until that holds."""
    width = 1
    while True:
        below, above = max(low, guess - width), min(high, guess + width - 1)
        if above < high and not enough(above):
            low = max(low, above)
            width *= 4
        elif below > low and enough(below):
            high = min(high, below)
            width *= 4
        else:
            return below, above

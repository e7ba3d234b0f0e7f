"""The part of the probe that looks at how the steps were worked out: their number, divisor, ranks and physical batches.

Guarantee: as in `training.probe`. A field that the record lacks makes its check "not evaluated", which blocks a release.
Assumption: the record was taken where it happened (`training.engine`, `training.distributed`, `training.sharded`).
Not covered: a rank that computes with other weights than it reports.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from privacy.noise import BoolArray
from training.check_result import CheckResult, exact, joint, two_sided
from training.run_record import FloatArray, IntArray, RunRecord

_ROUNDING = 1e-6  # relative, of a ratio of float32 values; a divisor that is off by one unit is seen up to a million
_TOLERANCE = 1e-3  # as in `training.probe.clipping`
_MOST_GROUPS = 8
_FEWEST_STEPS = 8
_MOST_LEVERAGE = 0.5  # above it, one step alone would decide, and its logarithm is not normal
_NO_RECORD = "the run's record does not say how its steps were worked out"


def step_count(record: RunRecord) -> CheckResult:
    """Steps recorded = updates of the weights = steps in the model <= steps charged = what the ledger charged."""
    work, terms = record.work, record.terms
    if work is None or terms is None:
        return CheckResult("step_count", None, _NO_RECORD)
    rows = len(record.gradients)
    counted = rows == len(record.members) == len(work.updates) == terms.steps_in_model <= terms.steps_charged
    charged = terms.steps_in_ledger == terms.steps_charged
    moved = bool((work.updates == 1).all())
    passed = "as many updates as steps recorded and in the model, no more than charged, and the ledger charged as many"
    failed = "steps recorded, updates of the weights, steps claimed and steps in the ledger are not the same story"
    return exact("step_count", counted and charged and moved, passed, failed)


def size_independence(record: RunRecord) -> CheckResult:
    """The divisor that was applied, seen on the canary coordinates, is the public constant in every step."""
    if record.work is None or record.terms is None:
        return CheckResult("size_independence", None, _NO_RECORD)
    seen = record.work.divisors[np.isfinite(record.work.divisors)]
    if len(seen) < len(record.gradients):
        return CheckResult("size_independence", None, "in some step the divisor could not be seen, for want of noise")
    constant = bool((np.abs(seen / record.terms.divisor - 1) < _ROUNDING).all())
    passed = "every step's sum was divided by the public constant of the policy"
    return exact("size_independence", constant, passed, "a step's sum was divided by something else than the public constant")


def rank_noise(record: RunRecord) -> CheckResult:
    """Every rank worked with the weights that the one noisy update makes; every rank that adds noise adds the claimed one."""
    name = "rank_noise"
    if record.work is None or record.terms is None:
        return CheckResult(name, None, _NO_RECORD)
    marks, ranks = record.work.marks, record.work.ranks
    if (ranks < 1).any():
        return CheckResult(name, None, "in some step no rank was recorded")
    if int(ranks.max()) == 1:
        if record.terms.processes > 1:
            return CheckResult(name, None, "the policy shares the work among processes and the record holds one")
        return exact(name, True, "does not apply: one process took every step, as the policy says", "")
    apart = ((marks != marks[:, :1]) & (marks >= 0)).any()
    failed = "a rank worked with another update than the others, or its part has not the claimed noise"
    if apart or record.noise_multiplier <= 0:
        return CheckResult(name, 0.0, failed)
    if not (record.work.shares > 0).any():
        return exact(name, True, "all ranks had the same weights in every step; noise was added once, to the sum", failed)
    p_values = [_scale_of_share(record, rank) for rank in range(marks.shape[1])]
    if any(p is None for p in p_values):
        return CheckResult(name, None, "a rank adds noise where no canary could see it")
    return CheckResult(name, joint(*(p for p in p_values if p is not None)), failed)


def accumulation(record: RunRecord) -> CheckResult:
    """Steps made of equally many physical batches have the claimed noise, once, and contributions clipped unit by unit.

    Noise for each physical batch, or clipping after they were summed, makes both follow their number. The noise does not
    depend on the numbers, so the tests hold given the numbers.
    """
    name = "accumulation"
    if record.work is None:
        return CheckResult(name, None, _NO_RECORD)
    sigma = record.noise_multiplier * record.clipping_norm
    if sigma <= 0:
        return CheckResult(name, 0.0, "the run claims no noise at all")
    p_values: list[float] = []
    for steps in _groups(record.work.parts):
        p_values.append(_scale(record, steps, sigma))
        p_values += _clipped(record, steps, sigma)
    slope = noise_slope(record, record.work.parts)
    if slope is not None and slope.leverage < _MOST_LEVERAGE:
        p_values.append(slope.p_value)
    failed = "noise or clipped contributions follow the number of physical batches of a step"
    return CheckResult(name, joint(*p_values), failed)


@dataclass(frozen=True, slots=True)
class Slope:
    """Of log noise on the log of a number that steps have. leverage: share of the largest step in what is known of it."""

    value: float
    error: float
    leverage: float

    @property
    def p_value(self) -> float:
        return float(2 * stats.norm.sf(abs(self.value) / self.error))


def noise_slope(record: RunRecord, numbers: IntArray) -> Slope | None:
    """None where the numbers or the noise do not vary. numbers: int64 [steps]; steps with none are left out.

    Each step's noise is a root mean square over the coordinates that got noise only; the logarithm of a chi-square with
    n degrees of freedom has variance trigamma(n/2), so the error of the slope is known beforehand, and with it the power.
    """
    counts = numbers.astype(np.float64)
    quiet = np.concatenate([np.ones_like(record.outside, dtype=np.bool_), ~record.inside_members], axis=1)
    squares = np.square(np.concatenate([record.outside, record.inside], axis=1)) * quiet
    width = quiet.sum(1)
    noise = np.sqrt(squares.sum(1) / width) / record.by_step[:, 0]
    kept = (counts > 0) & (noise > 1e-9 * record.clipping_norm)
    if kept.sum() < _FEWEST_STEPS or float(counts[kept].std()) == 0.0:
        return None
    weight = 4.0 / special.polygamma(1, width[kept] / 2)
    x = np.log(counts[kept])
    x = x - np.average(x, weights=weight)
    known = weight * x * x
    error = 1.0 / math.sqrt(float(known.sum()))
    value = float((weight * x * np.log(noise[kept])).sum()) * error**2
    return Slope(value, error, float(known.max()) * error**2)


def _groups(parts: IntArray) -> list[BoolArray]:
    """bool [steps] each: steps of equally many parts, or, where there are many numbers, of neighbouring ones."""
    numbers = np.unique(parts)
    return [np.isin(parts, some) for some in np.array_split(numbers, min(len(numbers), _MOST_GROUPS))]


def _scale(record: RunRecord, steps: BoolArray, sigma: float) -> float:
    scaled = record.outside[steps] / (sigma * record.by_step[steps])
    return two_sided(stats.chi2, float(np.square(scaled).sum()), scaled.size)


def _clipped(record: RunRecord, steps: BoolArray, sigma: float) -> list[float]:
    """p-value of the mean contribution of sampled canaries; empty where none was sampled."""
    sampled = record.inside_members[steps]
    count = int(sampled.sum())
    if count == 0:
        return []
    mean = float(record.inside[steps][sampled].mean())
    each: FloatArray = np.broadcast_to(record.by_step[steps], sampled.shape)[sampled]
    error = sigma * math.sqrt(float(np.square(each).sum())) / count
    excess = max(abs(mean - record.clipping_norm) - _TOLERANCE * record.clipping_norm, 0.0)
    return [min(1.0, float(2 * stats.norm.sf(excess / error)))]


def _scale_of_share(record: RunRecord, rank: int) -> float | None:
    """p-value of the noise's scale where this rank added it; None where no canary that is out was among its rows."""
    assert record.work is not None
    shares = np.maximum(record.work.shares, 0)
    ends = np.cumsum(shares, axis=1)[:, rank]
    starts = ends - shares[:, rank]
    rows = np.arange(len(record.coins))
    own = (rows >= starts[:, None]) & (rows < ends[:, None]) & ~record.coins
    took_part = record.work.marks[:, rank] >= 0
    if not own[took_part].any(axis=1).all():
        return None
    sigma = record.noise_multiplier * record.clipping_norm
    scaled = (record.gradients.astype(np.float64) / (sigma * record.by_step))[own]
    return two_sided(stats.chi2, float(np.square(scaled).sum()), scaled.size)

"""The conformance probe: does a run's own record fit the mechanism it claims? Six checks, each with a p-value.

Guarantee: on a run that follows its claim, the chance that any check fails is at most `level` (Bonferroni over checks and
over the tests inside a check; the distributions are exact or corrected for their fourth moment).
Assumption: the record was taken where the optimizer reads its gradient (`training.engine`).
Not covered: a trainer that forges the record; that is what canary coins and signatures are for.
A check that had nothing to look at, or could not have seen the fault it looks for, says "not evaluated".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from privacy.noise import BoolArray
from privacy.verdict import Verdict

FloatArray = npt.NDArray[np.float64]
CHECKS = ("noise_scale", "clipping", "noise_independence", "batch_size_law", "participation_law", "divisor")
_TOLERANCE = 1e-3  # relative; float32 sums and Opacus' norm + 1e-6 stay far below it
_PAIR_BLOCK = 4000


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a run left for the audit, and what it claims.

    gradients: float32 [steps, canaries], noisy sums at the canary coordinates. coins: bool [canaries].
    members: bool [steps, units + canaries], who was sampled at each step. factors: float64 [steps] of a noise schedule.
    """

    gradients: npt.NDArray[np.float32]
    coins: BoolArray
    members: BoolArray
    noise_multiplier: float
    clipping_norm: float
    sampling_probability: float
    factors: FloatArray | None = None

    @property
    def by_step(self) -> FloatArray:
        """float64 [steps, 1]: each step's noise as a multiple of `noise_multiplier`."""
        found: FloatArray = np.ones((len(self.gradients), 1)) if self.factors is None else self.factors.reshape(-1, 1)
        return found

    @property
    def outside(self) -> FloatArray:
        """float64 [steps, canaries out]: noise only, if the run is right."""
        found: FloatArray = self.gradients[:, ~self.coins].astype(np.float64)
        return found

    @property
    def inside(self) -> FloatArray:
        found: FloatArray = self.gradients[:, self.coins].astype(np.float64)
        return found

    @property
    def inside_members(self) -> BoolArray:
        canaries: BoolArray = self.members[:, self.members.shape[1] - len(self.coins) :]
        return canaries[:, self.coins]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """p_value None: not evaluated, `note` says why. `note` holds no private number."""

    check: str
    p_value: float | None
    note: str


def probe(record: RunRecord, level: float) -> list[CheckResult]:
    """All six checks, in the order of CHECKS. `level` is the false-alarm level of the whole probe."""
    if len(record.gradients) < 3 or record.coins.sum() < 2 or (~record.coins).sum() < 5:
        return [CheckResult(name, None, "too few steps or canaries were recorded") for name in CHECKS]
    if not np.isfinite(record.gradients).all():
        return [CheckResult(name, 0.0, "the recorded gradients are not finite") for name in CHECKS]
    each = level / len(CHECKS)
    return [
        noise_scale(record),
        clipping(record),
        noise_independence(record),
        batch_size_law(record),
        participation_law(record),
        divisor(record, each),
    ]


def verdicts(results: list[CheckResult], level: float) -> list[Verdict]:
    """One verdict per check at level / 6."""
    each = level / len(CHECKS)
    found = []
    for result in results:
        name = f"probe.{result.check}"
        if result.p_value is None:
            found.append(Verdict(name, "not_evaluated", result.note))
        elif result.p_value < each:
            found.append(
                Verdict(name, "failed", f"{result.note} (p = {published_p_value(result.p_value):g}, level {each:.1e})")
            )
        else:
            p_value = published_p_value(result.p_value)
            found.append(Verdict(name, "passed", f"no deviation found (p = {p_value:g}, level {each:.1e})"))
    return found


def published_p_value(p_value: float | None) -> float | None:
    """One significant digit: all its digits would spell out exact counts of who was sampled, which are secret."""
    return None if p_value is None else float(f"{p_value:.0e}")


def noise_scale(record: RunRecord) -> CheckResult:
    """Scale (chi-square, two-sided) and shape (Kolmogorov-Smirnov) of the noise at canaries that are out."""
    sigma = record.noise_multiplier * record.clipping_norm
    if sigma <= 0:
        return CheckResult("noise_scale", 0.0, "the run claims no noise at all")
    out = record.outside / (sigma * record.by_step)
    scale = _two_sided(stats.chi2, float(np.square(out).sum()), out.size)
    shape = float(stats.kstest(out.ravel(), "norm").pvalue)
    ratio = math.sqrt(float(np.square(out).mean()))
    return CheckResult(
        "noise_scale", _joint(scale, shape), f"the noise is not the Gaussian claimed: {ratio:.3f} times its scale"
    )


def clipping(record: RunRecord) -> CheckResult:
    """A canary asks for many times the clipping norm, so a sampled one must contribute exactly the norm, on average."""
    sampled = record.inside[record.inside_members]
    if len(sampled) < 5:
        return CheckResult("clipping", None, "too few canaries were sampled")
    norm = record.clipping_norm
    error = max(float(np.sqrt(np.square(record.outside).mean())), 1e-9 * norm) / math.sqrt(len(sampled))
    excess = abs(float(sampled.mean()) - norm) - _TOLERANCE * norm
    p_value = float(2 * stats.norm.sf(max(excess, 0.0) / error))
    ratio = float(sampled.mean()) / norm
    return CheckResult("clipping", min(1.0, p_value), f"a sampled canary contributes {ratio:.3g} times the clipping norm")


def noise_independence(record: RunRecord) -> CheckResult:
    """Noise repeated at the next step, at any other step, or shared by coordinates."""
    out = record.outside / record.by_step
    steps, width = out.shape
    rms = math.sqrt(float(np.square(out).mean()))
    if rms <= 1e-9 * record.clipping_norm:
        return CheckResult("noise_independence", None, "there is no noise to look at")
    scaled = out / rms
    lagged = float((scaled[1:] * scaled[:-1]).sum()) / math.sqrt(width * (steps - 1))
    shared = _two_sided(stats.chi2, float(np.square(scaled.sum(1)).sum()) / width, steps)
    p_value = _joint(float(2 * stats.norm.sf(abs(lagged))), _repeated(scaled), shared)
    return CheckResult("noise_independence", p_value, "the noise of different steps or coordinates is related")


def batch_size_law(record: RunRecord) -> CheckResult:
    """Batch sizes have the mean and the spread of independent coins; a fixed batch size has none."""
    steps, slots = record.members.shape
    q = record.sampling_probability
    sizes = record.members.sum(1).astype(np.float64)
    if q >= 1.0:
        return CheckResult("batch_size_law", float((sizes == slots).all()), "a unit was left out of a full batch")
    total = float(stats.binomtest(int(sizes.sum()), slots * steps, q).pvalue)
    spread = _dispersion(float(np.square(sizes - slots * q).sum()) / (slots * q * (1 - q)), steps, slots, q)
    return CheckResult("batch_size_law", _joint(total, spread), "batch sizes do not follow Poisson sampling")


def participation_law(record: RunRecord) -> CheckResult:
    """How often each unit takes part, whether consecutive batches avoid each other, and whether the log is complete."""
    steps, slots = record.members.shape
    q = record.sampling_probability
    if q >= 1.0:
        return CheckResult("participation_law", None, "every unit takes part in every step")
    counts = record.members.sum(0).astype(np.float64)
    spread = _dispersion(float(np.square(counts - steps * q).sum()) / (steps * q * (1 - q)), slots, steps, q)
    overlap = float((record.members[1:] & record.members[:-1]).sum())
    variance = slots * ((steps - 1) * q**2 * (1 - q**2) + 2 * (steps - 2) * (q**3 - q**4))
    apart = (overlap - slots * (steps - 1) * q**2) / math.sqrt(variance)
    absent = record.inside[~record.inside_members]
    error = max(float(np.sqrt(np.square(record.outside).mean())), 1e-9 * record.clipping_norm) / math.sqrt(max(len(absent), 1))
    unlogged = max(abs(float(absent.mean())) - _TOLERANCE * record.clipping_norm, 0.0) / error if len(absent) else 0.0
    p_value = _joint(spread, float(2 * stats.norm.sf(abs(apart))), float(2 * stats.norm.sf(unlogged)))
    return CheckResult("participation_law", p_value, "units do not take part by independent coins")


def divisor(record: RunRecord, level: float) -> CheckResult:
    """Slope of log noise on log batch size: 0 for a public divisor, -1 for division by the actual batch.

    Each step's noise is a root mean square over the coordinates that got noise only; the logarithm of a chi-square with
    n degrees of freedom has variance trigamma(n/2), so the error of the slope is known beforehand, and with it the power.
    """
    sizes = record.members.sum(1).astype(np.float64)
    quiet = np.concatenate([np.ones_like(record.outside, dtype=np.bool_), ~record.inside_members], axis=1)
    squares = np.square(np.concatenate([record.outside, record.inside], axis=1)) * quiet
    width = quiet.sum(1)
    noise = np.sqrt(squares.sum(1) / width) / record.by_step[:, 0]
    kept = (sizes > 0) & (noise > 1e-9 * record.clipping_norm)
    if kept.sum() < 8 or float(sizes[kept].std()) == 0.0:
        return CheckResult("divisor", None, "batch sizes or noise do not vary, so nothing can be told from them")
    weight = 4.0 / special.polygamma(1, width[kept] / 2)
    x = np.log(sizes[kept])
    x = x - np.average(x, weights=weight)
    error = 1.0 / math.sqrt(float((weight * x * x).sum()))
    if 1.0 / error < float(stats.norm.isf(level / 2)):
        return CheckResult("divisor", None, "too few steps or canaries to tell a private divisor from a public one")
    slope = float((weight * x * np.log(noise[kept])).sum()) * error**2
    p_value = float(2 * stats.norm.sf(abs(slope) / error))
    return CheckResult("divisor", p_value, f"the noise follows the batch size with slope {slope:.2f}")


def _repeated(scaled: FloatArray) -> float:
    """p-value of the largest cosine between the noise of any two steps; a cosine of Gaussians squared is Beta."""
    steps, width = scaled.shape
    lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
    rows = scaled / np.maximum(lengths, 1e-300)
    largest, pairs = 0.0, 0
    for start in range(0, steps, _PAIR_BLOCK):
        block = rows[start : start + _PAIR_BLOCK]
        cosines = np.abs(np.triu(block @ block.T, 1))
        largest = max(largest, float(cosines.max()))
        pairs += len(block) * (len(block) - 1) // 2
    single = float(stats.beta.sf(min(largest**2, 1.0), 0.5, (width - 1) / 2))
    return min(1.0, single * max(pairs, 1))


def _dispersion(statistic: float, draws: int, trials: int, q: float) -> float:
    """Two-sided p-value of sum((x - mean)^2 / variance) over binomials.

    Its variance is draws * (2 + excess kurtosis); a scaled chi-square has that mean and variance (Satterthwaite).
    """
    excess = (1 - 6 * q * (1 - q)) / (trials * q * (1 - q))
    scale = (2 + excess) / 2
    return _two_sided(stats.chi2, statistic / scale, draws / scale)


def _two_sided(law: stats.rv_continuous, statistic: float, freedom: float) -> float:
    return min(1.0, 2 * min(float(law.cdf(statistic, freedom)), float(law.sf(statistic, freedom))))


def _joint(*p_values: float) -> float:
    """Bonferroni over the tests of one check."""
    return min(1.0, len(p_values) * min(p_values))

"""The conformance probe: does a run's own record fit the mechanism it claims? Ten checks, each with a p-value.

Guarantee: on a run that follows its claim, the chance that any check fails is at most `level` (Bonferroni over checks and
over the tests inside a check; the distributions are exact or corrected for their fourth moment). Checks that compare exactly
(steps, divisor, ranks that hold the whole model) raise no false alarm at all.
Assumption: the record was taken where the optimizer reads its gradient (`training.engine`).
Not covered: a trainer that forges the record; that is what canary coins and signatures are for.
A check that had nothing to look at, or could not have seen the fault it looks for, says "not evaluated".
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import stats

from privacy.verdict import Outcome, Verdict
from training.check_result import CheckResult, joint, two_sided
from training.probe_work import accumulation, noise_slope, rank_noise, size_independence, step_count
from training.run_record import FloatArray, RunRecord

__all__ = ["CHECKS", "CheckResult", "RunRecord", "least_power", "probe", "published_p_value", "verdicts"]

CHECKS = (
    "noise_scale",
    "clipping",
    "noise_independence",
    "batch_size_law",
    "participation_law",
    "divisor",
    "step_count",
    "size_independence",
    "rank_noise",
    "accumulation",
)
_TOLERANCE = 1e-3  # relative; float32 sums and Opacus' norm + 1e-6 stay far below it
_PAIR_BLOCK = 4000


def probe(record: RunRecord, level: float) -> list[CheckResult]:
    """All checks, in the order of CHECKS. `level` is the false-alarm level of the whole probe."""
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
        step_count(record),
        size_independence(record),
        rank_noise(record),
        accumulation(record),
    ]


def verdicts(results: list[CheckResult], level: float) -> list[Verdict]:
    """One verdict per check at an equal share of the level."""
    each = level / len(CHECKS)
    found = []
    for result in results:
        name = f"probe.{result.check}"
        if result.p_value is None:
            found.append(Verdict(name, "not_evaluated", result.note))
        elif result.passed:
            outcome: Outcome = "passed" if result.p_value == 1.0 else "failed"
            found.append(Verdict(name, outcome, result.passed if outcome == "passed" else result.note))
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
    """Scale (chi-square, two-sided) of the noise at canaries that are out, over the run and at each step, its shape
    (Kolmogorov-Smirnov), and the scale of what was added to each tensor at each step."""
    sigma = record.noise_multiplier * record.clipping_norm
    if sigma <= 0:
        return CheckResult("noise_scale", 0.0, "the run claims no noise at all")
    out = record.outside / (sigma * record.by_step)
    scale = two_sided(stats.chi2, float(np.square(out).sum()), out.size)
    shape = float(stats.kstest(out.ravel(), "norm").pvalue)
    each = _smallest(np.square(out).sum(1), np.full(len(out), out.shape[1]))
    elsewhere = _by_tensor(record, sigma)
    ratio = math.sqrt(float(np.square(out).mean()))
    said = f"the noise is not the Gaussian claimed: {ratio:.3f} times its scale"
    if elsewhere < min(scale, shape, each):
        said = "what was added to some tensor at some step is not the noise claimed"
    elif each < min(scale, shape):
        said = "the noise of some step is not the Gaussian claimed"
    return CheckResult("noise_scale", joint(scale, shape, each, elsewhere), said)


def _by_tensor(record: RunRecord, sigma: float) -> float:
    """Canaries are a few rows of one tensor: noise that is right there could be missing from every other."""
    if record.work is None:
        return 1.0
    rows, columns = np.nonzero(record.work.sizes)
    scales = np.square(sigma * record.by_step[rows, 0])
    return _smallest(record.work.energies[rows, columns] / scales, record.work.sizes[rows, columns])


def _smallest(statistics: FloatArray, freedoms: npt.NDArray[np.generic]) -> float:
    """Two-sided chi-square p-value of the oddest, corrected for how many there are; 1 of none."""
    if not len(statistics):
        return 1.0
    tails = np.minimum(stats.chi2.cdf(statistics, freedoms), stats.chi2.sf(statistics, freedoms))
    return float(min(1.0, 2 * len(statistics) * float(tails.min())))


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
    shared = two_sided(stats.chi2, float(np.square(scaled.sum(1)).sum()) / width, steps)
    p_value = joint(float(2 * stats.norm.sf(abs(lagged))), _repeated(scaled), shared)
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
    return CheckResult("batch_size_law", joint(total, spread), "batch sizes do not follow Poisson sampling")


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
    p_value = joint(spread, float(2 * stats.norm.sf(abs(apart))), float(2 * stats.norm.sf(unlogged)))
    return CheckResult("participation_law", p_value, "units do not take part by independent coins")


def divisor(record: RunRecord, level: float) -> CheckResult:
    """Slope of log noise on log batch size: 0 for a public divisor, -1 for division by the actual batch."""
    slope = noise_slope(record, record.members.sum(1))
    if slope is None:
        return CheckResult("divisor", None, "batch sizes or noise do not vary, so nothing can be told from them")
    if 1.0 / slope.error < least_power(level):
        return CheckResult("divisor", None, "too few steps or canaries to tell a private divisor from a public one")
    return CheckResult("divisor", slope.p_value, f"the noise follows the batch size with slope {slope.value:.2f}")


def least_power(level: float) -> float:
    """Error-widths that a slope of -1 must be away from 0 for the divisor check to be worth a word. level: of that check."""
    return float(stats.norm.isf(level / 2))


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
    return two_sided(stats.chi2, statistic / scale, draws / scale)

"""When negative opinions surge: a pure rule with public thresholds, over counts that are noisy or aggregates already.

Guarantee: nothing but the counts handed in is read, and the rule is post-processing of them, so an alert spends no budget.
Assumption: counts come from a differentially private release or are aggregates that may be shown; their noise is stated.
Not covered: what caused a surge; a slow rise below the threshold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from privacy.errors import UsageError


@dataclass(frozen=True, slots=True)
class Window:
    """Opinions in one span of time. negatives, total: counts, with noise (so maybe fractions, maybe below zero).

    noise_std: standard deviation of the noise in each of the two counts; 0 for exact aggregates.
    """

    name: str
    negatives: float
    total: float
    noise_std: float = 0.0


@dataclass(frozen=True, slots=True)
class SurgeRule:
    """Public. An alert needs a share of negatives above the baseline by `rise`, and by `deviations` standard errors.

    minimum_total: windows that are smaller say nothing. baseline_windows: how many windows before it are the baseline.
    """

    rise: float = 0.1
    deviations: float = 3.0
    minimum_total: float = 30.0
    baseline_windows: int = 4

    def __post_init__(self) -> None:
        if not (0 < self.rise < 1 and self.deviations > 0 and self.minimum_total > 0 and self.baseline_windows >= 1):
            raise UsageError("E-SURGE-001", "a threshold of the surge rule is out of range", "Give a rise between 0 and 1")


@dataclass(frozen=True, slots=True)
class Surge:
    """An alert. share, baseline: of negatives, in [0, 1]; error: one standard error of their difference."""

    window: str
    share: float
    baseline: float
    error: float


def surges(windows: Sequence[Window], rule: SurgeRule) -> list[Surge]:
    """Windows, in order, in which negatives are up against the windows right before; those without a baseline are left out.

    The standard error is that of a difference of two shares, with the noise of the counts added (first order, ratio p/n).
    """
    found = []
    for number, window in enumerate(windows):
        before = [w for w in windows[:number] if w.total >= rule.minimum_total][-rule.baseline_windows :]
        if not before or window.total < rule.minimum_total:
            continue
        pooled = Window(
            "baseline",
            sum(w.negatives for w in before),
            sum(w.total for w in before),
            math.sqrt(sum(w.noise_std**2 for w in before)),
        )
        share, baseline = _share(window), _share(pooled)
        error = math.sqrt(_variance(window, baseline) + _variance(pooled, baseline))
        if share - baseline > max(rule.rise, rule.deviations * error):
            found.append(Surge(window.name, share, baseline, error))
    return found


def _share(window: Window) -> float:
    return min(1.0, max(0.0, window.negatives / window.total))


def _variance(window: Window, share: float) -> float:
    """Of a window's share, were its true share `share`: sampling, at least that of half a negative, and noise."""
    sampling = max(share * (1 - share), 0.5 / window.total) / window.total
    noise = (window.noise_std / window.total) ** 2 * (1 + share**2)
    return sampling + noise

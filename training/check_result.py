"""What one check of the probe found, and the two ways in which p-values come together."""

from __future__ import annotations

from dataclasses import dataclass

from scipy import stats


@dataclass(frozen=True, slots=True)
class CheckResult:
    """p_value None: not evaluated, `note` says why; else `note` says what a failure means. It holds no private number.

    passed: what a pass means, of a check that compares exactly; its p-value is 0 or 1, and chance plays no part.
    """

    check: str
    p_value: float | None
    note: str
    passed: str = ""


def exact(check: str, holds: bool, passed: str, failed: str) -> CheckResult:
    return CheckResult(check, 1.0 if holds else 0.0, failed, passed)


def two_sided(law: stats.rv_continuous, statistic: float, freedom: float) -> float:
    return min(1.0, 2 * min(float(law.cdf(statistic, freedom)), float(law.sf(statistic, freedom))))


def joint(*p_values: float) -> float:
    """Bonferroni over the tests of one check."""
    return min(1.0, len(p_values) * min(p_values))

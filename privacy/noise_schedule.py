"""Noise that changes from step to step, by public numbers: which step gets which multiple of the base noise.

Guarantee: the noise never rises. So whatever crashes a run, the n steps that it has run cost no more than the first n of its
schedule: a step that a crash repeats is an early one, and stands in the count where a later, costlier one would.
Assumption: a resumed run repeats steps of the schedule and skips none (`training.trainer` numbers steps of the model).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from privacy.errors import PolicyError

Schedule = tuple[tuple[int, float], ...]  # (until this step, multiple of the base); empty: the base throughout
Shares = Sequence[tuple[float, float]]  # the same with shares of all steps in place of steps
MOST_PARTS = 1000


def schedule_of(shares: Shares, steps: int) -> Schedule:
    """In steps; parts that are rounded away are left out. Raises PolicyError E-NOISE-001 for what is no such schedule."""
    if fault := shares_fault(shares):
        raise PolicyError("E-NOISE-001", f"the noise schedule can't be used: {fault}", "Correct recipe.noise_schedule")
    found: list[tuple[int, float]] = []
    for share, factor in shares:
        until = round(share * steps)
        if until > (found[-1][0] if found else 0):
            found.append((until, float(factor)))
    return tuple(found)


def shares_fault(shares: Shares) -> str | None:
    """What is wrong with it, or None."""
    if len(shares) > MOST_PARTS:
        return f"it has more than {MOST_PARTS} parts"
    ends, factors = [share for share, _ in shares], [factor for _, factor in shares]
    if shares and not (all(0 < share <= 1 for share in ends) and ends[-1] == 1):
        return "shares of the steps lie in (0, 1], and the last one is 1"
    if any(later <= earlier for earlier, later in itertools.pairwise(ends)):
        return "shares must rise"
    if not all(1e-3 <= factor <= 1e3 for factor in factors):
        return "factors lie between 0.001 and 1000"
    if any(later > earlier for earlier, later in itertools.pairwise(factors)):
        return "noise may fall and never rise, or a crash could cost more than the ledger counts"
    return None


def factor_at(schedule: Schedule, step: int) -> float:
    """Of step `step`, counted from 0. Steps after the end, which only crashes use up, keep the last factor."""
    for until, factor in schedule:
        if step < until:
            return factor
    return schedule[-1][1] if schedule else 1.0


def noise_multipliers(base: float, schedule: Schedule, steps: int) -> list[tuple[float, int]]:
    """(noise multiplier, number of steps) in order, of the first `steps` steps."""
    found: list[tuple[float, int]] = []
    done = 0
    for until, factor in schedule or ((steps, 1.0),):
        count = min(until, steps) - done
        if count > 0:
            found.append((base * factor, count))
            done += count
    if done < steps:
        last = base * factor_at(schedule, done)
        before = found.pop()[1] if found and found[-1][0] == last else 0
        found.append((last, before + steps - done))
    return found

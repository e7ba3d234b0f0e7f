"""What the mechanism itself must keep: exact gradients, an accountant that is quick, no silent failure, no free step.

The failures and the kills are those of the tests (tests/worlds/silent_failures.py, tests/worlds/kills.py), run here once more.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.rows import Row
from privacy.accounting import epsilon_of_charge
from privacy.mechanisms import NoiseSchedule, PoissonSampledGaussian, total_charge

STEPS = 300


def rows(*, quick: bool = False) -> list[Row]:
    return [_failures(), _schedule(quick), _exactness(), _kills(10 if quick else 100)]


def _failures() -> Row:
    from tests.worlds.silent_failures import FAILURES

    caught = sum(bool(failure()) for failure in FAILURES)
    return Row("silent failures of stock Opacus, caught or impossible", "of 7", caught, 0.0, 7.0, caught == 7)


def _schedule(quick: bool) -> Row:
    """Baseline: Opacus' PRV accountant on as many different noise multipliers; with --quick, a tenth of them, times ten."""
    from opacus.accountants import PRVAccountant

    sigmas = np.linspace(1.0, 2.0, STEPS)
    began = time.perf_counter()
    schedule = NoiseSchedule(tuple((PoissonSampledGaussian(0.01, float(sigma)), 1) for sigma in sigmas))
    epsilon_of_charge(total_charge(dict(schedule.parts)), 1e-6)
    ours = time.perf_counter() - began
    part = sigmas[::10] if quick else sigmas
    accountant = PRVAccountant()
    accountant.history = [(float(sigma), 0.01, 1) for sigma in part]
    began = time.perf_counter()
    accountant.get_epsilon(1e-6)
    theirs = (time.perf_counter() - began) * STEPS / len(part)
    return Row("epsilon of a 300-step noise schedule", "s", round(ours, 3), round(theirs, 1), 1.0, ours < 1.0)


def _exactness() -> Row:
    """Largest relative error of a clipped sum, over all layers and both of our methods, against a loop over units.

    Both in float64, so that the method is compared and not the rounding; nets in float32 stay within 5e-6 (a test).
    """
    from tests.training.tape_cases import CASES, apart, build, clipped_sum, naive, norm_of, sums
    from training.gradients import make_method
    from training.tape_norms import MARGIN

    torch.set_num_threads(1)
    errors = []
    for case in CASES:
        for method in ("tape", "two_pass"):
            net, batch = build(case, 3)
            each = naive(net, batch)
            limit = float(np.median([norm_of(unit) for unit in each]))
            make_method(method, net, limit).add(batch)
            errors.append(apart(sums(net), clipped_sum(each, limit * (1 - MARGIN))))
    worst = max(errors)
    return Row("per-unit gradients against a float64 loop, worst layer", "relative", worst, None, 1e-6, worst <= 1e-6)


def _kills(kills: int) -> Row:
    from tests.worlds.kills import kill_trainings

    with tempfile.TemporaryDirectory() as folder:
        found = kill_trainings(Path(folder), kills)
    return Row(f"steps that ran uncharged, after {found.kills} random SIGKILLs", "times", found.undercharged, None, 0.0,
               found.undercharged == 0 and not found.audit)  # fmt: skip

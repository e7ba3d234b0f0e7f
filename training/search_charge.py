"""What a search over private data costs, before its first trial; the mechanisms themselves are those of `privacy.mechanisms`.

A trial is: draw settings without looking at the data, train by DP-SGD on the training units, score on the holdout units by
a noisy count. A unit is in one of the two parts, by a keyed coin of its own name, so at most one of the two touches it; and
which settings were drawn says nothing about it. So a trial costs, order by order, what the costliest of its possible
trainings or its score costs (`WorstOf`). A search is then the best of a random number of trials (`PrivateSelection`,
`PoissonSelection`; Papernot, Steinke 2022) or all of them (composition).
Guarantee: the noise of every possible trial is calibrated so that the whole search meets the declared epsilon; each
training has a tenth of its steps to spare for crashes, which is charged; the score's noise is the least that costs nothing
beside the training.
Assumption: the number of trials of a selection stays secret (`training.search` draws it and shows it to nobody).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from privacy.accounting import ORDERS, admits, cap_vector, composed_rdp, epsilon_of_charge
from privacy.calibration import calibrate_schedule
from privacy.errors import PolicyError
from privacy.mechanisms import (
    Composed,
    Gaussian,
    Mechanism,
    PoissonSampledGaussian,
    PoissonSelection,
    PrivateSelection,
    WorstOf,
    charge_of,
)
from privacy.noise_schedule import Schedule, noise_multipliers, schedule_of
from privacy.policy import Policy
from training.config import approved_steps

Shape = tuple[int, int]  # steps, expected batch size: what of a trial's settings changes its mechanism
_HALVINGS: Final = 30
_GRID: Final = 10**4  # noise multipliers are multiples of 1e-4, as those of `calibrate_noise`
_LEAST_SCORE_NOISE: Final = 0.1


@dataclass(frozen=True, slots=True)
class SearchCharge:
    """`steps` of `mechanism` are reserved: one for a selection, one a trial for a composition.

    noise: (base) noise multiplier of a training by its shape. score_noise: standard deviation of a score, in units.
    trial_epsilon: of one trial alone. epsilon: of the whole search, both at delta, by RDP, rounded up.
    """

    mechanism: Mechanism
    steps: int
    noise: Mapping[Shape, float]
    score_noise: float
    trial_epsilon: float
    epsilon: float
    delta: float


def shape_of(policy: Policy) -> Shape:
    return policy.recipe.steps, policy.budget.expected_batch_size


def charge_for(policy: Policy) -> SearchCharge:
    """The charge of a policy's private search, calibrated to `search.epsilon` from public constants alone.

    Raises PolicyError E-SEARCH-001 when that epsilon buys no trial of this kind.
    """
    search, delta = policy.search, policy.budget.delta
    assert search is not None
    assert search.epsilon is not None
    shapes = sorted({shape_of(policy.tried(corner)) for corner in search.corners()})
    cap = cap_vector(search.epsilon, delta)
    best: tuple[SearchCharge, float] | None = None
    low, high = 0.0, search.epsilon
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        found = _with_trials_at(policy, shapes, middle)
        charge = None if found is None else charge_of(found.mechanism, found.steps)
        if found is not None and charge is not None and admits(charge, cap) and found.epsilon <= search.epsilon:
            low, best = middle, (found, middle)
        else:
            high = middle
        if best is not None and high - low < 1e-3 * high:
            break
    if best is None:
        raise PolicyError(
            "E-SEARCH-001",
            f"search.epsilon {search.epsilon} buys no search of {search.trials} such trials, whatever their noise",
            "Raise search.epsilon, search for fewer trials, or tune on a public set (search.data proxy), which costs nothing",
        )
    return best[0]


def run_noise(policy: Policy) -> float:
    """Noise of an ordinary run of this policy, at budget.epsilon: what trials on a public set imitate."""
    budget, steps = policy.budget, policy.recipe.steps
    schedule = _schedule(policy, steps)
    return calibrate_schedule(budget.epsilon, budget.delta, budget.sampling_probability, approved_steps(steps), schedule)


def selection_of(base: Mechanism, distribution: str, expected_trials: int) -> PrivateSelection | PoissonSelection:
    """The mechanism that releases the best of a random number of `base`."""
    if distribution == "poisson":
        return PoissonSelection(base, float(expected_trials))
    if distribution == "geometric":
        return PrivateSelection.geometric(base, float(expected_trials))
    return PrivateSelection(base, 0.0, logarithmic_stop(expected_trials))


def logarithmic_stop(expected_trials: float) -> float:
    """Stop probability with which the logarithmic distribution has this mean (to a few ulps; the mechanism states its own)."""
    low, high = -700.0, -1e-9  # of the logarithm
    for _ in range(200):
        middle = (low + high) / 2
        mean = math.expm1(-middle) / -middle
        low, high = (middle, high) if mean > expected_trials else (low, middle)
    return math.exp(high)


def free_score_noise(trainings: Mechanism) -> float:
    """The smallest multiple of 1e-4 whose Gaussian costs at no order more than the trainings do, so nothing beside them."""
    rdp = composed_rdp(charge_of(trainings, 1))
    bounded = np.isfinite(rdp) & (rdp > 0)
    least = math.sqrt(float(np.max(np.array(ORDERS)[bounded] / (2 * rdp[bounded])))) if bounded.any() else math.inf
    if not math.isfinite(least):
        raise PolicyError("E-SEARCH-001", "no noise on the scores of this search would be enough", "Raise search.epsilon")
    return max(math.ceil(least * _GRID) / _GRID, _LEAST_SCORE_NOISE)


def _with_trials_at(policy: Policy, shapes: list[Shape], epsilon: float) -> SearchCharge | None:
    """A search whose trainings are calibrated to this epsilon each; None where no noise is enough."""
    search, budget = policy.search, policy.budget
    assert search is not None
    try:
        noise = {
            (steps, batch): calibrate_schedule(
                epsilon, budget.delta, batch / budget.population, approved_steps(steps), _schedule(policy, steps)
            )
            for steps, batch in shapes
        }
    except PolicyError:
        return None
    trainings = tuple((_training(policy, shape, multiplier), 1) for shape, multiplier in noise.items())
    score = free_score_noise(WorstOf(trainings))
    base = WorstOf((*trainings, (Gaussian(score), 1)))
    mechanism: Mechanism = base
    steps = search.trials
    if search.charge == "selection":
        assert search.distribution is not None
        mechanism, steps = selection_of(base, search.distribution, search.trials), 1
    one, whole = (epsilon_of_charge(charge_of(m, n), budget.delta) for m, n in ((base, 1), (mechanism, steps)))
    return SearchCharge(mechanism, steps, noise, score, one, whole, budget.delta)


def _training(policy: Policy, shape: Shape, base: float) -> Mechanism:
    """All the steps that a trial of this shape may lease."""
    steps, batch = shape
    parts = noise_multipliers(base, _schedule(policy, steps), approved_steps(steps))
    return Composed(tuple((PoissonSampledGaussian(batch / policy.budget.population, noise), count) for noise, count in parts))


def _schedule(policy: Policy, steps: int) -> Schedule:
    return schedule_of(policy.recipe.noise_schedule, steps)

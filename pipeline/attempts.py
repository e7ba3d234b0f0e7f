"""Attempts of one approved training: a training whose checkpoint must not be used starts again, inside the same approval.

Guarantee: all attempts of an approval together never cost more than the approved epsilon. A new attempt is calibrated to
what the settled ones left of it, with more noise, and is a reservation of its own, so it is held against the dataset's cap
too. What earlier attempts leased stays charged, although nothing of them is kept.
Assumption: one process at a time works on an approval (`training_budget.only_trainer`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from privacy.accounting import ORDERS, epsilon_of_charge
from privacy.calibration import base_of, calibrate_schedule, mechanism_of
from privacy.errors import BudgetExceeded, PolicyError
from privacy.mechanisms import charge_of
from privacy.noise_schedule import schedule_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.training_budget import BeforeSettling
    from privacy.ledger import Ledger, Spend
    from privacy.mechanisms import Mechanism
    from privacy.noise_schedule import Schedule
    from privacy.policy import Policy

# More noise than this makes a model that no utility gate would pass; the rest of the budget is better kept.
MOST_NOISE = 2.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """`key` names its reservation in the ledger; `spend` is None until it is reserved. noise_multiplier: base of a schedule."""

    key: str
    noise_multiplier: float
    spend: Spend | None


def approved_noise(policy: Policy) -> float:
    """Noise multiplier of a first attempt, from public constants alone."""
    return _calibrated(policy, None)


def approved_mechanism(policy: Policy, noise_multiplier: float) -> Mechanism:
    """What an attempt with this (base) noise multiplier reserves, all its steps and the spare ones."""
    from training.config import approved_steps

    steps = approved_steps(policy.recipe.steps)
    return mechanism_of(policy.budget.sampling_probability, noise_multiplier, noise_schedule(policy), steps)


def noise_schedule(policy: Policy) -> Schedule:
    return schedule_of(policy.recipe.noise_schedule, policy.recipe.steps)


def _calibrated(policy: Policy, spent: Sequence[int] | None) -> float:
    from training.config import approved_steps

    budget, steps = policy.budget, approved_steps(policy.recipe.steps)
    return calibrate_schedule(budget.epsilon, budget.delta, budget.sampling_probability, steps, noise_schedule(policy), spent)


def attempts(ledger: Ledger, key: str) -> list[Spend]:
    """Reservations of one approval, the first one first."""
    found: list[Spend] = []
    while (spend := ledger.spend(_numbered(key, len(found) + 1))) is not None:
        found.append(spend)
    return found


def current_attempt(ledger: Ledger, key: str, policy: Policy) -> Attempt:
    """The newest reservation, with the noise it was charged for; without one, the first attempt, not reserved yet."""
    made = attempts(ledger, key)
    if made:
        return Attempt(made[-1].key, _base(policy, made[-1]), made[-1])
    return Attempt(key, approved_noise(policy), None)


def next_attempt(ledger: Ledger, key: str, policy: Policy, before_settling: BeforeSettling) -> Attempt:
    """Settle what stands at what was leased, and calibrate for the rest of the approved epsilon.

    Raises BudgetExceeded E-TRAIN-026 when that rest is too small to train with.
    """
    for spend in attempts(ledger, key):
        before_settling(spend.key, spend.leased)
        ledger.settle(spend.key, spend.leased)
    made = attempts(ledger, key)
    try:
        noise = _calibrated(policy, composed(made))
    except PolicyError:  # no amount of noise is enough
        noise = float("inf")
    if made and noise > MOST_NOISE * _base(policy, made[0]):
        leased = sum(spend.leased for spend in made)
        raise BudgetExceeded(
            "E-TRAIN-026",
            f"a privacy unit was erased after {leased} steps, and too little of the approval is left to start again without it",
            "Change the policy (a lower budget.epsilon may be needed), run ingest again and ask for a new use approval",
        )
    return Attempt(_numbered(key, len(made) + 1), noise, None)


def composed(spends: Sequence[Spend]) -> list[int]:
    """Charge of all these reservations together, in whole units of RDP."""
    total = [0] * len(ORDERS)
    for spend in spends:
        total = [used + units for used, units in zip(total, charge_of(spend.mechanism, spend.charged), strict=True)]
    return total


def _base(policy: Policy, spend: Spend) -> float:
    return base_of(spend.mechanism, noise_schedule(policy), spend.steps)


def approval_epsilon(ledger: Ledger, key: str, delta: float) -> float:
    """What all attempts of the approval to which the reservation `key` belongs cost together."""
    return epsilon_of_charge(composed(attempts(ledger, key.partition(".")[0])), delta)


def _numbered(key: str, number: int) -> str:
    return key if number == 1 else f"{key}.{number}"

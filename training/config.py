"""Public configuration of one training run: everything here may be printed, nothing here comes from the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from privacy.noise_schedule import factor_at, schedule_of
from privacy.policy import Policy, Recipe

CANARY_GAIN = 100.0  # gradient norm of a canary over the clipping norm; far above 1, so that clipping is exercised
LEASE_STEPS = 20


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """The policy's recipe and mechanism. `sampling_probability` and `divisor` are public constants of the policy.

    divisor: the noisy sum of a step is divided by this many units, whatever the batch held.
    noise_multiplier: standard deviation of the noise over the clipping norm; 0 only for mechanism non_private.
    """

    recipe: Recipe
    labels: tuple[str, ...]
    max_records: int
    noise_multiplier: float
    sampling_probability: float
    divisor: int
    canaries: int

    @classmethod
    def from_policy(cls, policy: Policy, noise_multiplier: float) -> TrainingConfig:
        return cls(
            recipe=policy.recipe,
            labels=policy.expectations.labels,
            max_records=policy.privacy_unit.max_records,
            noise_multiplier=noise_multiplier,
            sampling_probability=policy.budget.sampling_probability,
            divisor=policy.budget.expected_batch_size,
            canaries=policy.audit.canaries,
        )

    @property
    def steps(self) -> int:
        return self.recipe.steps

    @property
    def mechanism(self) -> Literal["dp_sgd", "non_private"]:
        return self.recipe.mechanism

    @property
    def clipping_norm(self) -> float:
        return self.recipe.clipping_norm

    def noise_multiplier_at(self, step: int) -> float:
        """Of step `step` of the model, counted from 0; noise_multiplier is the base that a noise schedule multiplies."""
        return self.noise_multiplier * factor_at(schedule_of(self.recipe.noise_schedule, self.steps), step)

    @property
    def lease_steps(self) -> int:
        """Steps leased at a time: a crash costs at most this many, so short runs lease less."""
        return lease_steps(self.steps)


def lease_steps(steps: int) -> int:
    return max(1, min(LEASE_STEPS, steps // 10))


def approved_steps(steps: int) -> int:
    """Steps that the noise is calibrated for: those of the recipe and a tenth to spare, which only crashes use up.

    So a run that loses a lease ends with all its steps and within the approved epsilon; unused ones go back when it settles.
    """
    return steps + -(-steps // 10)

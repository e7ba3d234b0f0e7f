"""Public configuration of one training run: everything here may be printed, nothing here comes from the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from privacy.policy import Policy

CANARY_GAIN = 100.0  # gradient norm of a canary over the clipping norm; far above 1, so that clipping is exercised
LEASE_STEPS = 20


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """Shapes, optimisation and mechanism. `sampling_probability` and `divisor` are public constants of the policy.

    divisor: the noisy sum of a step is divided by this many units, whatever the batch held.
    noise_multiplier: standard deviation of the noise over the clipping norm; 0 only for mechanism non_private.
    """

    labels: tuple[str, ...]
    hash_buckets: int
    embedding_width: int
    max_tokens: int
    max_records: int
    steps: int
    learning_rate: float
    optimizer: Literal["sgd", "adam"]
    init_seed: int
    mechanism: Literal["dp_sgd", "non_private"]
    clipping_norm: float
    noise_multiplier: float
    sampling_probability: float
    divisor: int
    canaries: int

    @classmethod
    def from_policy(cls, policy: Policy, noise_multiplier: float) -> TrainingConfig:
        recipe, budget = policy.recipe, policy.budget
        return cls(
            labels=policy.expectations.labels,
            hash_buckets=recipe.hash_buckets,
            embedding_width=recipe.embedding_width,
            max_tokens=recipe.max_tokens,
            max_records=policy.privacy_unit.max_records,
            steps=recipe.steps,
            learning_rate=recipe.learning_rate,
            optimizer=recipe.optimizer,
            init_seed=recipe.init_seed,
            mechanism=recipe.mechanism,
            clipping_norm=recipe.clipping_norm,
            noise_multiplier=noise_multiplier,
            sampling_probability=budget.sampling_probability,
            divisor=budget.expected_batch_size,
            canaries=policy.audit.canaries,
        )

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

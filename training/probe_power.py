"""Which checks of the probe a policy leaves without power: found from its public numbers, before a step is charged.

Guarantee: a check that is named here will very likely say "not evaluated", which blocks the release of the model.
Assumption: the data has about as many units as `budget.population` says. Not covered: chance; a check near its limit may go
either way, so a policy is named from a little above it.
"""

from __future__ import annotations

import math

from training.config import TrainingConfig
from training.probe import CHECKS, least_power

_MARGIN = 1.15  # the batch sizes of a run spread more or less than expected
_FEWEST_STEPS = 8


def without_power(config: TrainingConfig, level: float) -> dict[str, str]:
    """Check -> what to change, in words; empty where all checks can be evaluated. level: of the whole probe."""
    if divisor_power(config) >= _MARGIN * least_power(level / len(CHECKS)) and config.steps >= _FEWEST_STEPS:
        return {}
    advice = "this audit could not tell a private divisor from a public one, so the release would be blocked"
    return {"probe.divisor": f"{advice}: raise audit.canaries or recipe.steps, or lower budget.expected_batch_size"}


def divisor_power(config: TrainingConfig) -> float:
    """Error-widths by which division by the actual batch would move the slope that `training.probe.divisor` looks at.

    A step's log noise over n coordinates has variance 1 / 2n, and the log of a batch of B units variance (1 - q) / B.
    """
    q, steps = config.sampling_probability, config.steps
    coordinates = config.canaries * (1 - q / 2)
    batch = config.divisor + q * config.canaries
    return math.sqrt(2 * coordinates * max(steps - 1, 0) * (1 - q) / batch)

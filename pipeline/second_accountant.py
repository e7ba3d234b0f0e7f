"""A second accountant beside the one of the claim: two derivations of one epsilon have to agree before a verifier believes it.

The claim is a Rényi figure (`privacy.accounting`). This one composes privacy-loss distributions (`privacy.pld`), which share
no formula with it; both are bounds from above, and the second is the tighter one wherever it can be computed. So a second
figure above the claim means that the claim understates.
Guarantee: agreement is looked for at the claim's delta; where rounding errors of the FFT leave nothing of so small a delta,
at the smallest larger one that works, with the Rényi figure of that delta, and the answer says which.
Not covered: an error that both share, such as steps that were never charged (`check_trace_follows_policy` reads those).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from privacy.accounting import MechanismTrace, epsilon_of_charge, scheduled_charge
from privacy.mechanisms import Atom, PoissonSampledGaussian
from privacy.noise_schedule import Schedule, noise_multipliers
from privacy.pld import epsilon_by_pld_alone

# Both figures are rounded: the first one up to 1e-6, on machines whose last digits differ.
TOLERANCE: Final = 2e-6
_DELTAS: Final = (1e-8, 1e-7, 1e-6, 1e-5)  # few, so that a hostile trace can't keep a verifier busy


@dataclass(frozen=True, slots=True)
class Agreement:
    """Both figures at one delta. second: `inf` where it can't be computed at any useful delta."""

    delta: float
    first: float
    second: float

    @property
    def holds(self) -> bool:
        return math.isfinite(self.second) and self.second <= self.first + TOLERANCE


def agreement(trace: MechanismTrace, claimed: float) -> Agreement:
    """claimed: the epsilon that stands at the trace's own delta; at another one it is computed from the same mechanism."""
    mechanism = trace.sampling_probability, trace.noise_multiplier, trace.noise_schedule, trace.steps
    delta, second = trace.delta, _second(*mechanism, trace.delta)
    for larger in _DELTAS:
        if not math.isfinite(second) and larger > delta:
            delta, second = larger, _second(*mechanism, larger)
    first = claimed if delta == trace.delta else epsilon_of_charge(scheduled_charge(*mechanism), delta)
    return Agreement(delta, first, second)


@lru_cache(maxsize=64)
def _second(probability: float, base: float, schedule: Schedule, steps: int, delta: float) -> float:
    counts: dict[Atom, int] = {}
    for multiplier, count in noise_multipliers(base, schedule, steps):
        atom = PoissonSampledGaussian(probability, multiplier)
        counts[atom] = counts.get(atom, 0) + count
    return epsilon_by_pld_alone(counts, delta)

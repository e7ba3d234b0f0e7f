"""What a run claims of itself, as the audit takes it: as a claim to be refuted, not as a fact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from privacy.accounting import epsilon_of_charge, schedule_from_json, scheduled_charge
from privacy.calibration import describes
from privacy.canonical import Json, parse_canonical
from privacy.errors import IntegrityError, PrivetError
from privacy.noise_schedule import Schedule, factor_at

if TYPE_CHECKING:
    from privacy.ledger import Spend


@dataclass(frozen=True, slots=True)
class Claim:
    """What the trace says, read leniently: a run without a mechanism must be refuted, not crash the audit."""

    mechanism: str
    epsilon: float
    delta: float
    noise_multiplier: float
    clipping_norm: float
    sampling_probability: float
    steps: int
    steps_in_model: int
    ledger_key: str
    noise_schedule: Schedule = ()

    @property
    def factors(self) -> npt.NDArray[np.float64]:
        """float64 [steps_in_model]: each step's noise as a multiple of noise_multiplier."""
        return np.array([factor_at(self.noise_schedule, step) for step in range(self.steps_in_model)])

    @property
    def recomputed_epsilon(self) -> float | None:
        """Of the charged steps, from the mechanism alone; None where it is none that has an epsilon."""
        try:
            charge = scheduled_charge(self.sampling_probability, self.noise_multiplier, self.noise_schedule, self.steps)
            return epsilon_of_charge(charge, self.delta)
        except PrivetError:
            return None

    def is_charged_by(self, spend: Spend) -> bool:
        return describes(spend.mechanism, self.sampling_probability, self.noise_multiplier, self.noise_schedule, spend.steps)


def read_claim(data: bytes) -> Claim:
    """Raises IntegrityError E-AUDIT-002 for what is no trace, E-ACCOUNT-003 for a malformed noise schedule."""
    match parse_canonical(data):
        case {
            "mechanism": str(mechanism),
            "epsilon": int() | float() as epsilon,
            "delta": int() | float() as delta,
            "noise_multiplier": int() | float() as noise,
            "clipping_norm": int() | float() as norm,
            "sampling_probability": int() | float() as q,
            "steps": int(steps),
            "steps_in_model": int(in_model),
            "ledger_key": str(key),
            **rest,
        }:
            schedule = schedule_from_json(cast("Json", rest.get("noise_schedule")))
            numbers = float(epsilon), float(delta), float(noise), float(norm), float(q)
            return Claim(mechanism, *numbers, steps, in_model, key, schedule)
    raise IntegrityError("E-AUDIT-002", "the mechanism trace of the run is malformed", "Train again")

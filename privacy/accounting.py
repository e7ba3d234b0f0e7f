"""From mechanism to epsilon, always rounded against whoever spends.

Rényi differential privacy of the Poisson-subsampled Gaussian mechanism, add-or-remove-one relation:
    D_alpha = log A(alpha) / (alpha - 1),  A(alpha) = E_{z ~ N(0, sigma^2)} [(1 - q + q exp((2z - 1) / (2 sigma^2)))^alpha]
Source: Mironov, Talwar, Zhang 2019 (1908.10530), section 3.3 (integer and fractional alpha); composition adds D_alpha;
conversion: Canonne, Kamath, Steinke 2020 (2004.00010), proposition 12.
Guarantee: charges are whole multiples of 1e-12 rounded up, epsilon a multiple of 1e-6 rounded up, and what
`calibrate_noise` returns is admitted by an empty ledger scope of the same epsilon and delta.
Assumption: the mechanism really ran as described (the audit probes that); floating-point noise sampling is not modelled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, gammasgn, log_ndtr, logsumexp

from privacy.canonical import Json
from privacy.errors import IntegrityError, PolicyError

FloatArray = NDArray[np.float64]

MECHANISM = "poisson_subsampled_gaussian"
NEIGHBOURING_RELATION = "add-or-remove-one"
ORDERS: tuple[float, ...] = (
    *(round(1 + n / 20, 2) for n in range(1, 20)),
    *(round(2 + n / 10, 1) for n in range(60)),
    *(8 + n / 2 for n in range(16)),
    *(float(n) for n in range(16, 64)),
    *(64.0, 72.0, 80.0, 96.0, 112.0, 128.0, 160.0, 192.0, 256.0, 384.0, 512.0, 1024.0),
)
UNITS = 10**12  # of RDP in one
_NO_BOUND = 1 << 80  # charge of an order that gives no bound: over any cap
_EPSILON_STEPS = 10**6
_NOISE_STEPS = 10**4
_NOISE_MAX = 10**4  # larger multipliers than 10 000 mean that the request makes no sense
_ORDERS = np.array(ORDERS)
_DROPPED = -50.0  # log of series terms that may be left out: 2e-22 against A >= 1


@dataclass(frozen=True, slots=True)
class MechanismTrace:
    """What ran, in public numbers; anybody can recompute epsilon from it.

    steps: charged to the ledger, those of crashed leases too; steps_in_model: those the released weights went through.
    delta, epsilon: the claim; epsilon from RDP, rounded up. clipping_norm: L2, per privacy unit and step.
    """

    mechanism: str
    privacy_unit: str
    neighbouring_relation: str
    noise_multiplier: float
    clipping_norm: float
    sampling_probability: float
    expected_batch_size: int
    population: int
    max_records_per_unit: int
    steps: int
    steps_in_model: int
    delta: float
    epsilon: float
    accountant: str
    ledger_key: str
    sampler: str
    noise_source: str

    def to_json(self) -> dict[str, Json]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_json(cls, value: Json) -> MechanismTrace:
        """Raises IntegrityError E-ACCOUNT-003 for what is not such a trace or describes no mechanism known here."""
        match value:
            case {**found} if set(found) == {f.name for f in fields(cls)}:
                types = {"str": (str,), "int": (int,), "float": (float, int)}
                if all(isinstance(found[f.name], types[str(f.type)]) for f in fields(cls)) and True not in found.values():
                    trace = cls(**{f.name: _typed(found[f.name], str(f.type)) for f in fields(cls)})  # type: ignore[arg-type]
                    _check_trace(trace)
                    return trace
        raise _malformed_trace()

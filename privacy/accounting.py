"""From mechanism to epsilon, always rounded against whoever spends.

Rényi differential privacy of the Poisson-subsampled Gaussian mechanism, add-or-remove-one relation:
    D_alpha = log A(alpha) / (alpha - 1),  A(alpha) = E_{z ~ N(0, sigma^2)} [(1 - q + q exp((2z - 1) / (2 sigma^2)))^alpha]
Source: Mironov, Talwar, Zhang 2019 (1908.10530), sections 3.2 and 3.3; composition adds D_alpha; conversion to (epsilon,
delta): Canonne, Kamath, Steinke 2020 (2004.00010), proposition 12.
Guarantee: charges are whole multiples of 1e-12 rounded up, epsilon a multiple of 1e-6 rounded up, and what
`calibrate_noise` returns is admitted by an empty ledger scope of the same epsilon and delta.
Assumption: the mechanism really ran as described (the audit probes that); floating-point noise sampling is not modelled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from privacy.canonical import Json
from privacy.errors import IntegrityError, PolicyError
from privacy.noise_schedule import Schedule, noise_multipliers, shares_fault
from privacy.renyi import MARGIN, log_moments
from privacy.rounding import shown_up

FloatArray = NDArray[np.float64]

MECHANISM = "poisson_subsampled_gaussian"
NEIGHBOURING_RELATION = "add-or-remove-one"
ORDERS: tuple[float, ...] = (
    *(round(1 + n / 20, 2) for n in range(1, 20)),
    *(round(2 + n / 10, 1) for n in range(60)),
    *(round(8 + n / 10, 1) for n in range(40)),  # with little noise the best order is a sharp optimum here
    *(12 + n / 4 for n in range(16)),
    *(float(n) for n in range(16, 64)),
    *(64.0, 72.0, 80.0, 96.0, 112.0, 128.0, 160.0, 192.0, 256.0, 384.0, 512.0, 1024.0),
)
UNITS = 10**12  # of RDP in one
_NO_BOUND = 1 << 80  # charge of an order that gives no bound: over any cap
_EPSILON_STEPS = 10**6
_NOISE_STEPS = 10**4
_NOISE_MAX = 10**4  # larger multipliers than 10 000 mean that the request makes no sense
_ORDERS = np.array(ORDERS)
_RELATIVE_MARGIN = 1e-11  # the logarithms of factorials up to 1024! lose that much
_TOGETHER = 8  # below, each keeps its own place in the cache
_FLOATING_POINT_NOTE = "Floating-point effects of noise sampling are outside this figure."


@dataclass(frozen=True, slots=True)
class MechanismTrace:
    """What ran, in public numbers; anybody can recompute epsilon from it.

    steps: charged to the ledger, those of crashed leases too; steps_in_model: those the released weights went through.
    delta, epsilon: the claim; epsilon from RDP, rounded up. clipping_norm: L2, per privacy unit and step.
    noise_multiplier: of every step, or the base that noise_schedule multiplies (see `privacy.noise_schedule`).
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
    noise_schedule: Schedule = ()

    def to_json(self) -> dict[str, Json]:
        changing: dict[str, Json] = {"noise_schedule": [list(part) for part in self.noise_schedule]}
        return {
            "mechanism": self.mechanism,
            "privacy_unit": self.privacy_unit,
            "neighbouring_relation": self.neighbouring_relation,
            "noise_multiplier": self.noise_multiplier,
            "clipping_norm": self.clipping_norm,
            "sampling_probability": self.sampling_probability,
            "expected_batch_size": self.expected_batch_size,
            "population": self.population,
            "max_records_per_unit": self.max_records_per_unit,
            "steps": self.steps,
            "steps_in_model": self.steps_in_model,
            "delta": self.delta,
            "epsilon": self.epsilon,
            "accountant": self.accountant,
            "ledger_key": self.ledger_key,
            "sampler": self.sampler,
            "noise_source": self.noise_source,
            **(changing if self.noise_schedule else {}),
        }

    @classmethod
    def from_json(cls, value: Json) -> MechanismTrace:
        """Raises IntegrityError E-ACCOUNT-003 for what is not such a trace or describes no mechanism known here."""
        if not isinstance(value, Mapping) or set(value) | {"noise_schedule"} != set(cls.__slots__):
            raise _malformed_trace()
        trace = cls(
            mechanism=_text(value["mechanism"]),
            privacy_unit=_text(value["privacy_unit"]),
            neighbouring_relation=_text(value["neighbouring_relation"]),
            noise_multiplier=_number(value["noise_multiplier"]),
            clipping_norm=_number(value["clipping_norm"]),
            sampling_probability=_number(value["sampling_probability"]),
            expected_batch_size=_count(value["expected_batch_size"]),
            population=_count(value["population"]),
            max_records_per_unit=_count(value["max_records_per_unit"]),
            steps=_count(value["steps"]),
            steps_in_model=_count(value["steps_in_model"]),
            delta=_number(value["delta"]),
            epsilon=_number(value["epsilon"]),
            accountant=_text(value["accountant"]),
            ledger_key=_text(value["ledger_key"]),
            sampler=_text(value["sampler"]),
            noise_source=_text(value["noise_source"]),
            noise_schedule=schedule_from_json(value["noise_schedule"]) if "noise_schedule" in value else (),
        )
        _check_trace(trace)
        return trace


def rdp_poisson_gaussian(sampling_probability: float, noise_multiplier: float) -> FloatArray:
    """RDP of one step at each of ORDERS, float64 [len(ORDERS)], rounded up to multiples of 1e-12; `inf`: no bound.

    sampling_probability in (0, 1], of each privacy unit, independently; noise_multiplier > 0: noise deviation over L2
    sensitivity. Multiply by steps to compose. Raises PolicyError E-ACCOUNT-001 outside these ranges.
    """
    return composed_rdp(charge_vector(sampling_probability, noise_multiplier))


@lru_cache(maxsize=8192)
def charge_vector(sampling_probability: float, noise_multiplier: float) -> tuple[int, ...]:
    """The same as whole units of 1e-12: exact to add up, whatever the number of steps."""
    return charge_vectors(sampling_probability, (noise_multiplier,))[0]


@lru_cache(maxsize=256)
def charge_vectors(sampling_probability: float, noise_multipliers: tuple[float, ...]) -> tuple[tuple[int, ...], ...]:
    """As `charge_vector` for many at once, which takes a tenth of the time that one by one takes."""
    for noise_multiplier in noise_multipliers:
        _check_mechanism(sampling_probability, noise_multiplier)
    sigmas = np.array(noise_multipliers, dtype=np.float64)
    if sampling_probability == 1.0:  # the Gaussian mechanism itself
        log_a = _ORDERS * (_ORDERS - 1) / (2 * sigmas[:, None] ** 2)
    else:
        log_a = log_moments(sampling_probability, sigmas, _ORDERS)
    return tuple(whole_units(row) for row in log_a / (_ORDERS - 1))


def charges_of_pairs(pairs: tuple[tuple[float, float], ...]) -> list[tuple[int, ...]]:
    """One charge for each (sampling probability, noise multiplier); many of one probability are computed together."""
    if len(pairs) < _TOGETHER:
        return [charge_vector(*pair) for pair in pairs]
    found: dict[tuple[float, float], tuple[int, ...]] = {}
    for q in {probability for probability, _ in pairs}:
        sigmas = tuple(sigma for probability, sigma in pairs if probability == q)
        found.update(zip(((q, sigma) for sigma in sigmas), charge_vectors(q, sigmas), strict=True))
    return [found[pair] for pair in pairs]


def whole_units(rdp: FloatArray) -> tuple[int, ...]:
    """RDP [len(ORDERS)] as computed in doubles -> whole units that are not below the true value; not finite: no bound."""
    safe = rdp * (1 + _RELATIVE_MARGIN) + MARGIN / (_ORDERS - 1)
    return tuple(math.ceil(r * UNITS) if r < _NO_BOUND / UNITS else _NO_BOUND for r in safe.tolist())


def composed_rdp(charge: Sequence[int]) -> FloatArray:
    """Whole units -> RDP at each of ORDERS, float64; `inf`: no bound."""
    return np.array([math.inf if units >= _NO_BOUND else units / UNITS for units in charge])


def epsilon_of(rdp: FloatArray, delta: float) -> float:
    """Smallest epsilon over ORDERS for a composed RDP vector [len(ORDERS)], rounded up to 1e-6; 0 for an all-zero vector."""
    _check_delta(delta)
    if not np.any(rdp):
        return 0.0
    epsilon = float(np.min(rdp + _conversion(delta)))
    return math.ceil(max(epsilon, 0.0) * _EPSILON_STEPS) / _EPSILON_STEPS if math.isfinite(epsilon) else math.inf


def epsilon_of_charge(charge: Sequence[int], delta: float) -> float:
    """As `epsilon_of`, for composed whole units."""
    return epsilon_of(composed_rdp(charge), delta)


@lru_cache(maxsize=1024)
def cap_vector(epsilon: float, delta: float) -> tuple[int, ...]:
    """The largest charge at each order that still gives (epsilon, delta), rounded down; negative: that order never does."""
    _check_epsilon(epsilon)
    _check_delta(delta)
    return tuple(math.floor(room * UNITS) - 1 for room in (epsilon - _conversion(delta)).tolist())


def admits(charge: Sequence[int], cap: Sequence[int]) -> bool:
    """The Rényi filter: one order within its cap is enough, and it may differ from time to time.

    Valid for mechanisms chosen adaptively. Source: Feldman, Zrnic 2021 (2008.11193); Lécuyer 2021 (2103.01379).
    """
    return any(used <= room for used, room in zip(charge, cap, strict=True))


def calibrate_noise(
    epsilon: float, delta: float, sampling_probability: float, steps: int, spent: Sequence[int] | None = None
) -> float:
    """Smallest noise multiplier on a 1e-4 grid with which `steps` steps, on top of `spent`, cost at most (epsilon, delta).

    spent: composed charge in whole units (`charge_vector` times steps) of what went before; None: nothing did.
    Raises PolicyError E-ACCOUNT-001 (parameters), E-ACCOUNT-002 (more noise than 10 000 would be needed).
    """
    cap = cap_vector(epsilon, delta)
    _check_steps(steps)
    before = [0] * len(cap) if spent is None else spent

    def enough(grid: int) -> bool:
        step = charge_vector(sampling_probability, grid / _NOISE_STEPS)
        charge = [used + steps * units for used, units in zip(before, step, strict=True)]
        return admits(charge, cap) and epsilon_of_charge(charge, delta) <= epsilon

    high = _NOISE_STEPS
    while not enough(high):
        high *= 2
        if high > _NOISE_MAX * _NOISE_STEPS:
            raise PolicyError(
                "E-ACCOUNT-002",
                "no usable amount of noise meets this epsilon at this sampling probability and number of steps",
                "Raise epsilon, train for fewer steps, or sample fewer units per step",
            )
    low = 0 if high == _NOISE_STEPS else high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high / _NOISE_STEPS


def recompute_epsilon(trace: MechanismTrace) -> float:
    """Epsilon of all charged steps, from the trace's mechanism alone; its own claim is not read.

    Raises IntegrityError E-ACCOUNT-003 for a mechanism or relation that this accountant does not know.
    """
    _check_trace(trace)
    return epsilon_of_charge(
        scheduled_charge(trace.sampling_probability, trace.noise_multiplier, trace.noise_schedule, trace.steps), trace.delta
    )


def scheduled_charge(sampling_probability: float, base: float, schedule: Schedule, steps: int) -> list[int]:
    """Charge of the first `steps` steps, in whole units; schedule (): `base` throughout."""
    parts = noise_multipliers(base, schedule, steps)
    total = [0] * len(ORDERS)
    vectors = charge_vectors(sampling_probability, tuple(multiplier for multiplier, _ in parts))
    for (_, count), vector in zip(parts, vectors, strict=True):
        total = [used + count * units for used, units in zip(total, vector, strict=True)]
    return total


def privacy_statement(trace: MechanismTrace) -> str:
    """What the trace promises, to whom, under which assumptions, and what it does not cover; plain language."""
    epsilon = shown_up(recompute_epsilon(trace))
    return (
        f"Differential privacy at epsilon {epsilon}, delta {trace.delta}, for one {trace.privacy_unit}. "
        f"Adding or removing everything that one {trace.privacy_unit} contributed (at most {trace.max_records_per_unit} "
        f"records enter) changes the probability of any outcome of training by a factor of at most e^{epsilon}, apart "
        f"from an additive {trace.delta}. "
        f"Mechanism: {trace.steps} charged steps ({trace.steps_in_model} in the released model) of Poisson sampling with "
        f"probability {trace.sampling_probability:.6g} (expected batch {trace.expected_batch_size} of a public population of "
        f"{trace.population}), clipping to L2 norm {trace.clipping_norm:.6g}, Gaussian noise with multiplier "
        f"{trace.noise_multiplier:.6g}{_changes(trace)}; accountant: {trace.accountant}. "
        "It assumes that each unit is sampled independently, that its contribution is clipped as stated, that noise and "
        "sampling are unpredictable to the attacker, and that population and batch size were not computed from the data. "
        f"{_FLOATING_POINT_NOTE} It does not cover other uses of the same data outside this ledger, what is learned about "
        "groups or from other sources, or the same person appearing as several units."
    )


def _changes(trace: MechanismTrace) -> str:
    if not trace.noise_schedule:
        return ""
    parts = noise_multipliers(trace.noise_multiplier, trace.noise_schedule, trace.steps)
    return f" times a schedule of {len(trace.noise_schedule)} factors, from {parts[0][0]:.6g} down to {parts[-1][0]:.6g}"


def _conversion(delta: float) -> FloatArray:
    result: FloatArray = np.log1p(-1 / _ORDERS) - (math.log(delta) + np.log(_ORDERS)) / (_ORDERS - 1)
    return result


def _check_mechanism(q: float, sigma: float) -> None:
    if not (0 < q <= 1 and 1e-4 <= sigma <= 1e8):  # NaN fails every comparison
        raise _bad_parameter("sampling probability must lie in (0, 1] and noise multiplier in [1e-4, 1e8]")


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise _bad_parameter("delta must lie in (0, 1)")


def _check_epsilon(epsilon: float) -> None:
    if not 0 < epsilon <= 1e6:
        raise _bad_parameter("epsilon must lie in (0, 1e6]")


def _check_steps(steps: int) -> None:
    if not 0 < steps <= 10**9:
        raise _bad_parameter("steps must lie in [1, 1e9]")


def _bad_parameter(cause: str) -> PolicyError:
    return PolicyError("E-ACCOUNT-001", f"a parameter of the mechanism is out of range: {cause}", "Correct it in the policy")


def _check_trace(trace: MechanismTrace) -> None:
    positive = (trace.clipping_norm, trace.expected_batch_size, trace.population, trace.max_records_per_unit, trace.steps)
    known = trace.mechanism == MECHANISM and trace.neighbouring_relation == NEIGHBOURING_RELATION
    in_range = (
        0 < trace.sampling_probability <= 1
        and 1e-4 <= trace.noise_multiplier <= 1e8
        and 0 < trace.delta < 1
        and 0 <= trace.epsilon < math.inf
        and 0 <= trace.steps_in_model <= trace.steps <= 10**9
        and all(0 < value < math.inf for value in positive)
        and (not trace.noise_schedule or _is_schedule(trace))
    )
    if not (known and in_range):
        raise _malformed_trace()


def _is_schedule(trace: MechanismTrace) -> bool:
    ends, last = [until for until, _ in trace.noise_schedule], trace.noise_schedule[-1][0]
    shares = [(until / last, factor) for until, factor in trace.noise_schedule] if last > 0 else []
    range_held = all(1e-4 <= trace.noise_multiplier * factor <= 1e8 for _, factor in trace.noise_schedule)
    return bool(shares) and ends == sorted(set(ends)) and range_held and shares_fault(shares) is None


def schedule_from_json(value: Json) -> Schedule:
    """As a trace holds it; None: none. Raises IntegrityError E-ACCOUNT-003."""
    if value is None:
        return ()
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise _malformed_trace()
    found: list[tuple[int, float]] = []
    for part in value:
        if not isinstance(part, Sequence) or isinstance(part, str) or len(part) != 2:
            raise _malformed_trace()
        found.append((_count(part[0]), _number(part[1])))
    return tuple(found)


def _text(value: Json) -> str:
    if not isinstance(value, str):
        raise _malformed_trace()
    return value


def _number(value: Json) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _malformed_trace()
    return float(value)


def _count(value: Json) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _malformed_trace()
    return value


def _malformed_trace() -> IntegrityError:
    return IntegrityError(
        "E-ACCOUNT-003",
        "a mechanism trace is malformed, or describes a mechanism that this accountant does not know",
        "Train again with this version, or verify with the version that wrote it",
    )

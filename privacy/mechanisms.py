"""What can be charged: descriptions of mechanisms, each with a Rényi vector in whole units, and a codec that knows its names.

Guarantee: a description that is stored and read back is the same mechanism; reading never imports, looks up or calls what
the stored text names (dp_accounting's own codec does); what is not in the list below is refused, not guessed; each vector is
an upper bound at every order for add-or-remove-one, rounded up. (epsilon, delta)-mechanisms are not in the list: their delta
has no finite Rényi divergence.
Assumption: the mechanism ran as described. Its parameters, step counts included, do not depend on the data it runs on now.
Sources: Mironov 2017 (1702.07476), table II (Laplace); Kairouz, Oh, Viswanath 2015 (1311.0776): a pure epsilon-DP mechanism
is a post-processing of randomised response; Bun, Steinke 2016 (1605.02065) (zCDP); Papernot, Steinke 2022 (2110.03620),
theorems 2 and 6 (private selection: only the best of a random number of trials is used); McSherry 2009 (parallel
composition) and quasi-convexity of the Rényi divergence (van Erven, Harremoës 2014) for the worst of several.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Final

import numpy as np

from privacy.accounting import ORDERS, FloatArray, charge_vector, charges_of_pairs, composed_rdp, whole_units
from privacy.canonical import Digest, Json, digest_of
from privacy.errors import IntegrityError, PolicyError

MAX_STEPS: Final = 10**9
_MAX_PARTS: Final = 10_000
_MAX_DEPTH: Final = 6
_ORDERS = np.array(ORDERS)
Parts = tuple[tuple["Mechanism", int], ...]


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Noise deviation over L2 sensitivity."""

    noise_multiplier: float
    kind: ClassVar[str] = "gaussian"

    def __post_init__(self) -> None:
        _number(self, "noise_multiplier", 1e-4, 1e8)


@dataclass(frozen=True, slots=True)
class PoissonSampledGaussian:
    """One step of DP-SGD: each unit is in with this probability, independently, then the Gaussian mechanism."""

    sampling_probability: float
    noise_multiplier: float
    kind: ClassVar[str] = "poisson_sampled_gaussian"

    def __post_init__(self) -> None:
        _number(self, "sampling_probability", math.ulp(0.0), 1.0)
        _number(self, "noise_multiplier", 1e-4, 1e8)


@dataclass(frozen=True, slots=True)
class Laplace:
    """Noise scale b over L1 sensitivity."""

    noise_multiplier: float
    kind: ClassVar[str] = "laplace"

    def __post_init__(self) -> None:
        _number(self, "noise_multiplier", 1e-4, 1e8)


@dataclass(frozen=True, slots=True)
class PureDP:
    """Any epsilon-DP mechanism, by the worst of them."""

    epsilon: float
    kind: ClassVar[str] = "pure_dp"

    def __post_init__(self) -> None:
        _number(self, "epsilon", 1e-12, 1e4)


@dataclass(frozen=True, slots=True)
class ZCDP:
    """Any rho-zero-concentrated mechanism."""

    rho: float
    kind: ClassVar[str] = "zcdp"

    def __post_init__(self) -> None:
        _number(self, "rho", 1e-12, 1e6)


@dataclass(frozen=True, slots=True)
class Composed:
    """All parts together are one step; a part is a mechanism and how often it runs."""

    parts: Parts
    kind: ClassVar[str] = "composed"

    def __post_init__(self) -> None:
        _check_parts(self, self.parts)


@dataclass(frozen=True, slots=True)
class NoiseSchedule:
    """Steps of changing mechanisms: step n is the n-th of the list, so a lease of n steps costs the first n."""

    parts: Parts
    kind: ClassVar[str] = "noise_schedule"

    def __post_init__(self) -> None:
        _check_parts(self, self.parts)

    @property
    def steps(self) -> int:
        return sum(count for _, count in self.parts)


@dataclass(frozen=True, slots=True)
class WorstOf:
    """One part at most touches any one unit (disjoint units), or one part runs, chosen without looking at the data.

    Also when the choice is part of what is released. Order by order it costs what its costliest part does.
    """

    parts: Parts
    kind: ClassVar[str] = "worst_of"

    def __post_init__(self) -> None:
        _check_parts(self, self.parts)


@dataclass(frozen=True, slots=True)
class PrivateSelection:
    """The best of K runs of `base`, nothing else of them is used; K is drawn, truncated negative binomial.

    shape: above -1; 0: logarithmic, 1: geometric. stop_probability: gamma of the distribution, in (0, 1).
    """

    base: Mechanism
    shape: float
    stop_probability: float
    kind: ClassVar[str] = "private_selection"

    def __post_init__(self) -> None:
        _check_base(self.base)
        _number(self, "shape", math.nextafter(-1.0, 0.0), 100.0)
        _number(self, "stop_probability", 1e-9, math.nextafter(1.0, 0.0))

    @classmethod
    def geometric(cls, base: Mechanism, expected_trials: float) -> PrivateSelection:
        if not 1 < expected_trials <= 1e9:
            raise _bad("expected_trials")
        return cls(base, 1.0, 1 / expected_trials)

    @property
    def expected_trials(self) -> float:
        log_gamma = math.log(self.stop_probability)
        if self.shape == 0:
            return math.expm1(-log_gamma) / -log_gamma
        return self.shape * math.expm1(-log_gamma) / -math.expm1(self.shape * log_gamma)


@dataclass(frozen=True, slots=True)
class PoissonSelection:
    """The best of K runs of `base`; K is Poisson with this mean, and with no run nothing is learned."""

    base: Mechanism
    expected_trials: float
    kind: ClassVar[str] = "poisson_selection"

    def __post_init__(self) -> None:
        _check_base(self.base)
        _number(self, "expected_trials", 1.0, 1e9)


Atom = Gaussian | PoissonSampledGaussian | Laplace | PureDP | ZCDP | WorstOf | PrivateSelection | PoissonSelection
Mechanism = Atom | Composed | NoiseSchedule
_TYPES: Final[Mapping[str, type[Mechanism]]] = {
    known.kind: known
    for known in (
        Gaussian, PoissonSampledGaussian, Laplace, PureDP, ZCDP, Composed, NoiseSchedule, WorstOf, PrivateSelection,
        PoissonSelection,
    )
}  # fmt: skip


def expand(mechanism: Mechanism, steps: int) -> dict[Atom, int]:
    """The first `steps` steps as mechanisms that are charged one by one, with how often each runs.

    Raises PolicyError E-MECH-002 when a schedule has fewer steps.
    """
    found: dict[Atom, int] = {}
    if isinstance(mechanism, NoiseSchedule):
        parts = _first(mechanism, steps)
    elif isinstance(mechanism, Composed):
        parts = tuple((part, count * steps) for part, count in mechanism.parts)
    else:
        return {mechanism: steps} if steps else {}
    for part, count in parts:
        for atom, times in expand(part, count).items():
            found[atom] = found.get(atom, 0) + times
    return found


def charge_of(mechanism: Mechanism, steps: int) -> tuple[int, ...]:
    """Rényi vector of the first `steps` steps at each of ORDERS, in whole units of 1e-12, rounded up."""
    return total_charge(expand(mechanism, steps))


def total_charge(counts: Mapping[Atom, int]) -> tuple[int, ...]:
    """Composition: vectors add up."""
    total = [0] * len(ORDERS)
    steps = [atom for atom in counts if isinstance(atom, PoissonSampledGaussian)]
    sampled = charges_of_pairs(tuple((atom.sampling_probability, atom.noise_multiplier) for atom in steps))
    known: dict[Atom, tuple[int, ...]] = dict(zip(steps, sampled, strict=True))
    for atom, count in counts.items():
        vector = known[atom] if atom in known else step_vector(atom)
        total = [used + count * units for used, units in zip(total, vector, strict=True)]
    return tuple(total)


@lru_cache(maxsize=8192)
def step_vector(atom: Atom) -> tuple[int, ...]:
    """One run. Raises PolicyError E-ACCOUNT-001 for what is no mechanism of this list."""
    match atom:
        case PoissonSampledGaussian(q, sigma):
            return charge_vector(q, sigma)
        case Gaussian(sigma):
            return charge_vector(1.0, sigma)
        case Laplace(scale):
            return whole_units(_laplace(scale))
        case PureDP(epsilon):
            log_a = np.logaddexp((_ORDERS - 1) * epsilon, -_ORDERS * epsilon) - math.log1p(math.exp(-epsilon))
            return whole_units(np.minimum(log_a / (_ORDERS - 1), epsilon))
        case ZCDP(rho):
            return whole_units(rho * _ORDERS)
        case WorstOf(parts):
            return tuple(max(column) for column in zip(*(charge_of(part, times) for part, times in parts), strict=True))
        case PrivateSelection() | PoissonSelection():
            return whole_units(_selection(atom))
    raise _bad("the kind")


def to_json(mechanism: Mechanism) -> dict[str, Json]:
    values: dict[str, Json] = {"mechanism": mechanism.kind}
    for name in mechanism.__slots__:
        value = getattr(mechanism, name)
        if name == "parts":
            value = [{"of": to_json(part), "times": times} for part, times in value]
        values[name] = to_json(value) if name == "base" else value
    return values


def from_json(value: Json, depth: int = 0) -> Mechanism:
    """Raises IntegrityError E-MECH-001 for what is not a description of a known mechanism, to the last field."""
    if not isinstance(value, Mapping) or depth > _MAX_DEPTH:
        raise _malformed()
    known = _TYPES.get(kind) if isinstance(kind := value.get("mechanism"), str) else None
    if known is None or set(value) != {"mechanism", *known.__slots__}:
        raise _malformed()
    fields: dict[str, object] = {}
    for name in known.__slots__:
        found = value[name]
        if name == "parts":
            fields[name] = _parts_from_json(found, depth)
        else:
            fields[name] = from_json(found, depth + 1) if name == "base" else found
    try:
        return known(**fields)  # type: ignore[arg-type]
    except PolicyError:
        raise _malformed() from None


def fingerprint(mechanism: Mechanism) -> Digest:
    return digest_of(to_json(mechanism))


def spelled(mechanism: Mechanism) -> str:
    """One line for people."""
    match mechanism:
        case Composed(parts) | NoiseSchedule(parts) | WorstOf(parts):
            first, rest = parts[0], len(parts) - 1
            return f"{mechanism.kind} of {spelled(first[0])} x{first[1]}" + (f" and {rest} more" if rest else "")
        case PrivateSelection(base) | PoissonSelection(base):
            return f"{mechanism.kind} of about {mechanism.expected_trials:.4g} runs of {spelled(base)}"
        case _:
            return f"{mechanism.kind} " + ", ".join(f"{name} {getattr(mechanism, name):.6g}" for name in mechanism.__slots__)


def _parts_from_json(value: Json, depth: int) -> Parts:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) > _MAX_PARTS:
        raise _malformed()
    parts: list[tuple[Mechanism, int]] = []
    for part in value:
        if not isinstance(part, Mapping) or set(part) != {"of", "times"} or type(times := part["times"]) is not int:
            raise _malformed()
        parts.append((from_json(part["of"], depth + 1), times))
    return tuple(parts)


def _first(schedule: NoiseSchedule, steps: int) -> Parts:
    if steps > schedule.steps:
        raise PolicyError(
            "E-MECH-002", f"a noise schedule has {schedule.steps} steps, and {steps} are asked for", "Lengthen the schedule"
        )
    taken: list[tuple[Mechanism, int]] = []
    for part, count in schedule.parts:
        now = min(count, steps)
        if now:
            taken.append((part, now))
        steps -= now
    return tuple(taken)


def _laplace(scale: float) -> FloatArray:
    """log(a/(2a-1) e^((a-1)/b) + (a-1)/(2a-1) e^(-a/b)) / (a-1)."""
    grows = np.log(_ORDERS / (2 * _ORDERS - 1)) + (_ORDERS - 1) / scale
    falls = np.log((_ORDERS - 1) / (2 * _ORDERS - 1)) - _ORDERS / scale
    result: FloatArray = np.logaddexp(grows, falls) / (_ORDERS - 1)
    return np.minimum(result, 1 / scale)


def _selection(mechanism: PrivateSelection | PoissonSelection) -> FloatArray:
    """Theorem 2 or 6; a divergence grows with its order, so what holds at a higher order holds at a lower one."""
    base = composed_rdp(charge_of(mechanism.base, 1))
    if isinstance(mechanism, PrivateSelection):
        once = (1 - 1 / _ORDERS) * base - math.log(mechanism.stop_probability) / _ORDERS
        more: FloatArray | float = (1 + mechanism.shape) * float(np.min(once))
    else:
        more = mechanism.expected_trials * _delta_at(base, np.log1p(1 / (_ORDERS - 1)))
    found = base + more + math.log(mechanism.expected_trials) / (_ORDERS - 1)
    result: FloatArray = np.minimum.accumulate(found[::-1])[::-1]
    return result


def _delta_at(rdp: FloatArray, epsilons: FloatArray) -> FloatArray:
    """Smallest delta for each epsilon; Canonne, Kamath, Steinke 2020, proposition 12, solved for delta."""
    with np.errstate(over="ignore"):
        room = rdp + np.log1p(-1 / _ORDERS) - epsilons[:, None]
        logs = np.where(np.isfinite(rdp), (_ORDERS - 1) * room - np.log(_ORDERS), 0.0)
    result: FloatArray = np.exp(np.minimum(logs.min(axis=1), 0.0))
    return result


def _number(mechanism: object, name: str, low: float, high: float) -> None:
    """Refuse what is no number in range (NaN fails every comparison); 1 and 1.0 are one mechanism."""
    value = getattr(mechanism, name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise _bad(name)
    object.__setattr__(mechanism, name, float(value))


def _check_parts(mechanism: Mechanism, parts: object) -> None:
    if not isinstance(parts, tuple | list) or not 0 < len(parts) <= _MAX_PARTS:
        raise _bad("the list of parts")
    for part in parts:
        if not (isinstance(part, tuple | list) and len(part) == 2):
            raise _bad("the list of parts")
        _check_base(part[0])
        if type(part[1]) is not int or not 0 < part[1] <= MAX_STEPS:
            raise _bad("the number of times a part runs")
    object.__setattr__(mechanism, "parts", tuple((part, times) for part, times in parts))
    if _depth(mechanism) > _MAX_DEPTH:
        raise _bad("the depth")


def _check_base(base: object) -> None:
    """A schedule is counted step by step, so it stands alone."""
    if isinstance(base, NoiseSchedule) or not isinstance(base, tuple(_TYPES.values())):
        raise _bad("a part")


def _depth(mechanism: Mechanism) -> int:
    match mechanism:
        case Composed(parts) | NoiseSchedule(parts) | WorstOf(parts):
            return 1 + max(_depth(part) for part, _ in parts)
        case PrivateSelection(base) | PoissonSelection(base):
            return 1 + _depth(base)
        case _:
            return 0


def _bad(name: str) -> PolicyError:
    return PolicyError(
        "E-ACCOUNT-001", f"a parameter of the mechanism is out of range: {name.replace('_', ' ')}", "Correct it in the policy"
    )


def _malformed() -> IntegrityError:
    return IntegrityError(
        "E-MECH-001",
        "the description of a mechanism is malformed, or names one that this version does not know",
        "Restore ledger.sqlite from its backup, or use the version that wrote it",
    )

"""Epsilon by privacy-loss distributions: tighter than Rényi, for reports. It admits nothing (see `privacy.ledger`).

A mechanism becomes the distribution of its privacy loss log(P/Q) on a grid, for removing and for adding one unit; composing is
convolution, by FFT; delta(epsilon) = E[(1 - e^(epsilon - loss))+].
Guarantee: pessimistic throughout. A loss between two grid points is split over both so that the masses of P and of Q are
kept (connect the dots), which only moves the hockey-stick curve up; cut tails, what wraps around in the FFT and the
rounding errors of the FFT are bounds that count as delta; epsilon is a multiple of 1e-6 rounded up, and never above the
Rényi figure, which is a bound of the same list. Mechanisms without a dominating pair here (zCDP, private selection) are
counted by Rényi, with half of delta.
Assumption: the mechanisms were fixed beforehand; floating-point noise sampling is not modelled.
Sources: Koskela, Jälkö, Honkela 2020 (1906.03049); Doroshenko, Ghazi, Kamath, Kumar, Manurangsi 2022 (2207.04380); dominating
pairs compose: Zhu, Dong, Wang 2022 (2106.08567).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.special import ndtr, ndtri

from privacy.accounting import FloatArray, epsilon_of_charge
from privacy.errors import PolicyError
from privacy.mechanisms import Atom, Gaussian, Laplace, PoissonSampledGaussian, PureDP, total_charge

Direction = Literal["remove", "add"]
_DIRECTIONS: Final[tuple[Direction, ...]] = ("remove", "add")
_WIDTH: Final = 0.03  # grid step over the mean deviation of one loss: adds (0.03)^2 / 6 to the variance, 0.02 % of epsilon
_WITH_PAIR: Final = (Gaussian, PoissonSampledGaussian, Laplace, PureDP)
_FINER: Final = 1 / 30  # for mechanisms with single losses, whose places the grid shifts by up to its width
_LARGEST_LOSS: Final = 600.0  # beyond, e^loss leaves the doubles, and no such epsilon means anything
_TAIL: Final = 1e-5  # share of delta that each cut may take
_SMALLEST_TAIL: Final = 1e-300  # below, quantiles lose their digits and end at infinity
_MOST_POINTS: Final = 1 << 21
_ROUNDING: Final = 16 * 2.0**-53
_EPSILON_STEPS: Final = 10**6


@dataclass(frozen=True, slots=True)
class _Losses:
    """Loss of one run on the grid: `masses[i]` at (first + i) * width, and the mass that counts as an infinite loss."""

    first: int
    masses: FloatArray
    infinite: float


@dataclass(frozen=True, slots=True)
class _Cells:
    """For n ascending losses: masses of P and of Q in the n - 1 cells between them, and P's below the first, above the last."""

    p: FloatArray
    q: FloatArray
    below: float
    above: float


@dataclass(frozen=True, slots=True)
class _Pair:
    """A dominating pair (P, Q): the continuous part of its loss by `cells`, single losses with P's mass in `atoms`.

    low, high: losses outside are rare enough to be cut. deviation: of one loss, roughly; it sets the grid and nothing else.
    """

    low: float
    high: float
    deviation: float
    cells: Callable[[FloatArray], _Cells] | None
    atoms: tuple[tuple[float, float], ...] = ()


def epsilon_by_pld(counts: Mapping[Atom, int], delta: float) -> float:
    """Smallest epsilon of these mechanisms together, each run as often as it says, rounded up to 1e-6.

    delta in (0, 1). Add-or-remove-one. Raises PolicyError E-ACCOUNT-001 for another delta.
    """
    renyi = epsilon_of_charge(total_charge(counts), delta)
    known: dict[Atom, int] = {}
    for atom, runs in counts.items():
        if isinstance(atom, _WITH_PAIR):
            known[atom] = runs
    rest = {atom: runs for atom, runs in counts.items() if atom not in known}
    if not known or renyi == 0.0:
        return renyi
    beside = epsilon_of_charge(total_charge(rest), delta / 2) if rest else 0.0
    share = delta / 2 if rest else delta
    found = max(_epsilon(known, share, direction) for direction in _DIRECTIONS) + beside
    if not math.isfinite(found):
        return renyi
    return min(renyi, math.ceil(found * _EPSILON_STEPS) / _EPSILON_STEPS)


def epsilon_by_pld_alone(counts: Mapping[Atom, int], delta: float) -> float:
    """The same without the Rényi figure in it, so that the two can be held against each other; not rounded.

    Only for mechanisms with a dominating pair here. `inf`: rounding errors of the FFT, which count as delta, use it up (a
    million steps at delta 1e-9 do), or the losses leave the grid. Raises PolicyError E-ACCOUNT-001 for no delta in (0, 1).
    """
    if not 0 < delta < 1 or not all(isinstance(atom, _WITH_PAIR) for atom in counts):
        raise PolicyError("E-ACCOUNT-001", "delta must lie in (0, 1), and every mechanism have a pair", "Correct the call")
    return max((_epsilon(counts, delta, direction) for direction in _DIRECTIONS), default=0.0) if counts else 0.0


def _epsilon(counts: Mapping[Atom, int], delta: float, direction: Direction) -> float:
    """For one direction; `inf` when the errors that are counted as delta use it up."""
    runs = sum(counts.values())
    tail = _TAIL * delta / runs
    if tail < _SMALLEST_TAIL:
        return math.inf
    pairs = [(_pair(atom, direction, tail), times) for atom, times in counts.items()]
    variance = sum(times * pair.deviation**2 for pair, times in pairs)
    widest = max(pair.high - pair.low for pair, _ in pairs)
    width = max(_WIDTH * math.sqrt(variance / runs), widest / _MOST_POINTS)
    losses = [(_on_grid(pair, width), times) for pair, times in pairs]
    first, last, wrapped = _window(losses, width, _TAIL * delta)
    if last - first >= 4 * _MOST_POINTS or last * width > _LARGEST_LOSS:
        return math.inf
    composed, rounding = _convolved(losses, first, next_fast_len(last - first + 1, real=True))
    budget = delta - sum(times * one.infinite for one, times in losses) - wrapped - rounding
    return _smallest(composed, first, width, budget) if budget > 0 else math.inf


def _pair(atom: Atom, direction: Direction, tail: float) -> _Pair:
    match atom:
        case PoissonSampledGaussian(q, sigma):
            return _sampled_gaussian(q, sigma, direction, tail)
        case Gaussian(sigma):
            return _sampled_gaussian(1.0, sigma, direction, tail)
        case Laplace(scale):
            return _laplace(1 / scale)
        case PureDP(epsilon):
            top = 1 / (1 + math.exp(-epsilon))  # randomised response: the worst of them
            deviation = epsilon * max(2 * math.sqrt(top * (1 - top)), 0.03) * _FINER
            return _Pair(-epsilon, epsilon, deviation, None, ((epsilon, top), (-epsilon, 1 - top)))
    raise AssertionError(atom)


def _sampled_gaussian(q: float, sigma: float, direction: Direction, tail: float) -> _Pair:
    """With the unit: (1-q) N(0, s^2) + q N(1, s^2); without: N(0, s^2). The loss is monotone in the outcome z.

    remove: P is with the unit, and the loss rises in z; add: P is without, and the loss falls.
    """
    reach = -float(ndtri(tail / 2)) * sigma
    low_z, high_z = -reach, reach + 1.0
    sign = 1.0 if direction == "remove" else -1.0

    def mixture_loss(z: FloatArray) -> FloatArray:
        exponent = (2 * z - 1) / (2 * sigma**2)
        if q == 1.0:
            return exponent
        result: FloatArray = np.logaddexp(math.log1p(-q), math.log(q) + exponent)
        return result

    def outcome(loss: FloatArray) -> FloatArray:
        """Inverse of `mixture_loss`; minus infinity where no outcome has so small a loss."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = loss if q == 1.0 else np.log(np.maximum(np.expm1(np.minimum(loss, 600.0)) + q, 0.0) / q)
            large = loss - math.log(q)  # from e^600 on, 1 - q does not count
        result: FloatArray = np.where(loss < 600.0, ratio, large) * sigma**2 + 0.5
        return result

    def cells(edges: FloatArray) -> _Cells:
        z = outcome(edges if sign > 0 else -edges[::-1])
        without, moved = _normal_cells(z / sigma), _normal_cells((z - 1) / sigma)
        with_unit = (1 - q) * without + q * moved
        if sign < 0:
            return _Cells(without[::-1], with_unit[::-1], float(ndtr(-z[-1] / sigma)), float(ndtr(z[0] / sigma)))
        ends = np.array([z[0], -z[-1]]) / sigma
        below, above = (1 - q) * ndtr(ends) + q * ndtr(ends + np.array([-1.0, 1.0]) / sigma)
        return _Cells(with_unit, without, float(below), float(above))

    ends = sign * mixture_loss(np.array([low_z, high_z]))
    z = np.linspace(low_z, high_z, 2001)
    density = np.exp(-0.5 * (z / sigma) ** 2)
    if sign > 0:
        density = (1 - q) * density + q * np.exp(-0.5 * ((z - 1) / sigma) ** 2)
    loss = sign * mixture_loss(z)
    mean = float(np.average(loss, weights=density))
    deviation = math.sqrt(float(np.average((loss - mean) ** 2, weights=density)))
    return _Pair(float(ends.min()), float(ends.max()), deviation, cells)


def _normal_cells(z: FloatArray) -> FloatArray:
    """Mass of the standard normal between neighbours, from the tail that keeps the digits."""
    below, above = ndtr(z), ndtr(-z)
    result: FloatArray = np.where(z[:-1] > 0, above[:-1] - above[1:], below[1:] - below[:-1])
    return result


def _laplace(epsilon: float) -> _Pair:
    """P = Lap(0, b), Q = Lap(1, b), epsilon = 1/b: loss epsilon below 0, epsilon (1 - 2z) between 0 and 1, then -epsilon."""

    def cells(edges: FloatArray) -> _Cells:
        """The middle part: P's density of the loss l is e^((l - epsilon)/2) / 4, Q's is e^(-l) times that."""
        kept = np.clip(edges, -epsilon, epsilon)
        p = np.exp((kept - epsilon) / 2) / 2
        q = -np.exp((-kept - epsilon) / 2) / 2
        return _Cells(np.diff(p), np.diff(q), 0.0, 0.0)

    ends = ((epsilon, 0.5), (-epsilon, 0.5 * math.exp(-epsilon)))
    deviation = epsilon * math.sqrt(0.5 * (1 + math.exp(-epsilon)) / 2) * _FINER
    return _Pair(-epsilon, epsilon, deviation, cells, ends)


def _on_grid(pair: _Pair, width: float) -> _Losses:
    first, last = math.floor(pair.low / width), math.ceil(pair.high / width)
    edges: FloatArray = width * np.arange(first, last + 1, dtype=np.float64)
    masses, infinite = np.zeros(len(edges)), 0.0
    if pair.cells is not None:
        found = pair.cells(edges)
        infinite = found.above
        p: FloatArray = found.p
        with np.errstate(over="ignore", invalid="ignore"):
            ratio = np.where(p > 0, found.q * np.exp(edges[:-1]) / np.where(p > 0, p, 1.0), 0.0)  # in [e^-width, 1]
        upper = np.clip((1 - np.nan_to_num(ratio, nan=0.0)) / -math.expm1(-width), 0.0, 1.0) * p
        masses[1:] += upper
        masses[:-1] += p - upper
        masses[0] += found.below  # smaller losses count as this one
    for loss, mass in pair.atoms:
        at = min(max(math.floor(loss / width) - first, 0), len(edges) - 2)
        share = min(1.0, max(0.0, -math.expm1(edges[at] - loss) / -math.expm1(-width)))
        masses[at + 1] += share * mass
        masses[at] += (1 - share) * mass
    return _Losses(first, masses, infinite)


def _window(losses: Sequence[tuple[_Losses, int]], width: float, tail: float) -> tuple[int, int, float]:
    """Grid points between which the composed loss lies but for `tail` on each side (Chernoff), and what lies above.

    The mass above wraps around to where it counts for nothing, so it is counted as delta; that below wraps to the top.
    """
    lowest = sum(times * one.first for one, times in losses)
    highest = sum(times * (one.first + len(one.masses) - 1) for one, times in losses)
    ends = [(lowest, 0.0), (highest, 0.0)]
    for end, sign in ((1, 1.0), (0, -1.0)):
        for log_moment, slope in _log_moments(losses, width, sign):
            reach = (log_moment - math.log(tail)) / (slope * width)
            if end and reach < ends[1][0]:
                ends[1] = (math.ceil(reach), tail)
            elif not end and -reach > ends[0][0]:
                ends[0] = (math.floor(-reach), tail)
    return ends[0][0], max(ends[1][0], ends[0][0] + 1), ends[1][1]


def _log_moments(losses: Sequence[tuple[_Losses, int]], width: float, sign: float) -> list[tuple[float, float]]:
    """log E[e^(sign slope loss)] of the composition and its slope, for slopes that double."""
    slopes = 2.0 ** np.arange(-7, 14)
    total = np.zeros(len(slopes))
    for one, times in losses:
        values = sign * width * (one.first + np.arange(len(one.masses)))
        peak = float(values.max())
        power = np.exp((values - peak) * slopes[0])
        for index, slope in enumerate(slopes):
            moment = float(one.masses @ power)
            total[index] += times * (math.log(moment) + peak * slope if moment > 0 else math.inf)
            power = power * power
    return [(float(log), float(slope)) for log, slope in zip(total, slopes, strict=True) if math.isfinite(log)]


def _convolved(losses: Sequence[tuple[_Losses, int]], first: int, size: int) -> tuple[FloatArray, float]:
    """Masses of the composed loss at first, first + 1, ... and a bound on the sum of their rounding errors."""
    spectrum = np.ones(size // 2 + 1, dtype=np.complex128)
    powers, offset = 0, 0
    for one, times in losses:
        folded = np.zeros(-(-len(one.masses) // size) * size)
        folded[: len(one.masses)] = one.masses
        spectrum *= rfft(folded.reshape(-1, size).sum(axis=0)) ** times
        powers += times
        offset += times * one.first
    found = np.roll(irfft(spectrum, size), (offset - first) % size)
    # Each transform errs by a few ulp times log2(size), a power multiplies that; in L2, so in L1 by Cauchy-Schwarz.
    relative = _ROUNDING * (powers + (len(losses) + 1) * math.log2(size))
    bound = relative * math.sqrt(size) * float(np.linalg.norm(found))
    return np.maximum(found, 0.0), bound


def _smallest(masses: FloatArray, first: int, width: float, delta: float) -> float:
    """Smallest epsilon >= 0 with sum over losses above it of mass (1 - e^(epsilon - loss)) <= delta."""
    start = max(0, -first)
    losses = width * (first + start + np.arange(len(masses) - start))
    above = np.cumsum(masses[start:][::-1])[::-1]
    shrunk = np.cumsum((masses[start:] * np.exp(-losses))[::-1])[::-1]
    if len(above) == 0:
        return 0.0
    at_points = above - np.exp(losses) * shrunk  # delta(loss), where the sum may include the point itself
    over = np.flatnonzero(at_points > delta)
    index = int(over[-1]) + 1 if len(over) else 0
    if index >= len(above):
        return math.inf
    # Between the last point that is over and this one, the sum is over the points from this one on.
    if above[index] <= delta or shrunk[index] <= 0:
        return float(losses[index - 1]) if index else 0.0
    return max(0.0, math.log((above[index] - delta) / shrunk[index]))

"""What a run leaves for its audit: who was sampled, what the canaries got, and how each step was worked out.

Guarantee: arrays without pickles; one entry per step; a field that a file lacks raises, it is never filled in.
Assumption: secret until the p-values are out (the coins, who was sampled, how many parts a secret batch made), so it is kept
sealed. Not covered: a trainer that forges it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from privacy.noise import BoolArray

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
UNSEEN: tuple[FloatArray, IntArray] = (np.zeros(0), np.zeros(0, dtype=np.int64))  # no noise of any tensor was looked at
ALONE: IntArray = np.zeros(1, dtype=np.int64)  # the marks of a run in one process, and the rows of one whose ranks hold all
_MARKED = 1024  # values of each tensor that a mark looks at
_ABSENT = -1


@dataclass(frozen=True, slots=True)
class StepWork:
    """How one step was worked out, measured where it happened.

    parts: physical batches that the sampled units made. divisor: what the noisy sum was divided by, from the canary
    coordinates before and after; NaN where they are zero. updates: optimizer steps since the last record.
    marks: int64 [ranks], a fingerprint of the weights that each rank computed with, or of the noisy update that each saw.
    shares: int64 [ranks], canary rows to which each rank added the noise; zeros where the leader adds it to all.
    energies, sizes: float64, int64 [tensors], of each tensor that is trained: the sum of squares of what was added to its
    clipped sum, and its number of values; size 0 where that can't be seen (values of under 32 bits).
    """

    parts: int
    divisor: float
    updates: int
    marks: IntArray
    shares: IntArray
    energies: FloatArray
    sizes: IntArray


@dataclass(frozen=True, slots=True)
class WorkLog:
    """StepWork of all steps. marks, shares: int64 [steps, most ranks of any step]; -1 where a step had fewer.

    energies, sizes: [steps, tensors]; every step trains the same tensors.
    """

    parts: IntArray
    divisors: FloatArray
    updates: IntArray
    marks: IntArray
    shares: IntArray
    energies: FloatArray
    sizes: IntArray

    @classmethod
    def of(cls, steps: Sequence[StepWork]) -> WorkLog:
        tensors = len(steps[0].sizes) if steps else 0
        return cls(
            np.array([s.parts for s in steps], dtype=np.int64),
            np.array([s.divisor for s in steps], dtype=np.float64),
            np.array([s.updates for s in steps], dtype=np.int64),
            _padded([s.marks for s in steps]),
            _padded([s.shares for s in steps]),
            np.array([s.energies for s in steps], dtype=np.float64).reshape(len(steps), tensors),
            np.array([s.sizes for s in steps], dtype=np.int64).reshape(len(steps), tensors),
        )

    def steps(self) -> list[StepWork]:
        rows = zip(self.parts, self.divisors, self.updates, self.marks, self.shares, self.energies, self.sizes, strict=True)
        return [
            StepWork(
                int(parts), float(divisor), int(updates), marks[marks != _ABSENT], shares[shares != _ABSENT], energies, sizes
            )
            for parts, divisor, updates, marks, shares, energies, sizes in rows
        ]

    @property
    def ranks(self) -> IntArray:
        """int64 [steps]: how many processes shared each step."""
        found: IntArray = (self.marks != _ABSENT).sum(1)
        return found

    def arrays(self) -> dict[str, np.ndarray]:
        return {f"work_{name}": getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], steps: int) -> WorkLog:
        """Raises KeyError for a field that is not there, ValueError for one of another length or type."""
        found = {name: np.asarray(arrays[f"work_{name}"]) for name in cls.__slots__}
        kinds = {name: array.dtype for name, array in found.items()}
        wanted = {name: np.dtype(np.float64 if name in ("divisors", "energies") else np.int64) for name in found}
        flat = all(found[name].ndim == (2 if name in ("marks", "shares", "energies", "sizes") else 1) for name in found)
        if kinds != wanted or not flat or any(len(array) != steps for array in found.values()):
            raise ValueError("the log of a run's work does not fit its steps")
        return cls(**found)


@dataclass(frozen=True, slots=True)
class Terms:
    """What was promised of the run's work, all public: the divisor and the processes by policy, the steps by trace and ledger.

    steps_in_ledger: None where the ledger charged nothing for the run.
    """

    divisor: int
    processes: int
    steps_in_model: int
    steps_charged: int
    steps_in_ledger: int | None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a run left for the audit, and what it claims.

    gradients: float32 [steps, canaries], noisy sums at the canary coordinates. coins: bool [canaries].
    members: bool [steps, units + canaries], who was sampled at each step. factors: float64 [steps] of a noise schedule.
    work, terms: None where they are not known; the checks that need them are then not evaluated.
    """

    gradients: npt.NDArray[np.float32]
    coins: BoolArray
    members: BoolArray
    noise_multiplier: float
    clipping_norm: float
    sampling_probability: float
    factors: FloatArray | None = None
    work: WorkLog | None = None
    terms: Terms | None = None

    @property
    def by_step(self) -> FloatArray:
        """float64 [steps, 1]: each step's noise as a multiple of `noise_multiplier`."""
        found: FloatArray = np.ones((len(self.gradients), 1)) if self.factors is None else self.factors.reshape(-1, 1)
        return found

    @property
    def outside(self) -> FloatArray:
        """float64 [steps, canaries out]: noise only, if the run is right."""
        found: FloatArray = self.gradients[:, ~self.coins].astype(np.float64)
        return found

    @property
    def inside(self) -> FloatArray:
        found: FloatArray = self.gradients[:, self.coins].astype(np.float64)
        return found

    @property
    def inside_members(self) -> BoolArray:
        canaries: BoolArray = self.members[:, self.members.shape[1] - len(self.coins) :]
        return canaries[:, self.coins]


def applied_divisor(before: npt.NDArray[np.float32], after: npt.NDArray[np.float32]) -> float:
    """The median ratio of a tensor's values before and after a division, within 1e-7 of it; NaN where all are zero."""
    there = (after != 0) & np.isfinite(after)
    return float(np.median(before[there].astype(np.float64) / after[there])) if there.any() else float("nan")


def added_noise(parameters: Sequence[torch.Tensor]) -> tuple[FloatArray, IntArray]:
    """(energies, sizes) of StepWork, from what the optimizer will read (grad) and the clipped sum (summed_grad)."""
    energies, sizes = [], []
    for parameter in parameters:
        seen = parameter.grad is not None and parameter.grad.dtype in (torch.float32, torch.float64) and parameter.numel() > 0
        sizes.append(parameter.numel() if seen else 0)
        if parameter.grad is None or not seen:
            energies.append(0.0)
            continue
        added = parameter.grad - parameter.summed_grad.view_as(parameter)  # type: ignore[attr-defined]
        energies.append(float(added.square_().sum(dtype=torch.float64)))
    return np.array(energies, dtype=np.float64), np.array(sizes, dtype=np.int64)


def replica_mark(tensors: Sequence[torch.Tensor]) -> int:
    """A fingerprint (63 bits of SHA-256) of at least 1,024 evenly spaced values of each tensor, or of all it has."""
    some = [t.detach().reshape(-1)[:: max(1, t.numel() // _MARKED)].float() for t in tensors]
    seen = torch.cat(some).cpu().numpy().tobytes()
    return int.from_bytes(hashlib.sha256(seen).digest()[:8], "big") >> 1


def _padded(rows: Sequence[IntArray]) -> IntArray:
    width = max((len(row) for row in rows), default=1)
    found = np.full((len(rows), width), _ABSENT, dtype=np.int64)
    for place, row in zip(found, rows, strict=True):
        place[: len(row)] = row
    return found

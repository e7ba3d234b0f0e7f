"""Composes a training run: preflight, canary coins, lease, steps, checkpoint; killed anywhere, it resumes without a free step.

Order, which is the guarantee: the coins are committed and announced before the first step; steps are leased durably
before they run; a checkpoint follows each lease. After a crash the run goes on from its checkpoint under a fresh noise
key; steps that were leased and lost stay charged, and are made up from the spare steps of the same approval or not at all.
Assumption: `Checkpoints` keeps bytes sealed; `Lease.take` is durable when it returns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from privacy.canonical import Digest
from privacy.errors import BudgetExceeded, IntegrityError
from privacy.noise import BoolArray
from training.canaries import CanaryCoins
from training.checkpoint import TrainingState, pack, unpack
from training.config import TrainingConfig
from training.data import UnitData
from training.distributed import Crew, SoloCrew
from training.ema import averaged
from training.engine import Engine, make_carrier, make_engine
from training.models.base import CanaryCarrier, UnitModel
from training.preflight import preflight
from training.run_record import WorkLog


class Lease(Protocol):
    """Steps of the approved budget. `left` counts those not leased yet, `taken` those leased by all attempts together."""

    @property
    def left(self) -> int: ...

    @property
    def taken(self) -> int: ...

    def take(self, steps: int) -> None:
        """Charge `steps` more, durably, before they run."""


class Checkpoints(Protocol):
    """Where the one checkpoint of a run lies, sealed."""

    def load(self) -> bytes | None: ...

    def save(self, data: bytes) -> None: ...


class Unmetered:
    """The lease of a run that spends no budget because it promises nothing (mechanism non_private)."""

    def __init__(self, steps: int) -> None:
        self.left, self.taken = steps, 0

    def take(self, steps: int) -> None:
        self.left, self.taken = self.left - steps, self.taken + steps


@dataclass(frozen=True, slots=True)
class TrainingOutcome:
    """weights: what may leave after approval. The rest is secret and goes, sealed, to the audit.

    gradients: float32 [steps_in_model, canaries]. members: bool [steps_in_model, units + canaries].
    """

    weights: dict[str, torch.Tensor]
    gradients: npt.NDArray[np.float32]
    members: BoolArray
    work: WorkLog
    coins: CanaryCoins
    steps_charged: int
    steps_in_model: int
    non_finite_units: int


def train_model(
    config: TrainingConfig,
    data: UnitData,
    open_lease: Callable[[], Lease],
    checkpoints: Checkpoints,
    announce: Callable[[Digest], None],
    progress: Callable[[int, int], None],
    device: str = "cpu",
    crew: Crew | None = None,
    observe: Callable[[UnitModel], None] = lambda model: None,
    toss: Callable[[int], CanaryCoins] = CanaryCoins.toss,
) -> TrainingOutcome:
    """Run all steps of the recipe over prepared units. Raises E-TRAIN codes of the preflight, and BudgetExceeded E-TRAIN-020.

    open_lease: reserves the budget; called after the preflight, so that a run that can't work reserves nothing.
    announce: told the digest of the canary coins before any step; must be durable when it returns.
    crew: the processes that share the work of a step; this one alone without it.
    toss: gives the coins of so many canaries; called once, by the attempt that begins.
    observe: shown the model, whose weights are noisy already, after each lease of a run in one process.
    """
    memory = preflight(config, device).memory
    lease = open_lease()
    state = _begin(config, len(data), checkpoints, announce, toss)
    engine = make_engine(make_carrier(config).to(device), config, data, state.coins.coins, memory, crew)
    state.restore(engine.carrier, engine.optimizer)
    engine.begin()
    _refuse_worn_out(config, len(state.gradients), lease.left)
    while len(state.gradients) < config.steps:
        chunk = min(config.lease_steps, config.steps - len(state.gradients))
        lease.take(chunk)
        _run_chunk(engine, state, chunk, progress)
        engine.collect()
        if crew is None or isinstance(crew, SoloCrew):
            observe(engine.carrier.model)
        checkpoints.save(pack(state, engine.carrier, engine.optimizer))
    with averaged(engine.optimizer):
        weights = _leaving(engine.carrier)
    return TrainingOutcome(
        weights,
        np.stack(state.gradients),
        np.stack(state.members),
        WorkLog.of(state.work),
        state.coins,
        lease.taken,
        len(state.gradients),
        state.non_finite_units,
    )


def _leaving(carrier: CanaryCarrier) -> dict[str, torch.Tensor]:
    """What the model releases, which must be the model's own: the canaries' embedding stays behind."""
    weights = carrier.model.released()
    own = {name for name, _ in carrier.model.named_parameters()}
    kept = carrier.canary.weight.untyped_storage().data_ptr()
    if not set(weights) <= own or any(t.untyped_storage().data_ptr() == kept for t in weights.values()):
        raise IntegrityError(
            "E-TRAIN-047",
            "the model would release a tensor that is not its own, such as the canaries'",
            "Correct `released` of the model: named parameters of it, and nothing else",
        )
    return weights


def _begin(
    config: TrainingConfig,
    units: int,
    checkpoints: Checkpoints,
    announce: Callable[[Digest], None],
    toss: Callable[[int], CanaryCoins],
) -> TrainingState:
    saved = checkpoints.load()
    if saved is not None:
        return unpack(saved, config, units)
    state = TrainingState.fresh(toss(config.canaries))
    announce(state.coins.commitment)
    # The coins are kept before the first lease: a run whose coins were lost with a crash could never be audited.
    checkpoints.save(pack(state, None, None))
    return state


def _refuse_worn_out(config: TrainingConfig, done: int, left: int) -> None:
    if done + left < config.steps:
        raise BudgetExceeded(
            "E-TRAIN-020",
            f"crashes used up the spare steps of this approval: {config.steps - done} steps are to do and {left} are left",
            "Change the policy, run ingest again and ask for a new use approval; what was leased stays charged",
        )


def _run_chunk(engine: Engine, state: TrainingState, steps: int, progress: Callable[[int, int], None]) -> None:
    for number in range(len(state.gradients), len(state.gradients) + steps):
        record = engine.step(number)
        state.gradients.append(record.gradient)
        state.members.append(record.members)
        state.work.append(record.work)
        state.non_finite_units += record.non_finite_units
        progress(number + 1, engine.config.steps)

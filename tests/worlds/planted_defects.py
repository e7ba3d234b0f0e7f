"""Fifteen ways to build DP-SGD wrongly, each planted into a real engine, and the check of the probe that is about it.

`DEFECTS[i].run()` trains once and returns the record that the audit would get, with the claims of a run without the defect.
They are the tests of tests/training/test_planted_defects.py and a row of benchmarks/audits_probe.py.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from privacy.noise import GaussianNoise
from tests.training import worlds
from tests.training.crews import Follower, honest, world_of
from tests.training.worlds import SMALL, record_of, small_config, units
from training import follower, sharded
from training.canaries import CanaryCoins
from training.data import UnitBatch
from training.distributed import Group, Seat
from training.engine import Engine, Memory, PrivateEngine, make_carrier
from training.gradients import GradientMethod
from training.run_record import IntArray, RunRecord
from training.sharded import ShardedEngine

WHOLE, IN_PARTS = Memory(), Memory(units=8)  # four to nine physical batches to a step
_DISTRIBUTED = small_config(canaries=200, steps=30, labels=("a", "b", "c", "d"))
_LEARNING_RATE = 0.01


@dataclass(frozen=True, slots=True)
class Defect:
    """check: of the probe, which must fail in `run`'s record."""

    name: str
    check: str
    run: Callable[[], RunRecord]


class DivisorOfTheData(PrivateEngine):
    """Divides by the expected batch size, of the private number of units: what Opacus 1.6 does."""

    def divide(self, batch_units: int) -> None:
        for parameter in self.method.parameters:
            parameter.grad /= int(self.units * self.config.sampling_probability)


class NoiseForEachPart(PrivateEngine):
    """Adds noise to each physical batch; its scale is such that a step of average length has the right noise in all."""

    average_parts = 6.4

    def noise_multiplier_at(self, number: int) -> float:
        return 0.0

    def accumulate(self, rows: np.ndarray) -> int:
        scale = self.config.noise_multiplier * self.config.clipping_norm / self.average_parts**0.5
        bad = 0
        for part in self.parts(rows):
            bad += self.method.add(self.batch(part))
            for parameter in self.method.parameters:
                held: torch.Tensor = parameter.summed_grad  # type: ignore[attr-defined]
                held += scale * torch.randn_like(held)
        return bad


class ClipsTheAccumulated(PrivateEngine):
    """Sums the gradients of all physical batches, and clips what came together."""

    def _self_check(self, rows: np.ndarray) -> None:
        """Asleep: the probe must see the fault by itself."""

    def accumulate(self, rows: np.ndarray) -> int:
        parameters = self.method.parameters
        total = [torch.zeros_like(p) for p in parameters]
        for part in self.parts(rows):
            for place, gradient in zip(total, self._gradients(self.batch(part)), strict=True):
                place += gradient
        norm = float(torch.sqrt(torch.stack([t.square().sum() for t in total]).sum()))
        for parameter, gradient in zip(parameters, total, strict=True):
            parameter.summed_grad += gradient * min(1.0, self.config.clipping_norm / (norm + 1e-6))  # type: ignore[attr-defined]
        return 0

    def _gradients(self, batch: UnitBatch) -> list[torch.Tensor]:
        parameters = self.method.parameters
        loss = self.carrier(batch.inputs, batch.labels, batch.cid).sum()
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


class UpdatesTwice(PrivateEngine):
    """Moves the weights a second time by the same gradient, which no record and no ledger holds."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        once = self.optimizer.step

        def twice() -> None:
            once()
            once()

        self.optimizer.step = twice  # type: ignore[method-assign,assignment]


def distributed_run(member: Follower = honest, shards: bool = False, processes: int = 2) -> RunRecord:
    """A run of real processes over gloo; all but the leader do as `member`."""
    config = _DISTRIBUTED
    coins = CanaryCoins.toss(config.canaries).coins
    with (
        tempfile.TemporaryDirectory() as folder,
        world_of(Path(folder), processes, follower=member) as world,
        world.lead() as crew,
    ):
        carrier, data = make_carrier(config), units(config, worlds.UNITS)
        made: Engine = (
            ShardedEngine(carrier, config, data, coins, crew)
            if shards
            else PrivateEngine(carrier, config, data, coins, crew=crew)
        )
        made.begin()
        steps = [made.step(number) for number in range(config.steps)]
    return record_of(config, coins, steps, processes)


def own_replica(seat: Seat) -> None:
    """A rank that applies its own sum, without noise, to a replica of its own, and computes with that."""
    _replica(seat, lambda sums: sums)


def own_noise(seat: Seat) -> None:
    """A rank that applies an update with noise, but with other noise than the leader's."""
    _replica(seat, lambda sums: [s + 1.1 * torch.randn_like(s) for s in sums])


def _replica(seat: Seat, update: Callable[[list[torch.Tensor]], Sequence[torch.Tensor]]) -> None:
    torch.set_num_threads(1)
    kept: list[torch.Tensor] = []
    receive, report = Group.from_leader, follower.add_up

    def from_leader(self: Group, tensors: Sequence[torch.Tensor]) -> None:
        receive(self, tensors)
        with torch.no_grad():
            for tensor, own in zip(tensors, kept, strict=bool(kept)):
                tensor.copy_(own)

    def add_up(group: Group, method: GradientMethod, bad: int) -> tuple[int, IntArray]:
        sums = [p.summed_grad.clone() for p in method.parameters]  # type: ignore[attr-defined]
        told = report(group, method, bad)
        moved = zip(method.parameters, update(sums), strict=True)
        kept[:] = [p.detach() - _LEARNING_RATE * s.view_as(p) / _DISTRIBUTED.divisor for p, s in moved]
        return told

    Group.from_leader = from_leader  # type: ignore[method-assign]
    follower.add_up = add_up
    follower.follow(seat)


class _Zero(GaussianNoise):
    def draw(self, step: int, size: int) -> np.ndarray:
        return np.zeros(size, dtype=np.float32)


def silent_part(seat: Seat) -> None:
    """A rank that adds no noise to its part of a sharded model."""
    torch.set_num_threads(1)
    sharded.noise_of_rank = lambda own, leaders, rank: _Zero(bytes(32))  # type: ignore[assignment]
    follower.follow(seat)


class QuietElsewhere(PrivateEngine):
    """The noise as claimed on the rows of the canaries, and a hundredth of it on every other tensor."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        whole, canary = self.private.add_noise, self.carrier.canary.weight

        def add_noise() -> None:
            whole()
            for parameter in self.private.params:
                if parameter is not canary:
                    summed = parameter.summed_grad.view_as(parameter)
                    parameter.grad = summed + 0.01 * (parameter.grad - summed)

        self.private.add_noise = add_noise  # type: ignore[method-assign]


class NoNoiseAtTheEnd(PrivateEngine):
    """The last step gives its sum away."""

    def noise_multiplier_at(self, number: int) -> float:
        return 0.0 if number == self.config.steps - 1 else super().noise_multiplier_at(number)


def _alone(engine: type[PrivateEngine], memory: Memory = WHOLE, count: int = worlds.UNITS) -> Callable[[], RunRecord]:
    return partial(worlds.run, engine, SMALL, count, memory)


DEFECTS: tuple[Defect, ...] = (
    Defect("noise_times_0", "noise_scale", _alone(worlds.noise_times(0.0))),
    Defect("noise_times_0.1", "noise_scale", _alone(worlds.noise_times(0.1))),
    Defect("noise_times_0.5", "noise_scale", _alone(worlds.noise_times(0.5))),
    Defect("noise_times_0.9", "noise_scale", _alone(worlds.noise_times(0.9))),
    Defect("clips_the_batch", "clipping", _alone(worlds.ClipsTheBatch)),
    Defect("no_clipping", "clipping", _alone(worlds.NoClipping)),
    Defect("reseeded_noise", "noise_independence", _alone(worlds.ReseededNoise)),
    Defect("fixed_cycle", "batch_size_law", _alone(worlds.FixedCycle)),
    Defect("reshuffled_each_epoch", "participation_law", _alone(worlds.Shuffled)),
    Defect("fixed_size_batch", "batch_size_law", _alone(worlds.FixedSize)),
    Defect("divides_by_actual_batch", "divisor", _alone(worlds.PrivateDivisor)),
    # 39 where the policy says 40: too near for the scale of the noise to show it.
    Defect("private_divisor", "size_independence", _alone(DivisorOfTheData, count=396)),
    Defect("noise_for_each_part", "accumulation", _alone(NoiseForEachPart, IN_PARTS)),
    Defect("clips_the_accumulated", "accumulation", _alone(ClipsTheAccumulated, IN_PARTS)),
    Defect("rank_without_noise", "rank_noise", partial(distributed_run, own_replica)),
)
# Beyond the fifteen.
MORE: tuple[Defect, ...] = (
    Defect("quiet_elsewhere", "noise_scale", _alone(QuietElsewhere)),
    Defect("no_noise_at_the_end", "noise_scale", _alone(NoNoiseAtTheEnd)),
    Defect("updates_twice", "step_count", _alone(UpdatesTwice)),
    Defect("rank_with_its_own_noise", "rank_noise", partial(distributed_run, own_noise)),
    Defect("part_without_noise", "rank_noise", partial(distributed_run, silent_part, True)),
)

"""Small synthetic runs: engines that keep their claim, and engines that break it in one way each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from privacy.noise import GaussianNoise
from privacy.policy import Recipe
from training.canaries import CanaryCoins
from training.config import TrainingConfig
from training.data import UnitBatch, UnitData
from training.engine import Memory, PrivateEngine, StepRecord, make_carrier
from training.recipes import recipe_of
from training.run_record import RunRecord, Terms, WorkLog

SMALL = TrainingConfig(
    recipe=Recipe(
        hash_buckets=64, embedding_width=4, max_tokens=4, steps=100, learning_rate=0.01, optimizer="adam", clipping_norm=1.0
    ),
    labels=("a", "b", "c"),
    max_records=2,
    noise_multiplier=1.1,
    sampling_probability=0.1,
    divisor=40,
    canaries=200,
)
UNITS, WHOLE = 300, Memory()


def small_config(**changes: object) -> TrainingConfig:
    """SMALL with other values; names of the recipe's fields go there. Unchecked, so that bad numbers can be tried."""
    own = {name: value for name, value in changes.items() if name in TrainingConfig.__dataclass_fields__}
    recipe = SMALL.recipe.model_copy(update={name: value for name, value in changes.items() if name not in own})
    return replace(SMALL, **{"recipe": recipe, **own})  # type: ignore[arg-type]


def units(config: TrainingConfig, count: int = UNITS) -> UnitData:
    return recipe_of(config).synthetic(config, count)


def run(
    engine_class: type[PrivateEngine], config: TrainingConfig = SMALL, count: int = UNITS, memory: Memory = WHOLE
) -> RunRecord:
    """A whole run of one engine; the record claims what `config` says, whatever the engine did."""
    torch.set_num_threads(1)
    coins = CanaryCoins.toss(config.canaries).coins
    engine = engine_class(make_carrier(config), config, units(config, count), coins, memory=memory)
    return record_of(config, coins, [engine.step(number) for number in range(config.steps)])


def record_of(config: TrainingConfig, coins: np.ndarray, steps: Sequence[StepRecord], processes: int = 1) -> RunRecord:
    """What the audit would get of these steps, as many of them charged as the recipe has."""
    factors = np.array([config.noise_multiplier_at(n) for n in range(config.steps)]) / (config.noise_multiplier or 1.0)
    return RunRecord(
        np.stack([s.gradient for s in steps]),
        coins,
        np.stack([s.members for s in steps]),
        config.noise_multiplier,
        config.clipping_norm,
        config.sampling_probability,
        factors[: len(steps)],
        WorkLog.of([s.work for s in steps]),
        Terms(config.divisor, processes, len(steps), len(steps), config.steps),
    )


def noise_times(factor: float) -> type[PrivateEngine]:
    class Scaled(PrivateEngine):
        def noise_multiplier_at(self, number: int) -> float:
            return factor * super().noise_multiplier_at(number)

    return Scaled


class _Unclipped:
    """A gradient method that forgets to clip, whatever the batch."""

    name = "unclipped"

    def __init__(self, carrier: torch.nn.Module, clipping_norm: float) -> None:
        self.carrier, self.clipping_norm = carrier, clipping_norm
        self.parameters = [p for p in carrier.parameters() if p.requires_grad]

    def gradients(self, batch: UnitBatch) -> list[torch.Tensor]:
        loss = self.carrier(batch.inputs, batch.labels, batch.cid).sum()
        found = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(self.parameters, found, strict=True)]

    def add(self, batch: UnitBatch) -> int:
        for parameter, gradient in zip(self.parameters, self.gradients(batch), strict=True):
            parameter.summed_grad += gradient
        return 0

    def close(self) -> None:
        pass


class _ClippedAsOne(_Unclipped):
    """The mean of the batch is clipped instead of each unit."""

    def add(self, batch: UnitBatch) -> int:
        means = [g / max(len(batch), 1) for g in self.gradients(batch)]
        norm = torch.sqrt(torch.stack([m.square().sum() for m in means]).sum())
        factor = float(min(1.0, self.clipping_norm / (float(norm) + 1e-6)))
        for parameter, mean in zip(self.parameters, means, strict=True):
            parameter.summed_grad += factor * mean * 40
        return 0


class _Unchecked(PrivateEngine):
    """The probe must see the fault by itself, so the self-check is asleep."""

    def _self_check(self, rows: np.ndarray) -> None:
        pass


class NoClipping(_Unchecked):
    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.method.close()
        self.method = _Unclipped(self.carrier, self.config.clipping_norm)  # type: ignore[assignment]


class ClipsTheBatch(_Unchecked):
    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.method.close()
        self.method = _ClippedAsOne(self.carrier, self.config.clipping_norm)  # type: ignore[assignment]


class ReseededNoise(PrivateEngine):
    """The same noise in every step, as after seeding the generator in the loop."""

    def step(self, number: int) -> object:  # type: ignore[override]
        self.private.noise = _FromStart(0)
        return super().step(number)


class ReplayedNoise(PrivateEngine):
    """After half of the steps, the noise starts again from the beginning, as after a resume with the same key."""

    def step(self, number: int) -> object:  # type: ignore[override]
        self.private.noise = _FromStart(number % (self.config.steps // 2))
        return super().step(number)


class _FromStart(GaussianNoise):
    def __init__(self, number: int) -> None:
        super().__init__(bytes(32))
        self._number = number

    def draw(self, step: int, size: int) -> np.ndarray:
        return GaussianNoise(bytes(32)).draw(self._number, size)


class SharedNoise(PrivateEngine):
    """One draw per step for all coordinates."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.private.noise = _Shared()


class _Shared(GaussianNoise):
    def draw(self, step: int, size: int) -> np.ndarray:
        return np.repeat(super().draw(step, 1), size)


class UniformNoise(PrivateEngine):
    """Right variance, wrong law."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.private.noise = _Uniform()


class _Uniform(GaussianNoise):
    def draw(self, step: int, size: int) -> np.ndarray:
        return np.random.default_rng().uniform(-(3**0.5), 3**0.5, size).astype(np.float32)


class FixedCycle(PrivateEngine):
    def sample(self, number: int) -> np.ndarray:
        return _slice(np.arange(self.slots), number, self.config.sampling_probability)


class Shuffled(PrivateEngine):
    def sample(self, number: int) -> np.ndarray:
        batches = int(1 / self.config.sampling_probability)
        if number % batches == 0:
            self.order = np.random.default_rng().permutation(self.slots)
        return _slice(self.order, number % batches, self.config.sampling_probability)


class FixedSize(PrivateEngine):
    def sample(self, number: int) -> np.ndarray:
        order = np.random.default_rng().permutation(self.slots)
        return _slice(order, 0, self.config.sampling_probability)


class PoissonSizesInACycle(PrivateEngine):
    """Batch sizes as claimed, but whose turn it is is fixed: only the participation law shows it."""

    start = 0

    def sample(self, number: int) -> np.ndarray:
        size = int(np.random.default_rng().binomial(self.slots, self.config.sampling_probability))
        chosen = np.zeros(self.slots, dtype=np.bool_)
        chosen[(self.start + np.arange(size)) % self.slots] = True
        self.start = (self.start + size) % self.slots
        return chosen


class SamplesTwice(PrivateEngine):
    """Twice the sampling probability that was claimed."""

    def sample(self, number: int) -> np.ndarray:
        return self.sampler.bernoulli(self.slots, 2 * self.config.sampling_probability)


class IncompleteLog(PrivateEngine):
    """Units take part twice as often as the log says."""

    def accumulate(self, rows: np.ndarray) -> int:
        more = np.flatnonzero(self.sampler.bernoulli(self.slots, self.config.sampling_probability))
        return super().accumulate(np.union1d(rows, more))


class PrivateDivisor(PrivateEngine):
    def divide(self, batch_units: int) -> None:
        for parameter in self.method.parameters:
            parameter.grad /= max(batch_units, 1)


def _slice(order: np.ndarray, number: int, share: float) -> np.ndarray:
    size = int(len(order) * share)
    chosen = np.zeros(len(order), dtype=np.bool_)
    start = (number * size) % (len(order) - size + 1)
    chosen[order[start : start + size]] = True
    return chosen

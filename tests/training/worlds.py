"""Small synthetic runs: engines that keep their claim, and engines that break it in one way each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from privacy.noise import GaussianNoise
from training.canaries import CanaryCoins
from training.config import TrainingConfig
from training.data import UnitData
from training.engine import PrivateEngine, make_model
from training.preflight import synthetic_units
from training.probe import RunRecord

SMALL = TrainingConfig(
    labels=("a", "b", "c"),
    hash_buckets=32,
    embedding_width=4,
    max_tokens=4,
    max_records=2,
    steps=100,
    learning_rate=0.01,
    optimizer="adam",
    init_seed=1,
    mechanism="dp_sgd",
    clipping_norm=1.0,
    noise_multiplier=1.1,
    sampling_probability=0.1,
    divisor=40,
    canaries=200,
)
UNITS = 300


def small_config(**changes: object) -> TrainingConfig:
    return replace(SMALL, **changes)  # type: ignore[arg-type]


def units(config: TrainingConfig, count: int = UNITS) -> UnitData:
    return synthetic_units(config, count)


def run(engine_class: type[PrivateEngine], config: TrainingConfig = SMALL, count: int = UNITS) -> RunRecord:
    """A whole run of one engine; the record claims what `config` says, whatever the engine did."""
    torch.set_num_threads(1)
    coins = CanaryCoins.toss(config.canaries).coins
    engine = engine_class(make_model(config), config, units(config, count), coins)
    steps = [engine.step(number) for number in range(config.steps)]
    return RunRecord(
        np.stack([s.gradient for s in steps]),
        coins,
        np.stack([s.members for s in steps]),
        config.noise_multiplier,
        config.clipping_norm,
        config.sampling_probability,
    )


def noise_times(factor: float) -> type[PrivateEngine]:
    class Scaled(PrivateEngine):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)  # type: ignore[arg-type]
            self.private.noise_multiplier *= factor

    return Scaled


class NoClipping(PrivateEngine):
    def clip_gradients(self) -> None:
        for parameter in self.private.params:
            part = parameter.grad_sample.sum(0)
            parameter.summed_grad = part if parameter.summed_grad is None else parameter.summed_grad + part


class ClipsTheBatch(PrivateEngine):
    """The mean of the batch is clipped instead of each unit."""

    def clip_gradients(self) -> None:
        means = [p.grad_sample.mean(0) for p in self.private.params]
        norm = torch.sqrt(torch.stack([m.square().sum() for m in means]).sum())
        factor = float(min(1.0, self.config.clipping_norm / (float(norm) + 1e-6)))
        for parameter, mean in zip(self.private.params, means, strict=True):
            parameter.summed_grad = factor * mean * self.config.divisor


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
        return self._sampler.bernoulli(self.slots, 2 * self.config.sampling_probability)


class IncompleteLog(PrivateEngine):
    """Units take part twice as often as the log says."""

    def accumulate(self, rows: np.ndarray) -> int:
        more = np.flatnonzero(self._sampler.bernoulli(self.slots, self.config.sampling_probability))
        return super().accumulate(np.union1d(rows, more))


class PrivateDivisor(PrivateEngine):
    def divide(self, batch_units: int) -> None:
        for parameter in self.private.params:
            parameter.grad /= max(batch_units, 1)


def _slice(order: np.ndarray, number: int, share: float) -> np.ndarray:
    size = int(len(order) * share)
    chosen = np.zeros(len(order), dtype=np.bool_)
    start = (number * size) % (len(order) - size + 1)
    chosen[order[start : start + size]] = True
    return chosen

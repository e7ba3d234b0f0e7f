"""One object owns sampler, clipping, noise, divisor and the record of what it did: they can't be set apart from each other.

Guarantee of `PrivateEngine`: a step samples every unit independently with the public probability, clips each unit's whole
gradient to the clipping norm, adds Gaussian noise of noise_multiplier * clipping_norm once, under a secret key, and divides
by the public divisor; a batch without units still takes a noise-only step; a unit whose gradient is not finite contributes
zero. Steps run only under a lease (`training.trainer`). A self-check compares two units with brute force at the first step
and regularly after it.
Assumption: a unit's loss depends on that unit alone (`training.models.base`, held by `training.preflight`).
Not covered: timing. How long a step takes depends on the size of its secret batch.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import torch
from opacus.optimizers import DPOptimizer
from torch import Tensor

from privacy.errors import EnvironmentFault
from privacy.noise import BoolArray, Float32Array, GaussianNoise, SecretCoins
from training.adalora import RankAllocator
from training.batching import Sizes, physical_batches
from training.config import CANARY_GAIN, TrainingConfig
from training.data import IGNORED, UnitBatch, UnitData
from training.distributed import Crew, LeaderCrew, SoloCrew
from training.gradients import GradientMethod, make_method
from training.models.base import CanaryCarrier
from training.optimizers import make_optimizer
from training.recipes import recipe_of
from training.run_record import ALONE, UNSEEN, StepWork, added_noise, applied_divisor
from training.selfcheck import check

COMPILER = "inductor"
SELF_CHECK_STEPS = 100  # a self-check at step 0 of each attempt and every so many steps


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What the audit needs of one step, secret until its p-values are out.

    gradient: float32 [canaries], the update of the canary coordinates as the optimizer got it, times the divisor.
    members: bool [units + canaries], who was sampled; canaries that are out have slots, too, which contribute nothing.
    """

    gradient: Float32Array
    members: BoolArray
    non_finite_units: int
    work: StepWork


@dataclass(frozen=True, slots=True)
class Memory:
    """How much of a logical batch is worked on at once; found by the preflight, or set by the policy. It changes no result."""

    method: str = "tape"
    units: int = 256
    cells: int = 1 << 20


def make_carrier(config: TrainingConfig) -> CanaryCarrier:
    """The recipe's model with its initial weights, independent of the number of canaries, which it carries besides."""
    precision = torch.bfloat16 if config.recipe.precision == "bfloat16" else None
    return CanaryCarrier(recipe_of(config).build(config), config.canaries, CANARY_GAIN * config.clipping_norm, precision)


def toss_anew() -> None:
    """Secret, fresh randomness for dropout, before every step and whatever seed a program or library has set.

    Which activations are left out is decided place by place in the batch. Were that known, one unit more would move all
    others to other places, and so change all their gradients, while noise covers the change of one.
    """
    torch.manual_seed(int.from_bytes(os.urandom(8), "big", signed=True))


class SecretNoiseOptimizer(DPOptimizer):  # type: ignore[misc]
    """Opacus' optimizer around any torch one, with our clipped sums and noise.

    Opacus 1.6 has no cryptographic generator that runs on this torch; its own clipping would need whole per-unit gradients.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, config: TrainingConfig, noise: GaussianNoise) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=config.noise_multiplier,
            max_grad_norm=config.clipping_norm,
            expected_batch_size=None,
            loss_reduction="sum",
        )
        self.noise = noise
        self.step_number = 0

    def clip_and_accumulate(self) -> None:
        raise RuntimeError("clipping belongs to the gradient method of the engine")

    def add_noise(self) -> None:
        """Sum of clipped gradients plus noise, into p.grad, in float32."""
        sizes = [p.numel() for p in self.params]
        drawn = torch.from_numpy(self.noise.draw(self.step_number, sum(sizes)))
        scale = self.noise_multiplier * self.max_grad_norm
        for parameter, part in zip(self.params, torch.split(drawn, sizes), strict=True):
            noisy = parameter.summed_grad.view_as(parameter) + scale * part.view_as(parameter).to(parameter.device)
            parameter.grad = noisy.to(parameter.dtype)


class UpdateCount:
    """How often an optimizer moved the weights, whoever asked it to."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._seen = 0
        optimizer.register_step_post_hook(self._count)

    def _count(self, *_: object) -> None:
        self._seen += 1

    def taken(self) -> int:
        """Since this was last asked."""
        seen, self._seen = self._seen, 0
        return seen


class Engine:
    """What both mechanisms share: the slots, the Poisson sampler and the record of the canary coordinates."""

    def __init__(
        self,
        carrier: CanaryCarrier,
        config: TrainingConfig,
        data: UnitData,
        coins: BoolArray,
        sampler: SecretCoins | None = None,
        memory: Memory = Memory(),
    ) -> None:
        """data: prepared. coins: bool [canaries], which canaries are in. `sampler` is handed in by tests only."""
        if carrier.canaries != len(coins):
            raise ValueError("the model has another number of canaries than coins were tossed for")
        self.carrier, self.config, self.data, self.memory = carrier, config, data, memory
        self.device = carrier.canary.weight.device
        self.units, self.slots = len(data), len(data) + len(coins)
        self.coins = coins
        self.sizes = Sizes.of(data, len(coins))
        self.sampler = sampler or SecretCoins()
        self.batches_made = 0
        carrier.train()

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        raise NotImplementedError

    def begin(self) -> None:
        """After the carrier and the optimizer got their state; see `training.sharded`, which keeps both in parts."""

    def collect(self) -> None:
        """Before anybody looks at the carrier's weights or the optimizer's state."""

    def step(self, number: int) -> StepRecord:
        raise NotImplementedError

    def sample(self, number: int) -> BoolArray:
        """Independent coins for every slot; `number` is the step, which the law must not depend on."""
        return self.sampler.bernoulli(self.slots, self.config.sampling_probability)

    def batch(self, rows: np.ndarray) -> UnitBatch:
        """The slots `rows`, trimmed; a canary is a unit without records, and one that is out has no canary either."""
        self.batches_made += 1
        real = rows < self.units
        records = int(self.sizes.records[rows].max(initial=1))
        length = int(self.sizes.lengths[rows].max(initial=1))
        labels = np.full((len(rows), records), IGNORED, dtype=np.int64)
        labels[real] = self.data.labels[rows[real], :records]
        inputs = {}
        for name, array in self.data.inputs.items():
            taken = array[:, :records, :length] if name in self.data.ragged else array[:, :records]
            filled = np.zeros((len(rows), *taken.shape[1:]), dtype=array.dtype)
            filled[real] = taken[rows[real]]
            inputs[name] = torch.from_numpy(filled)
        numbers = np.full(len(rows), len(self.coins), dtype=np.int64)
        which = rows[~real] - self.units
        numbers[~real] = np.where(self.coins[which], which, len(self.coins))
        return UnitBatch(inputs, torch.from_numpy(labels), torch.from_numpy(numbers)).to(self.device)

    def parts(self, rows: np.ndarray) -> list[np.ndarray]:
        """The physical batches of one logical batch."""
        return physical_batches(rows, self.sizes, self.memory.units, self.memory.cells)

    def _canary_gradient(self) -> Float32Array:
        """float32 [canaries], as it stands in p.grad."""
        gradient = self.carrier.canary.weight.grad
        assert gradient is not None
        return gradient[: len(self.coins), 0].detach().to("cpu", torch.float32, copy=True).numpy()


class PrivateEngine(Engine):
    """DP-SGD over privacy units (Abadi et al. 2016) with a public divisor (arXiv 2605.15648)."""

    def __init__(
        self,
        carrier: CanaryCarrier,
        config: TrainingConfig,
        data: UnitData,
        coins: BoolArray,
        sampler: SecretCoins | None = None,
        memory: Memory = Memory(),
        noise: GaussianNoise | None = None,
        crew: Crew | None = None,
    ) -> None:
        super().__init__(carrier, config, data, coins, sampler, memory)
        self.method: GradientMethod = make_method(memory.method, carrier, config.clipping_norm)
        if config.recipe.compile:
            compile_forward(carrier)
        named = [(name, p) for name, p in carrier.named_parameters() if p.requires_grad]
        self.private = SecretNoiseOptimizer(make_optimizer(config, named), config, noise or GaussianNoise())
        if config.recipe.trains == "adalora":
            RankAllocator.attach(carrier, self.optimizer, config.steps)
        self._steps_here = 0
        self._updates = UpdateCount(self.optimizer)
        self.crew = crew or SoloCrew()
        self.crew.enter(carrier, self.method, config)

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        inner: torch.optim.Optimizer = self.private.original_optimizer
        return inner

    def step(self, number: int) -> StepRecord:
        members = self.sample(number)
        rows = np.flatnonzero(members)
        if self._steps_here % SELF_CHECK_STEPS == 0:
            self._self_check(rows)
        self._steps_here += 1
        self.private.step_number = number
        self.private.noise_multiplier = self.noise_multiplier_at(number)
        self.clear()
        toss_anew()
        bad = self.accumulate(rows)
        parts = self.batches_made
        self.private.add_noise()
        added = added_noise(self.private.params)
        before = self._canary_gradient()
        self.divide(len(rows))
        after = self._canary_gradient()
        self.optimizer.step()
        self.clear()
        work = StepWork(parts, applied_divisor(before, after), self._updates.taken(), self.crew.marks, ALONE, *added)
        return StepRecord(after * np.float32(self.config.divisor), members, bad, work)

    def noise_multiplier_at(self, number: int) -> float:
        return self.config.noise_multiplier_at(number)

    def clear(self) -> None:
        """The sums start at zero, so that a batch without units leaves noise alone."""
        self.batches_made = 0
        for parameter in self.method.parameters:
            parameter.grad = None
            parameter.summed_grad = torch.zeros_like(parameter, dtype=torch.float32)  # type: ignore[attr-defined]

    def accumulate(self, rows: np.ndarray) -> int:
        """Clipped sum of the units `rows` into p.summed_grad, a memory-bounded part at a time; returns units zeroed.

        When memory runs out, the whole sum starts again with smaller parts: a part that was half added must not count twice.
        """
        while True:
            try:
                return self.crew.accumulate(self.method, (self.batch(part) for part in self.parts(rows)))
            except torch.OutOfMemoryError:
                if self.memory.units <= 1:
                    raise _no_memory() from None
                self.memory = Memory(self.memory.method, self.memory.units // 2, self.memory.cells // 2)
            self.clear()
            torch.cuda.empty_cache()

    def divide(self, batch_units: int) -> None:
        """By the public divisor; `batch_units` is secret and must not matter."""
        for parameter in self.method.parameters:
            assert parameter.grad is not None
            parameter.grad /= self.config.divisor

    def _self_check(self, rows: np.ndarray) -> None:
        """Two slots of the batch, or of all slots when it holds fewer."""
        some = rows[:: max(1, len(rows) // 2)][:2] if len(rows) > 1 else np.array([0, self.slots - 1])
        check(self.method, self.carrier, self.batch(some), self.config.clipping_norm, self.private.params)


class PlainEngine(Engine):
    """Ordinary training, without clipping and noise: it exists to be refused. Canaries ride along, so the audit sees it."""

    def __init__(
        self,
        carrier: CanaryCarrier,
        config: TrainingConfig,
        data: UnitData,
        coins: BoolArray,
        sampler: SecretCoins | None = None,
        memory: Memory = Memory(),
    ) -> None:
        super().__init__(carrier, config, data, coins, sampler, memory)
        self._parameters = [p for p in carrier.parameters() if p.requires_grad]
        self._optimizer = make_optimizer(config, [(n, p) for n, p in carrier.named_parameters() if p.requires_grad])
        self._updates = UpdateCount(self._optimizer)

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        return self._optimizer

    def step(self, number: int) -> StepRecord:
        members = self.sample(number)
        rows = np.flatnonzero(members)
        for parameter in self._parameters:
            parameter.grad = torch.zeros_like(parameter)
        cut = self.parts(rows)
        for part in cut:
            batch = self.batch(part)
            losses: Tensor = self.carrier(batch.inputs, batch.labels, batch.cid)
            (losses.sum() / self.config.divisor).backward()  # type: ignore[no-untyped-call]
        gradient = self._canary_gradient() * np.float32(self.config.divisor)
        assert self.carrier.canary.weight.grad is not None
        self.carrier.canary.weight.grad.zero_()  # recorded, not followed: an unclipped canary would run away
        finite = all(bool(torch.isfinite(p.grad).all()) for p in self._parameters if p.grad is not None)
        if finite:
            self._optimizer.step()
        # No divisor is applied that could be seen, and no noise is added.
        work = StepWork(len(cut), float("nan"), self._updates.taken(), ALONE, ALONE, *UNSEEN)
        return StepRecord(gradient, members, 0 if finite else len(rows), work)


def compile_forward(carrier: CanaryCarrier) -> None:
    """torch.compile of what lies between the taped layers; each of those is a break in the graph.

    Two backward passes over one graph need buffers that the first one must not take for itself.
    """
    import torch._functorch.config

    torch._functorch.config.donated_buffer = False
    carrier.compile(dynamic=True, backend=COMPILER)


def make_engine(
    carrier: CanaryCarrier,
    config: TrainingConfig,
    data: UnitData,
    coins: BoolArray,
    memory: Memory = Memory(),
    crew: Crew | None = None,
) -> Engine:
    if config.mechanism == "dp_sgd" and config.recipe.shards and isinstance(crew, LeaderCrew):
        from training.sharded import ShardedEngine

        return ShardedEngine(carrier, config, data, coins, crew, memory=memory)
    if config.mechanism == "dp_sgd":
        return PrivateEngine(carrier, config, data, coins, memory=memory, crew=crew)
    return PlainEngine(carrier, config, data, coins, memory=memory)


def _no_memory() -> EnvironmentFault:
    return EnvironmentFault(
        "E-TRAIN-030",
        "the memory of the accelerator does not hold one unit",
        "Lower recipe.max_tokens or privacy_unit.max_records, or set recipe.gradients to two_pass",
    )

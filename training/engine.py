"""One object owns sampler, clipping, noise, divisor and the record of what it did: they can't be set apart from each other.

Guarantee of `PrivateEngine`: a step samples every unit independently with the public probability, clips each unit's whole
gradient to the clipping norm (norms in float64), adds Gaussian noise of noise_multiplier * clipping_norm under a secret key and
divides by the public divisor; a batch without units still takes a noise-only step; a unit whose gradient is not finite
contributes zero. Steps run only under a lease (`training.trainer`).
Assumption: the model's layers are those that `training.preflight` has checked against brute force.
Not covered: timing. How long a step takes depends on the size of its secret batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn
from torch.nn import functional

from privacy.noise import BoolArray, Float32Array, GaussianNoise, SecretCoins
from training.config import CANARY_GAIN, TrainingConfig
from training.data import IGNORED, UnitData
from training.models.text_mlp import TextMlp

_MICRO_BATCH_BYTES = 256 * 2**20  # of per-unit gradients held at once
_ROUNDING = 1 - 2.0**-20  # margin of a clip factor: float32 rounds by up to 2^-24, which must not lift a unit over the norm


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What the audit needs of one step, secret until its p-values are out.

    gradient: float32 [canaries], the update of the canary coordinates as the optimizer got it, times the divisor.
    members: bool [units + canaries], who was sampled; canaries that are out have slots, too, which contribute nothing.
    """

    gradient: Float32Array
    members: BoolArray
    non_finite_units: int


def unit_losses(logits: Tensor, canary: Tensor, labels: Tensor, cid: Tensor, canaries: int, gain: float) -> Tensor:
    """float32 [units]: mean cross entropy over a unit's records, plus gain * canary coordinate for a canary unit."""
    per_record = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none", ignore_index=IGNORED)
    present = (labels != IGNORED).to(logits.dtype)
    text = (per_record.view_as(present) * present).sum(1) / present.sum(1).clamp(min=1.0)
    return text + gain * canary * (cid < canaries).to(logits.dtype)


def make_model(config: TrainingConfig) -> TextMlp:
    """Initial weights from the public seed, independent of the global generator's state and of the number of canaries."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.init_seed)
        return TextMlp(len(config.labels), config.hash_buckets, config.embedding_width, config.canaries)


def make_optimizer(config: TrainingConfig, parameters: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=config.learning_rate)
    return torch.optim.Adam(parameters, lr=config.learning_rate)


class SecretNoiseOptimizer(DPOptimizer):  # type: ignore[misc]
    """Opacus clipping with our noise: Opacus 1.6 has no cryptographic generator that runs on this torch."""

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
        """Clipped sum into p.summed_grad, by norms in float64.

        A float32 norm loses small entries beside a large partial sum (a relative 1e-4 at the default size), so Opacus'
        own factor would let such a unit exceed the clipping norm by as much.
        """
        squares = [torch.linalg.vector_norm(g.flatten(1), dim=1, dtype=torch.float64).square() for g in self.grad_samples]
        norms = torch.stack(squares, dim=1).sum(1).sqrt()
        factors = (self.max_grad_norm / (norms + 1e-6)).clamp(max=1.0) * _ROUNDING
        for parameter in self.params:
            clipped = torch.einsum("i,i...", factors.to(parameter.dtype), parameter.grad_sample)
            parameter.summed_grad = clipped if parameter.summed_grad is None else parameter.summed_grad + clipped

    def add_noise(self) -> None:
        """Sum of clipped gradients plus noise, into p.grad."""
        sizes = [p.numel() for p in self.params]
        drawn = torch.from_numpy(self.noise.draw(self.step_number, sum(sizes)))
        scale = self.noise_multiplier * self.max_grad_norm
        for parameter, part in zip(self.params, torch.split(drawn, sizes), strict=True):
            shaped = part.view_as(parameter).to(parameter.device)
            parameter.grad = parameter.summed_grad.view_as(parameter) + scale * shaped


class Engine:
    """What both mechanisms share: the slots, the Poisson sampler and the record of the canary coordinates."""

    def __init__(
        self, model: TextMlp, config: TrainingConfig, data: UnitData, coins: BoolArray, sampler: SecretCoins | None = None
    ) -> None:
        """coins: bool [canaries], which canaries are in. `sampler` is handed in by tests only."""
        if model.canaries != len(coins):
            raise ValueError("the model has another number of canaries than coins were tossed for")
        self.model, self.config = model, config
        self.device = next(model.parameters()).device
        self.tokens = torch.from_numpy(data.tokens)
        self.labels = torch.from_numpy(data.labels)
        self.units, self.slots = len(data), len(data) + len(coins)
        self.coins = coins
        self._sampler = sampler or SecretCoins()

    def sample(self, number: int) -> BoolArray:
        """Independent coins for every slot; `number` is the step, which the law must not depend on."""
        return self._sampler.bernoulli(self.slots, self.config.sampling_probability)

    def batch(self, rows: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """tokens, labels, cid of the slots `rows`; a canary that is out is an empty unit without a canary."""
        canaries = self.model.canaries
        is_unit = torch.from_numpy(rows < self.units)
        tokens = torch.zeros((len(rows), *self.tokens.shape[1:]), dtype=torch.int64)
        labels = torch.full((len(rows), self.labels.shape[1]), IGNORED, dtype=torch.int64)
        real = torch.from_numpy(rows[rows < self.units])
        tokens[is_unit], labels[is_unit] = self.tokens[real].long(), self.labels[real]
        numbers = np.full(len(rows), canaries, dtype=np.int64)
        which = rows[rows >= self.units] - self.units
        numbers[rows >= self.units] = np.where(self.coins[which], which, canaries)
        return tokens.to(self.device), labels.to(self.device), torch.from_numpy(numbers).to(self.device)

    def losses(self, module: nn.Module, rows: np.ndarray) -> Tensor:
        tokens, labels, cid = self.batch(rows)
        logits, canary = module(tokens, cid)
        return unit_losses(logits, canary, labels, cid, self.model.canaries, CANARY_GAIN * self.config.clipping_norm)

    def _canary_gradient(self) -> Float32Array:
        gradient = self.model.canary.weight.grad
        assert gradient is not None
        column = gradient[: self.model.canaries, 0].detach().to("cpu", torch.float32, copy=True)
        return column.numpy() * np.float32(self.config.divisor)

    def step(self, number: int) -> StepRecord:
        raise NotImplementedError

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        raise NotImplementedError


class PrivateEngine(Engine):
    """DP-SGD over privacy units (Abadi et al. 2016) with a public divisor (arXiv 2605.15648)."""

    def __init__(
        self,
        model: TextMlp,
        config: TrainingConfig,
        data: UnitData,
        coins: BoolArray,
        sampler: SecretCoins | None = None,
        noise: GaussianNoise | None = None,
    ) -> None:
        super().__init__(model, config, data, coins, sampler)
        self.module = GradSampleModule(model, batch_first=True, loss_reduction="sum", strict=True)
        inner = make_optimizer(config, iter(list(model.parameters())))
        self.private = SecretNoiseOptimizer(inner, config, noise or GaussianNoise())
        unit_bytes = 4 * sum(p.numel() for p in model.parameters())
        self.micro_batch = max(1, _MICRO_BATCH_BYTES // unit_bytes)

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        inner: torch.optim.Optimizer = self.private.original_optimizer
        return inner

    def step(self, number: int) -> StepRecord:
        members = self.sample(number)
        self.private.step_number = number
        self.private.zero_grad()
        bad = self.accumulate(np.flatnonzero(members))
        self.private.add_noise()
        self.divide(int(members.sum()))
        gradient = self._canary_gradient()
        self.optimizer.step()
        self.private.zero_grad()
        return StepRecord(gradient, members, bad)

    def accumulate(self, rows: np.ndarray) -> int:
        """Clipped sum of the units `rows` into p.summed_grad, a memory-bounded part at a time; returns units zeroed."""
        bad = 0
        if len(rows) == 0:
            self._clip(0)
        for start in range(0, len(rows), self.micro_batch):
            part = rows[start : start + self.micro_batch]
            self.losses(self.module, part).sum().backward()  # type: ignore[no-untyped-call]
            bad += self._clip(len(part))
        return bad

    def _clip(self, units: int) -> int:
        """Clip the per-unit gradients at hand and add them to the sums; the embedding's rows go where they belong."""
        table: Any = self.model.embedding.weight
        touched = self.model.embedding.touched if units else torch.zeros(1, dtype=torch.int64)
        if units == 0:
            for parameter in self.private.params:  # Opacus gives an embedding one row for an empty batch, a Linear none
                shape = (1, *table.shape[1:]) if parameter is table else parameter.shape
                parameter.grad_sample = torch.zeros((0, *shape), device=parameter.device)
        bad = zero_non_finite(self.private.params)
        whole = torch.zeros_like(table) if table.summed_grad is None else table.summed_grad
        table.summed_grad = None
        self.clip_gradients()
        table.summed_grad = whole.index_add_(0, touched.to(table.device), table.summed_grad)
        for parameter in self.private.params:
            parameter.grad_sample = None
        return bad

    def clip_gradients(self) -> None:
        self.private.clip_and_accumulate()

    def divide(self, batch_units: int) -> None:
        """By the public divisor; `batch_units` is secret and must not matter."""
        for parameter in self.private.params:
            parameter.grad /= self.config.divisor


class PlainEngine(Engine):
    """Ordinary training, without clipping and noise: it exists to be refused. Canaries ride along, so the audit sees it."""

    def __init__(
        self, model: TextMlp, config: TrainingConfig, data: UnitData, coins: BoolArray, sampler: SecretCoins | None = None
    ) -> None:
        super().__init__(model, config, data, coins, sampler)
        self._optimizer = make_optimizer(config, iter(list(model.parameters())))

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        return self._optimizer

    def step(self, number: int) -> StepRecord:
        members = self.sample(number)
        self._optimizer.zero_grad(set_to_none=False)
        rows = np.flatnonzero(members)
        for parameter in self.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        if len(rows):
            (self.losses(self.model, rows).sum() / self.config.divisor).backward()  # type: ignore[no-untyped-call]
        gradient = self._canary_gradient()
        assert self.model.canary.weight.grad is not None
        self.model.canary.weight.grad.zero_()  # recorded, not followed: an unclipped canary would run away
        finite = all(bool(torch.isfinite(p.grad).all()) for p in self.model.parameters() if p.grad is not None)
        if finite:
            self._optimizer.step()
        return StepRecord(gradient, members, 0 if finite else len(rows))


def zero_non_finite(parameters: list[Any]) -> int:
    """Set the whole gradient of every unit that holds a NaN or an infinity to zero; returns how many units that were.

    A unit left out this way depends on the unit alone, so sensitivity stays; a NaN left in would pass clipping.
    """
    # A norm is finite only when every entry is, and an overflowing norm would turn into zero times infinity when clipped.
    norms = torch.stack([p.grad_sample.flatten(1).norm(dim=1) for p in parameters])
    good = torch.isfinite(norms).all(0) & (norms < 1e18).all(0)
    bad = int((~good).sum())
    if bad:
        for parameter in parameters:
            parameter.grad_sample[~good] = 0.0
    return bad


def make_engine(model: TextMlp, config: TrainingConfig, data: UnitData, coins: BoolArray) -> PrivateEngine | PlainEngine:
    if config.mechanism == "dp_sgd":
        return PrivateEngine(model, config, data, coins)
    return PlainEngine(model, config, data, coins)

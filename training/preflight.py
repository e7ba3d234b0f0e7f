"""One free step on synthetic data of the real shapes, before any budget is leased: what would break the guarantee stops here.

Guarantee: with the very classes that will train, no layer lets units touch each other, no buffer follows the data, every
trainable tensor gets a per-unit gradient and moves, the clipped sum equals brute force (one unit at a time) within 5e-4, an
empty batch takes a noise-only step, and the divisor is the public one whatever the number of units. The fault's layer is named.
Not covered: bugs that show only at full size or with real text. The self-check and the conformance probe look at the real run.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from opacus.validators import ModuleValidator
from torch import nn

from privacy.errors import PolicyError
from privacy.noise import BoolArray, SecretCoins
from training.config import TrainingConfig
from training.data import UnitBatch, UnitData
from training.engine import Engine, Memory, PlainEngine, PrivateEngine, make_carrier
from training.memory import plan_memory
from training.models.base import CANARY_PARAMETER, CanaryCarrier
from training.recipes import recipe_of

_SYNTHETIC_UNITS = 4
_DIVISOR = 1e-6  # relative; a ratio of float32 values
_DEVIATION = 5e-4  # relative, of the clipped sum: the clip factors' margin against rounding, which brute force has not


@dataclass(frozen=True, slots=True)
class Preflight:
    """What the free step showed. signal_to_noise: of the whole run, at best, when every unit pulled the same way.

    seconds_per_step: measured on synthetic units of full length, on this machine, now.
    """

    memory: Memory
    trainable: int
    frozen: int
    signal_to_noise_per_step: float
    signal_to_noise: float
    seconds_per_step: float


class _Everybody(SecretCoins):
    """Every slot takes part: a test of the gradients needs no sampling."""

    def bernoulli(self, size: int, probability: float) -> BoolArray:
        return np.ones(size, dtype=np.bool_)


def preflight(config: TrainingConfig, device: str = "cpu") -> Preflight:
    """Raises PolicyError E-TRAIN-011 to 015, 017, 028, 029, 032, 033, 040 and 046, EnvironmentFault E-TRAIN-016."""
    _check_numbers(config)
    small = _small(config)
    carrier = make_carrier(small).to(device)
    _check_layers(carrier)
    data = recipe_of(small).synthetic(small, _SYNTHETIC_UNITS)
    _check_independence(carrier, Engine(carrier, small, _shortened(data), np.array([True, False])))
    trainable = sum(p.numel() for p in carrier.model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in carrier.model.parameters()) - trainable
    signal = forecast(config, trainable)
    memory = plan_memory(carrier, small, data, config)
    if config.mechanism == "dp_sgd":
        _refuse_hopeless(config, signal)
        _check_private_step(replace(small, noise_multiplier=0.0), data, memory, device)
        seconds = _check_empty_batch(small, data, memory, device, config.divisor)
    else:
        seconds = _check_plain_step(small, data, memory, device, config.divisor)
    whole = math.sqrt(config.steps) * signal
    return Preflight(memory, trainable, frozen, signal, whole, seconds)


def forecast(config: TrainingConfig, trainable: int) -> float:
    """Largest signal-to-noise of one step: expected batch * clipping norm over the noise's norm, from public constants.

    The signal reaches that only when the gradients of all units agree; the noise's norm is noise multiplier * clipping norm
    * sqrt(trainable parameters).
    """
    return config.divisor / (config.noise_multiplier * math.sqrt(trainable)) if config.noise_multiplier else math.inf


def brute_force_sum(carrier: CanaryCarrier, batch: UnitBatch, clipping_norm: float) -> list[torch.Tensor]:
    """Clipped sum of a batch's units, by plain autograd, one at a time; of a carrier that no gradient method holds."""
    parameters = [p for p in carrier.parameters() if p.requires_grad]
    total = [torch.zeros_like(p) for p in parameters]
    for unit in range(len(batch)):
        one = batch.part(slice(unit, unit + 1))
        loss = carrier(one.inputs, one.labels, one.cid).sum()
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        filled = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]
        norm = torch.sqrt(torch.stack([g.double().square().sum() for g in filled]).sum())
        factor = float(min(1.0, clipping_norm / (float(norm) + 1e-6)))
        for place, gradient in zip(total, filled, strict=True):
            place += factor * gradient
    return total


def _small(config: TrainingConfig) -> TrainingConfig:
    """The same model with two canaries and one step, without the randomness of dropout, which no comparison survives."""
    recipe = config.recipe.model_copy(update={"steps": 1, "dropout": 0.0, "warmup_steps": 0, "schedule": "constant"})
    return replace(config, canaries=2, recipe=recipe)


def _check_numbers(config: TrainingConfig) -> None:
    if config.mechanism == "dp_sgd" and not config.noise_multiplier > 0:
        raise PolicyError("E-TRAIN-011", "a private run would draw no noise", "Report this as a defect of the calibration")
    if not 0 < config.sampling_probability <= 1 or config.divisor < 1:
        raise PolicyError(
            "E-TRAIN-012",
            "sampling probability or divisor is out of range",
            "Correct budget.population and expected_batch_size",
        )
    if config.mechanism == "dp_sgd" and config.sampling_probability == 1:
        raise PolicyError(
            "E-TRAIN-017",
            "every unit would take part in every step, so no audit of the sampling could pass and no release could follow",
            "Set budget.expected_batch_size below budget.population",
        )


def _check_layers(carrier: CanaryCarrier) -> None:
    for name, module in carrier.named_modules():
        if ModuleValidator.validate(module, strict=False) and not list(module.children()):
            raise PolicyError(
                "E-TRAIN-013",
                f"layer {name} ({type(module).__name__}) has no per-unit gradient, or mixes units",
                "Use GroupNorm or LayerNorm in the place of batch statistics, and Privet's own recurrent nets",
            )
    if not any(p.requires_grad for p in carrier.model.parameters()):
        raise PolicyError("E-TRAIN-013", "no tensor of the model trains", "Correct recipe.trains")


def _check_independence(carrier: CanaryCarrier, engine: Engine) -> None:
    """Another unit's records must not change this unit's loss, and no buffer may remember a batch.

    In training mode, where batch statistics would be taken. A unit alone is trimmed to its own size: in a batch it is padded
    to the size of others, which must not matter either.
    """
    batch = engine.batch(np.arange(engine.slots))
    before = {name: buffer.detach().clone() for name, buffer in carrier.named_buffers()}
    with torch.no_grad():
        whole = carrier(batch.inputs, batch.labels, batch.cid)
        single = (engine.batch(np.array([n])) for n in range(len(batch)))
        alone = torch.cat([carrier(one.inputs, one.labels, one.cid) for one in single])
    for name, buffer in carrier.named_buffers():
        if not torch.equal(before[name], buffer):
            raise PolicyError(
                "E-TRAIN-028",
                f"buffer {name} of the model changes with the batch it sees",
                "Use layers without running statistics; what follows the data leaves with the model, outside its guarantee",
            )
    if not torch.allclose(whole, alone, rtol=1e-3, atol=1e-3):
        raise PolicyError(
            "E-TRAIN-029",
            "the loss of a unit depends on the other units of its batch",
            "Remove what looks across units: batch statistics, in-batch negatives, attention over a packed batch",
        )


def _shortened(data: UnitData) -> UnitData:
    """The same with sequences of half the length in every other unit."""
    inputs = {name: array.copy() if name in data.ragged else array for name, array in data.inputs.items()}
    for name in data.ragged:
        inputs[name][::2, :, max(1, inputs[name].shape[2] // 2) :] = 0
    return replace(data, inputs=inputs)


def _check_private_step(config: TrainingConfig, data: UnitData, memory: Memory, device: str) -> None:
    plain = make_carrier(config).to(device).train()
    coins = np.array([True, False])
    engine = PrivateEngine(make_carrier(config).to(device), config, data, coins, sampler=_Everybody(), memory=memory)
    rows = np.arange(engine.slots)
    names = [name for name, p in plain.named_parameters() if p.requires_grad]
    expected = brute_force_sum(plain, engine.batch(rows), config.clipping_norm)
    engine.clear()
    engine.accumulate(rows)
    size = torch.sqrt(torch.stack([wanted.double().square().sum() for wanted in expected]).sum())
    for name, parameter, wanted in zip(names, engine.method.parameters, expected, strict=True):
        found: torch.Tensor = parameter.summed_grad  # type: ignore[attr-defined]
        error = torch.linalg.vector_norm((found.view_as(wanted) - wanted).double())
        if not error <= _DEVIATION * size * (100 if config.recipe.precision == "bfloat16" else 1):
            raise PolicyError(
                "E-TRAIN-014",
                f"the clipped sum of the engine is not that of brute force, in {name}",
                "Do not train; check the versions of torch and opacus against the lock, and the model's layers",
            )
    before = [p.detach().clone() for p in engine.method.parameters]
    for number in range(2):  # some tensors move only after another has: the first factor of a product that starts at zero
        engine.step(number)
    _refuse_frozen(names, before, engine.method.parameters)


def _check_empty_batch(config: TrainingConfig, data: UnitData, memory: Memory, device: str, units: int) -> float:
    """Returns the seconds that a step over `units` units of full length would take."""
    coins = np.array([True, False])
    engine = PrivateEngine(make_carrier(config).to(device), config, data, coins, sampler=_Everybody(), memory=memory)
    names = [name for name, p in engine.carrier.named_parameters() if p.requires_grad]
    before = [p.detach().clone() for p in engine.method.parameters]
    engine.clear()
    engine.accumulate(np.array([], dtype=np.int64))
    engine.private.add_noise()
    engine.divide(0)
    engine.optimizer.step()
    _refuse_frozen(names, before, engine.method.parameters)
    _refuse_divisor(engine.step(1).work.divisor, config.divisor)  # its self-check and all first calls are not counted
    return _extrapolated(engine, 2, units)


def _refuse_divisor(applied: float, public: int) -> None:
    """The synthetic units are few, so a divisor that follows their number is another than the policy's."""
    if not abs(applied / public - 1) < _DIVISOR:
        raise PolicyError(
            "E-TRAIN-046",
            "the engine divides the noisy sum by something else than the public constant of the policy",
            "Do not train: what follows the number of units, or the batch, tells it. Mend the engine",
        )


def _check_plain_step(config: TrainingConfig, data: UnitData, memory: Memory, device: str, units: int) -> float:
    coins = np.array([True, False])
    engine = PlainEngine(make_carrier(config).to(device), config, data, coins, sampler=_Everybody(), memory=memory)
    named = [(n, p) for n, p in engine.carrier.named_parameters() if p.requires_grad and n != CANARY_PARAMETER]
    before = [p.detach().clone() for _, p in named]
    for number in range(2):
        engine.step(number)
    _refuse_frozen([name for name, _ in named], before, [p for _, p in named])
    return _extrapolated(engine, 2, units)


class _Nobody(SecretCoins):
    def bernoulli(self, size: int, probability: float) -> BoolArray:
        return np.zeros(size, dtype=np.bool_)


def _extrapolated(engine: Engine, number: int, units: int) -> float:
    """Seconds of a step over `units` units: what an empty one takes, and as much more for each unit as synthetic ones take."""
    best = []
    for sampler in (_Nobody(), _Everybody()):
        engine.sampler, taken = sampler, []
        for _ in range(3):  # the least of them: whatever else the machine does only adds
            started = time.perf_counter()
            engine.step(number)
            taken.append(time.perf_counter() - started)
            number += 1
        best.append(min(taken))
    return best[0] + max(0.0, best[1] - best[0]) * units / engine.units


def _refuse_frozen(names: list[str], before: list[torch.Tensor], now: list[nn.Parameter]) -> None:
    for name, old, new in zip(names, before, now, strict=True):
        if torch.equal(old, new):
            raise PolicyError(
                "E-TRAIN-015",
                f"{name} is trainable and would not move in a step, or not without units in its batch",
                "Raise recipe.learning_rate; if it is not tiny, the model does not use this tensor: remove or freeze it",
            )


def _refuse_hopeless(config: TrainingConfig, signal: float) -> None:
    if math.sqrt(config.steps) * signal < 1.0:
        raise PolicyError(
            "E-TRAIN-040",
            "this budget can't buy one useful step: even if every unit pulled the same way in every step, the noise "
            f"would outweigh them all ({math.sqrt(config.steps) * signal:.2f} times the noise)",
            "Train fewer parameters (recipe.trains lora or head, smaller tables), raise budget.epsilon or expected_batch_size",
        )

"""One free step on synthetic tokens, before any budget is leased: what would break the guarantee stops here.

Guarantee: with the very classes that will train, every trainable tensor gets a per-unit gradient and moves, the clipped sum
equals brute force (one unit at a time) within 1e-4, an empty batch takes a noise-only step, and no layer mixes units.
Not covered: bugs that show only at full size or with real text. The conformance probe looks at the real run.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from privacy.errors import EnvironmentFault, PolicyError
from privacy.noise import BoolArray, SecretCoins
from training.config import TrainingConfig
from training.data import IGNORED, UnitData
from training.engine import PlainEngine, PrivateEngine, make_model
from training.models.text_mlp import HashedEmbedding, TextMlp

_ALLOWED = (
    nn.Embedding,
    HashedEmbedding,
    nn.Linear,
    TextMlp,
)  # layers whose per-unit gradients are checked against brute force in the tests
_MAX_GRADIENT_BYTES = 2 * 2**30
_SYNTHETIC_UNITS = 4


class _Everybody(SecretCoins):
    """Every slot takes part: a test of the gradients needs no sampling."""

    def bernoulli(self, size: int, probability: float) -> BoolArray:
        return np.ones(size, dtype=np.bool_)


def preflight(config: TrainingConfig) -> None:
    """Raises PolicyError E-TRAIN-011 to 015 and 017, EnvironmentFault E-TRAIN-016."""
    _check_numbers(config)
    small = replace(config, canaries=2, steps=1)
    _check_layers(make_model(small))
    if config.mechanism == "dp_sgd":
        _check_private_step(replace(small, noise_multiplier=0.0))
        _check_empty_batch(small)
    else:
        _check_plain_step(small)


def synthetic_units(config: TrainingConfig, units: int) -> UnitData:
    """Units of made-up tokens, of one to max_records records; nothing of them comes from data."""
    generator = np.random.default_rng(0)
    tokens = generator.integers(1, config.hash_buckets, (units, config.max_records, config.max_tokens), dtype=np.int32)
    labels = generator.integers(0, len(config.labels), (units, config.max_records), dtype=np.int64)
    for row in range(units):
        absent = np.arange(config.max_records) > row % config.max_records
        tokens[row, absent], labels[row, absent] = 0, IGNORED
    return UnitData(tuple(str(n) for n in range(units)), tokens, labels)


def brute_force_sum(engine: PrivateEngine, rows: np.ndarray) -> list[torch.Tensor]:
    """Clipped sum of the slots `rows`, by plain autograd, one at a time."""
    parameters = list(engine.model.parameters())
    total = [torch.zeros_like(p) for p in parameters]
    for row in rows:
        loss = engine.losses(engine.model, np.array([row])).sum()
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        filled = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]
        norm = torch.sqrt(torch.stack([g.double().square().sum() for g in filled]).sum())
        factor = float(min(1.0, engine.config.clipping_norm / (float(norm) + 1e-6)))
        for place, gradient in zip(total, filled, strict=True):
            place += factor * gradient
    return total


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
    unit_bytes = 4 * config.embedding_width * (config.hash_buckets + config.embedding_width + len(config.labels) + 2)
    if unit_bytes > _MAX_GRADIENT_BYTES:
        raise EnvironmentFault(
            "E-TRAIN-016",
            f"the gradient of one unit would take {unit_bytes >> 20} MiB",
            "Lower recipe.hash_buckets or recipe.embedding_width",
        )


def _check_layers(model: nn.Module) -> None:
    for module in model.modules():
        if type(module) not in _ALLOWED or any(True for _ in module.buffers(recurse=False)):
            raise PolicyError(
                "E-TRAIN-013",
                f"the model has a layer without verified per-unit gradients ({type(module).__name__})",
                "Use Embedding and Linear layers; normalisation over a batch mixes units",
            )
    if any(not p.requires_grad for p in model.parameters()):
        raise PolicyError("E-TRAIN-013", "the model has a tensor that does not train", "Report this as a defect of the model")


def _check_private_step(config: TrainingConfig) -> None:
    data = synthetic_units(config, _SYNTHETIC_UNITS)
    engine = PrivateEngine(make_model(config), config, data, np.array([True, False]), sampler=_Everybody())
    rows = np.arange(engine.slots)
    expected = brute_force_sum(engine, rows)
    engine.private.zero_grad()
    engine.accumulate(rows)
    for parameter, wanted in zip(engine.model.parameters(), expected, strict=True):
        found = getattr(parameter, "summed_grad", None)
        if found is None or not torch.allclose(found, wanted, rtol=1e-4, atol=1e-5 * config.clipping_norm):
            raise PolicyError(
                "E-TRAIN-014",
                "the clipped sum of the engine is not that of brute force",
                "Do not train; check the versions of torch and opacus against the lock",
            )
    before = [p.detach().clone() for p in engine.model.parameters()]
    engine.step(0)
    if any(torch.equal(old, new) for old, new in zip(before, engine.model.parameters(), strict=True)):
        raise _frozen()


def _check_empty_batch(config: TrainingConfig) -> None:
    data = synthetic_units(config, _SYNTHETIC_UNITS)
    engine = PrivateEngine(make_model(config), config, data, np.array([True, False]))
    before = [p.detach().clone() for p in engine.model.parameters()]
    engine.private.zero_grad()
    engine.accumulate(np.array([], dtype=np.int64))
    engine.private.add_noise()
    engine.divide(0)
    engine.optimizer.step()
    if any(torch.equal(old, new) for old, new in zip(before, engine.model.parameters(), strict=True)):
        raise _frozen()


def _check_plain_step(config: TrainingConfig) -> None:
    data = synthetic_units(config, _SYNTHETIC_UNITS)
    engine = PlainEngine(make_model(config), config, data, np.array([True, False]), sampler=_Everybody())
    before = {name: p.detach().clone() for name, p in engine.model.named_parameters()}
    engine.step(0)
    moved = {name for name, p in engine.model.named_parameters() if not torch.equal(before[name], p)}
    if moved != set(before) - {"canary.weight"}:
        raise _frozen()


def _frozen() -> PolicyError:
    return PolicyError(
        "E-TRAIN-015",
        "a trainable tensor would not move in a step, or not without units in its batch",
        "Raise recipe.learning_rate; if it is not tiny, report this as a defect",
    )

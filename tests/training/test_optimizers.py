"""What becomes of the noisy gradient: corrections, penalties, schedules, averages, and going on exactly where one stopped."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from privacy.policy import Recipe
from tests.training.worlds import small_config
from training.config import TrainingConfig
from training.ema import averaged
from training.optimizers import make_optimizer
from training.schedules import learning_rate_at

KINDS: list[dict[str, object]] = [
    {"optimizer": "sgd"},
    {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.1},
    {"optimizer": "adam"},
    {"optimizer": "adamw", "weight_decay": 0.1},
    {"optimizer": "adagrad"},
]
EXTRAS: dict[str, object] = {"l1": 0.01, "ema": 0.8, "schedule": "cosine", "warmup_steps": 3, "steps": 12}


def model() -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return nn.Linear(6, 4)


def optimizer_of(net: nn.Module, **changes: object) -> tuple[torch.optim.Optimizer, TrainingConfig]:
    config = small_config(**changes)
    return make_optimizer(config, net.named_parameters()), config


def step(net: nn.Module, optimizer: torch.optim.Optimizer, number: int, scale: float = 1.0) -> None:
    """One step with a gradient that depends on the step's number alone."""
    drawn = torch.Generator().manual_seed(number)
    for parameter in net.parameters():
        parameter.grad = scale * torch.randn(parameter.shape, generator=drawn)
    optimizer.step()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_stopping_anywhere_and_going_on_gives_the_same_weights_bit_by_bit(kind: dict[str, object]) -> None:
    whole, (optimizer, _) = model(), (None, None)
    optimizer, _ = optimizer_of(whole, **EXTRAS, **kind)
    for number in range(12):
        step(whole, optimizer, number)
    for stop in (1, 5, 11):
        net = model()
        first, _ = optimizer_of(net, **EXTRAS, **kind)
        for number in range(stop):
            step(net, first, number)
        weights, state = net.state_dict(), _through_bytes(first.state_dict())
        resumed = model()
        resumed.load_state_dict(weights)
        second, _ = optimizer_of(resumed, **EXTRAS, **kind)
        described = second.state_dict()
        described["state"] = state
        second.load_state_dict(described)
        for number in range(stop, 12):
            step(resumed, second, number)
        with averaged(optimizer), averaged(second):
            assert torch.equal(whole.weight, resumed.weight)
        assert torch.equal(whole.weight, resumed.weight)
        assert torch.equal(whole.bias, resumed.bias)


def _through_bytes(described: dict[str, Any]) -> dict[int, dict[str, torch.Tensor]]:
    """As the checkpoint keeps it: tensors by name, nothing else survives."""
    return {index: {name: t.detach().clone() for name, t in entry.items()} for index, entry in described["state"].items()}


def test_a_checkpoint_without_the_state_is_noticed_by_that_test() -> None:
    """Breaks what it guards: the same resume with the optimizer's state left out ends elsewhere."""
    whole, resumed = model(), model()
    optimizer, _ = optimizer_of(whole, optimizer="adam")
    for number in range(6):
        step(whole, optimizer, number)
    first, _ = optimizer_of(resumed, optimizer="adam")
    for number in range(3):
        step(resumed, first, number)
    forgetful, _ = optimizer_of(resumed, optimizer="adam")
    for number in range(3, 6):
        step(resumed, forgetful, number)
    assert not torch.equal(whole.weight, resumed.weight)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_without_noise_it_is_torchs_adam(name: str) -> None:
    ours, theirs = model(), model()
    optimizer, config = optimizer_of(ours, optimizer=name, noise_multiplier=0.0, weight_decay=0.1 if name == "adamw" else 0.0)
    kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    decays = [0.1, 0.0] if name == "adamw" else [0.0, 0.0]
    groups = [{"params": [theirs.weight], "weight_decay": decays[0]}, {"params": [theirs.bias], "weight_decay": decays[1]}]
    reference = kind(groups, lr=config.recipe.learning_rate)
    for number in range(20):
        step(ours, optimizer, number)
        step(theirs, reference, number)
    torch.testing.assert_close(ours.weight, theirs.weight)
    torch.testing.assert_close(ours.bias, theirs.bias)


def test_the_second_moment_is_less_the_noise_that_is_in_it() -> None:
    """A constant signal under large noise: corrected, the step is near lr * sign; plain Adam makes it many times smaller."""
    net = nn.Linear(40, 50, bias=False)
    nn.init.zeros_(net.weight)
    optimizer, config = optimizer_of(
        net, optimizer="adam", learning_rate=1e-3, noise_multiplier=10.0, clipping_norm=1.0, divisor=100
    )
    deviation, signal = 0.1, 0.05
    drawn = torch.Generator().manual_seed(1)
    corrected = []
    for number in range(400):
        before = net.weight.detach().clone()
        net.weight.grad = signal + deviation * torch.randn(net.weight.shape, generator=drawn)
        optimizer.step()
        if number >= 300:
            corrected.append(float((before - net.weight.detach()).mean()))
    mean = sum(corrected) / len(corrected) / config.recipe.learning_rate
    plain = signal / math.hypot(signal, deviation)
    assert plain < 0.5
    assert 0.85 < mean < 1.15


def test_noise_alone_never_makes_a_step_explode() -> None:
    """The corrected second moment is around zero there; clamped from below it can't blow a step up."""
    net = nn.Linear(40, 50, bias=False)
    optimizer, _ = optimizer_of(net, optimizer="adam", learning_rate=1.0, noise_multiplier=10.0, clipping_norm=1.0, divisor=100)
    drawn = torch.Generator().manual_seed(2)
    for _ in range(200):
        before = net.weight.detach().clone()
        net.weight.grad = 0.1 * torch.randn(net.weight.shape, generator=drawn)
        optimizer.step()
        assert float((net.weight.detach() - before).abs().max()) < 5 / math.sqrt(0.05)


def test_a_noise_schedule_is_followed_by_the_correction() -> None:
    net = model()
    optimizer, _ = optimizer_of(
        net,
        optimizer="adam",
        noise_multiplier=2.0,
        clipping_norm=1.0,
        divisor=10,
        steps=10,
        noise_schedule=((0.5, 2.0), (1.0, 0.5)),
    )
    seen = []
    for number in range(10):
        step(net, optimizer, number)
        seen.append(optimizer.param_groups[0]["noise_deviation"])
    assert seen == pytest.approx([0.4] * 5 + [0.1] * 5)


def test_decay_and_l1_act_on_matrices_after_the_noise_and_leave_the_gradient_alone() -> None:
    for changes, kept in (({"weight_decay": 0.5}, 0.95), ({"l1": 1.0}, None)):
        net = model()
        before = net.weight.detach().clone(), net.bias.detach().clone()
        optimizer, _ = optimizer_of(net, optimizer="sgd", learning_rate=0.1, **changes)
        for parameter in net.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        wanted = before[0] * kept if kept else torch.nn.functional.softshrink(before[0], 0.1)
        torch.testing.assert_close(net.weight.detach(), wanted)
        assert torch.equal(net.bias.detach(), before[1])
        assert all(float(p.grad.abs().max()) == 0.0 for p in net.parameters() if p.grad is not None)
    assert float((net.weight == 0).float().mean()) > 0  # L1 by its proximal step gives exact zeros


def test_a_closure_is_refused_because_its_gradient_would_carry_no_noise() -> None:
    optimizer, _ = optimizer_of(model(), optimizer="adam")
    with pytest.raises(ValueError, match="without noise"):
        optimizer.step(lambda: 0.0)


def test_averaged_weights_are_the_corrected_average_and_go_back_afterwards() -> None:
    net = model()
    optimizer, _ = optimizer_of(net, optimizer="sgd", ema=0.5)
    seen = []
    for number in range(4):
        step(net, optimizer, number)
        seen.append(net.weight.detach().clone())
    weights = [0.5**4, 0.5**3, 0.5**2, 0.5]
    wanted = sum(w * t for w, t in zip(weights, seen, strict=True)) / sum(weights)
    with averaged(optimizer):
        torch.testing.assert_close(net.weight.detach(), wanted)
    assert torch.equal(net.weight.detach(), seen[-1])
    with pytest.raises(RuntimeError), averaged(optimizer):
        raise RuntimeError
    assert torch.equal(net.weight.detach(), seen[-1])


def test_without_ema_the_last_weights_are_what_leaves() -> None:
    net = model()
    optimizer, _ = optimizer_of(net, optimizer="sgd")
    step(net, optimizer, 0)
    last = net.weight.detach().clone()
    with averaged(optimizer):
        assert torch.equal(net.weight, last)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 400), st.integers(0, 50), st.sampled_from(["constant", "linear", "cosine"]))
def test_the_learning_rate_rises_then_never_does_and_stays_positive(steps: int, warmup: int, schedule: Any) -> None:
    warmup = min(warmup, steps - 1)
    recipe = Recipe(steps=steps, warmup_steps=warmup, schedule=schedule, learning_rate=0.5)
    rates = [learning_rate_at(recipe, n) for n in range(steps)]
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert rates[warmup] == 0.5
    assert all(0 < rate <= 0.5 for rate in rates)
    assert schedule == "constant" or learning_rate_at(recipe, steps) == pytest.approx(0.0, abs=1e-12)

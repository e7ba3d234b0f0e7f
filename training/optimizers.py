"""What becomes of the noisy mean gradient: an optimizer, weight decay and L1, learning-rate schedule and weight averaging.

Guarantee: everything here reads the noised gradient, public numbers and its own state, so it is post-processing. Weight decay
and L1 act on the weights after the noise; in the loss they would enter the clipped gradient and crowd out the data.
All state lies in the optimizer's own state as tensors: stopping after any step and going on from `state_dict` gives the same
weights as never stopping.
Sources: Tang, Shpilevskiy, Lécuyer 2023 (2312.14334) (DP-AdamBC); Loshchilov, Hutter 2017 (1711.05101) (decoupled decay);
Duchi, Hazan, Singer 2011 (Adagrad); soft thresholding as the proximal step of L1: Parikh, Boyd 2014, section 6.5.2.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from training.config import TrainingConfig
from training.ema import update_average
from training.schedules import learning_rate_at

BETAS = (0.9, 0.999)
# Least second moment that counts as signal, as a share of what noise leaves in it: v's noise part has a relative spread of
# sqrt(2 (1 - b2)) = 4.5 %, so a smaller remainder says nothing. With it a step is at most 1/sqrt(0.05) = 4.5 times Adam's.
_LEAST_SIGNAL = 0.05
_TINY = 1e-8


class CorrectedAdam(torch.optim.Optimizer):
    """Adam whose second moment is less the variance that the noise put there; decay is decoupled, as in AdamW.

    Plain Adam divides every coordinate by about the noise's deviation, and so becomes gradient descent with momentum. Here
    v - variance estimates the squared gradient, clamped from below at a share of the noise that is left in v.
    Without noise it is Adam. Source: Tang et al. 2023 (2312.14334), algorithm 1.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0, "noise_deviation": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """`noise_deviation` of a group: standard deviation of the noise in each coordinate of p.grad at this step."""
        if closure is not None:
            raise ValueError("a closure would compute the gradient again, without noise")
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._step_group(group, parameters)

    def _step_group(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        b1, b2 = BETAS
        gradients = [p.grad.to(p.dtype) for p in parameters if p.grad is not None]
        states = [self._state_of(p) for p in parameters]
        means, squares = [s["exp_avg"] for s in states], [s["exp_avg_sq"] for s in states]
        for state in states:  # the variance is averaged like the squares it is taken from, so a noise schedule stays exact
            state["step"].add_(1)
            state["noise_square"].mul_(b2).add_((1 - b2) * group["noise_deviation"] ** 2)
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_lerp_(means, gradients, 1 - b1)
        torch._foreach_mul_(squares, b2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - b2)
        step = float(states[0]["step"])
        noise = float(states[0]["noise_square"]) / (1 - b2**step)
        signal = torch._foreach_div(squares, 1 - b2**step)
        torch._foreach_sub_(signal, noise)
        torch._foreach_clamp_min_(signal, _LEAST_SIGNAL * noise)
        torch._foreach_sqrt_(signal)
        torch._foreach_add_(signal, _TINY)
        torch._foreach_addcdiv_(parameters, means, signal, -group["lr"] / (1 - b1**step))

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if "step" not in state:
            state["step"] = torch.zeros(())
            state["noise_square"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return state


def make_optimizer(config: TrainingConfig, named_parameters: Iterable[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
    """The recipe's optimizer with all that goes with it; `step()` is all there is to call.

    p.grad must be the noised sum over the divisor. Decay and L1 leave biases and other vectors alone. The averaged weights
    that a recipe with `ema` releases are read inside `training.ema.averaged`.
    """
    parameters = [parameter for _, parameter in named_parameters]
    matrices = [p for p in parameters if p.ndim > 1]
    vectors = [p for p in parameters if p.ndim <= 1]
    decay = config.recipe.weight_decay
    groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = _bare(config, [group for group in groups if group["params"]])
    optimizer.register_step_pre_hook(partial(_before, config))
    optimizer.register_step_post_hook(partial(_after, config))
    return optimizer


def _bare(config: TrainingConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    recipe, on_gpu = config.recipe, all(p.is_cuda for group in groups for p in group["params"])
    match recipe.optimizer:
        case "sgd":
            for group in groups:  # torch adds sgd's decay to the gradient; ours is decoupled, in `_before`
                group["decoupled_decay"] = group.pop("weight_decay")
            return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, fused=on_gpu or None)
        case "adagrad":
            return torch.optim.Adagrad(groups, lr=recipe.learning_rate, foreach=on_gpu or None)
        case "adam" | "adamw":
            return CorrectedAdam(groups, recipe.learning_rate)


def _steps_taken(optimizer: torch.optim.Optimizer) -> int:
    first = optimizer.param_groups[0]["params"][0]
    found = optimizer.state.get(first, {}).get("step")
    return 0 if found is None else int(found)


@torch.no_grad()
def _before(config: TrainingConfig, optimizer: torch.optim.Optimizer, *_: object) -> None:
    step = _steps_taken(optimizer)
    rate = learning_rate_at(config.recipe, step)
    deviation = config.noise_multiplier_at(step) * config.clipping_norm / config.divisor
    for group in optimizer.param_groups:
        group["lr"] = rate
        if "noise_deviation" in group:
            group["noise_deviation"] = deviation
        if group.get("decoupled_decay"):
            torch._foreach_mul_(group["params"], 1 - rate * group["decoupled_decay"])


@torch.no_grad()
def _after(config: TrainingConfig, optimizer: torch.optim.Optimizer, *_: object) -> None:
    if isinstance(optimizer, torch.optim.SGD):  # the only one that does not count its steps
        taken = float(_steps_taken(optimizer) + 1)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state[parameter]["step"] = torch.tensor(taken)
    if config.recipe.l1:
        threshold = config.recipe.l1 * optimizer.param_groups[0]["lr"]
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.ndim > 1:
                    parameter.copy_(torch.nn.functional.softshrink(parameter, threshold))
    if config.recipe.ema:
        update_average(optimizer, config.recipe.ema)

"""Averaged weights: what leaves is the exponential average of all iterates, which holds less of the noise than the last one.

Guarantee: an average of noised iterates is post-processing, so it costs no privacy. It lies in the optimizer's own state,
so whatever keeps that state (the checkpoint) keeps the average, and a resumed run goes on with the same numbers.
Source: De et al. 2022 (2204.13650), section 3, for private training; the start is corrected as in Adam, so that a short run
is not pulled towards its initial weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_SUM = "average_sum"  # sum of decay^(t-i) (1 - decay) w_i, of the parameter's shape
_WEIGHT = "average_weight"  # the same sum of ones


@torch.no_grad()
def update_average(optimizer: torch.optim.Optimizer, decay: float) -> None:
    """Take the weights as they are now into the average; once after each step."""
    for parameter in _parameters(optimizer):
        state = optimizer.state[parameter]
        if _SUM not in state:
            state[_SUM] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state[_WEIGHT] = torch.zeros((), device=parameter.device)
        state[_SUM].mul_(decay).add_(parameter, alpha=1 - decay)
        state[_WEIGHT].mul_(decay).add_(1 - decay)


@contextmanager
def averaged(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Inside, the parameters hold their averages, if the recipe keeps any; after it, what they held before, bit by bit."""
    kept: list[tuple[Tensor, Tensor]] = []
    with torch.no_grad():
        for parameter in _parameters(optimizer):
            state = optimizer.state.get(parameter, {})
            if _SUM in state:
                kept.append((parameter, parameter.detach().clone()))
                parameter.copy_(state[_SUM] / state[_WEIGHT])
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, before in kept:
                parameter.copy_(before)


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    for group in optimizer.param_groups:
        yield from group["params"]

"""AdaLoRA's rank budget: which of its directions live on is decided from the noisy gradients, so it costs no privacy.

Guarantee: what is read here are the weights and the gradients as the optimizer got them, after clipping and noise; so the
choice is post-processing of the private steps, and the released ranks need no charge. Its state lies in the optimizer's own
state, so a run that goes on from a checkpoint goes on pruning.
Assumption: it is attached to the optimizer that gets the noisy gradients. Not covered: noise blurs importance; at a small
signal the choice is close to chance, and rank then costs utility, not privacy.
Source: Zhang et al. 2023 (2303.10512), section 3.2 (importance, eq. 8 to 11) and 3.3 (cubic schedule of the budget).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from training.adapters import AdaLoraLinear, adapted_layers

_FEWEST_STEPS = 10  # of a run that prunes: below, importance is one or two draws of noise
_MEAN, _SPREAD = "importance_mean", "importance_spread"


@dataclass(frozen=True, slots=True)
class RankSchedule:
    """From all directions to `kept` of them (of all layers together), between step `begin` and step `end`."""

    directions: int
    kept: int
    begin: int
    end: int

    @classmethod
    def of_run(cls, layers: int, directions: int, steps: int, share: float = 0.5) -> RankSchedule:
        """Keeps that share of the directions, pruned between a fifth and seven tenths of the run."""
        kept = directions if steps < _FEWEST_STEPS else max(layers, round(share * directions))
        return cls(directions, kept, steps // 5, max(1, steps * 7 // 10))

    def budget(self, step: int) -> int:
        """Directions that may live after `step` (counted from 0); falls along a cubic."""
        if step < self.begin:
            return self.directions
        if step >= self.end:
            return self.kept
        left = 1 - (step - self.begin) / (self.end - self.begin)
        return round(self.kept + (self.directions - self.kept) * left**3)


@dataclass(frozen=True, slots=True)
class RankAllocator:
    """Smoothed importance of every direction; sets the scales of those that fall out to zero after each step."""

    layers: tuple[AdaLoraLinear, ...]
    schedule: RankSchedule
    smoothing: float = 0.85

    @classmethod
    def attach(cls, model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> RankAllocator:
        """Prunes after every step of `optimizer` from now on; `steps` are those of the whole run."""
        layers = tuple(layer for _, layer in adapted_layers(model) if isinstance(layer, AdaLoraLinear))
        allocator = cls(layers, RankSchedule.of_run(len(layers), sum(layer.rank for layer in layers), steps))
        optimizer.register_step_post_hook(allocator.after_step)
        return allocator

    @torch.no_grad()
    def after_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """While p.grad still holds the noisy gradient of the step that was taken."""
        if not self.layers:
            return
        scores = [self._importance(layer, optimizer) for layer in self.layers]
        taken = int(optimizer.state[self.layers[0].scale.weight]["step"])
        budget = self.schedule.budget(taken - 1)
        if budget >= self.schedule.directions:
            return
        together = torch.cat(scores)
        bar = together.kthvalue(len(together) - budget + 1).values
        for layer, score in zip(self.layers, scores, strict=True):
            layer.scale.weight[score < bar] = 0.0

    def _importance(self, layer: AdaLoraLinear, optimizer: torch.optim.Optimizer) -> Tensor:
        """float [rank]: of the scale, and the mean over its row of Q and its column of P."""
        scale, down, up = (self._smoothed(p.weight, optimizer) for p in (layer.scale, layer.down, layer.up))
        return scale + down.mean(1) + up.mean(0)

    def _smoothed(self, parameter: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
        """Importance |w g|, smoothed, times how much it varies."""
        state = optimizer.state[parameter]
        if _MEAN not in state:
            state[_MEAN], state[_SPREAD] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        mean, spread = state[_MEAN], state[_SPREAD]
        assert isinstance(mean, Tensor)
        assert isinstance(spread, Tensor)
        now = torch.zeros_like(mean) if parameter.grad is None else (parameter * parameter.grad).abs()
        spread.mul_(self.smoothing).add_((now - mean).abs(), alpha=1 - self.smoothing)
        mean.mul_(self.smoothing).add_(now, alpha=1 - self.smoothing)
        return mean * spread

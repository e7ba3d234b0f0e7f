"""AdaLoRA's rank budget: which of its directions live on is decided from the noisy gradients, so it costs no privacy.

Guarantee: what is read here are the tensors and the gradients as the optimizer got them, after clipping and noise; so the
choice is post-processing of the private steps, and the released ranks need no charge.
Assumption: `after_step` is called when the noise is in `p.grad`, and never before. Not covered: that noise blurs importance;
at a small signal the choice is close to chance, and rank then costs utility, not privacy.
Source: Zhang et al. 2023 (2303.10512), section 3.2 (importance, eq. 8 to 11) and 3.3 (cubic schedule of the budget).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from training.adapters import AdaLoraLinear, adapted_layers


@dataclass(frozen=True, slots=True)
class RankSchedule:
    """From all directions to `kept` of them (of all layers together), between step `begin` and step `end`."""

    directions: int
    kept: int
    begin: int
    end: int

    def budget(self, step: int) -> int:
        """Directions that may live after `step` (counted from 0); falls along a cubic."""
        if step < self.begin:
            return self.directions
        if step >= self.end:
            return self.kept
        left = 1 - (step - self.begin) / (self.end - self.begin)
        return round(self.kept + (self.directions - self.kept) * left**3)


@dataclass(slots=True)
class RankAllocator:
    """Smoothed importance of every direction; sets the scales of those that fall out to zero after each step."""

    layers: list[AdaLoraLinear]
    schedule: RankSchedule
    smoothing: float = 0.85
    _means: dict[Tensor, Tensor] = field(default_factory=dict)
    _spreads: dict[Tensor, Tensor] = field(default_factory=dict)

    @classmethod
    def over(cls, model: nn.Module, steps: int, kept_share: float = 0.5) -> RankAllocator:
        """Keep that share of all directions; prune between a fifth and seven tenths of the run."""
        layers = [layer for _, layer in adapted_layers(model) if isinstance(layer, AdaLoraLinear)]
        directions = sum(layer.rank for layer in layers)
        schedule = RankSchedule(
            directions, max(len(layers), round(kept_share * directions)), steps // 5, max(1, steps * 7 // 10)
        )
        return cls(layers, schedule)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Call right after the optimizer's step, while p.grad still holds the noisy gradient of that step."""
        scores = [self._importance(layer) for layer in self.layers]
        budget = self.schedule.budget(step)
        if not scores or budget >= self.schedule.directions:
            return
        together = torch.cat(scores)
        bar = together.kthvalue(len(together) - budget + 1).values if budget else torch.inf
        for layer, score in zip(self.layers, scores, strict=True):
            layer.scale.weight[score < bar] = 0.0

    def _importance(self, layer: AdaLoraLinear) -> Tensor:
        """float [rank]: of the scale, and the mean over its row of Q and its column of P."""
        scale, down, up = (self._smoothed(p.weight) for p in (layer.scale, layer.down, layer.up))
        return scale + down.mean(1) + up.mean(0)

    def _smoothed(self, parameter: Tensor) -> Tensor:
        if parameter.grad is None:
            return torch.zeros_like(parameter)
        now = (parameter * parameter.grad).abs()
        mean = self._means.get(parameter, torch.zeros_like(now))
        spread = self._spreads.get(parameter, torch.zeros_like(now))
        spread = self.smoothing * spread + (1 - self.smoothing) * (now - mean).abs()
        mean = self.smoothing * mean + (1 - self.smoothing) * now
        self._means[parameter], self._spreads[parameter] = mean, spread
        return mean * spread

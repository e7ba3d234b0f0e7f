"""What every model is to the engine: one loss per privacy unit, which depends on that unit alone.

Guarantee: the canary coordinate of `CanaryCarrier` meets no tensor of the model it carries, so dropping it changes no output.
Assumption: a model keeps the rules of `UnitModel`; `training.preflight` and the self-check hold it to them by brute force.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.data import IGNORED

CANARY_PARAMETER = "canary.weight"


class UnitModel(nn.Module):
    """A model over privacy units. Activations are unit-major: flattened to [units * records, ...], a unit's rows adjacent.

    No batch statistics, no buffer that depends on data, no operation across units; parameters live in layers whose per-unit
    gradients `training.gradients` knows. Tied and re-used layers are fine.
    """

    def losses(self, inputs: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        """float32 [units]: mean loss over a unit's present records; 0, without a gradient, for a unit that has none."""
        return record_losses(self.outputs(inputs), labels)

    def outputs(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """float [units, records, classes]: scores, higher is likelier."""
        raise NotImplementedError

    def released(self) -> dict[str, Tensor]:
        """What may leave: the trainable tensors by name; public pretrained weights are named in the model's description."""
        return {name: p.detach().cpu().contiguous().clone() for name, p in self.named_parameters() if p.requires_grad}


def record_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """float32 [units]: cross entropy, averaged over each unit's present records. logits: [units, records, classes]."""
    each = functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="none", ignore_index=IGNORED)
    return mean_over_records(each.view_as(labels), labels)


def mean_over_records(each: Tensor, labels: Tensor) -> Tensor:
    """[units]: mean of each [units, records] over the records that are there; 0 for a unit that has none."""
    present = (labels != IGNORED).to(each.dtype)
    return (each * present).sum(1) / present.sum(1).clamp(min=1.0)


class CanaryCarrier(nn.Module):
    """A model and its canaries: unit u with canary c adds gain * canary[c] to its loss, a gradient of norm `gain` there.

    Source: disjoint coordinates, Keinan, Shenfeld and Ligett 2025 (arXiv 2503.07199).
    """

    def __init__(self, model: UnitModel, canaries: int, gain: float, precision: torch.dtype | None = None) -> None:
        """precision: of the model's forward pass (autocast), None for float32. The canaries always keep float32."""
        super().__init__()
        self.model, self.canaries, self.gain, self.precision = model, canaries, gain, precision
        self.canary = nn.Embedding(canaries + 1, 1)  # the last row is for units without a canary
        with torch.no_grad():
            self.canary.weight.zero_()

    def forward(self, inputs: Mapping[str, Tensor], labels: Tensor, cid: Tensor) -> Tensor:
        """float32 [units]."""
        coordinate = self.canary(cid).squeeze(-1)
        lifted: Tensor = self.gain * coordinate * (cid < self.canaries).to(coordinate.dtype)
        with torch.autocast(labels.device.type, self.precision or torch.bfloat16, enabled=self.precision is not None):
            losses = self.model.losses(inputs, labels)
        return losses.float() + lifted

"""LoRA, AdaLoRA and Houlsby adapters from layers whose per-unit gradients are known: two linear maps and, for AdaLoRA, a scale.

Guarantee: after `apply_adapters` exactly the adapters' own tensors train; they lie where the adapted layer's weight lies and
move with the model, whether it moved before or after (Opacus issue #820). A target that can't be adapted is refused by name.
Not covered: what the adapters learn; the initial values are drawn from the global generator, so the caller forks it.
Source: Hu et al. 2021 (2106.09685) for LoRA, Zhang et al. 2023 (2303.10512) for AdaLoRA, Houlsby et al. 2019 (1902.00751).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from privacy.errors import PolicyError

AdapterKind = Literal["lora", "adapter", "adalora"]
_ATTENTION: dict[str, tuple[str, ...]] = {  # as PEFT chooses them
    "bert": ("query", "value"),
    "roberta": ("query", "value"),
    "xlm-roberta": ("query", "value"),
    "camembert": ("query", "value"),
    "electra": ("query", "value"),
    "distilbert": ("q_lin", "v_lin"),
    "mpnet": ("q", "v"),
    "modernbert": ("Wqkv",),
    "gpt2": ("c_attn",),
    "gpt_neox": ("query_key_value",),
    "llama": ("q_proj", "v_proj"),
    "mistral": ("q_proj", "v_proj"),
    "qwen2": ("q_proj", "v_proj"),
    "qwen3": ("q_proj", "v_proj"),
    "gemma": ("q_proj", "v_proj"),
}
_OUTPUTS: dict[str, tuple[str, ...]] = {  # the projections back to the hidden width, where a Houlsby adapter stands
    "bert": ("output.dense",),
    "roberta": ("output.dense",),
    "xlm-roberta": ("output.dense",),
    "camembert": ("output.dense",),
    "electra": ("output.dense",),
    "distilbert": ("out_lin", "ffn.lin2"),
    "modernbert": ("attn.Wo", "mlp.Wo"),
    "gpt2": ("c_proj",),
    "llama": ("o_proj", "down_proj"),
    "mistral": ("o_proj", "down_proj"),
    "qwen2": ("o_proj", "down_proj"),
    "qwen3": ("o_proj", "down_proj"),
}


class Scale(nn.Module):
    """One factor per coordinate: y = x * weight. weight: [width].

    The gradient of a unit is the sum over its tokens of (output gradient * input), coordinate by coordinate.
    """

    def __init__(self, width: int, device: torch.device | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class Adapted(nn.Module):
    """A frozen layer and what is learnt beside it. down: [width, rank] map; up: back. Starts as the frozen layer alone."""

    def __init__(self, base: nn.Module, rank: int, alpha: float) -> None:
        super().__init__()
        wide_in, wide_out = widths(base)
        place = next(base.parameters())
        self.base, self.rank, self.alpha = base, rank, alpha
        self.down = nn.Linear(self._reads(wide_in, wide_out), rank, bias=False, device=place.device, dtype=place.dtype)
        self.up = nn.Linear(rank, wide_out, bias=False, device=place.device, dtype=place.dtype)

    def _reads(self, wide_in: int, wide_out: int) -> int:
        return wide_in

    def delta(self) -> Tensor:
        """[out, in]: what `merge` adds to the frozen weight."""
        raise NotImplementedError


class LoraLinear(Adapted):
    """base(x) + up(down(x)) * alpha / rank."""

    def __init__(self, base: nn.Module, rank: int, alpha: float) -> None:
        super().__init__(base, rank, alpha)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.base(x) + self.up(self.down(x)) * (self.alpha / self.rank)
        return output

    def delta(self) -> Tensor:
        return self.up.weight @ self.down.weight * (self.alpha / self.rank)


class AdaLoraLinear(Adapted):
    """base(x) + P(Lambda(Q(x))) * alpha / rank, with Q = down, P = up and Lambda = scale, which starts at zero."""

    def __init__(self, base: nn.Module, rank: int, alpha: float) -> None:
        super().__init__(base, rank, alpha)
        self.scale = Scale(rank, self.down.weight.device, self.down.weight.dtype)
        nn.init.normal_(self.down.weight, std=0.02)
        nn.init.normal_(self.up.weight, std=0.02)

    @property
    def factor(self) -> float:
        return self.alpha / (self.rank + 1e-5)  # as PEFT divides, so that files mean the same

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.base(x) + self.up(self.scale(self.down(x))) * self.factor
        return output

    def delta(self) -> Tensor:
        return (self.up.weight * self.scale.weight) @ self.down.weight * self.factor


class HoulsbyLinear(Adapted):
    """y + up(gelu(down(y))) with y = base(x): a bottleneck behind a projection, before the residual."""

    def __init__(self, base: nn.Module, rank: int, alpha: float) -> None:
        super().__init__(base, rank, alpha)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)

    def _reads(self, wide_in: int, wide_out: int) -> int:
        return wide_out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base(x)
        output: Tensor = y + self.up(functional.gelu(self.down(y)))
        return output


_CLASSES: dict[str, type[Adapted]] = {"lora": LoraLinear, "adapter": HoulsbyLinear, "adalora": AdaLoraLinear}


def apply_adapters(
    model: nn.Module, kind: AdapterKind, rank: int, targets: Iterable[str], alpha: float | None = None
) -> list[str]:
    """Freeze `model`, put adapters on the layers whose dotted name ends with one of `targets`; returns their names.

    alpha: of LoRA and AdaLoRA, twice the rank by default. Raises PolicyError E-ADAPTER-001 when nothing has such a name,
    002 for a layer that is no linear map, 003 for one that is narrower than the rank or adapted already.
    """
    ends = tuple(targets)
    names = [name for name, _ in model.named_modules() if any(name == end or name.endswith(f".{end}") for end in ends)]
    if not names:
        raise PolicyError(
            "E-ADAPTER-001",
            f"the model has no layer that ends in {' or '.join(ends) or 'any of no names'}",
            "Name the layers that get adapters, as they are called in the model",
        )
    for name in names:
        _require_linear(name, model.get_submodule(name), rank)
    model.requires_grad_(False)
    for name in names:
        adapted = _CLASSES[kind](model.get_submodule(name), rank, 2.0 * rank if alpha is None else alpha)
        adapted.train(model.training)
        _put(model, name, adapted)
    return names


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, Adapted]]:
    """Name and layer, in order of the model."""
    for name, module in model.named_modules():
        if isinstance(module, Adapted):
            yield name, module


def merge(model: nn.Module) -> nn.Module:
    """The same model with LoRA and AdaLoRA added into the frozen weights and taken off. In place.

    Raises PolicyError E-ADAPTER-004 for Houlsby adapters, which are not linear, so no weight can hold them.
    """
    found = list(adapted_layers(model))
    if any(isinstance(layer, HoulsbyLinear) for _, layer in found):
        raise PolicyError(
            "E-ADAPTER-004", "adapters of kind adapter can't be merged into a weight", "Release them beside the model"
        )
    for name, layer in found:
        weight = layer.base.weight
        assert isinstance(weight, Tensor)
        with torch.no_grad():
            delta = layer.delta()
            weight += delta.T if _is_transposed(layer.base) else delta
        _put(model, name, layer.base)
    return model


def default_targets(model_type: str, kind: AdapterKind) -> tuple[str, ...]:
    """Ends of layer names for a Hugging Face `model_type`. Raises PolicyError E-ADAPTER-005 for one that is not known."""
    table = _OUTPUTS if kind == "adapter" else _ATTENTION
    if model_type not in table:
        raise PolicyError(
            "E-ADAPTER-005",
            f"it is not known which layers of a model of type {model_type} get {kind}",
            f"Use one of {', '.join(sorted(table))}, or train it full or by its head",
        )
    return table[model_type]


def widths(layer: nn.Module) -> tuple[int, int]:
    """(in, out) of a linear map."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    first, second = int(weight.shape[0]), int(weight.shape[1])
    return (first, second) if _is_transposed(layer) else (second, first)


def _is_transposed(layer: nn.Module) -> bool:
    """Hugging Face's Conv1D of GPT-2: a linear map whose weight is [in, out]."""
    return type(layer).__name__ == "Conv1D" and type(layer).__module__.startswith("transformers.")


def _require_linear(name: str, layer: nn.Module, rank: int) -> None:
    if isinstance(layer, Adapted):
        raise PolicyError("E-ADAPTER-003", f"layer {name} has an adapter already", "Apply adapters once")
    if type(layer) is not nn.Linear and not _is_transposed(layer):
        raise PolicyError(
            "E-ADAPTER-002", f"layer {name} is a {type(layer).__name__}, and only a linear map can be adapted", "Name others"
        )
    if rank < 1 or rank >= min(widths(layer)):
        raise PolicyError("E-ADAPTER-003", f"layer {name} is not wider than the rank {rank}", "Lower recipe.rank")


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, module)

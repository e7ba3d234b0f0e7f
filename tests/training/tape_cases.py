"""Small nets with every layer that the tape knows, as carriers: (inputs, labels, cid) -> losses [units]. And the naive twin."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.adapters import AdaLoraLinear, LoraLinear
from training.data import UnitBatch

UNITS = 5
CLASSES = 3


class Net(nn.Module):
    """x: [units, records, ...] in inputs; a unit's loss is the mean over its records of the cross entropy."""

    def rows(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, inputs: Mapping[str, Tensor], labels: Tensor, cid: Tensor) -> Tensor:
        scores = self.rows(inputs["x"].flatten(0, 1))
        each = functional.cross_entropy(scores, labels.flatten(), reduction="none")
        return each.view(labels.shape).mean(1)


class Mlp(Net):
    """One position for each record; a bias without weight, a weight without bias, and a frozen layer between."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.frozen = nn.Linear(6, 7), nn.Linear(7, 7)
        self.frozen.weight.requires_grad_(False)
        self.last = nn.Linear(7, CLASSES, bias=False)

    def rows(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.frozen(torch.tanh(self.first(x)))))

    @staticmethod
    def data(units: int, records: int) -> Tensor:
        return torch.randn(units, records, 6)


class TinyLm(Net):
    """Tied head, expanded places, attention; each record's loss is that of its next tokens."""

    def __init__(self, tied: bool = True, vocabulary: int = 11, width: int = 8) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(20, width)
        self.norm, self.mixed, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, inputs: Mapping[str, Tensor], labels: Tensor, cid: Tensor) -> Tensor:
        ids = inputs["x"].flatten(0, 1)
        states = self.tokens(ids) + self.places(torch.arange(ids.shape[1]).repeat(len(ids), 1))
        query, key, value = self.mixed(self.norm(states)).chunk(3, -1)
        states = states + self.out(functional.scaled_dot_product_attention(query, key, value, is_causal=True))
        scores = self.head(states)[:, :-1].transpose(1, 2)
        return functional.cross_entropy(scores, ids[:, 1:], reduction="none").mean(1).view(labels.shape).mean(1)

    @staticmethod
    def data(units: int, records: int) -> Tensor:
        return torch.randint(0, 11, (units, records, 9))


class Cnn(Net):
    """Groups, strides, dilation, uneven `same`, reflecting padding, GroupNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2, 4, 3, stride=2, padding=1),
            nn.GroupNorm(2, 4),
            nn.Tanh(),
            nn.Conv2d(4, 6, (2, 3), groups=2, padding="same", bias=False),
            nn.Tanh(),
            nn.Conv2d(6, 6, 3, padding=2, dilation=2, padding_mode="reflect", groups=6),
        )
        self.head = nn.Linear(6, CLASSES)

    def rows(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.layers(x)).mean((2, 3)))

    @staticmethod
    def data(units: int, records: int) -> Tensor:
        return torch.randn(units, records, 2, 12, 9)


class DeepCnn(Net):
    """Few positions and many channels: the Gram form; the same convolution twice: joined."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.same, self.head = nn.Conv2d(16, 32, 2), nn.Conv2d(32, 32, 1), nn.Linear(32, CLASSES)

    def rows(self, x: Tensor) -> Tensor:
        found = torch.tanh(self.wide(x))
        return self.head(torch.tanh(self.same(torch.tanh(self.same(found)))).mean((2, 3)))

    @staticmethod
    def data(units: int, records: int) -> Tensor:
        return torch.randn(units, records, 16, 3, 3)


class Signal(Net):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv1d(3, 5, 4, stride=2), nn.Tanh(), nn.Conv1d(5, 4, 3, padding="same", groups=1))
        self.head = nn.Linear(4, CLASSES)

    def rows(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).mean(2))

    @staticmethod
    def data(units: int, records: int) -> Tensor:
        return torch.randn(units, records, 3, 17)


class Gru(Net):
    """By hand: one Linear over all inputs, one that is used again at each step."""

    def __init__(self, inputs: int = 4, width: int = 6) -> None:
        super().__init__()
        self.width = width
        self.seen, self.kept, self.head = nn.Linear(inputs, 3 * width), nn.Linear(width, 3 * width), nn.Linear(width, CLASSES)

    def rows(self, x: Tensor) -> Tensor:
        seen, state = self.seen(x), x.new_zeros(len(x), self.width)
        for step in range(x.shape[1]):
            (a, b, c), (d, e, f) = seen[:, step].chunk(3, -1), self.kept(state).chunk(3, -1)
            new, update = torch.tanh(c + torch.sigmoid(a + d) * f), torch.sigmoid(b + e)
            state = new + update * (state - new)
        return self.head(state)

    @staticmethod
    def data(units: int, records: int) -> Tensor:
        return torch.randn(units, records, 7, 4)


class Adapters(Net):
    """LoRA and AdaLoRA beside frozen maps, RMSNorm, a padded embedding whose padding must not learn."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(9, 8, padding_idx=0)
        frozen = [nn.Linear(8, 8).requires_grad_(False) for _ in range(2)]
        self.lora, self.ada = LoraLinear(frozen[0], 2, 4.0), AdaLoraLinear(frozen[1], 3, 6.0)
        self.norm, self.head = nn.RMSNorm(8), nn.Linear(8, CLASSES)
        with torch.no_grad():
            self.lora.up.weight.normal_()
            self.ada.scale.weight.normal_()

    def rows(self, x: Tensor) -> Tensor:
        states = torch.tanh(self.lora(self.tokens(x)))
        return self.head(self.norm(torch.tanh(self.ada(states))).mean(1))

    @staticmethod
    def data(units: int, records: int) -> Tensor:
        return torch.randint(0, 9, (units, records, 6))


class HuggingFace(Net):
    """GPT-2's Conv1D and Llama's RMSNorm, as their models use them."""

    def __init__(self) -> None:
        super().__init__()
        from transformers.models.llama.modeling_llama import LlamaRMSNorm
        from transformers.pytorch_utils import Conv1D

        self.norm, self.map, self.head = LlamaRMSNorm(6), Conv1D(5, 6), nn.Linear(5, CLASSES)
        with torch.no_grad():
            self.norm.weight.uniform_(0.5, 1.5)

    def rows(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.map(self.norm(x))).mean(1))

    @staticmethod
    def data(units: int, records: int) -> Tensor:
        return torch.randn(units, records, 4, 6)


class LongMaps(Net):
    """Many positions: kept and dropped per-unit gradients beside the Gram form."""

    def __init__(self, width: int = 12, positions: int = 40) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(width, 2), nn.Linear(2, 3 * width), nn.Linear(3 * width, CLASSES)

    def rows(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))).mean(1))

    @staticmethod
    def data(units: int, records: int) -> Tensor:
        return torch.randn(units, records, 40, 12)


CASES: dict[str, Callable[[], Any]] = {
    "mlp": Mlp,
    "tied language model": TinyLm,
    "untied language model": lambda: TinyLm(tied=False),
    "cnn": Cnn,
    "deep cnn": DeepCnn,
    "signal": Signal,
    "gru": Gru,
    "adapters": Adapters,
    "hugging face": HuggingFace,
    "long maps": LongMaps,
}


def build(case: str, records: int = 1, units: int = UNITS, dtype: torch.dtype = torch.float64) -> tuple[Any, UnitBatch]:
    torch.manual_seed(0)
    net = CASES[case]().to(dtype)
    x = net.data(units, records)
    return net, batch_of(x.to(dtype) if x.is_floating_point() else x)


def batch_of(x: Tensor) -> UnitBatch:
    labels = torch.randint(0, CLASSES, x.shape[:2])
    return UnitBatch({"x": x}, labels, torch.zeros(len(x), dtype=torch.int64))


def naive(net: nn.Module, batch: UnitBatch) -> list[dict[str, Tensor]]:
    """Every unit's gradient in float64, one unit at a time, on a copy without hooks."""
    twin = copy.deepcopy(net).double()
    wide = UnitBatch({n: x.double() if x.is_floating_point() else x for n, x in batch.inputs.items()}, batch.labels, batch.cid)
    found = []
    named = [(name, p) for name, p in twin.named_parameters() if p.requires_grad]
    for unit in range(len(batch)):
        part = wide.part(slice(unit, unit + 1))
        gradients = torch.autograd.grad(
            twin(part.inputs, part.labels, part.cid).sum(), [p for _, p in named], allow_unused=True
        )
        found.append({n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(named, gradients, strict=True)})
    return found


def norm_of(gradients: Mapping[str, Tensor]) -> float:
    return float(torch.stack([g.square().sum() for g in gradients.values()]).sum().sqrt())


def clipped_sum(each: list[dict[str, Tensor]], clipping_norm: float) -> dict[str, Tensor]:
    factors = [min(1.0, clipping_norm / max(norm_of(g), 1e-300)) for g in each]
    return {name: sum(f * g[name] for f, g in zip(factors, each, strict=True)) for name in each[0]}  # type: ignore[misc]


def sums(net: nn.Module) -> dict[str, Tensor]:
    return {name: p.summed_grad for name, p in net.named_parameters() if p.requires_grad}  # type: ignore[misc]


def apart(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """Relative distance, over all parameters together."""
    size = sum(float(w.double().square().sum()) for w in wanted.values()) ** 0.5
    return sum(float((found[n].double() - w.double()).square().sum()) for n, w in wanted.items()) ** 0.5 / size

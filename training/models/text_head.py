"""A linear head on the features of a frozen encoder: of all that trains privately, the most accuracy for the least work.

Guarantee: a unit's loss depends on that unit alone; features are constants of a record, so only the head's gradient exists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.models.base import UnitModel


class LabelHead(nn.Module):
    """[rows, width] to one score per label."""

    def __init__(self, width: int, labels: Sequence[str]) -> None:
        super().__init__()
        self.linear = nn.Linear(width, len(labels))
        nn.init.zeros_(self.linear.bias)

    def forward(self, pooled: Tensor) -> Tensor:
        scores: Tensor = self.linear(pooled)
        return scores

    def names(self, labels: Sequence[str]) -> list[tuple[nn.Linear, list[str]]]:
        """Each linear map, and what its outputs are called."""
        return [(self.linear, list(labels))]


class SplitHead(nn.Module):
    """Two heads for labels of two parts ("topic/sentiment"): the score of a label is the sum of its parts' scores.

    The softmax over labels is then the product of two softmaxes where every pair is declared, and its restriction to the
    declared pairs elsewhere; so one cross entropy trains both heads, and an example of one pair teaches all that share a part.
    """

    def __init__(self, width: int, labels: Sequence[str], separator: str) -> None:
        super().__init__()
        self.firsts, self.seconds, self.first_of, self.second_of = parts_of(labels, separator)
        self.first, self.second = nn.Linear(width, len(self.firsts)), nn.Linear(width, len(self.seconds))
        nn.init.zeros_(self.first.bias)
        nn.init.zeros_(self.second.bias)

    def forward(self, pooled: Tensor) -> Tensor:
        scores: Tensor = self.first(pooled)[..., self.first_of] + self.second(pooled)[..., self.second_of]
        return scores

    def names(self, labels: Sequence[str]) -> list[tuple[nn.Linear, list[str]]]:
        """Each linear map, and what its outputs are called."""
        return [(self.first, self.firsts), (self.second, self.seconds)]


class Encoding(UnitModel):
    """A text model that can also say how alike two texts are."""

    def vectors(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """float32 [units, records, width], of length 1: what answers are compared with."""
        raise NotImplementedError


class TextHead(Encoding):
    """inputs: `features` float [units, records, width], of length 1, from a frozen encoder. Starts at zero: it is convex."""

    def __init__(self, head: LabelHead | SplitHead) -> None:
        super().__init__()
        self.head = head
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.zero_()

    def vectors(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return inputs["features"].float()

    def outputs(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """float32 [units, records, labels]."""
        weights = next(self.head.parameters(), None)  # int8 layers have none, and compute in float32
        features = inputs["features"].to(torch.float32 if weights is None else weights.dtype)
        scores: Tensor = self.head(features.flatten(0, 1))
        return scores.view(*features.shape[:2], -1)


def make_head(width: int, labels: Sequence[str], separator: str | None) -> LabelHead | SplitHead:
    return LabelHead(width, labels) if separator is None else SplitHead(width, labels, separator)


def parts_of(labels: Sequence[str], separator: str) -> tuple[list[str], list[str], list[int], list[int]]:
    """First and second parts, in order of appearance, and the index of each label's parts. Splits at the first separator."""
    pairs = [label.split(separator, 1) for label in labels]
    firsts, seconds = (list(dict.fromkeys(pair[side] for pair in pairs)) for side in (0, 1))
    return firsts, seconds, [firsts.index(a) for a, _ in pairs], [seconds.index(b) for _, b in pairs]


def mean_of(states: Tensor, present: Tensor) -> Tensor:
    """[rows, width]: mean of the present positions, zero for a row without any. present: bool [rows, time]."""
    weight = present.unsqueeze(-1).to(states.dtype)
    return (states * weight).sum(1) / weight.sum(1).clamp(min=1.0)


def unit_length(vectors: Tensor) -> Tensor:
    """Scaled to length 1; zero stays zero."""
    return functional.normalize(vectors.float(), dim=-1)

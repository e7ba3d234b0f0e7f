"""A small convolutional classifier of grey images; every layer sees one unit's images at a time.

Guarantee: a unit's loss depends on that unit alone: pixels are scaled by public constants, and the only normalisation there is
works inside one image (GroupNorm). There is no BatchNorm and no buffer.
Source: tanh instead of ReLU under clipping, Papernot et al. 2021 (2007.14191); GroupNorm, De et al. 2022 (2204.13650), sec. 4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from training.models.base import UnitModel

GREY_MIDDLE = 127.5  # public constants: a pixel becomes a number from -1 to 1
_KERNEL = 5


class ImageCnn(UnitModel):
    """Stacked strided convolutions and a head with one hidden layer.

    inputs: `pixels` uint8 [units, records, height, width]. layers: convolutions, each halves both sides; the last has `width`
    channels, each before it half as many. groups: of GroupNorm after each convolution; 0 for none.
    """

    def __init__(self, labels: int, image: tuple[int, int], layers: int, width: int, groups: int, dropout: float = 0.0) -> None:
        super().__init__()
        channels = [max(4, width >> (layers - 1 - index)) for index in range(layers)]
        parts: list[nn.Module] = []
        for before, after in zip([1, *channels[:-1]], channels, strict=True):
            parts.append(nn.Conv2d(before, after, _KERNEL, stride=2, padding=_KERNEL // 2))
            if groups:
                parts.append(nn.GroupNorm(math.gcd(groups, after), after))
            parts.append(nn.Tanh())
        self.convolutions = nn.Sequential(*parts)
        height, wide = (_halved(side, layers) for side in image)
        self.hidden = nn.Linear(channels[-1] * height * wide, width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, labels)

    def outputs(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """float32 [units, records, labels]."""
        pixels = inputs["pixels"]
        units, records, height, width = pixels.shape
        grey = pixels.reshape(units * records, 1, height, width).to(self.head.weight.dtype)
        found = self.convolutions((grey - GREY_MIDDLE) / GREY_MIDDLE).flatten(1)
        scores: Tensor = self.head(self.dropout(torch.tanh(self.hidden(found))))
        return scores.view(units, records, -1)


def _halved(side: int, times: int) -> int:
    for _ in range(times):
        side = (side + 1) // 2
    return side

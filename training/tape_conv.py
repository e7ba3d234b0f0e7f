"""Convolutions on the tape: per-unit norms from patches that are unfolded once and dropped, sums by one ordinary weight gradient.

Guarantee: `Convolved.settle` measures the gradient that is summed, for groups, strides, dilations and every padding mode.
Assumption: as in `training.tape_norms`. Not covered: transposed and three-dimensional convolutions (not in the tape's list).
Source: norms of unfolded patches, Bu et al. 2022 (2205.10683); the sum is autograd's own weight gradient of scaled output gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.tape_norms import Part, Settled, cheapest, of_direct, scaled, square_norms

_PATCH_NUMBERS = 1 << 23  # of unfolded patches held at once
_NO_WEIGHT_MEMORY = 2  # a kept per-unit gradient may be this many times as large as the layer's input and output


@dataclass(frozen=True, slots=True)
class Geometry:
    """A convolution as two-dimensional. weight_shape: [out, in / groups, height, width]."""

    weight_shape: tuple[int, int, int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    @classmethod
    def of(cls, layer: nn.Conv1d | nn.Conv2d) -> tuple[Geometry, list[int], str]:
        """(geometry, padding to apply before it, its mode); uneven or reflecting padding is applied before."""
        shape, flat = tuple(layer.weight.shape), isinstance(layer, nn.Conv1d)
        before: list[int] = []
        padding: Any = layer.padding
        if layer.padding_mode != "zeros" or padding == "same":
            before, padding = list(layer._reversed_padding_repeated_twice), (0,) * len(layer.stride)
        elif padding == "valid":
            padding = (0,) * len(layer.stride)

        def both(values: Any, fill: int) -> tuple[int, int]:
            return (fill, int(values[0])) if flat else (int(values[0]), int(values[1]))

        weight: Any = (shape[0], shape[1], 1, shape[2]) if flat else shape
        geometry = cls(weight, both(layer.stride, 1), both(padding, 0), both(layer.dilation, 1), layer.groups)
        return geometry, before, "constant" if layer.padding_mode == "zeros" else layer.padding_mode

    def backward(self, gradient: Tensor, x: Tensor, weight: Tensor, inputs: bool) -> Tensor:
        """The input gradient, or the weight gradient."""
        run = torch.ops.aten.convolution_backward
        rest = (self.stride, self.padding, self.dilation, False, [0, 0], self.groups)
        found: Tensor = run(gradient, x, weight, None, *rest, [inputs, not inputs, False])[0 if inputs else 1]
        return found


@dataclass(frozen=True, slots=True)
class Convolved:
    """x: [units * k, in, height, width]; gradient: [units * k, out, ...]; the input and the output gradient of one use."""

    x: Tensor
    gradient: Tensor
    geometry: Geometry
    units: int

    def add_to(self, total: Tensor, factors: Tensor | None) -> None:
        weighted = self.gradient
        if factors is not None:
            weighted = scaled(weighted, factors.repeat_interleave(len(self.x) // self.units))
        kind = weighted.dtype if weighted.is_cuda else total.dtype
        weighted, x = weighted.to(kind), self.x.to(kind)
        shape = self.geometry.weight_shape
        found = self.geometry.backward(weighted, x, torch.empty(shape, dtype=kind, device=x.device), inputs=False)
        total.view(shape).add_(found.to(total.dtype))

    def without(self, bad: Tensor) -> Part:
        each = bad.repeat_interleave(len(self.x) // self.units).view(-1, 1, 1, 1)
        return Convolved(torch.where(each, 0.0, self.x), torch.where(each, 0.0, self.gradient), self.geometry, self.units)

    def settle(self, keep: bool) -> Settled:
        """keep: whether the per-unit gradient may take the place of input and output gradient."""
        positions = len(self.x) // self.units * self.gradient[0, 0].numel()
        shape, groups = self.geometry.weight_shape, self.geometry.groups
        rows, columns = shape[0] // groups, shape[1] * shape[2] * shape[3]
        if cheapest(positions, rows, columns, keep=False) == "gram" and positions > 1:
            return self._by_gram(positions)
        small = self.units * shape[0] * columns <= _NO_WEIGHT_MEMORY * (self.x.numel() + self.gradient.numel())
        if keep and small:
            return of_direct(self.direct())
        squares = [square_norms(value) for value in self._gradients()]
        return Settled(torch.cat(squares), square_norms(self._all(self.x)) * square_norms(self._all(self.gradient)), self)

    def direct(self) -> Tensor:
        """[units, *weight_shape]."""
        return torch.cat(list(self._gradients())).view(self.units, *self.geometry.weight_shape)

    def _gradients(self) -> Iterator[Tensor]:
        """[some units, groups, out / groups, columns], a part of the units at a time."""
        for row, col, units in self._patches():
            each = torch.matmul(row, col.transpose(2, 3))
            yield each if len(each) == units else each.view(units, -1, *each.shape[1:]).sum(1)

    def _by_gram(self, positions: int) -> Settled:
        squares, rounding = [], []
        for row, col, units in self._patches():
            if len(row) != units:  # the records of a unit follow each other along positions
                row, col = (x.view(units, -1, *x.shape[1:]).permute(0, 2, 3, 1, 4).flatten(3) for x in (row, col))
            product = torch.matmul(row.transpose(2, 3), row) * torch.matmul(col.transpose(2, 3), col)
            squares.append(product.sum((1, 2, 3)).double().clamp_(min=0.0))
            rounding.append(positions * torch.diagonal(product, dim1=2, dim2=3).sum((1, 2), dtype=torch.float64))
        return Settled(torch.cat(squares), torch.cat(rounding), self)

    def _patches(self) -> Iterator[tuple[Tensor, Tensor, int]]:
        """(output gradients [n, groups, out / groups, positions], patches [n, groups, columns, positions], units)."""
        geometry, records = self.geometry, len(self.x) // self.units
        height, width = geometry.weight_shape[2:]
        per_unit = records * self.x.shape[1] * height * width * self.gradient[0, 0].numel()
        step = max(1, _PATCH_NUMBERS // max(1, per_unit))
        kind = torch.float64 if self.x.dtype == torch.float64 else torch.float32
        for start in range(0, self.units, step):
            part = slice(start * records, min(start + step, self.units) * records)
            x, gradient = self.x[part].to(kind), self.gradient[part].to(kind)
            col = functional.unfold(x, (height, width), geometry.dilation, geometry.padding, geometry.stride)
            groups, n = geometry.groups, len(x)
            yield gradient.reshape(n, groups, -1, col.shape[2]), col.view(n, groups, -1, col.shape[2]), n // records

    def _all(self, x: Tensor) -> Tensor:
        return x.reshape(self.units, -1)

"""Convolutions on the tape: norms from patches that are unfolded once and dropped, sums by one ordinary weight gradient.

Guarantee: `Convolved.settle` measures the gradient that is summed, for groups, strides, dilations and every padding mode.
Assumption: as in `training.tape_norms`. Not covered: transposed and three-dimensional convolutions (not in the tape's list).
Source: norms of unfolded patches, Bu et al. 2022 (2205.10683); the sum is the weight gradient of scaled output gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.tape_norms import Part, Settled, cheapest, square_norms

_PATCH_NUMBERS = 1 << 20  # of unfolded patches held at once
_KEPT_ROOM = 4  # a kept per-unit gradient may be this many times as large as the layer's input and output


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

    def patches(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """[n, groups, positions, height * width * in / groups]: what each output position saw. size: of the output.

        Channels come last, so that a patch is copied in long runs (a third faster than torch's unfold).
        """
        padded = functional.pad(x, (self.padding[1], self.padding[1], self.padding[0], self.padding[0]))
        last = padded.permute(0, 2, 3, 1).contiguous()
        n, down, right, channel = last.stride()
        share = self.weight_shape[1]
        steps = (self.stride[0] * down, self.stride[1] * right, self.dilation[0] * down, self.dilation[1] * right)
        sizes = (len(x), self.groups, *size, *self.weight_shape[2:], share)
        return last.as_strided(sizes, (n, share * channel, *steps, channel)).flatten(4).flatten(2, 3)

    def of_patches(self, x: Tensor) -> Tensor:
        """x [..., out, height * width * in / groups] in the order of the weight: [..., *weight_shape]; a view."""
        out, share, height, width = self.weight_shape
        return x.view(*x.shape[:-2], out, height, width, share).movedim(-1, -3)

    def backward(self, gradient: Tensor, x: Tensor, weight: Tensor, inputs: bool) -> Tensor:
        """The input gradient, or the weight gradient."""
        run = torch.ops.aten.convolution_backward
        rest = (self.stride, self.padding, self.dilation, False, [0, 0], self.groups)
        # TF32 is the default of convolutions on an accelerator, and would round otherwise than the norm that was measured.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False) if x.is_cuda else nullcontext():
            found: Tensor = run(gradient, x, weight, None, *rest, [inputs, not inputs, False])[0 if inputs else 1]
        return found


@dataclass(frozen=True, slots=True)
class _Kept:
    """value: [units, out, columns], per-unit gradients in the order of patches; only their sum is put in the weight's order."""

    value: Tensor
    geometry: Geometry

    def add_to(self, total: Tensor, factors: Tensor) -> None:
        found = torch.mv(self.value.flatten(1).t().to(total.dtype), factors).view(self.value.shape[1:])
        total.view(self.geometry.weight_shape).add_(self.geometry.of_patches(found))

    def without(self, bad: Tensor) -> Part:
        return _Kept(torch.where(bad.view(-1, 1, 1), 0.0, self.value), self.geometry)


@dataclass(frozen=True, slots=True)
class Convolved:
    """x: [units * k, in, height, width]; gradient: [units * k, out, ...]; the input and the output gradient of one use."""

    x: Tensor
    gradient: Tensor
    geometry: Geometry
    units: int

    def add_to(self, total: Tensor, factors: Tensor) -> None:
        # Never in bfloat16: a sum that is rounded can move by more than the unit that was added to it.
        kind, each = total.dtype, factors.repeat_interleave(len(self.x) // self.units).view(-1, 1, 1, 1)
        weighted, x = self.gradient.to(kind) * each.to(kind), self.x.to(kind)
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
        small = self.units * shape[0] * columns <= _KEPT_ROOM * (self.x.numel() + self.gradient.numel())
        if cheapest(positions, rows, columns, keep and small) == "gram" and positions > 1:
            return self._by_gram(positions)
        if keep and small:
            value, squares = self._kept()
            return Settled(squares, None, _Kept(value, self.geometry))
        squares = torch.cat([square_norms(value) for value in self._gradients()]).view(self.units, -1).sum(1)
        return Settled(squares, square_norms(self._all(self.x)) * square_norms(self._all(self.gradient)), self)

    def direct(self) -> Tensor:
        """[units, *weight_shape]."""
        return self.geometry.of_patches(self._kept()[0])

    def _kept(self) -> tuple[Tensor, Tensor]:
        """([units, out, columns], float64 [units] squared norms), measured while a part is still in the cache."""
        shape, groups = self.geometry.weight_shape, self.geometry.groups
        value = torch.empty((self.units * groups, shape[0] // groups, shape[1] * shape[2] * shape[3]), **self._wide)
        squares, done = [], 0
        for part in self._gradients(value):
            if part.data_ptr() != value[done:].data_ptr():
                value[done : done + len(part)] = part
            done += len(part)
            squares.append(square_norms(part))
        return value.view(self.units, shape[0], -1), torch.cat(squares).view(self.units, -1).sum(1)

    def _gradients(self, into: Tensor | None = None) -> Iterator[Tensor]:
        """[some units * groups, out / groups, columns], a part of the units at a time; written to `into` where that is easy."""
        groups = self.geometry.groups
        if self.geometry.weight_shape[1] == 1 and groups == 1 and not self.x.is_cuda:
            found = self._of_one_channel()
            yield found if len(found) == self.units else found.view(self.units, -1, *found.shape[1:]).sum(1)
            return
        done = 0
        for row, col, units in self._patches():
            row, col, count = row.flatten(0, 1), col.flatten(0, 1), units * groups
            if len(row) == count:
                yield torch.bmm(row, col) if into is None else torch.bmm(row, col, out=into[done : done + count])
            else:
                each = torch.bmm(row, col)
                yield each.view(units, -1, groups, *each.shape[1:]).sum(1).flatten(0, 1)
            done += count

    @property
    def _wide(self) -> dict[str, Any]:
        return {"dtype": torch.float64 if self.x.dtype == torch.float64 else torch.float32, "device": self.x.device}

    def _of_one_channel(self) -> Tensor:
        """[units * k, out, columns] without patches: each image convolved with its own output gradient (stride and dilation
        change places). With more input channels, unfolding is faster."""
        geometry = self.geometry
        height, width = geometry.weight_shape[2:]
        kernels = self.gradient.reshape(-1, 1, *self.gradient.shape[2:]).to(**self._wide)
        images = self.x.transpose(0, 1).to(**self._wide)
        found = functional.conv2d(images, kernels, None, geometry.dilation, geometry.padding, geometry.stride, len(self.x))
        return found[0, :, :height, :width].reshape(len(self.x), -1, height * width)

    def _by_gram(self, positions: int) -> Settled:
        squares, rounding = [], []
        for row, col, units in self._patches():
            if len(row) != units:  # the records of a unit follow each other along positions
                row = row.view(units, -1, *row.shape[1:]).permute(0, 2, 3, 1, 4).flatten(3)
                col = col.view(units, -1, *col.shape[1:]).transpose(1, 2).flatten(2, 3)
            row, col = row.flatten(0, 1), col.flatten(0, 1)
            product = torch.bmm(row.transpose(1, 2), row) * torch.bmm(col, col.transpose(1, 2))
            product = product.view(units, -1, positions, positions)
            squares.append(product.sum((1, 2, 3)).double().clamp_(min=0.0))
            rounding.append(positions * torch.diagonal(product, dim1=2, dim2=3).sum((1, 2), dtype=torch.float64))
        return Settled(torch.cat(squares), torch.cat(rounding), self)

    def _patches(self) -> Iterator[tuple[Tensor, Tensor, int]]:
        """(output gradients [n, groups, out / groups, positions], patches [n, groups, positions, columns], units)."""
        geometry, records = self.geometry, len(self.x) // self.units
        height, width = geometry.weight_shape[2:]
        per_unit = records * self.x.shape[1] * height * width * self.gradient[0, 0].numel()
        step = max(1, _PATCH_NUMBERS // max(1, per_unit))
        for start in range(0, self.units, step):
            part = slice(start * records, min(start + step, self.units) * records)
            x, gradient = self.x[part].to(**self._wide), self.gradient[part].to(**self._wide)
            groups, n, positions = geometry.groups, len(x), gradient[0, 0].numel()
            yield gradient.reshape(n, groups, -1, positions), geometry.patches(x, gradient.shape[2:]), n // records

    def _all(self, x: Tensor) -> Tensor:
        return x.reshape(self.units, -1)

"""Per-unit norms and clipped sums of what a backward pass leaves behind, mostly without a gradient for every unit.

A part is one parameter's share of every unit's gradient in factored form: `Direct` holds it, `Outer` is a sum over positions of
row ⊗ column (linear maps), `Rows` are rows of a table (embeddings), `Tied` is a table that is a linear map, too.
Guarantee: `settle` gives squared norms of exactly what `add_to` later sums, and beside them what rounding may hide
(`rounding`): a bound on the squared norm before cancellation, of which `clip_factors` adds a small share where much cancelled.
Everything is float32 or wider.
Assumption: float32 products lose at most a share `_LOST` of that bound (16 units in the last place of a dot product in blocks;
`training.tape` refuses TF32). Not covered: a unit whose numbers overflow float32; its norm is infinite, and it is dropped.
Source: book-keeping, Bu et al. 2023 (2210.00038); Gram form, Goodfellow 2015 (1510.01799), Li et al. 2021 (2110.05679).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

MARGIN = 2.0**-12  # units are clipped to this share below the norm: float32 sums and norms round by far less
_LOST = 2.0**-20
_LOST_HALF = 2.0**-8  # a clip factor times a bfloat16 number, rounded to bfloat16 again before the sum
_KEPT_COST = 32  # of a kept per-unit gradient, in multiply-adds for each entry (three passes over memory; measured on CPU)
_KEPT_ROOM = 2  # a per-unit gradient is kept in place of its factors up to this many times their size
_TINY = 1e-37  # added to squares of output gradients, so that large inputs can't hide behind a product that underflows


class Part(Protocol):
    """One parameter's share of the gradients of all units."""

    def add_to(self, total: Tensor, factors: Tensor) -> None:
        """total += sum over units of factor * gradient. total: [*parameter]. factors: [units], of total's type."""

    def without(self, bad: Tensor) -> Part:
        """The same with the gradients of the units `bad` (bool [units]) exactly zero, even where they were not finite."""


@dataclass(frozen=True, slots=True)
class Settled:
    """squares: [units], squared norms. rounding: [units] or None, squared norms before cancellation. part: what to sum."""

    squares: Tensor
    rounding: Tensor | None
    part: Part


@dataclass(frozen=True, slots=True)
class Direct:
    """value: [units, *parameter], the gradients themselves."""

    value: Tensor

    def add_to(self, total: Tensor, factors: Tensor) -> None:
        total.view(-1).addmv_(self.value.reshape(len(factors), -1).t().to(total.dtype), factors)

    def without(self, bad: Tensor) -> Part:
        return Direct(_zeroed(self.value, bad))


@dataclass(frozen=True, slots=True)
class Outer:
    """row: [units, positions, rows], col: [units, positions, columns]; the gradient is the sum over positions of row ⊗ col."""

    row: Tensor
    col: Tensor

    def add_to(self, total: Tensor, factors: Tensor) -> None:
        row, col = self.row, self.col
        time_major = row.stride(0) < row.stride(1) and col.stride(0) < col.stride(1)  # as stacked; both go the same way
        if row.shape[2] < col.shape[2]:
            row = scaled(row, factors)
        else:
            col = scaled(col, factors)
        add_product(total, _flat(row, time_major), _flat(col, time_major))

    def without(self, bad: Tensor) -> Part:
        return Outer(_zeroed(self.row, bad), _zeroed(self.col, bad))

    def direct(self) -> Tensor:
        """[units, rows, columns]."""
        return _bmm(self.row.transpose(1, 2), self.col)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a table, each (unit, id) once. unit, ids: int64 [n]. value: [n, width]. units: how many there are."""

    unit: Tensor
    ids: Tensor
    value: Tensor
    units: int

    @classmethod
    def collect(cls, ids: Tensor, gradient: Tensor, rows: int, padding: int | None) -> Rows:
        """ids: int64 [units, positions]; gradient: [units, positions, width] of the rows looked up. Sorted, never dense."""
        units = len(ids)
        keys = (ids + rows * torch.arange(units, device=ids.device).unsqueeze(1)).flatten()
        found, where = torch.unique(keys, return_inverse=True)
        value = torch.zeros((len(found), gradient.shape[-1]), dtype=_wide(gradient).dtype, device=gradient.device)
        value.index_add_(0, where, _wide(gradient.reshape(-1, gradient.shape[-1])))
        unit, looked_up = found // rows, found % rows
        if padding is not None:
            kept = looked_up != padding
            unit, looked_up, value = unit[kept], looked_up[kept], value[kept]
        return cls(unit, looked_up, value, units)

    def squares(self) -> Tensor:
        each = torch.linalg.vector_norm(self.value, dim=1).double().square()
        return torch.zeros(self.units, dtype=torch.float64, device=each.device).index_add_(0, self.unit, each)

    def add_to(self, total: Tensor, factors: Tensor) -> None:
        value = self.value * factors.to(self.value.dtype)[self.unit, None]
        total.index_add_(0, self.ids, value.to(total.dtype))

    def without(self, bad: Tensor) -> Part:
        return Rows(self.unit, self.ids, torch.where(bad[self.unit, None], 0.0, self.value), self.units)


@dataclass(frozen=True, slots=True)
class Tied:
    """A table that is looked up and multiplied with (embedding and head), or any other mix of the parts of one parameter."""

    parts: tuple[Part, ...]

    def add_to(self, total: Tensor, factors: Tensor) -> None:
        for part in self.parts:
            part.add_to(total, factors)

    def without(self, bad: Tensor) -> Part:
        return Tied(tuple(part.without(bad) for part in self.parts))


class Grams:
    """Gram matrices over positions; the last few are remembered, since query, key and value share their input."""

    def __init__(self) -> None:
        self._last: list[tuple[Tensor, Tensor]] = []

    def of(self, x: Tensor) -> Tensor:
        """[units, positions, positions]. x: [units, positions, width]."""
        for known, gram in self._last:  # a remembered tensor is alive, so its address can't be another tensor's
            if known.data_ptr() == x.data_ptr() and known.shape == x.shape and known.stride() == x.stride():
                return gram
        gram = _bmm(x, x.transpose(1, 2))
        self._last = [*self._last[-1:], (x, gram)]
        return gram

    def clear(self) -> None:
        self._last.clear()


def settle(parts: Sequence[Part], grams: Grams, keep: bool = True) -> Settled:
    """Squared norms of one parameter's gradients, with all its uses in one backward pass joined exactly.

    keep: whether a per-unit gradient may be kept where that is cheaper than to sum from the factors again.
    """
    outer = join([part for part in parts if isinstance(part, Outer)])
    rows = _join_rows([part for part in parts if isinstance(part, Rows)])
    direct = [part for part in parts if isinstance(part, Direct)]
    if direct and rows is not None:
        raise TypeError("a table that is also used coordinate by coordinate has no factored form")
    if direct:
        value = sum((part.value for part in direct[1:]), direct[0].value)
        return of_direct(value + outer.direct().view_as(value) if outer else value)
    if rows is not None:
        return _tied(rows, outer, grams) if outer else Settled(rows.squares(), None, rows)
    assert outer is not None
    return of_outer(outer, grams, keep)


def of_direct(value: Tensor) -> Settled:
    return Settled(square_norms(value), None, Direct(value))


def of_outer(part: Outer, grams: Grams, keep: bool = True) -> Settled:
    """By the cheapest of: the gradients themselves (kept or not), or two Gram matrices over positions."""
    positions, rows, columns = part.row.shape[1], part.row.shape[2], part.col.shape[2]
    if positions == 1:  # nothing is added, so nothing cancels: |row|² |col|²
        squares = (square_norms(part.row) + _TINY) * (square_norms(part.col) + _TINY)
        return Settled(squares, None, part)
    plan = cheapest(positions, rows, columns, keep and rows * columns <= _KEPT_ROOM * positions * (rows + columns))
    if plan == "gram":
        return _by_gram(part, grams)
    value = part.direct()
    if plan == "kept":
        return of_direct(value)
    return Settled(square_norms(value), _before_cancelling(part), part)


def cheapest(positions: int, rows: int, columns: int, keep: bool) -> str:
    """One of gram, kept, direct: what a unit's norm costs beyond the ordinary sum, in multiply-adds (measured constants)."""
    entries = rows * columns
    gram = positions**2 * ((1.1 if positions >= 32 else 2.0) * (rows + columns) + 6)
    if keep and _KEPT_COST * entries < gram:
        return "kept"
    return "gram" if gram < 1.2 * positions * entries + _KEPT_COST / 2 * entries else "direct"


def square_norms(x: Tensor) -> Tensor:
    """float64 [units] of x [units, ...]: float32 inside short stretches, float64 across them.

    A float32 norm of the whole would lose small entries beside a large partial sum.
    """
    flat = _wide(x).reshape(len(x), -1)
    width = flat.shape[1]
    stretch = next((size for size in (512, 256, 128, 64) if width % size == 0), 0)
    if stretch or width <= 512:
        norms: Tensor = torch.linalg.vector_norm(flat.view(len(x), -1, stretch or width), dim=2)
        return norms.double().square().sum(1)
    return flat.square().sum(1, dtype=torch.float64) if flat.dtype == torch.float64 else flat.square().double().sum(1)


def clip_factors(squares: Tensor, rounding: Tensor, half: Tensor, clipping_norm: float) -> tuple[Tensor, Tensor]:
    """(float64 [units] factors in [0, 1], bool [units] units that are not finite and get 0).

    rounding: summed bounds before cancellation. half: the part of them whose sums are made of bfloat16 products.
    Guarantee: factor * norm <= clipping_norm for the gradient that is summed, not only for the one that was measured; a unit
    that is below the norm by MARGIN keeps its gradient as it is.
    """
    hidden = (_LOST * rounding - MARGIN * squares).clamp(min=0.0)  # MARGIN covers a relative error of as much in a square
    norms = (squares + hidden).sqrt() + _LOST_HALF * half.sqrt()
    bad = ~torch.isfinite(norms) | (norms >= 1e18)
    factors = (clipping_norm * (1 - MARGIN) / norms.clamp(min=torch.finfo(torch.float64).tiny)).clamp(max=1.0)
    return torch.where(bad, 0.0, factors), bad


def join(parts: Sequence[Outer]) -> Outer | None:
    """The uses of one linear map in one backward pass, one after the other along positions."""
    if len(parts) < 2:
        return parts[0] if parts else None
    if all(part.row.shape[1] == 1 for part in parts):  # steps of a recurrent layer: stack them time-major, without transposing
        rows, cols = (torch.stack([x.squeeze(1) for x in side]) for side in zip(*((p.row, p.col) for p in parts), strict=True))
        return Outer(rows.transpose(0, 1), cols.transpose(0, 1))
    return Outer(torch.cat([part.row for part in parts], 1), torch.cat([part.col for part in parts], 1))


def add_product(total: Tensor, row: Tensor, col: Tensor) -> None:
    """total [rows, columns] += row^T col, in total's precision. row: [n, rows], col: [n, columns]."""
    flat = total.view(row.shape[1], col.shape[1])
    if row.dtype != total.dtype and row.dtype == col.dtype and row.is_cuda:
        flat.add_(torch.mm(row.t(), col, out_dtype=total.dtype))
        return
    flat.addmm_(row.to(total.dtype).t(), col.to(total.dtype))


def scaled(x: Tensor, factors: Tensor) -> Tensor:
    """x [units, ...] times its unit's factor; on an accelerator bfloat16 stays bfloat16 (see `_LOST_HALF`)."""
    shape = (-1, *(1 for _ in x.shape[1:]))
    if x.is_cuda and x.dtype in (torch.bfloat16, torch.float16):
        return (x.float() * factors.float().view(shape)).to(x.dtype)
    wide = _wide(x)
    return wide * factors.to(wide.dtype).view(shape)


def _by_gram(part: Outer, grams: Grams) -> Settled:
    rows, cols = grams.of(part.row), grams.of(part.col)
    product = rows * cols
    own = torch.diagonal(product, dim1=1, dim2=2).sum(1, dtype=torch.float64)
    hidden = _TINY * torch.diagonal(cols, dim1=1, dim2=2).sum(1, dtype=torch.float64)
    squares = product.sum((1, 2)).double().clamp_(min=0.0) + hidden
    return Settled(squares, part.row.shape[1] * own, part)


def _before_cancelling(part: Outer) -> Tensor:
    """(sum over positions of |row| |col|)², by Cauchy and Schwarz at most |rows|² |columns|²."""
    return square_norms(part.row) * square_norms(part.col)


def _tied(rows: Rows, outer: Outer, grams: Grams) -> Settled:
    """|E + H|² = |E|² + |H|² + 2<E, H>, where E has few rows: <E, H> = sum over its rows of <row, H's row of that id>."""
    head = of_outer(outer, grams, keep=False)
    cross = torch.zeros(rows.units, dtype=torch.float64, device=rows.value.device)
    order = torch.argsort(rows.unit, stable=True)
    counts = torch.bincount(rows.unit, minlength=rows.units)
    most = int(counts.max())
    place = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[rows.unit[order]]
    # [units, most, ...]: each unit's rows, padded with rows of zeros
    ids = torch.zeros((rows.units, most), dtype=torch.int64, device=order.device)
    value = rows.value.new_zeros((rows.units, most, rows.value.shape[1]))
    ids[rows.unit[order], place], value[rows.unit[order], place] = rows.ids[order], rows.value[order]
    picked = _wide(outer.row).gather(2, ids.unsqueeze(1).expand(-1, outer.row.shape[1], -1))
    product = picked * _bmm(outer.col, value.to(outer.col.dtype).transpose(1, 2))
    cross += product.sum((1, 2)).double()
    table = rows.squares()
    loose = (_before_cancelling(outer) if head.rounding is None else head.rounding) + table
    return Settled((table + head.squares + 2 * cross).clamp_(min=0.0), 4 * loose, Tied((rows, outer)))


def _join_rows(parts: Sequence[Rows]) -> Rows | None:
    if len(parts) < 2:
        return parts[0] if parts else None
    unit, ids = torch.cat([p.unit for p in parts]), torch.cat([p.ids for p in parts])
    table = int(ids.max()) + 1 if len(ids) else 1
    found, where = torch.unique(unit * table + ids, return_inverse=True)
    values = torch.cat([p.value for p in parts])
    value = values.new_zeros((len(found), values.shape[1])).index_add_(0, where, values)
    return Rows(found // table, found % table, value, parts[0].units)


def _bmm(left: Tensor, right: Tensor) -> Tensor:
    """Batched product in float32 or wider; bfloat16 factors are never rounded in between."""
    if left.dtype in (torch.bfloat16, torch.float16) and left.is_cuda:
        product: Tensor = torch.bmm(left, right, out_dtype=torch.float32)
        return product
    return torch.bmm(_wide(left), _wide(right))


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _flat(x: Tensor, time_major: bool) -> Tensor:
    """[units * positions, width]; the order of a sum is free, so time-major factors stay as they lie in memory."""
    return (x.transpose(0, 1) if time_major else x).reshape(-1, x.shape[2])


def _zeroed(x: Tensor, bad: Tensor) -> Tensor:
    return torch.where(bad.view(-1, *(1 for _ in x.shape[1:])), torch.zeros((), dtype=x.dtype, device=x.device), x)

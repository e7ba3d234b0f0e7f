"""Norms in every form against the gradients themselves, and numbers chosen to hide from float32."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from training.tape_conv import Convolved, Geometry
from training.tape_norms import (
    MARGIN,
    Direct,
    Grams,
    Outer,
    Part,
    Rows,
    cheapest,
    clip_factors,
    join,
    of_outer,
    settle,
    square_norms,
)


def outer(row: Tensor, col: Tensor) -> Outer:
    return Outer(row.float(), col.float())


def contributes(part: Part, units: int, shape: tuple[int, ...], factors: Tensor) -> Tensor:
    """float64 [units]: the norm of what `add_to` sums for each unit, one at a time, in float32."""
    found = []
    for unit in range(units):
        total = torch.zeros(shape)
        alone = torch.zeros(units)
        alone[unit] = factors[unit]
        part.add_to(total, alone)
        found.append(total.double().square().sum().sqrt())
    return torch.stack(found)


def clipped(part: Outer, clipping_norm: float, keep: bool) -> tuple[Tensor, Part]:
    found = of_outer(part, Grams(), keep)
    nothing = torch.zeros_like(found.squares)
    factors, bad = clip_factors(found.squares, nothing if found.rounding is None else found.rounding, nothing, clipping_norm)
    assert not bad.any()
    return factors, found.part


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 4), st.integers(1, 60), st.integers(1, 60), st.integers(1, 60), st.booleans())
def test_every_form_of_a_norm_is_that_of_the_gradient(units: int, positions: int, rows: int, columns: int, keep: bool) -> None:
    torch.manual_seed(0)
    part = Outer(torch.randn(units, positions, rows).double(), torch.randn(units, positions, columns).double())
    found = of_outer(part, Grams(), keep)
    whole = torch.einsum("upr,upc->urc", part.row, part.col)
    assert torch.allclose(found.squares, whole.square().sum((1, 2)), rtol=1e-9)
    total = torch.zeros(rows, columns, dtype=torch.float64)
    factors = torch.rand(units).double()
    found.part.add_to(total, factors)
    assert torch.allclose(total, torch.einsum("u,urc->rc", factors, whole))


def test_each_form_is_chosen_somewhere() -> None:
    forms = {cheapest(p, r, c, keep) for p in (2, 64, 1024) for r in (2, 64, 2048) for c in (2, 64) for keep in (True, False)}
    assert forms == {"gram", "kept", "direct"}


def lone_giant(positions: int, width: int) -> tuple[Tensor, Tensor]:
    """One huge entry beside many small ones, which a running float32 sum would swallow."""
    row, col = torch.full((2, positions, width), 1e-3), torch.full((2, positions, width), 1e-3)
    row[:, 0, 0] = col[:, 0, 0] = 1e4
    return row, col


def cancelling(positions: int, width: int) -> tuple[Tensor, Tensor]:
    """Large terms that almost cancel: the Gram form sees the difference of huge sums."""
    torch.manual_seed(1)
    row, col = torch.randn(2, positions // 2, width) * 30, torch.randn(2, positions // 2, width) * 30
    noise = 1e-4 * torch.randn_like(row)
    return torch.cat([row, -row + noise], 1), torch.cat([col, col], 1)


def exact_cancelling(positions: int, width: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(2)
    row, col = torch.randn(2, positions // 2, width) * 1e5, torch.randn(2, positions // 2, width) * 1e5
    return torch.cat([row, -row], 1), torch.cat([col, col], 1)


def biased_rounding(positions: int, width: int) -> tuple[Tensor, Tensor]:
    """Every product rounds the same way."""
    value = 1.0 + 2.0**-12 + 2.0**-23
    return torch.full((2, positions, width), value), torch.full((2, positions, width), value)


def underflow(positions: int, width: int) -> tuple[Tensor, Tensor]:
    """Squares of the output gradients are below float32; the inputs are as large as that takes."""
    return torch.full((2, positions, width), 1e-23), torch.full((2, positions, width), 1e16)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize(("positions", "width"), [(2, 512), (64, 48), (64, 700), (512, 24)])
@pytest.mark.parametrize("numbers", [lone_giant, cancelling, exact_cancelling, biased_rounding, underflow])
@pytest.mark.parametrize("clipping_norm", [1e-3, 1.0, 30.0])
def test_no_unit_exceeds_the_clipping_norm_by_rounding(
    numbers: object, positions: int, width: int, keep: bool, clipping_norm: float
) -> None:
    part = outer(*numbers(positions, width))  # type: ignore[operator]
    factors, kept = clipped(part, clipping_norm, keep)
    exact = torch.einsum("upr,upc->urc", part.row.double(), part.col.double()).flatten(1).norm(dim=1)
    assert bool((factors * exact <= clipping_norm).all())
    # what is summed in float32, its own rounding included
    assert bool((contributes(kept, 2, (width, width), factors.float()) <= clipping_norm).all())


def test_cancelling_numbers_would_get_past_a_gram_norm_alone() -> None:
    """The guard is needed: these gradients are zero, their float32 sum is not, so the exact norm would let them pass."""
    part = outer(*exact_cancelling(64, 700))
    found = of_outer(part, Grams(), keep=False)
    nothing = torch.zeros_like(found.squares)
    trusting, _ = clip_factors(nothing, nothing, nothing, 1e-3)
    assert bool((contributes(found.part, 2, (700, 700), trusting.float()) > 1e-3).any())
    assert found.rounding is not None


def test_a_unit_below_the_norm_keeps_its_gradient() -> None:
    squares = torch.tensor([0.0, 0.25, 1.0, 4.0, float("nan"), float("inf")], dtype=torch.float64)
    factors, bad = clip_factors(squares, torch.zeros(6).double(), torch.zeros(6).double(), 1.0)
    assert factors.tolist() == [1.0, 1.0, 1 - MARGIN, (1 - MARGIN) / 2, 0.0, 0.0]
    assert bad.tolist() == [False, False, False, False, True, True]


@pytest.mark.parametrize("width", [3, 64, 500, 640, 5001, 1 << 22])
def test_square_norms_do_not_lose_small_entries(width: int) -> None:
    """A running float32 sum of the last one loses a thousandth of it."""
    x = torch.full((1, width), 1e-4)
    x[0, 0] = 1.0
    assert float(square_norms(x)[0]) == pytest.approx(float(x.double().square().sum()), rel=2e-6)


def test_rows_are_joined_by_unit_and_id_and_padding_is_left_out() -> None:
    ids = torch.tensor([[1, 1, 0], [2, 0, 1]])
    gradient = torch.ones(2, 3, 2)
    rows = Rows.collect(ids, gradient, rows=5, padding=0)
    assert sorted(zip(rows.unit.tolist(), rows.ids.tolist(), strict=True)) == [(0, 1), (1, 1), (1, 2)]
    assert rows.squares().tolist() == pytest.approx([8.0, 4.0])
    twice = settle([rows, rows], Grams())
    assert twice.squares.tolist() == pytest.approx([32.0, 16.0])
    total = torch.zeros(5, 2)
    twice.part.add_to(total, torch.tensor([1.0, 0.5]))
    assert total[:, 0].tolist() == [0.0, 5.0, 1.0, 0.0, 0.0]


def test_uses_of_one_step_are_stacked_and_of_many_are_joined() -> None:
    torch.manual_seed(4)
    steps = [Outer(torch.randn(3, 1, 4), torch.randn(3, 1, 5)) for _ in range(6)]
    whole = sum(torch.einsum("upr,upc->urc", s.row, s.col) for s in steps)
    for parts in (steps, [*steps[:2], join(steps[2:])]):
        found = settle(parts, Grams())  # type: ignore[arg-type]
        assert torch.allclose(found.squares.float(), whole.square().sum((1, 2)), rtol=1e-5)  # type: ignore[union-attr]
        total = torch.zeros(4, 5)
        found.part.add_to(total, torch.ones(3))
        assert torch.allclose(total, whole.sum(0), atol=1e-5)  # type: ignore[union-attr]


def test_a_table_read_coordinate_by_coordinate_is_refused() -> None:
    rows = Rows.collect(torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1, 2), 3, None)
    with pytest.raises(TypeError):
        settle([rows, Direct(torch.ones(1, 3, 2))], Grams())


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("shape", [(2, 4, 3, 3), (40, 40, 2, 2)])
def test_a_convolution_in_parts_is_that_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, keep: bool, shape: tuple[int, int, int, int]
) -> None:
    """Patches are unfolded for a few units at a time."""
    torch.manual_seed(5)
    geometry = Geometry(shape, (1, 1), (0, 0), (1, 1), 1)
    x, gradient = torch.randn(6, shape[1], 4, 4), torch.randn(6, shape[0], 5 - shape[2], 5 - shape[3])
    whole = Convolved(x, gradient, geometry, 3).settle(keep)
    monkeypatch.setattr("training.tape_conv._PATCH_NUMBERS", 1)
    parts = Convolved(x, gradient, geometry, 3).settle(keep)
    assert torch.allclose(whole.squares, parts.squares, rtol=1e-5)
    direct = Convolved(x.double(), gradient.double(), geometry, 3).direct()
    assert torch.allclose(whole.squares, direct.flatten(1).square().sum(1), rtol=1e-5)

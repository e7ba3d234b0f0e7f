"""Tables that leave: small cells are withheld, and nobody can work them out from the rest."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.disclosure import OTHERS, Table, count_subjects, publishable, publishable_table
from privacy.errors import UsageError

COUNTS = st.integers(0, 60)


def test_a_person_counts_once_a_cell_however_many_rows() -> None:
    assert count_subjects([("a", "u1")] * 50 + [("a", "u2"), ("b", "u1")]) == {"a": 2, "b": 1}


def test_small_cells_and_what_gives_them_away_are_withheld() -> None:
    assert publishable({"a": 30, "b": 40, "c": 50}, 10).cells == {"a": 30, "b": 40, "c": 50}
    alone = publishable({"a": 30, "b": 40, "c": 3}, 10)
    assert (alone.cells, alone.total) == ({"a": None, "b": 40, "c": None}, 73)
    assert publishable({"a": 30, "b": 1, "c": 1}, 10).cells == {"a": None, "b": None, "c": None}  # 32 - 30 would say "2 in all"
    few = publishable({"a": 3, "b": 2}, 10)
    assert (few.cells, few.total) == ({"a": None, "b": None}, None)


@given(st.dictionaries(st.sampled_from("abcdefg"), COUNTS, min_size=1), st.integers(2, 20))
def test_no_withheld_cell_is_known_from_the_total(counts: dict[str, int], minimum: int) -> None:
    found = publishable(counts, minimum)
    assert all(c is None or c >= minimum for c in (*found.cells.values(), found.total))
    assert all(c is None or c == counts[name] for name, c in found.cells.items())
    hidden = [name for name, c in found.cells.items() if c is None]
    if found.total is not None and hidden:
        rest = found.total - sum(c for c in found.cells.values() if c is not None)
        assert len(hidden) > 1  # each of them may be anything from 0 to the rest
        assert rest >= minimum


def test_a_table_of_too_many_rows_has_the_smallest_joined() -> None:
    found = publishable({f"l{n:03d}": 100 + n for n in range(300)}, 10, most_rows=5)
    assert set(found.cells) == {"l296", "l297", "l298", "l299", OTHERS}
    assert found.cells[OTHERS] == sum(100 + n for n in range(296))


def test_a_table_of_two_ways_takes_a_rectangle_with_a_small_cell() -> None:
    found = publishable_table([[20, 3, 50], [30, 40, 60], [70, 80, 90]], 10)
    assert found.cells == ((None, None, 50), (None, None, 60), (70, 80, 90))
    assert (found.rows, found.columns, found.total) == ((73, 130, 240), (120, 123, 200), 443)


def feasible(table: Table, cell: tuple[int, int], most: int) -> set[int]:
    """All values of a withheld cell over all small tables that agree with what is published, by trying every one."""
    height, width = len(table.cells), len(table.cells[0])
    hidden = [(r, c) for r in range(height) for c in range(width) if table.cells[r][c] is None]
    found = set()
    for values in product(range(most + 1), repeat=len(hidden)):
        full = [[table.cells[r][c] or 0 for c in range(width)] for r in range(height)]
        for (r, c), value in zip(hidden, values, strict=True):
            full[r][c] = value
        rows = all(t is None or sum(row) == t for row, t in zip(full, table.rows, strict=True))
        columns = all(t is None or sum(row[c] for row in full) == t for c, t in enumerate(table.columns))
        if rows and columns and (table.total is None or sum(map(sum, full)) == table.total):
            found.add(full[cell[0]][cell[1]])
    return found


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 5), min_size=2, max_size=2), min_size=2, max_size=2))
def test_brute_force_finds_a_wide_range_for_every_withheld_cell(counts: list[list[int]]) -> None:
    minimum = 2
    table = publishable_table(counts, minimum)
    for r, row in enumerate(table.cells):
        for c, value in enumerate(row):
            if value is None:
                values = feasible(table, (r, c), 14)
                assert max(values) - min(values) >= minimum
            else:
                assert value == counts[r][c] >= minimum


def test_the_check_sees_a_table_that_gives_a_cell_away() -> None:
    """Only the small cell withheld: what a naive rule does."""
    naive = Table(((None, 4), (5, 4)), (5, 9), (6, 8), 14)
    assert feasible(naive, (0, 0), 14) == {1}


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.data())
def test_every_table_ends_with_no_small_entry(height: int, width: int, data: st.DataObject) -> None:
    counts = [[data.draw(COUNTS) for _ in range(width)] for _ in range(height)]
    found = publishable_table(counts, 10)
    entries = [*(c for row in found.cells for c in row), *found.rows, *found.columns, found.total]
    assert all(entry is None or entry >= 10 for entry in entries)


@pytest.mark.parametrize("bad", [([], 10), ([[1] * 201], 10), ([[1]], 1), ([[-1]], 10)])
def test_what_is_no_table_of_counts_is_refused(bad: tuple[list[list[int]], int]) -> None:
    with pytest.raises(UsageError, match="E-DISC-00"):
        publishable_table(*bad)

"""Tables of counts that may leave: no small cell, and none that the rest of the table gives away.

Guarantee: an entry (a cell, or a total) is published only when at least `minimum` distinct subjects stand behind it, and
whoever solves the published entries for a withheld one is left with a range of at least `minimum` wide, over all tables of
counts that agree with them. So a withheld entry can't be recomputed from totals.
Method: primary suppression of all small entries, then entries are withheld one after the other, smallest first, until every
withheld one has that range; for a table of two ways the range is found by linear programming (Fischetti and Salazar 2001 call
this the attacker's problem). It ends, at worst with nothing published.
Assumption: counts add up to their totals, and each subject is counted once a cell (`count_subjects`).
Not covered: an attacker who also knows this algorithm and reasons from its choices (minimality attacks, Wong et al. 2007), who
knows some subjects' cells already, or who has another release of the same data. It is no differential privacy.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from privacy.errors import UsageError

Key = TypeVar("Key", bound=Hashable)
MOST_ROWS = 200
OTHERS = "(others)"
_Entry = tuple[int, int]  # row, column; -1 for the total over rows or columns


@dataclass(frozen=True, slots=True)
class Counts:
    """A table of one way. None: withheld."""

    cells: dict[str, int | None]
    total: int | None


@dataclass(frozen=True, slots=True)
class Table:
    """A table of two ways with its totals. None: withheld."""

    cells: tuple[tuple[int | None, ...], ...]
    rows: tuple[int | None, ...]
    columns: tuple[int | None, ...]
    total: int | None


def count_subjects(pairs: Iterable[tuple[Key, Hashable]]) -> dict[Key, int]:
    """How many distinct subjects stand behind each key; pairs: (key, subject), as often as they come."""
    seen: dict[Key, set[Hashable]] = {}
    for key, subject in pairs:
        seen.setdefault(key, set()).add(subject)
    return {key: len(subjects) for key, subjects in seen.items()}


def publishable(counts: Mapping[str, int], minimum: int, most_rows: int = MOST_ROWS) -> Counts:
    """What of `counts` and their sum may leave. At most `most_rows` cells: the smallest beyond them become one, OTHERS."""
    _check(minimum, counts.values())
    capped = _capped(counts, most_rows)
    total = sum(capped.values())
    order = sorted(capped, key=lambda name: capped[name])
    hidden = [name for name in order if capped[name] < minimum]
    for name in order[len(hidden) :]:  # with one cell hidden it is the difference; with a small rest it is nearly so
        if not hidden or (len(hidden) > 1 and sum(capped[n] for n in hidden) >= minimum):
            break
        hidden.append(name)
    safe = not hidden or (len(hidden) > 1 and sum(capped[n] for n in hidden) >= minimum)
    gone = set(hidden)
    return Counts({n: None if n in gone else c for n, c in capped.items()}, total if safe and total >= minimum else None)


def publishable_table(counts: Sequence[Sequence[int]], minimum: int) -> Table:
    """What of a table of two ways may leave; at most MOST_ROWS cells, else UsageError E-DISC-001."""
    cells = np.asarray(counts, dtype=np.int64)
    if cells.ndim != 2 or not cells.size or cells.size > MOST_ROWS:
        raise UsageError("E-DISC-001", f"a table of two ways has 1 to {MOST_ROWS} cells", "Leave out or join rows")
    _check(minimum, cells.ravel().tolist())
    values = dict(_entries(cells))
    hidden = {entry for entry, value in values.items() if value < minimum}
    while unsafe := [entry for entry in sorted(hidden) if _width(entry, hidden, values) < minimum]:
        chosen = {found for entry in unsafe if (found := _next(entry, hidden, values)) is not None}
        hidden |= chosen
    shown = {entry: None if entry in hidden else value for entry, value in values.items()}
    height, width = cells.shape
    return Table(
        tuple(tuple(shown[r, c] for c in range(width)) for r in range(height)),
        tuple(shown[r, -1] for r in range(height)),
        tuple(shown[-1, c] for c in range(width)),
        shown[-1, -1],
    )


def _check(minimum: int, counts: Iterable[int]) -> None:
    if minimum < 2 or any(count < 0 for count in counts):
        raise UsageError("E-DISC-002", "a minimum of subjects is under 2, or a count is negative", "Count subjects, not rows")


def _capped(counts: Mapping[str, int], most_rows: int) -> dict[str, int]:
    if len(counts) <= most_rows:
        return dict(counts)
    kept = set(sorted(counts, key=lambda name: -counts[name])[: most_rows - 1])
    return {name: count for name, count in counts.items() if name in kept} | {
        OTHERS: sum(count for name, count in counts.items() if name not in kept)
    }


def _entries(cells: np.ndarray) -> Iterator[tuple[_Entry, int]]:
    height, width = cells.shape
    for row in range(height):
        yield from (((row, column), int(cells[row, column])) for column in range(width))
        yield (row, -1), int(cells[row].sum())
    yield from (((-1, column), int(cells[:, column].sum())) for column in range(width))
    yield (-1, -1), int(cells.sum())


def _inner(entry: _Entry, values: Mapping[_Entry, int]) -> list[_Entry]:
    """The cells that add up to an entry."""
    row, column = entry
    return [e for e in values if -1 not in e and row in (-1, e[0]) and column in (-1, e[1])]


def _width(entry: _Entry, hidden: set[_Entry], values: Mapping[_Entry, int]) -> float:
    """How wide the range of a withheld entry is over all tables that agree with what is published."""
    from scipy.optimize import linprog

    unknown = [e for e in values if -1 not in e and e in hidden]
    place = {e: n for n, e in enumerate(unknown)}
    known: list[tuple[list[int], float]] = []
    for total in (e for e in values if -1 in e and e not in hidden):
        inner = _inner(total, values)
        rest = values[total] - sum(values[e] for e in inner if e not in hidden)
        known.append(([place[e] for e in inner if e in hidden], rest))
    asked = np.zeros(len(unknown))
    asked[[place[e] for e in _inner(entry, values) if e in hidden]] = 1
    if not asked.any():
        return 0.0  # a total of cells that are all published
    matrix = np.zeros((len(known), len(unknown)))
    for line, (columns, _) in enumerate(known):
        matrix[line, columns] = 1
    bounds = [
        linprog(sign * asked, A_eq=matrix if known else None, b_eq=[r for _, r in known] if known else None, method="highs")
        for sign in (1, -1)
    ]
    if bounds[1].status == 3:  # unbounded above
        return float("inf")
    if any(found.status != 0 for found in bounds):
        return 0.0  # not solved: as if it gave the entry away
    return float(round(-bounds[1].fun - bounds[0].fun, 6))


def _next(entry: _Entry, hidden: set[_Entry], values: Mapping[_Entry, int]) -> _Entry | None:
    """The smallest entry still published that adds up with this one; of the whole table where its lines have none."""
    row, column = entry
    near = [e for e in values if e not in hidden and (e[0] == row or e[1] == column)]
    return min(near or [e for e in values if e not in hidden], key=lambda e: (values[e], e), default=None)

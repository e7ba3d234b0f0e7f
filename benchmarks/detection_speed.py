"""Rates of one core: the structural lane on log lines, and keyed pseudonyms in batch."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.detection_sides import structural_lane
from privacy.pseudonyms import Pseudonyms

if TYPE_CHECKING:
    import pyarrow as pa

_CHUNK = 2000
_MOST_SECONDS = 6.0


def lane_lines_per_second(lines: Sequence[str], warm_up: Sequence[str], *, repeats: int = 8) -> float:
    """Best of `repeats` passes over all lines, each with a detector that has never seen them; building it is not timed.

    A slow lane is stopped after some seconds and rated by what it read.
    """
    best = 0.0
    for _ in range(repeats):
        lane = structural_lane()
        lane.find(warm_up)
        read, began = 0, time.process_time()
        for start in range(0, len(lines), _CHUNK):
            read += len(lane.find(lines[start : start + _CHUNK]))
            if time.process_time() - began > _MOST_SECONDS:
                break
        best = max(best, read / (time.process_time() - began))
    return best


def pseudonyms_per_second(rows: int = 200_000, *, distinct: int = 20_000, repeats: int = 5) -> float:
    """Rows a second of `Pseudonyms.array` on an Arrow column of e-mail addresses, its dictionary encoding included.

    Each address stands there about ten times, as logs repeat their people; `distinct` = `rows` is the other end.
    """
    import pyarrow as pa

    draw = random.Random(5)  # noqa: S311  (made-up mail boxes, no secrets)
    people = [f"{draw.choice('abcdefgh')}{draw.getrandbits(40):x}@mail{draw.randrange(50)}.example" for _ in range(distinct)]
    column = pa.array(people if distinct >= rows else [draw.choice(people) for _ in range(rows)])
    function = _batch_function()
    best = 0.0
    for _ in range(repeats):
        began = time.process_time()
        named = function(column)
        best = max(best, rows / (time.process_time() - began))
        if len(named) != len(column):
            raise AssertionError("a pseudonym for each row was asked for")
    return best


def _batch_function() -> Callable[[pa.Array], pa.Array]:
    """The batch pseudonym function with a key, a domain and a type bound to it."""
    return partial(Pseudonyms(bytes(range(32)), "benchmark").array, entity="EMAIL_ADDRESS")

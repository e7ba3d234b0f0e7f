"""Rates of one core: the structural lane on log lines, and keyed pseudonyms in batch."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

from benchmarks.detection_sides import structural_lane

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


def pseudonyms_per_second(rows: int = 200_000, *, distinct: int = 20_000, repeats: int = 3) -> float | None:
    """Rows a second of the batch pseudonym function: e-mail addresses, each about ten times, as logs repeat their people.

    None while privacy/deidentify.py has no batch function.
    """
    function = _batch_function()
    if function is None:
        return None
    draw = random.Random(5)  # noqa: S311  (made-up mail boxes, no secrets)
    people = [f"{draw.choice('abcdefgh')}{draw.getrandbits(40):x}@mail{draw.randrange(50)}.example" for _ in range(distinct)]
    column = [draw.choice(people) for _ in range(rows)]
    best = 0.0
    for _ in range(repeats):
        began = time.process_time()
        function(column)
        best = max(best, rows / (time.process_time() - began))
    return best


def _batch_function() -> Callable[[Sequence[str]], object] | None:
    """The batch pseudonym function with a key and a type bound to it; the import fails until it exists."""
    return None

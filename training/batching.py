"""Cuts one logical Poisson batch into physical ones: near-equal sizes together, so that little is spent on padding.

Guarantee: every row of the logical batch is in exactly one part. The clipped sum does not depend on the cut, so sorting inside
one logical batch costs no privacy; nothing here looks across logical batches.
Not covered: timing, which follows the secret batch with or without sorting.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.data import UnitData

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of every slot: how many records it has, and how long its longest one is; 1 and 1 for a canary, which has neither."""

    records: IntArray
    lengths: IntArray

    @classmethod
    def of(cls, data: UnitData, canaries: int) -> Sizes:
        ones = np.ones(canaries, dtype=np.int64)
        records = np.maximum(data.present.sum(1), 1)
        lengths = np.maximum(data.lengths.max(1, initial=0), 1) if data.labels.size else np.ones(len(data), np.int64)
        return cls(np.concatenate([records, ones]), np.concatenate([lengths, ones]))


def physical_batches(rows: IntArray, sizes: Sizes, units: int, cells: int) -> list[IntArray]:
    """Parts of at most `units` rows and, padded, of at most `cells` record positions (one row always fits).

    cells: units * records * length of the largest part that fits in memory, so that parts of short units hold more of them.
    """
    order = rows[np.lexsort((sizes.lengths[rows], sizes.records[rows] * sizes.lengths[rows]))[::-1]]
    parts: list[IntArray] = []
    start = 0
    while start < len(order):
        end, records, length = start, 0, 0
        while end < len(order):
            records = max(records, int(sizes.records[order[end]]))
            length = max(length, int(sizes.lengths[order[end]]))
            count = end + 1 - start
            if count > 1 and (count > units or count * records * length > cells):
                break
            end += 1
        parts.append(order[start:end])
        start = end
    return parts

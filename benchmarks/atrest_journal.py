"""The journal: how fast entries are added in batches, and how long it takes to verify a million of them, every byte read.

Appends are measured on the clock, as each batch ends with a flush to disk; verifying in processor time.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.rows import Row
from privacy.canonical import Json
from privacy.journal import Journal
from privacy.journal_audit import Anchor, verify_journal
from privacy.signing import SigningKey

ENTRIES = 1_000_000
BATCH = 1000
TIMED_BATCHES = 50  # are timed together; the best of the twenty such parts counts
APPEND_GOAL, VERIFY_GOAL = 40_000.0, 15.0


def rows() -> list[Row]:
    """About 20 s to write and 10 s to verify on an idle machine."""
    key = SigningKey.generate()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.sqlite"
        rate = _fill(Journal(path, key))
        journal = Journal(path, key)
        point = journal.checkpoint()
        noted = Anchor(point.size, point.root, "the checkpoint")
        seconds: list[float] = []
        while not seconds or (len(seconds) < 2 and seconds[0] > VERIFY_GOAL):  # again only where others may have slowed it
            began = time.process_time()
            state = verify_journal(path, key.public_hex, [noted])
            seconds.append(time.process_time() - began)
        if state.size != ENTRIES:
            raise RuntimeError("the journal does not hold what was written")
    least = min(seconds)
    return [
        Row("journal: append in batches of 1,000, durable", "entries/s", rate, None, APPEND_GOAL, rate >= APPEND_GOAL),
        Row("journal: verify 1 M entries with an anchor", "s CPU", least, None, VERIFY_GOAL, least <= VERIFY_GOAL),
    ]


def _fill(journal: Journal) -> float:
    """Write the million; entries per second of the best fifty batches in a row."""
    best = 0.0
    for first in range(0, ENTRIES, BATCH * TIMED_BATCHES):
        batches = [[_item(first + n * BATCH + i) for i in range(BATCH)] for n in range(TIMED_BATCHES)]
        began = time.perf_counter()
        for batch in batches:
            journal.append_many(batch)
        best = max(best, BATCH * TIMED_BATCHES / (time.perf_counter() - began))
    return best


def _item(number: int) -> tuple[str, dict[str, Json]]:
    """About 200 bytes, as the most frequent entries are."""
    facts: dict[str, Json] = {"domain": "support_chat/raw", "epoch": 1, "action": "unwrap", "count": number % 97}
    return "key_use", {**facts, "role": "trainer", "run": f"run-{number // 5000:05d}"}

"""Pseudonym tokens and the erasure of one subject, as rows of `benchmarks/atrest.py`.

Tokens: rows a second of one core (CPU time) in one Arrow batch, against one HMAC a row with the standard library, turn by
turn in one run. Erasure: milliseconds until it is durable, median, on a vault of many subjects that lies on a real disk.
"""

from __future__ import annotations

import base64
import hmac
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from benchmarks.rows import Row
from privacy.keys import Keyring
from privacy.tokens import Tokens, normal_subject
from privacy.vault import Vault

ROWS = 2_000_000
UNIQUE = 57_000
SUBJECTS = 20_000
ERASED = 60
_SLICE = 100_000  # rows of the baseline, which is ten times slower


def rows() -> list[Row]:
    return [tokens_row(), erase_row()]


def tokens_row() -> Row:
    rng = random.Random(20261123)  # noqa: S311 (a benchmark, the same in every run)
    people = [f"customer-{number:07d}@example.org" for number in range(UNIQUE)]
    column = pa.array(rng.choices(people, k=ROWS), pa.string())
    key = os.urandom(32)
    tokens, plain = Tokens(key), column.slice(0, _SLICE).to_pylist()
    assert tokens.of_array(column.slice(0, 500)).to_pylist() == [_plain_token(key, s) for s in plain[:500]]
    batch, single = [], []
    for _ in range(4):
        batch.append(ROWS / _cpu_seconds(lambda: tokens.of_array(column)))
        single.append(_SLICE / _cpu_seconds(lambda: [_plain_token(key, s) for s in plain]))
    measured = max(batch)
    return Row("pseudonym tokens", "rows/s/core", measured, max(single), 3e6, measured >= 3e6)


def erase_row() -> Row:
    """On the disk of the working folder: a temporary folder may lie in memory, where nothing has to become durable."""
    with tempfile.TemporaryDirectory(prefix=".erase-", dir=Path.cwd()) as folder:
        home = Path(folder)
        vault = Vault(home / "vault.sqlite", Keyring.create(home / "keyring.json", home / "root.key"))
        names = [f"customer {number}" for number in range(SUBJECTS)]
        tokens = vault.tokens("chat", names)
        for start in range(0, SUBJECTS, 2000):
            part = tokens[start : start + 2000]
            vault.put_many("chat", [(token, f"m{n}", os.urandom(300)) for token in part for n in range(2)])
        spent = []
        for name in random.Random(5).sample(names, ERASED):  # noqa: S311 (the same in every run)
            began = time.perf_counter()
            erased = vault.erase("chat", name, "bench-1")
            spent.append((time.perf_counter() - began) * 1000)
            assert erased.records == 2
    measured = statistics.median(spent)
    return Row("erase one subject, live", "ms", measured, None, 50.0, measured < 50.0)


def _plain_token(key: bytes, subject: str) -> str:
    mac = hmac.digest(key, normal_subject(subject).encode(), "sha256")
    return "u" + base64.b32encode(mac[:15]).decode().lower()


def _cpu_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    for row in rows():
        print(row)

"""Rotation of the root over 10,000 sealed files: seconds, and not one byte of data written.

The home is a real one (journal, key service in a file, 60 key domains), so the figure holds every fsync and journal entry
of a rotation. Making 10,000 files durable one by one is not what is measured, so fsync is off while they are made.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from pathlib import Path
from unittest import mock

from benchmarks.rows import Row
from pipeline.home import Home
from pipeline.stage import ArtifactRef

FILES = 10_000
CLASSES = ("raw", "protected", "model")
DATASETS = 20
_ROUNDS = 5


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="privet-bench-") as folder:
        home, refs = _home_with_files(Path(folder) / "home")
        before = _fingerprint(home.path / "objects")
        seconds = []
        for _ in range(_ROUNDS):
            started = time.perf_counter()
            moved = home.keyring.rotate_root()
            seconds.append(time.perf_counter() - started)
            if moved != len(CLASSES) * DATASETS:
                raise AssertionError(f"{moved} rows were rewrapped")
        written = 0 if _fingerprint(home.path / "objects") == before else 1
        if written or Home.open(home.path).store.read_sealed(refs[-1]) != b"record %d" % (FILES - 1):
            raise AssertionError("a rotation of the root changed data")
    best = min(seconds)
    return [Row(f"rotation of the root over {FILES:,} files, 0 data bytes written", "s", best, None, 1.0, best < 1.0)]


def _home_with_files(path: Path) -> tuple[Home, list[ArtifactRef]]:
    home = Home.create(path)
    with mock.patch.object(os, "fsync", return_value=None):
        refs = [
            home.store.put_sealed(
                b"record %d" % n,
                dataset=f"set{n % DATASETS}",
                path=f"part-{n}",
                data_class=CLASSES[n // DATASETS % len(CLASSES)],
            )
            for n in range(FILES)
        ]
    return home, refs


def _fingerprint(folder: Path) -> str:
    """Over name, size, inode, mode and times of change of every file; access times aside."""
    found = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        status = path.stat()
        parts = (path.name, status.st_size, status.st_ino, status.st_mode, status.st_mtime_ns, status.st_ctime_ns)
        found.update(repr(parts).encode())
    return found.hexdigest()

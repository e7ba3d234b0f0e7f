"""The sealed format: its public vectors, its cost against a plain copy, its memory, and sealed against plain Parquet.

Each ratio has both sides interleaved in one run and is that of the best of several, in CPU time, stretch by stretch; files
lie on tmpfs.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.rows import Row
from privacy.errors import IntegrityError
from privacy.seal import SealedReader, SealedWriter, seal, unseal

if TYPE_CHECKING:
    import pyarrow as pa

ROOT = Path(__file__).resolve().parent.parent
VECTORS = ROOT.parent / "shared/vectors/c2sp_chunked_encryption_aes_256_gcm_test.json"
KEY, CONTEXT = bytes(range(32)), b"benchmark"
BLOCK = 1 << 20
LOG_ROWS, GROUP_ROWS = 1_000_000, 500_000


def rows() -> list[Row]:
    with _folder() as folder:
        return [_vectors(), *_copies(folder), _memory(folder), *_parquet(folder)]


def _vectors() -> Row:
    agree = 0
    tests = [t for g in json.loads(VECTORS.read_bytes())["testGroups"] for t in g["tests"]] if VECTORS.exists() else []
    for test in tests:
        agree += _agrees(test)
    return Row("chunked-encryption vectors", "of 35", agree, 35, 35, agree == 35)


def _agrees(test: dict[str, str]) -> bool:
    """Streaming and at random: the right plaintext, or a refusal."""
    data, key, context = zlib.decompress(bytes.fromhex(test["ct"])), bytes.fromhex(test["key"]), bytes.fromhex(test["ctx"])

    def streamed() -> bytes:
        out = io.BytesIO()
        unseal(io.BytesIO(data), out, key, context)
        return out.getvalue()

    def at_random() -> bytes:
        return io.BufferedReader(SealedReader(io.BytesIO(data), 0, key, context)).read()

    for way in (streamed, at_random):
        try:
            found = hashlib.sha512(way()).hexdigest()
        except IntegrityError:
            found = ""
        if found != (test["msgSha512"] if test["result"] == "valid" else ""):
            return False
    return True


def _copies(folder: Path, rounds: int = 10) -> list[Row]:
    """A copy loop of 1 MiB blocks, sealing and unsealing of one file of random bytes, in turns."""
    size = (1 << 30) if shutil.disk_usage(folder).free > (7 << 29) else (1 << 29)
    plain, sealed, out = (folder / name for name in ("plain", "sealed", "out"))
    with plain.open("wb") as file:
        for _ in range(size // BLOCK):
            file.write(os.urandom(BLOCK))

    def copy(source: io.FileIO, target: io.FileIO) -> None:
        while block := source.read(BLOCK):
            target.write(block)

    ways: dict[str, tuple[Callable[[io.FileIO, io.FileIO], None], Path, Path]] = {
        "copy": (copy, plain, out),
        "seal": (lambda a, b: seal(a, b, KEY, CONTEXT), plain, sealed),
        "unseal": (lambda a, b: unseal(a, b, KEY, CONTEXT), sealed, out),
    }

    def run(name: str) -> list[float]:
        way, source, target = ways[name]
        target.unlink(missing_ok=True)
        with _Stretches(source) as a, target.open("wb", buffering=0) as b:
            way(a, b)
            return a.seconds()

    found: dict[str, list[list[float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name in ways:
            found[name].append(run(name))
    best = {name: _of_the_best(taken) for name, taken in found.items()}
    assert subprocess.run(["cmp", str(plain), str(out)], check=False).returncode == 0
    out.unlink()
    sealed.unlink()
    named = f"{size >> 20} MiB on tmpfs, CPU against a plain copy"
    more = {name: best[name] / best["copy"] for name in ("seal", "unseal")}
    return [
        Row(f"seal {named}", "x", more["seal"], 1.0, 1.3, more["seal"] <= 1.3),
        Row(f"unseal {named}", "x", more["unseal"], 1.0, 1.45, more["unseal"] <= 1.45),
    ]


class _Stretches(io.FileIO):
    """A source that notes the CPU time at every 32 MiB, so that the best of several runs is taken stretch by stretch:
    on a shared machine no second is quiet from end to end, for neither side of the ratio."""

    STRETCH = 32 << 20

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")
        self._taken = 0
        self._marks = [time.process_time()]

    def read(self, size: int = -1) -> bytes:  # type: ignore[override]
        self._mark()
        block = super().read(size) or b""
        self._taken += len(block)
        return block

    def readinto(self, buffer: Any) -> int:
        self._mark()
        size = super().readinto(buffer) or 0
        self._taken += size
        return size

    def seconds(self) -> list[float]:
        marks = [*self._marks, time.process_time()]
        return [after - before for before, after in pairwise(marks)]

    def _mark(self) -> None:
        if self._taken >= len(self._marks) * self.STRETCH:
            self._marks.append(time.process_time())


_CHILD = """
import os, sys
from privacy.seal import SealedReader, seal, unseal
key, folder = bytes(32), sys.argv[1]
def kib(field): return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(field))
def files(a, b): return open(f"{folder}/{a}", "rb", buffering=0), open(f"{folder}/{b}", "wb", buffering=0)
open("/proc/self/clear_refs", "w").write("5")  # the peak counts from here on
before = kib("VmRSS")
seal(*files("plain", "sealed"), key, b"")
unseal(*files("sealed", "out"), key, b"")
reader, buffer = SealedReader(open(f"{folder}/sealed", "rb", buffering=0), 0, key, b""), bytearray(1 << 20)
while reader.readinto(buffer): pass
print(kib("VmHWM") - before)
"""


def _memory(folder: Path) -> Row:
    """Growth of a process that seals, unseals and reads the whole file."""
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(folder)], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT)}
    )
    for name in ("plain", "sealed", "out"):
        (folder / name).unlink()
    megabytes = int(done.stdout) / 1024
    return Row("memory of sealing and unsealing, growth", "MiB", megabytes, None, 64, megabytes <= 64)


def _parquet(folder: Path, rounds: int = 10) -> list[Row]:
    import pyarrow.parquet as pq

    table = _logs()
    plain, sealed = folder / "plain.parquet", folder / "sealed.parquet"

    def write(target: Any) -> Iterator[None]:
        with pq.ParquetWriter(target, table.schema, compression="zstd") as writer:
            for start in range(0, table.num_rows, GROUP_ROWS):
                writer.write_table(table.slice(start, GROUP_ROWS))
                yield

    def write_sealed() -> Iterator[None]:
        with sealed.open("wb", buffering=0) as file, SealedWriter(file, KEY, CONTEXT) as writer:
            yield from write(writer)

    def read(source: Any, columns: list[str]) -> Iterator[None]:
        with pq.ParquetFile(source) as file:
            for group in range(file.num_row_groups):
                file.read_row_group(group, columns=columns, use_threads=False)
                yield

    def read_sealed(columns: list[str]) -> Iterator[None]:
        with io.BufferedReader(SealedReader(sealed.open("rb", buffering=0), 0, KEY, CONTEXT), 1 << 16) as file:
            yield from read(file, columns)

    small, large = ["level", "status"], ["text"]
    written = _best({"plain": lambda: write(plain), "sealed": write_sealed}, rounds)
    ways = {
        "plain small": lambda: read(plain, small),
        "sealed small": lambda: read_sealed(small),
        "plain large": lambda: read(plain, large),
        "sealed large": lambda: read_sealed(large),
        "digest": lambda: _sha256(sealed),
    }
    taken = _best(ways, 4 * rounds)
    cost = {
        "write": written["sealed"] / written["plain"],
        "read, one text column": taken["sealed large"] / taken["plain large"],
        "read, two small columns": taken["sealed small"] / taken["plain small"],
        "size": sealed.stat().st_size / plain.stat().st_size,
    }
    goals = {"write": 6.0, "read, one text column": 8.0, "read, two small columns": 8.0, "size": 0.11}
    found = []
    for name, ratio in cost.items():
        more = (ratio - 1) * 100
        about = name if name == "size" else f"{name} CPU"
        found.append(Row(f"sealed Parquet against plain: {about}", "%", more, 0.0, goals[name], more <= goals[name]))
    about = "the store's digest of the whole file at opening, against reading one text column of it: CPU"
    return [*found, Row(about, "%", taken["digest"] / taken["plain large"] * 100)]


def _sha256(path: Path) -> Iterator[None]:
    with path.open("rb") as file:
        hashlib.file_digest(file, "sha256")
    yield


def _logs() -> pa.Table:
    """Log lines as applications write them: a clock, a level, a user, a status, and a text of common words and numbers."""
    import numpy as np
    import pyarrow as pa

    rng = np.random.default_rng(7)
    words = np.array(
        [f"{a}{b}" for a in ("con", "re", "per", "trans", "un", "ex") for b in ("nect", "try", "form", "fer", "act")]
    )
    texts = np.char.add(words[rng.integers(0, len(words), LOG_ROWS)], " ")
    for _ in range(6):
        texts = np.char.add(np.char.add(texts, words[rng.integers(0, len(words), LOG_ROWS)]), " ")
    texts = np.char.add(texts, rng.integers(0, 10**9, LOG_ROWS).astype(str))
    return pa.table(
        {
            "time": pa.array(1_700_000_000_000 + np.cumsum(rng.integers(0, 900, LOG_ROWS)), pa.timestamp("ms")),
            "level": pa.array(np.array(["info", "warn", "error"])[rng.integers(0, 3, LOG_ROWS)]),
            "user": pa.array(np.char.add("u", rng.integers(0, 50_000, LOG_ROWS).astype(str))),
            "status": pa.array(rng.integers(200, 600, LOG_ROWS).astype(np.int16)),
            "text": pa.array(texts),
        }
    )


def _best(ways: dict[str, Callable[[], Iterator[None]]], rounds: int) -> dict[str, float]:
    """CPU seconds of each way, the best of all rounds stretch by stretch (a way yields where one ends), taken in turns.

    On a shared machine no second is quiet from end to end, for neither side of a ratio. The first round is practice.
    """
    found: dict[str, list[list[float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            marks = [time.process_time()]
            for _ in way():
                marks.append(time.process_time())
            marks.append(time.process_time())
            found[name].append([after - before for before, after in pairwise(marks)])
    return {name: _of_the_best(taken) for name, taken in found.items()}


def _of_the_best(rounds: list[list[float]]) -> float:
    return sum(min(times) for times in zip(*rounds[1:], strict=True))


@contextmanager
def _folder() -> Iterator[Path]:
    memory = Path("/dev/shm")  # noqa: S108 - tmpfs, so that no disk is measured
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None, prefix="privet-seal-") as name:
        yield Path(name)

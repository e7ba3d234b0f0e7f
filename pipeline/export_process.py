"""Starts the process that works on encrypted Parquet, and turns however it ends into an answer or an error with a code.

Guarantee: a crash, a hang or a defect in the C++ below costs this one process and no more; key and rows go through pipes,
never through arguments, environment or disk; the process gets a time limit, and is gone when the call returns.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from privacy.errors import EnvironmentFault

if TYPE_CHECKING:
    import pyarrow as pa

CHILD = Path(__file__).with_name("export_child.py")
_ENVIRONMENT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "TMPDIR", "OMP_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class ParquetProcess:
    """One piece of work on one file: "write" (feed), "read" (rows) or "refusals" (answer). Each raises E-EXPORT-003 to 005."""

    work: str
    path: Path
    key: bytes
    aad: bytes
    row_count: int
    limit_seconds: float

    def feed(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
        """Write the rows; the file is complete and on disk when this returns."""
        import pyarrow as pa

        with self._running() as process:
            assert process.stdin is not None
            with pa.ipc.new_stream(process.stdin, schema) as stream:
                for batch in batches:
                    stream.write_batch(batch)
            process.stdin.close()

    def rows(self) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        with self._running() as process, pa.ipc.open_stream(_closed_input(process)) as stream:
            yield from stream

    def answer(self) -> bytes:
        with self._running() as process:
            return _closed_input(process).read()

    @contextmanager
    def _running(self) -> Iterator[subprocess.Popen[bytes]]:
        request = {
            "work": self.work,
            "path": str(self.path.absolute()),
            "key": self.key.hex(),
            "aad": self.aad.hex(),
            "rows": self.row_count,
            "seconds": max(1, int(self.limit_seconds)),
        }
        # -P: the folder of the script is full of module names that must not hide those of libraries.
        process = subprocess.Popen(
            [sys.executable, "-P", str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            close_fds=True,
        )
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(self.limit_seconds, end)
        timer.daemon = True
        timer.start()
        try:
            assert process.stdin is not None
            with _its_end_is_the_news(process):
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
                yield process
            fault = _fault(process, late)
        finally:
            timer.cancel()
            process.kill()
            _close(process)
            process.wait()
        if fault is not None:
            raise fault


@contextmanager
def _its_end_is_the_news(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """A pipe that breaks or ends in the middle says less than how the process ended, so that is looked at instead."""
    import pyarrow as pa

    try:
        yield
    except (OSError, EOFError, pa.ArrowException):
        _close(process, keep_errors=True)
        if process.wait() == 0:
            raise


def _fault(process: subprocess.Popen[bytes], late: threading.Event) -> EnvironmentFault | None:
    assert process.stderr is not None
    said = process.stderr.read(200).decode("ascii", "replace")
    code = process.wait()
    if late.is_set():
        return EnvironmentFault(
            "E-EXPORT-005",
            "the process that works on encrypted Parquet took longer than its limit and was ended; nothing was exported",
            "Run it again when the machine is less busy, or export a smaller dataset",
        )
    if code < 0:
        return EnvironmentFault(
            "E-EXPORT-004",
            f"the process that works on encrypted Parquet was ended by signal {-code}; nothing was exported",
            "Run it again; if it happens again, report it with the version of pyarrow",
        )
    if code:
        kind = said if said.isidentifier() else "no reason given"
        return EnvironmentFault(
            "E-EXPORT-003",
            f"encrypted Parquet could not be written or read ({kind}); nothing was exported",
            "Free some space and check the folder; if it happens again, report it with the version of pyarrow",
        )
    return None


def _closed_input(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    return process.stdout


def _close(process: subprocess.Popen[bytes], keep_errors: bool = False) -> None:
    for pipe in (process.stdin, process.stdout, None if keep_errors else process.stderr):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()

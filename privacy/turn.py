"""A fair queue of processes on one machine: first come, first served, and the dead don't hold up the living.

Each waiter holds a kernel lock on a file of its own, named by the time it came; the oldest file that is still locked is
next. The kernel frees the lock of a process that dies, and the next waiter removes its file.
Fairness only: who may write is decided by the lock of what is written, so a foreign file here harms nobody.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from privacy.errors import EnvironmentFault

_FIRST_LOOK = 0.0003
_LONGEST_LOOK = 0.004


@contextmanager
def in_turn(path: Path, patience_seconds: float) -> Iterator[None]:
    """Hold the turn for `path` during the block. Raises EnvironmentFault E-DB-002 when it does not come in time."""
    queue = path.with_name(path.name + ".queue")
    queue.mkdir(mode=0o700, exist_ok=True)
    # The monotonic clock is one for all processes since the machine started; setting the time reorders nobody.
    name = f"{time.monotonic_ns():020d}-{os.getpid()}-{os.urandom(4).hex()}"
    arriving, waiting = queue / f".{name}", queue / name
    handle = os.open(arriving, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        arriving.rename(waiting)  # locked before it can be seen, so nobody takes it for a dead one
        _wait(queue, name, time.monotonic() + patience_seconds)
        yield
    finally:
        for left in (waiting, arriving):
            left.unlink(missing_ok=True)
        os.close(handle)


def _wait(queue: Path, name: str, deadline: float) -> None:
    pause = _FIRST_LOOK
    while any(map(_is_alive, sorted(other for other in queue.iterdir() if "0" <= other.name < name))):
        if time.monotonic() > deadline:
            raise EnvironmentFault(
                "E-DB-002", "a database of the home stayed locked by another process", "Wait for the other run, then run again"
            )
        time.sleep(pause)
        pause = min(_LONGEST_LOOK, pause * 1.5)


def _is_alive(path: Path) -> bool:
    """Whether its maker still holds it; the file of a dead one is removed."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        with suppress(OSError):
            path.unlink()
        return False
    finally:
        os.close(handle)

"""Keeps the end of an epoch apart from stages that seal raw or protected records right now.

Guarantee: while `sealing` is held nobody holds `nobody_seals`, so no file key wrapped under an old epoch appears after the
epoch was destroyed. The kernel frees the lock of a process that dies.
Assumption: every process works on one machine (flock); see `pipeline.home`.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from privacy.errors import EnvironmentFault

if TYPE_CHECKING:
    from pipeline.home import Home

_LOOK_SECONDS = 0.05


@contextmanager
def sealing(home: Home) -> Iterator[None]:
    """Held by a stage from its first sealed byte until its result is journalled; any number at once."""
    with _opened(home) as handle:
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield


@contextmanager
def nobody_seals(home: Home, patience_seconds: float) -> Iterator[None]:
    """Alone. Raises EnvironmentFault E-RETAIN-002 when a stage is still at work after that time."""
    deadline = time.monotonic() + patience_seconds
    with _opened(home) as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise EnvironmentFault(
                        "E-RETAIN-002",
                        "an epoch can't end while a run ingests or protects records",
                        "Run privet retention again when no such run is active; what was done stays done",
                    ) from None
            time.sleep(_LOOK_SECONDS)
        yield


@contextmanager
def _opened(home: Home) -> Iterator[int]:
    handle = os.open(home.path / "sealing.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        yield handle
    finally:
        os.close(handle)

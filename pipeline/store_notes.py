"""Notes of objects in flight: sealed, and not yet named by anything committed. A dead writer's are found and destroyed.

A process notes an object, durably, before the object gets its name, and takes the note back once a committed result names
the object. The file of notes is locked for as long as its process lives; the kernel drops the lock with the process, so
a free lock means that its writer is dead, on whatever machine state, container or reused process id.
Guarantee: nothing that a committed manifest or a checkpoint pointer names is destroyed, and nothing of a living writer;
when it can't be told what is named (a damaged record), nothing is destroyed.
Assumption: flock works between all processes that use the home. Not covered: a child process that outlives its parent
holds the parent's lock too, so what the parent left waits until the child has ended.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.store_files import disk_faults, sync_folder
from privacy.canonical import Digest, is_digest

_UNNAMED = "."  # a file of notes that its maker has not locked yet
_UNNAMED_SECONDS = 24 * 3600


class Notes:
    """The notes of this process (one file, made when first needed) and the way to clear up after dead ones."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mutex = threading.Lock()
        self._handle: int | None = None
        self._pid = 0
        self._open: set[Digest] = set()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def add(self, digest: Digest) -> None:
        """Durable when it returns: only then may the object get its name."""
        with self._mutex, disk_faults():
            if self._handle is None or self._pid != os.getpid():
                self._begin()
            assert self._handle is not None
            _write(self._handle, f"\n+{digest}\n")  # a line of its own, also behind one that a full disk tore
            os.fsync(self._handle)
            self._open.add(digest)

    def settle(self, digest: Digest) -> None:
        """Something durable names the object now, or it is destroyed. Need not reach the disk: a sweep looks again."""
        with self._mutex, suppress(OSError):
            if self._pid != os.getpid() or digest not in self._open or self._handle is None:
                return
            self._open.discard(digest)
            if self._open:
                _write(self._handle, f"-{digest}\n")
            else:
                os.ftruncate(self._handle, 0)

    def sweep(self, named: Callable[[], set[Digest] | None], destroy: Callable[[Digest], object]) -> None:
        """Destroy what dead writers left. named: all that is committed, None when that can't be told."""
        for path in sorted(self._folder.iterdir()):
            with suppress(OSError):
                if path.name.startswith(_UNNAMED):
                    if path.stat().st_mtime < time.time() - _UNNAMED_SECONDS:
                        path.unlink()
                    continue
                with _of_the_dead(path) as handle:
                    if handle is not None and _clear(handle, named, destroy):
                        path.unlink()
                        sync_folder(self._folder)

    def _begin(self) -> None:
        """A new file, locked before it can be seen; after a fork the child begins its own."""
        name = f"{os.getpid()}-{os.urandom(8).hex()}"
        unnamed = self._folder / f"{_UNNAMED}{name}"
        handle = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            unnamed.rename(self._folder / name)
            sync_folder(self._folder)
        except BaseException:
            os.close(handle)
            unnamed.unlink(missing_ok=True)
            raise
        self._handle, self._pid, self._open = handle, os.getpid(), set()


@contextmanager
def _of_the_dead(path: Path) -> Iterator[int | None]:
    """The file, locked by us; None when its process lives, or somebody has cleared it meanwhile."""
    handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        locked = False
        with suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = os.fstat(handle).st_nlink > 0
        yield handle if locked else None
    finally:
        os.close(handle)


def _clear(handle: int, named: Callable[[], set[Digest] | None], destroy: Callable[[Digest], object]) -> bool:
    """Whether all that is noted has been dealt with."""
    left: set[Digest] = set()
    with os.fdopen(os.dup(handle), "rb") as file:
        lines = file.read().decode("ascii", "replace").split("\n")[:-1]  # a torn last line: its object got no name
    for line in lines:
        if is_digest(line[1:]):
            (left.add if line.startswith("+") else left.discard)(line[1:])
    if not left:
        return True
    known = named()
    if known is None:
        return False
    for digest in sorted(left - known):
        destroy(digest)
    return True


def _write(handle: int, line: str) -> None:
    data = line.encode("ascii")
    while data:
        data = data[os.write(handle, data) :]

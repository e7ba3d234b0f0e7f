"""Files of the store: written whole or not at all, and every fault of the disk turned into an error with a code.

Guarantee: a file is named by a rename, after its bytes are flushed; one that a writer still holds can be told from one
that its dead writer left, whatever process or container looks, because the kernel drops the lock with the holder.
Assumption: a local file system with atomic rename, link, flock and fsync.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from privacy.canonical import Digest
from privacy.errors import EnvironmentFault

if TYPE_CHECKING:
    from typing_extensions import Buffer


_read = io.FileIO.readinto  # one place to read through, which the fault tests replace


class NewFile(io.RawIOBase):
    """An unnamed-to-be file: hashes what is written and turns I/O faults into E-STORE codes at their source."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.sha256 = hashlib.sha256()
        self.size = 0
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

    @property
    def digest(self) -> Digest:
        return "sha256:" + self.sha256.hexdigest()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._handle

    def tell(self) -> int:
        return self.size

    def write(self, data: Buffer, /) -> int:
        view = memoryview(data).cast("B")
        done = 0
        with disk_faults():
            while done < len(view):
                done += os.write(self._handle, view[done:])
        self.sha256.update(view)
        self.size += done
        return done

    def close(self) -> None:
        if not self.closed:
            os.close(self._handle)
        super().close()


class ObjectFile(io.FileIO):
    """A stored object, open for reading; a fault of the disk is an E-STORE code wherever it is met."""

    def readinto(self, buffer: Buffer, /) -> int:
        with disk_faults():
            return _read(self, buffer) or 0


@contextmanager
def new_file(folder: Path) -> Iterator[NewFile]:
    """Gone at the end of the block unless it was given a name."""
    with disk_faults():
        file = NewFile(folder / f"{os.getpid()}-{os.urandom(8).hex()}")
    try:
        yield file
    finally:
        try:
            file.close()
        finally:
            file.path.unlink(missing_ok=True)


def abandoned(path: Path) -> bool:
    """Whether nobody holds the file's lock: who wrote it is dead, or has not come to lock it yet."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


def overwrite_and_unlink(path: Path, span: int) -> None:
    """Zeros over the first `span` bytes, then unlink, even when overwriting failed, which is raised."""
    handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.pwrite(handle, bytes(min(os.fstat(handle).st_size, span)), 0)
        os.fsync(handle)
    finally:
        os.close(handle)
        path.unlink(missing_ok=True)
        sync_folder(path.parent)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def disk_faults() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise io_fault(error) from None


def io_fault(error: OSError) -> EnvironmentFault:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return EnvironmentFault(
            "E-STORE-010",
            "the disk that holds the home is full; nothing half-written was kept",
            "Free some space and run again, which continues",
        )
    return EnvironmentFault(
        "E-STORE-011",
        f"the store can't be read or written ({error.strerror})",
        "Check the disk and the owner of the home, then run again",
    )

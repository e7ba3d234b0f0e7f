"""Small secret files: owner-only from the first byte, never through a link, replaced whole or not at all.

Guarantee: what is read was a plain 0600 file of this user when its handle was open (fstat on the handle, so nobody swaps
it in between); after a crash there is the old file or the new one, and no copy of the old one is kept on purpose.
Assumption: the file system honours owner, mode, rename and flock. Not covered: old bytes on the medium until it
reuses them; other processes of the same user, and root.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from privacy.errors import EnvironmentFault, UsageError

_MAX_FILE = 16 << 20
Stamp = tuple[int, int, int]  # inode, mtime in ns, size: changes whenever the file is replaced


def stamp_of(path: Path) -> Stamp:
    """Raises UsageError E-KEY-003 when there is no such file."""
    try:
        return _stamp(path.lstat())
    except OSError:
        raise _missing(path) from None


def read_owner_only(path: Path) -> tuple[bytes, Stamp]:
    """Raises UsageError E-KEY-003 (missing), EnvironmentFault E-KEY-002 (loose), E-KEY-009 (a link, or I/O)."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise _missing(path) from None
    except OSError as error:
        raise _fault(error, f"{path.name} can't be opened") from None
    try:
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
                raise EnvironmentFault(
                    "E-KEY-002",
                    f"{path.name} is not a plain file that only its owner, this user, can read (mode {_mode(status)})",
                    f"Find out who could read it; if nobody did, run chmod 600 on {path.name}",
                )
            return file.read(_MAX_FILE), _stamp(status)
    except OSError as error:
        raise _fault(error, f"{path.name} can't be read") from None


def write_owner_only(path: Path, data: bytes) -> None:
    """Replace atomically and durably. The caller holds the lock, so one temporary name is enough."""
    temporary = path.with_name(path.name + ".new")
    try:
        temporary.unlink(missing_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _fault(error) from None


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """One process at a time for `path`; the kernel frees the lock when its holder dies."""
    lock = path.with_name(path.name + ".lock")
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _fault(error) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _mode(status: os.stat_result) -> str:
    return f"{status.st_mode & 0o777:o}"


def _stamp(status: os.stat_result) -> Stamp:
    return (status.st_ino, status.st_mtime_ns, status.st_size)


def _fault(error: OSError, what: str = "the keyring can't be written") -> EnvironmentFault:
    return EnvironmentFault(
        "E-KEY-009",
        f"{what} ({error.strerror})",
        "Free some space and check the owner of the home; the old keyring is unchanged",
    )


def _missing(path: Path) -> UsageError:
    return UsageError("E-KEY-003", f"there is no {path.name}", "Name the right home, or restore the file from its backup")

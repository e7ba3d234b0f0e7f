"""Turns any exception into a Privet error that is fit to be seen: its text never holds a raw value.

Exceptions of libraries may quote the value that upset them, so only their type and the place in our code
are kept. Used at the two outer edges: the command line and the Airflow tasks.
"""

from __future__ import annotations

import errno
import sqlite3
import traceback
from pathlib import Path

from privacy.errors import EnvironmentFault, PrivetError, UsageError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG, errno.EMFILE, errno.ENFILE}
_PATH = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP}
_OURS = ("pipeline", "privacy", "training", "dags")


class InternalFault(PrivetError):
    """A defect of Privet or of a library under it."""

    exit_code = 1


def as_privet_error(error: BaseException) -> PrivetError:
    """`error` itself when it is ours; else one that names its type and place, and nothing it said."""
    if isinstance(error, PrivetError):
        return error
    if (isinstance(error, OSError) and error.errno in _FULL) or _database_full(error):
        return EnvironmentFault(
            "E-DISK-001", "the disk is full; nothing half-written was kept", "Free some space; running again continues"
        )
    if isinstance(error, OSError) and error.errno in _REFUSED:
        return EnvironmentFault(
            "E-DISK-002",
            f"the machine refused to read or write a file ({error.strerror})",
            "Check the disk, and the owner and mode of the home; running again continues",
        )
    if isinstance(error, OSError) and error.errno in _PATH:
        return UsageError(
            "E-DISK-003",
            f"a file or folder can't be read or made there ({error.strerror})",
            "Check the paths that you gave, and that their folders exist; PRIVET_TRACEBACK=1 prints which one",
        )
    if isinstance(error, MemoryError):
        return EnvironmentFault("E-MEMORY-001", "the machine ran out of memory", "Use a smaller source or a larger machine")
    return InternalFault(
        "E-INTERNAL-001",
        f"an unexpected {type(error).__name__} stopped the work at {_place(error)}",
        "Report this as a defect; PRIVET_TRACEBACK=1 prints the trace, which may quote data",
    )


def _database_full(error: BaseException) -> bool:
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL


def _place(error: BaseException) -> str:
    """The last frame in our own code, as module:line."""
    place = "an unknown place"
    for frame, line in traceback.walk_tb(error.__traceback__):
        path = Path(frame.f_code.co_filename)
        if path.parent.name in _OURS or path.parent.parent.name in _OURS:
            place = f"{path.parent.name}/{path.name}:{line}"
    return place

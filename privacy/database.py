"""One way to hold state in SQLite: durable when the call returns, owner-only, and one writer at a time.

Guarantee: `transaction` is BEGIN IMMEDIATE with synchronous=FULL, so two processes never both read before
either writes, and a commit survives a power cut; any exception rolls back. A connection lives for one call, so a fork
can't share one.
Assumption: a local file system (SQLite's locks don't hold on network mounts).
Used by vault, journal and ledger; knows none of them.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from privacy.errors import EnvironmentFault, IntegrityError

BUSY_SECONDS = 60.0


class Database:
    """One SQLite file. Raises E-DB-001 (full), 002 (busy), 003 (damaged), 004 (not openable)."""

    __slots__ = ("_erasing", "_path")

    def __init__(self, path: Path, schema: str, *, erasing: bool = False) -> None:
        """erasing: freed bytes are overwritten with zeros (SQLite's secure_delete)."""
        self._path = path
        self._erasing = erasing
        with _faults():
            self._make_owner_only()
            with closing(self._connect()) as connection:
                connection.executescript(f"BEGIN IMMEDIATE;\n{schema}\nCOMMIT;")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write: takes the write lock first, commits at the end of the block, rolls back on any exception."""
        with _faults(), closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                if connection.in_transaction:  # SQLite rolls back by itself on some faults, a full disk among them
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Read one consistent state."""
        with _faults(), closing(self._connect()) as connection:
            connection.execute("BEGIN")
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def outside_transaction(self) -> Iterator[sqlite3.Connection]:
        """For VACUUM and checkpoints, which SQLite refuses inside one."""
        with _faults(), closing(self._connect()) as connection:
            yield connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=BUSY_SECONDS)
        try:
            _enter_wal(connection)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA secure_delete = {'ON' if self._erasing else 'OFF'}")
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA temp_store = MEMORY")  # VACUUM's copy must not land in a temporary folder
        except BaseException:
            connection.close()
            raise
        return connection

    def _make_owner_only(self) -> None:
        # SQLite gives its -wal and -shm files the mode of the main file, so this covers them too.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))


@contextmanager
def open_read_only(path: Path) -> Iterator[sqlite3.Connection]:
    """One consistent state of a database that may lie on a read-only medium; nothing is written beside it."""
    uri = path.resolve().as_uri()
    # Without a WAL beside it the file is complete, and `immutable` keeps SQLite from making a -shm file.
    mode = "mode=ro" if path.with_name(path.name + "-wal").exists() else "mode=ro&immutable=1"
    with _faults(), closing(sqlite3.connect(f"{uri}?{mode}", uri=True, isolation_level=None, timeout=BUSY_SECONDS)) as found:
        found.execute("PRAGMA trusted_schema = OFF")
        found.execute("BEGIN")
        yield found


def _enter_wal(connection: sqlite3.Connection) -> None:
    """Two processes that switch a new file at once would deadlock, so SQLite tells one "busy" without waiting."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if (error.sqlite_errorcode & 0xFF) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


@contextmanager
def _faults() -> Iterator[None]:
    """SQLite's errors, which may quote SQL, become ours, which quote nothing."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise _operational(error) from None
    except sqlite3.DatabaseError:
        raise _damaged() from None
    except OSError as error:
        raise EnvironmentFault(
            "E-DB-004", f"a database of the home can't be opened ({error.strerror})", "Check the path and the owner of the home"
        ) from None


def _operational(error: sqlite3.OperationalError) -> EnvironmentFault | IntegrityError:
    primary = (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
    if primary in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return EnvironmentFault(
            "E-DB-001", "a database of the home can't be written: the disk is full or failing", "Free some space and run again"
        )
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return EnvironmentFault(
            "E-DB-002", "a database of the home stayed locked by another process", "Wait for the other run, then run again"
        )
    if primary in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return EnvironmentFault(
            "E-DB-004", "a database of the home can't be opened for this", "Check the path and the owner of the home"
        )
    return _damaged()


def _damaged() -> IntegrityError:
    return IntegrityError(
        "E-DB-003", "a database of the home is damaged or is not one of this version", "Restore it from its backup"
    )

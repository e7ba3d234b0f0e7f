"""State in one SQLite file: durable when the call returns, owner-only, one writer at a time, writers served in turn.

Guarantee: `transaction` is BEGIN IMMEDIATE with synchronous=FULL, so two processes never both read before
either writes, and a commit survives a power cut; any exception rolls back. Writers queue in the order they came (SQLite's
own busy handler starves the unlucky). A connection lives for one call, so a fork can't share one.
Assumption: a local file system (SQLite's locks don't hold on network mounts).
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

from privacy.database import BUSY_SECONDS, Schema, busy, damaged, full, not_openable
from privacy.errors import EnvironmentFault, IntegrityError
from privacy.turn import in_turn


class SqliteDatabase:
    """See `privacy.database.Database`. Raises E-DB-001 (full), 002 (busy), 003 (damaged), 004 (not openable)."""

    __slots__ = ("_erasing", "place")

    dialect: Literal["sqlite", "postgres"] = "sqlite"
    row_lock = ""  # the whole file is locked by whoever writes

    def __init__(self, path: Path, schema: Schema, *, erasing: bool = False) -> None:
        self.place = path
        self._erasing = erasing
        with _faults():
            self._make_owner_only()
            with closing(self._connect()) as connection:
                connection.executescript(f"BEGIN IMMEDIATE;\n{schema.sqlite()}\nCOMMIT;")

    @contextmanager
    def transaction(self, *, exclusive: bool = True) -> Iterator[sqlite3.Connection]:
        """Write: waits its turn, takes the write lock, commits at the end of the block, rolls back on any exception."""
        with _faults(), in_turn(self.place, BUSY_SECONDS), closing(self._connect()) as connection:
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
        with _faults(), closing(self._connect()) as connection:
            connection.execute("BEGIN")
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def outside_transaction(self) -> Iterator[sqlite3.Connection]:
        with _faults(), closing(self._connect()) as connection:
            yield connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.place, isolation_level=None, timeout=BUSY_SECONDS)
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
        os.close(os.open(self.place, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))


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
        raise damaged() from None
    except OSError as error:
        raise (full() if error.errno in (errno.ENOSPC, errno.EDQUOT) else not_openable(error.strerror)) from None


def _operational(error: sqlite3.OperationalError) -> EnvironmentFault | IntegrityError:
    primary = (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
    if primary in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return full()
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return busy()
    if primary in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return not_openable("for this")
    return damaged()

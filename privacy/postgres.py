"""State in one schema of a PostgreSQL 15+ database, behind the calls of `privacy.database`.

Guarantee: a transaction that returned is on the server's disk (synchronous_commit=on); `exclusive` transactions of one
schema follow one another (advisory lock); waiting ends after a minute with E-DB-002. When the connection is lost while
committing the outcome is unknown and E-DB-005 says so: every caller of ours may ask the same again.
Assumption: the server's administrator can read, change and undo everything; what must withstand that is encrypted or
signed by the caller. Not covered: bytes of deleted rows stay in heap and WAL until the server reuses them.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal

from privacy.database import BUSY_SECONDS, Cursor, PostgresPlace, Schema, busy, damaged, full, not_openable
from privacy.errors import EnvironmentFault, PrivetError, UsageError

if TYPE_CHECKING:
    import psycopg

_FULL = ("53100", "58030")  # disk full, I/O error
_BUSY = ("55P03", "40P01", "40001", "57014")  # lock not available, deadlock, serialization, cancelled
_DENIED = ("42501", "28000", "28P01", "3D000", "25006")  # privilege, authorization, password, no such database, read-only
_REFUSE = """
CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '%', TG_ARGV[0]; END $$;
CREATE TABLE IF NOT EXISTS made_by (schema_digest TEXT PRIMARY KEY);
"""


class PostgresDatabase:
    """See `privacy.database.Database`. Idle connections are kept for the next call of this process, never over a fork."""

    __slots__ = ("_idle", "_lock", "_lock_key", "_pid", "place")

    dialect: Literal["sqlite", "postgres"] = "postgres"
    row_lock = " FOR UPDATE"

    def __init__(self, place: PostgresPlace, schema: Schema) -> None:
        self.place = place
        self._idle: list[psycopg.Connection[Any]] = []
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._lock_key = int.from_bytes(hashlib.sha256(place.schema.encode()).digest()[:8], "big", signed=True)
        self._create(schema)

    @contextmanager
    def transaction(self, *, exclusive: bool = True) -> Iterator[_Statements]:
        with self._begun("BEGIN ISOLATION LEVEL READ COMMITTED") as statements:
            if exclusive:
                statements.execute("SELECT pg_advisory_xact_lock(?)", (self._lock_key,))
            yield statements

    @contextmanager
    def reading(self) -> Iterator[_Statements]:
        with self._begun("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") as statements:
            yield statements

    @contextmanager
    def outside_transaction(self) -> Iterator[_Statements]:
        with self._borrowed(None) as connection:
            yield _Statements(connection)

    def _create(self, schema: Schema) -> None:
        """Once; afterwards a role that may only read or write rows can open the place."""
        script = _REFUSE + schema.postgres()
        digest = hashlib.sha256(script.encode()).hexdigest()
        with self.outside_transaction() as statements:
            (there,) = statements.execute("SELECT to_regclass(?)", (f"{self.place.schema}.made_by",)).fetchone()
            if there and statements.execute("SELECT 1 FROM made_by WHERE schema_digest = ?", (digest,)).fetchone():
                return
        with self.transaction() as statements:
            statements.execute(f"CREATE SCHEMA IF NOT EXISTS {self.place.schema}")
            statements.script(script)
            statements.execute("INSERT INTO made_by VALUES (?) ON CONFLICT DO NOTHING", (digest,))

    @contextmanager
    def _begun(self, begin: str) -> Iterator[_Statements]:
        with self._borrowed(begin) as connection:
            try:
                yield _Statements(connection)
            except BaseException:
                with suppress(Exception):  # a lost connection is rolled back by the server
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    @contextmanager
    def _borrowed(self, begin: str | None) -> Iterator[psycopg.Connection[Any]]:
        """A connection that goes back to the idle ones only when the block ended well."""
        with _faults():
            connection = self._ready(begin)
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            with self._lock:
                self._idle.append(connection)

    def _ready(self, begin: str | None) -> psycopg.Connection[Any]:
        import psycopg

        first = begin or "SELECT 1"
        while (idle := self._take_idle()) is not None:
            try:  # nothing was asked on it yet, so a lost one can be replaced without a doubt
                idle.execute(first)
                return idle
            except psycopg.OperationalError:
                idle.close()
        connection = self._connect()
        connection.execute(first)
        return connection

    def _take_idle(self) -> psycopg.Connection[Any] | None:
        with self._lock:
            if self._pid != os.getpid():  # a child must not speak on its parent's sockets, nor close them
                _inherited.extend(self._idle)
                self._idle, self._pid = [], os.getpid()
            return self._idle.pop() if self._idle else None

    def _connect(self) -> psycopg.Connection[Any]:
        import psycopg

        check_address(self.place.dsn)
        milliseconds = int(BUSY_SECONDS * 1000)
        settings = f"-c synchronous_commit=on -c lock_timeout={milliseconds} -c search_path={self.place.schema}"
        return psycopg.connect(
            self.place.dsn,
            autocommit=True,
            connect_timeout=10,
            application_name="privet",
            options=settings,
            prepare_threshold=None,
        )


def check_address(dsn: str) -> None:
    """Before anything is made for it. Raises UsageError E-DB-008 (a password in it), E-DB-009 (no address), 010, 006."""
    with _faults():
        import psycopg
        from psycopg.conninfo import conninfo_to_dict

        try:
            found = conninfo_to_dict(dsn)
        except psycopg.ProgrammingError:  # it quotes the address, and a password with it
            raise UsageError(
                "E-DB-009",
                "the address of the database is malformed",
                "Write it as postgresql://USER@HOST/DATABASE or as host=… user=… dbname=…",
            ) from None
    if any(value and name.endswith(("password", "secret")) for name, value in found.items()):  # sslpassword is one, too
        raise UsageError(
            "E-DB-008", "the address of the database holds a password", "Put it into a passfile (PGPASSFILE), mode 0600"
        )
    if os.environ.get("PGPASSWORD"):  # it would go to whatever server the home's file names
        raise UsageError(
            "E-DB-010",
            "PGPASSWORD is set, and a password from there is given to any server",
            "Put it into a passfile (PGPASSFILE), mode 0600, which binds it to one host, and unset PGPASSWORD",
        )


class _Statements:
    """Takes `?` where psycopg takes `%s`."""

    __slots__ = ("_connection",)

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def execute(self, sql: str, params: Sequence[Any] = (), /) -> Cursor:
        return self._connection.execute(_translated(sql), params)

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> None:
        with self._connection.cursor() as cursor:
            cursor.executemany(_translated(sql), rows)

    def script(self, sql: str) -> None:
        """Several statements without parameters."""
        self._connection.execute(sql)


_inherited: list[Any] = []  # connections of a parent process: kept from the garbage collector, which would close them


def _translated(sql: str) -> str:
    return sql.replace("%", "%%").replace("?", "%s")


@contextmanager
def _faults() -> Iterator[None]:
    """The driver's errors, which may quote SQL and values, become ours, which quote nothing."""
    try:
        import psycopg
    except ImportError:
        raise EnvironmentFault(
            "E-DB-006", "the PostgreSQL driver is not installed", "Install privet[postgres], or use the embedded databases"
        ) from None
    try:
        yield
    except psycopg.Error as error:
        raise _translated_fault(error) from None


def _translated_fault(error: psycopg.Error) -> PrivetError:
    import psycopg

    state = error.sqlstate or ""
    if state in _FULL:
        return full()
    if state in _BUSY:
        return busy()
    if state in _DENIED:
        return not_openable("the server denies it")
    if isinstance(error, psycopg.OperationalError) or state[:2] in ("08", "57"):
        return EnvironmentFault(
            "E-DB-005",
            "the PostgreSQL server can't be reached, or went away before it answered",
            "Check that it runs and that its address is right, then run again; asking twice changes nothing",
        )
    return damaged()

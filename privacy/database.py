"""The ground that vault, journal and ledger stand on: one set of calls, SQLite for one machine, PostgreSQL for a team.

Guarantee, on both: `transaction` commits durably at the end of the block or leaves the old state, and with `exclusive`
no other writer of the same place runs meanwhile; `reading` sees one state; a `Refusal` makes the database itself refuse a
change. Statements are written once, with `?` for parameters, in the SQL that both understand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from privacy.errors import EnvironmentFault, IntegrityError, UsageError

BUSY_SECONDS = 60.0
_SCHEMA_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_POSTGRES_TYPES = {"INTEGER": "BIGINT", "REAL": "DOUBLE PRECISION", "BLOB": "BYTEA"}


class Cursor(Protocol):
    """What a statement gave."""

    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Any: ...  # a row has the columns the statement names; only the caller knows their types
    def fetchall(self) -> list[Any]: ...
    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """Statements with `?` for parameters."""

    def execute(self, sql: str, params: Sequence[Any] = ..., /) -> Cursor: ...
    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Refusal:
    """A trigger: `event` on `table` fails with `message`, always or only `when` (OLD.x, NEW.x, IS DISTINCT FROM, <, OR)."""

    name: str
    table: str
    event: Literal["UPDATE", "DELETE"]
    message: str
    when: str = ""


@dataclass(frozen=True, slots=True)
class Schema:
    """`tables`: CREATE ... IF NOT EXISTS statements with the types TEXT, INTEGER, REAL and BLOB."""

    tables: str
    refusals: tuple[Refusal, ...] = ()

    def sqlite(self) -> str:
        return "\n".join([self.tables, *map(_sqlite_trigger, self.refusals)])

    def postgres(self) -> str:
        tables = re.sub(r"\b(INTEGER|REAL|BLOB)\b", lambda found: _POSTGRES_TYPES[found[0]], self.tables)
        return "\n".join([tables.replace("WITHOUT ROWID", ""), *map(_postgres_trigger, self.refusals)])


@dataclass(frozen=True, slots=True)
class PostgresPlace:
    """A schema of a PostgreSQL database. `dsn` holds no password: that belongs in a passfile, or use peer authentication."""

    dsn: str
    schema: str

    def __post_init__(self) -> None:
        if not _SCHEMA_NAME.fullmatch(self.schema):
            raise UsageError("E-DB-007", "a PostgreSQL schema has a malformed name", "Use lower-case letters, digits and _")


Place = Path | PostgresPlace


class Database(Protocol):
    """Safe for threads, processes and forks."""

    dialect: Literal["sqlite", "postgres"]
    row_lock: str  # what to append to a SELECT so that it locks its rows; lock them in sorted order

    @property
    def place(self) -> Place: ...

    def transaction(self, *, exclusive: bool = True) -> AbstractContextManager[Connection]:
        """Write. Without `exclusive` the caller locks the rows it decides by (SQLite always locks everything)."""
        ...

    def reading(self) -> AbstractContextManager[Connection]:
        """Read one consistent state."""
        ...

    def outside_transaction(self) -> AbstractContextManager[Connection]:
        """For VACUUM and checkpoints, which are refused inside one."""
        ...


def open_database(place: Place, schema: Schema, *, erasing: bool = False) -> Database:
    """Open, and make what is missing. erasing: SQLite overwrites freed bytes with zeros; PostgreSQL can't.

    Raises E-DB-001 (full), 002 (busy), 003 (damaged), 004 (not openable), 005 (server unreachable), 006 (no driver),
    008 to 010 (address or password).
    """
    if isinstance(place, PostgresPlace):
        from privacy.postgres import PostgresDatabase

        return PostgresDatabase(place, schema)
    from privacy.sqlite import SqliteDatabase

    return SqliteDatabase(place, schema, erasing=erasing)


def full() -> EnvironmentFault:
    return EnvironmentFault(
        "E-DB-001", "a database of the home can't be written: the disk is full or failing", "Free some space and run again"
    )


def busy() -> EnvironmentFault:
    return EnvironmentFault(
        "E-DB-002", "a database of the home stayed locked by another process", "Wait for the other run, then run again"
    )


def damaged() -> IntegrityError:
    return IntegrityError(
        "E-DB-003", "a database of the home is damaged or is not one of this version", "Restore it from its backup"
    )


def not_openable(why: str | None) -> EnvironmentFault:
    return EnvironmentFault(
        "E-DB-004", f"a database of the home can't be opened ({why})", "Check the path and the owner of the home"
    )


def _sqlite_trigger(refusal: Refusal) -> str:
    when = f" WHEN {refusal.when.replace('IS DISTINCT FROM', 'IS NOT')}" if refusal.when else ""  # for SQLite before 3.39
    return (
        f"CREATE TRIGGER IF NOT EXISTS {refusal.name} BEFORE {refusal.event} ON {refusal.table}{when} "
        f"BEGIN SELECT RAISE(ABORT, '{refusal.message}'); END;"
    )


def _postgres_trigger(refusal: Refusal) -> str:
    when = f" WHEN ({refusal.when})" if refusal.when else ""
    lines = [
        f"CREATE OR REPLACE TRIGGER {refusal.name} BEFORE {refusal.event} ON {refusal.table} FOR EACH ROW{when} "
        f"EXECUTE FUNCTION refuse('{refusal.message}');"
    ]
    if refusal.event == "DELETE":
        lines.append(
            f"CREATE OR REPLACE TRIGGER {refusal.name}_all BEFORE TRUNCATE ON {refusal.table} FOR EACH STATEMENT "
            f"EXECUTE FUNCTION refuse('{refusal.message}');"
        )
    return "\n".join(lines)

"""A real server that goes away, a lost connection, a role without rights, an address with a password."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from privacy.database import PostgresPlace, Schema, open_database
from privacy.errors import EnvironmentFault, PrivetError, UsageError
from privacy.postgres import PostgresDatabase
from tests.worlds.postgres import PostgresServer

SCHEMA = Schema("CREATE TABLE IF NOT EXISTS t (a INTEGER PRIMARY KEY, secret TEXT UNIQUE);")


def numbers(database: PostgresDatabase) -> list[int]:
    with database.reading() as connection:
        return [a for (a,) in connection.execute("SELECT a FROM t ORDER BY a")]


def add(database: PostgresDatabase, number: int) -> None:
    with database.transaction() as connection:
        connection.execute("INSERT INTO t VALUES (?, 'Ada')", (number,))


def test_a_commit_waits_for_the_disk_and_writers_follow_one_another(postgres_server: PostgresServer) -> None:
    database = PostgresDatabase(postgres_server.place(), SCHEMA)
    with database.transaction() as connection:
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
        assert connection.execute("SHOW lock_timeout").fetchone() == ("1min",)
        other = PostgresDatabase(database.place, SCHEMA)
        with other.outside_transaction() as second:
            (free,) = second.execute("SELECT pg_try_advisory_lock(?)", (database._lock_key,)).fetchone()
    assert not free


def test_waiting_for_another_writer_ends(postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    place = postgres_server.place()
    holder = PostgresDatabase(place, SCHEMA)
    monkeypatch.setattr("privacy.postgres.BUSY_SECONDS", 0.2)
    waiter = PostgresDatabase(place, SCHEMA)
    with holder.transaction(), pytest.raises(EnvironmentFault, match="E-DB-002"), waiter.transaction():
        pass


def test_a_fault_tells_no_sql_and_no_value(postgres_server: PostgresServer) -> None:
    database = PostgresDatabase(postgres_server.place(), SCHEMA)
    add(database, 1)
    with pytest.raises(PrivetError, match="E-DB-003") as caught:
        add(database, 2)  # the same secret
    assert "Ada" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert numbers(database) == [1]


@pytest.mark.slow
def test_a_server_that_is_killed_keeps_what_was_committed_and_idle_connections_recover(postgres_server: PostgresServer) -> None:
    database = PostgresDatabase(postgres_server.place(), SCHEMA)
    add(database, 1)
    try:
        with pytest.raises(EnvironmentFault, match="E-DB-005"), database.transaction() as connection:  # noqa: PT012
            connection.execute("INSERT INTO t VALUES (2, 'Grace')")
            postgres_server.kill9()
        with pytest.raises(EnvironmentFault, match="E-DB-005"):
            numbers(database)
    finally:
        postgres_server.start()
    assert numbers(database) == [1]
    postgres_server.stop()
    postgres_server.start()
    assert numbers(database) == [1]  # over a connection that was idle when the server stopped


def test_an_address_that_leads_nowhere(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="E-DB-005") as caught:
        open_database(PostgresPlace(f"host={tmp_path} user=ada dbname=secret", "s"), SCHEMA)
    assert "ada" not in str(caught.value)


def test_a_password_in_the_address_is_refused(postgres_server: PostgresServer) -> None:
    with pytest.raises(UsageError, match="E-DB-008") as caught:
        open_database(PostgresPlace(postgres_server.dsn + " password=hunter2", "s"), SCHEMA)
    assert "hunter2" not in str(caught.value)


def test_a_password_that_any_server_would_get_is_refused(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "hunter2")
    with pytest.raises(UsageError, match="E-DB-010"):
        open_database(postgres_server.place(), SCHEMA)


def test_a_role_that_may_only_read_opens_and_reads_and_is_refused_to_write(postgres_server: PostgresServer) -> None:
    place = postgres_server.place()
    owner = PostgresDatabase(place, SCHEMA)
    add(owner, 1)
    role = f"reader_{place.schema}"
    with owner.transaction() as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN")
        connection.execute(f"GRANT USAGE ON SCHEMA {place.schema} TO {role}")
        connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {place.schema} TO {role}")
    reader = PostgresDatabase(PostgresPlace(postgres_server.dsn.replace("user=privet", f"user={role}"), place.schema), SCHEMA)
    assert numbers(reader) == [1]
    with pytest.raises(EnvironmentFault, match="E-DB-004"):
        add(reader, 2)


def test_a_forked_child_speaks_on_its_own_connection(postgres_server: PostgresServer) -> None:
    database = PostgresDatabase(postgres_server.place(), SCHEMA)

    def backend() -> Any:
        with database.reading() as connection:
            return connection.execute("SELECT pg_backend_pid()").fetchone()[0]

    ours = backend()
    assert backend() == ours  # the idle one was used again
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, str(backend()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(read, 100)) != ours
    assert backend() == ours

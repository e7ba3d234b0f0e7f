"""SQLite as ground: what returns is durable, one writes at a time, and no fault speaks SQL."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
from pathlib import Path

import pytest

from privacy import sqlite as sqlite_module
from privacy.database import Schema
from privacy.errors import EnvironmentFault, IntegrityError
from privacy.sqlite import SqliteDatabase, open_read_only

SCHEMA = Schema("CREATE TABLE IF NOT EXISTS t (a INTEGER PRIMARY KEY, secret TEXT UNIQUE);")


def count(database: SqliteDatabase) -> int:
    with database.reading() as connection:
        (number,) = connection.execute("SELECT count(*) FROM t").fetchone()
    return int(number)


def test_an_exception_takes_back_the_whole_transaction(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "d.sqlite", SCHEMA)

    def half() -> None:
        with database.transaction() as connection:
            connection.execute("INSERT INTO t VALUES (1, 'x')")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert count(database) == 0


def test_every_file_is_owner_only_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        database = SqliteDatabase(tmp_path / "d.sqlite", SCHEMA)
        with database.transaction() as connection:
            connection.execute("INSERT INTO t VALUES (1, 'x')")
            modes = {p.name: p.stat().st_mode & 0o777 for p in tmp_path.iterdir() if p.is_file()}
    finally:
        os.umask(before)
    assert len(modes) == 3
    assert set(modes.values()) == {0o600}


def test_commits_are_synchronous_and_writers_exclusive(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "d.sqlite", SCHEMA)
    with database.transaction() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        other = sqlite3.connect(tmp_path / "d.sqlite", isolation_level=None, timeout=0)
        with pytest.raises(sqlite3.OperationalError):  # before we wrote anything
            other.execute("BEGIN IMMEDIATE")
        other.close()


def test_a_fault_is_one_sentence_without_sql_or_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = SqliteDatabase(tmp_path / "d.sqlite", SCHEMA)
    with pytest.raises(IntegrityError) as caught, database.transaction() as connection:
        connection.executemany("INSERT INTO t VALUES (?, 'Ada')", [(1,), (2,)])
    assert caught.value.code == "E-DB-003"
    assert "Ada" not in str(caught.value)
    assert "t.secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    monkeypatch.setattr(sqlite_module, "BUSY_SECONDS", 0.1)
    holder = sqlite3.connect(tmp_path / "d.sqlite", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(EnvironmentFault, match="E-DB-002"), database.transaction():
        pass
    holder.close()


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "d.sqlite").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EnvironmentFault, match="E-DB-004"):
        SqliteDatabase(tmp_path / "d.sqlite", SCHEMA)
    assert not (tmp_path / "elsewhere").exists()


def test_reading_only_sees_a_log_that_was_not_folded_in_yet(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "d.sqlite", SCHEMA)
    keeper = sqlite3.connect(tmp_path / "d.sqlite", isolation_level=None)  # keeps the write-ahead log from going
    keeper.execute("SELECT count(*) FROM t").fetchone()
    with database.transaction() as connection:
        connection.execute("INSERT INTO t VALUES (1, 'x')")
    assert (tmp_path / "d.sqlite-wal").stat().st_size > 0
    with open_read_only(tmp_path / "d.sqlite") as found:
        assert found.execute("SELECT count(*) FROM t").fetchone() == (1,)
    with pytest.raises(EnvironmentFault, match="E-DB-004"), open_read_only(tmp_path / "d.sqlite") as found:
        found.execute("INSERT INTO t VALUES (2, 'y')")
    keeper.close()
    with pytest.raises(EnvironmentFault, match="E-DB-004"), open_read_only(tmp_path / "none.sqlite"):
        pass


def _create(folder: Path, barrier: object) -> None:
    for number in range(25):
        barrier.wait()  # type: ignore[attr-defined]
        database = SqliteDatabase(folder / f"{number}.sqlite", SCHEMA)
        with database.transaction() as connection:
            connection.execute("INSERT INTO t (secret) VALUES (NULL)")


def test_processes_that_make_one_file_at_once_all_succeed(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(5, timeout=60)
    workers = [fork.Process(target=_create, args=(tmp_path, barrier)) for _ in range(5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [w.exitcode for w in workers] == [0] * 5
    assert [count(SqliteDatabase(tmp_path / f"{n}.sqlite", SCHEMA)) for n in range(25)] == [5] * 25

"""The same promises on both grounds."""

from __future__ import annotations

import multiprocessing
import threading
from multiprocessing.synchronize import Event
from typing import Any

import pytest

from privacy.database import Database, Place, PostgresPlace, Refusal, Schema, open_database
from privacy.errors import IntegrityError, UsageError

SCHEMA = Schema(
    "CREATE TABLE IF NOT EXISTS t (a INTEGER PRIMARY KEY, weight REAL NOT NULL, body BLOB, word TEXT UNIQUE) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS total (name TEXT PRIMARY KEY, amount INTEGER NOT NULL) WITHOUT ROWID;",
    (
        Refusal("t_delete", "t", "DELETE", "append-only"),
        Refusal("t_update", "t", "UPDATE", "words stay", "OLD.word IS DISTINCT FROM NEW.word OR NEW.weight < OLD.weight"),
    ),
)


@pytest.fixture
def database(place: Place) -> Database:
    return open_database(place, SCHEMA)


def rows(database: Database) -> list[Any]:
    with database.reading() as connection:
        return connection.execute("SELECT a, weight, body, word FROM t ORDER BY a").fetchall()


def insert(database: Database, *row: object) -> None:
    with database.transaction() as connection:
        connection.execute("INSERT INTO t VALUES (?, ?, ?, ?)", row)


def test_values_come_back_as_they_went(database: Database, place: Place) -> None:
    big, odd = 2**62 + 1, 0.1 + 0.2
    insert(database, big, odd, b"\0\xff'%s?", "100 % 'sure'? 张伟")
    insert(database, 1, -1.5, None, None)
    with database.transaction() as connection:
        connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", [(2, 0.0, b"", "x"), (3, 0.0, b"", "y")])
    assert rows(database) == [
        (1, -1.5, None, None),
        (2, 0.0, b"", "x"),
        (3, 0.0, b"", "y"),
        (big, odd, b"\0\xff'%s?", "100 % 'sure'? 张伟"),
    ]
    again = open_database(place, SCHEMA)  # opening twice makes nothing twice
    assert len(rows(again)) == 4
    with again.reading() as connection:
        assert connection.execute("SELECT count(*) FROM t WHERE word = '50 %' OR a % 2 = 1").fetchone() == (3,)


def test_an_exception_takes_back_the_whole_transaction(database: Database) -> None:
    def half() -> None:
        with database.transaction() as connection:
            connection.execute("INSERT INTO t VALUES (1, 1, NULL, 'x')")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert rows(database) == []
    insert(database, 1, 1.0, None, "x")  # and the place is usable


@pytest.mark.parametrize(
    "change", ["DELETE FROM t", "UPDATE t SET word = 'other'", "UPDATE t SET word = NULL", "UPDATE t SET weight = 0.5"]
)
def test_the_database_itself_refuses_what_a_refusal_names(database: Database, change: str) -> None:
    insert(database, 1, 1.0, None, "secret word")
    with pytest.raises(IntegrityError, match="E-DB-003") as caught, database.transaction() as connection:
        connection.execute(change)
    assert "secret" not in str(caught.value)
    assert "append" not in str(caught.value)
    assert rows(database) == [(1, 1.0, None, "secret word")]
    with database.transaction() as connection:
        connection.execute("UPDATE t SET weight = 2")  # what no refusal names goes
    assert rows(database) == [(1, 2.0, None, "secret word")]


def test_truncating_is_deleting(database: Database) -> None:
    if database.dialect == "sqlite":
        pytest.skip("SQLite has no TRUNCATE")
    insert(database, 1, 1.0, None, None)
    with pytest.raises(IntegrityError, match="E-DB-003"), database.transaction() as connection:
        connection.execute("TRUNCATE t")
    assert len(rows(database)) == 1


def test_a_reader_sees_one_state(database: Database) -> None:
    with database.reading() as connection:
        before = connection.execute("SELECT count(*) FROM t").fetchone()
        insert(database, 1, 1.0, None, None)
        assert connection.execute("SELECT count(*) FROM t").fetchone() == before == (0,)
    assert len(rows(database)) == 1


def _read_then_write(place: Place, times: int, begin: Event) -> None:
    database = open_database(place, SCHEMA)
    begin.wait()
    for _ in range(times):
        with database.transaction() as connection:
            (amount,) = connection.execute("SELECT amount FROM total WHERE name = 'n'").fetchone()
            connection.execute("UPDATE total SET amount = ? WHERE name = 'n'", (amount + 1,))


def test_processes_that_read_before_they_write_lose_no_update(database: Database, place: Place) -> None:
    with database.transaction() as connection:
        connection.execute("INSERT INTO total VALUES ('n', 0)")
    context = multiprocessing.get_context("fork")  # the parent's idle connections must not be spoken on by its children
    begin = context.Event()
    workers = [context.Process(target=_read_then_write, args=(place, 25, begin)) for _ in range(4)]
    for worker in workers:
        worker.start()
    begin.set()
    for worker in workers:
        worker.join(timeout=120)
    assert [worker.exitcode for worker in workers] == [0] * 4
    with database.reading() as connection:
        assert connection.execute("SELECT amount FROM total").fetchone() == (100,)


def test_rows_can_be_locked_without_locking_the_place(database: Database) -> None:
    with database.transaction() as connection:
        connection.executemany("INSERT INTO total VALUES (?, 0)", [("a",), ("b",)])
    order: list[str] = []

    def other(name: str) -> None:
        with database.transaction(exclusive=False) as connection:
            connection.execute(f"SELECT amount FROM total WHERE name = ?{database.row_lock}", (name,)).fetchone()
            order.append(name)

    with database.transaction(exclusive=False) as connection:
        connection.execute(f"SELECT amount FROM total WHERE name = ?{database.row_lock}", ("a",)).fetchone()
        same, free = threading.Thread(target=other, args=("a",)), threading.Thread(target=other, args=("b",))
        same.start()
        free.start()
        free.join(timeout=0.5 if database.dialect == "sqlite" else 20)
        assert order == ([] if database.dialect == "sqlite" else ["b"])
    same.join(timeout=20)
    free.join(timeout=20)
    assert sorted(order) == ["a", "b"]


def test_many_can_open_a_new_place_at_once(place: Place) -> None:
    faults: list[BaseException] = []

    def one(number: int) -> None:
        try:
            insert(open_database(place, SCHEMA), number, 1.0, None, None)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert faults == []
    assert len(rows(open_database(place, SCHEMA))) == 8


@pytest.mark.parametrize("name", ["", "Privet", "a;b", 'a"b', "1a", "x" * 64])
def test_a_schema_name_that_could_be_more_than_a_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="E-DB-007"):
        PostgresPlace("host=/nowhere", name)

"""Whoever writes the ledger's tables directly: refused by the database, or named by the self-audit, and never a lower sum."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import psycopg
import pytest

from privacy.accounting import epsilon_of_charge
from privacy.canonical import digest_of
from privacy.database import Place
from privacy.errors import IntegrityError
from privacy.ledger import CapRecord, Ledger
from privacy.ledger_rows import SCHEMA
from privacy.mechanisms import charge_of
from tests.worlds.ledgers import DELTA, STEP, Tamperer
from tests.worlds.postgres import PostgresServer

Q, SIGMA = 0.01, 1.0
DATABASE_REFUSES = (sqlite3.IntegrityError, psycopg.errors.RaiseException)


@pytest.fixture
def ledger(place: Place) -> Ledger:
    found = Ledger(place)
    found.open_scope("chat", "customer", 3.0, DELTA)
    return found


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM spend", "DELETE FROM scope", "DELETE FROM charge", "DELETE FROM held", "DELETE FROM event", "DELETE FROM cap",
     "UPDATE scope SET cap_epsilon = 99", "UPDATE scope SET last_at = ''", "UPDATE spend SET leased = 1",
     "UPDATE spend SET steps = 20", "UPDATE spend SET mechanism = '{}'", "UPDATE spend SET key = 'z'",
     "UPDATE spend SET settled = 40 WHERE key = 'done'", "UPDATE charge SET scope = 'x'", "UPDATE event SET steps = 0",
     "UPDATE cap SET cap_epsilon = 99", "UPDATE held SET mechanism = '{}'"],
)  # fmt: skip
def test_sql_can_not_shrink_a_charge(ledger: Ledger, place: Place, statement: str) -> None:
    ledger.reserve("a", "chat", Q, SIGMA, 100)
    ledger.lease("a", 30)
    ledger.reserve("done", "chat", Q, SIGMA, 50)
    ledger.settle("done", 50)
    ledger.raise_cap("chat", CapRecord(4.0, DELTA, digest_of("raise"), "second study", "privacy officer"))
    with pytest.raises(DATABASE_REFUSES):
        Tamperer(place).sql(statement)
    assert ledger.self_audit() == []
    assert ledger.spent_epsilon("chat") == epsilon_of_charge(charge_of(STEP, 150), DELTA)


@pytest.mark.parametrize(
    ("statement", "said"),
    [("UPDATE spend SET mechanism = replace(mechanism, '1.0', '50.0')", "not what was reserved"),
     ("UPDATE spend SET steps = 60 WHERE key = 'a'", "not what was reserved"),
     ("UPDATE spend SET mechanism = '{\"mechanism\":\"os.system\"}'", "E-MECH-001"),
     ("UPDATE held SET runs = 5", "not the sum"), ("DELETE FROM held", "not the sum"),
     ("DELETE FROM charge WHERE key = 'a'", "charged to no scope"), ("DELETE FROM spend WHERE key = 'a'", "not the sum"),
     ("UPDATE spend SET settled = 40 WHERE key = 'a'", "not what its history tells"),
     ("UPDATE spend SET leased = 10 WHERE key = 'a'", "not what its history tells"),
     ("UPDATE event SET steps = 3 WHERE kind = 'lease'", "not what its history tells"),
     ("DELETE FROM event WHERE kind = 'lease'", "not what its history tells"),
     ("UPDATE scope SET cap_epsilon = 0.01", "exceed the cap"), ("DELETE FROM scope", "never opened"),
     ("UPDATE spend SET settled = 3 WHERE key = 'a'", "less than it leased"),
     ("INSERT INTO cap VALUES ('chat', 1, 0.5, 'e', 'r', 'b', 't')", "not a rising series"),
     ("INSERT INTO cap VALUES ('chat', 7, 9.0, 'e', 'r', 'b', 't')", "not a rising series")],
)  # fmt: skip
def test_the_self_audit_names_a_forged_row(ledger: Ledger, place: Place, statement: str, said: str) -> None:
    ledger.reserve("a", "chat", Q, SIGMA, 100)
    ledger.lease("a", 30)
    tamperer = Tamperer(place).disarm()
    assert any("trigger" in fault for fault in ledger.self_audit())
    tamperer.sql(statement)
    tamperer.rearm()
    faults = ledger.self_audit()
    assert any(said in fault for fault in faults), faults
    assert not any("trigger" in fault for fault in faults)


def test_a_trigger_that_was_emptied_is_named(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.sqlite")
    tamperer = Tamperer(tmp_path / "l.sqlite")
    assert ledger.self_audit() == []
    tamperer.sql("DROP TRIGGER spend_delete")
    tamperer.sql("CREATE TRIGGER spend_delete BEFORE DELETE ON spend WHEN FALSE BEGIN SELECT RAISE(ABORT, 'no reset'); END")
    assert any("was changed" in fault for fault in ledger.self_audit())


@pytest.mark.parametrize(
    "statement",
    ["CREATE TRIGGER more AFTER INSERT ON spend BEGIN UPDATE held SET runs = 0; END",
     "CREATE VIEW more AS SELECT 0 AS runs", "CREATE TABLE more (runs INTEGER)", "ALTER TABLE held ADD COLUMN more INTEGER"],
)  # fmt: skip
def test_what_was_added_to_the_database_is_named(tmp_path: Path, statement: str) -> None:
    ledger = Ledger(tmp_path / "l.sqlite")
    Tamperer(tmp_path / "l.sqlite").sql(statement)
    assert ledger.self_audit() == ["the database holds a table, view or trigger that is not the ledger's, or was changed"]


@pytest.mark.parametrize(
    "statement",
    ["ALTER TABLE spend ENABLE REPLICA TRIGGER spend_update", "DROP TRIGGER spend_delete_all ON spend",
     "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$",
     "CREATE TRIGGER more AFTER INSERT ON spend FOR EACH ROW EXECUTE FUNCTION refuse('x')"],
)  # fmt: skip
def test_a_guard_of_postgres_that_no_longer_guards_is_named(postgres_server: PostgresServer, statement: str) -> None:
    place = postgres_server.place("guards")
    ledger = Ledger(place)
    assert ledger.self_audit() == []
    Tamperer(place).sql(statement)
    assert any("trigger" in fault for fault in ledger.self_audit())


@pytest.mark.parametrize(
    "statement",
    ["UPDATE spend SET mechanism = CAST(mechanism AS BLOB)", "UPDATE held SET mechanism = CAST(mechanism AS BLOB)",
     "UPDATE held SET runs = 99.5", "UPDATE scope SET cap_epsilon = 'much'", "UPDATE scope SET delta = X'00'",
     "UPDATE spend SET settled = 70.5", "INSERT INTO cap VALUES ('chat', 1, 'much', 'e', 'r', 'b', 't')",
     "UPDATE event SET steps = 'x'"],
)  # fmt: skip
def test_a_value_of_another_type_is_a_forged_row_and_no_defect_of_ours(tmp_path: Path, statement: str) -> None:
    """SQLite keeps any type in any column."""
    path = tmp_path / "l.sqlite"
    ledger = Ledger(path)
    ledger.open_scope("chat", "customer", 3.0, DELTA)
    ledger.reserve("a", "chat", Q, SIGMA, 100)
    Tamperer(path).disarm().sql(statement)
    assert any("E-LEDGER-008" in fault for fault in ledger.self_audit())
    if "event" not in statement:
        with pytest.raises(IntegrityError, match="E-LEDGER-008"):
            Ledger(path).reserve("b", "chat", Q, SIGMA, 1)


@pytest.mark.parametrize("statement", ["UPDATE spend SET steps = 1", "UPDATE held SET runs = 1", "DELETE FROM charge"])
def test_a_forged_row_closes_the_scope_instead_of_lowering_its_sum(place: Place, ledger: Ledger, statement: str) -> None:
    ledger.reserve("a", "chat", Q, SIGMA, 100)
    Tamperer(place).disarm().sql(statement)
    with pytest.raises(IntegrityError, match="E-LEDGER-008"):
        Ledger(place).reserve("b", "chat", Q, SIGMA, 1)


def test_every_table_is_guarded_against_deleting() -> None:
    tables = {line.split()[5] for line in SCHEMA.tables.splitlines() if line.startswith("CREATE TABLE")}
    assert {refusal.table for refusal in SCHEMA.refusals if refusal.event == "DELETE"} == tables

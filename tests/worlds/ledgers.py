"""Ledgers on either ground, and somebody who writes their tables directly."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from privacy.database import Place, PostgresPlace
from privacy.ledger_rows import SCHEMA
from privacy.mechanisms import Mechanism, PoissonSampledGaussian, charge_of

DELTA = 1e-5
STEP = PoissonSampledGaussian(0.01, 1.0)


def most_steps(epsilon: float, mechanism: Mechanism = STEP, delta: float = DELTA) -> int:
    """How many steps fit a cap, by the naive way: one by one."""
    from privacy.accounting import admits, cap_vector

    cap, step, count = cap_vector(epsilon, delta), charge_of(mechanism, 1), 0
    while admits([(count + 1) * units for units in step], cap):
        count += 1
    return count


class Tamperer:
    """A database administrator: any statement, as the owner of the tables."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def sql(self, statement: str, *parameters: object) -> list[Any]:
        """Raises the driver's own error when the database refuses."""
        if isinstance(self._place, PostgresPlace):
            import psycopg

            options = f"-c search_path={self._place.schema}"
            with psycopg.connect(self._place.dsn, autocommit=True, options=options) as connection:
                cursor = connection.execute(statement.replace("?", "%s"), parameters or None)
                return cursor.fetchall() if cursor.description else []
        connection = sqlite3.connect(self._place, isolation_level=None)
        try:
            connection.execute("PRAGMA ignore_check_constraints = ON" if self._disarmed else "PRAGMA user_version")
            return connection.execute(statement, parameters).fetchall()
        finally:
            connection.close()

    _disarmed = False

    def disarm(self) -> Tamperer:
        """Take every guard away that the database holds."""
        self._disarmed = True
        if isinstance(self._place, Path):
            for refusal in SCHEMA.refusals:
                self.sql(f"DROP TRIGGER {refusal.name}")
            return self
        for table in sorted({refusal.table for refusal in SCHEMA.refusals}):
            self.sql(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        found = self.sql(
            "SELECT conrelid::regclass::text, conname FROM pg_constraint WHERE contype IN ('c', 'f')"
            " AND connamespace = current_schema()::regnamespace"
        )
        for table, name in found:
            self.sql(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
        return self

    def rearm(self) -> None:
        """Put the triggers back, so that only the rows tell."""
        if isinstance(self._place, Path):
            connection = sqlite3.connect(self._place)
            connection.executescript(SCHEMA.sqlite())
            connection.close()
            return
        for table in sorted({refusal.table for refusal in SCHEMA.refusals}):
            self.sql(f"ALTER TABLE {table} ENABLE TRIGGER USER")

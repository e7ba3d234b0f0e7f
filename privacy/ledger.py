"""The privacy-budget ledger: what may still be spent is decided by exact integers, and a crash never gives budget back.

reserve (admission, whole run) -> lease (durable, before the steps run) -> settle (gives back what was never leased).
Guarantee: over any interleaving of processes the charged steps of a scope never exceed its cap (Rényi filter over
fixed-point vectors, checked under the write lock against the rows themselves); leased steps stay charged; asking
again with the same key and request is free; there is no reset.
Assumption: every step on the scope's data is leased here first. Not covered from inside: somebody who can write the file,
beyond what `self_audit` finds (the journal and released traces name the spends outside).
The cap is the guarantee (privacy filter); `spent_epsilon` is information (odometer).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, cast

from privacy.accounting import admits, cap_vector, charge_vector, epsilon_of_charge
from privacy.canonical import digest_of
from privacy.database import Database
from privacy.errors import BudgetExceeded, IntegrityError, PolicyError, UsageError
from privacy.rounding import EXACT, shown_up

State = Literal["reserved", "running", "settled"]
_MAX_STEPS = 10**9
_SCHEMA = """
CREATE TABLE IF NOT EXISTS scope (
  scope TEXT PRIMARY KEY, unit TEXT NOT NULL, cap_epsilon REAL NOT NULL, delta REAL NOT NULL, opened_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS spend (
  key TEXT PRIMARY KEY, scope TEXT NOT NULL REFERENCES scope (scope), fingerprint TEXT NOT NULL,
  sampling_probability REAL NOT NULL, noise_multiplier REAL NOT NULL, steps INTEGER NOT NULL CHECK (steps > 0),
  leased INTEGER NOT NULL DEFAULT 0 CHECK (leased BETWEEN 0 AND steps),
  settled INTEGER CHECK (settled IS NULL OR settled BETWEEN leased AND steps), reserved_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS spend_scope ON spend (scope);
CREATE TRIGGER IF NOT EXISTS scope_delete BEFORE DELETE ON scope BEGIN SELECT RAISE(ABORT, 'no reset'); END;
CREATE TRIGGER IF NOT EXISTS scope_update BEFORE UPDATE ON scope BEGIN SELECT RAISE(ABORT, 'no change'); END;
CREATE TRIGGER IF NOT EXISTS spend_delete BEFORE DELETE ON spend BEGIN SELECT RAISE(ABORT, 'no reset'); END;
CREATE TRIGGER IF NOT EXISTS spend_update BEFORE UPDATE ON spend
  WHEN OLD.settled IS NOT NULL OR NEW.leased < OLD.leased OR NEW.key IS NOT OLD.key OR NEW.scope IS NOT OLD.scope
    OR NEW.fingerprint IS NOT OLD.fingerprint OR NEW.sampling_probability IS NOT OLD.sampling_probability
    OR NEW.noise_multiplier IS NOT OLD.noise_multiplier OR NEW.steps IS NOT OLD.steps
  BEGIN SELECT RAISE(ABORT, 'charges only grow'); END;
"""
_COLUMNS = "key, scope, fingerprint, sampling_probability, noise_multiplier, steps, leased, settled, reserved_at"


@dataclass(frozen=True, slots=True)
class Spend:
    """One reservation. `settled` is None until it is closed; `charged` is what counts against the cap now, in steps."""

    key: str
    scope: str
    fingerprint: str
    sampling_probability: float
    noise_multiplier: float
    steps: int
    leased: int
    settled: int | None
    reserved_at: str

    @property
    def state(self) -> State:
        if self.settled is not None:
            return "settled"
        return "running" if self.leased else "reserved"

    @property
    def charged(self) -> int:
        return self.steps if self.settled is None else self.settled


@dataclass(frozen=True, slots=True)
class _Scope:
    unit: str
    cap_epsilon: float
    delta: float


class Ledger:
    """Safe for threads and processes; each call is durable when it returns."""

    __slots__ = ("_database",)

    def __init__(self, path: Path) -> None:
        self._database = Database(path, _SCHEMA)

    def open_scope(self, scope: str, unit: str, cap_epsilon: float, delta: float) -> None:
        """Name a dataset's cap, once. Raises PolicyError E-LEDGER-001 when the scope is open with other terms."""
        cap_vector(cap_epsilon, delta)  # refuses what is no epsilon or delta
        wanted = _Scope(unit, float(cap_epsilon), float(delta))
        with self._database.transaction() as connection:
            found = _find_scope(connection, scope)
            if found is None:
                row = (scope, wanted.unit, wanted.cap_epsilon, wanted.delta, _now())
                connection.execute("INSERT INTO scope VALUES (?, ?, ?, ?, ?)", row)
            elif found != wanted:
                raise PolicyError(
                    "E-LEDGER-001",
                    f"budget scope {scope} is open with cap epsilon {found.cap_epsilon}, delta {found.delta} and "
                    f"privacy unit {found.unit}, which the policy changes",
                    "Keep those terms in the policy; a budget can't be reset",
                )

    def reserve(self, key: str, scope: str, sampling_probability: float, noise_multiplier: float, steps: int) -> None:
        """Set the whole run's charge aside; free when the same key asked the same before.

        Raises BudgetExceeded E-BUDGET-001 (nothing was charged), UsageError E-LEDGER-002 (no such scope), E-LEDGER-003 (the
        key stands for another request), PolicyError E-LEDGER-004 or E-ACCOUNT-001 (parameters).
        """
        if isinstance(steps, bool) or not isinstance(steps, int) or not 0 < steps <= _MAX_STEPS:
            raise PolicyError("E-LEDGER-004", "steps must be a whole number from 1 to 1e9", "Correct the training recipe")
        step = charge_vector(sampling_probability, noise_multiplier)
        _total(self.spends(scope))  # vectors are costly: this computes those already there before the write lock is held
        fingerprint = _fingerprint(scope, sampling_probability, noise_multiplier, steps)
        with self._database.transaction() as connection:
            found = _find(connection, key)
            if found is not None:
                if found.fingerprint != fingerprint:
                    raise UsageError(
                        "E-LEDGER-003", "this ledger key was used for another request", "Use a new run id for a changed request"
                    )
                return
            terms = _scope(connection, scope)
            held = _total(_all(connection, scope))
            asked = [used + steps * units for used, units in zip(held, step, strict=True)]
            if not admits(asked, cap_vector(terms.cap_epsilon, terms.delta)):
                raise _exceeded(scope, terms, held, asked)
            row = (key, scope, fingerprint, sampling_probability, noise_multiplier, steps, 0, None, _now())
            connection.execute(f"INSERT INTO spend ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)  # noqa: S608

    def lease(self, key: str, upto: int) -> None:
        """Durably charge the first `upto` steps of the reservation; call before running them. Smaller values are no-ops.

        Raises UsageError E-LEDGER-005 for an unknown key, E-LEDGER-006 beyond the reservation or after settling.
        """
        with self._database.transaction() as connection:
            spend = _get(connection, key)
            if spend.settled is not None or not 0 <= upto <= spend.steps:
                raise UsageError(
                    "E-LEDGER-006",
                    f"a lease of {upto} steps is outside the reservation of {spend.steps}, or that is settled",
                    "Reserve a new run for further steps",
                )
            if upto > spend.leased:
                connection.execute("UPDATE spend SET leased = ? WHERE key = ?", (upto, key))

    def settle(self, key: str, steps: int) -> None:
        """Close the reservation at `steps`, or at the leased steps if those are more; the rest returns to the scope.

        Settling again the same way changes nothing. Raises UsageError E-LEDGER-005, E-LEDGER-007.
        """
        with self._database.transaction() as connection:
            spend = _get(connection, key)
            closing = max(steps, spend.leased)
            if not 0 <= closing <= spend.steps or (spend.settled is not None and spend.settled != closing):
                raise UsageError(
                    "E-LEDGER-007",
                    f"a reservation of {spend.steps} steps can't be settled at {steps}, or was settled otherwise before",
                    "Report this as a defect of the trainer; the charge stands as it is",
                )
            if spend.settled is None:
                connection.execute("UPDATE spend SET settled = ? WHERE key = ?", (closing, key))

    def spend(self, key: str) -> Spend | None:
        with self._database.reading() as connection:
            return _find(connection, key)

    def spends(self, scope: str) -> list[Spend]:
        with self._database.reading() as connection:
            return _all(connection, scope)

    def scopes(self) -> list[str]:
        with self._database.reading() as connection:
            return [name for (name,) in connection.execute("SELECT scope FROM scope ORDER BY scope")]

    def cap_epsilon(self, scope: str) -> float:
        with self._database.reading() as connection:
            return _scope(connection, scope).cap_epsilon

    def spent_epsilon(self, scope: str) -> float:
        """Epsilon of everything charged so far at the scope's delta, open reservations included, rounded up."""
        with self._database.reading() as connection:
            return epsilon_of_charge(_total(_all(connection, scope)), _scope(connection, scope).delta)

    def remaining(self, scope: str) -> str:
        """One line for people. Epsilons of runs don't add up, so this is no promise about the next run."""
        with self._database.reading() as connection:
            terms, found = _scope(connection, scope), _all(connection, scope)
        spent = epsilon_of_charge(_total(found), terms.delta)
        return (
            f"{scope}: epsilon {shown_up(spent)} of {shown_up(terms.cap_epsilon)} spent at delta {terms.delta} "
            f"per {terms.unit}, in {len(found)} reservation(s), {sum(s.settled is None for s in found)} of them open"
        )

    def self_audit(self) -> list[str]:
        """What in the file contradicts itself, recomputed from the mechanisms; empty when nothing does."""
        faults: list[str] = []
        with self._database.reading() as connection:
            if connection.execute("PRAGMA integrity_check").fetchone() != ("ok",):
                faults.append("the database file is damaged")
            triggers = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")}
            if not {"scope_delete", "scope_update", "spend_delete", "spend_update"} <= triggers:
                faults.append("a trigger that keeps charges from shrinking is missing")
            names = [name for (name,) in connection.execute("SELECT scope FROM scope UNION SELECT scope FROM spend ORDER BY 1")]
            for name in names:
                faults += _audit_scope(connection, name)
        return faults


def _audit_scope(connection: sqlite3.Connection, scope: str) -> list[str]:
    terms, found = _find_scope(connection, scope), _all(connection, scope)
    if terms is None:
        return [f"{scope}: charged but never opened"]
    faults = []
    for spend in found:
        expected = _fingerprint(spend.scope, spend.sampling_probability, spend.noise_multiplier, spend.steps)
        if spend.fingerprint != expected:
            faults.append(f"{scope}: spend {spend.key} is not what was reserved")
        if not 0 <= spend.leased <= spend.charged <= spend.steps:
            faults.append(f"{scope}: spend {spend.key} is charged less than it leased, or more than it reserved")
    if not faults and not admits(_total(found), cap_vector(terms.cap_epsilon, terms.delta)):
        faults.append(f"{scope}: the charges exceed the cap")
    return faults


def _total(spends: Sequence[Spend]) -> list[int]:
    """Composed charge in whole units of RDP. Raises IntegrityError E-LEDGER-008 for a row no ledger wrote."""
    total: list[int] = [0] * len(charge_vector(1.0, 1.0))
    for spend in spends:
        if spend.fingerprint != _fingerprint(spend.scope, spend.sampling_probability, spend.noise_multiplier, spend.steps):
            raise IntegrityError(
                "E-LEDGER-008", "a charge in the ledger is not what was reserved", "Restore ledger.sqlite from its backup"
            )
        step = charge_vector(spend.sampling_probability, spend.noise_multiplier)
        total = [used + spend.charged * units for used, units in zip(total, step, strict=True)]
    return total


def _fingerprint(scope: str, sampling_probability: float, noise_multiplier: float, steps: int) -> str:
    return digest_of([scope, float(sampling_probability), float(noise_multiplier), steps])


def _find(connection: sqlite3.Connection, key: str) -> Spend | None:
    row = connection.execute(f"SELECT {_COLUMNS} FROM spend WHERE key = ?", (key,)).fetchone()  # noqa: S608
    return Spend(*row) if row else None


def _get(connection: sqlite3.Connection, key: str) -> Spend:
    found = _find(connection, key)
    if found is None:
        raise UsageError("E-LEDGER-005", "nothing was reserved under this ledger key", "Reserve before leasing or settling")
    return found


def _all(connection: sqlite3.Connection, scope: str) -> list[Spend]:
    rows = connection.execute(f"SELECT {_COLUMNS} FROM spend WHERE scope = ? ORDER BY reserved_at, key", (scope,))  # noqa: S608
    return [Spend(*row) for row in rows]


def _find_scope(connection: sqlite3.Connection, scope: str) -> _Scope | None:
    row = connection.execute("SELECT unit, cap_epsilon, delta FROM scope WHERE scope = ?", (scope,)).fetchone()
    return _Scope(*cast("tuple[str, float, float]", row)) if row else None


def _scope(connection: sqlite3.Connection, scope: str) -> _Scope:
    found = _find_scope(connection, scope)
    if found is None:
        raise UsageError("E-LEDGER-002", "no budget was opened for this scope", "Open it with the policy's cap first")
    return found


def _exceeded(scope: str, terms: _Scope, held: Sequence[int], asked: Sequence[int]) -> BudgetExceeded:
    spent, reached = epsilon_of_charge(held, terms.delta), epsilon_of_charge(asked, terms.delta)
    return BudgetExceeded(
        "E-BUDGET-001",
        f"{scope} would reach epsilon {shown_up(reached, EXACT)} of {shown_up(terms.cap_epsilon)} per {terms.unit} "
        f"({shown_up(spent)} is spent or reserved); nothing was charged",
        "Lower budget.epsilon or the number of steps; a spent budget does not come back",
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")

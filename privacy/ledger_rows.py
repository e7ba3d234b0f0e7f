"""What the ledger keeps, row by row: its tables, the types that its callers see, and reading and writing of both.

Guarantee: nothing here decides; a row that does not read back as what the ledger writes is IntegrityError E-LEDGER-008 or
E-MECH-001, never a smaller charge. Totals are counts of runs per mechanism, whole numbers, so no vector can be forged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from privacy.accounting import cap_vector
from privacy.canonical import Digest, canonical_json, digest_of, is_digest, parse_canonical
from privacy.database import Connection, Refusal, Schema
from privacy.errors import IntegrityError, PolicyError, UsageError
from privacy.mechanisms import Atom, Composed, Mechanism, NoiseSchedule, PoissonSampledGaussian, expand, from_json, to_json

State = Literal["reserved", "running", "settled"]
EventKind = Literal["open", "reserve", "lease", "settle", "cap"]

_TABLES = """
CREATE TABLE IF NOT EXISTS scope (
  scope TEXT PRIMARY KEY, unit TEXT NOT NULL, cap_epsilon REAL NOT NULL, delta REAL NOT NULL,
  opened_at TEXT NOT NULL, last_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cap (
  scope TEXT NOT NULL REFERENCES scope (scope), number INTEGER NOT NULL CHECK (number > 0), cap_epsilon REAL NOT NULL,
  envelope TEXT NOT NULL UNIQUE, reason TEXT NOT NULL, raised_by TEXT NOT NULL, at TEXT NOT NULL, PRIMARY KEY (scope, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS spend (
  key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, mechanism TEXT NOT NULL, steps INTEGER NOT NULL CHECK (steps > 0),
  leased INTEGER NOT NULL DEFAULT 0 CHECK (leased BETWEEN 0 AND steps),
  settled INTEGER CHECK (settled IS NULL OR settled BETWEEN leased AND steps), reserved_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS charge (
  scope TEXT NOT NULL REFERENCES scope (scope), key TEXT NOT NULL REFERENCES spend (key), position INTEGER NOT NULL,
  PRIMARY KEY (scope, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS charge_key ON charge (key, position);
CREATE TABLE IF NOT EXISTS held (
  scope TEXT NOT NULL REFERENCES scope (scope), fingerprint TEXT NOT NULL, mechanism TEXT NOT NULL,
  runs INTEGER NOT NULL CHECK (runs >= 0), PRIMARY KEY (scope, fingerprint)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS event (
  key TEXT NOT NULL REFERENCES spend (key), number INTEGER NOT NULL, at TEXT NOT NULL, kind TEXT NOT NULL,
  steps INTEGER NOT NULL, PRIMARY KEY (key, number)
) WITHOUT ROWID;
"""


def _changes(*columns: str) -> str:
    return " OR ".join(f"NEW.{name} IS DISTINCT FROM OLD.{name}" for name in columns)


SCHEMA = Schema(
    _TABLES,
    (
        *(Refusal(f"{table}_delete", table, "DELETE", "no reset") for table in ("scope", "spend", "charge", "held")),
        *(Refusal(f"{table}_delete", table, "DELETE", "records stay") for table in ("cap", "event")),
        *(Refusal(f"{table}_update", table, "UPDATE", "records stay") for table in ("cap", "charge", "event")),
        Refusal(
            "scope_update", "scope", "UPDATE", "no change",
            f"{_changes('scope', 'unit', 'cap_epsilon', 'delta', 'opened_at')} OR NEW.last_at < OLD.last_at",
        ),
        Refusal("held_update", "held", "UPDATE", "totals keep their mechanism", _changes("scope", "fingerprint", "mechanism")),
        Refusal(
            "spend_update", "spend", "UPDATE", "charges only grow",
            "OLD.settled IS NOT NULL OR NEW.leased < OLD.leased OR "
            + _changes("key", "fingerprint", "mechanism", "steps", "reserved_at"),
        ),
    ),
)  # fmt: skip
_FIND_SCOPE = "SELECT unit, cap_epsilon, delta, opened_at, last_at FROM scope WHERE scope = ?"
_SPEND = "s.key, s.fingerprint, s.mechanism, s.steps, s.leased, s.settled, s.reserved_at"


@dataclass(frozen=True, slots=True)
class Spend:
    """One reservation, against every scope in `scopes`. `charged` is what counts now, in steps; settled None: still open."""

    key: str
    scopes: tuple[str, ...]
    fingerprint: Digest
    mechanism: Mechanism
    steps: int
    leased: int
    settled: int | None
    reserved_at: str

    @property
    def scope(self) -> str:
        """The one that the reservation named first."""
        return self.scopes[0]

    @property
    def sampling_probability(self) -> float:
        """NaN, which equals nothing, unless this is DP-SGD."""
        return self.mechanism.sampling_probability if isinstance(self.mechanism, PoissonSampledGaussian) else math.nan

    @property
    def noise_multiplier(self) -> float:
        """NaN, which equals nothing, unless this is DP-SGD."""
        return self.mechanism.noise_multiplier if isinstance(self.mechanism, PoissonSampledGaussian) else math.nan

    @property
    def state(self) -> State:
        if self.settled is not None:
            return "settled"
        return "running" if self.leased else "reserved"

    @property
    def charged(self) -> int:
        return self.steps if self.settled is None else self.settled


@dataclass(frozen=True, slots=True)
class ScopeTerms:
    """`cap_epsilon` is the cap now, raises included."""

    unit: str
    cap_epsilon: float
    delta: float


@dataclass(frozen=True, slots=True)
class CapRecord:
    """A decision to raise a cap. Whoever calls has verified the signed envelope; its digest is kept, and counts once.

    delta: that of the scope, which a raise can't change. reason, by: shown to people, so without personal data of subjects.
    """

    new_cap_epsilon: float
    delta: float
    envelope_digest: Digest
    reason: str
    by: str

    def __post_init__(self) -> None:
        cap_vector(self.new_cap_epsilon, self.delta)
        said = all(isinstance(text, str) and 0 < len(text.strip()) <= 1000 for text in (self.reason, self.by))
        if not said or not is_digest(self.envelope_digest):
            raise PolicyError(
                "E-LEDGER-012",
                "a record that raises a cap needs a reason, who decided, and the digest of its signed envelope",
                "Complete the record and have it signed again",
            )


@dataclass(frozen=True, slots=True)
class LedgerEvent:
    """One line of a scope's history. `epsilon_after` is recomputed from the rows, at the scope's delta, rounded up."""

    at: str
    key: str
    kind: EventKind
    steps: int
    epsilon_after: float
    note: str


@dataclass(frozen=True, slots=True)
class EventRow:
    key: str
    number: int
    at: str
    kind: EventKind
    steps: int


@dataclass(frozen=True, slots=True)
class CapRow:
    number: int
    cap_epsilon: float
    envelope: Digest
    reason: str
    by: str
    at: str


@dataclass(frozen=True, slots=True)
class ScopeRow:
    """The terms as they were opened."""

    unit: str
    cap_epsilon: float
    delta: float
    opened_at: str
    last_at: str


def request_fingerprint(scopes: Sequence[str], mechanism: Mechanism, steps: int) -> Digest:
    return digest_of({"scopes": sorted(scopes), "mechanism": to_json(mechanism), "steps": steps})


def insert_scope(connection: Connection, scope: str, terms: ScopeTerms, at: str) -> None:
    row = (scope, terms.unit, terms.cap_epsilon, terms.delta, at, at)
    connection.execute("INSERT INTO scope VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", row)


def insert_spend(connection: Connection, spend: Spend) -> bool:
    """False: another transaction reserved under this key meanwhile."""
    text = _text(spend.mechanism)
    row = (spend.key, spend.fingerprint, text, spend.steps, spend.leased, spend.settled, spend.reserved_at)
    done = connection.execute("INSERT INTO spend VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", row)
    if done.rowcount != 1:
        return False
    charges = [(scope, spend.key, position) for position, scope in enumerate(spend.scopes)]
    connection.executemany("INSERT INTO charge VALUES (?, ?, ?)", charges)
    return True


def insert_event(connection: Connection, key: str, at: str, kind: EventKind, steps: int) -> None:
    """The caller holds the spend, so numbers of one key don't race."""
    (last,) = connection.execute("SELECT MAX(number) FROM event WHERE key = ?", (key,)).fetchone()
    number = 0 if last is None else last + 1
    connection.execute("INSERT INTO event VALUES (?, ?, ?, ?, ?)", (key, number, at, kind, steps))


def last_event_at(connection: Connection, key: str) -> str:
    (at,) = connection.execute("SELECT MAX(at) FROM event WHERE key = ?", (key,)).fetchone()
    return str(at or "")


def add_held(connection: Connection, scope: str, counts: Mapping[Atom, int]) -> None:
    """Whole numbers up or down; the caller holds the scope."""
    for atom, runs in counts.items():
        text = _text(atom)
        mark = digest_of(to_json(atom))
        done = connection.execute("UPDATE held SET runs = runs + ? WHERE scope = ? AND fingerprint = ?", (runs, scope, mark))
        if done.rowcount == 0:
            connection.execute("INSERT INTO held VALUES (?, ?, ?, ?)", (scope, mark, text, runs))


def held(connection: Connection, scope: str) -> dict[Atom, int]:
    rows = connection.execute("SELECT mechanism, runs FROM held WHERE scope = ? AND runs <> 0", (scope,))
    return {atom_of(text): runs for text, runs in (_typed(row, str, int) for row in rows)}


def find_scope(connection: Connection, scope: str, lock: str = "") -> ScopeRow | None:
    row = connection.execute(_FIND_SCOPE + lock, (scope,)).fetchone()
    return ScopeRow(*_typed(row, str, float, float, str, str)) if row else None


def get_scope(connection: Connection, scope: str, lock: str = "") -> ScopeRow:
    found = find_scope(connection, scope, lock)
    if found is None:
        raise UsageError("E-LEDGER-002", "no budget was opened for this scope", "Open it with the policy's cap first")
    return found


def caps(connection: Connection, scope: str) -> list[CapRow]:
    query = "SELECT number, cap_epsilon, envelope, reason, raised_by, at FROM cap WHERE scope = ? ORDER BY number"
    return [CapRow(*_typed(row, int, float, str, str, str, str)) for row in connection.execute(query, (scope,))]


def terms_of(connection: Connection, scope: str) -> ScopeTerms:
    opened, raised = get_scope(connection, scope), caps(connection, scope)
    return ScopeTerms(opened.unit, raised[-1].cap_epsilon if raised else opened.cap_epsilon, opened.delta)


def find_spend(connection: Connection, key: str, lock: str = "") -> Spend | None:
    row = connection.execute(f"SELECT {_SPEND} FROM spend s WHERE s.key = ?{lock}", (key,)).fetchone()  # noqa: S608
    if row is None:
        return None
    named = connection.execute("SELECT scope FROM charge WHERE key = ? ORDER BY position", (key,))
    return _spend(row, [scope for (scope,) in named])


def get_spend(connection: Connection, key: str, lock: str = "") -> Spend:
    found = find_spend(connection, key, lock)
    if found is None:
        raise UsageError("E-LEDGER-005", "nothing was reserved under this ledger key", "Reserve before leasing or settling")
    return found


def spends_of(connection: Connection, scope: str) -> list[Spend]:
    """In the order they were reserved."""
    mine = "SELECT key FROM charge WHERE scope = ?"
    scopes: dict[str, list[str]] = {}
    for key, name in connection.execute(f"SELECT key, scope FROM charge WHERE key IN ({mine}) ORDER BY position", (scope,)):  # noqa: S608
        scopes.setdefault(key, []).append(name)
    query = f"SELECT {_SPEND} FROM spend s WHERE s.key IN ({mine}) ORDER BY s.reserved_at, s.key"  # noqa: S608
    return [_spend(row, scopes[row[0]]) for row in connection.execute(query, (scope,))]


def events_of(connection: Connection, scope: str) -> list[EventRow]:
    query = "SELECT key, number, at, kind, steps FROM event WHERE key IN (SELECT key FROM charge WHERE scope = ?) "
    rows = connection.execute(query + "ORDER BY at, key, number", (scope,))
    return [EventRow(*_typed(row, str, int, str, str, int)) for row in rows]


def recount(spends: Sequence[Spend]) -> dict[Atom, int]:
    """What is charged, from the reservations alone. Raises IntegrityError E-LEDGER-008 for a row no ledger wrote."""
    total: dict[Atom, int] = {}
    for spend in spends:
        if spend.fingerprint != request_fingerprint(spend.scopes, spend.mechanism, spend.steps):
            raise forged()
        for atom, runs in expand(spend.mechanism, spend.charged).items():
            total[atom] = total.get(atom, 0) + runs
    return {atom: runs for atom, runs in total.items() if runs}


def forged() -> IntegrityError:
    return IntegrityError(
        "E-LEDGER-008", "a charge in the ledger is not what was reserved", "Restore the ledger from its backup"
    )


@lru_cache(maxsize=8192)
def mechanism_of(text: str) -> Mechanism:
    return from_json(parse_canonical(text.encode()))


def atom_of(text: str) -> Atom:
    found = mechanism_of(text)
    if isinstance(found, Composed | NoiseSchedule):
        raise forged()
    return found


@lru_cache(maxsize=8192)
def _text(mechanism: Mechanism) -> str:
    return canonical_json(to_json(mechanism)).decode()


def _typed(row: Sequence[Any], *kinds: type) -> tuple[Any, ...]:
    """SQLite keeps any type in any column. Raises IntegrityError E-LEDGER-008."""
    if not all(type(value) is kind for value, kind in zip(row, kinds, strict=True)):
        raise forged()
    return tuple(row)


def _spend(row: Sequence[Any], scopes: Sequence[str]) -> Spend:
    settled = row[5]
    key, fingerprint, text, steps, leased, _, at = _typed(row, str, str, str, int, int, type(settled), str)
    if settled is not None and type(settled) is not int:
        raise forged()
    return Spend(key, tuple(scopes), fingerprint, mechanism_of(text), steps, leased, settled, at)

"""The ledger's self-audit: every row against every other, recomputed from the descriptions of the mechanisms.

Guarantee: a changed total, mechanism, number of steps, lease, settlement, history or cap that does not fit all the other
rows is named; so is a guard of the database that is gone. Not covered: somebody who rewrites all rows consistently. The
reservation's fingerprint and its settlement are in the signed journal, which shows that.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from privacy import ledger_rows as rows
from privacy.accounting import admits, cap_vector
from privacy.database import Connection
from privacy.errors import PrivetError
from privacy.ledger_rows import SCHEMA, EventRow, Spend
from privacy.mechanisms import total_charge

# Fires: in every session ('A') or in ordinary ones ('O'); 'R' is for replicas only, and 'D' is off.
_POSTGRES_TRIGGERS = """
SELECT t.tgname, p.prosrc, t.tgenabled IN ('O', 'A') FROM pg_trigger t
JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid
WHERE c.relnamespace = current_schema()::regnamespace AND NOT t.tgisinternal
"""
_REFUSES = "BEGIN RAISE EXCEPTION '%', TG_ARGV[0]; END"  # privacy.postgres: what the triggers call


def audit(connection: Connection, dialect: Literal["sqlite", "postgres"]) -> list[str]:
    """Faults in words; empty when there is none."""
    faults = _guards(connection, dialect)
    query = "SELECT scope FROM scope UNION SELECT scope FROM charge UNION SELECT scope FROM held ORDER BY 1"
    for (scope,) in connection.execute(query).fetchall():
        try:
            faults += _scope(connection, scope)
        except PrivetError as error:
            faults.append(f"{scope}: {error.code}: {error.cause}")
    for (key,) in connection.execute("SELECT key FROM spend WHERE key NOT IN (SELECT key FROM charge) ORDER BY key"):
        faults.append(f"spend {key} is charged to no scope")
    return faults


def _guards(connection: Connection, dialect: Literal["sqlite", "postgres"]) -> list[str]:
    if dialect == "postgres":
        return _postgres_guards(connection)
    faults = []
    if connection.execute("PRAGMA integrity_check").fetchone() != ("ok",):
        faults.append("the database file is damaged")
    script = SCHEMA.sqlite()
    stored = connection.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    ours = {name for kind, name, sql in stored if f"CREATE {kind.upper()} IF NOT EXISTS {sql.split(' ', 2)[2]};" in script}
    if not {refusal.name for refusal in SCHEMA.refusals} <= ours:
        faults.append("a trigger that keeps charges from shrinking is missing or was changed")
    if {name for _, name, _ in stored} - ours:
        faults.append("the database holds a table, view or trigger that is not the ledger's, or was changed")
    return faults


def _postgres_guards(connection: Connection) -> list[str]:
    stored = connection.execute(_POSTGRES_TRIGGERS).fetchall()
    wanted = {r.name for r in SCHEMA.refusals} | {f"{r.name}_all" for r in SCHEMA.refusals if r.event == "DELETE"}
    faults = []
    if not wanted <= {name for name, _, fires in stored if fires}:
        faults.append("a trigger that keeps charges from shrinking is missing or was changed")
    if {name for name, _, _ in stored} - wanted:
        faults.append("the database holds a table, view or trigger that is not the ledger's, or was changed")
    if not all(source.strip() == _REFUSES for _, source, _ in stored):
        faults.append("a trigger that keeps charges from shrinking is missing or was changed")
    return faults


def _scope(connection: Connection, scope: str) -> list[str]:
    if rows.find_scope(connection, scope) is None:
        return [f"{scope}: charged but never opened"]
    found = rows.spends_of(connection, scope)
    events: dict[str, list[EventRow]] = {}
    for event in rows.events_of(connection, scope):
        events.setdefault(event.key, []).append(event)
    faults = [fault for spend in found for fault in _spend(spend, events.get(spend.key, []))]
    faults += _caps(connection, scope)
    if not faults:
        counts, terms = rows.recount(found), rows.terms_of(connection, scope)
        if counts != rows.held(connection, scope):
            faults.append("the total is not the sum of the charges")
        if not admits(total_charge(counts), cap_vector(terms.cap_epsilon, terms.delta)):
            faults.append("the charges exceed the cap")
    return [f"{scope}: {fault}" for fault in faults]


def _spend(spend: Spend, events: Sequence[EventRow]) -> list[str]:
    faults = []
    if spend.fingerprint != rows.request_fingerprint(spend.scopes, spend.mechanism, spend.steps):
        faults.append(f"spend {spend.key} is not what was reserved")
    if not 0 <= spend.leased <= spend.charged <= spend.steps:
        faults.append(f"spend {spend.key} is charged less than it leased, or more than it reserved")
    if not _is_told_by(spend, events):
        faults.append(f"spend {spend.key} is not what its history tells")
    return faults


def _is_told_by(spend: Spend, events: Sequence[EventRow]) -> bool:
    """reserve first, leases that grow, a settlement last; the last ones are what the row says."""
    kinds = [event.kind for event in events]
    leases = [event.steps for event in events if event.kind == "lease"]
    settled = [event.steps for event in events if event.kind == "settle"]
    return (
        kinds == ["reserve", *["lease"] * len(leases), *["settle"] * len(settled)]
        and [event.number for event in events] == list(range(len(events)))
        and events[0].steps == spend.steps
        and all(a < b for a, b in pairwise([0, *leases]))
        and (leases[-1] if leases else 0) == spend.leased
        and settled == ([] if spend.settled is None else [spend.settled])
    )


def _caps(connection: Connection, scope: str) -> list[str]:
    raised, opened = rows.caps(connection, scope), rows.get_scope(connection, scope)
    values = [opened.cap_epsilon, *(record.cap_epsilon for record in raised)]
    rising = all(a < b for a, b in pairwise(values))
    numbered = [record.number for record in raised] == list(range(1, len(raised) + 1))
    return [] if rising and numbered else ["the records that raised the cap are not a rising series"]

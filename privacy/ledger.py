"""The privacy-budget ledger: what may still be spent is decided by exact integers, and a crash never gives budget back.

reserve (admission, whole run) -> lease (durable, before the steps run) -> settle (gives back what was never leased).
Guarantee: over any interleaving of processes the charged steps of a scope never exceed its cap (Rényi filter over
fixed-point vectors, decided while the scope is locked); a reservation is charged to all its scopes or to none; leased steps
stay charged; asking again with the same key and request is free; there is no reset, and a cap rises only with a record.
Assumption: every step on the scope's data is leased here first. Not covered from inside: somebody who can write the
database, beyond what `self_audit` finds (the journal and released traces name the spends outside).
The cap is the guarantee (privacy filter); `spent_epsilon` is information (odometer), and so is the PLD figure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from privacy import ledger_rows as rows
from privacy.accounting import admits, cap_vector, epsilon_of_charge
from privacy.canonical import Digest
from privacy.database import Connection, Place, open_database
from privacy.errors import BudgetExceeded, PolicyError, UsageError
from privacy.ledger_audit import audit
from privacy.ledger_rows import CapRecord, CapRow, LedgerEvent, ScopeTerms, Spend, State
from privacy.mechanisms import MAX_STEPS, Atom, Mechanism, PoissonSampledGaussian, expand, spelled, total_charge
from privacy.rounding import EXACT, shown_up

__all__ = ["CapRecord", "CapRow", "Ledger", "LedgerEvent", "Preview", "ScopeTerms", "Spend", "State"]


@dataclass(frozen=True, slots=True)
class Preview:
    """What a reservation would do to a scope; nothing is charged, and nothing is promised to a later one."""

    epsilon_before: float
    epsilon_after: float
    cap: float
    fits: bool


@dataclass(frozen=True, slots=True)
class _Request:
    scopes: tuple[str, ...]
    fingerprint: Digest
    counts: Mapping[Atom, int]
    charge: tuple[int, ...]


class Ledger:
    """Safe for threads and processes; each call is durable when it returns."""

    __slots__ = ("_clock", "_database", "_ready", "_recounted")

    def __init__(self, place: Place, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._database = open_database(place, rows.SCHEMA)
        self._clock = clock
        self._recounted: set[str] = set()
        self._ready: set[Atom] = set()

    def open_scope(self, scope: str, unit: str, cap_epsilon: float, delta: float) -> None:
        """Name a dataset's cap, once. Raises PolicyError E-LEDGER-001 when the scope is open with other terms.

        A policy may name the cap it was opened with, or one that it was raised to since.
        """
        cap_vector(cap_epsilon, delta)  # refuses what is no epsilon or delta
        wanted = ScopeTerms(unit, float(cap_epsilon), float(delta))
        with self._database.transaction(exclusive=False) as connection:
            rows.insert_scope(connection, scope, wanted, _stamp(self._clock()))
            found, raised = rows.get_scope(connection, scope), rows.caps(connection, scope)
        _refuse_other_terms(scope, found, raised, wanted)

    def check_terms(self, scope: str, wanted: ScopeTerms) -> None:
        """As `open_scope`, and opens nothing: a scope that is not open yet agrees with any terms."""
        with self._database.reading() as connection:
            found, raised = rows.find_scope(connection, scope), rows.caps(connection, scope)
        if found is not None:
            _refuse_other_terms(scope, found, raised, wanted)

    def reserve(self, key: str, scope: str, sampling_probability: float, noise_multiplier: float, steps: int) -> None:
        """`reserve_many` for steps of DP-SGD on one dataset."""
        self.reserve_many(key, (scope,), PoissonSampledGaussian(sampling_probability, noise_multiplier), steps)

    def reserve_many(self, key: str, scopes: Sequence[str], mechanism: Mechanism, steps: int) -> None:
        """Set the charge of all steps aside in every scope, or in none; free when the same key asked the same before.

        Raises BudgetExceeded E-BUDGET-001 (nothing was charged), UsageError E-LEDGER-002 (no such scope), E-LEDGER-003 (the
        key stands for another request), PolicyError E-LEDGER-004, E-ACCOUNT-001 or E-MECH-002 (parameters).
        """
        wanted = _request(scopes, mechanism, steps)
        self._ready.update(wanted.counts)
        while not self._reserve(key, wanted, mechanism, steps):
            self._make_ready(wanted.scopes)

    def _reserve(self, key: str, wanted: _Request, mechanism: Mechanism, steps: int) -> bool:
        """False: a total holds a mechanism whose vector must be computed first, outside the lock."""
        if not self._recounted.issuperset(wanted.scopes):
            return False
        with self._database.transaction(exclusive=False) as connection:
            locked = [rows.get_scope(connection, scope, self._database.row_lock) for scope in sorted(wanted.scopes)]
            if _is_known(rows.find_spend(connection, key), wanted.fingerprint):
                return True
            totals = {scope: rows.held(connection, scope) for scope in wanted.scopes}
            if not all(self._ready.issuperset(held) for held in totals.values()):
                return False
            for scope, held in totals.items():
                _admit(scope, rows.terms_of(connection, scope), total_charge(held), wanted.charge)
            at = _after(self._clock(), [scope.last_at for scope in locked])
            spend = Spend(key, wanted.scopes, wanted.fingerprint, mechanism, steps, 0, None, at)
            if not rows.insert_spend(connection, spend):  # the same key, just now, for scopes that are not locked here
                return _is_known(rows.get_spend(connection, key), wanted.fingerprint)
            rows.insert_event(connection, key, at, "reserve", steps)
            for scope in wanted.scopes:
                rows.add_held(connection, scope, wanted.counts)
            _touch(connection, wanted.scopes, at)
            return True

    def lease(self, key: str, upto: int) -> None:
        """Durably charge the first `upto` steps of the reservation; call before running them. Smaller values are no-ops.

        Raises UsageError E-LEDGER-005 for an unknown key, E-LEDGER-006 beyond the reservation or after settling.
        """
        with self._database.transaction(exclusive=False) as connection:
            spend = rows.get_spend(connection, key, self._database.row_lock)
            if type(upto) is not int or spend.settled is not None or not 0 <= upto <= spend.steps:
                raise UsageError(
                    "E-LEDGER-006",
                    f"a lease of {upto} steps is outside the reservation of {spend.steps}, or that is settled",
                    "Reserve a new run for further steps",
                )
            if upto > spend.leased:
                connection.execute("UPDATE spend SET leased = ? WHERE key = ?", (upto, key))
                at = max(_stamp(self._clock()), rows.last_event_at(connection, key))  # a clock that was set back stands still
                rows.insert_event(connection, key, at, "lease", upto)

    def settle(self, key: str, steps: int) -> None:
        """Close the reservation at `steps`, or at the leased steps if those are more; the rest returns to its scopes.

        Settling again the same way changes nothing. Raises UsageError E-LEDGER-005, E-LEDGER-007.
        """
        with self._database.transaction(exclusive=False) as connection:
            scopes = rows.get_spend(connection, key).scopes  # they never change; locks are always taken scopes first, sorted
            locked = [rows.get_scope(connection, scope, self._database.row_lock) for scope in sorted(scopes)]
            spend = rows.get_spend(connection, key, self._database.row_lock)
            closing = max(steps, spend.leased) if type(steps) is int else -1
            if not 0 <= closing <= spend.steps or (spend.settled is not None and spend.settled != closing):
                raise UsageError(
                    "E-LEDGER-007",
                    f"a reservation of {spend.steps} steps can't be settled at {steps}, or was settled otherwise before",
                    "Report this as a defect of the trainer; the charge stands as it is",
                )
            if spend.settled is not None:
                return
            at = _after(self._clock(), [*(scope.last_at for scope in locked), rows.last_event_at(connection, key)])
            connection.execute("UPDATE spend SET settled = ? WHERE key = ?", (closing, key))
            rows.insert_event(connection, key, at, "settle", closing)
            kept = expand(spend.mechanism, closing)
            back = {atom: kept.get(atom, 0) - runs for atom, runs in expand(spend.mechanism, spend.steps).items()}
            for scope in scopes:
                rows.add_held(connection, scope, {atom: runs for atom, runs in back.items() if runs})
            _touch(connection, scopes, at)

    def raise_cap(self, scope: str, record: CapRecord) -> None:
        """Apply a record whose envelope the caller has verified; the same record again changes nothing.

        Raises UsageError E-LEDGER-002, PolicyError E-LEDGER-010 (not upward, or another delta), E-LEDGER-011 (this envelope
        raised something else already).
        """
        with self._database.transaction(exclusive=True) as connection:
            opened = rows.get_scope(connection, scope, self._database.row_lock)
            query = "SELECT scope, cap_epsilon FROM cap WHERE envelope = ?"
            used = connection.execute(query, (record.envelope_digest,)).fetchone()
            if used is not None:
                if tuple(used) == (scope, float(record.new_cap_epsilon)):
                    return
                raise PolicyError("E-LEDGER-011", "this signed record raised another cap before", "Have a new record signed")
            terms = rows.terms_of(connection, scope)
            if record.delta != terms.delta or not record.new_cap_epsilon > terms.cap_epsilon:
                raise PolicyError(
                    "E-LEDGER-010",
                    f"the record names epsilon {record.new_cap_epsilon} at delta {record.delta} for a scope with cap "
                    f"{terms.cap_epsilon} at delta {terms.delta}; a cap only rises, and its delta stays",
                    "Have a record signed with this delta and a higher epsilon",
                )
            at = _after(self._clock(), [opened.last_at])
            number = len(rows.caps(connection, scope)) + 1
            row = (scope, number, float(record.new_cap_epsilon), record.envelope_digest, record.reason, record.by, at)
            connection.execute("INSERT INTO cap VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            _touch(connection, (scope,), at)

    def spend(self, key: str) -> Spend | None:
        with self._database.reading() as connection:
            return rows.find_spend(connection, key)

    def spends(self, scope: str) -> list[Spend]:
        with self._database.reading() as connection:
            return rows.spends_of(connection, scope)

    def scopes(self) -> list[str]:
        with self._database.reading() as connection:
            return [name for (name,) in connection.execute("SELECT scope FROM scope ORDER BY scope")]

    def terms(self, scope: str) -> ScopeTerms:
        with self._database.reading() as connection:
            return rows.terms_of(connection, scope)

    def cap_epsilon(self, scope: str) -> float:
        return self.terms(scope).cap_epsilon

    def caps(self, scope: str) -> list[CapRow]:
        """The cap that the scope was opened with (number 0, no envelope), then each record that raised it."""
        with self._database.reading() as connection:
            opened, raised = rows.get_scope(connection, scope), rows.caps(connection, scope)
        return [CapRow(0, opened.cap_epsilon, "", "", "", opened.opened_at), *raised]

    def spent_epsilon(self, scope: str) -> float:
        """Epsilon of everything charged so far at the scope's delta, open reservations included, rounded up."""
        with self._database.reading() as connection:
            counts, delta = rows.recount(rows.spends_of(connection, scope)), rows.get_scope(connection, scope).delta
        return epsilon_of_charge(total_charge(counts), delta)

    def spent_epsilon_pld(self, scope: str) -> float:
        """The same charges by the tighter accountant, for reports. It admits nothing: it holds for a list that was fixed
        beforehand, not for runs chosen after seeing earlier ones."""
        from privacy.pld import epsilon_by_pld

        with self._database.reading() as connection:
            counts, delta = rows.recount(rows.spends_of(connection, scope)), rows.get_scope(connection, scope).delta
        return epsilon_by_pld(counts, delta)

    def preview(self, scope: str, mechanism: Mechanism, steps: int, unopened: ScopeTerms | None = None) -> Preview:
        """What reserving this would leave. unopened: the terms to assume for a scope that nobody opened yet.

        Raises UsageError E-LEDGER-002 without them, and as `reserve_many` for parameters.
        """
        charge = _request((scope,), mechanism, steps).charge
        with self._database.reading() as connection:
            fresh = unopened if rows.find_scope(connection, scope) is None else None
            terms, counts = fresh or rows.terms_of(connection, scope), rows.held(connection, scope)
        before = total_charge(counts)
        after = _sum(before, charge)
        fits = admits(after, cap_vector(terms.cap_epsilon, terms.delta))
        epsilons = epsilon_of_charge(before, terms.delta), epsilon_of_charge(after, terms.delta)
        return Preview(*epsilons, terms.cap_epsilon, fits)

    def history(self, scope: str) -> list[LedgerEvent]:
        """Everything that happened to a scope, oldest first, with what was charged after it, recomputed."""
        with self._database.reading() as connection:
            opened, raised = rows.get_scope(connection, scope), rows.caps(connection, scope)
            spends = {spend.key: spend for spend in rows.spends_of(connection, scope)}
            events = rows.events_of(connection, scope)
        note = f"cap epsilon {opened.cap_epsilon} at delta {opened.delta} per {opened.unit}"
        found = [LedgerEvent(opened.opened_at, "", "open", 0, 0.0, note)]
        found += [LedgerEvent(c.at, "", "cap", 0, 0.0, f"cap epsilon {c.cap_epsilon}, {c.by}: {c.reason}") for c in raised]
        found += [_event(row, spends[row.key]) for row in events]
        return _with_epsilons(sorted(found, key=lambda event: event.at), spends, opened.delta)  # stable: keys stay in order

    def remaining(self, scope: str) -> str:
        """One line for people. Epsilons of runs don't add up, so this is no promise about the next run."""
        with self._database.reading() as connection:
            terms, found = rows.terms_of(connection, scope), rows.spends_of(connection, scope)
        spent = epsilon_of_charge(total_charge(rows.recount(found)), terms.delta)
        return (
            f"{scope}: epsilon {shown_up(spent)} of {shown_up(terms.cap_epsilon)} spent at delta {terms.delta} "
            f"per {terms.unit}, in {len(found)} reservation(s), {sum(s.settled is None for s in found)} of them open"
        )

    def self_audit(self) -> list[str]:
        """What in the rows contradicts itself, recomputed from the mechanisms; empty when nothing does."""
        with self._database.reading() as connection:
            return audit(connection, self._database.dialect)

    def _make_ready(self, scopes: Sequence[str]) -> None:
        """Outside the lock: compute vectors, and the first time a scope is used hold its total against the rows."""
        with self._database.reading() as connection:
            for scope in scopes:
                counts = rows.held(connection, scope)
                if scope not in self._recounted and rows.recount(rows.spends_of(connection, scope)) != counts:
                    raise rows.forged()
                total_charge(counts)
                self._ready.update(counts)
        self._recounted.update(scopes)


def _request(scopes: Sequence[str], mechanism: Mechanism, steps: int) -> _Request:
    if type(steps) is not int or not 0 < steps <= MAX_STEPS:
        raise PolicyError("E-LEDGER-004", "steps must be a whole number from 1 to 1e9", "Correct the training recipe")
    if isinstance(scopes, str) or not scopes or len(set(scopes)) != len(scopes):
        raise UsageError("E-LEDGER-013", "a reservation names one or more different scopes", "Name each dataset once")
    counts = expand(mechanism, steps)
    charge = total_charge(counts)
    return _Request(tuple(scopes), rows.request_fingerprint(scopes, mechanism, steps), counts, charge)


def _is_known(found: Spend | None, fingerprint: Digest) -> bool:
    if found is not None and found.fingerprint != fingerprint:
        raise UsageError(
            "E-LEDGER-003", "this ledger key was used for another request", "Use a new run id for a changed request"
        )
    return found is not None


def _admit(scope: str, terms: ScopeTerms, before: Sequence[int], charge: Sequence[int]) -> None:
    asked = _sum(before, charge)
    if admits(asked, cap_vector(terms.cap_epsilon, terms.delta)):
        return
    spent, reached = epsilon_of_charge(before, terms.delta), epsilon_of_charge(asked, terms.delta)
    raise BudgetExceeded(
        "E-BUDGET-001",
        f"{scope} would reach epsilon {shown_up(reached, EXACT)} of {shown_up(terms.cap_epsilon)} per {terms.unit} "
        f"({shown_up(spent)} is spent or reserved); nothing was charged",
        "Lower budget.epsilon or the number of steps; a spent budget does not come back",
    )


def _refuse_other_terms(scope: str, found: rows.ScopeRow, raised: Sequence[CapRow], wanted: ScopeTerms) -> None:
    known = {found.cap_epsilon, *(record.cap_epsilon for record in raised)}
    if (found.unit, found.delta) != (wanted.unit, wanted.delta) or wanted.cap_epsilon not in known:
        raise PolicyError(
            "E-LEDGER-001",
            f"budget scope {scope} is open with cap epsilon {max(known)}, delta {found.delta} and "
            f"privacy unit {found.unit}, which the policy changes",
            "Keep those terms in the policy; a budget can't be reset, and a cap rises only with a signed record",
        )


def _sum(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))


def _touch(connection: Connection, scopes: Sequence[str], at: str) -> None:
    for scope in scopes:
        connection.execute("UPDATE scope SET last_at = ? WHERE scope = ?", (at, scope))


def _event(row: rows.EventRow, spend: Spend) -> LedgerEvent:
    note = spelled(spend.mechanism) if row.kind == "reserve" else ""
    return LedgerEvent(row.at, row.key, row.kind, row.steps, 0.0, note)


def _with_epsilons(events: Sequence[LedgerEvent], spends: Mapping[str, Spend], delta: float) -> list[LedgerEvent]:
    total, epsilon, found = total_charge({}), 0.0, []
    for event in events:
        if event.kind in ("reserve", "settle"):
            spend = spends[event.key]
            now = total_charge(expand(spend.mechanism, event.steps))
            before = total_charge(expand(spend.mechanism, spend.steps if event.kind == "settle" else 0))
            total = tuple(t + n - b for t, n, b in zip(total, now, before, strict=True))
            epsilon = epsilon_of_charge(total, delta)
        found.append(replace(event, epsilon_after=epsilon))
    return found


def _stamp(now: datetime) -> str:
    return now.astimezone(UTC).isoformat(timespec="microseconds")


def _after(now: datetime, earlier: Sequence[str]) -> str:
    """Now, but after everything that the scopes saw: their order survives a clock that was set back."""
    try:
        last = datetime.fromisoformat(max(earlier)) + timedelta(microseconds=1)
        return max(_stamp(now), _stamp(last))
    except (ValueError, OverflowError):
        raise rows.forged() from None

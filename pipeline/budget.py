"""What the ledger can tell people: one line for each dataset and privacy unit, and how the spend grew.

Guarantee: nothing here decides. The cap is the guarantee, held by the ledger's filter; "spent so far" is information.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from privacy.canonical import Json
from privacy.errors import IntegrityError, UsageError

if TYPE_CHECKING:
    from privacy.ledger import Ledger, LedgerEvent

IN_WORDS = (
    "The cap is the guarantee: a run that could take a dataset over it is refused before its first step (privacy filter).",
    "What is spent is information (odometer): by the filter's own accountant (RDP), and as a tighter figure (PLD) for reports.",
    "Epsilons of runs do not add up, so neither figure promises what the next run will cost: ask privet plan POLICY.",
)


class LedgerFaults(IntegrityError):
    """`details`: each contradiction that the self-audit found."""

    def __init__(self, code: str, cause: str, remedy: str, details: Sequence[str] = ()) -> None:
        super().__init__(code, cause, remedy)
        self.details = tuple(details)

    def __reduce__(self) -> tuple[type[LedgerFaults], tuple[str, str, str, tuple[str, ...]]]:  # type: ignore[override]
        return (type(self), (self.code, self.cause, self.remedy, self.details))


@dataclass(frozen=True, slots=True)
class BudgetRow:
    """Epsilon per privacy unit at `delta`. `opened_cap` differs from `cap` once a signed record raised it."""

    scope: str
    unit: str
    delta: float
    cap: float
    opened_cap: float
    spent_filter: float
    spent_reported: float
    runs: int
    open_reservations: int

    @property
    def dataset(self) -> str:
        return self.scope.rpartition("/")[0]

    def to_json(self) -> dict[str, Json]:
        return {
            "scope": self.scope,
            "dataset": self.dataset,
            "unit": self.unit,
            "delta": self.delta,
            "epsilon_cap": self.cap,
            "epsilon_cap_opened": self.opened_cap,
            "epsilon_spent": self.spent_filter,
            "epsilon_spent_pld": self.spent_reported,
            "runs": self.runs,
            "open_reservations": self.open_reservations,
        }


@dataclass(frozen=True, slots=True)
class SpendPoint:
    """Epsilon and cap of a scope from this moment on."""

    at: datetime
    epsilon: float
    cap: float


def refuse_faults(ledger: Ledger) -> None:
    """Raises LedgerFaults E-BUDGET-002 when the ledger contradicts itself: its figures would be worth nothing."""
    if faults := ledger.self_audit():
        raise LedgerFaults(
            "E-BUDGET-002",
            f"the ledger contradicts itself in {len(faults)} place(s), so nobody can tell what is spent",
            "Find out who changed it, and restore the newest backup of the ledger",
            faults,
        )


def budget_rows(ledger: Ledger) -> list[BudgetRow]:
    """One row for each scope, by name."""
    return [_row(ledger, scope) for scope in ledger.scopes()]


def _row(ledger: Ledger, scope: str) -> BudgetRow:
    terms, spends = ledger.terms(scope), ledger.spends(scope)
    return BudgetRow(
        scope,
        terms.unit,
        terms.delta,
        terms.cap_epsilon,
        ledger.caps(scope)[0].cap_epsilon,
        ledger.spent_epsilon(scope),
        ledger.spent_epsilon_pld(scope),
        len(spends),
        sum(spend.settled is None for spend in spends),
    )


def history(ledger: Ledger, scope: str | None) -> list[tuple[str, LedgerEvent]]:
    """Every event with its scope, oldest first; of one scope, or of all. Raises UsageError E-BUDGET-003 for an unknown one."""
    known = ledger.scopes()
    if scope is not None and scope not in known:
        raise UsageError("E-BUDGET-003", "the ledger has no budget of that name", "See privet budget for the names")
    found = [(name, event) for name in known if scope in (None, name) for event in ledger.history(name)]
    return sorted(found, key=lambda pair: pair[1].at)  # stable: events of one moment keep the ledger's order


def spend_over_time(ledger: Ledger, scope: str) -> list[SpendPoint]:
    """A point for each event that changed the spend or the cap."""
    raised = iter(ledger.caps(scope))
    points: list[SpendPoint] = []
    cap = 0.0
    for event in ledger.history(scope):
        if event.kind in ("open", "cap"):
            cap = next(raised).cap_epsilon
        elif event.kind == "lease":
            continue
        points.append(SpendPoint(datetime.fromisoformat(event.at), event.epsilon_after, cap))
    return points

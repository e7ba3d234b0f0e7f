"""The conditions of an approval: a small closed language over facts of the evidence, read strictly, decided without a doubt.

Guarantee: a condition either holds, or its approval does not count; a field that the evidence lacks, a type that can't be
compared, a comparison that makes no sense: none of them holds. No expression is ever evaluated.
Not covered: whether the facts are true; they are those that the same verification recomputes or finds signed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from privacy.canonical import Json
from privacy.errors import IntegrityError
from privacy.moments import moment_of

EXPIRES: Final = "expires"
MAX_CONDITIONS: Final = 20
_FIELD = re.compile(r"[a-z][A-Za-z0-9_]*(\.[A-Za-z0-9_]+){0,6}")
_WHOLE = re.compile(r"-?[0-9]{1,30}")
_DECIMAL = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?([eE][-+]?[0-9]{1,3})?")
_ORDERED: Final = ("<", "<=", ">", ">=")
_OPERATORS: Final = (*_ORDERED, "==", "before")
_MAX_TEXT = 200
Value = str | int | float


@dataclass(frozen=True, slots=True)
class Condition:
    """`field` `op` `value`, e.g. epsilon <= 3; verdict.audit.utility == passed; expires before 2027-01-31."""

    field: str
    op: str
    value: Value

    def to_json(self) -> dict[str, Json]:
        return {"field": self.field, "op": self.op, "value": self.value}

    def __str__(self) -> str:
        return f"{self.field} {self.op} {self.value}"


@dataclass(frozen=True, slots=True)
class Facts:
    """What conditions are compared with. `later`: prefixes of fields that only a later stage can know.

    A condition on a later field holds back nothing yet; the release and the verifier decide it, with nothing left to come.
    """

    values: Mapping[str, Value] = field(default_factory=dict)
    later: tuple[str, ...] = ()

    def is_later(self, name: str) -> bool:
        return name not in self.values and any(name == p or name.startswith(f"{p}.") for p in self.later)


NO_FACTS: Final = Facts()


def read_conditions(value: Json) -> tuple[Condition, ...]:
    """The conditions of a signed predicate. Raises IntegrityError E-GATE-050 for anything that is not exactly such a list."""
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_CONDITIONS:
        raise _malformed()
    return tuple(_condition(entry) for entry in value)


def parse_condition(text: str) -> Condition:
    """A condition as a person writes it: `epsilon <= 3`, `verdict audit.utility passed`, `expires before 2027-01-31`,
    `release NAME`, or FIELD == VALUE. Raises IntegrityError E-GATE-050.
    """
    words = text.split()
    match words:
        case ["verdict", name, outcome]:
            words = [f"verdict.{name}", "==", outcome]
        case ["release", name]:
            words = ["release", "==", name]
    if len(words) != 3:
        raise _malformed()
    name, op, value = words
    return _condition({"field": name, "op": op, "value": value if op == "before" else _number_or_text(value)})


def unmet(conditions: Sequence[Condition], facts: Facts, now: datetime) -> str | None:
    """The first condition that does not hold at `now`, with its code; None when all hold."""
    for condition in conditions:
        if (fault := _fault(condition, facts, now)) is not None:
            return fault
    return None


def _fault(condition: Condition, facts: Facts, now: datetime) -> str | None:
    if condition.field == EXPIRES:
        return None if now < _time(condition.value) else f"E-GATE-043: a condition does not hold: {condition}"
    if facts.is_later(condition.field):
        return None
    known = facts.values.get(condition.field)
    wanted = condition.value
    if known is None or isinstance(known, str) != isinstance(wanted, str):
        return f"E-GATE-042: a condition is about something that the evidence does not say: {condition}"
    if not _holds(known, condition.op, wanted):
        return f"E-GATE-043: a condition does not hold: {condition} (it is {known})"
    return None


def _holds(known: Value, op: str, wanted: Value) -> bool:
    if op == "==":
        return known == wanted
    if isinstance(known, str) or isinstance(wanted, str):
        return False
    # A number that is none holds nothing: NaN compares false with everything.
    return {"<": known < wanted, "<=": known <= wanted, ">": known > wanted, ">=": known >= wanted}.get(op, False)


def _condition(value: Json) -> Condition:
    match value:
        case {"field": str(name), "op": str(op), "value": str() | int() | float() as wanted, **rest} if not rest:
            if _FIELD.fullmatch(name) and op in _OPERATORS and not isinstance(wanted, bool) and _fits(name, op, wanted):
                return Condition(name, op, wanted)
    raise _malformed()


def _fits(name: str, op: str, wanted: Value) -> bool:
    if isinstance(wanted, str) and not (0 < len(wanted) <= _MAX_TEXT and wanted.isprintable()):
        return False
    if isinstance(wanted, float) and not math.isfinite(wanted):
        return False
    if (name == EXPIRES) != (op == "before"):
        return False
    if op == "before":
        return isinstance(wanted, str) and _parsed_time(wanted) is not None
    return op == "==" or not isinstance(wanted, str)


def _number_or_text(text: str) -> Value:
    """Numbers as everybody writes them: what only a program takes for one (1_000, ٣, +3, .5, nan) is refused, not read."""
    if _WHOLE.fullmatch(text):
        return int(text)
    if _DECIMAL.fullmatch(text):
        return float(text)
    try:
        float(text)
    except ValueError:
        return text
    raise _malformed()


def _parsed_time(text: str) -> datetime | None:
    """A day (its first moment, UTC) or a time with a zone."""
    return moment_of(f"{text}T00:00:00+00:00" if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text) else text)


def _time(value: Value) -> datetime:
    return _parsed_time(str(value)) or datetime.min.replace(tzinfo=UTC)


def _malformed() -> IntegrityError:
    return IntegrityError(
        "E-GATE-050",
        "a condition of an approval is malformed",
        "Write FIELD OP VALUE, e.g. 'epsilon <= 3', 'verdict audit.utility passed', 'expires before 2027-01-31'",
    )

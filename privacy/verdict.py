"""A verdict has three values; the one that is easy to forget, "not evaluated", blocks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from privacy.canonical import Digest, Json
from privacy.errors import IntegrityError

Outcome = Literal["passed", "failed", "not_evaluated"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found. `check` is its stable name, `reason` one sentence without any raw value."""

    check: str
    outcome: Outcome
    reason: str
    evidence: Digest | None = None

    @property
    def blocks(self) -> bool:
        return self.outcome != "passed"

    def __bool__(self) -> bool:
        raise TypeError("a verdict has three values: ask .blocks or .outcome")

    def to_json(self) -> dict[str, Json]:
        return {"check": self.check, "outcome": self.outcome, "reason": self.reason, "evidence": self.evidence}

    @classmethod
    def from_json(cls, value: Json) -> Verdict:
        """Raises IntegrityError E-VERDICT-001 for anything that is not a verdict."""
        match value:
            case {
                "check": str(check),
                "outcome": "passed" | "failed" | "not_evaluated" as outcome,
                "reason": str(reason),
                "evidence": str() | None as evidence,
            }:
                return cls(check, outcome, reason, evidence)
        raise IntegrityError("E-VERDICT-001", "a recorded verdict is malformed", "Run the stage that wrote it again")


def blocking(verdicts: Iterable[Verdict]) -> tuple[Verdict, ...]:
    """Those that keep a gate closed."""
    return tuple(v for v in verdicts if v.blocks)

"""Verifies a bundle offline: no network, no database, no Privet home; nothing in it is believed that can be recomputed.

Exit codes of a verification: 0 every claim holds; 3 the bytes are whole but a gate is not open; 4 integrity is broken.
Guarantee: every byte of every file is covered by the root, by a signature, or by the list of approvals in the release
statement. Not covered: whether the people who signed were right, and, without `trust`, who they are.
The release stage decides by these same lines before it writes anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from pipeline.bundle import BundleView, read_bundle
from pipeline.claims import (
    MECHANISM,
    Evidence,
    check_canonical,
    check_epsilon,
    check_journal,
    check_layout,
    check_manifests,
    check_release,
    check_statements,
    check_trace_follows_policy,
    journal_entries,
    open_approvals,
    open_evidence,
)
from pipeline.evidence import REQUIRED_VERDICTS, is_pipeline, moment, use_subject
from privacy.accounting import recompute_epsilon
from privacy.canonical import Digest, Json
from privacy.errors import GateClosed, IntegrityError, PrivetError
from privacy.gates import Approval, GateName, decide_gate
from privacy.signing import TrustRoot
from privacy.verdict import Outcome, Verdict

Kind = Literal["integrity", "gate", "note"]
_CLOCK_SKEW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Row:
    """One claim, what the verifier saw, and its verdict. A note informs and never changes the exit code."""

    claim: str
    evidence: str
    verdict: Outcome
    kind: Kind
    code: str = ""

    @property
    def blocks(self) -> bool:
        return self.kind != "note" and self.verdict != "passed"

    def to_json(self) -> dict[str, Json]:
        return {"claim": self.claim, "evidence": self.evidence, "verdict": self.verdict, "kind": self.kind, "code": self.code}

    def as_verdict(self) -> Verdict:
        reason = self.evidence if not self.code or self.evidence.startswith(self.code) else f"{self.code}: {self.evidence}"
        return Verdict(self.claim, self.verdict, reason)


@dataclass(frozen=True, slots=True)
class Verification:
    """All rows in the order in which they were checked."""

    rows: tuple[Row, ...]

    @property
    def exit_code(self) -> int:
        kinds = {row.kind for row in self.rows if row.blocks}
        return 4 if "integrity" in kinds else 3 if "gate" in kinds else 0

    @property
    def failures(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.blocks)

    def to_json(self) -> dict[str, Json]:
        return {"exit_code": self.exit_code, "rows": [row.to_json() for row in self.rows]}


def verify_bundle(path: Path, trust: TrustRoot | None = None, now: datetime | None = None) -> Verification:
    """Verify a bundle folder. trust: a trust root obtained from elsewhere; None: the bundle's own, and a row says so.

    Raises UsageError E-BUNDLE-001 when there is no folder; everything else becomes a row.
    """
    rows = _Rows()
    view = rows.run("files", lambda: read_bundle(path), lambda v: f"{len(v.files)} files, all of a known name")
    if view is not None:
        _verify(rows, view, trust, now or datetime.now(UTC))
    return Verification(tuple(rows.found))


def verify_evidence(view: BundleView, trust: TrustRoot, now: datetime) -> tuple[Verification, Evidence | None]:
    """The same claims before there is a release statement: approvals are judged as of `now`."""
    rows = _Rows()
    evidence = _open_all(rows, view, trust, released=False)
    if evidence is not None:
        _integrity(rows, evidence)
        _gates(rows, evidence, now)
    return Verification(tuple(rows.found)), evidence


class _Rows:
    """Collects rows; whatever a check raises becomes a failed row, an unforeseen error too."""

    def __init__(self) -> None:
        self.found: list[Row] = []

    def run[T](self, claim: str, check: Callable[[], T], say: Callable[[T], str], kind: Kind = "integrity") -> T | None:
        ...


def _verify(rows: _Rows, view: BundleView, trust: TrustRoot | None, now: datetime) -> None: ...

"""Verifies a bundle offline: no network, no database, no Privet home; nothing in it is believed that can be recomputed.

Exit codes of a verification: 0 every claim holds; 3 the bytes are whole but a gate is not open; 4 integrity is broken.
Guarantee: every byte of every file is covered by the root, by a signature, or by the list of approvals in the release
statement. Not covered: whether the people who signed were right, and, without `trust`, who they are.
The release stage decides by these same lines before it writes anything.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeVar

from pipeline import gate_claims
from pipeline.bundle import BundleView, read_bundle, require_folder
from pipeline.claims import (
    Evidence,
    check_canonical,
    check_epsilon,
    check_layout,
    check_manifests,
    check_release,
    check_statements,
    check_trace_follows_policy,
    open_approvals,
    open_evidence,
)
from pipeline.document_claims import look_again
from pipeline.evidence import moment, required_verdicts
from pipeline.journal_claims import check_journal, cosigned_at, witnessed
from pipeline.paper_claims import check_papers
from pipeline.report_claims import check_report
from privacy.canonical import Json, parse_json
from privacy.errors import PrivetError, UsageError
from privacy.revocation import read_revocations
from privacy.signing import TrustRoot
from privacy.verdict import Outcome, Verdict

Kind = Literal["integrity", "gate", "note"]
_T = TypeVar("_T")
_MAX_SHOWN = 600
_MAX_TRUST_BYTES = 1_048_576
_MAX_LIST_BYTES = 32 * 1_048_576


@dataclass(frozen=True, slots=True)
class Row:
    """One claim, what the verifier saw, and the outcome. A note informs and never changes the exit code."""

    claim: str
    evidence: str
    outcome: Outcome
    kind: Kind
    code: str = ""

    @property
    def blocks(self) -> bool:
        return self.kind != "note" and self.outcome != "passed"

    def to_json(self) -> dict[str, Json]:
        return {"claim": self.claim, "evidence": self.evidence, "outcome": self.outcome, "kind": self.kind, "code": self.code}

    def as_verdict(self) -> Verdict:
        reason = self.evidence if not self.code or self.evidence.startswith(self.code) else f"{self.code}: {self.evidence}"
        return Verdict(self.claim, self.outcome, reason)


_SIGNERS = "who the signers are"
_REVOKED = "not revoked"


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

    @property
    def conclusion(self) -> str:
        """One line for people. A bundle that only vouches for itself is consistent, not verified."""
        if self.exit_code:
            return "gate closed" if self.exit_code == 3 else "integrity broken"
        if any(row.claim == _SIGNERS and row.outcome != "passed" for row in self.rows):
            return "consistent, but identities are self-declared: pass --trust with a trust root that you obtained yourself"
        return "verified"

    def to_json(self) -> dict[str, Json]:
        return {"exit_code": self.exit_code, "conclusion": self.conclusion, "rows": [row.to_json() for row in self.rows]}


def verify_bundle(
    path: Path, trust: TrustRoot | None = None, now: datetime | None = None, revocations: bytes | None = None
) -> Verification:
    """Verify a bundle folder. trust: a trust root obtained from elsewhere; None: the bundle's own, and a row says so.

    revocations: a signed list of what was taken back; None: nothing is known of it, and a row says so.
    Raises UsageError E-BUNDLE-001 when there is no folder; everything else becomes a row.
    """
    require_folder(path)
    rows = _Rows()
    view = rows.run("files", lambda: read_bundle(path), lambda v: f"{len(v.files)} files, all of a known name")
    if view is not None:
        _verify(rows, view, trust, now or datetime.now(UTC), revocations)
    return Verification(tuple(rows.found))


def verify_view(view: BundleView, trust: TrustRoot | None, now: datetime, revocations: bytes | None = None) -> Verification:
    """The same of a bundle that was read already."""
    rows = _Rows()
    _verify(rows, view, trust, now, revocations)
    return Verification(tuple(rows.found))


def read_trust(path: Path) -> TrustRoot:
    """A trust root from a file. Raises UsageError E-VERIFY-001 (not a readable file), IntegrityError E-TRUST or E-CANON."""
    return TrustRoot.from_json(parse_json(read_given(path, "trust root", _MAX_TRUST_BYTES)))


def read_given(path: Path, what: str, most: int = _MAX_LIST_BYTES) -> bytes:
    """The bytes of a file beside the bundle. Raises UsageError E-VERIFY-001 unless it is a plain file of at most that size."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would wait for its writer
        with os.fdopen(handle, "rb") as file:
            fault = None if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else "not a plain file"
            data = b"" if fault else file.read(most + 1)
            if len(data) > most:
                fault = "too large"
    except (OSError, ValueError) as error:
        fault = getattr(error, "strerror", None) or "not a path"
    if fault is not None:
        raise UsageError("E-VERIFY-001", f"the {what} can't be read ({fault})", "Give the path of the file that you obtained")
    return data


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

    def run(self, claim: str, check: Callable[[], _T], say: Callable[[_T], str] = str, kind: Kind = "integrity") -> _T | None:
        try:
            value = check()
            self.add(claim, say(value), "passed", kind)
            return value
        except PrivetError as error:
            self.add(claim, error.cause, "failed", kind, error.code)
        except Exception as error:  # hostile bytes may break a parser in a way nobody foresaw: that is a failure too
            self.add(claim, f"malformed ({type(error).__name__})", "failed", kind, "E-CLAIM-013")
        return None

    def add(self, claim: str, evidence: str, outcome: Outcome, kind: Kind, code: str = "") -> None:
        self.found.append(Row(_readable(claim), _readable(evidence), outcome, kind, _readable(code)))

    def gate(self, claim: str, check: Callable[[], Verdict]) -> None:
        """A gate row from a verdict; a check that can't be made counts as not evaluated."""
        try:
            verdict = check()
        except PrivetError as error:
            verdict = Verdict(claim, "not_evaluated", f"{error.code}: {error.cause}")
        except Exception as error:
            verdict = Verdict(claim, "not_evaluated", f"E-CLAIM-013: malformed ({type(error).__name__})")
        code, _, rest = verdict.reason.partition(": ")
        known = code.startswith("E-") and bool(rest)
        self.add(claim, rest if known else verdict.reason, verdict.outcome, "gate", code if known else "")


def _readable(text: str) -> str:
    """One printable line: names and reasons come from the bundle, and could command the terminal they are shown on."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:_MAX_SHOWN])
    return shown if len(text) <= _MAX_SHOWN else shown + "…"


def _verify(rows: _Rows, view: BundleView, given: TrustRoot | None, now: datetime, revocations: bytes | None) -> None:
    evidence = _open_all(rows, view, given, released=True)
    if evidence is None:
        rows.add("all other claims", "not looked at: the bytes are not intact", "not_evaluated", "integrity", "E-CLAIM-014")
        return
    _integrity(rows, evidence)
    release = rows.run("release statement", lambda: check_release(evidence), lambda r: f"signed at {r.released_at}")
    if release is None:
        rows.add("gates", "not looked at: there is no valid release statement", "not_evaluated", "gate", "E-CLAIM-014")
        return
    released_at = moment(release.released_at)
    _gates(rows, evidence, released_at)
    times = cosigned_at(evidence, release.checkpoint)
    rows.gate("released in the past", lambda: gate_claims.in_the_past(evidence, released_at, now, times))
    rows.gate("witnesses of the journal", lambda: witnessed(evidence, release.checkpoint))
    if revocations is None:
        rows.add(_REVOKED, "not checked: pass --revocations with the newest list of who released it", "not_evaluated", "note")
    else:
        rows.gate(_REVOKED, lambda: gate_claims.not_revoked(evidence, read_revocations(revocations, evidence.trust), now))
    if (opened := gate_claims.broke_glass(evidence, released_at)) is not None:
        rows.add("released under break-glass", opened, "not_evaluated", "note")
    anchor = f"anchor of the journal: {release.checkpoint.size}:{release.checkpoint.root_digest}"
    rows.add("checkpoint of the journal", f"{anchor}, which no later state may contradict", "passed", "note")
    _notes(rows, evidence, given)


def _open_all(rows: _Rows, view: BundleView, given: TrustRoot | None, *, released: bool) -> Evidence | None:
    """Layout, digests, root, canonical form and signatures: without these nothing else is worth reading."""
    root = rows.run("files, digests and root", lambda: check_layout(view, released=released), lambda r: f"evidence root {r}")
    if root is None or rows.run("one spelling per document", lambda: check_canonical(view)) is None:
        return None
    trust = given
    if trust is None:
        trust = rows.run("identities", lambda: _own_trust(view), lambda t: f"{len(t.people)} listed by the bundle itself")
    if trust is None:
        return None
    return rows.run(
        "signatures of the statements",
        lambda: open_evidence(view, trust, root),
        lambda e: f"{len(e.statements)} statements signed by {e.signer.name}",
    )


def _integrity(rows: _Rows, evidence: Evidence) -> None:
    rows.run("statements agree", lambda: check_statements(evidence))
    rows.run("stage results chain", lambda: check_manifests(evidence))
    rows.run("epsilon recomputed", lambda: check_epsilon(evidence))
    rows.run("trace follows the policy", lambda: check_trace_follows_policy(evidence))
    rows.run("papers repeat the evidence", lambda: check_papers(evidence))
    rows.run("report shows the evidence", lambda: check_report(evidence))
    rows.run("journal", lambda: check_journal(evidence))
    for gate in ("use", "release"):
        rows.run(
            f"signatures at the {gate} gate",
            lambda gate=gate: open_approvals(evidence.view, evidence.trust, gate),  # type: ignore[misc]
            lambda found: f"{len(found)} signed decision{'s' if len(found) != 1 else ''}",
        )
    if any("delegation" in path for path in evidence.view.approvals):
        rows.run("delegations of roles", lambda: gate_claims.lent_roles(evidence))


def _gates(rows: _Rows, evidence: Evidence, as_of: datetime) -> None:
    rows.gate("mechanism", lambda: gate_claims.mechanism(evidence))
    rows.gate("epsilon by a second accountant", lambda: gate_claims.second_accountant(evidence))
    rows.gate("epsilon within the budget", lambda: gate_claims.within_budget(evidence))
    rows.gate("validation", lambda: gate_claims.validation(evidence))
    _recorded(rows, evidence)
    _documents(rows, evidence)
    rows.gate("lower bounds against the claim", lambda: gate_claims.bounds_refute(evidence))
    rows.gate("canary coins committed before training", lambda: gate_claims.coins_committed(evidence))
    rows.gate("use gate", lambda: gate_claims.use_gate(evidence))
    rows.gate("release gate", lambda: gate_claims.release_gate(evidence, as_of))
    rows.gate("separation of duties", lambda: gate_claims.duties(evidence))
    rows.gate("approvals in force", lambda: gate_claims.in_force(evidence, as_of))


def _recorded(rows: _Rows, evidence: Evidence) -> None:
    """The verdicts of the audit, each a row, and one for each that the policy asks for and nobody gave."""
    try:
        recorded = evidence.verdicts()
    except PrivetError as error:
        rows.add("verdicts", error.cause, "not_evaluated", "gate", error.code)
        recorded = ()
    names = {"validation", *(verdict.check for verdict in recorded)}
    for name in required_verdicts(evidence.view.json("policy.json")):
        if name not in names:
            rows.add(name, "no verdict was recorded", "not_evaluated", "gate", "E-CLAIM-015")
    for verdict in recorded:
        rows.gate(verdict.check, lambda verdict=verdict: gate_claims.coded(verdict))  # type: ignore[misc]


def _documents(rows: _Rows, evidence: Evidence) -> None:
    try:
        looks = look_again(evidence)
    except PrivetError:  # which the row of the verdicts says
        return
    for claim, look in looks:
        rows.gate(claim, look)


def _own_trust(view: BundleView) -> TrustRoot:
    return TrustRoot.from_json(view.json("trust.json"))


def _notes(rows: _Rows, evidence: Evidence, given: TrustRoot | None) -> None:
    own = _own_trust(evidence.view)
    if given is None:
        said = "identities are self-declared; pass --trust"
    elif given.digest == own.digest:
        said = f"identities are those of your trust root {given.digest}"
    else:
        said = "the bundle names other identities than your trust root; yours decided"
    rows.add(_SIGNERS, said, "passed" if given is not None else "not_evaluated", "note")
    gates = [a for gate in ("use", "release") for _, a in open_approvals(evidence.view, evidence.trust, gate)]
    demo = sorted({a.signer for a in gates if a.custody == "demo"})
    if demo:
        said = (
            f"{', '.join(demo)}: {'demo identities' if len(demo) > 1 else 'a demo identity'}, with the private key beside the "
            "pipeline's; such signatures show how the gate works, and no person's decision"
        )
        rows.add("whose decision it was", said, "not_evaluated", "note")
    else:
        rows.add("whose decision it was", "people who hold their own keys, says the trust root", "passed", "note")


if __name__ == "__main__":
    import sys

    from pipeline.verify_main import main

    sys.exit(main())

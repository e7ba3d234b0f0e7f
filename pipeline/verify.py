"""Verifies a bundle offline: no network, no database, no Privet home; nothing in it is believed that can be recomputed.

Exit codes of a verification: 0 every claim holds; 3 the bytes are whole but a gate is not open; 4 integrity is broken.
Guarantee: every byte of every file is covered by the root, by a signature, or by the list of approvals in the release
statement. Not covered: whether the people who signed were right, and, without `trust`, who they are.
The release stage decides by these same lines before it writes anything.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, TypeVar

from pipeline.bundle import BundleView, read_bundle, require_folder
from pipeline.claims import (
    MECHANISM,
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
from pipeline.evidence import is_pipeline, moment, required_verdicts
from pipeline.journal_claims import check_journal, has_rejection, journal_entries, stage_entry, witnessed
from privacy.accounting import recompute_epsilon
from privacy.canonical import Digest, Json, parse_json
from privacy.entries import Entry
from privacy.errors import PrivetError, UsageError
from privacy.gates import Approval, GateName, decide_gate
from privacy.rounding import EXACT, shown_down, shown_up
from privacy.signing import TrustRoot
from privacy.verdict import Outcome, Verdict

Kind = Literal["integrity", "gate", "note"]
_T = TypeVar("_T")
_CLOCK_SKEW = timedelta(minutes=5)
_MAX_SHOWN = 600
_MAX_TRUST_BYTES = 1_048_576


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


def verify_bundle(path: Path, trust: TrustRoot | None = None, now: datetime | None = None) -> Verification:
    """Verify a bundle folder. trust: a trust root obtained from elsewhere; None: the bundle's own, and a row says so.

    Raises UsageError E-BUNDLE-001 when there is no folder; everything else becomes a row.
    """
    require_folder(path)
    rows = _Rows()
    view = rows.run("files", lambda: read_bundle(path), lambda v: f"{len(v.files)} files, all of a known name")
    if view is not None:
        _verify(rows, view, trust, now or datetime.now(UTC))
    return Verification(tuple(rows.found))


def read_trust(path: Path) -> TrustRoot:
    """A trust root from a file. Raises UsageError E-VERIFY-001 (not a readable file), IntegrityError E-TRUST or E-CANON."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would wait for its writer
        with os.fdopen(handle, "rb") as file:
            fault = None if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else "not a plain file"
            data = b"" if fault else file.read(_MAX_TRUST_BYTES)
    except (OSError, ValueError) as error:
        fault = getattr(error, "strerror", None) or "not a path"
    if fault is not None:
        raise UsageError("E-VERIFY-001", f"the trust root can't be read ({fault})", "Give the path of a trust.json")
    return TrustRoot.from_json(parse_json(data))


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


def _verify(rows: _Rows, view: BundleView, given: TrustRoot | None, now: datetime) -> None:
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
    rows.gate("released in the past", lambda: _in_the_past(released_at, now))
    rows.gate("witnesses of the journal", lambda: witnessed(evidence, release.checkpoint))
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
    rows.run("journal", lambda: check_journal(evidence))
    for gate in ("use", "release"):
        rows.run(
            f"signatures at the {gate} gate",
            lambda gate=gate: open_approvals(evidence.view, evidence.trust, gate),  # type: ignore[misc]
            lambda found: f"{len(found)} signed decision{'s' if len(found) != 1 else ''}",
        )


def _gates(rows: _Rows, evidence: Evidence, as_of: datetime) -> None:
    rows.gate("mechanism", lambda: _mechanism(evidence))
    rows.gate("epsilon within the budget", lambda: _within_budget(evidence))
    recorded: list[Verdict] = [_validation(evidence)]
    try:
        recorded += evidence.verdicts()
    except PrivetError as error:
        rows.add("verdicts", error.cause, "not_evaluated", "gate", error.code)
    names = [v.check for v in recorded]
    for name in required_verdicts(evidence.view.json("policy.json")):
        if name not in names:
            rows.add(name, "no verdict was recorded", "not_evaluated", "gate", "E-CLAIM-015")
    for verdict in recorded:
        rows.gate(verdict.check, lambda verdict=verdict: _coded(verdict))  # type: ignore[misc]
    rows.gate("lower bounds against the claim", lambda: _bounds_refute(evidence))
    rows.gate("canary coins committed before training", lambda: _committed(evidence))
    rows.gate("use gate", lambda: _use_gate(evidence))
    rows.gate("release gate", lambda: _decide(evidence, "release", evidence.root, as_of))


def _coded(verdict: Verdict) -> Verdict:
    if not verdict.blocks or verdict.reason.startswith("E-"):
        return verdict
    return Verdict(verdict.check, verdict.outcome, f"E-CLAIM-015: {verdict.reason}", verdict.evidence)


def _mechanism(evidence: Evidence) -> Verdict:
    if evidence.terms.mechanism != "dp_sgd" or evidence.trace().mechanism != MECHANISM:
        return Verdict("mechanism", "failed", "E-CLAIM-016: the model was not trained with a differentially private mechanism")
    return Verdict("mechanism", "passed", f"DP-SGD ({MECHANISM}, {evidence.trace().neighbouring_relation})")


def _within_budget(evidence: Evidence) -> Verdict:
    epsilon, budget = recompute_epsilon(evidence.trace()), evidence.terms.epsilon
    if not epsilon <= budget:
        return Verdict("epsilon", "failed", f"E-CLAIM-017: epsilon {shown_up(epsilon, EXACT)} is over the policy's {budget}")
    return Verdict("epsilon", "passed", f"{shown_up(epsilon)} of {shown_up(budget)} that the policy allows")


def _bounds_refute(evidence: Evidence) -> Verdict:
    """The published bounds are read again: a verdict can't say passed over a bound that refutes the claim."""
    name, value = "bounds", evidence.view.json("audit/bounds.json")
    listed = value.get("bounds") if isinstance(value, dict) else None
    level = value.get("gate_level") if isinstance(value, dict) else None
    gate = [b for b in listed or [] if isinstance(b, dict) and b.get("level") == level] if isinstance(listed, list) else []
    highest = [float(b["epsilon_lower_bound"]) for b in gate if type(b.get("epsilon_lower_bound")) in (int, float)]
    if not highest or len(highest) != len(gate):
        return Verdict(name, "not_evaluated", "E-CLAIM-018: no epsilon lower bound at the level of the gate was published")
    claim = evidence.trace().epsilon
    bound = shown_down(max(highest), EXACT)
    if not max(highest) <= claim:
        said = f"E-CLAIM-018: the epsilon lower bound {bound} refutes the claim {shown_up(claim, EXACT)}"
        return Verdict(name, "failed", said)
    said = f"epsilon {shown_up(claim)} is not refuted at confidence {level} (lower bound {shown_down(max(highest))})"
    return Verdict(name, "passed", said)


def _committed(evidence: Evidence) -> Verdict:
    """Coins drawn after the training could be drawn to look well."""
    name, facts = "canaries", evidence.manifests["train"].get("facts")
    commitment = facts.get("canary_commitment") if isinstance(facts, dict) else None
    if not isinstance(commitment, str):
        return Verdict(name, "not_evaluated", "E-CLAIM-019: the training names no commitment to its canary coins")
    entries = journal_entries(evidence)
    if any(
        e.kind == "canary_commitment" and e.facts.get("commitment") == commitment
        for e in entries[: _trained(evidence, entries)]
    ):
        return Verdict(name, "passed", "the journal has the commitment before the training result")
    return Verdict(name, "failed", "E-CLAIM-019: the journal has no commitment to the canary coins before the training")


def _trained(evidence: Evidence, entries: Sequence[Entry]) -> int:
    """How many entries of the segment come before the training result; 0 when it is not there."""
    own = evidence.block.manifests["train"]
    found = stage_entry(entries, own)
    return 0 if found is None else found.seq - entries[0].seq


def _validation(evidence: Evidence) -> Verdict:
    facts = evidence.manifests["validate"].get("facts")
    said = facts.get("verdict") if isinstance(facts, dict) else None
    if said == "passed":
        return Verdict("validation", "passed", "every expectation was evaluated and held")
    if said == "failed":
        return Verdict("validation", "failed", "an expectation did not hold")
    return Verdict("validation", "not_evaluated", "the validation left no verdict")


def _use_gate(evidence: Evidence) -> Verdict:
    """Use is judged as of the training, and counts only approvals that the journal has before it."""
    entries = journal_entries(evidence)
    if has_rejection(entries, "use", evidence.use_subject):
        return Verdict("use", "failed", "E-GATE-012: the journal has a rejection of exactly this use")
    in_time = {e.facts.get("envelope") for e in entries[: _trained(evidence, entries)] if e.kind == "approval"}
    return _decide(evidence, "use", evidence.use_subject, moment(str(evidence.manifests["train"].get("created_at"))), in_time)


def _decide(evidence: Evidence, gate: GateName, subject: Digest, as_of: datetime, in_time: set[Json] | None = None) -> Verdict:
    counted: list[Approval] = []
    late = 0
    for path, approval in open_approvals(evidence.view, evidence.trust, gate):
        person = evidence.trust.by_key(approval.signer_key)
        if person is None or is_pipeline(person):
            return Verdict(gate, "failed", "E-GATE-022: the pipeline's key signed an approval; only a person can")
        if in_time is None or approval.decision == "reject" or evidence.view.files[path].sha256 in in_time:
            counted.append(approval)
        else:
            late += 1
    if late and not counted:
        return Verdict(gate, "failed", "E-GATE-025: the journal has no approval of this use before the training")
    requirement = evidence.terms.requirement(gate, evidence.block.requested_by)
    return decide_gate(subject, counted, requirement, evidence.trust, as_of)


def _in_the_past(released_at: datetime, now: datetime) -> Verdict:
    if released_at > now + _CLOCK_SKEW:
        return Verdict("release date", "failed", "E-CLAIM-012: the release is dated in the future")
    return Verdict("release date", "passed", f"released {released_at.isoformat(timespec='seconds')}")


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

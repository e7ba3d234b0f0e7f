"""The gate decision, pure: from evidence and signed approvals to a verdict. No I/O, no clock, no keys.

Used by the release stage and by the offline verifier, so both decide by the same lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from privacy.canonical import Digest, Json, is_digest
from privacy.errors import IntegrityError
from privacy.signing import Signed, TrustRoot
from privacy.verdict import Verdict

APPROVAL_TYPE = "https://privet.dev/predicate/approval/v1"
GateName = Literal["use", "release"]


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a gate asks: quorum role by role, and how long a signature counts."""

    gate: GateName
    quorum: Mapping[str, int]
    expires_hours: int
    requested_by: str


@dataclass(frozen=True, slots=True)
class Approval:
    """One signed decision over one digest. `signer` comes from the key that verified, not from the text."""

    gate: str
    digest: Digest
    decision: Literal["approve", "reject"]
    role: str
    reason: str
    signed_at: datetime
    signer: str
    signer_key: str
    custody: str


def approval_predicate(
    gate: GateName, digest: Digest, decision: str, role: str, reason: str, signed_at: datetime
) -> dict[str, Json]:
    """The predicate a person signs. `reason` is their own sentence and must hold no personal data."""
    return {
        "gate": gate,
        "digest": digest,
        "decision": decision,
        "role": role,
        "reason": reason,
        "signed_at": signed_at.astimezone(UTC).isoformat(timespec="seconds"),
    }


def approval_of(signed: Signed) -> Approval:
    """Raises IntegrityError E-GATE-020 when a verified statement is not an approval."""
    match signed.predicate:
        case {
            "gate": "use" | "release" as gate,
            "digest": str(digest),
            "decision": "approve" | "reject" as decision,
            "role": str(role),
            "reason": str(reason),
            "signed_at": str(signed_at),
        }:
            named = signed.subject.get("evidence")
            if signed.predicate_type == APPROVAL_TYPE and is_digest(digest) and named == digest:
                person = signed.signer
                return Approval(
                    gate, digest, decision, role, reason, _time(signed_at), person.name, person.public_hex, person.custody
                )
    raise IntegrityError(
        "E-GATE-020", "a signed statement is not an approval", "Sign the request again with privet approvals sign"
    )


def decide_gate(
    digest: Digest,
    approvals: Sequence[Approval],
    requirement: Requirement,
    trust: TrustRoot,
    now: datetime,
) -> Verdict:
    """Decide whether `digest` is approved.

    Rules, in order; the first that does not hold is the answer:
      0. the quorum asks for at least one signature, and for no fewer than one of any role it names;
      1. no counted approval is a rejection of exactly this digest: a reject is final for these bytes;
      2. at least one approval covers exactly this digest and gate;
      3. each counted approval is unexpired at `now`, not from the future, gives a reason, and its key holds its role;
      4. the requester is not among the approvers, and no key counts twice; a renewed vote stands for an expired one;
      5. the quorum is met, role by role.

    Guarantee: a changed byte anywhere under the digest changes the digest, so rule 2 fails.
    Not covered: whether the people who signed were right.
    """
    check = f"gate.{requirement.gate}"
    if not requirement.quorum or any(need < 1 for need in requirement.quorum.values()):
        return Verdict(check, "failed", "E-GATE-026: the quorum asks for nobody, so nobody can have approved")
    covering = [a for a in approvals if a.digest == digest and a.gate == requirement.gate]
    if any(a.decision == "reject" and _holds_role(a, trust) for a in covering):
        return Verdict(check, "failed", "E-GATE-012: an approver rejected exactly this evidence")
    if not covering:
        if approvals:
            return Verdict(check, "failed", "E-GATE-011: the approvals do not cover these bytes")
        return Verdict(check, "not_evaluated", "E-GATE-010: nobody has approved yet")
    counted, fault = _count(covering, requirement, trust, now)
    short = {role: need - sum(a.role == role for a in counted) for role, need in requirement.quorum.items()}
    missing = [f"{lacking} more {role}" for role, lacking in sorted(short.items()) if lacking > 0]
    if missing:
        return Verdict(check, "failed", f"{fault}; still needed: {', '.join(missing)}", digest)
    return Verdict(check, "passed", f"approved by {', '.join(f'{a.signer} as {a.role}' for a in counted)}", digest)


def _count(
    covering: Sequence[Approval], requirement: Requirement, trust: TrustRoot, now: datetime
) -> tuple[list[Approval], str]:
    """The votes that count, one for each key, and what is to be said when they are too few."""
    faults: list[tuple[str, str]] = []
    used: dict[str, Approval] = {}
    for approval in covering:
        fault = approval_fault(approval, requirement, trust, now)
        if fault is None and approval.signer_key in used and used[approval.signer_key].role != approval.role:
            fault = "E-GATE-016: one key signed twice"
        if fault is not None:
            faults.append((approval.signer_key, fault))
        elif approval.role in requirement.quorum and approval.decision == "approve":
            used.setdefault(approval.signer_key, approval)
    # The expired vote of somebody who renewed it is not what is missing.
    told = [fault for key, fault in faults if key not in used or fault.startswith("E-GATE-016")]
    return list(used.values()), told[0] if told else "E-GATE-017: the quorum is not met"


def approval_fault(approval: Approval, requirement: Requirement, trust: TrustRoot, now: datetime) -> str | None:
    """Why this approval does not count at `now`, with its code; None when it does. Says nothing about decision and digest."""
    if approval.signer == requirement.requested_by:
        return "E-GATE-015: the requester approved their own request"
    if not _holds_role(approval, trust):
        return f"E-GATE-014: the key of an approval does not hold the role {approval.role}"
    if now - approval.signed_at > timedelta(hours=requirement.expires_hours):  # a sum could leave the calendar
        return "E-GATE-013: an approval has expired"
    if approval.signed_at > now + timedelta(minutes=5):
        return "E-GATE-018: an approval is dated in the future"
    if len(approval.reason.strip()) < 3:
        return "E-GATE-019: an approval gives no reason"
    return None


def _holds_role(approval: Approval, trust: TrustRoot) -> bool:
    person = trust.by_key(approval.signer_key)
    return person is not None and approval.role in person.roles


def _time(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = datetime.max.replace(tzinfo=UTC)
    if moment.tzinfo is None:
        raise IntegrityError("E-GATE-020", "an approval carries a time without a zone", "Sign the request again")
    return moment

"""Releases that two people opened past their quorum, until somebody else has reviewed them.

Guarantee: each stands in the journal before its bundle has a name, and is told in every later request and report of its policy
until a review is signed, by a person who neither broke the glass nor asked for the release.
Not covered: that the review is a good one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from privacy.canonical import Digest, Json, digest_bytes
from privacy.entries import Entry
from privacy.errors import GateClosed, UsageError
from privacy.signing import SigningKey, make_statement, open_envelope, seal_envelope

if TYPE_CHECKING:
    from pipeline.home import Home

REVIEW_TYPE = "https://privet.dev/predicate/break-glass-review/v1"


@dataclass(frozen=True, slots=True)
class Unreviewed:
    """One release under break-glass that nobody has reviewed yet."""

    evidence_root: Digest
    policy_name: str
    at: str
    people: tuple[str, ...]
    requested_by: str

    def line(self) -> str:
        who = " and ".join(self.people)
        return f"release {self.evidence_root} of {self.at} was opened past its quorum by {who}; its review is due"


def unreviewed(entries: Iterable[Entry], policy_name: str | None = None) -> tuple[Unreviewed, ...]:
    """Pure. entries: of the journal, in order. policy_name: of this policy only."""
    found: dict[Digest, Unreviewed] = {}
    for entry in entries:
        match entry.kind, dict(entry.facts):
            case "break_glass", {"evidence_root": str(root), "policy_name": str(name), "people": list(people), **rest}:
                who = tuple(str(person) for person in people)
                found.setdefault(root, Unreviewed(root, name, entry.at, who, str(rest.get("requested_by", ""))))
            case "break_glass_review", {"evidence_root": str(root)}:
                found.pop(root, None)
    return tuple(u for u in found.values() if policy_name is None or u.policy_name == policy_name)


def review(home: Home, root: Digest, name: str, role: str, reason: str, key: SigningKey, now: datetime) -> None:
    """Sign and journal the review of one such release; it is silent from then on.

    Raises UsageError E-GLASS-001 (nothing to review under that root), E-APPROVE-005 and 006 (person and key, reason),
    GateClosed E-GLASS-002 (a reviewer who was part of it, or lacks a role of the release gate).
    """
    from pipeline.approve import refuse_odd_reason, refuse_other_key
    from pipeline.standing import asked_about

    waiting = next((u for u in unreviewed(home.journal.entries()) if u.evidence_root == root), None)
    if waiting is None:
        raise UsageError(
            "E-GLASS-001", "no release under break-glass with that root waits for a review", "See privet approvals list"
        )
    person = refuse_other_key(home, name, key)
    refuse_odd_reason(reason)
    request = asked_about(home, "release", root)
    may = set() if request is None else {*request.quorum, request.officer}
    if name in waiting.people or name == waiting.requested_by or role not in may or role not in person.roles:
        raise GateClosed(
            "E-GLASS-002",
            "who broke the glass or asked for the release can't review it, and a reviewer needs a role of the release gate",
            "Have another person of the quorum, or the officer, review it",
        )
    body: dict[str, Json] = {
        "evidence_root": root,
        "policy_name": waiting.policy_name,
        "role": role,
        "reason": reason.strip(),
        "signed_at": now.astimezone(UTC).isoformat(timespec="seconds"),
    }
    envelope = seal_envelope(make_statement({"evidence": root}, REVIEW_TYPE, body), key)
    open_envelope(envelope, home.journalled_trust())  # nothing is kept that would not verify
    facts: dict[str, Json] = {**body, "signer": name, "envelope": digest_bytes(envelope)}
    home.journal.append("break_glass_review", facts)
    home.approvals.keep("reviews", envelope)

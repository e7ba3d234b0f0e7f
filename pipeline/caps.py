"""Raising a privacy budget's cap: a signed record by two people in two roles, bound to the cap that it raises.

Guarantee: a cap rises only when a privacy officer and a steward, two different keys of the trust root, signed the same
raise from the cap that stands now; each signature and the raise are journalled before the ledger takes it; a signature
counts for one raise of one ledger, for a week. There is no way down and no reset.
Assumption: the trust root is the journalled one. Not covered: whether the raise is wise; what a policy says (it may go on
naming the cap that it was signed with, or name the new one).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from pipeline.evidence import is_pipeline
from privacy.canonical import Digest, Json, digest_of
from privacy.errors import IntegrityError, PolicyError, UsageError
from privacy.moments import moment_of
from privacy.rounding import shown_up
from privacy.signing import Person, Signed, SigningKey, TrustRoot, make_statement, seal_envelope
from privacy.verdict import Verdict

CAP_TYPE: Final = "https://privet.dev/predicate/budget-cap/v1"
QUORUM: Final[Mapping[str, int]] = {"privacy_officer": 1, "steward": 1}
EXPIRES: Final = timedelta(hours=168)
_CLOCK_SKEW: Final = timedelta(minutes=5)
_SUBJECT: Final = "budget-cap"
_MOST: Final = 1000.0  # as budget.cap_epsilon of a policy


@dataclass(frozen=True, slots=True)
class CapRaise:
    """What is asked. `ledger` is the public key of the home that keeps it, so a signature counts in one home only."""

    ledger: str
    scope: str
    unit: str
    delta: float
    cap_before: float
    cap_after: float

    @property
    def digest(self) -> Digest:
        return digest_of(self.to_json())

    def to_json(self) -> dict[str, Json]:
        return {
            "ledger": self.ledger,
            "scope": self.scope,
            "unit": self.unit,
            "delta": self.delta,
            "cap_before": self.cap_before,
            "cap_after": self.cap_after,
        }

    @classmethod
    def from_json(cls, value: Json) -> CapRaise:
        """Raises IntegrityError E-CAP-002 for anything else, PolicyError E-CAP-001 for one that does not rise."""
        match value:
            case {
                "ledger": str(ledger),
                "scope": str(scope),
                "unit": str(unit),
                "delta": float(delta),
                "cap_before": float(before),
                "cap_after": float(after),
                **rest,
            } if not rest and (ledger + scope + unit).isprintable():  # whoever signs elsewhere is shown these
                refuse_unless_rising(before, after)
                return cls(ledger, scope, unit, delta, before, after)
        raise _malformed()


@dataclass(frozen=True, slots=True)
class CapVote:
    """One signature under a raise. `signer` comes from the key that verified, not from the text."""

    asked: CapRaise
    role: str
    reason: str
    signed_at: datetime
    signer: Person
    envelope: Digest


def refuse_unless_rising(before: float, after: float) -> None:
    """Raises PolicyError E-CAP-001."""
    if not (math.isfinite(after) and before < after <= _MOST):  # NaN fails every comparison
        raise PolicyError(
            "E-CAP-001",
            f"the cap is epsilon {shown_up(before)}, and what was asked for is not above it, or above {_MOST:.0f}",
            "Ask for a higher cap; a budget can't be lowered or reset",
        )


def role_for(person: Person, role: str | None) -> str:
    """The role to sign in. Raises UsageError E-CAP-004 for somebody who holds neither, or both and names none."""
    held = [name for name in QUORUM if name in person.roles]
    if role is None and len(held) == 1:
        return held[0]
    if role in held:
        return str(role)
    raise UsageError(
        "E-CAP-004",
        f"a cap is raised by {' and '.join(QUORUM)}, and {person.name} holds {' and '.join(held) or 'neither role'}",
        "Sign in a role that you hold, with --role when you hold both",
    )


def sign_raise(asked: CapRaise, role: str, reason: str, key: SigningKey, now: datetime) -> bytes:
    """The signed envelope. Raises UsageError E-CAP-006 for a reason that is none."""
    if not _is_reason(reason):
        raise UsageError(
            "E-CAP-006",
            "a reason is one line of 3 to 500 printable characters",
            "Say in one sentence why, without personal data",
        )
    predicate: dict[str, Json] = {
        "raise": asked.to_json(),
        "role": role,
        "reason": reason,
        "signed_at": now.astimezone(UTC).isoformat(timespec="seconds"),
    }
    return seal_envelope(make_statement({_SUBJECT: asked.digest}, CAP_TYPE, predicate), key)


def vote_of(signed: Signed, envelope: Digest) -> CapVote:
    """Raises IntegrityError E-CAP-002 when a verified statement is not a raise of a cap."""
    match signed.predicate:
        case {"raise": dict(body), "role": str(role), "reason": str(reason), "signed_at": str(at), **rest} if not rest:
            asked, moment = CapRaise.from_json(body), _time(at)
            if signed.predicate_type == CAP_TYPE and dict(signed.subject) == {_SUBJECT: asked.digest}:
                return CapVote(asked, role, reason, moment, signed.signer, envelope)
    raise _malformed()


def decide_raise(asked: CapRaise, votes: Sequence[CapVote], trust: TrustRoot, now: datetime) -> Verdict:
    """Decide whether this raise may be made.

    Rules, in order:
      1. a vote counts when it is about exactly this raise, `vote_fault` finds nothing, and its key has not counted before;
      2. the quorum is met: one privacy officer and one steward, so two people.
    """
    counted = counted_votes(asked, votes, trust, now)
    have = [vote.role for vote in counted]
    missing = [f"{need - have.count(role)} {role}" for role, need in QUORUM.items() if have.count(role) < need]
    if missing:
        faults = [fault for vote in votes if (fault := vote_fault(asked, vote, trust, now))]
        said = f"; {faults[0]}" if faults else ""
        needed = " and ".join(missing)
        return Verdict("budget.cap", "not_evaluated", f"E-CAP-007: not everybody has signed, still needed: {needed}{said}")
    by = ", ".join(f"{vote.signer.name} as {vote.role}" for vote in counted)
    return Verdict("budget.cap", "passed", f"raised by {by}", asked.digest)


def counted_votes(asked: CapRaise, votes: Sequence[CapVote], trust: TrustRoot, now: datetime) -> list[CapVote]:
    """The votes of the quorum, the oldest first; one for each key and no more than asked for of a role."""
    counted: list[CapVote] = []
    for vote in sorted(votes, key=lambda vote: (vote.signed_at, vote.envelope)):
        full = sum(other.role == vote.role for other in counted) >= QUORUM.get(vote.role, 0)
        again = any(other.signer.public_hex == vote.signer.public_hex for other in counted)
        if not full and not again and vote_fault(asked, vote, trust, now) is None:
            counted.append(vote)
    return counted


def vote_fault(asked: CapRaise, vote: CapVote, trust: TrustRoot, now: datetime) -> str | None:
    """Why this signature does not count at `now`, with its code; None when it does."""
    person = trust.by_key(vote.signer.public_hex)
    if vote.asked != asked:
        return "E-CAP-003: the signature is about another raise"
    if vote.role not in QUORUM or person is None or vote.role not in person.roles or is_pipeline(person):
        return f"E-CAP-004: the key of {vote.signer.name} does not hold the role of {' or '.join(QUORUM)} that it signed in"
    if now - vote.signed_at > EXPIRES or vote.signed_at > now + _CLOCK_SKEW:
        return "E-CAP-005: a signature has expired, or is dated in the future"
    if not _is_reason(vote.reason):
        return "E-CAP-006: a signature gives no reason"
    return None


def _is_reason(text: str) -> bool:
    return 3 <= len(text.strip()) <= 500 and text.isprintable()


def _time(text: str) -> datetime:
    if (moment := moment_of(text)) is None:
        raise _malformed()
    return moment


def _malformed() -> IntegrityError:
    return IntegrityError("E-CAP-002", "a signed statement is not a raise of a cap", "Sign again with privet budget raise")

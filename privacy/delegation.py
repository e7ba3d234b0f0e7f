"""One person lends another their role at the gates: signed, for named gates of one policy, until a date.

Guarantee: a delegation lends only a role that its signer holds in the trust root (so it can't be passed on), to one key, and
an approval under it counts only while it runs; both people together make one vote.
Not covered: calling a delegation back before its end; withdraw the delegate from the trust root for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from privacy.canonical import Digest, Json, digest_bytes, digest_of
from privacy.errors import IntegrityError
from privacy.moments import moment_of
from privacy.signing import SigningKey, TrustRoot, make_statement, open_envelope, seal_envelope

DELEGATION_TYPE: Final = "https://privet.dev/predicate/delegation/v1"
MAX_DAYS: Final = 92
_GATES: Final = frozenset({"use", "release"})
_CLOCK_SKEW: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Delegation:
    """`signer` and `signer_key` come from the key that verified; `digest` is of the envelope, and approvals name it."""

    digest: Digest
    role: str
    delegate: str
    delegate_key: str
    gates: tuple[str, ...]
    policy: str
    until: datetime
    reason: str
    signed_at: datetime
    signer: str
    signer_key: str

    def fault(self, gate: str, policy: str, signed_at: datetime, trust: TrustRoot, now: datetime) -> str | None:
        """Why an approval of `signed_at` at this gate has nothing of this delegation at `now`; None when it has."""
        person = trust.by_key(self.signer_key)
        if person is None or self.role not in person.roles:
            return f"E-GATE-046: the role {self.role} was lent by somebody who does not hold it"
        if self.delegate_key == self.signer_key:
            return "E-GATE-046: a role was lent to its own holder"
        if gate not in self.gates or policy != self.policy:
            return "E-GATE-046: a delegation is for another gate or policy"
        if self.until - self.signed_at > timedelta(days=MAX_DAYS):
            return f"E-GATE-046: a delegation runs for over {MAX_DAYS} days"
        if not self.signed_at - _CLOCK_SKEW <= signed_at < self.until or now >= self.until:
            return "E-GATE-046: a delegation has ended, or had not begun"
        return None


def delegation_envelope(
    role: str,
    delegate: tuple[str, str],
    gates: tuple[str, ...],
    policy: str,
    until: datetime,
    reason: str,
    signed_at: datetime,
    key: SigningKey,
) -> bytes:
    """What the lender signs. delegate: name and public key of who gets the role."""
    body: dict[str, Json] = {
        "role": role,
        "delegate": delegate[0],
        "delegate_key": delegate[1],
        "gates": list(gates),
        "policy": policy,
        "until": until.astimezone(UTC).isoformat(timespec="seconds"),
        "reason": reason,
        "signed_at": signed_at.astimezone(UTC).isoformat(timespec="seconds"),
    }
    return seal_envelope(make_statement({"delegation": digest_of(body)}, DELEGATION_TYPE, body), key)


def open_delegation(envelope: bytes, trust: TrustRoot) -> Delegation:
    """Raises IntegrityError E-SIGN-001 or 002 (envelope, key), E-GATE-049 when it is no delegation."""
    signed = open_envelope(envelope, trust)
    match signed.predicate:
        case {
            "role": str(role),
            "delegate": str(delegate),
            "delegate_key": str(delegate_key),
            "gates": list(gates),
            "policy": str(policy),
            "until": str(until),
            "reason": str(reason),
            "signed_at": str(signed_at),
            **rest,
        } if not rest and signed.predicate_type == DELEGATION_TYPE:
            named = tuple(str(gate) for gate in gates)
            if named and set(named) <= _GATES and signed.subject == {"delegation": digest_of(dict(signed.predicate))}:
                who, times = signed.signer, (_time(until), _time(signed_at))
                return Delegation(
                    digest_bytes(envelope), role, delegate, delegate_key, named, policy, times[0], reason, times[1],
                    who.name, who.public_hex,
                )  # fmt: skip
    raise _malformed()


def _time(text: str) -> datetime:
    if (moment := moment_of(text)) is None:
        raise _malformed()
    return moment


def _malformed() -> IntegrityError:
    return IntegrityError("E-GATE-049", "a signed statement is not a delegation", "Have the person delegate again")

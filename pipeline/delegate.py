"""Lending a role at the gates of one policy until a date: signed by its holder, journalled, kept in the approval book.

Guarantee: nothing is kept that `privacy.gates` would never count: the lender holds the role, the borrower is another enrolled
person, and the end lies within the next 92 days. Not covered: taking it back early (withdraw the borrower for that).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipeline.evidence import is_pipeline
from privacy.canonical import Json
from privacy.delegation import MAX_DAYS, Delegation, delegation_envelope, open_delegation
from privacy.errors import GateClosed, UsageError
from privacy.gates import GateName
from privacy.signing import SigningKey

if TYPE_CHECKING:
    from pipeline.home import Home


def delegate(
    home: Home,
    name: str,
    role: str,
    to: str,
    gates: tuple[GateName, ...],
    policy_name: str,
    until: datetime,
    reason: str,
    key: SigningKey,
    now: datetime,
) -> Delegation:
    """Sign and keep a delegation. Raises UsageError E-DELEGATE-001 (nobody to lend to), 002 (the end), E-APPROVE-005 and 006
    (person and key, reason), GateClosed E-GATE-046 (the role is not the lender's own)."""
    from pipeline.approve import refuse_odd_reason, refuse_other_key

    refuse_other_key(home, name, key)
    borrower = home.trust.by_name(to)
    if borrower is None or is_pipeline(borrower) or to == name:
        raise UsageError("E-DELEGATE-001", "there is no such person to lend a role to", "See privet identity list")
    refuse_odd_reason(reason)
    about = (role, (to, borrower.public_hex), tuple(dict.fromkeys(gates)), policy_name, until, reason.strip(), now)
    envelope = delegation_envelope(*about, key)
    made = open_delegation(envelope, home.journalled_trust())
    if not now < until or made.until <= made.signed_at:
        raise UsageError("E-DELEGATE-002", "its end is not in the future", f"At most {MAX_DAYS} days from now")
    if (fault := made.fault(made.gates[0], policy_name, now, home.trust, now)) is not None:
        code, _, cause = fault.partition(": ")
        raise GateClosed(code, cause, f"Lend a role of your own, for at most {MAX_DAYS} days")
    if made.digest not in home.approvals.delegation_envelopes():
        facts: dict[str, Json] = {
            "role": role,
            "signer": name,
            "delegate": to,
            "gates": list(made.gates),
            "policy_name": policy_name,
            "until": made.until.isoformat(timespec="seconds"),
            "reason": reason.strip(),
            "envelope": made.digest,
        }
        home.journal.append("delegation", facts)
        home.approvals.add_delegation(envelope)
    return made


def standing(home: Home, now: datetime) -> list[Delegation]:
    """Delegations that run at `now`, the next to end first."""
    trust = home.trust
    found = [d for d in home.approvals.delegations(trust) if d.fault(d.gates[0], d.policy, now, trust, now) is None]
    return sorted(found, key=lambda d: d.until)


def day_or_time(text: str) -> datetime:
    """A day means its first moment, UTC. Raises UsageError E-DELEGATE-002."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    except ValueError:
        raise UsageError("E-DELEGATE-002", "the end is not a date", "Write it as 2027-01-31") from None

"""The gate decision, pure: from evidence and signed approvals to a verdict. No I/O, no clock, no keys.

Used by the release stage and by the offline verifier, so both decide by the same lines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from privacy.canonical import Digest, Json, is_digest
from privacy.conditions import NO_FACTS, Condition, Facts, read_conditions, unmet
from privacy.delegation import Delegation
from privacy.errors import IntegrityError
from privacy.signing import Signed, TrustRoot
from privacy.verdict import Verdict

APPROVAL_TYPE = "https://privet.dev/predicate/approval/v1"
GateName = Literal["use", "release"]
Decision = Literal["approve", "reject", "refer", "break_glass"]
Risk = Literal["low", "high"]
ROLE: Final = re.compile(r"[a-z][a-z_]{1,40}")
BREAK_GLASS: Final = "BREAK-GLASS"
BREAK_GLASS_HOURS: Final = 24
BREAK_GLASS_PEOPLE: Final = 2
HIGH_RISK_PEOPLE: Final = 2


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a gate asks: quorum role by role, and how long a signature counts.

    policy: its name, which delegations are limited to. risk, officer: a high risk takes two people, one of them in this
    role, whatever the quorum says. break_glass: roles of whom two may open the release quorum in an emergency.
    """

    gate: GateName
    quorum: Mapping[str, int]
    expires_hours: int
    requested_by: str
    policy: str = ""
    risk: Risk = "low"
    officer: str = "privacy_officer"
    break_glass: tuple[str, ...] = ()

    @property
    def is_high_risk(self) -> bool:
        return self.risk == "high" and self.gate == "release"

    @property
    def needed(self) -> dict[str, int]:
        """The quorum, and the officer where the risk is high."""
        least = {self.officer: 1} if self.is_high_risk else {}
        return {**least, **self.quorum}


@dataclass(frozen=True, slots=True)
class Approval:
    """One signed decision over one digest. `signer` comes from the key that verified, not from the text.

    refer_to: of a referral, the role that is to decide. delegation: digest of the envelope that lends the role.
    """

    gate: str
    digest: Digest
    decision: Decision
    role: str
    reason: str
    signed_at: datetime
    signer: str
    signer_key: str
    custody: str
    conditions: tuple[Condition, ...] = ()
    refer_to: str = ""
    delegation: Digest | None = None


def approval_predicate(
    gate: GateName,
    digest: Digest,
    decision: str,
    role: str,
    reason: str,
    signed_at: datetime,
    conditions: Sequence[Condition] = (),
    refer_to: str = "",
    delegation: Digest | None = None,
) -> dict[str, Json]:
    """The predicate a person signs. `reason` is their own sentence and must hold no personal data."""
    predicate: dict[str, Json] = {
        "gate": gate,
        "digest": digest,
        "decision": decision,
        "role": role,
        "reason": reason,
        "signed_at": signed_at.astimezone(UTC).isoformat(timespec="seconds"),
    }
    if conditions:
        predicate["conditions"] = [condition.to_json() for condition in conditions]
    if refer_to:
        predicate["refer_to"] = refer_to
    if delegation is not None:
        predicate["delegation"] = delegation
    return predicate


def approval_of(signed: Signed) -> Approval:
    """Raises IntegrityError E-GATE-020 when a verified statement is not an approval, E-GATE-050 for its conditions."""
    match signed.predicate:
        case {
            "gate": "use" | "release" as gate,
            "digest": str(digest),
            "decision": "approve" | "reject" | "refer" | "break_glass" as decision,
            "role": str(role),
            "reason": str(reason),
            "signed_at": str(signed_at),
            **rest,
        }:
            named = signed.subject.get("evidence")
            if signed.predicate_type == APPROVAL_TYPE and is_digest(digest) and named == digest and _fits(decision, gate, rest):
                who = signed.signer
                conditions = read_conditions(rest["conditions"]) if "conditions" in rest else ()
                lent = rest.get("delegation")
                return Approval(
                    gate, digest, decision, role, reason, _time(signed_at), who.name, who.public_hex, who.custody,
                    conditions, str(rest.get("refer_to", "")), None if lent is None else str(lent),
                )  # fmt: skip
    raise _no_approval()


def _fits(decision: str, gate: str, rest: Mapping[str, Json]) -> bool:
    """Nothing unknown beside a decision, and each part only where it means something: what is not read must not be there."""
    refer_to, lent = rest.get("refer_to", ""), rest.get("delegation")
    if not set(rest) <= {"conditions", "refer_to", "delegation"} or not isinstance(refer_to, str):
        return False
    if (decision == "refer") != (ROLE.fullmatch(refer_to) is not None) or (decision != "refer" and "refer_to" in rest):
        return False
    if "conditions" in rest and decision not in ("approve", "break_glass"):
        return False
    if "delegation" in rest and (decision == "break_glass" or not (isinstance(lent, str) and is_digest(lent))):
        return False
    return decision != "break_glass" or gate == "release"


def decide_gate(
    digest: Digest,
    approvals: Sequence[Approval],
    requirement: Requirement,
    trust: TrustRoot,
    now: datetime,
    facts: Facts = NO_FACTS,
    delegations: Sequence[Delegation] = (),
) -> Verdict:
    """Decide whether `digest` is approved. facts: what conditions are compared with; delegations: verified under `trust`.

    Rules, in order; the first that does not hold is the answer:
      0. the quorum asks for at least one signature, and for no fewer than one of any role it names;
      1. no counted approval is a rejection of exactly this digest: a reject is final for these bytes;
      2. at least one approval covers exactly this digest and gate;
      3. no referral waits: a person of the role it names, and not the referrer, has approved since;
      4. each counted approval is unexpired at `now`, not from the future, gives a reason, its conditions hold, and its key
         holds its role, or has it lent at that time, for this gate and policy, by a key that holds it;
      5. the requester is not among the approvers or lenders, no key and no lender counts twice; a renewed vote stands for
         an expired one;
      6. the quorum is met, role by role; at a high risk by two people, one of them the officer. Or else, at the release
         gate and where the policy names roles for it, two people broke the glass within the last 24 hours (rules 1 to 5
         hold for them, too, and nobody breaks it in a lent role).

    Guarantee: a changed byte anywhere under the digest changes the digest, so rule 2 fails.
    Not covered: whether the people who signed were right.
    """
    check = f"gate.{requirement.gate}"
    if not requirement.quorum or any(need < 1 for need in requirement.quorum.values()):
        return Verdict(check, "failed", "E-GATE-026: the quorum asks for nobody, so nobody can have approved")
    lent = {d.digest: d for d in delegations}
    case = _Case(
        requirement, trust, now, facts, lent, [a for a in approvals if (a.digest, a.gate) == (digest, requirement.gate)]
    )
    if any(a.decision == "reject" and case.may_say_no(a) for a in case.covering):
        return Verdict(check, "failed", "E-GATE-012: an approver rejected exactly this evidence")
    if not case.covering:
        if approvals:
            return Verdict(check, "failed", "E-GATE-011: the approvals do not cover these bytes")
        return Verdict(check, "not_evaluated", "E-GATE-010: nobody has approved yet")
    if (waiting := case.open_referral()) is not None:
        reason = f"E-GATE-044: referred to {waiting.refer_to} by {waiting.signer}, and nobody of that role has decided since"
        return Verdict(check, "failed", reason, digest)
    counted, fault = case.count()
    if (missing := case.missing(counted, fault)) is None:
        return Verdict(check, "passed", f"approved by {', '.join(_named(a, lent) for a in counted)}", digest)
    if breakers := case.broke_glass():
        said = f"{BREAK_GLASS}: opened past the quorum by {', '.join(_named(a, lent) for a in breakers)}"
        return Verdict(check, "passed", said, digest)
    return Verdict(check, "failed", missing, digest)


def approval_fault(
    approval: Approval,
    requirement: Requirement,
    trust: TrustRoot,
    now: datetime,
    facts: Facts = NO_FACTS,
    delegations: Sequence[Delegation] = (),
) -> str | None:
    """Why this approval does not count at `now`, with its code; None when it does. Says nothing about decision and digest."""
    return _Case(requirement, trust, now, facts, {d.digest: d for d in delegations}, ()).fault(approval)


@dataclass(frozen=True, slots=True)
class _Case:
    """One question put to a gate. covering: the decisions about exactly this digest and gate."""

    requirement: Requirement
    trust: TrustRoot
    now: datetime
    facts: Facts
    lent: Mapping[Digest, Delegation]
    covering: Sequence[Approval]

    def fault(self, approval: Approval) -> str | None:
        """Rules 4 and 5 for one approval alone."""
        delegation = self.lent.get(approval.delegation or "")
        asked_by = self.requirement.requested_by
        if approval.signer == asked_by or (delegation is not None and delegation.signer == asked_by):
            return "E-GATE-015: the requester approved their own request"
        if (fault := self._role_fault(approval, self.now)) is not None:
            return fault
        hours = BREAK_GLASS_HOURS if approval.decision == "break_glass" else self.requirement.expires_hours
        if self.now - approval.signed_at > timedelta(hours=hours):  # a sum could leave the calendar
            return "E-GATE-013: an approval has expired"
        if approval.signed_at > self.now + timedelta(minutes=5):
            return "E-GATE-018: an approval is dated in the future"
        if len(approval.reason.strip()) < 3:
            return "E-GATE-019: an approval gives no reason"
        return unmet(approval.conditions, self.facts, self.now)

    def _role_fault(self, approval: Approval, at: datetime) -> str | None:
        if approval.delegation is None:
            person = self.trust.by_key(approval.signer_key)
            if person is not None and approval.role in person.roles:
                return None
            return f"E-GATE-014: the key of an approval does not hold the role {approval.role}"
        delegation = self.lent.get(approval.delegation)
        if delegation is None:
            return "E-GATE-046: an approval names a delegation that is not there"
        if (delegation.delegate_key, delegation.role) != (approval.signer_key, approval.role):
            return "E-GATE-046: a delegation lends another role, or to somebody else"
        return delegation.fault(self.requirement.gate, self.requirement.policy, approval.signed_at, self.trust, at)

    def may_say_no(self, approval: Approval) -> bool:
        """Who had the role when they rejected or referred has said so for good: no date takes that back."""
        return self._role_fault(approval, approval.signed_at) is None

    def people(self, approval: Approval) -> frozenset[str]:
        """Keys that stand behind one vote: the signer's, and that of who lent the role."""
        delegation = self.lent.get(approval.delegation or "")
        return frozenset({approval.signer_key} | ({delegation.signer_key} if delegation is not None else set()))

    def open_referral(self) -> Approval | None:
        for referral in self.covering:
            if referral.decision == "refer" and self.may_say_no(referral) and not self._decided(referral):
                return referral
        return None

    def _decided(self, referral: Approval) -> bool:
        return any(
            a.decision == "approve"
            and a.role == referral.refer_to
            and a.signed_at > referral.signed_at
            and not self.people(a) & self.people(referral)
            and self.fault(a) is None
            for a in self.covering
        )

    def count(self) -> tuple[list[Approval], str]:
        """The votes that count, one for each person, and what is to be said when they are too few."""
        needed = self.requirement.needed
        faults: list[tuple[str, str]] = []
        used: dict[str, Approval] = {}
        behind: set[str] = set()
        # Own votes first: whoever votes themselves needs nobody to vote for them.
        for approval in sorted(self.covering, key=lambda a: a.delegation is not None):
            key, mine = approval.signer_key, used.get(approval.signer_key)
            fault = self.fault(approval)
            if fault is None and mine is not None and mine.role != approval.role:
                fault = "E-GATE-016: one key signed twice"
            elif fault is None and mine is None and self.people(approval) & behind:
                fault = "E-GATE-048: a role's holder and who they lent it to make one vote"
            if fault is not None:
                faults.append((key, fault))
            elif approval.decision == "approve" and mine is None and approval.role in needed:
                filled = sum(a.role == approval.role for a in used.values()) >= needed[approval.role]
                if approval.delegation is None or not filled:
                    used[key] = approval
                    behind |= self.people(approval)
        # The expired vote of somebody who renewed it is not what is missing.
        told = [fault for key, fault in faults if key not in used or fault.startswith("E-GATE-016")]
        return list(used.values()), told[0] if told else "E-GATE-017: the quorum is not met"

    def missing(self, counted: Sequence[Approval], fault: str) -> str | None:
        """Rule 6: what is still needed, after what is wrong with what is there; None when nothing is."""
        short = {role: need - sum(a.role == role for a in counted) for role, need in self.requirement.needed.items()}
        lacking = [f"{count} more {role}" for role, count in sorted(short.items()) if count > 0]
        if lacking:
            return f"{fault}; still needed: {', '.join(lacking)}"
        if self.requirement.is_high_risk and len(counted) < HIGH_RISK_PEOPLE:
            officer = self.requirement.officer
            return f"E-GATE-045: a release of high risk takes {HIGH_RISK_PEOPLE} people, one of them {officer}"
        return None

    def broke_glass(self) -> list[Approval]:
        """Two people, at the release gate, in roles of their own that the policy names for it; else nobody."""
        if self.requirement.gate != "release":
            return []
        found: dict[str, Approval] = {}
        for a in self.covering:
            named = a.decision == "break_glass" and a.delegation is None and a.role in self.requirement.break_glass
            if named and self.fault(a) is None:
                found.setdefault(a.signer_key, a)
        return list(found.values()) if len(found) >= BREAK_GLASS_PEOPLE else []


def _named(approval: Approval, lent: Mapping[Digest, Delegation]) -> str:
    delegation = lent.get(approval.delegation or "")
    behalf = "" if delegation is None else f", lent by {delegation.signer}"
    return f"{approval.signer} as {approval.role}{behalf}"


def _time(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = datetime.max.replace(tzinfo=UTC)
    if moment.tzinfo is None:
        raise IntegrityError("E-GATE-020", "an approval carries a time without a zone", "Sign the request again")
    return moment


def _no_approval() -> IntegrityError:
    return IntegrityError(
        "E-GATE-020", "a signed statement is not an approval", "Sign the request again with privet approvals sign"
    )

"""Where a gate stands now, by what this home holds: votes, delegations, referrals, and what the journal remembers.

Guarantee: one decision for whoever needs a gate of this home (`privet run`, the training, a compressed model); what a policy
asks is read in one place; a reject or a referral whose file was deleted still stands, as the journal has it.
Not covered: the release, which decides from the evidence itself (`pipeline.release`).
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from pipeline.journal_claims import has_rejection, lost_referrals
from privacy.canonical import Digest, digest_bytes, digest_of
from privacy.conditions import NO_FACTS, Facts
from privacy.gates import GateName, Requirement, decide_gate
from privacy.policy import Policy
from privacy.signing import TrustRoot
from privacy.verdict import Verdict

if TYPE_CHECKING:
    from pipeline.approval_book import ApprovalRequest
    from pipeline.home import Home


def requirement_of(policy: Policy, gate: GateName, requested_by: str) -> Requirement:
    """What the policy asks at this gate."""
    approvals = policy.approvals
    asked = approvals.use if gate == "use" else approvals.release
    glass = () if approvals.break_glass is None else approvals.break_glass.roles
    terms = (policy.name, approvals.risk, approvals.officer, glass)
    return Requirement(gate, dict(asked.quorum), asked.expires_hours, requested_by, *terms)


def decide(home: Home, digest: Digest, requirement: Requirement, trust: TrustRoot, now: datetime) -> Verdict:
    """Whether the gate is open for exactly this digest. Raises IntegrityError when an envelope no longer verifies."""
    gate = requirement.gate
    for remembered in (rejection, referral_lost):
        if (held := remembered(home, gate, digest)) is not None:
            return held
    votes, lent = home.approvals.approvals(digest, trust), home.approvals.delegations(trust)
    return decide_gate(digest, votes, requirement, trust, now, known_facts(home, gate, digest), lent)


def rejection(home: Home, gate: GateName, digest: Digest) -> Verdict | None:
    """The verdict when the journal has a rejection of exactly this digest.

    A rejection is final though its envelope be deleted from the approval book: the journal is what remembers it.
    """
    if has_rejection(home.journal.entries(), gate, digest):
        return Verdict(f"gate.{gate}", "failed", "E-GATE-012: the journal has a rejection of exactly this evidence")
    return None


def referral_lost(home: Home, gate: GateName, digest: Digest) -> Verdict | None:
    """The verdict when the journal has a referral whose envelope is gone: nobody can be seen to have decided it."""
    there = {digest_bytes(envelope) for envelope in home.approvals.envelopes(digest)}
    if lost_referrals(home.journal.entries(), gate, digest, there):
        return Verdict(f"gate.{gate}", "failed", "E-GATE-044: the journal has a referral whose signed file is gone")
    return None


def known_facts(home: Home, gate: GateName, digest: Digest) -> Facts:
    """What conditions of a vote on this digest are compared with: the facts that were put to the people who sign."""
    found = asked_about(home, gate, digest)
    return NO_FACTS if found is None else found.known


def asked_about(home: Home, gate: GateName, digest: Digest) -> ApprovalRequest | None:
    """A request about exactly this digest, if its words are those that the journal has."""
    journalled = {
        e.facts.get("request"): e.facts.get("request_digest") for e in home.journal.entries() if e.kind == "approval_request"
    }
    for request in home.approvals.list():
        if (request.gate, request.digest) == (gate, digest) and journalled.get(request.id) == digest_of(request.to_json()):
            return request
    return None

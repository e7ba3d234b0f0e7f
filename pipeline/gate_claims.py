"""What a bundle shows at the gates, one function each: a verdict from signed evidence, judged as of a given moment.

Guarantee: pure, like `pipeline.claims`; the gates are decided by `privacy.gates`, which the release stage decides by too.
A check that can't be made is not evaluated, and blocks. Not covered: whether the people who signed were right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar

from pipeline.claims import MECHANISM, Evidence, open_approvals, open_delegations
from pipeline.coin_claims import committed
from pipeline.document_claims import REGISTERED, gate_bound
from pipeline.evidence import MODEL_FILE, Reader, is_pipeline, moment
from pipeline.gate_facts import facts_of
from pipeline.journal_claims import has_rejection, journal_entries, lost_referrals, stage_entry
from pipeline.second_accountant import agreement
from privacy.accounting import recompute_epsilon
from privacy.canonical import Digest, Json
from privacy.delegation import Delegation
from privacy.entries import Entry
from privacy.gates import BREAK_GLASS, Approval, GateName, decide_gate
from privacy.revocation import RevocationList
from privacy.rounding import EXACT, shown_down, shown_up
from privacy.verdict import Verdict

_CLOCK_SKEW = timedelta(minutes=5)
_Signed = TypeVar("_Signed", Approval, Delegation)


def coded(verdict: Verdict) -> Verdict:
    if not verdict.blocks or verdict.reason.startswith("E-"):
        return verdict
    return Verdict(verdict.check, verdict.outcome, f"E-CLAIM-015: {verdict.reason}", verdict.evidence)


def mechanism(evidence: Evidence) -> Verdict:
    if evidence.terms.mechanism != "dp_sgd" or evidence.trace().mechanism != MECHANISM:
        return Verdict("mechanism", "failed", "E-CLAIM-016: the model was not trained with a differentially private mechanism")
    return Verdict("mechanism", "passed", f"DP-SGD ({MECHANISM}, {evidence.trace().neighbouring_relation})")


def within_budget(evidence: Evidence) -> Verdict:
    epsilon, budget = recompute_epsilon(evidence.trace()), evidence.terms.epsilon
    if not epsilon <= budget:
        return Verdict("epsilon", "failed", f"E-CLAIM-017: epsilon {shown_up(epsilon, EXACT)} is over the policy's {budget}")
    return Verdict("epsilon", "passed", f"{shown_up(epsilon)} of {shown_up(budget)} that the policy allows")


def second_accountant(evidence: Evidence) -> Verdict:
    """The claim again, by privacy-loss distributions: a tighter bound, so one above the claim shows that it understates."""
    name, trace = "second accountant", evidence.trace()
    found = agreement(trace, trace.epsilon)
    if not math.isfinite(found.second):
        return Verdict(name, "not_evaluated", "E-CLAIM-023: the second accountant gives no figure for this mechanism")
    both = f"{shown_up(found.second)} by privacy-loss distributions, {shown_up(found.first)} by Rényi divergence"
    where = f"at delta {found.delta}" + ("" if found.delta == trace.delta else ", the smallest that both can compute")
    if not found.holds:
        return Verdict(name, "failed", f"E-CLAIM-023: the accountants disagree {where}: {both}")
    return Verdict(name, "passed", f"{both}, {where}")


def bounds_refute(evidence: Evidence) -> Verdict:
    """The published bounds are read again: a verdict can't say passed over a bound that refutes the claim."""
    name, value, claim = "bounds", evidence.view.json("audit/bounds.json"), evidence.trace().epsilon
    level = Reader(evidence.view.json("policy.json")).real("audit", "gate_level")
    bound = gate_bound(value, level)
    if bound is None:
        return Verdict(name, "not_evaluated", f"E-CLAIM-018: no bound {REGISTERED} at the policy's {level} was published")
    if not bound <= claim:
        said = f"E-CLAIM-018: the epsilon lower bound {shown_down(bound, EXACT)} refutes the claim {shown_up(claim, EXACT)}"
        return Verdict(name, "failed", said)
    said = f"epsilon {shown_up(claim)} is not refuted at confidence {level} (lower bound {shown_down(bound)})"
    return Verdict(name, "passed", said + _others(value, claim))


def _others(bounds: Json, claim: float) -> str:
    """Of the bounds that decide nothing: which lie above the claim. At 95 %, one in twenty does for an honest run."""
    listed = bounds.get("bounds") if isinstance(bounds, Mapping) else None
    above = [
        f"{b.get('name')} at {b.get('level')}"
        for b in (listed if isinstance(listed, list) else [])
        if isinstance(b, Mapping) and isinstance(low := b.get("epsilon_lower_bound"), int | float) and low > claim
    ]
    return f"; above the claim, told and not decisive: {', '.join(above)}" if above else ""


def coins_committed(evidence: Evidence) -> Verdict:
    """Coins drawn after the training, or by whoever trains, could be drawn to look well."""
    entries = journal_entries(evidence)
    return committed(evidence, entries[: _trained(evidence, entries)])


def _trained(evidence: Evidence, entries: Sequence[Entry]) -> int:
    """How many entries of the segment come before the training result; 0 when it is not there."""
    own = evidence.block.manifests["train"]
    found = stage_entry(entries, own)
    return 0 if found is None else found.seq - entries[0].seq


def validation(evidence: Evidence) -> Verdict:
    """Read from the projection that the statement about the validation signs, not from what a stage said of it."""
    name, value = "validation", evidence.view.json("audit/validation.json")
    signed = evidence.statements["validation"]
    facts = evidence.manifests["validate"].get("facts")
    told = facts.get("verdict") if isinstance(facts, dict) else None
    said = value.get("verdict") if isinstance(value, dict) else None
    results = value.get("results") if isinstance(value, dict) else None
    outcomes = [r.get("outcome") if isinstance(r, dict) else None for r in results] if isinstance(results, list) else []
    if "failed" in (said, told, *outcomes):
        return Verdict(name, "failed", "E-CLAIM-015: an expectation did not hold")
    if not outcomes or {said, told, *outcomes} != {"passed"}:
        return Verdict(name, "not_evaluated", "E-CLAIM-015: an expectation was not evaluated, or there was none")
    where = f"audit/validation.json {signed.subject['validation'][:19]}…, signed by {signed.signer.name}"
    return Verdict(name, "passed", f"all {len(outcomes)} expectations were evaluated and held ({where})")


def use_gate(evidence: Evidence) -> Verdict:
    """Use is judged as of the training, and counts only approvals that the journal has before it."""
    entries = journal_entries(evidence)
    if has_rejection(entries, "use", evidence.use_subject):
        return Verdict("use", "failed", "E-GATE-012: the journal has a rejection of exactly this use")
    shown = {evidence.view.files[path].sha256 for path in evidence.view.approvals}
    if lost_referrals(entries, "use", evidence.use_subject, shown):
        return Verdict("use", "failed", "E-GATE-044: the journal has a referral of this use that the bundle does not show")
    in_time = {e.facts.get("envelope") for e in entries[: _trained(evidence, entries)] if e.kind == "approval"}
    return _decide(evidence, "use", evidence.use_subject, moment(str(evidence.manifests["train"].get("created_at"))), in_time)


def release_gate(evidence: Evidence, as_of: datetime) -> Verdict:
    return _decide(evidence, "release", evidence.root, as_of)


def duties(evidence: Evidence) -> Verdict:
    """Who asked, who signed the evidence and who approved are different keys; the gates decide, this row says who."""
    name, asked, said = "duties", evidence.block.requested_by, []
    if (fault := evidence.requester_fault()) is not None:
        return Verdict(name, "failed", fault)
    for gate, subject in _subjects(evidence):
        votes = _votes(evidence, gate, subject)
        others = sorted({vote.signer for vote in votes} - {asked, evidence.signer.name})
        if len(others) < sum(evidence.terms.quorum[gate].values()) and any(vote.signer == asked for vote in votes):
            return Verdict(name, "failed", f"E-GATE-015: {asked} asked for the {gate} and is among those who approved it")
        said.append(f"{gate} by {', '.join(others) or 'nobody else'}")
    return Verdict(name, "passed", f"asked for by {asked}, evidence signed by {evidence.signer.name}; {'; '.join(said)}")


def in_force(evidence: Evidence, as_of: datetime) -> Verdict:
    """How long the approvals were good for when they were used; what had expired does not count at the gates above."""
    name, said = "in force", []
    used = {"use": moment(str(evidence.manifests["train"].get("created_at"))), "release": as_of}
    for gate, subject in _subjects(evidence):
        votes = _votes(evidence, gate, subject)
        ages = [used[gate] - vote.signed_at for vote in votes]
        broken = any(vote.decision == "break_glass" for vote in votes)  # the gate above counts its own hours
        good = [age for age in ages if broken or age <= timedelta(hours=evidence.terms.expires_hours[gate])]
        if ages and not good:
            return Verdict(name, "failed", f"E-GATE-013: every approval had expired at the {gate}")
        if not good:
            said.append(f"{gate}: there is none")  # which the gate itself refuses
            continue
        hours = max(0.0, max(good) / timedelta(hours=1))
        said.append(f"{gate}: the oldest was {hours:.0f} of {evidence.terms.expires_hours[gate]} h old")
    return Verdict(name, "passed", "; ".join(said))


def lent_roles(evidence: Evidence) -> str:
    """Who lent whom which role until when; whether it counts is decided at the gates. Raises IntegrityError."""
    lent = open_delegations(evidence.view, evidence.trust)
    return "; ".join(f"{d.signer} lent {d.role} to {d.delegate} until {d.until.isoformat(timespec='minutes')}" for d in lent)


def broke_glass(evidence: Evidence, as_of: datetime) -> str | None:
    """Who opened the release past its quorum; None when the quorum did."""
    try:
        verdict = release_gate(evidence, as_of)
    except Exception:  # the row of the release gate says what is wrong
        return None
    return verdict.reason if not verdict.blocks and verdict.reason.startswith(BREAK_GLASS) else None


def release_breakers(evidence: Evidence, as_of: datetime) -> tuple[str, ...]:
    """Names of who broke the glass, when the release was opened so."""
    if broke_glass(evidence, as_of) is None:
        return ()
    votes = _votes(evidence, "release", evidence.root)
    return tuple(sorted({vote.signer for vote in votes if vote.decision == "break_glass"}))


def _subjects(evidence: Evidence) -> tuple[tuple[GateName, Digest], ...]:
    return ("use", evidence.use_subject), ("release", evidence.root)


def _votes(evidence: Evidence, gate: str, subject: Digest) -> list[Approval]:
    found = _by_requester(evidence, [approval for _, approval in open_approvals(evidence.view, evidence.trust, gate)])
    return [a for a in found if a.decision in ("approve", "break_glass") and a.digest == subject]


def _by_requester(evidence: Evidence, signed: Sequence[_Signed]) -> list[_Signed]:
    """What a key of the requester signed gets the requester's name, whatever your trust root calls that key."""
    keys, name = evidence.requester_keys, evidence.block.requested_by
    return [replace(one, signer=name) if one.signer_key in keys else one for one in signed]


def not_revoked(evidence: Evidence, listed: RevocationList, now: datetime) -> Verdict:
    """By a list of the pipeline that made this bundle, or of a privacy officer. An older list than the last one you saw is
    yours to notice."""
    if not listed.speaks_for(evidence.signer.public_hex):
        said = "E-REVOKE-013: the list is signed by another pipeline than the one that made this bundle"
        return Verdict("revocation", "failed", said)
    fault = listed.fault(evidence.root, evidence.view.files[MODEL_FILE].sha256, now)
    if fault is not None:
        return Verdict("revocation", "failed", fault)
    until = listed.next_update.isoformat(timespec="seconds")
    said = f"list {listed.number} by {listed.signer}, good until {until}, names neither this release nor this model"
    return Verdict("revocation", "passed", said)


def _decide(evidence: Evidence, gate: GateName, subject: Digest, as_of: datetime, in_time: set[Json] | None = None) -> Verdict:
    counted: list[Approval] = []
    late = 0
    for path, approval in open_approvals(evidence.view, evidence.trust, gate):
        person = evidence.trust.by_key(approval.signer_key)
        if person is None or is_pipeline(person):
            return Verdict(gate, "failed", "E-GATE-022: the pipeline's key signed an approval; only a person can")
        if in_time is None or approval.decision in ("reject", "refer") or evidence.view.files[path].sha256 in in_time:
            counted.append(approval)
        else:
            late += 1
    if late and not counted:
        return Verdict(gate, "failed", "E-GATE-025: the journal has no approval of this use before the training")
    requirement = evidence.terms.requirement(gate, evidence.block.requested_by)
    facts, lent = facts_of(evidence, MODEL_FILE), open_delegations(evidence.view, evidence.trust)
    votes, lent = _by_requester(evidence, counted), _by_requester(evidence, lent)
    return decide_gate(subject, votes, requirement, evidence.trust, as_of, facts, lent)


def in_the_past(evidence: Evidence, released_at: datetime, now: datetime, cosigned: Sequence[datetime] = ()) -> Verdict:
    """Not ahead of `now`, nor before what was released: approvals are judged as of this date, so nobody may choose it.

    cosigned: when witnesses cosigned the checkpoint that the release names; they have clocks of their own.
    """
    name = "release date"
    if released_at > now + _CLOCK_SKEW:
        return Verdict(name, "failed", "E-CLAIM-012: the release is dated in the future")
    before = {f"the {stage} result": moment(str(manifest.get("created_at"))) for stage, manifest in evidence.manifests.items()}
    before["the newest entry of its journal"] = max(
        moment(entry.clock or entry.at)
        for entry in journal_entries(evidence)  # `at` never goes back, the clock may have
    )
    if cosigned:
        before["the cosignature of a witness"] = max(cosigned)
    for what, when in before.items():
        if released_at < when - _CLOCK_SKEW:
            said = f"E-CLAIM-036: the release is dated before {what} ({when.isoformat(timespec='seconds')})"
            return Verdict(name, "failed", said)
    return Verdict(name, "passed", f"released {released_at.isoformat(timespec='seconds')}, after all that it rests on")

"""Asking for an approval and signing it: what the person saw is frozen, journalled, and bound to one digest.

Guarantee: nothing is signed that the pipeline did not ask in exactly these words, and every approval that can count
is in the journal before it is in the book. Not covered: whether a gate is open (`privacy.gates.decide_gate`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

from pipeline.approval_book import ApprovalBook, ApprovalRequest, request_id
from pipeline.break_glass import unreviewed
from pipeline.evidence import MODEL_FILE, STAGES, read_evidence, use_subject
from pipeline.gate_facts import release_facts, use_facts
from pipeline.stage import Manifest, StageContext, load_manifest
from pipeline.standing import rejection, requirement_of
from pipeline.training_budget import budget_scope
from pipeline.what_changed import what_changed
from privacy.canonical import Digest, Json, digest_bytes, digest_of, parse_canonical
from privacy.conditions import NO_FACTS, Condition, Facts
from privacy.errors import GateClosed, IntegrityError, PrivetError, UsageError
from privacy.gates import APPROVAL_TYPE, Approval, Decision, GateName, Requirement, approval_predicate
from privacy.rounding import shown_up
from privacy.signing import Person, SigningKey, make_statement, seal_envelope
from privacy.verdict import Verdict

if TYPE_CHECKING:
    from pipeline.home import Home

__all__ = [
    "ApprovalBook",
    "ApprovalRequest",
    "Terms",
    "ask",
    "record_envelope",
    "rejection",
    "request_release",
    "request_use",
    "sign_envelope",
    "sign_request",
    "use_subject",
]

_MAX_REASON = 500


@dataclass(frozen=True, slots=True)
class Terms:
    """What a decision may carry beside its reason. refer_to: the role that is to decide instead."""

    conditions: tuple[Condition, ...] = ()
    refer_to: str = ""


PLAIN = Terms()


def request_use(ctx: StageContext, protect_digest: Digest, validate_digest: Digest) -> ApprovalRequest:
    """Ask for training on exactly this dataset at the policy's epsilon and delta."""
    policy = ctx.policy
    subject = use_subject(ctx.policy_digest, protect_digest, validate_digest, policy.budget.epsilon, policy.budget.delta)
    validation = load_manifest(ctx.home, validate_digest)
    protected = load_manifest(ctx.home, protect_digest)
    shown = (
        *_about(ctx),
        ("epsilon asked", _asked(ctx)),
        *_searched(ctx),
        ("epsilon spent so far", _spent(ctx)),
        ("epsilon cap of the dataset", shown_up(policy.budget.cap_epsilon)),
        ("validation", str(validation.facts.get("verdict", "not_evaluated"))),
        *_facts(protected, "protected "),
        *_facts(validation, "validation "),
    )
    found = {"protect": protected.to_json(), "validate": validation.to_json()}
    return ask(ctx.home, _request(ctx, "use", subject, shown, use_facts(_policy_json(ctx), found)))


def request_release(ctx: StageContext, assemble_digest: Digest) -> ApprovalRequest:
    """Ask for the release of exactly this evidence root."""
    manifest = load_manifest(ctx.home, assemble_digest)
    root = manifest.facts.get("evidence_root")
    if not isinstance(root, str):
        raise IntegrityError("E-APPROVE-008", "the assembled evidence names no root", "Run the assemble stage again")
    shown = (
        *_about(ctx),
        ("epsilon asked", _asked(ctx)),
        ("epsilon of this model", _reached(manifest)),
        ("epsilon spent on the dataset", _spent(ctx)),
        ("epsilon cap of the dataset", shown_up(ctx.policy.budget.cap_epsilon)),
        ("utility", str(manifest.facts.get("utility", "not measured"))),
        *_verdict_lines(ctx, manifest),
        ("what changed", _changed(ctx, root)),
    )
    return ask(ctx.home, _request(ctx, "release", root, shown, _release_facts(ctx, manifest)))


def _release_facts(ctx: StageContext, manifest: Manifest) -> Facts:
    """As the verifier will read them from the bundle; a document that is missing leaves its facts out."""

    def read(path: str) -> Json:
        ref = manifest.outputs.get(path)
        return None if ref is None else parse_canonical(ctx.home.store.read_plain(ref))

    made = {stage: load_manifest(ctx.home, d).to_json() for stage, d in manifest.inputs.items() if stage in STAGES}
    listed = {} if (evidence := read("evidence.json")) is None else {f.path: f.sha256 for f in read_evidence(evidence)[1]}
    documents = (read("trace.json"), read("audit/verdicts.json"), read("audit/metrics.json"))
    return release_facts(_policy_json(ctx), made, *documents, listed.get(MODEL_FILE, ""))


def _policy_json(ctx: StageContext) -> Mapping[str, Json]:
    return cast("Mapping[str, Json]", ctx.policy.canonical())


def _request(
    ctx: StageContext, gate: GateName, digest: Digest, shown: tuple[tuple[str, str], ...], facts: Facts = NO_FACTS
) -> ApprovalRequest:
    asked = requirement_of(ctx.policy, gate, ctx.requested_by)
    news = what_changed(ctx.home, gate, ctx.policy.name, digest, facts.values)
    loud = [("released under break-glass", u.line()) for u in unreviewed(ctx.home.journal.entries(), ctx.policy.name)]
    return ApprovalRequest(
        id=request_id(gate, digest, ctx.run_id),
        gate=gate,
        digest=digest,
        run_id=ctx.run_id,
        policy_name=ctx.policy.name,
        shown=(*loud, *shown, *_risk(asked), *news),
        quorum=dict(asked.quorum),
        expires_hours=asked.expires_hours,
        requested_by=ctx.requested_by,
        created_at=ctx.clock().astimezone(UTC).isoformat(timespec="seconds"),
        facts=dict(facts.values),
        risk=asked.risk,
        officer=asked.officer,
        break_glass=asked.break_glass,
    )


def _risk(asked: Requirement) -> tuple[tuple[str, str], ...]:
    if not asked.is_high_risk:
        return ()
    return (("risk", f"high: two people have to approve, one of them as {asked.officer}"),)


def _about(ctx: StageContext) -> tuple[tuple[str, str], ...]:
    return (
        ("policy", f"{ctx.policy.name} ({ctx.policy_digest})"),
        ("purpose", ctx.policy.purpose),
        ("controller", ctx.policy.controller),
        ("dataset", ctx.policy.dataset),
        ("requested by", ctx.requested_by),
        ("mechanism", _MECHANISMS[ctx.policy.recipe.mechanism]),
    )


_MECHANISMS = {
    "dp_sgd": "dp_sgd: training with differential privacy",
    "non_private": "non_private: training without differential privacy; such a model is never released",
}


def _asked(ctx: StageContext) -> str:
    budget = ctx.policy.budget
    if ctx.policy.recipe.mechanism != "dp_sgd":
        return "none: training without differential privacy"
    return f"{shown_up(budget.epsilon)} (delta {budget.delta}) per {ctx.policy.privacy_unit.name}"


def _searched(ctx: StageContext) -> tuple[tuple[str, str], ...]:
    """The same approval covers the policy's private search, which spends beside the training."""
    search = ctx.policy.search
    if search is None or search.epsilon is None:
        return ()
    return (("epsilon of the search", f"{shown_up(search.epsilon)}, beside it ({search.charge}, {search.trials} trials)"),)


def _reached(manifest: Manifest) -> str:
    epsilon = manifest.facts.get("epsilon")
    return shown_up(epsilon) if isinstance(epsilon, float) else "none: not differentially private"


def _spent(ctx: StageContext) -> str:
    try:
        return shown_up(ctx.home.ledger.spent_epsilon(budget_scope(ctx.policy)))
    except PrivetError:  # no scope yet: nothing was ever reserved
        return "0 (no budget opened yet)"


def _facts(manifest: Manifest, prefix: str) -> tuple[tuple[str, str], ...]:
    return tuple((f"{prefix}{name}", str(value)) for name, value in sorted(manifest.facts.items()) if value is not None)


def _verdict_lines(ctx: StageContext, manifest: Manifest) -> tuple[tuple[str, str], ...]:
    ref = manifest.outputs.get("audit/verdicts.json")
    if ref is None:
        return (("verdicts", "not_evaluated: the audit left none"),)
    recorded = parse_canonical(ctx.home.store.read_plain(ref))
    found = [Verdict.from_json(v) for v in recorded] if isinstance(recorded, list) else []
    return tuple((v.check, f"{v.outcome}: {v.reason}") for v in found)


def _changed(ctx: StageContext, root: Digest) -> str:
    releases = [e for e in ctx.home.journal.entries() if e.kind == "release" and e.facts.get("policy_name") == ctx.policy.name]
    if not releases:
        return "first release under this policy name"
    last: Mapping[str, Json] = releases[-1].facts
    if last.get("evidence_root") == root:
        return "nothing: this evidence was released before"
    same = "the same policy" if last.get("policy") == ctx.policy_digest else "another version of the policy"
    return f"replaces {last.get('evidence_root')}, made under {same}"


def sign_request(
    home: Home,
    request: ApprovalRequest,
    name: str,
    role: str,
    decision: Decision,
    reason: str,
    key: SigningKey,
    now: datetime,
    terms: Terms = PLAIN,
) -> Approval:
    """Sign a request as `name`, journal it and keep it.

    Guarantee: what the person saw is what the pipeline asked (the request is compared with its journal entry),
    and nothing is kept that the gate would not count. `reason` is kept as written: it must hold no personal data.
    Raises UsageError E-APPROVE-005 (person and key differ) or 006 (reason), IntegrityError E-APPROVE-004, GateClosed E-GATE.
    """
    refuse_other_key(home, name, key)
    envelope = sign_envelope(request, role, decision, reason, key, now, terms, lent_to(home, request, key, role, now))
    return record_envelope(home, request, envelope, now)


def sign_envelope(
    request: ApprovalRequest,
    role: str,
    decision: Decision,
    reason: str,
    key: SigningKey,
    now: datetime,
    terms: Terms = PLAIN,
    delegation: Digest | None = None,
) -> bytes:
    """The signed statement alone, for a machine that holds the key but not the home; nothing is kept."""
    refuse_odd_reason(reason)
    lent = None if decision == "break_glass" else delegation
    about = (request.gate, request.digest, decision, role, reason.strip(), now)
    predicate = approval_predicate(*about, terms.conditions, terms.refer_to, lent)
    return seal_envelope(make_statement({"evidence": request.digest}, APPROVAL_TYPE, predicate), key)


def lent_to(home: Home, request: ApprovalRequest, key: SigningKey, role: str, now: datetime) -> Digest | None:
    """The delegation under which this key may sign in a role that is not its own; None where it is, or nobody lent it."""
    trust = home.trust
    person = trust.by_key(key.public_hex)
    if person is None or role in person.roles:
        return None
    lent = [d for d in home.approvals.delegations(trust) if (d.delegate_key, d.role) == (key.public_hex, role)]
    good = [d for d in lent if d.fault(request.gate, request.policy_name, now, trust, now) is None]
    return (good or lent)[0].digest if lent else None


def refuse_other_key(home: Home, name: str, key: SigningKey) -> Person:
    """The person of this name. Raises UsageError E-APPROVE-005 when the key is not theirs."""
    person = home.trust.by_name(name)
    if person is None or person.public_hex != key.public_hex:
        raise UsageError(
            "E-APPROVE-005",
            "the trust root does not list this person with this key",
            "Enrol the person, or sign with their own key",
        )
    return person


def record_envelope(home: Home, request: ApprovalRequest, envelope: bytes, now: datetime) -> Approval:
    """Journal and keep an approval of `request`, wherever it was signed. Raises as `ApprovalBook.check`."""
    refuse_altered_request(home, request)
    approval = home.approvals.check(envelope, home.journalled_trust(), now)
    if approval.decision in ("approve", "break_glass"):
        refuse_rejected(home, request.gate, request.digest)
    if (approval.gate, approval.digest) != (request.gate, request.digest):
        raise GateClosed("E-GATE-024", "the approval is about another request", f"Sign request {request.id} itself")
    if envelope not in home.approvals.envelopes(request.digest):
        # Journal first: an approval that counts is always in the journal; an entry without its file harms nothing.
        home.journal.append("approval", _approval_facts(request, approval, envelope))
    return home.approvals.add(envelope, home.trust, now)


def record_unsigned_reject(home: Home, request: ApprovalRequest, role: str, responder: str) -> None:
    """A click on Reject by a person whose key is elsewhere: no signature, but nobody may pass it over either."""
    facts: dict[str, Json] = {"run": request.run_id, "gate": request.gate, "digest": request.digest}
    facts |= {"request": request.id, "decision": "reject", "role": role, "responder": responder}
    home.journal.append("unsigned_reject", facts)


def refuse_rejected(home: Home, gate: GateName, digest: Digest) -> None:
    """Raises GateClosed E-GATE-012."""
    if rejection(home, gate, digest) is not None:
        raise GateClosed("E-GATE-012", "an approver rejected exactly this evidence", "Change what was rejected and ask again")


def ask(home: Home, request: ApprovalRequest) -> ApprovalRequest:
    """Open a request and journal it once; asking again returns the standing one."""
    opened = home.approvals.open_request(request)
    if _journalled_digest(home, opened) is None:
        if opened != replace(request, created_at=opened.created_at):
            raise _altered()  # a file was there before the pipeline ever asked
        facts: dict[str, Json] = {
            "run": opened.run_id,
            "gate": opened.gate,
            "digest": opened.digest,
            "request": opened.id,
            "request_digest": digest_of(opened.to_json()),
            "requested_by": opened.requested_by,
        }
        home.journal.append("approval_request", facts)
    return opened


def _approval_facts(request: ApprovalRequest, approval: Approval, envelope: bytes) -> dict[str, Json]:
    facts: dict[str, Json] = {
        "run": request.run_id,
        "gate": approval.gate,
        "digest": approval.digest,
        "request": request.id,
        "decision": approval.decision,
        "role": approval.role,
        "signer": approval.signer,
        "envelope": digest_bytes(envelope),
    }
    if approval.conditions:
        facts["conditions"] = [str(condition) for condition in approval.conditions]
    if approval.refer_to:
        facts["refer_to"] = approval.refer_to
    if approval.delegation is not None:
        facts["delegation"] = approval.delegation
    return facts


def refuse_odd_reason(reason: str) -> None:
    plain = reason.strip()
    if not 3 <= len(plain) <= _MAX_REASON or not plain.isprintable():
        raise UsageError(
            "E-APPROVE-006",
            f"a reason is one line of 3 to {_MAX_REASON} printable characters",
            "Say in one sentence why, without personal data",
        )


def refuse_altered_request(home: Home, request: ApprovalRequest) -> None:
    """Raises IntegrityError E-APPROVE-004 unless the pipeline asked in exactly these words, says its signed journal."""
    if _journalled_digest(home, request) != digest_of(request.to_json()):
        raise _altered()


def _journalled_digest(home: Home, request: ApprovalRequest) -> Json:
    for entry in home.journal.entries():
        if entry.kind == "approval_request" and entry.facts.get("request") == request.id:
            found: Json = entry.facts.get("request_digest")
            return found
    return None


def _altered() -> IntegrityError:
    return IntegrityError(
        "E-APPROVE-004",
        "the request is not the one that the pipeline asked",
        "Do not sign; find out who changed the file, remove it, and run the stage that asks again",
    )

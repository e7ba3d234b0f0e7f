"""Asking for an approval and signing it: what the person saw is frozen, journalled, and bound to one digest.

Guarantee: nothing is signed that the pipeline did not ask in exactly these words, and every approval that can count
is in the journal before it is in the book. Not covered: whether a gate is open (`privacy.gates.decide_gate`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from pipeline.approval_book import ApprovalBook, ApprovalRequest, request_id
from pipeline.evidence import use_subject
from pipeline.journal_claims import has_rejection
from pipeline.stage import Manifest, StageContext, load_manifest
from pipeline.training_budget import budget_scope
from privacy.canonical import Digest, Json, digest_bytes, digest_of, parse_canonical
from privacy.errors import GateClosed, IntegrityError, PrivetError, UsageError
from privacy.gates import APPROVAL_TYPE, Approval, GateName, approval_predicate
from privacy.rounding import shown_up
from privacy.signing import SigningKey, make_statement, seal_envelope
from privacy.verdict import Verdict

if TYPE_CHECKING:
    from pipeline.home import Home

__all__ = [
    "ApprovalBook",
    "ApprovalRequest",
    "ask",
    "record_envelope",
    "rejection",
    "request_release",
    "request_use",
    "sign_envelope",
    "sign_request",
    "use_subject",
]

Decision = Literal["approve", "reject"]
_MAX_REASON = 500


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
    return ask(ctx.home, _request(ctx, "use", subject, shown))


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
    return ask(ctx.home, _request(ctx, "release", root, shown))


def _request(ctx: StageContext, gate: GateName, digest: Digest, shown: tuple[tuple[str, str], ...]) -> ApprovalRequest:
    asked = ctx.policy.approvals.use if gate == "use" else ctx.policy.approvals.release
    return ApprovalRequest(
        id=request_id(gate, digest, ctx.run_id),
        gate=gate,
        digest=digest,
        run_id=ctx.run_id,
        policy_name=ctx.policy.name,
        shown=shown,
        quorum=dict(asked.quorum),
        expires_hours=asked.expires_hours,
        requested_by=ctx.requested_by,
        created_at=ctx.clock().astimezone(UTC).isoformat(timespec="seconds"),
    )


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
) -> Approval:
    """Sign a request as `name`, journal it and keep it.

    Guarantee: what the person saw is what the pipeline asked (the request is compared with its journal entry),
    and nothing is kept that the gate would not count. `reason` is kept as written: it must hold no personal data.
    Raises UsageError E-APPROVE-005 (person and key differ) or 006 (reason), IntegrityError E-APPROVE-004, GateClosed E-GATE.
    """
    person = home.trust.by_name(name)
    if person is None or person.public_hex != key.public_hex:
        raise UsageError(
            "E-APPROVE-005",
            "the trust root does not list this person with this key",
            "Enrol the person, or sign with their own key",
        )
    envelope = sign_envelope(request, role, decision, reason, key, now)
    return record_envelope(home, request, envelope, now)


def sign_envelope(
    request: ApprovalRequest, role: str, decision: Decision, reason: str, key: SigningKey, now: datetime
) -> bytes:
    """The signed statement alone, for a machine that holds the key but not the home; nothing is kept."""
    _refuse_odd_reason(reason)
    predicate = approval_predicate(request.gate, request.digest, decision, role, reason.strip(), now)
    return seal_envelope(make_statement({"evidence": request.digest}, APPROVAL_TYPE, predicate), key)


def record_envelope(home: Home, request: ApprovalRequest, envelope: bytes, now: datetime) -> Approval:
    """Journal and keep an approval of `request`, wherever it was signed. Raises as `ApprovalBook.check`."""
    refuse_altered_request(home, request)
    approval = home.approvals.check(envelope, home.journalled_trust(), now)
    if approval.decision == "approve":
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


def rejection(home: Home, gate: GateName, digest: Digest) -> Verdict | None:
    """The verdict when the journal has a rejection of exactly this digest.

    A rejection is final though its envelope be deleted from the approval book: the journal is what remembers it.
    """
    if has_rejection(home.journal.entries(), gate, digest):
        return Verdict(f"gate.{gate}", "failed", "E-GATE-012: the journal has a rejection of exactly this evidence")
    return None


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
    return {
        "run": request.run_id,
        "gate": approval.gate,
        "digest": approval.digest,
        "request": request.id,
        "decision": approval.decision,
        "role": approval.role,
        "signer": approval.signer,
        "envelope": digest_bytes(envelope),
    }


def _refuse_odd_reason(reason: str) -> None:
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

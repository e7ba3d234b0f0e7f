"""What a person answered at a gate becomes a signed statement, or is refused with the reason.

Guarantee: an approval is recorded only if the person is assigned, is not the requester, gives a reason, and a key of that
person signed exactly the digest that was shown; one person never fills two seats. No Airflow in here.
Not covered: custody "demo", where the pipeline holds the key and signs on the person's click; the statement says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from privacy.canonical import Digest
from privacy.conditions import Condition, parse_condition
from privacy.errors import GateClosed, IntegrityError, PrivetError, UsageError
from privacy.gates import ROLE, Approval, Decision, approval_fault, approval_of
from privacy.signing import TrustRoot, open_envelope

if TYPE_CHECKING:
    from pipeline.approve import ApprovalRequest, Terms
    from pipeline.home import Home

_MAX_ENVELOPE = 20_000
_FINAL_CODES = frozenset({"E-GATE-012", "E-GATE-039"})  # rejected: asking again can't change it


class AnswerRefused(GateClosed):
    """The answer does not count; the gate stays closed and asks again."""


@dataclass(frozen=True, slots=True)
class Seat:
    """Signature number `number` that the quorum asks of `role`; `assigned` are the people who may sit there.

    Seats of one role are filled in order, so seat n passes once n different people have signed.
    """

    gate: str
    role: str
    number: int
    assigned: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `responder` is the authenticated Airflow user, never a field of the form.

    conditions: as written, one a line or parted by semicolons. refer_to: of a referral, the role that is to decide.
    """

    responder: str
    decision: Decision
    reason: str
    envelope: str
    conditions: str = ""
    refer_to: str = ""

    @property
    def terms(self) -> Terms:
        """Raises IntegrityError E-GATE-050 for a condition that is none."""
        from pipeline.approve import Terms

        lines = [part.strip() for line in self.conditions.splitlines() for part in line.split(";")]
        found: tuple[Condition, ...] = tuple(parse_condition(line) for line in lines if line)
        return Terms(found if self.decision == "approve" else (), self.refer_to if self.decision == "refer" else "")


def record_answer(home: Home, request: ApprovalRequest, seat: Seat, answer: Answer, now: datetime) -> Approval:
    """Check the answer and put the signed statement into the approval book and the journal.

    Raises AnswerRefused when the person, or another, can still answer rightly: E-GATE-030, 031, 033 to 036, 044 (another
    role has to decide first), 050 (conditions), and what signing refuses. Raises GateClosed E-GATE-012 when the same bytes
    were rejected before, E-GATE-039 when they are rejected now by a person whose key is elsewhere (journalled,
    and final all the same), IntegrityError as signing does.
    """
    if answer.responder not in seat.assigned:
        raise AnswerRefused(
            "E-GATE-030", f"the answer is not from a person assigned as {seat.role}", "An assigned person has to answer"
        )
    if answer.decision == "approve" and answer.responder == request.requested_by:
        raise AnswerRefused("E-GATE-031", "the requester answered their own request", "Another person has to answer")
    if answer.decision == "refer" and not ROLE.fullmatch(answer.refer_to):
        raise AnswerRefused("E-GATE-052", "the referral names no role", "Say which role is to decide, e.g. privacy_officer")
    try:
        if answer.decision == "approve":
            _refuse_while_referred(home, request, seat)
        approval = _signed_already(home, request, seat, answer, now) or _sign(home, request, seat, answer, now)
    except (GateClosed, UsageError) as error:
        if isinstance(error, AnswerRefused) or error.code in _FINAL_CODES:
            raise
        raise AnswerRefused(error.code, error.cause, error.remedy) from None
    except IntegrityError as error:
        if error.code != "E-GATE-050":
            raise
        raise AnswerRefused(error.code, error.cause, error.remedy) from None
    if answer.decision == "approve":
        _check_voters(home, request, seat, now)
    return approval


def check_shown(request: ApprovalRequest, digest: Digest) -> None:
    """What the person saw must be what the request is about now. Raises IntegrityError E-GATE-038."""
    if request.digest != digest:
        raise IntegrityError(
            "E-GATE-038",
            "what is to be approved changed while the gate waited, so the answer is about other bytes",
            "Find out who changed the run; then clear the gate, so that the new bytes are shown",
        )


def _signed_already(home: Home, request: ApprovalRequest, seat: Seat, answer: Answer, now: datetime) -> Approval | None:
    """Signed in a terminal, or by an earlier try of this task. Raises GateClosed E-GATE-012 after a rejection."""
    from pipeline.approve import refuse_rejected

    kept = [a for a in home.approvals.approvals(request.digest, home.trust) if a.gate == request.gate]
    if answer.decision == "approve":
        refuse_rejected(home, request.gate, request.digest)
        kept = _good(home, request, kept, now)
    wanted = (answer.responder, answer.decision, seat.role)
    found = next((a for a in kept if (a.signer, a.decision, a.role) == wanted), None)
    return None if found is not None and found.conditions != answer.terms.conditions and answer.conditions else found


def _good(home: Home, request: ApprovalRequest, kept: Sequence[Approval], now: datetime) -> list[Approval]:
    """Those that would count at `now`."""
    trust = home.trust
    lent = home.approvals.delegations(trust)
    return [a for a in kept if approval_fault(a, request.requirement, trust, now, request.known, lent) is None]


def _refuse_while_referred(home: Home, request: ApprovalRequest, seat: Seat) -> None:
    """Nobody's approval counts while the role that was asked to decide has not; that role may answer."""
    from pipeline.standing import decide

    verdict = decide(home, request.digest, request.requirement, home.trust, datetime.now(UTC))
    kept = [a for a in home.approvals.approvals(request.digest, home.trust) if (a.gate, a.decision) == (request.gate, "refer")]
    if "E-GATE-044" in verdict.reason and seat.role not in {a.refer_to for a in kept}:
        raise AnswerRefused("E-GATE-044", verdict.reason.partition(": ")[2], "That role has to decide first")


def _sign(home: Home, request: ApprovalRequest, seat: Seat, answer: Answer, now: datetime) -> Approval:
    from pipeline.approve import record_envelope, record_unsigned_reject, sign_request

    trust = home.trust
    if answer.envelope.strip():
        return record_envelope(home, request, _pasted(trust, request, seat, answer), now)
    person = trust.by_name(answer.responder)
    if person is None or person.custody != "demo":
        if answer.decision == "reject":
            record_unsigned_reject(home, request, seat.role, answer.responder)
            raise GateClosed(
                "E-GATE-039",
                "rejected, without a signature, by a person who keeps their own key",
                "Change what was rejected and ask again",
            )
        raise AnswerRefused(
            "E-GATE-036",
            "the answer carries no signature, and this person keeps their own key",
            f"Run privet approvals sign {request.id}, then answer again (or paste the envelope it prints)",
        )
    key = home.identity(answer.responder)
    said = (seat.role, answer.decision, answer.reason)
    return sign_request(home, request, answer.responder, *said, key, now, answer.terms)


def _pasted(trust: TrustRoot, request: ApprovalRequest, seat: Seat, answer: Answer) -> bytes:
    """An envelope signed elsewhere, with a key that this machine never sees."""
    data = answer.envelope.strip().encode("utf-8", errors="replace")
    if len(data) > _MAX_ENVELOPE:
        raise AnswerRefused("E-GATE-034", "the pasted envelope is too long", "Paste what privet approvals sign printed")
    try:
        approval = approval_of(open_envelope(data, trust))
    except PrivetError as error:
        raise AnswerRefused(
            "E-GATE-034",
            f"the pasted envelope is not an approval signed by a key of the trust root ({error.code})",
            "Paste exactly what privet approvals sign printed",
        ) from None
    wanted = (request.gate, request.digest, seat.role, answer.decision, answer.responder)
    if (approval.gate, approval.digest, approval.role, approval.decision, approval.signer) != wanted:
        raise AnswerRefused(
            "E-GATE-035",
            "the pasted envelope is about another request, role, decision or person than this answer",
            f"Sign request {request.id} as {seat.role} with your own key and paste that",
        )
    return data


def _check_voters(home: Home, request: ApprovalRequest, seat: Seat, now: datetime) -> None:
    everything = home.approvals.approvals(request.digest, home.trust)
    kept = _good(home, request, everything, now)
    voters = {a.signer for a in kept if (a.gate, a.role, a.decision) == (request.gate, seat.role, "approve")}
    if len(voters) < seat.number:
        raise AnswerRefused(
            "E-GATE-033",
            f"this seat needs a {seat.role} who has not signed yet, and the answer is from one who has",
            "Another person has to answer",
        )

"""The approval book: who was asked what, and what they signed; plain files that only ever get added to.

Guarantee: a request is written once and never changed, an envelope is kept only when its signature, role,
subject and date hold when it arrives, and every file appears whole or not at all.
Not covered: whether a gate is open. That is decided by `privacy.gates.decide_gate` from these envelopes, by the
stage that needs it, each time. Assumption: the folder lies on a local file system with working link and rename.
"""

from __future__ import annotations

import builtins
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipeline.evidence import is_pipeline
from pipeline.gate_facts import LATER
from pipeline.store_files import sync_folder
from privacy.canonical import Digest, Json, canonical_json, digest_bytes, digest_of, is_digest, parse_canonical
from privacy.conditions import Facts, Value
from privacy.delegation import Delegation, open_delegation
from privacy.errors import EnvironmentFault, GateClosed, IntegrityError, PrivetError, UsageError
from privacy.gates import BREAK_GLASS_HOURS, Approval, GateName, Requirement, Risk, approval_fault, approval_of
from privacy.signing import TrustRoot, open_envelope


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """What a person is asked to sign. `shown` is what they see: label and value, no personal data.

    facts: what conditions may be about, and what a later request is compared with.
    """

    id: str
    gate: GateName
    digest: Digest
    run_id: str
    policy_name: str
    shown: tuple[tuple[str, str], ...]
    quorum: Mapping[str, int]
    expires_hours: int
    requested_by: str
    created_at: str
    facts: Mapping[str, Value] = field(default_factory=dict)
    risk: Risk = "low"
    officer: str = "privacy_officer"
    break_glass: tuple[str, ...] = ()

    @property
    def requirement(self) -> Requirement:
        asked = self.quorum, self.expires_hours, self.requested_by
        return Requirement(self.gate, *asked, self.policy_name, self.risk, self.officer, self.break_glass)

    @property
    def known(self) -> Facts:
        return Facts(self.facts, LATER if self.gate == "use" else ())

    def to_json(self) -> dict[str, Json]:
        return {
            "id": self.id,
            "gate": self.gate,
            "digest": self.digest,
            "run_id": self.run_id,
            "policy_name": self.policy_name,
            "shown": [list(pair) for pair in self.shown],
            "quorum": dict(self.quorum),
            "expires_hours": self.expires_hours,
            "requested_by": self.requested_by,
            "created_at": self.created_at,
            "facts": dict(self.facts),
            "risk": self.risk,
            "officer": self.officer,
            "break_glass": list(self.break_glass),
        }

    @classmethod
    def from_json(cls, value: Json) -> ApprovalRequest:
        """Raises IntegrityError E-APPROVE-002 for anything but a request with its own id."""
        match value:
            case {
                "id": str(identity),
                "gate": "use" | "release" as gate,
                "digest": str(digest),
                "run_id": str(run_id),
                "policy_name": str(policy_name),
                "shown": list(shown),
                "quorum": dict(quorum),
                "expires_hours": int(expires_hours),
                "requested_by": str(requested_by),
                "created_at": str(created_at),
                "facts": dict(facts),
                "risk": "low" | "high" as risk,
                "officer": str(officer),
                "break_glass": list(glass),
            } if identity == request_id(gate, digest, run_id) and all(isinstance(n, int) for n in quorum.values()):
                pairs = tuple(_pair(p) for p in shown)
                counts = {role: int(n) for role, n in quorum.items()}
                known = {name: v for name, v in facts.items() if isinstance(v, str | int | float) and not isinstance(v, bool)}
                asked = (identity, gate, digest, run_id, policy_name, pairs, counts, expires_hours, requested_by, created_at)
                return cls(*asked, known, risk, officer, tuple(str(role) for role in glass))
        raise _malformed()


def request_id(gate: GateName, digest: Digest, run_id: str) -> str:
    """Short name of a request, the same for the same gate, digest and run."""
    return digest_of({"gate": gate, "digest": digest, "run": run_id}).removeprefix("sha256:")[:12]


class ApprovalBook:
    """Requests and signed envelopes in one folder: requests/ID.json, envelopes/DIGEST/NAME.dsse.json, delegations/, and
    kept/KIND/ for other signed statements about gates."""

    def __init__(self, folder: Path) -> None:
        self._requests = folder / "requests"
        self._envelopes = folder / "envelopes"
        self._delegations = folder / "delegations"
        self._kept = folder / "kept"

    def open_request(self, request: ApprovalRequest) -> ApprovalRequest:
        """Write the request, or return the one that already stands under its id; a request never changes."""
        if request.id != request_id(request.gate, request.digest, request.run_id) or not is_digest(request.digest):
            raise _malformed()
        _write_once(self._requests / f"{request.id}.json", canonical_json(request.to_json()))
        return self.get(request.id)

    def get(self, identity: str) -> ApprovalRequest:
        """Raises UsageError E-APPROVE-001 when there is no such request."""
        path = self._requests / f"{identity}.json"
        if not identity.isalnum() or not path.is_file():
            raise UsageError(
                "E-APPROVE-001", "there is no approval request with that id", "List the open ones with privet approvals list"
            )
        found = ApprovalRequest.from_json(parse_canonical(path.read_bytes()))
        if found.id != identity:
            raise _malformed()
        return found

    def list(self) -> builtins.list[ApprovalRequest]:
        """All requests, oldest first."""
        names = [p.stem for p in self._requests.glob("*.json")] if self._requests.is_dir() else []
        return sorted((self.get(name) for name in names), key=lambda r: (r.created_at, r.id))

    def check(self, envelope: bytes, trust: TrustRoot, now: datetime | None = None) -> Approval:
        """Verify an envelope against what was asked; raises IntegrityError E-SIGN-0xx or GateClosed E-GATE-0xx.

        A key signs once; once that signature has expired, or somebody referred the matter to its role, it may sign again.
        """
        moment = now or datetime.now(UTC)
        approval = approval_of(open_envelope(envelope, trust))
        asked = [r for r in self.list() if r.digest == approval.digest and r.gate == approval.gate]
        earlier = [approval_of(open_envelope(e, trust)) for e in self.envelopes(approval.digest) if e != envelope]
        same_gate = [a for a in earlier if a.gate == approval.gate]
        referred_to = {a.refer_to for a in same_gate if a.decision == "refer"}
        _refuse_role(approval, asked, referred_to, trust)
        _refuse_unless_countable(approval, asked, trust, moment, self.delegations(trust))
        if approval.decision in ("approve", "break_glass") and any(a.decision == "reject" for a in same_gate):
            raise _refused("E-GATE-012", "an approver rejected exactly this evidence", "Change what was rejected and ask again")
        referred = [a.signed_at for a in same_gate if a.decision == "refer" and a.refer_to == approval.role]
        standing = [a for a in same_gate if a.decision in ("reject", "refer") or not _expired(a, asked, moment)]
        for a in standing:
            renewed = approval.decision == "approve" and any(a.signed_at <= at < approval.signed_at for at in referred)
            if (a.signer_key, a.decision) == (approval.signer_key, approval.decision) and not renewed:
                raise _refused("E-GATE-016", "this key has signed this request already", "Ask another holder of a missing role")
        return approval

    def add(self, envelope: bytes, trust: TrustRoot, now: datetime | None = None) -> Approval:
        """Check and keep an envelope; adding the same bytes again changes nothing."""
        approval = self.check(envelope, trust, now)
        folder = self._envelopes / approval.digest.removeprefix("sha256:")
        _write_once(folder / f"{envelope_name(envelope)}.dsse.json", envelope)
        return approval

    def envelopes(self, digest: Digest) -> builtins.list[bytes]:
        """The signed bytes kept for this digest, in a stable order. Raises IntegrityError E-APPROVE-003."""
        if not is_digest(digest):
            return []
        folder = self._envelopes / digest.removeprefix("sha256:")
        found = []
        for path in sorted(folder.glob("*.dsse.json")) if folder.is_dir() else []:
            data = path.read_bytes()
            if path.name != f"{envelope_name(data)}.dsse.json":
                raise IntegrityError(
                    "E-APPROVE-003",
                    f"the approval file {path.name} was altered",
                    "Remove the file and have the person sign again",
                )
            found.append(data)
        return found

    def approvals(self, digest: Digest, trust: TrustRoot) -> builtins.list[Approval]:
        """The kept envelopes, verified again under `trust`; raises IntegrityError when one no longer verifies."""
        return [approval_of(open_envelope(e, trust)) for e in self.envelopes(digest)]

    def add_delegation(self, envelope: bytes) -> None:
        """Keep a verified delegation; adding the same bytes again changes nothing."""
        _write_once(self._delegations / f"{envelope_name(envelope)}.dsse.json", envelope)

    def delegation_envelopes(self) -> dict[Digest, bytes]:
        paths = sorted(self._delegations.glob("*.dsse.json")) if self._delegations.is_dir() else []
        return {digest_bytes(data): data for data in (path.read_bytes() for path in paths)}

    def delegations(self, trust: TrustRoot) -> builtins.list[Delegation]:
        """Those that verify under `trust`: one of a person who was withdrawn lends nothing any more."""
        found = []
        for envelope in self.delegation_envelopes().values():
            try:
                found.append(open_delegation(envelope, trust))
            except PrivetError:
                continue
        return found

    def keep(self, kind: str, envelope: bytes) -> None:
        """Another signed statement about a gate: a review, a revocation."""
        _write_once(self._kept / kind / f"{envelope_name(envelope)}.dsse.json", envelope)

    def kept(self, kind: str) -> builtins.list[bytes]:
        folder = self._kept / kind
        return [path.read_bytes() for path in sorted(folder.glob("*.dsse.json"))] if folder.is_dir() else []


def envelope_name(envelope: bytes) -> str:
    return digest_bytes(envelope).removeprefix("sha256:")[:16]


def _refuse_role(approval: Approval, asked: Sequence[ApprovalRequest], referred_to: set[str], trust: TrustRoot) -> None:
    """Roles of the quorum decide and refer, a role that was referred to decides, and those the policy names break the glass."""
    person = trust.by_key(approval.signer_key)
    if not asked:
        raise _refused("E-GATE-021", "nobody asked for an approval of this digest", "Sign a request of privet approvals list")
    if person is not None and is_pipeline(person):
        raise _refused("E-GATE-022", "the pipeline's key can't approve", "Have a person sign with their own key")
    if approval.decision == "break_glass":
        if all(approval.role not in r.break_glass for r in asked):
            raise _refused("E-GATE-047", "the policy lets nobody of this role break the glass", "Have the quorum sign")
    elif all(approval.role not in r.requirement.needed for r in asked) and approval.role not in referred_to:
        raise _refused("E-GATE-023", f"this gate does not ask for the role {approval.role}", "Sign in a role of the quorum")
    if approval.decision == "refer" and not any(approval.refer_to in p.roles for p in trust.people):
        raise _refused(
            "E-GATE-053",
            f"nobody holds the role {approval.refer_to}, so nobody could ever decide",
            "Enrol somebody in that role",
        )


def _refuse_unless_countable(
    approval: Approval, asked: Sequence[ApprovalRequest], trust: TrustRoot, now: datetime, lent: Sequence[Delegation]
) -> None:
    """The same faults that `decide_gate` would find later, told to the person who can still mend them."""
    lacks = [_fault(approval, r, trust, now, lent) for r in asked]
    if (fault := lacks[0]) is not None and all(lacks):
        code, _, cause = fault.partition(": ")
        raise _refused(code, cause, dict(_REMEDIES).get(code, "Sign the request again"))


def _fault(
    approval: Approval, request: ApprovalRequest, trust: TrustRoot, now: datetime, lent: Sequence[Delegation]
) -> str | None:
    """A requester may stop their own request, so only what would open a gate is compared with who asked."""
    requirement = request.requirement
    if approval.decision in ("reject", "refer"):
        requirement = replace(requirement, requested_by="")
    return approval_fault(approval, requirement, trust, now, request.known, lent)


_REMEDIES: tuple[tuple[str, str], ...] = (
    ("E-GATE-014", "Sign in a role that you hold"),
    ("E-GATE-015", "Ask another holder of the role"),
    ("E-GATE-018", "Set the clock of the signing machine"),
    ("E-GATE-019", "Say in one sentence why"),
    ("E-GATE-042", "See privet approvals show --facts for what a condition can be about"),
    ("E-GATE-043", "Reject, or sign under a condition that holds"),
    ("E-GATE-046", "Have the role's holder sign, or delegate again"),
)


def _expired(approval: Approval, asked: Sequence[ApprovalRequest], now: datetime) -> bool:
    hours = BREAK_GLASS_HOURS if approval.decision == "break_glass" else max(r.expires_hours for r in asked)
    return now - approval.signed_at > timedelta(hours=hours)


def _write_once(path: Path, data: bytes) -> None:
    """Whole or not at all, and never over something: temporary file, fsync, link, fsync of the folder."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, path)
        except FileExistsError:
            return
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise EnvironmentFault(
            "E-APPROVE-007", f"an approval file can't be written ({error.strerror})", "Free some space; running again continues"
        ) from None


def _pair(value: Json) -> tuple[str, str]:
    match value:
        case [str(label), str(text)]:
            return label, text
    raise _malformed()


def _refused(code: str, cause: str, remedy: str) -> GateClosed:
    return GateClosed(code, cause, remedy)


def _malformed() -> IntegrityError:
    return IntegrityError("E-APPROVE-002", "an approval request is malformed", "Run the stage that asks again")

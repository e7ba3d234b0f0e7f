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
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipeline.evidence import is_pipeline
from pipeline.store_files import sync_folder
from privacy.canonical import Digest, Json, canonical_json, digest_bytes, digest_of, is_digest, parse_canonical
from privacy.errors import EnvironmentFault, GateClosed, IntegrityError, UsageError
from privacy.gates import Approval, GateName, Requirement, approval_of
from privacy.signing import TrustRoot, open_envelope

_CLOCK_SKEW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """What a person is asked to sign. `shown` is what they see: label and value, no personal data."""

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

    @property
    def requirement(self) -> Requirement:
        return Requirement(self.gate, self.quorum, self.expires_hours, self.requested_by)

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
            } if identity == request_id(gate, digest, run_id) and all(isinstance(n, int) for n in quorum.values()):
                pairs = tuple(_pair(p) for p in shown)
                counts = {role: int(n) for role, n in quorum.items()}
                return cls(identity, gate, digest, run_id, policy_name, pairs, counts, expires_hours, requested_by, created_at)
        raise _malformed()


def request_id(gate: GateName, digest: Digest, run_id: str) -> str:
    """Short name of a request, the same for the same gate, digest and run."""
    return digest_of({"gate": gate, "digest": digest, "run": run_id}).removeprefix("sha256:")[:12]


class ApprovalBook:
    """Requests and signed envelopes in one folder: requests/ID.json and envelopes/DIGEST/NAME.dsse.json."""

    def __init__(self, folder: Path) -> None:
        self._requests = folder / "requests"
        self._envelopes = folder / "envelopes"

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

        A key signs once; once that signature has expired, it may sign again.
        """
        moment = now or datetime.now(UTC)
        approval = approval_of(open_envelope(envelope, trust))
        asked = [r for r in self.list() if r.digest == approval.digest and r.gate == approval.gate]
        _refuse_unless_countable(approval, asked, trust, moment)
        earlier = [approval_of(open_envelope(e, trust)) for e in self.envelopes(approval.digest) if e != envelope]
        same_gate = [a for a in earlier if a.gate == approval.gate]
        if approval.decision == "approve" and any(a.decision == "reject" for a in same_gate):
            raise _refused("E-GATE-012", "an approver rejected exactly this evidence", "Change what was rejected and ask again")
        standing = [a for a in same_gate if a.decision == "reject" or not _expired(a, asked, moment)]
        if any(a.signer_key == approval.signer_key and a.decision == approval.decision for a in standing):
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


def envelope_name(envelope: bytes) -> str:
    return digest_bytes(envelope).removeprefix("sha256:")[:16]


def _refuse_unless_countable(approval: Approval, asked: Sequence[ApprovalRequest], trust: TrustRoot, now: datetime) -> None:
    """The same faults that `decide_gate` would find later, told to the person who can still mend them."""
    person = trust.by_key(approval.signer_key)
    if not asked:
        raise _refused("E-GATE-021", "nobody asked for an approval of this digest", "Sign a request of privet approvals list")
    if person is None or approval.role not in person.roles:
        raise _refused("E-GATE-014", f"the key does not hold the role {approval.role}", "Sign in a role that you hold")
    if is_pipeline(person):
        raise _refused("E-GATE-022", "the pipeline's key can't approve", "Have a person sign with their own key")
    if all(approval.role not in r.quorum for r in asked):
        raise _refused("E-GATE-023", f"this gate does not ask for the role {approval.role}", "Sign in a role of the quorum")
    if approval.decision == "approve" and all(r.requested_by == approval.signer for r in asked):
        raise _refused("E-GATE-015", "the requester can't approve their own request", "Ask another holder of the role")
    if _expired(approval, asked, now):
        raise _refused("E-GATE-013", "the approval has expired", "Sign the request again")
    if approval.signed_at > now + _CLOCK_SKEW:
        raise _refused("E-GATE-018", "the approval is dated in the future", "Set the clock of the signing machine")
    if len(approval.reason.strip()) < 3:
        raise _refused("E-GATE-019", "the approval gives no reason", "Say in one sentence why")


def _expired(approval: Approval, asked: Sequence[ApprovalRequest], now: datetime) -> bool:
    return now - approval.signed_at > timedelta(hours=max(r.expires_hours for r in asked))


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

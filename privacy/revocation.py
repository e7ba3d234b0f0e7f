"""The signed list of releases that were taken back, and what it says about one bundle. Pure: bytes and a clock in, words out.

Guarantee: a list counts only if a key that may revoke signed exactly these bytes, and only until `next_update`; a release
on it stays on it in every later list that the same home makes. Not covered: whether a newer list exists (keep the number
of the last one you saw), and copies of a model in the hands of somebody who asks no list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from privacy.canonical import Digest, Json, digest_of, is_digest
from privacy.errors import IntegrityError
from privacy.moments import moment_of
from privacy.signing import SigningKey, TrustRoot, make_statement, open_envelope, seal_envelope

REVOCATIONS_TYPE: Final = "https://privet.dev/predicate/revocations/v1"
REVOCATION_TYPE: Final = "https://privet.dev/predicate/revocation/v1"
# Why, from a closed list: a sentence could name a person. The last two take back one bundle and leave its model alone.
REASON_CODES: Final = (
    "withdrawn",
    "erasure",
    "privacy_defect",
    "key_compromise",
    "policy_breach",
    "wrong_evidence",
    "superseded",
)
EVIDENCE_ONLY: Final = frozenset({"wrong_evidence", "superseded"})
OFFICER: Final = "privacy_officer"
MAX_DAYS: Final = 31  # of one list: who shows an old one is found out by then
_MAY_SIGN: Final = frozenset({"pipeline", OFFICER})
_MAX_ENTRIES: Final = 100_000
_CLOCK_SKEW: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Revocation:
    """One release that was taken back. `model`: its bytes are revoked in any other bundle, too; None: this bundle only."""

    evidence_root: Digest
    model: Digest | None
    revoked_at: datetime
    reason: str

    def to_json(self) -> dict[str, Json]:
        at = self.revoked_at.astimezone(UTC).isoformat(timespec="seconds")
        return {"evidence_root": self.evidence_root, "model": self.model, "revoked_at": at, "reason": self.reason}

    @classmethod
    def from_json(cls, value: Json) -> Revocation:
        """Raises IntegrityError E-REVOKE-002."""
        match value:
            case {
                "evidence_root": str(root),
                "model": str() | None as model,
                "revoked_at": str(at),
                "reason": str(reason),
                **rest,
            }:
                if not rest and is_digest(root) and (model is None or is_digest(model)) and reason in REASON_CODES:
                    return cls(root, model, _time(at), reason)
        raise _malformed()

    def covers(self, evidence_root: Digest, model: Digest | None) -> bool:
        return self.evidence_root == evidence_root or (self.model is not None and self.model == model)


@dataclass(frozen=True, slots=True)
class RevocationList:
    """What was signed. `number` rises with every list of one home; `signer`, its key and
    `by_officer` come from the key that verified."""

    number: int
    issued_at: datetime
    next_update: datetime
    entries: tuple[Revocation, ...]
    signer: str = ""
    signer_key: str = ""
    by_officer: bool = False

    def speaks_for(self, pipeline: str) -> bool:
        """Whether this list may clear a bundle of that pipeline: it is its own, or a privacy officer's.

        pipeline: public key in hex. Another pipeline of the same trust root has another journal, and another list.
        """
        return self.by_officer or self.signer_key == pipeline

    def to_json(self) -> dict[str, Json]:
        return {
            "number": self.number,
            "issued_at": self.issued_at.astimezone(UTC).isoformat(timespec="seconds"),
            "next_update": self.next_update.astimezone(UTC).isoformat(timespec="seconds"),
            "entries": [entry.to_json() for entry in self.entries],
        }

    def fault(self, evidence_root: Digest, model_digest: Digest | None, now: datetime) -> str | None:
        """Why a bundle may not be used at `now` as far as this list knows, with its code; None when nothing is said against it.

        Revoked is told before stale: an old list can only be missing entries, never hold one too many.
        """
        found = next((entry for entry in self.entries if entry.covers(evidence_root, model_digest)), None)
        if found is not None:
            what = "release" if found.evidence_root == evidence_root else "model"
            return f"E-REVOKE-003: this {what} was revoked at {found.revoked_at.isoformat(timespec='seconds')} ({found.reason})"
        if self.issued_at > now + _CLOCK_SKEW:
            return "E-REVOKE-005: the revocation list is dated in the future"
        if now >= self.next_update:
            due = self.next_update.isoformat(timespec="seconds")
            return f"E-REVOKE-004: the revocation list is stale: a newer one was due at {due}"
        return None


def seal_revocations(found: RevocationList, key: SigningKey) -> bytes:
    """The signed list, as a DSSE envelope."""
    body = found.to_json()
    return seal_envelope(make_statement({"revocations": digest_of(body)}, REVOCATIONS_TYPE, body), key)


def read_revocations(data: bytes, trust: TrustRoot) -> RevocationList:
    """Verify and parse a list. Whether it is stale depends on the time of asking: see `RevocationList.fault`.

    Raises IntegrityError E-SIGN-001 or E-SIGN-002 (malformed envelope, unknown key), E-REVOKE-001 (a key that may not
    revoke), E-REVOKE-002 (signed, and not a revocation list), E-REVOKE-014 (good for over MAX_DAYS).
    """
    signed = open_envelope(data, trust)
    if not _MAY_SIGN & set(signed.signer.roles):
        raise IntegrityError(
            "E-REVOKE-001",
            "the revocation list is signed by a key that is neither the pipeline's nor a privacy officer's",
            "Get the list from who released the bundle",
        )
    if signed.predicate_type != REVOCATIONS_TYPE or signed.subject != {"revocations": digest_of(dict(signed.predicate))}:
        raise _malformed()
    match signed.predicate:
        case {"number": int(number), "issued_at": str(issued), "next_update": str(due), "entries": list(entries), **rest}:
            if not rest and not isinstance(number, bool) and number >= 1 and len(entries) <= _MAX_ENTRIES:
                who, officer = signed.signer, OFFICER in signed.signer.roles
                listed = _entries(entries)
                found = RevocationList(number, _time(issued), _time(due), listed, who.name, who.public_hex, officer)
                if found.issued_at < found.next_update:
                    return _short(found)
    raise _malformed()


def _short(found: RevocationList) -> RevocationList:
    if found.next_update - found.issued_at > timedelta(days=MAX_DAYS):
        raise IntegrityError(
            "E-REVOKE-014",
            f"the revocation list says it is good for over {MAX_DAYS} days",
            "Get a newer list: one that ends so late would hide what is revoked meanwhile",
        )
    return found


def _entries(values: Sequence[Json]) -> tuple[Revocation, ...]:
    found = tuple(Revocation.from_json(value) for value in values)
    if len({entry.evidence_root for entry in found}) != len(found):
        raise _malformed()
    return found


def _time(text: str) -> datetime:
    if (moment := moment_of(text)) is None:
        raise _malformed()
    return moment


def _malformed() -> IntegrityError:
    return IntegrityError("E-REVOKE-002", "a signed statement is not a revocation list", "Get the list again from its source")

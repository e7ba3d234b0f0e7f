"""Taking a release back: who may, what is journalled, and the signed list that verifiers ask.

Guarantee: one person of the release quorum, or a privacy officer, is enough; what was revoked stays in the journal and in every
later list, is not released again by this home, and neither is its model in another bundle (unless only the evidence was wrong).
Not covered: copies outside; their holders learn of it when they verify with a list.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.evidence import MODEL_FILE, read_evidence
from pipeline.stage import load_manifest
from privacy.canonical import Digest, Json, digest_bytes, is_digest, parse_canonical
from privacy.entries import Entry
from privacy.errors import GateClosed, IntegrityError, UsageError
from privacy.revocation import (
    EVIDENCE_ONLY,
    MAX_DAYS,
    OFFICER,
    REASON_CODES,
    REVOCATION_TYPE,
    Revocation,
    RevocationList,
    read_revocations,
    seal_revocations,
)
from privacy.signing import SigningKey, make_statement, open_envelope, seal_envelope

if TYPE_CHECKING:
    from pipeline.home import Home

LIST_DAYS = 7


def root_named(target: str) -> Digest:
    """The evidence root that a person names: itself, or the folder of its bundle. Raises UsageError E-REVOKE-006."""
    folder = Path(target)
    if is_digest(target):
        return target
    try:
        if folder.is_dir():
            return read_evidence(parse_canonical((folder / "evidence.json").read_bytes()))[0]
    except (OSError, IntegrityError):
        pass
    raise UsageError("E-REVOKE-006", "that is neither an evidence root nor a bundle folder", "Give sha256:… or the folder")


def revoke(
    home: Home, root: Digest, name: str, role: str, reason: str, code: str, key: SigningKey, now: datetime
) -> Revocation:
    """Sign, journal and keep the revocation of one release of this home. reason: for the journal; code: for the list.

    Raises UsageError E-REVOKE-007 (never released here), E-REVOKE-008 (unknown code), E-APPROVE-005 and 006 (person and key,
    reason), GateClosed E-REVOKE-009 (a role that may not), E-REVOKE-010 (revoked before).
    """
    from pipeline.approve import refuse_odd_reason, refuse_other_key
    from pipeline.standing import asked_about

    if code not in REASON_CODES:
        raise UsageError("E-REVOKE-008", "there is no such reason code", f"Use one of {', '.join(REASON_CODES)}")
    person = refuse_other_key(home, name, key)
    refuse_odd_reason(reason)
    model = _released_model(home, root)
    request = asked_about(home, "release", root)
    may = {OFFICER} | (set() if request is None else {*request.quorum, request.officer})
    if role not in may or role not in person.roles:
        raise GateClosed(
            "E-REVOKE-009",
            "only a role of the release quorum, or a privacy officer, can take a release back",
            "Have such a person revoke it",
        )
    if any(entry.evidence_root == root for entry in revocations(home.journal.entries())):
        raise GateClosed("E-REVOKE-010", "this release was revoked before", "Nothing is left to do: privet release revocations")
    found = Revocation(root, None if code in EVIDENCE_ONLY else model, now, code)
    body: dict[str, Json] = {**found.to_json(), "role": role, "statement": reason.strip()}
    envelope = seal_envelope(make_statement({"evidence": root}, REVOCATION_TYPE, body), key)
    open_envelope(envelope, home.journalled_trust())  # nothing is journalled that would not verify
    facts: dict[str, Json] = {**found.to_json(), "role": role, "signer": name, "said": reason.strip()}
    home.journal.append("revocation", {**facts, "envelope": digest_bytes(envelope)})
    home.approvals.keep("revocations", envelope)
    return found


def revocations(entries: Iterable[Entry]) -> tuple[Revocation, ...]:
    """What the journal says was taken back, oldest first. Pure."""
    found: dict[Digest, Revocation] = {}
    for entry in entries:
        if entry.kind == "revocation":
            told: Mapping[str, Json] = {n: entry.facts.get(n) for n in ("evidence_root", "model", "revoked_at", "reason")}
            one = Revocation.from_json(told)
            found.setdefault(one.evidence_root, one)
    return tuple(found.values())


def refuse_revoked(home: Home, root: Digest, model: Digest | None) -> None:
    """Raises GateClosed E-REVOKE-003 when this release, or this model in another one, was taken back."""
    if (fault := revoked_fault(home, root, model)) is not None:
        raise GateClosed("E-REVOKE-003", fault, "Train anew, or release other evidence, as the revocation's reason asks")


def revoked_fault(home: Home, root: Digest, model: Digest | None) -> str | None:
    """In words, without a code."""
    found = next((r for r in revocations(home.journal.entries()) if r.covers(root, model)), None)
    if found is None:
        return None
    what = "release" if found.evidence_root == root else "model"
    return f"this {what} was revoked at {found.to_json()['revoked_at']} ({found.reason})"


def signed_list(home: Home, now: datetime, days: int = LIST_DAYS, key: SigningKey | None = None) -> bytes:
    """A new list with all revocations, one number above the last; its digest is journalled before it is handed out.

    key: of an officer; without it the pipeline signs. Raises UsageError E-REVOKE-011 (over MAX_DAYS), IntegrityError
    E-REVOKE-001 for a key that may not.
    """
    if not 1 <= days <= MAX_DAYS:
        raise UsageError("E-REVOKE-011", f"a list is good for 1 to {MAX_DAYS} days", "Give --days in that range")
    with _one_at_a_time(home):
        entries = home.journal.entries()
        number = 1 + max((_number(entry) for entry in entries if entry.kind == "revocation_list"), default=0)
        issued = now.astimezone(UTC).replace(microsecond=0)
        found = RevocationList(number, issued, issued + timedelta(days=days), revocations(entries))
        data = seal_revocations(found, key or home.key)
        read_revocations(data, home.journalled_trust())
        facts: dict[str, Json] = {"number": number, "entries": len(found.entries), "envelope": digest_bytes(data)}
        home.journal.append("revocation_list", facts)
        home.approvals.keep("revocation_lists", data)
        return data


def _released_model(home: Home, root: Digest) -> Digest | None:
    for entry in home.journal.entries():
        if entry.kind == "release" and entry.facts.get("evidence_root") == root:
            ref = load_manifest(home, str(entry.facts.get("assemble"))).outputs["evidence.json"]
            files = read_evidence(parse_canonical(home.store.read_plain(ref)))[1]
            return next((file.sha256 for file in files if file.path == MODEL_FILE), None)
    raise UsageError(
        "E-REVOKE-007", "this home never released that", "Revoke in the home that released it; see privet journal show"
    )


def _number(entry: Entry) -> int:
    number = entry.facts.get("number")
    return number if isinstance(number, int) else 0


@contextmanager
def _one_at_a_time(home: Home) -> Iterator[None]:
    handle = os.open(home.path / "approvals" / ".revocations.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)

"""Where signatures under a raise are kept, counted and carried out: files in caps/, the journal, then the ledger.

Guarantee: journal first; cut short anywhere, filing any of the signatures again completes the raise or changes nothing. A
cap in the ledger that the signed journal does not know, with exactly this record, is refused before any budget is used.
Not covered: whoever holds the pipeline's key can write the journal.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.caps import CapRaise, CapVote, counted_votes, decide_raise, refuse_unless_rising, vote_fault, vote_of
from privacy.canonical import Digest, Json, digest_bytes, digest_of
from privacy.errors import EnvironmentFault, GateClosed, IntegrityError
from privacy.ledger import CapRecord
from privacy.signing import TrustRoot, open_envelope
from privacy.verdict import Verdict

if TYPE_CHECKING:
    from pipeline.home import Home
    from privacy.journal import Entry

RAISED = "budget_cap_raised"


@dataclass(frozen=True, slots=True)
class Filed:
    """What became of a signature. `verdict` passed: the cap stands at `asked.cap_after` now."""

    asked: CapRaise
    vote: CapVote
    verdict: Verdict


def ask_raise(home: Home, scope: str, to: float) -> CapRaise:
    """The raise from the cap that stands now. Raises UsageError E-LEDGER-002 (no such scope), PolicyError E-CAP-001."""
    terms = home.ledger.terms(scope)
    refuse_unless_rising(terms.cap_epsilon, to)
    return CapRaise(home.key.public_hex, scope, terms.unit, terms.delta, terms.cap_epsilon, float(to))


def file_vote(home: Home, envelope: bytes, now: datetime) -> Filed:
    """Verify, journal and keep a signature, and make the raise once the quorum has signed.

    Raises IntegrityError E-SIGN-001, E-SIGN-002, E-CAP-002; GateClosed E-CAP-003 to E-CAP-006, E-CAP-008.
    """
    trust = home.journalled_trust()
    vote = vote_of(open_envelope(envelope, trust), digest_bytes(envelope))
    with _lock(home.path / "caps"):
        done = _journalled(home, vote.asked)
        if done is None:
            _refuse(home, vote, trust, now)
            _keep(home, vote, envelope)
        verdict = _carry_out(home, vote.asked, done, trust, now)
    return Filed(vote.asked, vote, verdict)


def refuse_unsigned_caps(home: Home) -> None:
    """Raises IntegrityError E-CAP-009 when the ledger has a cap that no journalled record raised."""
    known = {(e.facts.get("scope"), e.facts.get("cap_after"), e.facts.get("record")) for e in _raises(home)}
    for scope in home.ledger.scopes():
        for cap in home.ledger.caps(scope)[1:]:
            if (scope, cap.cap_epsilon, cap.envelope) not in known:
                raise IntegrityError(
                    "E-CAP-009",
                    f"the ledger has a cap of epsilon {cap.cap_epsilon} for {scope} that nobody signed",
                    "Find out who wrote to the ledger, and restore it from its backup",
                )


def votes_for(home: Home, asked: CapRaise, trust: TrustRoot) -> list[CapVote]:
    """The kept signatures, verified again under `trust`; those of people who left the trust root are not among them."""
    found = []
    for path in sorted(_folder(home, asked).glob("*.dsse.json")):
        envelope = path.read_bytes()
        try:
            vote = vote_of(open_envelope(envelope, trust), digest_bytes(envelope))
        except IntegrityError as error:
            if error.code == "E-SIGN-002":
                continue
            raise
        found.append(vote)
    return found


def record_digest(raise_digest: Digest, envelopes: Sequence[Digest]) -> Digest:
    """What the ledger keeps of a raise; anybody with the envelopes can recompute it."""
    return digest_of({"raise": raise_digest, "envelopes": sorted(envelopes)})


def _refuse(home: Home, vote: CapVote, trust: TrustRoot, now: datetime) -> None:
    """The same faults that `decide_raise` would find later, told to the person who can still mend them."""
    now_asked = ask_raise(home, vote.asked.scope, vote.asked.cap_after)
    if fault := vote_fault(now_asked, vote, trust, now):
        code, _, cause = fault.partition(": ")
        raise GateClosed(code, cause, "Sign anew with privet budget raise, in a role that you hold")
    earlier = [other for other in votes_for(home, vote.asked, trust) if vote_fault(now_asked, other, trust, now) is None]
    if any(other.signer.public_hex == vote.signer.public_hex and other.envelope != vote.envelope for other in earlier):
        raise GateClosed("E-CAP-008", "this key has signed this raise already", "Ask the holder of the other role")


def _keep(home: Home, vote: CapVote, envelope: bytes) -> None:
    path = _folder(home, vote.asked) / f"{vote.envelope.removeprefix('sha256:')[:16]}.dsse.json"
    if path.exists():
        return
    facts: dict[str, Json] = {
        "raise": vote.asked.digest,
        "scope": vote.asked.scope,
        "signer": vote.signer.name,
        "role": vote.role,
        "custody": vote.signer.custody,
        "envelope": vote.envelope,
    }
    home.journal.append("budget_cap_signed", facts)
    _write_once(path, envelope)


def _carry_out(home: Home, asked: CapRaise, done: Entry | None, trust: TrustRoot, now: datetime) -> Verdict:
    """Into the journal, then into the ledger, which takes a record once."""
    if done is None:
        votes = votes_for(home, asked, trust)
        verdict = decide_raise(asked, votes, trust, now)
        if verdict.blocks:
            return verdict
        counted = counted_votes(asked, votes, trust, now)
        done = home.journal.append(RAISED, _facts(asked, counted, trust))
    record = CapRecord(asked.cap_after, asked.delta, _text(done, "record"), _text(done, "reason"), _text(done, "by"))
    home.ledger.raise_cap(asked.scope, record)
    return Verdict("budget.cap", "passed", f"raised by {record.by}", asked.digest)


def _facts(asked: CapRaise, counted: list[CapVote], trust: TrustRoot) -> dict[str, Json]:
    envelopes = sorted(vote.envelope for vote in counted)
    return {
        "raise": asked.digest,
        "scope": asked.scope,
        "cap_before": asked.cap_before,
        "cap_after": asked.cap_after,
        "delta": asked.delta,
        "envelopes": list(envelopes),
        "record": record_digest(asked.digest, envelopes),
        "reason": "; ".join(vote.reason for vote in counted)[:1000],
        "by": ", ".join(f"{v.signer.name} as {v.role}{' (demo key)' if v.signer.custody == 'demo' else ''}" for v in counted),
        "trust_root": trust.digest,
    }


def _raises(home: Home) -> list[Entry]:
    return [entry for entry in home.journal.entries() if entry.kind == RAISED]


def _journalled(home: Home, asked: CapRaise) -> Entry | None:
    return next((entry for entry in _raises(home) if entry.facts.get("raise") == asked.digest), None)


def _text(entry: Entry, name: str) -> str:
    value = entry.facts.get(name)
    assert isinstance(value, str)  # the journal is signed, and this entry has one writer
    return value


def _folder(home: Home, asked: CapRaise) -> Path:
    return home.path / "caps" / asked.digest.removeprefix("sha256:")


def _write_once(path: Path, data: bytes) -> None:
    """Whole or not at all, and never over something."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        path.parent.mkdir(exist_ok=True, mode=0o700)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    except OSError as error:
        raise _disk_fault(error) from None
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One filing at a time; the kernel frees the lock when its holder dies."""
    try:
        folder.mkdir(exist_ok=True, mode=0o700)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _disk_fault(error) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _disk_fault(error: OSError) -> EnvironmentFault:
    return EnvironmentFault(
        "E-CAP-010", f"a signature can't be kept ({error.strerror})", "Free some space; filing it again continues"
    )

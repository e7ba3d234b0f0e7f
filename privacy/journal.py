"""The journal: entries are only ever added, each is signed and names its predecessor, and anybody can check both.

Guarantee: an altered, removed, inserted or reordered entry, and an entry signed by another key, fails verification.
Not covered from inside: cutting the newest entries off, and rewriting history with the journal's own key; an
`anchor` (size and head digest kept outside, for instance in a released bundle) shows both.
Assumption: facts are counts, names and digests; a journal is never erased, so it must hold no personal data.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from privacy.canonical import Digest, Json, canonical_json, digest_bytes, is_digest, parse_canonical
from privacy.database import Database, open_read_only
from privacy.errors import IntegrityError, PrivetError, UsageError
from privacy.signing import SigningKey, verify_signature

GENESIS = "sha256:" + "0" * 64  # what the first entry names as its predecessor
_SIGNED = b"privet journal entry v1\n"  # keeps a signature from meaning anything elsewhere
_KIND = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
_FACTS_LIMIT = 1 << 20
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entry (seq INTEGER PRIMARY KEY, body BLOB NOT NULL, signature BLOB NOT NULL);
CREATE TRIGGER IF NOT EXISTS entry_update BEFORE UPDATE ON entry BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS entry_delete BEFORE DELETE ON entry BEGIN SELECT RAISE(ABORT, 'append-only'); END;
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """`digest` is over the canonical JSON of {seq, at, kind, facts, previous}; `signature` (hex) over label + that JSON."""

    seq: int
    at: str
    kind: str
    facts: Mapping[str, Json]
    previous: Digest
    digest: Digest
    signature: str

    @property
    def body(self) -> bytes:
        return _body(self.seq, self.at, self.kind, self.facts, self.previous)

    def to_json(self) -> dict[str, Json]:
        return {
            "seq": self.seq,
            "at": self.at,
            "kind": self.kind,
            "facts": dict(self.facts),
            "previous": self.previous,
            "digest": self.digest,
            "signature": self.signature,
        }

    @classmethod
    def from_json(cls, value: Json) -> Entry:
        """Raises IntegrityError E-JOURNAL-001; says nothing about digest, chain and signature (`verify_entries` does)."""
        match value:
            case {
                "seq": int(seq),
                "at": str(at),
                "kind": str(kind),
                "facts": dict(facts),
                "previous": str(previous),
                "digest": str(digest),
                "signature": str(signature),
                **rest,
            }:
                if not rest and not isinstance(seq, bool) and is_digest(previous) and is_digest(digest):
                    return cls(seq, at, kind, facts, previous, digest, signature)
        raise _malformed()


@dataclass(frozen=True, slots=True)
class JournalState:
    """`size` entries, the newest with digest `head` (None when empty)."""

    size: int
    head: Digest | None


class Journal:
    """Safe for threads and processes; each append is durable when it returns."""

    __slots__ = ("_database", "_key", "_seen")

    def __init__(self, path: Path, key: SigningKey) -> None:
        self._key = key
        self._seen: set[tuple[Digest, str]] = set()  # digest and signature of entries that were verified already
        self._database = Database(path, _SCHEMA)

    def append(self, kind: str, facts: Mapping[str, Json]) -> Entry:
        """Add an entry. Raises IntegrityError E-JOURNAL-002 to 004 when the newest entry is not ours: don't build on it."""
        if not _KIND.fullmatch(kind) or len(canonical_json(facts)) > _FACTS_LIMIT:
            raise UsageError(
                "E-JOURNAL-006", "a journal entry has a malformed kind or facts over 1 MiB", "Report this as a defect"
            )
        with self._database.transaction() as connection:
            last = _last(connection)
            if last is not None:
                verify_entries(self._key.public_hex, [last])
            seq, previous = (last.seq + 1, last.digest) if last else (0, GENESIS)
            body = _body(seq, _now(), kind, facts, previous)
            signature = self._key.sign(_SIGNED + body)
            connection.execute("INSERT INTO entry VALUES (?, ?, ?)", (seq, body, signature))
            return _entry(seq, body, signature)

    def entries(self, start: int = 0) -> list[Entry]:
        """Entries from `start` on, verified: decisions are made by them, and the file is not out of others' reach.

        Raises IntegrityError E-JOURNAL-001 to 004.
        """
        with self._database.reading() as connection:
            found = _all(connection, start)
        if found and found[0].seq != start:
            raise IntegrityError("E-JOURNAL-003", f"the journal does not hold entry {start}", "Restore the journal")
        verify_entries(self._key.public_hex, found, self._seen)
        self._seen.update((entry.digest, entry.signature) for entry in found)
        return found

    def head(self) -> Entry | None:
        with self._database.reading() as connection:
            return _last(connection)

    def export(self, run: str) -> bytes:
        """Canonical JSON of every entry from the first of `run` to the head, so that its chain can be checked alone.

        Raises UsageError E-JOURNAL-007 when no entry belongs to the run.
        """
        everything = self.entries()
        first = next((e.seq for e in everything if e.facts.get("run") == run), None)
        if first is None:
            raise UsageError("E-JOURNAL-007", "the journal has no entry of that run", "Check the run id and the home")
        listed: list[Json] = [e.to_json() for e in everything if e.seq >= first]
        return canonical_json({"journal": 1, "run": run, "entries": listed})


def parse_export(data: bytes) -> list[Entry]:
    """The entries of an export, unverified; the first belongs to its run. Raises IntegrityError E-JOURNAL-001 or E-CANON."""
    match parse_canonical(data):
        case {"journal": 1, "run": str(run), "entries": list(listed), **rest} if not rest:
            entries = [Entry.from_json(entry) for entry in listed]
            if entries and entries[0].facts.get("run") == run:
                return entries
    raise _malformed()


def verify_entries(public_hex: str, entries: Sequence[Entry], seen: Set[tuple[Digest, str]] = frozenset()) -> None:
    """Check a run of consecutive entries (from 0, or cut from the middle): digests, chain, signatures.

    seen: digest and signature of entries whose signature under this very key was verified before.
    Raises IntegrityError E-JOURNAL-002 (altered), 003 (chain broken), 004 (not signed by this key).
    """
    before: Entry | None = None
    for entry in entries:
        body = entry.body
        if digest_bytes(body) != entry.digest:
            raise IntegrityError(
                "E-JOURNAL-002", f"journal entry {entry.seq} was altered", "Restore the journal; find out who could write it"
            )
        expected = (before.seq + 1, before.digest) if before else (0, GENESIS)
        # A part cut from the middle starts anywhere, but seq 0 and the genesis digest belong together.
        is_start = before is None and entry.seq > 0 and entry.previous != GENESIS
        if not is_start and (entry.seq, entry.previous) != expected:
            raise IntegrityError(
                "E-JOURNAL-003",
                f"the journal's chain is broken before entry {entry.seq}",
                "An entry is missing, added or out of order: restore the journal",
            )
        if (entry.digest, entry.signature) not in seen and not _signed_by(public_hex, entry.signature, body):
            raise IntegrityError(
                "E-JOURNAL-004",
                f"journal entry {entry.seq} is not signed by the journal's key",
                "Check that the trust root is the right one; if it is, the entry was forged",
            )
        before = entry


def verify_journal(path: Path, public_hex: str, anchor: tuple[int, Digest] | None) -> JournalState:
    """Check a whole journal file without writing to it. anchor: (size, head digest) that was seen once, kept elsewhere.

    Raises IntegrityError E-JOURNAL-001 to 004, and E-JOURNAL-005 when the anchored state is not a prefix of this one.
    """
    with open_read_only(path) as connection:
        entries = _all(connection, 0)
    if entries and entries[0].seq != 0:
        raise IntegrityError("E-JOURNAL-003", "the journal does not start at entry 0", "Restore the journal")
    verify_entries(public_hex, entries)
    if anchor is not None:
        size, head = anchor
        if size > len(entries) or size < 0 or (size > 0 and entries[size - 1].digest != head):
            raise IntegrityError(
                "E-JOURNAL-005",
                f"the journal is not a continuation of the state of {size} entries that was anchored",
                "It was cut off, rewritten or swapped: restore it, and keep this copy as evidence",
            )
    return JournalState(len(entries), entries[-1].digest if entries else None)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _body(seq: int, at: str, kind: str, facts: Mapping[str, Json], previous: Digest) -> bytes:
    return canonical_json({"seq": seq, "at": at, "kind": kind, "facts": dict(facts), "previous": previous})


def _entry(seq: int, body: bytes, signature: bytes) -> Entry:
    """The stored bytes decide; `seq` of the row must be the one that was signed."""
    try:
        value = parse_canonical(body)
    except PrivetError:
        raise _malformed() from None
    if not isinstance(value, Mapping) or value.get("seq") != seq:
        raise _malformed()
    return Entry.from_json({**value, "digest": digest_bytes(body), "signature": signature.hex()})


def _all(connection: sqlite3.Connection, start: int) -> list[Entry]:
    rows = connection.execute("SELECT seq, body, signature FROM entry WHERE seq >= ? ORDER BY seq", (start,))
    return [_entry(seq, bytes(body), bytes(signature)) for seq, body, signature in rows]


def _last(connection: sqlite3.Connection) -> Entry | None:
    row = connection.execute("SELECT seq, body, signature FROM entry ORDER BY seq DESC LIMIT 1").fetchone()
    return _entry(row[0], bytes(row[1]), bytes(row[2])) if row else None


def _signed_by(public_hex: str, signature: str, body: bytes) -> bool:
    try:
        raw = bytes.fromhex(signature)
    except ValueError:
        return False
    return raw.hex() == signature and verify_signature(public_hex, raw, _SIGNED + body)


def _malformed() -> IntegrityError:
    return IntegrityError("E-JOURNAL-001", "a journal entry is malformed", "Restore the journal from its backup")

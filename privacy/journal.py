"""The journal: entries are only ever added; they are the leaves of a Merkle tree whose every state is a signed checkpoint.

Guarantee: an append commits entries and the checkpoint over them together or not at all; what `entries` returns was
verified against that checkpoint; an altered, removed, inserted, reordered or backdated entry fails verification.
Not covered from inside: cutting the newest entries off together with their checkpoints, putting an older database in its
place, rewriting history with the journal's own key. One checkpoint kept outside (`Anchor`), or a witness, shows all three.
Assumption: facts are counts, names and digests; a journal is never erased, so it must hold no personal data.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from privacy.canonical import Json
from privacy.checkpoint import Checkpoint, Verifier, cosignatures, merged, open_checkpoint, sign_checkpoint
from privacy.database import Place, open_database
from privacy.entries import Entry, Export, altered, backdated, fork, journal_verifier, make_body, open_bodies, truncated
from privacy.errors import UsageError
from privacy.journal_rows import (
    SCHEMA,
    Head,
    head_of,
    insert_entries,
    newest_checkpoint,
    put_state,
    refuse_other_size,
    rows_from,
    stored_note,
)
from privacy.merkle import EMPTY_ROOT, Tree, leaf_hash
from privacy.signing import SigningKey

__all__ = ["Entry", "Journal"]


class Journal:
    """Safe for threads and processes; each append is durable when it returns."""

    __slots__ = ("_clock", "_database", "_entries", "_key", "_lock", "_log", "_newest", "_seen", "_tree")

    def __init__(self, place: Place, key: SigningKey, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._key = key
        self._log = journal_verifier(key.public_hex)
        self._clock = clock
        self._lock = threading.Lock()
        # What this process has verified. It decides by this memory, so a row that is changed later deceives nobody here.
        self._entries: list[Entry] = []
        self._tree = Tree()
        self._newest = sign_checkpoint(self._log.name, 0, EMPTY_ROOT, key)  # what the tree above was verified against
        self._seen = self._newest  # the furthest that this process knows the journal to have come: an anchor of its own
        self._database = open_database(place, SCHEMA)

    @property
    def verifier(self) -> Verifier:
        """Who signs this journal's checkpoints, and under which origin."""
        return self._log

    def append(self, kind: str, facts: Mapping[str, Json]) -> Entry:
        """Add an entry. Raises as `append_many`."""
        return self.append_many([(kind, facts)])[0]

    def append_many(self, items: Sequence[tuple[str, Mapping[str, Json]]]) -> list[Entry]:
        """Add entries and one checkpoint over them, all or nothing.

        Raises IntegrityError E-JOURNAL-001 to 012 when the newest state is not what our key signed (nothing is built on
        it), UsageError E-JOURNAL-006, IntegrityError E-CANON-001.
        """
        if not items:
            return []
        seen = self._seen
        with self._database.transaction() as connection:
            head = head_of(connection, self._log)
            _refuse_older(head.checkpoint, seen)
            at, clock = _times(self._clock(), head.last)
            start = head.frontier.size
            bodies = [make_body(seq, at, kind, facts, clock) for seq, (kind, facts) in enumerate(items, start)]
            leaves = [leaf_hash(body) for body in bodies]
            before = head.frontier.extended(leaves[:-1])
            root = before.extended(leaves[-1:]).root()
            checkpoint = sign_checkpoint(self._log.name, before.size + 1, root, self._key)
            insert_entries(connection, start, bodies)
            put_state(connection, checkpoint, before)
        self._remember(checkpoint)
        return [
            Entry(seq, at, kind, dict(facts), "sha256:" + leaf.hex(), clock)
            for seq, ((kind, facts), leaf) in enumerate(zip(items, leaves, strict=True), start)
        ]

    def entries(self, start: int = 0) -> list[Entry]:
        """Entries from `start` on, verified: decisions are made by them, and the database is not out of others' reach.

        A second call verifies only what came since. Raises IntegrityError E-JOURNAL-001 to 013.
        """
        with self._lock:
            self._refresh()
            return self._entries[start:]

    def head(self) -> Entry | None:
        """The newest entry, verified against the newest checkpoint."""
        return self._head().last

    def checkpoint(self) -> Checkpoint:
        """The newest signed checkpoint, verified against the newest entry."""
        checkpoint = self._head().checkpoint
        return checkpoint if checkpoint.size else sign_checkpoint(self._log.name, 0, EMPTY_ROOT, self._key)

    def root(self, size: int) -> bytes:
        """The root of the first `size` entries. Raises UsageError E-JOURNAL-008."""
        with self._lock:
            self._refresh()
            self._require(0 <= size <= self._tree.size)
            return self._tree.root(size)

    def inclusion_proof(self, seq: int, size: int) -> tuple[bytes, ...]:
        """That entry `seq` is under the root of the first `size` entries. Raises UsageError E-JOURNAL-008."""
        with self._lock:
            self._refresh()
            self._require(0 <= seq < size <= self._tree.size)
            return self._tree.inclusion_proof(seq, size)

    def consistency_proof(self, old: int, new: int) -> tuple[bytes, ...]:
        """That the first `new` entries begin with the first `old`. Raises UsageError E-JOURNAL-008."""
        with self._lock:
            self._refresh()
            self._require(0 <= old <= new <= self._tree.size)
            return self._tree.consistency_proof(old, new)

    def export(self, run: str) -> bytes:
        """Canonical JSON of every entry from the first of `run` to the head, checkable alone (`privacy.entries.Export`).

        Raises UsageError E-JOURNAL-007 when no entry belongs to the run.
        """
        with self._lock:
            self._refresh()
            first = next((e.seq for e in self._entries if e.facts.get("run") == run), None)
            if first is None:
                raise UsageError("E-JOURNAL-007", "the journal has no entry of that run", "Check the run id and the home")
            return Export(run, self._tree.frontier(first), self._newest.note, tuple(self._entries[first:])).to_bytes()

    def accept(self, note: str, witnesses: Sequence[Verifier]) -> Checkpoint:
        """Keep a checkpoint that one of these witnesses cosigned.

        Raises as `open_checkpoint` and `cosignatures`; IntegrityError E-JOURNAL-010 or 011 when it is not of this history,
        UsageError E-JOURNAL-017 when none of the witnesses has cosigned.
        """
        checkpoint = open_checkpoint(note, self._log)
        if not cosignatures(note, witnesses):
            raise UsageError(
                "E-JOURNAL-017",
                "no witness of the trust root has cosigned this checkpoint",
                "Enrol the witness (privet identity enrol NAME --public HEX --role witness) and give what it printed",
            )
        with self._lock:
            self._refresh()
            if checkpoint.size > self._tree.size:
                raise truncated(self._tree.size, checkpoint.size, "a witness")
            if self._tree.root(checkpoint.size) != checkpoint.root:
                raise fork(checkpoint.size, "a checkpoint that a witness has seen")
        with self._database.transaction() as connection:
            row = connection.execute("SELECT note FROM cosigned WHERE size = ?", (checkpoint.size,)).fetchone()
            kept = note if row is None else merged(stored_note(row[0]), note)
            accepted = open_checkpoint(kept, self._log)  # before it is kept: one that can't be read would stop every release
            connection.execute(
                "INSERT INTO cosigned VALUES (?, ?) ON CONFLICT (size) DO UPDATE SET note = excluded.note",
                (checkpoint.size, kept),
            )
        return accepted

    def cosigned(self, least: int, witnesses: Sequence[Verifier]) -> Checkpoint | None:
        """The newest checkpoint of at least `least` entries that every one of these witnesses has cosigned."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT note FROM cosigned WHERE size >= ? ORDER BY size DESC", (least,)).fetchall()
        names = {w.name for w in witnesses}
        found = (note for (note,) in rows if set(cosignatures(stored_note(note), witnesses)) == names)
        note = next(found, None)
        return None if note is None else open_checkpoint(note, self._log)

    def _head(self) -> Head:
        seen = self._seen  # before reading: another thread may see more meanwhile
        with self._database.reading() as connection:
            head = head_of(connection, self._log)
        _refuse_older(head.checkpoint, seen)
        self._remember(head.checkpoint)
        return head

    def _refresh(self) -> None:
        """Verify what was added since the last time. The caller holds the lock."""
        known, seen = len(self._entries), self._seen
        with self._database.reading() as connection:
            newest = newest_checkpoint(connection, self._log)
            _refuse_older(newest, seen)
            fresh: list[Entry] = []
            leaves: list[bytes] = []
            for bodies in rows_from(connection, known):
                added = [leaf_hash(body) for body in bodies]
                fresh += _opened(bodies, added, known + len(fresh))
                leaves += added
        refuse_other_size(known + len(fresh), newest.size)
        last_at = self._entries[-1].at if known else ""
        for entry in fresh:
            if entry.at < last_at:
                raise backdated(entry.seq)
            last_at = entry.at
        self._tree.extend(leaves)
        if self._tree.root(newest.size) != newest.root:
            self._tree.truncate(known)
            raise altered(known, newest.size)
        if self._tree.root(seen.size) != seen.root:
            self._tree.truncate(known)
            raise fork(seen.size, "what this process saw before")
        self._entries += fresh
        self._newest = newest
        self._remember(newest)

    def _remember(self, checkpoint: Checkpoint) -> None:
        if (
            checkpoint.size > self._seen.size
        ):  # two threads at once may keep the smaller one: a weaker anchor, never a false one
            self._seen = checkpoint

    def _require(self, holds: bool) -> None:
        if not holds:
            raise UsageError(
                "E-JOURNAL-008",
                f"the journal has no such entry or size; it holds {self._tree.size} entries",
                "Give a number below that; see privet journal checkpoint",
            )


def _opened(bodies: Sequence[bytes], leaves: Sequence[bytes], start: int) -> Iterator[Entry]:
    for seq, ((at, kind, facts, clock), leaf) in enumerate(zip(open_bodies(bodies, start), leaves, strict=True), start):
        yield Entry(seq, at, kind, facts, "sha256:" + leaf.hex(), clock)


def _refuse_older(found: Checkpoint, seen: Checkpoint) -> None:
    if found.size < seen.size:
        raise truncated(found.size, seen.size, "this process")
    if found.size == seen.size and found.root != seen.root:
        raise fork(seen.size, "what this process saw before")


def _times(now: datetime, last: Entry | None) -> tuple[str, str | None]:
    """`at`, and what the clock showed where that is earlier than the newest entry."""
    shown = now.astimezone(UTC).isoformat(timespec="milliseconds")
    return (last.at, shown) if last is not None and shown < last.at else (shown, None)

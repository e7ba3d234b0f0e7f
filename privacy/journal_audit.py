"""Checks a whole journal, as a stranger who has its public key and, best, a state of it that was noted elsewhere.

Guarantee: nothing is written; each fault has its own code, and the first one found is raised. With an anchor, a journal
that was cut, put back to an older copy, or rewritten and signed again with the stolen key is told from the true one.
Not covered: a journal that was rewritten before the anchor was taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from privacy.canonical import Digest
from privacy.checkpoint import Checkpoint
from privacy.database import Connection, Place, PostgresPlace, open_database
from privacy.entries import altered, backdated, fork, gap, journal_verifier, open_bodies, truncated
from privacy.errors import IntegrityError
from privacy.journal_rows import SCHEMA, checkpoint_rows, refuse_other_size, rows_from, stored_checkpoint
from privacy.merkle import Tree, leaf_hash


@dataclass(frozen=True, slots=True)
class Anchor:
    """A state of the journal that somebody noted outside it. `at`: when, ISO 8601 with a zone, where that is known."""

    size: int
    root: bytes
    source: str
    at: str | None = None


@dataclass(frozen=True, slots=True)
class JournalState:
    """`size` entries with this root; `at` is the time of the newest, `anchored_at` of the newest under an anchor's size."""

    size: int
    root: Digest
    at: str | None
    checkpoints: int
    anchored_at: Mapping[int, str]


def verify_journal(place: Place, public_hex: str, anchors: Iterable[Anchor] = ()) -> JournalState:
    """Check a whole journal without writing to it: every entry, every checkpoint and its signature, every anchor.

    Raises IntegrityError E-JOURNAL-001 (malformed), 002 (altered), 003 (gap), 004 (a checkpoint of another key), 010
    (TRUNCATED), 011 (FORK), 012 (unsigned tail), 013 (backdated), 014 (a checkpoint row is not its note's), 015 (frontier).
    """
    log, listed = journal_verifier(public_hex), list(anchors)
    with _reading(place) as connection:
        signed = [stored_checkpoint(log, size, note) for size, note in checkpoint_rows(connection)]
        marks = {anchor.size for anchor in listed}
        tree, last_at, times = _replayed(connection, marks)
        (first,) = connection.execute("SELECT MIN(seq) FROM entry").fetchone()
        frontier = connection.execute("SELECT size, nodes FROM frontier WHERE id = 0").fetchone()
    if first is not None and first < 0:
        raise gap(0)
    refuse_other_size(tree.size, signed[-1].size if signed else 0)
    _refuse_other_roots(tree, signed)
    if tree.size and (frontier is None or tuple(frontier) != _expected_frontier(tree)):
        raise IntegrityError(
            "E-JOURNAL-015", "the journal's frontier is not that of its entries", "Restore the journal from its backup"
        )
    for anchor in listed:
        if anchor.size > tree.size:
            raise truncated(tree.size, anchor.size, anchor.source)
        if tree.root(anchor.size) != anchor.root:
            raise fork(anchor.size, anchor.source)
    return JournalState(tree.size, "sha256:" + tree.root(tree.size).hex(), last_at or None, len(signed), times)


def _refuse_other_roots(tree: Tree, signed: Sequence[Checkpoint]) -> None:
    for number, checkpoint in enumerate(signed):
        if tree.root(checkpoint.size) != checkpoint.root:
            if tree.root(tree.size) == signed[-1].root:  # the entries are the newest ones, so this is another history's
                raise fork(checkpoint.size, "a stored checkpoint")
            raise altered(signed[number - 1].size if number else 0, checkpoint.size)


@contextmanager
def _reading(place: Place) -> Iterator[Connection]:
    if isinstance(place, PostgresPlace):
        with open_database(place, SCHEMA).reading() as connection:
            yield connection
    else:
        from privacy.sqlite import open_read_only

        with open_read_only(place) as found:
            yield found


def _replayed(connection: Connection, marks: set[int]) -> tuple[Tree, str, dict[int, str]]:
    """The tree of all entries, the newest time, and the time of the newest entry below each mark."""
    tree, last_at, times = Tree(), "", {}
    for bodies in rows_from(connection, 0):
        for seq, (at, _, _, _) in enumerate(open_bodies(bodies, tree.size), tree.size):
            if at < last_at:
                raise backdated(seq)
            last_at = at
            if seq + 1 in marks:
                times[seq + 1] = at
        tree.extend([leaf_hash(body) for body in bodies])
    return tree, last_at, times


def _expected_frontier(tree: Tree) -> tuple[int, bytes]:
    return tree.size - 1, tree.frontier(tree.size - 1).to_bytes()

"""The journal's rows in its database: entries, checkpoints, the frontier; read back only together with what proves them.

Guarantee: `head_of` returns a state that the journal's key signed; `rows_from` returns consecutive entries or raises.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from privacy.checkpoint import Checkpoint, Verifier, open_checkpoint
from privacy.database import Connection, Refusal, Schema
from privacy.entries import Entry, altered, gap, make_entry, malformed, truncated, unsigned_tail
from privacy.errors import IntegrityError
from privacy.merkle import EMPTY_ROOT, Frontier, leaf_hash

SCHEMA = Schema(
    """
CREATE TABLE IF NOT EXISTS entry (seq INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS checkpoint (size INTEGER PRIMARY KEY, note TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS frontier (id INTEGER PRIMARY KEY, size INTEGER NOT NULL, nodes BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS cosigned (size INTEGER PRIMARY KEY, note TEXT NOT NULL);
""",
    (
        Refusal("entry_update", "entry", "UPDATE", "append-only"),
        Refusal("entry_delete", "entry", "DELETE", "append-only"),
        Refusal("checkpoint_update", "checkpoint", "UPDATE", "append-only"),
        Refusal("checkpoint_delete", "checkpoint", "DELETE", "append-only"),
        Refusal("frontier_update", "frontier", "UPDATE", "append-only", when="NEW.size < OLD.size"),
        Refusal("frontier_delete", "frontier", "DELETE", "append-only"),
        Refusal("cosigned_delete", "cosigned", "DELETE", "append-only"),
    ),
)
_BATCH = 500  # entries; more of them parsed at once no longer fit the processor's cache
_ROWS_AT_ONCE = 250  # of one INSERT: SQLite takes 32,766 parameters, and a round trip to a server costs more than rows


@dataclass(frozen=True, slots=True)
class Head:
    """Where the next entry goes: verified against the newest checkpoint."""

    checkpoint: Checkpoint
    frontier: Frontier
    last: Entry | None


def rows_from(connection: Connection, start: int) -> Iterator[list[bytes]]:
    """Batches of the bodies of consecutive entries. Raises IntegrityError E-JOURNAL-003 at a gap."""
    expected = start
    while True:
        asked = "SELECT seq, body FROM entry WHERE seq >= ? ORDER BY seq LIMIT ?"
        rows: list[Any] = connection.execute(asked, (expected, _BATCH)).fetchall()
        if not rows:
            return
        for number, row in enumerate(rows, expected):
            if row[0] != number:
                raise gap(number)
        expected += len(rows)
        yield [stored_bytes(row[1]) for row in rows]


def stored_bytes(value: object) -> bytes:
    """SQLite keeps any type in any column, and `bytes` of a number is that many zeros. Raises IntegrityError E-JOURNAL-001."""
    if not isinstance(value, bytes):
        raise malformed()
    return value


def stored_note(value: object) -> str:
    """Raises IntegrityError E-JOURNAL-001."""
    if not isinstance(value, str):
        raise malformed()
    return value


def checkpoint_rows(connection: Connection) -> list[tuple[int, str]]:
    return connection.execute("SELECT size, note FROM checkpoint ORDER BY size").fetchall()


def stored_checkpoint(log: Verifier, size: int, note: str) -> Checkpoint:
    try:
        checkpoint = open_checkpoint(stored_note(note), log)
    except IntegrityError as error:
        if error.code in ("E-NOTE-002", "E-NOTE-003"):
            raise IntegrityError(
                "E-JOURNAL-004",
                f"the checkpoint of size {size} is not signed by the journal's key",
                "Check that the trust root is the right one; if it is, the checkpoint was forged or altered",
            ) from None
        raise _not_its_note(size) from None
    if checkpoint.size != size:
        raise _not_its_note(size)
    return checkpoint


def _not_its_note(size: int) -> IntegrityError:
    return IntegrityError(
        "E-JOURNAL-014", f"the stored checkpoint of size {size} is malformed or of another size", "Restore the journal"
    )


def newest_checkpoint(connection: Connection, log: Verifier) -> Checkpoint:
    row = connection.execute("SELECT size, note FROM checkpoint ORDER BY size DESC LIMIT 1").fetchone()
    return Checkpoint(log.name, 0, EMPTY_ROOT, "") if row is None else stored_checkpoint(log, row[0], row[1])


def head_of(connection: Connection, log: Verifier) -> Head:
    """The frontier lies in the database without its last leaf: hashing the newest row onto it proves both at once."""
    newest = newest_checkpoint(connection, log)
    row = connection.execute("SELECT seq, body FROM entry ORDER BY seq DESC LIMIT 1").fetchone()
    refuse_other_size(0 if row is None else row[0] + 1, newest.size)
    if row is None:
        return Head(newest, Frontier(), None)
    seq, body = row[0], stored_bytes(row[1])
    kept = connection.execute("SELECT size, nodes FROM frontier WHERE id = 0").fetchone()
    try:
        before = Frontier.from_bytes(kept[0], stored_bytes(kept[1]))
        after = before.extended([leaf_hash(body)])
        if before.size == seq and after.root() == newest.root:
            return Head(newest, after, make_entry(body, seq))
    except (ValueError, TypeError):
        pass
    raise altered(0, newest.size)


def refuse_other_size(size: int, signed: int) -> None:
    if size < signed:
        raise truncated(size, signed, "its own checkpoint")
    if size > signed:
        raise unsigned_tail(signed, size)


def insert_entries(connection: Connection, start: int, bodies: Sequence[bytes]) -> None:
    for first in range(0, len(bodies), _ROWS_AT_ONCE):
        part = bodies[first : first + _ROWS_AT_ONCE]
        values: list[object] = [value for seq, body in enumerate(part, start + first) for value in (seq, body)]
        connection.execute(f"INSERT INTO entry VALUES {', '.join(['(?, ?)'] * len(part))}", values)  # noqa: S608


def put_state(connection: Connection, checkpoint: Checkpoint, before: Frontier) -> None:
    """The checkpoint over everything, and the frontier of all entries but the newest."""
    connection.execute("INSERT INTO checkpoint VALUES (?, ?)", (checkpoint.size, checkpoint.note))
    connection.execute(
        "INSERT INTO frontier VALUES (0, ?, ?) ON CONFLICT (id) DO UPDATE SET size = excluded.size, nodes = excluded.nodes",
        (before.size, before.to_bytes()),
    )

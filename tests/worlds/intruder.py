"""An attacker with the database of a journal: triggers dropped, any statement, and if he stole it, the journal's key."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from privacy.checkpoint import sign_checkpoint
from privacy.database import Place, PostgresPlace
from privacy.entries import journal_verifier, make_entry
from privacy.merkle import Frontier, leaf_hash
from privacy.signing import SigningKey

_TRIGGERS = {
    "entry": ("entry_update", "entry_delete"),
    "checkpoint": ("checkpoint_update", "checkpoint_delete"),
    "frontier": ("frontier_update", "frontier_delete"),
    "cosigned": ("cosigned_delete",),
}


class Intruder:
    """Statements with `?` on either ground."""

    def __init__(self, place: Place, *, drop_triggers: bool = True) -> None:
        self.place = place
        if drop_triggers:
            for table, names in _TRIGGERS.items():
                for name in names:
                    self(f"DROP TRIGGER IF EXISTS {name}" + (f" ON {table}" if isinstance(place, PostgresPlace) else ""))

    def __call__(self, statement: str, arguments: Sequence[Any] = ()) -> list[Any]:
        if isinstance(self.place, PostgresPlace):
            import psycopg

            settings = f"-c search_path={self.place.schema}"
            with psycopg.connect(self.place.dsn, autocommit=True, options=settings) as server:
                found = server.execute(statement.replace("?", "%s"), tuple(arguments))  # type: ignore[arg-type]
                return found.fetchall() if found.description else []
        with closing(sqlite3.connect(self.place, isolation_level=None, timeout=60)) as connection:
            return connection.execute(statement, arguments).fetchall()

    def body(self, seq: int) -> bytes:
        return bytes(self("SELECT body FROM entry WHERE seq = ?", (seq,))[0][0])

    def replace(self, seq: int, body: bytes) -> None:
        self("UPDATE entry SET body = ? WHERE seq = ?", (body, seq))

    def cut(self, size: int) -> None:
        """Everything from `size` on is gone, checkpoints too, and the frontier fits."""
        self("DELETE FROM entry WHERE seq >= ?", (size,))
        self("DELETE FROM checkpoint WHERE size > ?", (size,))
        self._put_frontier()

    def sign_again(self, key: SigningKey) -> None:
        """With the stolen key: one checkpoint over whatever is there now, and the frontier of it."""
        leaves = self._leaves()
        log = journal_verifier(key.public_hex)
        note = sign_checkpoint(log.name, len(leaves), Frontier().extended(leaves).root(), key).note
        self("DELETE FROM checkpoint")
        self("INSERT INTO checkpoint VALUES (?, ?)", (len(leaves), note))
        self._put_frontier()

    def renumber(self) -> None:
        """Close every gap, in the rows and in what they say."""
        for expected, (seq, body) in enumerate(self("SELECT seq, body FROM entry ORDER BY seq")):
            if seq != expected:
                entry = make_entry(bytes(body), seq)
                renamed = entry.body.replace(b'"seq":%d}' % seq, b'"seq":%d}' % expected)
                self("UPDATE entry SET seq = ?, body = ? WHERE seq = ?", (expected, renamed, seq))

    def _leaves(self) -> list[bytes]:
        return [leaf_hash(bytes(body)) for (body,) in self("SELECT body FROM entry ORDER BY seq")]

    def _put_frontier(self) -> None:
        before = Frontier().extended(self._leaves()[:-1])
        self("UPDATE frontier SET size = ?, nodes = ?", (before.size, before.to_bytes()))

"""The tables of the vault, and how its rows are looked up; SQL that SQLite and PostgreSQL both understand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from privacy.database import Connection, Refusal, Schema

_IN = 400  # values per IN (...)
_STAYS = "a tombstone stays"
SCHEMA = Schema(
    """
CREATE TABLE IF NOT EXISTS subject (
  dataset TEXT NOT NULL, token TEXT NOT NULL, wrapped TEXT NOT NULL, epoch INTEGER NOT NULL, PRIMARY KEY (dataset, token)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS subject_epoch ON subject (dataset, epoch);
CREATE TABLE IF NOT EXISTS original (
  dataset TEXT NOT NULL, token TEXT NOT NULL, record_id TEXT NOT NULL, payload BLOB NOT NULL, expires INTEGER,
  PRIMARY KEY (dataset, token, record_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS original_expires ON original (dataset, expires);
CREATE TABLE IF NOT EXISTS tombstone (
  dataset TEXT NOT NULL, token TEXT NOT NULL, case_id TEXT NOT NULL, at TEXT NOT NULL, was_known INTEGER NOT NULL,
  PRIMARY KEY (dataset, token)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS salt (
  dataset TEXT NOT NULL, token TEXT NOT NULL, case_id TEXT NOT NULL, kind TEXT NOT NULL, wrapped TEXT NOT NULL,
  PRIMARY KEY (dataset, token, case_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rotation (dataset TEXT NOT NULL PRIMARY KEY, newest INTEGER NOT NULL, state TEXT NOT NULL);
""",
    (
        Refusal("tombstone_update", "tombstone", "UPDATE", _STAYS),
        Refusal("tombstone_delete", "tombstone", "DELETE", _STAYS),
    ),
)


def wrapped_among(connection: Connection, dataset: str, tokens: Sequence[str]) -> dict[str, str]:
    found = _among(connection, "SELECT token, wrapped FROM subject WHERE dataset = ?", dataset, tokens)
    return {str(token): str(wrapped) for token, wrapped in found}


def tombstones_among(connection: Connection, dataset: str, tokens: Sequence[str]) -> frozenset[str]:
    found = _among(connection, "SELECT token FROM tombstone WHERE dataset = ?", dataset, tokens)
    return frozenset(str(token) for (token,) in found)


def _among(connection: Connection, select: str, dataset: str, tokens: Sequence[str]) -> Iterator[Any]:
    for start in range(0, len(tokens), _IN):
        part = tokens[start : start + _IN]
        yield from connection.execute(f"{select} AND token IN ({', '.join('?' * len(part))})", (dataset, *part)).fetchall()

"""Sealed originals by data subject: readable only through the keyring, and gone for good when the subject is erased.

Guarantee: a payload is encrypted under its subject's own random key, bound to dataset, subject and record; the
subject's identifier is never stored, only its token (keyed HMAC, one key per dataset, so tokens don't link datasets).
`erase` returns only when the wrapped key is no longer in the database file or its write-ahead log; a tombstone then keeps
the subject's records from coming back.
Assumption: exclusive local storage. Not covered: backups and copy-on-write media keep old bytes until the keyring
domain "<dataset>/vault" is destroyed; whoever holds the keyring can test guesses of an identifier against tokens
(pseudonymised data stays personal data).
"""

from __future__ import annotations

import base64
import hmac
import os
import sqlite3
import time
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from privacy.canonical import canonical_json
from privacy.database import BUSY_SECONDS, Database
from privacy.errors import DataError, EnvironmentFault, IntegrityError

_NONCE = 12
_TOKEN_BYTES = 15  # 120 bits: no two of 2^40 subjects share one, but for a chance of 2^-41; base32 without padding
_SCHEMA = """
CREATE TABLE IF NOT EXISTS subject (
  dataset TEXT NOT NULL, token TEXT NOT NULL, wrapped TEXT NOT NULL, PRIMARY KEY (dataset, token)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS original (
  dataset TEXT NOT NULL, token TEXT NOT NULL, record_id TEXT NOT NULL, payload BLOB NOT NULL,
  PRIMARY KEY (dataset, token, record_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tombstone (
  dataset TEXT NOT NULL, token TEXT NOT NULL, case_id TEXT NOT NULL, at TEXT NOT NULL, was_known INTEGER NOT NULL,
  PRIMARY KEY (dataset, token)
) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS tombstone_update BEFORE UPDATE ON tombstone BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS tombstone_delete BEFORE DELETE ON tombstone BEGIN SELECT RAISE(ABORT, 'append-only'); END;
"""


class KeyWrapper(Protocol):
    """What the vault needs of a keyring."""

    def wrap(self, domain: str, dek: bytes, context: bytes) -> str: ...
    def unwrap(self, wrapped: str, context: bytes) -> bytes: ...
    def derive(self, domain: str, label: str) -> bytes: ...


@dataclass(frozen=True, slots=True)
class ErasedFromVault:
    """What an erasure found. `records`: deleted now; `was_known`: the vault held this subject, now or at an earlier erasure."""

    token: str
    records: int
    was_known: bool


class Vault:
    """Safe for threads and processes."""

    __slots__ = ("_database", "_keyring", "_path")

    def __init__(self, path: Path, keyring: KeyWrapper) -> None:
        self._path = path
        self._keyring = keyring
        self._database = Database(path, _SCHEMA, erasing=True)

    def token(self, dataset: str, subject: str) -> str:
        return self.tokens(dataset, [subject])[0]

    def tokens(self, dataset: str, subjects: Sequence[str]) -> list[str]:
        """Stable pseudonyms, "u" + 24 of base32; spelling differences that NFKC, casefold and strip remove don't matter.

        Raises DataError E-VAULT-001 for an identifier that is empty then: it would join strangers under one token.
        """
        key = self._keyring.derive(f"{dataset}/token", "subject")
        known: dict[str, str] = {}
        for subject in subjects:
            if subject not in known:
                known[subject] = _token(key, subject)
        return [known[subject] for subject in subjects]

    def put_many(self, dataset: str, rows: Sequence[tuple[str, str, bytes]]) -> int:
        """Seal (token, record id, payload) rows; returns how many are new.

        A record that is there already, and any record of an erased subject, is left out.
        """
        with self._database.transaction() as connection:
            erased = _tombstones(connection, dataset)
            keys: dict[str, AESGCM] = {}
            added = 0
            for token, record_id, payload in sorted(rows, key=lambda row: row[:2]):
                if token in erased:
                    continue
                if token not in keys:
                    keys[token] = AESGCM(self._subject_key(connection, dataset, token))
                nonce = os.urandom(_NONCE)
                sealed = nonce + keys[token].encrypt(nonce, payload, _bound(dataset, token, record_id))
                row = (dataset, token, record_id, sealed)
                added += connection.execute("INSERT OR IGNORE INTO original VALUES (?, ?, ?, ?)", row).rowcount
            return added

    def reveal(self, dataset: str, token: str) -> list[tuple[str, bytes]]:
        """(record id, payload) of one subject, sorted; empty when unknown or erased. Raises IntegrityError E-VAULT-002."""
        with self._database.reading() as connection:
            wrapped = _wrapped(connection, dataset, token)
            rows: list[tuple[str, bytes]] = connection.execute(
                "SELECT record_id, payload FROM original WHERE dataset = ? AND token = ? ORDER BY record_id", (dataset, token)
            ).fetchall()
        if wrapped is None:
            if rows:
                raise _not_authentic()
            return []
        aead = AESGCM(self._keyring.unwrap(wrapped, _bound(dataset, token)))
        try:
            return [
                (record_id, aead.decrypt(sealed[:_NONCE], sealed[_NONCE:], _bound(dataset, token, record_id)))
                for record_id, sealed in rows
            ]
        except (InvalidTag, ValueError):
            raise _not_authentic() from None

    def erase(self, dataset: str, subject: str, case_id: str) -> ErasedFromVault:
        """Destroy a subject's key and rows, and remember by a tombstone not to take the subject in again.

        Safe to repeat. case_id names the request, not the person. Raises EnvironmentFault E-VAULT-003 when the rows are
        deleted but old bytes could not be cleared yet; running it again clears them.
        """
        token = self.token(dataset, subject)
        with self._database.transaction() as connection:
            wrapped = _wrapped(connection, dataset, token)
            which = (dataset, token)
            records = connection.execute("DELETE FROM original WHERE dataset = ? AND token = ?", which).rowcount
            connection.execute("DELETE FROM subject WHERE dataset = ? AND token = ?", which)
            at = datetime.now(UTC).isoformat(timespec="seconds")
            connection.execute(
                "INSERT OR IGNORE INTO tombstone VALUES (?, ?, ?, ?, ?)", (*which, case_id, at, wrapped is not None)
            )
            (was_known,) = connection.execute(
                "SELECT was_known FROM tombstone WHERE dataset = ? AND token = ?", which
            ).fetchone()
        self._clear_old_bytes(wrapped, rewrite=wrapped is None and bool(was_known))
        return ErasedFromVault(token, records, wrapped is not None or bool(was_known))

    def is_erased(self, dataset: str, token: str) -> bool:
        return token in self.erased_tokens(dataset)

    def erased_tokens(self, dataset: str) -> frozenset[str]:
        with self._database.reading() as connection:
            return _tombstones(connection, dataset)

    def datasets_of(self, subject: str) -> list[str]:
        """Datasets that hold the subject, or held it until an erasure (which may have to be finished elsewhere)."""
        with self._database.reading() as connection:
            names = connection.execute("SELECT dataset FROM subject UNION SELECT dataset FROM tombstone ORDER BY 1").fetchall()
        return [name for (name,) in names if self._knows(name, self.token(name, subject))]

    def _knows(self, dataset: str, token: str) -> bool:
        with self._database.reading() as connection:
            held = _wrapped(connection, dataset, token) is not None
            return held or token in _tombstones(connection, dataset)

    def _subject_key(self, connection: sqlite3.Connection, dataset: str, token: str) -> bytes:
        wrapped = _wrapped(connection, dataset, token)
        if wrapped is not None:
            return self._keyring.unwrap(wrapped, _bound(dataset, token))
        key = os.urandom(32)
        wrapped = self._keyring.wrap(f"{dataset}/vault", key, _bound(dataset, token))
        connection.execute("INSERT INTO subject VALUES (?, ?, ?)", (dataset, token, wrapped))
        return key

    def _clear_old_bytes(self, wrapped: str | None, rewrite: bool) -> None:
        """Empty the write-ahead log, then look for the wrapped key in the file itself.

        secure_delete clears the deleted cell, but moving cells between pages can leave a second copy; VACUUM then
        rewrites the file. Looking is cheap against promising. `rewrite`: an earlier erasure may have stopped here,
        and what to look for is no longer known.
        """
        needle = wrapped.rsplit(":", 1)[-1].encode() if wrapped else None
        with self._database.outside_transaction() as connection:
            self._checkpoint(connection)
            if rewrite or (needle and self._holds(needle)):
                connection.execute("VACUUM")
                self._checkpoint(connection)
        if needle and self._holds(needle):
            raise _not_cleared()

    def _checkpoint(self, connection: sqlite3.Connection) -> None:
        deadline = time.monotonic() + BUSY_SECONDS
        while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] != 0:
            if time.monotonic() > deadline:
                raise _not_cleared()
            time.sleep(0.05)

    def _holds(self, needle: bytes) -> bool:
        for suffix in ("", "-wal"):
            path = self._path.with_name(self._path.name + suffix)
            if not path.exists():
                continue
            with path.open("rb") as file:
                tail = b""
                while block := file.read(1 << 20):
                    if needle in tail + block:
                        return True
                    tail = block[-len(needle) :]
        return False


def normal_subject(subject: str) -> str:
    """The one spelling by which a subject is told from others; what shares it shares a token."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", subject).casefold()).strip()


def _token(key: bytes, subject: str) -> str:
    normal = normal_subject(subject)
    if not normal:
        raise DataError(
            "E-VAULT-001", "a record has an empty subject identifier", "Reject records without a subject before protecting"
        )
    mac = hmac.digest(key, normal.encode("utf-8", "surrogatepass"), "sha256")
    return "u" + base64.b32encode(mac[:_TOKEN_BYTES]).decode().lower()


def _wrapped(connection: sqlite3.Connection, dataset: str, token: str) -> str | None:
    row = connection.execute("SELECT wrapped FROM subject WHERE dataset = ? AND token = ?", (dataset, token)).fetchone()
    return str(row[0]) if row else None


def _tombstones(connection: sqlite3.Connection, dataset: str) -> frozenset[str]:
    return frozenset(t for (t,) in connection.execute("SELECT token FROM tombstone WHERE dataset = ?", (dataset,)))


def _bound(*names: str) -> bytes:
    return canonical_json(["vault", *names])


def _not_authentic() -> IntegrityError:
    return IntegrityError(
        "E-VAULT-002", "a sealed original is altered or of another place", "Restore the vault from its backup"
    )


def _not_cleared() -> EnvironmentFault:
    return EnvironmentFault(
        "E-VAULT-003",
        "the subject's rows are deleted, but old bytes of them could not be cleared while others read the vault",
        "Run the same erasure again when no other run is active",
    )

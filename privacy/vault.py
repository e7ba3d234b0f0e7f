"""Sealed originals by data subject: readable only through the keyring, and gone for good when the subject is erased.

Guarantee: a payload is encrypted under its subject's own random key, bound to dataset, subject and record; the key is
wrapped by the dataset's epoch key. The subject's identifier is never stored, only its token (privacy.tokens; one key per
dataset, so tokens don't link datasets). When `erase` returns, key and rows are durably out of the database and a tombstone
keeps the subject's records from coming back. Once `rotate_epoch` returned, no key wrapped before it can be unwrapped: what
backups, write-ahead logs and dead heap rows still hold of who was erased or expired before is worthless.
Assumption: the keyring's old epochs are not restored from a backup. Not covered: until the epoch ends, who holds the keyring
and an old copy of the database can read what the copy held.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from privacy.canonical import Digest, canonical_json
from privacy.database import Connection, Place, open_database
from privacy.epoch import EpochKeys, EpochRotation, rotate
from privacy.errors import EnvironmentFault, IntegrityError
from privacy.tokens import Tokens
from privacy.vault_tables import SCHEMA, tombstones_among, wrapped_among

if TYPE_CHECKING:
    import pyarrow as pa

TokenKind = Literal["subject", "field"]
CommitmentKind = Literal["erasure", "access"]
_PREFIX: Mapping[TokenKind, str] = {"subject": "u", "field": "f"}
_NONCE = 12


class KeyWrapper(EpochKeys, Protocol):
    """What the vault needs of a keyring."""

    def unwrap(self, wrapped: str, context: bytes, /) -> bytes: ...
    def unwrap_many(self, items: list[tuple[str, bytes]], /) -> list[bytes]: ...
    def derive(self, domain: str, label: str, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class ErasedFromVault:
    """What an erasure found. `records`: deleted now; `was_known`: the vault held this subject, now or at an earlier erasure.

    `cleared`: the write-ahead log was emptied, too. What a log or a dead page still holds ends with the epoch.
    """

    token: str
    records: int
    was_known: bool
    cleared: bool


@dataclass(frozen=True, slots=True)
class Holding:
    """What the vault holds of one subject in one dataset. Times are UTC, None when there is none."""

    dataset: str
    token: str
    records: int
    first_expiry: datetime | None
    last_expiry: datetime | None
    erased_at: str | None
    erased_by_case: str | None


@dataclass(frozen=True, slots=True)
class Expired:
    """Originals whose time was over, and subjects of whom nothing is left."""

    records: int
    subjects: int


class Vault:
    """Safe for threads and processes."""

    __slots__ = ("_database", "_keyring")

    def __init__(self, place: Place, keyring: KeyWrapper) -> None:
        self._keyring = keyring
        self._database = open_database(place, SCHEMA, erasing=True)

    def token(self, dataset: str, subject: str) -> str:
        return self.tokens(dataset, [subject])[0]

    def tokens(self, dataset: str, subjects: Sequence[str]) -> list[str]:
        """Stable pseudonyms; they survive epochs. Raises DataError E-VAULT-001 for an identifier that is empty."""
        return self._tokens(dataset, "subject").of(subjects)

    def tokens_array(self, dataset: str, subjects: pa.Array, kind: TokenKind = "subject") -> pa.Array:
        """The same for an Arrow column; over 3 million rows a second and core where values repeat."""
        return self._tokens(dataset, kind).of_array(subjects)

    def put_many(self, dataset: str, rows: Sequence[tuple[str, str, bytes]], expires: datetime | None = None) -> int:
        """Seal (token, record id, payload) rows; returns how many are new. expires: when `expire` deletes them.

        A record that is there already, and any record of an erased subject, is left out.
        """
        tokens = sorted({token for token, _, _ in rows})
        keys = self._open_keys(dataset, tokens)
        until = None if expires is None else int(expires.timestamp())
        with self._database.transaction() as connection:
            erased = tombstones_among(connection, dataset, tokens)
            live = [token for token in tokens if token not in erased]
            aeads = {token: AESGCM(dek) for token, dek in self._settle_keys(connection, dataset, live, keys).items()}
            added = 0
            for token, record_id, payload in sorted(rows, key=lambda row: row[:2]):
                if token in erased:
                    continue
                sealed = _seal(aeads[token], dataset, token, record_id, payload)
                added += connection.execute(
                    "INSERT INTO original VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    (dataset, token, record_id, sealed, until),
                ).rowcount
            return added

    def reveal(self, dataset: str, token: str) -> list[tuple[str, bytes]]:
        """(record id, payload) of one subject, sorted; empty when unknown or erased. Raises IntegrityError E-VAULT-002."""
        for last in (False, True):
            with self._database.reading() as connection:
                wrapped = wrapped_among(connection, dataset, [token]).get(token)
                rows: list[tuple[str, bytes]] = connection.execute(
                    "SELECT record_id, payload FROM original WHERE dataset = ? AND token = ? ORDER BY record_id",
                    (dataset, token),
                ).fetchall()
            if wrapped is None and not rows:
                return []
            if wrapped is None:
                raise _not_authentic()
            with _again_after_rotation(last):
                aead = AESGCM(self._keyring.unwrap(wrapped, _bound(dataset, token)))
                return [(record_id, _open(aead, dataset, token, record_id, bytes(sealed))) for record_id, sealed in rows]
        raise AssertionError

    def erase(self, dataset: str, subject: str, case_id: str) -> ErasedFromVault:
        """Delete a subject's key and rows, and remember by a tombstone not to take the subject in again.

        Safe to repeat; durable when it returns. case_id names the request, not the person. Salts of earlier access
        requests go too: their commitments can never be linked to anybody again.
        """
        token = self.token(dataset, subject)
        salt = self._new_salt(dataset, token, case_id)
        which = (dataset, token)
        with self._database.transaction() as connection:
            records = connection.execute("DELETE FROM original WHERE dataset = ? AND token = ?", which).rowcount
            held = connection.execute("DELETE FROM subject WHERE dataset = ? AND token = ?", which).rowcount > 0
            at = datetime.now(UTC).isoformat(timespec="seconds")
            insert = "INSERT INTO tombstone VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
            connection.execute(insert, (*which, case_id, at, int(held)))
            connection.execute("DELETE FROM salt WHERE dataset = ? AND token = ? AND kind = 'access'", which)
            _keep_salt(connection, dataset, token, case_id, "erasure", salt)
            (was_known,) = connection.execute(
                "SELECT was_known FROM tombstone WHERE dataset = ? AND token = ?", which
            ).fetchone()
        return ErasedFromVault(token, records, held or bool(was_known), self._emptied_log())

    def rotate_epoch(self, dataset: str) -> EpochRotation:
        """Rewrap the survivors under a new epoch key and destroy the older ones; see `privacy.epoch.rotate`."""
        return rotate(self._database, self._keyring, dataset, lambda token: _bound(dataset, token))

    def expire(self, dataset: str, now: datetime) -> Expired:
        """Delete originals whose time is over. A subject keeps what is not: under a new key, so that the old one dies too."""
        limit, total = int(now.timestamp()), Expired(0, 0)
        overdue = "SELECT DISTINCT token FROM original WHERE dataset = ? AND expires <= ? ORDER BY token LIMIT 200"
        while True:
            with self._database.transaction() as connection:
                tokens = [str(token) for (token,) in connection.execute(overdue, (dataset, limit)).fetchall()]
                if not tokens:
                    return total
                done = self._expire_some(connection, dataset, tokens, limit)
            total = Expired(total.records + done.records, total.subjects + done.subjects)

    def overdue(self, dataset: str, now: datetime) -> int:
        """Originals that `expire` would delete."""
        with self._database.reading() as connection:
            count = "SELECT count(*) FROM original WHERE dataset = ? AND expires <= ?"
            return int(connection.execute(count, (dataset, int(now.timestamp()))).fetchone()[0])

    def is_erased(self, dataset: str, token: str) -> bool:
        with self._database.reading() as connection:
            return bool(tombstones_among(connection, dataset, [token]))

    def erased_tokens(self, dataset: str) -> frozenset[str]:
        with self._database.reading() as connection:
            found = connection.execute("SELECT token FROM tombstone WHERE dataset = ?", (dataset,))
            return frozenset(str(token) for (token,) in found)

    def datasets(self) -> list[str]:
        """Every dataset that has, or had, a subject here."""
        with self._database.reading() as connection:
            found = connection.execute("SELECT dataset FROM subject UNION SELECT dataset FROM tombstone ORDER BY 1")
            return [str(name) for (name,) in found]

    def datasets_of(self, subject: str) -> list[str]:
        """Datasets that hold the subject, or held it until an erasure (which may have to be finished elsewhere)."""
        found = [self.holding(name, subject) for name in self.datasets()]
        return [h.dataset for h in found if h is not None]

    def holding(self, dataset: str, subject: str) -> Holding | None:
        """What the vault holds of a subject; None when it never knew of them. Reads no payload."""
        token = self.token(dataset, subject)
        with self._database.reading() as connection:
            held = token in wrapped_among(connection, dataset, [token])
            records, first, last = connection.execute(
                "SELECT count(*), min(expires), max(expires) FROM original WHERE dataset = ? AND token = ?", (dataset, token)
            ).fetchone()
            stone = connection.execute(
                "SELECT at, case_id FROM tombstone WHERE dataset = ? AND token = ?", (dataset, token)
            ).fetchone()
        if not held and stone is None and not records:
            return None
        at, case_id = stone or (None, None)
        return Holding(dataset, token, int(records), _moment(first), _moment(last), at, case_id)

    def commitment(self, dataset: str, token: str, case_id: str, kind: CommitmentKind) -> Digest:
        """Stands for the subject in journal and receipt: HMAC under a random salt that lies, wrapped, in this vault only.

        The same for the same case while the salt lives. Without vault and keyring nobody can check a guess against it.
        """
        known = self.known_commitment(dataset, token, case_id)
        if known is None:
            salt = self._new_salt(dataset, token, case_id)
            with self._database.transaction() as connection:
                _keep_salt(connection, dataset, token, case_id, kind, salt)
            known = self.known_commitment(dataset, token, case_id)
            assert known is not None
        return known

    def known_commitment(self, dataset: str, token: str, case_id: str) -> Digest | None:
        """The same, for checking: None where the case has no salt (any more) for this subject."""
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT wrapped FROM salt WHERE dataset = ? AND token = ? AND case_id = ?", (dataset, token, case_id)
            ).fetchone()
        if row is None:
            return None
        salt = self._keyring.unwrap(str(row[0]), _bound(dataset, token, case_id))
        return "sha256:" + hmac.digest(salt, canonical_json([dataset, case_id, token]), "sha256").hex()

    def _tokens(self, dataset: str, kind: TokenKind) -> Tokens:
        return Tokens(self._keyring.derive(f"{dataset}/token", kind), _PREFIX[kind])

    def _new_salt(self, dataset: str, token: str, case_id: str) -> str:
        return self._keyring.wrap(f"{dataset}/erasure", os.urandom(32), _bound(dataset, token, case_id))

    def _new_key(self, dataset: str, token: str) -> tuple[str, bytes]:
        dek = os.urandom(32)
        return self._keyring.wrap(f"{dataset}/vault", dek, _bound(dataset, token)), dek

    def _open_keys(self, dataset: str, tokens: Sequence[str]) -> dict[str, tuple[str, bytes]]:
        """(wrapped, key) by token, outside any transaction: a slow key service must not hold up other writers."""
        for last in (False, True):
            with self._database.reading() as connection:
                held = wrapped_among(connection, dataset, tokens)
            with _again_after_rotation(last):
                opened = self._unwrap(dataset, held)
                return {t: (held[t], opened[t]) if t in held else self._new_key(dataset, t) for t in tokens}
        raise AssertionError

    def _settle_keys(
        self, connection: Connection, dataset: str, tokens: Sequence[str], keys: Mapping[str, tuple[str, bytes]]
    ) -> dict[str, bytes]:
        """The keys that count inside the transaction, whatever another process did since they were opened."""
        held = wrapped_among(connection, dataset, tokens)
        newest = connection.execute("SELECT newest FROM rotation WHERE dataset = ?", (dataset,)).fetchone()
        for token in tokens:
            if token in held:
                continue
            wrapped, dek = keys[token]
            epoch = self._keyring.epoch_of(wrapped)[1]
            if newest is not None and epoch < newest[0]:  # a rotation began meanwhile: its old epoch must gain no row
                wrapped = self._keyring.wrap(f"{dataset}/vault", dek, _bound(dataset, token))
                epoch = self._keyring.epoch_of(wrapped)[1]
            connection.execute("INSERT INTO subject VALUES (?, ?, ?, ?)", (dataset, token, wrapped, epoch))
        changed = {t: w for t, w in held.items() if w != keys[t][0]}
        return {t: keys[t][1] for t in tokens} | self._unwrap(dataset, changed)

    def _unwrap(self, dataset: str, wrapped: Mapping[str, str]) -> dict[str, bytes]:
        if not wrapped:
            return {}
        opened = self._keyring.unwrap_many([(text, _bound(dataset, token)) for token, text in wrapped.items()])
        return dict(zip(wrapped, opened, strict=True))

    def _expire_some(self, connection: Connection, dataset: str, tokens: Sequence[str], limit: int) -> Expired:
        records = subjects = 0
        held = wrapped_among(connection, dataset, tokens)
        old_keys = self._unwrap(dataset, held)
        for token in tokens:
            which = (dataset, token)
            records += connection.execute(
                "DELETE FROM original WHERE dataset = ? AND token = ? AND expires <= ?", (*which, limit)
            ).rowcount
            kept = connection.execute(
                "SELECT record_id, payload FROM original WHERE dataset = ? AND token = ?", which
            ).fetchall()
            if not kept:
                subjects += 1
                connection.execute("DELETE FROM subject WHERE dataset = ? AND token = ?", which)
                continue
            if token not in held:
                raise _not_authentic()
            wrapped, dek = self._new_key(dataset, token)
            old, new = AESGCM(old_keys[token]), AESGCM(dek)
            for record_id, sealed in kept:
                payload = _seal(new, dataset, token, record_id, _open(old, dataset, token, record_id, bytes(sealed)))
                connection.execute(
                    "UPDATE original SET payload = ? WHERE dataset = ? AND token = ? AND record_id = ?",
                    (payload, *which, record_id),
                )
            connection.execute(
                "UPDATE subject SET wrapped = ?, epoch = ? WHERE dataset = ? AND token = ?",
                (wrapped, self._keyring.epoch_of(wrapped)[1], *which),
            )
        return Expired(records, subjects)

    def _emptied_log(self) -> bool:
        """Without waiting for readers: whatever is left there ends with the epoch."""
        if self._database.dialect != "sqlite":
            return False
        with suppress(EnvironmentFault), self._database.outside_transaction() as connection:
            connection.execute("PRAGMA busy_timeout = 0")
            return bool(connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0)
        return False


@contextmanager
def _again_after_rotation(last: bool) -> Iterator[None]:
    """A key that was rewrapped between our look and its use: the caller looks again, once."""
    try:
        yield
    except IntegrityError as error:
        if last or error.code != "E-KEY-006":
            raise


def _seal(aead: AESGCM, dataset: str, token: str, record_id: str, payload: bytes) -> bytes:
    nonce = os.urandom(_NONCE)
    return nonce + aead.encrypt(nonce, payload, _bound(dataset, token, record_id))


def _open(aead: AESGCM, dataset: str, token: str, record_id: str, sealed: bytes) -> bytes:
    try:
        return aead.decrypt(sealed[:_NONCE], sealed[_NONCE:], _bound(dataset, token, record_id))
    except (InvalidTag, ValueError):
        raise _not_authentic() from None


def _keep_salt(connection: Connection, dataset: str, token: str, case_id: str, kind: CommitmentKind, wrapped: str) -> None:
    connection.execute(
        "INSERT INTO salt VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", (dataset, token, case_id, kind, wrapped)
    )


def _moment(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _bound(*names: str) -> bytes:
    return canonical_json(["vault", *names])


def _not_authentic() -> IntegrityError:
    return IntegrityError(
        "E-VAULT-002", "a sealed original is altered or of another place", "Restore the vault from its backup"
    )

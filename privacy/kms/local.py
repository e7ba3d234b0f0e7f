"""The key service in a file, for one machine: no server, the same contract.

Guarantee: the file opens with the root (a 0600 key file, or a passphrase through Argon2id) or with a role key, which
opens the keys it was granted and can change nothing; every byte is under the root holder's signature; each change is
one atomic replacement under a lock, and no copy of the old file is kept (a backup would defeat `destroy`).
Assumption: files are as private as `privacy.owner_only` demands. Not covered: a restored older copy of this file brings
destroyed versions back, and so does a role holder who kept a key's bytes; a key service elsewhere does not have this.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from privacy.canonical import Json, canonical_json
from privacy.errors import UsageError
from privacy.kms import (
    Context,
    KeyVersion,
    Wrapped,
    bound,
    checked_dek,
    checked_key_id,
    denied,
    destroyed,
    newest_stays,
    no_such_key,
    not_unwrappable,
)
from privacy.kms.local_file import (
    Grant,
    KmsFile,
    Root,
    Version,
    altered,
    decode,
    expand,
    open_as,
    seal_for,
)
from privacy.kms.local_secret import KeyFile, Passphrase, RoleKey, Secret, master_of, protect
from privacy.owner_only import Stamp, only_writer, read_owner_only, stamp_of, write_owner_only

_NONCE = 12


@dataclass(frozen=True, slots=True)
class _Snapshot:
    stamp: Stamp
    file: KmsFile
    opened: dict[tuple[str, int], bytes] = field(default_factory=dict, repr=False)


class LocalKms:
    """Safe for threads and processes; shows no key in repr or pickle."""

    __slots__ = ("_path", "_role", "_root", "_snapshot")

    def __init__(self, path: Path, secret: Secret) -> None:
        """Raises IntegrityError E-KEY-004 (altered, or another root key), E-KEY-007, E-KMS-010 (wrong passphrase)."""
        self._path = path
        data, stamp = read_owner_only(path)
        self._role = secret if isinstance(secret, RoleKey) else None
        self._root: Root | None = None
        if isinstance(secret, RoleKey):
            file = decode(data, secret.signer)
            if file.id != secret.kms_id:
                raise altered()
        else:
            unproven = decode(data, None)
            self._root = Root.of(master_of(unproven, secret))
            file = decode(data, self._root.public)
        self._snapshot = _Snapshot(stamp, file)

    @classmethod
    def found(cls, path: Path, secret: KeyFile | Passphrase) -> LocalKms:
        """A new file, and a new root key unless one lies there from a creation that was cut short."""
        with only_writer(path):
            if path.exists() or path.is_symlink():
                raise UsageError("E-KEY-001", "there is a keyring here already", "Open it, or name another home")
            if isinstance(secret, KeyFile) and not secret.path.exists():
                write_owner_only(secret.path, os.urandom(32).hex().encode() + b"\n")
            master, identity = os.urandom(32), os.urandom(16).hex()
            root = Root.of(master)
            protection = protect(master, secret, identity)
            write_owner_only(path, root.encode(KmsFile(identity, protection, root.public)))
        return cls(path, secret)

    @property
    def backend(self) -> str:
        return "local"

    @property
    def role(self) -> str | None:
        """The role whose key opened the file; None for the root."""
        return self._role.role if self._role else None

    def create(self, key_id: str) -> None:
        checked_key_id(key_id)
        if key_id in self._file().keys:
            return
        with self._changing() as (root, file):
            if key_id not in file.keys:
                self._save(root, _with_new_version(root, file, key_id, 1))

    def wrap(self, key_id: str, dek: bytes, ctx: Context) -> Wrapped:
        checked_dek(dek)
        number = self._newest(key_id)
        nonce = os.urandom(_NONCE)
        blob = nonce + AESGCM(self._secret(key_id, number)).encrypt(nonce, dek, _bound(key_id, number, ctx))
        return Wrapped(key_id, number, base64.urlsafe_b64encode(blob).decode())

    def unwrap(self, wrapped: Wrapped, ctx: Context) -> bytes:
        try:
            blob = base64.urlsafe_b64decode(wrapped.blob)
            if base64.urlsafe_b64encode(blob).decode() != wrapped.blob:
                raise not_unwrappable()
            key = AESGCM(self._secret(wrapped.key_id, wrapped.version))
            return key.decrypt(blob[:_NONCE], blob[_NONCE:], _bound(wrapped.key_id, wrapped.version, ctx))
        except (InvalidTag, ValueError, binascii.Error):
            raise not_unwrappable() from None

    def rewrap(self, wrapped: Wrapped, ctx: Context) -> Wrapped:
        return self.wrap(wrapped.key_id, self.unwrap(wrapped, ctx), ctx)

    def rewrap_many(self, items: Sequence[tuple[Wrapped, Context]]) -> list[Wrapped]:
        return [self.rewrap(wrapped, ctx) for wrapped, ctx in items]

    def rotate(self, key_id: str) -> int:
        with self._changing() as (root, file):
            number = max(_versions(file, key_id)) + 1
            self._save(root, _with_new_version(root, file, key_id, number))
        return number

    def destroy(self, key_id: str, version: int) -> None:
        with self._changing() as (root, file):
            known = _versions(file, key_id)
            if version >= max(known):
                raise newest_stays()
            for number in known:
                if number <= version:
                    file = file.with_version(key_id, number, Version(None, {}))
            self._save(root, file)

    def versions(self, key_id: str) -> tuple[KeyVersion, ...]:
        known = _versions(self._file(), key_id)
        return tuple(KeyVersion(n, "live" if known[n].root is not None else "destroyed") for n in sorted(known))

    def granted(self) -> Mapping[str, tuple[str, ...]]:
        """Key ids by role."""
        return {role: grant.keys for role, grant in self._file().grants.items()}

    def grant(self, role: str, key_ids: Sequence[str], path: Path) -> None:
        """Write a new role key to `path` (never overwrites) and open the live versions of these keys to it.

        Raises UsageError E-KMS-015 when the role has a key, or the file exists.
        """
        with self._changing() as (root, file):
            if role in file.grants or path.exists() or path.is_symlink():
                raise UsageError(
                    "E-KMS-015",
                    "the role has a key already, or that file exists",
                    "Revoke it, or name a new file",
                )
            private = X25519PrivateKey.generate()
            grant = Grant(private.public_key().public_bytes_raw().hex(), tuple(key_ids))
            granted = replace(file, grants={**file.grants, role: grant})
            for key_id in key_ids:
                for number, version in _versions(file, key_id).items():
                    if version.root is not None:
                        secret = root.open(file, key_id, number, version)
                        roles = {**version.roles, role: seal_for(grant.public, role, file, key_id, number, secret)}
                        granted = granted.with_version(key_id, number, Version(version.root, roles))
            body: dict[str, Json] = {
                "privet_role_key": 1,
                "role": role,
                "kms": file.id,
                "private": private.private_bytes_raw().hex(),
                "signer": root.public,
            }
            write_owner_only(path, canonical_json(body))  # before the grant: a crash leaves a key that opens nothing
            self._save(root, granted)

    def revoke(self, role: str) -> tuple[str, ...]:
        """The role's key opens nothing any more; returns the keys it could open, which should be rotated now.

        Not covered: what its holder copied while it was open to them. Raises UsageError E-KMS-016 when it has no key.
        """
        with self._changing() as (root, file):
            grant = file.grants.get(role)
            if grant is None:
                raise UsageError("E-KMS-016", "that role has no key here", "See privet keys list")
            left = replace(file, grants={name: g for name, g in file.grants.items() if name != role})
            for key_id, versions in file.keys.items():
                for number, version in versions.items():
                    roles = {name: text for name, text in version.roles.items() if name != role}
                    left = left.with_version(key_id, number, Version(version.root, roles))
            self._save(root, left)
            return grant.keys

    def protect_with(self, secret: Passphrase) -> None:
        """Change the passphrase, or go from key file to passphrase: the keys stay, and so do the roles'."""
        with self._changing() as (root, file):
            self._save(root, replace(file, protection=protect(root.master, secret, file.id)))

    def __repr__(self) -> str:
        return f"LocalKms({len(self._snapshot.file.keys)} keys)"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a key service is not picklable")

    def _newest(self, key_id: str) -> int:
        return max(_versions(self._file(), key_id))

    def _secret(self, key_id: str, number: int) -> bytes:
        snapshot = self._fresh()
        version = _versions(snapshot.file, key_id).get(number)
        if version is None or version.root is None:
            raise destroyed()
        found = snapshot.opened.get((key_id, number))
        if found is None:
            found = snapshot.opened[(key_id, number)] = self._open(snapshot.file, key_id, number, version)
        return found

    def _open(self, file: KmsFile, key_id: str, number: int, version: Version) -> bytes:
        if self._root is not None:
            return expand(self._root.open(file, key_id, number, version), "kms/aead")
        assert self._role is not None
        text = version.roles.get(self._role.role)
        if text is None:
            raise denied("local")
        return expand(open_as(self._role.private, self._role.role, file, key_id, number, text), "kms/aead")

    def _file(self) -> KmsFile:
        return self._fresh().file

    def _fresh(self) -> _Snapshot:
        """Read anew when it was replaced, so that what was destroyed or revoked elsewhere is so here too."""
        snapshot = self._snapshot
        return snapshot if stamp_of(self._path) == snapshot.stamp else self._load()

    def _load(self) -> _Snapshot:
        data, stamp = read_owner_only(self._path)
        signer = self._root.public if self._root else self._role.signer if self._role else None
        snapshot = self._snapshot = _Snapshot(stamp, decode(data, signer))
        return snapshot

    @contextmanager
    def _changing(self) -> Iterator[tuple[Root, KmsFile]]:
        if self._root is None:
            raise denied("local")
        with only_writer(self._path):
            yield self._root, self._load().file

    def _save(self, root: Root, file: KmsFile) -> None:
        write_owner_only(self._path, root.encode(file))
        self._load()


def _with_new_version(root: Root, file: KmsFile, key_id: str, number: int) -> KmsFile:
    secret = os.urandom(32)
    roles = {
        role: seal_for(grant.public, role, file, key_id, number, secret)
        for role, grant in file.grants.items()
        if key_id in grant.keys
    }
    return file.with_version(key_id, number, Version(root.seal(file, key_id, number, secret), roles))


def _versions(file: KmsFile, key_id: str) -> Mapping[int, Version]:
    versions = file.keys.get(key_id)
    if not versions:
        raise no_such_key()
    return versions


def _bound(key_id: str, number: int, ctx: Context) -> bytes:
    return canonical_json([key_id, number, bound(ctx).hex()])

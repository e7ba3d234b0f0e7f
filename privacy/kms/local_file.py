"""The file of the local key service: its shape, its signature, and who can open which of its keys.

Guarantee: one signature of the root holder covers every byte, so a role that can open some keys can change none; each
version of a key lies there once wrapped for the root and once, by HPKE, for each role that was granted it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from privacy.canonical import Json, canonical_json, parse_json
from privacy.errors import IntegrityError, PrivetError

_NONCE = 12
_SIGNED = b"privet local kms v1\n"
HPKE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a key: sealed for the root (None once destroyed) and for roles."""

    root: str | None
    roles: Mapping[str, str]

    def to_json(self) -> dict[str, Json]:
        return {"root": self.root, "roles": dict(self.roles)}


@dataclass(frozen=True, slots=True)
class Grant:
    public: str
    keys: tuple[str, ...]

    def to_json(self) -> dict[str, Json]:
        return {"public": self.public, "keys": list(self.keys)}


@dataclass(frozen=True, slots=True)
class KmsFile:
    """`protection` says how the master key is kept; `public` verifies the signature."""

    id: str
    protection: Mapping[str, Json]
    public: str
    keys: Mapping[str, Mapping[int, Version]] = field(default_factory=dict)
    grants: Mapping[str, Grant] = field(default_factory=dict)

    def body(self) -> dict[str, Json]:
        keys = {key: {str(n): v.to_json() for n, v in versions.items()} for key, versions in self.keys.items()}
        grants = {role: grant.to_json() for role, grant in self.grants.items()}
        return {
            "kms": "local",
            "v": 1,
            "id": self.id,
            "protection": dict(self.protection),
            "public": self.public,
            "keys": keys,
            "grants": grants,
        }

    def with_version(self, key_id: str, number: int, version: Version) -> KmsFile:
        versions = {**self.keys.get(key_id, {}), number: version}
        return replace(self, keys={**self.keys, key_id: versions})


@dataclass(frozen=True, slots=True)
class Root:
    """What the holder of the master key can do."""

    master: bytes = field(repr=False)
    kek: bytes = field(repr=False)
    signer: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def of(cls, master: bytes) -> Root:
        return cls(master, expand(master, "kms/wrap"), Ed25519PrivateKey.from_private_bytes(expand(master, "kms/sign")))

    @property
    def public(self) -> str:
        return self.signer.public_key().public_bytes_raw().hex()

    def seal(self, file: KmsFile, key_id: str, number: int, secret: bytes) -> str:
        return sealed(self.kek, secret, _place(file, key_id, number, "")).hex()

    def open(self, file: KmsFile, key_id: str, number: int, version: Version) -> bytes:
        assert version.root is not None
        return unsealed(self.kek, bytes.fromhex(version.root), _place(file, key_id, number, ""))

    def encode(self, file: KmsFile) -> bytes:
        body = file.body()
        signature = self.signer.sign(_SIGNED + canonical_json(body))
        return canonical_json({**body, "signature": signature.hex()})


def seal_for(public: str, role: str, file: KmsFile, key_id: str, number: int, secret: bytes) -> str:
    """For one role, by its public key."""
    info = _place(file, key_id, number, role)
    return HPKE.encrypt(secret, X25519PublicKey.from_public_bytes(bytes.fromhex(public)), info=info).hex()


def open_as(private: X25519PrivateKey, role: str, file: KmsFile, key_id: str, number: int, sealed_hex: str) -> bytes:
    try:
        return HPKE.decrypt(bytes.fromhex(sealed_hex), private, info=_place(file, key_id, number, role))
    except (InvalidTag, ValueError):
        raise altered() from None


def decode(data: bytes, public: str | None) -> KmsFile:
    """Check shape and signature; against `public` when whoever opens it knows the signer. Raises IntegrityError E-KEY-004."""
    try:
        value = parse_json(data)
        if not isinstance(value, Mapping):
            raise altered()
        signature = bytes.fromhex(str(value["signature"]))
        file = _file(value)
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public or file.public)).verify(
            signature, _SIGNED + canonical_json(file.body())
        )
    except (InvalidSignature, KeyError, ValueError, TypeError, PrivetError):
        raise altered() from None
    if canonical_json({**file.body(), "signature": signature.hex()}) != data:
        raise altered()
    return file


def sealed(key: bytes, plain: bytes, place: bytes) -> bytes:
    nonce = os.urandom(_NONCE)
    return nonce + AESGCM(key).encrypt(nonce, plain, place)


def unsealed(key: bytes, data: bytes, place: bytes) -> bytes:
    """Raises IntegrityError E-KEY-004."""
    try:
        return AESGCM(key).decrypt(data[:_NONCE], data[_NONCE:], place)
    except (InvalidTag, ValueError):
        raise altered() from None


def expand(key: bytes, label: str) -> bytes:
    return HKDF(SHA256(), 32, salt=None, info=b"privet/" + label.encode()).derive(key)


def altered() -> IntegrityError:
    return IntegrityError(
        "E-KEY-004",
        "the keyring does not belong to this root key, or was altered",
        "Restore keyring.json, roots.json and root.key of the same home",
    )


def _place(file: KmsFile, key_id: str, number: int, role: str) -> bytes:
    return canonical_json(["privet local kms", file.id, key_id, number, role])


def _file(value: Mapping[str, Json]) -> KmsFile:
    match dict(value):
        case {
            "kms": "local",
            "v": 1,
            "id": str(id_),
            "protection": dict(protection),
            "public": str(public),
            "keys": dict(keys),
            "grants": dict(grants),
            "signature": str(),
            **rest,
        } if not rest:
            found = {key: {int(n): _version(v) for n, v in dict(vs).items()} for key, vs in keys.items()}
            return KmsFile(id_, protection, public, found, {role: _grant(g) for role, g in grants.items()})
    raise altered()


def _version(value: Json) -> Version:
    match value:
        case {"root": str() | None as root, "roles": dict(roles), **rest} if not rest:
            return Version(root, {str(role): str(text) for role, text in roles.items()})
    raise altered()


def _grant(value: Json) -> Grant:
    match value:
        case {"public": str(public), "keys": list(keys), **rest} if not rest:
            return Grant(public, tuple(str(key) for key in keys))
    raise altered()

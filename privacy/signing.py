"""Ed25519 identities, DSSE envelopes around in-toto statements, and the trust root.

Guarantee: `open_envelope` returns a payload only if a key of the trust root signed exactly those bytes, and
the envelope has exactly one spelling (canonical JSON, canonical base64), so no byte of it is free to change.
Not covered: whether the person who holds the key was right to sign.
Source: DSSE v1.0 (secure-systems-lab/dsse, protocol.md); in-toto attestation framework, Statement v1.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from privacy.canonical import Digest, Json, canonical_json, digest_of, parse_canonical
from privacy.errors import IntegrityError

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
Custody = Literal["own", "demo"]


class SigningKey:
    """An Ed25519 private key; it never shows in repr, str or pickle."""

    __slots__ = ("_key", "public_hex")

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_hex = self._key.public_key().public_bytes_raw().hex()

    @classmethod
    def generate(cls) -> SigningKey:
        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)

    def export_seed(self) -> bytes:
        """The 32 secret bytes, for writing to a 0600 key file only."""
        return self._key.private_bytes_raw()

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a signing key is not picklable")


def key_id(public_hex: str) -> str:
    return hashlib.sha256(bytes.fromhex(public_hex)).hexdigest()[:16]


def verify_signature(public_hex: str, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_hex)).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


@dataclass(frozen=True, slots=True)
class Person:
    """A key holder. `custody` "demo": the private key lies in the Privet home, so it proves no person's will."""

    name: str
    public_hex: str
    roles: tuple[str, ...]
    custody: Custody = "own"

    def to_json(self) -> dict[str, Json]:
        return {"name": self.name, "public_hex": self.public_hex, "roles": list(self.roles), "custody": self.custody}


@dataclass(frozen=True, slots=True)
class TrustRoot:
    """Who holds which role, by key. One key per person, one person per key."""

    people: tuple[Person, ...]

    def __post_init__(self) -> None:
        names = {p.name for p in self.people}
        keys = {p.public_hex for p in self.people}
        if len(names) != len(self.people) or len(keys) != len(self.people):
            raise IntegrityError(
                "E-TRUST-001", "the trust root lists a name or a key twice", "Give every person one key of their own"
            )

    def by_name(self, name: str) -> Person | None:
        return next((p for p in self.people if p.name == name), None)

    def by_key(self, public_hex: str) -> Person | None:
        return next((p for p in self.people if p.public_hex == public_hex), None)

    @property
    def digest(self) -> Digest:
        return digest_of(self.to_json())

    def to_json(self) -> dict[str, Json]:
        return {"trust_root": 1, "people": [p.to_json() for p in sorted(self.people, key=lambda p: p.name)]}

    @classmethod
    def from_json(cls, value: Json) -> TrustRoot:
        """Raises IntegrityError E-TRUST-002 for anything but a trust root."""
        match value:
            case {"trust_root": 1, "people": list(people)}:
                return cls(tuple(_person(p) for p in people))
        raise _bad_trust()


@dataclass(frozen=True, slots=True)
class Signed:
    """An opened envelope: who signed, and the statement."""

    signer: Person
    subject: Mapping[str, Digest]
    predicate_type: str
    predicate: Mapping[str, Json]


def make_statement(subject: Mapping[str, Digest], predicate_type: str, predicate: Mapping[str, Json]) -> bytes:
    """Canonical in-toto Statement v1 over named digests."""
    subjects: list[Json] = [
        {"name": name, "digest": {"sha256": digest.removeprefix("sha256:")}} for name, digest in sorted(subject.items())
    ]
    return canonical_json(
        {"_type": STATEMENT_TYPE, "subject": subjects, "predicateType": predicate_type, "predicate": predicate}
    )


def seal_envelope(payload: bytes, key: SigningKey) -> bytes:
    """DSSE envelope with one signature, as canonical JSON bytes."""
    signature = key.sign(_pre_authentication_encoding(payload))
    return canonical_json(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"keyid": key_id(key.public_hex), "sig": base64.b64encode(signature).decode()}],
        }
    )


def open_envelope(envelope: bytes, trust: TrustRoot) -> Signed:
    """Verify and parse. Raises IntegrityError E-SIGN-001 (malformed) or E-SIGN-002 (no trusted signature)."""
    payload, keyid, signature = _split(envelope)
    signer = next((p for p in trust.people if key_id(p.public_hex) == keyid), None)
    if signer is None or not verify_signature(signer.public_hex, signature, _pre_authentication_encoding(payload)):
        raise IntegrityError(
            "E-SIGN-002",
            "an envelope is not signed by a key of the trust root",
            "Check that the trust root is the right one; if it is, the statement was forged or altered",
        )
    return _statement(signer, parse_canonical(payload))


def _statement(signer: Person, value: Json) -> Signed:
    match value:
        case {
            "_type": str(kind),
            "subject": list(subjects),
            "predicateType": str(predicate_type),
            "predicate": dict(body),
            **rest,
        }:
            if kind == STATEMENT_TYPE and not rest:
                try:
                    named = {s["name"]: "sha256:" + s["digest"]["sha256"] for s in subjects}
                except (KeyError, TypeError):
                    raise _malformed() from None
                return Signed(signer, named, predicate_type, body)
    raise _malformed()


def _split(envelope: bytes) -> tuple[bytes, str, bytes]:
    match parse_canonical(envelope):
        case {"payload": str(payload), "payloadType": str(kind), "signatures": [dict(signature)], **rest}:
            match signature:
                case {"keyid": str(keyid), "sig": str(sig), **extra} if kind == PAYLOAD_TYPE and not rest and not extra:
                    return _strict_base64(payload), keyid, _strict_base64(sig)
    raise _malformed()


def _strict_base64(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _malformed() from None
    if base64.b64encode(data).decode() != text:  # trailing bits are free in base64, and must not be here
        raise _malformed()
    return data


def _pre_authentication_encoding(payload: bytes) -> bytes:
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _person(value: Json) -> Person:
    match value:
        case {"name": str(name), "public_hex": str(public), "roles": list(roles), "custody": "own" | "demo" as custody}:
            if re.fullmatch(r"[0-9a-f]{64}", public) and all(isinstance(r, str) for r in roles):
                return Person(name, public, tuple(str(r) for r in roles), custody)
    raise _bad_trust()


def _bad_trust() -> IntegrityError:
    return IntegrityError(
        "E-TRUST-002", "the trust root is malformed", "Restore trust.json, or pass the right file with --trust"
    )


def _malformed() -> IntegrityError:
    return IntegrityError("E-SIGN-001", "a signed envelope is malformed", "Restore the file from its source")

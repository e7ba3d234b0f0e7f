"""What the secret of one domain and epoch does: wrap file keys, open what write-only roles wrapped, derive HMAC keys.

Guarantee: a wrapped key is bound to domain, epoch and the caller's context, whichever way it was wrapped; the three uses
have keys of their own (HKDF). HPKE is RFC 9180 base mode, X25519, HKDF-SHA256, AES-256-GCM.
Not covered: who wrote. Whoever has the public key can wrap for it; what is stored is authenticated elsewhere, by digests.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from privacy.canonical import canonical_json
from privacy.errors import IntegrityError

_NONCE = 12
_WRAPPED = re.compile(r"([^@:]+)@([1-9]\d{0,8}):(h\.)?([A-Za-z0-9_=-]+)")
_HPKE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """The parsed text of a wrapped key: `domain@epoch:…`, or `domain@epoch:h.…` when wrapped for the public key."""

    domain: str
    epoch: int
    for_public: bool
    sealed: bytes

    @classmethod
    def parse(cls, text: str) -> WrappedKey:
        """Raises IntegrityError E-KEY-005; only the one spelling that `text` writes is read."""
        match = _WRAPPED.fullmatch(text)
        try:
            if match is not None:
                found = cls(match[1], int(match[2]), match[3] is not None, base64.urlsafe_b64decode(match[4]))
                if len(found.sealed) > _NONCE and found.text == text:
                    return found
        except (binascii.Error, ValueError):
            pass
        raise _not_unwrappable()

    @property
    def text(self) -> str:
        mark = "h." if self.for_public else ""
        return f"{self.domain}@{self.epoch}:{mark}{base64.urlsafe_b64encode(self.sealed).decode()}"


@dataclass(frozen=True, slots=True)
class DomainKey:
    """Made from a row's 32-byte secret; no field of it is ever shown."""

    aead: AESGCM = field(repr=False)
    deriving: bytes = field(repr=False)
    private: X25519PrivateKey = field(repr=False)

    @classmethod
    def of(cls, secret: bytes) -> DomainKey:
        private = X25519PrivateKey.from_private_bytes(expand(secret, "domain/hpke"))
        return cls(AESGCM(expand(secret, "domain/wrap")), expand(secret, "domain/derive"), private)

    @property
    def public(self) -> str:
        return self.private.public_key().public_bytes_raw().hex()

    def wrap(self, domain: str, epoch: int, dek: bytes, context: bytes) -> WrappedKey:
        nonce = os.urandom(_NONCE)
        return WrappedKey(domain, epoch, False, nonce + self.aead.encrypt(nonce, dek, _place(domain, epoch, context)))

    def unwrap(self, wrapped: WrappedKey, context: bytes) -> bytes:
        """Raises IntegrityError E-KEY-005."""
        place, sealed = _place(wrapped.domain, wrapped.epoch, context), wrapped.sealed
        try:
            if wrapped.for_public:
                return _HPKE.decrypt(sealed, self.private, info=place)
            return self.aead.decrypt(sealed[:_NONCE], sealed[_NONCE:], place)
        except (InvalidTag, ValueError):
            raise _not_unwrappable() from None

    def derive(self, label: str) -> bytes:
        return expand(self.deriving, "derive/" + label)

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a domain key is not picklable")


def wrap_for_public(public: str, domain: str, epoch: int, dek: bytes, context: bytes) -> WrappedKey:
    """Needs no secret, and gives none: who wraps this way can't unwrap it."""
    key = X25519PublicKey.from_public_bytes(bytes.fromhex(public))
    return WrappedKey(domain, epoch, True, _HPKE.encrypt(dek, key, info=_place(domain, epoch, context)))


def expand(key: bytes, label: str) -> bytes:
    return HKDF(SHA256(), 32, salt=None, info=b"privet/" + label.encode()).derive(key)


def _place(domain: str, epoch: int, context: bytes) -> bytes:
    return canonical_json({"domain": domain, "version": epoch, "context": context.hex()})


def _not_unwrappable() -> IntegrityError:
    return IntegrityError(
        "E-KEY-005", "a wrapped key is malformed, altered or of another place", "Restore the object it came from"
    )

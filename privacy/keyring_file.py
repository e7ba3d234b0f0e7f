"""The keyring file: one row per domain and epoch, a wrapped secret in each, and a MAC over all of it.

Guarantee: equal keyrings give equal bytes; no byte is free to change. The MAC key is itself wrapped by the key service,
and every role can unwrap it: it keeps out whoever has the disk but no role. What one role could do to another is bound
deeper: a row's public key, domain and epoch are part of the context its secret is wrapped with.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from privacy.canonical import Digest, Json, canonical_json, digest_bytes, parse_json
from privacy.errors import IntegrityError, PrivetError
from privacy.kms import Wrapped

Epochs = Mapping[int, "Row"]


@dataclass(frozen=True, slots=True)
class Row:
    """One epoch of a domain. `wrapped` is None once it is destroyed; the number stays, so that it is never used twice."""

    created_at: str
    public: str
    wrapped: Wrapped | None

    def to_json(self) -> dict[str, Json]:
        wrapped = None if self.wrapped is None else self.wrapped.to_json()
        return {"created_at": self.created_at, "public": self.public, "wrapped": wrapped}


@dataclass(frozen=True, slots=True)
class KeyringFile:
    """`doomed`: versions of KMS keys (and all older) under which copies of destroyed rows may exist elsewhere."""

    id: str
    prefix: str
    ring: Wrapped
    generation: int = 1
    domains: Mapping[str, Epochs] = field(default_factory=dict)
    doomed: Mapping[str, int] = field(default_factory=dict)

    def body(self) -> dict[str, Json]:
        domains = {name: {str(n): row.to_json() for n, row in epochs.items()} for name, epochs in self.domains.items()}
        return {
            "keyring": 2,
            "id": self.id,
            "prefix": self.prefix,
            "ring": self.ring.to_json(),
            "generation": self.generation,
            "domains": domains,
            "doomed": dict(self.doomed),
        }

    def key_id(self, group: str) -> str:
        return f"{self.prefix}-{group}"

    def with_row(self, domain: str, epoch: int, row: Row) -> KeyringFile:
        return replace(self, domains={**self.domains, domain: {**self.domains.get(domain, {}), epoch: row}})

    def row_context(self, domain: str, epoch: int, public: str) -> dict[str, str]:
        return {"purpose": "domain", "keyring": self.id, "domain": domain, "epoch": str(epoch), "public": public}

    def ring_context(self) -> dict[str, str]:
        return {"purpose": "ring", "keyring": self.id}

    def wrapped_rows(self) -> list[tuple[str, int, Row, Wrapped]]:
        return [(d, n, row, row.wrapped) for d, epochs in self.domains.items() for n, row in epochs.items() if row.wrapped]

    def encode(self, mac_key: bytes) -> bytes:
        body = self.body()
        return canonical_json({**body, "mac": _mac(mac_key, body)})


@dataclass(frozen=True, slots=True)
class Unchecked:
    """A parsed file whose MAC nobody has checked: all it may be used for is to ask the key service for the MAC key."""

    file: KeyringFile
    mac: str
    digest: Digest
    data: bytes = field(repr=False)

    def checked(self, mac_key: bytes) -> KeyringFile:
        """Raises IntegrityError E-KEY-004."""
        expected = _mac(mac_key, self.file.body())
        if not hmac.compare_digest(self.mac.encode(), expected.encode()):
            raise keyring_altered()
        if self.file.encode(mac_key) != self.data:
            raise keyring_altered()
        return self.file


def parse(data: bytes) -> Unchecked:
    """Raises IntegrityError E-KEY-004."""
    try:
        match parse_json(data):
            case {
                "keyring": 2,
                "id": str(id_),
                "prefix": str(prefix),
                "ring": dict(ring),
                "generation": int(generation),
                "domains": dict(domains),
                "doomed": dict(doomed),
                "mac": str(mac),
                **rest,
            } if not rest:
                found = {name: {int(n): _row(row) for n, row in dict(epochs).items()} for name, epochs in domains.items()}
                versions = {str(key): int(version) for key, version in doomed.items()}
                file = KeyringFile(id_, prefix, Wrapped.from_json(ring), generation, found, versions)
                return Unchecked(file, mac, digest_bytes(data), data)
    except (PrivetError, ValueError, TypeError):
        pass
    raise keyring_altered()


def keyring_altered() -> IntegrityError:
    return IntegrityError(
        "E-KEY-004",
        "the keyring does not belong to this root key, or was altered",
        "Restore keyring.json, roots.json and root.key of the same home",
    )


def _mac(key: bytes, body: Mapping[str, Json]) -> str:
    return hmac.digest(key, canonical_json(body), "sha256").hex()


def _row(value: Json) -> Row:
    match value:
        case {"created_at": str(at), "public": str(public), "wrapped": dict() | None as wrapped, **rest} if not rest:
            return Row(at, public, None if wrapped is None else Wrapped.from_json(wrapped))
    raise keyring_altered()

"""The contract with a key-management service: it wraps small keys under versioned keys that it does not let out.

Guarantee of every backend (one contract suite runs on all of them): a wrapped key opens under the very key id, version
and context it was wrapped with, and nothing else; after `rotate` the older versions still open; `rewrap` moves to the
newest; after `destroy` the versions it names open nothing, ever; faults are E-KMS codes without anything a server said.
Assumption: the service keeps its keys. Not covered: who has both the service's token and the wrapped keys has the data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from privacy.canonical import Json, canonical_json
from privacy.errors import EnvironmentFault, IntegrityError, UsageError

KEY_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
DEK_LIMIT = 1024
Context = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A wrapped key, safe to store in the clear. `blob` is the backend's own text."""

    key_id: str
    version: int
    blob: str = field(repr=False)

    def to_json(self) -> dict[str, Json]:
        return {"key_id": self.key_id, "version": self.version, "blob": self.blob}

    @classmethod
    def from_json(cls, value: Json) -> Wrapped:
        """Raises IntegrityError E-KMS-004."""
        match value:
            case {"key_id": str(key_id), "version": int(version), "blob": str(blob), **rest} if not rest:
                if KEY_ID.fullmatch(key_id) and not isinstance(version, bool) and version > 0:
                    return cls(key_id, version, blob)
        raise not_unwrappable()


@dataclass(frozen=True, slots=True)
class KeyVersion:
    version: int
    state: Literal["live", "destroyed"]


class Kms(Protocol):
    """Raises EnvironmentFault E-KMS-001 (unreachable), 002 (denied), 003 (token), 007 (unwell); IntegrityError E-KMS-004
    (not unwrappable), 005 (version destroyed); UsageError E-KMS-006 (no such key), 012 (newest version can't be destroyed)."""

    @property
    def backend(self) -> str: ...

    def create(self, key_id: str) -> None:
        """A new key at version 1; nothing when it exists."""

    def wrap(self, key_id: str, dek: bytes, ctx: Context) -> Wrapped:
        """Under the newest version. `ctx` is bound by authentication and is not stored."""

    def unwrap(self, wrapped: Wrapped, ctx: Context) -> bytes: ...

    def rewrap(self, wrapped: Wrapped, ctx: Context) -> Wrapped:
        """To the newest version; the context stays."""

    def rewrap_many(self, items: Sequence[tuple[Wrapped, Context]]) -> list[Wrapped]: ...

    def rotate(self, key_id: str) -> int:
        """Make a new version and return its number."""

    def destroy(self, key_id: str, version: int) -> None:
        """This version and every older one, for good. The newest can't be destroyed: rotate first."""

    def versions(self, key_id: str) -> tuple[KeyVersion, ...]:
        """Oldest first. What a backend forgot altogether is not listed."""


def bound(ctx: Context) -> bytes:
    """The one byte form of a context."""
    return canonical_json(dict(ctx))


def checked_key_id(key_id: str) -> str:
    if not KEY_ID.fullmatch(key_id):
        raise UsageError("E-KMS-013", "a KMS key has a malformed name", "Use letters, digits, _ and - only")
    return key_id


def checked_dek(dek: bytes) -> bytes:
    if not 16 <= len(dek) <= DEK_LIMIT:
        raise UsageError("E-KMS-014", "a key to wrap is not 16 to 1024 bytes long", "Report this as a defect")
    return dek


def newest_live(kms: Kms, key_id: str) -> int:
    return max((v.version for v in kms.versions(key_id) if v.state == "live"), default=0)


def unreachable(backend: str) -> EnvironmentFault:
    return EnvironmentFault(
        "E-KMS-001",
        f"the key service ({backend}) does not answer",
        "Check its address, the network and that it runs; running again continues",
    )


def denied(backend: str) -> EnvironmentFault:
    return EnvironmentFault(
        "E-KMS-002",
        f"the key service ({backend}) refuses this to the token in use",
        "Ask for the role that may; privet keys policy ROLE prints what a role needs",
    )


def bad_token(backend: str) -> EnvironmentFault:
    return EnvironmentFault(
        "E-KMS-003", f"the key service ({backend}) knows no such token: it is expired, revoked or wrong", "Get a new token"
    )


def not_unwrappable() -> IntegrityError:
    return IntegrityError(
        "E-KMS-004",
        "a wrapped key is altered, of another key, or of another place",
        "Restore the keyring file, and use the key service it was made with",
    )


def destroyed() -> IntegrityError:
    return IntegrityError(
        "E-KMS-005",
        "the key version that this was wrapped under is destroyed",
        "If it was destroyed on purpose the data is gone; otherwise restore the key service's own backup",
    )


def no_such_key() -> UsageError:
    return UsageError(
        "E-KMS-006", "the key service has no such key", "Check kms.json, or make the home's keys with privet init"
    )


def unwell(backend: str, status: str) -> EnvironmentFault:
    return EnvironmentFault(
        "E-KMS-007",
        f"the key service ({backend}) answered with a fault ({status})",
        "Check that it is unsealed and healthy; running again continues",
    )


def driver_missing(backend: str, what: str) -> EnvironmentFault:
    return EnvironmentFault("E-KMS-009", f"the {backend} key service needs {what}, which is not here", f"Install {what}")


def newest_stays() -> UsageError:
    return UsageError("E-KMS-012", "the newest version of a key can't be destroyed", "Rotate the key first")

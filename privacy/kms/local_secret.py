"""How the root of the local key service is kept: in a key file, or under a passphrase; and what a role holds instead.

Guarantee: a passphrase costs Argon2id with RFC 9106's second recommended parameters (64 MiB, three passes); the parameters
are bound to what they protect, and weaker or absurd ones are refused before any work is done.
Not covered: a passphrase that is guessed all the same; whoever can read the key file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from privacy.canonical import Json, canonical_json, parse_json
from privacy.errors import IntegrityError, UsageError
from privacy.kms.local_file import KmsFile, altered, expand, sealed, unsealed
from privacy.owner_only import read_owner_only

# RFC 9106 section 4, second recommended option: 64 MiB, three passes, four lanes.
_ARGON2: Mapping[str, int] = {"iterations": 3, "lanes": 4, "memory_kib": 64 * 1024}
_LEAST_PASSPHRASE = 12


@dataclass(frozen=True, slots=True)
class KeyFile:
    """The root in a file of its own, for unattended runs: as safe as that file."""

    path: Path


@dataclass(frozen=True, slots=True)
class Passphrase:
    """Read from a 0600 file or an inherited descriptor; never from arguments or the environment, which others can list."""

    text: bytes = field(repr=False)

    @classmethod
    def from_file(cls, path: Path) -> Passphrase:
        return cls._checked(read_owner_only(path)[0])

    @classmethod
    def from_descriptor(cls, descriptor: int) -> Passphrase:
        """Raises UsageError E-KMS-018 also when nothing can be read there."""
        try:
            with os.fdopen(descriptor, "rb") as file:
                return cls._checked(file.read(4096))
        except (OSError, ValueError):
            raise _bad_passphrase() from None

    @classmethod
    def _checked(cls, text: bytes) -> Passphrase:
        text = text.rstrip(b"\r\n")
        if not _LEAST_PASSPHRASE <= len(text) <= 1024:
            raise _bad_passphrase()
        return cls(text)


@dataclass(frozen=True, slots=True)
class RoleKey:
    """What `grant` writes: opens the keys of one role of one local key service."""

    role: str
    kms_id: str
    private: X25519PrivateKey = field(repr=False)
    signer: str  # public key of the root holder, known since the grant

    @classmethod
    def read(cls, path: Path) -> RoleKey:
        """Raises UsageError E-KMS-011 when it is no role key, and the codes of `read_owner_only`."""
        try:
            match parse_json(read_owner_only(path)[0]):
                case {"privet_role_key": 1, "role": str(role), "kms": str(kms), "private": str(private), "signer": str(signer)}:
                    return cls(role, kms, X25519PrivateKey.from_private_bytes(bytes.fromhex(private)), signer)
        except (ValueError, IntegrityError):
            pass
        raise UsageError("E-KMS-011", f"{path.name} is not a role key", "Give the file that privet keys grant wrote")


Secret: TypeAlias = KeyFile | Passphrase | RoleKey


def protect(master: bytes, secret: KeyFile | Passphrase, identity: str) -> dict[str, Json]:
    """Where the master key is kept: wrapped by the key file, or by what Argon2id makes of the passphrase."""
    if isinstance(secret, KeyFile):
        how: dict[str, Json] = {"kind": "key_file"}
        key = expand(_read_key_file(secret.path), "kms/key file")
    else:
        how = {"kind": "argon2id", "salt": os.urandom(16).hex(), **_ARGON2}
        key = _stretched(secret.text, how)
    return {**how, "master": sealed(key, master, canonical_json([identity, how])).hex()}


def master_of(file: KmsFile, secret: KeyFile | Passphrase) -> bytes:
    """The parameters are those of the file, and bound: weakening them changes the key."""
    how = {name: value for name, value in file.protection.items() if name != "master"}
    if isinstance(secret, KeyFile):
        if how != {"kind": "key_file"}:
            raise UsageError("E-KMS-017", "this home is opened with a passphrase", "Name its file in PRIVET_PASSPHRASE_FILE")
        key = expand(_read_key_file(secret.path), "kms/key file")
    else:
        key = _stretched(secret.text, how)
    try:
        return unsealed(key, bytes.fromhex(str(file.protection.get("master", ""))), canonical_json([file.id, how]))
    except (IntegrityError, ValueError):
        raise altered() if isinstance(secret, KeyFile) else _wrong_passphrase() from None


def _stretched(text: bytes, how: Mapping[str, Json]) -> bytes:
    match dict(how):
        case {"kind": "argon2id", "salt": str(salt), "iterations": int(t), "lanes": int(p), "memory_kib": int(m), **rest}:
            # Bounds before the work: a doctored file must neither weaken the function nor exhaust the machine.
            sound = _ARGON2["iterations"] <= t <= 16 and p == _ARGON2["lanes"] and _ARGON2["memory_kib"] <= m <= 1 << 20
            if not rest and len(salt) == 32 and sound:
                return Argon2id(salt=bytes.fromhex(salt), length=32, iterations=t, lanes=p, memory_cost=m).derive(text)
    raise altered()


def _read_key_file(path: Path) -> bytes:
    data, _ = read_owner_only(path)
    try:
        root = bytes.fromhex(data.decode("ascii").strip())
    except ValueError:
        root = b""
    if len(root) != 32:
        raise IntegrityError("E-KEY-007", "the root key file does not hold a 32-byte key in hex", "Restore it from its backup")
    return root


def _bad_passphrase() -> UsageError:
    return UsageError(
        "E-KMS-018",
        f"the passphrase is missing, shorter than {_LEAST_PASSPHRASE} bytes or longer than 1024",
        "Put it into a 0600 file named by PRIVET_PASSPHRASE_FILE, or hand a descriptor in with PRIVET_PASSPHRASE_FD",
    )


def _wrong_passphrase() -> IntegrityError:
    return IntegrityError(
        "E-KMS-010",
        "the passphrase is not the one this home was made with, or roots.json was altered",
        "Give the right passphrase; restore roots.json if it is right",
    )

"""The keyring of a home: which key service, in which role, with every use and change in the journal.

Guarantee: kms.json holds no secret, and is believed only while the signed journal names its digest (or a wrong address
could collect tokens); a keyring file, older or newer, that the journal does not name is refused; each use of a key is
journalled before the key is returned. The environment names files and roles, never keys: PRIVET_ROLE, PRIVET_ROLE_KEY,
PRIVET_KMS_TOKEN_FILE, PRIVET_PASSPHRASE_FILE, PRIVET_PASSPHRASE_FD.
Not covered: a whole home, journal included, restored from an older copy (an anchor outside shows that); PRIVET_ROLE is a
claim, and what holds is what the token or role key can unwrap.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from privacy.canonical import Digest, Json, canonical_json, digest_bytes, parse_canonical
from privacy.errors import IntegrityError, UsageError

if TYPE_CHECKING:
    from pipeline.home import Home
    from privacy.keys import Floor, Keyring, KeyringChange, KeyUse
    from privacy.kms import Kms
    from privacy.kms.local_secret import Passphrase

KEYRING, ROOTS, ROOT_KEY, KMS = "keyring.json", "roots.json", "root.key", "kms.json"
current_run: ContextVar[str | None] = ContextVar("current_run", default=None)  # for the journal, where it is known
_SETTINGS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # backend: required, optional
    "local": ((), ("protection",)),
    "openbao": (("address", "token_file"), ("mount", "namespace", "ca_file", "timeout_seconds")),
    "aws": (("region",), ("endpoint", "timeout_seconds")),
    "pkcs11": (("library", "token_label", "pin_file"), ()),
}
BACKENDS = tuple(_SETTINGS)
FILES = ("token_file", "ca_file", "library", "pin_file")  # settings that are paths
_PROTECTIONS = ("key_file", "passphrase")  # of the local root


@dataclass(frozen=True, slots=True)
class KmsChoice:
    """What kms.json holds. `prefix` starts the names of this home's keys, so that homes can share a service."""

    backend: str = "local"
    settings: Mapping[str, str] = field(default_factory=dict)
    prefix: str = field(default_factory=lambda: "privet-" + os.urandom(6).hex())

    def __post_init__(self) -> None:
        """Raises UsageError E-KMS-008."""
        required, optional = _SETTINGS.get(self.backend, ((), ()))
        unknown = set(self.settings) - {*required, *optional}
        missing = {name for name in required if not self.settings.get(name)}
        if self.backend not in _SETTINGS or unknown or missing:
            wants = ", ".join((*required, *(f"[{name}]" for name in optional))) or "nothing"
            raise UsageError(
                "E-KMS-008", f"the settings of the key service {self.backend[:20]} are not what it takes: {wants}", "Mend them"
            )
        if self.settings.get("protection", _PROTECTIONS[0]) not in _PROTECTIONS:
            raise UsageError("E-KMS-008", "protection of the root is not one of " + " and ".join(_PROTECTIONS), "Name one")

    def to_json(self) -> dict[str, Json]:
        return {"kms": 1, "backend": self.backend, "settings": dict(self.settings), "prefix": self.prefix}

    @classmethod
    def from_bytes(cls, data: bytes) -> KmsChoice:
        match parse_canonical(data):
            case {"kms": 1, "backend": str(backend), "settings": dict(settings), "prefix": str(prefix), **rest} if not rest:
                if all(isinstance(value, str) for value in settings.values()):
                    return cls(backend, {name: str(value) for name, value in settings.items()}, prefix)
        raise _kms_json_altered()


def found_keyring(path: Path, choice: KmsChoice | None) -> dict[str, Json]:
    """Make kms.json and the keyring of a new home, or go on with what is there; returns what the journal has to record."""
    from pipeline.home import write_new
    from privacy.keys import Keyring

    standing, there = _standing(path, choice), (path / KEYRING).exists()
    data = canonical_json(standing.to_json())
    kms, _ = _kms(path, standing, found=not there)  # refuses what can't be meant, before it is written down
    if (path / KMS).exists() and (path / KMS).read_bytes() != data:
        (path / KMS).unlink()  # no key was made by it
    write_new(path / KMS, data)
    keyring = Keyring(path / KEYRING, kms) if there else Keyring.create(path / KEYRING, kms, prefix=standing.prefix)
    return {"kms": digest_bytes(data), "keyring": {"generation": keyring.state.generation, "digest": keyring.digest}}


def _standing(path: Path, choice: KmsChoice | None) -> KmsChoice:
    """What is asked for, or what a creation that was cut short asked for. Raises UsageError E-KEY-022 if keys bind it."""
    earlier = KmsChoice.from_bytes((path / KMS).read_bytes()) if (path / KMS).exists() else None
    if choice is None or earlier is None:
        return choice or earlier or KmsChoice()
    if (choice.backend, choice.settings) == (earlier.backend, earlier.settings):
        return earlier
    if (path / KEYRING).exists():
        raise UsageError(
            "E-KEY-022",
            "a creation that was cut short has made keys here with another key service, or with other settings of it",
            "Ask for those, which kms.json in the folder names, or name another folder",
        )
    return choice


def open_keyring(home: Home) -> Keyring:
    """In the role that the environment names. Raises IntegrityError E-KEY-010, E-KEY-012, and the codes of the key service."""
    from privacy.keys import Keyring

    kms, role = _kms(home.path, chosen_kms(home))
    return Keyring(
        home.path / KEYRING,
        kms,
        role=role,
        on_unwrap=_use_journalled(home),
        on_change=_change_journalled(home),
        floor=lambda: _on_record(home)[0],
    )


def chosen_kms(home: Home) -> KmsChoice:
    """Raises IntegrityError E-KEY-012 when kms.json is not the one that the journal names."""
    try:
        data = (home.path / KMS).read_bytes()
        if digest_bytes(data) == _on_record(home)[1]:
            return KmsChoice.from_bytes(data)
    except OSError:
        pass
    raise _kms_json_altered()


def _kms(path: Path, choice: KmsChoice, *, found: bool = False) -> tuple[Kms, str]:
    """The key service, and the role in which it is asked."""
    from privacy.roles import OPERATOR, ROLES

    role = os.environ.get("PRIVET_ROLE") or OPERATOR
    if role not in ROLES:
        raise UsageError("E-KEY-015", "PRIVET_ROLE names no role", f"Use one of {', '.join(ROLES)}")
    settings = dict(choice.settings)
    if choice.backend == "local":
        return _local(path, settings, found, role)
    seconds = _seconds(settings.pop("timeout_seconds", "10"))
    if choice.backend == "openbao":
        from privacy.kms.openbao import OpenBaoKms, OpenBaoPlace

        token = Path(os.environ.get("PRIVET_KMS_TOKEN_FILE") or os.environ.get("VAULT_TOKEN_FILE") or settings["token_file"])
        ca = Path(settings["ca_file"]) if settings.get("ca_file") else None
        where = (settings["address"], token, settings.get("mount", "transit"), settings.get("namespace", ""), ca, seconds)
        return OpenBaoKms(OpenBaoPlace(*where)), role
    if choice.backend == "aws":
        from privacy.kms.aws import AwsKms, AwsPlace

        return AwsKms(AwsPlace(settings["region"], settings.get("endpoint", ""), seconds)), role
    from privacy.kms.pkcs11 import Pkcs11Kms, Pkcs11Place

    return Pkcs11Kms(Pkcs11Place(Path(settings["library"]), settings["token_label"], Path(settings["pin_file"]))), role


def _local(path: Path, settings: Mapping[str, str], found: bool, role: str) -> tuple[Kms, str]:
    from privacy.kms.local import LocalKms
    from privacy.kms.local_secret import KeyFile, RoleKey

    if role_key := os.environ.get("PRIVET_ROLE_KEY"):
        key = RoleKey.read(Path(role_key))
        return LocalKms(path / ROOTS, key), key.role
    secret = KeyFile(path / ROOT_KEY) if settings.get("protection", "key_file") == "key_file" else _passphrase()
    if found and not (path / ROOTS).exists():
        return LocalKms.found(path / ROOTS, secret), role
    return LocalKms(path / ROOTS, secret), role


def _passphrase() -> Passphrase:
    from privacy.kms.local_secret import Passphrase

    if file := os.environ.get("PRIVET_PASSPHRASE_FILE"):
        return Passphrase.from_file(Path(file))
    descriptor = os.environ.get("PRIVET_PASSPHRASE_FD", "")
    return _from_descriptor(int(descriptor) if descriptor.isdigit() else -1)


@cache
def _from_descriptor(descriptor: int) -> Passphrase:
    """A descriptor can be read once, and a process opens its home more than once."""
    from privacy.kms.local_secret import Passphrase

    return Passphrase.from_descriptor(descriptor)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 600:
        raise UsageError("E-KMS-008", "timeout_seconds of the key service is not between 0.1 and 600", "Mend kms.json")
    return value


def _use_journalled(home: Home) -> Callable[[KeyUse], None]:
    def report(use: KeyUse) -> None:
        facts: dict[str, Json] = {
            "domain": use.domain,
            "epoch": use.epoch,
            "action": use.action,
            "count": use.count,
            "role": use.role,
        }
        run = current_run.get()
        home.journal.append("key_use", facts if run is None else {**facts, "run": run})

    return report


def _change_journalled(home: Home) -> Callable[[KeyringChange], None]:
    def report(change: KeyringChange) -> None:
        facts: dict[str, Json] = {
            "what": change.what,
            "domain": change.domain,
            "epoch": change.epoch,
            "generation": change.generation,
            "digest": change.digest,
        }
        home.journal.append(f"keys_{change.stage}", facts)

    return report


def _on_record(home: Home) -> tuple[Floor | None, Digest | None]:
    """The newest state of the keyring, and the digest of kms.json, that the journal knows."""
    from privacy.keys import Floor

    floor: Floor | None = None
    announced: set[Digest] = set()
    for entry in reversed(home.journal.entries()):
        if entry.kind == "keys_changing" and floor is None:
            announced.add(str(entry.facts["digest"]))
        elif entry.kind == "keys_changed" and floor is None:
            floor = Floor(int(str(entry.facts["generation"])), str(entry.facts["digest"]), frozenset(announced))
        elif entry.kind == "home_created":
            match entry.facts.get("keyring"):
                case {"generation": int(generation), "digest": str(digest)}:
                    floor = floor or Floor(generation, digest, frozenset(announced))
            return floor, str(entry.facts.get("kms"))
    return floor, None


def _kms_json_altered() -> IntegrityError:
    return IntegrityError(
        "E-KEY-012",
        "kms.json is missing, malformed, or not the one that the journal names",
        "Find out who changed it and restore it: a wrong address would be sent this home's token",
    )

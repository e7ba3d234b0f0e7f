"""Connections and variables of Airflow and the lists of detection, sealed in the Privet home; the pointer files hold names and
digests only.

Guarantee: a value lies on disk as ciphertext under the key domain `airflow/secrets`, a list (`pii.deny`) under
`detection/deny`, which a steward opens too; each is bound to its kind and name, so one
secret can't be put in another's place; a replaced or removed value is shredded; setting and removing are journalled, and
so is each unwrap. A value is never in an argument list, an error or a listing.
Not covered: whoever may open the home's keyring can read every secret of it; a process killed between two steps of
replacing a value leaves the old ciphertext in the store, named by nothing.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.provisional import keep, provisional
from pipeline.stage import ArtifactRef
from privacy.canonical import canonical_json, parse_canonical, parse_json
from privacy.errors import EnvironmentFault, IntegrityError, PrivetError, UsageError

if TYPE_CHECKING:
    from pipeline.home import Home

Kind = Literal["connection", "variable", "config", "list"]
KINDS: tuple[Kind, ...] = ("connection", "variable", "config", "list")
AIRFLOW, LISTS = ("airflow", "secrets"), ("detection", "deny")  # dataset and data class of what Airflow asks for, and of lists
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_URI = re.compile(r"[a-z][a-z0-9+.-]{0,60}://\S*")
_MOST_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class SecretName:
    """What a secret is called; nothing about its value."""

    kind: Kind
    name: str

    @property
    def path(self) -> str:
        return f"{self.kind}/{self.name}"

    @property
    def place(self) -> tuple[str, str]:
        """Dataset and data class, and so who may open it."""
        return LISTS if self.kind == "list" else AIRFLOW


def secret_name(kind: str, name: str) -> SecretName:
    """Raises UsageError E-SECRET-001 for a name that no connection of Airflow can have."""
    if kind not in KINDS or not _NAME.fullmatch(name):
        raise UsageError(
            "E-SECRET-001", "a secret has a malformed name or kind", "Use letters, digits and _ . - for the name, at most 100"
        )
    return SecretName(kind, name)


def check_value(name: SecretName, value: str) -> None:
    """Raises UsageError E-SECRET-002 (size), E-SECRET-003 (no connection). Airflow's own parser would quote the value."""
    if not value.strip() or len(value.encode("utf-8", "replace")) > _MOST_BYTES or "\0" in value:
        raise UsageError("E-SECRET-002", "the value of a secret is empty or over 64 KiB", "Write the value to standard input")
    if name.kind == "connection" and not (_URI.fullmatch(value) or _is_json_connection(value)):
        raise UsageError(
            "E-SECRET-003",
            "the value is not a connection",
            'Give a URI (type://login:password@host:port/schema) or a JSON object with "conn_type"',
        )


class SealedSecrets:
    """The secrets of one home; safe for threads and processes."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._folder = home.path / "secrets"

    def set(self, name: SecretName, value: str) -> None:
        """Seal, journal, then make visible; the value before it is shredded."""
        check_value(name, value)
        with self._lock(), provisional(self._home.store):
            before = self._ref(name)
            dataset, data_class = name.place
            ref = self._home.store.put_sealed(value.encode(), dataset=dataset, path=name.path, data_class=data_class)
            self._home.journal.append("secret_set", {"secret": name.path, "object": ref.digest})
            _write_whole(self._pointer(name), canonical_json(ref.to_json()))
            keep([ref])
            if before is not None:
                self._home.store.shred(before)

    def get(self, name: SecretName) -> str | None:
        """None when there is none. Raises IntegrityError E-SECRET-006, or the store's codes, for a damaged one."""
        ref = self._ref(name)
        return None if ref is None else self._home.store.read_sealed(ref).decode()

    def names(self) -> list[SecretName]:
        """Names alone; nothing is unwrapped."""
        return [SecretName(kind, path.stem) for kind in KINDS for path in sorted((self._folder / kind).glob("*.json"))]

    def remove(self, name: SecretName) -> None:
        """Raises UsageError E-SECRET-004 when there is none."""
        with self._lock():
            ref = self._ref(name)
            if ref is None:
                raise UsageError("E-SECRET-004", f"there is no {name.kind} of that name", "See privet secrets list")
            self._home.journal.append("secret_removed", {"secret": name.path})
            self._home.store.shred(ref)
            self._pointer(name).unlink()

    def _ref(self, name: SecretName) -> ArtifactRef | None:
        try:
            ref = ArtifactRef.from_json(parse_canonical(self._pointer(name).read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, PrivetError):
            ref = None
        if ref is None or (ref.dataset, ref.data_class, ref.path) != (*name.place, name.path):
            raise IntegrityError(
                "E-SECRET-006",
                "the file that names a sealed secret was altered",
                "Set the secret again with privet secrets set",
            )
        return ref

    def _pointer(self, name: SecretName) -> Path:
        return self._folder / name.kind / f"{name.name}.json"

    @contextmanager
    def _lock(self) -> Iterator[None]:
        try:
            for folder in (self._folder, *(self._folder / kind for kind in KINDS)):
                folder.mkdir(exist_ok=True, mode=0o700)
            handle = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _disk_fault(error) from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        except OSError as error:
            raise _disk_fault(error) from None
        finally:
            os.close(handle)


def read_value_file(path: Path) -> str:
    """The content of a file that only its owner, this user, can read. Raises UsageError E-SECRET-005."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077:
                return file.read(_MOST_BYTES + 2).decode()
        fault = "is not a plain file that only its owner, this user, can read"
    except OSError:
        fault = "can't be read"
    except UnicodeDecodeError:
        fault = "is not UTF-8 text"
    raise UsageError("E-SECRET-005", f"the value file {fault}", "Give a 0600 file of your own, or write to standard input")


def _is_json_connection(value: str) -> bool:
    try:
        match parse_json(value.encode()):
            case {"conn_type": str(kind)}:
                return bool(kind)
    except PrivetError:
        pass
    return False


def _write_whole(path: Path, data: bytes) -> None:
    """Old or new after any crash."""
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}.new")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _disk_fault(error: OSError) -> EnvironmentFault:
    return EnvironmentFault(
        "E-SECRET-007", f"a secret can't be written ({error.strerror})", "Free some space and run again; the old value stands"
    )

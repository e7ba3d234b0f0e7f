"""The local keyring: no key leaves it unwrapped, and a keyring that was altered or belongs to another root is refused.

Hierarchy: root key (a 0600 file) -> one random key per domain (dataset and data class) -> one data-encryption key
per object or subject, wrapped here with AES-256-GCM and bound to domain, version and the caller's context.
Guarantee: two processes never make two keys for one domain (a lock file), a crash leaves the old or the new file
(atomic replace), and what `destroy` removed can't be unwrapped through this keyring again.
Assumption: the file system honours owner, mode, rename and flock. Not covered: whoever can read the root key file can
read everything; a *restored older* keyring brings destroyed keys back (keep no backups past their erasure date);
Python can't promise that key bytes leave memory.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import hmac
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from privacy.canonical import Json, canonical_json, parse_json
from privacy.errors import EnvironmentFault, IntegrityError, PrivetError, UsageError

_DOMAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_NONCE = 12
_MAX_FILE = 16 << 20
_Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class _Domain:
    """`wrapped` is None once the key is destroyed; the version stays, so that it is never used twice."""

    version: int
    wrapped: str | None

    def to_json(self) -> dict[str, Json]:
        return {"version": self.version, "wrapped": self.wrapped}


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """One reading of the file; `keys` caches what was unwrapped from it."""

    stamp: _Stamp
    domains: Mapping[str, _Domain]
    keys: dict[str, bytes] = field(default_factory=dict, repr=False)


class Keyring:
    """Wraps and derives keys by domain. Safe for threads and processes; shows no key in repr or pickle."""

    __slots__ = ("_kek", "_mac_key", "_path", "_snapshot")

    def __init__(self, path: Path, root: bytes) -> None:
        self._path = path
        self._kek = _expand(root, "keyring/wrap")
        self._mac_key = _expand(root, "keyring/mac")
        self._snapshot = self._load()

    @classmethod
    def create(cls, path: Path, root_key_path: Path) -> Keyring:
        """A new keyring and, unless a root key lies there from a creation cut short, a new root key.

        Raises UsageError E-KEY-001 when there is a keyring already.
        """
        with _lock(path):
            if path.exists() or path.is_symlink():
                raise UsageError("E-KEY-001", "there is a keyring here already", "Open it, or name another home")
            if not root_key_path.exists():
                _write_owner_only(root_key_path, os.urandom(32).hex().encode() + b"\n")
            root = _read_root(root_key_path)
            _write_owner_only(path, _encode({}, _expand(root, "keyring/mac")))
        return cls(path, root)

    @classmethod
    def open(cls, path: Path, root_key_path: Path) -> Keyring:
        """Raises UsageError E-KEY-003 (missing), EnvironmentFault E-KEY-002 (loose), IntegrityError E-KEY-004 or 007."""
        return cls(path, _read_root(root_key_path))

    def wrap(self, domain: str, dek: bytes, context: bytes) -> str:
        """Encrypt a data-encryption key; the text names domain and version and is safe to store in the clear."""
        version, key = self._key(domain)
        nonce = os.urandom(_NONCE)
        sealed = nonce + AESGCM(key).encrypt(nonce, dek, _bound(domain, version, context))
        return f"{domain}@{version}:{base64.urlsafe_b64encode(sealed).decode()}"

    def unwrap(self, wrapped: str, context: bytes) -> bytes:
        """Raises IntegrityError E-KEY-005 (altered or of another place), E-KEY-006 (its domain key is gone)."""
        domain, version, sealed = _parse_wrapped(wrapped)
        known = self._fresh().domains.get(domain)
        if known is None or known.version != version or known.wrapped is None:
            raise _gone()
        key = self._unwrapped(domain, known)
        try:
            return AESGCM(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], _bound(domain, version, context))
        except InvalidTag:
            raise _not_unwrappable() from None

    def derive(self, domain: str, label: str) -> bytes:
        """32 bytes, the same for the same domain and label for as long as the domain key lives; for HMAC keys.

        Raises IntegrityError E-KEY-006 once the domain was destroyed: a new key would silently unlink what the old one linked.
        """
        known = self._fresh().domains.get(domain)
        if known is not None and known.wrapped is None:
            raise _gone()
        _, key = self._key(domain)
        return _expand(key, "derive/" + label)

    def destroy(self, domain: str) -> bool:
        """Crypto-shred: whatever was wrapped under the domain is lost, here at once and in every process.

        Returns whether there was a live key. Bytes of the old file may survive on the medium until it reuses them;
        they are wrapped by the root key.
        """
        with _lock(self._path):
            snapshot = self._snapshot = self._load()
            known = snapshot.domains.get(domain)
            if known is None or known.wrapped is None:
                return False
            self._replace({**snapshot.domains, domain: _Domain(known.version, None)})
            return True

    def __repr__(self) -> str:
        return f"Keyring({len(self._snapshot.domains)} domains)"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a keyring is not picklable")

    def _key(self, domain: str) -> tuple[int, bytes]:
        """Version and key of a live domain; made under the lock when there is none."""
        if not _DOMAIN.fullmatch(domain):
            raise UsageError("E-KEY-008", "a key domain has a malformed name", "Use letters, digits and . _ / - only")
        known = self._fresh().domains.get(domain)
        if known is None or known.wrapped is None:
            known = self._make(domain)
        return known.version, self._unwrapped(domain, known)

    def _make(self, domain: str) -> _Domain:
        with _lock(self._path):
            snapshot = self._snapshot = self._load()  # another process may have made it while we waited
            known = snapshot.domains.get(domain)
            if known is not None and known.wrapped is not None:
                return known
            version = known.version + 1 if known else 1
            nonce = os.urandom(_NONCE)
            sealed = nonce + AESGCM(self._kek).encrypt(nonce, os.urandom(32), _bound(domain, version, b"domain"))
            made = _Domain(version, base64.urlsafe_b64encode(sealed).decode())
            self._replace({**snapshot.domains, domain: made})
            return made

    def _unwrapped(self, domain: str, known: _Domain) -> bytes:
        cached = self._snapshot.keys.get(f"{domain}@{known.version}")
        if cached is not None:
            return cached
        assert known.wrapped is not None
        sealed = base64.urlsafe_b64decode(known.wrapped)
        try:
            key = AESGCM(self._kek).decrypt(sealed[:_NONCE], sealed[_NONCE:], _bound(domain, known.version, b"domain"))
        except InvalidTag:
            raise _altered() from None
        self._snapshot.keys[f"{domain}@{known.version}"] = key
        return key

    def _replace(self, domains: Mapping[str, _Domain]) -> None:
        _write_owner_only(self._path, _encode(domains, self._mac_key))
        self._snapshot = self._load()

    def _fresh(self) -> _Snapshot:
        """Re-read when the file was replaced, so that a key destroyed elsewhere is gone here too."""
        try:
            stamp = _stamp(self._path.lstat())
        except OSError:
            raise _missing(self._path) from None
        if stamp != self._snapshot.stamp:
            self._snapshot = self._load()
        return self._snapshot

    def _load(self) -> _Snapshot:
        data, stamp = _read_owner_only(self._path)
        return _Snapshot(stamp, _decode(data, self._mac_key))


def _encode(domains: Mapping[str, _Domain], mac_key: bytes) -> bytes:
    body: dict[str, Json] = {"keyring": 1, "domains": {name: d.to_json() for name, d in domains.items()}}
    return canonical_json({**body, "mac": hmac.digest(mac_key, canonical_json(body), "sha256").hex()})


def _decode(data: bytes, mac_key: bytes) -> dict[str, _Domain]:
    try:
        value = parse_json(data)
    except PrivetError:
        raise _altered() from None
    match value:
        case {"keyring": 1, "domains": dict(domains), "mac": str(mac)}:
            body = canonical_json({"keyring": 1, "domains": domains})
            if hmac.compare_digest(mac.encode(), hmac.digest(mac_key, body, "sha256").hex().encode()):
                return {name: _domain(entry) for name, entry in domains.items()}
    raise _altered()


def _domain(value: Json) -> _Domain:
    match value:
        case {"version": int(version), "wrapped": str() | None as wrapped}:
            return _Domain(version, wrapped)
    raise _altered()


def _parse_wrapped(wrapped: str) -> tuple[str, int, bytes]:
    match = re.fullmatch(r"([^@:]+)@(\d{1,9}):([A-Za-z0-9_=-]+)", wrapped)
    try:
        if match is not None:
            sealed = base64.urlsafe_b64decode(match[3])
            if len(sealed) > _NONCE and base64.urlsafe_b64encode(sealed).decode() == match[3]:
                return match[1], int(match[2]), sealed
    except binascii.Error:
        pass
    raise _not_unwrappable()


def _bound(domain: str, version: int, context: bytes) -> bytes:
    return canonical_json({"domain": domain, "version": version, "context": context.hex()})


def _expand(key: bytes, label: str) -> bytes:
    return HKDF(SHA256(), 32, salt=None, info=b"privet/" + label.encode()).derive(key)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One process at a time; the kernel frees the lock when its holder dies."""
    lock = path.with_name(path.name + ".lock")
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _fault(error) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _read_root(path: Path) -> bytes:
    data, _ = _read_owner_only(path)
    try:
        root = bytes.fromhex(data.decode("ascii").strip())
    except ValueError:
        root = b""
    if len(root) != 32:
        raise IntegrityError("E-KEY-007", "the root key file does not hold a 32-byte key in hex", "Restore it from its backup")
    return root


def _read_owner_only(path: Path) -> tuple[bytes, _Stamp]:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise _missing(path) from None
    except OSError as error:
        raise _fault(error, f"{path.name} can't be opened") from None
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise EnvironmentFault(
                "E-KEY-002",
                f"{path.name} is not a plain file that only its owner, this user, can read (mode {status.st_mode & 0o777:o})",
                f"Find out who could read it; if nobody did, run chmod 600 on {path.name}",
            )
        return file.read(_MAX_FILE), _stamp(status)


def _write_owner_only(path: Path, data: bytes) -> None:
    """Replace atomically and durably. The caller holds the lock, so one temporary name is enough."""
    temporary = path.with_name(path.name + ".new")
    try:
        temporary.unlink(missing_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _fault(error) from None


def _stamp(status: os.stat_result) -> _Stamp:
    return (status.st_ino, status.st_mtime_ns, status.st_size)


def _fault(error: OSError, what: str = "the keyring can't be written") -> EnvironmentFault:
    return EnvironmentFault(
        "E-KEY-009",
        f"{what} ({error.strerror})",
        "Free some space and check the owner of the home; the old keyring is unchanged",
    )


def _missing(path: Path) -> UsageError:
    return UsageError("E-KEY-003", f"there is no {path.name}", "Name the right home, or restore the file from its backup")


def _altered() -> IntegrityError:
    return IntegrityError(
        "E-KEY-004",
        "the keyring does not belong to this root key, or was altered",
        "Restore keyring.json and root.key of the same home",
    )


def _not_unwrappable() -> IntegrityError:
    return IntegrityError(
        "E-KEY-005", "a wrapped key is malformed, altered or of another place", "Restore the object it came from"
    )


def _gone() -> IntegrityError:
    return IntegrityError(
        "E-KEY-006",
        "the key of this domain is not in the keyring: it was destroyed, or made in another home",
        "If it was destroyed on purpose the data is gone; otherwise open the right home",
    )

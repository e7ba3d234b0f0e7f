"""The keyring: every key that opens data is wrapped, bound to its place, used on the record, and destroyable.

Hierarchy: key service (one key per group of data classes) -> one secret per domain "<dataset>/<data class>" and epoch
-> one data-encryption key per object or subject, wrapped here with AES-256-GCM, or by HPKE where a role may write but
not read. Guarantee: a wrapped key opens in its domain, epoch and context only; each use is reported before the key is
returned, and no report means no key; a crash leaves the old or the new file; two processes never make two keys for one
epoch; what was destroyed opens nothing here at once, and old copies of the keyring file open nothing either once the
key service has destroyed the version that wrapped them, which `destroy` and `destroy_epoch` see to before they return.
Rotating the root rewraps the rows of domains, tens of them, and touches no data.
A swapped public key: whoever lacks the MAC key meets E-KEY-004 in every reader. A role that has it can divert what
other write-only roles write from then on, until somebody who may unwrap the domain opens it: the public key is part of the
context that the secret is wrapped with, so that fails too (E-KMS-004), and the journal names each change of the file.
Assumption: the file system honours owner, mode, rename and flock. Not covered: who holds the root of the local key service
can read everything; a caller who has a key keeps it; unwrapped domain keys are kept for `cache_seconds`, so a token that is
withdrawn works that long in a running process; Python can't promise that key bytes leave memory.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from privacy.canonical import Digest
from privacy.domain_key import DomainKey, WrappedKey, wrap_for_public
from privacy.errors import PolicyError, UsageError
from privacy.keyring_book import ALL_GROUPS, Floor, KeyringBook, KeyringChange, gone
from privacy.keyring_file import KeyringFile, Row
from privacy.kms import Kms
from privacy.kms.local import LocalKms
from privacy.kms.local_secret import KeyFile
from privacy.roles import OPERATOR, data_class_of, may_destroy, may_unwrap, may_write

__all__ = ["EpochInfo", "Floor", "KeyUse", "Keyring", "KeyringChange"]
CACHE_SECONDS = 300.0
LOCAL_KMS = "roots.json"  # the file of the local key service, beside the keyring
_DOMAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")


@dataclass(frozen=True, slots=True)
class KeyUse:
    """Reported before a key is returned: one unwrap call (a batch is one per epoch), or the first derive of a label."""

    domain: str
    epoch: int
    action: Literal["unwrap", "derive"]
    count: int
    role: str


@dataclass(frozen=True, slots=True)
class EpochInfo:
    epoch: int
    created_at: str
    state: Literal["live", "destroyed"]


@dataclass(frozen=True, slots=True)
class _Cached:
    key: DomainKey
    blob: str
    until: float
    pid: int


class Keyring:
    """Wraps and derives keys by domain. Safe for threads and processes; shows no key in repr or pickle."""

    __slots__ = ("_book", "_cache_seconds", "_clock", "_derived", "_keys", "_on_unwrap", "role")

    def __init__(
        self,
        path: Path,
        kms: Kms,
        *,
        role: str = OPERATOR,
        on_unwrap: Callable[[KeyUse], None] | None = None,
        on_change: Callable[[KeyringChange], None] | None = None,
        floor: Callable[[], Floor | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        cache_seconds: float = CACHE_SECONDS,
    ) -> None:
        """on_unwrap, on_change: raise, and there is no key, no change. floor: an older file is refused (E-KEY-010)."""
        self._book = KeyringBook(path, kms, on_change, floor)
        self.role, self._on_unwrap, self._clock, self._cache_seconds = role, on_unwrap, clock, cache_seconds
        self._keys: dict[tuple[str, int], _Cached] = {}
        self._derived: set[tuple[int, str, str]] = set()

    @classmethod
    def create(cls, path: Path, root: Path | Kms, *, prefix: str = "privet") -> Keyring:
        """A new keyring; `root` is a key service, or the key file of a local one beside `path` (made when missing).

        Raises UsageError E-KEY-001 when there is a keyring already.
        """

        def service() -> Kms:
            if not isinstance(root, Path):
                return root
            local = path.with_name(LOCAL_KMS)
            return LocalKms(local, KeyFile(root)) if local.exists() else LocalKms.found(local, KeyFile(root))

        return cls(path, KeyringBook.found(path, service, prefix))

    @classmethod
    def open(cls, path: Path, root_key_path: Path) -> Keyring:
        """With the local key service beside `path`.

        Raises UsageError E-KEY-003 (missing), EnvironmentFault E-KEY-002 (loose), IntegrityError E-KEY-004 or 007.
        """
        return cls(path, LocalKms(path.with_name(LOCAL_KMS), KeyFile(root_key_path)))

    def wrap(self, domain: str, dek: bytes, context: bytes) -> str:
        """Encrypt a data-encryption key; the text names domain and epoch and is safe to store in the clear.

        Under the domain's current epoch, which is made when there is none. A role that may write the class and not read it
        wraps for the domain's public key. Raises PolicyError E-KEY-011 (not this role's), E-KEY-013 (nobody made the domain).
        """
        epoch, row = self._current(domain)
        if may_unwrap(self.role, data_class_of(domain)):
            return self._key(domain, epoch, row).wrap(domain, epoch, dek, context).text
        return wrap_for_public(row.public, domain, epoch, dek, context).text

    def unwrap(self, wrapped: str, context: bytes) -> bytes:
        """Raises IntegrityError E-KEY-005 (altered or of another place), E-KEY-006 (its domain key is gone), PolicyError
        E-KEY-011 (not this role's), and the codes of the key service and of the report."""
        return self.unwrap_many([(wrapped, context)])[0]

    def unwrap_many(self, items: Sequence[tuple[str, bytes]]) -> list[bytes]:
        """All or nothing, and one report for each domain and epoch in the batch."""
        parsed = [WrappedKey.parse(wrapped) for wrapped, _ in items]
        keys = {place: self._key(*place, self._row(*place)) for place in {(p.domain, p.epoch) for p in parsed}}
        for (domain, epoch), count in Counter((p.domain, p.epoch) for p in parsed).items():
            self._report(KeyUse(domain, epoch, "unwrap", count, self.role))
        return [keys[p.domain, p.epoch].unwrap(p, context) for p, (_, context) in zip(parsed, items, strict=True)]

    def rewrap(self, wrapped: str, context: bytes) -> str:
        """To the domain's current epoch. Gives no key out, so it is no use to report."""
        parsed = WrappedKey.parse(wrapped)
        dek = self._key(parsed.domain, parsed.epoch, self._row(parsed.domain, parsed.epoch)).unwrap(parsed, context)
        epoch, _ = self._current(parsed.domain)
        return wrapped if epoch == parsed.epoch and not parsed.for_public else self.wrap(parsed.domain, dek, context)

    def derive(self, domain: str, label: str) -> bytes:
        """32 bytes, the same for the same domain and label for ever; for HMAC keys. From the domain's first epoch, whatever
        came after. Reported once per process, domain and label: a caller may keep the result, so more reports say no more.

        Raises IntegrityError E-KEY-006 once that epoch was destroyed: a new key would silently unlink what the old one linked.
        """
        if not (rows := self._book.fresh().domains.get(domain)):
            self._current(domain)
            rows = self._book.fresh().domains[domain]
        first = min(rows)
        key = self._key(domain, first, self._row(domain, first))
        mark = (os.getpid(), domain, label)  # a child of fork reports its own use
        if mark not in self._derived:
            self._report(KeyUse(domain, first, "derive", 1, self.role))
            self._derived.add(mark)
        return key.derive(label)

    def new_epoch(self, domain: str) -> int:
        """From now on `wrap` uses it; older live epochs still unwrap."""
        self._check_name(domain)
        self._require_unwrap(domain)
        return self._book.make_epoch(domain)[0]

    def ensure(self, domain: str) -> None:
        """Make the domain unless it has a live epoch, so that write-only roles can write to it."""
        self._current(domain)

    def epochs(self, domain: str) -> list[EpochInfo]:
        rows = self._book.fresh().domains.get(domain, {})
        return [EpochInfo(n, rows[n].created_at, "live" if rows[n].wrapped else "destroyed") for n in sorted(rows)]

    def epoch_of(self, wrapped: str) -> tuple[str, int]:
        """Domain and epoch that a wrapped key names. Raises IntegrityError E-KEY-005."""
        parsed = WrappedKey.parse(wrapped)
        return parsed.domain, parsed.epoch

    def destroy(self, domain: str) -> bool:
        """Crypto-shred every epoch of a domain; see `destroy_epoch`."""
        self._require_destroy(domain)
        return self._book.destroy(domain, None)

    def destroy_epoch(self, domain: str, epoch: int) -> bool:
        """Crypto-shred: whatever was wrapped under the epoch is lost, here at once and in every process; then the KMS key
        that wrapped it gets a new version, the other rows move to it, and the old version is destroyed, so that no copy of
        the keyring file brings the epoch back.

        Returns whether it was live. Raises EnvironmentFault E-KEY-014 when the last part has to be finished later (the
        epoch is destroyed here all the same): the same call again, or any rotation, finishes it. PolicyError E-KEY-011, and
        nothing is touched, when that is not for this role.
        """
        self._require_destroy(domain)
        return self._book.destroy(domain, [epoch])

    def rotate_root(self, groups: Sequence[str] = ALL_GROUPS) -> int:
        """New versions of these groups' KMS keys, with their rows rewrapped; returns how many rows. No data is written."""
        return self._book.rotate_root(groups)

    @property
    def state(self) -> KeyringFile:
        """The rows and their KMS key versions; no key in it that opens anything by itself."""
        return self._book.fresh()

    @property
    def digest(self) -> Digest:
        """Of the keyring file as read last."""
        return self._book.digest

    @property
    def kms(self) -> Kms:
        return self._book.kms

    def __repr__(self) -> str:
        return f"Keyring({len(self._book.known().domains)} domains, as {self.role})"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a keyring is not picklable")

    def _report(self, use: KeyUse) -> None:
        if self._on_unwrap is not None:
            self._on_unwrap(use)

    def _current(self, domain: str) -> tuple[int, Row]:
        """The newest live epoch; made when there is none, by a role that may unwrap it."""
        self._check_name(domain)
        if not may_write(self.role, data_class_of(domain)):
            raise self._not_this_role()
        rows = self._book.fresh().domains.get(domain, {})
        live = [n for n, row in rows.items() if row.wrapped is not None]
        if live:
            return max(live), rows[max(live)]
        if not may_unwrap(self.role, data_class_of(domain)):
            # Who makes a domain has its secret for a moment, and could keep it: then write-only would be a word.
            raise PolicyError(
                "E-KEY-013",
                f"the role {self.role} may write to this key domain, but not make it",
                "Have a role that may read it run privet keys init --dataset NAME",
            )
        return self._book.make_epoch(domain, only_if_none=True)

    def _row(self, domain: str, epoch: int) -> Row:
        row = self._book.fresh().domains.get(domain, {}).get(epoch)
        if row is None or row.wrapped is None:
            raise gone()
        return row

    def _key(self, domain: str, epoch: int, row: Row) -> DomainKey:
        """From the cache while it is young and the row is the same, else from the key service."""
        self._require_unwrap(domain)
        assert row.wrapped is not None
        cached = self._keys.get((domain, epoch))
        if cached and cached.blob == row.wrapped.blob and self._clock() < cached.until and cached.pid == os.getpid():
            return cached.key
        key = self._book.secret(domain, epoch, row)
        self._keys[domain, epoch] = _Cached(key, row.wrapped.blob, self._clock() + self._cache_seconds, os.getpid())
        return key

    def _require_unwrap(self, domain: str) -> None:
        if not may_unwrap(self.role, data_class_of(domain)):
            raise self._not_this_role()

    def _require_destroy(self, domain: str) -> None:
        if not may_destroy(self.role, data_class_of(domain)):
            raise self._not_this_role()

    def _not_this_role(self) -> PolicyError:
        return PolicyError(
            "E-KEY-011",
            f"keys of this data class are not for the role {self.role}",
            "Use the key or token of a role that may; see privet keys list",
        )

    @staticmethod
    def _check_name(domain: str) -> None:
        if not _DOMAIN.fullmatch(domain):
            raise UsageError("E-KEY-008", "a key domain has a malformed name", "Use letters, digits and . _ / - only")

"""Keeps the keyring file: reads it anew when it changed, changes it under a lock, and sees destruction through.

Guarantee: each change is one atomic replacement, reported before (raise, and nothing changes) and after; whatever moment a
process is killed at, the next one finds a file that works, and what was marked for destruction is still marked.
Destruction has three steps, each of which can be repeated: the row loses its wrapped secret and its KMS key version is
marked; the other rows move to a newer version; the key service destroys the marked version and the mark goes.
A row counts only under the key of its own group, and a file only while its digest is on record (`Floor`), where one is kept.
Not covered: a restored older file between two runs, when nobody keeps a `Floor` outside of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from privacy.canonical import Digest, digest_bytes
from privacy.domain_key import DomainKey, expand
from privacy.errors import EnvironmentFault, IntegrityError, PrivetError, UsageError
from privacy.keyring_file import KeyringFile, Row, Unchecked, keyring_altered, parse
from privacy.kms import Context, Kms, Wrapped, newest_live
from privacy.owner_only import Stamp, only_writer, read_owner_only, stamp_of, write_owner_only
from privacy.roles import GROUPS, RING, data_class_of, group_of

ALL_GROUPS = (RING, *GROUPS)
What = Literal["made", "destroyed", "rewrapped", "shredded"]


@dataclass(frozen=True, slots=True)
class KeyringChange:
    """`generation` and `digest` are those of the new file; `epoch` is 0 where it is about more than one."""

    stage: Literal["changing", "changed"]
    what: What
    domain: str
    epoch: int
    generation: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class Floor:
    """The newest state of the keyring file that is on record elsewhere.

    announced: digests of changes that were announced after it and may have happened. None: changes are not on record
    there, so any newer file that the MAC covers is believed.
    """

    generation: int
    digest: Digest
    announced: frozenset[Digest] | None = None


@dataclass(frozen=True, slots=True)
class _Reading:
    """What one reading of the file gave; replaced as a whole, so that threads see one or the other."""

    file: KeyringFile
    stamp: Stamp
    digest: Digest

    def is_older_than(self, generation: int, digest: Digest) -> bool:
        """Or a fork: as long a history, and another one."""
        return self.file.generation < generation or (self.file.generation == generation and self.digest != digest)

    def is_on_record(self, floor: Floor | None) -> bool:
        """Every role has the MAC key, and another home's keys are a whole set: a newer file is believed by its digest."""
        if floor is None or floor.announced is None:
            return floor is None or not self.is_older_than(floor.generation, floor.digest)
        return self.digest == floor.digest or (self.file.generation > floor.generation and self.digest in floor.announced)


class KeyringBook:
    """One keyring file and the key service its secrets are wrapped by. Safe for threads and processes."""

    __slots__ = ("_floor", "_mac_key", "_on_change", "_path", "_read", "kms")

    def __init__(
        self, path: Path, kms: Kms, on_change: Callable[[KeyringChange], None] | None, floor: Callable[[], Floor | None]
    ) -> None:
        self._path, self.kms, self._on_change, self._floor = path, kms, on_change, floor
        self._mac_key = expand(_ring(kms, _read(path)[0].file), "keyring/mac")
        self._read = self._recorded()

    @staticmethod
    def found(path: Path, kms: Callable[[], Kms], prefix: str) -> Kms:
        """Write a new keyring, with the keys it needs. Raises UsageError E-KEY-001 when there is one."""
        with only_writer(path):
            if path.exists() or path.is_symlink():
                raise UsageError("E-KEY-001", "there is a keyring here already", "Open it, or name another home")
            service = kms()
            for group in ALL_GROUPS:
                service.create(f"{prefix}-{group}")
            identity, secret = os.urandom(16).hex(), os.urandom(32)
            ring = service.wrap(f"{prefix}-{RING}", secret, {"purpose": "ring", "keyring": identity})
            write_owner_only(path, KeyringFile(identity, prefix, ring).encode(expand(secret, "keyring/mac")))
        return service

    def fresh(self) -> KeyringFile:
        """Read anew when it was replaced, so that a key destroyed elsewhere is gone here too."""
        read = self._read
        return (read if stamp_of(self._path) == read.stamp else self._load()).file

    def known(self) -> KeyringFile:
        """As read last; no I/O."""
        return self._read.file

    @property
    def digest(self) -> Digest:
        """Of the file as read last."""
        return self._read.digest

    def secret(self, domain: str, epoch: int, row: Row) -> DomainKey:
        """Asks the key service. Raises its codes, and IntegrityError E-KEY-006 for a destroyed row."""
        if row.wrapped is None:
            raise gone()
        return DomainKey.of(self.kms.unwrap(row.wrapped, self.known().row_context(domain, epoch, row.public)))

    def make_epoch(self, domain: str, *, only_if_none: bool = False) -> tuple[int, Row]:
        """A new epoch; with `only_if_none`, the current one if another process made it while we waited."""
        with self._changing() as file:
            rows = file.domains.get(domain, {})
            live = [n for n, row in rows.items() if row.wrapped is not None]
            if only_if_none and live:
                return max(live), rows[max(live)]
            epoch, secret = max(rows, default=0) + 1, os.urandom(32)
            public = DomainKey.of(secret).public
            key_id = file.key_id(group_of(data_class_of(domain)))
            wrapped = self.kms.wrap(key_id, secret, file.row_context(domain, epoch, public))
            row = Row(datetime.now(UTC).isoformat(timespec="seconds"), public, wrapped)
            self._save(file.with_row(domain, epoch, row), "made", domain, epoch)
            return epoch, row

    def destroy(self, domain: str, epochs: Sequence[int] | None) -> bool:
        """These epochs (None: all). Returns whether one was live. Raises EnvironmentFault E-KEY-014; the rows are gone then."""
        with self._changing() as file:
            rows = file.domains.get(domain, {})
            live = [(n, row, row.wrapped) for n, row in rows.items() if row.wrapped and (epochs is None or n in epochs)]
            doomed = dict(file.doomed)
            for epoch, row, wrapped in live:
                file = file.with_row(domain, epoch, replace(row, wrapped=None))
                doomed[wrapped.key_id] = max(wrapped.version, doomed.get(wrapped.key_id, 0))
            if live:
                file = self._save(replace(file, doomed=doomed), "destroyed", domain, live[0][0] if len(live) == 1 else 0)
            self._finish_shredding(file)
        return bool(live)

    def rotate_root(self, groups: Sequence[str]) -> int:
        """New versions of the groups' KMS keys, and their rows moved to them; returns the number of rows."""
        with self._changing() as file:
            key_ids = [file.key_id(group) for group in groups]
            for key_id in key_ids:
                self.kms.rotate(key_id)
            moved = self._moved(file, lambda wrapped: wrapped.key_id in key_ids)
            self._finish_shredding(self._save(moved, "rewrapped", "", 0))
        return sum(1 for *_, wrapped in moved.wrapped_rows() if wrapped.key_id in key_ids)

    def _finish_shredding(self, file: KeyringFile) -> None:
        """The caller holds the lock. Steps two and three of destruction, for every marked version."""
        try:
            for key_id, version in file.doomed.items():
                if newest_live(self.kms, key_id) <= version:
                    self.kms.rotate(key_id)
                if any(w.key_id == key_id and w.version <= version for *_, w in file.wrapped_rows()):
                    moved = self._moved(file, lambda w, k=key_id, v=version: w.key_id == k and w.version <= v)  # type: ignore[misc]
                    file = self._save(moved, "rewrapped", "", 0)
                self.kms.destroy(key_id, version)
                left = {k: v for k, v in file.doomed.items() if k != key_id}
                file = self._save(replace(file, doomed=left), "shredded", "", 0)
        except PrivetError as error:
            raise EnvironmentFault(
                "E-KEY-014",
                f"the epoch is destroyed in this keyring, but not yet in old copies of it ({error.code})",
                "Run privet keys rotate with the rights for it; until then an older keyring.json would bring the epoch back",
            ) from None

    def _moved(self, file: KeyringFile, which: Callable[[Wrapped], bool]) -> KeyringFile:
        """Rewrapped to the newest versions; the key service does it, so no secret comes here."""
        rows = [(d, n, row, w) for d, n, row, w in file.wrapped_rows() if which(w)]
        items: list[tuple[Wrapped, Context]] = [(w, file.row_context(d, n, row.public)) for d, n, row, w in rows]
        if with_ring := which(file.ring):
            items.append((file.ring, file.ring_context()))
        done = self.kms.rewrap_many(items)
        if with_ring:
            file = replace(file, ring=done.pop())
        for (domain, epoch, row, _), wrapped in zip(rows, done, strict=True):
            file = file.with_row(domain, epoch, replace(row, wrapped=wrapped))
        return file

    @contextmanager
    def _changing(self) -> Iterator[KeyringFile]:
        with only_writer(self._path):
            yield self._load().file

    def _save(self, file: KeyringFile, what: What, domain: str, epoch: int) -> KeyringFile:
        """The caller holds the lock, and `file` comes from what it read under it: threads read beside it."""
        file = replace(file, generation=file.generation + 1)
        data = file.encode(self._mac_key)
        change = KeyringChange("changing", what, domain, epoch, file.generation, digest_bytes(data))
        if self._on_change is not None:
            self._on_change(change)
        write_owner_only(self._path, data)
        self._load()
        if self._on_change is not None:
            self._on_change(replace(change, stage="changed"))
        return file

    def _load(self) -> _Reading:
        known = self._read  # before the file is opened: what another thread reads meanwhile may be newer than this one's
        read = self._recorded()
        whose = (known.file.id, known.file.prefix)
        if (read.file.id, read.file.prefix) != whose or read.is_older_than(known.file.generation, known.digest):
            raise _rolled_back()
        self._read = read
        return read

    def _recorded(self) -> _Reading:
        """The file, once it and the record agree; other processes may change both while we look at one."""
        before = self._floor()
        while True:
            unchecked, stamp = _read(self._path)
            read = _Reading(_well_placed(unchecked.checked(self._mac_key)), stamp, unchecked.digest)
            if read.is_on_record(before):
                return read
            after = self._floor()
            if after == before:
                raise _rolled_back()
            before = after


def _well_placed(file: KeyringFile) -> KeyringFile:
    """Every row under the key of its own group. Raises IntegrityError E-KEY-004.

    Every role has the MAC key, and can wrap a secret that it chose under a key that it may use: such a row must not open.
    """
    ring = file.ring.key_id == file.key_id(RING)
    if not ring or any(w.key_id != file.key_id(group_of(data_class_of(domain))) for domain, _, _, w in file.wrapped_rows()):
        raise keyring_altered()
    return file


def _ring(kms: Kms, file: KeyringFile) -> bytes:
    """The secret that makes the MAC key; before it is known, nothing else of the file is believed."""
    try:
        return kms.unwrap(file.ring, file.ring_context())
    except (IntegrityError, UsageError) as error:
        if error.code in ("E-KMS-004", "E-KMS-005", "E-KMS-006"):
            raise keyring_altered() from None
        raise


def gone() -> IntegrityError:
    return IntegrityError(
        "E-KEY-006",
        "the key of this domain is not in the keyring: it was destroyed, or made in another home",
        "If it was destroyed on purpose the data is gone; otherwise open the right home",
    )


def _read(path: Path) -> tuple[Unchecked, Stamp]:
    data, stamp = read_owner_only(path)
    return parse(data), stamp


def _rolled_back() -> IntegrityError:
    return IntegrityError(
        "E-KEY-010",
        "keyring.json is older than, or not, the one on record: a copy was restored, or it belongs to another home",
        "Restore the newest keyring.json of this home; a key that was destroyed must not come back with an old one",
    )

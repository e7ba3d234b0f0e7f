"""Content-addressed objects: an object is there whole or not at all, and what is read is what was written.

Sealed object: an envelope (pipeline.store_envelope), then a Cobblestone-256 body (privacy.seal).
Guarantee: every object is named by the SHA-256 of its stored bytes and checked against it before the first byte is
handed out; sealed plaintext never reaches the disk; after a crash or on a full disk there is the old state or the
new one; a result once committed for a key does not change (first writer wins); what a killed process sealed and did not
commit is destroyed when the home is next opened.
Assumption: a local file system with atomic rename, link, flock and fsync. Not covered: sizes, names and places of objects
are visible, and so is plain evidence (`put_plain`, `put_json`), which must hold no personal data. Of several writers of
one place each makes an object of its own; the committed manifest says which one counts.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from pipeline.provisional import note
from pipeline.stage import ArtifactRef, Manifest
from pipeline.store_diagnosis import another_place, damaged, place_of, what_happened
from pipeline.store_envelope import HEADER_LIMIT, MAGIC, START, make_envelope, read_envelope
from pipeline.store_files import (
    NewFile,
    ObjectFile,
    abandoned,
    disk_faults,
    io_fault,
    locked,
    new_file,
    overwrite_and_unlink,
    sync_folder,
)
from pipeline.store_notes import Notes
from privacy.canonical import Digest, Json, canonical_json, digest_bytes, is_digest, parse_canonical
from privacy.errors import IntegrityError, PrivetError, UsageError
from privacy.seal import SealContext, SealedReader, SealedWriter

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from privacy.keys import Keyring

__all__ = ["MAGIC", "SealedSink", "Store"]
_UNLOCKED_SECONDS = 600  # a temporary file without its writer's lock for so long has no writer
_READ_BUFFER = 1 << 16  # for footers; what is larger is read past it, straight into the caller's buffer
_DOOMED = "doomed-"
_POINTERS = ("checkpoints", "secrets", "prefixes", "coins")  # folders of the home whose .json files each name one object


class SealedSink(io.RawIOBase):
    """What `Store.sealed_writer` yields: write plaintext to it; `ref` is set once the `with` block ended well."""

    def __init__(self, writer: SealedWriter) -> None:
        super().__init__()
        self._writer = writer
        self._ref: ArtifactRef | None = None

    @property
    def ref(self) -> ArtifactRef:
        if self._ref is None:
            raise UsageError("E-STORE-007", "a sealed object has no reference before it is whole", "Ask after the with block")
        return self._ref

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._writer.tell()

    def write(self, data: Buffer, /) -> int:
        return self._writer.write(data)


class Store:
    """Objects and results under one folder; safe for threads and processes."""

    def __init__(self, root: Path, keyring: Keyring, named_elsewhere: Callable[[], set[Digest]] = set) -> None:
        """root: the Privet home; `objects/` and `results/` are made in it.

        named_elsewhere: objects that something durable outside the store names, so that no sweep destroys them.
        """
        self._objects = root / "objects"
        self._results = root / "results"
        self._temporary = self._objects / "tmp"
        self._pointers = [root / name for name in _POINTERS]
        self._keyring = keyring
        self._named_elsewhere = named_elsewhere
        with disk_faults():
            for folder in (self._objects, self._results, self._temporary):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.notes = Notes(root / "in-flight")
        self._sweep()

    def put_sealed(
        self, data: bytes, *, dataset: str, path: str, data_class: str, version: str = "", schema: str = ""
    ) -> ArtifactRef:
        with self.sealed_writer(dataset=dataset, path=path, data_class=data_class, version=version, schema=schema) as sink:
            sink.write(data)
        return sink.ref

    @contextmanager
    def sealed_writer(
        self, *, dataset: str, path: str, data_class: str, version: str = "", schema: str = ""
    ) -> Iterator[SealedSink]:
        """A file object for plaintext; the object appears when the block ends well, and not at all otherwise.

        version, schema: see `ArtifactRef`; they are bound into the object with its place. Raises EnvironmentFault
        E-STORE-010 (disk full) or E-STORE-011 (other I/O fault), at write or at the end, IntegrityError E-STORE-019 when
        the key of the class was destroyed meanwhile.
        """
        place = SealContext(dataset, path, data_class, version, schema)
        context = place.to_bytes()
        key = os.urandom(32)
        wrapped = self._keyring.wrap(f"{dataset}/{data_class}", key, context)
        envelope = make_envelope(place, wrapped)
        with new_file(self._temporary) as file:
            file.write(envelope)
            writer = SealedWriter(cast("BinaryIO", file), key, context)
            sink = SealedSink(writer)
            try:
                yield sink
                writer.close()
            finally:
                writer.abandon()
                sink.close()
            self._require_live_key(wrapped)
            ref = ArtifactRef(file.digest, data_class, dataset, path, file.size, True, version, schema)
            note(self, ref)  # before it is there, so that a fault right after the rename does not leave it unowned
            self._publish(file)
        sink._ref = ref

    def open_sealed(self, ref: ArtifactRef) -> BinaryIO:
        """Seekable plaintext of a sealed object.

        Raises IntegrityError E-STORE-001 to 004, E-STORE-012 to 018 (what was done to it, where that can be told), E-SEAL
        or E-KEY codes; before the first byte for all but a change made to the file while it is open, which the read that
        meets it refuses. A reader that is open when the key of its class is destroyed can be read to its end.
        """
        if not ref.sealed:
            raise UsageError("E-STORE-006", "a plain object was opened as a sealed one", "Read it with read_plain")
        file = self._open(ref.digest)
        try:
            if _digest_file(file) != ref.digest or file.tell() != ref.size:
                raise what_happened(file, ref, self._keyring, self._others(ref.digest), self._shown(ref.digest))
            file.seek(0)
            envelope = read_envelope(file)
            if envelope.place != place_of(ref):
                raise another_place()
            context = envelope.place.to_bytes()
            reader = SealedReader(file, envelope.offset, self._keyring.unwrap(envelope.wrapped, context), context)
        except BaseException:
            file.close()
            raise
        return io.BufferedReader(reader, _READ_BUFFER)

    def read_sealed(self, ref: ArtifactRef) -> bytes:
        """All of a sealed object; for what is known to be small."""
        with self.open_sealed(ref) as file:
            return file.read()

    def put_plain(self, data: bytes, *, dataset: str, path: str, data_class: str) -> ArtifactRef:
        """Evidence in the clear; the caller answers for it holding no personal data."""
        return ArtifactRef(self._put(data), data_class, dataset, path, len(data), sealed=False)

    def put_json(self, value: Json) -> Digest:
        return self._put(canonical_json(value))

    def get_plain(self, digest: Digest) -> bytes:
        """Raises IntegrityError E-STORE-001 (missing), E-STORE-002 (altered)."""
        with self._open(digest) as file, disk_faults():
            data = file.read()
        if digest_bytes(data) != digest:
            raise damaged(self._shown(digest))
        return data

    def read_plain(self, ref: ArtifactRef) -> bytes:
        if ref.sealed:
            raise UsageError("E-STORE-006", "a sealed object was read as a plain one", "Read it with read_sealed")
        return self.get_plain(ref.digest)

    def exists(self, ref: ArtifactRef) -> bool:
        """Whether the object lies there; not whether it is intact."""
        return self.holds(ref.digest)

    def holds(self, digest: Digest) -> bool:
        return self._path(digest).is_file()

    def shred(self, ref: ArtifactRef) -> bool:
        """Destroy a sealed object: its wrapped key is overwritten, then the file goes. False when it was gone already.

        Not covered: copies in backups, and blocks that a copy-on-write medium keeps; destroy the domain key for those.
        """
        if not ref.sealed:
            raise UsageError("E-STORE-006", "plain evidence can't be shredded", "Shred sealed objects only")
        return self._destroy(ref.digest)

    def result(self, key: Digest) -> Digest | None:
        """The digest committed for `key`. Raises IntegrityError E-STORE-005 when the record is damaged."""
        try:
            text = self._result_path(key).read_text("ascii").strip()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError):
            text = ""
        if not is_digest(text):
            raise IntegrityError("E-STORE-005", "a recorded result is damaged", "Delete that file in results/ and run again")
        return text

    def commit_result(self, key: Digest, digest: Digest, instead_of: Digest | None = None) -> Digest:
        """Record `digest` for `key` unless one is recorded; returns the one that stands.

        instead_of: a recorded result whose objects are gone; it is replaced, unless another process did so first.
        """
        _hexadecimal(digest)
        with new_file(self._temporary) as file:
            file.write(digest.encode("ascii") + b"\n")
            with disk_faults(), locked(self._results):
                os.fsync(file.fileno())
                if instead_of is not None and self.result(key) == instead_of:
                    file.path.replace(self._result_path(key))
                with suppress(FileExistsError, FileNotFoundError):
                    os.link(file.path, self._result_path(key))
                sync_folder(self._results)
        standing = self.result(key)
        assert standing is not None
        return standing

    def _put(self, data: bytes) -> Digest:
        digest = digest_bytes(data)
        with suppress(PrivetError):  # missing or damaged: write it, which also mends it
            self.get_plain(digest)
            return digest
        with new_file(self._temporary) as file:
            file.write(data)
            return self._publish(file)

    def _destroy(self, digest: Digest) -> bool:
        path = self._path(digest)
        # Out of sight first: a reader in another process meets a missing object, never a half-destroyed one.
        doomed = self._temporary / f"{_DOOMED}{os.urandom(8).hex()}"
        with disk_faults():
            try:
                path.rename(doomed)
            except FileNotFoundError:
                return False
            try:
                sync_folder(path.parent)
            finally:
                with suppress(FileNotFoundError):  # a process that opens the store finishes what it finds here
                    overwrite_and_unlink(doomed, START + HEADER_LIMIT)
        return True

    def _require_live_key(self, wrapped: str) -> None:
        """Whether what was just written can be opened at all: its key may have been destroyed while it was written."""
        domain, epoch = self._keyring.epoch_of(wrapped)
        if not any(info.epoch == epoch and info.state == "live" for info in self._keyring.epochs(domain)):
            raise IntegrityError(
                "E-STORE-019",
                "the key of this data class was destroyed while an object was sealed with it; the object was not kept",
                "If the key was destroyed on purpose, run again, which uses a new one; nothing was committed",
            )

    def _publish(self, file: NewFile) -> Digest:
        target = self._path(file.digest)
        with disk_faults():
            os.fsync(file.fileno())
            target.parent.mkdir(exist_ok=True, mode=0o700)
            file.path.replace(target)
            sync_folder(target.parent)
            sync_folder(self._objects)
        return file.digest

    def _open(self, digest: Digest) -> ObjectFile:
        try:
            handle = os.open(self._path(digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ELOOP):
                raise io_fault(error) from None
            raise IntegrityError(
                "E-STORE-001",
                f"{self._shown(digest)} of the store is missing",
                "Restore it from a backup, or run again, which makes anew what can be made anew",
            ) from None
        return ObjectFile(handle)

    def _path(self, digest: Digest) -> Path:
        name = _hexadecimal(digest)
        return self._objects / name[:2] / name

    def _shown(self, digest: Digest) -> str:
        return str(self._path(digest).relative_to(self._objects.parent))

    def _result_path(self, key: Digest) -> Path:
        return self._results / _hexadecimal(key)

    def _others(self, digest: Digest) -> Iterator[Path]:
        own = self._path(digest)
        return (p for p in self._objects.glob("[0-9a-f][0-9a-f]/*") if p != own)

    def _sweep(self) -> None:
        """Finish what a killed process was destroying, and destroy what it left half-written or uncommitted."""
        limit = time.time() - _UNLOCKED_SECONDS
        for path in self._temporary.iterdir():
            with suppress(OSError):
                if path.name.startswith(_DOOMED):
                    overwrite_and_unlink(path, START + HEADER_LIMIT)
                elif path.stat().st_mtime < limit and abandoned(path):
                    path.unlink()
        with suppress(PrivetError):  # a disk that fails here will say so to whoever writes
            self.notes.sweep(self._named, self._destroy)

    def _named(self) -> set[Digest] | None:
        """Objects that a committed manifest, a pointer or something elsewhere names; None when that can't be told."""
        try:
            found = set(self._named_elsewhere())
            for path in self._results.iterdir():
                digest = self.result(f"sha256:{path.name}")
                if digest is not None:
                    found.update(ref.digest for ref in Manifest.from_bytes(self.get_plain(digest)).outputs.values())
            for path in (path for folder in self._pointers for path in folder.rglob("*.json")):
                found.add(ArtifactRef.from_json(parse_canonical(path.read_bytes())).digest)
        except (PrivetError, OSError, sqlite3.Error):
            return None
        return found


def _digest_file(file: ObjectFile) -> Digest:
    with disk_faults():
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _hexadecimal(digest: Digest) -> str:
    if not is_digest(digest):  # also keeps path separators out of file names
        raise UsageError("E-STORE-009", "what was given is not a digest", "Give sha256: and 64 hexadecimal digits")
    return digest.removeprefix("sha256:")

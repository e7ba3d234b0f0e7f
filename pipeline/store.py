"""Content-addressed objects: an object is there whole or not at all, and what is read is what was written.

Sealed object: magic | u32 header length | canonical JSON {v, data_class, dataset, path, wrapped} | Cobblestone-256 body.
Guarantee: every object is named by the SHA-256 of its stored bytes and checked against it before the first byte is
handed out; sealed plaintext never reaches the disk; after a crash or on a full disk there is the old state or the
new one; a result once committed for a key does not change (first writer wins).
Assumption: a local file system with atomic rename, link and fsync. Not covered: sizes and names of objects are
visible, and so is plain evidence (`put_plain`, `put_json`), which must hold no personal data.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from pipeline.provisional import note
from pipeline.stage import ArtifactRef
from privacy.canonical import Digest, Json, canonical_json, digest_bytes, is_digest, parse_canonical
from privacy.errors import EnvironmentFault, IntegrityError, PrivetError, UsageError
from privacy.seal import SealContext, SealedReader, SealedWriter

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from privacy.keys import Keyring

MAGIC = b"PRIVETS1"
_HEADER_LIMIT = 8192
_STALE_SECONDS = 24 * 3600
_READ_BUFFER = 1 << 18
_DOOMED = "doomed-"


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

    def __init__(self, root: Path, keyring: Keyring) -> None:
        """root: the Privet home; `objects/` and `results/` are made in it."""
        self._objects = root / "objects"
        self._results = root / "results"
        self._temporary = self._objects / "tmp"
        self._keyring = keyring
        with _disk_faults():
            for folder in (self._objects, self._results, self._temporary):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._sweep()

    def put_sealed(self, data: bytes, *, dataset: str, path: str, data_class: str) -> ArtifactRef:
        with self.sealed_writer(dataset=dataset, path=path, data_class=data_class) as sink:
            sink.write(data)
        return sink.ref

    @contextmanager
    def sealed_writer(self, *, dataset: str, path: str, data_class: str) -> Iterator[SealedSink]:
        """A file object for plaintext; the object appears when the block ends well, and not at all otherwise.

        Raises EnvironmentFault E-STORE-010 (disk full) or E-STORE-011 (other I/O fault), at write or at the end.
        """
        context = SealContext(dataset, path, data_class).to_bytes()
        key = os.urandom(32)
        wrapped = self._keyring.wrap(f"{dataset}/{data_class}", key, context)
        header = canonical_json({"v": 1, "data_class": data_class, "dataset": dataset, "path": path, "wrapped": wrapped})
        if len(header) > _HEADER_LIMIT:
            raise UsageError("E-STORE-008", "the name of a sealed object is too long", "Use a shorter path")
        with self._new_file() as file:
            file.write(MAGIC + struct.pack(">I", len(header)) + header)
            writer = SealedWriter(cast("BinaryIO", file), key, context)
            sink = SealedSink(writer)
            try:
                yield sink
                writer.close()
            finally:
                writer.abandon()
                sink.close()
            ref = ArtifactRef("sha256:" + file.sha256.hexdigest(), data_class, dataset, path, file.size, sealed=True)
            note(ref)  # before it is there, so that a fault right after the rename does not leave it unowned
            self._publish(file)
        sink._ref = ref

    def open_sealed(self, ref: ArtifactRef) -> BinaryIO:
        """Seekable plaintext of a sealed object.

        Raises IntegrityError E-STORE-001 to 004, E-SEAL or E-KEY codes; before the first byte for all but a change
        made to the file while it is open, which the read that meets it refuses.
        """
        file = self._open(ref.digest)
        try:
            if not ref.sealed:
                raise UsageError("E-STORE-006", "a plain object was opened as a sealed one", "Read it with read_plain")
            if _digest_file(file) != ref.digest or file.tell() != ref.size:
                raise self._damaged(ref.digest)
            file.seek(0)
            wrapped, offset = _read_envelope(file, ref)
            context = SealContext(ref.dataset, ref.path, ref.data_class).to_bytes()
            reader = SealedReader(file, offset, self._keyring.unwrap(wrapped, context), context)
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
        with self._open(digest) as file:
            data = file.read()
        if digest_bytes(data) != digest:
            raise self._damaged(digest)
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
        path = self._path(ref.digest)
        # Out of sight first: a reader in another process meets a missing object, never a half-destroyed one.
        doomed = self._temporary / f"{_DOOMED}{os.urandom(8).hex()}"
        with _disk_faults():
            try:
                path.rename(doomed)
            except FileNotFoundError:
                return False
            _sync_folder(path.parent)
            _destroy(doomed)
        return True

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
        with self._new_file() as file:
            file.write(digest.encode("ascii") + b"\n")
            with _disk_faults(), _locked(self._results):
                os.fsync(file.fileno())
                if instead_of is not None and self.result(key) == instead_of:
                    file.path.replace(self._result_path(key))
                with suppress(FileExistsError, FileNotFoundError):
                    os.link(file.path, self._result_path(key))
                _sync_folder(self._results)
        standing = self.result(key)
        assert standing is not None
        return standing

    def _put(self, data: bytes) -> Digest:
        digest = digest_bytes(data)
        with suppress(PrivetError):  # missing or damaged: write it, which also mends it
            self.get_plain(digest)
            return digest
        with self._new_file() as file:
            file.write(data)
            return self._publish(file)[0]

    @contextmanager
    def _new_file(self) -> Iterator[_NewFile]:
        with _disk_faults():
            file = _NewFile(self._temporary / f"{os.getpid()}-{os.urandom(8).hex()}")
        try:
            yield file
        finally:
            with suppress(OSError):
                file.close()
            file.path.unlink(missing_ok=True)

    def _publish(self, file: _NewFile) -> tuple[Digest, int]:
        digest = "sha256:" + file.sha256.hexdigest()
        target = self._path(digest)
        with _disk_faults():
            os.fsync(file.fileno())
            target.parent.mkdir(exist_ok=True, mode=0o700)
            file.path.replace(target)
            _sync_folder(target.parent)
            _sync_folder(self._objects)
        return digest, file.size

    def _open(self, digest: Digest) -> io.FileIO:
        try:
            handle = os.open(self._path(digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ELOOP):
                raise _io_fault(error) from None
            raise IntegrityError(
                "E-STORE-001",
                f"{self._shown(digest)} of the store is missing",
                "Restore it from a backup, or run again, which makes anew what can be made anew",
            ) from None
        return io.FileIO(handle)

    def _path(self, digest: Digest) -> Path:
        name = _hexadecimal(digest)
        return self._objects / name[:2] / name

    def _shown(self, digest: Digest) -> str:
        return str(self._path(digest).relative_to(self._objects.parent))

    def _damaged(self, digest: Digest) -> IntegrityError:
        return IntegrityError(
            "E-STORE-002",
            f"{self._shown(digest)} is not what was written",
            "Restore it from a backup, or delete it and run again, which makes anew what can be made anew",
        )

    def _result_path(self, key: Digest) -> Path:
        return self._results / _hexadecimal(key)

    def _sweep(self) -> None:
        """Finish what a killed process was destroying; drop what it left half-written once a day old: nobody writes it."""
        limit = time.time() - _STALE_SECONDS
        for path in self._temporary.iterdir():
            with suppress(OSError):
                if path.name.startswith(_DOOMED):
                    _destroy(path)
                elif path.stat().st_mtime < limit:
                    path.unlink()


class _NewFile(io.RawIOBase):
    """An unnamed-to-be file: hashes what is written and turns I/O faults into E-STORE codes at their source."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.sha256 = hashlib.sha256()
        self.size = 0
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._handle

    def write(self, data: Buffer, /) -> int:
        view = memoryview(data).cast("B")
        done = 0
        with _disk_faults():
            while done < len(view):
                done += os.write(self._handle, view[done:])
        self.sha256.update(view)
        self.size += done
        return done

    def close(self) -> None:
        if not self.closed:
            os.close(self._handle)
        super().close()


def _destroy(path: Path) -> None:
    """Overwrite the part that holds the wrapped key, then unlink, even when overwriting failed, which is raised."""
    handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        span = min(os.fstat(handle).st_size, len(MAGIC) + 4 + _HEADER_LIMIT)
        os.pwrite(handle, bytes(span), 0)
        os.fsync(handle)
    finally:
        os.close(handle)
        path.unlink(missing_ok=True)
        _sync_folder(path.parent)


def _digest_file(file: io.FileIO) -> Digest:
    return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _read_envelope(file: io.FileIO, ref: ArtifactRef) -> tuple[str, int]:
    """The wrapped key, and where the body starts. Raises IntegrityError E-STORE-003 or E-STORE-004."""
    start = file.read(len(MAGIC) + 4)
    if len(start) != len(MAGIC) + 4 or not start.startswith(MAGIC):
        raise _malformed()
    (length,) = struct.unpack(">I", start[len(MAGIC) :])
    if length > _HEADER_LIMIT:
        raise _malformed()
    try:
        header = parse_canonical(file.read(length))
    except PrivetError:
        raise _malformed() from None
    match header:
        case {"v": 1, "data_class": str(data_class), "dataset": str(dataset), "path": str(path), "wrapped": str(wrapped)}:
            if (data_class, dataset, path) != (ref.data_class, ref.dataset, ref.path):
                raise IntegrityError(
                    "E-STORE-004", "a sealed object was written for another place", "Use the manifest that belongs to it"
                )
            return wrapped, len(MAGIC) + 4 + length
    raise _malformed()


def _hexadecimal(digest: Digest) -> str:
    if not is_digest(digest):  # also keeps path separators out of file names
        raise UsageError("E-STORE-009", "what was given is not a digest", "Give sha256: and 64 hexadecimal digits")
    return digest.removeprefix("sha256:")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _disk_faults() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _io_fault(error) from None


def _io_fault(error: OSError) -> EnvironmentFault:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return EnvironmentFault(
            "E-STORE-010",
            "the disk that holds the home is full; nothing half-written was kept",
            "Free some space and run again, which continues",
        )
    return EnvironmentFault(
        "E-STORE-011",
        f"the store can't be read or written ({error.strerror})",
        "Check the disk and the owner of the home, then run again",
    )


def _malformed() -> IntegrityError:
    return IntegrityError("E-STORE-003", "the envelope of a sealed object is malformed", "Restore the object")

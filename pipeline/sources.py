"""Opens source files without following links and without unbounded reading; a bad file is a code, never a crash.

Guarantee: a file is opened component by component with O_NOFOLLOW below one folder, so no name in the source
reaches outside it; decompression stops at `Limits.max_decompression_ratio` and holds at most some MiB.
A compressed file is taken whole or not at all: `survey` reads it to its end (checksums included) before any record
of it is used, and the second reading must give the same digest.
Assumption: the folder itself was named by the operator; a link there is followed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from privacy.canonical import Digest, Json, digest_of
from privacy.errors import DataError, UsageError
from privacy.policy import Limits, Source

Codec = Literal["plain", "gzip", "zstd"]
CHUNK = 131_072
# A tiny file may honestly compress better than the ratio; below this many plain bytes nobody is harmed.
RATIO_FLOOR = 1_048_576
# One zstd block of 4 bytes can hold 128 KiB, and `decompressobj` has no output bound: small bites bound the memory.
ZSTD_BITE = 512
ZSTD_WINDOW = 1 << 27
_MAGIC: dict[Codec, bytes] = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}


class FileFault(Exception):
    """One file of the source can't be taken; `code` says why. Never leaves the ingest stage."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class SurveyedFile:
    """One file as found. `name` (relative path) may be personal data: it is only ever written sealed."""

    name: str
    size: int
    digest: Digest | None  # over the stored (compressed) bytes; None when it can't be read
    fault: str | None
    changed_ns: int = 0  # modification time before it was hashed


@dataclass(frozen=True, slots=True)
class Survey:
    """Every file that the policy's patterns select, in the order of their names."""

    folder: Path
    files: tuple[SurveyedFile, ...]

    @property
    def digest(self) -> Digest:
        """Changes when any name, byte or fault of the source changes."""
        # Names need not be UTF-8; hex is a spelling that JSON can always carry.
        rows: list[Json] = [[os.fsencode(f.name).hex(), f.digest, f.fault] for f in self.files]
        return digest_of({"files": rows})


def source_folder(uri: str) -> Path:
    """A folder path or file:// URI. Raises UsageError E-INGEST-005 for anything else."""
    path = Path(uri)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", uri):
        parts = urlsplit(uri)
        if parts.scheme.lower() != "file" or parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
            raise _not_a_folder("is neither a folder path nor a file:// URI")
        path = Path(unquote(parts.path))
    if "\x00" in uri or not path.is_dir():
        raise _not_a_folder("is not a folder that can be read")
    return path.resolve()


def survey(folder: Path, source: Source) -> Survey:
    """List, hash and check every selected file. Faults are recorded, not raised."""
    found: list[SurveyedFile] = []
    first_with: set[Digest] = set()
    for name in _select(folder, source.files):
        entry = _survey_file(folder, name, source)
        if entry.fault is None and entry.digest in first_with and entry.size:
            entry = replace(entry, fault="E-INGEST-155")
        if entry.fault is None and entry.digest is not None:
            first_with.add(entry.digest)
        found.append(entry)
    return Survey(folder, tuple(found))


def open_beneath(folder: Path, name: str) -> int:
    """A read-only descriptor of a regular file below `folder`. Raises FileFault E-INGEST-150 or -151."""
    parts = name.split("/")
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO must not hang the worker
    handles: list[int] = []
    try:
        handles.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        for part in parts[:-1]:
            handles.append(os.open(part, flags | os.O_DIRECTORY, dir_fd=handles[-1]))
        handle = os.open(parts[-1], flags, dir_fd=handles[-1])
    except OSError as error:
        # ELOOP is what O_NOFOLLOW answers for a link (ENOTDIR for one in the middle); ENXIO is a socket.
        special = error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO)
        raise FileFault("E-INGEST-150" if special else "E-INGEST-151") from None
    finally:
        for opened in handles:
            os.close(opened)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise FileFault("E-INGEST-150")
    return handle


class StoredBytes:
    """The stored bytes of one file, at most `size` of them, hashed on the way."""

    def __init__(self, handle: int, size: int) -> None:
        self._file = os.fdopen(handle, "rb", buffering=0)
        self._left = size
        self._hash = hashlib.sha256()

    def read(self, count: int) -> bytes:
        try:
            data = self._file.read(min(count, self._left)) or b""
        except OSError:
            raise FileFault("E-INGEST-151") from None
        self._left -= len(data)
        self._hash.update(data)
        return data

    def digest(self) -> Digest:
        return "sha256:" + self._hash.hexdigest()

    def close(self) -> None:
        self._file.close()


def plain_chunks(folder: Path, file: SurveyedFile, limits: Limits) -> Iterator[bytes]:
    """The decompressed bytes of a surveyed file.

    Raises FileFault E-INGEST-151..154; DataError E-INGEST-004 when the bytes are no longer those of the survey.
    """
    with closing(StoredBytes(open_beneath(folder, file.name), file.size)) as stored:
        yield from _decompress(stored, codec_of(file.name), max(RATIO_FLOOR, limits.max_decompression_ratio * file.size))
        while stored.read(CHUNK):
            pass
        require_unchanged(stored.digest() == file.digest)


def require_unchanged(same: bool) -> None:
    """Raises DataError E-INGEST-004 unless `same`."""
    if not same:
        raise DataError(
            "E-INGEST-004",
            "a source file changed while it was read; nothing was committed",
            "Run again when the writer is done, or hand over finished files only",
        )


def codec_of(name: str) -> Codec:
    if name.endswith(".gz"):
        return "gzip"
    return "zstd" if name.endswith((".zst", ".zstd")) else "plain"


def _survey_file(folder: Path, name: str, source: Source) -> SurveyedFile:
    try:
        handle = open_beneath(folder, name)
    except FileFault as fault:
        return SurveyedFile(name, 0, None, fault.code)
    found = os.fstat(handle)
    size = found.st_size
    fault_code: str | None = None
    with closing(StoredBytes(handle, size)) as stored:
        try:
            codec = codec_of(name)
            if source.format == "parquet" and codec != "plain":
                raise FileFault("E-INGEST-154")
            for _ in _decompress(stored, codec, max(RATIO_FLOOR, source.limits.max_decompression_ratio * size)):
                pass
        except FileFault as fault:
            fault_code = fault.code
        try:
            while stored.read(CHUNK):
                pass
        except FileFault as fault:
            return SurveyedFile(name, size, None, fault.code)
        return SurveyedFile(name, size, stored.digest(), fault_code, found.st_mtime_ns)


def _decompress(stored: StoredBytes, codec: Codec, allowed: int) -> Iterator[bytes]:
    head = stored.read(CHUNK)
    if codec == "plain":
        if head.startswith(tuple(_MAGIC.values())):
            raise FileFault("E-INGEST-154")  # compressed, but its name says it is not
        chunks = _plain(stored, head)
    elif not head.startswith(_MAGIC[codec]):
        raise FileFault("E-INGEST-154" if head else "E-INGEST-152")
    else:
        chunks = _gunzip(stored, head) if codec == "gzip" else _unzstd(stored, head)
    produced = 0
    for chunk in chunks:
        produced += len(chunk)
        if codec != "plain" and produced > allowed:
            raise FileFault("E-INGEST-153")
        yield chunk


def _plain(stored: StoredBytes, data: bytes) -> Iterator[bytes]:
    while data:
        yield data
        data = stored.read(CHUNK)


def _gunzip(stored: StoredBytes, data: bytes) -> Iterator[bytes]:
    """Members one after another; zero padding after the last is allowed, other bytes are not."""
    member = zlib.decompressobj(wbits=31)
    try:
        while True:
            out = member.decompress(data, CHUNK)
            if out:
                yield out
            data = member.unconsumed_tail
            if member.eof:
                data = member.unused_data.lstrip(b"\x00") or _skip_zeros(stored)
                if not data:
                    return
                member = zlib.decompressobj(wbits=31)
            elif not data and not out:
                data = stored.read(CHUNK)
                if not data:
                    raise FileFault("E-INGEST-152")
    except zlib.error:
        raise FileFault("E-INGEST-152") from None


def _skip_zeros(stored: StoredBytes) -> bytes:
    while data := stored.read(CHUNK):
        if rest := data.lstrip(b"\x00"):
            return rest
    return b""


def _unzstd(stored: StoredBytes, data: bytes) -> Iterator[bytes]:
    import zstandard

    engine = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
    frame = engine.decompressobj()
    try:
        while True:
            while data:
                out = frame.decompress(data[:ZSTD_BITE])
                if out:
                    yield out
                data = data[ZSTD_BITE:]
                if frame.eof:
                    data = frame.unused_data + data
                    frame = engine.decompressobj()
                    if not data and not (data := stored.read(CHUNK)):
                        return
            if not (data := stored.read(CHUNK)):
                raise FileFault("E-INGEST-152")
    except zstandard.ZstdError:
        raise FileFault("E-INGEST-152") from None


def _select(folder: Path, patterns: tuple[str, ...]) -> list[str]:
    """Relative names that a pattern selects. `*` stays inside one folder, `**` crosses; dot files need a pattern with a dot."""
    split = [tuple(part for part in pattern.split("/") if part not in ("", ".")) for pattern in patterns]
    depth = max((64 if "**" in parts else len(parts)) for parts in split)
    names: list[str] = []

    def unreadable(error: OSError) -> None:  # kept as a name: opening it gives the reject
        names.append(Path(error.filename).relative_to(folder).as_posix())

    for where, folders, files in os.walk(folder, onerror=unreadable, followlinks=False):
        below = Path(where).relative_to(folder).parts
        linked = [d for d in folders if (Path(where) / d).is_symlink()]
        folders[:] = sorted(set(folders) - set(linked)) if len(below) + 1 < depth else []
        for name in (*files, *linked):
            parts = (*below, name)
            if any(_matches(parts, pattern) for pattern in split):
                names.append("/".join(parts))
    return sorted(names)


def _matches(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    if not pattern or not parts:
        return not parts and set(pattern) <= {"**"}
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or _matches(parts[1:], pattern)
    if parts[0].startswith(".") and not pattern[0].startswith("."):
        return False
    return fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _not_a_folder(why: str) -> UsageError:
    return UsageError("E-INGEST-005", f"the source {why}", "Give the path of a local folder, or file:///path/to/folder")

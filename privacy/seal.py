"""The sealed file format: what opens is exactly what was sealed, under this key and for this place, or an error.

Format: Cobblestone-256, c2sp.org/chunked-encryption (AES-256-GCM over 16 KiB chunks, 56 bytes ahead, 16 a chunk).
Guarantee: key and context are committed to, so a wrong one is refused before any plaintext; a flipped bit, a
moved, missing or added chunk and a cut file are refused; reading at random is authenticated as reading in order is;
a buffer that a refused chunk was decrypted into is cleared before the error leaves.
Assumption: one key seals one file. Not covered: length and time of writing are visible; an older sealed file
of the same place and key opens (the store binds files to digests against that).
Streaming `unseal` writes verified chunks before it has seen the end: discard what it wrote when it raises. Memory: two
buffers of 1 MiB, whatever the length of the file.
"""

from __future__ import annotations

import io
import mmap
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.constant_time import bytes_eq
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from privacy.canonical import Json, digest_of
from privacy.errors import IntegrityError

if TYPE_CHECKING:
    from typing_extensions import Buffer

CHUNK = 16384
TAG = 16
SALT = 24
HEADER = SALT + 32
KEY = 32
SEALED_CHUNK = CHUNK + TAG
_BATCH = 64  # chunks an I/O: 1 MiB; smaller ones cost more calls, larger ones fall out of the cache
_LINE, _PAGE = 64, 4096
_MAX_CHUNKS = 1 << 38  # 4 PiB, the limit the specification sets for AES-256-GCM
_LABEL = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\x00"


@dataclass(frozen=True, slots=True)
class SealContext:
    """Where a sealed file belongs; it opens nowhere else.

    version: what the content was made from, normally a digest. schema: digest of the columns of a table, else empty.
    """

    dataset: str
    path: str
    data_class: str
    version: str = ""
    schema: str = ""

    def to_json(self) -> dict[str, Json]:
        return {name: getattr(self, name) for name in ("dataset", "path", "data_class", "version", "schema")}

    def to_bytes(self) -> bytes:
        """32 bytes, injective in the five names (digest of canonical JSON)."""
        return bytes.fromhex(digest_of({"sealed": 2, **self.to_json()}).removeprefix("sha256:"))


class SealedChunks:
    """The AEAD of one file: chunk `index` under nonce base XOR index. For this module and `seal_probe`."""

    __slots__ = ("_aead", "_base", "commitment")

    def __init__(self, key: bytes, salt: bytes, context: bytes) -> None:
        if len(key) != KEY:
            raise IntegrityError("E-SEAL-004", "a sealing key is not 32 bytes long", "Use the key that the keyring gave")
        derived = HKDFExpand(SHA512(), 76, _LABEL + salt + context).derive(key)
        self._aead = AESGCM(derived[:32])
        self._base = int.from_bytes(derived[32:44], "big")
        self.commitment = derived[44:]

    def begins(self, header: bytes) -> bool:
        """Whether `header` commits to this key and context."""
        return bytes_eq(self.commitment, header[SALT:])

    def seal(self, index: int, plain: Sequence[memoryview], sealed: Sequence[memoryview]) -> None:
        """Encrypt `plain` chunks from `index` on, each into the buffer beside it, which is TAG longer."""
        if index + len(plain) > _MAX_CHUNKS:
            raise IntegrityError("E-SEAL-005", "a sealed file would be longer than 4 PiB", "Split the data over several files")
        encrypt, base = self._aead.encrypt_into, self._base
        for source, target in zip(plain, sealed, strict=False):
            encrypt((base ^ index).to_bytes(12, "big"), source, None, target)
            index += 1

    def unseal(self, index: int, sealed: Sequence[memoryview], plain: Sequence[memoryview]) -> int:
        """Decrypt chunks from `index` on, each into the buffer beside it; how many were authentic, up to the first not.

        The first that is not leaves its buffer cleared, and those after it are not touched.
        """
        decrypt, base, done = self._aead.decrypt_into, self._base, 0
        try:
            for source, target in zip(sealed, plain, strict=False):
                decrypt((base ^ (index + done)).to_bytes(12, "big"), source, None, target)
                done += 1
        except InvalidTag:
            # The library decrypts first and checks the tag after: what it left there nobody vouches for.
            plain[done][:] = bytes(len(plain[done]))
        return done


def seal(src: BinaryIO, dst: BinaryIO, key: bytes, context: bytes) -> None:
    """Encrypt all of `src` to `dst` in constant memory. `key`: 32 bytes, used for this file only."""
    buffer = _buffer(_BATCH * CHUNK, _position(src))
    chunks = _pieces(buffer, CHUNK)
    writer = SealedWriter(dst, key, context)
    while (size := _fill(src, buffer)) == len(buffer):
        writer.write_chunks(chunks)
    writer.write(buffer[:size])
    writer.close()


def unseal(src: BinaryIO, dst: BinaryIO, key: bytes, context: bytes) -> None:
    """Decrypt all of `src` to `dst`. Raises IntegrityError E-SEAL-001 to 004; then only a prefix was written."""
    header = bytearray(HEADER)
    chunks = _open_header(bytes(header[: _fill(src, memoryview(header))]), key, context)
    sealed, plain = _buffer(_BATCH * SEALED_CHUNK, _position(src)), _buffer(_BATCH * CHUNK, _position(dst))
    sources, targets = _pieces(sealed, SEALED_CHUNK), _pieces(plain, CHUNK)
    first = 0
    while True:
        size = _fill(src, sealed)
        whole, rest = divmod(size, SEALED_CHUNK)
        done = chunks.unseal(first, sources[:whole], targets)
        _write_fully(dst, plain[: done * CHUNK])
        first += done
        if done < whole:
            raise _not_authentic(first)
        if whole == _BATCH:
            continue
        if rest < TAG:
            raise _truncated()
        if not chunks.unseal(first, [sealed[size - rest : size]], [plain[: rest - TAG]]):
            raise _not_authentic(first)
        _write_fully(dst, plain[: rest - TAG])
        return


class SealedWriter(io.RawIOBase):
    """A writable file whose bytes arrive sealed in `file`, which stays open.

    `close()` writes the last chunk; without it the file does not open. `abandon()` ends without the last chunk, and
    so does dropping the object: what an error cut short must not look whole. Not for threads.
    """

    def __init__(self, file: BinaryIO, key: bytes, context: bytes) -> None:
        super().__init__()
        self._held = 0  # bytes of `_partial` that are waiting for the rest of their chunk
        self._partial = _buffer(CHUNK)
        self._sealed = _buffer(_PAGE + HEADER + _BATCH * SEALED_CHUNK)
        salt = os.urandom(SALT)
        self._chunks = SealedChunks(key, salt, context)
        self._file = file
        self._index = self._position = 0
        self._first = _position(file) % _PAGE  # what is not written yet lies from here
        self._end = self._first + HEADER  # to here; a byte has the same place in a page of the buffer and of the file
        self._sealed[self._first : self._end] = salt + self._chunks.commitment

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        """Plaintext bytes taken so far."""
        return self._position

    def write(self, data: Buffer, /) -> int:
        if self.closed:
            raise ValueError("write to a closed sealed file")
        view = memoryview(data).cast("B")
        taken = 0
        if self._held:
            taken = self._hold(view)
            if self._held == CHUNK:
                self._held = 0
                self._seal([self._partial])
        whole = (len(view) - taken) // CHUNK * CHUNK
        if whole:
            self._seal(_pieces(view[taken : taken + whole], CHUNK))
        self._hold(view[taken + whole :])
        self._position += len(view)
        return len(view)

    def write_chunks(self, chunks: Sequence[memoryview]) -> None:
        """`write` for whole chunks, sealed from where they lie; only at a chunk edge."""
        if self._held or self.closed:
            raise ValueError("whole chunks can't be added inside a chunk or to a closed sealed file")
        self._seal(chunks)
        self._position += len(chunks) * CHUNK

    def close(self) -> None:
        if self.closed:
            return
        try:
            # The last chunk is shorter than CHUNK, empty if need be: that is what marks the end.
            stop = self._end + self._held + TAG
            self._chunks.seal(self._index, [self._partial[: self._held]], [self._sealed[self._end : stop]])
            _write_fully(self._file, self._sealed[self._first : stop])
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close without the last chunk, so that nobody can open what was written."""
        if not self.closed:
            self._partial[:] = bytes(CHUNK)
        super().close()

    def __del__(self) -> None:
        if hasattr(self, "_file"):  # not when the key was refused
            self.abandon()

    def _hold(self, view: memoryview) -> int:
        taken = min(len(view), CHUNK - self._held)
        self._partial[self._held : self._held + taken] = view[:taken]
        self._held += taken
        return taken

    def _seal(self, chunks: Sequence[memoryview]) -> None:
        done = 0
        while done < len(chunks):
            some = chunks[done : done + (len(self._sealed) - self._end) // SEALED_CHUNK]
            stop = self._end + len(some) * SEALED_CHUNK
            self._chunks.seal(self._index, some, _pieces(self._sealed[self._end : stop], SEALED_CHUNK))
            self._index += len(some)
            self._end = stop
            done += len(some)
            if len(self._sealed) - stop < SEALED_CHUNK:
                self._write_whole_pages()

    def _write_whole_pages(self) -> None:
        """Up to a page boundary of the file: the kernel takes whole pages measurably faster than torn ones."""
        stop = self._end // _PAGE * _PAGE
        _write_fully(self._file, self._sealed[self._first : stop])
        left = self._end - stop
        self._sealed[:left] = self._sealed[stop : self._end]
        self._first, self._end = 0, left


class SealedReader(io.RawIOBase):
    """A seekable read-only file over the sealed bytes that start at `offset` of `file`.

    Opening verifies key, context and (by the last chunk) the length; reading verifies every chunk it touches, straight
    into the caller's buffer, which is cleared when one is refused. Owns `file` and closes it. Wrap in
    `io.BufferedReader` for small reads and for threads. Errors: E-SEAL-001 to 004.
    """

    def __init__(self, file: BinaryIO, offset: int, key: bytes, context: bytes) -> None:
        super().__init__()
        self._file = file
        self._start = offset + HEADER
        file.seek(offset)
        header = bytearray(HEADER)
        self._chunks = _open_header(bytes(header[: _fill(file, memoryview(header))]), key, context)
        self._whole, self._last = divmod(file.seek(0, io.SEEK_END) - self._start, SEALED_CHUNK)
        if self._last < TAG:
            raise _truncated()
        self.size = self._whole * CHUNK + self._last - TAG
        self._position = 0
        self._sealed = _buffer(_BATCH * SEALED_CHUNK, self._start)
        self._slots = _pieces(self._sealed, SEALED_CHUNK)
        self._edge = _buffer(CHUNK)  # the chunk that the last reading ended in; the next begins there
        self._edge_index = -1
        self._open_edge(self._whole)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise ValueError("seek before the start of a sealed file")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Buffer, /) -> int:
        target = memoryview(buffer).cast("B")
        wanted = min(len(target), max(0, self.size - self._position))
        done = 0
        try:
            while done < wanted:
                done += self._read_some(target[done:wanted])
        except BaseException:
            target[:done] = bytes(done)  # what no caller is told of must not lie in its buffer either
            self._position -= done
            raise
        return done

    def close(self) -> None:
        if not self.closed:
            if hasattr(self, "_edge"):
                self._edge[:] = bytes(CHUNK)
            self._file.close()
        super().close()

    def _read_some(self, target: memoryview) -> int:
        """Fill `target` to the end of a chunk, or with one batch of whole ones."""
        first, skip = divmod(self._position, CHUNK)
        whole = min(len(target) // CHUNK, _BATCH, self._whole - first)
        if skip == 0 and whole > 0 and first != self._edge_index:
            self._fetch(first, whole * SEALED_CHUNK)
            done = self._chunks.unseal(first, self._slots[:whole], _pieces(target[: whole * CHUNK], CHUNK))
            if done < whole:
                target[: done * CHUNK] = bytes(done * CHUNK)
                raise _not_authentic(first + done)
            done *= CHUNK
        else:
            self._open_edge(first)
            done = min(self._plain_size(first) - skip, len(target))
            target[:done] = self._edge[skip : skip + done]
        self._position += done
        return done

    def _open_edge(self, index: int) -> None:
        if index == self._edge_index:
            return
        self._edge_index = -1
        size = self._plain_size(index)
        self._fetch(index, size + TAG)
        if not self._chunks.unseal(index, [self._sealed[: size + TAG]], [self._edge[:size]]):
            raise _not_authentic(index)
        self._edge_index = index

    def _plain_size(self, index: int) -> int:
        return CHUNK if index < self._whole else self._last - TAG

    def _fetch(self, first: int, size: int) -> None:
        self._file.seek(self._start + first * SEALED_CHUNK)
        if _fill(self._file, self._sealed[:size]) < size:
            raise _truncated()


def _open_header(header: bytes, key: bytes, context: bytes) -> SealedChunks:
    if len(header) < HEADER:
        raise _truncated()
    chunks = SealedChunks(key, header[:SALT], context)
    if not chunks.begins(header):
        raise IntegrityError(
            "E-SEAL-001",
            "a sealed file does not belong to this key and place, or its first bytes were altered",
            "Restore the file, and open it with the keyring and the manifest it was written with",
        )
    return chunks


def _buffer(size: int, position: int = 0) -> memoryview:
    """Memory for bytes of a file from `position` on, at the same place of a cache line as there, which the kernel copies
    measurably faster; not in core dumps, and not shared with forked processes."""
    memory = mmap.mmap(-1, size + _LINE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_DONTDUMP"):
        memory.madvise(mmap.MADV_DONTDUMP)
    start = position % _LINE
    return memoryview(memory)[start : start + size]


def _position(file: BinaryIO) -> int:
    with suppress(OSError, AttributeError):  # a pipe has no position
        return file.tell()
    return 0


def _pieces(view: memoryview, size: int) -> list[memoryview]:
    return [view[start : start + size] for start in range(0, len(view), size)]


def _fill(file: BinaryIO, target: memoryview) -> int:
    """Fill `target` from `file`; less only at the end of the file (a raw file may give less each time)."""
    done = 0
    while done < len(target) and (got := file.readinto(target[done:])):  # type: ignore[attr-defined]
        done += got
    return done


def _write_fully(file: BinaryIO, view: memoryview) -> None:
    while view:
        view = view[file.write(view) :]


def _truncated() -> IntegrityError:
    return IntegrityError("E-SEAL-002", "a sealed file is cut short", "Restore the file, or run the stage that wrote it again")


def _not_authentic(index: int) -> IntegrityError:
    return IntegrityError(
        "E-SEAL-003",
        f"chunk {index} of a sealed file is not authentic",
        "The file was altered or damaged: restore it, or run the stage that wrote it again",
    )

"""The sealed file format: what opens is exactly what was sealed, under this key and for this place, or an error.

Format: Cobblestone-256, c2sp.org/chunked-encryption (AES-256-GCM over 16 KiB chunks, 56 bytes ahead, 16 a chunk).
Guarantee: key and context are committed to, so a wrong one is refused before any plaintext; a flipped bit, a
moved, missing or added chunk and a cut file are refused; reading at random is authenticated as reading in order is.
Assumption: one key seals one file. Not covered: length and time of writing are visible; an older sealed file
of the same place and key opens (the store binds files to digests against that).
Streaming `unseal` writes verified chunks before it has seen the end: discard what it wrote when it raises.
"""

from __future__ import annotations

import io
import os
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
_SEALED = CHUNK + TAG
_BATCH = 64  # chunks an I/O: 1 MiB at a time costs no measurable time over larger ones
_MAX_CHUNKS = 1 << 38  # 4 PiB, the limit the specification sets for AES-256-GCM
_LABEL = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\x00"


@dataclass(frozen=True, slots=True)
class SealContext:
    """Where a sealed file belongs; it opens nowhere else."""

    dataset: str
    path: str
    data_class: str

    def to_bytes(self) -> bytes:
        """32 bytes, injective in the three names (digest of canonical JSON)."""
        fields: dict[str, Json] = {"sealed": 1, "dataset": self.dataset, "path": self.path, "data_class": self.data_class}
        return bytes.fromhex(digest_of(fields).removeprefix("sha256:"))


class _Chunks:
    """The AEAD of one file: chunk `index` under nonce base XOR index."""

    __slots__ = ("_aead", "_base", "commitment")

    def __init__(self, key: bytes, salt: bytes, context: bytes) -> None:
        if len(key) != KEY:
            raise IntegrityError("E-SEAL-004", "a sealing key is not 32 bytes long", "Use the key that the keyring gave")
        derived = HKDFExpand(SHA512(), 76, _LABEL + salt + context).derive(key)
        self._aead = AESGCM(derived[:32])
        self._base = int.from_bytes(derived[32:44], "big")
        self.commitment = derived[44:]

    def _nonce(self, index: int) -> bytes:
        if index >= _MAX_CHUNKS:
            raise IntegrityError("E-SEAL-005", "a sealed file would be longer than 4 PiB", "Split the data over several files")
        return (self._base ^ index).to_bytes(12, "big")

    def seal(self, index: int, plain: bytes | memoryview) -> bytes:
        return self._aead.encrypt(self._nonce(index), plain, None)

    def unseal(self, index: int, sealed: bytes | memoryview) -> bytes:
        try:
            return self._aead.decrypt(self._nonce(index), sealed, None)
        except InvalidTag:
            raise _not_authentic(index) from None


def seal(src: BinaryIO, dst: BinaryIO, key: bytes, context: bytes) -> None:
    """Encrypt all of `src` to `dst` in constant memory. `key`: 32 bytes, used for this file only."""
    writer = SealedWriter(dst, key, context)
    while block := src.read(_BATCH * CHUNK):
        writer.write(block)
    writer.close()


def unseal(src: BinaryIO, dst: BinaryIO, key: bytes, context: bytes) -> None:
    """Decrypt all of `src` to `dst`. Raises IntegrityError E-SEAL-001 to 004; then only a prefix was written."""
    chunks = _open_header(_read_fully(src, HEADER), key, context)
    index = 0
    while True:
        batch = _read_fully(src, _BATCH * _SEALED)
        whole, rest = divmod(len(batch), _SEALED)
        view = memoryview(batch)
        for number in range(whole):
            _write_fully(dst, chunks.unseal(index, view[number * _SEALED : (number + 1) * _SEALED]))
            index += 1
        if whole == _BATCH:
            continue
        if rest < TAG:
            raise _truncated()
        _write_fully(dst, chunks.unseal(index, view[whole * _SEALED :]))
        return


class SealedWriter(io.RawIOBase):
    """A writable file whose bytes arrive sealed in `file`, which stays open.

    `close()` writes the last chunk; without it the file does not open. `abandon()` ends without the last chunk, and
    so does dropping the object: what an error cut short must not look whole.
    """

    def __init__(self, file: BinaryIO, key: bytes, context: bytes) -> None:
        super().__init__()
        self._pending = bytearray()
        salt = os.urandom(SALT)
        self._chunks = _Chunks(key, salt, context)
        self._file = file
        self._index = 0
        self._position = 0
        _write_fully(file, salt + self._chunks.commitment)

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        """Plaintext bytes taken so far."""
        return self._position

    def write(self, data: Buffer, /) -> int:
        if self.closed:
            raise ValueError("write to a closed sealed file")
        view = memoryview(data).cast("B")
        self._pending += view
        self._position += len(view)
        if len(self._pending) >= _BATCH * CHUNK:
            self._flush_whole_chunks()
        return len(view)

    def close(self) -> None:
        if self.closed:
            return
        try:
            # The last chunk is shorter than CHUNK, empty if need be: that is what marks the end.
            self._flush_whole_chunks()
            _write_fully(self._file, self._chunks.seal(self._index, bytes(self._pending)))
        finally:
            self._pending.clear()
            super().close()

    def abandon(self) -> None:
        """Close without the last chunk, so that nobody can open what was written."""
        self._pending.clear()
        super().close()

    def __del__(self) -> None:
        self.abandon()

    def _flush_whole_chunks(self) -> None:
        whole = len(self._pending) // CHUNK
        with memoryview(self._pending) as view:
            sealed = [self._chunks.seal(self._index + n, view[n * CHUNK : (n + 1) * CHUNK]) for n in range(whole)]
        if sealed:
            _write_fully(self._file, b"".join(sealed))
            self._index += whole
            del self._pending[: whole * CHUNK]


class SealedReader(io.RawIOBase):
    """A seekable read-only file over the sealed bytes that start at `offset` of `file`.

    Opening verifies key, context and (by the last chunk) the length; reading verifies every chunk it touches.
    Owns `file` and closes it. Wrap in `io.BufferedReader` for small reads. Errors: E-SEAL-001 to 004.
    """

    def __init__(self, file: BinaryIO, offset: int, key: bytes, context: bytes) -> None:
        super().__init__()
        self._file = file
        self._start = offset + HEADER
        file.seek(offset)
        self._chunks = _open_header(_read_fully(file, HEADER), key, context)
        sealed_size = file.seek(0, io.SEEK_END) - self._start
        self._whole, self._last = divmod(sealed_size, _SEALED)
        if self._last < TAG:
            raise _truncated()
        self.size = self._whole * CHUNK + self._last - TAG
        self._position = 0
        self._read_chunks(self._whole, self._whole)

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
        wanted = min(len(target), max(0, self.size - self._position), _BATCH * CHUNK)
        if wanted == 0:
            return 0
        first, skip = divmod(self._position, CHUNK)
        plain = self._read_chunks(first, (self._position + wanted - 1) // CHUNK)
        target[:wanted] = memoryview(plain)[skip : skip + wanted]
        self._position += wanted
        return wanted

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()

    def _read_chunks(self, first: int, last: int) -> bytes:
        self._file.seek(self._start + first * _SEALED)
        parts = []
        for index in range(first, last + 1):
            size = _SEALED if index < self._whole else self._last
            sealed = _read_fully(self._file, size)
            if len(sealed) < size:
                raise _truncated()
            parts.append(self._chunks.unseal(index, sealed))
        return b"".join(parts)


def _open_header(header: bytes, key: bytes, context: bytes) -> _Chunks:
    if len(header) < HEADER:
        raise _truncated()
    chunks = _Chunks(key, header[:SALT], context)
    if not bytes_eq(chunks.commitment, header[SALT:]):
        raise IntegrityError(
            "E-SEAL-001",
            "a sealed file does not belong to this key and place, or its first bytes were altered",
            "Restore the file, and open it with the keyring and the manifest it was written with",
        )
    return chunks


def _read_fully(file: BinaryIO, size: int) -> bytes:
    """Up to `size` bytes; fewer only at the end of the file (a raw file may give less each time)."""
    block = file.read(size)
    if len(block) in (0, size):
        return block
    parts = [block]
    missing = size - len(block)
    while missing and (block := file.read(missing)):
        parts.append(block)
        missing -= len(block)
    return b"".join(parts)


def _write_fully(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
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

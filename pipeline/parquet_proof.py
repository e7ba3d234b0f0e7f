"""Proves that a Parquet file is encrypted in the safe shape, byte by byte, without the library that wrote it.

Guarantee, when `prove_encrypted` returns: the footer is encrypted; the algorithm is AES_GCM_V1 (never AES_GCM_CTR_V1, whose
pages are not authenticated); an AAD prefix is needed and not in the file; every column chunk of the schema is encrypted
under the given key; and each byte of the file lies in a module that the key authenticates at its place, or is framing.
Assumption: one key for all columns, no page index and no Bloom filter, which is what `pipeline.export_child` writes.
Source: Apache Parquet, "Parquet Modular Encryption" (Encryption.md), sections 4.4 and 5; Thrift compact protocol.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from privacy.errors import IntegrityError

_MAGIC = b"PARE"
_FOOTER, _DATA_PAGE, _DICTIONARY_PAGE, _DATA_HEADER, _DICTIONARY_HEADER = 0, 2, 3, 4, 5
_NONCE = 12
_FOOTER_LIMIT = 64 << 20
_DEPTH = 16
Fields = dict[int, Any]  # a Thrift structure by field id; what is in it is checked where it is used


@dataclass(frozen=True, slots=True)
class Proof:
    rows: int
    columns: int
    column_chunks: int
    modules: int


def prove_encrypted(path: Path, key: bytes, aad_prefix: bytes, columns: int) -> Proof:
    """Raises IntegrityError E-EXPORT-008, with what is wrong. columns: how many the file must have."""
    try:
        with path.open("rb") as file:
            return _Prover(file, key, aad_prefix).prove(columns)
    except (IndexError, KeyError, ValueError, TypeError, struct.error, InvalidTag):
        raise _unsafe("a part of it can't be authenticated or is malformed") from None


class _Prover:
    def __init__(self, file: BinaryIO, key: bytes, aad_prefix: bytes) -> None:
        self._file = file
        self._aead = AESGCM(key)
        self._aad = aad_prefix
        self._modules = 0
        self.size = file.seek(0, 2)

    def prove(self, columns: int) -> Proof:
        tail = self._bytes(self.size - 8, 8)
        (length,) = struct.unpack("<I", tail[:4])
        if self._bytes(0, 4) != _MAGIC or tail[4:] != _MAGIC:
            raise _unsafe("its footer is not encrypted")
        start = self.size - 8 - length
        if length > _FOOTER_LIMIT or start < len(_MAGIC):
            raise _unsafe("its footer is malformed")
        footer = self._bytes(start, length)
        head, at = _structure(footer, 0, 0)
        self._aad += _file_aad(head)
        metadata, _ = _structure(self._open(start + at, length - at, _FOOTER), 0, 0)
        groups = metadata[4]
        spans = [self._column(r, c, chunk) for r, group in enumerate(groups) for c, chunk in enumerate(group[1])]
        if any(len(group[1]) != columns for group in groups) or sum(1 for e in metadata[2] if 5 not in e) != columns:
            raise _unsafe("it has other columns than were written")
        if _covered(spans, len(_MAGIC)) != start:
            raise _unsafe("it has bytes that belong to no encrypted column")
        return Proof(int(metadata[3]), columns, len(spans), self._modules)

    def _column(self, group: int, number: int, chunk: Fields) -> tuple[int, int]:
        """Where the chunk lies, after each of its modules was authenticated at its place."""
        if 1 not in chunk.get(8, {}) or 9 in chunk:
            raise _unsafe("a column is not encrypted with the key of the file")
        metadata = chunk[3]
        dictionary = metadata.get(11)
        first = dictionary or metadata[9]
        at, end = first, first + metadata[7]
        page = -1 if dictionary else 0
        while at < end:
            data_page = page >= 0
            ordinals = (group, number, page) if data_page else (group, number)
            for kind in (_DATA_HEADER, _DATA_PAGE) if data_page else (_DICTIONARY_HEADER, _DICTIONARY_PAGE):
                size = 4 + struct.unpack("<I", self._bytes(at, 4))[0]
                self._open(at, min(size, end - at), kind, *ordinals)
                at += size
            page += 1
        if at != end:
            raise _unsafe("a column is longer or shorter than its footer says")
        return first, end

    def _open(self, at: int, size: int, kind: int, *ordinals: int) -> bytes:
        """One module: u32 length | nonce | ciphertext and tag. Raises InvalidTag."""
        data = self._bytes(at, size)
        (length,) = struct.unpack("<I", data[:4])
        if length != len(data) - 4:
            raise _unsafe("a module has another length than its place")
        aad = self._aad + bytes([kind]) + b"".join(struct.pack("<h", ordinal) for ordinal in ordinals)
        plain = self._aead.decrypt(data[4 : 4 + _NONCE], data[4 + _NONCE :], aad)
        self._modules += 1
        return plain

    def _bytes(self, at: int, size: int) -> bytes:
        if at < 0 or size < 0:
            raise ValueError("outside of the file")
        self._file.seek(at)
        data = self._file.read(size)
        if len(data) != size:
            raise ValueError("outside of the file")
        return data


def _file_aad(head: Fields) -> bytes:
    """The part of the AAD that is unique to the file, if the algorithm is the safe one."""
    algorithm = head[1]
    if set(algorithm) != {1}:
        raise _unsafe("its algorithm is not AES_GCM_V1")
    gcm = algorithm[1]
    if gcm.get(1) or gcm.get(3) is not True:
        raise _unsafe("its AAD prefix is missing, or stored in the file")
    return bytes(gcm[2])


def _covered(spans: list[tuple[int, int]], start: int) -> int:
    for first, end in sorted(spans):
        if first != start:
            raise _unsafe("it has bytes that belong to no encrypted column")
        start = end
    return start


def _structure(data: bytes, at: int, depth: int) -> tuple[Fields, int]:
    if depth > _DEPTH:
        raise ValueError("too deep")
    fields: Fields = {}
    number = 0
    while data[at]:
        delta, kind = data[at] >> 4, data[at] & 15
        at += 1
        if delta:
            number += delta
        else:
            number, at = _integer(data, at)
        fields[number], at = (kind == 1, at) if kind in (1, 2) else _value(data, at, kind, depth)
    return fields, at + 1


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (4, 5, 6):
        return _integer(data, at)
    if kind in (1, 2, 3):  # one byte; a truth value only as an element of a list
        return data[at], at + 1
    if kind == 7:
        return struct.unpack_from("<d", data, at)[0], at + 8
    if kind == 8:
        size, at = _unsigned(data, at)
        return data[at : at + size], at + size
    if kind in (9, 10):
        return _list(data, at, depth)
    if kind == 12:
        return _structure(data, at, depth + 1)
    raise ValueError("a type that Parquet does not use")


def _list(data: bytes, at: int, depth: int) -> tuple[list[Any], int]:
    size, kind = data[at] >> 4, data[at] & 15
    at += 1
    if size == 15:
        size, at = _unsigned(data, at)
    found = []
    for _ in range(size):
        value, at = _value(data, at, kind, depth + 1)
        found.append(value)
    return found, at


def _unsigned(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if not data[at - 1] & 0x80:
            return value, at
        if shift > 63:
            raise ValueError("an integer of more than 64 bits")


def _integer(data: bytes, at: int) -> tuple[int, int]:
    value, at = _unsigned(data, at)
    return (value >> 1) ^ -(value & 1), at


def _unsafe(what: str) -> IntegrityError:
    return IntegrityError(
        "E-EXPORT-008",
        f"the exported file is not encrypted as it must be: {what}",
        "Nothing was exported; report this with the version of pyarrow",
    )

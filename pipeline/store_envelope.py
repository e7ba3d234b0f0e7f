"""The head of a sealed object: magic | u32 length | canonical JSON of format, place and wrapped key; then the sealed body.

Guarantee: what stands there in the clear is bound twice: the wrapped key opens for this place only, and the body commits
to the same place. Not covered: dataset, path, class, version and schema digest are visible; they hold no personal data.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from privacy.canonical import canonical_json, parse_canonical
from privacy.errors import IntegrityError, PrivetError, UsageError
from privacy.seal import SealContext

MAGIC = b"PRIVETS1"
START = len(MAGIC) + 4
HEADER_LIMIT = 8192
_FORMAT = 2


@dataclass(frozen=True, slots=True)
class Envelope:
    """`offset`: where the body starts."""

    place: SealContext
    wrapped: str
    offset: int


def make_envelope(place: SealContext, wrapped: str) -> bytes:
    header = canonical_json({"v": _FORMAT, **place.to_json(), "wrapped": wrapped})
    if len(header) > HEADER_LIMIT:
        raise UsageError("E-STORE-008", "the name of a sealed object is too long", "Use a shorter path")
    return MAGIC + struct.pack(">I", len(header)) + header


def read_envelope(file: BinaryIO) -> Envelope:
    """From the start of `file`. Raises IntegrityError E-STORE-003 (malformed), E-STORE-017 (not a sealed object at all)."""
    start = file.read(START)
    if not start.startswith(MAGIC):
        raise not_sealed("an object of the store")
    header = file.read(header_length(start)) if len(start) == START else b""
    return parse_header(header)


def header_length(start: bytes) -> int:
    """Of the START first bytes. Raises IntegrityError E-STORE-003."""
    (length,) = struct.unpack(">I", start[len(MAGIC) :])
    if length > HEADER_LIMIT:
        raise _malformed()
    return int(length)


def parse_header(header: bytes) -> Envelope:
    try:
        value = parse_canonical(header)
    except PrivetError:
        raise _malformed() from None
    match value:
        case {
            "v": 2,
            "dataset": str(dataset),
            "path": str(path),
            "data_class": str(data_class),
            "version": str(version),
            "schema": str(schema),
            "wrapped": str(wrapped),
            **rest,
        } if not rest:
            return Envelope(SealContext(dataset, path, data_class, version, schema), wrapped, START + len(header))
    raise _malformed()


def not_sealed(shown: str) -> IntegrityError:
    return IntegrityError(
        "E-STORE-017",
        f"{shown} was replaced by something that is not sealed",
        "Find out who put it there; restore the object from a backup, or delete it and run again",
    )


def _malformed() -> IntegrityError:
    return IntegrityError("E-STORE-003", "the envelope of a sealed object is malformed", "Restore the object")

"""Keyed pseudonyms of values: the same on one value in a text and on millions of rows of a column.

Guarantee: a pseudonym is keyed BLAKE2b (RFC 7693) of 64 bits over type and normalised value; a text shows its first 24. It is
stable under one key and domain, and unlinkable across domains, for each has a key of its own. Values that differ in case,
width, spaces, dashes, dots or brackets alone share one. There is no map back: the way to a value is the vault.
Assumption: the key stays in the keyring; who holds it can test guesses. Not covered: 24 bits mean that among 4,096 values in
texts two share a pseudonym with probability 0.4; in a column, among a million values with 3e-8.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING

from privacy.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

_MOST_KEY = 64
_SPACING = re.compile(r"[\s\-().]+")
_SPACING_ASCII = b" \t\n\r\f\v\x1c\x1d\x1e\x1f-()."
_WITHOUT_SPACING = dict.fromkeys(_SPACING_ASCII)
_TEXT_SIGNS, _COLUMN_BYTES = 6, 8


def folded_value(value: str) -> str:
    """The one spelling of a value that its pseudonym is made of."""
    if value.isascii():
        return value.translate(_WITHOUT_SPACING).lower()
    return _SPACING.sub("", unicodedata.normalize("NFKC", value)).casefold()


class Pseudonyms:
    """The pseudonyms of one key in one domain (a dataset, or a release of it)."""

    __slots__ = ("_key", "_states")

    def __init__(self, key: bytes, domain: str = "") -> None:
        own = hmac.digest(key, b"privet/pseudonym domain\0" + domain.encode(), "sha256") if domain else key
        self._key = hashlib.sha256(own).digest() if len(own) > _MOST_KEY else own
        self._states: dict[str, hashlib.blake2b] = {}

    def of(self, entity: str, value: str) -> str:
        """Six hex digits, for a placeholder in a text."""
        return self._digests(entity, [folded_value(value).encode("utf-8", "surrogatepass")]).hex()[:_TEXT_SIGNS]

    def array(self, values: pa.Array, entity: str) -> pa.Array:
        """`<TYPE_hex16>` for each row of an Arrow array of strings or a dictionary of them; each distinct value is hashed once.

        What a dictionary comes in with it goes out with, each pseudonym once; nulls stay null. The first six hex digits
        are the pseudonym of the same value in a text. Raises UsageError E-DEID-005 for a column that is not text.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        is_dictionary = pa.types.is_dictionary(values.type)
        encoded = values if is_dictionary else pc.dictionary_encode(values)
        kind = encoded.type.value_type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)) or encoded.dictionary.null_count:
            raise UsageError("E-DEID-005", "pseudonyms were asked for a column that is not text", "Cast the column to text")
        digests = self._digests(entity, _folded_all(encoded.dictionary))
        names = _placeholders(entity, digests, len(encoded.dictionary))
        if not is_dictionary:
            return names.take(encoded.indices)
        once = pc.dictionary_encode(names)  # two spellings may have become one
        return pa.DictionaryArray.from_arrays(once.indices.take(encoded.indices), once.dictionary)

    def _digests(self, entity: str, values: Iterable[bytes]) -> bytes:
        """Eight bytes for each."""
        state = self._states.get(entity)
        if state is None:  # key and type are hashed once
            state = hashlib.blake2b(entity.encode() + b"\0", key=self._key, digest_size=_COLUMN_BYTES)
            self._states[entity] = state
        fresh, found = state.copy, []
        for value in values:
            digest = fresh()
            digest.update(value)
            found.append(digest.digest())
        return b"".join(found)


def _folded_all(values: pa.Array) -> list[bytes]:
    """`folded_value` of each, all at once where they are ASCII: no Python string is made of them then."""
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), values.cast(pa.large_binary()))
    joined: bytes = pc.binary_join(rows, pa.scalar(b"\0", pa.large_binary()))[0].as_py()
    if joined.isascii() and len(values) and joined.count(b"\0") == len(values) - 1:
        return joined.translate(None, _SPACING_ASCII).lower().split(b"\0")
    return [folded_value(value).encode("utf-8", "surrogatepass") for value in values.to_pylist()]


def _placeholders(entity: str, digests: bytes, count: int) -> pa.Array:
    """One string of fixed width for each eight bytes."""
    import numpy as np
    import pyarrow as pa

    if count == 0:
        return pa.array([], pa.string())
    head, signs = f"<{entity}_".encode(), np.frombuffer(digests.hex().encode(), np.uint8).reshape(count, 2 * _COLUMN_BYTES)
    width = len(head) + signs.shape[1] + 1
    text = np.empty((count, width), np.uint8)
    text[:, : len(head)] = np.frombuffer(head, np.uint8)
    text[:, len(head) : -1] = signs
    text[:, -1] = ord(">")
    offsets = np.arange(count + 1, dtype=np.int64) * width
    return pa.LargeStringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(text)).cast(pa.string())

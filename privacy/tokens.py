"""Pseudonyms of identifiers: one keyed function, the same on one value and on millions of rows.

Guarantee: a token is HMAC-SHA256 of the normalised identifier, cut to 120 bits; equal identifiers (after NFKC, casefold
and strip) get equal tokens under one key, and the identifier can't be computed from the token without the key.
Assumption: the key stays in the keyring. Not covered: whoever holds the key can test guesses, so a token of a guessable
identifier is personal data still (EDPB 01/2025).
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from privacy.errors import DataError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

TOKEN_LENGTH = 25
_MAC_BYTES = 15  # 120 bits: no two of 2^40 subjects share one, but for a chance of 2^-41; base32 without padding
_MOST_ROWS = 80_000_000  # 25 bytes each: beyond it 32-bit offsets of an Arrow array overflow
_BLOCK = 64
_INNER, _OUTER = (bytes(x ^ pad for x in range(256)) for pad in (0x36, 0x5C))
_WIDTHLESS = re.compile("[\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
_ID_GAPS = re.compile(r"[\s\-._/\u2010-\u2015\u2212]+")
_NAME_GAPS = re.compile(r"[\s.,·]+")
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")
_ALPHABET = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz234567", dtype=np.uint8)
_BYTES = np.array([32, 24, 16, 8, 0], dtype=np.uint64)
_DIGITS = np.array([35, 30, 25, 20, 15, 10, 5, 0], dtype=np.uint64)


def normal_subject(subject: str) -> str:
    """The one spelling by which a subject is told from others; what shares it shares a token."""
    if subject.isascii():  # NFKC leaves ASCII alone
        return subject.lower().strip()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", subject).casefold()).strip()


def spelled_subject(subject: str, kind: str) -> str:
    """The spelling that all ways to write one subject share, by what the field holds; `plain` leaves it as it is.

    id: without spaces, dashes, dots, slashes and underscores. email: without `mailto:` and brackets. phone: digits alone,
    without leading zeros (a country code is not added). name: words in the order given then family, without commas and dots.
    Zero-width signs never tell two subjects apart. An identifier that would become empty stays as it is.
    """
    if kind == "plain":
        return subject
    text = _WIDTHLESS.sub("", normal_subject(subject))
    match kind:
        case "id":
            spelled = _ID_GAPS.sub("", text)
        case "email":
            spelled = text.removeprefix("mailto:").strip("<> ")
        case "phone":
            spelled = "".join(str(unicodedata.decimal(c)) for c in text if c.isdecimal()).lstrip("0")
        case "name":
            family, comma, given = text.partition(",")
            spelled = " ".join(_NAME_GAPS.sub(" ", f"{given} {family}" if comma else text).split())
        case _:
            raise UsageError("E-VAULT-006", "a subject of an unknown kind", "See docs/policy.md, source.fields.subject_kind")
    return spelled or subject


def spelled_anywhere(subject: str, kind: str) -> re.Pattern[str]:
    """Matches in the `normal_text` of any text wherever the subject stands there in a spelling that `spelled_subject` makes one
    with it, as a word of its own.

    Assumption: between two signs of an identifier stand at most four of the signs that its kind ignores.
    """
    spelled = spelled_subject(normal_text(subject), kind)
    match kind:
        case "id":
            inner, before = _between(spelled, _ID_GAPS.pattern.removesuffix("+") + "{0,4}"), "[0-9A-Za-z]"
        case "phone" if spelled.isdecimal():
            inner, before = "0{0,4}" + _between(spelled, r"[^0-9A-Za-z]{0,4}"), "[0-9]"
        case "name":
            words = [re.escape(word) for word in spelled.split()][:8]
            turns = (r"[\s.,·]{1,4}".join([*words[n:], *words[:n]]) for n in range(len(words)))
            inner, before = "(?:" + "|".join(turns) + ")", "[0-9A-Za-z]"
        case _:
            inner, before = re.escape(spelled), "[0-9A-Za-z]"
    return re.compile(f"(?<!{before}){inner}(?![0-9A-Za-z])")


def normal_text(text: str) -> str:
    """A text as `spelled_subject` would read it: widths, case, signs without width, digits of other scripts, JSON's escapes."""
    plain = _ESCAPED.sub(lambda unit: chr(int(unit[1], 16)), text).replace("\\/", "/")
    plain = _WIDTHLESS.sub("", normal_subject(plain))
    return plain if plain.isascii() else "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in plain)


def _between(signs: str, gap: str) -> str:
    return gap.join(map(re.escape, signs))


class Tokens:
    """The token function of one key; `prefix` is one ASCII letter that names the kind."""

    __slots__ = ("_inner", "_outer", "_prefix")

    def __init__(self, key: bytes, prefix: str = "u") -> None:
        block = (hashlib.sha256(key).digest() if len(key) > _BLOCK else key).ljust(_BLOCK, b"\0")
        # The two blocks that depend on the key alone are hashed once (RFC 2104, section 4).
        self._inner = hashlib.sha256(block.translate(_INNER))
        self._outer = hashlib.sha256(block.translate(_OUTER))
        self._prefix = ord(prefix)

    def of(self, subjects: Sequence[str]) -> list[str]:
        """One token for each; raises DataError E-VAULT-001 for an identifier that is empty once normalised."""
        unique = list(dict.fromkeys(subjects))
        text = self._spell(unique).tobytes().decode("ascii")
        known = {subject: text[n * TOKEN_LENGTH : (n + 1) * TOKEN_LENGTH] for n, subject in enumerate(unique)}
        return [known[subject] for subject in subjects]

    def of_array(self, subjects: pa.Array) -> pa.Array:
        """The same on an Arrow array of strings (or a dictionary of them): each distinct value is hashed once.

        Raises DataError E-VAULT-001 (empty or null), UsageError E-VAULT-005 (not strings, or over 80 M rows).
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        encoded = subjects if pa.types.is_dictionary(subjects.type) else pc.dictionary_encode(subjects)
        kind = encoded.type.value_type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)) or len(subjects) > _MOST_ROWS:
            raise UsageError(
                "E-VAULT-005", "tokens were asked for a column that is not text, or for over 80 M rows at once", "Pass batches"
            )
        if encoded.indices.null_count or encoded.dictionary.null_count:
            raise _no_subject()
        spelled = self._spell(encoded.dictionary.to_pylist())
        offsets = np.arange(len(spelled) + 1, dtype=np.int32) * np.int32(TOKEN_LENGTH)
        tokens = pa.StringArray.from_buffers(len(spelled), pa.py_buffer(offsets), pa.py_buffer(spelled))
        return tokens.take(encoded.indices)

    def _spell(self, subjects: Sequence[str]) -> npt.NDArray[np.uint8]:
        """uint8 of shape [n, 25]: the prefix and 24 characters of lower-case base32 (RFC 4648)."""
        macs = np.frombuffer(b"".join(self._macs(subjects)), dtype=np.uint8).reshape(-1, 3, 5)
        words = (macs.astype(np.uint64) << _BYTES).sum(axis=2, dtype=np.uint64)
        letters = _ALPHABET[((words[:, :, None] >> _DIGITS) & np.uint64(31)).astype(np.intp)]
        spelled = np.empty((len(macs), TOKEN_LENGTH), dtype=np.uint8)
        spelled[:, 0] = self._prefix
        spelled[:, 1:] = letters.reshape(len(macs), TOKEN_LENGTH - 1)
        return spelled

    def _macs(self, subjects: Sequence[str]) -> Iterable[bytes]:
        for subject in subjects:
            normal = normal_subject(subject)
            if not normal:
                raise _no_subject()
            inner, outer = self._inner.copy(), self._outer.copy()
            inner.update(normal.encode("utf-8", "surrogatepass"))
            outer.update(inner.digest())
            yield outer.digest()[:_MAC_BYTES]


def _no_subject() -> DataError:
    return DataError(
        "E-VAULT-001", "a record has an empty subject identifier", "Reject records without a subject before protecting"
    )

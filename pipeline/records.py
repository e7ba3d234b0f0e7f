"""Turns one parsed row into a record with roles, or into a reason code; strict JSON is read here.

Guarantee: JSON with duplicate keys, NaN, infinities, lone surrogates, NUL, deep nesting or invalid UTF-8 never
becomes a record; a record has a subject, every declared field, non-empty text and a label of the declared set.
Nothing here raises an error that carries content: a row that can't be used is a `Rejected` with a stable code.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Final, NoReturn

from privacy.canonical import Json, canonical_json
from privacy.policy import Policy
from privacy.tokens import spelled_subject

MAX_DEPTH: Final = 32
_MILLISECONDS_FROM: Final = 100_000_000_000  # as seconds this is the year 5138: such a number counts milliseconds

# What each code means; docs and facts use these words. Line-level codes first, then those of a whole file.
REASONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "E-INGEST-101": "not valid UTF-8",
        "E-INGEST-102": "a NUL character",
        "E-INGEST-103": "longer than max_line_bytes",
        "E-INGEST-104": "not well-formed JSON",
        "E-INGEST-105": "a JSON key that stands twice",
        "E-INGEST-106": "NaN or an infinite number",
        "E-INGEST-107": "a lone surrogate",
        "E-INGEST-108": "JSON nested too deep",
        "E-INGEST-109": "not a JSON object",
        "E-INGEST-110": "the record names no subject",
        "E-INGEST-111": "a declared field is missing",
        "E-INGEST-112": "a declared field has a type that has no plain text form",
        "E-INGEST-113": "a label outside the declared set",
        "E-INGEST-114": "the text is empty",
        "E-INGEST-115": "a time that can't be read",
        "E-INGEST-116": "a record id that an earlier record of the same subject has",
        "E-INGEST-117": "a row that does not fit the header, or broken quoting",
        "E-INGEST-118": "a line that does not match source.pattern",
        "E-INGEST-119": "an image that can't be decoded",
        "E-INGEST-120": "an image of another size than recipe.image_size",
        "E-INGEST-150": "a link or not a regular file",
        "E-INGEST-151": "a file that can't be read",
        "E-INGEST-152": "a corrupt or truncated compressed file",
        "E-INGEST-153": "a decompression ratio above max_decompression_ratio",
        "E-INGEST-154": "a file of another format, or without a declared field",
        "E-INGEST-155": "a file with the same bytes as an earlier one",
    }
)


class Rejected(Exception):
    """A row that can't be used; `code` is one of REASONS. Never leaves the ingest stage."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class Record:
    """One usable record. Everything in it may be personal data: it goes to sealed storage only."""

    subject: str
    record_id: str
    time: str | None
    label: str
    text: str
    keep: tuple[str, ...]
    original: bytes  # the whole record as JSON, for the vault
    image: bytes | None = None  # grey pixels, row by row


def strict_json(raw: bytes) -> Mapping[str, Json]:
    """One JSON object. Raises Rejected E-INGEST-101, -102, -104..109."""
    text = decode(raw)
    try:
        value = json.loads(text, object_pairs_hook=_pairs, parse_constant=_constant, parse_float=_finite)
    except RecursionError:
        raise Rejected("E-INGEST-108") from None
    except ValueError:
        raise Rejected("E-INGEST-104") from None
    if not isinstance(value, dict):
        raise Rejected("E-INGEST-109")
    if "\\u" in text or text.count("[") + text.count("{") > MAX_DEPTH:
        _inspect(value)
    return value


def decode(raw: bytes) -> str:
    """Strict UTF-8 without NUL (encoded surrogates are not UTF-8). Raises Rejected E-INGEST-101 or -102."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise Rejected("E-INGEST-101") from None
    if "\x00" in text:
        raise Rejected("E-INGEST-102")
    return text


def to_record(values: Mapping[str, object], original: bytes | None, policy: Policy, position: str) -> Record:
    """Give each field its role. Raises Rejected E-INGEST-110..115, and 119 or 120 for an image.

    values: by field name. original: the record's own JSON when it had one. position: the record id to use when the
    policy names no such field.
    """
    fields = policy.source.fields
    subject = _plain(values.get(fields.subject))
    if not subject or not subject.strip():
        raise Rejected("E-INGEST-110")
    for name in (*fields.text, fields.label, *fields.keep, *(n for n in (fields.record_id, fields.time, fields.image) if n)):
        if name not in values:
            raise Rejected("E-INGEST-111")
    label = _plain(values[fields.label])
    if label not in policy.expectations.labels:
        raise Rejected("E-INGEST-113")
    text = "\n".join(part for name in fields.text if (part := _plain(values[name]) or "").strip())
    if not text and fields.text:
        raise Rejected("E-INGEST-114")
    time = _plain(values[fields.time]) if fields.time else None
    if fields.time:
        day_of(time)
    record_id = _plain(values[fields.record_id]) if fields.record_id else position
    if not record_id or not record_id.strip():
        raise Rejected("E-INGEST-111")
    keep = tuple(_plain(values[name]) or "" for name in fields.keep)
    subject = spelled_subject(subject, fields.subject_kind)
    image = None if fields.image is None else _image(values[fields.image], policy)
    return Record(subject, record_id, time, label, text, keep, original if original is not None else as_json(values), image)


def _image(value: object, policy: Policy) -> bytes:
    from pipeline.images import decode_image

    assert policy.recipe.image_size is not None
    return decode_image(value, policy.recipe.image_size)


def day_of(time: str | None) -> date:
    """The UTC day of an ISO 8601 time or of Unix seconds or milliseconds. Raises Rejected E-INGEST-115."""
    text = (time or "").strip()
    try:
        try:
            number = float(text)
        except ValueError:
            moment = datetime.fromisoformat(text)
        else:
            if len(text) == 8 and text.isdigit():  # 20260131: a basic ISO date, not August 1970
                return date.fromisoformat(text)
            moment = datetime.fromtimestamp(number / 1000 if abs(number) >= _MILLISECONDS_FROM else number, UTC)
        return (moment.astimezone(UTC) if moment.tzinfo else moment).date()
    except (ValueError, OverflowError, OSError):
        raise Rejected("E-INGEST-115") from None


def as_json(values: Mapping[str, object]) -> bytes:
    """A record that did not come as JSON, as canonical JSON; what JSON lacks becomes text, NaN becomes null."""
    plain: dict[str, Json] = {name: _json_value(value) for name, value in values.items()}
    return canonical_json(plain)


def _plain(value: object) -> str | None:
    """Text form of a scalar; None for null. Raises Rejected E-INGEST-112 for lists, objects and bytes."""
    match value:
        case None:
            return None
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | Decimal():
            return str(value)
        case float():
            return None if math.isnan(value) else repr(value)
        case datetime() | date():
            return value.isoformat()
    raise Rejected("E-INGEST-112")


def _json_value(value: object) -> Json:
    match value:
        case None | str() | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else None
        case list() | tuple():
            return [_json_value(item) for item in value]
        case dict():
            return {str(key): _json_value(item) for key, item in value.items()}
        case bytes():
            return value.hex()
    return str(value)


def _pairs(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Rejected("E-INGEST-105")
    return found


def _constant(name: str) -> NoReturn:
    raise Rejected("E-INGEST-106")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):  # 1e999 is well-formed JSON and no number
        raise Rejected("E-INGEST-106")
    return value


def _inspect(value: Json) -> None:
    """Depth, lone surrogates and NUL, in keys too; without recursion."""
    stack: list[tuple[Json, int]] = [(value, 1)]
    while stack:
        item, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise Rejected("E-INGEST-108")
        if isinstance(item, str):
            if "\x00" in item:
                raise Rejected("E-INGEST-102")
            if any("\ud800" <= c <= "\udfff" for c in item):
                raise Rejected("E-INGEST-107")
        elif isinstance(item, dict):
            stack += [(part, depth + 1) for pair in item.items() for part in pair]
        elif isinstance(item, list):
            stack += [(part, depth + 1) for part in item]

"""Strict JSON and field roles."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import REASONS, Record, Rejected, day_of, strict_json, to_record
from privacy.errors import PrivetError
from tests.worlds.chats import record
from tests.worlds.policies import make_policy


def refused(call: object, *args: object) -> str:
    with pytest.raises(Rejected) as caught:
        call(*args)  # type: ignore[operator]
    assert caught.value.code in REASONS
    return caught.value.code


def reason_of(call: Callable[[Any], object], value: object) -> str | None:
    """The reason code; None when the value was taken. Anything else that is raised fails the test."""
    try:
        call(value)
    except Rejected as rejected:
        return rejected.code
    return None


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b'{"a": "\xff"}', "E-INGEST-101"),
        (b'{"a": "\xed\xa0\x80"}', "E-INGEST-101"),  # a surrogate spelt in UTF-8
        (b'{"a": "x\x00y"}', "E-INGEST-102"),
        (b'{"a": "x\\u0000y"}', "E-INGEST-102"),
        (b'{"a": 1', "E-INGEST-104"),
        (b'{"a": 1} {"a": 2}', "E-INGEST-104"),
        (b'{"a": ' + b"9" * 5000 + b"}", "E-INGEST-104"),
        (b'{"a": 1, "a": 2}', "E-INGEST-105"),
        (b'{"b": {"a": 1, "\\u0061": 2}}', "E-INGEST-105"),  # the same key in two spellings
        (b'{"a": NaN}', "E-INGEST-106"),
        (b'{"a": -Infinity}', "E-INGEST-106"),
        (b'{"a": 1e999}', "E-INGEST-106"),
        (b'{"a": "\\ud800"}', "E-INGEST-107"),
        (b'{"\\udc00": 1}', "E-INGEST-107"),
        (b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}", "E-INGEST-108"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "E-INGEST-108"),
        (b'["a"]', "E-INGEST-109"),
        (b'"a"', "E-INGEST-109"),
    ],
)
def test_json_that_two_parsers_read_differently_is_refused(raw: bytes, code: str) -> None:
    assert refused(strict_json, raw) == code


@given(st.binary(max_size=80) | st.text(max_size=40).map(lambda t: b'{"a": "' + t.encode("utf-8", "surrogatepass") + b'"}'))
def test_no_bytes_make_the_parser_raise_anything_but_a_reason(raw: bytes) -> None:
    assert reason_of(strict_json, raw) in {None, *REASONS}


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=4), st.booleans())
def test_good_json_is_read_as_any_other_parser_reads_it(value: dict[str, object], ascii_only: bool) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    if "\\u0000" in json.dumps(value):
        assert refused(strict_json, raw) == "E-INGEST-102"
    else:
        assert strict_json(raw) == json.loads(raw)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"customer": None}, "E-INGEST-110"),
        ({"customer": "  "}, "E-INGEST-110"),
        ({"customer": ["x"]}, "E-INGEST-112"),
        ({"intent": "Refund"}, "E-INGEST-113"),
        ({"intent": None}, "E-INGEST-113"),
        ({"text": " \n"}, "E-INGEST-114"),
        ({"text": {"de": "x"}}, "E-INGEST-112"),
        ({"time": "yesterday"}, "E-INGEST-115"),
        ({"time": None}, "E-INGEST-115"),
        ({"id": ""}, "E-INGEST-111"),
    ],
)
def test_a_record_without_a_role_filled_is_refused(changes: dict[str, object], code: str) -> None:
    assert refused(to_record, record(1, **changes), b"{}", make_policy(), "p") == code


@pytest.mark.parametrize("name", ["id", "time", "text", "intent", "channel"])
def test_a_declared_field_that_is_absent_is_not_taken_for_empty(name: str) -> None:
    values = record(1)
    del values[name]
    assert refused(to_record, values, b"{}", make_policy(), "p") == "E-INGEST-111"


def test_several_text_fields_are_joined_and_empty_ones_leave_no_line() -> None:
    policy = make_policy(**{"source.fields.text": ["title", "text", "note"]})
    taken = to_record(record(1, title="a", text="", note="b"), b"{}", policy, "p")
    assert taken.text == "a\nb"


def test_a_number_as_subject_is_the_text_of_that_number() -> None:
    assert to_record(record(1, customer=4711), b"{}", make_policy(), "p").subject == "4711"


@pytest.mark.parametrize(
    ("time", "day"),
    [
        ("2026-03-04T23:30:00-05:00", date(2026, 3, 5)),  # the UTC day
        ("2026-03-04 23:30", date(2026, 3, 4)),
        ("2026-03-04", date(2026, 3, 4)),
        ("20260304", date(2026, 3, 4)),
        ("1772667000", date(2026, 3, 4)),
        ("1772667000123", date(2026, 3, 4)),
    ],
)
def test_time_is_the_day_whatever_its_spelling(time: str, day: date) -> None:
    assert day_of(time) == day


@given(st.text(max_size=30) | st.floats().map(str) | st.integers().map(str))
def test_no_time_makes_the_reader_raise_anything_but_a_reason(time: str) -> None:
    assert reason_of(day_of, time) in {None, "E-INGEST-115"}


def test_a_table_row_with_nan_still_has_an_original() -> None:
    assert to_record(record(1, weight=math.nan), None, make_policy(), "p").original.count(b'"weight":null') == 1


def test_a_record_cannot_be_built_with_a_missing_role() -> None:
    assert set(Record.__slots__) == {"subject", "record_id", "time", "label", "text", "keep", "original", "image"}
    assert not issubclass(Rejected, PrivetError)  # it must never reach a person as an error

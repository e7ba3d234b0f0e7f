"""Verbatim spans: none that is long enough and rare is missed, and none is made up, against a naive twin."""

from __future__ import annotations

import pickle
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy import winnow
from privacy.winnow import Span, SpanIndex, normalise

KEY = b"k" * 32
SIGNS = 8  # short, so that random texts share spans at all
ALPHABET = "abAé 中文,7"
TEXTS = st.text(alphabet=ALPHABET, max_size=40)
RECORDS = st.lists(st.tuples(st.sampled_from(["p", "q", "r", "s"]), TEXTS), max_size=12)


def naive_counts(records: list[tuple[str, str]], text: str, signs: int) -> list[int]:
    """People whose records hold each window of the text: by substring, no index."""
    whole = normalise(text)
    windows = [whole[n : n + signs] for n in range(len(whole) - signs + 1)]
    held = [(subject, normalise(record)) for subject, record in records]
    return [len({subject for subject, record in held if window in record}) for window in windows]


def longest_common_run(one: str, other: str) -> int:
    """By dynamic programming."""
    best, row = 0, [0] * (len(other) + 1)
    for sign in one:
        row = [0, *(row[n] + 1 if sign == there else 0 for n, there in enumerate(other))]
        best = max(best, *row)
    return best


def covered(spans: tuple[Span, ...], signs: int) -> set[int]:
    return {start for span in spans for start in range(span.start, span.end - signs + 1)}


@settings(max_examples=400, deadline=None)
@given(RECORDS, TEXTS, st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
def test_exactly_the_rare_windows_are_found(
    records: list[tuple[str, str]], text: str, subjects: int, first_look: int, then: int
) -> None:
    """However few records are looked at first, and at a time after that."""
    with patch.object(winnow, "_POSTINGS_AT_ONCE", first_look), patch.object(winnow, "_WORST", then):
        found = SpanIndex(records, SIGNS, KEY).rare_spans(text, subjects)
    counts = naive_counts(records, text, SIGNS)
    assert covered(found, SIGNS) == {n for n, count in enumerate(counts) if 1 <= count < subjects}
    for span in found:
        assert span.subjects == max(counts[span.start : span.end - SIGNS + 1])


@settings(max_examples=200, deadline=None)
@given(RECORDS, st.text(alphabet=ALPHABET, max_size=15), st.integers(0, 30), st.data())
def test_every_shared_run_that_is_long_enough_is_found(
    records: list[tuple[str, str]], around: str, start: int, data: st.DataObject
) -> None:
    """Winnowing's guarantee, against the longest common run: with nobody too many, a shared run is always a finding."""
    source = data.draw(st.sampled_from([text for _, text in records])) if records else ""
    text = around + source[start : start + 20] + around
    longest = max((longest_common_run(normalise(text), normalise(record)) for _, record in records), default=0)
    spans = SpanIndex(records, SIGNS, KEY).rare_spans(text, 1000)
    assert bool(spans) == (longest >= SIGNS)
    assert max((span.end - span.start for span in spans), default=0) >= (longest if longest >= SIGNS else 0)


def test_a_span_of_as_many_people_as_asked_is_common_and_of_one_fewer_is_rare() -> None:
    said = "please confirm the delivery of my parcel to the office tomorrow"
    records = [(f"customer-{n}", f"{n} hello, {said}") for n in range(3)] + [("customer-0", said)] * 9
    index = SpanIndex(records, 40, KEY)
    assert index.rare_spans(said, 3) == ()
    assert [span.subjects for span in index.rare_spans(said, 4)] == [3]  # nine records of one person count once
    assert SpanIndex(records[:2] + records[3:], 40, KEY).rare_spans(said, 3) != ()


def test_common_parts_do_not_hide_a_rare_whole() -> None:
    """Both halves are said by everybody; together only one person said them. Counting fingerprints alone would miss that."""
    one, two = "thank you for your help with this", "i have been waiting for three weeks"
    records = [(f"a{n}", one) for n in range(9)] + [(f"b{n}", two) for n in range(9)] + [("x", f"{one} {two}")]
    index = SpanIndex([(s, t * 2) for s, t in records], 40, KEY)
    assert index.rare_spans(f"{one}, {two}", 3)
    assert index.rare_spans(one, 3) == ()


@pytest.mark.parametrize(
    "copy",
    [
        "MY SISTER'S OPERATION IS ON THE NINTH OF MAY IN THE HOSPITAL OF UPPSALA",
        "my  sister s\noperation -- is on the ninth of may, in the hospital; of Uppsala",
        "ｍｙ　ｓｉｓｔｅｒ'ｓ operation is on the ninth of may in the hospital of ùppsàla",
    ],
)
def test_case_width_accents_and_spaces_hide_no_copy(copy: str) -> None:
    index = SpanIndex([("p", "My sister's operation is on the ninth of May in the hospital of Uppsala.")], 40, KEY)
    assert index.rare_spans(f"So it is. {copy} And more", 3)


def test_chinese_needs_no_spaces() -> None:
    said = "我姐姐五月九日在市第一人民医院三楼外科做手术请帮我把快递改送到公司前台谢谢你们的帮助辛苦了再见祝好"
    index = SpanIndex([("p", f"你好，{said}。"), ("q", "请问我的快递什么时候到")], 40, KEY)
    assert [span.subjects for span in index.rare_spans(f"客服：{said[:20]} {said[20:]}", 3)] == [1]
    assert index.rare_spans("请问我的快递什么时候到", 3) == ()  # shorter than what counts


def test_short_and_empty_texts_and_records_are_no_spans() -> None:
    assert SpanIndex([], 40, KEY).rare_spans("x" * 100, 3) == ()
    index = SpanIndex([("p", ""), ("p", "short")], 40, KEY)
    assert index.rare_spans("", 3) == index.rare_spans("short", 3) == ()
    assert SpanIndex([("p", "x" * 100)], 40, KEY).rare_spans("x" * 39, 3) == ()
    assert SpanIndex([("p", "x" * 100)], 40, KEY).rare_spans("x" * 40, 3) == (Span(0, 40, 1),)


def test_no_window_runs_from_one_record_into_the_next() -> None:
    index = SpanIndex([("p", "a" * 39 + "bc"[:1]), ("p", "c" * 40)], 40, KEY)
    assert index.rare_spans("a" * 20 + "b" + "c" * 19, 3) == ()


def test_an_index_without_its_key_is_no_fingerprint_of_its_records() -> None:
    records = [("p", "the very same record of one person, long enough to be found again")]
    one, other, same = (SpanIndex(records, 40, key) for key in (b"1" * 32, b"2" * 32, b"1" * 32))
    assert set(one._macs.tolist()) == set(same._macs.tolist())
    assert set(one._macs.tolist()).isdisjoint(other._macs.tolist())


def test_an_index_shows_and_writes_none_of_its_records() -> None:
    index = SpanIndex([("p", "the very same record of one person, long enough to be found again")], 40, KEY)
    assert repr(index) == f"SpanIndex(records=1, fingerprints={len(index._macs)})"
    with pytest.raises(TypeError, match="not picklable"):
        pickle.dumps(index)


@pytest.mark.parametrize(("signs", "key"), [(1, KEY), (40, b"short")])
def test_what_would_be_no_index_is_refused(signs: int, key: bytes) -> None:
    with pytest.raises(ValueError, match="at least"):
        SpanIndex([], signs, key)

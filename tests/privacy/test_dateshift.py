"""Dates of one person move together, keep their format, and are known again."""

from __future__ import annotations

import re
from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.dateshift import ERA_DAYS, DateShift
from privacy.errors import PolicyError

FORMS = ["{0.year}-{0.month:02d}-{0.day:02d}", "{0.year}年{0.month}月{0.day}日"]
SHIFT = DateShift(b"k" * 32)
DAYS = st.dates(date(1850, 1, 1), date(2099, 12, 31))
MONTHS = "January February March April May June July August September October November December".split()  # noqa: SIM905


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        ("1990-12-31", r"2[0-9]{3}-[0-9]{2}-[0-9]{2}"),
        ("2024-05-03T12:00:00Z", r"2[0-9]{3}-[0-9]{2}-[0-9]{2}T12:00:00Z"),
        ("1990/2/3", r"2[0-9]{3}/[0-9]{1,2}/[0-9]{1,2}"),
        ("31/12/1990", r"[0-9]{2}/[0-9]{2}/2[0-9]{3}"),
        ("3 May 1990", r"[0-9]{1,2} [A-Z][a-z]{2} 2[0-9]{3}"),
        ("JUNE 3RD, 1990", r"[A-Z]+ [0-9]{1,2}(ST|ND|RD|TH), 2[0-9]{3}"),
        ("03/May/1990:12:00:00 +0000", r"[0-9]{2}/[A-Z][a-z]{2}/2[0-9]{3}:12:00:00 \+0000"),
        ("1990年5月3日", r"2[0-9]{3}年[0-9]{1,2}月[0-9]{1,2}日"),
        ("1990年05月03号", r"2[0-9]{3}年[0-9]{2}月[0-9]{2}号"),
        ("一九九〇年十二月二十三日", r"二[〇一二三四五六七八九]{3}年[一二三四五六七八九十]+月[一二三四五六七八九十]+日"),
    ],
)
def test_the_format_stays(value: str, shape: str) -> None:
    made = SHIFT.of(value, "u")
    assert made is not None
    assert re.fullmatch(shape, made)
    assert SHIFT.spans(f"on {made}, yes") == [(3, 3 + len(made), "DATE_TIME")]
    assert SHIFT.spans(value) == []
    assert SHIFT.of(made, "u") is None  # never moved twice


def test_a_weekday_that_is_written_is_the_right_one() -> None:
    made = SHIFT.of("Thursday, May 3, 1990", "u") or ""
    moved = SHIFT.day(date(1990, 5, 3), "u")
    assert moved is not None
    assert made.startswith(f"{moved:%A}, ")
    assert (SHIFT.of("1990年5月3日 星期四", "u") or "").endswith("一二三四五六日"[moved.weekday()])


@settings(max_examples=200, deadline=None)
@given(
    DAYS, DAYS, st.text(max_size=8), st.sampled_from(["{0.year}-{0.month:02d}-{0.day:02d}", "{0.year}年{0.month}月{0.day}日"])
)
def test_intervals_of_one_subject_are_kept_to_the_day(one: date, two: date, subject: str, form: str) -> None:
    made = [SHIFT.of(form.format(day), subject) for day in (one, two)]
    assert all(made)
    moved = [date(*map(int, re.findall("[0-9]+", text or ""))) for text in made]
    assert moved[1] - moved[0] == two - one
    assert abs((moved[0] - one).days - ERA_DAYS) <= 182
    assert moved[0] == SHIFT.day(one, subject)


@settings(max_examples=200, deadline=None)
@given(DAYS)
def test_every_form_of_a_day_moves_to_the_same_day(day: date) -> None:
    moved = SHIFT.day(day, "u")
    assert moved is not None
    name = MONTHS[day.month - 1]
    ordinal = "th" if day.day in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(day.day % 10, "th")
    for text in (f"{day.day} {name} {day.year}", f"{name} {day.day}{ordinal}, {day.year}", f"{day.day}-{name[:3]}-{day.year}"):
        made = SHIFT.of(text, "u") or ""
        assert str(moved.year) in made
        assert MONTHS[moved.month - 1][:3] in made
        assert str(moved.day) in re.findall("[0-9]+", made)


def test_ambiguous_and_partial_dates_are_left_to_a_placeholder() -> None:
    partial, wrong = (
        ("19900503", "05/90", "May 1990"),
        ("1990-13-01", "3 Mayonnaise 1990", "1990-02-30", "2390-01-01", "1066-10-14"),
    )
    for value in ("03/05/1990", *partial, *wrong):
        assert SHIFT.of(value, "u") is None
    apart = (DateShift(b"k" * 32, 182, "dmy").of("03/05/1990", "u"), DateShift(b"k" * 32, 182, "mdy").of("03/05/1990", "u"))
    assert all(apart)
    assert apart[0] != apart[1]


def test_shifts_differ_by_subject_and_key_and_cover_their_range() -> None:
    days = [SHIFT.days(f"u{n}") - ERA_DAYS for n in range(3000)]
    assert -182 <= min(days) < -170
    assert 170 < max(days) <= 182
    assert abs(sum(days) / len(days)) < 10
    assert DateShift(b"x" * 32).days("u1") != SHIFT.days("u1")
    assert SHIFT.day(date(1990, 1, 1), "u") == date(1990, 1, 1) + timedelta(days=SHIFT.days("u"))


@pytest.mark.parametrize("days", [0, -1, 3651])
def test_a_range_that_could_leave_the_marked_years_is_refused(days: int) -> None:
    with pytest.raises(PolicyError, match="E-DEID-006"):
        DateShift(b"k" * 32, days)

"""Moves the dates of one person by one secret number of whole days, so that every interval between them stays as it was.

Guarantee: all dates of a subject move by 146,097 days (400 years, whole weeks, the Gregorian cycle) plus one keyed number from
-range to +range, so intervals are kept to the day, the format is kept, and a weekday that is written is corrected. A moved date
lies in the years 2240 to 2510, so it is known again and never moved twice; MIMIC-III marks its moved dates in this way, too.
A raw date passes as moved only if it lies over a hundred years ahead. Formats: ISO and Y/M/D, D/M/Y and M/D/Y (where `order` or
the numbers tell them apart), day and month name, 1990年5月3日 and its Chinese numerals; each with time and weekday.
Not covered: dates without day or with a two-digit year (they become placeholders); order and distance of events stay readable.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from datetime import date, timedelta
from typing import Literal

from privacy.errors import PolicyError
from privacy.generalise import MONTHS

ERA_DAYS = 146_097
MAX_RANGE = 3_650
DateOrder = Literal["dmy", "mdy"]
_RAW_YEARS, _OWN_YEARS = range(1850, 2100), range(2240, 2511)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_FULL = _words("January February March April May June July August September October November December")
_MONTH = r"(?P<w>(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6})\.?"
_DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
_HAN_DAYS = "一二三四五六日"
_BEFORE = r"(?:(?P<weekday>(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?)\.?,? {1,2})?"
_TIME = (
    r"(?P<time>(?:[T:]| {1,2}|, )[0-2]?[0-9]:[0-5][0-9](?::[0-6][0-9](?:[.,][0-9]{1,9})?)?"
    r"(?: ?[ap]m)?(?:Z| ?[+-][0-9]{2}:?[0-9]{2})?)?(?: ?(?P<hanweekday>(?:星期|周|礼拜)[一二三四五六日天]))?"
)
_HAN_DIGITS = "〇一二三四五六七八九"
_ORDINAL = r"(?P<o>st|nd|rd|th)?"
_DATES = (
    r"(?P<y>[0-9]{4})(?P<s>[-/.])(?P<m>[0-9]{1,2})(?P=s)(?P<d>[0-9]{1,2})",
    r"(?P<y>[0-9]{4}) ?年 ?(?P<m>[0-9]{1,2}) ?月 ?(?P<d>[0-9]{1,2}) ?[日号]",
    r"(?P<y>[〇零一二三四五六七八九]{4})年(?P<m>[一二三四五六七八九十]{1,2})月(?P<d>[一二三四五六七八九十廿卅]{1,3})[日号]",
    r"(?P<a>[0-9]{1,2})(?P<s>[-/.])(?P<b>[0-9]{1,2})(?P=s)(?P<y>[0-9]{4})",
    rf"(?P<d>[0-9]{{1,2}}){_ORDINAL}(?: of)?[ /-]{{1,2}}{_MONTH}[ ,/-]{{1,2}}(?P<y>[0-9]{{4}})",
    rf"{_MONTH} {{1,2}}(?P<d>[0-9]{{1,2}}){_ORDINAL},? {{1,2}}(?P<y>[0-9]{{4}})",
)
_FORMS = tuple(
    re.compile(rf"(?<![0-9A-Za-z]){_BEFORE}(?<![0-9A-Za-z]){form}{_TIME}(?![0-9A-Za-z]|[-/.][0-9])", re.IGNORECASE)
    for form in _DATES
)
_Edit = tuple[int, int, str]


class DateShift:
    """key: secret. days: how far from the 400 years a subject's dates may lie. order: of D/M/Y where numbers don't tell.

    Raises PolicyError E-DEID-006 for a range outside 1 to 3650 days.
    """

    __slots__ = ("_days", "_key", "_order")

    def __init__(self, key: bytes, days: int = 182, order: DateOrder | None = None) -> None:
        if not 1 <= days <= MAX_RANGE:
            raise PolicyError(
                "E-DEID-006", "the range of a date shift is not 1 to 3650 days", "Set pii.date_shift_days, e.g. to 182"
            )
        self._key, self._days, self._order = key, days, order

    def days(self, subject: str) -> int:
        """Whole days that the dates of `subject` move by."""
        drawn = hmac.digest(self._key, b"date shift\0" + subject.encode("utf-8", "surrogatepass"), "sha256")
        return ERA_DAYS - self._days + int.from_bytes(drawn) % (2 * self._days + 1)

    def day(self, day: date, subject: str) -> date | None:
        """A moved day; None outside the years 1850 to 2099."""
        return day + timedelta(days=self.days(subject)) if day.year in _RAW_YEARS else None

    def of(self, value: str, subject: str) -> str | None:
        """The moved date in the format of `value`; None when it is no whole date of a known format, or ambiguous."""
        text = value.strip()
        for form in _FORMS:
            match = form.fullmatch(text)
            day = None if match is None else self._read(match)
            if match is None or day is None:
                continue
            moved = self.day(day, subject)
            made = None if moved is None else _written(match, day, moved)
            return made if made is not None and self.spans(made) == [(0, len(made), "DATE_TIME")] else None
        return None

    def spans(self, text: str) -> list[tuple[int, int, str]]:
        """(start, end, DATE_TIME) of each moved date in `text`, sorted, without overlaps."""
        found = sorted(
            (match.span() for form in _FORMS for match in form.finditer(text) if _is_own(match)), key=lambda s: (s[0], -s[1])
        )
        spans: list[tuple[int, int, str]] = []
        for start, end in found:
            if not spans or start >= spans[-1][1]:
                spans.append((start, end, "DATE_TIME"))
        return spans

    def _read(self, match: re.Match[str]) -> date | None:
        fields = match.groupdict()
        if "a" not in fields:
            return _day(fields, _number(fields.get("m") or ""), _number(fields["d"]))
        a, b = int(fields["a"]), int(fields["b"])
        if a > 12 or a == b or (self._order == "dmy" and b <= 12):
            return _day(fields, b, a)
        return _day(fields, a, b) if b > 12 or self._order == "mdy" else None


def _is_own(match: re.Match[str]) -> bool:
    fields = match.groupdict()
    if _year(fields) not in _OWN_YEARS:
        return False
    if "a" in fields:
        a, b = int(fields["a"]), int(fields["b"])
        return (_day(fields, a, b) or _day(fields, b, a)) is not None
    return _day(fields, _number(fields.get("m") or ""), _number(fields["d"])) is not None


def _day(fields: dict[str, str | None], month: int, day: int) -> date | None:
    if fields.get("w"):
        word = (fields["w"] or "").lower()
        month = MONTHS[word[:3]]
        if not (len(word) == 3 or word == _FULL[month - 1].lower() or word == "sept"):
            return None
    try:
        return date(_year(fields), month, day)
    except ValueError:
        return None


def _year(fields: dict[str, str | None]) -> int:
    text = (fields["y"] or "").replace("零", "〇")
    return int("".join(str(_HAN_DIGITS.index(c)) if c in _HAN_DIGITS else c for c in text))


def _number(text: str | None) -> int:
    """Of digits, or of Chinese numerals to 31; 0 when it is none."""
    if not text or text.isascii():
        return int(text or 0)
    plain = text.replace("廿", "二十").replace("卅", "三十")
    tens, ten, ones = plain.rpartition("十")
    if len(tens) > 1 or len(ones) > 1:
        return 0
    return (10 * (_HAN_DIGITS.index(tens) if tens else 1) if ten else 0) + (_HAN_DIGITS.index(ones) if ones else 0)


def _written(match: re.Match[str], day: date, moved: date) -> str | None:
    """The matched text with its fields replaced."""
    fields = match.groupdict()
    shown = [fields.get(n) or "" for n in "mdab"]
    is_padded = any(text.startswith("0") for text in shown) or [len(text) for text in shown if text] == [2, 2]
    swapped = "a" in fields and (int(fields["a"]), int(fields["b"])) == (day.day, day.month)
    numbers = {"y": moved.year, "m": moved.month, "d": moved.day}
    numbers |= {"a": moved.day if swapped else moved.month, "b": moved.month if swapped else moved.day}
    edits: list[_Edit] = []
    for name, number in numbers.items():
        if old := fields.get(name):
            edits.append((*match.span(name), _like(old, number, is_padded, is_year=name == "y")))
    if old := fields.get("w"):
        full = _FULL[moved.month - 1]
        edits.append((*match.span("w"), _cased(old, full if len(old) > 4 or old.lower() in ("june", "july") else full[:3])))
    if old := fields.get("o"):
        edits.append((*match.span("o"), _cased(old, _ordinal(moved.day))))
    if old := fields.get("weekday"):
        full = _DAYS[moved.weekday()]
        edits.append((*match.span("weekday"), _cased(old, full if old.lower().endswith("day") else full[:3])))
    if old := fields.get("hanweekday"):
        edits.append((*match.span("hanweekday"), old[:-1] + _HAN_DAYS[moved.weekday()]))
    text = match.group()
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _like(old: str, number: int, is_padded: bool, is_year: bool) -> str:
    if old.isascii():
        return f"{number:02d}" if is_padded and not is_year else str(number)
    if is_year:
        digits = "".join(_HAN_DIGITS[int(c)] for c in str(number))
        return digits.replace("〇", "零") if "零" in old else digits
    tens, ones = divmod(number, 10)
    return ("" if tens == 0 else "十" if tens == 1 else _HAN_DIGITS[tens] + "十") + (_HAN_DIGITS[ones] if ones else "")


def _cased(old: str, new: str) -> str:
    style: Callable[[str], str] = str.upper if old.isupper() else str.lower if old.islower() else str
    return style(new)


def _ordinal(day: int) -> str:
    return "th" if 11 <= day <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")

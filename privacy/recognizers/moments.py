"""Dates and links in talk: a full date of an event and a page that somebody shares say who they are when put together.

Only dates with day, month and year, and only in talk: times of machines are none, and a weekday or a month names nobody (the
day-level dates of HIPAA's Safe Harbor list, 45 CFR 164.514(b)(2)(i)(C), less those without a year). A policy may keep DATE_TIME
and URL. Dates of birth and ages have rules with cues (`recognizers.numbers`, `recognizers.people`) and higher scores.
"""

from __future__ import annotations

from privacy.recognizers.spec import Candidate, Recognizer, compiled

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?"
    r"|dec(?:ember)?)"
)
_YEAR = r"(?:19|20)[0-9]{2}"
_DAY = r"[0-3]?[0-9]"
_CLOCK = r"(?:[T ,]{1,2}[0-2]?[0-9]:[0-5][0-9](?::[0-5][0-9](?:\.[0-9]{1,6})?)?(?: ?[ap]m)?Z?)?"


def _numeric(found: Candidate) -> float:
    """Whether the first three numbers are a day, a month and a year in some order."""
    parts = [int(part) for part in compiled(r"[0-9]+").findall(found.value)[:3]]
    if len(parts) < 3:
        return 0.0
    first, second = (parts[1], parts[2]) if parts[0] > 31 else (parts[0], parts[1])
    return 0.86 if min(first, second) >= 1 and min(first, second) <= 12 and max(first, second) <= 31 else 0.0


MOMENTS: tuple[Recognizer, ...] = (
    Recognizer(
        "date_numeric",
        "DATE_TIME",
        compiled(
            r"(?<![0-9A-Za-z./-])(?:"
            + _YEAR
            + r"([-/.])[01]?[0-9]\1"
            + _DAY
            + r"|"
            + _DAY
            + r"([-/.])[0-3]?[0-9]\2"
            + _YEAR
            + r")"
            + _CLOCK
            + r"(?![0-9A-Za-z]|[-/.][0-9])"
        ),
        0.86,
        "no checksum; day, month and year that exist, in talk",
        check=_numeric,
        digits=6,
        conversation_only=True,
    ),
    Recognizer(
        "date_written",
        "DATE_TIME",
        compiled(
            r"(?<![0-9A-Za-z])(?:"
            + _DAY
            + r"(?:st|nd|rd|th)?(?: of)? "
            + _MONTH
            + r"\.?,? "
            + _YEAR
            + r"|"
            + _MONTH
            + r"\.? "
            + _DAY
            + r"(?:st|nd|rd|th)?,? "
            + _YEAR
            + r")(?![0-9A-Za-z])"
        ),
        0.6,
        "no checksum; day, month by name and year, in talk",
        digits=5,
        conversation_only=True,
    ),
    Recognizer(
        "link",
        "URL",
        compiled(
            r"(?<![0-9A-Za-z@./-])(?:https?://|www\.)[0-9A-Za-z][0-9A-Za-z.-]{1,252}\.[A-Za-z]{2,24}(?::[0-9]{2,5})?"
            r"(?:[/?#][^\s<>\"'\ue000]{0,1000})?"
        ),
        0.5,
        "no checksum; a scheme or `www.` before a host name, in talk",
        words=("http", "www."),
        conversation_only=True,
    ),
    Recognizer(
        "link_bare",
        "URL",
        compiled(
            r"(?<![0-9A-Za-z@./_-])[0-9A-Za-z](?:[0-9A-Za-z-]{0,61}[0-9A-Za-z])?(?:\.[0-9A-Za-z-]{1,63}){0,3}"
            r"\.(?:com|net|org|info|biz)(?:\.[a-z]{2})?(?:/[^\s<>\"'\ue000]{0,1000})?(?![0-9A-Za-z@_-])"
        ),
        0.45,
        "no checksum; a host name under a common top-level domain, in talk",
        words=(".com", ".net", ".org", ".info", ".biz"),
        conversation_only=True,
    ),
)

"""Dates, ages and links in talk: the day of an event and a page that somebody shares say who they are when put together.

Only what fixes a day, a month, a weekday or a year of an event, and only in talk: times of machines are none, and neither is a
clock time, "tomorrow", or a weekday, month or year that stands alone (after HIPAA's Safe Harbor list, "all elements of dates
(except year)", 45 CFR 164.514(b)(2)(i)(C); a year with an event is a quasi-identifier, as in TAB, arXiv 2202.00443). What says
less has a lower score (a day 0.45 and more, a weekday or month 0.42, a year 0.41), so that a policy may raise the threshold of
DATE_TIME, or keep it.
Dates of birth and ages have rules with cues (`recognizers.numbers`, `recognizers.people`) and higher scores.
"""

from __future__ import annotations

from privacy.recognizers.spec import Candidate, Recognizer, compiled

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?"
    r"|dec(?:ember)?)"
)
_WEEKDAY = r"(?:mon|tues|wednes|thurs|fri|satur|sun)day"
# Months that are words too (`may`, `march`, `mar`) need a capital or an ordinal beside them.
_CLEAR_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|apr(?:il)?|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?"
    r"|(?-i:March|May))"
)
_REASON_DAY = "no checksum; a day of a month, or a weekday after a word that dates an event, in talk"
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


def _short_year(found: Candidate) -> float:
    first, second, _ = (int(part) for part in compiled(r"[0-9]+").findall(found.value))
    return 0.5 if 1 <= min(first, second) <= 12 and max(first, second) <= 31 and max(first, second) > 0 else 0.0


def _day_exists(found: Candidate) -> float:
    """Whether its first number is a day or a year."""
    number = compiled(r"[0-9]+").search(found.value)
    return 0.45 if number is not None and (1 <= int(number.group()) <= 31 or len(number.group()) == 4) else 0.0


def _weekday(found: Candidate) -> tuple[int, int]:
    """The weekday without the word before it."""
    start = max(found.text.rfind(" ", found.start, found.end) + 1, found.start)
    return start, found.end


def _years_of_life(found: Candidate) -> float:
    return 0.5 if 1 <= int(found.value) <= 110 else 0.0


def _month_of_card(found: Candidate) -> float:
    return 0.6 if 1 <= int(compiled(r"[0-9]+").findall(found.value)[0]) <= 12 else 0.0


def _day_and_month(found: Candidate) -> float:
    first, second = (int(part) for part in compiled(r"[0-9]+").findall(found.value))
    return 0.45 if 1 <= min(first, second) <= 12 and max(first, second) <= 31 else 0.0


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
            + _DAY
            + r"[-/.]"
            + _MONTH
            + r"[-/.](?:[0-9]{2}){1,2}|"
            + _YEAR
            + r",? "
            + _MONTH
            + r" "
            + _DAY
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
        digits=3,
        conversation_only=True,
        version="2",
    ),
    Recognizer(
        "date_short_year",
        "DATE_TIME",
        compiled(r"(?<![0-9A-Za-z./-])[0-3]?[0-9]([-/.])[0-3]?[0-9]\1[0-9]{2}(?![0-9A-Za-z]|[-/.][0-9])"),
        0.5,
        "no checksum; day, month and a year of two digits that exist, in talk",
        check=_short_year,
        digits=4,
        conversation_only=True,
    ),
    Recognizer(
        "date_of_a_year",
        "DATE_TIME",
        compiled(
            r"(?<![0-9A-Za-z])(?:(?:"
            + _WEEKDAY
            + r",? )?(?:[0-3]?[0-9](?:st|nd|rd|th)(?: of)? "
            + _MONTH
            + r"|"
            + _MONTH
            + r"\.? [0-3]?[0-9](?:st|nd|rd|th)|[0-3]?[0-9](?: of)? "
            + _CLEAR_MONTH
            + r"|"
            + _CLEAR_MONTH
            + r"\.? [0-3]?[0-9])|"
            + _MONTH
            + r",? "
            + _YEAR
            + r")(?![0-9A-Za-z%$]|[.:,-][0-9])"
        ),
        0.45,
        _REASON_DAY,
        check=_day_exists,
        digits=1,
        conversation_only=True,
    ),
    Recognizer(
        "weekday_of_event",
        "DATE_TIME",
        compiled(
            r"(?<![0-9A-Za-z])(?:on|until|till|since|by|last|next|this|every|before|after|from|through) "
            + _WEEKDAY
            + r"(?![0-9A-Za-z])|(?<![0-9A-Za-z])"
            + _WEEKDAY
            + r"(?= (?:morning|afternoon|evening|night|noon)(?![0-9A-Za-z]))"
        ),
        0.42,
        _REASON_DAY,
        trim=_weekday,
        words=("day",),
        conversation_only=True,
    ),
    Recognizer(
        "month_of_event",
        "DATE_TIME",
        compiled(
            r"(?<![0-9A-Za-z])(?:in|until|till|since|by|last|next|this|during|early|late|mid|before|after) "
            r"(?:january|february|april|june|july|august|september|october|november|december|(?-i:March|May))"
            r"(?![0-9A-Za-z]| [0-9])"
        ),
        0.42,
        _REASON_DAY,
        trim=_weekday,
        conversation_only=True,
    ),
    Recognizer(
        "year_of_event",
        "DATE_TIME",
        compiled(
            r"(?<![0-9A-Za-z])(?:in|since|until|till|during|before|after|year|class of|(?:summer|spring|fall|autumn|winter)"
            r"(?: of)?) (?:the year )?(" + _YEAR + r")(?![0-9A-Za-z%/]|[.,:-][0-9]| [0-9])"
        ),
        0.41,
        "no checksum; a year after a word that dates an event, in talk",
        group=1,
        digits=4,
        conversation_only=True,
    ),
    Recognizer(
        "date_short",
        "DATE_TIME",
        compiled(
            r"(?<![0-9A-Za-z])(?:on|since|until|till|by|from|dated?|before|after)[: ]{1,2}([0-3]?[0-9]/[0-3]?[0-9])"
            r"(?![0-9A-Za-z%/]|[.:,-][0-9])"
        ),
        0.45,
        _REASON_DAY,
        group=1,
        check=_day_and_month,
        words=("/",),
        digits=2,
        conversation_only=True,
    ),
    Recognizer(
        "month_numeric",
        "DATE_TIME",
        compiled(r"(?<![0-9A-Za-z./$€£-])(?:0?[1-9]|1[0-2])[/.-]" + _YEAR + r"(?![0-9A-Za-z%/]|[.,:-][0-9])"),
        0.45,
        "no checksum; a month and a year of four digits, in talk",
        digits=5,
        conversation_only=True,
    ),
    Recognizer(
        "card_month",
        "DATE_TIME",
        compiled(r"(?<![0-9A-Za-z./$€£-])(?:0[1-9]|1[0-2])/[0-9]{2}(?![0-9A-Za-z%/]|[.,:-][0-9])"),
        0.5,
        "no checksum; month and year, in a text that speaks of a card before",
        check=lambda found: (
            0.5 if compiled(r"(?<![a-z])(?:card|visa|mastercard|amex|cvv|cvc)").search(found.before(120)) else 0.0
        ),
        words=("card", "visa", "amex", "cvv", "cvc"),
        digits=4,
        conversation_only=True,
    ),
    Recognizer(
        "card_expiry",
        "DATE_TIME",
        compiled(
            r"(?<![0-9A-Za-z])(?:exp(?:\.|ir(?:y|es|ed|ing|ation))?(?: date)?|valid (?:until|till|thru|through|to)|good thru)"
            r"[ :]{1,3}(?:is |on |in |at |date )?([01]?[0-9][/-](?:20)?[0-9]{2})(?![0-9A-Za-z/-])"
        ),
        0.6,
        "no checksum; a month and a year after a word of expiry, as on a payment card",
        group=1,
        check=_month_of_card,
        words=("exp", "valid", "thru"),
        digits=3,
        conversation_only=True,
    ),
    Recognizer(
        "age_said",
        "AGE",
        compiled(
            r"(?<![0-9A-Za-z])(?:i am|i['’]?m|i was|i['’]ll be|(?:s?he|who|son|daughter|child|boy|girl|kid|baby|mother|father"
            r"|mom|mum|dad|brother|sister|wife|husband|partner|aunt|uncle|cousin|niece|nephew|grand[a-z]{3,8}|friend|patient)"
            r"(?:['’]s| is| was| will be| just turned)(?: now| only| already| almost| about)?) ([0-9]{1,3})"
            r"(?![0-9A-Za-z%/:°-]|[.,][0-9]|,? (?!(?:now|when|next|and|but|today|already|so|as of|on)(?![A-Za-z]))[0-9A-Za-z])"
        ),
        0.5,
        "no checksum; what is said of a person, and an age that people reach",
        group=1,
        check=_years_of_life,
        digits=1,
        conversation_only=True,
    ),
    Recognizer(
        "age_apposed",
        "AGE",
        compiled(
            r"(?-i:(?<=[a-z\u00df-\u017f\ue000])(?:, | \()([1-9][0-9])"
            r"(?=\)|, (?:[a-z]{2,12}ed|who|was|is|has|from|of|a|an|the|lives|works) ))"
        ),
        0.45,
        "no checksum; a number of two digits set off after a name",
        group=1,
        digits=2,
        conversation_only=True,
    ),
    Recognizer(
        "age_written",
        "AGE",
        compiled(
            r"(?<![0-9A-Za-z.,])([0-9]{1,3})(?= ?(?:y\.o\.?|y\.? ?old|y o)(?![A-Za-z])|(?:st|nd|rd|th) birthday(?![A-Za-z]))"
        ),
        0.6,
        "no checksum; the phrase decides",
        group=1,
        check=_years_of_life,
        digits=1,
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

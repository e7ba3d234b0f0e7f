"""Phone numbers: international ones by the numbering plans, national ones by their written form or a cue.

No phone number has a checksum. In machine-written lines a form that counters share (spaces or dots, a padded zero) needs a cue.
Source: ITU-T E.164 (through `phonenumbers` for numbers that are written with a plus), NANP.
"""

from __future__ import annotations

from functools import lru_cache

from privacy.recognizers.spec import FILLER, KEY, LEFT, RIGHT, SEP, Candidate, Recognizer, compiled, looks_like_epoch

_NO_SUM = "no checksum exists; digit count and written form decide"
_PHONE_CUE = compiled(
    r"(?:phone|mobile|msisdn|(?<![a-z])(?:tel|cell|fax|call(?:er|ed|ee)?|sms|whatsapp|dial(?:ed)?|contact|from|to)(?![a-z]))"
    r"[^\n]{0,16}\Z"
)


@lru_cache(maxsize=4096)
def _assigned(text: str) -> bool:
    """Whether a number written with a plus lies in an assigned range of its country."""
    import phonenumbers

    try:
        return bool(phonenumbers.is_valid_number(phonenumbers.parse(text, None)))
    except phonenumbers.NumberParseException:
        return False


def _international(found: Candidate) -> float:
    digits = found.digits
    if not 8 <= len(digits) <= 15:
        return 0.0
    if found.value.startswith("00"):
        cue = _PHONE_CUE.search(found.before(32)) is not None
        return 0.85 if (cue or not found.log) and not found.joined() else 0.0  # else a padded counter
    if _assigned("+" + digits.removeprefix("00")):
        return 0.9
    if found.log:
        return 0.0 if _PHONE_CUE.search(found.before(32)) is None else 0.8
    return 0.85  # people mistype; a plus and eight to fifteen digits are hardly anything else


def _grouped_by_dashes(found: Candidate) -> float:
    value = found.value
    if found.log and "-" not in value and "(" not in value and _PHONE_CUE.search(found.before(32)) is None:
        return 0.0
    return 0.8


def _cued(found: Candidate) -> float:
    digits = found.digits
    return 0.75 if 7 <= len(digits) <= 15 and not (found.log and looks_like_epoch(digits)) else 0.0


def _keyed(found: Candidate) -> float:
    return 0.85 if 7 <= len(found.digits) <= 15 else 0.0


PHONES: tuple[Recognizer, ...] = (
    Recognizer(
        "phone_international",
        "PHONE_NUMBER",
        compiled(
            r"(?<![0-9A-Za-z+.])(?:\+ ?|00(?=[1-9]))[1-9][0-9]{0,2}[ .-]?(?:\(0?[0-9]{0,4}\)[ .-]?)?[0-9]{1,5}"
            r"(?:[ ./-]?[0-9]{2,5}){1,5}" + RIGHT
        ),
        0.85,
        _NO_SUM + " (E.164: 8 to 15 digits), and the country's plan when a machine wrote it",
        check=_international,
        words=("+", "00"),
        digits=8,
        version="2",
    ),
    Recognizer(
        "phone_north_america",
        "PHONE_NUMBER",
        compiled(
            r"(?<![0-9A-Za-z.-])(?:\+?1[ .-]?)?(?:\([2-9][0-9]{2}\)[ -]?"
            r"|[2-9][0-9]{2}[ .-])[2-9][0-9]{2}[ .-][0-9]{4}(?: ?(?:x|ext\.?) ?[0-9]{1,6})?(?![0-9A-Za-z]|[.-][0-9])"
        ),
        0.8,
        _NO_SUM + " (NANP: area and exchange start at 2)",
        check=_grouped_by_dashes,
        digits=10,
        version="2",
    ),
    Recognizer(
        "phone_key",
        "PHONE_NUMBER",
        compiled(
            KEY + r"(?:(?:tele)?phone|mobile|msisdn|cell(?:phone)?|tel|fax|whatsapp|sms|caller|callee|手机|电话|座机|联系方式)"
            r"(?:[_ .-]?(?:number|num|no|nr|id|home|work|e164|号码|号))?" + SEP + r"([+(]?[0-9][0-9 ().+-]{5,22}[0-9])" + RIGHT
        ),
        0.85,
        _NO_SUM + "; the key decides",
        group=1,
        check=_keyed,
        words=(
            "phone",
            "mobile",
            "msisdn",
            "cell",
            "tel",
            "fax",
            "whatsapp",
            "sms",
            "calle",
            "手机",
            "电话",
            "座机",
            "联系方式",
        ),
        digits=7,
    ),
    Recognizer(
        "phone_cue",
        "PHONE_NUMBER",
        compiled(
            LEFT + r"(?:tele?phone|phone|tel|mobile|cell(?:phone)?|fax|whatsapp|hotline|call(?: me)?(?: back)?(?: at"
            r"| on)?|text me(?: at| on)?|reach me(?: at| on)?|contact|电话|手机|座机)"
            + FILLER
            + r"([+(]?[0-9][0-9 ().+-]{5,22}[0-9])"
            + RIGHT
        ),
        0.75,
        _NO_SUM + "; the cue word allows any grouping",
        group=1,
        check=_cued,
        words=(
            "phone",
            "tel",
            "mobile",
            "cell",
            "fax",
            "whatsapp",
            "call",
            "text me",
            "reach",
            "contact",
            "hotline",
            "电话",
            "手机",
            "座机",
        ),
        digits=7,
    ),
    Recognizer(
        "phone_grouped",
        "PHONE_NUMBER",
        compiled(
            r"(?<![0-9A-Za-z.+/-])(?:\(?0[0-9]{1,4}\)?[ .-][0-9]{2,5}(?:[ .-]?[0-9]{2,4}){1,3}"
            r"|\([0-9]{2,5}\) ?[0-9]{2,5}[ .-]?[0-9]{3,5}|[0-9]{2,4}(?:[ -][0-9]{2,4}){2,4})" + RIGHT
        ),
        0.5,
        _NO_SUM + "; grouped digits, in conversation only",
        check=lambda found: 0.5 if 9 <= len(found.digits) <= 13 else 0.0,
        digits=9,
        conversation_only=True,
    ),
)

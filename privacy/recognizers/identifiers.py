"""Identifiers that people hand over and that have a form of their own: mail and phone, cards, IBAN, social security numbers.

Numbers with a checksum are accepted on it; numbers without one need their written form or a cue word.
"""

from __future__ import annotations

from privacy.recognizers.spec import FILLER, LEFT, RIGHT, Candidate, Recognizer, compiled, looks_like_epoch, luhn

_CARD_CUE = compiled(r"card|visa|master|amex|credit|debit|payment|卡")
_NO_PHONE_SUM = "no checksum exists; digit count and written form decide"


def _brand(digits: str) -> bool:
    """Issuer prefix and length of the large networks; UnionPay is a type of its own."""
    size, two, four = len(digits), int(digits[:2]), int(digits[:4])
    if digits[0] == "4":
        return size in (13, 16, 19)
    if 51 <= two <= 55 or 2221 <= four <= 2720:
        return size == 16
    if two in (34, 37):
        return size == 15
    if two in (36, 38, 39) or 3000 <= four <= 3059:
        return size == 14
    return size >= 16 and (four == 6011 or two in (64, 65) or 3528 <= four <= 3589)


def _card(found: Candidate) -> float:
    digits = found.digits
    if not 12 <= len(digits) <= 19 or len(set(digits)) == 1:
        return 0.0
    cue = _CARD_CUE.search(found.before(60)) is not None
    if digits.startswith("62") and not cue:
        return 0.0
    if found.log and found.before(1)[-1:] in "_-.$/" and found.start > 0 and not cue:
        return 0.0  # part of a longer identifier of a machine
    if _brand(digits) and luhn(digits):
        return 1.0
    return 0.65 if cue and not looks_like_epoch(digits) else 0.0


def _iban(found: Candidate) -> float:
    text = found.value.replace(" ", "").replace("-", "").upper()
    if not 15 <= len(text) <= 34:
        return 0.0
    number = "".join(str(int(c, 36)) for c in text[4:] + text[:4])
    return 1.0 if int(number) % 97 == 1 else 0.0


def _trim_iban(found: Candidate) -> tuple[int, int] | None:
    """A following word in capitals looks like one more group; drop groups from the right until the checksum holds."""
    end = found.end
    while end > found.start:
        if _iban(Candidate(found.text, found.start, end, found.log)):
            return found.start, end
        end = found.text.rfind(" ", found.start, end)
    return None


def _ssn(found: Candidate) -> float:
    digits = found.digits
    if digits[:3] in ("000", "666") or digits[0] == "9" or digits[3:5] == "00" or digits[5:] == "0000":
        return 0.0
    return 0.85


def _phone_international(found: Candidate) -> float:
    if found.log and found.value.startswith("00"):
        return 0.0  # a padded counter
    return 0.85 if 8 <= len(found.digits) <= 15 else 0.0


def _phone_cue(found: Candidate) -> float:
    digits = found.digits
    return 0.75 if 7 <= len(digits) <= 15 and not (found.log and looks_like_epoch(digits)) else 0.0


def _phone_grouped(found: Candidate) -> float:
    return 0.5 if 9 <= len(found.digits) <= 13 else 0.0


IDENTIFIERS: tuple[Recognizer, ...] = (
    Recognizer(
        "email",
        "EMAIL_ADDRESS",
        compiled(
            r"(?<![0-9A-Za-z\u00c0-\u024f._%+-])[0-9A-Za-z\u00c0-\u024f._%+-]{1,100}@"
            r"(?:[0-9A-Za-z\u00c0-\u024f-]{1,63}\.){1,8}[A-Za-z]{2,24}" + RIGHT
        ),
        0.96,
        "no checksum; RFC 5321 shape with a top-level domain",
        words=("@",),
    ),
    Recognizer(
        "email_spelled",
        "EMAIL_ADDRESS",
        compiled(
            LEFT + r"[0-9A-Za-z._%+-]{1,64}\s?(?:[\[(]at[\])]"
            r"| at )\s?[0-9A-Za-z-]{1,63}(?:\s?(?:[\[(]dot[\])]| dot |\.)\s?[0-9A-Za-z-]{2,24}){1,4}" + RIGHT
        ),
        0.6,
        "no checksum; at and dot spelled out",
        check=lambda found: (
            0.6 if compiled(r"(?:dot[\])]?\s?|\.)(?:com|org|net|edu|gov|io|co|cn|uk|de|fr|in)$").search(found.value) else 0.0
        ),
        words=(" at ", "[at]", "(at)"),
    ),
    Recognizer(
        "credit_card",
        "CREDIT_CARD",
        compiled(
            r"(?<![0-9A-Za-z])(?=([2-6][0-9]{12,18}(?![0-9A-Za-z])|[2-6][0-9]{3}(?:[ .-][0-9]{4}){3}(?![0-9A-Za-z])"
            r"|3[0-9]{3}[ -][0-9]{6}[ -][0-9]{4,5}(?![0-9A-Za-z])))"
        ),
        1.0,
        "issuer prefix, length and Luhn; with a cue word a mistyped number counts too",
        group=1,
        check=_card,
        digits=12,
    ),
    Recognizer(
        "credit_card_cue",
        "CREDIT_CARD",
        compiled(LEFT + r"(?:card|visa|mastercard|amex|credit|debit)" + FILLER + r"([0-9](?:[ .-]{0,2}[0-9]){2,18})" + RIGHT),
        0.72,
        "none on purpose: last four digits and mistyped numbers have no valid checksum; the cue word decides",
        group=1,
        words=("card", "visa", "amex", "credit", "debit"),
        digits=3,
    ),
    Recognizer(
        "iban",
        "IBAN",
        compiled(LEFT + r"[A-Z]{2}[0-9]{2}(?:[ -]?[0-9A-Z]{1,4}){3,8}" + RIGHT),
        1.0,
        "ISO 7064 mod 97-10",
        check=_iban,
        trim=_trim_iban,
        digits=6,
    ),
    Recognizer(
        "us_ssn",
        "US_SSN",
        compiled(r"(?<![0-9A-Za-z-])[0-9]{3}([ -])[0-9]{2}\1[0-9]{4}(?![0-9A-Za-z-])"),
        0.85,
        "no checksum exists; areas 000, 666 and 9xx, group 00 and serial 0000 were never issued",
        check=_ssn,
        digits=9,
    ),
    Recognizer(
        "us_ssn_cue",
        "US_SSN",
        compiled(
            LEFT + r"(?:ssn|s\.s\.n\.?|ss ?#|social(?: security)?|soc(?:ial)? sec)(?:[^0-9\n\ue000]"
            r"|(?<![0-9])4(?= digits)){0,40}?([0-9](?:[ -]?[0-9]){2,9})" + RIGHT
        ),
        0.8,
        "no checksum exists; the cue word decides, so the last four digits count too",
        group=1,
        words=("ssn", "s.s.n", "ss#", "ss #", "soc"),
        digits=3,
    ),
    Recognizer(
        "phone_international",
        "PHONE_NUMBER",
        compiled(
            r"(?<![0-9A-Za-z+.])(?:\+"
            r"|00(?=[1-9]))[1-9][0-9]{0,2}[ .-]?(?:\(0?[0-9]{0,4}\)[ .-]?)?[0-9]{1,5}(?:[ ./-]?[0-9]{2,5}){1,5}" + RIGHT
        ),
        0.85,
        _NO_PHONE_SUM + " (E.164: 8 to 15 digits)",
        check=_phone_international,
        words=("+", "00"),
        digits=8,
    ),
    Recognizer(
        "phone_north_america",
        "PHONE_NUMBER",
        compiled(
            r"(?<![0-9A-Za-z.-])(?:\+?1[ .-]?)?(?:\([2-9][0-9]{2}\)[ -]?"
            r"|[2-9][0-9]{2}[ .-])[2-9][0-9]{2}[ .-][0-9]{4}(?: ?(?:x|ext\.?) ?[0-9]{1,6})?" + RIGHT
        ),
        0.8,
        _NO_PHONE_SUM + " (NANP: area and exchange start at 2)",
        digits=10,
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
        _NO_PHONE_SUM + "; the cue word allows any grouping",
        group=1,
        check=_phone_cue,
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
        _NO_PHONE_SUM + "; grouped digits, in conversation only",
        check=_phone_grouped,
        digits=9,
        conversation_only=True,
    ),
)

"""Payment cards and bank accounts with a checksum: issuer, length and Luhn for cards, ISO 7064 mod 97-10 for IBAN.

Guarantee: without a cue a number is a card only when issuer prefix, length and Luhn agree and it is no part of an identifier
of a machine; in machine-written lines a counter's key vetoes it.
Source: ISO/IEC 7812-1 and the networks' published ranges; the IBAN registry of SWIFT for lengths.
"""

from __future__ import annotations

from privacy.recognizers.spec import FILLER, KEY, RIGHT, Candidate, Recognizer, compiled, looks_like_epoch, luhn

_CARD_CUE = compiled(
    r"card|visa|master|amex|express|maestro|discover|diners|jcb|credit|debit|payment|payer|(?<![a-z])(?:pan|ccn?"
    r"|cc_?num|pay)(?![a-z])"
    r"|卡|信用|付款"
)
_RANGES = (  # first and last issuer prefix, lengths
    ("4", "4", (13, 16, 19)),  # Visa
    ("51", "55", (16,)),  # Mastercard
    ("2221", "2720", (16,)),
    ("34", "34", (15,)),  # American Express
    ("37", "37", (15,)),
    ("36", "36", (14,)),  # Diners Club
    ("38", "39", (14, 16)),
    ("300", "305", (14, 16)),
    ("309", "309", (14, 16)),
    ("6011", "6011", (16, 19)),  # Discover
    ("644", "659", (16, 19)),
    ("3528", "3589", (16, 17, 18, 19)),  # JCB
    ("2200", "2204", (16, 17, 18, 19)),  # Mir
)
_UNIONPAY = frozenset({"62", "81"})
_LOCAL_RANGES = (  # ranges so wide that they need a cue: Maestro, RuPay, Elo and debit cards of single countries
    ("50", "50", tuple(range(12, 20))),
    ("56", "69", tuple(range(12, 20))),
    ("82", "82", (16,)),
)


def _issued(digits: str, ranges: tuple[tuple[str, str, tuple[int, ...]], ...]) -> bool:
    size = len(digits)
    return any(size in sizes and low <= digits[: len(low)] <= high for low, high, sizes in ranges)


def _card(found: Candidate) -> float:
    digits = found.digits
    if not 12 <= len(digits) <= 19 or len(set(digits)) == 1:
        return 0.0
    cue = _CARD_CUE.search(found.before(48)) is not None
    if digits[:2] in _UNIONPAY and (not cue or luhn(digits)):
        return 0.0  # a type of its own: cn_bank_card
    if found.log and not cue and (len(digits) == 13 or found.joined() or found.counted()):
        return 0.0
    if luhn(digits) and (_issued(digits, _RANGES) or (cue and _issued(digits, _LOCAL_RANGES))):
        return 1.0
    return 0.65 if cue and not looks_like_epoch(digits) and not (found.log and found.joined()) else 0.0


def _card_joined(found: Candidate) -> float:
    digits = found.digits
    known = digits[:2] not in _UNIONPAY and _issued(digits, (*_RANGES, *_LOCAL_RANGES))
    return 1.0 if known and luhn(digits) else 0.0


def _trim_card(found: Candidate) -> tuple[int, int] | None:
    """A security code or a date may stand behind the number as if it were one more group: cut where the checksum holds."""
    digits = 0
    best = 0
    for position in range(found.start, found.end):
        char = found.text[position]
        digits += char in "0123456789"
        at_group_end = position + 1 == found.end or found.text[position + 1] not in "0123456789"
        if char in "0123456789" and at_group_end and digits >= 12:
            number = Candidate(found.text, found.start, position + 1, found.log).digits
            if luhn(number) and (_issued(number, _RANGES) or _issued(number, _LOCAL_RANGES)):
                best = position + 1
    return found.start, best or found.end


def _card_cued(found: Candidate) -> float:
    """After a cue also a mistyped number and the last four digits; in a machine's line only a number of a card's length."""
    if not found.log:
        return 0.72
    return 0.72 if 12 <= len(found.digits) <= 19 and not looks_like_epoch(found.digits) and not found.joined() else 0.0


IBAN_LENGTHS = {
    code: size
    for size, codes in {
        15: "NO", 16: "BE", 18: "DK FO FI GL NL SD FK", 19: "MK SI", 20: "AT BA EE KZ LT LU XK MN",
        21: "HR LV LI CH", 22: "BH BG CR GE DE IE ME RS GB VA", 23: "GI IL IQ TL AE OM SO",
        24: "AD CZ DZ MD PK RO SA SK ES SE TN VG MA", 25: "AO CV MZ PT ST LY", 26: "IS TR",
        27: "FR GR IT MC MR SM BI DJ SN BF CM",
        28: "AL AZ BY CY DO SV GT HU LB PL NI ML CI BJ MG", 29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC",
        33: "RU",
    }.items()
    for code in codes.split()
}  # fmt: skip


def iban_valid(text: str) -> bool:
    """Country length and ISO 7064 mod 97-10; `text` without spaces, in capitals."""
    if IBAN_LENGTHS.get(text[:2]) != len(text):
        return False
    return int("".join(str(int(char, 36)) for char in text[4:] + text[:4])) % 97 == 1


def _trim_iban(found: Candidate) -> tuple[int, int] | None:
    """As many letters and digits as the country's IBAN has; what follows must not be glued to them."""
    wanted = IBAN_LENGTHS.get(found.text[found.start : found.start + 2].upper(), 0)
    for position in range(found.start, found.end):
        wanted -= found.text[position] not in " -."
        if wanted == 0:
            return None if found.text[position + 1 : position + 2].isalnum() else (found.start, position + 1)
    return None


def _iban(found: Candidate) -> float:
    return 1.0 if iban_valid("".join(char for char in found.value if char not in " -.").upper()) else 0.0


CARDS: tuple[Recognizer, ...] = (
    Recognizer(
        "credit_card",
        "CREDIT_CARD",
        compiled(
            r"(?<![0-9A-Za-z_-])(?=([2-68][0-9]{11,18}(?![0-9A-Za-z])"
            r"|[2-68][0-9]{3}(?:[ .-][0-9]{4}){2,3}(?:[ .-][0-9]{1,4})?(?![0-9A-Za-z])"
            r"|3[0-9]{3}[ .-][0-9]{6}[ .-][0-9]{4,5}(?![0-9A-Za-z])))"
        ),
        1.0,
        "issuer prefix, length and Luhn; with a cue word a mistyped number counts too",
        group=1,
        check=_card,
        trim=_trim_card,
        digits=12,
        version="2",
    ),
    Recognizer(
        "credit_card_joined",
        "CREDIT_CARD",
        compiled(r"(?:card|visa|pan|cc|amex|credit|debit|pay)[a-z]{0,12}[_-]{1,2}([2-68][0-9]{11,18})(?![0-9A-Za-z])"),
        1.0,
        "issuer prefix, length and Luhn; joined to the word for a card",
        group=1,
        check=_card_joined,
        words=("card", "visa", "pan", "cc", "amex", "credit", "debit", "pay"),
        digits=12,
    ),
    Recognizer(
        "credit_card_cue",
        "CREDIT_CARD",
        compiled(
            KEY
            + r"(?:card|visa|mastercard|maestro|amex|credit|debit|pan|ccn?|ccnum)"
            + FILLER
            + r"([0-9](?:[ .-]{0,2}[0-9]){2,18})"
            + RIGHT
        ),
        0.72,
        "none on purpose: last four digits and mistyped numbers have no valid checksum; the cue word decides",
        group=1,
        check=_card_cued,
        words=("card", "visa", "amex", "credit", "debit", "pan", "cc", "maestro"),
        digits=3,
        version="2",
    ),
    Recognizer(
        "iban",
        "IBAN",
        compiled(r"(?<![0-9A-Za-z])(?=([A-Z]{2}[0-9]{2}(?:[ .-]?[0-9A-Z]){11,30}))"),
        1.0,
        "country length and ISO 7064 mod 97-10",
        group=1,
        check=_iban,
        trim=_trim_iban,
        digits=2,
        version="2",
    ),
)

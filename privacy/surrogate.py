"""Surrogates: made-up values that look like what they replace, and that we know again as our own.

Guarantee: a surrogate lies in a range that was never issued to anybody (`privacy.surrogate_kinds`), is the same for one key,
subject and value, and is of the same length class (words of a name, digits of a number, short or long address or mail) and
script. It carries a keyed mark: of each range one key writes 1 string in `marks`, so `spans` knows its own again and
de-identifying twice changes nothing. A raw value passes as a surrogate only if it lies in a reserved range, where nobody's
value lies, and has the mark by chance too: 1 in 32 for an invented given name, 64 for an invented family name, 128 for a
555-01xx number, 8 for a drama number of Ofcom, 4 in the documentation block of MAC addresses, 4,096 and more for all else.
Not covered: ids of unknown issuers: of those that open with two reserved signs (00, Z0, 0Z, ZZ), 1 in 16,384 passes.
"""

from __future__ import annotations

import hmac
import re
import unicodedata
from collections.abc import Callable, Mapping

from privacy.recognizers.view import word_set
from privacy.surrogate_kinds import (
    CN_LAND,
    CN_MOBILE,
    FAMILY,
    GIVEN,
    HAN_NAME,
    HAN_STREET,
    IMEI,
    IPV4,
    IPV6,
    MAC,
    MAIL,
    NANP,
    PLACE,
    READERS,
    RESIDENT,
    SHORT_MAIL,
    SSN,
    STREET,
    UK_LAND,
    UK_MOBILE,
    USER,
    WRITERS,
    Range,
    Slot,
    card_range,
    dial_range,
    digits_of,
    iban_range,
    id_range,
    word_slot,
    write_card,
    write_iban,
    write_id,
)
from privacy.surrogate_words import family_names, given_names

_HAN = re.compile(r"[\u3400-\u9fff]")
_WORD = re.compile(r"(?<![0-9A-Za-z_])[A-Za-z]{4,24}(?![0-9A-Za-z_])")
_NAME_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_TITLES = word_set("mr mrs ms miss mx dr prof sir madam")
_MOST_NAME_WORDS = 4
_SHORT_MAIL, _SHORT_ADDRESS = 20, 32
_TRIES = 8

Span = tuple[int, int, str]
Draw = Callable[[Range], int]


class Marks:
    """Knows the surrogates of one domain again. `key` recognises and links nothing, so it need not be secret."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def mark(self, range_: Range, payload: int) -> int:
        return int.from_bytes(hmac.digest(self._key, f"{range_.kind}\0{payload}".encode(), "sha256")[:8]) % range_.marks

    def bears(self, slot: Slot) -> bool:
        payload, mark = divmod(slot.index, slot.range.marks)
        return payload < slot.range.size // slot.range.marks and self.mark(slot.range, payload) == mark

    def spans(self, text: str) -> list[Span]:
        """(start, end, entity) of each surrogate in `text`, sorted, without overlaps; neighbouring names are one."""
        found: list[Span] = []
        for entity, sign, pattern, reader in READERS:
            if sign in text:
                for match in pattern.finditer(text):
                    slot = reader(match)
                    if slot is not None and self.bears(slot):
                        found.append((*match.span(), entity))
        for match in _WORD.finditer(text):
            slot = word_slot(match.group())
            if slot is not None and self.bears(slot):
                found.append((*match.span(), "PERSON"))
        return _joined(text, sorted(found, key=lambda span: (span[0], -span[1])))


class Surrogates:
    """Writes surrogates. key: secret, at least 16 bytes; it decides which value gets which surrogate."""

    __slots__ = ("_key", "marks")

    def __init__(self, key: bytes, marks: Marks) -> None:
        self._key = key
        self.marks = marks

    def of(self, entity: str, value: str, subject: str = "") -> str | None:
        """The surrogate of one value of one subject; None where this value has none (its form is not known)."""
        write = _WRITERS.get(entity)
        text = unicodedata.normalize("NFKC", value).strip()
        if write is None or not text:
            return None
        for attempt in range(_TRIES):
            made = write(self, text, f"{subject}\0{attempt}")
            if made is None or self.marks.spans(made) == []:
                return None
            if _squeezed(made) != _squeezed(text):
                return made
        return None

    def draw(self, range_: Range, said: str, value: str) -> int:
        """The number of the surrogate of `value` in a range; `said` tells subjects and attempts apart."""
        message = f"{range_.kind}\0{said}\0{value}".encode("utf-8", "surrogatepass")
        payload = int.from_bytes(hmac.digest(self._key, message, "sha256")) % (range_.size // range_.marks)
        return payload * range_.marks + self.marks.mark(range_, payload)


def _joined(text: str, spans: list[Span]) -> list[Span]:
    """Of spans that overlap the first and longest stays; names with a space between them become one."""
    joined: list[Span] = []
    for span in spans:
        if joined and span[0] < joined[-1][1]:
            continue
        if joined and span[2] == joined[-1][2] == "PERSON" and text[joined[-1][1] : span[0]] == " ":
            joined[-1] = (joined[-1][0], span[1], "PERSON")
        else:
            joined.append(span)
    return joined


def _squeezed(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())


def _name(make: Surrogates, value: str, said: str) -> str | None:
    if _HAN.search(value):
        return WRITERS["han"](make.draw(HAN_NAME, said, _squeezed(value)))
    words = [w for w in _NAME_WORD.findall(value) if w.lower() not in _TITLES][:_MOST_NAME_WORDS]
    if not words:
        return None
    given, family = given_names(), family_names()
    is_family = [n == len(words) - 1 and (n > 0 or not _is_given(w)) for n, w in enumerate(words)]
    made = [
        family[make.draw(FAMILY, said, w.casefold())] if last else given[make.draw(GIVEN, said, w.casefold())]
        for w, last in zip(words, is_family, strict=True)
    ]
    text = " ".join(made)
    return text.upper() if len(value) > 2 and value.isupper() else text.lower() if value.islower() else text


def _is_given(word: str) -> bool:
    from privacy.recognizers.names import GIVEN_NAMES

    return word.lower() in GIVEN_NAMES


def _mail(make: Surrogates, value: str, said: str) -> str:
    range_ = SHORT_MAIL if len(value) <= _SHORT_MAIL else MAIL
    return WRITERS[range_.kind](make.draw(range_, said, value.casefold()))


def _address(make: Surrogates, value: str, said: str) -> str:
    range_ = HAN_STREET if _HAN.search(value) else STREET if len(value) < _SHORT_ADDRESS else PLACE
    return WRITERS[range_.kind](make.draw(range_, said, _squeezed(value)))


def _location(make: Surrogates, value: str, said: str) -> str | None:
    if _HAN.search(value):
        return None
    name = family_names()[make.draw(FAMILY, said, _squeezed(value))]
    return name.lower() if value.islower() else name


def _card(make: Surrogates, value: str, said: str) -> str | None:
    digits = digits_of(value)
    if not 13 <= len(digits) <= 19:
        return None
    return _laid(make, write_card(len(digits), make.draw(card_range(len(digits)), said, digits)), value)


def _iban(make: Surrogates, value: str, said: str) -> str | None:
    compact = "".join(c for c in value if c.isalnum()).upper()
    if not 15 <= len(compact) <= 34:
        return None
    made = write_iban(len(compact), make.draw(iban_range(len(compact)), said, compact))
    return " ".join(made[n : n + 4] for n in range(0, len(made), 4)) if " " in value else made


def _ssn(make: Surrogates, value: str, said: str) -> str | None:
    digits = digits_of(value)
    return _laid(make, WRITERS["ssn"](make.draw(SSN, said, digits)), value) if len(digits) == 9 else None


def _resident(make: Surrogates, value: str, said: str) -> str:
    return WRITERS["resident"](make.draw(RESIDENT, said, value.upper()))


def _imei(make: Surrogates, value: str, said: str) -> str | None:
    digits = digits_of(value)
    return _laid(make, WRITERS["imei"](make.draw(IMEI, said, digits)), value) if len(digits) == 15 else None


def _ip(make: Surrogates, value: str, said: str) -> str:
    range_ = IPV6 if ":" in value else IPV4
    return WRITERS[range_.kind](make.draw(range_, said, value.lower()))


def _mac(make: Surrogates, value: str, said: str) -> str:
    signs = WRITERS["mac"](make.draw(MAC, said, _squeezed(value)))
    made = ("-" if "-" in value else ":").join(signs[n : n + 2] for n in range(0, 12, 2))
    return made.lower() if value.islower() else made


def _user(make: Surrogates, value: str, said: str) -> str:
    return WRITERS["user"](make.draw(USER, said, value.casefold()))


def _id(make: Surrogates, value: str, said: str) -> str | None:
    text = "".join(c for c in value.upper() if c == "-" or (c.isascii() and c.isalnum())).strip("-")
    signs = text.replace("-", "")
    shape = "".join("9" if c.isdigit() else "A" for c in signs)
    range_ = id_range(shape) if 7 <= len(signs) <= 30 else None
    if range_ is None:
        return None
    made = iter(write_id(shape, make.draw(range_, said, signs)))
    plain = re.sub(r"-+", "-", text)
    return "".join(c if c == "-" else next(made) for c in plain)


def _phone(make: Surrogates, value: str, said: str) -> str | None:
    digits = digits_of(value)
    national = digits.removeprefix("00") if value.startswith("00") else digits
    plus = "+" in value or value.startswith("00")
    gap = next((c for c in value if c in " -."), "")

    def drawn(range_: Range) -> str:
        return WRITERS[range_.kind](make.draw(range_, said, national))

    is_american = national.startswith("1") and (plus or re.match(r"1[ .(-]", value) is not None)
    if (plus and national.startswith("86")) or (not is_american and re.fullmatch(r"(?:86)?1[3-9][0-9]{9}", national)):
        return _chinese(national, plus, gap, drawn)
    if (plus and national.startswith("44")) or re.fullmatch(r"07[0-9]{9}|020[0-9]{8}", national):
        is_mobile = national.removeprefix("44").lstrip("0").startswith("7")
        signs = drawn(UK_MOBILE if is_mobile else UK_LAND)
        cuts = (4, 7) if is_mobile else (2, 6)
        return ("+44" + gap if plus else "0") + gap.join((signs[: cuts[0]], signs[cuts[0] : cuts[1]], signs[cuts[1] :]))
    if not plus and re.fullmatch(r"0[1-9][0-9]{8,10}", national):
        return _chinese(national, plus, gap, drawn)
    if plus and not national.startswith("1"):
        count = max(len(national) - 3, 6)
        range_ = dial_range(count)
        return f"+999{gap}{make.draw(range_, said, national):0{count}d}" if count <= 12 else None
    if not 7 <= len(national) <= 11:
        return None
    signs = drawn(NANP)
    head = "+1" + gap if plus else "1" + gap if len(national) == 11 else ""
    if "(" in value:
        return f"{head}({signs[:3]}) {signs[3:6]}-{signs[6:]}"
    return head + gap.join((signs[:3], signs[3:6], signs[6:]))


def _chinese(national: str, plus: bool, gap: str, drawn: Callable[[Range], str]) -> str:
    own = national.removeprefix("86") if plus or len(national) == 13 else national
    code = "+86" + gap if plus else ""
    if re.fullmatch(r"1[0-9]{10}", own):
        signs = drawn(CN_MOBILE)
        return code + gap.join((signs[:3], signs[3:7], signs[7:]))
    signs = drawn(CN_LAND)
    return (code or "0") + signs[:2] + gap + signs[2:]


def _laid(make: Surrogates, digits: str, value: str) -> str:
    """Digits in the groups of `value`, where they are known again as such."""
    if len(digits_of(value)) != len(digits):
        return digits
    signs = iter(digits)
    laid = "".join(next(signs) if "0" <= c <= "9" else c for c in value)
    return laid if [span[:2] for span in make.marks.spans(laid)] == [(0, len(laid))] else digits


_WRITERS: Mapping[str, Callable[[Surrogates, str, str], str | None]] = {
    "PERSON": _name, "EMAIL_ADDRESS": _mail, "ADDRESS": _address, "LOCATION": _location, "PHONE_NUMBER": _phone,
    "CREDIT_CARD": _card, "CN_BANK_CARD": _card, "IBAN": _iban, "US_SSN": _ssn, "CN_RESIDENT_ID": _resident, "IMEI": _imei,
    "IP_ADDRESS": _ip, "MAC_ADDRESS": _mac, "USERNAME": _user,
    **dict.fromkeys(
        ("ACCOUNT_NUMBER", "CUSTOMER_NUMBER", "ORDER_NUMBER", "MEDICAL_RECORD_NUMBER", "NHS_NUMBER", "PASSPORT_NUMBER",
         "DRIVER_LICENSE", "CN_USCC", "US_ITIN", "US_NPI"), _id),
}  # fmt: skip
TYPES = frozenset(_WRITERS)  # the same as entities.SURROGATE_TYPES, which a policy is checked against

"""Reserved ranges that surrogates are drawn from: how each is numbered, written and read back.

Guarantee: nothing in a range was ever issued to a person: mail domains of RFC 2606, 240.0.0.0/4 and 2001:db8::/32, MAC block of
RFC 9542, 555-01xx, Ofcom's drama numbers, Chinese mobile prefixes 142 and 143, calling code +999, card numbers of MII 0, IBAN
country QZ (ISO 3166 user-assigned), SSN areas 900 to 999 with groups that no ITIN has, Chinese region 99, IMEI of a test body,
state QZ, invented names. Checksums are valid. Ids of unknown issuers have no such range: two reserved signs open them.
A `Slot` is one string of a range by number: `kind` and `size` name the range, `marks` says how few of it one key ever writes.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from privacy.surrogate_words import HAN_FAMILY, HAN_GIVEN, family_names, given_names, numbered

_LEFT, _RIGHT = r"(?<![0-9A-Za-z])", r"(?![0-9A-Za-z])"
_GAP = r"[ .-]?"


@dataclass(frozen=True, slots=True)
class Range:
    """Strings of one kind, numbered from 0 to size - 1; one key writes size // marks of them."""

    kind: str
    size: int
    marks: int


@dataclass(frozen=True, slots=True)
class Slot:
    """One string of a range."""

    range: Range
    index: int


Reader = Callable[[re.Match[str]], Slot | None]


def digits_of(text: str) -> str:
    return "".join(c for c in text if "0" <= c <= "9")


def luhn(body: str) -> str:
    """The check digit that follows `body` (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, digit in enumerate(reversed(body)):
        doubled = int(digit) * (2 - place % 2)
        total += doubled - 9 if doubled > 9 else doubled
    return str(-total % 10)


GIVEN = Range("given", 4096, 32)
FAMILY = Range("family", 32_768, 64)
HAN_NAME = Range("han", 32 * 64 * 64, 256)
MAIL_HOSTS = ("example.com", "example.net", "example.org")
MAIL = Range("mail", 4096 * 32_768 * 300, 1 << 20)
SHORT_MAIL = Range("short mail", 4096 * 3000, 1 << 12)
USER = Range("user", 4096 * 10_000, 1 << 14)
IPV4 = Range("ipv4", (1 << 28) - 1, 1 << 14)
IPV6 = Range("ipv6", 1 << 96, 1 << 40)
MAC = Range("mac", 256, 4)
SSN = Range("ssn", 100 * 49 * 9999, 1 << 14)
_DAYS = 25_000  # of birth, from 1940-01-01
RESIDENT = Range("resident", 10_000 * _DAYS * 1000, 1 << 24)
IMEI = Range("imei", 10**12, 1 << 20)
STREETS = ("Street", "Road", "Avenue", "Lane")
STREET = Range("street", 999 * 32_768 * 4, 1 << 16)
PLACE = Range("place", 999 * 32_768 * 4 * 32_768 * 100, 1 << 24)
HAN_STREET = Range("han street", 64**4 * 999, 1 << 20)
AREAS = tuple(a for n in range(200, 1000) if (a := str(n))[1] != "9" and a[1:] != "11" and a != "555")
NANP = Range("nanp", len(AREAS) * 100, 128)
UK_MOBILE = Range("uk mobile", 1000, 8)
UK_LAND = Range("uk land", 1000, 8)
CN_MOBILE = Range("cn mobile", 2 * 10**8, 1 << 15)
CN_AREAS = ("10", "20", "21", "22", "23", "24", "25", "27", "28", "29")
CN_LAND = Range("cn land", len(CN_AREAS) * 10**7, 1 << 14)


def card_range(length: int) -> Range:
    return Range(f"card {length}", 10 ** (length - 2), 1 << 24)


def iban_range(length: int) -> Range:
    return Range(f"iban {length}", 10 ** (length - 4), 1 << 24)


def dial_range(length: int) -> Range:
    return Range(f"dial {length}", 10**length, 1 << 16)


def id_range(shape: str) -> Range | None:
    """Of ids of one shape (`A` a letter, `9` a digit); None when two reserved signs leave too little room for a mark."""
    size = 1
    for sign in shape[2:]:
        size *= 10 if sign == "9" else 26
    return None if size < 1 << 22 else Range(f"id {shape}", size, 1 << 14 if size < 1 << 28 else 1 << 18)


def write_card(length: int, index: int) -> str:
    body = "0" + str(index).zfill(length - 2)
    return body + luhn(body)


def write_iban(length: int, index: int) -> str:
    body = str(index).zfill(length - 4)
    check = 98 - int(body + "263500") % 97  # QZ is 26 35
    return f"QZ{check:02d}{body}"


def write_ssn(index: int) -> str:
    rest, serial = divmod(index, 9999)
    area, group = divmod(rest, 49)
    return f"{900 + area}{group + 1:02d}{serial + 1:04d}"


def write_resident(index: int) -> str:
    rest, order = divmod(index, 1000)
    region, day = divmod(rest, _DAYS)
    return _with_check(f"99{region:04d}{date(1940, 1, 1) + timedelta(days=day):%Y%m%d}{order:03d}")


def _with_check(body: str) -> str:
    """Source: GB 11643-1999 (ISO 7064 MOD 11-2)."""
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    return body + "10X98765432"[sum(int(d) * w for d, w in zip(body, weights, strict=True)) % 11]


def write_imei(index: int) -> str:
    body = "00" + str(index).zfill(12)
    return body + luhn(body)


def write_id(shape: str, index: int) -> str:
    signs = []
    for sign in reversed(shape[2:]):
        index, place = divmod(index, 10 if sign == "9" else 26)
        signs.append(str(place) if sign == "9" else chr(65 + place))
    return "".join("0" if sign == "9" else "Z" for sign in shape[:2]) + "".join(reversed(signs))


def write_mail(index: int) -> str:
    rest, tail = divmod(index, 300)
    given, family = divmod(rest, 32_768)
    return f"{given_names()[given]}.{family_names()[family]}{tail // 3:02d}@{MAIL_HOSTS[tail % 3]}".lower()


def write_short_mail(index: int) -> str:
    given, tail = divmod(index, 3000)
    return f"{given_names()[given]}{tail // 3:03d}@{MAIL_HOSTS[tail % 3]}".lower()


def write_user(index: int) -> str:
    given, number = divmod(index, 10_000)
    return f"{given_names()[given].lower()}{number:04d}"


def write_ipv4(index: int) -> str:
    return str(ipaddress.IPv4Address((0xF << 28) + index))


def write_ipv6(index: int) -> str:
    return str(ipaddress.IPv6Address((0x20010DB8 << 96) + index))


def write_street(index: int) -> str:
    rest, number = divmod(index, 999)
    name, kind = divmod(rest, 4)
    return f"{number + 1} {family_names()[name]} {STREETS[kind]}"


def write_place(index: int) -> str:
    rest, code = divmod(index, 100)
    street, town = divmod(rest, 32_768)
    return f"{write_street(street)}, {family_names()[town]}, QZ 000{code:02d}"


def write_han_street(index: int) -> str:
    signs, number = divmod(index, 999)
    place = []
    for _ in range(4):
        signs, sign = divmod(signs, 64)
        place.append(HAN_GIVEN[sign])
    return f"{place[0]}{place[1]}市{place[2]}{place[3]}路{number + 1}号"


def write_han_name(index: int) -> str:
    family, given = divmod(index, 4096)
    return HAN_FAMILY[family] + HAN_GIVEN[given // 64] + HAN_GIVEN[given % 64]


def _read_card(match: re.Match[str]) -> Slot | None:
    digits = digits_of(match.group())
    if not 13 <= len(digits) <= 19 or luhn(digits[:-1]) != digits[-1]:
        return None
    return Slot(card_range(len(digits)), int(digits[1:-1]))


def _read_iban(match: re.Match[str]) -> Slot | None:
    text = match.group().replace(" ", "").upper()
    body = text[4:]
    if not 15 <= len(text) <= 34 or text != write_iban(len(text), int(body)):
        return None
    return Slot(iban_range(len(text)), int(body))


def _read_ssn(match: re.Match[str]) -> Slot | None:
    digits = digits_of(match.group())
    area, group, serial = int(digits[:3]) - 900, int(digits[3:5]) - 1, int(digits[5:]) - 1
    return Slot(SSN, (area * 49 + group) * 9999 + serial) if 0 <= group < 49 and serial >= 0 else None


def _read_resident(match: re.Match[str]) -> Slot | None:
    text = match.group().upper()
    try:
        day = (date(int(text[6:10]), int(text[10:12]), int(text[12:14])) - date(1940, 1, 1)).days
    except ValueError:
        return None
    if not 0 <= day < _DAYS or _with_check(text[:17]) != text:
        return None
    return Slot(RESIDENT, (int(text[2:6]) * _DAYS + day) * 1000 + int(text[14:17]))


def _read_imei(match: re.Match[str]) -> Slot | None:
    digits = digits_of(match.group())
    return Slot(IMEI, int(digits[2:14])) if luhn(digits[:-1]) == digits[-1] else None


def _read_id(match: re.Match[str]) -> Slot | None:
    signs = match.group().replace("-", "")
    shape = "".join("9" if sign.isdigit() else "A" for sign in signs)
    found = id_range(shape) if len(signs) > 2 else None
    index = 0
    for sign in signs[2:]:
        index = index * 10 + int(sign) if sign.isdigit() else index * 26 + ord(sign) - 65
    return None if found is None else Slot(found, index)


def _read_mail(match: re.Match[str]) -> Slot | None:
    given, family = numbered("given").get(match[1].lower()), numbered("family").get(match[2].lower())
    if given is None or family is None:
        return None
    return Slot(MAIL, (given * 32_768 + family) * 300 + int(match[3]) * 3 + MAIL_HOSTS.index(match[4].lower()))


def _read_short_mail(match: re.Match[str]) -> Slot | None:
    given = numbered("given").get(match[1].lower())
    return None if given is None else Slot(SHORT_MAIL, given * 3000 + int(match[2]) * 3 + MAIL_HOSTS.index(match[3].lower()))


def _read_user(match: re.Match[str]) -> Slot | None:
    given = numbered("given").get(match[1])
    return None if given is None else Slot(USER, given * 10_000 + int(match[2]))


def _read_ip(match: re.Match[str]) -> Slot | None:
    try:
        address = ipaddress.ip_address(match.group())
    except ValueError:
        return None
    if address.version == 4:
        index = int(address) - (0xF << 28)
        return Slot(IPV4, index) if 0 <= index < IPV4.size else None
    index = int(address) - (0x20010DB8 << 96)
    return Slot(IPV6, index) if 0 <= index < IPV6.size else None


def _read_place(match: re.Match[str]) -> Slot | None:
    number, kind, name = int(match[1]), STREETS.index(match[3]), numbered("family").get(match[2].lower())
    if name is None or not 1 <= number <= 999:
        return None
    street = (name * 4 + kind) * 999 + number - 1
    if match[4] is None:
        return Slot(STREET, street)
    town = numbered("family").get(match[4].lower())
    return None if town is None else Slot(PLACE, (street * 32_768 + town) * 100 + int(match[5]))


def _read_han_street(match: re.Match[str]) -> Slot | None:
    signs, number = 0, int(match[5])
    for place in (4, 3, 2, 1):
        signs = signs * 64 + HAN_GIVEN.index(match[place])
    return Slot(HAN_STREET, signs * 999 + number - 1) if 1 <= number <= 999 else None


def _read_han_name(match: re.Match[str]) -> Slot | None:
    return Slot(HAN_NAME, (HAN_FAMILY.index(match[1]) * 64 + HAN_GIVEN.index(match[2])) * 64 + HAN_GIVEN.index(match[3]))


def _read_nanp(match: re.Match[str]) -> Slot | None:
    area = match[1]
    return Slot(NANP, AREAS.index(area) * 100 + int(match[2])) if area in AREAS else None


def _read_cn_land(match: re.Match[str]) -> Slot | None:
    digits = digits_of(match.group())
    digits = digits[digits.index(match[1]) :]
    return Slot(CN_LAND, CN_AREAS.index(match[1]) * 10**7 + int(digits[-7:])) if len(digits) == 10 else None


def _thousand(range_: Range) -> Reader:
    return lambda match: Slot(range_, int(digits_of(match.group())[-3:]))


_G, _H = f"[{HAN_GIVEN}]", "|".join(HAN_FAMILY)
_HOST = "(" + "|".join(map(re.escape, MAIL_HOSTS)) + ")"
_WORD = r"([A-Za-z]{4,20})"
# Entity, a sign that the text must hold, pattern, reader. Order: a longer form before a shorter one that it contains.
READERS: tuple[tuple[str, str, re.Pattern[str], Reader], ...] = tuple(
    (entity, sign, re.compile(pattern), reader)
    for entity, sign, pattern, reader in (
        ("EMAIL_ADDRESS", "@example.", rf"(?<![\w.+%-]){_WORD}\.([A-Za-z]{{4,24}})([0-9]{{2}})@{_HOST}(?![\w-]|\.\w)",
         _read_mail),
        ("EMAIL_ADDRESS", "@example.", rf"(?<![\w.+%-]){_WORD}([0-9]{{3}})@{_HOST}(?![\w-]|\.\w)", _read_short_mail),
        ("IP_ADDRESS", "2", r"(?<![0-9A-Za-z.:])2[45][0-9](?:\.[0-9]{1,3}){3}(?![0-9A-Za-z]|\.[0-9])", _read_ip),
        ("IP_ADDRESS", "2001:db8:", r"(?<![0-9A-Za-z.:])2001:db8:[0-9a-f:]{1,29}(?![0-9A-Za-z:])", _read_ip),
        ("MAC_ADDRESS", "53", rf"(?i:{_LEFT}00(?P<s>[:-])00(?P=s)5E(?P=s)00(?P=s)53(?P=s)[0-9a-f]{{2}}{_RIGHT})",
         lambda match: Slot(MAC, int(match.group()[-2:], 16))),
        ("IBAN", "QZ", rf"{_LEFT}QZ[0-9]{{2}}(?: ?[0-9]){{11,30}}{_RIGHT}", _read_iban),
        ("CN_RESIDENT_ID", "99", rf"{_LEFT}99[0-9]{{15}}[0-9Xx]{_RIGHT}", _read_resident),
        ("IMEI", "00", rf"{_LEFT}00(?:[ -]?[0-9]){{13}}{_RIGHT}", _read_imei),
        ("CREDIT_CARD", "0", rf"{_LEFT}0(?:[ -]?[0-9]){{12,18}}{_RIGHT}", _read_card),
        ("PHONE_NUMBER", "999", rf"(?<![0-9A-Za-z+])\+999(?:[ .()-]{{0,2}}[0-9]){{4,14}}{_RIGHT}",
         lambda match: Slot(dial_range(len(digits_of(match.group())) - 3), int(digits_of(match.group())[3:]))),
        ("PHONE_NUMBER", "555", rf"{_LEFT}(?:\+?1{_GAP})?\(?([2-9][0-9]{{2}})\)?{_GAP}555{_GAP}01([0-9]{{2}}){_RIGHT}",
         _read_nanp),
        ("PHONE_NUMBER", "7700", rf"{_LEFT}(?:\+44{_GAP}|0)7700{_GAP}900{_GAP}[0-9]{{3}}{_RIGHT}", _thousand(UK_MOBILE)),
        ("PHONE_NUMBER", "7946", rf"{_LEFT}(?:\+44{_GAP}|0)20{_GAP}7946{_GAP}0[0-9]{{3}}{_RIGHT}", _thousand(UK_LAND)),
        ("PHONE_NUMBER", "14", rf"{_LEFT}(?:(?:\+|00)?86{_GAP})?14[23](?:{_GAP}[0-9]){{8}}{_RIGHT}",
         lambda match: Slot(CN_MOBILE, int(digits_of(match.group())[-9:]) - 2 * 10**8)),
        ("PHONE_NUMBER", "1", rf"{_LEFT}(?:\+86{_GAP}|0)({'|'.join(CN_AREAS)}){_GAP}1[0-9]{{7}}{_RIGHT}", _read_cn_land),
        ("US_SSN", "9", rf"{_LEFT}9[0-9]{{2}}([- ]?)[0-9]{{2}}\1[0-9]{{4}}{_RIGHT}", _read_ssn),
        ("ADDRESS", " ", rf"{_LEFT}([0-9]{{1,3}}) ([A-Z][a-z]{{4,24}}) ({'|'.join(STREETS)})"
                         rf"(?:, ([A-Z][a-z]{{4,24}}), QZ 000([0-9]{{2}}))?{_RIGHT}", _read_place),
        ("ADDRESS", "路", rf"({_G})({_G})市({_G})({_G})路([0-9]{{1,3}})号", _read_han_street),
        ("PERSON", "", rf"({_H})({_G})({_G})", _read_han_name),
        ("USERNAME", "", r"(?<![\w.@-])([a-z]{4,12})([0-9]{4})(?![\w@-])", _read_user),
        ("ACCOUNT_NUMBER", "", r"(?<![\w-])[Z0][Z0](?:-?[A-Z0-9]){5,28}(?![\w-])", _read_id),
    )
)  # fmt: skip
WRITERS: Mapping[str, Callable[[int], str]] = {
    "mail": write_mail, "short mail": write_short_mail, "user": write_user, "ipv4": write_ipv4, "ipv6": write_ipv6,
    "ssn": write_ssn, "resident": write_resident, "imei": write_imei, "street": write_street, "place": write_place,
    "han street": write_han_street, "han": write_han_name,
    "mac": lambda index: f"00005E0053{index:02X}",
    "nanp": lambda index: f"{AREAS[index // 100]}55501{index % 100:02d}",
    "uk mobile": lambda index: f"7700900{index:03d}",
    "uk land": lambda index: f"2079460{index:03d}",
    "cn mobile": lambda index: str(142 * 10**8 + index),
    "cn land": lambda index: f"{CN_AREAS[index // 10**7]}1{index % 10**7:07d}",
}  # fmt: skip


def word_slot(word: str) -> Slot | None:
    """The slot of an invented name, whatever its case."""
    low = word.lower()
    given = numbered("given").get(low)
    if given is not None:
        return Slot(GIVEN, given)
    family = numbered("family").get(low)
    return None if family is None else Slot(FAMILY, family)

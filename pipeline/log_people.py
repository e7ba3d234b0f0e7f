"""Invented people for the log generator: every number passes its checksum, and none can belong to anybody.

Guarantee: the same random source gives the same people. E-mail domains are reserved (RFC 2606), North American
numbers are 555-01xx, Chinese resident numbers use a region code that was never assigned, cards carry test prefixes.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_EN_GIVEN = _words(
    "Alice Bruno Carmen Dmitri Elena Farid Grace Hiro Ingrid Jamal Katya"
    " Liam Mei Nkechi Oscar Priya Quentin Rosa Samir Thandiwe Ursula Viktor "
    "Wendy Ximena Yusuf Zofia Anders Beatriz Callum Deepa Emre Fiona Gustavo"
    " Hannah Ibrahim Jasmine Kenji Leila Marcus Naomi Olga Pavel Rajesh "
    "Sofia Tomas Uma Vanessa Walter Yasmin Zachary Siobhan Bronwyn Tariq Marisol Oluwaseun Freya"
)
_EN_FAMILY = _words(
    "Adeyemi Baumgartner Castellano Dlamini Eriksson Fernandez Gallagher"
    " Haddad Ivanova Johansson Kowalski Lindqvist Montgomery Nakamura Okafor "
    "Petrov Quintero Rosenberg Sandoval Thornton Underhill Venkatesan"
    " Whitaker Xavier Yamada Zimmerman Abernathy Blackwood Chaudhry Delacroix "
    "Espinoza Fairbanks Greenwood Hollingsworth Iyer Jankowski Kensington"
    " Lombardi Macpherson Nwosu Oyelaran Pemberton Rasmussen Stavropoulos "
    "Smith Johnson Patel Nguyen Garcia Kim"
)
_ZH_FAMILY = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕"
_ZH_GIVEN = _words(
    "建国 秀英 志强 丽华 晓东 雨桐 子涵 浩然 思远 佳怡 文博 梦洁 俊杰 欣妍"
    " 宇航 诗琪 明哲 雅婷 海涛 春梅 国栋 慧敏 天佑 若曦 嘉豪 静怡 立新 "
    "晨曦 永康 婉清 泽宇 桂芳 锦程 紫萱 卫东 乐瑶"
)
_STREETS = _words(
    "Juniper Maple Harbour Orchard Willow Cedar Kingsley Foxglove Beacon Chestnut Larkspur Mill Prospect Sycamore Tanglewood"
)
_STREET_WORDS = ("Street", "Avenue", "Road", "Lane", "Drive", "Court", "Boulevard")
_TOWNS = ("Springfield, IL 62704", "Dayton, OH 45402", "Eugene, OR 97401", "Albany, NY 12207", "Boise, ID 83702")
_ZH_PLACES = (
    "浙江省杭州市西湖区",
    "江苏省南京市鼓楼区",
    "广东省深圳市南山区",
    "四川省成都市武侯区",
    "湖北省武汉市洪山区",
    "北京市海淀区",
)
_ZH_ROADS = ("文三路", "中山北路", "科苑大道", "天府大道", "珞喻路", "学院路", "和平街", "解放路")
_PLATE = "ABCDEFGHJKLMNPQRSTUVWXYZ0123456789"


@dataclass(frozen=True, slots=True)
class Person:
    """One invented customer. Values by slot name; `types` says which entity type a slot is."""

    customer: str
    language: str
    values: dict[str, str]


# Entity type of every slot that holds personal data; slots not listed are not personal.
SLOT_TYPES = {
    "name": "PERSON",
    "email": "EMAIL_ADDRESS",
    "phone": "PHONE_NUMBER",
    "card": "CREDIT_CARD",
    "card4": "CREDIT_CARD",
    "ssn": "US_SSN",
    "ssn4": "US_SSN",
    "iban": "IBAN",
    "address": "ADDRESS",
    "dob": "DATE_OF_BIRTH",
    "order": "ORDER_NUMBER",
    "customer": "CUSTOMER_NUMBER",
    "password": "PASSWORD",
    "ip": "IP_ADDRESS",
    "cn_id": "CN_RESIDENT_ID",
    "bank_card": "CN_BANK_CARD",
    "plate": "CN_LICENSE_PLATE",
    "user": "USERNAME",
    "login": "USERNAME",
    "token": "SECRET",
    "aws_key": "SECRET",
    "mac": "MAC_ADDRESS",
}
# Slots whose values are distinctive enough to search for in every byte of a home.
DISTINCTIVE = frozenset(
    _words("name email phone card ssn iban customer user password cn_id bank_card plate token aws_key order")
)


def make_person(random: Random, number: int, language: str) -> Person:
    """A person whose customer number is unique for `number`."""
    customer = f"C-{7_000_000 + number * 131 + random.randrange(131)}"
    values = {
        "customer": customer,
        "user": customer,
        "card": _spaced(random, _card(random)),
        "order": random.choice(("ORD-2026-{:06d}", "SO{:08d}", "{:010d}")).format(random.randrange(100_000, 999_999)),
        "password": _password(random),
        "ip": ".".join(str(random.randrange(64, 127)) for _ in range(4)),
        "mac": ":".join(f"{random.randrange(256):02x}" for _ in range(6)),
        "token": "ghp_" + "".join(random.choices("ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789", k=36)),
        "aws_key": "AKIA" + "".join(random.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", k=16)),
    }
    values["card4"] = values["card"][-4:]
    values.update(_english(random, number) if language == "en" else _chinese(random, number))
    return Person(customer, language, values)


def _english(random: Random, number: int) -> dict[str, str]:
    given, family = random.choice(_EN_GIVEN), random.choice(_EN_FAMILY)
    area, line = random.randrange(201, 990), random.randrange(100, 200)
    ssn = f"{random.randrange(100, 665):03d}-{random.randrange(1, 100):02d}-{random.randrange(1, 10_000):04d}"
    phone = random.choice(("({0}) 555-0{1}", "{0}-555-0{1}", "+1 {0} 555 0{1}")).format(area, line)
    year, month, day = random.randrange(1945, 2006), random.randrange(1, 13), random.randrange(1, 29)
    address = f"{random.randrange(10, 9999)} {random.choice(_STREETS)} {random.choice(_STREET_WORDS)}"
    if random.random() < 0.5:
        address += ", " + random.choice(_TOWNS)
    return {
        "name": f"{given} {family}",
        "email": f"{given}.{family}{number}@{random.choice(('example.com', 'mail.example.org', 'example.net'))}".lower(),
        "login": f"{given[0]}{family}{number}".lower(),
        "phone": phone,
        "ssn": ssn,
        "ssn4": ssn[-4:],
        "iban": _iban(random),
        "dob": random.choice((f"{month:02d}/{day:02d}/{year}", f"{year}-{month:02d}-{day:02d}")),
        "address": address,
    }


def _chinese(random: Random, number: int) -> dict[str, str]:
    year, month, day = random.randrange(1950, 2006), random.randrange(1, 13), random.randrange(1, 29)
    login = "".join(random.choices("abcdefghjkmnpqrstuvwxyz", k=6)) + str(number)
    place = random.choice(_ZH_PLACES) + random.choice(_ZH_ROADS) + f"{random.randrange(1, 900)}号"
    if random.random() < 0.6:
        place += f"{random.randrange(1, 30)}栋{random.randrange(101, 2999)}室"
    return {
        "name": random.choice(_ZH_FAMILY) + random.choice(_ZH_GIVEN),
        "email": f"{login}@{random.choice(('example.com', 'mail.example.org'))}",
        "login": login,
        "phone": f"1{random.choice(('30', '38', '59', '86', '99'))}0000{random.randrange(10_000):04d}",
        "cn_id": _resident_id(random, f"{year}{month:02d}{day:02d}"),
        "bank_card": _with_luhn("628888" + _digits(random, 12)),
        "plate": random.choice("京沪粤浙苏川鄂")
        + random.choice("ABCDEFG")
        + "".join(random.choices(_PLATE, k=4))
        + _digits(random, 1),
        "address": place,
        "dob": f"{year}年{month}月{day}日",
    }


def _digits(random: Random, count: int) -> str:
    return "".join(random.choices("0123456789", k=count))


def _card(random: Random) -> str:
    return _with_luhn(random.choice(("400000", "510510", "222300", "601100")) + _digits(random, 9))


def _with_luhn(body: str) -> str:
    """ISO/IEC 7812-1 annex B: append the check digit."""
    total = 0
    for index, char in enumerate(reversed(body)):
        value = int(char) * (2 if index % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return body + str(-total % 10)


def _spaced(random: Random, number: str) -> str:
    separator = random.choice(("", " ", "-"))
    return separator.join(number[i : i + 4] for i in range(0, len(number), 4))


def _iban(random: Random) -> str:
    bank = "TEST" + _digits(random, 14)
    number = int("".join(str(int(c, 36)) for c in bank + "GB00"))
    return f"GB{98 - number % 97:02d}{bank}"


def _resident_id(random: Random, born: str) -> str:
    """GB 11643 with region 190101, which no province has."""
    body = "190101" + born + _digits(random, 3)
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    return body + "10X98765432"[sum(int(c) * w for c, w in zip(body, weights, strict=True)) % 11]


def _password(random: Random) -> str:
    return (
        "".join(random.choices("abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ", k=6))
        + _digits(random, 3)
        + random.choice("!#*_")
    )

"""Made-up values of each type with the words that go with them, to measure what detection misses.

Guarantee: nobody's data: numbers are random with valid check digits, names are put together from syllables; drawn anew each
time. Values that only a cue tells apart from other text come with one, as in the world; the rest stand alone as often as not.
Assumption: `draw` is independent of the detector.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta

from privacy.surrogate_kinds import luhn, write_resident

Made = tuple[str, str, str]  # what stands before the value, the value, what stands after


@dataclass(frozen=True, slots=True)
class Kind:
    """One type in one language."""

    entity: str
    language: str
    make: Callable[[random.Random], Made]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_HEADS = _words("Al Ber Cal Dor El Fen Gar Hal Ing Jor Kel Lan Mar Nor Os Per Quin Ros Sel Tam Ul Vin Wes Yor")
_GIVEN_ENDS = _words("a an en er ia ine io is ley o on y")
_FAMILY_ENDS = _words("berg bury den ford gate ham hurst land ley man mond more sen shaw ski son stein ton ward wick wood")
_MAIL_ENDS = _words("com net org de co.uk fr io cn")
_STREET_KINDS = _words("Street Avenue Road Lane Drive")
_HAN_FAMILIES = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗"
_HAN_SIGNS = "伟强磊洋勇军杰涛超明静丽敏娟艳霞秀兰桂英雨晨浩宇欣怡子涵思远文博"
_HAN_CITIES = _words("北京市海淀区 上海市徐汇区 广州市天河区 成都市武侯区 南京市鼓楼区 武汉市洪山区")
_HAN_ROADS = _words("中山路 解放路 人民路 建设路 和平路 新华路")
_REGIONS = _words("110101 310104 440305 330106 510107 320106 420111 610113")


def _digits(draw: random.Random, count: int) -> str:
    return "".join(draw.choice(string.digits) for _ in range(count))


def _word(draw: random.Random, count: int, signs: str = string.ascii_letters + string.digits) -> str:
    return "".join(draw.choice(signs) for _ in range(count))


def _person(draw: random.Random) -> str:
    return f"{draw.choice(_HEADS)}{draw.choice(_GIVEN_ENDS)} {draw.choice(_HEADS)}{draw.choice(_FAMILY_ENDS)}"


def _name(draw: random.Random) -> Made:
    return draw.choice(("my name is ", "this is ", "please ask for ")), _person(draw), ","


def _mail(draw: random.Random) -> Made:
    local = f"{draw.choice(_HEADS)}{draw.choice('._')}{draw.choice(_HEADS)}{_digits(draw, 2)}".lower()
    return draw.choice(("", "mail ")), f"{local}@{_word(draw, 7, string.ascii_lowercase)}.{draw.choice(_MAIL_ENDS)}", ""


def _phone(draw: random.Random) -> Made:
    area, office, line = (
        f"{draw.randrange(2, 10)}{_digits(draw, 2)}",
        f"{draw.randrange(2, 10)}{_digits(draw, 2)}",
        _digits(draw, 4),
    )
    area = area[0] + "0" + area[2] if area[1:] == "11" else area
    form = draw.choice(("({0}) {1}-{2}", "{0}-{1}-{2}", "+1 {0} {1} {2}"))
    return draw.choice(("call me at ", "phone: ", "my number is ")), form.format(area, office, line), ""


def _card(draw: random.Random) -> Made:
    body = draw.choice(("4" + _digits(draw, 1), f"5{draw.randrange(1, 6)}")) + _digits(draw, 13)
    number = body + luhn(body)
    return draw.choice(("", "card ")), draw.choice((number, " ".join(number[n : n + 4] for n in range(0, 16, 4)))), ""


def _iban(draw: random.Random) -> Made:
    body = _digits(draw, 18)
    number = f"DE{98 - int(body + '131400') % 97:02d}{body}"
    grouped = " ".join(number[n : n + 4] for n in range(0, len(number), 4))
    return draw.choice(("", "IBAN ")), draw.choice((number, grouped)), ""


def _ssn(draw: random.Random) -> Made:
    area = draw.choice([n for n in range(1, 900) if n != 666])
    number = f"{area:03d}-{draw.randrange(1, 100):02d}-{draw.randrange(1, 10_000):04d}"
    return draw.choice(("my ssn is ", "SSN: ", "social security number ")), number, ""


def _ipv4(draw: random.Random) -> Made:
    return (
        draw.choice(("", "from ")),
        ".".join(str(n) for n in (draw.choice((81, 93, 146, 188)), *(draw.randrange(1, 255) for _ in range(3)))),
        "",
    )


def _mac(draw: random.Random) -> Made:
    return "", ":".join(_word(draw, 2, "0123456789abcdef") for _ in range(6)), ""


def _secret(draw: random.Random) -> Made:
    upper = string.ascii_uppercase + string.digits
    made = (f"AKIA{_word(draw, 16, upper)}", f"ghp_{_word(draw, 36)}", f"glpat-{_word(draw, 20)}")
    return draw.choice(("", "key ")), draw.choice(made), ""


def _password(draw: random.Random) -> Made:
    value = _word(draw, 6) + draw.choice("!#%*+") + _digits(draw, 3)
    return draw.choice(("password: ", "password=", "my password is ")), value, ""


def _user(draw: random.Random) -> Made:
    value = f"{draw.choice(_HEADS)}{draw.choice(_HEADS)}{_digits(draw, 2)}".lower()
    return draw.choice(("username: ", "user=", "login: ")), value, ""


def _street(draw: random.Random) -> Made:
    name = draw.choice(_HEADS) + draw.choice(_FAMILY_ENDS)
    return draw.choice(("I live at ", "address: ")), f"{draw.randrange(1, 999)} {name} {draw.choice(_STREET_KINDS)}", ""


def _born(draw: random.Random) -> Made:
    day = date(1940, 1, 1) + timedelta(days=draw.randrange(24_000))
    return draw.choice(("date of birth ", "DOB: ", "born on ")), draw.choice((f"{day:%Y-%m-%d}", f"{day:%d %B %Y}")), ""


def _han_name(draw: random.Random) -> Made:
    value = draw.choice(_HAN_FAMILIES) + "".join(draw.choice(_HAN_SIGNS) for _ in range(2))
    return draw.choice(("我叫", "我是", "姓名：")), value, "，"


def _han_mobile(draw: random.Random) -> Made:
    return draw.choice(("手机", "电话：", "")), f"1{draw.choice(('38', '39', '50', '86', '77'))}{_digits(draw, 8)}", ""


def _han_address(draw: random.Random) -> Made:
    value = f"{draw.choice(_HAN_CITIES)}{draw.choice(_HAN_ROADS)}{draw.randrange(1, 999)}号"
    return draw.choice(("地址：", "我住在")), value, ""


def _resident(draw: random.Random) -> Made:
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    drawn = write_resident(draw.randrange(10_000 * 25_000 * 1000))
    body = draw.choice(_REGIONS) + drawn[6:17]
    check = "10X98765432"[sum(int(d) * w for d, w in zip(body, weights, strict=True)) % 11]
    return draw.choice(("身份证", "身份证号：", "")), body + check, ""


def _bank_card(draw: random.Random) -> Made:
    body = "6222" + _digits(draw, 14)
    return draw.choice(("银行卡", "卡号：")), body + luhn(body), ""


_EVERYWHERE = (
    ("EMAIL_ADDRESS", _mail), ("CREDIT_CARD", _card), ("IBAN", _iban), ("IP_ADDRESS", _ipv4), ("MAC_ADDRESS", _mac),
    ("SECRET", _secret),
)  # fmt: skip
_ENGLISH = (
    ("PERSON", _name), ("PHONE_NUMBER", _phone), ("US_SSN", _ssn), ("PASSWORD", _password), ("USERNAME", _user),
    ("ADDRESS", _street), ("DATE_OF_BIRTH", _born),
)  # fmt: skip
_CHINESE = (
    ("PERSON", _han_name), ("PHONE_NUMBER", _han_mobile), ("ADDRESS", _han_address), ("CN_RESIDENT_ID", _resident),
    ("CN_BANK_CARD", _bank_card),
)  # fmt: skip
KINDS: tuple[Kind, ...] = (
    *(Kind(entity, "en", make) for entity, make in (*_EVERYWHERE, *_ENGLISH)),
    *(Kind(entity, "zh", make) for entity, make in (*_EVERYWHERE, *_CHINESE)),
)

"""Random personal values in the shapes that they have in the world, with valid checksums, drawn anew from each seed.

Guarantee: nobody's data: numbers are drawn, names are combined. Types in CHECKED carry a checksum that the value passes.
Each generator takes the draw and the pool (0 or 1): names, streets and mail hosts of the two pools share no word.
"""

from __future__ import annotations

import base64
import calendar
import json
import random
import string
import zlib
from collections.abc import Callable

BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_HEX = "0123456789abcdef"

_FIRST = """
    Maren Tobias Ifeoma Keith Priya Rafael Saoirse Dmitri Yasmin Oliver Chidi Beatriz Henrik Aaliyah Marcus Noor Evelyn
    Tomasz Grace Kwame Ingrid Samuel Leila Victor Hannah Arjun Chloe Emeka Lucia Patrick Amara Stefan Rosa Declan Meera
    Walter Zainab Hugo Joyce Milan Greta Farid Naomi Luther Anjali Pedro Sophie Igor
"""
FIRST = _FIRST.split()
_LAST = """
    Halvorsen Okonkwo Whitfield Ramanathan Castellanos Brennan Sokolov Haddad Pemberton Adeyemi Carvalho Lindqvist
    Washington Novak Kowalczyk Mensah Thornton Deshpande Moreau Eriksen Baptiste Farouk Gallagher Iyer Dubois Hargreaves
    Nwosu Petrov Sandoval Tanaka Underwood Vasquez Wexler Yilmaz Zimmerman Abernathy Bergstrom Chukwu Delgado Fitzroy
    Grosvenor Holloway Ivanova Jefferson
"""
LAST = _LAST.split()
_SURNAMES = "王李张刘陈杨黄赵周吴徐孙马朱胡郭何林高罗郑梁谢宋唐许韩冯邓曹彭曾萧田董潘袁蔡蒋余于杜叶程魏苏吕丁任卢姚沈"
_GIVEN = "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超霞平刚桂英华玉兰建国晨曦子涵梓轩浩宇欣怡嘉琪思远文博雅婷俊熙雨桐志鹏晓峰海燕"
_HOSTS = (("example.com", "mailbox.example", "acme-corp.example", "post.example.org"),
          ("example.net", "inbox.example", "northwind.example", "mail.example.co.uk"))  # fmt: skip
_STREETS = (("Maple", "Oakwood", "Chestnut", "Lakeview", "Washington", "Sunset",
             "Victoria", "Mill", "Cedar Hill", "Park"),
            ("Birchwood", "Harbour", "Juniper", "Ridgemont", "Lincoln", "Meadow",
             "Kingsley", "Foundry", "Stonebridge", "Elm"))  # fmt: skip
_STREET_KINDS = (("Street", "Avenue", "Road", "Drive", "St", "Ave"), ("Lane", "Boulevard", "Court", "Way", "Rd", "Blvd"))
_TOWNS = (("Springfield, IL 62704", "Portland, OR 97205", "Leeds LS1 4DY", "Austin, TX 78701"),
          ("Dayton, OH 45402", "Tucson, AZ 85701", "Bristol BS1 5TR", "Madison, WI 53703"))  # fmt: skip
_ZH_PLACES = (("浙江省杭州市西湖区", "广东省深圳市南山区", "北京市海淀区", "四川省成都市武侯区"),
              ("江苏省南京市鼓楼区", "湖北省武汉市洪山区", "上海市徐汇区", "陕西省西安市雁塔区"))  # fmt: skip
_ZH_ROADS = (("文三路", "科技园路", "中关村大街", "人民南路"), ("中山北路", "珞喻路", "漕溪北路", "长安南路"))
_IBANS = {"DE": "00000000" + "0" * 10, "GB": "AAAA" + "0" * 14, "FR": "0" * 23, "NL": "AAAA" + "0" * 10, "ES": "0" * 20,
          "CH": "0" * 17, "IE": "AAAA" + "0" * 14, "NO": "0" * 11}  # fmt: skip
_PROVINCES = ("110101", "310104", "440305", "330106", "510107", "320106", "420111", "610113")
_USCC = "0123456789ABCDEFGHJKLMNPQRTUWXY"

Maker = Callable[[random.Random, int], str]


def digits(draw: random.Random, count: int) -> str:
    return "".join(draw.choice(string.digits) for _ in range(count))


def word(draw: random.Random, count: int, signs: str = BASE62) -> str:
    return "".join(draw.choice(signs) for _ in range(count))


def luhn_digit(body: str) -> str:
    total = 0
    for place, sign in enumerate(reversed(body)):
        value = int(sign) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return str(-total % 10)


def grouped(text: str, sizes: tuple[int, ...], separator: str) -> str:
    pieces, position = [], 0
    for size in sizes:
        pieces.append(text[position : position + size])
        position += size
    return separator.join(p for p in (*pieces, text[position:]) if p)


def _half(words: list[str] | str, pool: int) -> list[str]:
    return list(words)[pool::2]


def person(draw: random.Random, pool: int) -> str:
    middle = f" {draw.choice(string.ascii_uppercase)}." if draw.random() < 0.15 else ""
    return f"{draw.choice(_half(FIRST, pool))}{middle} {draw.choice(_half(LAST, pool))}"


def person_zh(draw: random.Random, pool: int) -> str:
    return draw.choice(_half(_SURNAMES, pool)) + "".join(draw.sample(_half(_GIVEN, pool), draw.choice((1, 2, 2))))


def username(draw: random.Random, pool: int) -> str:
    first, last = draw.choice(_half(FIRST, pool)).lower(), draw.choice(_half(LAST, pool)).lower()
    return draw.choice((f"{first}.{last}", f"{first[0]}{last}", f"{first}{digits(draw, 2)}", f"{first}_{last}",
                        f"{last}-{first[0]}"))  # fmt: skip


def email(draw: random.Random, pool: int) -> str:
    return f"{username(draw, pool)}{draw.choice(('', '', '+news'))}@{draw.choice(_HOSTS[pool])}"


def phone(draw: random.Random, pool: int) -> str:
    area, rest = draw.choice(("212", "415", "617", "303", "512")), f"555{digits(draw, 4)}"
    london = f"7946{digits(draw, 4)}"
    return draw.choice((
        f"+1{area}{rest}", f"({area}) {rest[:3]}-{rest[3:]}", f"+1-{area}-{rest[:3]}-{rest[3:]}",
        f"+44 20 {london[:4]} {london[4:]}",
        f"+49 30 {digits(draw, 8)}", f"+33 6 {grouped(digits(draw, 8), (2, 2, 2), ' ')}", f"{area}-{rest[:3]}-{rest[3:]}",
        f"+91 98{digits(draw, 3)} {digits(draw, 5)}",
    ))  # fmt: skip


def cn_mobile(draw: random.Random, pool: int) -> str:
    plain = draw.choice(("138", "139", "150", "159", "176", "186", "199", "133")) + digits(draw, 8)
    return draw.choice((plain, plain, grouped(plain, (3, 4), " "), grouped(plain, (3, 4), "-"), f"+86 {plain}", f"+86{plain}"))


def cn_landline(draw: random.Random, pool: int) -> str:
    area, size = draw.choice((("010", 8), ("021", 8), ("0755", 8), ("0571", 8), ("0931", 7), ("0898", 8)))
    return f"{area}-{draw.choice('2345678')}{digits(draw, size - 1)}"


def card(draw: random.Random, pool: int) -> str:
    prefix = draw.choice(("4", "4", "51", "55", "2221", "37", "6011", "3530"))
    size = 15 if prefix == "37" else 16
    body = prefix + digits(draw, size - len(prefix) - 1)
    plain = body + luhn_digit(body)
    sizes = (4, 6) if size == 15 else (4, 4, 4)
    return draw.choice((plain, plain, grouped(plain, sizes, " "), grouped(plain, sizes, "-")))


def cn_bank_card(draw: random.Random, pool: int) -> str:
    body = draw.choice(("621700", "622202", "622848", "623058", "621661", "622588")) + digits(draw, draw.choice((9, 12)))
    plain = body + luhn_digit(body)
    return draw.choice((plain, plain, grouped(plain, (4, 4, 4, 4), " ")))


def iban(draw: random.Random, pool: int) -> str:
    country = draw.choice(sorted(_IBANS))
    body = "".join(draw.choice(string.ascii_uppercase) if c == "A" else draw.choice(string.digits) for c in _IBANS[country])
    number = int("".join(str(int(c, 36)) for c in f"{body}{country}00"))
    plain = f"{country}{98 - number % 97:02d}{body}"
    return draw.choice((plain, plain, grouped(plain, (4,) * 8, " ")))


def ssn(draw: random.Random, pool: int) -> str:
    area = draw.choice([n for n in range(1, 900) if n != 666])
    return f"{area:03d}-{draw.randrange(1, 100):02d}-{draw.randrange(1, 10000):04d}"


def cn_resident_id(draw: random.Random, pool: int) -> str:
    born = f"{draw.randrange(1950, 2007)}{draw.randrange(1, 13):02d}{draw.randrange(1, 29):02d}"
    body = f"{draw.choice(_PROVINCES)}{born}{digits(draw, 3)}"
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    return body + "10X98765432"[sum(int(c) * w for c, w in zip(body, weights, strict=True)) % 11]


def cn_uscc(draw: random.Random, pool: int) -> str:
    body = f"91{draw.choice(_PROVINCES)}{word(draw, 9, _USCC)}"
    total = sum(_USCC.index(c) * pow(3, place, 31) for place, c in enumerate(body))
    return body + _USCC[-total % 31]


def plate(draw: random.Random, pool: int) -> str:
    letters = "ABCDEFGHJKLMNPQRSTUVWXYZ"  # a tail has five signs, at most two of them letters, never I or O
    tail = draw.choice((digits(draw, 5), draw.choice(letters) + digits(draw, 4), digits(draw, 3) + word(draw, 2, letters)))
    green = f"{draw.choice('DF')}{digits(draw, 5)}"
    return draw.choice("京沪粤浙苏川鄂陕津鲁") + draw.choice("ABCDEFGH") + draw.choice((tail, tail, f"·{tail}", green))


def passport(draw: random.Random, pool: int) -> str:
    return draw.choice((f"E{digits(draw, 8)}", f"G{digits(draw, 8)}", digits(draw, 9),
                        f"{draw.choice('ABCX')}{digits(draw, 8)}",
                        f"C{word(draw, 8, 'CFGHJKLMNPRTVWXYZ0123456789')}"))  # fmt: skip


def driver_licence(draw: random.Random, pool: int) -> str:
    letters = string.ascii_uppercase
    british = f"{word(draw, 5, letters)}{digits(draw, 6)}{word(draw, 2, letters)}{digits(draw, 1)}{word(draw, 2, letters)}"
    return draw.choice((f"{draw.choice(letters)}{digits(draw, 7)}", f"{draw.choice(letters)}{digits(draw, 12)}", british,
                        f"{draw.choice(letters)}{digits(draw, 3)}-{digits(draw, 4)}-{digits(draw, 4)}"))  # fmt: skip


def ipv4(draw: random.Random, pool: int) -> str:
    network = draw.choice((23, 52, 81, 103, 142, 185, 203, 10, 172))
    return f"{network}.{draw.randrange(16, 32)}.{draw.randrange(256)}.{draw.randrange(1, 255)}"


def ipv6(draw: random.Random, pool: int) -> str:
    def group() -> str:
        return f"{draw.randrange(1, 65536):x}"

    link_local = f"fe80::{draw.randrange(256, 65536):x}:{draw.choice(_HEX[1:])}bff:fe{word(draw, 2, _HEX)}:{group()}"
    return draw.choice((f"2001:db8:{group()}::{group()}", "2a02:" + ":".join(group() for _ in range(7)), link_local))


def mac(draw: random.Random, pool: int) -> str:
    pairs = [word(draw, 2, _HEX) for _ in range(6)]
    pairs[0] = draw.choice(("00", "3c", "a4", "f8", "d8", "b8"))
    dotted = grouped("".join(pairs), (4, 4), ".")
    return draw.choice((":".join(pairs), ":".join(pairs).upper(), "-".join(pairs).upper(), dotted))


def imei(draw: random.Random, pool: int) -> str:
    body = draw.choice(("35", "86", "01")) + digits(draw, 12)
    plain = body + luhn_digit(body)
    return draw.choice((plain, plain, grouped(plain, (2, 6, 6), "-")))


def gps(draw: random.Random, pool: int) -> str:
    return f"{draw.uniform(-60, 60):.6f},{draw.choice(('', ' '))}{draw.uniform(-170, 170):.6f}"


def birth_date(draw: random.Random, pool: int) -> str:
    year, month, day = draw.randrange(1940, 2008), draw.randrange(1, 13), draw.randrange(13, 29)
    name = calendar.month_name[month]
    return draw.choice((f"{year}-{month:02d}-{day}", f"{day}/{month:02d}/{year}", f"{month:02d}/{day}/{year}",
                        f"{day} {name} {year}", f"{name} {day}, {year}", f"{day}.{month:02d}.{year}"))  # fmt: skip


def birth_date_zh(draw: random.Random, pool: int) -> str:
    year, month, day = draw.randrange(1940, 2008), draw.randrange(1, 13), draw.randrange(1, 29)
    return draw.choice((f"{year}年{month}月{day}日", f"{year}-{month:02d}-{day:02d}", f"{year}.{month}.{day}"))


def age(draw: random.Random, pool: int) -> str:
    return str(draw.randrange(18, 97))


def mrn(draw: random.Random, pool: int) -> str:
    return draw.choice((digits(draw, 8), digits(draw, 7), f"{draw.choice('HMP')}{digits(draw, 7)}",
                        f"{digits(draw, 3)}-{digits(draw, 2)}-{digits(draw, 3)}"))  # fmt: skip


def nhs(draw: random.Random, pool: int) -> str:
    while True:
        body = draw.choice("4679") + digits(draw, 8)
        check = 11 - sum(int(c) * (10 - i) for i, c in enumerate(body)) % 11
        if check != 10:
            plain = f"{body}{check % 11}"
            return draw.choice((plain, grouped(plain, (3, 3), " "), grouped(plain, (3, 3), "-")))


def npi(draw: random.Random, pool: int) -> str:
    body = draw.choice("12") + digits(draw, 8)
    return body + luhn_digit(f"80840{body}")


def password(draw: random.Random, pool: int) -> str:
    base = draw.choice(("Summer", "tiger", "Kestrel", "dragonfly", "Winter", "harvest"))
    return draw.choice((f"{base}{digits(draw, 4)}!", f"{base}#{word(draw, 4)}", word(draw, 12, BASE62 + "!$%*-_"),
                        f"{base.lower()}{digits(draw, 2)}"))  # fmt: skip


def url_password(draw: random.Random, pool: int) -> str:
    """As it stands in a URL: without the signs that a URL must escape."""
    return draw.choice((word(draw, 12, BASE62 + "-_"), password(draw, pool).translate(str.maketrans("#%$*!", "-_.-_"))))


def aws_key(draw: random.Random, pool: int) -> str:
    return draw.choice(("AKIA", "ASIA")) + word(draw, 16, string.ascii_uppercase + "234567")


def aws_secret(draw: random.Random, pool: int) -> str:
    return word(draw, 40, BASE62 + "+/")


def gcp_key(draw: random.Random, pool: int) -> str:
    return "AIza" + word(draw, 35, BASE62 + "-_")


def azure_key(draw: random.Random, pool: int) -> str:
    return base64.b64encode(draw.randbytes(64)).decode()


def github(draw: random.Random, pool: int) -> str:
    """The last six signs are the CRC-32 of the rest in base 62."""
    body, tail = word(draw, 30), ""
    number = zlib.crc32(body.encode())
    for _ in range(6):
        number, rest = divmod(number, 62)
        tail = BASE62[rest] + tail
    return draw.choice(("ghp_", "gho_", "ghs_")) + body + tail


def gitlab(draw: random.Random, pool: int) -> str:
    return "glpat-" + word(draw, 20, BASE62 + "-_")


def slack(draw: random.Random, pool: int) -> str:
    return f"xox{draw.choice('bp')}-{digits(draw, 12)}-{digits(draw, 13)}-{word(draw, 24)}"


def stripe(draw: random.Random, pool: int) -> str:
    return draw.choice(("sk_live_", "rk_live_")) + word(draw, 24)


def jwt(draw: random.Random, pool: int) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).decode().rstrip("=")

    claims = {"sub": digits(draw, 8), "iat": draw.randrange(1_500_000_000, 1_900_000_000), "scope": "read"}
    return f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims)}.{word(draw, 43, BASE62 + '-_')}"


def private_key(draw: random.Random, pool: int) -> str:
    kind = draw.choice(("RSA PRIVATE KEY", "PRIVATE KEY", "EC PRIVATE KEY", "OPENSSH PRIVATE KEY"))
    body = "\n".join(word(draw, 64, BASE62 + "+/") for _ in range(4))
    return f"-----BEGIN {kind}-----\n{body}\n{word(draw, 30)}==\n-----END {kind}-----"


def opaque(draw: random.Random, pool: int) -> str:
    return draw.choice((word(draw, 40, _HEX), word(draw, 43, BASE62 + "-_"), word(draw, 32)))


def basic(draw: random.Random, pool: int) -> str:
    return base64.b64encode(f"{username(draw, pool)}:{password(draw, pool)}".encode()).decode()


def address(draw: random.Random, pool: int) -> str:
    street = f"{draw.randrange(2, 9800)} {draw.choice(_STREETS[pool])} {draw.choice(_STREET_KINDS[pool])}"
    unit = draw.choice(("", "", f", Apt {draw.randrange(1, 40)}"))
    return f"{street}{unit}, {draw.choice(_TOWNS[pool])}"


def address_zh(draw: random.Random, pool: int) -> str:
    room = draw.choice(("", f"{draw.randrange(1, 20)}栋{draw.randrange(101, 2800)}室"))
    return f"{draw.choice(_ZH_PLACES[pool])}{draw.choice(_ZH_ROADS[pool])}{draw.randrange(1, 900)}号{room}"


def account(draw: random.Random, pool: int) -> str:
    return digits(draw, draw.choice((8, 10, 12)))


MAKERS: dict[str, Maker] = {
    "EMAIL": email, "PHONE": phone, "CN_MOBILE": cn_mobile, "CN_LANDLINE": cn_landline, "CARD": card, "CN_BANK_CARD":
    cn_bank_card, "IBAN": iban, "SSN": ssn, "CN_RESIDENT_ID": cn_resident_id, "CN_USCC": cn_uscc, "LICENSE_PLATE": plate,
    "PASSPORT": passport, "DRIVER_LICENSE": driver_licence, "IPV4": ipv4, "IPV6": ipv6, "MAC": mac, "IMEI": imei, "GPS":
    gps, "BIRTH_DATE": birth_date, "BIRTH_DATE_ZH": birth_date_zh, "AGE": age, "MRN": mrn, "NHS": nhs, "NPI": npi,
    "USERNAME": username, "PASSWORD": password, "AWS_KEY": aws_key, "AWS_SECRET": aws_secret, "GCP_KEY": gcp_key,
    "AZURE_KEY": azure_key, "GITHUB": github, "GITLAB": gitlab, "SLACK": slack, "STRIPE": stripe, "JWT": jwt,
    "PRIVATE_KEY": private_key, "BEARER": opaque, "BASIC": basic, "DB_PASSWORD": url_password, "URL_TOKEN": opaque,
    "PERSON": person, "PERSON_ZH": person_zh, "ADDRESS": address, "ADDRESS_ZH": address_zh, "ACCOUNT": account,
}  # fmt: skip
CHECKED = frozenset({"CARD", "CN_BANK_CARD", "IBAN", "CN_RESIDENT_ID", "CN_USCC", "IMEI", "NHS", "NPI", "GITHUB"})

"""A world of log lines and talk in which every personal value is known: random values in carriers, dev and held out.

Guarantee: the same half, count and seed give the same lines; every span holds exactly its value as the line's format writes it
(escaped in JSON); the two halves share no key, line shape, phrase, name, street or mail host.
Not covered: the carriers are the phrasing of one author, so a figure on them is an estimate for lines like these.
"""

from __future__ import annotations

import json
import random
import re
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import ModuleType

from tests.worlds import detection_carriers_dev, detection_carriers_held_out
from tests.worlds.detection_values import BASE62, CHECKED, MAKERS, digits, word

HALVES: dict[str, ModuleType] = {"dev": detection_carriers_dev, "held_out": detection_carriers_held_out}
CHECKSUM_KINDS = CHECKED
_MARK = re.compile(r"«([A-Z_0-9]+)»|‹(\w+)›|⟪V⟫")
_ASCII_KEYS = frozenset({"header", "environment", "query string"})
_BARE = re.compile(r"[^\s\"'=,;]+\Z")


@dataclass(frozen=True, slots=True)
class Planted:
    """A personal value of `kind` (a key of MAKERS) at text[start:end]."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True, slots=True)
class Line:
    text: str
    spans: tuple[Planted, ...]
    carrier: str


def lines(half: str, *, each: int, seed: int) -> list[Line]:
    """At least `each` values of every type, half in lines of their own and half under keys; then lines without any value."""
    carriers = HALVES[half]
    pool = list(HALVES).index(half)
    draw = random.Random(f"{half} {seed}")
    result = []
    for kind in MAKERS:
        natives = [line for line in carriers.LINES if f"«{kind}»" in line]
        for number in range(each):
            keyed = kind in carriers.KEYS and (number % 2 == 0 or not natives)
            result.append(_keyed(draw, pool, carriers, kind) if keyed else _native(draw, pool, natives, number // 2))
    for number in range(each * len(carriers.NEGATIVE) // 4):
        template = carriers.NEGATIVE[number % len(carriers.NEGATIVE)]
        result.append(_filled(draw, pool, template, template, "raw", ""))
    draw.shuffle(result)
    return result


def keyed_carriers(half: str) -> Iterator[tuple[str, str, str]]:
    """(kind, key, line shape) of every keyed carrier: what must not be in both halves."""
    carriers = HALVES[half]
    for kind, keys in carriers.KEYS.items():
        for key in keys:
            for name, _, _ in carriers.WRAPPERS:
                yield kind, key, name


def _native(draw: random.Random, pool: int, natives: list[str], number: int) -> Line:
    template = natives[number % len(natives)]
    return _filled(draw, pool, template, template, "raw", "")


def _keyed(draw: random.Random, pool: int, carriers: ModuleType, kind: str) -> Line:
    """A value under a key in a shape that can hold it: a private key needs a format that escapes line ends."""
    while True:
        name, shape, writing = draw.choice(carriers.WRAPPERS)
        key = draw.choice(carriers.KEYS[kind])
        value = MAKERS[kind](draw, pool)
        written = WRITINGS[writing](value)
        if written is None or (not key.isascii() and name in _ASCII_KEYS):
            continue
        if "\n" in value and writing not in ("json", "json-in-json"):
            continue
        return _filled(draw, pool, shape.replace("⟪K⟫", key), f"{name} {key}", kind, written)


def _filled(draw: random.Random, pool: int, template: str, carrier: str, kind: str, written: str) -> Line:
    pieces: list[str] = []
    spans: list[Planted] = []
    length = position = 0
    for mark in _MARK.finditer(template):
        pieces.append(template[position : mark.start()])
        length += len(pieces[-1])
        position = mark.end()
        if mark.group(2):
            pieces.append(FILLERS[mark.group(2)](draw))
        else:
            pieces.append(MAKERS[mark.group(1)](draw, pool) if mark.group(1) else written)
            spans.append(Planted(length, length + len(pieces[-1]), mark.group(1) or kind))
        length += len(pieces[-1])
    pieces.append(template[position:])
    return Line("".join(pieces), tuple(spans), carrier)


def _url(value: str) -> str | None:
    """Only what a query string shows as it is; percent signs would hide the value from people as well."""
    return value if urllib.parse.quote(value, safe="@:,+") == value else None


def _in_json(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)[1:-1]


WRITINGS: dict[str, Callable[[str], str | None]] = {
    "raw": str,
    "json": _in_json,
    "json-in-json": lambda value: _in_json(_in_json(value)),
    "sql": lambda value: value.replace("'", "''"),
    "url": _url,
    "bare": lambda value: value if _BARE.match(value) else None,
}


def _iso(draw: random.Random) -> str:
    clock = f"{draw.randrange(24):02d}:{draw.randrange(60):02d}:{draw.randrange(60):02d}"
    return f"2026-{draw.randrange(1, 13):02d}-{draw.randrange(1, 29):02d}T{clock}.{digits(draw, 3)}Z"


def _number(size: int, draw: random.Random) -> str:
    return draw.choice("123456789") + digits(draw, size - 1)


FILLERS: dict[str, Callable[[random.Random], str]] = {
    "iso": _iso,
    "comma_time": lambda draw: _iso(draw)[:19].replace("T", " ") + "," + digits(draw, 3),
    "small": lambda draw: str(draw.randrange(2, 998)),
    "port": lambda draw: str(draw.randrange(1025, 65000)),
    "counter": lambda draw: str(draw.choice((draw.randrange(1000, 10**5), draw.randrange(10**5, 10**9), 67108864, 134217728))),
    "long": lambda draw: draw.choice("123456789") + digits(draw, 18),
    "epoch_s": lambda draw: str(draw.randrange(1_400_000_000, 1_799_999_999)),
    "epoch_ms": lambda draw: str(draw.randrange(1_400_000_000_000, 1_799_999_999_999)),
    "epoch_us": lambda draw: str(draw.randrange(1_400_000_000_000_000, 1_799_999_999_999_999)),
    "version": lambda draw: f"{draw.randrange(1, 12)}.{draw.randrange(30)}.{draw.randrange(20)}",
    "uuid": lambda draw: str(uuid.UUID(int=draw.getrandbits(128), version=4)),
    "UUID": lambda draw: str(uuid.UUID(int=draw.getrandbits(128), version=4)).upper(),
    "sha1": lambda draw: draw.randbytes(20).hex(),
    "sha256": lambda draw: draw.randbytes(32).hex(),
    "md5": lambda draw: draw.randbytes(16).hex(),
    "hex8": lambda draw: draw.randbytes(4).hex(),
    "HEX8": lambda draw: draw.randbytes(4).hex().upper(),
    "hex16": lambda draw: draw.randbytes(8).hex(),
    "hex20": lambda draw: draw.randbytes(10).hex(),
    "hex32": lambda draw: draw.randbytes(16).hex(),
    "b64": lambda draw: word(draw, 43, BASE62 + "+/"),
    "boundary": lambda draw: "WebKitFormBoundary" + word(draw, 16),
    **{f"digits{n}": partial(_number, n) for n in (4, 6, 9, 10, 14)},
}

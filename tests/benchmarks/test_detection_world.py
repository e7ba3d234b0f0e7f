"""The generated lines: valid checksums by an independent check, spans that hold the value, halves that share nothing."""

from __future__ import annotations

import json
import random
import re
import zlib
from collections.abc import Iterator

import pytest

from tests.worlds.detection_values import CHECKED, MAKERS
from tests.worlds.detection_world import HALVES, Line, keyed_carriers, lines

SEED = 20


def plain(value: str) -> str:
    return re.sub(r"[ \-]", "", value)


def luhn(value: str) -> bool:
    total = 0
    for place, sign in enumerate(reversed(value)):
        total += sum(divmod(int(sign) * (1 + place % 2), 10))
    return total % 10 == 0


def iban(value: str) -> bool:
    turned = value[4:] + value[:4]
    return int("".join(str(int(c, 36)) for c in turned)) % 97 == 1


def resident(value: str) -> bool:
    """ISO 7064 MOD 11-2, digit by digit."""
    total = 0
    for sign in value:
        total = (total * 2 + (10 if sign == "X" else int(sign))) % 11
    return total == 1


def uscc(value: str) -> bool:
    signs = "0123456789ABCDEFGHJKLMNPQRTUWXY"
    weight, total = 1, signs.index(value[-1])
    for sign in value[:-1]:
        total += signs.index(sign) * weight
        weight = weight * 3 % 31
    return total % 31 == 0


def nhs(value: str) -> bool:
    return sum(int(c) * w for c, w in zip(value, range(10, 0, -1), strict=True)) % 11 == 0


def github(value: str) -> bool:
    body, number = value.split("_")[1], 0
    for sign in body[30:]:
        number = number * 62 + "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz".index(sign)
    return number == zlib.crc32(body[:30].encode())


CHECKS = {
    "CARD": luhn, "CN_BANK_CARD": luhn, "IMEI": luhn, "IBAN": iban, "CN_RESIDENT_ID": resident, "CN_USCC": uscc, "NHS": nhs,
    "NPI": lambda value: luhn("80840" + value), "GITHUB": github,
}  # fmt: skip
# Published examples, so that the checks themselves are checked.
KNOWN = {
    "CARD": "4111111111111111", "IMEI": "490154203237518", "IBAN": "GB82WEST12345698765432", "NHS": "9434765919",
    "CN_RESIDENT_ID": "11010519491231002X", "CN_USCC": "91350100M000100Y43", "NPI": "1234567893",
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(CHECKED))
def test_values_pass_the_published_checksum(kind: str) -> None:
    if kind in KNOWN:
        assert CHECKS[kind](KNOWN[kind])
    draw = random.Random(SEED)
    values = [MAKERS[kind](draw, n % 2) for n in range(200)]
    assert all(CHECKS[kind](value if kind == "GITHUB" else plain(value)) for value in values)
    assert len(set(values)) > 190


@pytest.mark.parametrize("half", sorted(HALVES))
def test_every_type_is_there_and_every_span_holds_its_value(half: str) -> None:
    made = lines(half, each=6, seed=SEED)
    counts = dict.fromkeys(MAKERS, 0)
    for line in made:
        assert not re.search("[«»‹›⟪⟫]", line.text), "a placeholder was left"
        for span in line.spans:
            counts[span.kind] += 1
            value = line.text[span.start : span.end]
            assert value == value.strip()
            if span.kind in CHECKS:
                assert CHECKS[span.kind](value if span.kind == "GITHUB" else plain(value))
    assert min(counts.values()) >= 6, counts
    assert sum(not line.spans for line in made) >= len(HALVES[half].NEGATIVE)


@pytest.mark.parametrize("half", sorted(HALVES))
def test_a_seed_gives_the_same_lines_and_another_seed_others(half: str) -> None:
    assert lines(half, each=2, seed=1) == lines(half, each=2, seed=1)
    one, other = ({line.text for line in lines(half, each=8, seed=seed) if line.spans} for seed in (1, 2))
    assert len(one & other) < 0.03 * len(one), "ages and names may coincide, little else"


def test_the_halves_share_no_key_shape_or_phrase() -> None:
    dev, held = HALVES["dev"], HALVES["held_out"]

    def keys(half: str) -> set[tuple[str, str]]:
        return {(kind, re.sub(r"[\W_]", "", key).lower()) for kind, key, _ in keyed_carriers(half)}

    assert not keys("dev") & keys("held_out")
    assert not {shape for _, shape, _ in dev.WRAPPERS} & {shape for _, shape, _ in held.WRAPPERS}
    assert not words_around(dev.LINES) & words_around(held.LINES)
    assert not set(dev.NEGATIVE) & set(held.NEGATIVE)


def words_around(templates: tuple[str, ...]) -> set[str]:
    """Each template without its values, and the five words before each value."""
    found = set()
    for template in templates:
        found.add(re.sub(r"[«‹]\w+[»›]", "#", template).lower())
        pieces = re.split(r"[«‹]\w+[»›]", template)
        found |= {" ".join(piece.lower().split()[-5:]) for piece in pieces[:-1] if len(piece.split()) >= 5}
    return found


def test_names_streets_and_hosts_differ_between_the_halves() -> None:
    for kind in ("PERSON", "EMAIL", "ADDRESS", "ADDRESS_ZH"):
        values = [{MAKERS[kind](random.Random(n), pool) for n in range(300)} for pool in (0, 1)]
        assert not values[0] & values[1]


def json_lines(half: str) -> list[Line]:
    return [line for line in lines(half, each=24, seed=SEED) if line.text.startswith(("{", "[{"))]


@pytest.mark.parametrize("half", sorted(HALVES))
def test_lines_of_json_are_json_and_hold_the_value_that_the_span_names(half: str) -> None:
    made = json_lines(half)
    assert len(made) > 20
    for line in made:
        leaves = list(strings(json.loads(line.text)))
        for span in line.spans:
            value = json.loads(f'"{line.text[span.start : span.end]}"')
            assert any(value in leaf for leaf in leaves), line.carrier
            assert span.kind != "PRIVATE_KEY" or "\n" in value.replace("\\n", "\n")


def strings(value: object) -> Iterator[str]:
    """Every string inside, as it stands in the record."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)

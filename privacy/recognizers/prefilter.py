"""Turns a rule's pattern into a looser one over bytes, for a multi-pattern engine that only says where to look closer.

Guarantee: whenever the pattern matches in a text, the looser one matches in the bytes `SEPARATOR text SEPARATOR`, with an end
after the first byte of the text and not after its closing separator. It holds by construction: every step keeps what matched
or adds to it (look-arounds become the neighbouring byte or vanish, large repeats lose their upper bound, the tail is cut to
its shortest form, characters beyond ASCII become ranges of UTF-8 bytes).
Assumption: texts are views (`recognizers.view`), so no character beyond ASCII equals an ASCII letter when case is ignored.
Source: the parse tree of Python's own `re`, so both engines read the same pattern; anything unknown raises and is not guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from re import _parser as sre  # type: ignore[attr-defined]  # the parser of the standard library has no public name
from typing import Any

from privacy.recognizers.spec import KEY

SEPARATOR = b"\xff"  # never occurs in UTF-8
UNBOUNDED = 1 << 30
_KEY_SPELLED_OUT = r"(?:(?<![0-9A-Za-z])|(?-i:(?<=[a-z0-9])(?=[A-Z])))"  # what spec.KEY means, as neighbouring bytes
_ASCII = frozenset(range(128))
_HIGH = r"\x80-\xfe"
_LOOSE_REPEAT = 12  # a class repeated more often than this is repeated without bound: fewer states, and still a superset
_LOOSE_GROUP = 4
_MANY = 64
_Op = tuple[Any, Any]


class Untranslatable(ValueError):
    """The pattern holds something that has no known looser form."""


@dataclass(frozen=True, slots=True)
class _Set:
    """Which characters a class takes: the ASCII ones, and those beyond as ranges; `loose` when any of them may be."""

    ascii: frozenset[int]
    beyond: tuple[tuple[int, int], ...] = ()
    loose: bool = False


def loosen(pattern: re.Pattern[str]) -> str:
    """The looser expression in the syntax of hyperscan; raises Untranslatable."""
    tree = sre.parse(pattern.pattern.replace(KEY, _KEY_SPELLED_OUT), pattern.flags)
    return _Loosener(bool(tree.state.flags & re.IGNORECASE)).sequence(list(tree), first=True, last=True)


def reach(pattern: re.Pattern[str]) -> int:
    """How many characters a match and all that its look-arounds read can span; UNBOUNDED when the end of the text counts."""
    return min(UNBOUNDED, _reach(sre.parse(pattern.pattern, pattern.flags)))


def shortest(pattern: re.Pattern[str]) -> int:
    """How many characters a match has at least; where the looser expression was seen to end, so many bytes of it lie before."""
    return int(sre.parse(pattern.pattern, pattern.flags).getwidth()[0])


def _reach(tree: Any) -> int:
    total = 0
    for op, value in tree:
        name = str(op)
        if name == "BRANCH":
            total += max(map(_reach, value[1]))
        elif name.endswith("REPEAT"):
            total += min(int(value[1]), UNBOUNDED) * _reach(value[2])
        elif name == "SUBPATTERN":
            total += _reach(value[3])
        elif name in ("ASSERT", "ASSERT_NOT"):
            total += _reach(value[1])
        elif name in ("AT", "GROUPREF"):
            total += UNBOUNDED if "END" in str(value) else 64  # no group that is referred to is longer
        else:
            total += 1
    return total


class _Loosener:
    def __init__(self, ignore_case: bool) -> None:
        self._ignore_case = ignore_case
        self._groups: dict[int, list[_Op]] = {}

    def sequence(self, items: list[_Op], first: bool = False, last: bool = False) -> str:
        """first, last: whether the expression begins or ends with this sequence, so that a neighbour byte may be taken in."""
        while last and items and self._vanishes_at_end(items[-1]):
            items = items[:-1]
        out: list[str] = []
        for index, item in enumerate(items):
            at_end = last and index == len(items) - 1
            out.append(self._item(item, first and not any(out), at_end))
        return "".join(out)

    def _vanishes_at_end(self, item: _Op) -> bool:
        name, value = str(item[0]), item[1]
        if name in ("ASSERT", "ASSERT_NOT") and value[0] < 0:
            return True
        if name == "ASSERT_NOT":
            return self._excluded(value[1]) is None
        return name.endswith("REPEAT") and value[0] == 0

    def _item(self, item: _Op, first: bool, last: bool) -> str:
        name, value = str(item[0]), item[1]
        handler: Callable[[Any, bool, bool], str] | None = getattr(self, f"_do_{name.lower()}", None)
        if handler is None:
            raise Untranslatable(name)
        return handler(value, first, last)

    # Characters

    def _do_literal(self, code: int, first: bool, last: bool) -> str:
        return self._one(self._cased(_Set(frozenset({code}) & _ASCII, ((code, code),) if code > 127 else ())))

    def _do_not_literal(self, code: int, first: bool, last: bool) -> str:
        return self._one(_Set(_ASCII - self._cased(_Set(frozenset({code}))).ascii, loose=True))

    def _do_any(self, _: None, first: bool, last: bool) -> str:
        return self._one(_Set(_ASCII, loose=True))

    def _do_in(self, items: list[_Op], first: bool, last: bool) -> str:
        return self._one(self._class(items))

    def _class(self, items: list[_Op]) -> _Set:
        ascii_: set[int] = set()
        beyond: list[tuple[int, int]] = []
        negated = loose = False
        for op, value in items:
            name = str(op)
            if name == "NEGATE":
                negated = True
            elif name in ("LITERAL", "RANGE"):
                low, high = value if name == "RANGE" else (value, value)
                ascii_ |= set(range(low, min(high, 127) + 1))
                if high > 127:
                    beyond.append((max(low, 128), high))
            elif name == "CATEGORY":
                ascii_ |= _category(str(value))
                loose = True
            else:
                raise Untranslatable(name)
        taken = self._cased(_Set(frozenset(ascii_), tuple(beyond), loose))
        return _Set(_ASCII - taken.ascii, loose=True) if negated else taken

    def _cased(self, chars: _Set) -> _Set:
        if not self._ignore_case:
            return chars
        both = {ord(c) for code in chars.ascii for c in (chr(code).lower(), chr(code).upper())}
        plain = all(_caseless(low, high) for low, high in chars.beyond)
        return _Set(frozenset(both), chars.beyond if plain else (), chars.loose or not plain)

    def _one(self, chars: _Set) -> str:
        """One character. Beyond ASCII it is several bytes: exact ranges when it is alone, else any run of high bytes."""
        if chars.loose or (chars.ascii and chars.beyond):
            return _bytes(chars.ascii, _HIGH) + "+"
        if chars.beyond:
            return _utf8(chars.beyond)
        return _bytes(chars.ascii)

    # Structure

    def _do_branch(self, value: tuple[None, list[Any]], first: bool, last: bool) -> str:
        return "(?:" + "|".join(self.sequence(list(branch), first, last) for branch in value[1]) + ")"

    def _do_subpattern(self, value: tuple[int | None, int, int, Any], first: bool, last: bool) -> str:
        group, add, remove, tree = value
        if group is not None:
            self._groups[group] = list(tree)
        outer = self._ignore_case
        self._ignore_case = (outer or bool(add & re.IGNORECASE)) and not remove & re.IGNORECASE
        inner = self.sequence(list(tree), first, last)
        self._ignore_case = outer
        return f"(?:{inner})"

    def _do_groupref(self, group: int, first: bool, last: bool) -> str:
        return "(?:" + self.sequence(self._groups[group]) + ")"

    def _repeat(self, value: tuple[int, Any, Any], first: bool, last: bool) -> str:
        low, high, tree = value[0], int(value[1]), list(value[2])
        if last:
            high = low
        body = self.sequence(tree)
        single = len(tree) == 1 and str(tree[0][0]) in ("IN", "LITERAL", "NOT_LITERAL", "ANY")
        if single and body.endswith("+"):
            body, high = body[:-1], _MANY**2  # a character may be several bytes
        elif not single or (not body.startswith("[") and len(body) > 4):
            body = f"(?:{body})"
        if high > low and high > (_LOOSE_REPEAT if single else _LOOSE_GROUP):
            return body + {0: "*", 1: "+"}.get(low, f"{{{low},}}")
        if (low, high) == (0, 1):
            return body + "?"
        return body if low == high == 1 else body + (f"{{{low}}}" if low == high else f"{{{low},{high}}}")

    _do_max_repeat = _do_min_repeat = _do_possessive_repeat = _repeat

    def _do_atomic_group(self, tree: Any, first: bool, last: bool) -> str:
        return "(?:" + self.sequence(list(tree), first, last) + ")"

    # Positions

    def _do_assert(self, value: tuple[int, Any], first: bool, last: bool) -> str:
        direction, tree = value
        if (direction > 0 and last) or (direction < 0 and first):
            return "(?:" + self.sequence(list(tree), first, last) + ")"
        return ""

    def _do_assert_not(self, value: tuple[int, Any], first: bool, last: bool) -> str:
        direction, tree = value
        excluded = self._excluded(tree)
        if excluded is None or not (last if direction > 0 else first):
            return ""
        return _bytes(_ASCII - excluded, r"\x80-\xff")

    def _excluded(self, tree: Any) -> frozenset[int] | None:
        """The ASCII characters that a negative look-around of one character surely excludes; None when there are none."""
        excluded: frozenset[int] = frozenset()
        items = list(tree)
        branches = items[0][1][1] if len(items) == 1 and str(items[0][0]) == "BRANCH" else [items]
        for branch in branches:
            nodes = list(branch)
            while len(nodes) == 1 and str(nodes[0][0]) == "SUBPATTERN":
                nodes = list(nodes[0][1][3])
            if len(nodes) == 1 and str(nodes[0][0]) == "IN":
                excluded |= self._class(nodes[0][1]).ascii
            elif len(nodes) == 1 and str(nodes[0][0]) == "LITERAL":
                excluded |= self._cased(_Set(frozenset({nodes[0][1]}) & _ASCII)).ascii
        return excluded or None

    def _do_at(self, where: Any, first: bool, last: bool) -> str:
        name = str(where)
        if name in ("AT_BEGINNING", "AT_BEGINNING_STRING"):
            return r"\xff"
        if name == "AT_END_STRING":
            return r"\xff"
        if name == "AT_END":
            return r"\n?\xff"
        raise Untranslatable(name)


def _category(name: str) -> set[int]:
    sign = {"DIGIT": "d", "SPACE": "s", "WORD": "w"}[name.removeprefix("CATEGORY_").removeprefix("NOT_")]
    if "NOT_" in name:
        sign = sign.upper()
    return {code for code in _ASCII if re.match(rf"\{sign}", chr(code))}


def _caseless(low: int, high: int) -> bool:
    """Whether no character of a range has another case; long ranges outside the Han block are not looked through."""
    if low >= 0x2E80 and high <= 0x9FFF:
        return True
    return high - low < _MANY and all(chr(c).lower() == chr(c).upper() == chr(c) for c in range(low, high + 1))


def _bytes(ascii_: Iterable[int], rest: str = "") -> str:
    """A class of bytes, as ranges."""
    codes = sorted(ascii_)
    return _sign(codes[0]) if len(codes) == 1 and not rest else "[" + _ranges(codes) + rest + "]"


def _sign(code: int) -> str:
    char = chr(code)
    return char if char.isascii() and char.isalnum() else f"\\x{code:02x}"


def _ranges(codes: list[int]) -> str:
    out = ""
    while codes:
        size = next((i for i in range(1, len(codes)) if codes[i] != codes[0] + i), len(codes))
        out += _sign(codes[0]) + ("-" + _sign(codes[size - 1]) if size > 1 else "")
        codes = codes[size:]
    return out


def _utf8(ranges: Iterable[tuple[int, int]]) -> str:
    """One character of `ranges` as UTF-8: exact for single characters, by lead byte for long ranges."""
    exact: dict[bytes, set[int]] = {}
    wide: set[str] = set()
    for low, high in ranges:
        if high - low < _MANY:
            for code in range(low, high + 1):
                encoded = chr(code).encode("utf-8", "surrogatepass")
                exact.setdefault(encoded[:-1], set()).add(encoded[-1])
            continue
        for start, stop in ((0x80, 0x7FF), (0x800, 0xFFFF), (0x10000, 0x10FFFF)):
            first, last = max(low, start), min(high, stop)
            if first <= last:
                lead = [chr(c).encode("utf-8", "surrogatepass") for c in (first, last)]
                wide.add(f"[\\x{lead[0][0]:02x}-\\x{lead[1][0]:02x}]" + r"[\x80-\xbf]" * (len(lead[0]) - 1))
    parts = ["".join(f"\\x{b:02x}" for b in head) + "[" + _ranges(sorted(tails)) + "]" for head, tails in exact.items()]
    return "(?:" + "|".join([*parts, *sorted(wide)]) + ")"

"""What a detector reports, and the one rule by which findings of all lanes are merged.

Guarantee: resolved findings have valid offsets, do not overlap, are sorted and never touch a placeholder.
Overlap rule: findings of one type that overlap are one (`joined`, where lanes meet); of different types the higher score wins,
then the longer span, then the earlier. What a loser covered beyond the winner stays a finding of its own, so every character
that any accepted rule covered is covered by exactly one finding. A value that was found in one place is found in all others
where it stands as a word (`complete`), also when it is what the rule has left of a longer span.
"""

from __future__ import annotations

import re
from bisect import bisect_right, insort
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from privacy.recognizers.names import STOP_WORDS
from privacy.recognizers.view import PLACEHOLDER

_ECHO_MIN = 4
_JOINING = frozenset("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
FORMAT_SIGN = re.compile(r"[\"`{}\[\]<>=\\\x00-\x1f]|(?<![^\W\d_])'|'(?![^\W\d_])|:(?![0-9A-Za-z])")  # not O'Brien, not 00:1a
_ECHO_REASON = "the same value was found elsewhere in this text"


class Finding(NamedTuple):
    """Personal data at text[start:end]. It holds no text, so it may be stored. A tuple, because millions of them are made.

    reason: a fixed sentence of the rule (its checksum, cue or key), the same for every value; never a value.
    """

    start: int
    end: int
    entity: str
    score: float
    recognizer: str
    version: str
    reason: str = ""


def resolve(text: str, findings: Sequence[Finding], taken: Sequence[Finding] = ()) -> list[Finding]:
    """Apply the overlap rule; spans of `taken` and placeholders of the text are occupied beforehand. Sorted."""
    occupied = [(f.start, f.end) for f in taken]
    if "<" in text:
        occupied += [m.span() for m in PLACEHOLDER.finditer(text)]
    if not occupied and len(findings) == 1:
        start, end = _trim(text, findings[0].start, findings[0].end)
        return [_at(findings[0], start, end)] if start < end else []
    occupied.sort()
    accepted: list[Finding] = []
    for finding in sorted(findings, key=_precedence):
        for start, end in _subtract(finding.start, finding.end, occupied):
            start, end = _trim(text, start, end)
            if start < end:
                accepted.append(_at(finding, start, end))
                insort(occupied, (start, end))
    accepted.sort(key=_start)
    return accepted


def joined(findings: Sequence[Finding]) -> list[Finding]:
    """Overlapping findings of one type as one, over all they cover: two lanes that name one thing do not cut it in two.

    It keeps recognizer, version and reason of the one with the higher score. Overlaps of different types are left to `resolve`.
    """
    merged: list[Finding] = []
    last: dict[str, int] = {}
    for finding in sorted(findings, key=_start):
        place = last.get(finding.entity, -1)
        if place >= 0 and finding.start < merged[place].end:
            held = merged[place]
            best = min(held, finding, key=_precedence)
            merged[place] = _at(best, held.start, max(held.end, finding.end))
        else:
            last[finding.entity] = len(merged)
            merged.append(finding)
    return merged


def echoes(text: str, findings: Sequence[Finding]) -> list[Finding]:
    """Other places where exactly a found value stands as a word: said once with a cue, repeated without one."""
    found: list[Finding] = []
    seen: set[str] = set()
    for finding in findings:
        value = text[finding.start : finding.end]
        if len(value) < _ECHO_MIN or value in seen:
            continue
        seen.add(value)
        if text.count(value) < 2 or value.lower() in STOP_WORDS:
            continue
        found += [
            Finding(start, start + len(value), finding.entity, finding.score, finding.recognizer, finding.version, _ECHO_REASON)
            for start in _places(text, value)
            if start != finding.start
        ]
    return found


def complete(text: str, findings: Sequence[Finding], taken: Sequence[Finding] = ()) -> list[Finding]:
    """`resolve`, and then whatever else repeats a value of what was accepted or taken, until no such value stands anywhere.

    A span that the overlap rule has cut names a new value: its rest. `taken` is resolved already and is not given back.
    Guarantee: no value of _ECHO_MIN signs or more that is no stop word is left standing as a word outside of the findings.
    Not covered: a rest that holds signs of a format (quotes around a key, brackets, line ends): elsewhere it is not a value,
    and to take it out would break the format that stands around it.
    """
    accepted = resolve(text, [*findings, *echoes(text, [*taken, *findings])], taken) if findings else []
    while True:
        held = [*taken, *accepted]
        values = [f for f in held if FORMAT_SIGN.search(text, f.start, f.end) is None]
        fresh = resolve(text, repeats, held) if (repeats := echoes(text, values)) else []
        if not fresh:
            return accepted
        accepted = sorted([*accepted, *fresh], key=_start)


def _places(text: str, value: str) -> Iterator[int]:
    """Where `value` stands with no ASCII letter or digit beside it."""
    start = text.find(value)
    while start >= 0:
        end = start + len(value)
        if text[start - 1 : start] in _JOINING or text[end : end + 1] in _JOINING:
            start = text.find(value, start + 1)
        else:
            yield start
            start = text.find(value, end)


def settled(text: str, findings: list[Finding]) -> list[Finding] | None:
    """What `resolve` makes of `findings` and their `echoes` where nothing overlaps and each value stands where it was found
    and nowhere else: all of them, sorted. None where that is not so, or not plain to see."""
    if "<" in text:
        return None
    if len(findings) == 1:
        value = text[findings[0].start : findings[0].end]
        return findings if value[0].isalnum() and value[-1].isalnum() and text.count(value) == 1 else None
    ordered = sorted(findings, key=_start)
    same: dict[str, list[Finding]] = {}
    reach = 0
    for finding in ordered:
        value = text[finding.start : finding.end]
        if finding.start < reach or not (value[0].isalnum() and value[-1].isalnum()):
            return None
        reach = finding.end
        same.setdefault(value, []).append(finding)
    for value, group in same.items():
        at = 0
        for finding in group:
            if finding.start != text.find(value, at) or finding[2:] != group[0][2:]:
                return None
            at = finding.end
        if text.find(value, at) >= 0:
            return None
    return ordered


def _precedence(finding: Finding) -> tuple[float, int, int, str]:
    return (-finding.score, finding.start - finding.end, finding.start, finding.entity)


def _start(finding: Finding) -> int:
    return finding.start


def _at(finding: Finding, start: int, end: int) -> Finding:
    if (start, end) == (finding.start, finding.end):
        return finding
    return Finding(start, end, finding.entity, finding.score, finding.recognizer, finding.version, finding.reason)


def _subtract(start: int, end: int, occupied: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """What is left of [start, end) outside the occupied spans, which are sorted and do not overlap."""
    if not occupied:
        return [(start, end)]
    pieces = []
    index = max(0, bisect_right(occupied, (start, start)) - 1)
    while index < len(occupied) and occupied[index][0] < end:
        left, right = occupied[index]
        if left > start:
            pieces.append((start, left))
        start = max(start, right)
        index += 1
    if start < end:
        pieces.append((start, end))
    return pieces


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    """Drop spaces at both ends of a fragment; empty when no letter or digit is left."""
    if not (text[start].isalnum() or any(c.isalnum() for c in text[start:end])):
        return start, start
    while text[start].isspace():
        start += 1
    while text[end - 1].isspace():
        end -= 1
    return start, end

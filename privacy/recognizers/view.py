"""How recognizers see a text: normalised, with placeholders collapsed, and every offset traceable to the original.

Guarantee: the view depends on each original character alone (per-character NFKC, digits of any script to ASCII, dashes to `-`,
zero-width characters dropped), and a placeholder or an already found span is one MASK character. So the view of a
de-identified text equals the view of the original with its findings blocked, which is what makes de-identification idempotent.
Not covered: combining sequences and look-alike letters of other scripts are left as they are.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from privacy.entities import ENTITY_TYPES


def word_set(text: str) -> frozenset[str]:
    """The words of a lexicon written as running text."""
    return frozenset(text.split())


MASK = "\ue000"  # private use: neither alphanumeric nor space, so no rule can match across it
FALLBACK_TYPE = "PERSONAL_DATA"

# A placeholder names a type of the closed list; text that merely looks like `<SOMETHING>` is searched as usual.
_DETAIL = r"(?:\*[0-9A-Za-z]{0,4}|[0-9]{4}(?:-[0-9]{2})?|[0-9]{1,3}-[0-9]{1,3}|[0-9a-f.:]{3,39}/[0-9]{1,3})"
PLACEHOLDER = re.compile(r"<(?:" + "|".join(sorted(ENTITY_TYPES)) + r")(?:_[0-9a-f]{6})?(?::" + _DETAIL + r")?>")

_ZERO_WIDTH = frozenset("\u00ad\u180e\u200b\u200c\u200d\u200e\u200f\u2060\ufeff")
_DASHES = frozenset("\u2010\u2011\u2012\u2013\u2014\u2212\ufe63\uff0d")
_HAN = re.compile(r"[\u3400-\u9fff]")
_LATIN = re.compile(r"[A-Za-z]")
_LOG_HEAD = re.compile(
    r"\s{0,3}(?:\[?[0-9]{4}[-/][0-9]{2}[-/][0-9]{2}[ T][0-9]{2}:[0-9]{2}"
    r"|[A-Z][a-z]{2} {1,2}[0-9]{1,2} [0-9]{2}:[0-9]{2}:[0-9]{2}"
    r"|\[[A-Z][a-z]{2} [A-Z][a-z]{2} |[0-9]{6} [0-9]{6} |[0-9]{2}/[0-9]{2}/[0-9]{2} [0-9]{2}:"
    r"|\[?(?:TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|FATAL|CRITICAL)\b"
    r"|(?:-|[A-Z]{4,12}) [0-9]{9,} |[0-9]{1,3}(?:\.[0-9]{1,3}){3} - )"
)
_KEY_VALUE = re.compile(r"(?<![0-9A-Za-z_])[A-Za-z_][A-Za-z0-9_.-]{0,30}=(?=[^\s=])")
_LOG_BODY = re.compile(
    r"[a-z]\w{1,30}(?:\.[A-Za-z]\w{1,30}){2,}|\b\w{1,20}\[[0-9]{1,7}\]:|/[a-z]{2,12}/[a-z0-9_]{1,20}/|\bHTTP/1"
)


@dataclass(frozen=True, slots=True)
class View:
    """A searchable form of one text. `starts`/`ends` map view offsets to original offsets; None means identity."""

    text: str
    lower: str
    digits: int
    han: bool
    log: bool
    starts: tuple[int, ...] | None
    ends: tuple[int, ...] | None

    def original(self, start: int, end: int) -> tuple[int, int]:
        """Original offsets of view span [start, end), start < end."""
        if self.starts is None or self.ends is None:
            return start, end
        return self.starts[start], self.ends[end - 1]


def view_of(text: str, blocked: Iterable[tuple[int, int]] = ()) -> View:
    """View of `text` with every placeholder and every span of `blocked` (sorted or not, no overlaps) collapsed to MASK."""
    spans = sorted([*blocked, *(m.span() for m in PLACEHOLDER.finditer(text))] if "<" in text else blocked)
    if not spans and text.isascii():
        return _view(text, None, None)
    pieces: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    position = 0
    for start, end in [*spans, (len(text), len(text))]:
        _fold_into(text, position, start, pieces, starts, ends)
        if end > start:
            pieces.append(MASK)
            starts.append(start)
            ends.append(end)
        position = max(position, end)
    return _view("".join(pieces), tuple(starts), tuple(ends))


def _fold_into(text: str, position: int, stop: int, pieces: list[str], starts: list[int], ends: list[int]) -> None:
    for index in range(position, stop):
        folded = _fold(text[index])
        pieces.append(folded)
        for _ in folded:
            starts.append(index)
            ends.append(index + 1)


def _view(text: str, starts: tuple[int, ...] | None, ends: tuple[int, ...] | None) -> View:
    digits = sum(map(text.count, "0123456789"))
    return View(text, text.lower(), digits, _HAN.search(text) is not None, looks_like_log(text), starts, ends)


@lru_cache(maxsize=8192)
def _fold(char: str) -> str:
    if char in _ZERO_WIDTH:
        return ""
    if char in _DASHES:
        return "-"
    if char.isdecimal():
        return str(unicodedata.decimal(char))
    return unicodedata.normalize("NFKC", char)


def looks_like_log(text: str) -> bool:
    """Whether a machine wrote this line: loose rules for conversation are off then, because counters are not people."""
    head = text[:400]
    if _LOG_HEAD.match(head):
        return True
    pairs = len(_KEY_VALUE.findall(head))
    return pairs >= 2 or (pairs >= 1 and _LOG_BODY.search(head) is not None) or len(_LOG_BODY.findall(head)) >= 2


def script_language(text: str) -> str:
    """`zh` when Han characters make up a quarter or more of its letters, else `en`; placeholders do not count."""
    bare = PLACEHOLDER.sub(" ", text)
    han = len(_HAN.findall(bare))
    return "zh" if han and han * 3 >= len(_LATIN.findall(bare)) else "en"

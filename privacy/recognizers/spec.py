"""What a recognizer is: a bounded regular expression, a check on what it matched, and the reason the check suffices.

Guarantee: no Presidio, no spaCy and no regular expression without bounds here, so scanning is linear in the text.
Assumption: patterns use ASCII look-arounds instead of `\\b`, which does not hold between a Han character and a digit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from privacy.recognizers.view import View

LEFT = r"(?<![0-9A-Za-z])"  # a word starts here, whatever script stands before it
RIGHT = r"(?![0-9A-Za-z])"
HAN = r"\u4e00-\u9fff"

# Words that stand between a cue ("account") and its value ("… number ending in 1234"): a closed list, so a cue
# does not reach across a sentence to an unrelated number.
FILLER = (
    r"(?:[\s]{0,3}(?:(?:numbers?|num|no|nr|ids?|code|is|was|are|s|ends?|ending|in|with|last|four|4|five|digits?|of|for|on|as|"
    r"the|my|our|your|its|it|to|card|account)(?![0-9A-Za-z])|[:=#.,'\"()-])){0,9}[\s]{0,3}"
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """What the pattern matched, with its surroundings; offsets are of the view."""

    text: str
    start: int
    end: int
    log: bool

    @property
    def value(self) -> str:
        return self.text[self.start : self.end]

    @property
    def digits(self) -> str:
        return "".join(c for c in self.value if c in "0123456789")

    def before(self, length: int = 40) -> str:
        return self.text[max(0, self.start - length) : self.start]

    def after(self, length: int = 20) -> str:
        return self.text[self.end : self.end + length]


Check = Callable[[Candidate], float]  # the score, 0.0 for "not this type"
Trim = Callable[[Candidate], tuple[int, int] | None]  # a narrower span, None for "nothing left"


@dataclass(frozen=True, slots=True)
class Recognizer:
    """One rule of one entity type.

    checksum: which checksum `check` computes, or why the type has none.
    words: lower-case strings, one of which must occur in the text (a cheap gate; empty: no such gate).
    digits: how many ASCII digits the text must have for the rule to be worth trying.
    """

    name: str
    entity: str
    pattern: re.Pattern[str]
    score: float
    checksum: str
    group: int = 0
    check: Check | None = None
    trim: Trim | None = None
    words: tuple[str, ...] = ()
    digits: int = 0
    han: bool = False
    conversation_only: bool = False
    version: str = "1"

    def scan(self, view: View) -> Iterator[tuple[int, int, float]]:
        """View spans and scores; spans are never empty and scores are in (0, 1]."""
        if view.digits < self.digits or (self.han and not view.han) or (self.conversation_only and view.log):
            return
        if self.words and not any(word in view.lower for word in self.words):
            return
        for match in self.pattern.finditer(view.text):
            start, end = match.span(self.group)
            if self.trim is not None and start < end:
                start, end = self.trim(Candidate(view.text, start, end, view.log)) or (start, start)
            if start >= end:
                continue
            score = self.score
            if self.check is not None:
                score = self.check(Candidate(view.text, start, end, view.log))
            if score > 0.0:
                yield start, end, min(score, 1.0)


def compiled(pattern: str, ignore_case: bool = True) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE if ignore_case else 0)


def luhn(digits: str) -> bool:
    """ISO/IEC 7812-1 annex B."""
    total = 0
    for index, char in enumerate(reversed(digits)):
        value = int(char)
        if index % 2:
            value = value * 2 - 9 if value > 4 else value * 2
        total += value
    return total % 10 == 0


def looks_like_epoch(digits: str) -> bool:
    """Unix time between 2001 and 2033 in seconds, milli-, micro- or nanoseconds: 10, 13, 16 or 19 digits."""
    return len(digits) in (10, 13, 16, 19) and digits[0] == "1"

"""What a recognizer is: a bounded regular expression, a check on what it matched, and the reason the check suffices.

Guarantee: no Presidio, no spaCy and no regular expression without bounds here, so scanning is linear in the text.
Assumption: patterns use ASCII look-arounds instead of `\\b`, which does not hold between a Han character and a digit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from privacy.recognizers.view import View

LEFT = r"(?<![0-9A-Za-z])"  # a word starts here, whatever script stands before it
RIGHT = r"(?![0-9A-Za-z])"
HAN = r"\u4e00-\u9fff"
# A word of a key starts here: `user`, `db_user`, `dbUser`. Not within a word, and not between two capitals.
KEY = r"(?-i:(?<![0-9A-Za-z](?![A-Z]))(?<![A-Z](?=[A-Z])))"
SEP = r"[\"'\\]{0,3}\s{0,2}(?:=>|:=|[:=])\s{0,2}[\"'\\]{0,3}"  # between a key and its value, quoted and escaped too

# Words that stand between a cue ("account") and its value ("… number ending in 1234"): a closed list, so a cue
# does not reach across a sentence to an unrelated number.
FILLER = (
    r"(?:[\s]{0,3}(?:(?:numbers?|num|no|nr|ids?|code|is|was|are|s|ends?|ending|in|with|last|four|4|five|digits?|of|for|on|as|"
    r"the|my|our|your|its|it|to|card|account)(?![0-9A-Za-z])|[:=#.,'\"()\\_-])){0,9}[\s]{0,3}"
)

# Keys of quantities, times and handles of machines: a number after one of them counts something and names nobody.
_COUNTER = re.compile(
    r"(?<![a-z])(?:size|len|length|bytes?|offset|pos|position|count|counter|total|sum|elapsed|duration|took|latency|time|ts"
    r"|timestamp|seq|sequence|[ptu]id|ppid|[ztx]xid|txid|lsn|version|rev|revision|build|block|blk|job|task|attempt|container"
    r"|application|epoch|mem|memory|free|used|capacity|max|min|limit|quota|port|index|height|nonce|crc|checksum|etag|inode"
    r"|generation|rss|heap|cycles|ticks|uptime|rate|speed|allocated|reserved|buffers?|cached?|swap|pages|rows|records|addr|generated)"
    r"[\s\"'=:(\[#]{1,4}\Z",
    re.IGNORECASE,
)
_JOINED_BEFORE = re.compile(r"[0-9A-Za-z][_.$-]{1,2}\Z")
_JOINED_AFTER = re.compile(r"[_$]|[.-][0-9A-Za-z]")


@dataclass(slots=True)  # not frozen: one is made for each match, and freezing triples its cost
class Candidate:
    """What the pattern matched, with its surroundings; offsets are of the view. `check` and `trim` read it only."""

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

    def counted(self) -> bool:
        """Whether a key of a machine's counter, time or handle stands right before."""
        return _COUNTER.search(self.text, max(0, self.start - 24), self.start) is not None

    def joined(self) -> bool:
        """Whether this is a part of a longer identifier: `blk_123`, `1.234`, `123-abc`."""
        before = _JOINED_BEFORE.search(self.text, max(0, self.start - 3), self.start) is not None
        return before or _JOINED_AFTER.match(self.text, self.end) is not None


Check = Callable[[Candidate], float]  # the score, 0.0 for "not this type"
Trim = Callable[[Candidate], tuple[int, int] | None]  # a narrower span, None for "nothing left"


@dataclass(frozen=True, slots=True)
class Recognizer:
    """One rule of one entity type.

    checksum: which checksum `check` computes, or why the type has none; it is the reason that a finding shows.
    words: lower-case strings, one of which occurs in every text where the rule holds (a cheap gate; empty: no such gate).
    digits: how many ASCII digits every text has where the rule holds (a cheap gate too).
    near: patterns of which one matches in every text where the rule holds, and in fewer others than `pattern` does: for
        rules whose check asks a lexicon. The structural lane looks for them instead of `pattern`.
    near_log: the same for machine-written texts, where a check says no more often; empty: as `near`.
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
    near: tuple[re.Pattern[str], ...] = ()
    near_log: tuple[re.Pattern[str], ...] = ()

    def sought(self, log: bool) -> tuple[re.Pattern[str], ...]:
        """The patterns of which one matches in every text, machine-written or not, in which the rule holds."""
        return (self.near_log if log else ()) or self.near or (self.pattern,)

    def scan(self, view: View) -> list[tuple[int, int, float]]:
        """View spans and scores; spans are never empty and scores are in (0, 1]."""
        if self.digits and view.digits < self.digits:
            return []
        if self.words and not any(word in view.lower for word in self.words):
            return []
        return self.confirm(view)

    def idle(self, view: View) -> bool:
        """Whether this rule, and each that is looked for by the same patterns, can't hold in the view; False when not cheap to
        say."""
        return False

    def confirm(
        self, view: View, low: int = 0, high: int | None = None, end: int | None = None
    ) -> list[tuple[int, int, float]]:
        """`scan` without its two cheap gates, for a view that something faster has chosen already; the same result.

        low, high, end: no match starts before `low` or after `high`, and none reads on to `end`, which saves time.
        """
        log, text, search = view.log, view.text, self.pattern.search
        if (self.conversation_only and log) or (self.han and not view.han):
            return []
        if end is None:
            high = end = len(text)
        match = search(text, low, end)
        if match is None:
            return []
        found = []
        group, check, trim = self.group, self.check, self.trim
        while match is not None:
            start, stop = match.span(group)
            if trim is not None and start < stop:
                start, stop = trim(Candidate(text, start, stop, log)) or (start, start)
            if start < stop:
                score = self.score if check is None else check(Candidate(text, start, stop, log))
                if score > 0.0:
                    found.append((start, stop, score if score < 1.0 else 1.0))
            low = match.end()
            if low == match.start():
                low += 1  # a pattern that is all look-ahead; none is empty in one place and not in another
            if high is not None and low > high:
                break
            match = search(text, low, end)
        return found


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


def weighted(digits: str, weights: Sequence[int]) -> int:
    """Sum of the products of digits and weights, over the shorter of the two."""
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=False))


def looks_like_epoch(digits: str) -> bool:
    """Unix time between 2001 and 2033 in seconds, milli-, micro- or nanoseconds: 10, 13, 16 or 19 digits."""
    return len(digits) in (10, 13, 16, 19) and digits[0] == "1"

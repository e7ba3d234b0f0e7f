"""Where in a text something begins that its end leaves undecided: what a stream has to keep back.

Guarantee: where one of the rules matches in a text that goes on, and its match reads past the end of what is here, the offset
given back is at or before the start of that match. It holds by construction: each rule's own pattern is run with a sign behind
it that no text holds, so that no match is ever whole, and the engine (`regex`, partial matches) reports the first start from
which any way through the pattern reaches the end. _AFTER characters behind a match are waited for, because checks read them.
A rule that matches beside a finding is asked again with the undecided rest taken for one.
Not covered: rules whose check reads more than _AFTER characters behind their match, and values that only a later cue explains.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from privacy.errors import EnvironmentFault
from privacy.recognizers.spec import Recognizer
from privacy.recognizers.view import MASK, PLACEHOLDER, View, all_latin, view_of

if TYPE_CHECKING:
    import regex

_NEVER = "\ue00f"  # of the private use area like MASK; a text that holds it is taken for undecided from there on
_AFTER = 4
_FLAGS = re.IGNORECASE | re.MULTILINE | re.DOTALL | re.VERBOSE


class Unfinished:
    """Answers for a set of rules. Raises EnvironmentFault E-REDACT-005 where `regex` is not installed."""

    def __init__(self, recognizers: Sequence[Recognizer]) -> None:
        sources = [(rule.pattern.pattern, rule.pattern.flags & _FLAGS) for rule in recognizers]
        self._patterns = [_endless(source, flags) for source, flags in sources]
        self._beside = [_endless(source, flags) for source, flags in sources if MASK in source or r"\ue000" in source]
        self._placeholder = _endless(PLACEHOLDER.pattern, 0)

    def start(self, text: str, low: int = 0, known: Sequence[tuple[int, int]] = ()) -> int:
        """The lowest offset from `low` on that the end of `text` leaves undecided; len(text) where there is none.

        known: spans that are findings already, sorted, without overlaps.
        """
        if low >= len(text):
            return len(text)
        best = min(self._in_view(view_of(text), self._patterns, text, low), self._begun(text, low))
        alike = all_latin(text)
        if alike != text:
            best = min(best, self._in_view(view_of(alike), self._patterns, text, low))
        while self._beside:
            blocked = [span for span in known if span[1] <= best]
            rest = [(best, len(text))] if best < len(text) else []
            before = self._in_view(view_of(text, [*blocked, *rest]), self._beside, text, low)
            if before >= best:
                break
            best = before
        return best

    def _begun(self, text: str, low: int) -> int:
        """A placeholder that has begun."""
        found = self._placeholder.search(text, low, partial=True) if "<" in text else None
        return len(text) if found is None else found.start()

    def _in_view(self, view: View, patterns: Sequence[regex.Pattern[str]], text: str, low: int) -> int:
        seen = view.text
        best = len(seen)
        begin = _view_offset(view, low)
        for pattern in patterns:
            if begin >= best:
                break
            found = pattern.search(seen, begin, partial=True, concurrent=True)
            if found is not None and found.start() < best:
                best = found.start()
        return max(low, view.original(best, best + 1)[0]) if best < len(seen) else len(text)


def _endless(source: str, flags: int) -> regex.Pattern[str]:
    # A rule that only looks ahead at what it takes, so that values may overlap, would be done with the shortest value.
    source = source.replace("(?=(", "(?:(")
    try:
        import regex
    except ImportError:
        raise EnvironmentFault(
            "E-REDACT-005", "the package regex, which streams need, is not installed", "Install it: pip install regex"
        ) from None
    return regex.compile(f"(?:{source})(?s:.){{0,{_AFTER}}}{_NEVER}", flags)


def _view_offset(view: View, low: int) -> int:
    """The first offset of the view that is not before `low` in the original."""
    if not view.shifts:
        return low
    left, right = 0, len(view.text)
    while left < right:
        middle = (left + right) // 2
        if view.original(middle, middle + 1)[1] <= low:
            left = middle + 1
        else:
            right = middle
    return left

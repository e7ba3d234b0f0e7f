"""Shows a detector a text without our own surrogates and moved dates, so that a second pass finds what the first left: nothing.

Guarantee: the detector sees a placeholder where a surrogate stands, exactly what redaction would have left there; its findings
come back with offsets of the text that was handed in, and none lies on a surrogate.
Not covered: what passes as a surrogate by chance is left alone; `privacy.surrogate` says with which probability.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from privacy.canonical import digest_of

if TYPE_CHECKING:
    from privacy.detect import Detector, Finding

Spans = Callable[[str], list[tuple[int, int, str]]]
_Piece = tuple[int, int]  # where a kept part begins: in the shown text, in the original


class GuardedDetector:
    """A detector that leaves our own replacements alone; `version` says so."""

    def __init__(self, detector: Detector, own: Spans) -> None:
        self._detector = detector
        self._own = own
        self._version = digest_of({"detector": detector.version, "guard": 1})

    @property
    def version(self) -> str:
        return self._version

    def analyze_batch(self, texts: Sequence[str], language: str) -> list[list[Finding]]:
        shown = [_hidden(text, self._own(text)) for text in texts]
        found = self._detector.analyze_batch([text for text, _ in shown], language)
        return [
            findings if pieces is None else [moved for f in findings for moved in _back(f, pieces, len(text))]
            for findings, (_, pieces), text in zip(found, shown, texts, strict=True)
        ]

    @property
    def reads_sentences(self) -> bool:
        return bool(getattr(self._detector, "reads_sentences", False))

    def pending(self, text: str, low: int, known: Sequence[tuple[int, int]] = ()) -> int:
        """As the detector itself says of the text as it stands, and never in the middle of what we wrote ourselves."""
        start: int = self._detector.pending(text, low, known)  # type: ignore[attr-defined]
        for begin, end, _ in self._own(text):
            if low <= begin < start < end:
                return begin
        return start


def outside(findings: Sequence[Finding], spans: Sequence[tuple[int, int, str]]) -> list[Finding]:
    """What is left of each finding beside `spans` (sorted, without overlaps)."""
    if not spans:
        return list(findings)
    starts = [span[0] for span in spans]
    left: list[Finding] = []
    for finding in findings:
        start = finding.start
        for own_start, own_end, _ in spans[max(0, bisect_right(starts, start) - 1) :]:
            if own_start >= finding.end:
                break
            if own_start > start:
                left.append(_at(finding, start, own_start))
            start = max(start, own_end)
        if start < finding.end:
            left.append(_at(finding, start, finding.end))
    return left


def _hidden(text: str, spans: Sequence[tuple[int, int, str]]) -> tuple[str, list[_Piece] | None]:
    """The text with a placeholder for each span, and the way back; None when nothing was hidden."""
    if not spans:
        return text, None
    parts: list[str] = []
    pieces: list[_Piece] = [(0, 0)]
    length = position = 0
    for start, end, entity in spans:
        parts += [text[position:start], f"<{entity}>"]
        length += start - position + len(entity) + 2
        pieces.append((length, end))
        position = end
    return "".join([*parts, text[position:]]), pieces


def _back(finding: Finding, pieces: Sequence[_Piece], size: int) -> list[Finding]:
    """The finding at its place in the original: of placeholders it may touch, only what lies beside them."""
    start, end = _origin(finding.start, pieces), _origin(finding.end, pieces)
    return [_at(finding, start, min(end, size))] if start < end else []


def _origin(offset: int, pieces: Sequence[_Piece]) -> int:
    at = bisect_right(pieces, offset, key=lambda piece: piece[0]) - 1
    shown, original = pieces[at]
    if at + 1 < len(pieces):  # inside a placeholder: as if at its end
        return min(original + offset - shown, pieces[at + 1][1])
    return original + offset - shown


def _at(finding: Finding, start: int, end: int) -> Finding:
    return type(finding)(start, end, finding.entity, finding.score, finding.recognizer, finding.version, finding.reason)

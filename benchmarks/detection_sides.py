"""The two sides of the detection benchmark behind one call, and the clock they share.

Stock is Presidio as it ships: its default NLP configuration (conf/default.yaml) and default recognizers, only the model's name
replaced by the one that Privet uses; BatchAnalyzerEngine with batches of 256 (its best), threshold .4. It is asked for
organisations too, which its default leaves out; `without_organisations` gives what the default reports, so one run yields both.
Its look-up of public suffixes is pointed at the list that it carries, so that no time goes into a network that is not there.
Privet is `build_detector` as the protect stage calls it: the language of a text by `detect_language`, the same threshold.
Seconds are CPU seconds of the process, all threads; OMP_NUM_THREADS=1 makes them seconds of one core.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from benchmarks.detection_data import Example
from benchmarks.detection_score import Found
from privacy.detect import ENGLISH_MODEL, Detector, build_detector, build_pattern_detector, detect_language

THRESHOLD = 0.4
BATCH = 256
_WARM_CHARACTERS = 360_000  # more than the structural lane reads before it compiles its patterns
_TALK = ("please send it to my flat in Oslo, i am at work until six", "好的，请问什么时候可以到账")
Findings = list[list[Found]]


class Side(Protocol):
    name: str

    def find(self, texts: Sequence[str]) -> Findings: ...


class Stock:
    name = "stock"

    def __init__(self) -> None:
        import presidio_analyzer
        import tldextract
        import yaml
        from presidio_analyzer import AnalyzerEngine, BatchAnalyzerEngine
        from presidio_analyzer.nlp_engine import NlpEngineProvider

        logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
        tldextract.extract = tldextract.TLDExtract(suffix_list_urls=())  # type: ignore[assignment]
        shipped = Path(presidio_analyzer.__file__).parent / "conf" / "default.yaml"
        configuration = yaml.safe_load(shipped.read_text("utf-8"))
        configuration["models"] = [{"lang_code": "en", "model_name": ENGLISH_MODEL}]
        configuration["ner_model_configuration"]["labels_to_ignore"].remove("ORGANIZATION")
        engine = NlpEngineProvider(nlp_configuration=configuration).create_engine()
        self._batch = BatchAnalyzerEngine(AnalyzerEngine(nlp_engine=engine, supported_languages=["en"]))

    def find(self, texts: Sequence[str]) -> Findings:
        """English for every text: stock ships no Chinese model."""
        results = self._batch.analyze_iterator(texts, language="en", batch_size=BATCH, score_threshold=THRESHOLD)
        return [[Found(r.start, r.end, r.entity_type, r.score) for r in found] for found in results]


class Privet:
    """Any detector of privacy/detect.py, fed as the protect stage feeds it."""

    def __init__(self, name: str, detector: Detector) -> None:
        self.name = name
        self._detector = detector

    def find(self, texts: Sequence[str]) -> Findings:
        by_language: dict[str, list[int]] = {}
        for index, text in enumerate(texts):
            by_language.setdefault(detect_language(text), []).append(index)
        results: Findings = [[] for _ in texts]
        for language, indices in by_language.items():
            found = self._detector.analyze_batch([texts[i] for i in indices], language)
            for index, findings in zip(indices, found, strict=True):
                results[index] = [Found(f.start, f.end, f.entity, f.score) for f in findings]
        return results


def whole_engine() -> Privet:
    return warmed(Privet("privet", build_detector(("en", "zh"), THRESHOLD)))


def structural_lane() -> Privet:
    return warmed(Privet("structural", build_pattern_detector(THRESHOLD)))


def warmed(side: Privet) -> Privet:
    """After some thousands of generated lines and some talk, so that what is built on first use (the databases of patterns for
    machine-written lines, for talk and for Chinese) is not charged to a set, as the loading of stock's models is not;
    `cold_start` is."""
    from tests.worlds.detection_world import lines

    texts = [line.text for line in lines("dev", each=20, seed=1) if not line.spans]
    side.find(texts * (_WARM_CHARACTERS // sum(map(len, texts)) + 1))
    side.find(_TALK)
    return side


def cold_start() -> float:
    """CPU seconds until a new engine is ready: building it, and what it builds on first use; nothing is kept from before."""
    from privacy import structural
    from privacy.recognizers import rampart

    structural._database.cache_clear()
    rampart._load.cache_clear()
    began = time.process_time()
    whole_engine()
    return time.process_time() - began


def without_organisations(findings: Sequence[Sequence[Found]]) -> Findings:
    """What stock's default configuration reports."""
    return [[f for f in found if f.entity != "ORGANIZATION"] for found in findings]


@dataclass(slots=True)
class Timed:
    """Findings of one side on one set, and the CPU seconds they took."""

    findings: Findings = field(default_factory=list)
    seconds: float = 0.0

    @property
    def per_second(self) -> float:
        return len(self.findings) / max(self.seconds, 1e-9)


def run_interleaved(examples: Sequence[Example], sides: Sequence[Side], warm_up: Sequence[str] = ()) -> dict[str, Timed]:
    """Each side reads the same batches in turn, so that a slow minute of the machine is shared; `warm_up` is not timed."""
    timed = {side.name: Timed() for side in sides}
    for side in sides:
        if warm_up:
            side.find(warm_up)
    for number, start in enumerate(range(0, len(examples), BATCH)):
        texts = [example.text for example in examples[start : start + BATCH]]
        for side in sides if number % 2 == 0 else reversed(sides):
            began = time.process_time()
            found = side.find(texts)
            timed[side.name].seconds += time.process_time() - began
            timed[side.name].findings += found
    return timed

"""Presidio on both sides: its recognizers by name in our engine, ours in a stock AnalyzerEngine with the same findings."""

from __future__ import annotations

import pytest

from privacy.detect import build_detector, build_pattern_detector
from privacy.errors import PolicyError
from privacy.recognizers import RECOGNIZERS
from privacy.recognizers.presidio import allowed_names, as_presidio

TEXTS = [
    "card 4111 1111 1111 1111, ssn 078-05-1120, mail ngozi@example.com",
    "my name is Ngozi Adeyemi, call +44 20 7946 0958",
    "我的身份证11010519491231002X谢谢",
    "ship to 221B Baker Street, born 1990-01-02",
]


def test_a_presidio_recognizer_runs_by_name_with_its_context_words() -> None:
    with_uk = build_detector(["en"], 0.4, presidio_recognizers=["MedicalLicenseRecognizer", "UsMbiRecognizer"])
    text = "the doctor's medical certificate DEA number is BB1388568"
    found = [f for f in with_uk.analyze_batch([text], "en")[0] if f.version == "presidio-analyzer"]
    assert [(text[f.start : f.end], f.entity, f.recognizer) for f in found] == [
        ("BB1388568", "PERSONAL_DATA", "MedicalLicenseRecognizer")
    ]
    assert with_uk.version != build_detector(["en"], 0.4).version


def test_a_name_may_carry_its_module_and_lines_of_machines_are_read_too() -> None:
    name = "presidio_analyzer.predefined_recognizers.UuidRecognizer"
    detector = build_detector(["en"], 0.4, presidio_recognizers=[name])
    text = "2026-03-01T12:00:00Z INFO auth id=123e4567-e89b-42d3-a456-426614174000 done"
    assert "UuidRecognizer" in {f.recognizer for f in detector.analyze_batch([text], "en")[0]}


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "StanzaRecognizer",
        "presidio_analyzer.AnalyzerEngine",
        "AzureAILanguageRecognizer",
        "",
        "__import__",
        "my.module.X",
    ],
)
def test_no_name_makes_us_import_other_code(name: str) -> None:
    with pytest.raises(PolicyError, match="E-DETECT-007") as caught:
        build_detector(["en"], 0.4, presidio_recognizers=[name])
    assert not name or name not in str(caught.value)


def test_every_allowed_recognizer_can_be_built_and_run() -> None:
    names = sorted(allowed_names())
    assert {"CryptoRecognizer", "UsItinRecognizer", "PhoneRecognizer", "SpacyRecognizer"} <= set(names)
    detector = build_detector(["en"], 0.4, presidio_recognizers=names)
    assert detector.analyze_batch(TEXTS[:2], "en")[0]


def test_stock_presidio_loads_ours_and_finds_the_same() -> None:
    """Each rule alone: the engine of Presidio resolves overlaps in its own way, so spans are compared by rule."""
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry

    from privacy.detect import ENGLISH_MODEL
    from privacy.recognizers.presidio import nlp_engine
    from privacy.recognizers.view import view_of

    registry = RecognizerRegistry(recognizers=[as_presidio(rule, "en") for rule in RECOGNIZERS], supported_languages=["en"])
    engine = AnalyzerEngine(registry=registry, nlp_engine=nlp_engine(ENGLISH_MODEL), supported_languages=["en"])
    for text in TEXTS:
        theirs = {(r.start, r.end, r.entity_type) for r in engine.analyze(text, "en")}
        view = view_of(text)
        direct = {(*view.original(a, b), rule.entity) for rule in RECOGNIZERS for a, b, _ in rule.scan(view)}
        assert theirs <= direct
        ours = build_pattern_detector().analyze_batch([text], "en")[0]
        covered = {i for start, end, _ in theirs for i in range(start, end)}
        assert ours
        assert all(set(range(f.start, f.end)) <= covered for f in ours if "found elsewhere" not in f.reason)

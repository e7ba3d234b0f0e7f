"""What the language lane covers on the dev halves, and what its gate loses; bounds lie a little below what was measured."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pytest

from benchmarks.detection_data import Example, load, spread
from benchmarks.detection_score import Found, Score, score
from privacy.detect import build_detector, detect_language
from privacy.recognizers.rampart import available

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.shared_data,
    pytest.mark.skipif(not DATA.exists(), reason="the data sets beside the checkout are not there"),
    pytest.mark.skipif(not available(), reason="the optional extra `rampart` is not installed"),
]
SAMPLES = {"presidio": 500, "multidogo": 4000, "resume": 400}


@lru_cache(maxsize=8)
def measured(name: str, gated: bool) -> Score:
    examples: list[Example] = spread(load(name, "dev", DATA), SAMPLES[name])
    detector = build_detector(["en", "zh"], 0.4, gated=gated)
    found: list[list[Found]] = [[] for _ in examples]
    for language in ("en", "zh"):
        chosen = [i for i, example in enumerate(examples) if detect_language(example.text) == language]
        results = detector.analyze_batch([examples[i].text for i in chosen], language)
        for index, findings in zip(chosen, results, strict=True):
            found[index] = [Found(f.start, f.end, f.entity, f.score) for f in findings]
    return score(examples, found)


def test_sentences_with_values_of_seventeen_types() -> None:
    total = measured("presidio", True)
    assert total.cover() >= 0.95
    assert total.any_precision >= 0.80
    assert total.cover("PLACE") >= 0.96
    assert total.cover("PERSON") >= 0.96


def test_names_and_addresses_in_customer_turns() -> None:
    total = measured("multidogo", True)
    assert total.cover("PERSON") >= 0.90
    assert total.cover("PLACE") >= 0.78
    assert total.alarms_per_text <= 0.06


def test_names_in_chinese_resumes() -> None:
    total = measured("resume", True)
    assert total.cover("PERSON") >= 0.94
    assert total.any_precision >= 0.5


@pytest.mark.parametrize(
    ("name", "kinds"), [("multidogo", ("PERSON", "PLACE")), ("presidio", ("PERSON", "PLACE", "ORGANIZATION"))]
)
def test_the_gate_loses_almost_nothing(name: str, kinds: tuple[str, ...]) -> None:
    """At most one in a hundred of the names, places and organisations that the models find where they read everything."""
    assert measured(name, True).cover(*kinds) >= measured(name, False).cover(*kinds) - 0.01

"""The metrics of detection on cases small enough to be worked out by hand, and against a naive twin."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.detection_data import Example, Span
from benchmarks.detection_score import KIND, Found, matches, resolved, score
from benchmarks.detection_sides import run_interleaved, without_organisations
from privacy.entities import ENTITY_TYPES


def example(text: str, *spans: Span, neutral: tuple[Span, ...] = ()) -> Example:
    return Example(text, spans, "origin", neutral)


def test_half_of_the_characters_is_covered_and_fewer_are_not() -> None:
    gold = example("my card 4111111111", Span(8, 18, "CARD"))
    assert score([gold], [[Found(8, 13, "PERSON", 0.5)]]).cover() == 1.0
    assert score([gold], [[Found(8, 12, "CREDIT_CARD", 0.5)]]).cover() == 0.0
    assert score([gold], [[Found(8, 10, "DATE_TIME", 0.5), Found(15, 18, "PERSON", 0.5)]]).cover() == 1.0


def test_fully_covered_asks_for_every_letter_and_digit_but_not_for_signs() -> None:
    gold = example("+44 20-7946", Span(0, 11, "PHONE"))
    assert score([gold], [[Found(1, 11, "PHONE_NUMBER", 0.5)]]).fully() == 1.0
    assert score([gold], [[Found(1, 10, "PHONE_NUMBER", 0.5)]]).fully() == 0.0


def test_the_right_kind_is_asked_of_the_winner_only() -> None:
    gold = example("4111111111", Span(0, 10, "CARD"))
    found = [Found(0, 10, "CREDIT_CARD", 0.4), Found(0, 10, "PHONE_NUMBER", 0.6)]
    assert score([gold], [found]).right_kind() == 0.0
    assert score([gold], [[Found(0, 10, "CN_BANK_CARD", 0.4)]]).right_kind() == 1.0


def test_precision_and_recall_of_a_worked_case() -> None:
    text = "John Smith of Leeds called 0123456789 on Monday"
    gold = example(text, Span(0, 10, "PERSON"), Span(14, 19, "PLACE"), Span(27, 37, "PHONE"))
    total = score([gold], [[Found(0, 10, "PERSON", 0.8), Found(14, 19, "PERSON", 0.8), Found(41, 47, "DATE_TIME", 0.8)]])
    assert total.any_precision == pytest.approx(2 / 3)
    assert total.any_recall == pytest.approx(2 / 3)
    assert total.typed_f1 == pytest.approx(2 * 1 / (3 + 3))
    assert total.char_precision == pytest.approx(15 / 21)
    assert total.char_recall == pytest.approx(15 / 25)
    assert total.false_alarms == 1
    assert total.cover("PHONE") == 0.0
    assert total.cover("PERSON", "PLACE") == 1.0


def test_a_long_finding_over_a_short_value_is_no_match_but_covers_it() -> None:
    gold = example("x" * 40, Span(0, 4, "PERSON"))
    total = score([gold], [[Found(0, 40, "PERSON", 0.8)]])
    assert (total.matched, total.cover(), total.false_alarms) == (0, 1.0, 0)
    assert total.char_precision == pytest.approx(0.1)


def test_two_pieces_of_one_value_match_it_once() -> None:
    assert matches([Found(0, 5, "PERSON", 0.8), Found(5, 10, "PERSON", 0.8)], [Span(0, 10, "PERSON")], typed=True) == 1
    assert matches([Found(0, 10, "PERSON", 0.8)], [Span(0, 5, "PERSON"), Span(5, 10, "PERSON")], typed=True) == 1


def test_a_finding_on_a_neutral_span_counts_for_nothing() -> None:
    gold = example("Dr. Smith", Span(4, 9, "PERSON"), neutral=(Span(0, 3, "NEUTRAL"),))
    total = score([gold], [[Found(0, 3, "PERSON", 0.9), Found(4, 9, "PERSON", 0.8)]])
    assert (total.found, total.any_precision, total.char_precision, total.false_alarms) == (1, 1.0, 1.0, 0)


def test_nothing_to_measure_is_not_a_number() -> None:
    assert math.isnan(score([example("hello")], [[]]).cover())
    assert score([example("hello")], [[Found(0, 5, "PERSON", 0.5)]]).alarms_per_text == 1.0


def test_of_overlapping_findings_the_higher_score_stays_then_the_longer() -> None:
    found = [Found(0, 5, "A", 0.5), Found(3, 9, "B", 0.9), Found(9, 12, "C", 0.4), Found(9, 14, "D", 0.4)]
    assert [f.entity for f in resolved(found)] == ["B", "D"]


FOUND = st.builds(
    lambda start, size, entity, value: Found(start, start + size, entity, value),
    st.integers(0, 25), st.integers(1, 8), st.sampled_from(["PERSON", "LOCATION", "CREDIT_CARD"]),
    st.sampled_from([0.4, 0.6, 1.0]),
)  # fmt: skip
GOLD = st.lists(st.tuples(st.integers(0, 25), st.integers(1, 8), st.sampled_from(["PERSON", "PLACE", "CARD"])), max_size=5)


@settings(max_examples=150, deadline=None)
@given(st.lists(FOUND, max_size=6), GOLD)
def test_the_score_agrees_with_a_naive_twin(found: list[Found], raw: list[tuple[int, int, str]]) -> None:
    text = "a" * 40
    spans = tuple(Span(start, start + size, kind) for start, size, kind in raw)
    total = score([Example(text, spans, "o")], [found])
    marks = [any(f.start <= i < f.end for f in found) for i in range(40)]
    gold_marks = [any(s.start <= i < s.end for s in spans) for i in range(40)]
    covered = sum(sum(marks[s.start : s.end]) * 2 >= s.end - s.start for s in spans)
    assert sum(c.covered for c in total.kinds.values()) == covered
    assert total.union_chars == sum(marks)
    assert total.union_gold_chars == sum(a and b for a, b in zip(marks, gold_marks, strict=True))
    assert total.matched_typed <= total.matched <= min(total.found, total.gold)
    assert sum(c.fully for c in total.kinds.values()) <= covered


def test_every_type_of_ours_has_a_kind_that_gold_can_have() -> None:
    # A type that is renamed in entities.py and forgotten here would count as the wrong kind for ever.
    plain = {"PERSON", "USERNAME", "SECRET", "IBAN", "IMEI", "NRP", "ORGANIZATION", "URL", "CRYPTO", "PERSONAL_DATA"} | {
        "DRIVER_LICENSE",
        "LICENSE_PLATE",
    }
    assert set(KIND) | plain >= ENTITY_TYPES, sorted(ENTITY_TYPES - set(KIND) - plain)


def test_stock_without_organisations_is_what_its_default_reports() -> None:
    findings = [[Found(0, 3, "ORGANIZATION", 0.8), Found(4, 6, "PERSON", 0.8)]]
    assert without_organisations(findings) == [[Found(4, 6, "PERSON", 0.8)]]


def test_both_sides_read_the_same_batches_in_turn_and_results_stay_in_order() -> None:
    class Echo:
        def __init__(self, name: str) -> None:
            self.name = name
            self.batches: list[list[str]] = []

        def find(self, texts: list[str]) -> list[list[Found]]:
            self.batches.append(list(texts))
            return [[Found(0, len(text), "PERSON", 1.0)] for text in texts]

    sides = [Echo("a"), Echo("b")]
    examples = [example("x" * (n % 7 + 1)) for n in range(600)]
    timed = run_interleaved(examples, sides, ["warm"])  # type: ignore[arg-type]
    assert sides[0].batches == sides[1].batches
    assert [len(batch) for batch in sides[0].batches] == [1, 256, 256, 88]
    for run in timed.values():
        assert [found[0].end for found in run.findings] == [len(e.text) for e in examples]

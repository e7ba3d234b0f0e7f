"""What a figure of detection rests on: gold that points at its value, and halves that share nothing and never move."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from benchmarks.detection import main
from benchmarks.detection_data import HALVES, SETS, Span, half_of, load, slot_example, spread, template_key

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the shared data sets are not beside the checkout")


def test_the_half_of_a_template_is_the_same_on_every_machine() -> None:
    keys = [f"template {n}" for n in range(400)]
    halves = "".join(str(HALVES.index(half_of(key))) for key in keys)
    assert hashlib.sha256(halves.encode()).hexdigest().startswith("777b38fc8d82"), "a moved split shows scored texts to authors"
    assert 150 < halves.count("0") < 250


def test_templates_that_differ_in_values_case_or_punctuation_only_are_one() -> None:
    assert template_key("My name is {{PERSON}}!") == template_key("my  name is {{first_name}}") == "my name is #"
    assert template_key("My name is {{PERSON}}") != template_key("The name is {{PERSON}}")
    assert template_key("{name_male} at [{{city}}]") == "# at #"


def test_slot_labels_become_character_spans() -> None:
    example = slot_example("sara janice ssn 4529 on monday", ["name", "name", "O", "ssn", "O", "charge_date"], "c")
    assert [(example.text[s.start : s.end], s.kind) for s in example.spans] == [("sara janice", "PERSON"), ("4529", "SSN")]
    assert [(example.text[s.start : s.end], s.kind) for s in example.neutral] == [("monday", "NEUTRAL")]


def test_a_number_slot_without_a_digit_is_not_asked_for() -> None:
    example = slot_example("number is 12 34", ["O", "card_number", "card_number", "card_number"], "c")
    assert example.spans == (Span(7, 15, "CARD"),)
    assert slot_example("is e 5", ["card_number", "O", "ssn"], "c").spans == (Span(5, 6, "SSN"),)


def test_equal_labels_with_a_word_between_are_two_spans() -> None:
    assert slot_example("5644 and 8876", ["ssn", "O", "ssn"], "c").spans == (Span(0, 4, "SSN"), Span(9, 13, "SSN"))


def test_a_sample_is_spread_and_never_drawn() -> None:
    examples = [slot_example(str(n), ["O"], str(n)) for n in range(10)]
    assert [e.text for e in spread(examples, 5)] == ["0", "2", "4", "6", "8"]
    assert spread(examples, 99) == examples
    assert spread(examples, 0) == []


@needs_data
@pytest.mark.shared_data
@pytest.mark.parametrize("name", sorted(SETS))
def test_no_group_is_in_both_halves_and_gold_lies_in_its_text(name: str) -> None:
    halves = [load(name, half, DATA) for half in HALVES]
    groups = [{example.origin for example in examples} for examples in halves]
    assert all(groups)
    assert not groups[0] & groups[1]
    for example in (example for examples in halves for example in examples):
        for span in (*example.spans, *example.neutral):
            assert 0 <= span.start < span.end <= len(example.text)
            assert example.text[span.start : span.end].strip()


@needs_data
@pytest.mark.shared_data
def test_templates_of_both_presidio_files_are_split_together() -> None:
    origins = {half: {e.origin for e in load("presidio", half, DATA)} for half in HALVES}
    assert all(half_of(origin) == half for half in HALVES for origin in origins[half])
    assert len(origins["dev"]) > 80
    assert len(origins["scored"]) > 80


@pytest.mark.parametrize(
    "arguments",
    [
        ["--only", "presidio", "--half", "scored", "--misses", "5"],
        ["--only", "generated", "--half", "scored", "--alarms", "1"],
        ["--misses", "5"],
    ],
)
def test_texts_of_the_scored_half_are_not_shown(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "scored half are not shown" in capsys.readouterr().err


def test_an_unknown_half_or_set_is_refused() -> None:
    with pytest.raises(KeyError):
        load("presidio", "held_out", DATA)
    with pytest.raises(KeyError):
        load("gold", "dev", DATA)
    with pytest.raises(FileNotFoundError):
        load("presidio", "dev", DATA / "nowhere")

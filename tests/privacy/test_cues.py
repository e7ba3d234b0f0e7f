"""What the words around a name say: employers, places, lists, cards, addresses in lines; and what must not be taken for one."""

from __future__ import annotations

import pytest

from privacy.detect import ENGLISH_MODEL
from privacy.findings import Finding
from privacy.recognizers import cues, spelling
from privacy.recognizers.lexicon import lexicon

WORDS = lexicon(ENGLISH_MODEL)


def said(text: str, found: tuple[Finding, ...] = ()) -> dict[str, str]:
    return {text[f.start : f.end]: f.entity for f in cues.by_cue(text, found, WORDS)}


@pytest.mark.parametrize(
    ("text", "value", "entity"),
    [
        ("she works for Quillon as a clerk", "Quillon", "ORGANIZATION"),
        ("The head of design at the Veltro office called.", "Veltro", "ORGANIZATION"),
        ("Marrowby is a small insurance company.", "Marrowby", "ORGANIZATION"),
        ("i used to work for quillon brothers until may", "quillon brothers", "ORGANIZATION"),
        ("the invoice of veltro dynamics inc. is wrong", "veltro dynamics inc.", "ORGANIZATION"),
        ("he grew up in zwijndrecht and left", "zwijndrecht", "LOCATION"),
        ("We flew to Hódmezővásárhely last night", "Hódmezővásárhely", "LOCATION"),
        ("dear ulfson, bergqvist and tanneberg", "bergqvist", "PERSON"),
        ('wrenna: "who is there?"', "wrenna", "PERSON"),
        ("send it to USS Larkspur\nFPO AE 09641 please", "USS Larkspur\nFPO AE 09641", "ADDRESS"),
        ("PSC 4417, Box 912\nAPO AP 96218", "PSC 4417, Box 912\nAPO AP 96218", "ADDRESS"),
    ],
)
def test_a_cue_names_what_stands_beside_it(text: str, value: str, entity: str) -> None:
    assert said(text).get(value) == entity


@pytest.mark.parametrize(
    "text",
    [
        "i work for the government and go to school",
        "The Customer Support office is closed.",
        "we are going to the bank, the shop and the park",
        "thanks, bye and good night",
        "I am from the billing department",
        'note: "the card is lost"',
        "The American office opens late.",
    ],
)
def test_everyday_words_beside_a_cue_are_left_alone(text: str) -> None:
    assert said(text) == {}


def test_what_is_found_already_is_not_named_again() -> None:
    text = "she works for Quillon as a clerk"
    known = Finding(14, 21, "PERSON", 0.6, "model", "1")
    assert said(text, (known,)) == {}


def test_the_line_between_a_name_and_an_address_is_an_employer() -> None:
    text = "Delia Wrenn\nBench grinder\nVeltro Dynamics\n48 Larkspur Crescent\nBoise"
    start = text.index("48")
    address = Finding(start, start + 20, "ADDRESS", 0.8, "model", "1")
    assert said(text, (address,)) == {"Veltro Dynamics": "ORGANIZATION"}
    assert said(text) == {}


def block(text: str, value: str) -> str:
    start = text.index(value)
    whole = cues.whole_block(text, Finding(start, start + len(value), "ADDRESS", 0.8, "model", "1"))
    return text[whole.start : whole.end]


def test_an_address_over_lines_is_one_up_to_its_postal_code() -> None:
    text = "Wrenn\n864 Piazzetta Delle Rubie 104\n Apt. 905\n Serrada\n\n Italy 75263\nCall me soon, please."
    assert block(text, "Piazzetta Delle Rubie 104") == text[text.index("864") : text.index("\nCall")]


@pytest.mark.parametrize("rest", ["\nPlease call me tomorrow before ten.", "\nIs it 12345?", "\nSerrada\nItaly", ""])
def test_lines_without_a_postal_code_are_no_part_of_the_address(rest: str) -> None:
    assert block("9 Hill Road" + rest, "9 Hill Road") == "9 Hill Road"


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("from Equatorial Guinea to the isle of man", ["Equatorial Guinea", "isle of man"]),
        ("born in côte d'ivoire, not in reading", ["côte d'ivoire"]),
        ("my mail is info@oslo.example and oslo.txt", []),
        ("Berlin-based, in Oslo.", ["Berlin", "Oslo"]),
    ],
)
def test_places_of_the_closed_lists(text: str, places: list[str]) -> None:
    assert [text[f.start : f.end] for f in spelling.lexical(text) if f.entity == "LOCATION"] == places

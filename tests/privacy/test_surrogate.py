"""Surrogates: realistic, in ranges nobody was ever given, known again, and never the value itself."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy import surrogate_kinds as kinds
from privacy.entities import SURROGATE_TYPES
from privacy.recognizers.cards import CARDS
from privacy.recognizers.names import GIVEN_NAMES, PLACE_NAMES, STOP_WORDS, SURNAMES, TALK_WORDS
from privacy.surrogate import TYPES, Marks, Surrogates
from privacy.surrogate_words import HAN_FAMILY, HAN_GIVEN, family_names, given_names

MARKS = Marks(b"m" * 32)
MAKE = Surrogates(b"k" * 32, MARKS)
VALUES = [
    ("PERSON", "Alice Smith"),
    ("PERSON", "alice"),
    ("PERSON", "ALICE B. SMITH"),
    ("PERSON", "Dr. Jean-Luc O'Neill"),
    ("PERSON", "张伟"),
    ("EMAIL_ADDRESS", "alice.smith@corp.co.uk"),
    ("EMAIL_ADDRESS", "a@b.co"),
    ("PHONE_NUMBER", "+1 (415) 555-2671"),
    ("PHONE_NUMBER", "1-415-555-2671"),
    ("PHONE_NUMBER", "415.555.2671"),
    ("PHONE_NUMBER", "+44 7911 123456"),
    ("PHONE_NUMBER", "020 7946 0958"),
    ("PHONE_NUMBER", "13812345678"),
    ("PHONE_NUMBER", "+86 138 1234 5678"),
    ("PHONE_NUMBER", "010-12345678"),
    ("PHONE_NUMBER", "+49 30 1234567"),
    ("ADDRESS", "12 Main Street"),
    ("ADDRESS", "742 Evergreen Terrace, Springfield, IL 62704"),
    ("ADDRESS", "浙江省杭州市西湖区文三路12号"),
    ("LOCATION", "Berlin"),
    ("CREDIT_CARD", "4111 1111 1111 1111"),
    ("CN_BANK_CARD", "6222021234567890123"),
    ("IBAN", "DE89 3704 0044 0532 0130 00"),
    ("US_SSN", "078-05-1120"),
    ("CN_RESIDENT_ID", "11010519491231002X"),
    ("IMEI", "490154203237518"),
    ("IP_ADDRESS", "81.2.3.4"),
    ("IP_ADDRESS", "2a00::1"),
    ("MAC_ADDRESS", "aa:bb:cc:dd:ee:ff"),
    ("USERNAME", "asmith"),
    ("PASSPORT_NUMBER", "X12345678"),
    ("ORDER_NUMBER", "AB-2024-00123"),
    ("NHS_NUMBER", "943 476 5919"),
    ("CN_USCC", "91350100M000100Y43"),
]


@pytest.mark.parametrize(("entity", "value"), VALUES)
def test_a_surrogate_is_known_again_as_a_whole_and_is_not_the_value(entity: str, value: str) -> None:
    made = MAKE.of(entity, value)
    assert made is not None
    assert MAKE.of(entity, value) == made
    for before, after in (("so ", ", ok"), ("", ""), ("<", ">"), ('{"k":"', '"}'), ("，", "，")):
        assert [s[:2] for s in MARKS.spans(before + made + after)] == [(len(before), len(before) + len(made))]
    assert value.lower() not in made.lower()
    assert MARKS.spans(value) == []
    assert Surrogates(b"x" * 32, MARKS).of(entity, value) != made or entity == "MAC_ADDRESS"
    assert Marks(b"other" * 8).spans(made) in ([], MARKS.spans(made)[:1]) or entity in ("MAC_ADDRESS", "PERSON", "PHONE_NUMBER")


@pytest.mark.parametrize(
    ("entity", "value", "shape"),
    [
        ("PERSON", "Alice Smith", r"[A-Z][a-z]+ [A-Z][a-z]+"),
        ("PERSON", "alice", r"[a-z]+"),
        ("PERSON", "ALICE B. SMITH", r"[A-Z]+ [A-Z]+ [A-Z]+"),
        ("PERSON", "张伟", r"[\u4e00-\u9fff]{4}"),
        ("EMAIL_ADDRESS", "a@corp.com", r"[a-z]+[0-9]{3}@example\.(com|net|org)"),
        ("PHONE_NUMBER", "+1 (415) 555-2671", r"\+1 \([2-9][0-9]{2}\) 555-01[0-9]{2}"),
        ("PHONE_NUMBER", "+44 7911 123456", r"\+44 7700 900 [0-9]{3}"),
        ("PHONE_NUMBER", "13812345678", r"14[23][0-9]{8}"),
        ("CREDIT_CARD", "4111 1111 1111 1111", r"0[0-9]{3}( [0-9]{4}){3}"),
        ("IBAN", "DE89370400440532013000", r"QZ[0-9]{20}"),
        ("US_SSN", "078-05-1120", r"9[0-9]{2}-[0-4][0-9]-[0-9]{4}"),
        ("IP_ADDRESS", "81.2.3.4", r"2[45][0-9](\.[0-9]{1,3}){3}"),
        ("IP_ADDRESS", "2a00::1", r"2001:db8:.*"),
        ("CN_RESIDENT_ID", "11010519491231002X", r"99[0-9]{15}[0-9X]"),
        ("PASSPORT_NUMBER", "X12345678", r"Z0[0-9]{7}"),
        ("ADDRESS", "浙江省杭州市西湖区文三路12号", r"..市..路[0-9]+号"),
    ],
)
def test_a_surrogate_keeps_script_and_length_class_in_a_reserved_range(entity: str, value: str, shape: str) -> None:
    assert re.fullmatch(shape, MAKE.of(entity, value) or "")


def test_the_same_name_is_the_same_surrogate_word_by_word_and_another_for_another_subject() -> None:
    whole, alone = MAKE.of("PERSON", "Alice Smith", "u1"), MAKE.of("PERSON", "Alice", "u1")
    assert whole is not None
    assert whole.split()[0] == alone
    assert MAKE.of("PERSON", "ALICE SMITH", "u1") == whole.upper()
    assert MAKE.of("PERSON", "Alice Smith", "u2") != whole


def test_numbers_pass_their_checksums_and_no_issuer_rule() -> None:
    for n in range(50):
        card = MAKE.of("CREDIT_CARD", f"4{n:015d}") or ""
        assert kinds.luhn(card[:-1]) == card[-1]
        iban = MAKE.of("IBAN", f"DE89{n:018d}") or ""
        assert int(iban[4:] + "2635" + iban[2:4]) % 97 == 1
        identity = MAKE.of("CN_RESIDENT_ID", f"11010519491231{n:03d}X") or ""
        weights = [2 ** (17 - i) % 11 for i in range(17)]
        assert "10X98765432"[sum(int(d) * w for d, w in zip(identity, weights, strict=False)) % 11] == identity[-1]
    from privacy.recognizers.view import view_of

    assert not any(rule.scan(view_of(MAKE.of("CREDIT_CARD", "4111111111111111") or "")) for rule in CARDS)


@pytest.mark.parametrize("range_", [r for r in vars(kinds).values() if isinstance(r, kinds.Range)], ids=lambda r: r.kind)
def test_every_string_of_a_range_reads_back_to_its_number(range_: kinds.Range) -> None:
    draw = random.Random(range_.kind)
    for _ in range(40):
        index = draw.randrange(range_.size)
        if range_.kind in ("given", "family"):
            words = given_names() if range_.kind == "given" else family_names()
            assert kinds.word_slot(words[index].upper()) == kinds.Slot(range_, index)
            continue
        text = kinds.WRITERS[range_.kind](index)
        text = {"nanp": "+1", "uk mobile": "+44", "uk land": "+44", "cn land": "0"}.get(range_.kind, "") + text
        if range_.kind == "mac":
            text = ":".join(text[n : n + 2] for n in range(0, 12, 2))
        slots = [
            reader(m)
            for _, sign, pattern, reader in kinds.READERS
            if sign in text
            for m in pattern.finditer(text)
            if len(m.group()) == len(text)
        ]
        assert kinds.Slot(range_, index) in slots


def test_few_strings_of_a_range_bear_the_mark() -> None:
    """The probability that is stated: 1 in `marks`."""
    bearing = sum(MARKS.bears(kinds.Slot(kinds.NANP, n)) for n in range(kinds.NANP.size))
    assert bearing == kinds.NANP.size // kinds.NANP.marks
    assert sum(MARKS.bears(kinds.Slot(kinds.GIVEN, n)) for n in range(4096)) == 128
    assert sum(MARKS.bears(kinds.Slot(kinds.FAMILY, n)) for n in range(32_768)) == 512


def test_invented_names_are_nobodys_and_no_words() -> None:
    known = GIVEN_NAMES | SURNAMES | PLACE_NAMES | STOP_WORDS | TALK_WORDS
    invented = [w.lower() for w in (*given_names(), *family_names())]
    assert len(set(invented)) == len(invented) == 36_864
    assert not known & set(invented)
    assert len(set(HAN_FAMILY)) == 32
    assert len(set(HAN_GIVEN)) == 64


def test_what_has_no_known_form_has_no_surrogate() -> None:
    assert MAKE.of("ACCOUNT_NUMBER", "123") is None
    assert MAKE.of("LOCATION", "北京") is None
    assert MAKE.of("PASSWORD", "hunter22") is None
    assert MAKE.of("PERSON", "...") is None


def test_the_types_of_policy_and_of_code_are_the_same() -> None:
    assert TYPES == SURROGATE_TYPES


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(TYPES)), st.text(min_size=1, max_size=40), st.text(max_size=5))
def test_no_value_breaks_it_and_each_surrogate_is_known(entity: str, value: str, subject: str) -> None:
    made = MAKE.of(entity, value, subject)
    if made is not None:
        assert [s[:2] for s in MARKS.spans(made)] == [(0, len(made))]


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=st.sampled_from("0Z1a@.-+ :5公冶清远Mira市路号"), max_size=300))
def test_spans_are_valid_sorted_and_apart(text: str) -> None:
    end = 0
    for start, stop, entity in MARKS.spans(text):
        assert end <= start < stop <= len(text)
        assert entity in TYPES
        end = stop

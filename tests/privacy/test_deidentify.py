"""Placeholders: typed, keyed, never more than they say, and refused where findings do not fit the text."""

from __future__ import annotations

import pytest

from privacy.deidentify import Deidentifier
from privacy.detect import Finding, build_pattern_detector
from privacy.errors import DataError, PolicyError

KEY = b"k" * 32


def finding(text: str, value: str, entity: str) -> Finding:
    start = text.index(value)
    return Finding(start, start + len(value), entity, 1.0, "test", "1")


def treated(value: str, entity: str, treatment: str, key: bytes = KEY) -> str:
    return Deidentifier({entity: treatment}, "redact", key).apply(value, [finding(value, value, entity)])[0]


def test_a_pseudonym_is_stable_for_one_key_and_unlinkable_without_it() -> None:
    one = treated("Alice Smith", "PERSON", "pseudonym")
    assert one == treated("ALICE  SMITH", "PERSON", "pseudonym")
    assert one != treated("Alice Smith", "PERSON", "pseudonym", b"x" * 32)
    assert one != treated("Bob Smith", "PERSON", "pseudonym")
    assert one.startswith("<PERSON_")
    assert len(one) == len("<PERSON_3fa9c1>")


@pytest.mark.parametrize(
    ("value", "entity", "treatment", "expected"),
    [
        ("4111 1111 1111 1111", "CREDIT_CARD", "mask", "<CREDIT_CARD:*1111>"),
        ("7548", "CREDIT_CARD", "mask", "<CREDIT_CARD:*>"),
        ("078-05-1120", "US_SSN", "mask", "<US_SSN:*>"),
        ("10.1.2.3", "IP_ADDRESS", "generalise", "<IP_ADDRESS:10.1.2.0/24>"),
        ("2001:db8:1:2::3", "IP_ADDRESS", "generalise", "<IP_ADDRESS:2001:db8:1::/48>"),
        ("1990-12-31", "DATE_OF_BIRTH", "generalise", "<DATE_OF_BIRTH:1990-12>"),
        ("3 May 1990", "DATE_OF_BIRTH", "generalise", "<DATE_OF_BIRTH:1990-05>"),
        ("03/05/1990", "DATE_OF_BIRTH", "generalise", "<DATE_OF_BIRTH:1990>"),
        ("1990年5月3日", "DATE_OF_BIRTH", "generalise", "<DATE_OF_BIRTH:1990-05>"),
        ("34", "AGE", "generalise", "<AGE:30-39>"),
        ("97", "AGE", "generalise", "<AGE:90-130>"),
        ("Alice Smith", "PERSON", "generalise", "<PERSON>"),
        ("Berlin", "LOCATION", "keep", "Berlin"),
        ("x", "SOMETHING_NEW", "redact", "<PERSONAL_DATA>"),
    ],
)
def test_a_treatment_shows_no_more_than_it_says(value: str, entity: str, treatment: str, expected: str) -> None:
    assert treated(value, entity, treatment) == expected


@pytest.mark.parametrize("treatment", ["redact", "mask", "pseudonym", "generalise"])
def test_every_treatment_is_idempotent(treatment: str) -> None:
    detector = build_pattern_detector()
    text = "I'm Alice Smith, born 1990-12-31, card 4111 1111 1111 1111, ip 81.2.3.4, a@example.com, 我叫张伟，手机13812345678"
    treat = Deidentifier({}, treatment, KEY)
    once, counts = treat.apply(text, detector.analyze_batch([text], "en")[0])
    assert sum(counts.values()) >= 7
    assert detector.analyze_batch([once], "en")[0] == []


def test_findings_of_another_text_are_refused_without_showing_it() -> None:
    treat = Deidentifier({}, "redact", KEY)
    for bad in (
        [Finding(0, 99, "PERSON", 1, "t", "1")],
        [Finding(0, 3, "PERSON", 1, "t", "1"), Finding(2, 4, "PERSON", 1, "t", "1")],
    ):
        with pytest.raises(DataError, match="E-DEID-003") as caught:
            treat.apply("alice", bad)
        assert "alice" not in str(caught.value)


def test_a_default_that_keeps_everything_is_refused() -> None:
    with pytest.raises(PolicyError, match="E-DEID-002"):
        Deidentifier({}, "keep", KEY)
    with pytest.raises(PolicyError, match="E-DEID-002"):
        Deidentifier({}, "redact", b"")
    with pytest.raises(PolicyError, match="E-DEID-001"):
        Deidentifier({"PERSON": "hide"}, "redact", KEY)

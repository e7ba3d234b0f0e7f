"""Each rule finds what it is for, beside any key and in a machine's line, and leaves what only looks like it."""

from __future__ import annotations

import pytest

from privacy.entities import ENTITY_TYPES
from privacy.findings import Finding
from privacy.recognizers import RECOGNIZERS
from privacy.recognizers.cards import IBAN_LENGTHS, iban_valid
from privacy.recognizers.cn import resident_id_valid, uscc_valid
from privacy.recognizers.documents import mrz_check_digit, nhs_valid, npi_valid
from privacy.recognizers.names import GIVEN_NAMES
from privacy.recognizers.spec import luhn
from privacy.recognizers.view import view_of
from privacy.structural import StructuralLane
from tests.privacy.recognizer_cases import CASES, REFUSED, Case

LANE = StructuralLane(RECOGNIZERS, engine="python")
BY_NAME = {r.name: r for r in RECOGNIZERS}
OF_NAMES = {r.name for r in RECOGNIZERS if r.entity in ("PERSON", "ADDRESS", "LOCATION")}  # tested with the language lane


def analyze(text: str) -> list[Finding]:
    return LANE.analyze_batch([text])[0]


@pytest.mark.parametrize("case", CASES, ids=[f"{c.rule}-{i}" for i, c in enumerate(CASES)])
def test_a_rule_finds_its_type(case: Case) -> None:
    values = {case.text[f.start : f.end]: f.entity for f in analyze(case.text)}
    assert values.get(case.value) == case.entity


@pytest.mark.parametrize("case", CASES, ids=[f"{c.rule}-{i}" for i, c in enumerate(CASES)])
def test_the_rule_itself_matches(case: Case) -> None:
    if case.rule == "number_beside_finding":
        return  # speaks only once its neighbour is masked
    view = view_of(case.text)
    spans = [view.original(start, end) for start, end, _ in BY_NAME[case.rule].scan(view)]
    assert case.value in [case.text[start:end] for start, end in spans]


@pytest.mark.parametrize(("rule", "text"), REFUSED)
def test_a_rule_leaves_what_only_looks_like_its_type(rule: str, text: str) -> None:
    assert BY_NAME[rule].scan(view_of(text)) == []


def test_every_rule_has_a_text_that_it_finds() -> None:
    assert set(BY_NAME) - OF_NAMES - {case.rule for case in CASES} == set()


def test_every_finding_says_why_and_never_shows_the_value() -> None:
    for case in CASES:
        for finding in analyze(case.text):
            assert len(finding.reason) > 10
            assert case.text[finding.start : finding.end] not in finding.reason or finding.end - finding.start < 3
            assert finding.entity in ENTITY_TYPES


def _twin_mod97(text: str) -> int:
    """Naive twin: the definition, digit by digit."""
    rest = 0
    for char in text[4:] + text[:4]:
        for digit in str("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ".index(char)):
            rest = (rest * 10 + int(digit)) % 97
    return rest


def test_checksums_agree_with_naive_twins_and_published_values() -> None:
    assert luhn("79927398713")
    assert not luhn("79927398710")
    assert iban_valid("GB82WEST12345698765432")
    assert _twin_mod97("GB82WEST12345698765432") == 1
    assert iban_valid("NO9386011117947")
    assert not iban_valid("GB82WEST1234569876543")
    assert len(IBAN_LENGTHS) > 75
    assert nhs_valid("9434765919")
    assert npi_valid("1234567893")
    assert mrz_check_digit("L898902C3") == "6"
    assert resident_id_valid("11010519491231002X")
    assert uscc_valid("91350100M000100Y43")


@pytest.mark.parametrize(
    ("valid", "value"),
    [
        (luhn, "4111111111111111"),
        (iban_valid, "DE89370400440532013000"),
        (nhs_valid, "9434765919"),
        (npi_valid, "1234567893"),
        (resident_id_valid, "110105194912310028"),
        (uscc_valid, "91350100M000100Y43"),
    ],
)
def test_a_checksum_catches_every_wrong_digit(valid: object, value: str) -> None:
    assert callable(valid)
    if valid is resident_id_valid:
        value = next(v for d in "0123456789X" if resident_id_valid(v := value[:17] + d))
    assert valid(value)
    for index, char in enumerate(value):
        for other in "0123456789":
            if char.isdigit() and other != char:
                assert not valid(value[:index] + other + value[index + 1 :])


def test_homoglyphs_are_read_as_what_they_imitate_and_offsets_point_into_the_original() -> None:
    text = "см. р\u200baypal: аdmin.jones@ехample.com!"
    (finding,) = [f for f in analyze(text) if f.entity == "EMAIL_ADDRESS"]
    assert text[finding.start : finding.end] == "аdmin.jones@ехample.com"
    assert view_of("Москва и Афины").text == "Москва и Афины", "a word of another script stays one"


def test_an_account_name_may_be_a_given_name_but_not_a_system_account() -> None:
    name = sorted(GIVEN_NAMES)[0]
    findings = analyze(f"Jun 14 15:16:01 web sshd[1]: Invalid user {name} from 10.0.0.1")
    assert findings[0].entity == "USERNAME"
    assert all(f.entity != "USERNAME" for f in analyze("Jun 14 15:16:01 web sshd[1]: Invalid user postgres from 10.0.0.1"))

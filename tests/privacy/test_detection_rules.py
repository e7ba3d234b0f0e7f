"""A policy's own detection: what it lists is found or left, and a pattern that could be slow or wrong never loads."""

from __future__ import annotations

import pytest

from privacy.detect import build_detector, build_pattern_detector
from privacy.detection_rules import DetectionRules, OwnPattern
from privacy.errors import PolicyError

STAFF = OwnPattern(
    "staff", "CUSTOMER_NUMBER", "EMP-[0-9]{5}", examples=("by EMP-00412.",), counterexamples=("EMP-12", "XEMP-00412")
)


def found(text: str, rules: DetectionRules) -> dict[str, str]:
    return {text[f.start : f.end]: f.entity for f in build_pattern_detector(0.0, rules).analyze_batch([text], "en")[0]}


def test_a_pattern_of_the_policy_finds_its_type_in_any_spelling() -> None:
    rules = DetectionRules(patterns=(STAFF,))
    assert found("INFO by emp-00412 and ＥＭＰ-00413", rules) == {
        "emp-00412": "CUSTOMER_NUMBER",
        "ＥＭＰ-00413": "CUSTOMER_NUMBER",
    }
    assert found("INFO by EMP-00412x", rules) == {}


def test_lists_thresholds_and_types_decide_what_counts() -> None:
    text = "mail info@example.com and bob@example.com from 10.1.2.3 about Zorblax, zorblax"
    assert found(text, DetectionRules(allow=("INFO@example.com",))) == {
        "bob@example.com": "EMAIL_ADDRESS",
        "10.1.2.3": "IP_ADDRESS",
    }
    assert found(text, DetectionRules(deny={"Zorblax": "PERSON"}))["zorblax"] == "PERSON"
    assert found(text, DetectionRules(entities=frozenset({"IP_ADDRESS"}))) == {"10.1.2.3": "IP_ADDRESS"}
    assert "10.1.2.3" not in found(text, DetectionRules(thresholds={"IP_ADDRESS": 0.99}))


def test_the_rules_are_part_of_the_version() -> None:
    plain, listed = build_pattern_detector(), build_pattern_detector(0.0, DetectionRules(allow=("x",)))
    assert plain.version != listed.version != build_pattern_detector(0.0, DetectionRules(allow=("y",))).version
    assert build_detector(["zh"], 0.4, DetectionRules(patterns=(STAFF,))).analyze_batch(["见 EMP-00412"], "zh")[0]


@pytest.mark.parametrize(
    "pattern",
    [
        "[0-9]+", "a*", "(?:a{1,9}){1,9}",
        "(?:[a-z]{1,30}|[a-m]{1,30}){2}", "(a|b)\\1", "a{0,3}", "[", "a{1,5000}", "\\bx", "(?=a)",
        "[a-z]{0,40}[a-y]{0,40}[a-x]{0,40}1",
    ],
)  # fmt: skip
def test_a_pattern_without_a_bound_is_refused(pattern: str) -> None:
    with pytest.raises(PolicyError, match="E-DETECT-004"):
        build_pattern_detector(0.0, DetectionRules(patterns=(OwnPattern("p", "SECRET", pattern, examples=("a",)),)))


def test_wrong_examples_and_unknown_types_are_refused_without_showing_them() -> None:
    for wrong in (
        OwnPattern("p", "SECRET", "K-[0-9]{4}", examples=("K-12",)),
        OwnPattern("p", "SECRET", "K-[0-9]{4}"),
        OwnPattern("p", "SECRET", "K-[0-9]{4}", examples=("K-1234",), counterexamples=("K-9999",)),
    ):
        with pytest.raises(PolicyError, match="E-DETECT-005") as caught:
            build_pattern_detector(0.0, DetectionRules(patterns=(wrong,)))
        assert "K-" not in str(caught.value)
    with pytest.raises(PolicyError, match="E-DETECT-003"):
        build_pattern_detector(0.0, DetectionRules(deny={"x": "SHOE_SIZE"}))
    with pytest.raises(PolicyError, match="E-DETECT-004"):
        build_pattern_detector(0.0, DetectionRules(deny={" ": "SECRET"}))

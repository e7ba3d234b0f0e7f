"""Output redaction: what leaves was searched, and what can't be searched does not leave."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from privacy.deidentify import Deidentifier
from privacy.detect import Finding, build_pattern_detector
from privacy.errors import DataError, UsageError
from privacy.redact import OutputRedactor


class _Broken:
    version = "sha256:0"

    def analyze_batch(self, texts: Sequence[str], language: str) -> list[list[Finding]]:
        raise RuntimeError(f"cannot read {texts[0]}")


class _Stubborn(_Broken):
    """Claims to find the first character every time, so redaction never converges."""

    def analyze_batch(self, texts: Sequence[str], language: str) -> list[list[Finding]]:
        return [[Finding(0, 1, "PERSON", 1.0, "stubborn", "1")] for _ in texts]


def test_seeded_secrets_do_not_survive_in_any_spelling() -> None:
    redactor = OutputRedactor(build_pattern_detector(), ["canary zebra 42", "Xk9-QQ-17"])
    for text in ("it said CANARY  zebra-42!", "ｃanary zebra 42", "xk9qq17 and Xk9 QQ 17", "ca\u200bnary zebra 42"):
        redacted = redactor.redact(text)
        assert "<SECRET>" in redacted.text
        assert redacted.counts["SECRET"] >= 1
        assert "zebra" not in redacted.text.lower()
        assert "17" not in redacted.text


@pytest.mark.parametrize(
    ("secret", "spelled"),
    [
        ("Zo\u00eb Bront\u00eb", "Zoe\u0308 Bronte\u0308"),
        ("canary 4a7b9c1d2e3f5061", "canary 4\u04307b9\u04411d2e3f5061"),
        ("canary 4a7b9c1d2e3f5061", "canary\u20284a7b9\u2015c1d2e3\x0cf5061"),
    ],
    ids=["composed", "look-alikes", "separators"],
)
def test_a_listed_secret_is_its_letters_and_digits(secret: str, spelled: str) -> None:
    assert OutputRedactor(build_pattern_detector(), [secret]).redact(f"it says {spelled} here").text == "it says <SECRET> here"


def test_personal_data_is_removed_and_counted_without_a_value() -> None:
    redacted = OutputRedactor(build_pattern_detector()).redact("mail alice@example.com, card 4111 1111 1111 1111")
    assert redacted.text == "mail <EMAIL_ADDRESS>, card <CREDIT_CARD>"
    assert redacted.counts == {"EMAIL_ADDRESS": 1, "CREDIT_CARD": 1}


def test_a_clean_output_is_returned_unchanged() -> None:
    assert OutputRedactor(build_pattern_detector(), ["zebra-42"]).redact("refund").text == "refund"


@pytest.mark.parametrize("detector", [_Broken(), _Stubborn()])
def test_an_output_that_cannot_be_shown_clean_is_refused_and_not_quoted(detector: _Broken) -> None:
    with pytest.raises(DataError, match="E-REDACT-001") as caught:
        OutputRedactor(detector).redact("alice said hello")
    assert "alice" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_secret_too_short_to_search_for_is_refused() -> None:
    with pytest.raises(UsageError, match="E-REDACT-002"):
        OutputRedactor(build_pattern_detector(), ["a-1"])


def test_surrogates_of_the_training_data_may_leave_and_raw_values_may_not() -> None:
    treat = Deidentifier({"EMAIL_ADDRESS": "surrogate"}, "redact", bytes(32))
    made, _ = treat.apply("alice.smith@corp.com", [Finding(0, 20, "EMAIL_ADDRESS", 1.0, "t", "1")])
    text = f"write to {made} or to bob@corp.com"
    left = OutputRedactor(build_pattern_detector(), own=treat.own_spans).redact(text).text
    assert left == f"write to {made} or to <EMAIL_ADDRESS>"
    assert OutputRedactor(build_pattern_detector()).redact(text).counts == {"EMAIL_ADDRESS": 2}
    assert "example" not in OutputRedactor(build_pattern_detector(), [made], treat.own_spans).redact(text).text

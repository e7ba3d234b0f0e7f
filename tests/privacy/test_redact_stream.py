"""Stream redaction: what leaves bit by bit is what the whole text would have left, and a broken detector ends the stream."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.canary_values import KINDS
from privacy.deidentify import Deidentifier
from privacy.detect import Detector, Finding, PatternDetector, build_pattern_detector
from privacy.errors import DataError, UsageError
from privacy.recognizers import RECOGNIZERS
from privacy.redact import OutputRedactor
from privacy.redact_secrets import SecretList
from privacy.redact_stream import StreamRedactor
from privacy.unfinished import Unfinished

DETECTOR = PatternDetector(engine="python")
WHOLE = OutputRedactor(DETECTOR)
TEXTS = (
    "mail alice.smith@example.co.uk, or card 4111 1111 1111 1111 today",
    "my ssn is 123-45-6789. call me at +1 415 555 0123, please",
    "from 188.61.154.87 and e8:d1:24:e1:ba:8d (now)",
    "my password is h8Gk2x#771 and key AKIATFH5XFOI0PB5SJ7X.",
    "my name is Alice Smith, born on 1980-02-03, thanks",
    "身份证 110101199003074477，手机 13812345678 ，我叫王伟丽，谢谢",
    "ｍail ａlice@example.com and 1\u200b23-45-6789 ssn, ok",
    "<EMAIL_ADDRESS> wrote to <PERSON_0a1b2c>, then bob@corp.com",
    "nothing to see here, only 42 apples and a 3.5 rating in 2024",
)


def streamed(chunks: Sequence[str], redactor: StreamRedactor) -> str:
    return "".join([*(redactor.feed(chunk) for chunk in chunks), redactor.close()])


@pytest.mark.parametrize("text", TEXTS)
def test_every_cut_in_two_gives_what_the_whole_text_gives(text: str) -> None:
    whole = WHOLE.redact(text).text
    for cut in range(len(text) + 1):
        assert streamed([text[:cut], text[cut:]], StreamRedactor(DETECTOR)) == whole, cut


@pytest.mark.parametrize("text", TEXTS)
def test_sign_by_sign_nothing_of_a_value_leaves_before_it_is_known(text: str) -> None:
    assert streamed(list(text), StreamRedactor(DETECTOR)) == WHOLE.redact(text).text


WORDS = "the quick report shows that customer called about invoice and we replied on monday with offer for plan".split()  # noqa: SIM905
HAN = "请帮我处理退款的问题我的联系方式是谢谢昨天收到快递商品已经损坏希望尽快"


@st.composite
def planted(draw: st.DrawFn) -> tuple[str, list[str], list[int]]:
    """A text with made-up values, these, and where it is cut."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    parts, values = [], []
    for _ in range(draw(st.integers(1, 3))):
        kind = rng.choice(KINDS)
        before, value, after = kind.make(rng)
        words = " ".join(rng.choices(WORDS, k=6)) if kind.language == "en" else "".join(rng.choices(HAN, k=8))
        parts.append(f"{words} {before}{value}{after} ")
        values.append(value)
    text = "".join(parts)
    return text, values, sorted(draw(st.lists(st.integers(0, len(text)), max_size=40)))


@settings(max_examples=60, deadline=None)
@given(planted(), st.sampled_from((16, 40, 80)))
def test_no_planted_value_leaves_however_the_text_is_cut(made: tuple[str, list[str], list[int]], hold_back: int) -> None:
    text, values, cuts = made
    redactor = StreamRedactor(DETECTOR, hold_back=hold_back)
    out = []
    for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        out.append(redactor.feed(text[begin:end]))
        assert redactor.held <= hold_back
    said = "".join([*out, redactor.close()])
    clean = WHOLE.redact(text).text
    assert [v for v in values if v in said and v not in clean] == []


def test_listed_secrets_are_found_across_cuts_in_any_spelling() -> None:
    for text in ("it said CANARY  zebra-42! and", "ｃanary zebra 42 x", "ca\u200bnary zebra 42", "cаnary zebra 42 it"):
        for cut in range(len(text)):
            said = streamed([text[:cut], text[cut:]], StreamRedactor(DETECTOR, ["canary zebra 42"]))
            assert said == OutputRedactor(DETECTOR, ["canary zebra 42"]).redact(text).text
            assert "<SECRET>" in said
            assert "zebra" not in said.lower()


@pytest.mark.parametrize("iban", ["GB29 NWBK 6016 1331 9268 19", "DE89 3704 0044 0532 0130 00"])
def test_a_number_in_groups_leaves_no_group_however_it_is_cut(iban: str) -> None:
    text = f"pay to {iban} please, thanks"
    for cut in range(len(text)):
        assert streamed([text[:cut], text[cut:]], StreamRedactor(DETECTOR)) == "pay to <IBAN> please, thanks"


def test_a_secret_longer_than_what_may_wait_leaves_no_part_of_itself() -> None:
    secret = " ".join(f"w{n}x{n * 7}" for n in range(60))
    redactor = StreamRedactor(DETECTOR, [secret])
    said = streamed(list(f"before {secret} after"), redactor)
    assert said == "before <SECRET> after"
    assert not any(f"w{n}x" in said for n in range(60))


def test_a_run_longer_than_what_may_wait_is_redacted_as_a_whole() -> None:
    long = "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIx" * 20 + "." + "abcDEF123_" * 12
    redactor = StreamRedactor(DETECTOR)
    parts = []
    for sign in f"This is all: 42! See {long} and so on, all is well here":
        parts.append(redactor.feed(sign))
        assert redactor.held <= 80
    said = "".join([*parts, redactor.close()])
    assert "eyJ" not in said
    assert "abcDEF" not in said
    assert said.startswith("This is all: 42! ")
    assert "<" in said
    assert said.endswith("all is well here")


def test_surrogates_of_ours_stay_in_a_stream_too() -> None:
    treat = Deidentifier({"EMAIL_ADDRESS": "surrogate", "PERSON": "surrogate"}, "redact", bytes(32))
    made, _ = treat.apply("alice.smith@corp.com", [Finding(0, 20, "EMAIL_ADDRESS", 1.0, "t", "1")])
    text = f"write to {made} or to bob@corp.com, thanks"
    for cut in range(len(text)):
        redactor = StreamRedactor(DETECTOR, own=treat.own_spans)
        assert streamed([text[:cut], text[cut:]], redactor) == f"write to {made} or to <EMAIL_ADDRESS>, thanks"


def test_a_value_said_once_with_its_cue_is_known_again_far_behind() -> None:
    number = "77120934"
    text = f"my account number is {number}. " + "the quick report shows that we replied. " * 60 + f"so {number} it is"
    said = streamed([text[n : n + 7] for n in range(0, len(text), 7)], StreamRedactor(DETECTOR))
    assert number not in said


def test_the_counts_name_types_and_no_values() -> None:
    redactor = StreamRedactor(DETECTOR, ["canary 1234"])
    streamed(list("mail a.b@example.com, canary-1234, bye"), redactor)
    assert redactor.counts == {"EMAIL_ADDRESS": 1, "SECRET": 1}


# Rules: what the end of a text leaves open.


def test_whatever_a_rule_finds_it_was_undecided_about_until_it_was_whole() -> None:
    unfinished, rng = Unfinished(RECOGNIZERS), random.Random(5)
    seen = 0
    for kind in KINDS:
        before, value, after = kind.make(rng)
        text = f"well, {before}{value}{after} and then some more words"
        for finding in DETECTOR.analyze_batch([text], "en")[0]:
            for end in range(finding.start + 1, finding.end):
                assert unfinished.start(text[:end]) <= finding.start, kind.entity
                seen += 1
    assert seen > 200


def test_a_decided_text_waits_for_nothing() -> None:
    unfinished = Unfinished(RECOGNIZERS)
    assert [unfinished.start(text) for text in ("That is it! So: ", "42 apples!!! ", "")] == [
        15,
        12,
        0,
    ]  # a space may open a rule
    assert SecretList(["canary"]).pending("a canary. ", 0) == 10
    assert SecretList(["canary"]).pending("a can-A", 0) == 2


# Naive twins: the tests above fail for them.


def naive(chunks: Sequence[str]) -> str:
    return "".join(WHOLE.redact(chunk).text for chunk in chunks)


def test_redaction_chunk_by_chunk_leaks() -> None:
    text = TEXTS[0]
    leaks = [cut for cut in range(len(text)) if "alice" in naive([text[:cut], text[cut:]])]
    assert leaks


class _Deaf:
    """Says of every text that its end leaves nothing open."""

    version = DETECTOR.version

    def analyze_batch(self, texts: Sequence[str], language: str) -> list[list[Finding]]:
        return DETECTOR.analyze_batch(texts, language)

    def pending(self, text: str, low: int, known: Sequence[tuple[int, int]] = ()) -> int:
        return len(text)


def test_a_stream_that_holds_nothing_back_leaks() -> None:
    text = "mail alice.smith@example.com now"
    assert "alice" in streamed(list(text), StreamRedactor(_Deaf(), sentences=False))


# Detectors that read sentences.


class _Names:
    """Knows a name only from a whole sentence, and says nothing of what is open, as a model would."""

    version = "sha256:0"

    def analyze_batch(self, texts: Sequence[str], language: str) -> list[list[Finding]]:
        found = []
        for text in texts:
            at = text.find("Boris Underwood")
            whole = at >= 0 and (text.find(".", at) > 0 or len(text) > at + 40)
            found.append([Finding(at, at + 15, "PERSON", 0.8, "model", "1")] if whole else [])
        return found


@pytest.mark.parametrize("tail", ["went home. He was glad.", "went home and then " + "and so on and on " * 8 + "ended."])
def test_a_name_that_needs_its_sentence_waits_for_it(tail: str) -> None:
    redactor = StreamRedactor(_Names())
    parts = []
    for sign in f"It rained. Then Boris Underwood {tail}":
        parts.append(redactor.feed(sign))
        assert redactor.held <= 80
    said = "".join([*parts, redactor.close()])
    assert "Boris" not in said
    assert "Underwood" not in said
    assert said.startswith("It rained. Then <PERSON> went home")


# Fail closed.


class _Broken:
    version = "sha256:0"

    def analyze_batch(self, texts: Sequence[str], language: str) -> list[list[Finding]]:
        if "bad" in texts[0]:
            raise RuntimeError(f"cannot read {texts[0]}")
        return [[] for _ in texts]


class _Nonsense(_Broken):
    def analyze_batch(self, texts: Sequence[str], language: str) -> list[list[Finding]]:
        return [[Finding(3, 10_000, "PERSON", 1.0, "x", "1")] for _ in texts]


class _Overlapping(_Broken):
    def analyze_batch(self, texts: Sequence[str], language: str) -> list[list[Finding]]:
        return [[Finding(0, 4, "PERSON", 1.0, "x", "1"), Finding(2, 6, "PERSON", 1.0, "x", "1")] for _ in texts]


class _Stubborn(_Broken):
    def analyze_batch(self, texts: Sequence[str], language: str) -> list[list[Finding]]:
        return [[Finding(0, 1, "PERSON", 1.0, "x", "1")] for _ in texts]


@pytest.mark.parametrize("detector", [_Broken(), _Nonsense(), _Overlapping(), _Stubborn()])
def test_a_detector_that_breaks_ends_the_stream_and_is_not_quoted(detector: Detector) -> None:
    redactor = StreamRedactor(detector)
    with pytest.raises(DataError, match="E-REDACT-001") as caught:
        redactor.feed("alice is bad. ")
    assert "alice" not in str(caught.value)
    assert caught.value.__cause__ is None
    with pytest.raises(DataError, match="E-REDACT-001"):
        redactor.feed("x")
    with pytest.raises(DataError, match="E-REDACT-001"):
        redactor.close()


class _Hanging(_Broken):
    def __init__(self) -> None:
        self.asked = 0
        self.go = threading.Event()

    def analyze_batch(self, texts: Sequence[str], language: str) -> list[list[Finding]]:
        self.asked += 1
        self.go.wait(60)
        return [[] for _ in texts]


@pytest.mark.parametrize("close", [False, True])
def test_a_detector_that_hangs_is_abandoned_and_never_asked_again(close: bool) -> None:
    detector = _Hanging()
    redactor = StreamRedactor(detector, seconds=0.05)
    begun = time.monotonic()
    with pytest.raises(DataError, match="E-REDACT-003"):
        redactor.feed("alice. and so on. ")
    assert time.monotonic() - begun < 30
    with pytest.raises(DataError, match="E-REDACT-003"):
        redactor.close() if close else redactor.feed("x")
    assert detector.asked == 1
    detector.go.set()


def test_a_whole_text_is_abandoned_too() -> None:
    detector = _Hanging()
    redactor = OutputRedactor(detector, seconds=0.05)
    for _ in range(2):
        with pytest.raises(DataError, match="E-REDACT-003"):
            redactor.redact("alice")
    assert detector.asked == 1
    detector.go.set()


def test_a_closed_stream_takes_nothing_more() -> None:
    redactor = StreamRedactor(build_pattern_detector())
    assert redactor.feed("ok") + redactor.close() == "ok"
    with pytest.raises(UsageError, match="E-REDACT-004"):
        redactor.feed("x")


def test_a_bound_too_small_to_hold_anything_is_refused() -> None:
    with pytest.raises(UsageError, match="E-REDACT-006"):
        StreamRedactor(DETECTOR, hold_back=15)

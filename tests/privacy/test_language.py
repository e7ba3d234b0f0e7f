"""The language lane: what it adds, what it must not touch, that no batch changes it, that a failing model is never silence."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy import detect, language
from privacy.detect import Detector, build_detector
from privacy.errors import EnvironmentFault
from privacy.findings import Finding, joined
from privacy.recognizers.lexicon import lexicon
from privacy.recognizers.rampart import available

needs_rampart = pytest.mark.skipif(not available(), reason="the optional extra `rampart` is not installed")


@pytest.fixture(scope="module")
def detector() -> Detector:
    return build_detector(["en", "zh"], 0.4)


def values(detector: Detector, text: str, language: str = "en") -> dict[str, str]:
    return {text[f.start : f.end]: f.entity for f in detector.analyze_batch([text], language)[0]}


@needs_rampart
@pytest.mark.parametrize(
    ("text", "value", "entity"),
    [
        ("Please ask for Ms. Ngozi Adeyemi at the desk.", "Ms. Ngozi Adeyemi", "PERSON"),
        ("hello, myself priyanka raghunathan", "priyanka raghunathan", "PERSON"),
        ("thangavel murugesan", "thangavel murugesan", "PERSON"),
        ("Regards,\nSiobhan O'Dwyer", "Siobhan O'Dwyer", "PERSON"),
        ("The cheque goes to Karolína Dvořáková, not to me.", "Karolína Dvořáková", "PERSON"),
        ("Guests: Anna Lindqvist, Tomasz Zieliński and Yusuf Demir.", "Tomasz Zieliński", "PERSON"),
        (
            "ship it to 48 Larkspur Crescent, Apt 9, Boise, ID 83702 please",
            "48 Larkspur Crescent, Apt 9, Boise, ID 83702",
            "ADDRESS",
        ),
        ("we are at PO Box 771, Dunedin", "PO Box 771, Dunedin", "ADDRESS"),
        ("Our new flat: 17 Rue des Lilas, 69003 Lyon", "17 Rue des Lilas, 69003 Lyon", "ADDRESS"),
        ("She flew from Reykjavík to Oslo.", "Reykjavík", "LOCATION"),
        ("my sister lives in new zealand now", "new zealand", "LOCATION"),
        ("Our lawyer is with Brandt & Keller LLP in Hamburg.", "Brandt & Keller LLP", "ORGANIZATION"),
        ("He is a Norwegian citizen.", "Norwegian", "NRP"),
        ("My aunt just turned 84.", "84", "AGE"),
    ],
)
def test_english_talk(detector: Detector, text: str, value: str, entity: str) -> None:
    assert values(detector, text).get(value) == entity


@pytest.mark.parametrize(
    ("text", "value", "entity"),
    [
        ("昨天是赵晓梅帮我处理的。", "赵晓梅", "PERSON"),
        ("请转告欧阳修远，明天开会。", "欧阳修远", "PERSON"),
        ("陈国栋，男，本科学历。", "陈国栋", "PERSON"),
        ("联系人：孙丽华", "孙丽华", "PERSON"),
        ("李先生您好", "李先生", "PERSON"),
        ("寄到江苏省南京市鼓楼区中山路18号6栋201室", "江苏省南京市鼓楼区中山路18号6栋201室", "ADDRESS"),
    ],
)
def test_chinese_talk(detector: Detector, text: str, value: str, entity: str) -> None:
    assert values(detector, text, "zh").get(value) == entity


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("thanks a lot, that was quick and very helpful!", "en"),
        ("i want to cancel the order and get my money back please", "en"),
        ("okthanks byee", "en"),
        ("I'm sorry, I don't think the Credit Card department can help.", "en"),
        ("Please open the PDF and enter your PIN in the app.", "en"),
        ("好的，谢谢，请问什么时候可以到账", "zh"),
        ("高德地图打不开了", "zh"),
    ],
)
def test_everyday_talk_is_left_alone(detector: Detector, text: str, language: str) -> None:
    assert values(detector, text, language) == {}


@needs_rampart
def test_a_hidden_sign_does_not_move_the_span(detector: Detector) -> None:
    text = "Please ask for Ngo\u200bzi Adey\u200bemi, １２ Larkspur Crescent"
    found = values(detector, text)
    assert found["Ngo\u200bzi Adey\u200bemi"] == "PERSON"
    assert any("Larkspur Crescent" in value for value in found)


TALK = st.lists(
    st.sampled_from(
        [
            "Ngozi Adeyemi", "my name is", "hi", "<PERSON>", "12 Larkspur Crescent", "\u200b", "Ｏslo", "ok", "\n", ",", ".",
            "张伟", "from", "zhao", "\ud800", "ﬁ", "I'm", "Brandt LLP", "4111 1111 1111 1111", "Mr.", "\ue000", "é", "İstanbul",
        ]
    ),
    max_size=9,
).map(" ".join)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(TALK, st.text(max_size=40)), min_size=1, max_size=5))
def test_offsets_are_valid_and_no_batch_changes_a_finding(texts: list[str]) -> None:
    detector = _shared()
    together = detector.analyze_batch(texts, "en")
    assert together == [detector.analyze_batch([text], "en")[0] for text in texts]
    for text, findings in zip(texts, together, strict=True):
        assert all(0 <= f.start < f.end <= len(text) and 0.4 <= f.score <= 1.0 and f.reason for f in findings)
        assert all(a.end <= b.start for a, b in pairwise(findings))


_SHARED: list[Detector] = []


def _shared() -> Detector:
    if not _SHARED:
        _SHARED.append(build_detector(["en", "zh"], 0.4))
    return _SHARED[0]


def test_a_long_text_is_read_in_pieces_and_its_last_name_is_found(detector: Detector) -> None:
    text = "nothing to see here. " * 2000 + "Please ask for Ngozi Adeyemi."
    assert values(detector, text).get("Ngozi Adeyemi") == "PERSON"


def test_one_type_in_one_place_is_one_finding() -> None:
    short = Finding(4, 8, "PERSON", 0.75, "cue", "1")
    longer = Finding(4, 14, "PERSON", 0.6, "model", "1")
    other = Finding(6, 20, "ADDRESS", 0.7, "model", "1")
    assert joined([longer, short, other]) == [Finding(4, 14, "PERSON", 0.75, "cue", "1"), other]


def test_a_model_that_fails_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = build_detector(["en"], 0.4)
    lane = broken._parts._lane  # type: ignore[attr-defined]

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory at Ngozi Adeyemi")

    for part in ("_first", "_second"):
        with monkeypatch.context() as patch:
            patch.setattr(getattr(lane, part), "process_batch" if part == "_first" else "read", fail, raising=False)
            with pytest.raises(EnvironmentFault, match="E-DETECT-008") as caught:
                broken.analyze_batch(["Please ask for Ngozi Adeyemi"], "en")
            assert "Ngozi" not in str(caught.value)
        if lane._second is None:
            break


def test_the_gate_reads_no_model_for_everyday_talk() -> None:
    lane = _shared()._parts._lane  # type: ignore[attr-defined]
    assert lane.wants("i want to cancel the order please") == (False, False)
    assert lane.wants("Yes, please do.") == (False, False)
    assert lane.wants("Please ask for Ngozi.") == (True, True)
    assert lane.wants("send it to ngozi please") == (False, True)
    assert lane.wants("send it to ngozi please", "send it to       please") == (False, False)
    assert lane.wants("32 mountain drive") == (False, True)


def test_the_second_model_can_be_switched_off_and_the_version_says_so() -> None:
    without = build_detector(["en"], 0.4, second_model=False)
    assert values(without, "camden maxwell") == {"camden maxwell": "PERSON"}
    assert "Barack Obama" in values(without, "Yesterday Barack Obama met Angela Merkel in Berlin.")
    if available():
        assert without.version != build_detector(["en"], 0.4).version


def test_a_second_model_that_is_asked_for_and_missing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from privacy.recognizers import rampart

    rampart._load.cache_clear()
    monkeypatch.setattr(rampart, "available", lambda: False)
    with pytest.raises(EnvironmentFault, match="E-DETECT-006"):
        build_detector(["en"], 0.4, second_model=True)
    rampart._load.cache_clear()


@pytest.mark.parametrize(
    ("word", "plain"),
    [
        ("refunded", True), ("cancelling", True), ("okthanks", True), ("byee", True), ("don't", True), ("quickly", True),
        ("priyanka", False), ("smith", False), ("norwegian", False), ("berlin", False), ("adeyemi", False), ("xqzt", False),
    ],
)  # fmt: skip
def test_what_counts_as_an_everyday_word(word: str, plain: bool) -> None:
    assert lexicon(detect.ENGLISH_MODEL).plain(word) is plain


@pytest.mark.parametrize(
    "text",
    [
        "My card was declined. What can I do? Please help me.",
        "Is my ATM PIN the same in the US and in the UK?",
        "I've moved. It's Saturday, so I can't call the Bank.",
        "I am French, living in France",
    ],
)
def test_capitals_that_a_sentence_or_a_list_explains_ask_no_model(text: str) -> None:
    assert _shared()._parts._lane.wants(text) == (False, False)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "text", ["please ask Mark about it", "I met Will there", "Thanks. Ngozi", "ask KIM", "the Hill Group called"]
)
def test_capitals_that_nothing_explains_ask_both(text: str) -> None:
    assert _shared()._parts._lane.wants(text) == (True, True)  # type: ignore[attr-defined]


@needs_rampart
def test_the_first_model_reads_what_the_second_left_unexplained(monkeypatch: pytest.MonkeyPatch) -> None:
    lane = build_detector(["en"], 0.4)._parts._lane  # type: ignore[attr-defined]
    read: list[str] = []
    entities = lane._entities
    monkeypatch.setattr(lane, "_entities", lambda bodies: read.extend(bodies) or entities(bodies))
    explained, left = "Please ask for Ngozi Adeyemi at the desk.", "The Pentagon said no, and so did Sotheby's."
    lane.read([explained, left])
    assert read == [left]
    read.clear()
    lane._gated = False
    lane.read([explained])
    assert read == [explained]


@needs_rampart
def test_a_name_that_only_the_first_model_knows_is_lost_where_it_is_never_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks the rule: with everything called explained, what spaCy alone finds is gone."""
    text = "The Pentagon said no, and so did Sotheby's."
    whole = build_detector(["en"], 0.4)
    names = {f.recognizer for f in whole.analyze_batch([text], "en")[0]}
    assert "spaCy" in names
    monkeypatch.setattr(language, "_unsaid", lambda text, words: "")
    assert "spaCy" not in {f.recognizer for f in whole.analyze_batch([text], "en")[0]}


def test_a_title_before_a_name_that_a_pattern_found_belongs_to_it(detector: Detector) -> None:
    assert "Ms. Ngozi Adeyemi" in values(detector, "Please ask for Ms. Ngozi Adeyemi at the desk.")

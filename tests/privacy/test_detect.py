"""What the detectors promise: valid offsets, nothing found twice, bounded time, no download, and the checksums they claim."""

from __future__ import annotations

import subprocess
import sys
import time
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from privacy.deidentify import Deidentifier
from privacy.detect import Finding, build_detector, build_pattern_detector, detect_language, echoes, resolve
from privacy.entities import ENTITY_TYPES
from privacy.errors import EnvironmentFault, UsageError
from privacy.findings import FORMAT_SIGN, complete
from privacy.recognizers import RECOGNIZERS
from privacy.recognizers.view import PLACEHOLDER

PATTERNS = build_pattern_detector()
REDACT = Deidentifier({}, "redact", b"k" * 32)


def found(text: str) -> dict[str, str]:
    """Value -> type of everything the pattern detector finds."""
    return {text[f.start : f.end]: f.entity for f in PATTERNS.analyze_batch([text], "en")[0]}


FRAGMENTS = st.sampled_from(
    [
    "my name is ", "Alice Smith", "john vicky", " ", ", ", "\n", "<PERSON>", "<PERSON_3fa9c1>", "<",
    ">", "ssn ", "4528", "4111 1111 1111 1111", "alice@example.com", "password=", "Tr0ub4dor",
    "10.1.2.3", "user=", "card ", "and ", "我叫", "张伟", "手机", "13812345678", "身份证", "，",
    "11010519491231002X", "\u200b", "１２３", "@", ".com", "://a:b@c", "order number ",
    "ORD-2026-11873", "号", "文三路269号", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.x",
    "GB82 WEST 1234 5698 7654 32", "+44 20 7946 0958", "born ", "1990-01-02", "address is ",
    "12 Main Street", "Dr. ", "a", "9", "-", "fe80::1", "ﬁ", "\ue000",
    ]
)  # fmt: skip
TEXTS = st.one_of(st.text(max_size=80), st.lists(FRAGMENTS, max_size=14).map("".join))


@settings(max_examples=250, deadline=None)
@given(TEXTS)
@example("my name is <PERSON> and <EMAIL_ADDRESS>")
@example("my name is john vicky my last four digits of ssn is 7548 my credit card number is 4575 7621 3247 4524")
@example("卡号6288 8812 3456 7890 123，密码是Abc12345，")
def test_a_second_pass_finds_nothing_so_deidentification_is_idempotent(text: str) -> None:
    once, counts = REDACT.apply(text, PATTERNS.analyze_batch([text], "en")[0])
    again = PATTERNS.analyze_batch([once], "zh")[0]
    assert again == []
    assert REDACT.apply(once, again) == (once, {})
    assert bool(counts) == (once != text)


@settings(max_examples=120, deadline=None)
@given(TEXTS)
def test_offsets_are_valid_and_findings_do_not_overlap(text: str) -> None:
    position = 0
    for finding in PATTERNS.analyze_batch([text], "en")[0]:
        assert position <= finding.start < finding.end <= len(text)
        assert 0.0 < finding.score <= 1.0
        position = finding.end


@settings(max_examples=120, deadline=None)
@given(TEXTS)
def test_no_detected_value_remains_as_a_word_of_the_output(text: str) -> None:
    findings = PATTERNS.analyze_batch([text], "en")[0]
    clean, _ = REDACT.apply(text, findings)
    assert echoes(clean + " " + clean, []) == []
    for finding in findings:
        value = text[finding.start : finding.end]
        if len(value) >= 6 and any(c.isdigit() for c in value) and value not in "<PERSON_3fa9c1>":
            words = clean.replace("<", " <").replace(">", "> ").split()
            assert value not in words


CUT = "Zuri Vela12 Larch Row, Elmtonpassword: }12 Larch Row, Elmton"


@settings(max_examples=200, deadline=None)
@given(TEXTS)
@example(CUT)
@example("12 Larch Row, 12 Larch Row password=12 x Larch Row")
def test_no_value_that_was_found_stands_elsewhere_as_a_word_not_even_what_an_overlap_left_of_it(text: str) -> None:
    findings = PATTERNS.analyze_batch([text], "en")[0]
    covered = [(f.start, f.end) for f in findings]
    for echo in echoes(text, [f for f in findings if not FORMAT_SIGN.search(text, f.start, f.end)]):
        places = {place for place in range(echo.start, echo.end) if text[place].isalnum()}
        assert places <= {place for start, end in covered for place in range(start, end)} | set(_placeholders(text))


def _placeholders(text: str) -> list[int]:
    return [place for match in PLACEHOLDER.finditer(text) for place in range(*match.span())]


def test_what_an_overlap_cuts_off_is_found_where_it_stands_again() -> None:
    """Without the closing round the address of the first place, cut in the second, was left in the output."""
    at = CUT.index("}")
    findings = [Finding(at, at + 3, "PASSWORD", 0.9, "r", "1"), Finding(at + 1, len(CUT), "ADDRESS", 0.7, "r", "1")]
    said = "x 12 Larch Row password: }12 Larch Row"
    ends = [Finding(f.start - at + said.index("}"), f.end - at + said.index("}"), *f[2:]) for f in findings]
    ends[1] = ends[1]._replace(end=len(said))
    assert [said[f.start : f.end] for f in resolve(said, ends)] == ["}12", "Larch Row"]
    assert [said[f.start : f.end] for f in complete(said, ends)] == ["12 Larch Row", "}12", "Larch Row"]
    glued = said.replace("x 12", "x12")
    assert [glued[f.start : f.end] for f in complete(glued, [e._replace(start=e.start - 1, end=e.end - 1) for e in ends])] == [
        "Larch Row",
        "}12",
        "Larch Row",
    ]


@pytest.mark.parametrize(
    "text",
    [
        '{"address":"12 Larch Row","note":"call me at noon, 5 dogs"}',
        '{"shipping_address": "12 Larch Row, Elmton", "weight": 12, "carrier": "ups ground"}',
        "{'address': '12 Larch Row', 'rooms': 3, 'pets': 'two cats and 5 fish'}",
    ],
)
def test_an_address_ends_where_its_value_ends(text: str) -> None:
    assert {v.split(",")[0] for v in found(text)} == {"12 Larch Row"}


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("traffic left via eth0 today", ""),
        ("connected via port 8080", ""),
        ("we came via Route 66", ""),
        ("sono in Via Roma 12", "Via Roma 12"),
        ("I live in via garibaldi 7", "via garibaldi 7"),
        ("siamo in via delle coste 41", "via delle coste 41"),
    ],
)
def test_a_way_is_an_address_only_where_it_can_be_a_street(text: str, address: str) -> None:
    assert found(text) == ({address: "ADDRESS"} if address else {})


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.lists(st.tuples(st.integers(0, 60), st.integers(1, 30), st.floats(0.1, 1.0)), max_size=8))
def test_overlap_resolution_loses_no_character_that_a_rule_covered(text: str, raw: list[tuple[int, int, float]]) -> None:
    given_findings = [
        Finding(start, min(start + size, len(text)), "PERSON", score, "r", "1")
        for start, size, score in raw
        if start < len(text)
    ]
    resolved = resolve(text, given_findings)
    assert all(a.end <= b.start for a, b in pairwise(resolved))
    covered = {i for f in resolved for i in range(f.start, f.end)}
    if "<" not in text:
        assert {i for f in given_findings for i in range(f.start, f.end) if text[i].isalnum()} <= covered


def test_the_higher_score_wins_and_the_loser_keeps_the_rest() -> None:
    text = "Smith john@example.com"
    resolved = resolve(text, [Finding(0, 22, "PERSON", 0.6, "ner", "1"), Finding(6, 22, "EMAIL_ADDRESS", 0.9, "email", "1")])
    assert [(text[f.start : f.end], f.entity) for f in resolved] == [("Smith", "PERSON"), ("john@example.com", "EMAIL_ADDRESS")]


ATTACKS = [
    "a", "1", " ", "0 ", "1-", "a.", "a@", "@a.", "://", "://a:", "-----BEGIN RSA PRIVATE KEY-----",
    "eyJ", "ab:", "::", "1.", "A ", "Aa Bb ", "张", "张伟", "路1号", "我叫", "card ",
    "card number is ", "account no ", "ssn ", "address is 1 ", "1 main ", "my name is a ", "user=",
    "password=a ", "+1 ", "(0", "GB82 ", "4111 ", "\u200b", "<PERSON>", "john smith ", "born ",
    "0123456789", "\ue000 and 1234 ", "on 1 jan ", "是", "浙江省", "1 at 2 dot ",
]  # fmt: skip


@pytest.mark.parametrize(
    "attack", [*ATTACKS[::3], *(pytest.param(attack, marks=pytest.mark.slow) for i, attack in enumerate(ATTACKS) if i % 3)]
)
def test_a_hostile_text_of_a_hundred_thousand_characters_is_read_in_bounded_time(attack: str) -> None:
    # The tail opens the cheap gates (key words, digits, Han), so that every rule really reads the text.
    gates = " ".join(sorted({word for r in RECOGNIZERS for word in r.words})) + " 号1 0123456789012345678"
    text = (attack * (100_000 // len(attack) + 1))[:100_000] + gates
    begin = time.process_time()
    PATTERNS.analyze_batch([text], "en")
    assert time.process_time() - begin < 6.0  # about one second; a rule of quadratic cost takes minutes


def test_a_card_needs_its_checksum_and_a_unix_time_is_no_card() -> None:
    assert found("paid with 4111 1111 1111 1111 today, sir") == {"4111 1111 1111 1111": "CREDIT_CARD"}
    assert "CREDIT_CARD" not in found("paid with 4111 1111 1111 1112 today, sir").values()
    assert found("INFO job=7 at=1445144423722 took=1445144423 ns=1445144423722000000") == {}
    assert found("card 4111 1111 1111 1112")["4111 1111 1111 1112"] == "CREDIT_CARD"  # the cue: a mistyped number still is one


@pytest.mark.parametrize(
    ("text", "value", "entity"),
    [
        ("我的身份证11010519491231002X谢谢", "11010519491231002X", "CN_RESIDENT_ID"),
        ("统一代码91350100M000100Y43。", "91350100M000100Y43", "CN_USCC"),
        ("GB82WEST12345698765432", "GB82WEST12345698765432", "IBAN"),
        ("转到6288880000000000018吧", "6288880000000000018", "CN_BANK_CARD"),
        ("服务器fe80::a00:27ff:fe4e:66a1断线", "fe80::a00:27ff:fe4e:66a1", "IP_ADDRESS"),
        ("发到zhang.wei@example.com吧", "zhang.wei@example.com", "EMAIL_ADDRESS"),
        ("手机是１３８１２３４５６７８。", "１３８１２３４５６７８", "PHONE_NUMBER"),
        ("138\u200b1234\u200b5678", "138\u200b1234\u200b5678", "PHONE_NUMBER"),
        ("last four of my ssn are 7548", "7548", "US_SSN"),
        ("key AKIAIOSFODNN7EXAMPLE used", "AKIAIOSFODNN7EXAMPLE", "SECRET"),
        ("postgres://bob:s3cr3t@db:5432/x", "s3cr3t", "PASSWORD"),
        ("open /home/alice77/notes.txt", "alice77", "USERNAME"),
        ("mac 00:1a:2b:3c:4d:5e up", "00:1a:2b:3c:4d:5e", "MAC_ADDRESS"),
        ("收件人：欧阳娜娜，", "欧阳娜娜", "PERSON"),
        ("车牌京A·12345违章", "京A·12345", "CN_LICENSE_PLATE"),
        ("date of birth: 12/31/1990", "12/31/1990", "DATE_OF_BIRTH"),
        ("住在浙江省杭州市西湖区文三路269号3栋502室", "浙江省杭州市西湖区文三路269号3栋502室", "ADDRESS"),
        ("send it to 221B Baker Street please", "221B Baker Street", "ADDRESS"),
    ],
)
def test_each_type_is_found_beside_any_script(text: str, value: str, entity: str) -> None:
    assert found(text).get(value) == entity


@pytest.mark.parametrize(
    "text",
    [
        "身份证11010519491231002Y",
        "110105194912310021", "11010519490231002X", "GB83WEST12345698765432", "91350100M000100Y44",
    ],
)  # fmt: skip
def test_one_wrong_digit_is_not_the_checked_type(text: str) -> None:
    assert not {"CN_USCC", "IBAN"} & set(found(text).values())
    assert all(f.recognizer != "cn_resident_id" for f in PATTERNS.analyze_batch([text], "zh")[0])


@pytest.mark.parametrize(
    "text",
    [
        "2015-10-18 18:01:47,978 INFO [main] org.apache.hadoop.app.MRAppMaster: size 67108864 cluster_timestamp: 1445144423722",
        "081109 204005 35 INFO dfs.FSNamesystem: BLOCK* blockMap updated: blk_7128370237687728475 size 67108864",
        "agent version 2.14.3.1 started in 3211 ms, 3000 rows",
        "session opened for user root by (uid=0)",
        "the password is not working and my password was incorrect",
        "I am waiting for my order, this is unacceptable",
        "delivery in 3 days on the way to the store",
        "listening on 127.0.0.1 and 0.0.0.0",
        "我想退款，请问什么时候到账，高兴能帮忙",
        "please reset the password of my account",
    ],
)
def test_counters_versions_and_ordinary_words_are_not_personal(text: str) -> None:
    assert found(text) == {}


def test_a_value_said_once_with_a_cue_is_found_where_it_is_repeated_without_one() -> None:
    text = "my name is Zorblax. Again: Zorblax"
    assert [text[f.start : f.end] for f in PATTERNS.analyze_batch([text], "en")[0]] == ["Zorblax", "Zorblax"]


def test_text_that_only_looks_like_a_placeholder_is_searched() -> None:
    assert found("<JOHN alice@example.com>")["alice@example.com"] == "EMAIL_ADDRESS"
    assert found("<DOE_4528> ssn <078-05-1120>") == {"078-05-1120": "US_SSN"}
    assert found("<PERSON> <EMAIL_ADDRESS> <IP_ADDRESS:10.1.2.0/24> <CREDIT_CARD:*1111> <DATE_OF_BIRTH:1990-01>") == {}


def test_no_rule_reaches_across_a_placeholder() -> None:
    assert found("my name is <PERSON> Zorblax") == {}
    assert found("ssn <US_SSN> it is 4528 there") == {}


def test_language_follows_the_script_and_placeholders_do_not_count() -> None:
    assert detect_language("my parcel") == "en"
    assert detect_language("我的 iPhone 快递") == "zh"
    assert detect_language("<EMAIL_ADDRESS> 谢谢 <PHONE_NUMBER>") == "zh"
    assert detect_language("") == "en"


def test_every_rule_has_a_known_type_a_unique_name_and_a_reason() -> None:
    assert len({r.name for r in RECOGNIZERS}) == len(RECOGNIZERS)
    for recognizer in RECOGNIZERS:
        assert recognizer.entity in ENTITY_TYPES
        assert len(recognizer.checksum) > 3
        assert r"\b" not in recognizer.pattern.pattern, "no word boundary exists between Han characters and digits"


def test_a_changed_rule_changes_the_version() -> None:
    from privacy.detect import PatternDetector

    assert PatternDetector(0.4, RECOGNIZERS[:-1]).version != PATTERNS.version
    assert build_pattern_detector(0.9).version == PATTERNS.version


def test_a_missing_model_is_an_error_and_never_a_download(monkeypatch: pytest.MonkeyPatch) -> None:
    spacy_cli = pytest.importorskip("spacy.cli")
    monkeypatch.setattr(spacy_cli, "download", lambda *_: pytest.fail("a download was tried"))
    monkeypatch.setattr("privacy.detect.ENGLISH_MODEL", "en_core_web_sm_that_nobody_installed")
    with pytest.raises(EnvironmentFault, match="E-DETECT-001"):
        build_detector(["en"], 0.4)
    assert build_detector(["zh"], 0.4).analyze_batch(["我叫张伟"], "zh")[0], "Chinese needs no model"


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(UsageError, match="E-DETECT-002"):
        build_detector(["de"], 0.4)
    with pytest.raises(UsageError, match="E-DETECT-002"):
        build_detector(["zh"], 0.4).analyze_batch(["hello"], "en")


def test_importing_the_detector_loads_neither_presidio_nor_spacy() -> None:
    code = (
        "import sys, privacy.detect, privacy.redact; sys.exit(bool({'presidio_analyzer', 'spacy', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture(scope="module")
def composed() -> object:
    return build_detector(["en", "zh"], 0.4)


def test_presidio_adds_names_and_our_rules_still_run(composed: object) -> None:
    texts = [
        "Yesterday Barack Obama met Angela Merkel in Berlin, card 4111 1111 1111 1111.",
        "2026-03-01T12:00:00Z INFO auth user=C-1 ip=81.2.3.4 Barack Obama",
        "camden maxwell",
    ]
    results = composed.analyze_batch(texts, "en")  # type: ignore[attr-defined]
    values = [{t[f.start : f.end]: f.entity for f in fs} for t, fs in zip(texts, results, strict=True)]
    assert values[0]["Barack Obama"] == "PERSON"
    assert values[0]["Berlin"] == "LOCATION"
    assert values[0]["4111 1111 1111 1111"] == "CREDIT_CARD"
    assert values[1]["81.2.3.4"] == "IP_ADDRESS"
    assert values[2] == {"camden maxwell": "PERSON"}


def test_what_the_composed_detector_leaves_holds_nothing_for_the_residual_scan(composed: object) -> None:
    texts = [
        "Mr. Smith, 4528 and 4111111111111111 card",
        "i am john smith and 5584 to 9976 thanks Angela",
        "hi",
        "",
        "Contact <PERSON> or bob",
    ]
    for text, findings in zip(texts, composed.analyze_batch(texts, "en"), strict=True):  # type: ignore[attr-defined]
        clean, _ = REDACT.apply(text, findings)
        assert PATTERNS.analyze_batch([clean], "en")[0] == []


def test_a_presidio_adapter_reports_what_the_rule_finds() -> None:
    from privacy.recognizers.presidio import as_presidio

    rule = next(r for r in RECOGNIZERS if r.name == "email")
    adapter = as_presidio(rule, "en")
    results = adapter.analyze("write to ａlice@example.com", ["EMAIL_ADDRESS"], None)
    assert [(r.start, r.end, r.entity_type) for r in results] == [(9, 26, "EMAIL_ADDRESS")]
    assert adapter.analyze("write to alice@example.com", ["PERSON"], None) == []

"""The structural lane: both engines find the same, batches and windows change nothing, and hostile texts stay cheap."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from re import _parser as sre  # type: ignore[attr-defined]

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy import structural
from privacy.deidentify import Deidentifier
from privacy.findings import Finding, echoes, resolve, settled
from privacy.recognizers import RECOGNIZERS
from privacy.recognizers.prefilter import Untranslatable, loosen, reach
from privacy.recognizers.spec import compiled
from privacy.recognizers.view import view_of
from privacy.structural import MARGIN, WINDOW, StructuralLane
from tests.privacy.recognizer_cases import CASES, REFUSED

hyperscan = pytest.importorskip("hyperscan", reason="the fast engine is optional")

FAST = StructuralLane(RECOGNIZERS, engine="hyperscan")
SLOW = StructuralLane(RECOGNIZERS, engine="python")
FIXTURES = [case.text for case in CASES] + [text for _, text in REFUSED]
REDACT = Deidentifier({}, "redact", b"k" * 32)

_PARTS = st.one_of(
    st.sampled_from(FIXTURES),
    st.sampled_from(FIXTURES).flatmap(lambda t: st.integers(0, len(t)).map(lambda i: t[:i])),
    st.sampled_from(FIXTURES).flatmap(lambda t: st.integers(0, len(t)).map(lambda i: t[i:])),
    st.sampled_from([" ", "\n", "\x00", "\ud800", "ÿ", "\u200b", "аlice@ехаmple.com",
                     "<PERSON>", "user=", "Jun 14 15:16:01 combo x[1]: ", "＠", ", ", "号"]),
    st.text(max_size=12),
)  # fmt: skip
TEXTS = st.lists(_PARTS, max_size=4).map("".join)


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXTS, max_size=5))
def test_both_engines_find_the_same(texts: list[str]) -> None:
    assert FAST.analyze_batch(texts) == SLOW.analyze_batch(texts)


def test_both_engines_find_the_same_in_every_fixture_and_in_their_pairs() -> None:
    shuffled = random.Random(7).sample(FIXTURES, len(FIXTURES))
    texts = FIXTURES + [a + " " + b for a, b in zip(FIXTURES, shuffled, strict=True)]
    assert FAST.analyze_batch(texts) == SLOW.analyze_batch(texts)


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXTS, max_size=8), st.integers(1, 4))
def test_any_split_into_batches_gives_the_same_findings(texts: list[str], size: int) -> None:
    whole = FAST.analyze_batch(texts)
    pieces = [f for i in range(0, len(texts), size) for f in FAST.analyze_batch(texts[i : i + size])]
    assert pieces == whole


@settings(max_examples=100, deadline=None)
@given(TEXTS)
def test_offsets_lie_in_the_original_and_a_second_pass_finds_nothing(text: str) -> None:
    findings = FAST.analyze_batch([text])[0]
    position = 0
    for finding in findings:
        assert position <= finding.start < finding.end <= len(text)
        position = finding.end
    once, _ = REDACT.apply(text, findings)
    assert FAST.analyze_batch([once]) == [[]]


def test_a_text_with_line_breaks_is_one_text() -> None:
    text = "first\nmy card is\n4111 1111 1111 1111\nthe end"
    other = ["card number", "4111"]
    results = FAST.analyze_batch([text, *other])
    assert [text[f.start : f.end] for f in results[0]] == ["4111 1111 1111 1111"]
    assert results[1] == [], "a cue at the end of one text says nothing about the next"
    assert all(f.recognizer != "credit_card_cue" for f in results[2])


def test_known_findings_are_kept_and_not_searched_again() -> None:
    text = "mail alice@example.com now"
    known = Finding(5, 22, "SECRET", 0.5, "someone_else", "1")
    assert FAST.analyze_batch([text], [[known]]) == [[known]]


@pytest.mark.parametrize("engine", ["hyperscan", "python"])
def test_a_text_longer_than_a_window_loses_nothing_at_the_seams(engine: str) -> None:
    lane = StructuralLane(RECOGNIZERS, engine=engine)
    card = "4111 1111 1111 1111"
    for seam in (WINDOW, WINDOW // 2 + WINDOW):
        for shift in (-len(card), -7, -1, 0, 1):
            text = "x" * (seam + shift - 1) + " " + card + " " + "y " * 20_000
            assert [text[f.start : f.end] for f in lane.analyze_batch([text])[0]] == [card]


def test_de_identifying_a_long_text_twice_changes_nothing() -> None:
    rng = random.Random(3)
    text = " ".join(rng.choice([*(c.text for c in CASES), "lorem ipsum dolor"]) for _ in range(6_000))
    assert len(text) > 3 * WINDOW
    findings = FAST.analyze_batch([text])[0]
    assert len(findings) > 1_000
    once, _ = REDACT.apply(text, findings)
    assert FAST.analyze_batch([once]) == [[]]


def test_no_pattern_spans_more_than_the_margin_of_a_window() -> None:
    anchored = {"bare_number", "person_turn", "cn_person_cue"}  # they ask for the end of the text; all else in them is bounded
    assert {r.name for r in RECOGNIZERS if reach(r.pattern) >= 1 << 20} <= anchored
    assert all(reach(r.pattern) + 128 <= 2 * MARGIN for r in RECOGNIZERS if r.name not in anchored)


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["a", "1.", "user=", "4111 ", "@a.", "\u200b1", "eyJ"])
def test_the_time_of_a_long_text_grows_with_its_length_alone(unit: str) -> None:
    """Counts steps of the processor's clock, not of the wall: a rule of quadratic cost would take 64 times as long."""
    times = []
    for size in (200_000, 1_600_000):
        begin = time.process_time()
        FAST.analyze_batch([unit * (size // len(unit))])
        times.append(time.process_time() - begin)
    assert times[1] < 24 * times[0] + 1.0  # eight times the text; the rest is for a busy machine


@pytest.mark.slow
def test_a_line_of_a_hundred_megabytes_is_read_in_bounded_memory() -> None:
    """In a process of its own, so that its peak is its own; a copy of the line or a list of all its windows would show."""
    code = (
        "import resource, sys\n"
        "from privacy.recognizers import RECOGNIZERS\n"
        "from privacy.structural import StructuralLane\n"
        "lane = StructuralLane(RECOGNIZERS, engine='hyperscan')\n"
        "lane.analyze_batch(['warm ' * 20_000])\n"
        "line = 'level-info all is well here; ' * (100_000_000 // 29) + 'mail alice@example.com'\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "found = lane.analyze_batch([line])[0]\n"
        "after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert [line[f.start : f.end] for f in found] == ['alice@example.com'], len(found)\n"
        "print((after - before) // 1024)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert int(run.stdout) < 64  # MiB more than the line itself


def test_every_rule_is_translated_and_its_gates_never_hide_what_it_finds() -> None:
    for recognizer in RECOGNIZERS:
        for pattern in (*recognizer.sought(log=False), *recognizer.sought(log=True)):
            loosen(pattern)
    for text in FIXTURES:
        view = view_of(text)
        for recognizer in RECOGNIZERS:
            assert recognizer.scan(view) == recognizer.confirm(view), recognizer.name


def test_no_pattern_is_empty_in_one_place_and_not_in_another() -> None:
    """`Recognizer.confirm` moves on by one sign after an empty match, which is right for patterns that are all look-ahead."""
    for recognizer in RECOGNIZERS:
        low, high = sre.parse(recognizer.pattern.pattern, recognizer.pattern.flags).getwidth()
        assert low > 0 or high == 0, recognizer.name


_STEMS = ("root", "admin", "administrator", "user", "test", "unknown", "nobody", "from", "invalid", "123", "1234", "oracle")
_FRAMES = (
    "session opened for user {}(uid=1000) by (uid=0)", "Failed password for {} from 10.1.2.3 port 22", "login for {}(x)",
    "user={}", "user={} x", "owner: corp\\{},", "user {} logged in", "account '{}' was locked", "user {}@h from 1",
    "order no: {}", "Order #{} for customer-{}-sta", "client number is {}", "account no. {}", "orderno={}", "acct ({}) = {}",
    "税号 {}", "USCC {}", "blk_{}", "from {} Smith", "Name {} Jones said",
)  # fmt: skip
_NAMES = st.one_of(
    st.sampled_from(_STEMS).flatmap(lambda stem: st.integers(1, len(stem)).map(lambda size: stem[:size])),
    st.tuples(st.sampled_from(_STEMS), st.text("aR0._@$-(=", max_size=3)).map("".join),
    st.sampled_from(
        ["911100001000000002", "91350211M000100Y43", "371100001000000002", "4111111111111111", "John", "john", "Smith"]
    ),
    st.text("0123456789abAB_.-", min_size=1, max_size=70),
)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(_FRAMES), _NAMES, st.sampled_from(["", "Jun 14 15:16:01 combo x[1]: "]))
def test_what_stands_near_a_rule_hides_none_of_its_findings(frame: str, name: str, head: str) -> None:
    """Names that begin like `root`, or end before it does, were once hidden by the expression that spares the closer look."""
    text = head + frame.replace("{}", name)
    assert FAST.analyze_batch([text]) == SLOW.analyze_batch([text])


@given(
    st.text("ab1 .-", min_size=1, max_size=30),
    st.lists(st.tuples(st.integers(0, 29), st.integers(1, 8)), min_size=1, max_size=4),
)
def test_the_short_way_to_resolved_findings_says_the_same(text: str, spans: list[tuple[int, int]]) -> None:
    findings = [Finding(s, min(s + n, len(text)), "PERSON", 0.5, "r", "1") for s, n in spans if s < len(text)]
    plain = settled(text, findings) if len(findings) > 1 else None
    if plain is not None:
        assert plain == resolve(text, findings + echoes(text, findings))


def test_an_unknown_construct_is_an_error_and_not_a_guess() -> None:
    with pytest.raises(Untranslatable):
        loosen(compiled(r"a\b"))


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"(?<![0-9])[0-9]{3}(?![0-9])", "123"),
        (r"(?<![a-z])(?:ab|cd)x{0,3}\Z", "ab"),
        (r"\A(?:yes )?(é[0-9]{2,40})", "yes é12"),
        (r"(['\"])a\1", "'a'"),
        (r"(?=(ab{2,5}))", "xabb"),
        (r"[^a]{2}[\u4e00-\u9fff]号", "\ud800张路号"),
        (r"(?-i:(?<=[a-z])(?=[A-Z]))User", "dbUser"),
        (r"straße[0-9]", "STRASSE".replace("SS", "ß") + "1"),
    ],
)
def test_the_looser_pattern_matches_wherever_the_pattern_does(pattern: str, text: str) -> None:
    rule = compiled(pattern)
    assert rule.search(text)
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    database.compile(expressions=[loosen(rule).encode()], ids=[0], flags=[hyperscan.HS_FLAG_PREFILTER])
    ends: list[int] = []
    data = b"\xff" + text.encode("utf-8", "surrogatepass") + b"\xff"
    database.scan(data, match_event_handler=lambda _id, _start, end, _flags, _context: ends.append(end) and None)
    assert ends
    assert all(1 < end <= len(data) for end in ends)


def test_without_hyperscan_the_lane_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structural, "has_hyperscan", lambda: False)
    lane = StructuralLane(RECOGNIZERS)
    texts = [*["x" * 60_000] * 6, "mail alice@example.com"]
    assert len(lane.analyze_batch(texts)[-1]) == 1


def test_the_engine_is_loaded_on_first_need_only() -> None:
    code = (
        "import sys, privacy.detect as d; d.build_pattern_detector().analyze_batch(['a@b.co'], 'en'); "
        "sys.exit('hyperscan' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

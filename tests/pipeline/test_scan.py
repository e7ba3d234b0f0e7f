"""`privet scan`: one answer a record with offsets that hold, whatever the bytes are, and no text in what programs read."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import pytest
import yaml
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from pipeline import scan_screen
from pipeline.cli import main
from pipeline.home import Home
from pipeline.scan import Record, Scanned, Scanner, as_json, decompressed, read_records
from pipeline.sealed_secrets import SealedSecrets, secret_name
from privacy.detect import build_pattern_detector
from privacy.errors import DataError, UsageError
from privacy.findings import Finding
from tests.worlds.policies import policy_value

PATTERNS = build_pattern_detector()
RAW = (
    b"\xef\xbb\xbfhello alice@example.com\r\n"
    b"\xff\xfe card 4111111111111111\n"
    b"\n"
    b"nul \x00 bob@example.com\n"
    + "我叫张伟，手机13812345678\n".encode()
    + b"a\xe2\x80\x8blice@example.com and \xef\xbc\x94\xef\xbc\x91" + b"11111111111111"
)  # fmt: skip


def scanned(raw: bytes, name: str | None = None) -> list[Scanned]:
    scanner = Scanner(detector=lambda language: PATTERNS)
    return [one for batch in scanner.scan(read_records(decompressed(io.BytesIO(raw)), name)) for one in batch]


def values(answers: list[Scanned]) -> list[list[str]]:
    return [[one.record.text[f.start : f.end] for f in one.findings] for one in answers]


def test_offsets_count_characters_of_the_decoded_line() -> None:
    assert values(scanned(RAW)) == [
        ["alice@example.com"], ["4111111111111111"], [], ["bob@example.com"], ["张伟", "13812345678"],
        ["a\u200blice@example.com", "４１11111111111111"],
    ]  # fmt: skip
    second = scanned(RAW)[1]
    assert second.record.text.startswith("\ufffd\ufffd card ")
    assert second.findings[0].start == 8


@pytest.mark.parametrize(
    "pack", [lambda raw: raw, gzip.compress, zstandard.compress, lambda raw: gzip.compress(raw[:40]) + gzip.compress(raw[40:])]
)
def test_compressed_input_is_known_by_its_first_bytes(pack: object) -> None:
    packed = pack(RAW)  # type: ignore[operator]
    assert [as_json(a) for a in scanned(packed)] == [as_json(a) for a in scanned(RAW)]


@pytest.mark.parametrize("packed", [gzip.compress(RAW * 50)[:-9], zstandard.compress(RAW)[:-5], b"\x1f\x8b\x08nonsense"])
def test_damaged_input_is_an_error_and_not_an_end(packed: bytes) -> None:
    with pytest.raises(DataError) as caught:
        scanned(packed)
    assert caught.value.code == "E-SCAN-001"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_text_of_another_encoding_is_refused_and_not_overlooked(encoding: str) -> None:
    with pytest.raises(UsageError) as caught:
        scanned("alice@example.com".encode(encoding))
    assert caught.value.code == "E-SCAN-005"


def test_a_field_of_json_lines_keeps_its_lone_surrogates_and_bad_lines_are_answered() -> None:
    deep = b'{"m":' * 100_000 + b"1"
    raw = b"\n".join(
        [
            b'{"m":"\\ud800 alice@example.com"}',
            b"{broken",
            b'{"m":3}',
            b'{"a":{"m":"bob@example.com"}}',
            b'{"a.m":"carol@example.com"}',
            deep,
        ]
    )
    by_m = scanned(raw, "m")
    assert [a.record.error for a in by_m] == [None, "E-SCAN-002", "E-SCAN-003", "E-SCAN-003", "E-SCAN-003", "E-SCAN-002"]
    assert [(f.start, f.end) for f in by_m[0].findings] == [(2, 19)]
    assert values(scanned(raw, "a.m"))[3:5] == [["bob@example.com"], ["carol@example.com"]]


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_read_and_every_offset_is_valid(raw: bytes) -> None:
    try:
        answers = scanned(raw)
    except (DataError, UsageError):
        return
    assert [a.record.number for a in answers] == list(range(1, len(answers) + 1))
    for answer in answers:
        for found in answer.findings:
            assert 0 <= found.start < found.end <= len(answer.record.text)


def test_batches_change_nothing_and_memory_does_not_grow_with_the_input() -> None:
    lines = [f"user{i}@example.com" if i % 7 else "" for i in range(3000)]
    seen = 0

    def endless() -> object:
        nonlocal seen
        for number, line in enumerate(lines, 1):
            seen = number
            yield Record(number, line)

    batches = Scanner(detector=lambda language: PATTERNS).scan(endless())  # type: ignore[arg-type]
    first = next(batches)
    assert seen == len(first) < 600, "a batch is answered before the next is read"
    rest = [one for batch in batches for one in batch]
    assert values([*first, *rest]) == [[line] if line else [] for line in lines]


def test_the_command_prints_offsets_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.log"
    path.write_bytes("2026-03-01 12:00:00 INFO ip=10.1.2.3 done\n订单13812345678\n".encode())
    assert main(["scan", str(path), "--json", "--language", "zh"]) == 0
    out = capsys.readouterr().out
    assert "10.1.2.3" not in out
    assert "13812345678" not in out
    first, second = map(json.loads, out.splitlines())
    assert first["record"] == 1
    assert set(first["findings"][0]) == {"start", "end", "type", "score", "recognizer"}
    assert (first["findings"][0]["start"], first["findings"][0]["end"]) == (28, 36)
    assert second["findings"][0]["type"] == "PHONE_NUMBER"
    assert main(["scan", str(path), "--json", "--explain", "--language", "zh"]) == 0
    assert {"version", "reason"} < set(json.loads(capsys.readouterr().out.splitlines()[0])["findings"][0])


def test_the_command_ends_with_2_after_all_records_were_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"m":"bob@example.com"}\nsecret alice@example.com\n{"m":"carol@example.com"}\n')
    assert main(["scan", str(path), "--json", "--field", "m", "--language", "zh"]) == 2
    captured = capsys.readouterr()
    assert [json.loads(line).get("error") for line in captured.out.splitlines()] == [None, "E-SCAN-002", None]
    assert "E-SCAN-006" in captured.err
    assert "alice" not in captured.err
    assert main(["scan", str(tmp_path / "missing")]) == 2
    assert "E-SCAN-001" in capsys.readouterr().err


def test_threshold_and_policy_decide_what_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.log"
    path.write_text("2026-03-01 12:00:00 INFO from=alice@example.com badge=QX-4471 ip=10.1.2.3\n")
    policy = tmp_path / "policy.yaml"
    shipped = next(Path(__file__).parents[2].glob("dags/policies/*.y*ml"))
    text = shipped.read_text().replace(
        "pii:\n",
        "pii:\n  patterns:\n    badge:\n      pattern: QX-[0-9]{4}\n      entity: ACCOUNT_NUMBER\n      examples: [QX-1234]\n",
        1,
    )
    policy.write_text(text)

    def types(*more: str) -> set[str]:
        capsys.readouterr()
        assert main(["scan", str(path), "--json", "--language", "zh", *more]) == 0
        return {f["type"] for f in json.loads(capsys.readouterr().out)["findings"]}

    assert types() == {"EMAIL_ADDRESS", "IP_ADDRESS"}
    assert types("--threshold", "1") == set()
    assert "ACCOUNT_NUMBER" in types("--policy", str(policy))


def shown(answer: Scanned, *, terminal: bool, explain: bool = False) -> str:
    out = io.StringIO()
    scan_screen.print_record(Console(file=out, force_terminal=terminal, width=100, highlight=False), answer, explain=explain)
    return out.getvalue()


def test_sealed_lists_are_looked_for_where_their_home_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PRIVET_HOME", raising=False)
    home = Home.create(tmp_path / "home")
    SealedSecrets(home).set(secret_name("list", "staff"), "quartermain\n")
    policy, text = tmp_path / "policy.yaml", tmp_path / "a.log"
    policy.write_text(yaml.safe_dump(policy_value(**{"pii.deny": {"staff": "PERSON"}})))
    text.write_text("请问一下今天 quartermain 先生在不在这里呢\n")
    asked = ["scan", str(text), "--json", "--policy", str(policy)]
    assert main([*asked, "--home", str(home.path)]) == 0
    assert '"type": "PERSON"' in capsys.readouterr().out
    assert main(asked) == 0
    told = capsys.readouterr()
    assert '"type"' not in told.out
    assert "not looked for" in told.err
    monkeypatch.setenv("PRIVET_ROLE", "trainer")
    assert main([*asked, "--home", str(home.path)]) == 2
    refused = capsys.readouterr()
    assert "E-KEY-011" in refused.err
    assert "quartermain" not in refused.err + refused.out


def test_people_see_colours_on_a_terminal_and_brackets_elsewhere() -> None:
    answer = scanned(b"mail alice@example.com now")[0]
    assert shown(answer, terminal=False) == "1: mail [EMAIL_ADDRESS alice@example.com] now\n"
    assert "\x1b[" in shown(answer, terminal=True)
    assert "checksum" in shown(answer, terminal=False, explain=True)


def test_a_record_cannot_steer_the_terminal() -> None:
    text = "\x1b]0;pwned\x07 \x9b31m \u202e alice@example.com [red]x[/red] \ud800"
    answer = Scanned(Record(1, text), [Finding(text.index("alice"), text.index(" [red]"), "EMAIL_ADDRESS", 1.0, "email", "1")])
    plain = shown(answer, terminal=False)
    assert not any(sign in plain for sign in "\x1b\x07\x9b\u202e\ud800")
    assert "[red]x[/red]" in plain, "markup of a record is text"


def test_a_long_record_is_shown_around_its_findings() -> None:
    text = "x" * 5000 + " alice@example.com " + "y" * 5000
    line = shown(scanned(text.encode())[0], terminal=False)
    assert "alice@example.com" in line
    assert len(line) < 400


@pytest.mark.slow
def test_a_line_of_a_hundred_megabytes_is_scanned() -> None:
    raw = b"x=1 " * 25_000_000 + b"alice@example.com"
    (answer,) = scanned(raw)
    assert [(f.start, f.end) for f in answer.findings] == [(100_000_000, 100_000_017)]

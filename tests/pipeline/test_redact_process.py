"""Redaction in a process of its own, and the command: whatever becomes of the child, nothing unredacted comes out."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from pipeline import cli, redact_process
from pipeline.redact_process import RedactProcess
from privacy.errors import DataError
from tests.worlds.policies import make_policy, policy_value

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(policy_value()))
    return path


def test_texts_and_streams_are_redacted_in_the_child() -> None:
    with RedactProcess(make_policy(), ["canary 4711"]) as process:
        assert process.redact("mail a.b@example.com").text == "mail <EMAIL_ADDRESS>"
        for _ in range(2):
            said = process.feed("it said cana") + process.feed("ry-4711 to a.b@exam") + process.feed("ple.com, ok")
            rest = process.close()
            assert said + rest.text == "it said <SECRET> to <EMAIL_ADDRESS>, ok"
            assert rest.counts == {"SECRET": 1, "EMAIL_ADDRESS": 1}
        child = process._process
    assert child.poll() is not None


READY = "import sys\nsys.stdin.readline()\nprint('{}', flush=True)\n"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("import re\nsys.stdin.readline()\nre.match('(a+)+$', 'a' * 60 + 'b')", "E-REDACT-003"),  # keeps the global lock
        ("import time\ntime.sleep(60)", "E-REDACT-003"),  # does not even read
        ("sys.stdin.readline()\nimport os\nos.abort()", "E-REDACT-001"),
        ("sys.stdin.readline()\nprint('alice', flush=True)", "E-REDACT-001"),
        ("sys.stdin.readline()\nprint('[1]', flush=True)", "E-REDACT-001"),
        ('sys.stdin.readline()\nprint(\'{"text": 5, "counts": {}}\', flush=True)', "E-REDACT-001"),
        ("sys.stdin.readline()\nprint('{\"error\": 5}', flush=True)", "E-REDACT-001"),
    ],
)
def test_a_child_that_hangs_dies_or_talks_nonsense_is_killed_and_nothing_leaves(
    body: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child.py"
    child.write_text(READY + body + "\n")
    with RedactProcess(make_policy(), child=child, seconds=1.0) as process:
        begun = time.monotonic()
        with pytest.raises(DataError, match=code) as caught:
            process.redact("alice " * 50_000)
        assert time.monotonic() - begun < 60
        assert "alice" not in str(caught.value)
        if "error" not in body:
            assert process._process.poll() is not None
            with pytest.raises(DataError, match=code):
                process.feed("alice")


def run(policy: Path, text: bytes, *options: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "pipeline.cli", "redact", str(policy), *options]
    return subprocess.run(command, input=text, capture_output=True, cwd=ROOT, check=False)


def test_the_command_redacts_a_text(policy_file: Path, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets.txt"
    secrets.write_text("canary 4711\n\n")
    done = run(policy_file, "从 a.b@example.com 来，CANARY4711".encode(), "--summary", "--secrets", str(secrets))
    assert (done.returncode, done.stdout.decode()) == (0, "从 <EMAIL_ADDRESS> 来，<SECRET>")
    assert done.stderr.decode() == "removed: 1 EMAIL_ADDRESS, 1 SECRET\n"


def test_the_command_writes_a_stream_as_it_comes(policy_file: Path) -> None:
    command = [sys.executable, "-m", "pipeline.cli", "redact", str(policy_file), "--stream"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"All is well! My mail: alice.sm")
        process.stdin.flush()
        first = os.read(process.stdout.fileno(), 1000)  # before the input ends
        process.stdin.write(b"ith@example.com, bye\n")
        process.stdin.close()
        rest = process.stdout.read()
    assert first.startswith(b"All is well!")
    assert b"alice" not in first
    assert first + rest == b"All is well! My mail: <EMAIL_ADDRESS>, bye\n"


@pytest.mark.parametrize("options", [(), ("--stream",)])
def test_what_is_not_text_is_refused(policy_file: Path, options: tuple[str, ...]) -> None:
    done = run(policy_file, b"alice \xff", *options)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"E-REDACT-008" in done.stderr


def test_a_list_of_secrets_that_is_not_there_is_refused(policy_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["redact", str(policy_file), "--secrets", str(policy_file.with_name("none"))]) == 2
    assert "E-REDACT-007" in capsys.readouterr().err


def test_a_text_that_is_not_shown_to_be_clean_is_not_written(
    policy_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    child = policy_file.with_name("child.py")
    child.write_text(READY + 'sys.stdin.readline()\nprint(\'{"error": ["E-REDACT-001", "x", "y"]}\', flush=True)\n')
    monkeypatch.setattr(
        redact_process.RedactProcess.__init__, "__kwdefaults__", {"models": False, "seconds": 5.0, "child": child}
    )
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"alice")))
    assert cli.main(["redact", str(policy_file)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "alice" not in said.err

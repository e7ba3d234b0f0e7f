"""What a user can get wrong, through the command line: one sentence, a stable code, and nothing lost or half-written."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from pipeline.quarantine import read_quarantine
from pipeline.stage import load_manifest
from tests.worlds.chats import PLANTED, record
from tests.worlds.terminal import Terminal, remount, small_disk


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    """A run that ended well; tests work on copies of its home."""
    made = Terminal(tmp_path_factory.mktemp("finished"))
    assert made.run().code == 0
    return made


@pytest.fixture
def after(finished: Terminal, tmp_path: Path) -> Terminal:
    """The finished run, to be broken."""
    copy = Terminal(tmp_path / "copy", source=False)
    shutil.copytree(finished.home, copy.home)
    copy.policy, copy.source = finished.policy, finished.source
    return copy


# The policy


def test_an_unknown_policy_field_is_named_with_its_line_and_no_home_is_made(terminal: Terminal) -> None:
    terminal.write_policy(colour="green")
    checked = terminal.privet("policy", "check", terminal.policy)
    assert checked.code == 2
    line = next(n for n, text in enumerate(terminal.policy.read_text().splitlines(), 1) if "colour" in text)
    assert f":{line}: colour: unknown field" in checked.err
    said = terminal.run()
    assert (said.code, said.fault) == (2, "E-POLICY-002")
    assert "colour" in said.err
    assert not terminal.home.exists()


def test_a_policy_without_a_subject_is_refused(terminal: Terminal) -> None:
    terminal.write_policy(**{"source.fields": {"text": ["text"], "label": "intent", "record_id": "id"}})
    said = terminal.run()
    assert (said.code, said.fault) == (2, "E-POLICY-002")
    assert "source.fields.subject" in said.err


@pytest.mark.parametrize("text", [b"\xff\xfe", b"a: [", b"", b"- 1\n"], ids=["not text", "not yaml", "empty", "a list"])
def test_a_policy_that_is_no_policy_is_one_sentence(terminal: Terminal, text: bytes) -> None:
    terminal.policy.write_bytes(text)
    said = terminal.run()
    assert said.code == 2
    assert said.fault.startswith("E-POLICY")


def test_a_missing_policy_is_one_sentence(terminal: Terminal) -> None:
    terminal.policy.unlink()
    said = terminal.run()
    assert (said.code, said.fault) == (2, "E-POLICY-001")


# The source


@pytest.mark.parametrize(("make", "code"), [(True, "E-INGEST-001"), (False, "E-INGEST-005")], ids=["empty", "missing"])
def test_a_source_without_files_is_refused_and_can_be_filled(terminal: Terminal, make: bool, code: str) -> None:
    chats = (terminal.source / "chats.jsonl").read_bytes()
    shutil.rmtree(terminal.source)
    if make:
        terminal.source.mkdir()
    said = terminal.run()
    assert (said.code, said.fault) == (2, code)
    assert terminal.leftovers() == []
    terminal.source.mkdir(exist_ok=True)
    (terminal.source / "chats.jsonl").write_bytes(chats)
    assert terminal.run().code == 0


def test_records_without_a_subject_are_kept_apart_and_the_others_go_on(terminal: Terminal) -> None:
    stray = [{k: v for k, v in record(n).items() if k != "customer"} for n in range(1000, 1007)]
    terminal.write_source(stray, "stray.jsonl")
    said = terminal.run()
    assert said.code == 0
    assert "records 180, rejects 7" in said.out
    assert terminal.unowned() == set()


def test_labels_outside_the_declared_set_in_some_records(terminal: Terminal) -> None:
    """They are not dropped in silence: the run stops, or they are counted."""
    terminal.write_source([record(n, intent=f"gossip {PLANTED}") for n in range(1000, 1005)], "odd.jsonl")
    said = terminal.run()
    assert PLANTED not in said.out + said.err
    assert said.code == 0
    assert "rejects 5" in said.out


def test_a_source_of_rejects_only_waits_in_quarantine_for_a_mended_policy(terminal: Terminal) -> None:
    terminal.write_policy(**{"expectations.labels": ["complaint", "praise"]})
    said = terminal.run()
    assert (said.code, said.fault) == (2, "E-INGEST-002")
    digest = re.search(r"sha256:[0-9a-f]{64}", said.err)
    assert digest
    assert terminal.run().err == said.err, "a second try says the same and keeps one copy"
    ref = load_manifest(terminal.opened(), digest[0]).outputs["quarantine"]
    assert len(list(read_quarantine(terminal.opened().store, ref))) == 180
    assert terminal.unowned() == set()
    still = terminal.privet("quarantine", "replay", terminal.policy, digest[0], "--home", terminal.home)
    assert (still.code, still.fault) == (2, "E-INGEST-007")
    terminal.write_policy()
    replayed = terminal.privet("quarantine", "replay", terminal.policy, digest[0], "--home", terminal.home)
    assert replayed.code == 0
    assert "180 records accepted, 0 still refused" in replayed.out
    shutil.rmtree(terminal.source)  # the files are gone; the quarantine is all there is
    run = ["run", terminal.policy, "--source", f"quarantine:{digest[0]}", "--home", terminal.home, "--demo-approvals"]
    released = terminal.privet(*run)
    assert (released.code, released.err) == (0, "")
    assert terminal.privet("verify", terminal.home / "releases" / "test_chat" / "bundle").code == 0
    wrong = terminal.privet(
        "run", terminal.policy, "--source", "quarantine:nonsense", "--home", terminal.home, "--demo-approvals"
    )
    assert (wrong.code, wrong.fault) == (2, "E-STORE-009")


# The home


def test_no_home_is_one_sentence_for_every_command_that_needs_one(terminal: Terminal) -> None:
    for command in (["budget"], ["approvals", "list"], ["journal", "verify"], ["erase", "x", "--case", "T-1"]):
        said = terminal.privet(*command, "--home", terminal.home)
        assert (said.code, said.fault) == (2, "E-HOME-001")


def test_a_home_of_an_older_layout_is_refused_and_stays_as_it_is(after: Terminal) -> None:
    (after.home / "VERSION.json").write_text('{"layout":0,"made_by":"0.0.1"}')
    before = after.snapshot()
    for command in (
        ["run", after.policy, "--source", after.source],
        ["budget"],
        ["approvals", "list"],
        ["erase", "customer 1", "--case", "T-1"],
        ["identity", "list"],
        ["journal", "verify"],
    ):
        said = after.privet(*command, "--home", after.home)
        assert (said.code, said.fault) == (2, "E-HOME-002")
        assert "older" in said.err
    refused = after.privet("init", "--home", after.home)
    assert (refused.code, refused.fault) == (2, "E-HOME-004")
    assert after.snapshot() == before


HOME_FILES = {
    "trust.json": {"missing": "E-HOME-003", "empty": "E-HOME-003", "cut": "E-HOME-003", "flipped": "E-HOME-003"},
    "keyring.json": {"missing": "E-KEY-003", "empty": "E-KEY-004", "cut": "E-KEY-004", "flipped": "E-KEY-004"},
    "roots.json": {"missing": "E-KEY-003", "empty": "E-KEY-004", "cut": "E-KEY-004", "flipped": "E-KEY-004"},
    "kms.json": {"missing": "E-KEY-012", "empty": "E-KEY-012", "cut": "E-KEY-012", "flipped": "E-KEY-012"},
    "root.key": {"missing": "E-KEY-003", "empty": "E-KEY-007", "cut": "E-KEY-007", "another": "E-KEY-004"},
    "pipeline.key": {"missing": "E-HOME-007", "empty": "E-HOME-007", "cut": "E-HOME-007", "another": "E-HOME-010"},
    "VERSION.json": {"empty": "E-HOME-003", "cut": "E-HOME-003"},
}


@pytest.mark.parametrize(("name", "how", "code"), [(n, h, c) for n, hows in HOME_FILES.items() for h, c in hows.items()])
def test_a_damaged_home_file_is_one_sentence_and_nothing_is_signed(after: Terminal, name: str, how: str, code: str) -> None:
    path = after.home / name
    before, journal = path.read_bytes(), (after.home / "journal.sqlite").read_bytes()
    # A bit that flips inside somebody's key leaves a well-formed trust root that the journal never saw: the gates refuse it.
    flip = first_flipped if name == "trust.json" else flipped
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "cut": before[:-7], "flipped": flip(before), "another": b"5a" * 32}[how])
    after.write_source([record(n) for n in range(2000, 2060)], "new.jsonl")  # the run has something to do
    said = after.run()
    assert (said.code, said.fault) == (2 if code == "E-KEY-003" else 4, code)
    assert (after.home / "journal.sqlite").read_bytes() == journal
    (after.source / "new.jsonl").unlink()
    path.write_bytes(before)
    path.chmod(0o600)
    assert after.run().code == 0, "running again continues"


def test_a_read_only_home_is_one_sentence(terminal: Terminal, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "16m") as disk:
        terminal.home = disk / "home"
        assert terminal.privet("init", "--home", terminal.home, "--demo-identities").code == 0
        remount(disk, "ro")
        said = terminal.run()
        assert said.code == 2
        assert said.fault in ("E-DB-004", "E-STORE-011", "E-DISK-002")
        made = terminal.privet("init", "--home", disk / "other")
        assert (made.code, made.fault) == (2, "E-HOME-005")
        remount(disk, "rw")
        assert terminal.run().code == 0


def test_a_home_that_belongs_to_a_file(terminal: Terminal) -> None:
    terminal.home.write_text("not a folder")
    said = terminal.run()
    assert (said.code, said.fault) == (2, "E-HOME-005")


# Helpers


def first_flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 0x01]) + data[1:]


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0x01]) + data[middle + 1 :]

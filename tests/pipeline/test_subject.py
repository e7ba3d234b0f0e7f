"""An access request: everything an erasure would find is in the answer, and nothing that names the person."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.erase import erase
from pipeline.ingest import ingest
from pipeline.protect import protect
from pipeline.stage import StageOutput, StageResult, load_manifest, run_stage
from pipeline.subject import answer
from pipeline.training_watch import journal_start
from privacy.canonical import canonical_json
from tests.worlds.chats import EmailDetector, World, code_of, lines, record, records
from tests.worlds.traces import trace

SUBJECT = "customer-3"


@pytest.fixture
def lived(world: World) -> tuple[World, StageResult, StageResult]:
    world.write("a.jsonl", lines(records(20)) + b'{"customer": "customer-3", "broken\n')
    ctx = world.context()
    done = protect(ctx, ingest(ctx, str(world.source)).digest, EmailDetector())

    def body() -> StageOutput:
        data = canonical_json(trace(epsilon=2.0, delta=1e-4).to_json())
        return StageOutput({"trace": world.home.store.put_plain(data, dataset="test_chat", path="t", data_class="trace")}, {})

    model = run_stage(ctx, "train", {"protect": done.digest}, body)
    world.home.journal.append("release", {"run": "run-1", "policy_name": "test_chat"})
    world.write("b.jsonl", lines([record(n) for n in range(100, 110)]))
    ingest(world.context("run-2"), str(world.source))
    return world, done, model


def test_the_answer_names_every_place_and_use(lived: tuple[World, StageResult, StageResult]) -> None:
    world, done, model = lived
    journal_start(world.context(), done.digest, "sha256:" + "1" * 64, "train-9")
    found = answer(world.home, " CUSTOMER-3", "ASK-1", "officer")
    (dataset,) = found.datasets
    assert (dataset.name, dataset.originals, dataset.erased_at) == ("test_chat", 4, None)
    assert dataset.originals_until is not None
    assert dataset.purposes == (("test_chat", "Route support messages to the right team.", "Example Ltd"),)
    assert sorted((c.kind, c.records) for c in found.copies) == [
        ("protected", 4),
        ("quarantine", 1),
        ("quarantine", 1),
        ("raw", 6),
    ]
    assert all(c.kept_until for c in found.copies)
    (use,) = found.uses
    assert (use.manifest, use.epsilon, use.delta, use.policy) == (model.digest, 2.0, 1e-4, "test_chat")
    assert len(use.releases) == 1
    assert found.trainings == ("train-9",)
    assert found.is_known


def test_the_answer_holds_neither_identifier_nor_token_and_the_request_is_journalled(
    lived: tuple[World, StageResult, StageResult],
) -> None:
    world, _, _ = lived
    found = answer(world.home, SUBJECT, "ASK-1", "officer")
    told = json.dumps(found.to_json()) + "\n".join(found.lines())
    assert SUBJECT not in told
    assert world.home.vault.token("test_chat", SUBJECT) not in told
    entry = next(e for e in reversed(world.home.journal.entries()) if e.kind == "subject_access")
    assert (entry.facts["case"], entry.facts["by"], entry.facts["originals_revealed"]) == ("ASK-1", "officer", False)
    assert list(entry.facts["subject"]) == ["test_chat"]  # type: ignore[arg-type]


def test_after_an_erasure_the_answer_says_so_and_what_is_still_to_come(
    lived: tuple[World, StageResult, StageResult],
) -> None:
    world, _, model = lived
    receipt = erase(world.home, SUBJECT, "DSAR-1", "officer")
    found = answer(world.home, SUBJECT, "ASK-2", "officer")
    (dataset,) = found.datasets
    assert (dataset.originals, dataset.erased_by_case, dataset.old_copies_gone_by) == (0, "DSAR-1", receipt.gone_by)
    assert [u.manifest for u in found.uses] == [model.digest]


def test_a_stranger_gets_an_honest_nothing(lived: tuple[World, StageResult, StageResult]) -> None:
    world, _, _ = lived
    found = answer(world.home, "nobody@example.org", "ASK-3", "officer")
    assert (found.is_known, found.datasets, found.copies, found.uses) == (False, (), (), ())
    assert "holds nothing under that identifier" in found.lines()[1]


def test_originals_are_written_to_a_new_folder_of_the_caller_only(
    lived: tuple[World, StageResult, StageResult], tmp_path: Path
) -> None:
    world, _, _ = lived
    found = answer(world.home, SUBJECT, "ASK-1", "officer", tmp_path / "out")
    assert found.revealed == 4
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700
    (file,) = (tmp_path / "out").iterdir()
    assert (file.name, file.stat().st_mode & 0o777) == ("test_chat.jsonl", 0o600)
    originals = [json.loads(json.loads(line)["original"]) for line in file.read_text().splitlines()]
    assert {o["customer"] for o in originals} == {SUBJECT}
    assert next(e for e in reversed(world.home.journal.entries()) if e.kind == "subject_access").facts["originals_revealed"]
    assert code_of(answer, world.home, SUBJECT, "ASK-1", "officer", tmp_path / "out") == "E-SUBJECT-001"


def test_the_request_is_journalled_before_any_original_is_opened(
    lived: tuple[World, StageResult, StageResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, _, _ = lived

    def unwritable(kind: str, facts: object) -> None:
        raise OSError("the journal can't be written")

    with monkeypatch.context() as patched:
        patched.setattr(type(world.home.journal), "append", lambda self, kind, facts: unwritable(kind, facts))
        with pytest.raises(OSError, match="journal"):
            answer(world.home, SUBJECT, "ASK-1", "officer", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("subject", "case", "code"), [("", "A-1", "E-ERASE-001"), (SUBJECT, f"A-{SUBJECT}", "E-ERASE-002")])
def test_the_subject_does_not_slip_into_the_journal(world: World, subject: str, case: str, code: str) -> None:
    assert code_of(answer, world.home, subject, case, "officer") == code


def test_a_class_this_role_may_not_read_is_said_to_be_unknown(
    lived: tuple[World, StageResult, StageResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An eraser finds people and destroys keys, and reads nobody's record."""
    world, _, _ = lived
    monkeypatch.setenv("PRIVET_ROLE", "eraser")
    from pipeline.home import Home

    home = Home.open(world.home.path)
    receipt = erase(home, SUBJECT, "DSAR-1", "officer")
    assert {(a.kind, a.records) for a in receipt.artifacts} == {("protected", None), ("raw", None), ("quarantine", None)}
    assert receipt.datasets[0].vault_records == 4
    assert len(receipt.models) == 1
    assert {a.state for a in receipt.artifacts if a.kind == "quarantine"} == {"gone"}  # the vault knew the person


def test_a_role_that_may_not_look_destroys_no_quarantine_for_a_stranger(
    lived: tuple[World, StageResult, StageResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, done, _ = lived
    monkeypatch.setenv("PRIVET_ROLE", "eraser")
    from pipeline.home import Home

    receipt = erase(Home.open(world.home.path), "nobody@example.org", "DSAR-1", "officer")
    kept = [a for a in receipt.artifacts if a.kind == "quarantine"]
    assert {(a.state, a.records) for a in kept} == {("waiting", None)}
    assert all("a steward has to run this erasure again" in a.remedy for a in kept)
    assert world.home.store.exists(load_manifest(world.home, done.manifest.inputs["ingest"]).outputs["quarantine"])


def test_the_commands_read_the_subject_from_standard_input_and_check_a_receipt(
    lived: tuple[World, StageResult, StageResult],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    world, _, _ = lived
    home = str(world.home.path)

    def run(*arguments: str, stdin: str = "") -> tuple[int, str]:
        monkeypatch.setattr("sys.stdin", __import__("io").StringIO(stdin))
        code = main(arguments)
        return code, capsys.readouterr().out

    code, said = run("subject", "-", "--home", home, "--json", stdin=f"{SUBJECT}\n")
    assert code == 0
    assert json.loads(said)["datasets"][0]["originals"] == 4
    assert run("subject", SUBJECT, "--home", home, "--reveal", str(tmp_path / "o"))[0] == 2  # a case is needed
    receipt = tmp_path / "receipt.json"
    code, _ = run("erase", "-", "--case", "DSAR-1", "--home", home, "--receipt", str(receipt), stdin=f"{SUBJECT}\n")
    assert code == 0
    trust = ["--trust", str(world.home.path / "trust.json")]
    code, said = run("erase", "--verify", str(receipt), *trust)
    assert code == 0
    assert "which is still to come" in said
    assert run("erase", "--verify", str(receipt))[0] == 2
    assert run("erase", SUBJECT, "--home", home)[0] == 2  # no case
    assert run("retention", "--home", home, "--dry-run")[0] == 0
    code, said = run("retention", "--home", home, "--ahead", "40", "--statements", str(tmp_path / "done"), "--json")
    assert code == 0
    assert json.loads(said)["pending"] == []
    (statement,) = (tmp_path / "done").iterdir()
    code, said = run("erase", "--verify", str(receipt), *trust, "--completed", str(statement), "--json")
    assert code == 0
    assert json.loads(said)["promises"][0]["state"] == "completed"
    receipt.write_bytes(receipt.read_bytes()[:-9])
    assert run("erase", "--verify", str(receipt), *trust)[0] == 4

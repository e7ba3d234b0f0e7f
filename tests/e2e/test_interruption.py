"""A run that is cut short anywhere: nothing is lost or half-written, and running again continues to the same result."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from unittest import mock

import pytest

from pipeline.home import Home
from pipeline.stage import load_manifest
from privacy.canonical import Json
from privacy.errors import EnvironmentFault, PrivetError
from privacy.journal import Entry, Journal
from tests.worlds.chats import record
from tests.worlds.terminal import Said, Terminal, small_disk

STAGES = ("ingest", "protect", "validate", "train", "audit", "report", "assemble", "release")
SCOPE = "test_chat/customer"
STEPS = 40  # of the terminal's policy
LEASE = 4  # a tenth of them
REFUSED = {"cut": "E-STORE-014", "flipped": "E-STORE-002"}


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path)


StoppedBefore = Callable[[str], Terminal]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> StoppedBefore:
    """A home whose run was stopped with Ctrl-C right before a stage; made once, tests work on copies."""
    root = tmp_path_factory.mktemp("stopped")

    @cache
    def before(stage: str) -> Terminal:
        terminal = Terminal(root / stage)
        with mock.patch(f"pipeline.tasks.run_{stage}", side_effect=KeyboardInterrupt):
            said = terminal.run()
        assert (said.code, said.err) == (130, "stopped; running again continues\n")
        return terminal

    return before


def some(cases: Iterable[object], quick: Container[object]) -> list[object]:
    """Every case, those that are not `quick` marked slow: together they take minutes."""
    marked = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [pytest.param(*c, marks=() if c in quick or c[0] in quick else pytest.mark.slow) for c in marked]


def copy_of(original: Terminal, root: Path) -> Terminal:
    copy = Terminal(root / "copy", source=False)
    copy.policy, copy.source = original.policy, original.source
    shutil.copytree(original.home, copy.home)
    return copy


def charged(terminal: Terminal) -> list[int]:
    return [spend.charged for spend in terminal.opened().ledger.spends(SCOPE)]


def ends_well(terminal: Terminal) -> None:
    """The last run of a test: released, verified, nothing left over, and nothing sealed that nobody owns."""
    assert terminal.run().code == 0
    bundle = terminal.home / "releases" / "test_chat" / "bundle"
    assert terminal.privet("verify", bundle, "--trust", terminal.home / "trust.json").code == 0
    assert terminal.privet("journal", "verify", "--home", terminal.home, "--anchor", bundle).code == 0
    assert terminal.leftovers() == []
    assert terminal.unowned() == set()
    assert terminal.opened().ledger.self_audit() == []


# Wrong keys and damaged artifacts between stages


@pytest.mark.parametrize(
    ("stage", "both"), some([(s, b) for s in STAGES[1:] for b in (False, True)], [("protect", False), ("train", True)])
)
def test_a_foreign_root_key_stops_each_stage_and_the_right_one_continues(
    stopped: StoppedBefore, tmp_path: Path, stage: str, both: bool
) -> None:
    if both and stage in ("validate", "report", "release"):
        pytest.skip("its inputs were checked at the stages before")
    terminal = copy_of(stopped(stage), tmp_path)
    other = Home.create(tmp_path / "other")
    names = ("root.key", "roots.json", "keyring.json") if both else ("root.key",)
    kept = {name: (terminal.home / name).read_bytes() for name in names}
    for name in names:
        (terminal.home / name).write_bytes((other.path / name).read_bytes())
    said = terminal.run()
    assert said.code == 4
    assert said.fault == ("E-KEY-010" if both else "E-KEY-004")
    for name, data in kept.items():
        (terminal.home / name).write_bytes(data)
    ends_well(terminal)
    assert charged(terminal) == [STEPS]


def newest_output(terminal: Terminal, stage: str, output: str) -> Path:
    home = terminal.opened()
    for entry in reversed(home.journal.entries()):
        if entry.kind == "stage" and entry.facts["stage"] == stage:
            name = load_manifest(home, str(entry.facts["manifest"])).outputs[output].digest.removeprefix("sha256:")
            return home.path / "objects" / name[:2] / name
    raise AssertionError(stage)


@pytest.mark.parametrize("how", some(["missing", "cut", "flipped"], ["cut"]))
@pytest.mark.parametrize(
    ("before", "stage", "output"),
    some(
        [
            ("protect", "ingest", "raw"),
            ("validate", "protect", "protected"),
            ("train", "protect", "protected"),
            ("train", "validate", "validation"),
            ("assemble", "report", "report_html"),
            ("release", "audit", "verdicts"),
        ],
        ["protect", "train"],
    ),
)
def test_an_artifact_damaged_between_stages_is_refused_and_made_anew_once_it_is_deleted(
    stopped: StoppedBefore, tmp_path: Path, before: str, stage: str, output: str, how: str
) -> None:
    terminal = copy_of(stopped(before), tmp_path)
    path = newest_output(terminal, stage, output)
    data = path.read_bytes()
    damage(path, how)
    if how != "missing" and output not in ("validation", "verdicts"):
        said = terminal.run()
        assert (said.code, said.fault) in ((4, REFUSED[how]), (4, "E-STORE-002"))  # 014 is for sealed objects
        assert path.name in said.err, "the person is told which file"
        assert not terminal.released()
        assert charged(terminal) in ([], [STEPS])
        path.write_bytes(data)
        restored = copy_of(terminal, tmp_path / "restored")
        ends_well(restored)
        path.unlink()
    if how == "missing":
        ends_well(terminal)


@pytest.mark.parametrize("how", ["missing", "cut", "flipped"])
def test_a_lost_model_is_not_trained_again_for_nothing(stopped: StoppedBefore, tmp_path: Path, how: str) -> None:
    terminal = copy_of(stopped("audit"), tmp_path)
    path = newest_output(terminal, "train", "model")
    data = path.read_bytes()
    damage(path, how)
    said = terminal.run()
    assert (said.code, said.fault) == ((3, "E-TRAIN-024") if how == "missing" else (4, REFUSED[how]))
    assert charged(terminal) == [STEPS]
    path.write_bytes(data)
    ends_well(terminal)


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        middle = len(data) // 2
        path.write_bytes(data[:-5] if how == "cut" else data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])


# Data that was destroyed on purpose


def test_results_that_were_lost_make_the_run_start_over_from_the_source(stopped: StoppedBefore, tmp_path: Path) -> None:
    """A home restored without results/, or without the one record of protect: the raw batch is long gone."""
    terminal = copy_of(stopped("validate"), tmp_path)
    for path in (terminal.home / "results").iterdir():
        if load_manifest(terminal.opened(), path.read_text().strip()).stage == "protect":
            path.unlink()
    assert not newest_output(terminal, "ingest", "raw").exists()
    ends_well(terminal)
    assert charged(terminal) == [STEPS]


def test_a_retired_dataset_is_taken_in_again_only_by_a_run_that_needs_it(stopped: StoppedBefore, tmp_path: Path) -> None:
    waiting = copy_of(stopped("train"), tmp_path / "waiting")
    newest_output(waiting, "protect", "protected").unlink()
    ends_well(waiting)
    done = copy_of(stopped("release"), tmp_path / "done")
    retired = newest_output(done, "protect", "protected")
    retired.unlink()
    ends_well(done)
    assert charged(done) == [STEPS], "no second training"
    assert not retired.exists()
    assert newest_output(done, "protect", "protected") == retired, "the source was not taken in again"


@pytest.mark.parametrize("before", ["validate", "train", "release"])
def test_a_dataset_whose_subjects_were_all_erased_is_one_sentence(stopped: StoppedBefore, tmp_path: Path, before: str) -> None:
    terminal = copy_of(stopped(before), tmp_path)
    subjects = {json.loads(line)["customer"] for line in (terminal.source / "chats.jsonl").open()}
    home = terminal.opened()
    for number, subject in enumerate(sorted(subjects)):
        home.vault.erase("test_chat", subject, f"T-{number}")
    said = terminal.run()
    if before == "release":
        assert said.code == 0, "the model was audited before; what to do about it is in the receipts"
        return
    assert said.code in (2, 3)
    assert said.fault == {"validate": "E-VALIDATE-002", "train": "E-TRAIN-003"}[before]
    assert terminal.run().err == said.err


# A full disk


@pytest.mark.parametrize("free", some([*range(8, 48, 16), *range(64, 704, 64)], [64, 320, 576]))
def test_a_disk_that_fills_up_anywhere_loses_nothing(terminal: Terminal, tmp_path: Path, free: int) -> None:
    """A real file system with `free` KiB left for the whole run, which needs about 700."""
    with small_disk(tmp_path / "disk", "24m") as disk:
        terminal.home = disk / "home"
        filler = disk / "filler"
        space = os.statvfs(disk)
        with filler.open("wb") as file:
            file.truncate(0)
            file.write(b"\0" * (space.f_bavail * space.f_bsize - free * 1024))
        said = terminal.run()
        assert (said.code, bool(said.fault)) == (2, True)
        assert not terminal.released()
        assert terminal.leftovers() == []
        filler.unlink()
        ends_well(terminal)
        assert charged(terminal) in ([STEPS], [STEPS + LEASE]), "a lease whose checkpoint found no room stays charged"


@pytest.mark.parametrize("number", some(range(1, 60), [1, 4, 7, 16, 28]))
def test_a_write_that_fails_leaves_no_partial_object(terminal: Terminal, number: int) -> None:
    """The same without a small disk: the nth flush of the store answers ENOSPC, and then all do."""
    left = number
    real = os.fsync

    def fsync(handle: int) -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            raise OSError(28, "No space left on device")
        real(handle)

    assert terminal.privet("init", "--home", terminal.home, "--demo-identities").code == 0
    with mock.patch("os.fsync", fsync):
        said = terminal.run()
    assert (said.code, bool(said.fault)) == (2, True)
    assert terminal.leftovers() == []
    assert terminal.unowned() == set()
    ends_well(terminal)
    assert charged(terminal) in ([STEPS], [STEPS + LEASE]), "a lease whose checkpoint was lost stays charged"


def test_a_fault_right_before_the_release_leaves_no_plain_model(stopped: StoppedBefore, tmp_path: Path) -> None:
    terminal = copy_of(stopped("release"), tmp_path)
    real = Journal.append_many

    def append_many(journal: Journal, items: Sequence[tuple[str, Mapping[str, Json]]]) -> list[Entry]:
        if any(kind == "release" for kind, _ in items):
            raise EnvironmentFault("E-DB-001", "the disk is full", "Free some space")
        return real(journal, items)

    with mock.patch.object(Journal, "append_many", append_many):
        said = terminal.run()
    assert (said.code, said.fault) == (2, "E-DB-001")
    assert terminal.leftovers() == []
    assert not list(terminal.home.rglob("*.safetensors"))
    ends_well(terminal)


# A killed process


def killed_when(terminal: Terminal, condition: Callable[[], bool]) -> None:
    """SIGKILL the run as soon as `condition()` holds."""
    process = terminal.start()
    end = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_a_run_killed_in_the_middle_of_protect_continues(terminal: Terminal) -> None:
    terminal.write_source([record(n, customer=f"customer-{n % 60}") for n in range(20_000)])
    terminal.write_policy(**{"privacy_unit.max_records": 400})
    objects = terminal.home / "objects"
    killed_when(terminal, lambda: (terminal.home / "vault.sqlite").exists() and any((objects / "tmp").iterdir()))
    raw = newest_output(terminal, "ingest", "raw")
    assert raw.exists(), "the raw batch is kept until its dataset is there"
    (left,) = terminal.leftovers()
    os.utime(terminal.home / left, (0, 0))  # what a killed process left is swept once it is a day old
    ends_well(terminal)
    assert not raw.exists()
    assert charged(terminal) == [STEPS]


@pytest.mark.slow
def test_a_run_killed_in_the_middle_of_training_stays_charged_and_continues(terminal: Terminal) -> None:
    terminal.write_policy(**{"recipe.steps": 400})

    def some_steps_ran() -> bool:
        try:
            return any(40 <= spend.leased < 300 for spend in terminal.opened().ledger.spends(SCOPE))
        except PrivetError:
            return False

    killed_when(terminal, some_steps_ran)
    (before,) = terminal.opened().ledger.spends(SCOPE)
    assert before.settled is None
    assert before.charged >= before.leased
    said = terminal.run()
    assert said.code == 0, said.err
    (after,) = terminal.opened().ledger.spends(SCOPE)
    assert after.settled is not None
    assert 400 <= after.settled <= 440
    trace = json.loads((terminal.home / "releases" / "test_chat" / "bundle" / "trace.json").read_bytes())
    assert (trace["steps"], trace["steps_in_model"]) == (after.settled, 400)
    assert trace["epsilon"] <= 8.0


@pytest.mark.slow
@pytest.mark.parametrize("home_exists", [True, False])
def test_two_runs_of_one_policy_at_once_end_with_one_release(terminal: Terminal, home_exists: bool) -> None:
    if home_exists:
        assert terminal.privet("init", "--home", terminal.home, "--demo-identities").code == 0
    racers = [terminal.start(), terminal.start()]
    for racer in racers:
        out, err = racer.communicate(timeout=200)
        said = Said(racer.returncode, out, err)
        assert said.code == 0 or said.fault in ("E-TRAIN-022", "E-DB-002"), err
    ends_well(terminal)
    assert len(charged(terminal)) == 1

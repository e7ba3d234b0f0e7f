"""The end of an epoch over a dataset's sealed records: nobody else loses a row, and old copies open no more."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.erase import erase
from pipeline.home import Home
from pipeline.ingest import ingest, replay_quarantine
from pipeline.protect import protect
from pipeline.quarantine import quarantine_of, read_quarantine
from pipeline.read import read_protected
from pipeline.relocate import current
from pipeline.renew import CLASSES, renew
from pipeline.stage import ArtifactRef, StageResult, load_manifest
from pipeline.training_budget import SealedCheckpoints, only_trainer
from pipeline.writing import sealing
from privacy.errors import IntegrityError
from tests.worlds.chats import EmailDetector, World, code_of, lines, record, records

ROOT = Path(__file__).parents[2]
SUBJECT = "customer-3"
BROKEN = lines([record(7, id="m7x", intent="nonsense", customer="customer-4")])


def units(world: World, done: StageResult) -> list[str]:
    return sorted(r["record_id"] for r in read_protected(world.home, done.manifest).to_pylist())


class Lived:
    """A world with a protected dataset, a quarantine of somebody else's reject, a raw batch that waits, a checkpoint."""

    def __init__(self, world: World) -> None:
        self.world, self.home = world, world.home
        world.write("a.jsonl", lines(records(20)) + BROKEN)
        self.first = ingest(world.context(), str(world.source))
        self.protected = protect(world.context(), self.first.digest, EmailDetector())
        world.write("b.jsonl", lines([record(n) for n in range(100, 110)]))
        self.waiting = ingest(world.context("run-2"), str(world.source))
        (self.home.path / "checkpoints").mkdir(exist_ok=True)
        self.checkpoint = SealedCheckpoints(self.home, "test_chat", "train-1")
        with only_trainer(self.home, "train-1"):
            self.checkpoint.save(b"weights that saw somebody")

    def sealed(self) -> dict[str, ArtifactRef]:
        quarantine = quarantine_of(self.first.manifest)
        saved = self.checkpoint._ref()
        assert quarantine is not None
        assert saved is not None
        return {
            "protected": self.protected.manifest.outputs["protected"],
            "raw": self.waiting.manifest.outputs["raw"],
            "quarantine": quarantine,
            "checkpoint": saved,
        }


@pytest.fixture
def lived(world: World) -> Lived:
    return Lived(world)


def put_back(lived: Lived, backup: Path, ref: ArtifactRef) -> None:
    name = ref.digest.removeprefix("sha256:")
    target = lived.home.path / "objects" / name[:2] / name
    target.parent.mkdir(exist_ok=True)
    shutil.copy(backup / "objects" / name[:2] / name, target)


def test_survivors_are_read_under_their_old_address_and_backups_open_nothing(lived: Lived, tmp_path: Path) -> None:
    before, sealed = units(lived.world, lived.protected), lived.sealed()
    shutil.copytree(lived.home.path, tmp_path / "backup")
    erase(lived.home, SUBJECT, "DSAR-1", "officer")
    left = units(lived.world, lived.protected)
    assert len(left) == len(before) - 4
    done = renew(lived.home, "test_chat")
    assert set(done.classes) == set(CLASSES)
    assert (done.deferred, done.dropped) == ({}, 4 + 6)  # rows of the protected dataset and of the raw batch
    assert units(lived.world, lived.protected) == left
    moved = current(lived.home, sealed["protected"])
    assert moved != sealed["protected"]
    for name, ref in sealed.items():
        assert not lived.home.store.exists(ref), name
        put_back(lived, tmp_path / "backup", ref)
        with pytest.raises(IntegrityError, match="E-KEY-006"):
            lived.home.store.read_sealed(ref)
    assert lived.checkpoint._ref() is None


def test_the_backup_was_readable_before_the_epoch_ended(lived: Lived, tmp_path: Path) -> None:
    """The control of the test above."""
    sealed = lived.sealed()
    shutil.copytree(lived.home.path, tmp_path / "backup")
    erase(lived.home, SUBJECT, "DSAR-1", "officer")
    for ref in sealed.values():
        if not lived.home.store.exists(ref):
            put_back(lived, tmp_path / "backup", ref)
        assert lived.home.store.read_sealed(ref)


def test_runs_go_on_over_the_end_of_an_epoch(lived: Lived) -> None:
    """A raw batch that waits is protected, a quarantine is replayed, and a second end finds the moved objects."""
    erase(lived.home, SUBJECT, "DSAR-1", "officer")
    for _ in range(2):
        renew(lived.home, "test_chat")
    quarantine = quarantine_of(lived.first.manifest)
    assert quarantine is not None
    assert [r.code for r in read_quarantine(lived.home.store, current(lived.home, quarantine))]
    done = protect(lived.world.context("run-2"), lived.waiting.digest, EmailDetector())
    assert not lived.home.store.exists(current(lived.home, lived.waiting.manifest.outputs["raw"]))
    assert len(units(lived.world, done)) == 24
    mended = lived.world.context("run-3", **{"expectations.labels": ["refund", "delivery", "greeting", "nonsense"]})
    replayed = replay_quarantine(mended, lived.first.digest)
    assert replayed.manifest.facts["records"] == 1
    assert protect(lived.world.context("run-4"), lived.first.digest, EmailDetector()).reused


def test_rows_of_nobody_else_are_lost_or_changed(lived: Lived) -> None:
    token = lived.home.vault.token("test_chat", SUBJECT)
    rows = read_protected(lived.home, lived.protected.manifest).to_pylist()
    erase(lived.home, SUBJECT, "DSAR-1", "officer")
    renew(lived.home, "test_chat")
    assert read_protected(lived.home, lived.protected.manifest).to_pylist() == [r for r in rows if r["unit"] != token]


def test_a_stage_that_seals_right_now_defers_the_end_of_its_classes(lived: Lived) -> None:
    with sealing(lived.home):
        done = renew(lived.home, "test_chat", patience_seconds=0.1)
    assert set(done.classes) == {"vault", "checkpoint"}
    assert done.deferred == dict.fromkeys(("raw", "quarantine", "protected"), "E-RETAIN-002")
    assert len(units(lived.world, lived.protected)) == 20
    assert set(renew(lived.home, "test_chat").classes) >= {"raw", "quarantine", "protected"}


def test_a_training_that_runs_keeps_its_checkpoint(lived: Lived) -> None:
    with only_trainer(lived.home, "train-1"):
        done = renew(lived.home, "test_chat")
        assert done.deferred == {"checkpoint": "E-TRAIN-022"}
        assert lived.checkpoint.load() == b"weights that saw somebody"
    assert "checkpoint" in renew(lived.home, "test_chat", ["checkpoint"]).classes
    assert lived.checkpoint.load() is None


def test_other_datasets_keep_their_keys_and_checkpoints(lived: Lived) -> None:
    other = lived.world.context("run-o", dataset="other_chat")
    done = protect(other, ingest(other, str(lived.world.source)).digest, EmailDetector())
    renew(lived.home, "other_chat")
    assert lived.home.store.exists(lived.protected.manifest.outputs["protected"])
    assert lived.checkpoint.load() is not None
    assert len(read_protected(lived.home, done.manifest)) == 30


def test_a_dataset_whose_rows_are_all_erased_is_gone_and_says_so(lived: Lived) -> None:
    for number in range(5):
        erase(lived.home, f"customer-{number}", f"DSAR-{number}", "officer")
    renew(lived.home, "test_chat")
    assert code_of(read_protected, lived.home, lived.protected.manifest) == "E-READ-002"
    assert "dropped" in [e.facts for e in lived.home.journal.entries() if e.kind == "resealed"][-1]


CHILD = """
import os, signal, sys
from pathlib import Path
from pipeline import relocate, renew
from pipeline.home import Home
from pipeline.store import Store
from privacy.journal import Journal
from privacy.keys import Keyring

home, number = Home.open(Path(sys.argv[1])), int(sys.argv[2])
count = 0

def mortal(owner, name):
    real = getattr(owner, name)
    def call(*args, **kwargs):
        global count
        result = real(*args, **kwargs)
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(owner, name, call)

mortal(Journal, "append")
mortal(Store, "shred")
mortal(Keyring, "new_epoch")
mortal(Keyring, "destroy_epoch")
mortal(renew, "keep")
renew.renew(home, "test_chat")
"""


@pytest.mark.slow
def test_killed_again_and_again_it_loses_no_row_and_ends_all_the_same(lived: Lived, tmp_path: Path) -> None:
    rows = units(lived.world, lived.protected)
    token = lived.home.vault.token("test_chat", SUBJECT)
    shutil.copytree(lived.home.path, tmp_path / "backup")
    sealed = lived.sealed()
    erase(lived.home, SUBJECT, "DSAR-1", "officer")
    expected = units(lived.world, lived.protected)
    assert len(expected) == len(rows) - 4
    number, kills = -1, 0
    while True:
        number += 2
        arguments = [sys.executable, "-c", CHILD, str(lived.home.path), str(number)]
        child = subprocess.run(
            arguments, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False
        )
        assert child.returncode in (0, -signal.SIGKILL), child.stderr.decode()
        kills += child.returncode != 0
        opened = Home.open(lived.home.path)
        found = read_protected(opened, load_manifest(opened, lived.protected.digest)).to_pylist()
        assert sorted(r["record_id"] for r in found) == expected, f"after a kill at step {number}"
        assert token not in {r["unit"] for r in found}
        if child.returncode == 0:
            break
    assert kills >= 5
    opened = Home.open(lived.home.path)
    for name, ref in sealed.items():
        put_back(lived, tmp_path / "backup", ref)
        with pytest.raises(IntegrityError, match="E-KEY-006"):
            opened.store.read_sealed(ref)
        assert name in CLASSES

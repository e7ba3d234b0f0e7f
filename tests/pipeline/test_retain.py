"""Retention: nothing early, nothing twice, nothing unsaid, and the promised day is kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.erase import erase
from pipeline.home import Home
from pipeline.ingest import ingest
from pipeline.protect import protect
from pipeline.read import read_protected
from pipeline.receipt import COMPLETED_TYPE
from pipeline.retain import RetentionReport, pending_epochs, run_retention
from pipeline.stage import StageResult, load_manifest
from pipeline.training_budget import SealedCheckpoints, only_trainer
from pipeline.training_watch import ENDED, journal_start
from privacy.canonical import Json
from privacy.errors import EnvironmentFault
from privacy.keys import Keyring
from privacy.signing import open_envelope
from tests.worlds.chats import EmailDetector, World, code_of, lines, record, records
from tests.worlds.postgres import PostgresServer

DAYS = {
    "retention.raw_days": 3,
    "retention.quarantine_days": 10,
    "retention.vault_days": 20,
    "retention.protected_days": 30,
    "retention.checkpoint_days": 5,
    "retention.erasure_days": 12,
}
BROKEN = b'{"customer": "customer-4", "broken\n'


class Lived:
    def __init__(self, world: World) -> None:
        self.world, self.home = world, world.home
        world.write("a.jsonl", lines(records(20)) + BROKEN)
        self.first = ingest(world.context(**DAYS), str(world.source))
        self.protected = protect(world.context(**DAYS), self.first.digest, EmailDetector())
        world.write("b.jsonl", lines([record(n) for n in range(100, 110)]))
        self.waiting = ingest(world.context("run-2", **DAYS), str(world.source))
        journal_start(world.context(**DAYS), self.protected.digest, "sha256:" + "1" * 64, "train-1")
        self.checkpoint = SealedCheckpoints(self.home, "test_chat", "train-1")
        with only_trainer(self.home, "train-1"):
            self.checkpoint.save(b"weights")
        self.made = datetime.now(UTC)

    def after(self, days: float, **options: object) -> RetentionReport:
        return run_retention(self.home, self.made + timedelta(days=days), **options)  # type: ignore[arg-type]

    def kinds(self) -> list[str]:
        return [e.kind for e in self.home.journal.entries()]

    def standing(self) -> set[str]:
        found = {"protected"} if self._stands(self.protected, "protected") else set()
        found |= {"raw"} if self._stands(self.waiting, "raw") else set()
        found |= {"quarantine"} if self._stands(self.first, "quarantine") else set()
        found |= {"checkpoint"} if self.checkpoint.load() is not None else set()
        token = self.home.vault.token("test_chat", "customer-1")
        return found | ({"originals"} if self.home.vault.reveal("test_chat", token) else set())

    def _stands(self, result: StageResult, output: str) -> bool:
        from pipeline.relocate import is_there

        return is_there(self.home, load_manifest(self.home, result.digest).outputs[output])


@pytest.fixture
def lived(world: World) -> Lived:
    return Lived(world)


ALL = {"protected", "raw", "quarantine", "checkpoint", "originals"}


def test_each_kind_goes_on_its_own_day_and_not_before(lived: Lived) -> None:
    gone: set[str] = set()
    for day, kind in ((3, "raw"), (5, "checkpoint"), (10, "quarantine"), (20, "originals"), (30, "protected")):
        lived.after(day - 0.001, ahead_days=0)
        assert lived.standing() == ALL - gone, f"something went before day {day}"
        report = lived.after(day + 0.001, ahead_days=0)
        gone.add(kind)
        assert lived.standing() == ALL - gone
        assert list(report.expired["test_chat"]) == [kind]
        assert report.faults == ()
    assert code_of(read_protected, lived.home, lived.protected.manifest) == "E-READ-002"


def test_running_twice_does_nothing_twice_and_nothing_is_written_for_nothing(lived: Lived) -> None:
    first = lived.after(25)
    size = len(lived.home.journal.entries())
    again = lived.after(25)
    assert first.expired
    assert again.expired == {}
    assert not again.ended
    assert [k for k in lived.kinds()[size:] if k in ("retention", "epoch_begun", "epoch_ended", "resealed")] == []


def test_a_dry_run_says_the_same_and_does_nothing(lived: Lived) -> None:
    erase(lived.home, "customer-3", "DSAR-1", "officer")
    size, standing = len(lived.home.journal.entries()), lived.standing()
    plan = lived.after(25, dry_run=True)
    assert standing == lived.standing()
    assert [k for k in lived.kinds()[size:] if k != "key_use"] == []
    done = lived.after(25)
    assert dict(plan.expired) == dict(done.expired)
    assert [p.dataset for p in plan.pending] == ["test_chat"]
    assert "would be destroyed" in plan.lines()[0]


def test_a_clock_that_was_set_back_neither_destroys_early_nor_revives(lived: Lived, monkeypatch: pytest.MonkeyPatch) -> None:
    past = run_retention(lived.home, datetime(2001, 1, 1, tzinfo=UTC))
    assert past.expired == {}
    assert datetime.fromisoformat(past.at) >= datetime.fromisoformat(lived.home.journal.entries()[-1].at[:19] + "+00:00")
    assert lived.standing() == ALL
    # A stage of a machine whose clock stood in the past: the journal's time counts for its age.
    monkeypatch.setattr(lived.home.journal, "_clock", lambda: lived.made + timedelta(days=9))
    lived.world.write("c.jsonl", lines(records(3)))
    ctx = lived.world.context("run-3", **DAYS)
    late = ingest(ctx, str(lived.world.source))
    report = lived.after(9.5)
    assert late.digest not in str(lived.home.journal.entries()[-1].facts)
    assert report.expired["test_chat"]["raw"] == 1  # the old one only
    assert lived._stands(late, "raw")


def test_the_journal_names_what_is_destroyed_before_it_goes(lived: Lived, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(type(lived.home.store), "shred", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            lived.after(4, ahead_days=0)
    entry = next(e for e in reversed(lived.home.journal.entries()) if e.kind == "retention")
    assert entry.facts["counts"] == {"raw": 1}
    assert entry.facts["names"] == [lived.waiting.digest]
    lived.after(4, ahead_days=0)
    assert lived.standing() == ALL - {"raw"}


def test_expired_data_dies_in_backups_too(lived: Lived) -> None:
    """The same path as an erasure: an expiry promises a day, and the epoch ends before it."""
    ref = lived.waiting.manifest.outputs["raw"]
    name = ref.digest.removeprefix("sha256:")
    place = lived.home.path / "objects" / name[:2] / name
    backup = place.read_bytes()
    lived.after(4, ahead_days=0)
    assert [p.by for p in lived.after(4, ahead_days=0).pending] == [(lived.made + timedelta(days=16)).date()]
    place.write_bytes(backup)
    assert lived.home.store.read_sealed(ref)  # the control
    lived.after(16, ahead_days=1)
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(backup)
    assert code_of(lived.home.store.read_sealed, ref) == "E-KEY-006"


def test_an_erasure_is_completed_in_time_with_a_signed_statement(lived: Lived) -> None:
    receipt = erase(lived.home, "customer-3", "DSAR-1", "officer")
    early = run_retention(lived.home, lived.made + timedelta(days=4), ahead_days=7)
    assert (early.statements, [p.cases for p in early.pending]) == ((), [("DSAR-1",)])
    done = run_retention(lived.home, lived.made + timedelta(days=5.1), ahead_days=7)
    (digest,) = done.statements
    signed = open_envelope(lived.home.store.get_plain(digest), lived.home.trust)
    assert signed.predicate_type == COMPLETED_TYPE
    assert signed.subject == {"DSAR-1": receipt.datasets[0].commitment}
    assert signed.predicate["cases"] == [
        {"case": "DSAR-1", "commitment": receipt.datasets[0].commitment, "promised_by": receipt.datasets[0].gone_by}
    ]
    assert all("DSAR-1" not in p.cases for p in done.pending)
    assert done.overdue == ()


def test_an_overdue_epoch_is_said_until_it_ends(lived: Lived, monkeypatch: pytest.MonkeyPatch) -> None:
    erase(lived.home, "customer-3", "DSAR-1", "officer")

    def denied(*_: object) -> bool:
        raise EnvironmentFault("E-KEY-014", "the key service denies it", "Ask for the right")

    with monkeypatch.context() as patched:
        patched.setattr(Keyring, "destroy_epoch", denied)
        stuck = lived.after(14)
    assert [p.cases for p in stuck.overdue] == [("DSAR-1",)]
    assert stuck.faults == ("test_chat: E-KEY-014: the key service denies it",)
    assert stuck.statements == ()
    mended = lived.after(14)
    assert len(mended.statements) == 1
    assert all("DSAR-1" not in p.cases for p in mended.pending)


def test_an_erasure_while_an_epoch_ends_waits_for_the_next(lived: Lived, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was erased after the end began may lie under the new epoch already, so that end does not count for it."""
    erase(lived.home, "customer-3", "DSAR-1", "officer")
    with monkeypatch.context() as patched:
        patched.setattr(Keyring, "destroy_epoch", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            lived.after(6)
    erase(lived.home, "customer-2", "DSAR-2", "officer")
    report = run_retention(lived.home, lived.made + timedelta(days=1), ahead_days=40)
    assert [e.begun for e in report.ended] == sorted({e.begun for e in report.ended})
    assert len(report.ended) == 2
    statements = [open_envelope(lived.home.store.get_plain(d), lived.home.trust).subject for d in report.statements]
    assert [set(s) for s in statements] == [{"DSAR-1"}, {"DSAR-2"}]
    assert report.pending == ()


def test_a_training_that_runs_defers_the_statement_but_not_the_other_classes(lived: Lived) -> None:
    erase(lived.home, "customer-3", "DSAR-1", "officer")
    with only_trainer(lived.home, "train-1"):
        report = lived.after(6)
    assert report.statements == ()
    assert [p.classes for p in report.pending] == [("checkpoint",)]
    assert len(lived.after(6).statements) == 1


def test_the_statement_names_a_model_that_was_committed_just_then(lived: Lived) -> None:
    erase(lived.home, "customer-3", "DSAR-1", "officer")
    model = "sha256:" + "9" * 64
    facts: dict[str, Json] = {
        "run": "r",
        "dataset": "test_chat",
        "ledger_key": "train-1",
        "manifest": model,
        "erased_meanwhile": True,
    }
    lived.home.journal.append(ENDED, facts)
    (digest,) = lived.after(6).statements
    signed = open_envelope(lived.home.store.get_plain(digest), lived.home.trust)
    assert signed.predicate["models_committed_meanwhile"] == [model]


def test_one_dataset_that_fails_does_not_keep_the_others_from_theirs(lived: Lived, monkeypatch: pytest.MonkeyPatch) -> None:
    other = lived.world.context("run-o", **DAYS, dataset="other_chat")
    protect(other, ingest(other, str(lived.world.source)).digest, EmailDetector())
    real = type(lived.home.vault).expire

    def fails(self: object, dataset: str, now: datetime) -> object:
        if dataset == "other_chat":
            raise EnvironmentFault("E-DB-002", "busy", "wait")
        return real(self, dataset, now)  # type: ignore[arg-type]

    monkeypatch.setattr(type(lived.home.vault), "expire", fails)
    report = lived.after(21, ahead_days=0)
    assert report.faults == ("other_chat: E-DB-002: busy",)
    assert "originals" not in lived.standing()
    assert pending_epochs(lived.home.journal.entries())


def test_without_the_policy_that_promised_the_days_nothing_goes_and_that_is_said(lived: Lived) -> None:
    name = lived.protected.manifest.policy_digest.removeprefix("sha256:")
    (lived.home.path / "objects" / name[:2] / name).unlink()
    report = lived.after(400, ahead_days=0)
    assert ALL - lived.standing() <= {"originals"}  # these carry their own day
    assert any(fault.startswith(f"the policy sha256:{name} is not in the store") for fault in report.faults)


def test_many_expiries_do_not_outgrow_a_journal_entry(lived: Lived, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.retain._BATCH", 2)
    lived.after(400, ahead_days=0)
    found = [e.facts for e in lived.home.journal.entries() if e.kind == "retention"]
    assert [len(f["names"]) for f in found] == [2, 2, 1]  # type: ignore[arg-type]
    assert [f["originals"] for f in found] == [20, 0, 0]
    assert lived.standing() == set()


def test_the_same_on_postgres(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """Vault, journal and ledger on a server: erasure, end of the epoch, statement."""
    world = World(tmp_path)
    world.home = Home.create(tmp_path / "team", database=postgres_server.dsn)
    lived = Lived(world)
    receipt = erase(world.home, "customer-3", "DSAR-1", "officer")
    assert (receipt.datasets[0].vault_records, receipt.datasets[0].log_cleared) == (4, False)
    report = lived.after(6)
    assert (len(report.statements), report.faults, report.pending) == (1, (), ())
    assert len(read_protected(world.home, lived.protected.manifest)) == 16

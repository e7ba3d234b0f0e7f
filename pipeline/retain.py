"""Retention on a schedule: what is over its days is destroyed, and epochs end before the date that receipts promised.

Guarantee: nothing is destroyed before the days its own policy promised are over, by the later of clock and journal, so a
clock that was set back neither shortens nor revives anything; every destruction is journalled before it happens; running
twice does nothing twice; expired data dies in backups the same way as erased data does, when its epoch ends.
Assumption: it runs at least every `ahead_days` (issue 7 has the DAG). Not covered: a clock that was set ahead; what lies
outside the home; a re-ingest of a source that still has the records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from pipeline.lineage import Lineage, journal_time
from pipeline.prefix_cache import drop_prefix, kept
from pipeline.receipt import COMPLETED_TYPE
from pipeline.relocate import current, is_there
from pipeline.renew import CLASSES, Renewal, renew
from pipeline.stage import ArtifactRef, Manifest
from pipeline.training_budget import SealedCheckpoints, only_trainer
from pipeline.training_watch import is_training, trained_on_erased, unfinished
from privacy.canonical import Digest, Json, parse_canonical
from privacy.errors import PrivetError
from privacy.signing import make_statement, seal_envelope

if TYPE_CHECKING:
    from pipeline.home import Home
    from privacy.journal import Entry

AHEAD_DAYS = 7
PREFIX = "frozen layers"
_BATCH = 1000  # names in one journal entry
_DAYS: Mapping[str, str] = {"raw": "raw_days", "quarantine": "quarantine_days", "protected": "protected_days"}


@dataclass(frozen=True, slots=True)
class Due:
    """One sealed thing whose days are over: an object by its manifest, a checkpoint by the key of its training, what frozen
    layers gave by its pointer."""

    kind: str
    dataset: str
    name: str
    ref: ArtifactRef | None = None


@dataclass(frozen=True, slots=True)
class PendingEpoch:
    """Old keys that must go: by which day, because of which cases and expiries, and in which classes."""

    dataset: str
    by: date
    cases: tuple[str, ...]
    classes: tuple[str, ...]

    def to_json(self) -> dict[str, Json]:
        return {
            "dataset": self.dataset,
            "by": self.by.isoformat(),
            "cases": list(self.cases),
            "classes": list(self.classes),
        }


@dataclass(frozen=True, slots=True)
class RetentionReport:
    """What was destroyed (or would be), which epochs ended, which are still to end, and what could not be done."""

    at: str
    dry_run: bool
    expired: Mapping[str, Mapping[str, int]]  # by dataset and kind
    ended: tuple[Renewal, ...]
    pending: tuple[PendingEpoch, ...]
    statements: tuple[Digest, ...]
    faults: tuple[str, ...]

    @property
    def overdue(self) -> tuple[PendingEpoch, ...]:
        return tuple(p for p in self.pending if p.by < datetime.fromisoformat(self.at).date())

    def to_json(self) -> dict[str, Json]:
        return {
            "at": self.at,
            "dry_run": self.dry_run,
            "expired": {dataset: dict(kinds) for dataset, kinds in self.expired.items()},
            "ended": [e.to_json() for e in self.ended],
            "pending": [p.to_json() for p in self.pending],
            "statements": list(self.statements),
            "faults": list(self.faults),
        }

    def lines(self) -> list[str]:
        said = "would be destroyed" if self.dry_run else "destroyed"
        lines = [
            f"{dataset}: {count} {kind} {said}" for dataset, kinds in self.expired.items() for kind, count in kinds.items()
        ]
        for done in self.ended:
            lines.append(
                f"{done.dataset}: epoch ended for {', '.join(done.classes) or 'nothing'}; {done.rewrapped} keys and "
                f"{done.resealed} objects taken over, {done.dropped} rows of erased people left out"
            )
            lines += [f"{done.dataset}: {name} could not end now ({why})" for name, why in done.deferred.items()]
        lines += [
            f"{p.dataset}: old keys must go by {p.by} ({', '.join(p.classes)}; erasures: {len(p.cases)})" for p in self.pending
        ]
        lines += [f"signed statement of completion: {digest}" for digest in self.statements]
        lines += [f"not done: {fault}" for fault in self.faults]
        return lines or ["nothing is over its days, and no epoch has to end yet"]


def run_retention(home: Home, now: datetime, *, ahead_days: int = AHEAD_DAYS, dry_run: bool = False) -> RetentionReport:
    """Destroy what is over its days, end the epochs that are due within `ahead_days`, and say what is left to do.

    A dataset that fails is named in `faults` and does not keep the others from theirs.
    """
    at = journal_time(home, now)
    work = _Work(home, at, dry_run)
    lineage = Lineage.read(home)
    work.faults += [f"{digest}: this stage result can't be read, so its data is not expired" for digest in lineage.unreadable]
    for dataset in sorted(lineage.datasets() | set(home.vault.datasets())):
        with work.guarded(dataset):
            work.expire(lineage, dataset)
    for _ in range(1 if dry_run else 2):  # twice: an end that was cut short is finished first, and covers what came before it
        for pending in pending_epochs(home.journal.entries()):
            deferred = any(e.dataset == pending.dataset and e.deferred for e in work.ended)
            if pending.by - timedelta(days=ahead_days) <= at.date() and not dry_run and not deferred:
                with work.guarded(pending.dataset):
                    work.end_epoch(pending)
    return RetentionReport(
        at.isoformat(timespec="seconds"),
        dry_run,
        {dataset: dict(kinds) for dataset, kinds in work.expired.items() if kinds},
        tuple(work.ended),
        tuple(pending_epochs(home.journal.entries())),
        tuple(work.statements),
        tuple(dict.fromkeys(work.faults)),
    )


def pending_epochs(entries: Sequence[Entry]) -> list[PendingEpoch]:
    """By dataset: erasures and expiries that are not followed by the end of every class of its records."""
    found = []
    for dataset, reasons in _reasons(entries).items():
        begun = _begun(entries, dataset)
        open_reasons = [(entry, by) for entry, by in reasons if entry.seq > min(begun.values())]
        if open_reasons:
            newest = open_reasons[-1][0].seq
            cases = tuple(dict.fromkeys(str(e.facts["case"]) for e, _ in open_reasons if e.kind == "erasure"))
            classes = tuple(name for name in CLASSES if begun[name] < newest)
            found.append(PendingEpoch(dataset, min(by for _, by in open_reasons), cases, classes))
    return found


def _reasons(entries: Sequence[Entry]) -> dict[str, list[tuple[Entry, date]]]:
    """Entries that promise a day, by dataset, in journal order."""
    found: dict[str, list[tuple[Entry, date]]] = {}
    for entry in entries:
        due = entry.facts.get("due")
        if entry.kind in ("erasure", "retention") and isinstance(due, Mapping):
            for dataset, by in sorted(due.items()):
                found.setdefault(dataset, []).append((entry, date.fromisoformat(str(by))))
    return found


def _begun(entries: Sequence[Entry], dataset: str) -> dict[str, int]:
    """By class: the number of the entry with which its newest finished end began; what came before that is covered."""
    found = dict.fromkeys(CLASSES, -1)
    for entry in entries:
        classes, start = entry.facts.get("classes"), entry.facts.get("begun")
        ours = entry.kind == "epoch_ended" and entry.facts.get("dataset") == dataset
        if ours and isinstance(classes, Mapping) and isinstance(start, int):
            found |= {name: max(start, found[name]) for name in classes if name in found}
    return found


@dataclass(slots=True)
class _Work:
    home: Home
    at: datetime
    dry_run: bool
    expired: dict[str, dict[str, int]] = field(default_factory=dict)
    ended: list[Renewal] = field(default_factory=list)
    statements: list[Digest] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @contextmanager
    def guarded(self, dataset: str) -> Iterator[None]:
        try:
            yield
        except PrivetError as error:
            self.faults.append(f"{dataset}: {error.code}: {error.cause}")

    def expire(self, lineage: Lineage, dataset: str) -> None:
        due = [*self._objects(lineage, dataset), *self._checkpoints(lineage, dataset), *self._prefixes(lineage, dataset)]
        originals = self.home.vault.overdue(dataset, self.at)
        counts = dict(sorted(Counter(d.kind for d in due).items()))
        if originals:
            counts["originals"] = originals
        self.expired[dataset] = counts
        if self.dry_run or not counts:
            return
        by = (self.at + timedelta(days=lineage.erasure_days(dataset))).date().isoformat()
        for start in range(0, max(1, len(due)), _BATCH):
            batch = due[start : start + _BATCH]
            facts: dict[str, Json] = {
                "dataset": dataset,
                "counts": dict(sorted(Counter(d.kind for d in batch).items())),
                "originals": 0 if start else originals,
                "names": [d.name for d in batch],
                "due": {dataset: by},
            }
            self.home.journal.append("retention", facts)
            for item in batch:
                self._destroy(item)
        self.home.vault.expire(dataset, self.at)

    def _destroy(self, item: Due) -> None:
        if item.kind == PREFIX:
            drop_prefix(self.home, item.name)
        elif item.ref is not None:
            self.home.store.shred(item.ref)
        else:
            with only_trainer(self.home, item.name):
                SealedCheckpoints(self.home, item.dataset, item.name).clear()

    def _objects(self, lineage: Lineage, dataset: str) -> Iterator[Due]:
        for digest, manifest in lineage.manifests.items():
            for kind, days in _DAYS.items():
                ref = manifest.outputs.get(kind)
                if (
                    manifest.dataset != dataset
                    or ref is None
                    or not self._over(lineage.made_at[digest], lineage, manifest, days)
                ):
                    continue
                place = current(self.home, ref)
                if self.home.store.exists(place):
                    yield Due(kind, dataset, digest, place)

    def _checkpoints(self, lineage: Lineage, dataset: str) -> Iterator[Due]:
        """Of trainings that nobody runs; the days count from the last time one was saved."""
        read_by = {t.ledger_key: t.protect for t in unfinished(lineage.entries)}
        for pointer in sorted((self.home.path / "checkpoints").glob("*.json")):
            if ArtifactRef.from_json(parse_canonical(pointer.read_bytes())).dataset != dataset:
                continue
            saved = datetime.fromtimestamp(pointer.stat().st_mtime, UTC)
            manifest = lineage.manifests.get(read_by.get(pointer.stem, ""))
            if self._over(saved, lineage, manifest, "checkpoint_days") and not is_training(self.home, pointer.stem):
                yield Due("checkpoint", dataset, pointer.stem)

    def _prefixes(self, lineage: Lineage, dataset: str) -> Iterator[Due]:
        """What frozen layers gave: as old as a checkpoint may be, and never older than the protected dataset itself."""
        for pointer, ref in kept(self.home):
            if ref.dataset != dataset:
                continue
            saved = datetime.fromtimestamp(pointer.stat().st_mtime, UTC)
            manifest = lineage.manifests.get(ref.version)
            protected = None if manifest is None else manifest.outputs.get("protected")
            gone = protected is not None and not is_there(self.home, protected)
            over = manifest is not None and self._over(lineage.made_at[ref.version], lineage, manifest, "protected_days")
            if gone or over or self._over(saved, lineage, manifest, "checkpoint_days"):
                yield Due(PREFIX, dataset, pointer.stem)

    def _over(self, since: datetime, lineage: Lineage, manifest: Manifest | None, field_name: str) -> bool:
        """By the policy that promised the days. Without it nothing is destroyed, and that is said."""
        policy = None if manifest is None else lineage.policies.get(manifest.policy_digest)
        if policy is None:
            which = "of a checkpoint" if manifest is None else manifest.policy_digest
            self.faults.append(f"the policy {which} is not in the store, so nobody knows when its data is over its days")
            return False
        return since + timedelta(days=getattr(policy.retention, field_name)) <= self.at

    def end_epoch(self, pending: PendingEpoch) -> None:
        done = renew(self.home, pending.dataset, pending.classes)
        self.ended.append(done)
        entries = self.home.journal.entries()
        begun = _begun(entries, pending.dataset) | dict.fromkeys(done.classes, done.begun)
        whole, before = min(begun.values()), min(_begun(entries, pending.dataset).values())
        reasons = _reasons(entries)[pending.dataset]
        completed = [(e, by) for e, by in reasons if e.kind == "erasure" and before < e.seq < whole]
        facts: dict[str, Json] = {**done.to_json(), "cases": [e.facts["case"] for e, _ in completed]}
        if completed:
            facts["statement"] = self._state(done, completed)
        self.home.journal.append("epoch_ended", facts)

    def _state(self, done: Renewal, completed: Sequence[tuple[Entry, date]]) -> Digest:
        """Sign that old copies of what these cases erased open no more."""
        cases, subjects, trainings = [], {}, set()
        for entry, by in completed:
            case, commitments = str(entry.facts["case"]), entry.facts["subject"]
            assert isinstance(commitments, Mapping)
            subjects[case] = str(commitments[done.dataset])
            cases.append({"case": case, "commitment": subjects[case], "promised_by": by.isoformat()})
            trainings |= {str(key) for key in _texts(entry.facts.get("trainings"))}
        predicate: dict[str, Json] = {
            "dataset": done.dataset,
            "at": self.at.isoformat(timespec="seconds"),
            "cases": cases,
            "classes": {name: list(epochs) for name, epochs in done.classes.items()},
            "objects_written_anew": done.resealed,
            "rows_left_out": done.dropped,
            "models_committed_meanwhile": trained_on_erased(self.home.journal.entries(), trainings),
        }
        envelope = seal_envelope(make_statement(subjects, COMPLETED_TYPE, predicate), self.home.key)
        path = f"erasures/{done.dataset}-{done.begun}.completed.dsse.json"
        ref = self.home.store.put_plain(envelope, dataset="home", path=path, data_class="receipt")
        self.statements.append(ref.digest)
        return ref.digest


def _texts(value: Json) -> list[str]:
    return [v for v in value if isinstance(v, str)] if isinstance(value, Sequence) and not isinstance(value, str) else []

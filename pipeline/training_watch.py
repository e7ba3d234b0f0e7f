"""Stops a training at its next lease when a unit it reads was erased meanwhile; who runs is in the journal before it reads.

Guarantee: an erasure is seen by the training, at its next lease or right before its result, and then no model of those
steps is kept; or it finds the committed result and its receipt names the model; or it fell between the two, and then its
receipt names the training, and the training's last entry says that its model saw an erased unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from privacy.canonical import Digest, Json
from privacy.errors import EnvironmentFault

if TYPE_CHECKING:
    from pipeline.home import Home
    from pipeline.stage import StageContext
    from privacy.journal import Entry
    from training.trainer import Lease

STARTED = "training_started"
ENDED = "training_ended"


class UnitErased(Exception):
    """Steps were run on a unit that was erased since. They stay charged and nothing of them is kept."""


@dataclass(frozen=True, slots=True)
class Watch:
    """The units that a training has in memory."""

    home: Home
    dataset: str
    units: frozenset[str]

    @classmethod
    def over(cls, home: Home, dataset: str, *parts: Iterable[str]) -> Watch:
        return cls(home, dataset, frozenset(unit for part in parts for unit in part))

    def check(self) -> None:
        if self.has_erased():
            raise UnitErased

    def has_erased(self) -> bool:
        return not self.units.isdisjoint(self.home.vault.erased_tokens(self.dataset))


class WatchedLease:
    """A lease that looks for erasures before it charges anything."""

    def __init__(self, lease: Lease, watch: Watch) -> None:
        self._lease, self._watch = lease, watch

    @property
    def left(self) -> int:
        return self._lease.left

    @property
    def taken(self) -> int:
        return self._lease.taken

    def take(self, steps: int) -> None:
        self._watch.check()
        self._lease.take(steps)


@dataclass(frozen=True, slots=True)
class StartedTraining:
    """A training that was started on a protected dataset and has no result."""

    run: str
    dataset: str
    protect: Digest
    use: Digest
    ledger_key: str


def journal_start(ctx: StageContext, protect: Digest, use: Digest, ledger_key: str) -> None:
    facts = {"run": ctx.run_id, "dataset": ctx.policy.dataset, "protect": protect, "use": use, "ledger_key": ledger_key}
    ctx.home.journal.append(STARTED, facts)


def journal_end(ctx: StageContext, ledger_key: str, manifest: Digest, watch: Watch | None) -> None:
    """After the commit. Without a watch (a process before us died in between): any erasure since the start counts."""
    begun, ended = -1, -1
    entries = ctx.home.journal.entries()
    for entry in entries:
        if entry.facts.get("ledger_key") == ledger_key:
            begun, ended = (entry.seq if entry.kind == STARTED else begun), (entry.seq if entry.kind == ENDED else ended)
    if ended > begun or begun < 0:
        return
    saw = watch.has_erased() if watch else any(e.seq > begun and ctx.policy.dataset in _erased_in(e) for e in entries)
    facts: dict[str, Json] = {
        "run": ctx.run_id,
        "dataset": ctx.policy.dataset,
        "ledger_key": ledger_key,
        "manifest": manifest,
        "erased_meanwhile": saw,
    }
    ctx.home.journal.append(ENDED, facts)


def unfinished(entries: Sequence[Entry]) -> list[StartedTraining]:
    """Every training that the journal saw starting and not ending."""
    found: dict[str, StartedTraining] = {}
    for entry in entries:
        match entry.facts:
            case {"run": str(run), "dataset": str(dataset), "protect": str(protect), "use": str(use), "ledger_key": str(key)}:
                if entry.kind == STARTED:
                    found[key] = StartedTraining(run, dataset, protect, use, key)
            case {"ledger_key": str(key)}:
                if entry.kind == ENDED:
                    found.pop(key, None)
    return list(found.values())


def is_training(home: Home, ledger_key: str) -> bool:
    """Whether a process holds that training's lock at this moment."""
    from pipeline.training_budget import only_trainer

    try:
        with only_trainer(home, ledger_key):
            return False
    except EnvironmentFault as error:
        if error.code != "E-TRAIN-022":
            raise
        return True


def trained_on_erased(entries: Sequence[Entry], ledger_keys: set[str]) -> list[Digest]:
    """Models of these trainings that were committed just when a unit of theirs was erased."""
    ended = [e for e in entries if e.kind == ENDED and e.facts.get("ledger_key") in ledger_keys]
    return [str(e.facts["manifest"]) for e in ended if e.facts.get("erased_meanwhile") is True]


def _erased_in(entry: Entry) -> Mapping[str, Json]:
    due = entry.facts.get("due")
    return due if entry.kind == "erasure" and isinstance(due, Mapping) else {}

"""The training run's hold on the home: its lease in the ledger, its sealed checkpoint, and the lock that keeps others out.

Guarantee: steps are charged durably before they run, to every dataset that the data came from, at once; a checkpoint on disk
is ciphertext; one process at a time trains a run, so no two of them can run steps under one lease. The lock falls with the
process that holds it.
Not covered: the same files ingested a second time under another dataset's name share no manifest, so no budget.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.provisional import keep
from pipeline.stage import ArtifactRef, load_manifest
from pipeline.store_files import sync_folder
from privacy.calibration import mechanism_of
from privacy.canonical import Digest, Json, canonical_json, parse_canonical
from privacy.errors import EnvironmentFault, IntegrityError, PolicyError, PrivetError
from privacy.ledger_rows import request_fingerprint
from privacy.noise_schedule import schedule_of

if TYPE_CHECKING:
    from pipeline.home import Home
    from privacy.ledger import Ledger, Spend
    from privacy.policy import Policy

BeforeSettling = Callable[[str, int], None]  # ledger key, steps


def budget_scope(policy: Policy) -> str:
    """Budget is counted per dataset and privacy unit, whatever policy trains on it."""
    return f"{policy.dataset}/{policy.privacy_unit.name}"


def budget_scopes(home: Home, policy: Policy, protect_digest: Digest) -> tuple[str, ...]:
    """The policy's own scope, then that of every other dataset in the lineage of the protected one.

    A quarantine that is replayed under a policy with another dataset name is still the first dataset's data.
    """
    others = source_datasets(home, protect_digest) - {policy.dataset}
    return (budget_scope(policy), *(f"{dataset}/{policy.privacy_unit.name}" for dataset in sorted(others)))


def source_datasets(home: Home, digest: Digest) -> set[str]:
    """Datasets of a manifest and of everything it was made from. Raises IntegrityError E-TRAIN-027 when the way is cut."""
    pending, seen, found = [digest], {digest}, set()
    while pending:
        try:
            manifest = load_manifest(home, pending.pop())
        except PrivetError as error:
            raise IntegrityError(
                "E-TRAIN-027",
                f"the lineage of the data can't be followed to its sources ({error.code}): whose budget it spends is unknown",
                "Restore objects/ from a backup, or run ingest and protect again",
            ) from None
        found.add(manifest.dataset)
        # `source` is the digest of the files outside; every other input is a manifest.
        made_from = {made for name, made in manifest.inputs.items() if name != "source"} - seen
        seen |= made_from
        pending += sorted(made_from)
    return found


class LedgerLease:
    """The reservation of one run; all its attempts share it, so what a crash lost stays charged."""

    def __init__(
        self,
        ledger: Ledger,
        key: str,
        policy: Policy,
        noise_multiplier: float,
        steps: int,
        scopes: Sequence[str],
        before_settling: BeforeSettling = lambda key, steps: None,
    ) -> None:
        """Reserve `steps` in all scopes of `budget_scopes`, or in none.

        Raises BudgetExceeded E-BUDGET-001 and the ledger's own errors; nothing is charged then.
        """
        self._ledger, self._key, self._before_settling = ledger, key, before_settling
        refuse_another_unit(ledger, policy, scopes)
        open_scopes(ledger, policy, scopes)
        schedule = schedule_of(policy.recipe.noise_schedule, policy.recipe.steps)
        mechanism = mechanism_of(policy.budget.sampling_probability, noise_multiplier, schedule, steps)
        ledger.reserve_many(key, scopes, mechanism, steps)
        found = ledger.spend(key)
        assert found is not None
        self.taken = found.leased
        self.left = 0 if found.settled is not None else steps - found.leased

    def take(self, steps: int) -> None:
        self._ledger.lease(self._key, self.taken + steps)
        self.taken, self.left = self.taken + steps, self.left - steps

    def settle(self) -> None:
        """Give back what was never leased."""
        self._before_settling(self._key, self.taken)
        self._ledger.settle(self._key, self.taken)


def open_scopes(ledger: Ledger, policy: Policy, scopes: Sequence[str]) -> None:
    """Another dataset's own terms stand; one that nobody trained on yet gets those of the first policy that does."""
    budget, unit = policy.budget, policy.privacy_unit.name
    known = set(ledger.scopes())
    for scope in scopes:
        if scope == budget_scope(policy) or scope not in known:
            ledger.open_scope(scope, unit, budget.cap_epsilon, budget.delta)


def refuse_another_unit(ledger: Ledger, policy: Policy, scopes: Sequence[str]) -> None:
    """Raises PolicyError E-TRAIN-018: scopes of different units are not added up, so a renamed unit would be a fresh budget."""
    datasets = {scope.rpartition("/")[0] for scope in scopes}
    others = [scope for scope in ledger.scopes() if scope.rpartition("/")[0] in datasets and scope not in scopes]
    if others:
        dataset, _, unit = others[0].rpartition("/")
        raise PolicyError(
            "E-TRAIN-018",
            f"the budget of dataset {dataset} is counted per {unit}, and the policy names the unit {policy.privacy_unit.name}",
            "Keep privacy_unit.name; a budget can't be reset",
        )


def journal_reservation(home: Home, run: str, key: str) -> None:
    """Name a reservation outside the ledger's own file, once."""
    spend = home.ledger.spend(key)
    known = any(e.kind == "budget_reserved" and e.facts.get("ledger_key") == key for e in home.journal.entries())
    if spend is not None and not known:
        scopes = ", ".join(spend.scopes)
        facts: dict[str, Json] = {"run": run, "ledger_key": key, "scope": scopes, "reservation": spend.fingerprint}
        home.journal.append("budget_reserved", facts)


def journal_settlement(home: Home, run: str, key: str, steps: int) -> None:
    """Name what a reservation keeps outside the ledger's own file, before the rest of it is given back."""
    spend = home.ledger.spend(key)
    if spend is not None and spend.settled is None:
        facts: dict[str, Json] = {"run": run, "ledger_key": key, "steps": max(steps, spend.leased)}
        home.journal.append("budget_settled", facts)


def refuse_lost_charges(home: Home) -> None:
    """Raises IntegrityError E-LEDGER-009 when the ledger has forgotten a charge, or a part of one, that the journal knows.

    Deleting ledger.sqlite, putting an older one in its place, or settling a spent run at nothing, in rows that fit each
    other, would otherwise give a spent budget back.
    """
    kept: dict[str, int] = {}
    for entry in home.journal.entries():
        if entry.kind == "budget_settled":  # more than one where a process was killed before the ledger had it
            key, steps = str(entry.facts.get("ledger_key")), int(str(entry.facts.get("steps")))
            kept[key] = max(steps, kept.get(key, 0))
    for entry in home.journal.entries():
        if entry.kind != "budget_reserved":
            continue
        spend = home.ledger.spend(str(entry.facts.get("ledger_key")))
        if spend is None or _is_less_than(spend, entry.facts.get("reservation"), kept.get(spend.key, spend.steps)):
            raise IntegrityError(
                "E-LEDGER-009",
                "the ledger has lost a charge that the journal knows, so nobody can tell what is left of the budget",
                "Restore the newest ledger.sqlite",
            )


def _is_less_than(spend: Spend, reservation: Json, kept: int) -> bool:
    """Whether it is another reservation than the journal's (the stored fingerprint is a row's word), or keeps fewer steps."""
    if not spend.fingerprint == request_fingerprint(spend.scopes, spend.mechanism, spend.steps) == reservation:
        return True
    return spend.settled is not None and spend.settled < kept


@dataclass(frozen=True, slots=True)
class SealedCheckpoints:
    """The newest checkpoint of one run in the store; the pointer file names it and is replaced atomically."""

    home: Home
    dataset: str
    key: str

    @property
    def _pointer(self) -> Path:
        return self.home.path / "checkpoints" / f"{self.key}.json"

    def load(self) -> bytes | None:
        """None when there is none. Raises IntegrityError E-TRAIN-025 when there was one and it can't be read any more."""
        ref = self._ref()
        try:
            return None if ref is None else self.home.store.read_sealed(ref)
        except IntegrityError as error:
            if not error.code.startswith(("E-STORE", "E-SEAL")):
                raise
        raise IntegrityError(
            "E-TRAIN-025",
            "the checkpoint of this training is missing or damaged in the store",
            "Restore objects/ from a backup, or change the policy and ask for a new use approval; leased steps stay charged",
        )

    def save(self, data: bytes) -> None:
        before = self._ref()
        place = {"dataset": self.dataset, "path": f"checkpoints/{self.key}", "data_class": "checkpoint", "version": self.key}
        ref = self.home.store.put_sealed(data, **place)
        temporary = self._pointer.with_suffix(".new")
        try:
            with _disk_faults(), temporary.open("wb") as file:
                file.write(canonical_json(ref.to_json()))
                file.flush()
                os.fsync(file.fileno())
            with _disk_faults():
                temporary.replace(self._pointer)
        finally:
            temporary.unlink(missing_ok=True)
        keep([ref])
        try:
            with _disk_faults():
                sync_folder(self._pointer.parent)
        finally:
            if before is not None:  # nothing names it from here on, whatever the flush said
                self.home.store.shred(before)

    def clear(self) -> None:
        """After the result is committed: the checkpoint holds secrets that nobody needs any more."""
        ref = self._ref()
        if ref is not None:
            self.home.store.shred(ref)
            self._pointer.unlink(missing_ok=True)

    def _ref(self) -> ArtifactRef | None:
        try:
            return ArtifactRef.from_json(parse_canonical(self._pointer.read_bytes()))
        except FileNotFoundError:
            return None


@contextmanager
def only_trainer(home: Home, key: str) -> Iterator[None]:
    """Hold the run's lock. Raises EnvironmentFault E-TRAIN-022 when another process trains it now."""
    folder = home.path / "checkpoints"
    with _disk_faults():
        folder.mkdir(exist_ok=True, mode=0o700)
        handle = os.open(folder / f"{key}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EnvironmentFault(
                "E-TRAIN-022",
                "another process is training this very run",
                "Wait for it, or end it; then run again, which continues from its checkpoint",
            ) from None
        yield
    finally:
        os.close(handle)


@contextmanager
def _disk_faults() -> Iterator[None]:
    try:
        yield
    except PrivetError:
        raise
    except OSError as error:
        raise EnvironmentFault(
            "E-TRAIN-023", f"a checkpoint can't be written ({error.strerror})", "Free some space and run again, which continues"
        ) from None

"""Ends the epoch of a dataset's sealed records: what must live on is written anew without the erased, then the old keys die.

Guarantee: when a class is listed as ended, no file key wrapped before its epoch began can be unwrapped with the keyring:
backups of raw batches, quarantines, protected datasets and checkpoints from before hold nothing readable, of nobody. The
live protected dataset holds no row of a unit that was erased before. Killed at any step, the next call goes on.
Not covered: models and audit trails (their remedy is in the receipt), sealed exports, and plaintext outside the home.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.lineage import Lineage
from pipeline.prefix_cache import drop_prefixes
from pipeline.provisional import keep, provisional
from pipeline.relocate import KIND, chain, moves
from pipeline.stage import ArtifactRef
from pipeline.tables import open_table
from pipeline.training_budget import SealedCheckpoints, only_trainer
from pipeline.writing import nobody_seals
from privacy.canonical import Digest, Json, parse_canonical
from privacy.epoch import destroy_older
from privacy.errors import EnvironmentFault

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.home import Home
    from pipeline.store import SealedSink
    from privacy.journal import Entry

VAULT = "vault"
CHECKPOINT = "checkpoint"
TABLES = ("raw", "quarantine", "protected")  # classes whose objects are written anew
CLASSES = (VAULT, *TABLES, CHECKPOINT)
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Renewal:
    """What ended. `classes`: ended now, with the epochs that were destroyed; `deferred`: why the others were not."""

    dataset: str
    begun: int
    classes: dict[str, tuple[int, ...]]
    deferred: dict[str, str]
    rewrapped: int
    resealed: int
    dropped: int

    def to_json(self) -> dict[str, Json]:
        return {
            "dataset": self.dataset,
            "begun": self.begun,
            "classes": {name: list(epochs) for name, epochs in self.classes.items()},
            "deferred": dict(self.deferred),
            "rewrapped": self.rewrapped,
            "resealed": self.resealed,
            "dropped": self.dropped,
        }


def renew(home: Home, dataset: str, classes: Collection[str] = CLASSES, patience_seconds: float = _PATIENCE_SECONDS) -> Renewal:
    """End the epochs of these classes that can end now. Raises the codes of vault, store and keyring; nothing is lost then."""
    targets, begun = _begin(home, dataset, classes)
    work = _Work(home, dataset, begun)
    work.rewrite(targets)  # the bulk, while others may go on
    ended: dict[str, tuple[int, ...]] = {}
    deferred: dict[str, str] = {}
    rewrapped = 0
    if VAULT in targets:
        turned = home.vault.rotate_epoch(dataset)
        ended[VAULT], rewrapped = turned.destroyed, turned.rewrapped
    tables = [name for name in TABLES if name in targets]
    try:
        with nobody_seals(home, patience_seconds):
            work.rewrite(targets)  # what was committed meanwhile
            ended |= {name: destroy_older(home.keyring, f"{dataset}/{name}", targets[name]) for name in tables}
    except EnvironmentFault as error:
        if error.code != "E-RETAIN-002":
            raise
        deferred |= dict.fromkeys(tables, error.code)
    if CHECKPOINT in targets:
        if _drop_checkpoints(home, dataset):
            deferred[CHECKPOINT] = "E-TRAIN-022"
        else:  # a new epoch only now: a training may have saved under the first one what it learnt before it looked
            domain = f"{dataset}/{CHECKPOINT}"
            newest = home.keyring.new_epoch(domain) if targets[CHECKPOINT] else 0
            ended[CHECKPOINT] = destroy_older(home.keyring, domain, newest)
    return Renewal(dataset, begun, ended, deferred, rewrapped, work.resealed, work.dropped)


def _begin(home: Home, dataset: str, wanted: Collection[str]) -> tuple[dict[str, int], int]:
    """New epochs, by class, and the entry from before they were made; those of an end that was cut short, if there is one.

    What was erased before that entry is in nothing that is wrapped by the new epochs.
    """
    begun: Entry | None = None
    made: Json = None
    for entry in home.journal.entries():
        if entry.facts.get("dataset") == dataset:
            if entry.kind == "epoch_begun":
                begun, made = entry, None
            elif entry.kind == "epoch_made":
                made = entry.facts["classes"]
            elif entry.kind == "epoch_ended":
                begun = None
    if begun is None:
        begun, made = home.journal.append("epoch_begun", {"dataset": dataset, "classes": sorted(wanted)}), None
    if not isinstance(made, Mapping):
        asked = begun.facts["classes"]
        assert isinstance(asked, Sequence)
        made = {name: _new_epoch(home, dataset, name) for name in CLASSES if name in asked}
        home.journal.append("epoch_made", {"dataset": dataset, "begun": begun.seq, "classes": made})
    return {name: int(str(epoch)) for name, epoch in made.items()}, begun.seq


def _new_epoch(home: Home, dataset: str, name: str) -> int:
    """0 where there is no key, so that nothing is wrapped, and for the vault, which numbers its own."""
    domain = f"{dataset}/{name}"
    if name == VAULT or not any(e.state == "live" for e in home.keyring.epochs(domain)):
        return 0
    return home.keyring.new_epoch(domain)


@dataclass(slots=True)
class _Work:
    home: Home
    dataset: str
    begun: int
    resealed: int = 0
    dropped: int = 0

    def rewrite(self, targets: dict[str, int]) -> None:
        """Write anew what still lies under keys from before `begun`, and destroy the old copy."""
        lineage = Lineage.read(self.home)
        known = moves(lineage.entries)
        fresh = {ref.digest for ref in moves(lineage.entries, self.begun).values() if ref is not None}
        for ref in _objects(lineage, self.dataset):
            if ref.data_class not in targets:
                continue
            there = [place for place in chain(known, ref) if self.home.store.exists(place)]
            for left_over in there[:-1]:  # killed after the new copy was committed, before the old one went
                self.home.store.shred(left_over)
            if there and there[-1].digest not in fresh:
                self._move(there[-1])

    def _move(self, old: ArtifactRef) -> None:
        """The journal first: from that entry on the new copy is the one that counts, and the store's sweep knows its name."""
        with provisional(self.home.store):
            new, dropped = _written_anew(self.home, old)
            facts: dict[str, Json] = {
                "dataset": old.dataset,
                "data_class": old.data_class,
                "old": old.digest,
                "new": None if new is None else new.to_json(),
                "dropped": dropped,
            }
            self.home.journal.append(KIND, facts)
            keep([] if new is None else [new])
        self.home.store.shred(old)
        self.resealed += 1
        self.dropped += dropped


def _objects(lineage: Lineage, dataset: str) -> Iterator[ArtifactRef]:
    seen: set[Digest] = set()
    for manifest in lineage.manifests.values():
        for ref in manifest.outputs.values():
            if manifest.dataset == dataset and ref.sealed and ref.data_class in TABLES and ref.digest not in seen:
                seen.add(ref.digest)
                yield ref


def _written_anew(home: Home, old: ArtifactRef) -> tuple[ArtifactRef | None, int]:
    """The same object under the current epoch, without the rows of erased units; None when no row is left."""
    column = {"protected": "unit", "raw": "subject"}.get(old.data_class)
    if column is None:
        with home.store.open_sealed(old) as source, _writer(home, old) as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
        return sink.ref, 0
    gone = home.vault.erased_tokens(old.dataset)

    def erased(batch: pa.RecordBatch) -> pa.Array:
        import pyarrow as pa
        import pyarrow.compute as pc

        values = batch.column(batch.schema.get_field_index(column))
        tokens = home.vault.tokens_array(old.dataset, values) if column == "subject" else values
        return pc.is_in(tokens, value_set=pa.array(sorted(gone), pa.string()))

    return _filtered(home, old, erased)


def _filtered(home: Home, old: ArtifactRef, erased: Callable[[pa.RecordBatch], pa.Array]) -> tuple[ArtifactRef | None, int]:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    dropped, sink = 0, None
    with open_table(home.store, old) as source, ExitStack() as stack:
        writer = None
        for batch in source.iter_batches(use_threads=False):
            kept = batch.filter(pc.invert(erased(batch)))
            dropped += batch.num_rows - kept.num_rows
            if not kept.num_rows:
                continue
            if writer is None:
                sink = stack.enter_context(_writer(home, old))
                writer = stack.enter_context(pq.ParquetWriter(sink, source.schema_arrow, compression="zstd"))
            writer.write_batch(kept)
    return None if sink is None else sink.ref, dropped


def _drop_checkpoints(home: Home, dataset: str) -> list[str]:
    """Destroy the checkpoints of trainings that nobody runs now; returns the keys of those that run.

    A training cut short that was not resumed by then would keep what it learnt of the erased.
    """
    drop_prefixes(home, dataset)  # sealed under the same key, read at the start of a training only
    running = []
    for lock in sorted((home.path / "checkpoints").glob("*.lock")):
        pointer = lock.with_suffix(".json")
        if pointer.exists() and ArtifactRef.from_json(parse_canonical(pointer.read_bytes())).dataset != dataset:
            continue
        try:
            with only_trainer(home, lock.stem):
                SealedCheckpoints(home, dataset, lock.stem).clear()
        except EnvironmentFault as error:
            if error.code != "E-TRAIN-022":
                raise
            running.append(lock.stem)
    return running


def _writer(home: Home, old: ArtifactRef) -> AbstractContextManager[SealedSink]:
    place = {"dataset": old.dataset, "path": old.path, "data_class": old.data_class}
    return home.store.sealed_writer(**place, version=old.version, schema=old.schema)

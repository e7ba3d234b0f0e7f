"""Raw logs in, sealed records out; what can't be used is sealed apart with a reason and can be replayed.

Guarantee: a bad row or a bad file never stops the good ones; nothing is written in plaintext; nothing is committed
when the source is empty, over `max_records`, or changed while it was read. Errors and facts hold counts and codes only.
Not done here: contribution bounds, de-identification, suppression of erased subjects (pipeline.protect does those).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from pipeline.continuation import batch_leads_on
from pipeline.evidence import STANDS_IN
from pipeline.quarantine import Quarantine, Reject, quarantine_of, read_quarantine
from pipeline.readers import Row, parse_row, read_rows
from pipeline.records import Record, Rejected, to_record
from pipeline.relocate import current
from pipeline.sources import FileFault, Survey, SurveyedFile, source_folder, survey
from pipeline.stage import ArtifactRef, StageContext, StageOutput, StageResult, load_manifest, run_stage
from pipeline.tables import SealedTable
from pipeline.writing import sealing
from privacy.canonical import Digest, Scalar
from privacy.errors import DataError, UsageError
from privacy.policy import Policy
from privacy.tokens import normal_subject

if TYPE_CHECKING:
    import pyarrow as pa

RAW_CLASS = "raw"
_REPORT_EVERY = 5000


def ingest(ctx: StageContext, source_uri: str) -> StageResult:
    """Read every selected file below `source_uri` (a folder path or file:// URI).

    Outputs: raw (sealed Parquet), quarantine (sealed Parquet, when there were rejects). Facts: files, files_rejected,
    records, rejects, rejects.CODE. Raises UsageError E-INGEST-005 (not a folder), DataError E-INGEST-001 (empty),
    -002 (rejects only; they are kept), -003 (over max_records), -004 (changed while read).
    """
    found = survey(source_folder(source_uri), ctx.policy.source)
    inputs = {"source": found.digest}
    with sealing(ctx.home):
        return run_stage(ctx, "ingest", inputs, lambda: _ingest(ctx, found, inputs), partial(batch_leads_on, ctx))


def replay_quarantine(ctx: StageContext, ingest_digest: Digest) -> StageResult:
    """Parse the rejects of an earlier run again, under the policy of `ctx`; what is usable now becomes a new raw batch.

    ingest_digest: manifest of an ingest or of a run of rejects only. The outputs are those of `ingest`, so `protect`
    takes the result. Raises UsageError E-INGEST-006 (no quarantine there), DataError E-INGEST-007 (still rejects only).
    """
    ref = quarantine_of(load_manifest(ctx.home, ingest_digest))
    if ref is None:
        raise UsageError("E-INGEST-006", "that manifest has no quarantine", "Give the digest of an ingest that counted rejects")
    inputs = {"ingest": ingest_digest}
    stage = STANDS_IN["ingest"]
    with sealing(ctx.home):
        return run_stage(ctx, stage, inputs, lambda: _replay(ctx, ref, ingest_digest), partial(batch_leads_on, ctx))


@dataclass(slots=True)
class _Intake:
    """Where rows of one run go: into the raw table, or into the quarantine with a code."""

    policy: Policy
    raw: SealedTable
    quarantine: Quarantine
    seen: set[bytes] = field(default_factory=set)
    done: int = 0

    def take(self, row: Row, name: str, file_digest: Digest | None) -> None:
        self.done += 1
        if self.done > self.policy.source.limits.max_records:
            raise DataError(
                "E-INGEST-003",
                f"the source has more than the {self.policy.source.limits.max_records} records that the policy allows;"
                " nothing was committed",
                "Raise source.limits.max_records, or hand over fewer files",
            )
        try:
            if row.values is None:
                raise Rejected(row.code or "E-INGEST-104")
            position = f"{(file_digest or 'sha256:').removeprefix('sha256:')}:{row.line}"
            record = to_record(row.values, row.original, self.policy, position)
            self._first_of_its_id(record)
        except Rejected as rejected:
            self.quarantine.add(Reject(rejected.code, name, file_digest, row))
            return
        size = len(record.original) + 2 * len(record.text) + len(record.image or b"") + 200
        self.raw.append(_columns(record, self.policy), size)

    def _first_of_its_id(self, record: Record) -> None:
        """Ids are compared within a privacy unit only: one unit's records must not decide which records of others count.

        Across units, somebody who uses up the ids of others could remove them, which no bound on one contribution covers.
        """
        # 16 bytes of a hash, not the id: a million records stay below 100 MB.
        own = f"{normal_subject(record.subject)}\0{record.record_id}"
        mark = hashlib.blake2b(own.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if mark in self.seen:
            raise Rejected("E-INGEST-116")
        self.seen.add(mark)


def _ingest(ctx: StageContext, found: Survey, inputs: dict[str, Digest]) -> StageOutput:
    if not found.files:
        raise _empty("no file of the source matches source.files")

    def feed(intake: _Intake) -> int:
        refused = 0
        for index, file in enumerate(found.files):
            ctx.progress("ingest files", index, len(found.files))
            refused += _feed_file(ctx, found, file, intake)
        ctx.progress("ingest files", len(found.files), len(found.files))
        return refused

    taken = _collect(ctx, found.digest, feed)
    facts: dict[str, Scalar] = {"files": len(found.files), "files_rejected": taken.files_rejected, **taken.facts}
    if taken.raw is not None:
        return StageOutput(taken.outputs, facts)
    if taken.quarantine is None:
        raise _empty("the files of the source hold no records")
    kept = run_stage(ctx, "ingest_rejects", inputs, lambda: StageOutput(taken.outputs, facts))
    if kept.reused:  # an earlier try kept the same rejects; one copy is enough
        ctx.home.store.shred(taken.quarantine)
    raise DataError(
        "E-INGEST-002",
        f"no record of the source can be used; {facts['rejects']} rejects are in quarantine ({_top(taken.facts)})",
        f"Mend the policy or the source, then run again or replay with privet quarantine replay {kept.digest}",
    )


def _feed_file(ctx: StageContext, found: Survey, file: SurveyedFile, intake: _Intake) -> int:
    """1 when the file was refused as a whole."""
    try:
        if file.fault is not None:
            raise FileFault(file.fault)
        for row in read_rows(found.folder, file, ctx.policy.source):
            intake.take(row, file.name, file.digest)
            if intake.done % _REPORT_EVERY == 0:
                ctx.progress("ingest records", intake.done, 0)
    except FileFault as fault:
        intake.quarantine.add_file(file, fault.code)
        return 1
    return 0


def _replay(ctx: StageContext, ref: ArtifactRef, ingest_digest: Digest) -> StageOutput:
    ref = current(ctx.home, ref)
    if not ctx.home.store.exists(ref):
        raise DataError(
            "E-INGEST-008",
            "the quarantine was destroyed, by retention or by an erasure",
            "Ingest the source again from its landing place",
        )

    def feed(intake: _Intake) -> int:
        refused = 0
        for reject in read_quarantine(ctx.home.store, ref):
            if reject.is_file:
                intake.quarantine.add(reject)
                refused += 1
                continue
            row = parse_row(reject.row.raw, reject.row.header, ctx.policy.source, reject.row.line, reject.row.cut)
            intake.take(row, reject.file, reject.file_digest)
        return refused

    taken = _collect(ctx, ingest_digest, feed)
    if taken.raw is None:
        if taken.quarantine is not None:
            ctx.home.store.shred(taken.quarantine)  # the first quarantine still holds them all
        raise DataError(
            "E-INGEST-007",
            f"none of the quarantined records can be used under this policy ({_top(taken.facts)})",
            "Mend the policy first; the quarantine is unchanged",
        )
    return StageOutput(taken.outputs, {"files_rejected": taken.files_rejected, **taken.facts})


@dataclass(frozen=True, slots=True)
class _Taken:
    raw: ArtifactRef | None
    quarantine: ArtifactRef | None
    files_rejected: int
    facts: dict[str, Scalar]

    @property
    def outputs(self) -> dict[str, ArtifactRef]:
        named = {"raw": self.raw, "quarantine": self.quarantine}
        return {name: ref for name, ref in named.items() if ref is not None}


def _collect(ctx: StageContext, origin: Digest, feed: Callable[[_Intake], int]) -> _Taken:
    """Run `feed` into a fresh pair of sealed tables. An exception leaves neither."""
    policy, store = ctx.policy, ctx.home.store
    name = origin.removeprefix("sha256:")[:16]
    raw = SealedTable(
        store,
        raw_schema(policy),
        dataset=policy.dataset,
        path=f"ingest/{name}/raw.parquet",
        data_class=RAW_CLASS,
        version=origin,
    )
    quarantine = Quarantine(store, policy.dataset, f"ingest/{name}/quarantine.parquet", version=origin)
    with raw, quarantine:
        refused = feed(_Intake(policy, raw, quarantine))
    facts: dict[str, Scalar] = {"records": raw.rows, "rejects": quarantine.rows, **quarantine.facts()}
    return _Taken(raw.ref, quarantine.ref, refused, facts)


def raw_schema(policy: Policy) -> pa.Schema:
    """Columns of a raw batch; kept fields are prefixed so that no source name can clash."""
    import pyarrow as pa

    names = ["subject", "record_id", "time", "label", "text", *(f"keep.{name}" for name in policy.source.fields.keep)]
    pixels = [("image", pa.binary())] if policy.source.fields.image else []
    return pa.schema([*((name, pa.string()) for name in names), ("original", pa.binary()), *pixels])


def _columns(record: Record, policy: Policy) -> dict[str, object]:
    kept: dict[str, object] = {
        f"keep.{name}": value for name, value in zip(policy.source.fields.keep, record.keep, strict=True)
    }
    if record.image is not None:
        kept["image"] = record.image
    return {
        "subject": record.subject,
        "record_id": record.record_id,
        "time": record.time,
        "label": record.label,
        "text": record.text,
        "original": record.original,
        **kept,
    }


def _top(facts: dict[str, Scalar]) -> str:
    """The commonest reason codes, for a person."""
    counts = [(n, k.removeprefix("rejects.")) for k, n in facts.items() if k.startswith("rejects.") and isinstance(n, int)]
    return ", ".join(f"{n} x {code}" for n, code in sorted(counts, reverse=True)[:3])


def _empty(why: str) -> DataError:
    return DataError("E-INGEST-001", f"the source is empty: {why}", "Check --source and source.files of the policy")

"""Raw batches in, a protected dataset out: de-identified text under keyed pseudonyms, originals sealed by subject.

Guarantee: the output holds no source identifier (unit and record id are keyed HMACs), every text and kept field went
through the detector and the policy's treatment, records of erased subjects are left out, and the raw batch is destroyed
once the result is committed. Plaintext exists in memory only.
Assumption: the label is of a declared closed set, so it passes through. Not applied here: the contribution bound
(training drops by a keyed rule); records beyond it are counted. Not covered: personal data that no recognizer knows, and
images, which pass through as pixels: nothing searches them.
"""

from __future__ import annotations

import base64
import hmac
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from pipeline.continuation import dataset_leads_on
from pipeline.lineage import journal_time
from pipeline.records import Rejected, day_of
from pipeline.relocate import current, is_there
from pipeline.slip_through import Carriers, SlipThrough, measure
from pipeline.stage import ArtifactRef, StageContext, StageOutput, StageResult, load_manifest, run_stage
from pipeline.tables import SealedTable, read_batches
from pipeline.treatment import deidentifier_of, detector_of, left_behind
from pipeline.writing import sealing
from privacy.canonical import Digest, Scalar, canonical_json
from privacy.detect import Detector, Finding, detect_language
from privacy.entities import ENTITY_TYPES
from privacy.errors import DataError, IntegrityError, PrivetError, UsageError
from privacy.policy import Policy

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.home import Home
    from privacy.deidentify import Deidentifier

PROTECTED_CLASS = "protected"
_DETECT_BATCH = 256
_CACHED_VALUES = 10_000  # kept fields repeat; texts hardly do


def protect(ctx: StageContext, ingest_digest: Digest, detector: Detector | None = None) -> StageResult:
    """De-identify one raw batch.

    ingest_digest: manifest of `ingest` or of a quarantine replay. detector: the policy's own unless one is handed in.
    Outputs: protected (sealed Parquet, see `protected_schema`), slip_through (plain JSON, counts alone). Facts: records, units,
    suppressed, entities and entities.TYPE (how many were treated), records_beyond_bound, language.X, canaries_planted,
    canaries_missed, miss_bound. Raises UsageError E-PROTECT-001, DataError
    E-PROTECT-002 (raw batch gone), E-PROTECT-003 (nothing left), IntegrityError E-PROTECT-004 (detector misbehaves).
    """
    manifest = load_manifest(ctx.home, ingest_digest)
    raw = manifest.outputs.get("raw")
    if raw is None or manifest.dataset != ctx.policy.dataset:
        raise UsageError(
            "E-PROTECT-001", "that manifest has no raw batch of this policy's dataset", "Give the digest that ingest returned"
        )
    total = manifest.facts.get("records")

    def body() -> StageOutput:
        return _protect(ctx, raw, ingest_digest, total if isinstance(total, int) else 0, detector)

    inputs = {"ingest": ingest_digest}
    with sealing(ctx.home):
        try:
            result = run_stage(ctx, "protect", inputs, body, partial(dataset_leads_on, ctx))
        except PrivetError:
            if is_there(ctx.home, raw):
                raise
            # A racer committed after our look-up and destroyed the raw batch before or while we read it: find its result.
            result = run_stage(ctx, "protect", inputs, body, partial(dataset_leads_on, ctx))
        # After the commit, and on every later call: a crash in between must not leave raw data behind.
        ctx.home.store.shred(current(ctx.home, raw))
    return result


def protected_schema(policy: Policy) -> pa.Schema:
    """unit, record_id: keyed tokens. time: day or null. lang: detected. text, kept fields: de-identified. label, image: as
    they were."""
    import pyarrow as pa

    text = pa.string()
    return pa.schema(
        [
            ("unit", text),
            ("record_id", text),
            ("time", pa.date32()),
            ("lang", text),
            ("text", text),
            ("label", text),
            *((name, text) for name in policy.source.fields.keep),
            *([("image", pa.binary())] if policy.source.fields.image else []),
        ]
    )


def record_token(key: bytes, unit: str, record_id: str) -> str:
    """Keyed, stable pseudonym of a record of one unit: "r" and 24 characters of base32.

    The unit is part of it: two units may use one record id, and neither has a say in what becomes of the other's.
    """
    return "r" + base64.b32encode(hmac.digest(key, f"{unit}\0{record_id}".encode(), "sha256")[:15]).decode().lower()


@dataclass(slots=True)
class _Treatment:
    """Detects and de-identifies strings, language by language, and counts by entity type."""

    detector: Detector
    deidentifier: Deidentifier
    policy: Policy
    home: Home
    counts: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    undeclared: dict[str, Detector] = field(default_factory=dict)
    kept: dict[tuple[str, str], tuple[str, Mapping[str, int]]] = field(default_factory=dict)
    carriers: Carriers = field(default_factory=Carriers)
    denied: Detector | None = None
    denied_left: int = 0

    def texts(self, texts: Sequence[str], subjects: Sequence[str]) -> tuple[list[str], list[str]]:
        """De-identified texts and their languages."""
        languages = [detect_language(text) for text in texts]
        self.languages.update(languages)
        self.carriers.offer(texts)
        treated = self._treat(texts, languages, subjects)
        for _, counts in treated:
            self.counts.update(counts)
        return [text for text, _ in treated], languages

    def fields(self, values: Sequence[str], subjects: Sequence[str]) -> list[str]:
        """Kept fields, by value (and subject, where the treatment tells them apart): a closed vocabulary is looked at once."""
        keys = [(v, subject if self.deidentifier.by_subject else "") for v, subject in zip(values, subjects, strict=True)]
        new = sorted({key for key in keys if key[0] and key not in self.kept})
        if len(self.kept) + len(new) > _CACHED_VALUES:
            self.kept.clear()
            new = sorted({key for key in keys if key[0]})
        found = self._treat([v for v, _ in new], [detect_language(v) for v, _ in new], [subject for _, subject in new])
        self.kept.update(zip(new, found, strict=True))
        for key in keys:
            if key[0]:
                self.counts.update(self.kept[key][1])
        return [self.kept[key][0] if key[0] else "" for key in keys]

    def slip_through(self) -> SlipThrough:
        """Plants made-up values into copies of sampled texts, and counts those that get through this very treatment."""
        pii = self.policy.pii
        kept = frozenset(name for name, treatment in pii.entities.items() if treatment == "keep")
        ignored = frozenset(ENTITY_TYPES - set(pii.detect)) if pii.detect else frozenset[str]()
        planted = self.carriers.plant(self.policy.languages, pii.canaries_per_type, kept | ignored)
        return measure(planted, self._treat_planted, kept)

    def _treat_planted(self, texts: Sequence[str]) -> list[tuple[str, list[Finding]]]:
        treated: list[tuple[str, list[Finding]]] = [("", [])] * len(texts)
        languages = [detect_language(text) for text in texts]
        for place, text, found in self._found(texts, languages):
            treated[place] = (self.deidentifier.apply(text, found)[0], found)
        return treated

    def _treat(
        self, texts: Sequence[str], languages: Sequence[str], subjects: Sequence[str]
    ) -> list[tuple[str, Mapping[str, int]]]:
        treated: list[tuple[str, Mapping[str, int]]] = [("", {})] * len(texts)
        for place, text, found in self._found(texts, languages):
            treated[place] = self.deidentifier.apply(text, found, subjects[place])
        if self.denied is not None:  # here, because who validates may not open the lists
            self.denied_left += sum(map(bool, self.denied.analyze_batch([text for text, _ in treated], "en")))
        return treated

    def _found(self, texts: Sequence[str], languages: Sequence[str]) -> Iterator[tuple[int, str, list[Finding]]]:
        """(place, text, findings) of each text, language by language."""
        for language in sorted(set(languages)):
            places = [i for i, found in enumerate(languages) if found == language]
            chosen = [texts[i] for i in places]
            findings = self._detector_for(language).analyze_batch(chosen, language)
            if len(findings) != len(chosen):
                raise IntegrityError(
                    "E-PROTECT-004",
                    "the detector answered for another number of texts than it was given",
                    "Report this as a defect of the detector; nothing was committed",
                )
            yield from zip(places, chosen, findings, strict=True)

    def _detector_for(self, language: str) -> Detector:
        """A language that the policy did not declare is scanned all the same, by a detector of its own."""
        if language in self.policy.languages:
            return self.detector
        if language not in self.undeclared:
            self.undeclared[language] = self.deidentifier.guard(detector_of(self.home, self.policy, (language,)))
        return self.undeclared[language]


@dataclass(slots=True)
class _Tally:
    units: Counter[str] = field(default_factory=Counter)
    seen: int = 0
    suppressed: int = 0

    def facts(self, policy: Policy, treatment: _Treatment) -> dict[str, Scalar]:
        bound = policy.privacy_unit.max_records
        undeclared = sum(n for lang, n in treatment.languages.items() if lang not in policy.languages)
        return {
            "records": self.units.total(),
            "units": len(self.units),
            "suppressed": self.suppressed,
            "records_beyond_bound": sum(max(0, n - bound) for n in self.units.values()),
            "entities": treatment.counts.total(),
            "undeclared_language": undeclared,
            "detector": treatment.detector.version,
            **({} if treatment.denied is None else {"denied_left": treatment.denied_left}),
            **({"images_not_searched": self.units.total()} if policy.source.fields.image else {}),
            **{f"entities.{name}": n for name, n in sorted(treatment.counts.items())},
            **{f"language.{name}": n for name, n in sorted(treatment.languages.items())},
        }


def _protect(ctx: StageContext, raw: ArtifactRef, ingest: Digest, total: int, detector: Detector | None) -> StageOutput:
    policy, store, keyring = ctx.policy, ctx.home.store, ctx.home.keyring
    source = current(ctx.home, raw)
    if not store.exists(source):
        raise DataError(
            "E-PROTECT-002", "the raw batch was destroyed before this dataset was protected", "Ingest the source again"
        )
    ctx.progress("protect", 0, total)
    deidentifier = deidentifier_of(ctx.home, policy)
    guarded = deidentifier.guard(detector or detector_of(ctx.home, policy))
    treatment = _Treatment(guarded, deidentifier, policy, ctx.home, denied=left_behind(ctx.home, policy))
    record_key = keyring.derive(f"{policy.dataset}/pseudonym", "record_id")
    tally, expires = _Tally(), journal_time(ctx.home, ctx.clock()) + timedelta(days=policy.retention.vault_days)
    path = f"protect/{raw.digest.removeprefix('sha256:')[:16]}/protected.parquet"
    place = {"dataset": policy.dataset, "path": path, "data_class": PROTECTED_CLASS, "version": ingest}
    table = SealedTable(store, protected_schema(policy), **place)
    with table:
        for batch in read_batches(store, source):
            tokens = ctx.home.vault.tokens_array(policy.dataset, batch.column("subject")).to_pylist()
            for start in range(0, batch.num_rows, _DETECT_BATCH):
                rows = batch.slice(start, _DETECT_BATCH).to_pylist()
                named = list(zip(tokens[start : start + len(rows)], rows, strict=True))
                _protect_rows(ctx, named, record_key, treatment, tally, table, expires)
                ctx.progress("protect", tally.seen, total)
    if table.ref is None:
        raise DataError(
            "E-PROTECT-003",
            f"no record is left: {tally.suppressed} belong to erased subjects",
            "Ingest a source with records of other subjects",
        )
    slipped = treatment.slip_through()
    evidence = store.put_plain(
        canonical_json(slipped.to_json()), dataset=policy.dataset, path="protect/slip_through.json", data_class="detection"
    )
    facts = {**tally.facts(policy, treatment), **slipped.facts()}
    return StageOutput({"protected": table.ref, "slip_through": evidence}, facts)


def _protect_rows(
    ctx: StageContext,
    rows: Sequence[tuple[str, Mapping[str, object]]],
    record_key: bytes,
    treatment: _Treatment,
    tally: _Tally,
    table: SealedTable,
    expires: datetime,
) -> None:
    dataset, vault = ctx.policy.dataset, ctx.home.vault
    erased = vault.erased_tokens(dataset)  # read anew per batch: an erasure during a long run counts at once
    live = [(token, row) for token, row in rows if token not in erased]
    tally.seen += len(rows)
    tally.suppressed += len(rows) - len(live)
    ids = [record_token(record_key, token, str(row["record_id"])) for token, row in live]
    subjects = [token for token, _ in live]
    texts, languages = treatment.texts([str(row["text"]) for _, row in live], subjects)
    kept = {
        name: treatment.fields([str(row[f"keep.{name}"] or "") for _, row in live], subjects)
        for name in ctx.policy.source.fields.keep
    }
    # The vault first: a protected record whose original could not be sealed must not exist.
    vault.put_many(dataset, [(token, i, _payload(row)) for (token, row), i in zip(live, ids, strict=True)], expires)
    for index, (token, row) in enumerate(live):
        tally.units[token] += 1
        pixels = {"image": image} if isinstance(image := row.get("image"), bytes) else {}
        table.append(
            {
                "unit": token,
                "record_id": ids[index],
                "time": _moved(treatment.deidentifier, _day(row["time"]), token),
                "lang": languages[index],
                "text": texts[index],
                "label": row["label"],
                **{name: values[index] for name, values in kept.items()},
                **pixels,
            },
            len(texts[index]) * 2 + sum(map(len, pixels.values())) + 300,
        )


def _payload(row: Mapping[str, object]) -> bytes:
    original = row["original"]
    assert isinstance(original, bytes)
    return original


def _moved(deidentifier: Deidentifier, day: date | None, subject: str) -> date | None:
    """With the dates of the texts: a day left in place would tell how far these were moved."""
    return None if day is None else deidentifier.day(day, subject)


def _day(time: object) -> date | None:
    try:
        return None if time is None else day_of(str(time))
    except Rejected:  # ingest refused such times, so this is a raw batch of other code
        return None

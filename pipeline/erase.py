"""Erases one data subject: destroys the originals, sets a tombstone, and says honestly what else was derived from them.

Guarantee: when `erase` returns, the vault no longer holds the subject's key or rows, no reader gets the subject's protected
rows (pipeline.read), a later ingest is suppressed, and a signed receipt is stored and journalled. Safe to repeat.
Not covered, and said in the receipt: source files, backups, models already trained, copies of what was released.
Assumption: quarantined rejects spell the subject in clear; a row too broken for that stays until the quarantine is destroyed.
"""

from __future__ import annotations

import hmac
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipeline.quarantine import names_subject, quarantine_of, read_quarantine
from pipeline.receipt import (
    ERASURE_TYPE,
    ArtifactTouched,
    DatasetTouched,
    ErasureReceipt,
    ModelTouched,
    ReleaseTouched,
)
from pipeline.stage import Manifest, load_manifest
from pipeline.tables import read_batches
from privacy.accounting import MechanismTrace
from privacy.canonical import Digest, Json, is_digest, parse_json
from privacy.errors import PrivetError, UsageError
from privacy.rounding import shown_up
from privacy.signing import make_statement, seal_envelope

if TYPE_CHECKING:
    from pipeline.home import Home
    from privacy.journal import Entry

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}")
_PROTECTED_REMEDY = (
    "no reader gets them any more; the sealed rows, pseudonymised, stay: the dataset's retention is recorded, not enforced "
    "in this version"
)
_RAW_REMEDY = "protect will leave them out and destroy the batch"
_QUARANTINE_REMEDY = "destroyed whole; the rejects of others can be ingested again from the source"
_RELEASE_REMEDY = "copies outside can't be called back; tell whoever received the bundle what the model's remedy says"


def erase(home: Home, subject: str, case_id: str, by: str) -> ErasureReceipt:
    """Erase `subject` (the value of the policy's subject field) from every dataset of this home.

    case_id names the request and by the person who carries it out; both are public in the receipt. Raises UsageError
    E-ERASE-001 (no subject), E-ERASE-002 (case or name unusable), and the vault's E-VAULT-003 when old bytes could not
    be cleared yet: run it again.
    """
    _check(subject, case_id, by)
    lineage = _Lineage.read(home)
    names = sorted({*lineage.datasets(), *home.vault.datasets_of(subject)})
    # The vault first: from here on the originals are gone and readers are closed, whatever fails below.
    erased = {name: home.vault.erase(name, subject, case_id) for name in names}
    tokens = {name: found.token for name, found in erased.items()}
    artifacts = [*_protected(home, lineage, tokens), *_raw(home, lineage, tokens), *_quarantines(home, lineage, subject)]
    touched = {a.manifest for a in artifacts if a.kind == "protected"}
    derived = lineage.descendants(touched)
    models = tuple(_model(home, d, lineage.manifests[d]) for d in derived if lineage.manifests[d].stage == "train")
    receipt = ErasureReceipt(
        case_id=case_id,
        by=by,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        datasets=tuple(
            DatasetTouched(name, commitment(home, name, token, case_id), erased[name].records, erased[name].was_known)
            for name, token in tokens.items()
        ),
        artifacts=tuple(artifacts),
        models=models,
        releases=tuple(lineage.releases({m.manifest for m in models}, derived)),
    )
    return _sign(home, receipt)


def commitment(home: Home, dataset: str, token: str, case_id: str) -> Digest:
    """Stands for the subject in receipt and journal: keyed and salted with the case, so it links to nothing outside."""
    key = home.keyring.derive(f"{dataset}/erasure", "commitment")
    return "sha256:" + hmac.digest(key, f"{case_id}\0{token}".encode(), "sha256").hex()


def _check(subject: str, case_id: str, by: str) -> None:
    folded = _folded(subject)
    if not folded:
        raise UsageError("E-ERASE-001", "no subject was given", "Pass the value of the subject field")
    for what, text in (("case", case_id), ("name of who erases", by)):
        if not _NAME.fullmatch(text) or folded == _folded(text) or (len(folded) > 3 and folded in _folded(text)):
            raise UsageError(
                "E-ERASE-002",
                f"the {what} has characters outside [A-Za-z0-9._:/-], is longer than 64, or spells the subject",
                "Use a ticket number and an account name; both stay in the journal for good",
            )


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().strip()


@dataclass(frozen=True, slots=True)
class _Lineage:
    """Every journalled stage manifest, in journal order, and the entries themselves."""

    manifests: Mapping[Digest, Manifest]
    entries: Sequence[Entry]

    @classmethod
    def read(cls, home: Home) -> _Lineage:
        entries = home.journal.entries()
        manifests: dict[Digest, Manifest] = {}
        for entry in entries:
            digest = entry.facts.get("manifest")
            if entry.kind == "stage" and isinstance(digest, str) and digest not in manifests:
                manifests[digest] = load_manifest(home, digest)
        return cls(manifests, entries)

    def datasets(self) -> set[str]:
        return {manifest.dataset for manifest in self.manifests.values()}

    def descendants(self, roots: set[Digest]) -> list[Digest]:
        """Manifests made from `roots`, directly or not. Inputs are journalled before outputs, so one pass is enough."""
        reached = set(roots)
        found = []
        for digest, manifest in self.manifests.items():
            if digest not in reached and reached & set(manifest.inputs.values()):
                reached.add(digest)
                found.append(digest)
        return found

    def releases(self, models: set[Digest], derived: Sequence[Digest]) -> Iterator[ReleaseTouched]:
        """Release entries that name such a model or what was made from it, or that end a run that trained one."""
        named = {*models, *derived} if models else set()
        runs = {e.facts.get("run") for e in self.entries if e.kind == "stage" and e.facts.get("manifest") in models}
        for entry in self.entries:
            if entry.kind == "release" and (entry.facts.get("run") in runs or named & set(_digests(dict(entry.facts)))):
                yield ReleaseTouched(entry.seq, entry.at, str(entry.facts.get("policy_name")), _RELEASE_REMEDY)


def _protected(home: Home, lineage: _Lineage, tokens: Mapping[str, str]) -> Iterator[ArtifactTouched]:
    for digest, manifest in lineage.manifests.items():
        ref = manifest.outputs.get("protected")
        if ref is None or not home.store.exists(ref):
            continue
        units = (batch.column(0).to_pylist() for batch in read_batches(home.store, ref, ["unit"]))
        records = sum(column.count(tokens[manifest.dataset]) for column in units)
        if records:
            yield ArtifactTouched("protected", manifest.dataset, digest, records, _PROTECTED_REMEDY)


def _raw(home: Home, lineage: _Lineage, tokens: Mapping[str, str]) -> Iterator[ArtifactTouched]:
    """Raw batches that protect has not consumed yet; there the subject stands in clear, so tokens are computed."""
    for digest, manifest in lineage.manifests.items():
        ref = manifest.outputs.get("raw")
        if ref is None or not home.store.exists(ref):
            continue
        wanted, records = tokens[manifest.dataset], 0
        for batch in read_batches(home.store, ref, ["subject"]):
            records += home.vault.tokens(manifest.dataset, batch.column(0).to_pylist()).count(wanted)
        if records:
            yield ArtifactTouched("raw", manifest.dataset, digest, records, _RAW_REMEDY)


def _quarantines(home: Home, lineage: _Lineage, subject: str) -> Iterator[ArtifactTouched]:
    """A quarantine that names the subject is destroyed whole: its rows can't be told apart by token."""
    for digest, manifest in lineage.manifests.items():
        ref = quarantine_of(manifest)
        if ref is None or not home.store.exists(ref):
            continue
        records = sum(names_subject(reject, subject) for reject in read_quarantine(home.store, ref))
        if records:
            home.store.shred(ref)
            yield ArtifactTouched("quarantine", manifest.dataset, digest, records, _QUARANTINE_REMEDY)


def _model(home: Home, digest: Digest, manifest: Manifest) -> ModelTouched:
    """The remedy follows from the mechanism trace; a model without one that can be read counts as not private."""
    ref = manifest.outputs.get("trace")
    if ref is None:
        return ModelTouched(digest, "non_private", None, None, "withdraw and retrain")
    try:
        recorded = parse_json(home.store.read_plain(ref))
        if isinstance(recorded, Mapping) and recorded.get("mechanism") == "none":
            return ModelTouched(digest, "non_private", None, None, "withdraw and retrain")
        trace = MechanismTrace.from_json(recorded)
    except PrivetError:
        return ModelTouched(digest, "unknown", None, None, "withdraw and retrain: its mechanism trace can't be read")
    # Running the policy again finds this very model; a silent new training would spend budget that nobody approved.
    bound = (
        f"bounded by (epsilon {shown_up(trace.epsilon)}, delta {trace.delta}); to train without the subject, "
        "change the policy and have that use approved"
    )
    return ModelTouched(digest, "dp_sgd", trace.epsilon, trace.delta, bound)


def _digests(value: Json) -> Iterator[Digest]:
    if isinstance(value, str):
        if is_digest(value):
            yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _digests(part)
    elif isinstance(value, Sequence):
        for part in value:
            yield from _digests(part)


def _sign(home: Home, receipt: ErasureReceipt) -> ErasureReceipt:
    subjects = {d.dataset: d.commitment for d in receipt.datasets}
    envelope = seal_envelope(make_statement(subjects, ERASURE_TYPE, receipt.predicate()), home.key)
    ref = home.store.put_plain(envelope, dataset="home", path=f"erasures/{receipt.case_id}.dsse.json", data_class="receipt")
    facts: dict[str, Json] = {
        "case": receipt.case_id,
        "by": receipt.by,
        "subject": {d.dataset: d.commitment for d in receipt.datasets},
        "was_known": receipt.was_known,
        "artifacts": len(receipt.artifacts),
        "models": [m.manifest for m in receipt.models],
        "releases": [r.entry for r in receipt.releases],
        "receipt": ref.digest,
    }
    home.journal.append("erasure", facts)
    return replace(receipt, envelope=ref.digest)

"""Erases one data subject: destroys the originals, sets a tombstone, and says honestly what else was derived from them.

Guarantee: when `erase` returns, the vault no longer holds the subject's key or rows, no reader gets the subject's protected
rows (pipeline.read), what frozen layers gave for them is destroyed (pipeline.prefix_cache), a later ingest is suppressed, a
training that runs stops at its next lease, and a signed receipt with the date by which old copies open no more is stored and
journalled. Safe to repeat.
Not covered, and said in the receipt: source files, models already trained, copies of what was released.
Assumption: quarantined rejects spell the subject in clear; a row too broken for that goes with the quarantine's retention.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pipeline.holdings import Found, Kind, Look
from pipeline.lineage import Lineage, journal_time
from pipeline.prefix_cache import drop_prefixes
from pipeline.receipt import (
    ERASURE_TYPE,
    Action,
    ArtifactTouched,
    DatasetTouched,
    ErasureReceipt,
    ExportTouched,
    Mechanism,
    ModelTouched,
    ReleaseTouched,
    State,
    TrainingTouched,
)
from pipeline.stage import Manifest
from pipeline.training_watch import is_training, unfinished
from privacy.accounting import MechanismTrace
from privacy.canonical import Digest, Json, parse_json
from privacy.errors import PrivetError, UsageError
from privacy.rounding import shown_up
from privacy.signing import make_statement, seal_envelope

if TYPE_CHECKING:
    from pipeline.home import Home
    from privacy.vault import ErasedFromVault

CASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}")
_STATES: Mapping[Kind, tuple[State, str]] = {
    "protected": (
        "closed",
        "no reader gets the pseudonymised rows any more; the end of the epoch writes the others anew",
    ),
    "raw": ("waiting", "protect will leave them out and destroy the batch"),
    "quarantine": ("gone", "destroyed whole; the rejects of others can be ingested again from the source"),
}
_DESTROYED_REMEDY = (
    "destroyed before, so nobody can tell whether it held the subject; what was made from it is listed as if it did"
)
_UNREAD_REMEDY = (
    "it can't be looked into in this role, and the vault knew no such subject: a steward has to run this erasure again"
)
_RELEASE_REMEDY = "copies outside can't be called back; tell whoever received the bundle what the model's remedy says"
_EXPORT_REMEDY = "that copy is in other hands: have its recipient delete it, or export anew, which leaves the subject out"
_RUNNING_REMEDY = (
    "it stops at its next lease and starts again without the subject, as far as its approval allows; a model that it commits "
    "at this very moment is named in the statement that follows by the date given"
)
_INTERRUPTED_REMEDY = (
    "continued, it starts again without the subject; its checkpoint is destroyed by the date given at the latest"
)


def erase(home: Home, subject: str, case_id: str, by: str) -> ErasureReceipt:
    """Erase `subject` (the value of the policy's subject field) from every dataset of this home.

    case_id names the request and by the person who carries it out; both are public in the receipt. Raises UsageError
    E-ERASE-001 (no subject), E-ERASE-002 (case or name unusable).
    """
    check_request(subject, {"case": case_id, "name of who erases": by})
    lineage, erased = _destroy_originals(home, subject, case_id)
    for name in erased:
        drop_prefixes(home, name)  # computed from records one by one; whoever needs it computes it anew, without the subject
    now = journal_time(home, datetime.now(UTC))
    due = {name: (now + timedelta(days=lineage.erasure_days(name))).date().isoformat() for name in erased}
    look = Look(home, lineage, subject, {name: found.token for name, found in erased.items()})
    artifacts = tuple(
        _artifact(home, found, erased[found.manifest.dataset].was_known, due[found.manifest.dataset])
        for found in look.everywhere()
    )
    touched = {a.manifest for a in artifacts if a.kind == "protected"}
    derived = [d for d in lineage.descendants(touched) if lineage.manifests[d].stage == "train"]
    models = tuple(_model(look, d) for d in dict.fromkeys([*derived, *look.earlier_models()]))
    named = {m.manifest for m in models}
    releases = lineage.releases(named, lineage.descendants(named))
    receipt = ErasureReceipt(
        case_id=case_id,
        by=by,
        at=now.isoformat(timespec="seconds"),
        datasets=tuple(
            DatasetTouched(
                name,
                home.vault.commitment(name, found.token, case_id, "erasure"),
                found.records,
                found.was_known,
                found.cleared,
                due[name],
            )
            for name, found in sorted(erased.items())
        ),
        artifacts=artifacts,
        models=models,
        trainings=tuple(_trainings(look, touched)),
        releases=tuple(ReleaseTouched(e.seq, e.at, str(e.facts.get("policy_name")), _RELEASE_REMEDY) for e in releases),
        exports=tuple(
            ExportTouched(e.seq, e.at, str(e.facts["dataset"]), str(e.facts["file"]), _EXPORT_REMEDY)
            for e in lineage.exports(touched)
        ),
        unreadable=lineage.unreadable,
    )
    return _sign(home, receipt)


def _destroy_originals(home: Home, subject: str, case_id: str) -> tuple[Lineage, dict[str, ErasedFromVault]]:
    """The vault first: once this returns the originals are gone and readers are closed, whatever fails later."""
    erased = {name: home.vault.erase(name, subject, case_id) for name in home.vault.datasets_of(subject)}
    lineage = Lineage.read(home)
    erased |= {name: home.vault.erase(name, subject, case_id) for name in sorted(lineage.datasets() - set(erased))}
    # Where a policy says what its subjects are (an address, a number), their token is that of the common spelling.
    for name in sorted(erased):
        if (spelled := lineage.spelled(name, subject)) != subject:
            before, found = erased[name], home.vault.erase(name, spelled, case_id)
            erased[name] = replace(
                found,
                records=before.records + found.records,
                was_known=before.was_known or found.was_known,
                cleared=before.cleared and found.cleared,
            )
    return lineage, erased


def check_request(subject: str, named: Mapping[str, str]) -> None:
    """What is named here stays in the journal for good, so it must be a reference and not spell the person."""
    folded = _folded(subject)
    if not folded:
        raise UsageError("E-ERASE-001", "no subject was given", "Pass the value of the subject field")
    for what, text in named.items():
        if not CASE.fullmatch(text) or folded == _folded(text) or (len(folded) > 3 and folded in _folded(text)):
            raise UsageError(
                "E-ERASE-002",
                f"the {what} has characters outside [A-Za-z0-9._:/-], is longer than 64, or spells the subject",
                "Use a ticket number and an account name; both stay in the journal for good",
            )


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().strip()


def _artifact(home: Home, found: Found, known: bool, due: str) -> ArtifactTouched:
    """A quarantine that names the subject is destroyed whole: its rows carry no token. So is one that can't be read, if
    the subject was known; for a stranger's request a role without the key must not destroy what others left there."""
    state, remedy = _STATES[found.kind]
    if found.place is None:
        state, remedy = "gone", _DESTROYED_REMEDY
    elif found.kind == "quarantine" and found.records is None and not known:
        state, remedy = "waiting", _UNREAD_REMEDY
    elif found.kind == "quarantine":
        home.store.shred(found.place)
    return ArtifactTouched(found.kind, found.manifest.dataset, found.digest, found.records, state, due, remedy)


def _model(look: Look, digest: Digest) -> ModelTouched:
    """The remedy by the rule of the receipt; a model without a trace that can be read counts as not private."""
    manifest = look.lineage.manifests[digest]
    released = any(True for _ in look.lineage.releases({digest}, look.lineage.descendants({digest})))
    mechanism, trace = _mechanism(look.home, manifest)
    epsilon, delta = (None, None) if trace is None else (trace.epsilon, trace.delta)
    action: Action = "withdraw" if released else "retrain"
    then = "retrain; until then nothing made from it may leave"
    if released:
        then = "withdraw the release (privet release revoke --code erasure) and retrain"
    if trace is None:
        why = "its mechanism trace can't be read" if mechanism == "unknown" else "no mechanism bounds what it learnt"
        return ModelTouched(digest, mechanism, None, None, action, f"{then}: {why}")
    audit, limit = look.lineage.privacy_audit(look.home, digest), look.lineage.retention_of(manifest).erasure_epsilon
    if audit in ("failed", "not_evaluated"):
        return ModelTouched(digest, mechanism, epsilon, delta, action, f"{then}: the audit of its privacy says {audit}")
    if trace.epsilon > limit:
        why = f"its epsilon {shown_up(trace.epsilon)} is above retention.erasure_epsilon {shown_up(limit)}"
        return ModelTouched(digest, mechanism, epsilon, delta, action, f"{then}: {why}")
    # Running the policy again finds this very model; a silent new training would spend budget that nobody approved.
    bound = (
        f"bounded by (epsilon {shown_up(trace.epsilon)}, delta {trace.delta}); to train without the subject, "
        "change the policy and have that use approved"
    )
    return ModelTouched(digest, mechanism, epsilon, delta, "dp_bound", bound)


def _mechanism(home: Home, manifest: Manifest) -> tuple[Mechanism, MechanismTrace | None]:
    ref = manifest.outputs.get("trace")
    if ref is None:
        return "non_private", None
    try:
        recorded = parse_json(home.store.read_plain(ref))
        if isinstance(recorded, Mapping) and recorded.get("mechanism") == "none":
            return "non_private", None
        return "dp_sgd", MechanismTrace.from_json(recorded)
    except PrivetError:
        return "unknown", None


def _trainings(look: Look, touched: set[Digest]) -> Iterator[TrainingTouched]:
    """Started on such data and not ended: by the lock it is told whether one runs at this moment."""
    for training in unfinished(look.lineage.entries):
        if training.protect not in touched:
            continue
        named = (training.ledger_key, training.run, training.dataset)
        if is_training(look.home, training.ledger_key):
            yield TrainingTouched(*named, "running", _RUNNING_REMEDY)
        else:
            yield TrainingTouched(*named, "interrupted", _INTERRUPTED_REMEDY)


def _sign(home: Home, receipt: ErasureReceipt) -> ErasureReceipt:
    subjects = {d.dataset: d.commitment for d in receipt.datasets}
    envelope = seal_envelope(make_statement(subjects, ERASURE_TYPE, receipt.predicate()), home.key)
    ref = home.store.put_plain(envelope, dataset="home", path=f"erasures/{receipt.case_id}.dsse.json", data_class="receipt")
    facts: dict[str, Json] = {
        "case": receipt.case_id,
        "by": receipt.by,
        "subject": dict(subjects),
        "due": {d.dataset: d.gone_by for d in receipt.datasets},
        "was_known": receipt.was_known,
        "artifacts": len(receipt.artifacts),
        "models": {m.manifest: m.action for m in receipt.models},
        "trainings": [t.ledger_key for t in receipt.trainings],
        "releases": [r.entry for r in receipt.releases],
        "exports": [e.entry for e in receipt.exports],
        "receipt": ref.digest,
    }
    home.journal.append("erasure", facts)
    return replace(receipt, envelope=ref.digest)

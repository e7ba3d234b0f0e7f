"""What an erasure touched, as one signed, value-free receipt: what is gone now, what by which date, and what is not.

Guarantee: a receipt names datasets, manifests, counts and remedies; the subject appears only as commitments, which the
home that made them can check (their salts lie in its vault) and nobody else can link to a person or to rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from privacy.canonical import Digest, Json

ERASURE_TYPE = "https://privet.dev/predicate/erasure/v2"
COMPLETED_TYPE = "https://privet.dev/predicate/erasure-completed/v1"
LANDING_HINT = (
    "Raw source files (the landing folder, or wherever --source pointed), and copies that others took of a release or of an"
    " export, are outside Privet's reach: delete the subject's records there. If they are ingested again, the tombstone"
    " keeps them out of every protected dataset."
)
NO_MODEL_HINT = "No model that Privet trained has read records of this subject."
REMEDY_RULE = (
    "withdraw: the model is not bounded and was released. retrain: it is not bounded and was not released. dp_bound: it is"
    " bounded, and stays. Bounded means trained by DP-SGD, with a trace that can be read, an epsilon of at most"
    " retention.erasure_epsilon of its policy, and no audit of its privacy that failed or could not be evaluated. Whether"
    " that bound is enough in this case is for the controller to decide."
)
BY_DATE_HINT = (
    "By the date given, the keys that old copies of vault, raw batches, quarantines, protected data and checkpoints are"
    " wrapped by are destroyed (privet retention), so that no backup of the home opens them. A copy of the key service itself"
    " from before, kept elsewhere, would."
)
Mechanism = Literal["dp_sgd", "non_private", "unknown"]
State = Literal["gone", "closed", "waiting"]
Action = Literal["dp_bound", "retrain", "withdraw"]


@dataclass(frozen=True, slots=True)
class DatasetTouched:
    """One dataset: what its vault lost now, and by which day old copies of it open no more."""

    dataset: str
    commitment: Digest
    vault_records: int
    was_known: bool
    log_cleared: bool
    gone_by: str

    def to_json(self) -> dict[str, Json]:
        return {
            "dataset": self.dataset,
            "commitment": self.commitment,
            "vault_records": self.vault_records,
            "was_known": self.was_known,
            "log_cleared": self.log_cleared,
            "gone_by": self.gone_by,
        }


@dataclass(frozen=True, slots=True)
class ArtifactTouched:
    """One sealed artifact that holds, or held, records of the subject. `records` None: it could not be looked into.

    `state`: gone (destroyed), closed (no reader gets the rows any more), waiting (to be read by the stage that drops them).
    """

    kind: Literal["protected", "raw", "quarantine"]
    dataset: str
    manifest: Digest
    records: int | None
    state: State
    gone_by: str
    remedy: str

    def to_json(self) -> dict[str, Json]:
        return {
            "kind": self.kind,
            "dataset": self.dataset,
            "manifest": self.manifest,
            "records": self.records,
            "state": self.state,
            "gone_by": self.gone_by,
            "remedy": self.remedy,
        }


@dataclass(frozen=True, slots=True)
class ModelTouched:
    """One model whose training set held the unit. Whether a batch ever drew it is not known, so it is assumed."""

    manifest: Digest
    mechanism: Mechanism
    epsilon: float | None
    delta: float | None
    action: Action
    remedy: str

    def to_json(self) -> dict[str, Json]:
        return {
            "manifest": self.manifest,
            "mechanism": self.mechanism,
            "epsilon": self.epsilon,
            "delta": self.delta,
            "action": self.action,
            "remedy": self.remedy,
        }


@dataclass(frozen=True, slots=True)
class TrainingTouched:
    """A training on such data that has no result yet: it runs now, or was cut short and can be continued."""

    ledger_key: str
    run: str
    dataset: str
    state: Literal["running", "interrupted"]
    remedy: str

    def to_json(self) -> dict[str, Json]:
        return {
            "ledger_key": self.ledger_key,
            "run": self.run,
            "dataset": self.dataset,
            "state": self.state,
            "remedy": self.remedy,
        }


@dataclass(frozen=True, slots=True)
class ReleaseTouched:
    """One journalled release of such a model; what left the building can't be called back by Privet."""

    entry: int
    at: str
    policy_name: str
    remedy: str

    def to_json(self) -> dict[str, Json]:
        return {"entry": self.entry, "at": self.at, "policy_name": self.policy_name, "remedy": self.remedy}


@dataclass(frozen=True, slots=True)
class ExportTouched:
    """One journalled export of a dataset that held the subject; the copy is in other hands."""

    entry: int
    at: str
    dataset: str
    file: Digest
    remedy: str

    def to_json(self) -> dict[str, Json]:
        return {"entry": self.entry, "at": self.at, "dataset": self.dataset, "file": self.file, "remedy": self.remedy}


@dataclass(frozen=True, slots=True)
class ErasureReceipt:
    """The whole answer to one erasure request. `envelope` is the digest of the stored DSSE envelope.

    `unreadable`: results that the journal names and that could not be read, so that nobody knows what they touch.
    """

    case_id: str
    by: str
    at: str
    datasets: tuple[DatasetTouched, ...]
    artifacts: tuple[ArtifactTouched, ...]
    models: tuple[ModelTouched, ...]
    trainings: tuple[TrainingTouched, ...]
    releases: tuple[ReleaseTouched, ...]
    exports: tuple[ExportTouched, ...]
    unreadable: tuple[Digest, ...]
    envelope: Digest | None = None

    @property
    def was_known(self) -> bool:
        """Whether Privet held anything of the subject, now or at an earlier erasure."""
        return any(d.was_known for d in self.datasets) or any(a.records for a in self.artifacts)

    @property
    def gone_by(self) -> str | None:
        """The last of the dates."""
        return max((d.gone_by for d in self.datasets), default=None)

    def predicate(self) -> dict[str, Json]:
        """What is signed."""
        return {
            "case": self.case_id,
            "by": self.by,
            "at": self.at,
            "was_known": self.was_known,
            "gone_by": self.gone_by,
            "datasets": [d.to_json() for d in self.datasets],
            "artifacts": [a.to_json() for a in self.artifacts],
            "models": [m.to_json() for m in self.models],
            "trainings": [t.to_json() for t in self.trainings],
            "releases": [r.to_json() for r in self.releases],
            "exports": [e.to_json() for e in self.exports],
            "unreadable": list(self.unreadable),
            "rule": REMEDY_RULE,
            "by_date": BY_DATE_HINT,
            "outside": LANDING_HINT,
        }

    def to_json(self) -> dict[str, Json]:
        return {**self.predicate(), "receipt": self.envelope}

    def lines(self) -> list[str]:
        """For a terminal; never shows the subject."""
        found = "done" if self.was_known else "nothing was found; a tombstone was set all the same"
        if not self.datasets:
            found = "nothing was found: this home holds no dataset yet, so there is no place for a tombstone either"
        lines = [f"erasure {self.case_id}: {found}"]
        for dataset in self.datasets:
            lines.append(
                f"  {dataset.dataset}: {dataset.vault_records} originals and their key destroyed now, tombstone set; "
                f"backups open no more by {dataset.gone_by}"
            )
        for artifact in self.artifacts:
            count = "an unknown number of" if artifact.records is None else artifact.records
            gone = "" if artifact.state == "gone" else f"; gone by {artifact.gone_by}"
            lines.append(f"  {artifact.kind} {_short(artifact.manifest)}: {count} records; {artifact.remedy}{gone}")
        for model in self.models:
            lines.append(f"  model {_short(model.manifest)} ({model.mechanism}): {model.remedy}")
        for training in self.trainings:
            lines.append(f"  training {training.ledger_key} ({training.state}): {training.remedy}")
        for release in self.releases:
            lines.append(f"  release {release.policy_name} of {release.at}: {release.remedy}")
        for export in self.exports:
            lines.append(f"  export of {export.dataset} of {export.at}: {export.remedy}")
        for digest in self.unreadable:
            lines.append(
                f"  {_short(digest)}: this result can't be read, so nobody knows what it touches; restore it, run again"
            )
        if not self.models:
            lines.append(f"  {NO_MODEL_HINT}")
        lines += [f"  {BY_DATE_HINT}", f"  {LANDING_HINT}"] if self.datasets else [f"  {LANDING_HINT}"]
        if self.envelope is not None:
            lines.append(f"  signed receipt: {self.envelope}")
        return lines


def _short(digest: Digest) -> str:
    return digest.removeprefix("sha256:")[:12]

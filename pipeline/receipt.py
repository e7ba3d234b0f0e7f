"""What an erasure touched, as one signed, value-free receipt.

Guarantee: a receipt names datasets, manifests, counts and remedies; the subject appears only as keyed commitments, which
the home that made them can check and nobody else can link to a person or to the tokens of the protected dataset.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from privacy.canonical import Digest, Json

ERASURE_TYPE = "https://privet.dev/predicate/erasure/v1"
LANDING_HINT = (
    "Raw source files (the landing folder, or wherever --source pointed) are outside Privet's reach: delete the subject's"
    " records there. If they are ingested again, the tombstone keeps them out of every protected dataset."
)
NO_MODEL_HINT = "No model that Privet trained has read records of this subject."
Mechanism = Literal["dp_sgd", "non_private", "unknown"]


@dataclass(frozen=True, slots=True)
class DatasetTouched:
    """One dataset: what its vault lost, and the commitment that stands for the subject there."""

    dataset: str
    commitment: Digest
    vault_records: int
    was_known: bool

    def to_json(self) -> dict[str, Json]:
        return {
            "dataset": self.dataset,
            "commitment": self.commitment,
            "vault_records": self.vault_records,
            "was_known": self.was_known,
        }


@dataclass(frozen=True, slots=True)
class ArtifactTouched:
    """One sealed artifact that holds, or held, records of the subject, and what becomes of it."""

    kind: Literal["protected", "raw", "quarantine"]
    dataset: str
    manifest: Digest
    records: int
    remedy: str

    def to_json(self) -> dict[str, Json]:
        return {
            "kind": self.kind,
            "dataset": self.dataset,
            "manifest": self.manifest,
            "records": self.records,
            "remedy": self.remedy,
        }


@dataclass(frozen=True, slots=True)
class ModelTouched:
    """One model whose training set held the unit. Whether a batch ever drew it is not known, so it is assumed."""

    manifest: Digest
    mechanism: Mechanism
    epsilon: float | None
    delta: float | None
    remedy: str

    def to_json(self) -> dict[str, Json]:
        return {
            "manifest": self.manifest,
            "mechanism": self.mechanism,
            "epsilon": self.epsilon,
            "delta": self.delta,
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
class ErasureReceipt:
    """The whole answer to one erasure request. `envelope` is the digest of the stored DSSE envelope."""

    case_id: str
    by: str
    at: str
    datasets: tuple[DatasetTouched, ...]
    artifacts: tuple[ArtifactTouched, ...]
    models: tuple[ModelTouched, ...]
    releases: tuple[ReleaseTouched, ...]
    envelope: Digest | None = None

    @property
    def was_known(self) -> bool:
        """Whether Privet held anything of the subject, now or at an earlier erasure."""
        return any(d.was_known for d in self.datasets) or bool(self.artifacts)

    def predicate(self) -> dict[str, Json]:
        """What is signed."""
        return {
            "case": self.case_id,
            "by": self.by,
            "at": self.at,
            "was_known": self.was_known,
            "datasets": [d.to_json() for d in self.datasets],
            "artifacts": [a.to_json() for a in self.artifacts],
            "models": [m.to_json() for m in self.models],
            "releases": [r.to_json() for r in self.releases],
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
            lines.append(f"  {dataset.dataset}: {dataset.vault_records} originals destroyed, tombstone set")
        for artifact in self.artifacts:
            lines.append(f"  {artifact.kind} {_short(artifact.manifest)}: {artifact.records} records; {artifact.remedy}")
        for model in self.models:
            lines.append(f"  model {_short(model.manifest)} ({model.mechanism}): {model.remedy}")
        for release in self.releases:
            lines.append(f"  release {release.policy_name} of {release.at}: {release.remedy}")
        if not self.models:
            lines.append(f"  {NO_MODEL_HINT}")
        lines.append(f"  {LANDING_HINT}")
        if self.envelope is not None:
            lines.append(f"  signed receipt: {self.envelope}")
        return lines


def _short(digest: Digest) -> str:
    return digest.removeprefix("sha256:")[:12]

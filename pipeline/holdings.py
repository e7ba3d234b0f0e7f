"""Where one person's records are: what erasure and access answer from the same look.

Guarantee: every standing raw batch, quarantine and protected dataset of every readable result is looked into; what can't be
(no key in this role, damaged, destroyed since) is returned with `records` None, and whoever reports it must say so.
Assumption: quarantined rejects spell the subject in clear, in any of the spellings that ingest takes for one unit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipeline.lineage import Lineage
from pipeline.quarantine import names_subject, read_quarantine
from pipeline.relocate import chain, moves
from pipeline.stage import ArtifactRef, Manifest
from pipeline.tables import read_batches
from privacy.canonical import Digest
from privacy.errors import PrivetError
from privacy.tokens import spelled_anywhere

if TYPE_CHECKING:
    from pipeline.home import Home
    from privacy.journal import Entry

Kind = Literal["protected", "raw", "quarantine"]


@dataclass(frozen=True, slots=True)
class Found:
    """One sealed object. `records` None: it could not be looked into; `place` None: it is destroyed."""

    kind: Kind
    digest: Digest
    manifest: Manifest
    place: ArtifactRef | None
    records: int | None


@dataclass(frozen=True)
class Look:
    """tokens: of the subject, by dataset."""

    home: Home
    lineage: Lineage
    subject: str
    tokens: Mapping[str, str]

    def everywhere(self) -> Iterator[Found]:
        """What holds the subject, or may."""
        known = moves(self.lineage.entries)
        for kind in ("protected", "raw", "quarantine"):
            for digest, manifest in self.lineage.manifests.items():
                ref = manifest.outputs.get(kind)
                if ref is None or manifest.dataset not in self.tokens:
                    continue
                place = next((p for p in reversed(chain(known, ref)) if self.home.store.exists(p)), None)
                if place is None:
                    if kind == "protected":  # models made from it live on
                        yield Found("protected", digest, manifest, None, None)
                    continue
                records = self._count(kind, place)
                if records != 0:
                    yield Found(kind, digest, manifest, place, records)

    def earlier_models(self) -> list[Digest]:
        """Models named by earlier erasures of this very subject: the rows by which they were found may be gone."""
        found: dict[Digest, None] = {}
        for entry in self.earlier_erasures():
            models = entry.facts.get("models")
            if isinstance(models, Mapping):
                found |= dict.fromkeys(str(name) for name in models)
        return [digest for digest in found if digest in self.lineage.manifests]

    def earlier_erasures(self) -> Iterator[Entry]:
        for entry in self.lineage.entries:
            subjects = entry.facts.get("subject")
            if entry.kind != "erasure" or not isinstance(subjects, Mapping):
                continue
            case = str(entry.facts.get("case"))
            for dataset, commitment in subjects.items():
                token = self.tokens.get(dataset)
                if token is not None and self.home.vault.known_commitment(dataset, token, case) == commitment:
                    yield entry
                    break

    def _count(self, kind: str, ref: ArtifactRef) -> int | None:
        try:
            if kind == "quarantine":
                spelled = spelled_anywhere(self.subject, self.lineage.subject_kind(ref.dataset))
                return sum(names_subject(reject, spelled) for reject in read_quarantine(self.home.store, ref))
            return self._rows(ref, "subject" if kind == "raw" else "unit")
        except PrivetError:
            return None

    def _rows(self, ref: ArtifactRef, column: str) -> int:
        """In a raw batch the subject stands in clear, so tokens are computed."""
        import pyarrow.compute as pc

        wanted, records = self.tokens[ref.dataset], 0
        for batch in read_batches(self.home.store, ref, [column]):
            values = batch.column(0)
            tokens = self.home.vault.tokens_array(ref.dataset, values) if column == "subject" else values
            records += pc.sum(pc.equal(tokens, wanted)).as_py() or 0
        return records

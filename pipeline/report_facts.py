"""What a report is made from, loaded once, and how a value becomes a figure.

Guarantee: a figure that claims to be measured carries the digest of the document it was read from wherever there is one.
A document of another form than expected is not fatal: what it holds is shown under its own names, the rest is
said to be missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipeline.assemble import read_trace
from pipeline.evidence import use_subject
from pipeline.report_page import Basis, Figure
from pipeline.report_words import Words, datum, joined, say
from pipeline.stage import Manifest, StageContext, load_manifest
from privacy.accounting import MechanismTrace
from privacy.canonical import Digest, Json, Scalar, parse_json
from privacy.errors import PrivetError
from privacy.gates import Approval
from privacy.rounding import shown_scalar
from privacy.verdict import Verdict

if TYPE_CHECKING:
    from privacy.entries import Entry
    from privacy.policy import Policy

_WANTED: Mapping[str, tuple[str, str]] = {
    "trace": ("train", "trace"),
    "metrics": ("train", "metrics"),
    "verdicts": ("audit", "verdicts"),
    "bounds": ("audit", "bounds"),
    "attacks": ("audit", "attacks"),
    "redaction": ("audit", "redaction"),
    "harm": ("audit", "harm"),
    "validation": ("validate", "validation"),
    "slip_through": ("protect", "slip_through"),
}
MOST_FIGURES = 120  # of one document
_AT = "fpr="


@dataclass(frozen=True, slots=True)
class Document:
    """A stored JSON document and its digest; `value` is None where the stage left none."""

    value: Json
    digest: Digest | None

    def part(self, *path: str) -> Document:
        """What lies under these names; a document without a value where nothing does."""
        value = self.value
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        return Document(value, self.digest)

    def items(self, name: str) -> list[Json]:
        found = self.part(name).value
        return found if isinstance(found, list) else []

    def numbers(self) -> Iterator[tuple[tuple[str, ...], float]]:
        yield from _numbers((), self.value)

    def number(self, *path: str) -> float | None:
        value = self.part(*path).value
        return None if isinstance(value, bool) or not isinstance(value, int | float) else float(value)


def _numbers(path: tuple[str, ...], value: Json) -> Iterator[tuple[tuple[str, ...], float]]:
    """Path and value of every number, in a stable order; a list of named things goes by its names."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return
    if isinstance(value, int | float):
        yield path, float(value)
    elif isinstance(value, Mapping):
        for name in sorted(value):
            yield from _numbers((*path, name), value[name])
    else:
        for index, item in enumerate(value):
            yield from _numbers((*path, _item_name(item, index)), item)


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a report is made from."""

    ctx: StageContext
    manifests: Mapping[str, Manifest]
    digests: Mapping[str, Digest]
    trace: MechanismTrace | None
    documents: Mapping[str, Document]
    verdicts: tuple[Verdict, ...]
    approvals: tuple[Approval, ...]
    entries: tuple[Entry, ...]
    now: datetime

    @classmethod
    def load(cls, ctx: StageContext, digests: Mapping[str, Digest]) -> Facts:
        manifests = {stage: load_manifest(ctx.home, digest) for stage, digest in digests.items()}
        documents = {name: _document(ctx, manifests[stage], output) for name, (stage, output) in _WANTED.items()}
        recorded = documents["verdicts"].value
        verdicts = tuple(Verdict.from_json(v) for v in recorded) if isinstance(recorded, list) else ()
        ref = manifests["train"].outputs.get("trace")
        trace = None if ref is None else read_trace(ctx.home.store.read_plain(ref))
        budget = ctx.policy.budget
        subject = use_subject(ctx.policy_digest, digests["protect"], digests["validate"], budget.epsilon, budget.delta)
        approvals = tuple(ctx.home.approvals.approvals(subject, ctx.home.trust))
        entries = tuple(ctx.home.journal.entries())
        return cls(ctx, manifests, digests, trace, documents, verdicts, approvals, entries, ctx.clock().astimezone(UTC))

    @property
    def policy(self) -> Policy:
        return self.ctx.policy

    def fact(self, stage: str, name: str) -> Scalar:
        return self.manifests[stage].facts.get(name)

    def configured(self, key: str, label: Words, value: object) -> Figure:
        """A public constant of the policy."""
        return Figure(key, label, shown(value), "configured", self.ctx.policy_digest)

    def asserted(self, key: str, label: Words, value: object) -> Figure:
        """A sentence of the policy: somebody's word."""
        return Figure(key, label, shown(value), "asserted by a person", self.ctx.policy_digest)

    def counted(self, stage: str, name: str, label: Words, key: str = "") -> Figure:
        """A fact of a stage's result, or the sentence that the stage left none."""
        value = self.fact(stage, name)
        if value is None:
            return missing(key or name, label, say("the {stage} stage recorded none", stage=stage))
        return Figure(key or name, label, shown(value, name), "measured", self.digests[stage])

    def named(self, kind: str) -> list[Entry]:
        """Entries of the journal of one kind that are about this dataset or say nothing of a dataset."""
        return [
            e for e in self.entries if e.kind == kind and e.facts.get("dataset", self.policy.dataset) == self.policy.dataset
        ]


def missing(key: str, label: Words, reason: Words) -> Figure:
    return Figure(key, label, reason, "missing")


def not_applicable(key: str, label: Words, reason: Words) -> Figure:
    return Figure(key, label, reason, "not applicable")


def fixed(key: str, label: Words, value: Words) -> Figure:
    """What the program does, whatever the policy says."""
    return Figure(key, label, value, "configured")


def measured(key: str, label: Words, value: object, source: Digest | None = None, name: str = "") -> Figure:
    basis: Basis = "measured"
    return Figure(key, label, shown(value, name), basis, source)


def document_figures(
    document: Document, prefix: str, leave: frozenset[str] = frozenset(), most: int = MOST_FIGURES
) -> list[Figure]:
    """Every number of a document under its own path; `leave`: names whose numbers stand elsewhere (points of a curve)."""
    found = [(path, value) for path, value in _leaves((), document.value) if not leave & set(path)]
    figures = [
        measured(f"{prefix}.{'.'.join(path)}", path_words((*prefix.split("."), *path)), value, document.digest, path[-1])
        for path, value in found[:most]
    ]
    if len(found) > most:
        said = say("{more} further numbers stand in the document itself", more=len(found) - most)
        figures.append(Figure(f"{prefix}.more", say("further numbers"), said, "measured", document.digest))
    return figures


def _leaves(path: tuple[str, ...], value: Json) -> Iterator[tuple[tuple[str, ...], float | str]]:
    """As `_numbers`, with an interval as one text and a rate named by the rate of false alarms that it stands at."""
    if isinstance(value, Mapping):
        rate = value.get("fpr")
        at = (f"{_AT}{rate:g}",) if isinstance(rate, int | float) else ()
        for name in sorted(value):
            if not (at and name == "fpr"):
                yield from _leaves((*path, *at, name), value[name])
    elif isinstance(value, list):
        ends = [end for end in value if isinstance(end, int | float)]
        if path and "interval" in path[-1] and len(value) == len(ends) == 2:
            yield path, f"{ends[0]:.6g} – {ends[1]:.6g}"
            return
        for index, item in enumerate(value):
            by_rate = isinstance(item, Mapping) and "fpr" in item
            yield from _leaves(path if by_rate else (*path, _item_name(item, index)), item)
    else:
        yield from _numbers(path, value)


def _item_name(item: Json, index: int) -> str:
    named = item.get("name") or item.get("attack") if isinstance(item, Mapping) else None
    return named if isinstance(named, str) else str(index + 1)


def path_words(path: Sequence[str]) -> Words:
    """Names that the report knows are translated; others are shown as they stand."""
    return joined(dict.fromkeys(_name_words(name) for name in path), " · ", " · ")


def _name_words(name: str) -> Words:
    from pipeline.report_terms import TERMS

    if name.startswith(_AT):
        return say("at {rate} % false alarms", rate=f"{float(name.removeprefix(_AT)) * 100:g}")
    return TERMS.get(name) or datum(name.replace("_", " "))


def shown(value: object, name: str = "") -> Words:
    if isinstance(value, Words):
        return value
    if isinstance(value, bool):
        return say("yes") if value else say("no")
    return datum(shown_scalar(name, value) if isinstance(value, int | float) else value)


def _document(ctx: StageContext, manifest: Manifest, output: str) -> Document:
    ref = manifest.outputs.get(output)
    if ref is None:
        return Document(None, None)
    try:
        return Document(parse_json(ctx.home.store.read_plain(ref)), ref.digest)
    except PrivetError:
        if output in ("trace", "verdicts"):
            raise
        return Document(None, None)


def when(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")

"""What a report is made of, and its JSON: sections of figures, verdicts, drawings, commands; an appendix of crosswalks.

Guarantee: a figure says what it rests on, and one that is not there says why: nothing is blank. Pure: from values to bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from pipeline.report_words import NOTHING, Language, Words
from privacy.canonical import Digest, Json, canonical_json
from privacy.verdict import Verdict

Basis = Literal["measured", "asserted by a person", "configured", "not applicable", "missing"]
BASES: Final[tuple[Basis, ...]] = ("measured", "asserted by a person", "configured", "not applicable", "missing")
RowStatus = Literal["present", "absent", "not covered"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One value. key: stable name inside its section, by which crosswalks refer to it; source: digest it was read from.

    Of a figure that is missing or not applicable, the value is the reason.
    """

    key: str
    label: Words
    value: Words
    basis: Basis
    source: Digest | None = None

    def to_json(self) -> dict[str, Json]:
        return {
            "key": self.key,
            "label": self.label.en,
            "label_zh": self.label.zh,
            "value": self.value.en,
            "value_zh": self.value.zh,
            "basis": self.basis,
            "source": self.source,
        }


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawing. text: everything that it shows, in words, for those who can't see it; draw: SVG in a language."""

    key: str
    caption: Words
    text: Words
    draw: Callable[[Language], str]

    def to_json(self) -> dict[str, Json]:
        return {"key": self.key, "caption": self.caption.to_json(), "text": self.text.to_json()}


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a section, or of the appendix."""

    title: Words
    head: tuple[Words, ...]
    rows: tuple[tuple[Words, ...], ...]

    def to_json(self) -> dict[str, Json]:
        return {
            "title": self.title.to_json(),
            "head": [w.to_json() for w in self.head],
            "rows": [[w.to_json() for w in row] for row in self.rows],
        }


@dataclass(frozen=True, slots=True)
class Section:
    """A numbered part. explained: what each check of `verdicts` looks at."""

    key: str
    title: Words
    text: tuple[Words, ...] = ()
    figures: tuple[Figure, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    explained: tuple[Words, ...] = ()
    tables: tuple[Table, ...] = ()
    commands: tuple[str, ...] = ()
    plots: tuple[Plot, ...] = ()

    def to_json(self) -> dict[str, Json]:
        explained = self.explained or tuple(NOTHING for _ in self.verdicts)
        return {
            "key": self.key,
            "title": self.title.en,
            "title_zh": self.title.zh,
            "text": [w.en for w in self.text],
            "text_zh": [w.zh for w in self.text],
            "figures": [f.to_json() for f in self.figures],
            "verdicts": [{**v.to_json(), "explained": e.to_json()} for v, e in zip(self.verdicts, explained, strict=True)],
            "tables": [t.to_json() for t in self.tables],
            "commands": list(self.commands),
            "plots": [p.to_json() for p in self.plots],
        }


@dataclass(frozen=True, slots=True)
class CrosswalkRow:
    """One requirement of a text, and what of this report is evidence for it."""

    article: str
    asks: Words
    evidence: tuple[str, ...]  # "section.figure" or "verdict:check"
    status: RowStatus
    note: Words

    def to_json(self) -> dict[str, Json]:
        return {
            "article": self.article,
            "asks": self.asks.to_json(),
            "evidence": list(self.evidence),
            "status": self.status,
            "note": self.note.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Crosswalk:
    """A text of law or a standard, row by row: evidence for it, never a judgement whether it is met."""

    name: str
    title: Words
    rows: tuple[CrosswalkRow, ...]

    def to_json(self) -> dict[str, Json]:
        return {"name": self.name, "title": self.title.to_json(), "rows": [r.to_json() for r in self.rows]}


@dataclass(frozen=True, slots=True)
class Report:
    """The whole report. `claim` is the privacy claim in the form that the verifier compares; None: there is none."""

    title: Words
    made_at: str
    claim: dict[str, Json] | None
    headline: tuple[Figure, ...]
    sections: tuple[Section, ...]
    crosswalks: Sequence[Crosswalk] = field(default_factory=tuple)

    def json_bytes(self) -> bytes:
        return canonical_json(
            {
                "report": 2,
                "title": self.title.en,
                "title_zh": self.title.zh,
                "made_at": self.made_at,
                "claim": self.claim,
                "headline": [f.to_json() for f in self.headline],
                "sections": [s.to_json() for s in self.sections],
                "crosswalks": [c.to_json() for c in self.crosswalks],
            }
        )

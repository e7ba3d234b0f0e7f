"""Crosswalks: which figures and verdicts of a report are evidence for which requirement of a law or a standard.

Guarantee: the state of a row is derived from the report itself: evidence is here when everything it rests on is here
(a verdict: when it passed), else it is absent and the note says what; a requirement for which Privet makes no evidence says so.
Not covered: whether a requirement is met. That is for people, and no row says it.
Sources of the rows: the texts themselves where public (GDPR, AI Act, HIPAA, PIPL); NIST SP 800-226 (March 2025); for the EDPB
template (version 1.0, April 2026) and GB/T 45652/45654-2025 public summaries, so their rows go by theme, not by clause number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pipeline.report_page import Crosswalk, CrosswalkRow, Section
from pipeline.report_words import NOTHING, Words
from pipeline.safe_harbor import IDENTIFIERS
from privacy.errors import UsageError

SAFE_HARBOR = "hipaa-safe-harbor"


@dataclass(frozen=True, slots=True)
class Asked:
    """One requirement as data. evidence: `section.figure` (may end in *), or `verdict:check`; with a ? where only some runs
    have it; none: Privet makes no evidence for it."""

    article: str
    asks: Words
    evidence: tuple[str, ...]
    note: Words = NOTHING


@dataclass(frozen=True, slots=True)
class Source:
    name: str
    title: Words
    rows: tuple[Asked, ...]


def sources() -> tuple[Source, ...]:
    """Every crosswalk, in the order of the appendix."""
    from pipeline.crosswalk_asia import SOURCES as ASIA
    from pipeline.crosswalk_europe import SOURCES as EUROPE
    from pipeline.crosswalk_us import SOURCES as US

    return (*US, *EUROPE, *ASIA)


def names() -> tuple[str, ...]:
    return tuple(source.name for source in sources())


def parsed(name: str, english: str, chinese: str, table: str) -> Source:
    """Rows of a table: article | what it asks | the same in Chinese | evidence, by spaces | note | the same in Chinese."""
    rows = []
    for line in table.splitlines():
        if line.strip():
            article, asks, asks_zh, evidence, note, note_zh = (part.strip() for part in (line + "||").split("|")[:6])
            rows.append(Asked(article, Words(asks, asks_zh), tuple(evidence.split()), Words(note, note_zh)))
    return Source(name, Words(english, chinese), tuple(rows))


def evaluated(sections: Sequence[Section], treatments: Mapping[str, str] | None = None) -> tuple[Crosswalk, ...]:
    """Every crosswalk against these sections. treatments: of each entity type that is looked for; absent: not looked for."""
    bases = {f"{s.key}.{f.key}": f.basis for s in sections for f in s.figures}
    outcomes = {v.check: v.outcome for s in sections for v in s.verdicts}
    found = [
        Crosswalk(source.name, source.title, tuple(_row(asked, bases, outcomes) for asked in source.rows))
        for source in sources()
    ]
    place = next(i for i, c in enumerate(found) if c.name == SAFE_HARBOR)
    found[place] = Crosswalk(SAFE_HARBOR, found[place].title, tuple(_safe_harbor(bases, treatments or {})))
    return tuple(found)


def source_of(name: str) -> Source:
    """Raises UsageError E-REPORT-003 for a name that is none."""
    for source in sources():
        if source.name == name:
            return source
    raise UsageError("E-REPORT-003", "there is no crosswalk of that name", f"Take one of: {', '.join(names())}")


def _row(asked: Asked, bases: Mapping[str, str], outcomes: Mapping[str, str]) -> CrosswalkRow:
    if not asked.evidence:
        return CrosswalkRow(asked.article, asked.asks, (), "not covered", asked.note)
    here, lacking = [], []
    for reference in asked.evidence:
        name, optional = reference.rstrip("?"), reference.endswith("?")
        state = _state(name, bases, outcomes)
        if state == "present":
            here.append(name)
        elif not optional:
            lacking.append(f"{name} ({state})")
    notes = [asked.note] if asked.note.en else []
    if lacking:
        said = ", ".join(lacking)
        notes.append(Words(f"Lacking: {said}.", f"缺少：{said}。"))
    note = Words(" ".join(n.en for n in notes), " ".join(n.zh for n in notes))
    named_here = (*here, *(item.split(" ")[0] for item in lacking))
    return CrosswalkRow(asked.article, asked.asks, named_here, "absent" if lacking or not here else "present", note)


def _state(name: str, bases: Mapping[str, str], outcomes: Mapping[str, str]) -> str:
    if name.startswith("verdict:"):
        outcome = outcomes.get(name.removeprefix("verdict:"), "no such verdict")
        return "present" if outcome == "passed" else outcome.replace("_", " ")
    matching = [basis for key, basis in bases.items() if fnmatchcase(key, name)]
    if not matching:
        return "no such figure"
    return "present" if any(basis not in ("missing", "not applicable") for basis in matching) else matching[0]


def _safe_harbor(bases: Mapping[str, str], treatments: Mapping[str, str]) -> Iterator[CrosswalkRow]:
    """What is looked for and not kept is evidence; how much was found stands in the figures of section 4."""
    for identifier in IDENTIFIERS:
        asks = Words(f"remove {identifier.name.en}", f"去除{identifier.name.zh}")
        article = f"164.514(b)(2)(i)({identifier.letter})"
        treated = {t: treatments[t] for t in identifier.types if t in treatments}
        if not identifier.types:
            yield CrosswalkRow(article, asks, (), "not covered", identifier.note)
            continue
        kept = sorted(t for t in identifier.types if treated.get(t, "keep") == "keep")
        evidence = (
            "personal-data.treatment",
            *(f"personal-data.entities.{t}" for t in treated if f"personal-data.entities.{t}" in bases),
        )
        said = ", ".join(f"{t}: {how}" for t, how in treated.items())
        told = Words(f"{said}. {identifier.note.en}".strip(". ").strip(), f"{said}。{identifier.note.zh}".strip("。"))
        if kept:
            lack = ", ".join(kept)
            told = Words(f"{told.en}. Not treated: {lack}.", f"{told.zh}。未处理：{lack}。")
        yield CrosswalkRow(article, asks, evidence, "absent" if kept else "present", told)

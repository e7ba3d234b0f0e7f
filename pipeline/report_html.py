"""One report as one self-contained HTML page in one language.

Guarantee: no script, no outside resource (a content security policy forbids both), every text escaped; the page shows what
the JSON holds, nothing else, and names its digest: the verifier reads the figures back (`pipeline.report_claims`). The same
sheet serves screen, print and PDF.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from pipeline.report_claims import meta_of
from pipeline.report_page import BASES, Basis, Crosswalk, Figure, Plot, Report, RowStatus, Section, Table
from pipeline.report_style import STYLE
from pipeline.report_words import NOTHING, Language, Words, say
from privacy.canonical import Digest, digest_bytes
from privacy.verdict import Outcome

_MARKS = {"passed": "✓", "failed": "✗", "not_evaluated": "○"}
_TAGS = {"en": "en", "zh": "zh-Hans"}


def page(report: Report, language: Language) -> bytes:
    """UTF-8 bytes of the page."""
    return _Page(language).render(report).encode("utf-8")


def basis_words(basis: Basis) -> Words:
    return {
        "measured": say("measured"),
        "asserted by a person": say("asserted by a person"),
        "configured": say("configured"),
        "not applicable": say("not applicable"),
        "missing": say("missing"),
    }[basis]


def outcome_words(outcome: Outcome) -> Words:
    return {"passed": say("passed"), "failed": say("failed"), "not_evaluated": say("not evaluated")}[outcome]


def status_words(status: RowStatus) -> Words:
    return {
        "present": say("evidence is here"),
        "absent": say("evidence is absent"),
        "not covered": say("not covered by Privet"),
    }[status]


class _Page:
    def __init__(self, language: Language) -> None:
        self._language = language

    def _t(self, words: Words) -> str:
        return escape(words.of(self._language))

    def render(self, report: Report) -> str:
        title = self._t(report.title)
        contents = "".join(f'<li><a href="#{escape(s.key)}">{self._t(s.title)}</a></li>' for s in report.sections)
        more = f'<p class="more"><a href="#crosswalks">{self._t(_APPENDIX)}</a></p>' if report.crosswalks else ""
        parts = [
            "<!doctype html>\n",
            f'<html lang="{_TAGS[self._language]}"><head><meta charset="utf-8">',
            '<meta http-equiv="Content-Security-Policy" '
            "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">",
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            meta_of(digest_bytes(report.json_bytes())),
            f"<title>{title}</title><style>{STYLE}</style></head><body>",
            f'<header><p class="kicker">{self._t(say("Privet evidence report"))}</p><h1>{title}</h1>',
            f'<p class="muted">{self._t(say("Made {at}.", at=report.made_at))} {self._t(_NO_ASSESSMENT)}</p>',
            f'<div class="tiles">{"".join(self._tile(f) for f in report.headline)}</div></header>',
            f'<nav aria-label="{self._t(say("Contents"))}"><ol>{contents}</ol>{more}</nav><main>',
            *(self._section(number, s) for number, s in enumerate(report.sections, 1)),
            self._appendix(report.crosswalks),
            f"</main><footer>{self._legend()}</footer></body></html>\n",
        ]
        return "".join(parts)

    def _legend(self) -> str:
        meanings = {
            "measured": say("computed by a stage from its inputs"),
            "configured": say("a public constant of the policy or of the program"),
            "asserted by a person": say("somebody's word, not checked here"),
            "not applicable": say("there is nothing to measure here, for the reason given"),
            "missing": say("there should be something here and there is not, for the reason given"),
        }
        rows = "".join(f"<li>{self._badge(basis)} {self._t(meanings[basis])}</li>" for basis in BASES)
        sources = say("Sources are SHA-256 digests of the documents that the figures were read from.")
        return f"<p>{self._t(sources)}</p><ul>{rows}</ul>"

    def _tile(self, figure: Figure) -> str:
        return (
            f'<div class="tile"><span class="label">{self._t(figure.label)}</span>'
            f'<span class="value">{self._t(figure.value)}</span>{self._badge(figure.basis)}</div>'
        )

    def _section(self, number: int, section: Section) -> str:
        key = escape(section.key)
        parts = [f'<section id="{key}"><h2><span class="num">{number}</span>{self._t(section.title)}</h2>']
        parts += [f"<p>{self._t(paragraph)}</p>" for paragraph in section.text]
        parts += [self._table(t) for t in section.tables]
        if section.verdicts:
            parts.append(self._verdict_table(section))
        if section.plots:
            parts.append(f'<div class="plots">{"".join(self._drawing(p) for p in section.plots)}</div>')
        if section.figures:
            parts.append(self._figure_table(section.figures))
        parts += [f"<pre><code>{escape(command)}</code></pre>" for command in section.commands]
        return "".join(parts) + "</section>"

    def _appendix(self, crosswalks: Sequence[Crosswalk]) -> str:
        if not crosswalks:
            return ""
        intro = say(
            "What in this report is evidence for which requirement. Whether a requirement is met is for people to judge: "
            "this table judges nothing, and is no legal advice."
        )
        parts = [f'<section id="crosswalks"><h2>{self._t(_APPENDIX)}</h2><p>{self._t(intro)}</p>']
        for crosswalk in crosswalks:
            parts.append(f'<h3 id="crosswalk-{escape(crosswalk.name)}">{self._t(crosswalk.title)}</h3>')
            rows = "".join(
                f"<tr><th scope=row>{escape(r.article)}</th><td>{self._t(r.asks)}</td><td>{self._evidence(r.evidence)}</td>"
                f'<td><span class="status {r.status.split()[0]}">{self._t(status_words(r.status))}</span>'
                f"{self._note(r.note)}</td></tr>"
                for r in crosswalk.rows
            )
            head = (say("requirement"), say("what it asks, in short"), say("evidence in this report"), say("state"))
            parts.append(self._rows("crosswalk", head, rows))
        return "".join(parts) + "</section>"

    def _evidence(self, evidence: Sequence[str]) -> str:
        return ", ".join(f"<code>{escape(name)}</code>" for name in evidence) or '<span class="muted">–</span>'

    def _note(self, note: Words) -> str:
        return f"<br>{self._t(note)}" if note.en else ""

    def _rows(self, kind: str, head: Sequence[Words], rows: str) -> str:
        cells = "".join(f"<th>{self._t(word)}</th>" for word in head)
        return f'<div class="scroll"><table class="{kind}"><thead><tr>{cells}</tr></thead><tbody>{rows}</tbody></table></div>'

    def _table(self, table: Table) -> str:
        rows = "".join(
            "<tr>" + f"<th scope=row>{self._t(row[0])}</th>" + "".join(f"<td>{self._t(w)}</td>" for w in row[1:]) + "</tr>"
            for row in table.rows
        )
        return f"<h3>{self._t(table.title)}</h3>" + self._rows("plain", table.head, rows)

    def _verdict_table(self, section: Section) -> str:
        explained = section.explained or tuple(NOTHING for _ in section.verdicts)
        rows = "".join(
            f'<tr><td><code>{escape(v.check)}</code></td><td><span class="verdict {v.outcome}">{_MARKS[v.outcome]} '
            f"{self._t(outcome_words(v.outcome))}</span></td>"
            f"<td>{self._t(about)}</td><td>{escape(v.reason)}</td><td>{_source(v.evidence)}</td></tr>"
            for v, about in zip(section.verdicts, explained, strict=True)
        )
        head = (say("check"), say("verdict"), say("what it looks at"), say("what was seen (as recorded)"), say("source"))
        return self._rows("verdicts", head, rows)

    def _figure_table(self, figures: Sequence[Figure]) -> str:
        rows = "".join(
            f'<tr id="{escape(f.key)}" class="{f.basis.split()[0]}"><th scope=row>{self._t(f.label)}</th>'
            f"<td>{self._t(f.value)}</td><td>{self._badge(f.basis)}</td><td>{_source(f.source)}</td></tr>"
            for f in figures
        )
        return self._rows("figures", (say("figure"), say("value"), say("basis"), say("source")), rows)

    def _drawing(self, plot: Plot) -> str:
        svg = plot.draw(self._language).replace("<svg ", f'<svg role="img" aria-label="{self._t(plot.text)}" ', 1)
        return f"<figure>{svg}<figcaption>{self._t(plot.caption)}</figcaption></figure>"

    def _badge(self, basis: Basis) -> str:
        return f'<span class="badge {basis.split()[0]}">{self._t(basis_words(basis))}</span>'


def _source(digest: Digest | None) -> str:
    if digest is None:
        return '<span class="muted">–</span>'
    return f'<code title="{escape(digest)}">{escape(digest.removeprefix("sha256:")[:12])}</code>'


_APPENDIX = say("Appendix: crosswalks to laws and standards")
_NO_ASSESSMENT = say("Every figure names its source; nothing here is a legal assessment.")

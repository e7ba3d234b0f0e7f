"""Turns a report into one self-contained HTML page, and into JSON with the same fields.

Guarantee: no script, no outside resource (a content security policy forbids both), every text escaped; the page shows
exactly what the JSON holds. Pure: from a `Report` to bytes.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from privacy.canonical import Digest, Json, canonical_json
from privacy.verdict import Verdict

Basis = Literal["measured", "asserted by a person", "configured", "not applicable"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One value of the report: where it comes from, and the digest of the document it was read from."""

    label: str
    value: str
    basis: Basis
    source: Digest | None = None

    def to_json(self) -> dict[str, Json]:
        return {"label": self.label, "value": self.value, "basis": self.basis, "source": self.source}


@dataclass(frozen=True, slots=True)
class Plot:
    """An SVG drawing and the sentence that says what it shows, for those who can't see it."""

    caption: str
    svg: bytes


@dataclass(frozen=True, slots=True)
class Section:
    """A titled part: a plain paragraph or several, then figures, verdicts, commands and drawings as there are."""

    key: str
    title: str
    text: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    commands: tuple[str, ...] = ()
    plots: tuple[Plot, ...] = ()

    def to_json(self) -> dict[str, Json]:
        return {
            "key": self.key,
            "title": self.title,
            "text": list(self.text),
            "figures": [f.to_json() for f in self.figures],
            "verdicts": [v.to_json() for v in self.verdicts],
            "commands": list(self.commands),
            "plots": [p.caption for p in self.plots],
        }


@dataclass(frozen=True, slots=True)
class Report:
    """The whole report. `claim` is the privacy claim in the form that the verifier compares; None: there is none."""

    title: str
    made_at: str
    claim: dict[str, Json] | None
    headline: tuple[Figure, ...]
    sections: tuple[Section, ...]

    def json_bytes(self) -> bytes:
        return canonical_json(
            {
                "report": 1,
                "title": self.title,
                "made_at": self.made_at,
                "claim": self.claim,
                "headline": [f.to_json() for f in self.headline],
                "sections": [s.to_json() for s in self.sections],
            }
        )

    def html_bytes(self) -> bytes:
        contents = "".join(f'<li><a href="#{escape(s.key)}">{escape(s.title)}</a></li>' for s in self.sections)
        parts = [
            "<!doctype html>\n",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta http-equiv="Content-Security-Policy" '
            "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">",
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(self.title)}</title><style>{_STYLE}</style></head><body>",
            f'<header><p class="kicker">Privet evidence report</p><h1>{escape(self.title)}</h1>',
            f'<p class="muted">Made {escape(self.made_at)}. '
            "Every figure names its source; nothing here is a legal assessment.</p>",
            f'<div class="tiles">{"".join(_tile(f) for f in self.headline)}</div></header>',
            f'<nav aria-label="Contents"><ol>{contents}</ol></nav><main>',
            *(_section(number, s) for number, s in enumerate(self.sections, 1)),
            "</main><footer>Sources are SHA-256 digests of the documents that the figures were read from. "
            "measured: computed by a stage from its inputs · configured: a public constant of the policy · "
            "asserted by a person: somebody's word, not checked here.</footer></body></html>\n",
        ]
        return "".join(parts).encode("utf-8")


def _tile(figure: Figure) -> str:
    return (
        f'<div class="tile"><span class="label">{escape(figure.label)}</span>'
        f'<span class="value">{escape(figure.value)}</span>{_badge(figure.basis)}</div>'
    )


def _section(number: int, section: Section) -> str:
    parts = [f'<section id="{escape(section.key)}"><h2><span class="num">{number}</span>{escape(section.title)}</h2>']
    parts += [f"<p>{escape(paragraph)}</p>" for paragraph in section.text]
    if section.verdicts:
        parts.append(_verdict_table(section.verdicts))
    if section.plots:
        parts.append(f'<div class="plots">{"".join(_drawing(p) for p in section.plots)}</div>')
    if section.figures:
        parts.append(_figure_table(section.figures))
    parts += [f"<pre><code>{escape(command)}</code></pre>" for command in section.commands]
    return "".join(parts) + "</section>"


def _verdict_table(verdicts: Sequence[Verdict]) -> str:
    rows = "".join(
        f'<tr><td>{escape(v.check)}</td><td><span class="verdict {v.outcome}">{_MARKS[v.outcome]} '
        f"{escape(v.outcome.replace('_', ' '))}</span></td><td>{escape(v.reason)}</td><td>{_source(v.evidence)}</td></tr>"
        for v in verdicts
    )
    return (
        '<div class="scroll"><table class="verdicts">'
        "<thead><tr><th>check</th><th>verdict</th><th>what was seen</th><th>source</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _figure_table(figures: Sequence[Figure]) -> str:
    rows = "".join(
        f"<tr><th scope=row>{escape(f.label)}</th><td>{escape(f.value)}</td><td>{_badge(f.basis)}</td>"
        f"<td>{_source(f.source)}</td></tr>"
        for f in figures
    )
    return (
        '<div class="scroll"><table class="figures"><thead><tr><th>figure</th><th>value</th><th>basis</th><th>source</th></tr>'
        f"</thead><tbody>{rows}</tbody></table></div>"
    )


def _drawing(plot: Plot) -> str:
    data = base64.b64encode(plot.svg).decode()
    return (
        f'<figure><img alt="{escape(plot.caption)}" src="data:image/svg+xml;base64,{data}">'
        f"<figcaption>{escape(plot.caption)}</figcaption></figure>"
    )


def _badge(basis: Basis) -> str:
    return f'<span class="badge {basis.split()[0]}">{escape(basis)}</span>'


def _source(digest: Digest | None) -> str:
    if digest is None:
        return '<span class="muted">–</span>'
    return f'<code title="{escape(digest)}">{escape(digest.removeprefix("sha256:")[:12])}</code>'


_MARKS = {"passed": "✓", "failed": "✗", "not_evaluated": "○"}
_STYLE = """
:root{--ink:#1b2430;--muted:#5c6773;--line:#e1e5ea;--paper:#fff;--tint:#f5f7f9;--green:#1d6b46;--green-bg:#e5f3ec;
--red:#9c2525;--red-bg:#fbe9e9;--amber:#7a5200;--amber-bg:#fdf3dc;--blue:#22527b;--blue-bg:#e7f0f8}
*{box-sizing:border-box}
body{margin:0;color:var(--ink);background:var(--tint);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
header,nav,main,footer{max-width:1040px;margin:0 auto;padding:0 28px}
header{padding-top:44px}
.kicker{color:var(--green);font-weight:600;letter-spacing:.06em;text-transform:uppercase;font-size:13px;margin:0}
h1{font-size:32px;line-height:1.2;margin:6px 0 4px;overflow-wrap:anywhere}
h2{font-size:21px;margin:0 0 12px;display:flex;align-items:center;gap:12px}
.num{flex:none;width:30px;height:30px;border-radius:50%;background:var(--green-bg);color:var(--green);
display:inline-flex;align-items:center;justify-content:center;font-size:15px}
.muted{color:var(--muted)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:14px;margin:24px 0}
.tile{background:var(--paper);border:1px solid var(--line);border-radius:12px;padding:16px;
display:flex;flex-direction:column;gap:6px;align-items:flex-start}
.tile .label{color:var(--muted);font-size:13px}
.tile .value{font-size:23px;font-weight:650;line-height:1.2;overflow-wrap:anywhere}
nav ol{columns:3;column-gap:28px;background:var(--paper);border:1px solid var(--line);border-radius:12px;
padding:16px 16px 16px 40px;margin:0 0 20px;font-size:15px}
a{color:var(--blue)}
section{background:var(--paper);border:1px solid var(--line);border-radius:12px;padding:24px 26px;margin:0 0 20px}
section p{max-width:76ch}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:14px;line-height:1.4;margin:10px 0}
th,td{text-align:left;vertical-align:top;padding:5px 10px;border-bottom:1px solid var(--line)}
thead th{color:var(--muted);font-weight:600;font-size:13px}
tbody th{font-weight:500;width:30%}
tbody tr:last-child>*{border-bottom:0}
td{overflow-wrap:anywhere}
td:last-child,.verdicts td:first-child{white-space:nowrap}
code{font-family:ui-monospace,"SF Mono",Menlo,Consolas,monospace;font-size:13px}
pre{background:var(--tint);border:1px solid var(--line);border-radius:8px;padding:12px 14px;overflow-x:auto;margin:10px 0}
.badge,.verdict{display:inline-block;border-radius:999px;padding:1px 10px;font-size:12.5px;white-space:nowrap}
.badge{color:var(--muted);background:var(--tint);border:1px solid var(--line)}
.badge.measured{color:var(--blue);background:var(--blue-bg);border-color:transparent}
.badge.asserted{color:var(--amber);background:var(--amber-bg);border-color:transparent}
.verdict{font-weight:600}.verdict.passed{color:var(--green);background:var(--green-bg)}
.verdict.failed{color:var(--red);background:var(--red-bg)}.verdict.not_evaluated{color:var(--amber);background:var(--amber-bg)}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(340px,1fr));gap:18px;margin:12px 0}
figure{margin:0;max-width:620px}figure img{width:100%;height:auto;display:block}
figcaption{color:var(--muted);font-size:13.5px;margin-top:4px}
footer{color:var(--muted);font-size:13px;padding-top:6px;padding-bottom:44px}
@media(max-width:720px){nav ol{columns:1}header,nav,main,footer{padding-left:14px;padding-right:14px}section{padding:18px 14px}}
@media print{body{background:#fff}section,.tile{break-inside:avoid}nav{display:none}}
"""

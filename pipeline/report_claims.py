"""What the report of a bundle shows, and that it is what the evidence says: its figures in JSON, and its two pages.

The pages are what people read, and no tool recomputes a page; so each carries the digest of report.json, and its figures are
read back and compared with it.
Guarantee: the figures at the head of report.json, those of the privacy claim and the outcomes of the verdicts are those of the
mechanism trace, the policy and the recorded verdicts; both pages name this report.json and show exactly its figures and
outcomes.
Not covered: sentences, drawings and crosswalks; the root covers them and nobody recomputes them. So a page that was written by
whoever holds the pipeline's key may say something beside its figures: `privet verify` is what counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Final

from pipeline.paper_claims import spellings, statements
from privacy.accounting import MechanismTrace
from privacy.canonical import Digest, Json
from privacy.errors import IntegrityError, PrivetError
from privacy.rounding import shown_scalar, shown_up
from privacy.verdict import Verdict

if TYPE_CHECKING:
    from pipeline.claims import Evidence

REPORT: Final = "report.json"
PAGES: Final[Mapping[str, str]] = {"report.html": "", "report.zh.html": "_zh"}  # and how the JSON marks its language
_META: Final = re.compile(r'<meta name="privet-report" content="([^"]*)">')
_TILE: Final = re.compile(r'<div class="tile"><span class="label">([^<]*)</span><span class="value">([^<]*)</span>')
_ROW: Final = re.compile(r'<tr id="([^"]*)" class="[^"]*"><th scope=row>([^<]*)</th><td>([^<]*)</td>')
_VERDICT: Final = re.compile(r'<tr><td><code>([^<]*)</code></td><td><span class="verdict ([a-z_]*)">')


def meta_of(report: Digest) -> str:
    """The line of a page that names its report.json; in HTML, before any text of ours."""
    return f'<meta name="privet-report" content="{report}">'


def check_report(evidence: Evidence) -> str:
    """Raises IntegrityError E-CLAIM-037."""
    view = evidence.view
    value = view.json(REPORT)
    if not isinstance(value, Mapping):
        raise _broken(f"{REPORT} is no report")
    sections = [s for s in _list(value, "sections") if isinstance(s, Mapping)]
    verdicts = _recorded(evidence)
    _check_head(evidence, _figures(value, "headline"), verdicts)
    claim = next((s for s in sections if s.get("key") == "claim"), None)
    if claim is None:
        raise _broken(f"{REPORT} has no section on the privacy claim")
    _check_claim(evidence.trace(), claim)
    recorded = None if verdicts is None else [(v.check, v.outcome) for v in verdicts]
    if (
        recorded is not None
        and [(v.get("check"), v.get("outcome")) for s in sections for v in _figures(s, "verdicts")] != recorded
    ):
        raise _broken(f"{REPORT} shows other verdicts than were recorded")
    for path, language in PAGES.items():
        _check_page(path, view.texts[path].decode(), view.files[REPORT].sha256, value, sections, language)
    return f"{REPORT} repeats the trace, the policy and {len(recorded or ())} verdicts; both pages show its figures"


def _recorded(evidence: Evidence) -> tuple[Verdict, ...] | None:
    """None where they can't be read: the row of the verdicts says so, and blocks."""
    try:
        return evidence.verdicts()
    except PrivetError:
        return None


def _check_head(evidence: Evidence, head: list[Mapping[str, Json]], verdicts: tuple[Verdict, ...] | None) -> None:
    passed, every = sum(v.outcome == "passed" for v in verdicts or ()), len(verdicts or ())
    wanted = {"epsilon": shown_up(evidence.trace().epsilon), "allowed": shown_up(evidence.terms.epsilon)}
    told = {str(figure.get("key")): _values(figure) for figure in head}
    counted = [sorted(map(int, re.findall(r"[0-9]+", text))) for text in told.get("verdicts", ("", ""))]
    if len(told) != len(head) or any(told.get(key) != (text, text) for key, text in wanted.items()):
        raise _broken(f"the head of {REPORT} shows another epsilon than the trace and the policy")
    if verdicts is None:
        return
    if told["verdicts"][0] != f"{passed} of {every}" or counted[1] != sorted((passed, every)):
        raise _broken(f"the head of {REPORT} counts other verdicts than were recorded")


def _check_claim(trace: MechanismTrace, claim: Mapping[str, Json]) -> None:
    told: dict[str, list[tuple[str, str]]] = {}
    for figure in _figures(claim, "figures"):
        told.setdefault(str(figure.get("key")), []).append(_values(figure))
    for name, value in trace.to_json().items():
        if isinstance(value, str | int | float):
            text = shown_scalar(name, value)
            if told.get(name) != [(text, text)]:
                raise _broken(f"{REPORT} shows another {name.replace('_', ' ')} than the mechanism trace")
    said, chinese = _list(claim, "text"), _list(claim, "text_zh")
    begin = tuple(f"差分隐私：epsilon {epsilon}，delta {trace.delta}，" for epsilon in spellings(trace))
    if len(said) != 1 or len(chinese) != 1 or said[0] not in statements(trace) or not str(chinese[0]).startswith(begin):
        raise _broken(f"{REPORT} states another privacy loss than the mechanism trace")


def _check_page(
    path: str, page: str, report: Digest, value: Mapping[str, Json], sections: list[Mapping[str, Json]], language: str
) -> None:
    if _META.findall(page) != [report]:
        raise _broken(f"{path} was made from another {REPORT}")
    tiles = [_cells(figure, language) for figure in _figures(value, "headline")]
    rows = [(_shown(f.get("key")), *_cells(f, language)) for s in sections for f in _figures(s, "figures")]
    verdicts = [(_shown(v.get("check")), _shown(v.get("outcome"))) for s in sections for v in _figures(s, "verdicts")]
    if (_TILE.findall(page), _ROW.findall(page), _VERDICT.findall(page)) != (tiles, rows, verdicts):
        raise _broken(f"{path} shows other figures or outcomes than {REPORT}")
    for section in sections:
        if section.get("key") == "claim" and any(f"<p>{_shown(t)}</p>" not in page for t in _list(section, f"text{language}")):
            raise _broken(f"{path} states another privacy loss than {REPORT}")


def _cells(figure: Mapping[str, Json], language: str) -> tuple[str, str]:
    return _shown(figure.get(f"label{language}")), _shown(figure.get(f"value{language}"))


def _shown(value: Json) -> str:
    return escape(str(value))


def _values(figure: Mapping[str, Json]) -> tuple[str, str]:
    return str(figure.get("value")), str(figure.get("value_zh"))


def _figures(value: Mapping[str, Json], name: str) -> list[Mapping[str, Json]]:
    return [found for found in _list(value, name) if isinstance(found, Mapping)]


def _list(value: Mapping[str, Json], name: str) -> list[Json]:
    found = value.get(name)
    return found if isinstance(found, list) else []


def _broken(cause: str) -> IntegrityError:
    return IntegrityError("E-CLAIM-037", cause, "Get the bundle again from its source; if it stays so, it was altered")

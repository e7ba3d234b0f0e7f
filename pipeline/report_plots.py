"""The drawings of the report: bars, steps over time, a curve, as SVG written by hand.

Guarantee: the same numbers give the same bytes; every label is escaped; text stays text, in fonts that hold Latin and Chinese
letters where the reader's machine has them. No library draws, so both languages cost milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial

from pipeline.report_page import Plot
from pipeline.report_svg import BLUE, GREEN, Bar, bars_svg, roc_svg, steps_svg
from pipeline.report_words import Language, Words, datum, joined, say
from privacy.rounding import shown_down, shown_up

MOST_BARS = 16
Moment = tuple[datetime, float, float]  # from then on: epsilon spent, and the cap
Named = tuple[Words, float]
Curve = tuple[Words, Sequence[tuple[float, float]]]


def budget_plot(points: Sequence[Moment], now: datetime, unit: str) -> Plot:
    """Epsilon spent on the dataset over time, in steps, under its cap. points: oldest first, at least one."""
    _, spent, cap = points[-1]
    caption = say(
        "Privacy budget per {unit} over time: epsilon {spent} of the cap {cap} is spent.",
        unit=unit,
        spent=shown_up(spent),
        cap=shown_up(cap),
    )
    told = joined((datum(f"{_day(at)}: {shown_up(e)} / {shown_up(c)}") for at, e, c in points[-60:]), "; ", "；")
    text = say("Time: epsilon spent / cap. {points}", points=told)

    def draw(language: Language) -> str:
        cap_label = say("cap {cap}", cap=shown_up(cap)).of(language)
        return steps_svg(points, now, say("epsilon spent").of(language), cap_label)

    return Plot("budget", caption, text, draw)


def bounds_plot(bounds: Sequence[Named], claim: float) -> Plot:
    """Epsilon lower bounds of the audit against the claim; a bar past the line would refute the claim."""
    highest = max((value for _, value in bounds), default=0.0)
    caption = say(
        "Epsilon lower bounds of the audit against the claim: highest {highest}, claim {claim}. A bound is not a proof.",
        highest=shown_down(highest),
        claim=shown_up(claim),
    )
    bars = [(name, float(shown_down(value))) for name, value in bounds]
    return _bars("bounds", caption, bars, say("epsilon"), (claim, say("claim {claim}", claim=shown_up(claim))))


def slip_plot(bounds: Sequence[Named]) -> Plot:
    """Upper bound on the share of planted values that detection misses, by type."""
    caption = say("What detection may miss: upper bound on the missed share of planted values, by type of personal data.")
    shown = sorted(bounds, key=lambda bar: (-bar[1], bar[0].en))[: MOST_BARS * 2]
    return _bars("slip-through", caption, [(n, float(shown_up(v))) for n, v in shown], say("share"), limit=1.0)


def counts_plot(counts: Sequence[Named]) -> Plot:
    """Personal data found before training, by type."""
    ordered = sorted(counts, key=lambda bar: (-bar[1], bar[0].en))
    rest = sum(value for _, value in ordered[MOST_BARS:])
    shown = [*ordered[:MOST_BARS], *([(say("other types"), rest)] if rest else [])]
    total = f"{sum(value for _, value in counts):,.0f}"
    caption = say("Personal data found by type: {total} findings in {types} types.", total=total, types=len(counts))
    return _bars("found", caption, shown, say("findings"))


def utility_plot(bars: Sequence[Named], without: bool) -> Plot:
    """Accuracy on held-out units. without: whether one of the bars is of a model without differential privacy."""
    missing = say("No model without differential privacy was measured in this run: it would learn from the data unprotected.")
    first = say("Utility on held-out units.")
    caption = first if without else joined((first, missing), " ", "")
    return _bars("utility", caption, [(n, round(v, 3)) for n, v in bars], say("accuracy"), limit=1.0, colour=GREEN)


def groups_plot(field: str, bars: Sequence[Named], overall: float | None) -> Plot:
    """Accuracy by group of one field, with the accuracy over all groups as a line."""
    caption = say("Accuracy by group of {field}; groups with too few units are withheld.", field=field)
    line = None if overall is None else (overall, say("all groups {value}", value=f"{overall:.3f}"))
    drawn = [(n, round(v, 3)) for n, v in bars][: MOST_BARS * 2]
    return _bars(f"groups-{field}", caption, drawn, say("accuracy"), line, limit=1.0, colour=GREEN, warn=False)


def roc_plot(curves: Sequence[Curve]) -> Plot:
    """Share of members found against the share of false alarms, both logarithmic: low false alarms are what matters."""
    caption = say(
        "Membership inference: share of members found against false alarms, both on a logarithmic scale. "
        "On the diagonal the attack knows nothing."
    )
    told = [joined((datum(f"{x:.3g}: {y:.3g}") for x, y in _thinned(points)), "; ", "；") for _, points in curves]
    text = joined((Words(f"{n.en}: {t.en}", f"{n.zh}：{t.zh}") for (n, _), t in zip(curves, told, strict=True)), " | ", " | ")

    def draw(language: Language) -> str:
        named = [(name.of(language), points) for name, points in curves]
        return roc_svg(named, say("false alarms (share of others)").of(language), say("members found (share)").of(language))

    return Plot("roc", caption, text, draw)


def _thinned(points: Sequence[tuple[float, float]], most: int = 12) -> Sequence[tuple[float, float]]:
    step = max(1, len(points) // most)
    return points[::step]


def _bars(
    key: str,
    caption: Words,
    bars: Sequence[Named],
    axis: Words,
    line: tuple[float, Words] | None = None,
    limit: float | None = None,
    colour: str = BLUE,
    warn: bool = True,
) -> Plot:
    def shown(bar: Named) -> Words:
        return Words(f"{bar[0].en}: {number(bar[1])}", f"{bar[0].zh}：{number(bar[1])}")

    draw: Callable[[Language], str] = partial(_drawn, bars, axis, line, limit, colour, warn)
    return Plot(key, caption, joined((shown(bar) for bar in bars), "; ", "；"), draw)


def _drawn(
    bars: Sequence[Named],
    axis: Words,
    line: tuple[float, Words] | None,
    limit: float | None,
    colour: str,
    warn: bool,
    language: Language,
) -> str:
    named = [Bar(name.of(language), value, number(value)) for name, value in bars]
    marked = None if line is None else (line[0], line[1].of(language))
    return bars_svg(named, axis.of(language), marked, limit, colour, warn)


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 or float(value).is_integer() else f"{value:.10g}"


def _day(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M")

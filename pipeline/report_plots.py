"""The drawings of the report, as SVG bytes. matplotlib is loaded on the first call only, without any display.

Guarantee: the same numbers give the same bytes (no date, a fixed salt); labels are never read as markup.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.report_page import Plot
from privacy.rounding import shown_down, shown_up

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _MUTED, _GREEN, _RED, _BLUE, _PALE = "#1b2430", "#5c6773", "#2f8f63", "#b23b3b", "#3b78ad", "#dfe5ea"
_MOST_BARS = 16
STYLE = {
    "svg.hashsalt": "privet",
    "svg.fonttype": "none",  # text stays text: sharp at every size, and found by a search
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _MUTED,
    "text.color": _INK,
    "xtick.color": _MUTED,
    "ytick.color": _INK,
    "text.parse_math": False,
}
Bar = tuple[str, float]


def budget_plot(spent: float, this_model: float, cap: float, unit: str) -> Plot:
    """Budget spent on the dataset against its cap; epsilon, per privacy unit."""
    bars = [("this model", float(shown_up(this_model))), ("all runs on the dataset", float(shown_up(spent)))]
    caption = f"Privacy budget per {unit}: epsilon {shown_up(spent)} of the cap {shown_up(cap)} is spent."
    return _horizontal(caption, bars, "epsilon", line=(cap, f"cap {shown_up(cap)}"), colour=_GREEN)


def bounds_plot(bounds: Sequence[Bar], claim: float) -> Plot:
    """Epsilon lower bounds of the audit against the claim; a bar past the line would refute the claim."""
    bounds = [(name, float(shown_down(value))) for name, value in bounds]
    highest = max((value for _, value in bounds), default=0.0)
    said = f"highest {shown_down(highest)}, claim {shown_up(claim)}"
    caption = f"Epsilon lower bounds of the audit against the claim ({said}); a bound is not a proof."
    return _horizontal(caption, bounds, "epsilon", line=(claim, f"claim {shown_up(claim)}"), colour=_BLUE)


def counts_plot(counts: Sequence[Bar]) -> Plot:
    """Personal data found before training, by type."""
    ordered = sorted(counts, key=lambda bar: (-bar[1], bar[0]))
    rest = sum(value for _, value in ordered[_MOST_BARS:])
    shown = [*ordered[:_MOST_BARS], *([("other types", rest)] if rest else [])]
    total = sum(value for _, value in counts)
    return _horizontal(f"Personal data found by type: {total:,.0f} findings in {len(counts)} types.", shown, "findings")


def utility_plot(bars: Sequence[Bar]) -> Plot:
    """Accuracy on held-out units against always answering the most frequent label."""
    said = ", ".join(f"{name} {value:.3f}" for name, value in bars)
    drawn = [(name, round(value, 3)) for name, value in bars]
    return _horizontal(f"Utility on held-out units: {said}.", drawn, "accuracy", limit=1.0, colour=_GREEN)


def _horizontal(
    caption: str,
    bars: Sequence[Bar],
    axis: str,
    line: tuple[float, str] | None = None,
    limit: float | None = None,
    colour: str = _BLUE,
) -> Plot:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]  # the stubs want literal keys
        figure = Figure(figsize=(5.6, 0.95 + 0.36 * max(1, len(bars) + (line is not None))), layout="constrained")
        axes = figure.add_subplot()
        _draw(axes, bars, line, limit, colour)
        axes.set_xlabel(axis)
        return Plot(caption, svg_bytes(figure))


def _draw(axes: Axes, bars: Sequence[Bar], line: tuple[float, str] | None, limit: float | None, colour: str) -> None:
    names = [name for name, _ in bars]
    values = [value for _, value in bars]
    far = limit or max([*values, line[0] if line else 0.0, 1e-9]) * 1.18
    axes.set_xlim(0, far)
    over = [colour if line is None or value <= line[0] else _RED for value in values]
    axes.barh(range(len(bars)), values, color=over, height=0.62, zorder=2)
    axes.set_yticks(range(len(bars)), names)
    axes.set_ylim(len(bars) - 0.5, -0.5 if line is None else -1.05)  # first bar on top, room for the line's label
    for row, value in enumerate(values):
        text = f"{value:,.0f}" if value >= 1000 or float(value).is_integer() else f"{value:.10g}"
        axes.annotate(text, (value, row), xytext=(4, 0), textcoords="offset points", va="center", fontsize=9, zorder=3)
    if line is not None:
        axes.axvline(line[0], color=_RED, linestyle="--", linewidth=1.2, zorder=1)
        axes.annotate(
            line[1],
            (line[0], -0.62),
            xytext=(-4, 0),
            textcoords="offset points",
            ha="right",
            va="bottom",
            color=_RED,
            fontsize=9,
        )
    axes.grid(axis="x", color=_PALE, zorder=0)
    axes.tick_params(length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def svg_bytes(figure: Figure) -> bytes:
    """The same figure gives the same bytes; call it within `rc_context(STYLE)`."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()

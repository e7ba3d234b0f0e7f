"""Spend over time, drawn twice: in characters for a terminal, and as SVG. Both are steps: a budget is spent in jumps.

Guarantee: heights are rounded up, so no drawing shows less than was spent; the same points give the same bytes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipeline.budget import SpendPoint
from privacy.rounding import shown_up

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_CAP = "─"
_STYLE = {
    "svg.hashsalt": "privet",
    "svg.fonttype": "none",  # text stays text: sharp at every size, and found by a search
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.edgecolor": "#5c6773",
    "axes.labelcolor": "#5c6773",
    "text.color": "#1b2430",
    "xtick.color": "#5c6773",
    "ytick.color": "#1b2430",
    "text.parse_math": False,
}


def terminal_plot(points: Sequence[SpendPoint], now: datetime, width: int = 64, height: int = 8) -> list[str]:
    """Lines of text: columns are time from the first event to `now`, bars the spend, a line the cap. Empty without points."""
    if not points:
        return []
    top = max(max(point.cap, point.epsilon) for point in points)
    columns = _columns(points, now, width)
    lines = []
    for row in range(height, 0, -1):
        floor = (row - 1) / height
        cells = "".join(_cell(point, floor, top, height) for point in columns)
        label = shown_up(top) if row == height else "0" if row == 1 else ""
        lines.append(f"{label:>8} │{cells}")
    start, end = _day(points[0].at), _day(now)
    lines.append(f"{'':>8} └{'─' * width}")
    lines.append(f"{'':>10}{start} {end.rjust(width - len(start) - 1)}")
    return lines


def _columns(points: Sequence[SpendPoint], now: datetime, width: int) -> list[SpendPoint]:
    """The state at the right edge of each column, so that the newest event is always to be seen."""
    first = points[0].at
    span = max((now - first).total_seconds(), 1e-6)
    columns = []
    for column in range(width):
        edge = span * (column + 1) / width
        reached = [p for p in points if (p.at - first).total_seconds() <= edge or column == width - 1]
        columns.append(reached[-1])
    return columns


def _cell(point: SpendPoint, floor: float, top: float, height: int) -> str:
    filled = math.ceil((point.epsilon / top - floor) * height * 8 - 1e-9)
    bar = _EIGHTHS[min(max(filled, 0), 8)]
    at_cap = floor < point.cap / top <= floor + 1 / height + 1e-12
    return _CAP if bar == " " and at_cap else bar


def _day(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def spend_svg(spends: Mapping[str, Sequence[SpendPoint]], now: datetime) -> bytes:
    """One panel for each scope: the spend as steps under its cap. Raises nothing for no scopes: an empty figure."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]  # the stubs want literal keys
        figure = Figure(figsize=(7.2, 0.4 + 2.2 * max(1, len(spends))), layout="constrained")
        for number, (scope, points) in enumerate(sorted(spends.items()), start=1):
            axes = figure.add_subplot(len(spends), 1, number)
            _panel(axes, scope, points, now)
        return _svg_bytes(figure)


def _panel(axes: Axes, scope: str, points: Sequence[SpendPoint], now: datetime) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num

    last = points[-1]
    times = date2num([*(point.at for point in points), max(now, last.at)])  # type: ignore[no-untyped-call]
    spent = [*(point.epsilon for point in points), last.epsilon]
    caps = [*(point.cap for point in points), last.cap]
    axes.step(times, spent, where="post", color="#3b78ad", linewidth=1.6)
    axes.fill_between(times, spent, step="post", color="#3b78ad", alpha=0.15, linewidth=0)
    axes.step(times, caps, where="post", color="#b23b3b", linestyle="--", linewidth=1.2)
    locator = AutoDateLocator(maxticks=7)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.set_xlim(times[0], max(times[-1], times[0] + 1 / 24))  # days: an hour at least
    axes.set_ylim(0, 1.12 * max(*caps, *spent))
    axes.set_title(f"{scope}: epsilon {shown_up(last.epsilon)} of the cap {shown_up(last.cap)}", fontsize=10, loc="left")
    axes.set_ylabel("epsilon")
    axes.grid(axis="y", color="#dfe5ea", zorder=0)
    axes.tick_params(length=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _svg_bytes(figure: Figure) -> bytes:
    """The same figure gives the same bytes; call it within `rc_context(_STYLE)`."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()

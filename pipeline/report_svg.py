"""SVG by hand: horizontal bars, steps over time, a curve on logarithmic axes. Text stays text; every label is escaped.

Assumption: small Latin letters are at most about 0.62 of the font size wide, capitals 0.74, Chinese ones as wide as high.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

INK, MUTED, GREEN, RED, BLUE, PALE = "#1b2430", "#5c6773", "#2f8f63", "#b23b3b", "#3b78ad", "#dfe5ea"
FONTS = (
    "system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans','Noto Sans CJK SC','Noto Sans SC','PingFang SC',"
    "'Hiragino Sans GB','Microsoft YaHei','WenQuanYi Micro Hei','DejaVu Sans',sans-serif"
)
_WIDTH, _ROW, _SIZE = 560.0, 24.0, 12.0
_COLOURS = (BLUE, GREEN, "#8a5fb0", "#b2742b", RED)


@dataclass(frozen=True, slots=True)
class Bar:
    """said: the value as it stands beside the bar."""

    name: str
    value: float
    said: str


def bars_svg(
    bars: Sequence[Bar],
    axis: str,
    line: tuple[float, str] | None = None,
    limit: float | None = None,
    colour: str = BLUE,
    warn: bool = True,
) -> str:
    """line: a value to compare with, and its label; with `warn`, a bar past it is red."""
    left = min(max((_wide(b.name) for b in bars), default=0.0) + 12, _WIDTH * 0.55)
    top = 22.0 if line else 6.0
    bottom = top + _ROW * max(1, len(bars))
    room = _WIDTH - left - max((_wide(b.said) for b in bars), default=0.0) - 16
    far = limit or max([*(b.value for b in bars), line[0] if line else 0.0, 1e-9])
    parts = []
    for tick in _ticks(far):
        x = left + room * tick / far
        parts.append(_line(x, top, x, bottom, PALE))
        parts.append(_text(x, bottom + 15, f"{tick:,.10g}", "middle", MUTED, 11))
    for row, bar in enumerate(bars):
        y = top + row * _ROW
        over = warn and line is not None and bar.value > line[0]
        width = max(0.0, room * min(bar.value, far) / far)
        parts.append(_text(left - 8, y + 16, _cut(bar.name, left - 10), "end"))
        parts.append(f'<rect x="{left:.1f}" y="{y + 4:.1f}" width="{width:.1f}" height="16" fill="{RED if over else colour}"/>')
        parts.append(_text(left + width + 5, y + 16, bar.said))
    if line is not None:
        parts += _marker(left + room * min(line[0], far) / far, top, bottom, line[1])
    parts.append(_text(left + room / 2, bottom + 31, axis, "middle", MUTED))
    return _svg(_WIDTH, bottom + 38, parts)


def steps_svg(points: Sequence[tuple[datetime, float, float]], now: datetime, axis: str, cap: str) -> str:
    """points: from then on, the value and its cap; oldest first, at least one."""
    first, last = points[0][0], max(now, points[-1][0])
    span = max((last - first).total_seconds(), 3600.0)
    most = max(max(value, cap_value) for _, value, cap_value in points) * 1.12 or 1.0
    left, top, right, bottom = 52.0, 14.0, _WIDTH - 14, 200.0

    def x(at: datetime) -> float:
        return left + (right - left) * (at - first).total_seconds() / span

    def y(value: float) -> float:
        return bottom - (bottom - top) * value / most

    parts = []
    for tick in _ticks(most):
        parts += [_line(left, y(tick), right, y(tick), PALE), _text(left - 6, y(tick) + 4, f"{tick:,.10g}", "end", MUTED, 11)]
    # a step goes up and then along, up to the right edge
    values, caps = [f"M{left:.1f},{bottom:.1f}"], [f"M{x(first):.1f},{y(points[0][2]):.1f}"]
    for at, value, cap_value in points:
        values += [f"H{x(at):.1f}", f"V{y(value):.1f}"]
        caps += [f"H{x(at):.1f}", f"V{y(cap_value):.1f}"]
    spent = "".join([*values, f"H{right:.1f}"])
    parts.append(f'<path d="{spent}V{bottom:.1f}Z" fill="{BLUE}" fill-opacity="0.15"/>')
    parts.append(f'<path d="{spent}" fill="none" stroke="{BLUE}" stroke-width="1.8"/>')
    roof = "".join([*caps, f"H{right:.1f}"])
    parts.append(f'<path d="{roof}" fill="none" stroke="{RED}" stroke-width="1.2" stroke-dasharray="5 4"/>')
    parts.append(_text(right, y(points[-1][2]) - 5, cap, "end", RED, 11))
    parts.append(_line(left, bottom, right, bottom, MUTED))
    parts.append(_text(left, bottom + 16, _when(first), "start", MUTED, 11))
    parts.append(_text(right, bottom + 16, _when(last), "end", MUTED, 11))
    parts.append(_text((left + right) / 2, bottom + 34, axis, "middle", MUTED))
    return _svg(_WIDTH, bottom + 42, parts)


def roc_svg(curves: Sequence[tuple[str, Sequence[tuple[float, float]]]], across: str, up: str) -> str:
    """curves: name and points (false positives, true positives), each in [0, 1]; what lies below 0.1 % is drawn at 0.1 %."""
    left, top, right, bottom, least = 56.0, 12.0, 420.0, 300.0, 1e-3

    def scaled(value: float) -> float:
        return 1 - math.log10(max(min(value, 1.0), least)) / math.log10(least)

    def place(point: tuple[float, float]) -> str:
        return f"{left + (right - left) * scaled(point[0]):.1f},{bottom - (bottom - top) * scaled(point[1]):.1f}"

    parts = []
    for tick, name in ((1e-3, "0.1 %"), (1e-2, "1 %"), (1e-1, "10 %"), (1.0, "100 %")):
        x, y = left + (right - left) * scaled(tick), bottom - (bottom - top) * scaled(tick)
        parts += [_line(x, top, x, bottom, PALE), _line(left, y, right, y, PALE)]
        parts += [_text(x, bottom + 15, name, "middle", MUTED, 11), _text(left - 6, y + 4, name, "end", MUTED, 11)]
    ends = f'<line x1="{left}" y1="{bottom}" x2="{right}" y2="{top}" stroke="{MUTED}" stroke-dasharray="4 4"/>'
    parts.append(ends)
    for index, (name, points) in enumerate(curves):
        colour = _COLOURS[index % len(_COLOURS)]
        path = " ".join(place(p) for p in sorted(points))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        parts.append(f'<rect x="{right + 12}" y="{top + 4 + 20 * index}" width="10" height="10" fill="{colour}"/>')
        parts.append(_text(right + 27, top + 13 + 20 * index, _cut(name, _WIDTH - right - 30)))
    parts.append(_text((left + right) / 2, bottom + 33, across, "middle", MUTED))
    parts.append(
        f'<text x="12" y="{(top + bottom) / 2:.1f}" text-anchor="middle" fill="{MUTED}" font-size="{_SIZE}" '
        f'transform="rotate(-90 12 {(top + bottom) / 2:.1f})">{escape(up)}</text>'
    )
    return _svg(_WIDTH, bottom + 42, parts)


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="{FONTS}" font-size="{_SIZE}">{"".join(parts)}</svg>'
    )


def _marker(x: float, top: float, bottom: float, label: str) -> list[str]:
    room = x > _WIDTH / 2
    return [
        f'<line x1="{x:.1f}" y1="{top - 4:.1f}" x2="{x:.1f}" y2="{bottom:.1f}" stroke="{RED}" stroke-width="1.3" '
        'stroke-dasharray="5 4"/>',
        _text(x - 4 if room else x + 4, top - 8, label, "end" if room else "start", RED, 11),
    ]


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _text(x: float, y: float, text: str, anchor: str = "start", colour: str = INK, size: float = _SIZE) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-size="{size:g}">{escape(text)}</text>'


def _wide(text: str) -> float:
    return sum(_SIZE * (1.0 if ord(sign) > 0x2E7F else 0.74 if sign.isupper() else 0.62) for sign in text)


def _cut(text: str, room: float) -> str:
    while text and _wide(text) > room:
        text = text[:-2] + "…"
    return text


def _ticks(far: float) -> list[float]:
    """Four or five round numbers from zero on."""
    raw = far / 4
    power = 10 ** math.floor(math.log10(raw)) if raw > 0 else 1.0
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= raw)
    return [round(n * step, 12) for n in range(int(far / step + 1e-9) + 1)]


def _when(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M")

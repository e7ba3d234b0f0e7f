"""What `privet scan` shows people: records with their findings in colour, why each was found, and a summary.

Guarantee: no character of a record can steer the terminal: controls, escapes and marks of direction are shown as codes.
Where the output is no terminal, findings stand in brackets with their type instead of in colour.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from pipeline.scan import ERRORS, Scanned

if TYPE_CHECKING:
    from rich.console import Console

    from privacy.findings import Finding

_AROUND = 60  # characters shown before and after a finding of a long record
_LONG = 400
_COLOURS = ("red", "green", "yellow", "blue", "magenta", "cyan", "bright_red", "bright_green", "bright_yellow", "bright_blue")
_STEERING = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\U000e0000-\U000e007f]"
)


@dataclass(slots=True)
class Summary:
    """Counts by (type, recognizer); grows with the kinds found, not with the input."""

    records: int = 0
    touched: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    found: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, scanned: Scanned) -> None:
        self.records += 1
        self.touched += bool(scanned.findings)
        if scanned.record.error is not None:
            self.errors[scanned.record.error] += 1
        self.found.update((f.entity, f.recognizer) for f in scanned.findings)


def colour(entity: str) -> str:
    """The same type has the same colour in every run."""
    return _COLOURS[sum(entity.encode()) % len(_COLOURS)]


def safe(text: str) -> str:
    return _STEERING.sub(lambda sign: f"\\u{ord(sign.group()):04x}", text)


def print_record(console: Console, scanned: Scanned, *, explain: bool = False) -> None:
    """One record, if there is something to say about it."""
    record = scanned.record
    if record.error is not None:
        console.print(Text(f"{record.number}: {record.error} {ERRORS[record.error]}", style="red"))
    elif scanned.findings:
        line = Text(f"{record.number}: ", style="dim")
        line.append(highlighted(record.text, scanned.findings, coloured=console.is_terminal))
        console.print(line, soft_wrap=True)
        if explain:
            for found in scanned.findings:
                _explain(console, found)


def highlighted(text: str, findings: Sequence[Finding], *, coloured: bool) -> Text:
    """The record, or of a long one the surroundings of its findings."""
    shown = Text(style="none")
    position, long = 0, len(text) > _LONG
    for found in findings:
        between = text[position : found.start]
        if long and len(between) > 2 * _AROUND:
            between = (between[:_AROUND] if position else "") + " … " + between[-_AROUND:]
        shown.append(safe(between))
        value = safe(text[found.start : found.end])
        if coloured:
            shown.append(value, style=f"bold {colour(found.entity)}")
        else:
            shown.append(f"[{found.entity} {value}]")
        position = found.end
    rest = text[position:]
    shown.append(safe(rest[:_AROUND] + " …" if long and len(rest) > _AROUND else rest))
    return shown


def _explain(console: Console, found: Finding) -> None:
    said = (
        f"    {found.start}-{found.end} {found.entity} {found.score:.2f} by {found.recognizer} {found.version}: {found.reason}"
    )
    console.print(Text(said, style="dim"), soft_wrap=True)


def print_summary(console: Console, summary: Summary) -> None:
    if summary.found:
        table = Table(header_style="bold")
        table.add_column("type")
        table.add_column("count", justify="right")
        table.add_column("recognizer")
        for (entity, recognizer), count in sorted(summary.found.items(), key=lambda item: (-item[1], item[0])):
            table.add_row(Text(entity, style=colour(entity)), str(count), recognizer)
        console.print(table)
    total = summary.found.total()
    console.print(Text(f"{total} finding{'' if total == 1 else 's'} in {summary.touched} of {summary.records} records"))

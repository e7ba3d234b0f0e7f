"""What people see in a terminal: headings, progress, tables. Holds no decision.

Prints plain lines where the output is no terminal, so that a CI log stays readable.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from privacy.canonical import Scalar
from privacy.rounding import shown_fact

if TYPE_CHECKING:
    from pipeline.receipt import ErasureReceipt
    from pipeline.verify import Verification

_COLOURS = {"passed": "green", "failed": "red", "not_evaluated": "yellow"}
_PLAIN_EVERY_SECONDS = 5.0
_PLAIN_WIDTH = 120


class Screen:
    """Progress and headings of a long run."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self._began = time.monotonic()
        self._last = 0.0

    def heading(self, text: str) -> None:
        self.console.print()
        self.console.print(f"[bold]── {escape(text)}[/bold]")

    def say(self, text: str) -> None:
        self.console.print(escape(text))

    def good(self, text: str) -> None:
        self.console.print(f"[green]✓[/green] {escape(text)}")

    def bad(self, text: str) -> None:
        self.console.print(f"[red]✗[/red] {escape(text)}")

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[Mapping[str, Scalar]], None]]:
        """Times a stage; call what it yields with the facts worth showing."""
        began = time.monotonic()

        def done(facts: Mapping[str, Scalar]) -> None:
            self._clear()
            shown = ", ".join(f"{k} {_short(k, v)}" for k, v in facts.items() if v is not None)
            took = f"{time.monotonic() - began:.1f} s"
            self.good(f"{name:<14}{took:<10}{shown}")

        try:
            yield done
        finally:
            self._clear()

    def progress(self, what: str, done: int, total: int) -> None:
        """A `Progress` callback: one live line on a terminal, a line every few seconds elsewhere."""
        now = time.monotonic()
        count = f" {done}/{total}" if total else f" {done}" if done else ""
        if self.console.is_terminal:
            if now - self._last >= 0.1:
                self._last = now
                self.console.file.write(f"\r\x1b[2K  {what}{count}")
                self.console.file.flush()
        elif now - self._last >= _PLAIN_EVERY_SECONDS:
            self._last = now
            self.console.print(f"  {escape(what)}{count}")

    def _clear(self) -> None:
        if self.console.is_terminal:
            self.console.file.write("\r\x1b[2K")
            self.console.file.flush()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began


def table_console() -> Console:
    """For tables: as wide as the terminal, or as a plain page."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PLAIN_WIDTH)


def print_verification(verification: Verification, as_json: bool) -> None:
    """The table claim → evidence → verdict, and one line at the end."""
    if as_json:
        print(json.dumps(verification.to_json(), ensure_ascii=False))
        return
    console = table_console()
    table = Table(show_lines=False, header_style="bold", expand=False)
    for column in ("claim", "evidence", "verdict"):
        table.add_column(column, overflow="fold")
    for row in verification.rows:
        shown = "noted" if row.kind == "note" and row.outcome != "passed" else row.outcome
        colour = _COLOURS.get(shown, "cyan")
        table.add_row(escape(row.claim), escape(row.evidence), f"[{colour}]{shown}[/{colour}]")
    console.print(table)
    colour = "red" if verification.exit_code else "green" if verification.conclusion == "verified" else "yellow"
    console.print(f"[{colour}]{verification.conclusion}[/{colour}] (exit {verification.exit_code})")
    for row in verification.failures:
        console.print(f"  [red]✗[/red] {escape(row.claim)}: {escape(row.evidence)}")


def print_receipt(receipt: ErasureReceipt, as_json: bool) -> None:
    """What an erasure touched. Never shows the subject itself."""
    if as_json:
        print(json.dumps(receipt.to_json(), ensure_ascii=False))
        return
    for line in receipt.lines():
        print(line)


def _short(name: str, value: Scalar) -> str:
    if not isinstance(value, float):
        return str(value)
    return shown_fact(name, value) or f"{value:.4g}"

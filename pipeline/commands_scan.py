"""`privet scan`: where personal data stands in a file, for people and for programs."""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from privacy.errors import DataError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from pipeline.scan import Scanner
    from privacy.detection_rules import DetectionRules
    from privacy.policy import Policy


def options(leaf: ArgumentParser) -> None:
    leaf.add_argument("file", metavar="FILE", help="text, JSON lines, .gz or .zst; - for standard input")
    leaf.add_argument("--json", action="store_true", help="one object per record: offsets and types, never text")
    leaf.add_argument("--field", metavar="NAME", help="each line is JSON: scan the string under this name")
    leaf.add_argument("--language", choices=("auto", "en", "zh"), default="auto", help="default auto: by each record's script")
    leaf.add_argument(
        "--threshold", type=_share, metavar="SCORE", help="leave findings below it (default 0.4, or the policy's)"
    )
    leaf.add_argument("--policy", type=Path, metavar="FILE", help="use the types, lists and patterns of its pii section")
    home = Path(os.environ["PRIVET_HOME"]) if os.environ.get("PRIVET_HOME") else None
    about = "with --policy: open its sealed lists (pii.deny), which lie in this home ($PRIVET_HOME)"
    leaf.add_argument("--home", type=Path, default=home, metavar="DIR", help=about)
    leaf.add_argument("--explain", action="store_true", help="say for each finding which rule made it, and why")


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ArgumentTypeError("not a number") from None
    if not 0.0 <= value <= 1.0:
        raise ArgumentTypeError("not between 0 and 1")
    return value


def scan(args: Namespace) -> int:
    """Exit 0 whether or not something was found; 2 when a record could not be scanned, after all others were."""
    from rich.console import Console

    from pipeline.scan import as_json, decompressed, read_records
    from pipeline.scan_screen import Summary, print_record, print_summary

    scanner = _scanner(args)
    console = Console(highlight=False)
    summary = Summary()
    with ExitStack() as held:
        stream, size = _opened(args.file, held)
        # A bar and the records share one terminal only if they share one console.
        bar = console if console.is_terminal and not args.json else Console(stderr=True)
        chunks = _Watched(stream, held.enter_context(_progress(bar)), size)
        for batch in scanner.scan(read_records(decompressed(chunks), args.field)):
            for scanned in batch:
                summary.add(scanned)
                if args.json:
                    sys.stdout.write(json.dumps(as_json(scanned, explain=args.explain)) + "\n")
                else:
                    print_record(console, scanned, explain=args.explain)
            sys.stdout.flush()
    if not args.json:
        print_summary(console, summary)
    if summary.errors:
        counted = ", ".join(f"{count} of {code}" for code, count in sorted(summary.errors.items()))
        raise DataError(
            "E-SCAN-006",
            f"{summary.errors.total()} of {summary.records} records could not be scanned ({counted})",
            "Mend them, or name the right field; the others were scanned",
        )
    return 0


def _scanner(args: Namespace) -> Scanner:
    from pipeline.scan import Scanner

    language = None if args.language == "auto" else args.language
    if args.policy is None:
        return Scanner(0.4 if args.threshold is None else args.threshold, language)
    from privacy.policy_file import load_policy

    policy = load_policy(args.policy)
    threshold = policy.pii.score_threshold if args.threshold is None else args.threshold
    return Scanner(threshold, language, _rules(args.home, policy), policy.pii.presidio_recognizers)


def _rules(home: Path | None, policy: Policy) -> DetectionRules:
    """With the sealed lists where a home is named; who may not open them there is refused, and not told less than was asked."""
    from privacy.policy_rules import detection_rules

    if policy.pii.deny and home is not None:
        from pipeline.home import Home
        from pipeline.treatment import rules_of

        return rules_of(Home.open(home), policy) or detection_rules(policy, {})
    if policy.pii.deny:
        print("note: the sealed lists of pii.deny are not looked for; --home names the home that holds them", file=sys.stderr)
    return detection_rules(policy, {})


def _opened(name: str, held: ExitStack) -> tuple[BinaryIO, int | None]:
    """The stream, and its size in bytes where it has one."""
    if name == "-":
        return sys.stdin.buffer, None
    try:
        stream = Path(name).open("rb")  # noqa: SIM115 (closed with `held`)
        size = Path(name).stat().st_size
    except OSError as error:
        raise DataError(
            "E-SCAN-001", f"the file can't be opened ({error.strerror})", "Name a file, or - for standard input"
        ) from None
    return held.enter_context(stream), size or None


class _Watched:
    """A stream that tells a bar how far it has been read."""

    def __init__(self, stream: BinaryIO, progress: Progress, size: int | None) -> None:
        self._stream = stream
        self._progress = progress
        self._task = progress.add_task("scanning", total=size)

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._progress.advance(self._task, len(data))
        return data


def _progress(console: Console) -> Progress:
    """A bar on a terminal, nothing elsewhere; it goes away when the work is done."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)

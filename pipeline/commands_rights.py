"""What the commands about people's rights do: erasure, access, retention. Thin shells, with their imports inside."""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path

from privacy.errors import UsageError


def erase(args: Namespace) -> int:
    if args.verify is not None:
        return _verify(args)
    from pipeline.erase import erase as erase_subject
    from pipeline.home import Home
    from pipeline.screen import print_receipt

    if args.case is None:
        raise UsageError("E-ERASE-002", "the erasure has no case", "Pass --case ID, your reference for the request")
    home = Home.open(args.home)
    receipt = erase_subject(home, _subject(args.subject), args.case, args.by)
    if args.receipt is not None and receipt.envelope is not None:
        _write_new(args.receipt, home.store.get_plain(receipt.envelope))
    print_receipt(receipt, as_json=args.json)
    return 0


def _verify(args: Namespace) -> int:
    from pipeline.receipt_check import check_receipt
    from pipeline.verify import read_trust

    if args.trust is None:
        raise UsageError(
            "E-ERASE-005", "a receipt is verified against a trust root", "Pass --trust FILE, obtained from the controller"
        )
    completed = [path.read_bytes() for path in args.completed]
    check = check_receipt(args.verify.read_bytes(), read_trust(args.trust), datetime.now(UTC).date(), completed)
    _print(check.to_json() if args.json else check.lines())
    return check.exit_code


def subject(args: Namespace) -> int:
    from pipeline.home import Home
    from pipeline.subject import answer

    if args.reveal is not None and args.case is None:
        raise UsageError("E-SUBJECT-002", "originals are revealed under a case only", "Pass --case ID with --reveal")
    case = args.case or f"access-{datetime.now(UTC):%Y-%m-%d}"
    found = answer(Home.open(args.home), _subject(args.subject), case, args.by, args.reveal)
    _print(found.to_json() if args.json else found.lines())
    return 0


def retention(args: Namespace) -> int:
    """Exit code 2 when something could not be done or a promised day has passed, so that a scheduler sees it."""
    from pipeline.home import Home
    from pipeline.retain import run_retention

    home = Home.open(args.home)
    report = run_retention(home, datetime.now(UTC), ahead_days=args.ahead, dry_run=args.dry_run)
    _print(report.to_json() if args.json else report.lines())
    if args.statements is not None and report.statements:
        args.statements.mkdir(mode=0o700, exist_ok=True)
        for digest in report.statements:
            _write_new(args.statements / f"{digest.removeprefix('sha256:')[:16]}.dsse.json", home.store.get_plain(digest))
    return 2 if report.faults or report.overdue else 0


def _subject(given: str | None) -> str:
    found = sys.stdin.readline().rstrip("\n") if given == "-" else given
    if found is None or not found.strip():
        raise UsageError(
            "E-ERASE-001", "no subject was given", "Pass the value of the subject field, or - and write it to standard input"
        )
    return found


def _print(shown: object) -> None:
    if isinstance(shown, list):
        print("\n".join(shown))
    else:
        print(json.dumps(shown, ensure_ascii=False))


def _write_new(path: Path, data: bytes) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise UsageError(
            "E-ERASE-006", "there is a file with that name already", "Name a new file; nothing is overwritten"
        ) from None
    with os.fdopen(handle, "wb") as file:
        file.write(data)

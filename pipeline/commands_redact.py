"""`privet redact`: takes personal data out of what a model says, as a policy asks for it, before anybody reads it."""

from __future__ import annotations

import codecs
import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from privacy.errors import DataError

if TYPE_CHECKING:
    from pipeline.redact_process import RedactProcess
    from privacy.redact import Redacted

_AT_ONCE = 1 << 16


def options(leaf: ArgumentParser) -> None:
    leaf.add_argument("policy", type=Path, metavar="POLICY", help="its own patterns, surrogates and outputs.hold_back count")
    leaf.add_argument("--stream", action="store_true", help="write each part as soon as it is clean; else all at the end")
    leaf.add_argument("--names", action="store_true", help="let models look for names, too; a stream then waits for sentences")
    leaf.add_argument("--secrets", type=Path, metavar="FILE", help="further values to remove, one a line")
    leaf.add_argument("--summary", action="store_true", help="say on standard error what was removed, by type")


def redact(args: Namespace) -> int:
    """From standard input to standard output. Exit 0; 2 when the text can't be shown to be clean, and then what was not clean,
    and all that followed, was not written."""
    from pipeline.redact_process import RedactProcess
    from privacy.policy_file import load_policy

    policy, secrets = load_policy(args.policy), _secrets(args.secrets)
    with RedactProcess(policy, secrets, models=args.names) as process:
        said = _streamed(process) if args.stream else _whole(process)
    if args.summary:
        removed = ", ".join(f"{count} {name}" for name, count in sorted(said.counts.items()))
        print(f"removed: {removed or 'nothing'}", file=sys.stderr)
    return 0


def _whole(process: RedactProcess) -> Redacted:
    said = process.redact(_text(sys.stdin.buffer.read()))
    _write(said.text)
    return said


def _streamed(process: RedactProcess) -> Redacted:
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    source = sys.stdin.buffer.fileno()
    try:
        while data := os.read(source, _AT_ONCE):
            _write(process.feed(decoder.decode(data)))
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise _not_utf8() from None
    said = process.close()
    _write(said.text)
    return said


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise _not_utf8() from None


def _secrets(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        return [line for line in _text(path.read_bytes()).splitlines() if line.strip()]
    except OSError as error:
        raise DataError(
            "E-REDACT-007", f"the list of secrets can't be read ({error.strerror})", "Name a file with one value a line"
        ) from None


def _not_utf8() -> DataError:
    return DataError("E-REDACT-008", "the text is not UTF-8", "Convert it first; what was written so far is clean")

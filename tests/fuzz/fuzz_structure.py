"""Fuzzes the reader of machine-written lines, the rules that rest on it, and the writer that keeps formats valid.

    python tests/fuzz/fuzz_structure.py [-max_total_time=3600] [-max_len=4096] [CORPUS ...]

Needs atheris (extra `fuzz`). A crash is an input that raises, gives a span outside the text, makes JSON invalid, leaves a found
value in its place, or is found again in the de-identified text. Corpus folders are read and written by libFuzzer.
"""

from __future__ import annotations

import json
import sys
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from privacy.deidentify import Deidentifier
    from privacy.structural import StructuralLane

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

CORPUS = Path(__file__).parent / "corpus_structure"


def check(text: str) -> None:
    """Everything that has to hold for one text."""
    from privacy.recognizers.fields import FIELDS
    from privacy.recognizers.view import view_of
    from privacy.structure import fields

    for field in fields(text):
        assert 0 <= field.start <= field.end <= len(text)
    view = view_of(text)
    for rule in FIELDS:
        for start, end, score in rule.scan(view):
            assert 0 <= start < end <= len(view.text)
            assert 0.0 < score <= 1.0
    lane, redact = _tools()
    (found,) = lane.analyze_batch([text])
    once, _ = redact.apply(text, found)
    if _is_document(text):
        assert _is_document(once)
    assert lane.analyze_batch([once]) == [[]]


@lru_cache(maxsize=1)
def _tools() -> tuple[StructuralLane, Deidentifier]:
    from privacy.deidentify import Deidentifier
    from privacy.recognizers.fields import FIELDS
    from privacy.structural import StructuralLane

    return StructuralLane(FIELDS, engine="python"), Deidentifier({}, "redact", b"k" * 32)


def _is_document(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


def one_input(data: bytes) -> None:
    check(
        data.decode("utf-8", "surrogatepass" if data[:1] == b"{" else "replace") if _decodes(data) else data.decode("latin-1")
    )


def _decodes(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def main() -> None:
    import atheris

    with atheris.instrument_imports(include=["privacy.structure", "privacy.fitting", "privacy.recognizers.fields"]):
        import privacy.fitting
        import privacy.recognizers.fields
        import privacy.structure  # noqa: F401
    arguments = sys.argv if any(not a.startswith("-") for a in sys.argv[1:]) else [*sys.argv, str(CORPUS)]
    atheris.Setup(arguments, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

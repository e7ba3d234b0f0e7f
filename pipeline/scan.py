"""Reads records from a file or a stream and says where personal data stands in them; it writes nothing and changes nothing.

Guarantee: one answer a record, in order; memory is bounded by one batch and one record; a record that can't be read is answered
with an error and not skipped. Offsets count characters (Unicode code points) of the record's text: the line decoded as UTF-8
without its line end (and without a byte-order mark before the first), or the decoded string of the named field. A byte that is
no UTF-8 is read as U+FFFD, one for each ill-formed sequence; NUL and lone surrogates of JSON are characters like any other.
Not covered: files of other encodings, which are refused by their byte-order mark and unseen without one.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from pipeline.readers import bounded_lines
from privacy.detect import Detector, build_detector, detect_language
from privacy.errors import DataError, UsageError

if TYPE_CHECKING:
    from privacy.detection_rules import DetectionRules
    from privacy.findings import Finding

MOST_BYTES: Final = 256 * 1024 * 1024  # of one record
_CHUNK = 1 << 20
_BATCH_RECORDS = 512
_BATCH_CHARACTERS = 1 << 20
_ZSTD_WINDOW = 128 * 1024 * 1024
_ZSTD_BITE = 1024
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")  # UTF-16 and UTF-32

ERRORS: Final = {
    "E-SCAN-002": "the line is not JSON",
    "E-SCAN-003": "the line has no text under that field",
    "E-SCAN-004": "the record is longer than 256 MiB",
}


@dataclass(frozen=True, slots=True)
class Record:
    """number: of the line, from 1. error: a code of ERRORS; then there is no text."""

    number: int
    text: str
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Scanned:
    record: Record
    findings: Sequence[Finding]


def decompressed(stream: Readable) -> Iterator[bytes]:
    """Chunks of a stream; gzip and Zstandard are recognised by their first bytes.

    Raises DataError E-SCAN-001 when the stream is cut or damaged, UsageError E-SCAN-005 when it is UTF-16 or UTF-32.
    """
    head = stream.read(4)
    rejoined = _Rejoined(head, stream)
    chunks = _unzstd(rejoined) if head == b"\x28\xb5\x2f\xfd" else _plain(rejoined, packed=head.startswith(b"\x1f\x8b"))
    first = True
    while True:
        try:
            chunk = next(chunks, b"")
        except (OSError, EOFError, zlib.error) as error:
            raise _unreadable(error) from None
        if not chunk:
            return
        if first and chunk.startswith(_WIDE_MARKS):
            raise UsageError("E-SCAN-005", "the input is UTF-16 or UTF-32", "Convert it to UTF-8, e.g. with iconv")
        first = False
        yield chunk


def _plain(stream: Readable, *, packed: bool) -> Iterator[bytes]:
    reader: Readable = gzip.GzipFile(fileobj=stream) if packed else stream  # type: ignore[call-overload]
    while chunk := reader.read(_CHUNK):
        yield chunk


def _unzstd(stream: Readable) -> Iterator[bytes]:
    """Frames one after another, in small bites: each may grow by a factor of thousands."""
    import zstandard

    engine = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    frame = engine.decompressobj()
    try:
        while data := stream.read(_ZSTD_BITE):
            while data:
                if frame.eof:
                    frame = engine.decompressobj()
                if out := frame.decompress(data):
                    yield out
                data = frame.unused_data if frame.eof else b""
    except zstandard.ZstdError as error:
        raise EOFError from error
    if not frame.eof:
        raise EOFError


def _unreadable(error: Exception) -> DataError:
    return DataError(
        "E-SCAN-001",
        f"the input can't be read to its end ({type(error).__name__})",
        "Check the file; what was read before was scanned",
    )


class Readable(Protocol):
    """What is read here: a file, or something in front of one."""

    def read(self, size: int = -1, /) -> bytes: ...


class _Rejoined:
    """The first bytes, which were looked at, and the rest of a stream behind them."""

    def __init__(self, head: bytes, stream: Readable) -> None:
        self._head = head
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if self._head:
            head, self._head = self._head, b""
            if 0 <= size < len(head):
                head, self._head = head[:size], head[size:]
                return head
            return head + self._stream.read(size - len(head) if size >= 0 else -1)
        return self._stream.read(size)

    def readable(self) -> bool:
        return True


def read_records(chunks: Iterator[bytes], name: str | None = None) -> Iterator[Record]:
    """One record a line: its text, or the string of the field `name` (a dotted path when no key is called so) of its JSON."""
    for line in bounded_lines(chunks, MOST_BYTES):
        if line.cut:
            yield Record(line.number, "", "E-SCAN-004")
        elif name is None:
            yield Record(line.number, line.raw.decode("utf-8", "replace"))
        else:
            yield _field(line.number, line.raw, name)


def _field(number: int, raw: bytes, name: str) -> Record:
    try:
        value = json.loads(raw.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return Record(number, "", "E-SCAN-002")
    if isinstance(value, dict) and name in value:
        value = value[name]
    else:
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
    return Record(number, value) if isinstance(value, str) else Record(number, "", "E-SCAN-003")


@dataclass(slots=True)
class Scanner:
    """language: `en`, `zh`, or None for what each record's script says. Detectors are built when a record needs one.

    detector: builds one for a language; for tests.
    """

    threshold: float = 0.4
    language: str | None = None
    rules: DetectionRules | None = None
    presidio_recognizers: Sequence[str] | None = None
    detector: Callable[[str], Detector] | None = None
    _built: dict[str, Detector] = field(default_factory=dict)

    def scan(self, records: Iterator[Record]) -> Iterator[list[Scanned]]:
        """Batches of answers, in the order of the records."""
        batch: list[Record] = []
        size = 0
        for record in records:
            batch.append(record)
            size += len(record.text)
            if len(batch) == _BATCH_RECORDS or size >= _BATCH_CHARACTERS:
                yield self._batch(batch)
                batch, size = [], 0
        if batch:
            yield self._batch(batch)

    def _batch(self, records: Sequence[Record]) -> list[Scanned]:
        found: list[Sequence[Finding]] = [()] * len(records)
        by_language: dict[str, list[int]] = {}
        for index, record in enumerate(records):
            if record.error is None:
                by_language.setdefault(self.language or detect_language(record.text), []).append(index)
        for language, indexes in sorted(by_language.items()):
            results = self._detector(language).analyze_batch([records[i].text for i in indexes], language)
            for index, findings in zip(indexes, results, strict=True):
                found[index] = findings
        return [Scanned(record, findings) for record, findings in zip(records, found, strict=True)]

    def _detector(self, language: str) -> Detector:
        if language not in self._built:
            build = self.detector or self._build
            self._built[language] = build(language)
        return self._built[language]

    def _build(self, language: str) -> Detector:
        return build_detector((language,), self.threshold, self.rules, presidio_recognizers=self.presidio_recognizers)


def as_json(scanned: Scanned, *, explain: bool = False) -> dict[str, object]:
    """The answer as an object: offsets and types, never text."""
    if scanned.record.error is not None:
        return {"record": scanned.record.number, "error": scanned.record.error}
    findings = []
    for found in scanned.findings:
        shown: dict[str, object] = {
            "start": found.start,
            "end": found.end,
            "type": found.entity,
            "score": round(found.score, 4),
            "recognizer": found.recognizer,
        }
        if explain:
            shown |= {"version": found.version, "reason": found.reason}
        findings.append(shown)
    return {"record": scanned.record.number, "findings": findings}

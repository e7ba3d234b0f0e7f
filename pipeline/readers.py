"""Reads one source file row by row, in bounded memory; what can't be parsed comes out as a coded reject.

Guarantee: no line, quoted field or row longer than `max_line_bytes` is held in memory (a batch of Parquet rows is
bounded by its own metadata, checked first); one bad row never hides the next one.
Formats: jsonl (strict, pipeline.records), csv (RFC 4180 with a header), tsv (IANA text/tab-separated-values: a header,
no quoting), lines (source.pattern must match the whole line), parquet (not compressed from outside).
Not covered: a pattern that backtracks without end; the policy's author answers for `source.pattern`.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pipeline.records import Rejected, as_json, decode, strict_json
from pipeline.sources import RATIO_FLOOR, FileFault, SurveyedFile, open_beneath, plain_chunks, require_unchanged
from privacy.policy import Source

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_BOM = b"\xef\xbb\xbf"
_PARQUET_ROWS = 512


@dataclass(frozen=True, slots=True)
class Line:
    """One physical line without its end; `cut` when it was longer than the limit and only its start is here."""

    number: int
    raw: bytes
    cut: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its values, or the code of why there are none. `raw` and `header` are what a replay needs."""

    line: int
    raw: bytes
    values: Mapping[str, object] | None = None
    code: str | None = None
    header: bytes | None = None
    cut: bool = False

    @property
    def original(self) -> bytes | None:
        """The record's own JSON, when it came as JSON."""
        return self.raw if self.raw.lstrip()[:1] == b"{" and self.header is None else None


def read_rows(folder: Path, file: SurveyedFile, source: Source) -> Iterator[Row]:
    """Rows of one surveyed file.

    Raises FileFault E-INGEST-154 before the first row when the file has another format or lacks a declared field;
    DataError E-INGEST-004 when it changed since the survey.
    """
    if source.format == "parquet":
        yield from _parquet(folder, file, source)
        return
    lines = bounded_lines(plain_chunks(folder, file, source.limits), source.limits.max_line_bytes)
    if source.format in ("csv", "tsv"):
        yield from _delimited(lines, source)
        return
    for line in lines:
        if line.raw.strip() or line.cut:
            yield parse_row(line.raw, None, source, line.number, line.cut)


def parse_row(raw: bytes, header: bytes | None, source: Source, line: int = 0, cut: bool = False) -> Row:
    """Parse one row by itself; also how a quarantined row is replayed."""
    if cut or len(raw) > source.limits.max_line_bytes:
        return Row(line, raw, code="E-INGEST-103", header=header, cut=cut)
    try:
        if header is not None:
            values: Mapping[str, object] = _match_header(_split(header, source), _split(raw, source))
        elif source.format == "lines":
            values = _match_pattern(decode(raw), source)
        else:  # jsonl, or a Parquet row that was quarantined as JSON
            values = strict_json(raw)
    except Rejected as rejected:
        return Row(line, raw, code=rejected.code, header=header)
    return Row(line, raw, values, header=header)


def declared_fields(source: Source) -> set[str]:
    fields = source.fields
    named = (fields.record_id, fields.time, fields.image)
    return {fields.subject, fields.label, *fields.text, *fields.keep, *(n for n in named if n)}


def bounded_lines(chunks: Iterator[bytes], limit: int) -> Iterator[Line]:
    """Lines ended by LF or CR LF; a longer one is cut, and its rest is skipped without being kept."""
    pending = bytearray()
    number, skipping = 1, False
    for chunk in chunks:
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            if not skipping:
                pending += chunk[start:end]
                yield _line(number, pending, limit)
            pending.clear()
            start, skipping, number = end + 1, False, number + 1
        if skipping:
            continue
        pending += chunk[start:]
        if len(pending) > limit + 4:  # a byte-order mark and a CR do not count
            yield _line(number, pending, limit)
            pending.clear()
            skipping = True
    if pending:
        yield _line(number, pending, limit)


def _line(number: int, pending: bytearray, limit: int) -> Line:
    raw = bytes(pending)
    if raw.endswith(b"\r"):
        raw = raw[:-1]
    if number == 1:
        raw = raw.removeprefix(_BOM)
    return Line(number, raw[:limit], len(raw) > limit)


def _delimited(lines: Iterator[Line], source: Source) -> Iterator[Row]:
    head = next(lines, None)
    if head is None:
        return
    try:
        names = [] if head.cut else _split(head.raw, source)
    except Rejected:
        names = []
    if len(set(names)) != len(names) or not declared_fields(source) <= set(names):
        raise FileFault("E-INGEST-154")
    rows = _joined(lines, head.raw, source) if source.format == "csv" else lines
    for line in rows:
        if line.raw.strip() or line.cut:
            yield parse_row(line.raw, head.raw, source, line.number, line.cut)


def _joined(lines: Iterator[Line], header: bytes, source: Source) -> Iterator[Line]:
    """Physical lines joined while a quote is open; a quote that never closes well costs its own line, not those after it.

    Linear: the text between two odd lines is looked at twice at most.
    """
    limit = source.limits.max_line_bytes
    waiting: list[Line] = []
    queue: list[Line] = []
    size, is_open = 0, False
    while True:
        line = queue.pop() if queue else next(lines, None)
        if line is not None:
            waiting.append(line)
            size += len(line.raw) + 1
            is_open ^= bool(line.raw.count(b'"') % 2)
            if is_open and size <= limit and not line.cut:
                continue
        if waiting:
            joined = Line(waiting[0].number, b"\n".join(w.raw for w in waiting), any(w.cut for w in waiting))
            whole = not is_open and parse_row(joined.raw, header, source).code is None
            yield joined if whole or len(waiting) == 1 else waiting[0]
            if not whole:
                queue.extend(reversed(waiting[1:]))
        elif line is None:
            return
        waiting, size, is_open = [], 0, False


def _split(raw: bytes, source: Source) -> list[str]:
    text = decode(raw)
    if source.format == "tsv":
        return text.split("\t")
    csv.field_size_limit(max(source.limits.max_line_bytes, 131_072))
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error:
        raise Rejected("E-INGEST-117") from None
    if len(rows) != 1:
        raise Rejected("E-INGEST-117")
    return rows[0]


def _match_header(names: list[str], values: list[str]) -> Mapping[str, object]:
    if len(names) != len(values):
        raise Rejected("E-INGEST-117")
    return dict(zip(names, values, strict=True))


def _match_pattern(text: str, source: Source) -> Mapping[str, object]:
    assert source.pattern is not None
    match = re.fullmatch(source.pattern, text)
    if match is None:
        raise Rejected("E-INGEST-118")
    # The line itself is kept too: the vault must hold the original, not only what the pattern took from it.
    return {**match.groupdict(), "_line": text}


def _parquet(folder: Path, file: SurveyedFile, source: Source) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with os.fdopen(open_beneath(folder, file.name), "rb") as handle:
        _require_as_surveyed(handle, file)
        try:
            table = pq.ParquetFile(handle, page_checksum_verification=True)
            _check_parquet(
                table.schema_arrow.names, [table.metadata.row_group(i) for i in range(table.num_row_groups)], file, source
            )
            for _ in table.iter_batches(_PARQUET_ROWS, use_threads=False):
                pass  # a file is taken whole or not at all: damage must show before the first row is used
            number = 0
            for batch in table.iter_batches(_PARQUET_ROWS, use_threads=False):
                for values in batch.to_pylist():
                    number += 1
                    yield _parquet_row(number, values, source)
        except (pa.ArrowException, OSError, ValueError, OverflowError):
            raise FileFault("E-INGEST-154") from None
        _require_as_surveyed(handle, file)


def _require_as_surveyed(handle: BinaryIO, file: SurveyedFile) -> None:
    """Parquet is read out of order, so its digest can't be taken on the way; size and time of change stand for it."""
    now = os.fstat(handle.fileno())
    require_unchanged((now.st_size, now.st_mtime_ns) == (file.size, file.changed_ns))


def _check_parquet(names: Sequence[str], groups: Sequence[pq.RowGroupMetaData], file: SurveyedFile, source: Source) -> None:
    if len(set(names)) != len(names) or not declared_fields(source) <= set(names):
        raise FileFault("E-INGEST-154")
    if sum(group.total_byte_size for group in groups) > max(RATIO_FLOOR, source.limits.max_decompression_ratio * file.size):
        raise FileFault("E-INGEST-153")


def _parquet_row(number: int, values: Mapping[str, object], source: Source) -> Row:
    if source.fields.image is not None:
        from pipeline.images import as_text

        values = {**values, source.fields.image: as_text(values.get(source.fields.image))}
    raw = as_json(values)
    if len(raw) > source.limits.max_line_bytes:
        return Row(number, raw[: source.limits.max_line_bytes], code="E-INGEST-103", cut=True)
    if b"\\u0000" in raw:
        return Row(number, raw, code="E-INGEST-102")
    return Row(number, raw, values)

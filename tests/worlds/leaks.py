"""Looks for planted values in every byte below a folder: files, databases row by row, compressed and encoded content."""

from __future__ import annotations

import base64
import gzip
import io
import re
import sqlite3
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import zstandard

_BASE64 = re.compile(rb"[A-Za-z0-9+/]{40,}={0,2}")
_ESCAPED = re.compile(rb"\\u[0-9a-fA-F]{4}")


class LeakScanner:
    """`values`: what must not be found; those under 8 bytes (of UTF-8) are too short to tell from chance and are left out."""

    def __init__(self, values: Iterable[str | bytes]) -> None:
        self.values = sorted({v for given in values if len(v := given.encode() if isinstance(given, str) else given) >= 8})
        by_start: dict[int, list[bytes]] = {}
        for value in self.values:
            by_start.setdefault(int.from_bytes(value[:8], "little"), []).append(value)
        self._by_start = by_start
        self._starts = np.array(sorted(by_start), dtype="<u8")

    def search(self, data: bytes) -> set[bytes]:
        """Values that occur in `data`, found through their first eight bytes at all eight alignments."""
        found: set[bytes] = set()
        for shift in range(8):
            words = (
                np.frombuffer(data, dtype="<u8", offset=shift, count=max(0, len(data) - shift) // 8)
                if len(data) > shift
                else []
            )
            if len(words) == 0:
                continue
            for index in np.flatnonzero(np.isin(words, self._starts)):
                place = shift + int(index) * 8
                candidates = self._by_start[int(words[index])]
                found |= {value for value in candidates if data.startswith(value, place)}
        return found

    def scan(self, root: Path, skip: Iterable[Path] = ()) -> list[str]:
        """`path: n values (layer)` for every place where something was found."""
        skipped = [s.resolve() for s in skip]
        report = []
        for path in sorted(p for p in root.rglob("*") if p.is_file()):
            if any(path.resolve().is_relative_to(s) for s in skipped):
                continue
            for layer, data in layers(path):
                if found := self.search(data):
                    report.append(f"{path.relative_to(root)}: {len(found)} values ({layer})")
        return report


def layers(path: Path) -> Iterator[tuple[str, bytes]]:
    """The raw bytes, and whatever can be unpacked from them."""
    data = path.read_bytes()
    yield "raw", data
    yield from _unpacked(data)
    if data.startswith(b"SQLite format 3\0"):
        for cell in _cells(path):
            yield "rows", cell
            yield from _unpacked(cell)
    for number, text in enumerate(_BASE64.findall(data) if len(data) < 20_000_000 else []):
        try:
            decoded = base64.b64decode(text + b"=" * (-len(text) % 4))
        except ValueError:
            continue
        yield f"base64 {number}", decoded


def _unpacked(data: bytes) -> Iterator[tuple[str, bytes]]:
    if data[:3] == b"\x1f\x8b\x08":
        yield "gzip", gzip.decompress(data)
    if data[:4] == b"\x28\xb5\x2f\xfd":
        yield "zstd", zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read()
    if data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield f"zip {name}", archive.read(name)
    if data[:4] == b"PAR1":
        import pyarrow.parquet as pq

        yield "parquet", str(pq.read_table(io.BytesIO(data)).to_pylist()).encode()
    if _ESCAPED.search(data):
        plain = _ESCAPED.sub(lambda m: chr(int(m.group()[2:], 16)).encode("utf-8", "surrogatepass"), data)
        yield "unescaped", plain


def _cells(path: Path) -> Iterator[bytes]:
    """Every value of every table, with the WAL applied; the raw bytes of both files are scanned as they are."""
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    database.text_factory = bytes
    try:
        tables = [row[0].decode() for row in database.execute("select name from sqlite_master where type='table'")]
        for table in tables:
            for row in database.execute(f'select * from "{table}"'):
                yield from (cell for cell in row if isinstance(cell, bytes) and len(cell) >= 8)
    finally:
        database.close()

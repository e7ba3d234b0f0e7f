"""The scanner that proves the absence of leaks must itself find what is planted, in every kind of place."""

from __future__ import annotations

import base64
import gzip
import json
import sqlite3
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tests.worlds.leaks import LeakScanner

SECRET = "ada.lovelace@example.com"
CHINESE = "欧阳建国先生"


def in_sqlite_wal(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("pragma journal_mode=wal")
    database.execute("create table t(x blob)")
    database.execute("insert into t values(?)", (gzip.compress(b"x"),))
    database.execute("insert into t values(?)", ("x" * 5000 + SECRET,))  # spills over database pages
    database.commit()
    database.close()


WRITERS = {
    "plain": lambda p: p.write_text(f"x{SECRET}y"),
    "gzip": lambda p: p.write_bytes(gzip.compress(SECRET.encode())),
    "zstd": lambda p: p.write_bytes(zstandard.compress(SECRET.encode())),
    "base64": lambda p: p.write_bytes(base64.b64encode(b'{"payload": "' + SECRET.encode() + b'", "more": "and more"}')),
    "escaped": lambda p: p.write_text(json.dumps({"name": CHINESE})),
    "sqlite": in_sqlite_wal,
    "parquet": lambda p: pq.write_table(pa.table({"x": [SECRET] * 100}), p, compression="zstd"),
    "zip": lambda p: zipfile.ZipFile(p, "w", zipfile.ZIP_DEFLATED).writestr("a", SECRET * 9),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_the_scanner_finds_a_value(tmp_path: Path, kind: str) -> None:
    WRITERS[kind](tmp_path / "file")
    assert LeakScanner([SECRET, CHINESE]).scan(tmp_path)


@pytest.mark.parametrize("shift", range(9))
def test_the_scanner_finds_a_value_at_every_alignment(tmp_path: Path, shift: int) -> None:
    (tmp_path / "file").write_bytes(b"z" * shift + SECRET.encode())
    assert LeakScanner([SECRET]).scan(tmp_path)


def test_the_scanner_is_silent_where_nothing_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("ada.lovelace at example dot com" * 100)
    (tmp_path / "landing").mkdir()
    (tmp_path / "landing" / "raw").write_text(SECRET)
    assert LeakScanner([SECRET]).scan(tmp_path, skip=[tmp_path / "landing"]) == []

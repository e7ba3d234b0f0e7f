"""The sealed format: its public vectors, and every way to tamper."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.errors import IntegrityError
from privacy.seal import CHUNK, HEADER, TAG, SealContext, SealedReader, SealedWriter, seal, unseal

KEY = bytes(range(32))
PLACE = SealContext("chat", "raw/part-0.parquet", "raw").to_bytes()
VECTORS = Path(__file__).parents[2].parent / "shared/vectors/c2sp_chunked_encryption_aes_256_gcm_test.json"
EDGE_SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 64 * CHUNK - 1, 64 * CHUNK, 64 * CHUNK + 5, 130 * CHUNK]


def sealed(plain: bytes, key: bytes = KEY, context: bytes = PLACE) -> bytes:
    out = io.BytesIO()
    seal(io.BytesIO(plain), out, key, context)
    return out.getvalue()


def unsealed(data: bytes, key: bytes = KEY, context: bytes = PLACE) -> bytes:
    out = io.BytesIO()
    unseal(io.BytesIO(data), out, key, context)
    return out.getvalue()


def read(data: bytes, key: bytes = KEY, context: bytes = PLACE) -> bytes:
    return io.BufferedReader(SealedReader(io.BytesIO(data), 0, key, context)).read()


def refused(data: bytes, key: bytes = KEY, context: bytes = PLACE) -> set[str]:
    """The codes with which both readers refuse; the test fails when one of them accepts."""
    codes = set()
    for way in (unsealed, read):
        with pytest.raises(IntegrityError) as caught:
            way(data, key, context)
        assert caught.value.exit_code == 4
        codes.add(caught.value.code)
    return codes


@pytest.mark.shared_data
@pytest.mark.skipif(not VECTORS.exists(), reason="the public Cobblestone-256 vectors are not beside this checkout")
def test_agrees_with_the_public_vectors_of_the_format() -> None:
    tests = [t for group in json.loads(VECTORS.read_bytes())["testGroups"] for t in group["tests"]]
    assert len(tests) == 35
    for test in tests:
        data, key, context = zlib.decompress(bytes.fromhex(test["ct"])), bytes.fromhex(test["key"]), bytes.fromhex(test["ctx"])
        out = io.BytesIO()
        if test["result"] == "valid":
            unseal(io.BytesIO(data), out, key, context)
            plain = out.getvalue()
            assert (len(plain), hashlib.sha512(plain).hexdigest()) == (test["msgLength"], test["msgSha512"])
            assert read(data, key, context) == plain
            continue
        with pytest.raises(IntegrityError):
            unseal(io.BytesIO(data), out, key, context)
        with pytest.raises(IntegrityError):
            read(data, key, context)
        if "PartialPlaintext" in test["flags"]:  # what was given out is the longest valid prefix, and no byte more
            assert hashlib.sha512(out.getvalue()).hexdigest() == test["msgSha512"]
        elif "HeaderFailure" in test["flags"]:
            assert out.getvalue() == b""


@pytest.mark.parametrize("size", EDGE_SIZES)
def test_a_size_at_a_chunk_edge_does_not_lose_a_byte(size: int) -> None:
    plain = random.Random(size).randbytes(size)
    data = sealed(plain)
    assert len(data) == HEADER + size + TAG * (size // CHUNK + 1)
    assert unsealed(data) == plain
    assert read(data) == plain


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 3 * CHUNK), st.lists(st.tuples(st.integers(0, 3 * CHUNK + 9), st.integers(0, 2 * CHUNK)), max_size=8))
def test_random_access_never_differs_from_the_plaintext(size: int, reads: list[tuple[int, int]]) -> None:
    plain = random.Random(size).randbytes(size)
    reader = SealedReader(io.BytesIO(sealed(plain)), 0, KEY, PLACE)
    for start, length in reads:
        reader.seek(start)
        assert (reader.read(length) or b"") == plain[start : start + length]
    assert reader.seek(0, io.SEEK_END) == size


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 2 * CHUNK), max_size=6))
def test_how_the_writer_is_fed_does_not_change_what_opens(sizes: list[int]) -> None:
    out = io.BytesIO()
    writer = SealedWriter(out, KEY, PLACE)
    pieces = [os.urandom(size) for size in sizes]
    for piece in pieces:
        writer.write(piece)
    assert writer.tell() == sum(sizes)
    writer.close()
    writer.close()
    assert unsealed(out.getvalue()) == b"".join(pieces)


def test_every_bit_of_the_header_and_samples_of_the_body_are_authenticated() -> None:
    data = sealed(os.urandom(2 * CHUNK + 100))
    rng = random.Random(7)
    positions = [*range(HEADER), *(rng.randrange(HEADER, len(data)) for _ in range(60)), len(data) - 1]
    for position in positions:
        altered = bytearray(data)
        altered[position] ^= 1 << rng.randrange(8)
        assert refused(bytes(altered)) == ({"E-SEAL-001"} if position < HEADER else {"E-SEAL-003"})


def test_no_truncation_passes_for_a_shorter_file() -> None:
    data = sealed(os.urandom(2 * CHUNK + 100))
    chunk = CHUNK + TAG
    lengths = [0, 1, HEADER - 1, HEADER, HEADER + TAG - 1, HEADER + chunk, HEADER + 2 * chunk, HEADER + 2 * chunk + TAG - 1]
    for length in lengths:
        assert refused(data[:length]) == {"E-SEAL-002"}
    for length in (HEADER + TAG, HEADER + chunk - 1, HEADER + chunk + 40, len(data) - 1):
        assert refused(data[:length]) == {"E-SEAL-003"}


def test_chunks_can_not_be_moved_doubled_dropped_added_or_spliced() -> None:
    first, second = sealed(os.urandom(2 * CHUNK + 9)), sealed(os.urandom(2 * CHUNK + 9))
    chunk = CHUNK + TAG
    head, a, b, last = first[:HEADER], first[HEADER:][:chunk], first[HEADER + chunk :][:chunk], first[HEADER + 2 * chunk :]
    for body in (b + a + last, a + a + last, a + last, a + b + last + last, a + b + b + last, last):
        assert refused(head + body) == {"E-SEAL-003"}
    assert refused(head + second[HEADER:]) == {"E-SEAL-003"}
    assert refused(second[:HEADER] + first[HEADER:]) == {"E-SEAL-003"}


def test_a_wrong_key_or_place_is_refused_before_any_plaintext() -> None:
    data = sealed(b"x" * 100)
    elsewhere = [
        SealContext("chat2", "p", "raw"),
        SealContext("chat", "raw/part-1.parquet", "raw"),
        SealContext("chat", "raw", "x"),
    ]
    for key, context in [(bytes(32), PLACE), *((KEY, place.to_bytes()) for place in elsewhere), (KEY, b"")]:
        assert refused(data, key, context) == {"E-SEAL-001"}
        out = io.BytesIO()
        with pytest.raises(IntegrityError):
            unseal(io.BytesIO(data), out, key, context)
        assert out.getvalue() == b""
    assert refused(data, b"short") == {"E-SEAL-004"}


def test_names_that_run_together_do_not_share_a_context() -> None:
    assert SealContext("a", "bc", "d").to_bytes() != SealContext("ab", "c", "d").to_bytes()
    assert SealContext("a", "b", "c").to_bytes() != SealContext("a", "c", "b").to_bytes()


def test_a_write_that_an_error_cut_short_does_not_look_whole() -> None:
    out = io.BytesIO()
    writer = SealedWriter(out, KEY, PLACE)
    writer.write(b"half of it" * 10_000)
    del writer
    refused(out.getvalue())


def test_the_same_plaintext_never_gives_the_same_bytes() -> None:
    assert sealed(b"same")[:24] != sealed(b"same")[:24]
    assert sealed(b"same")[HEADER:] != sealed(b"same")[HEADER:]


def test_a_file_that_changes_under_an_open_reader_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(sealed(os.urandom(3 * CHUNK)))
    reader = SealedReader(path.open("rb", buffering=0), 0, KEY, PLACE)
    with path.open("r+b") as file:
        file.seek(HEADER + CHUNK + TAG + 5)
        file.write(b"tampered")
    assert len(reader.read(CHUNK) or b"") == CHUNK
    with pytest.raises(IntegrityError, match="E-SEAL-003"):
        reader.read(CHUNK)
    os.truncate(path, HEADER + CHUNK + TAG)
    reader.seek(2 * CHUNK)
    with pytest.raises(IntegrityError, match="E-SEAL-002"):
        reader.read(10)


def test_a_refused_chunk_leaves_nothing_in_the_callers_buffer() -> None:
    """The library decrypts first and checks the tag after; what it left in the buffer must not stay there."""
    data = bytearray(sealed(b"Ada Lovelace" * 10_000))
    data[HEADER + 2 * (CHUNK + TAG) + 100] ^= 1
    for start, length in [(0, 100_000), (0, 3 * CHUNK), (CHUNK, 2 * CHUNK), (2 * CHUNK, CHUNK), (2 * CHUNK + 5, 100)]:
        reader = SealedReader(io.BytesIO(bytes(data)), 0, KEY, PLACE)
        reader.seek(start)
        buffer = bytearray(b"-" * length)
        with pytest.raises(IntegrityError, match="E-SEAL-003"):
            reader.readinto(buffer)
        assert b"Ada" not in buffer
        assert reader.tell() == start, "a refused read moves nothing"


def test_what_was_read_before_a_refused_chunk_is_not_left_in_the_buffer_either() -> None:
    """Batches before the bad one were authentic, but the caller is told of none of them."""
    data = bytearray(sealed(b"Ada Lovelace" * 120_000))
    data[HEADER + 80 * (CHUNK + TAG) + 100] ^= 1
    reader, buffer = SealedReader(io.BytesIO(bytes(data)), 0, KEY, PLACE), bytearray(85 * CHUNK)
    with pytest.raises(IntegrityError, match="E-SEAL-003"):
        reader.readinto(buffer)
    assert b"Ada" not in buffer
    assert reader.tell() == 0


def test_a_read_goes_straight_into_the_callers_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = os.urandom(5 * CHUNK)
    reader = SealedReader(io.BytesIO(sealed(plain)), 0, KEY, PLACE)
    buffer = memoryview(bytearray(5 * CHUNK))
    targets = []
    real = type(reader._chunks).unseal

    def seen(self: object, index: int, source: list[memoryview], target: list[memoryview]) -> int:
        targets.extend(target[: len(source)])
        return real(self, index, source, target)  # type: ignore[arg-type]

    monkeypatch.setattr(type(reader._chunks), "unseal", seen)
    assert reader.readinto(buffer) == len(plain)
    assert buffer == plain
    assert len(targets) == 5
    assert all(target.obj is buffer.obj for target in targets)


def test_version_and_schema_are_part_of_the_place() -> None:
    place = SealContext("chat", "p", "protected", "v1", "s1")
    others = [SealContext("chat", "p", "protected", *rest) for rest in (("v2", "s1"), ("v1", "s2"), ("v1s1", ""), ("", "v1s1"))]
    data = sealed(b"rows", KEY, place.to_bytes())
    assert unsealed(data, KEY, place.to_bytes()) == b"rows"
    for other in others:
        assert refused(data, KEY, other.to_bytes()) == {"E-SEAL-001"}


def table() -> pa.Table:
    return pa.table({"n": list(range(60_000)), "text": [f"Ada Lovelace {n % 977}" for n in range(60_000)]})


def sealed_parquet(path: Path, write: Callable[[SealedWriter], object]) -> Callable[[], SealedReader]:
    with path.open("wb", buffering=0) as file, SealedWriter(file, KEY, PLACE) as writer:
        write(writer)
    assert b"Ada Lovelace" not in path.read_bytes()
    assert b"PAR1" not in path.read_bytes()
    return lambda: SealedReader(path.open("rb", buffering=0), 0, KEY, PLACE)


def writers() -> dict[str, Callable[[SealedWriter], object]]:
    import polars as pl
    import pyarrow.parquet as pq

    return {
        "pyarrow": lambda file: pq.write_table(table(), file, row_group_size=7_000),
        "polars": lambda file: pl.from_arrow(table()).write_parquet(file, row_group_size=7_000),  # type: ignore[union-attr]
        "polars, lazily": lambda file: pl.from_arrow(table()).lazy().sink_parquet(file),  # type: ignore[union-attr]
    }


@pytest.mark.parametrize("by", ["pyarrow", "polars", "polars, lazily"])
def test_pyarrow_and_polars_write_to_a_sealed_file_and_read_from_one(tmp_path: Path, by: str) -> None:
    import polars as pl
    import pyarrow.parquet as pq

    opened = sealed_parquet(tmp_path / "sealed", writers()[by])
    expected = pl.from_arrow(table())
    for wrapped in (lambda: opened(), lambda: io.BufferedReader(opened())):
        assert pl.from_arrow(pq.read_table(wrapped())).equals(expected)  # type: ignore[union-attr, arg-type]
        assert pq.read_table(wrapped(), columns=["n"]).column("n").to_pylist() == list(range(60_000))
        assert pl.read_parquet(wrapped(), columns=["text"]).equals(expected.select("text"))  # type: ignore[union-attr]
        found = pl.scan_parquet(wrapped()).filter(pl.col("n") >= 59_999).collect()
        assert found.rows() == [(59_999, expected["text"][59_999])]


def test_memory_stays_flat_whatever_the_length(tmp_path: Path) -> None:
    """In a child of its own, so that what the tests before it used does not hide the growth."""
    code = """
import os, sys
from privacy.seal import SealedReader, seal, unseal
key, place, folder = bytes(32), b"place", sys.argv[1]
def kib(field): return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(field))
with open(folder + "/plain", "wb") as f:
    os.truncate(f.fileno(), 300 << 20)
before = kib("VmRSS")
open("/proc/self/clear_refs", "w").write("5")  # the peak counts from here on
with open(folder + "/plain", "rb", buffering=0) as a, open(folder + "/sealed", "wb", buffering=0) as b: seal(a, b, key, place)
with open(folder + "/sealed", "rb", buffering=0) as a, open(os.devnull, "wb", buffering=0) as b: unseal(a, b, key, place)
reader, buffer = SealedReader(open(folder + "/sealed", "rb", buffering=0), 0, key, place), bytearray(1 << 20)
while reader.readinto(buffer): pass
print(kib("VmHWM") - before)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(root)}
    )
    assert int(done.stdout) < 64 * 1024

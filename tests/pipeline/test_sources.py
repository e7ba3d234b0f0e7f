"""Bounded, link-free reading."""

from __future__ import annotations

import gzip
import os
import time
import tracemalloc
import zlib
from pathlib import Path

import pytest
import zstandard

from pipeline import sources
from pipeline.sources import FileFault, open_beneath, plain_chunks, source_folder, survey
from privacy.errors import PrivetError
from privacy.policy import Source
from tests.worlds.chats import World, code_of
from tests.worlds.policies import make_policy


def source(*files: str, ratio: int = 200) -> Source:
    return make_policy(**{"source.files": list(files) or ["**"], "source.limits": {"max_decompression_ratio": ratio}}).source


def faults(folder: Path, *files: str, ratio: int = 200) -> dict[str, str | None]:
    return {f.name: f.fault for f in survey(folder, source(*files, ratio=ratio)).files}


def read(folder: Path) -> bytes:
    found = survey(folder, source())
    return b"".join(b"".join(plain_chunks(folder, f, source().limits)) for f in found.files if f.fault is None)


def bomb_gz(path: Path, size: int) -> None:
    engine = zlib.compressobj(9, zlib.DEFLATED, 31)
    with path.open("wb") as file:
        for _ in range(size >> 20):
            file.write(engine.compress(bytes(1 << 20)))
        file.write(engine.flush())


def test_both_codecs_give_back_what_was_compressed(world: World) -> None:
    data = os.urandom(300_000) + b"line\n" * 50_000
    world.write("a.gz", data)
    world.write("b.zst", zstandard.compress(data))
    assert read(world.source) == data * 2


def test_concatenated_members_and_zero_padding_are_one_file(world: World) -> None:
    world.write("a.bin", b"")
    (world.source / "a.gz").write_bytes(gzip.compress(b"one") + gzip.compress(b"two") + bytes(300_000))
    (world.source / "b.zst").write_bytes(zstandard.compress(b"three") + zstandard.compress(b"four"))
    assert read(world.source) == b"onetwothreefour"


@pytest.mark.parametrize("cut", [1, 4, 8, 20])
def test_a_truncated_file_is_not_taken_for_a_short_one(world: World, cut: int) -> None:
    data = os.urandom(50_000)
    (world.source / "a.gz").write_bytes(gzip.compress(data)[:-cut])
    (world.source / "b.zst").write_bytes(zstandard.ZstdCompressor(write_checksum=True).compress(data)[:-cut])
    assert set(faults(world.source).values()) == {"E-INGEST-152"}


def test_damage_in_the_middle_is_found_before_a_record_is_used(world: World) -> None:
    for name, data in (("a.gz", gzip.compress(os.urandom(50_000))), ("b.gz", gzip.compress(b"x" * 9) + b"junk")):
        damaged = bytearray(data)
        if name == "a.gz":
            damaged[25_000] ^= 1
        (world.source / name).write_bytes(damaged)
    assert faults(world.source) == {"a.gz": "E-INGEST-152", "b.gz": "E-INGEST-152"}


def test_a_gibibyte_bomb_stops_early_and_in_little_memory(world: World) -> None:
    bomb_gz(world.source / "bomb.gz", 1 << 28)
    blocks = zstandard.ZstdCompressor(level=3)
    with (world.source / "bomb.zst").open("wb") as file, blocks.stream_writer(file, closefd=False) as writer:
        for _ in range(1 << 10):
            writer.write(bytes(1 << 20))
    tracemalloc.start()
    began = time.process_time()
    assert set(faults(world.source).values()) == {"E-INGEST-153"}
    took = time.process_time() - began
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert took < 2.5
    assert peak < 64 << 20


def test_without_the_ratio_the_bomb_would_be_read_whole(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard above is what stops it: raise it, and the same file passes."""
    bomb_gz(world.source / "bomb.gz", 8 << 20)
    monkeypatch.setattr(sources, "RATIO_FLOOR", 1 << 10)
    assert faults(world.source) == {"bomb.gz": "E-INGEST-153"}
    assert faults(world.source, ratio=2000) == {"bomb.gz": None}


def test_links_fifos_and_folders_of_links_are_refused_not_followed(world: World, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.jsonl").write_text("x")
    (world.source / "link.jsonl").symlink_to(outside / "secret.jsonl")
    (world.source / "folder").symlink_to(outside)
    os.mkfifo(world.source / "pipe.jsonl")
    found = faults(world.source, "*", "folder/*", "**/*.jsonl")
    assert found == {"folder": "E-INGEST-150", "link.jsonl": "E-INGEST-150", "pipe.jsonl": "E-INGEST-150"}


def test_a_folder_swapped_for_a_link_after_listing_is_refused(world: World, tmp_path: Path) -> None:
    world.write("sub/a.jsonl", b"inside")
    found = survey(world.source, source("sub/*"))
    (world.source / "sub").rename(tmp_path / "moved")
    (world.source / "sub").symlink_to(tmp_path / "moved")
    with pytest.raises(FileFault) as caught:
        list(plain_chunks(world.source, found.files[0], source().limits))
    assert caught.value.code == "E-INGEST-150"


def test_a_folder_that_goes_away_is_a_reject_and_not_a_crash(world: World, tmp_path: Path) -> None:
    with pytest.raises(FileFault) as caught:
        open_beneath(tmp_path / "gone", "a.jsonl")
    assert caught.value.code == "E-INGEST-151"


def test_a_name_that_lies_about_its_compression_is_refused(world: World) -> None:
    (world.source / "a.gz").write_bytes(b'{"not": "gzip"}\n')
    (world.source / "b.jsonl").write_bytes(gzip.compress(b"x"))
    (world.source / "c.zst").write_bytes(gzip.compress(b"x"))
    (world.source / "d.gz").write_bytes(b"")
    assert faults(world.source) == {
        "a.gz": "E-INGEST-154",
        "b.jsonl": "E-INGEST-154",
        "c.zst": "E-INGEST-154",
        "d.gz": "E-INGEST-152",
    }


def test_patterns_stay_inside_their_folder_and_skip_dot_files(world: World) -> None:
    for name in ("a.jsonl", "truth/t.jsonl", "deep/er/b.jsonl", ".hidden.jsonl", "c.txt"):
        world.write(name, name.encode())
    assert list(faults(world.source, "*.jsonl")) == ["a.jsonl"]
    assert list(faults(world.source, "**/*.jsonl")) == ["a.jsonl", "deep/er/b.jsonl", "truth/t.jsonl"]
    assert list(faults(world.source, "truth/*", ".*")) == [".hidden.jsonl", "truth/t.jsonl"]


def test_the_digest_notices_names_bytes_and_faults(world: World) -> None:
    world.write("a", b"1")
    seen = {survey(world.source, source()).digest}
    world.write("a", b"2")
    seen.add(survey(world.source, source()).digest)
    (world.source / "a").rename(world.source / "b")
    seen.add(survey(world.source, source()).digest)
    (world.source / os.fsdecode(b"\xff\xfe")).write_bytes(b"3")  # a name that is not UTF-8 must not break the hash
    seen.add(survey(world.source, source()).digest)
    assert len(seen) == 4


def test_a_growing_log_is_read_as_surveyed_and_a_changed_one_is_refused(world: World) -> None:
    path = world.write("a.jsonl", b"one\n")
    file = survey(world.source, source()).files[0]
    path.write_bytes(b"one\ntwo\n")
    assert b"".join(plain_chunks(world.source, file, source().limits)) == b"one\n"
    path.write_bytes(b"eno\n")
    assert code_of(lambda: list(plain_chunks(world.source, file, source().limits))) == "E-INGEST-004"


@pytest.mark.parametrize(
    "uri", ["s3://bucket/x", "https://example.org/", "file://host/x", "/nowhere/at/all", "FTP://x", "a\0b"]
)
def test_only_local_folders_are_sources(uri: str) -> None:
    assert code_of(source_folder, uri) == "E-INGEST-005"


def test_a_file_uri_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "my logs").mkdir()
    assert source_folder(f"file://{tmp_path}/my%20logs") == (tmp_path / "my logs").resolve()


def test_the_same_bytes_twice_are_taken_once(world: World) -> None:
    world.write("a.jsonl", b"same")
    world.write("b.jsonl", b"same")
    assert faults(world.source) == {"a.jsonl": None, "b.jsonl": "E-INGEST-155"}
    assert issubclass(PrivetError, Exception)

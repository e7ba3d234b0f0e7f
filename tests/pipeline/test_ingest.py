"""Good records in, rejects sealed apart, nothing plain on disk, nothing half-committed."""

from __future__ import annotations

import errno
import gzip
import json
import os
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from pipeline.ingest import ingest, replay_quarantine
from pipeline.quarantine import Reject, read_quarantine
from pipeline.stage import StageResult
from pipeline.tables import read_batches
from privacy.errors import PrivetError
from tests.worlds.chats import PLANTED, World, code_of, lines, record, records

BAD: tuple[tuple[bytes, str], ...] = (
    (b'{"id": "b1"', "E-INGEST-104"),
    (b'{"id": "b2", "id": "b2"}', "E-INGEST-105"),
    (lines([record(1, id="b3", text="nul \x00")]).strip(), "E-INGEST-102"),
    (lines([record(1, id="b4", customer="")]).strip(), "E-INGEST-110"),
    (lines([record(1, id="b5", intent="other")]).strip(), "E-INGEST-113"),
    (lines([record(1, id="b6", text="")]).strip(), "E-INGEST-114"),
    (b'{"customer": "c"}', "E-INGEST-111"),
    (b"\xff\xfe", "E-INGEST-101"),
    (lines([record(1, id="m6")]).strip(), "E-INGEST-116"),
    (b"x" * 3000, "E-INGEST-103"),
)
LIMIT = {"source.limits": {"max_line_bytes": 2048}}


def rejects(world: World, result: StageResult) -> list[Reject]:
    return list(read_quarantine(world.home.store, result.manifest.outputs["quarantine"]))


def raw_rows(world: World, result: StageResult) -> list[dict[str, object]]:
    ref = result.manifest.outputs["raw"]
    return [row for batch in read_batches(world.home.store, ref) for row in batch.to_pylist()]


def test_every_kind_of_bad_line_is_kept_with_its_reason_and_stops_nobody(world: World) -> None:
    world.write("a.jsonl.gz", lines(records(20)) + b"\n".join(raw for raw, _ in BAD) + b"\n" + lines([record(99)]))
    result = ingest(world.context(**LIMIT), str(world.source))
    assert result.manifest.facts["records"] == 21
    assert result.manifest.facts["rejects"] == len(BAD)
    found = rejects(world, result)
    assert [r.code for r in found] == [code for _, code in BAD]
    assert [r.row.raw for r in found] == [raw[:2048] for raw, _ in BAD]
    assert [r.row.line for r in found] == list(range(21, 31))
    assert {r.file for r in found} == {"a.jsonl.gz"}
    assert all((r.file_digest or "").startswith("sha256:") for r in found)
    assert result.manifest.facts["rejects.E-INGEST-105"] == 1


def test_wrong_files_never_stop_the_good_ones(world: World, tmp_path: Path) -> None:
    world.write("good.jsonl", lines(records(7)))
    (world.source / "a-corrupt.jsonl.gz").write_bytes(gzip.compress(lines(records(500)))[:-12])
    (world.source / "b-format.jsonl.gz").write_bytes(b"plain\n")
    (world.source / "c-link.jsonl").symlink_to(tmp_path / "home" / "root.key")
    engine = zlib.compressobj(9, zlib.DEFLATED, 31)
    (world.source / "d-bomb.jsonl.gz").write_bytes(engine.compress(bytes(64 << 20)) + engine.flush())
    result = ingest(world.context(), f"file://{world.source}")
    facts = result.manifest.facts
    assert (facts["files"], facts["files_rejected"], facts["records"]) == (5, 4, 7)
    codes = ["E-INGEST-152", "E-INGEST-154", "E-INGEST-150", "E-INGEST-153"]
    assert [(r.code, r.is_file) for r in rejects(world, result)] == [(code, True) for code in codes]


@pytest.mark.parametrize("form", ["jsonl", "csv", "tsv", "parquet", "lines"])
@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_every_format_and_codec_gives_the_same_records(world: World, form: str, suffix: str) -> None:
    if form == "parquet" and suffix:
        pytest.skip("parquet compresses itself; a compressed parquet file is a reject")
    values = records(30)
    names = list(values[0])
    separator = {"csv": ",", "tsv": "\t", "lines": "|"}.get(form, "")
    changes: dict[str, object] = {"source.format": form, "source.files": ["*"]}
    if form == "jsonl":
        data = lines(values)
    elif form == "parquet":
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(values), sink)
        data = sink.getvalue().to_pybytes()
    else:
        quote = (lambda t: f'"{t}"') if form == "csv" else (lambda t: t)
        head = [] if form == "lines" else [separator.join(names)]
        data = "\n".join([*head, *(separator.join(quote(str(v[n])) for n in names) for v in values)]).encode()
        if form == "lines":
            changes["source.pattern"] = r"\|".join(f"(?P<{n}>[^|]*)" for n in names)
    if suffix == ".zst":
        data = zstandard.compress(data)
    world.write(f"file{suffix}", data)
    result = ingest(world.context(**changes), str(world.source))
    got = raw_rows(world, result)
    assert [(r["record_id"], r["subject"], r["text"], r["label"], r["keep.channel"]) for r in got] == [
        (v["id"], v["customer"], v["text"], v["intent"], v["channel"]) for v in values
    ]
    assert all(json.loads(r["original"])["customer"] == r["subject"] for r in got)  # type: ignore[arg-type]


def test_a_record_id_is_made_from_file_and_position_when_the_policy_names_none(world: World) -> None:
    world.write("a.jsonl", lines(records(3)))
    ids = [
        r["record_id"] for r in raw_rows(world, ingest(world.context(**{"source.fields.record_id": None}), str(world.source)))
    ]
    assert [str(i).rsplit(":", 1)[1] for i in ids] == ["1", "2", "3"]
    assert len({str(i).split(":")[0] for i in ids}) == 1


@pytest.mark.parametrize("files", [{}, {"other.txt": b"x"}, {"a.jsonl": b""}, {"a.jsonl": b"\n\n"}])
def test_an_empty_source_is_an_error_and_not_an_empty_success(world: World, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        world.write(name, data)
    assert code_of(ingest, world.context(), str(world.source)) == "E-INGEST-001"
    assert "stage" not in world.kinds()


def test_a_source_of_rejects_only_is_an_error_but_the_rejects_are_kept_and_replayed(world: World) -> None:
    world.write("a.jsonl", lines([record(n, intent="complaint") for n in range(4)]))
    for _ in range(2):  # a retry keeps one quarantine, not two
        with pytest.raises(PrivetError) as caught:
            ingest(world.context(), str(world.source))
        assert caught.value.code == "E-INGEST-002"
        assert "4 x E-INGEST-113" in caught.value.cause
    objects = [p.read_bytes() for p in (world.home.path / "objects").rglob("*") if p.is_file()]
    assert sum(data.startswith(b"PRIVETS1") for data in objects) == 1
    kept = [e.facts for e in world.home.journal.entries() if e.kind == "stage"]
    assert [f["stage"] for f in kept] == ["ingest_rejects"]
    mended = world.context(**{"expectations.labels": ["complaint", "refund"]})
    again = replay_quarantine(mended, str(kept[0]["manifest"]))
    assert again.manifest.facts["records"] == 4
    assert "quarantine" not in again.manifest.outputs
    assert str(kept[0]["manifest"]) in caught.value.remedy


@pytest.mark.parametrize("form", ["jsonl", "csv", "lines", "parquet"])
def test_a_replay_under_a_mended_policy_gives_the_records_a_fresh_ingest_would(world: World, form: str) -> None:
    values = [record(n, intent="complaint" if n % 3 else "refund") for n in range(9)]
    changes: dict[str, object] = {"source.format": form, "source.files": ["*"]}
    names = list(values[0])
    if form == "jsonl":
        world.write("f", lines(values))
    elif form == "parquet":
        pq.write_table(pa.Table.from_pylist(values), world.source / "f")
    else:
        text = ["\n".join("|".join(str(v[n]) for n in names) for v in values)]
        if form == "csv":
            text = [",".join(names), "\n".join(",".join(f'"{v[n]}"' for n in names) for v in values)]
        else:
            changes["source.pattern"] = r"\|".join(f"(?P<{n}>[^|]*)" for n in names)
        world.write("f", "\n".join(text).encode())
    first = ingest(world.context(**changes), str(world.source))
    assert (first.manifest.facts["records"], first.manifest.facts["rejects"]) == (3, 6)
    mended = world.context(**changes, **{"expectations.labels": ["complaint", "refund"]})
    replayed = raw_rows(world, replay_quarantine(mended, first.digest))
    fresh = raw_rows(world, ingest(mended, str(world.source)))
    by_id = {r["record_id"]: r for r in fresh}
    assert len(replayed) == 6
    assert all(by_id[r["record_id"]]["text"] == r["text"] for r in replayed)


def test_a_replay_that_mends_nothing_says_so_and_leaves_the_quarantine(world: World) -> None:
    world.write("a.jsonl", lines(records(3)) + b"broken\n")
    first = ingest(world.context(), str(world.source))
    assert code_of(replay_quarantine, world.context(), first.digest) == "E-INGEST-007"
    assert len(rejects(world, first)) == 1
    world.write("a.jsonl", lines(records(3)))
    clean = ingest(world.context(), str(world.source))
    assert code_of(replay_quarantine, world.context(), clean.digest) == "E-INGEST-006"
    world.home.store.shred(first.manifest.outputs["quarantine"])
    assert code_of(replay_quarantine, world.context(), first.digest) == "E-INGEST-008"


def test_the_record_limit_stops_the_run_and_commits_nothing(world: World) -> None:
    world.write("a.jsonl", lines(records(2500)))  # more than one batch, so that a sealed object was begun
    ctx = world.context(**{"source.limits": {"max_records": 2499}})
    assert code_of(ingest, ctx, str(world.source)) == "E-INGEST-003"
    assert "stage" not in world.kinds()
    assert [p for p in (world.home.path / "objects").rglob("*") if p.is_file()] == []
    whole = ingest(world.context(**{"source.limits": {"max_records": 2500}}), str(world.source))
    assert whole.manifest.facts["records"] == 2500


def test_rejects_count_towards_the_record_limit(world: World) -> None:
    world.write("a.jsonl", b"x\n" * 11)
    assert code_of(ingest, world.context(**{"source.limits": {"max_records": 10}}), str(world.source)) == "E-INGEST-003"


def test_running_again_finds_the_result_and_new_bytes_make_a_new_one(world: World) -> None:
    world.write("a.jsonl", lines(records(5)))
    first = ingest(world.context(), str(world.source))
    again = ingest(world.context("run-2"), str(world.source))
    assert (again.digest, again.reused) == (first.digest, True)
    world.write("b.jsonl", lines([record(77)]))
    assert ingest(world.context(), str(world.source)).digest != first.digest


def test_nothing_of_a_record_lies_in_the_home_in_the_clear(world: World) -> None:
    world.write("a.jsonl", lines([record(1, text=f"write to {PLANTED}", customer=PLANTED)]) + f"broken {PLANTED}\n".encode())
    (world.source / f"{PLANTED}.jsonl").write_bytes(b"")
    result = ingest(world.context(), str(world.source))
    assert result.manifest.facts["rejects"] == 1
    stored = world.objects_without_key()
    assert PLANTED.encode() not in stored
    assert b"mallory" not in stored
    assert PLANTED.encode() in b"".join(r.row.raw for r in rejects(world, result))  # it is there, sealed


def test_errors_never_quote_the_source(world: World) -> None:
    world.write(f"{PLANTED}.jsonl", lines([record(1, intent=PLANTED)]))
    with pytest.raises(PrivetError) as caught:
        ingest(world.context(), str(world.source))
    assert PLANTED not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_full_disk_leaves_nothing_half_written_and_the_next_run_continues(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.write("a.jsonl", lines(records(3000)))
    ctx, real, written = world.context(), os.write, 0

    def full(handle: int, data: bytes) -> int:
        nonlocal written
        written += len(data)
        if written > 20_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(handle, data)

    assert world.home.store is not None
    monkeypatch.setattr("pipeline.store.os.write", full)
    assert code_of(ingest, ctx, str(world.source)) == "E-STORE-010"
    monkeypatch.undo()
    assert [p for p in (world.home.path / "objects").rglob("*") if p.is_file()] == []
    assert ingest(ctx, str(world.source)).manifest.facts["records"] == 3000


def test_progress_is_told_and_holds_no_content(world: World) -> None:
    world.write("a.jsonl", lines(records(3)))
    seen: list[tuple[str, int, int]] = []
    ctx = world.context()
    told = type(ctx)(ctx.home, ctx.policy, ctx.policy_digest, ctx.run_id, ctx.requested_by, lambda *a: seen.append(a))
    ingest(told, str(world.source))
    assert seen[-1] == ("ingest files", 1, 1)

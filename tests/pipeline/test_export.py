"""The export: in the safe shape and proven so, without the erased, journalled first, and whole or not there at all."""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import stat
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest

from pipeline import export_process
from pipeline.cli import main
from pipeline.erase import erase
from pipeline.export import Export, export
from pipeline.export_process import ParquetProcess
from pipeline.home import Home
from pipeline.ingest import ingest
from pipeline.parquet_proof import prove_encrypted
from pipeline.protect import protect
from pipeline.read import read_protected
from pipeline.stage import StageResult
from pipeline.subject import answer
from privacy.canonical import Json
from privacy.errors import IntegrityError
from privacy.journal import Journal
from tests.worlds.chats import EmailDetector, World, code_of, lines, records
from tests.worlds.crashes import killed_at

KEY = bytes(range(32))
AAD = b"privet-export/1/chat/sha256:00/ff"


@pytest.fixture
def dataset(world: World) -> StageResult:
    world.write("chats.jsonl", lines(records(60)))
    ctx = world.context()
    return protect(ctx, ingest(ctx, str(world.source)).digest, EmailDetector())


def exported(world: World, dataset: StageResult, tmp_path: Path) -> Export:
    tmp_path.mkdir(exist_ok=True)
    return export(world.home, dataset.digest, tmp_path / "out", tmp_path / "export.key", "ada")


def opening(done: Export) -> tuple[bytes, bytes]:
    """Key and AAD prefix, as a reader takes them from key file and sidecar."""
    sidecar = json.loads(done.sidecar.read_bytes())
    return bytes.fromhex(done.key_file.read_text().strip()), sidecar["encryption"]["aad_prefix"].encode()


def test_pyarrow_and_polars_read_the_export_with_key_and_aad(world: World, dataset: StageResult, tmp_path: Path) -> None:
    done = exported(world, dataset, tmp_path)
    key, aad = opening(done)
    expected = read_protected(world.home, dataset.manifest)
    properties = pe.create_decryption_properties(key, aad_prefix=aad)
    assert pq.read_table(done.file, decryption_properties=properties).equals(expected)
    found = pl.read_parquet(done.file, decryption=pl.ParquetDecryptionProperties(footer_key=key, aad_prefix=aad))
    assert found.equals(pl.from_arrow(expected))  # type: ignore[arg-type]
    assert (done.rows, done.left_out) == (60, 0)
    assert stat.S_IMODE(done.key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(done.file.stat().st_mode) == 0o600
    data = done.file.read_bytes()
    assert (data[:4], data[-4:]) == (b"PARE", b"PARE")
    assert key not in data
    assert key.hex().encode() not in done.sidecar.read_bytes()
    assert sorted(p.name for p in done.file.parent.iterdir()) == sorted([done.file.name, done.sidecar.name])


def test_duckdb_can_not_read_it_as_the_sidecar_says(world: World, dataset: StageResult, tmp_path: Path) -> None:
    """The day it can, this fails, and the sidecar's table is due."""
    import duckdb

    done = exported(world, dataset, tmp_path)
    key, aad = opening(done)
    found = pq.read_table(done.file, decryption_properties=pe.create_decryption_properties(key, aad_prefix=aad))
    without_aad = tmp_path / "without_aad.parquet"
    pq.write_table(found, without_aad, encryption_properties=pe.create_encryption_properties(key))
    with duckdb.connect() as connection:
        connection.execute(f"PRAGMA add_parquet_key('k', '{base64.b64encode(key).decode()}')")

        def count(path: Path) -> list[tuple[int]]:
            return connection.sql(
                f"SELECT count(*) FROM read_parquet('{path}', encryption_config={{footer_key: 'k'}})"
            ).fetchall()

        assert count(without_aad) == [(60,)], "the key is given rightly; what is missing is the AAD prefix"
        with pytest.raises(duckdb.Error):
            count(done.file)
        assert connection.sql("SELECT count(*) FROM found").fetchall() == [(60,)]  # the way that the sidecar gives instead


def test_without_key_or_aad_nobody_reads_it(world: World, dataset: StageResult, tmp_path: Path) -> None:
    done = exported(world, dataset, tmp_path)
    key, aad = opening(done)
    other = exported(world, dataset, tmp_path / "again")
    for properties in (
        None,
        pe.create_decryption_properties(bytes(32), aad_prefix=aad),
        pe.create_decryption_properties(key),
        pe.create_decryption_properties(key, aad_prefix=opening(other)[1]),
    ):
        with pytest.raises(OSError):
            pq.read_table(done.file, decryption_properties=properties)
    shutil.copy(other.file, done.file)  # swapped for another export of the same rows
    with pytest.raises(OSError):
        pq.read_table(done.file, decryption_properties=pe.create_decryption_properties(key, aad_prefix=aad))
    plain = tmp_path / "plain.parquet"
    pq.write_table(read_protected(world.home, dataset.manifest), plain)
    with pytest.raises(OSError):  # a plaintext file put in its place
        pq.read_table(plain, decryption_properties=pe.create_decryption_properties(key, aad_prefix=aad))


def test_erased_units_are_not_in_the_export(world: World, dataset: StageResult, tmp_path: Path) -> None:
    before = set(read_protected(world.home, dataset.manifest)["unit"].to_pylist())
    erase(world.home, "customer-3", "DSAR-1", "ada")
    done = exported(world, dataset, tmp_path)
    key, aad = opening(done)
    properties = pe.create_decryption_properties(key, aad_prefix=aad)
    after = set(pq.read_table(done.file, decryption_properties=properties)["unit"].to_pylist())
    assert len(before - after) == 1
    assert (done.rows, done.left_out) == (48, 12)


def test_a_receipt_and_an_answer_name_the_exports_that_hold_the_person(
    world: World, dataset: StageResult, tmp_path: Path
) -> None:
    done = exported(world, dataset, tmp_path)
    assert len(answer(world.home, "customer-3", "SAR-1", "ada").exports) == 1
    (named,) = erase(world.home, "customer-3", "DSAR-1", "ada").exports
    assert (named.dataset, named.file) == (dataset.manifest.dataset, done.digest)
    assert "recipient" in named.remedy
    assert erase(world.home, "nobody", "DSAR-2", "ada").exports == ()
    assert answer(world.home, "nobody", "SAR-2", "ada").exports == ()


def test_an_erasure_during_the_export_stops_it(
    world: World, dataset: StageResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def erasing(*arguments: object, **named: object) -> object:
        erase(Home.open(world.home.path), "customer-3", "DSAR-1", "ada")
        return prove_encrypted(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr("pipeline.export.prove_encrypted", erasing)
    assert code_of(exported, world, dataset, tmp_path) == "E-EXPORT-006"
    assert left(tmp_path) == []
    assert "export" not in world.kinds()


def left(tmp_path: Path) -> list[str]:
    return [p.name for p in tmp_path.rglob("*") if p.is_file() and "home" not in p.parts and "source" not in p.parts]


def test_the_journal_has_the_export_before_anybody_sees_it(
    world: World, dataset: StageResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = exported(world, dataset, tmp_path)
    entry = next(e for e in world.home.journal.entries() if e.kind == "export")
    assert entry.facts["file"] == done.digest
    assert {name: entry.facts[name] for name in ("dataset", "manifest", "by", "rows", "left_out")} == {
        "dataset": "test_chat",
        "manifest": dataset.digest,
        "by": "ada",
        "rows": 60,
        "left_out": 0,
    }

    real = Journal.append

    def full(journal: Journal, kind: str, facts: Mapping[str, Json]) -> object:
        if kind == "export":
            raise OSError(28, "No space left on device")
        return real(journal, kind, facts)

    monkeypatch.setattr(Journal, "append", full)
    assert code_of(exported, world, dataset, tmp_path / "second") == "E-EXPORT-010"
    assert left(tmp_path / "second") == []


# --- how the other process may end


def child(tmp_path: Path, code: str) -> Callable[[pytest.MonkeyPatch], None]:
    script = tmp_path / "child.py"
    script.write_text(code)
    return lambda monkeypatch: monkeypatch.setattr(export_process, "CHILD", script)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os; os.abort()", "E-EXPORT-004"),
        ("import os, sys; sys.stdin.buffer.readline(); os.kill(os.getpid(), 11)", "E-EXPORT-004"),
        ("raise SystemExit(3)", "E-EXPORT-003"),
        ("import sys; sys.stdin.buffer.read(); sys.stderr.write('Ada Lovelace'); sys.exit(1)", "E-EXPORT-003"),
        ("import time; time.sleep(60)", "E-EXPORT-005"),
        ("import sys, time; sys.stdin.buffer.read(); time.sleep(60)", "E-EXPORT-005"),
        ("import sys; sys.stdin.buffer.read()", "E-EXPORT-008"),  # says it is done, and wrote nothing
    ],
)
def test_a_process_that_crashes_hangs_or_lies_leaves_nothing(
    world: World, dataset: StageResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    child(tmp_path, code)(monkeypatch)
    arguments = (world.home, dataset.digest, tmp_path / "out", tmp_path / "export.key", "ada")
    with pytest.raises(Exception, match=said) as caught:
        export(*arguments, limit_seconds=2.0 if said == "E-EXPORT-005" else 60.0)
    assert "Lovelace" not in str(caught.value)
    assert left(tmp_path) == ["child.py"]
    assert "export" not in world.kinds()


def test_a_writer_that_is_not_faithful_is_noticed(
    world: World, dataset: StageResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = export_process.CHILD.read_text()
    for change in (
        ("writer.write_batch(batch)", "writer.write_batch(batch.slice(1))"),
        ("accepted = []", 'accepted = ["no key"]'),
        ("writer.write_batch(batch)", "writer.write_batch(batch.take(list(reversed(range(batch.num_rows)))))"),
    ):
        assert real.count(change[0]) == 1
        child(tmp_path, real.replace(*change))(monkeypatch)
        assert code_of(exported, world, dataset, tmp_path) == "E-EXPORT-009"
        assert left(tmp_path) == ["child.py"]


@pytest.mark.parametrize(
    "change",
    [
        ('"AES_GCM_V1"', '"AES_GCM_CTR_V1"'),
        ('"store_aad_prefix": False', '"store_aad_prefix": True'),
        ('"plaintext_footer": False', '"plaintext_footer": True'),
        ("encryption_properties=properties", "encryption_properties=None"),
    ],
)
def test_a_writer_that_encrypts_in_another_shape_is_noticed(
    world: World, dataset: StageResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: tuple[str, str]
) -> None:
    real = export_process.CHILD.read_text()
    assert real.count(change[0]) == 1
    child(tmp_path, real.replace(*change))(monkeypatch)
    assert code_of(exported, world, dataset, tmp_path) == "E-EXPORT-008"
    assert left(tmp_path) == ["child.py"]


def test_the_key_is_in_no_argument_and_no_environment(
    world: World, dataset: StageResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = export_process.CHILD.read_text()
    seen = tmp_path / "seen"
    spy = f"open({str(seen)!r}, 'ab').write(open('/proc/self/cmdline','rb').read() + open('/proc/self/environ','rb').read())\n"
    child(tmp_path, real.replace("def main() -> int:\n", f"def main() -> int:\n    {spy}"))(monkeypatch)
    done = exported(world, dataset, tmp_path)
    key, _ = opening(done)
    assert key.hex().encode() not in seen.read_bytes()
    assert sys.executable.encode() in seen.read_bytes()


def test_the_process_leaves_no_core_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = export_process.CHILD.read_text()
    spy = "import resource as r; sys.stdout.write(str(r.getrlimit(r.RLIMIT_CORE)))"
    child(tmp_path, real.replace("    accepted = []\n", f"    {spy}; return\n"))(monkeypatch)
    assert ParquetProcess("refusals", tmp_path / "x", KEY, AAD, 1, 30.0).answer() == b"(0, 0)"


@pytest.mark.slow
def test_killed_at_any_step_there_is_no_export_or_a_whole_one(world: World, dataset: StageResult, tmp_path: Path) -> None:
    def work(folder: Path) -> Callable[[], object]:
        return lambda: export(Home.open(world.home.path), dataset.digest, folder / "out", folder / "k", "ada")

    whole, columns = 0, read_protected(world.home, dataset.manifest).num_columns
    for step in range(1000):
        folder = tmp_path / f"{step}"
        folder.mkdir()
        killed = killed_at(step, work(folder))
        for file in (folder / "out").glob("*.parquet") if (folder / "out").exists() else ():
            whole += 1
            done = Export(file, file.with_suffix(".json"), folder / "k", "", 0, 0, 0)
            key, aad = opening(done)
            assert prove_encrypted(file, key, aad, columns).rows == 60
        if not killed:
            break
    assert whole >= 2
    assert step > 15


# --- what is refused before anything happens


def test_a_key_beside_the_data_or_over_a_file_is_refused(world: World, dataset: StageResult, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("precious")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    out = tmp_path / "out"
    for key_file in (there, link, out / "k", out / "deep" / "k", tmp_path / "none" / "k"):
        assert code_of(export, world.home, dataset.digest, out, key_file, "ada") == "E-EXPORT-002"
    assert there.read_text() == "precious"
    assert not out.exists()


def test_only_a_dataset_and_only_a_name_is_taken(world: World, dataset: StageResult, tmp_path: Path) -> None:
    ingested = dataset.manifest.inputs["ingest"]
    out, key = tmp_path / "out", tmp_path / "k"
    assert code_of(export, world.home, ingested, out, key, "ada") == "E-READ-001"
    for name in ("", "Ada Lovelace", "-x", "a" * 65, "ada\n"):
        assert code_of(export, world.home, dataset.digest, out, key, name) == "E-EXPORT-001"
    world.home.store.shred(dataset.manifest.outputs["protected"])
    assert code_of(export, world.home, dataset.digest, out, key, "ada") == "E-READ-002"
    assert left(tmp_path) == []


def test_a_dataset_of_erased_subjects_only_is_not_exported(world: World, dataset: StageResult, tmp_path: Path) -> None:
    for number in range(5):
        erase(world.home, f"customer-{number}", f"DSAR-{number}", "ada")
    assert code_of(exported, world, dataset, tmp_path) == "E-EXPORT-007"


def test_the_command_says_what_it_wrote(
    world: World, dataset: StageResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["export", dataset.digest, "--to", str(tmp_path / "out"), "--key-file", str(tmp_path / "k"), "--as", "ada"]
    assert main([*arguments, "--home", str(world.home.path)]) == 0
    assert "wrote 60 rows" in capsys.readouterr().out
    assert main([*arguments, "--home", str(world.home.path)]) == 2, "the key file is there now"
    assert "E-EXPORT-002" in capsys.readouterr().err


# --- the proof itself, against files that other means made


def rows() -> pa.Table:
    return pa.table({"unit": [f"u{n % 50}" for n in range(5000)], "n": list(range(5000)), "gap": [None, 1.5] * 2500})


def written(path: Path, **changes: object) -> Path:
    shape = {"aad_prefix": AAD, "store_aad_prefix": False, "encryption_algorithm": "AES_GCM_V1", **changes}
    pq.write_table(rows(), path, encryption_properties=pe.create_encryption_properties(KEY, **shape), row_group_size=2000)
    return path


def proof_of(path: Path, key: bytes = KEY, aad: bytes = AAD, columns: int = 3) -> str:
    try:
        return f"{prove_encrypted(path, key, aad, columns).rows} rows"
    except IntegrityError as error:
        return error.cause.split(": ", 1)[1]


def test_the_proof_tells_each_unsafe_shape_by_name(tmp_path: Path) -> None:
    path = tmp_path / "f"
    assert proof_of(written(path)) == "5000 rows"
    assert proof_of(path, columns=4) == "it has other columns than were written"
    for wrong in (proof_of(path, key=bytes(32)), proof_of(path, aad=AAD + b"x"), proof_of(path, aad=b"")):
        assert wrong == "a part of it can't be authenticated or is malformed"
    assert "AES_GCM_V1" in proof_of(written(path, encryption_algorithm="AES_GCM_CTR_V1"))
    assert "AAD prefix" in proof_of(written(path, store_aad_prefix=True))
    assert "AAD prefix" in proof_of(written(path, aad_prefix=None))
    assert "footer" in proof_of(written(path, plaintext_footer=True))
    pq.write_table(rows(), path)
    assert "footer" in proof_of(path)
    partly = pl.ParquetEncryptionProperties(footer_key=KEY, column_keys={"unit": KEY}, aad_prefix=AAD)
    pl.from_arrow(rows()).write_parquet(path, encryption=partly, statistics=False)  # type: ignore[union-attr]
    assert "a column is not encrypted" in proof_of(path)


def test_no_byte_of_an_exported_file_is_free(tmp_path: Path) -> None:
    path = written(tmp_path / "f")
    data, rng = path.read_bytes(), random.Random(3)
    for position in [*range(100), *rng.sample(range(len(data)), 300), *range(len(data) - 300, len(data))]:
        altered = bytearray(data)
        altered[position] ^= 1 << rng.randrange(8)
        path.write_bytes(altered)
        assert "rows" not in proof_of(path), position
    for size in [0, 3, 4, 8, 100, len(data) // 2, len(data) - 1]:
        path.write_bytes(data[:size])
        assert "rows" not in proof_of(path), size
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for position in (4, footer):
        path.write_bytes(data[:position] + os.urandom(40) + data[position:])
        assert "rows" not in proof_of(path)

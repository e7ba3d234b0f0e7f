"""Exports a protected dataset as encrypted Parquet that other tools read: journalled, proven, and without the erased.

Guarantee: the file is in the one safe shape of Parquet Modular Encryption (AES_GCM_V1, AAD prefix outside the file, footer
and every column encrypted), which is proven on the bytes before it gets its name (`pipeline.parquet_proof`), and it reads
back as what was written; rows of erased units are not in it; the journal has the export before anybody can see the file;
the key is in a new 0600 file only, elsewhere than the data. Cut short at any step there is no file, or the whole one.
Assumption: whoever gets file, key and AAD answers for them from then on. Not covered: an erasure reaches no copy that has
left; the journal names the dataset of each export, so that whoever has it can be told.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.export_process import ParquetProcess
from pipeline.parquet_proof import prove_encrypted
from pipeline.read import read_protected
from pipeline.stage import Manifest, load_manifest
from pipeline.store_files import sync_folder
from privacy.canonical import Digest, Json
from privacy.errors import DataError, EnvironmentFault, IntegrityError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.home import Home

KIND = "export"
LIMIT_SECONDS = 1800.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}")
_GROUP_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class Export:
    """What was written. `left_out`: rows of the dataset that belong to erased units."""

    file: Path
    sidecar: Path
    key_file: Path
    digest: Digest
    size: int
    rows: int
    left_out: int


def export(
    home: Home, manifest_digest: Digest, folder: Path, key_file: Path, by: str, limit_seconds: float = LIMIT_SECONDS
) -> Export:
    """Write the dataset of a protect manifest into `folder`, and a fresh key into `key_file`.

    by: who exports; kept in the journal. Raises UsageError E-EXPORT-001 (name), E-EXPORT-002 (key file), E-READ-001,
    DataError E-READ-002, E-EXPORT-006 (an erasure came between), E-EXPORT-007 (no rows), EnvironmentFault E-EXPORT-003 to
    005 and 010 (the process that writes, the disk), IntegrityError E-EXPORT-008 and 009 (not encrypted as it must be).
    """
    if not _NAME.fullmatch(by):
        raise UsageError(
            "E-EXPORT-001",
            "the name of who exports has characters outside [A-Za-z0-9._:/-] or is longer than 64",
            "Give an account name; it stays in the journal for good",
        )
    _check_key_file(folder, key_file)
    manifest = load_manifest(home, manifest_digest)
    table = read_protected(home, manifest)
    if not table.num_rows:
        raise DataError("E-EXPORT-007", "no row is left to export: all belong to erased subjects", "Export another dataset")
    run = os.urandom(8).hex()
    aad = f"privet-export/1/{manifest.dataset}/{manifest_digest}/{run}".encode()
    work = _Work(home, manifest, manifest_digest, table, os.urandom(32), aad, limit_seconds)
    name = f"{re.sub('[^A-Za-z0-9._-]', '_', manifest.dataset)}-{manifest_digest[7:19]}-{run}"
    with _disk_faults(), _scratch(folder, name) as scratch:
        work.write(scratch)
        work.verify(scratch)
        return work.publish(scratch, folder / f"{name}.parquet", key_file, by)


@dataclass(frozen=True)
class _Work:
    home: Home
    manifest: Manifest
    manifest_digest: Digest
    table: pa.Table
    key: bytes
    aad: bytes
    limit_seconds: float

    def write(self, path: Path) -> None:
        self._process("write", path).feed(self.table.schema, self.batches())

    def verify(self, path: Path) -> None:
        """By our own reading of the format, then by the library: with the key the same rows, without it none."""
        proof = prove_encrypted(path, self.key, self.aad, self.table.num_columns)
        accepted = self._process("refusals", path).answer()
        if json.loads(accepted) != [] or proof.rows != self.table.num_rows:
            raise _not_faithful()
        expected = self.batches()
        for found in self._process("read", path).rows():
            if not found.equals(next(expected, None)):
                raise _not_faithful()
        if next(expected, None) is not None:
            raise _not_faithful()

    def publish(self, scratch: Path, target: Path, key_file: Path, by: str) -> Export:
        """Journal, key, sidecar, and the data last: whoever sees the data finds the rest."""
        digest, size = _digest_of(scratch), scratch.stat().st_size
        total = self.manifest.facts.get("records")
        left_out = max(0, total - self.table.num_rows) if isinstance(total, int) else 0
        done = Export(target, target.with_suffix(".json"), key_file, digest, size, self.table.num_rows, left_out)
        at = datetime.now(UTC).isoformat(timespec="seconds")
        self._refuse_if_erased_meanwhile()
        self.home.journal.append(KIND, self._facts(done, by))
        made: list[Path] = []
        try:
            _write_new(key_file, self.key.hex().encode() + b"\n", 0o600)
            made.append(key_file)
            _write_new(done.sidecar, _sidecar(done, self, by, at), 0o644)
            made.append(done.sidecar)
            scratch.rename(target)
        except BaseException:
            for path in made:
                path.unlink(missing_ok=True)
            raise
        sync_folder(target.parent)
        return done

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Each is one row group of the file, whatever the pieces that the dataset was read in."""
        for start in range(0, self.table.num_rows, _GROUP_ROWS):
            yield from self.table.slice(start, _GROUP_ROWS).combine_chunks().to_batches()

    def _process(self, work: str, path: Path) -> ParquetProcess:
        return ParquetProcess(work, path, self.key, self.aad, self.table.num_rows, self.limit_seconds)

    def _refuse_if_erased_meanwhile(self) -> None:
        erased = self.home.vault.erased_tokens(self.manifest.dataset)
        if erased and not erased.isdisjoint(self.table["unit"].unique().to_pylist()):
            raise DataError("E-EXPORT-006", "a subject was erased while their rows were being exported", "Run the export again")

    def _facts(self, done: Export, by: str) -> dict[str, Json]:
        return {
            "dataset": self.manifest.dataset,
            "manifest": self.manifest_digest,
            "policy": self.manifest.policy_digest,
            "by": by,
            "rows": done.rows,
            "left_out": done.left_out,
            "bytes": done.size,
            "file": done.digest,
            "aad": self.aad.decode(),
        }


def _sidecar(done: Export, work: _Work, by: str, at: str) -> bytes:
    """What a reader needs beside the key, and what it may expect; no secret and nothing of a person."""
    value = {
        "privet_export": 1,
        "file": done.file.name,
        "file_digest": done.digest,
        "rows": done.rows,
        "rows_left_out_as_erased": done.left_out,
        "dataset": work.manifest.dataset,
        "manifest": work.manifest_digest,
        "exported_by": by,
        "exported_at": at,
        "encryption": {
            "algorithm": "AES_GCM_V1, 256-bit key",
            "key": f"32 bytes in hex in the key file ({done.key_file.name}), for footer and all columns",
            "aad_prefix": work.aad.decode(),
            "aad_prefix_stored_in_file": False,
            "footer": "encrypted",
        },
        "readers": READERS,
        "duties": "Erasures after the export do not reach this copy. Keep key and data apart, and delete both when done.",
    }
    return json.dumps(value, indent=2, sort_keys=True).encode() + b"\n"


# What was tried, by tests/pipeline/test_export.py, and what was not.
READERS = {
    "pyarrow 26": {
        "reads": "yes, tested",
        "how": "pq.read_table(FILE, decryption_properties=pyarrow.parquet.encryption."
        "create_decryption_properties(KEY, aad_prefix=AAD))",
    },
    "polars 2.1": {
        "reads": "yes, tested (polars calls this interface unstable)",
        "how": "pl.read_parquet(FILE, decryption=pl.ParquetDecryptionProperties(footer_key=KEY, aad_prefix=AAD))",
    },
    "DuckDB 2.0": {
        "reads": "no, tested: it takes no AAD prefix",
        "how": "read it with pyarrow into ROWS, then query those: duckdb.sql('SELECT ... FROM ROWS')",
    },
    "Spark (parquet-java 1.12 or later)": {
        "reads": "not tested here",
        "how": "a DecryptionPropertiesFactory that returns FileDecryptionProperties.builder()"
        ".withFooterKey(KEY).withAADPrefix(AAD).build(), named in parquet.crypto.factory.class",
    },
}


def _check_key_file(folder: Path, key_file: Path) -> None:
    fault = None
    if key_file.exists() or key_file.is_symlink():
        fault = "the key file is there already, and keys are never overwritten"
    elif folder.resolve() in key_file.resolve().parents:
        fault = "the key file would lie beside the data that it opens"
    elif not key_file.resolve().parent.is_dir():
        fault = "the folder of the key file does not exist"
    if fault is not None:
        raise UsageError("E-EXPORT-002", fault, "Name a new file in a folder of its own, with --key-file")


@contextmanager
def _scratch(folder: Path, name: str) -> Iterator[Path]:
    """An owner-only file that is gone at the end of the block, unless it was given its name."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f".{name}.part"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _write_new(path: Path, data: bytes, mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise
    sync_folder(path.parent)


def _digest_of(path: Path) -> Digest:
    import hashlib

    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _disk_faults() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EnvironmentFault(
            "E-EXPORT-010",
            f"the export can't be written ({error.strerror}); nothing half-written was kept",
            "Free some space, or name folders that you own; then run it again",
        ) from None


def _not_faithful() -> IntegrityError:
    return IntegrityError(
        "E-EXPORT-009",
        "the exported file opens without its key, or does not read back as what was written",
        "Nothing was exported; report this with the version of pyarrow",
    )

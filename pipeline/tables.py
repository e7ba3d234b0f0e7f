"""Sealed Parquet tables, written and read in batches: rows exist in plaintext in memory only.

Guarantee: a table that was abandoned (any exception) leaves no object; one without rows leaves none either; a table
is read only when its columns are those it was sealed with.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING

from pipeline.stage import ArtifactRef
from privacy.canonical import Digest, digest_of
from privacy.errors import IntegrityError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pipeline.store import SealedSink, Store

BATCH_ROWS = 2048
_BATCH_BYTES = 8 * 1_048_576


class SealedTable:
    """Writes rows to one sealed Parquet object, opened at the first row; `ref` is None until then and when empty.

    version: digest of what the rows are made from.
    """

    def __init__(self, store: Store, schema: pa.Schema, *, dataset: str, path: str, data_class: str, version: str) -> None:
        self._store = store
        self._schema = schema
        self._place = {
            "dataset": dataset,
            "path": path,
            "data_class": data_class,
            "version": version,
            "schema": schema_digest(schema),
        }
        self._rows: list[Mapping[str, object]] = []
        self._bytes = 0
        self._stack = ExitStack()
        self._sink: SealedSink | None = None
        self._writer: pq.ParquetWriter | None = None
        self.ref: ArtifactRef | None = None
        self.rows = 0

    def append(self, row: Mapping[str, object], size: int) -> None:
        """size: rough bytes of the row, so that big rows are flushed early."""
        self._rows.append(row)
        self._bytes += size
        self.rows += 1
        if len(self._rows) >= BATCH_ROWS or self._bytes >= _BATCH_BYTES:
            self._flush()

    def __enter__(self) -> SealedTable:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            self._abandon(kind, error, trace)
            return
        try:
            self._flush()
            if self._writer is not None:
                self._writer.close()
        except BaseException:
            self._abandon(*sys.exc_info())
            raise
        self._stack.close()
        self.ref = self._sink.ref if self._sink is not None else None

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._rows:
            return
        if self._writer is None:
            self._sink = self._stack.enter_context(self._store.sealed_writer(**self._place))
            self._writer = pq.ParquetWriter(self._sink, self._schema, compression="zstd")
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows, self._bytes = [], 0

    def _abandon(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # The writer's footer goes to a sink that is thrown away; closing it now keeps its destructor quiet.
        with suppress(Exception):
            if self._writer is not None:
                self._writer.close()
        with suppress(BaseException):
            self._stack.__exit__(kind, error, trace)


def read_batches(store: Store, ref: ArtifactRef, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Batches of a sealed table. Raises IntegrityError (E-STORE, E-SEAL codes) when it is not what was written."""
    with open_table(store, ref) as file:
        yield from file.iter_batches(BATCH_ROWS, columns=list(columns) if columns is not None else None, use_threads=False)


@contextmanager
def open_table(store: Store, ref: ArtifactRef) -> Iterator[pq.ParquetFile]:
    """A sealed table, as a Parquet file. Raises the codes of the store, and IntegrityError E-STORE-020."""
    import pyarrow.parquet as pq

    with store.open_sealed(ref) as file, pq.ParquetFile(file) as table:
        if ref.schema and schema_digest(table.schema_arrow) != ref.schema:
            raise IntegrityError(
                "E-STORE-020",
                "the columns of a sealed table are not those that it was sealed for",
                "Report this as a defect of the stage that wrote it; run that stage again",
            )
        yield table


def schema_digest(schema: pa.Schema) -> Digest:
    """Over names, types and nullability, in order; the same whatever library or version serialises the schema."""
    return digest_of([[field.name, str(field.type), field.nullable] for field in schema])

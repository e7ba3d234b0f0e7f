"""Rejects, sealed with all that a replay needs: raw bytes, file digest, line, header, reason code.

Guarantee: a row that ingest could not use is kept encrypted until its retention ends, and can be parsed again under a
mended policy. Of a file that was refused as a whole only name, digest and code are kept; its bytes stay where they are.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from pipeline.readers import Row
from pipeline.sources import SurveyedFile
from pipeline.stage import ArtifactRef, Manifest
from pipeline.tables import SealedTable, read_batches
from privacy.canonical import Digest, Scalar
from privacy.tokens import normal_text

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.store import Store

DATA_CLASS = "quarantine"


@dataclass(frozen=True, slots=True)
class Reject:
    """One quarantined row; `raw` is empty for a file that was refused whole."""

    code: str
    file: str
    file_digest: Digest | None
    row: Row

    @property
    def is_file(self) -> bool:
        return self.row.line == 0


class Quarantine:
    """Collects the rejects of one run; `ref` after the block is the sealed table, None when there were none."""

    def __init__(self, store: Store, dataset: str, path: str, version: Digest) -> None:
        self._table = SealedTable(store, _schema(), dataset=dataset, path=path, data_class=DATA_CLASS, version=version)
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> Quarantine:
        self._table.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._table.__exit__(kind, error, trace)

    @property
    def ref(self) -> ArtifactRef | None:
        return self._table.ref

    @property
    def rows(self) -> int:
        return self._table.rows

    def add(self, reject: Reject) -> None:
        row = reject.row
        self.counts[reject.code] += 1
        self._table.append(
            {
                "code": reject.code,
                "file": os.fsencode(reject.file),
                "file_digest": reject.file_digest,
                "line": row.line,
                "raw": row.raw,
                "header": row.header,
                "cut": row.cut,
            },
            len(row.raw) + len(row.header or b"") + 200,
        )

    def add_file(self, file: SurveyedFile, code: str) -> None:
        self.add(Reject(code, file.name, file.digest, Row(0, b"", code=code)))

    def facts(self) -> dict[str, Scalar]:
        """Counts by reason code."""
        return {f"rejects.{code}": count for code, count in sorted(self.counts.items())}


def read_quarantine(store: Store, ref: ArtifactRef) -> Iterator[Reject]:
    for batch in read_batches(store, ref):
        for v in batch.to_pylist():
            row = Row(v["line"], v["raw"], code=v["code"], header=v["header"], cut=v["cut"])
            yield Reject(v["code"], os.fsdecode(v["file"]), v["file_digest"], row)


def quarantine_of(manifest: Manifest) -> ArtifactRef | None:
    return manifest.outputs.get("quarantine")


def names_subject(reject: Reject, spelled: re.Pattern[str]) -> bool:
    """Whether the raw bytes or the file's name spell the subject (`privacy.tokens.spelled_anywhere`) in any way that ingest
    would have taken for the same unit; broken bytes can hide it."""
    texts = (reject.row.raw.decode("utf-8", "replace"), os.fsencode(reject.file).decode("utf-8", "replace"))
    return any(spelled.search(normal_text(text)) for text in texts)


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        [
            ("code", pa.string()),
            ("file", pa.binary()),
            ("file_digest", pa.string()),
            ("line", pa.int64()),
            ("raw", pa.binary()),
            ("header", pa.binary()),
            ("cut", pa.bool_()),
        ]
    )

"""The only way to read a protected dataset: rows of erased units never come out.

Guarantee: a unit with a tombstone is absent from what is returned, from the moment its erasure is recorded, however
old the manifest is. Assumption: the caller keeps no copy of what an earlier reading returned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.relocate import current
from pipeline.stage import ArtifactRef, Manifest
from pipeline.tables import open_table
from privacy.errors import DataError, IntegrityError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.home import Home


def read_protected(home: Home, manifest: Manifest) -> pa.Table:
    """Columns unit, record_id, time (date32), lang, text, label and the kept fields; one row a record.

    Raises UsageError E-READ-001 (not a protect manifest), DataError E-READ-002 (destroyed), and the integrity errors
    of the store when the object is not what was written.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    ref = protected_ref(home, manifest)
    try:
        table = _rows(home, ref)
    except IntegrityError:
        moved = protected_ref(home, manifest)
        if moved == ref:
            raise
        table = _rows(home, moved)  # an epoch ended while we read: the old copy went, the new one is there
    erased = home.vault.erased_tokens(manifest.dataset)
    if not erased:
        return table
    gone = pc.is_in(table["unit"], value_set=pa.array(sorted(erased), pa.string()))
    return table.filter(pc.invert(gone))


def protected_ref(home: Home, manifest: Manifest) -> ArtifactRef:
    """Where the protected rows lie. Raises UsageError E-READ-001, DataError E-READ-002."""
    ref = manifest.outputs.get("protected")
    if manifest.stage != "protect" or ref is None:
        raise UsageError("E-READ-001", "that manifest is not of a protected dataset", "Give the digest that protect returned")
    ref = current(home, ref)
    if not home.store.exists(ref):
        raise DataError(
            "E-READ-002", "the protected dataset was destroyed, by retention or by hand", "Run ingest and protect again"
        )
    return ref


def _rows(home: Home, ref: ArtifactRef) -> pa.Table:
    with open_table(home.store, ref) as file:
        return file.read(use_threads=False)

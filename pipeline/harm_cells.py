"""Holdout records with the value that a declared field has for them: the rows that groups are compared by.

Guarantee: a value is shown only as the protected dataset has it; one in which something was de-identified is never a group of
its own, and a field with more values than a closed vocabulary has is refused. Rows that do not fit the units under audit are an
error, never a comparison of the wrong people.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.stage import StageContext, load_manifest
from privacy.canonical import Digest
from privacy.errors import DataError, IntegrityError

if TYPE_CHECKING:
    from training.data import UnitData

EMPTY, TREATED = "(none)", "(de-identified)"
_PLACEHOLDER = re.compile(r"<[A-Za-z][A-Za-z_]*(?:_[0-9a-f]{4,})?>")
_LONGEST = 80

Values = npt.NDArray[np.object_]


def values_of(ctx: StageContext, protect_digest: Digest, holdout: UnitData, names: Sequence[str]) -> dict[str, Values]:
    """By field: object [units, max_records], the value of each record, "" where there is no record.

    Raises DataError E-HARM-001 for a field that is no closed vocabulary, IntegrityError E-HARM-002 when the protected rows are
    not those of the units, DataError E-HARM-003 when one of them was erased meanwhile.
    """
    import pyarrow.compute as pc

    from pipeline.read import read_protected

    table = read_protected(ctx.home, load_manifest(ctx.home, protect_digest))
    table = table.filter(pc.is_in(table["unit"], value_set=_strings(holdout.units)))
    if len(set(table["unit"].to_pylist())) != len(holdout):
        raise DataError(
            "E-HARM-003", "a unit was erased while groups were compared", "Run the audit again; it looks at who is left"
        )
    where = _places(ctx, holdout, table["unit"].to_pylist(), table["record_id"].to_pylist(), table["label"].to_pylist())
    found: dict[str, Values] = {}
    for name in names:
        values: Values = np.full(holdout.labels.shape, "", dtype=object)
        for (row, column), value in zip(where, table[name].to_pylist(), strict=True):
            if row >= 0:
                values[row, column] = _shown(str(value or ""))
        _refuse_open_vocabulary(name, values)
        found[name] = values
    return found


def _places(
    ctx: StageContext, holdout: UnitData, units: Sequence[str], ids: Sequence[str], labels: Sequence[str]
) -> list[tuple[int, int]]:
    """(unit, record) of each row in the arrays of the units, by the keyed rule that made them; (-1, -1) of one left out."""
    from training.data import IGNORED, Record, bounded_records

    policy = ctx.policy
    key = ctx.home.keyring.derive(f"{policy.dataset}/training", "contribution bound")
    rows = [Record(unit, record, "", label) for unit, record, label in zip(units, ids, labels, strict=True)]
    grouped = bounded_records(rows, policy.privacy_unit.max_records, key)
    at: dict[tuple[str, str], tuple[int, int]] = {}
    index = {label: number for number, label in enumerate(policy.expectations.labels)}
    for row, unit in enumerate(holdout.units):
        chosen = grouped.get(unit, [])
        wanted = [int(label) for label in holdout.labels[row] if label != IGNORED]
        if [index.get(record.label) for record in chosen] != wanted:
            raise IntegrityError(
                "E-HARM-002", "the protected rows are not those of the units under audit", "Run protect and train again"
            )
        at |= {(unit, record.record_id): (row, column) for column, record in enumerate(chosen)}
    return [at.get((unit, record), (-1, -1)) for unit, record in zip(units, ids, strict=True)]


def _shown(value: str) -> str:
    if not value.strip():
        return EMPTY
    return TREATED if _PLACEHOLDER.search(value) else value.strip()


def _refuse_open_vocabulary(name: str, values: Values) -> None:
    from training.harm_groups import MOST_VALUES

    distinct = set(values.ravel().tolist())
    if len(distinct) > MOST_VALUES or any(len(value) > _LONGEST for value in distinct):
        raise DataError(
            "E-HARM-001",
            f"the field {name} has over {MOST_VALUES} values, or long ones: it is no closed vocabulary to compare people by",
            "Take it out of audit.harm.groups, or make its values coarser in the source",
        )


def _strings(names: Sequence[str]) -> object:
    import pyarrow as pa

    return pa.array(list(names), pa.string())

"""From de-identified records to privacy units: a unit holds at most `max_records` records, chosen by a keyed rule.

Guarantee: nothing is fitted. Features are hashed by a public function, labels come from the policy, and whether a record
or a unit is used depends on a secret key and its own identifier only, never on any other record.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from privacy.errors import DataError

IGNORED = -100  # label of an absent record; cross entropy skips it
_CJK = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_PIECE = re.compile(
    r"<([A-Za-z][A-Za-z_]*?)(?:_[0-9a-f]{4,})?>"  # the placeholder of a de-identified value
    rf"|([{_CJK}]+)|(\d+)|([^\W\d_{_CJK}]+(?:'[^\W\d_{_CJK}]+)?)"
)


@dataclass(frozen=True, slots=True)
class Record:
    """One de-identified record. `unit` is the keyed pseudonym of the privacy unit; `image` is grey pixels, row by row."""

    unit: str
    record_id: str
    text: str
    label: str
    image: bytes | None = None


@dataclass(frozen=True, slots=True)
class UnitData:
    """Privacy units as arrays; the first two axes of every array are [units, max_records].

    inputs: by name, e.g. tokens int32 [units, max_records, max_tokens], where 0 pads. labels: int64 [units, max_records],
    IGNORED where a unit has no record; a unit's records come first. ragged: the inputs whose third axis is a sequence that
    zeros pad at its end; the first of them (tokens, or a mask) tells how long it is.
    """

    units: tuple[str, ...]
    inputs: Mapping[str, npt.NDArray[Any]]
    labels: npt.NDArray[np.int64]
    ragged: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = self.labels.shape
        if len(shape) != 2 or shape[0] != len(self.units) or any(array.shape[:2] != shape for array in self.inputs.values()):
            raise ValueError("inputs and labels must share their first two axes, units and records")

    def __len__(self) -> int:
        return len(self.units)

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """bool [units, max_records]: where there is a record."""
        found: npt.NDArray[np.bool_] = self.labels != IGNORED
        return found

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """int64 [units, max_records]: of the ragged sequences; 1 for a record without any, 0 where there is no record."""
        if not self.ragged:
            return self.present.astype(np.int64)
        first = self.inputs[self.ragged[0]]
        filled = (first != 0).reshape(*first.shape[:3], -1).any(-1)
        ends: npt.NDArray[np.int64] = np.where(filled.any(-1), filled.shape[2] - filled[:, :, ::-1].argmax(-1), 0)
        return np.maximum(ends, self.present.astype(np.int64))


@dataclass(frozen=True, slots=True)
class UnitBatch:
    """One physical batch, as a model gets it: trimmed to the longest unit and record in it.

    inputs: tensors [units, records, ...]. labels: int64 [units, records]. cid: int64 [units], the canary of a unit, or the
    number of canaries for none.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    cid: Tensor

    def __len__(self) -> int:
        return len(self.cid)

    def to(self, device: torch.device | str) -> UnitBatch:
        return UnitBatch({n: t.to(device) for n, t in self.inputs.items()}, self.labels.to(device), self.cid.to(device))

    def part(self, units: slice | Tensor) -> UnitBatch:
        return UnitBatch({n: t[units] for n, t in self.inputs.items()}, self.labels[units], self.cid[units])


def features(text: str) -> list[str]:
    """Words and word pairs, lower-cased; characters and character pairs for CJK; placeholders by type; digits as one sign.

    Single pieces come first, pairs after, so that a short limit keeps the words.
    """
    pairs: list[str] = []
    previous = ""
    for cjk, piece in _pieces(text):
        if cjk:
            pairs.extend(a + b for a, b in itertools.pairwise(cjk))
        elif previous:
            pairs.append(f"{previous} {piece}")
        previous = piece
    return words(text) + pairs


def words(text: str) -> list[str]:
    """The single pieces of `features`, in the order of the text."""
    return [sign for cjk, piece in _pieces(text) for sign in (cjk or (piece,))]


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    """(run of CJK characters, "") or ("", word, placeholder or sign for digits)."""
    for match in _PIECE.finditer(text):
        placeholder, cjk, digits, word = match.groups()
        yield cjk or "", "" if cjk else f"<{placeholder.lower()}>" if placeholder else "#" if digits else word.lower()


def token_ids(text: str, hash_buckets: int, max_tokens: int) -> list[int]:
    """Those of the first `max_tokens` features."""
    return hashed(features(text)[:max_tokens], hash_buckets)


def hashed(pieces: Iterable[str], hash_buckets: int) -> list[int]:
    """Ids in [1, hash_buckets); the hash is public and unkeyed, so a released model can be used."""
    found = []
    for feature in pieces:
        value = int.from_bytes(hashlib.blake2b(feature.encode("utf-8", "replace"), digest_size=8).digest(), "big")
        found.append(1 + value % (hash_buckets - 1))
    return found


def is_holdout(unit: str, key: bytes, share: float) -> bool:
    """Whether a unit is never trained on: a keyed coin of the unit alone, so adding a unit moves no other."""
    return int.from_bytes(_mac(key, "holdout", unit)[:8], "big") < int(share * 2**64)


def bounded_records(records: Iterable[Record], max_records: int, key: bytes) -> dict[str, list[Record]]:
    """The records of each unit, at most `max_records`: those with the smallest keyed hash of their identifier.

    The rule looks at no content, and the key keeps anybody who writes records from choosing which ones count.
    """
    by_unit: dict[str, list[tuple[bytes, Record]]] = {}
    for record in records:
        by_unit.setdefault(record.unit, []).append((_mac(key, "bound", record.record_id), record))
    return {unit: [r for _, r in sorted(rows, key=lambda row: row[0])[:max_records]] for unit, rows in by_unit.items()}


def build_units(
    grouped: Mapping[str, Sequence[Record]],
    labels: Sequence[str],
    max_records: int,
    encode: Callable[[Record], Mapping[str, npt.NDArray[Any]]],
    shapes: Mapping[str, tuple[tuple[int, ...], type[np.generic]]],
    ragged: tuple[str, ...] = (),
) -> UnitData:
    """Arrays of the units, in order of their pseudonym. Raises DataError E-TRAIN-010 on an undeclared label.

    encode: a public function of one record, giving arrays no larger than `shapes` says (shape and dtype by name); the rest
    of each place stays 0.
    """
    index = {label: position for position, label in enumerate(labels)}
    units = tuple(sorted(grouped))
    inputs = {name: np.zeros((len(units), max_records, *shape), dtype=kind) for name, (shape, kind) in shapes.items()}
    targets = np.full((len(units), max_records), IGNORED, dtype=np.int64)
    for row, unit in enumerate(units):
        for column, record in enumerate(grouped[unit][:max_records]):
            if record.label not in index:
                raise DataError(
                    "E-TRAIN-010",
                    "a protected record carries a label outside expectations.labels",
                    "Declare the label in the policy, or correct it in the source; labels are never learnt from data",
                )
            targets[row, column] = index[record.label]
            for name, value in encode(record).items():
                place: tuple[Any, ...] = (row, column, *(slice(size) for size in value.shape))
                inputs[name][place] = value
    return UnitData(units, inputs, targets, ragged)


def split_units(
    grouped: dict[str, list[Record]], key: bytes, share: float
) -> tuple[dict[str, list[Record]], dict[str, list[Record]]]:
    """(training, holdout)."""
    holdout = {unit: rows for unit, rows in grouped.items() if is_holdout(unit, key, share)}
    return {unit: rows for unit, rows in grouped.items() if unit not in holdout}, holdout


def _mac(key: bytes, purpose: str, text: str) -> bytes:
    return hmac.digest(key, purpose.encode() + b"\x00" + text.encode("utf-8", "replace"), "sha256")

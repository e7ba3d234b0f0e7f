"""From de-identified records to privacy units: a unit holds at most `max_records` records, chosen by a keyed rule.

Guarantee: nothing is fitted. Features are hashed by a public function, labels come from the policy, and whether a record
or a unit is used depends on a secret key and its own identifier only, never on any other record.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from privacy.errors import DataError

IGNORED = -100  # label of an absent record; cross entropy skips it
_CJK = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_PIECE = re.compile(
    r"<([A-Za-z][A-Za-z_]*?)(?:_[0-9a-f]{4,})?>"  # the placeholder of a de-identified value
    rf"|([{_CJK}]+)|(\d+)|([^\W\d_{_CJK}]+(?:'[^\W\d_{_CJK}]+)?)"
)


@dataclass(frozen=True, slots=True)
class Record:
    """One de-identified record. `unit` is the keyed pseudonym of the privacy unit."""

    unit: str
    record_id: str
    text: str
    label: str


@dataclass(frozen=True, slots=True)
class UnitData:
    """Privacy units as arrays. tokens: int32 [units, max_records, max_tokens], 0 pads; labels: int64 [units, max_records]."""

    units: tuple[str, ...]
    tokens: npt.NDArray[np.int32]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.units)


def features(text: str) -> list[str]:
    """Words and word pairs, lower-cased; characters and character pairs for CJK; placeholders by type; digits as one sign.

    Single pieces come first, pairs after, so that a short limit keeps the words.
    """
    singles: list[str] = []
    pairs: list[str] = []
    previous = ""
    for match in _PIECE.finditer(text):
        placeholder, cjk, digits, word = match.groups()
        if cjk:
            singles.extend(cjk)
            pairs.extend(a + b for a, b in itertools.pairwise(cjk))
            previous = ""
            continue
        piece = f"<{placeholder.lower()}>" if placeholder else "#" if digits else word.lower()
        singles.append(piece)
        if previous:
            pairs.append(f"{previous} {piece}")
        previous = piece
    return singles + pairs


def token_ids(text: str, hash_buckets: int, max_tokens: int) -> list[int]:
    """At most `max_tokens` ids in [1, hash_buckets); the hash is public and unkeyed, so a released model can be used."""
    found = []
    for feature in features(text)[:max_tokens]:
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
    grouped: dict[str, list[Record]], labels: Sequence[str], hash_buckets: int, max_tokens: int, max_records: int
) -> UnitData:
    """Arrays of the units, in order of their pseudonym. Raises DataError E-TRAIN-010 on an undeclared label."""
    index = {label: position for position, label in enumerate(labels)}
    units = tuple(sorted(grouped))
    tokens = np.zeros((len(units), max_records, max_tokens), dtype=np.int32)
    targets = np.full((len(units), max_records), IGNORED, dtype=np.int64)
    for row, unit in enumerate(units):
        for column, record in enumerate(grouped[unit][:max_records]):
            if record.label not in index:
                raise DataError(
                    "E-TRAIN-010",
                    "a protected record carries a label outside expectations.labels",
                    "Declare the label in the policy, or correct it in the source; labels are never learnt from data",
                )
            ids = token_ids(record.text, hash_buckets, max_tokens)
            tokens[row, column, : len(ids)] = ids
            targets[row, column] = index[record.label]
    return UnitData(units, tokens, targets)


def split_units(
    grouped: dict[str, list[Record]], key: bytes, share: float
) -> tuple[dict[str, list[Record]], dict[str, list[Record]]]:
    """(training, holdout)."""
    holdout = {unit: rows for unit, rows in grouped.items() if is_holdout(unit, key, share)}
    return {unit: rows for unit, rows in grouped.items() if unit not in holdout}, holdout


def _mac(key: bytes, purpose: str, text: str) -> bytes:
    return hmac.digest(key, purpose.encode() + b"\x00" + text.encode("utf-8", "replace"), "sha256")

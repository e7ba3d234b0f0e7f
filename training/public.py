"""Public sets: examples that a policy declares as anybody's, or made-up ones. What is learnt from them costs nothing.

Guarantee: what takes `PublicInputs` can't be handed private units: the type is made here only, from a file that the policy
names as public, or from a recipe's made-up data. Assumption: the declaration in the policy is true; whoever signs the policy
signs it, and the digest of the bytes that were read is in the evidence.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt

from privacy.canonical import Digest, digest_bytes
from privacy.errors import DataError, UsageError
from privacy.policy_training import PublicSet
from training.data import IGNORED, Record, UnitData

if TYPE_CHECKING:
    from training.config import TrainingConfig

_MOST_BYTES: Final = 1 << 30
_MADE_HERE: Final = object()


@dataclass(frozen=True, slots=True)
class Example:
    text: str
    label: str | None


@dataclass(frozen=True, slots=True)
class PublicExamples:
    """`digest` covers every byte that was read, file by file."""

    examples: tuple[Example, ...]
    digest: Digest
    origin: str

    @property
    def labels(self) -> tuple[str, ...]:
        """Every label there is, sorted: of a public set the labels may be learnt, too."""
        return tuple(sorted({example.label for example in self.examples if example.label is not None}))

    def split(self, share: float) -> tuple[PublicExamples, PublicExamples]:
        """(to learn from, to score with), by a public hash of the example, so that no order matters."""
        scored = [int.from_bytes(_hash(e)[:8], "big") < int(share * 2**64) for e in self.examples]
        parts = [
            tuple(e for e, is_scored in zip(self.examples, scored, strict=True) if is_scored == want) for want in (False, True)
        ]
        return PublicExamples(parts[0], self.digest, self.origin), PublicExamples(parts[1], self.digest, self.origin)


@dataclass(frozen=True, slots=True)
class PublicInputs:
    """Encoded and prepared inputs. truth: int64 [units], the label of each unit's record, IGNORED where there is none.

    Made by `public_inputs` and `synthetic_inputs` alone.
    """

    data: UnitData
    truth: npt.NDArray[np.int64]
    origin: Literal["public", "synthetic"]
    digest: Digest
    made_by: object = field(repr=False)

    def __post_init__(self) -> None:
        if self.made_by is not _MADE_HERE:
            raise UsageError(
                "E-PUBLIC-001",
                "units that nobody declared as public were handed to a step that is only free on public data",
                "Declare a public set in the policy, or let made-up inputs be used",
            )

    def part(self, units: npt.NDArray[np.int64] | slice) -> dict[str, npt.NDArray[Any]]:
        return {name: np.ascontiguousarray(array[units]) for name, array in self.data.inputs.items()}

    def __len__(self) -> int:
        return len(self.data)


def read_public(declared: PublicSet, beside: Path) -> PublicExamples:
    """The examples of a public set, whose path is relative to the folder `beside`.

    Raises DataError E-PUBLIC-002 (nothing there), E-PUBLIC-003 (not such a file; only its name and line are said).
    """
    place = beside / declared.path
    files = sorted(p for p in place.rglob("*") if p.suffix in (".jsonl", ".csv")) if place.is_dir() else [place]
    if not files or not all(file.is_file() for file in files):
        raise DataError(
            "E-PUBLIC-002", "there is no .jsonl or .csv file where the policy declares a public set", "Correct its path"
        )
    if sum(file.stat().st_size for file in files) > _MOST_BYTES:
        raise DataError("E-PUBLIC-002", "the public set is larger than 1 GiB", "Take a part of it")
    examples: list[Example] = []
    digests = hashlib.sha256()
    for file in files:
        data = file.read_bytes()
        digests.update(digest_bytes(data).encode())
        examples.extend(_examples(file, data, declared))
    if not examples:
        raise DataError("E-PUBLIC-002", "the public set holds no example", "Correct its path, or the name of its text field")
    return PublicExamples(tuple(examples), "sha256:" + digests.hexdigest(), declared.origin)


def public_inputs(found: PublicExamples, config: TrainingConfig) -> PublicInputs:
    """Every example as a unit with one record, encoded and prepared by the recipe. Labels it does not know are IGNORED."""
    from training.recipes import recipe_of

    recipe = recipe_of(config)
    known = {label: number for number, label in enumerate(config.labels)}
    width = len(str(len(found.examples)))
    names = [f"{number:0{width}d}" for number in range(len(found.examples))]
    grouped = {
        name: [Record(name, name, e.text, e.label if e.label in known else config.labels[0])]
        for name, e in zip(names, found.examples, strict=True)
    }
    data = recipe.prepare(recipe.encode(grouped, config), config)
    alone = UnitData(data.units, {n: a[:, :1] for n, a in data.inputs.items()}, data.labels[:, :1], data.ragged)
    truth = np.array([IGNORED if e.label is None else known.get(e.label, IGNORED) for e in found.examples], dtype=np.int64)
    return PublicInputs(alone, truth, "public", found.digest, _MADE_HERE)


def public_units(found: PublicExamples, config: TrainingConfig) -> UnitData:
    """The labelled examples as units of one record each, for a training that costs nothing."""
    from training.recipes import recipe_of

    recipe = recipe_of(config)
    labelled = [(f"{number:08d}", e) for number, e in enumerate(found.examples) if e.label is not None]
    grouped = {name: [Record(name, name, e.text, e.label or "")] for name, e in labelled}
    return recipe.prepare(recipe.encode(grouped, config), config)


def synthetic_inputs(config: TrainingConfig, units: int) -> PublicInputs:
    """Made-up inputs of the recipe's shapes; they have no true label."""
    from training.recipes import recipe_of

    data = recipe_of(config).synthetic(config, units)
    digest = digest_bytes(b"".join(np.ascontiguousarray(a).tobytes() for _, a in sorted(data.inputs.items())))
    return PublicInputs(data, np.full(len(data), IGNORED, dtype=np.int64), "synthetic", digest, _MADE_HERE)


def _examples(file: Path, data: bytes, declared: PublicSet) -> Iterator[Example]:
    rows: Iterator[object]
    try:
        text = data.decode("utf-8-sig")
        rows = csv.DictReader(io.StringIO(text)) if file.suffix == ".csv" else _json_lines(text)
        for number, row in enumerate(rows, 1):
            found = row.get(declared.text) if isinstance(row, dict) else None
            label = row.get(declared.label) if isinstance(row, dict) and declared.label else None
            if not isinstance(found, str) or not (label is None or isinstance(label, str | int)):
                raise _malformed(file, number)
            yield Example(found, None if label is None else str(label))
    except (UnicodeDecodeError, csv.Error):
        raise _malformed(file, 0) from None


def _json_lines(text: str) -> Iterator[object]:
    for line in text.splitlines():
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError:
                yield None


def _malformed(file: Path, number: int) -> DataError:
    return DataError(
        "E-PUBLIC-003",
        f"example {number} of {file.name} is none: it lacks the text field, or is not JSON or CSV in UTF-8",
        "Correct the file, or the names of its fields in the policy",
    )


def _hash(example: Example) -> bytes:
    return hashlib.sha256(f"{example.label}\x00{example.text}".encode("utf-8", "replace")).digest()

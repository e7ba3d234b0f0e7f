"""What the frozen layers of a public encoder gave for private records, sealed, so that the next run need not compute it again.

Guarantee: it lies sealed under the key of checkpoints, so it ends with their epoch; it is used only for the same protected
dataset, weights, recipe fields and, exactly, the same units. An erasure destroys all of a dataset's at once, retention those
that are over `retention.checkpoint_days` or whose protected dataset is gone. Anything that can't be read is computed anew.
Assumption: `compute` is a function of the key. Not covered: its size on disk and its times are visible.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np

from pipeline.provisional import keep
from pipeline.stage import ArtifactRef
from privacy.canonical import Digest, Json, canonical_json, digest_of, parse_canonical
from privacy.errors import EnvironmentFault, IntegrityError, PrivetError

if TYPE_CHECKING:
    from pipeline.home import Home
    from pipeline.store import SealedSink
    from training.data import UnitData

FOLDER = "prefixes"  # of the home; the store's sweep knows it, too
_MOST_HEADER = 256 * 2**20


@dataclass(frozen=True, slots=True)
class PrefixKey:
    """frozen: what decides the result for a record (`training.recipes.frozen.frozen_part`). part: "training" or "holdout"."""

    dataset: str
    protect: Digest
    frozen: Mapping[str, Json]
    part: str

    @property
    def name(self) -> str:
        named = digest_of({"dataset": self.dataset, "protect": self.protect, "frozen": dict(self.frozen), "part": self.part})
        return named.removeprefix("sha256:")[:40]


def cached(home: Home, key: PrefixKey, units: Iterable[str], compute: Callable[[], UnitData]) -> UnitData:
    """The sealed result for exactly these units, or what `compute` gives, which is then sealed.

    A disk too full to keep it is no fault of the run. Nothing is kept that holds a unit erased meanwhile.
    """
    wanted = tuple(sorted(units))
    found = _load(home, key)
    if found is not None and found.units == wanted:
        return found
    if found is not None:
        _forget(home, key.name)
    data = compute()
    with suppress(EnvironmentFault):
        _save(home, key, data)
    if not set(data.units).isdisjoint(home.vault.erased_tokens(key.dataset)):
        _forget(home, key.name)  # erased while it was computed: the erasure may have looked before it was there
    return data


def drop_prefixes(home: Home, dataset: str) -> int:
    """Destroy everything that is kept of a dataset; returns how many objects that were."""
    names = [path.stem for path, ref in kept(home) if ref.dataset == dataset]
    for name in names:
        _forget(home, name)
    return len(names)


def drop_prefix(home: Home, name: str) -> None:
    """Destroy one, by the name of its pointer."""
    _forget(home, name)


def kept(home: Home) -> Iterator[tuple[Path, ArtifactRef]]:
    """Pointer and object of each; `ref.version` is the protected dataset that it was made from."""
    for path in sorted((home.path / FOLDER).glob("*.json")):
        ref = _ref(path)
        if ref is not None:
            yield path, ref


def _load(home: Home, key: PrefixKey) -> UnitData | None:
    ref = _ref(_pointer(home, key.name))
    if ref is None:
        return None
    try:
        with home.store.open_sealed(ref) as file:
            return _read(file)
    except (IntegrityError, ValueError, KeyError):
        _forget(home, key.name)
        return None


def _save(home: Home, key: PrefixKey, data: UnitData) -> None:
    place = {"dataset": key.dataset, "path": f"{FOLDER}/{key.name}", "data_class": "checkpoint", "version": key.protect}
    with home.store.sealed_writer(**place) as sink:
        _write(sink, data)
    pointer = _pointer(home, key.name)
    with _locked(home, key.name):
        before = _ref(pointer)
        temporary = pointer.with_suffix(f".{os.getpid()}.new")
        try:
            with temporary.open("wb") as file:
                file.write(canonical_json(sink.ref.to_json()))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(pointer)
        finally:
            temporary.unlink(missing_ok=True)
        keep([sink.ref])
        if before is not None:
            home.store.shred(before)


def _forget(home: Home, name: str) -> None:
    """The object first: a pointer without one is computed anew, an object without a pointer would stay."""
    with _locked(home, name):
        ref = _ref(_pointer(home, name))
        if ref is not None:
            home.store.shred(ref)
            _pointer(home, name).unlink(missing_ok=True)


def _pointer(home: Home, name: str) -> Path:
    return home.path / FOLDER / f"{name}.json"


def _ref(pointer: Path) -> ArtifactRef | None:
    try:
        return ArtifactRef.from_json(parse_canonical(pointer.read_bytes()))
    except FileNotFoundError:
        return None
    except PrivetError:
        pointer.unlink(missing_ok=True)  # nothing can be found by it; the sweep of the store destroys what it named
        return None


@contextmanager
def _locked(home: Home, name: str) -> Iterator[None]:
    folder = home.path / FOLDER
    try:
        folder.mkdir(exist_ok=True, mode=0o700)
        handle = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EnvironmentFault(
            "E-PREFIX-001", f"the cache of frozen layers can't be used ({error.strerror})", "Free some space in the home"
        ) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    except OSError as error:
        raise EnvironmentFault(
            "E-PREFIX-001", f"the cache of frozen layers can't be used ({error.strerror})", "Free some space in the home"
        ) from None
    finally:
        os.close(handle)


def _write(sink: SealedSink, data: UnitData) -> None:
    """A line of JSON, then the arrays one after the other in NumPy's own format: no pickle, and never twice in memory."""
    header = {"units": list(data.units), "inputs": list(data.inputs), "ragged": list(data.ragged)}
    sink.write(json.dumps(header).encode("utf-8", "surrogatepass") + b"\n")
    for array in (data.labels, *data.inputs.values()):
        np.lib.format.write_array(cast("BinaryIO", sink), np.ascontiguousarray(array), allow_pickle=False)


def _read(file: BinaryIO) -> UnitData:
    from training.data import UnitData

    header = json.loads(file.readline(_MOST_HEADER).decode("utf-8", "surrogatepass"))
    labels = np.lib.format.read_array(file, allow_pickle=False)
    inputs = {str(name): np.lib.format.read_array(file, allow_pickle=False) for name in header["inputs"]}
    return UnitData(tuple(header["units"]), inputs, labels, tuple(header["ragged"]))

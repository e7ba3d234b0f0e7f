"""What frozen layers gave is sealed, used again for the same key only, and gone when a unit is erased or its days are over."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from pipeline.erase import erase
from pipeline.home import Home
from pipeline.ingest import ingest
from pipeline.prefix_cache import PrefixKey, cached, drop_prefixes, kept
from pipeline.protect import protect
from pipeline.provisional import provisional
from pipeline.renew import renew
from pipeline.retain import run_retention
from privacy.errors import EnvironmentFault, IntegrityError
from tests.worlds.chats import EmailDetector, World, lines, records
from training.data import IGNORED, UnitData

DATASET = "test_chat"
PROTECT = "sha256:" + "1" * 64
KEY = PrefixKey(DATASET, PROTECT, {"pretrained_digest": "sha256:" + "2" * 64, "max_tokens": 8}, "training")
SECRET = b"unit-of-somebody"


def data(units: tuple[str, ...] = ("a", "b", "unit-of-somebody"), fill: float = 1.5) -> UnitData:
    labels = np.full((len(units), 2), IGNORED, dtype=np.int64)
    labels[:, 0] = 1
    states = np.full((len(units), 2, 3, 4), fill, dtype=np.float16)
    tokens = np.arange(len(units) * 6, dtype=np.int32).reshape(len(units), 2, 3)
    return UnitData(units, {"tokens": tokens, "states": states}, labels, ("tokens", "states"))


class Counter:
    """Counts how often the layers really ran."""

    def __init__(self, result: UnitData | None = None) -> None:
        self.result, self.runs = result or data(), 0

    def __call__(self) -> UnitData:
        self.runs += 1
        return self.result


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.create(tmp_path / "home")


def same(first: UnitData, second: UnitData) -> bool:
    return (
        first.units == second.units
        and first.ragged == second.ragged
        and list(first.inputs) == list(second.inputs)
        and all(np.array_equal(first.inputs[n], second.inputs[n]) for n in first.inputs)
        and all(first.inputs[n].dtype == second.inputs[n].dtype for n in first.inputs)
        and np.array_equal(first.labels, second.labels)
    )


def test_the_second_run_finds_what_the_first_one_made(home: Home) -> None:
    compute = Counter()
    first = cached(home, KEY, compute.result.units, compute)
    second = cached(Home.open(home.path), KEY, reversed(compute.result.units), compute)
    assert compute.runs == 1
    assert same(first, second)


@pytest.mark.parametrize(
    "other",
    [
        replace(KEY, dataset="other"),
        replace(KEY, protect="sha256:" + "3" * 64),
        replace(KEY, frozen={**KEY.frozen, "max_tokens": 9}),
        replace(KEY, frozen={**KEY.frozen, "pretrained_digest": "sha256:" + "4" * 64}),
        replace(KEY, part="holdout"),
    ],
    ids=["dataset", "protected data", "recipe", "weights", "part"],
)
def test_another_key_is_another_result(home: Home, other: PrefixKey) -> None:
    compute, again = Counter(), Counter(data(fill=2.5))
    cached(home, KEY, compute.result.units, compute)
    found = cached(home, other, again.result.units, again)
    assert again.runs == 1
    assert same(found, again.result)


def test_other_units_are_computed_anew_and_the_old_ones_destroyed(home: Home) -> None:
    compute = Counter()
    cached(home, KEY, compute.result.units, compute)
    old = [ref for _, ref in kept(home)]
    fewer = Counter(data(("a", "b")))
    assert same(cached(home, KEY, ("a", "b"), fewer), fewer.result)
    assert fewer.runs == 1
    assert not home.store.exists(old[0])
    assert len(list(kept(home))) == 1


def test_nothing_of_it_can_be_read_on_the_disk(home: Home) -> None:
    compute = Counter()
    cached(home, KEY, compute.result.units, compute)
    lying = b"".join(p.read_bytes() for p in home.path.rglob("*") if p.is_file())
    states = compute.result.inputs["states"].tobytes()
    assert len(list(kept(home))) == 1
    assert SECRET not in lying
    assert states not in lying
    home.store.put_plain(SECRET + states, dataset=DATASET, path="x", data_class="evidence")  # the search would see it
    lying = b"".join(p.read_bytes() for p in home.path.rglob("*") if p.is_file())
    assert SECRET in lying
    assert states in lying


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "pointer"])
def test_what_can_not_be_read_is_computed_anew(home: Home, damage: str) -> None:
    compute = Counter()
    cached(home, KEY, compute.result.units, compute)
    pointer, ref = next(kept(home))
    name = ref.digest.removeprefix("sha256:")
    path = home.path / "objects" / name[:2] / name
    whole = path.read_bytes()
    if damage == "flipped":
        path.write_bytes(whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:])
    elif damage == "cut":
        path.write_bytes(whole[:-20])
    elif damage == "gone":
        path.unlink()
    else:
        pointer.write_bytes(b"nonsense")
    assert same(cached(home, KEY, compute.result.units, compute), compute.result)
    assert compute.runs == 2
    cached(home, KEY, compute.result.units, compute)
    assert compute.runs == 2


def test_a_stage_that_fails_keeps_it_for_the_next_try(home: Home) -> None:
    compute = Counter()

    def stage() -> None:
        with provisional(home.store):
            cached(home, KEY, compute.result.units, compute)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        stage()
    cached(Home.open(home.path), KEY, compute.result.units, compute)
    assert compute.runs == 1


def test_a_disk_without_room_for_it_stops_no_run(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object, **named: object) -> None:
        raise EnvironmentFault("E-STORE-010", "the disk is full", "Free some space")

    monkeypatch.setattr(home.store, "sealed_writer", full)
    compute = Counter()
    assert same(cached(home, KEY, compute.result.units, compute), compute.result)
    assert list(kept(home)) == []


def test_a_unit_erased_while_it_was_computed_is_not_kept(home: Home) -> None:
    token = home.vault.token(DATASET, "somebody")

    def compute() -> UnitData:
        home.vault.erase(DATASET, "somebody", "T-1")
        drop_prefixes(home, DATASET)  # what an erasure does, and too early for this run
        return data(("a", token))

    cached(home, KEY, ("a", token), compute)
    assert list(kept(home)) == []


class Lived:
    """A protected dataset and what frozen layers gave for it."""

    def __init__(self, world: World) -> None:
        self.home = world.home
        world.write("a.jsonl", lines(records(20)))
        first = ingest(world.context(), str(world.source))
        self.protected = protect(world.context(), first.digest, EmailDetector())
        self.units = tuple(sorted(self.home.vault.token(DATASET, f"customer-{n}") for n in range(5)))
        self.key = replace(KEY, protect=self.protected.digest)
        self.compute = Counter(data(self.units))
        cached(self.home, self.key, self.units, self.compute)
        self.ref = next(kept(self.home))[1]

    def names(self) -> list[str]:
        return [path.stem for path, _ in kept(self.home)]


@pytest.fixture
def lived(world: World) -> Lived:
    return Lived(world)


def test_an_erasure_destroys_it_at_once(lived: Lived) -> None:
    other = replace(lived.key, dataset="another")
    cached(lived.home, other, lived.units, lived.compute)
    erase(lived.home, "customer-3", "DSAR-1", "officer")
    assert not lived.home.store.exists(lived.ref)
    assert lived.names() == [other.name]


def test_the_end_of_an_epoch_leaves_backups_of_it_unreadable(lived: Lived, tmp_path: Path) -> None:
    backup = shutil.copytree(lived.home.path / "objects", tmp_path / "objects")
    assert lived.home.store.read_sealed(lived.ref)
    renew(lived.home, DATASET)
    assert lived.names() == []
    assert not lived.home.store.exists(lived.ref)
    name = lived.ref.digest.removeprefix("sha256:")
    target = lived.home.path / "objects" / name[:2] / name
    target.parent.mkdir(exist_ok=True)
    shutil.copy(backup / name[:2] / name, target)
    with pytest.raises(IntegrityError, match="E-KEY-006"):
        lived.home.store.read_sealed(lived.ref)


def test_retention_destroys_it_when_its_days_are_over(lived: Lived) -> None:
    pointer = next(kept(lived.home))[0]
    now = datetime.now(UTC)
    assert run_retention(lived.home, now + timedelta(days=5)).expired == {}
    assert len(lived.names()) == 1
    old = now.timestamp() - 20 * 86_400
    os.utime(pointer, (old, old))
    shown = run_retention(lived.home, now, dry_run=True)
    assert shown.expired[DATASET] == {"frozen layers": 1}
    assert len(lived.names()) == 1
    assert run_retention(lived.home, now).expired[DATASET] == {"frozen layers": 1}
    assert lived.names() == []
    assert not lived.home.store.exists(lived.ref)


def test_it_does_not_outlive_its_protected_dataset(lived: Lived) -> None:
    lived.home.store.shred(lived.protected.manifest.outputs["protected"])
    run_retention(lived.home, datetime.now(UTC))
    assert lived.names() == []

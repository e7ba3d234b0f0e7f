"""Every byte of every file of a bundle is covered: change, cut, add or swap any, and no verification passes.

The verifier itself runs in memory, over a `BundleView` that `read_bundle` would make of the changed folder: same bytes, same
digests. What only the disk can show (sizes, names, the reading itself) has tests of its own below.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.bundle import BundleView, read_bundle, view_of
from pipeline.claims import check_canonical, check_layout, check_release, open_approvals, open_evidence
from pipeline.verify import verify_bundle, verify_view
from privacy.errors import IntegrityError
from tests.worlds.release_world import World

SMALL = 8192  # bytes
SAMPLED = 24  # positions in a file, in the quick test


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World(tmp_path_factory.mktemp("world")).run().sign_quorum()
    made.release()
    return made


@pytest.fixture(scope="module")
def good(world: World) -> Path:
    return world.home.releases_dir / "test_chat" / "bundle"


@pytest.fixture(scope="module")
def files(good: Path) -> dict[str, bytes]:
    return {p.relative_to(good).as_posix(): p.read_bytes() for p in sorted(good.rglob("*")) if p.is_file()}


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "bundle"))


def with_file(whole: BundleView, name: str, data: bytes) -> BundleView:
    """The view with one file of other bytes."""
    alone = view_of({name: data})
    return BundleView({**whole.files, **alone.files}, {**whole.texts, **alone.texts})


def exit_code(view: BundleView, world: World) -> int:
    return verify_view(view, world.trust, world.now).exit_code


def test_the_view_in_memory_is_the_one_that_is_read_from_disk(world: World, good: Path, files: dict[str, bytes]) -> None:
    """Or the tests below would say nothing about folders."""
    whole, read = view_of(files), read_bundle(good)
    assert (dict(whole.files), dict(whole.texts)) == (dict(read.files), dict(read.texts))
    assert exit_code(whole, world) == 0


@pytest.fixture(scope="module")
def refused(world: World, files: dict[str, bytes]) -> Callable[[str, bytes], bool]:
    """Whether the verifier refuses the bundle with one file of these bytes, by the first of its claims that could notice.

    Of a file that the evidence root covers that is the first claim of all, and of the others those below: to make the other
    claims again for each of a hundred thousand changes would show nothing more.
    """
    whole = view_of(files)
    root = check_layout(whole, released=True)
    evidence = open_evidence(whole, world.trust, root)

    def look(name: str, data: bytes) -> bool:
        view = with_file(whole, name, data)
        try:
            assert check_layout(view, released=True) == root
            check_canonical(view)
            changed = replace(evidence, view=view)
            for gate in ("use", "release"):
                open_approvals(view, world.trust, gate)
            check_release(changed)
        except IntegrityError:
            return True
        return False

    assert not look("CARD.md", files["CARD.md"])
    return look


def changed_at(data: bytes, position: int, mask: int) -> bytes:
    return data[:position] + bytes([data[position] ^ mask]) + data[position + 1 :]


def test_a_changed_byte_is_noticed_at_many_places_of_every_file(world: World, files: dict[str, bytes]) -> None:
    whole = view_of(files)
    for name, data in files.items():
        for position in range(0, len(data), max(1, len(data) // SAMPLED)):
            for mask in (0x01, 0x20):  # the next digit or letter; the other case
                assert exit_code(with_file(whole, name, changed_at(data, position, mask)), world) == 4, (name, position)


@pytest.mark.slow
def test_a_changed_byte_is_noticed_at_every_place_of_small_files_and_every_8th_of_large_ones(
    files: dict[str, bytes], refused: Callable[[str, bytes], bool]
) -> None:
    for name, data in files.items():
        free = [
            at for at in range(0, len(data), 1 if len(data) <= SMALL else 8) if not refused(name, changed_at(data, at, 0x01))
        ]
        assert free == [], name


@pytest.mark.slow
def test_no_value_of_a_byte_is_free_where_no_list_of_digests_covers_it(
    files: dict[str, bytes], refused: Callable[[str, bytes], bool]
) -> None:
    """The list itself, the release statement and the approvals: all 255 other values of every 197th byte."""
    free = [name for name in files if name in ("evidence.json", "release.dsse.json") or name.startswith("approvals/")]
    assert len(free) == 5
    for name in free:
        for position, mask in itertools.product(range(0, len(files[name]), 197), range(1, 256)):
            assert refused(name, changed_at(files[name], position, mask)), (name, position, mask)


def test_what_is_cut_off_or_added_is_noticed(world: World, files: dict[str, bytes]) -> None:
    whole = view_of(files)
    for name, data in files.items():
        for changed in (data[:-1], data[1:], data[: len(data) // 2], b"", data + b"\n", data + b"\0", b" " + data, data + data):
            assert exit_code(with_file(whole, name, changed), world) == 4, (name, len(changed))


def test_files_that_changed_places_are_noticed(world: World, files: dict[str, bytes]) -> None:
    """Each with the one after it, among all files and among those of its folder."""
    whole, names = view_of(files), sorted(files)
    for one, other in itertools.pairwise(names):
        if files[one] != files[other]:
            swapped = with_file(with_file(whole, one, files[other]), other, files[one])
            assert exit_code(swapped, world) == 4, (one, other)


def test_a_file_that_is_gone_is_noticed(world: World, files: dict[str, bytes]) -> None:
    for name in files:
        assert exit_code(view_of({path: data for path, data in files.items() if path != name}), world) == 4, name


def test_one_flipped_byte_on_disk_is_named(world: World, good: Path, folder: Path) -> None:
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name, data = path.relative_to(folder).as_posix(), path.read_bytes()
        for position in {0, len(data) // 2, len(data) - 1}:
            changed = bytearray(data)
            changed[position] ^= 1
            path.write_bytes(bytes(changed))
            for trust in (world.trust, None):
                result = verify_bundle(folder, trust)
                assert result.exit_code == 4, (name, position)
                assert any(name in row.evidence for row in result.failures), (name, position, result.failures)
        for changed_data in (data[:-1], data + b"\n", b""):
            path.write_bytes(changed_data)
            assert verify_bundle(folder, world.trust).exit_code == 4, name
        path.write_bytes(data)
    assert verify_bundle(folder, world.trust).exit_code == 0


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_byte_of_a_bundle_is_free(data: st.DataObject, world: World, folder: Path) -> None:
    path = data.draw(st.sampled_from(sorted(p for p in folder.rglob("*") if p.is_file())))
    original = path.read_bytes()
    position = data.draw(st.integers(0, len(original) - 1))
    changed = bytearray(original)
    changed[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(changed))
    try:
        assert verify_bundle(folder, world.trust).exit_code == 4
    finally:
        path.write_bytes(original)

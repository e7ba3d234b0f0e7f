"""The keyring: custody, tampering, races, crypto-shredding."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
from pathlib import Path

import pytest

from privacy.errors import EnvironmentFault, IntegrityError, PrivetError, UsageError
from privacy.keys import Keyring


@pytest.fixture
def home(tmp_path: Path) -> Path:
    Keyring.create(tmp_path / "keyring.json", tmp_path / "root.key")
    return tmp_path


def opened(home: Path) -> Keyring:
    return Keyring.open(home / "keyring.json", home / "root.key")


def test_a_wrapped_key_opens_in_its_place_only(home: Path) -> None:
    wrapped = opened(home).wrap("chat/raw", b"d" * 32, b"here")
    assert opened(home).unwrap(wrapped, b"here") == b"d" * 32
    with pytest.raises(IntegrityError, match="E-KEY-005"):
        opened(home).unwrap(wrapped, b"there")


def test_every_character_of_a_wrapped_key_counts(home: Path) -> None:
    keyring = opened(home)
    keyring.wrap("chat/rax", b"d" * 32, b"")
    wrapped = keyring.wrap("chat/raw", b"d" * 32, b"")
    for position in range(len(wrapped)):
        altered = wrapped[:position] + ("A" if wrapped[position] != "A" else "B") + wrapped[position + 1 :]
        with pytest.raises(IntegrityError, match=r"E-KEY-00[56]"):
            keyring.unwrap(altered, b"")
    for altered in ("", "chat/raw@1:", wrapped + "=", wrapped.replace("@1", "@2"), wrapped[:-4], "chat/rax" + wrapped[8:]):
        with pytest.raises(IntegrityError, match=r"E-KEY-00[56]"):
            keyring.unwrap(altered, b"")


def test_wrapping_shows_neither_the_key_nor_twice_the_same_text(home: Path) -> None:
    keyring = opened(home)
    one, two = keyring.wrap("chat/raw", b"d" * 32, b""), keyring.wrap("chat/raw", b"d" * 32, b"")
    assert one != two
    assert one.startswith("chat/raw@1:")
    assert (b"d" * 32).hex() not in repr(keyring)
    with pytest.raises(TypeError):
        pickle.dumps(keyring)


def test_derived_keys_are_stable_and_apart(home: Path) -> None:
    one = opened(home).derive("chat/token", "subject")
    assert one == opened(home).derive("chat/token", "subject")
    assert len({one, opened(home).derive("chat/token", "other"), opened(home).derive("shop/token", "subject")}) == 3


def test_another_homes_root_key_is_an_integrity_fault(home: Path) -> None:
    (home / "root.key").write_text("11" * 32)
    with pytest.raises(IntegrityError, match="E-KEY-004") as caught:
        opened(home)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("text", ["", "zz" * 32, "11" * 31, "11" * 33])
def test_a_root_key_of_another_shape_is_refused(home: Path, text: str) -> None:
    (home / "root.key").write_text(text)
    with pytest.raises(IntegrityError, match="E-KEY-007"):
        opened(home)


def test_no_byte_of_the_keyring_file_is_free_to_change(home: Path) -> None:
    opened(home).wrap("chat/raw", b"d" * 32, b"")
    path = home / "keyring.json"
    data = path.read_bytes()
    for position in range(len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(IntegrityError, match="E-KEY-004"):
            opened(home)
    for cut in (0, 1, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(IntegrityError, match="E-KEY-004"):
            opened(home)


def test_a_removed_domain_is_noticed_though_the_rest_is_genuine(home: Path) -> None:
    opened(home).wrap("chat/raw", b"d" * 32, b"")
    path = home / "keyring.json"
    value = json.loads(path.read_bytes())
    del value["domains"]["chat/raw"]
    path.write_text(json.dumps(value))
    with pytest.raises(IntegrityError, match="E-KEY-004"):
        opened(home)


@pytest.mark.parametrize("name", ["keyring.json", "root.key"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_key_file_that_others_can_touch_is_refused(home: Path, name: str, mode: int) -> None:
    (home / name).chmod(mode)
    with pytest.raises(EnvironmentFault, match="E-KEY-002"):
        opened(home)


@pytest.mark.parametrize("name", ["keyring.json", "root.key"])
def test_a_symbolic_link_or_a_pipe_is_no_key_file(home: Path, name: str) -> None:
    real = home / "elsewhere"
    (home / name).rename(real)
    (home / name).symlink_to(real)
    with pytest.raises(PrivetError, match="E-KEY-009"):
        opened(home)
    (home / name).unlink()
    os.mkfifo(home / name, 0o600)
    with pytest.raises(EnvironmentFault, match="E-KEY-002"):
        opened(home)
    (home / name).unlink()
    with pytest.raises(UsageError, match="E-KEY-003"):
        opened(home)


def test_creating_twice_does_not_replace_the_keys(home: Path) -> None:
    before = (home / "keyring.json").read_bytes(), (home / "root.key").read_bytes()
    with pytest.raises(UsageError, match="E-KEY-001"):
        Keyring.create(home / "keyring.json", home / "root.key")
    assert before == ((home / "keyring.json").read_bytes(), (home / "root.key").read_bytes())


def test_files_are_owner_only_from_the_first_byte(home: Path) -> None:
    opened(home).wrap("chat/raw", b"d" * 32, b"")
    for path in home.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600, path.name
    assert sorted(p.name for p in home.iterdir()) == [
        "keyring.json",
        "keyring.json.lock",
        "root.key",
        "roots.json",
        "roots.json.lock",
    ]


def test_a_destroyed_domain_key_is_gone_in_processes_that_had_it_open(home: Path) -> None:
    other = opened(home)
    wrapped = other.wrap("chat/raw", b"d" * 32, b"")
    assert opened(home).destroy("chat/raw")
    assert not opened(home).destroy("chat/raw")
    assert not opened(home).destroy("chat/never")
    for keyring in (other, opened(home)):
        with pytest.raises(IntegrityError, match="E-KEY-006"):
            keyring.unwrap(wrapped, b"")
        with pytest.raises(IntegrityError, match="E-KEY-006"):
            keyring.derive("chat/raw", "subject")
    again = other.wrap("chat/raw", b"d" * 32, b"")
    assert again.startswith("chat/raw@2:")  # a new key, under a version never used before
    assert other.unwrap(again, b"") == b"d" * 32
    with pytest.raises(IntegrityError, match="E-KEY-006"):
        other.unwrap(wrapped, b"")


def test_domain_names_can_not_smuggle_a_separator(home: Path) -> None:
    for domain in ("", "a@1:b", "a:b", "a b", "/a", "ä", "a" * 201):
        with pytest.raises(UsageError, match="E-KEY-008"):
            opened(home).wrap(domain, b"d" * 32, b"")


def _derive_many(home: Path, barrier: object, queue: object) -> None:
    keyring = opened(home)
    barrier.wait()  # type: ignore[attr-defined]
    queue.put([keyring.derive(f"d{n}/raw", "x").hex() for n in range(15)])  # type: ignore[attr-defined]


def test_racing_processes_never_make_two_keys_for_one_domain(home: Path) -> None:
    fork = multiprocessing.get_context("fork")
    barrier, queue = fork.Barrier(4), fork.Queue()
    workers = [fork.Process(target=_derive_many, args=(home, barrier, queue)) for _ in range(4)]
    for worker in workers:
        worker.start()
    found = [queue.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(60)
    assert all(keys == found[0] for keys in found)
    assert found[0] == [opened(home).derive(f"d{n}/raw", "x").hex() for n in range(15)]


def test_a_full_disk_leaves_the_old_keyring_whole(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = opened(home)
    wrapped = keyring.wrap("chat/raw", b"d" * 32, b"")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(EnvironmentFault, match="E-KEY-009"):
            keyring.wrap("chat/other", b"d" * 32, b"")
    assert not (home / "keyring.json.new").exists()
    assert opened(home).unwrap(wrapped, b"") == b"d" * 32
    assert keyring.wrap("chat/other", b"d" * 32, b"").startswith("chat/other@1:")

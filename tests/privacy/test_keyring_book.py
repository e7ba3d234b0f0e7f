"""Epochs, rotation, destruction and crashes of the keyring: nothing lost, nothing that comes back."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy import keyring_book, owner_only
from privacy.canonical import canonical_json
from privacy.domain_key import DomainKey, expand
from privacy.errors import EnvironmentFault, IntegrityError, PolicyError, PrivetError
from privacy.keyring_file import Row
from privacy.keys import Floor, Keyring, KeyringChange, KeyUse
from privacy.kms import Wrapped, destroyed
from privacy.kms.local import LocalKms
from privacy.kms.local_secret import KeyFile, RoleKey
from privacy.roles import RING, groups_unwrapped_by

DEK = b"d" * 32


@pytest.fixture
def home(tmp_path: Path) -> Path:
    Keyring.create(tmp_path / "keyring.json", tmp_path / "root.key")
    return tmp_path


def local(home: Path) -> LocalKms:
    return LocalKms(home / "roots.json", KeyFile(home / "root.key"))


def opened(home: Path, **options: object) -> Keyring:
    return Keyring(home / "keyring.json", local(home), **options)  # type: ignore[arg-type]


# Epochs


def test_an_older_epoch_opens_until_it_is_destroyed(home: Path) -> None:
    keyring = opened(home)
    first = keyring.wrap("chat/vault", DEK, b"s")
    assert keyring.new_epoch("chat/vault") == 2
    second = keyring.wrap("chat/vault", DEK, b"s")
    assert (keyring.epoch_of(first), keyring.epoch_of(second)) == (("chat/vault", 1), ("chat/vault", 2))
    assert keyring.unwrap_many([(first, b"s"), (second, b"s")]) == [DEK, DEK]
    moved = keyring.rewrap(first, b"s")
    assert keyring.epoch_of(moved) == ("chat/vault", 2)
    assert keyring.rewrap(moved, b"s") == moved
    with pytest.raises(IntegrityError, match="E-KEY-005"):
        keyring.rewrap(first, b"another subject")
    assert keyring.destroy_epoch("chat/vault", 1)
    assert not keyring.destroy_epoch("chat/vault", 1)
    assert not keyring.destroy_epoch("chat/vault", 9)
    assert [(e.epoch, e.state) for e in keyring.epochs("chat/vault")] == [(1, "destroyed"), (2, "live")]
    for ring in (keyring, opened(home)):
        for refused in (ring.unwrap, ring.rewrap):
            with pytest.raises(IntegrityError, match="E-KEY-006"):
                refused(first, b"s")
        with pytest.raises(IntegrityError, match="E-KEY-006"):
            ring.unwrap_many([(second, b"s"), (first, b"s")])
        assert ring.unwrap(moved, b"s") == DEK


def test_the_destroyed_current_epoch_is_followed_by_a_new_number(home: Path) -> None:
    keyring = opened(home)
    keyring.wrap("chat/vault", DEK, b"")
    keyring.destroy_epoch("chat/vault", 1)
    assert keyring.epoch_of(keyring.wrap("chat/vault", DEK, b"")) == ("chat/vault", 2)


def test_derived_keys_outlive_epochs_and_rotation_and_end_with_their_own(home: Path) -> None:
    keyring = opened(home)
    key = keyring.derive("chat/token", "subject")
    keyring.new_epoch("chat/token")
    keyring.rotate_root()
    assert opened(home).derive("chat/token", "subject") == keyring.derive("chat/token", "subject") == key
    keyring.destroy_epoch("chat/token", 2)
    assert keyring.derive("chat/token", "subject") == key
    keyring.destroy("chat/token")
    keyring.wrap("chat/token", DEK, b"")  # a live epoch again, and still no derived key
    for ring in (keyring, opened(home)):
        with pytest.raises(IntegrityError, match="E-KEY-006"):
            ring.derive("chat/token", "subject")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(["wrap", "epoch", "rotate", "rewrap", "destroy", "reopen"]), min_size=1, max_size=14))
def test_what_opens_is_exactly_what_was_not_destroyed(tmp_path_factory: pytest.TempPathFactory, steps: list[str]) -> None:
    """Against a naive twin: a dict from text to key, from which destruction removes."""
    home = tmp_path_factory.mktemp("twin")
    Keyring.create(home / "keyring.json", home / "root.key")
    keyring, live, dead = opened(home), {}, []
    for number, step in enumerate(steps):
        if step == "wrap":
            live[keyring.wrap("a/vault", number.to_bytes(32, "big"), b"c")] = number.to_bytes(32, "big")
        elif step == "epoch":
            keyring.new_epoch("a/vault")
        elif step == "rotate":
            keyring.rotate_root(["vault"])
        elif step == "rewrap":
            live = {keyring.rewrap(text, b"c"): dek for text, dek in live.items()}
        elif step == "destroy" and keyring.epochs("a/vault"):
            oldest = min((e.epoch for e in keyring.epochs("a/vault") if e.state == "live"), default=1)
            keyring.destroy_epoch("a/vault", oldest)
            dead += [text for text in live if keyring.epoch_of(text)[1] == oldest]
            live = {text: dek for text, dek in live.items() if keyring.epoch_of(text)[1] != oldest}
        elif step == "reopen":
            keyring = opened(home)
        assert {text: keyring.unwrap(text, b"c") for text in live} == live
        for text in dead:
            with pytest.raises(IntegrityError, match="E-KEY-006"):
                keyring.unwrap(text, b"c")


# Rotation of the root


def test_rotating_the_root_rewraps_rows_and_touches_nothing_else(home: Path) -> None:
    keyring = opened(home)
    kept = {name: keyring.wrap(name, DEK, b"") for name in ("chat/raw", "chat/vault", "shop/raw")}
    (home / "data").write_bytes(b"sealed")
    before = (home / "data").stat()
    assert keyring.rotate_root() == 3
    assert (home / "data").stat() == before
    rows = keyring.state.wrapped_rows()
    assert {w.version for *_, w in rows} == {2}
    assert keyring.state.ring.version == 2
    for ring in (keyring, opened(home)):
        assert all(ring.unwrap(text, b"") == DEK for text in kept.values())
    assert keyring.rotate_root(["raw"]) == 2


def test_what_opened_before_a_rotation_goes_on_in_an_open_process(home: Path) -> None:
    other, keyring = opened(home), opened(home)
    text = keyring.wrap("chat/raw", DEK, b"")
    other.rotate_root()
    assert keyring.unwrap(text, b"") == DEK


# Destruction reaches copies of the file


@pytest.mark.parametrize("rotated", [False, True])
def test_an_old_copy_of_the_keyring_does_not_bring_a_destroyed_epoch_back(home: Path, rotated: bool) -> None:
    keyring = opened(home)
    lost, kept = keyring.wrap("chat/vault", DEK, b""), keyring.wrap("shop/vault", DEK, b"")
    copy = (home / "keyring.json").read_bytes()
    if rotated:
        keyring.rotate_root()
    keyring.destroy_epoch("chat/vault", 1)
    (home / "keyring.json").write_bytes(copy)
    with pytest.raises(IntegrityError, match="E-KEY-010"):
        keyring.unwrap(kept, b"")  # an open process notices
    stale = opened(home)  # and one that knows nothing of the newer file
    for text in (lost, kept):
        with pytest.raises(IntegrityError, match="E-KMS-005"):
            stale.unwrap(text, b"")


class Flaky:
    """A key service that fails in one call, as often as asked."""

    def __init__(self, real: LocalKms, call: str, fault: PrivetError) -> None:
        self._real, self._call, self._fault, self.failing = real, call, fault, True

    def __getattr__(self, name: str) -> object:
        if name == self._call and self.failing:

            def fail(*_: object) -> None:
                raise self._fault

            return fail
        return getattr(self._real, name)


DOWN = EnvironmentFault("E-KMS-001", "the key service does not answer", "Wait")


@pytest.mark.parametrize("call", ["rotate", "rewrap_many", "destroy", "versions"])
def test_a_key_service_that_fails_midway_leaves_the_epoch_destroyed_and_the_rest_to_be_finished(home: Path, call: str) -> None:
    kms = Flaky(local(home), call, DOWN)
    keyring = Keyring(home / "keyring.json", kms)  # type: ignore[arg-type]
    lost, kept = keyring.wrap("chat/vault", DEK, b""), keyring.wrap("shop/vault", DEK, b"")
    copy = (home / "keyring.json").read_bytes()
    with pytest.raises(EnvironmentFault, match="E-KEY-014"):
        keyring.destroy_epoch("chat/vault", 1)
    with pytest.raises(IntegrityError, match="E-KEY-006"):
        keyring.unwrap(lost, b"")
    assert keyring.unwrap(kept, b"") == DEK
    assert keyring.state.doomed
    kms.failing = False
    assert not keyring.destroy_epoch("chat/vault", 1)  # not live any more, and now finished
    assert not keyring.state.doomed
    assert opened(home).unwrap(kept, b"") == DEK
    (home / "keyring.json").write_bytes(copy)
    with pytest.raises(IntegrityError, match="E-KMS-005"):
        opened(home).unwrap(lost, b"")


def test_a_fault_in_the_middle_of_a_rotation_leaves_everything_readable(home: Path) -> None:
    for call in ("rotate", "rewrap_many"):
        kms = Flaky(local(home), call, DOWN)
        keyring = Keyring(home / "keyring.json", kms)  # type: ignore[arg-type]
        text = keyring.wrap("chat/raw", DEK, b"")
        with pytest.raises(EnvironmentFault, match="E-KMS-001"):
            keyring.rotate_root()
        assert keyring.unwrap(text, b"") == opened(home).unwrap(text, b"") == DEK


# Reports: before the key, or no key


def test_every_use_is_reported_before_the_key_is_out(home: Path) -> None:
    uses: list[KeyUse] = []
    keyring = opened(home, on_unwrap=uses.append, role="steward")
    one, two = keyring.wrap("chat/raw", DEK, b""), keyring.wrap("chat/raw", DEK, b"")
    assert uses == []  # wrapping gives nothing out
    keyring.unwrap(one, b"")
    keyring.new_epoch("chat/raw")
    three = keyring.wrap("chat/raw", DEK, b"")
    keyring.unwrap_many([(one, b""), (three, b""), (two, b"")])
    keyring.derive("chat/token", "a")
    keyring.derive("chat/token", "a")
    keyring.derive("chat/token", "b")
    assert uses == [
        KeyUse("chat/raw", 1, "unwrap", 1, "steward"),
        KeyUse("chat/raw", 1, "unwrap", 2, "steward"),
        KeyUse("chat/raw", 2, "unwrap", 1, "steward"),
        KeyUse("chat/token", 1, "derive", 1, "steward"),
        KeyUse("chat/token", 1, "derive", 1, "steward"),
    ]
    assert keyring.unwrap_many([]) == []


def test_a_report_that_fails_means_no_key(home: Path) -> None:
    def full(_: KeyUse) -> None:
        raise EnvironmentFault("E-DB-001", "the disk is full", "Free space")

    text = opened(home).wrap("chat/raw", DEK, b"")
    keyring = opened(home, on_unwrap=full)
    for _ in range(2):  # the second time the domain key is in the cache
        with pytest.raises(EnvironmentFault, match="E-DB-001"):
            keyring.unwrap(text, b"")
        with pytest.raises(EnvironmentFault, match="E-DB-001"):
            keyring.derive("chat/token", "a")


def test_a_child_of_fork_reports_its_own_derivation(home: Path) -> None:
    fork = multiprocessing.get_context("fork")
    queue = fork.Queue()
    keyring = opened(home, on_unwrap=lambda use: queue.put((os.getpid(), use.action)))
    keyring.derive("chat/token", "a")
    child = fork.Process(target=lambda: keyring.derive("chat/token", "a"))
    child.start()
    child.join(30)
    assert {queue.get(timeout=10) for _ in range(2)} == {(os.getpid(), "derive"), (child.pid, "derive")}


def test_each_change_is_reported_before_and_after_with_the_files_digest(home: Path) -> None:
    changes: list[KeyringChange] = []
    keyring = opened(home, on_change=changes.append)
    keyring.wrap("chat/raw", DEK, b"")
    keyring.destroy_epoch("chat/raw", 1)
    assert [(c.stage, c.what, c.generation) for c in changes] == [
        (stage, what, generation)
        for generation, what in ((2, "made"), (3, "destroyed"), (4, "shredded"))
        for stage in ("changing", "changed")
    ]
    assert changes[-1].digest == keyring.digest == opened(home).digest


def test_a_change_nobody_could_record_does_not_happen(home: Path) -> None:
    def full(_: KeyringChange) -> None:
        raise EnvironmentFault("E-DB-001", "the disk is full", "Free space")

    text = opened(home).wrap("chat/raw", DEK, b"")
    before = (home / "keyring.json").read_bytes()
    keyring = opened(home, on_change=full)
    for change in (
        lambda: keyring.destroy("chat/raw"),
        lambda: keyring.new_epoch("chat/raw"),
        lambda: keyring.derive("x/token", ""),
    ):
        with pytest.raises(EnvironmentFault, match="E-DB-001"):
            change()
    assert (home / "keyring.json").read_bytes() == before
    assert keyring.unwrap(text, b"") == DEK


# Older files


def test_a_file_below_the_floor_and_a_fork_of_it_are_refused(home: Path) -> None:
    old, old_digest = (home / "keyring.json").read_bytes(), opened(home).digest
    opened(home).wrap("chat/raw", DEK, b"")
    newest = opened(home)
    floor = Floor(newest.state.generation, newest.digest)
    assert opened(home, floor=lambda: floor).digest == newest.digest
    assert opened(home, floor=lambda: Floor(1, old_digest)).digest == newest.digest  # a change after the record
    (home / "keyring.json").write_bytes(old)
    with pytest.raises(IntegrityError, match="E-KEY-010") as caught:
        opened(home, floor=lambda: floor)
    assert caught.value.exit_code == 4
    opened(home).wrap("chat/other", DEK, b"")  # another history, of the same length
    with pytest.raises(IntegrityError, match="E-KEY-010"):
        opened(home, floor=lambda: floor)


def test_an_open_process_notices_an_older_file_put_back(home: Path) -> None:
    keyring = opened(home)
    old = (home / "keyring.json").read_bytes()
    text = keyring.wrap("chat/raw", DEK, b"")
    (home / "keyring.json").write_bytes(old)
    with pytest.raises(IntegrityError, match="E-KEY-010"):
        keyring.unwrap(text, b"")


def test_a_swapped_public_key_is_met_by_whoever_may_open_the_domain(home: Path) -> None:
    """By somebody with the MAC key, that is, with a role: without it, it is E-KEY-004 everywhere."""
    keyring = opened(home)
    keyring.ensure("chat/raw")
    file, stranger = keyring.state, "11" * 32
    swapped = file.with_row("chat/raw", 1, type(row := file.domains["chat/raw"][1])(row.created_at, stranger, row.wrapped))
    value = json.loads((home / "keyring.json").read_bytes())
    value["domains"]["chat/raw"]["1"]["public"] = stranger
    (home / "keyring.json").write_bytes(canonical_json(value))
    with pytest.raises(IntegrityError, match="E-KEY-004"):
        opened(home)
    (home / "keyring.json").write_bytes(swapped.encode(keyring._book._mac_key))
    diverted = opened(home, role="ingest").wrap("chat/raw", DEK, b"")  # what the docstring says
    assert diverted.startswith("chat/raw@1:h.")
    with pytest.raises(IntegrityError, match="E-KMS-004"):
        opened(home, role="steward").unwrap(diverted, b"")


@pytest.mark.parametrize(("role", "group"), [("auditor", RING), ("trainer", "features")])
def test_a_role_can_not_put_a_row_of_its_own_making_under_a_key_that_it_may_use(home: Path, role: str, group: str) -> None:
    """With the MAC key, and with the row's context intact: all that is wrong is the key that wrapped the secret."""
    running = opened(home)
    running.ensure("chat/raw")
    file, evil = running.state, DomainKey.of(b"\x07" * 32)
    local(home).grant(role, [file.key_id(RING), *map(file.key_id, groups_unwrapped_by(role))], home / "role.key")
    kms = LocalKms(home / "roots.json", RoleKey.read(home / "role.key"))
    mac_key = expand(kms.unwrap(file.ring, file.ring_context()), "keyring/mac")
    chosen = kms.wrap(file.key_id(group), b"\x07" * 32, file.row_context("chat/raw", 2, evil.public))
    forged = file.with_row("chat/raw", 2, Row(file.domains["chat/raw"][1].created_at, evil.public, chosen))
    (home / "keyring.json").write_bytes(replace(forged, generation=file.generation + 1).encode(mac_key))
    for use in (
        lambda: running.wrap("chat/raw", DEK, b""),
        lambda: opened(home).wrap("chat/raw", DEK, b""),
        lambda: opened(home, role="ingest").wrap("chat/raw", DEK, b""),
    ):
        with pytest.raises(IntegrityError, match="E-KEY-004"):
            use()


def test_a_file_is_believed_by_its_digest_where_changes_are_on_record(home: Path) -> None:
    first = opened(home)
    old = Floor(first.state.generation, first.digest, frozenset())
    first.wrap("chat/raw", DEK, b"")
    newer = opened(home).digest
    with pytest.raises(IntegrityError, match="E-KEY-010"):
        opened(home, floor=lambda: old)  # newer than the record, and announced by nobody
    assert opened(home, floor=lambda: replace(old, announced=frozenset({newer}))).digest == newer
    records = iter([old, Floor(old.generation + 1, newer, frozenset())])
    assert opened(home, floor=lambda: next(records)).digest == newer  # it came on record while we looked


# Cache: a token that was withdrawn stops working within cache_seconds


def test_a_domain_key_is_asked_for_again_when_its_time_is_up(home: Path) -> None:
    now = [0.0]
    kms = Flaky(local(home), "unwrap", EnvironmentFault("E-KMS-003", "expired", "New token"))
    kms.failing = False
    keyring = Keyring(home / "keyring.json", kms, clock=lambda: now[0], cache_seconds=60)  # type: ignore[arg-type]
    text = keyring.wrap("chat/raw", DEK, b"")
    kms.failing = True
    now[0] = 59.0
    assert keyring.unwrap(text, b"") == DEK
    now[0] = 61.0
    for refused in (lambda: keyring.unwrap(text, b""), lambda: keyring.wrap("chat/raw", DEK, b"")):
        with pytest.raises(EnvironmentFault, match="E-KMS-003"):
            refused()
    kms.failing = False
    assert keyring.unwrap(text, b"") == DEK


def test_a_key_destroyed_mid_run_stops_the_run_where_it_is(home: Path) -> None:
    keyring = opened(home)
    texts = [keyring.wrap("chat/raw", DEK, str(n).encode()) for n in range(4)]
    assert [keyring.unwrap(text, str(n).encode()) for n, text in enumerate(texts[:2])] == [DEK, DEK]
    opened(home).destroy("chat/raw")
    for number in (0, 2, 3):
        with pytest.raises(IntegrityError, match="E-KEY-006"):
            keyring.unwrap(texts[number], str(number).encode())


# SIGKILL


def _busy(home: Path, ready: object, seed: int) -> None:
    keyring = opened(home)
    ready.set()  # type: ignore[attr-defined]
    for number in range(10_000):
        keyring.wrap(f"d{seed}{number % 3}/vault", DEK, b"")
        keyring.new_epoch(f"d{seed}{number % 3}/vault")
        keyring.rotate_root(["vault"])
        keyring.destroy_epoch(f"d{seed}{number % 3}/vault", 1 + number // 3)


def _kill_at_random(home: Path, rounds: int, check: Callable[[], None]) -> None:
    fork = multiprocessing.get_context("fork")
    for number in range(rounds):
        ready = fork.Event()
        worker = fork.Process(target=_busy, args=(home, ready, number))
        worker.start()
        assert ready.wait(30)
        time.sleep(0.013 * (number % 17) + 0.003)
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        worker.join(30)
        check()


def test_a_process_killed_at_any_moment_leaves_a_keyring_that_works(home: Path) -> None:
    keyring = opened(home)
    kept = keyring.wrap("kept/vault", DEK, b"")

    def check() -> None:
        assert opened(home).unwrap(kept, b"") == DEK
        assert keyring.unwrap(kept, b"") == DEK

    _kill_at_random(home, 25, check)
    assert opened(home).rotate_root() >= 1
    assert not opened(home).state.doomed
    assert opened(home).unwrap(kept, b"") == DEK


@pytest.mark.parametrize("at", ["before", "replace", "after"])
@pytest.mark.parametrize("write", range(6))
def test_killed_at_each_write_of_a_destruction_it_can_be_finished(home: Path, at: str, write: int) -> None:
    keyring = opened(home)
    lost, kept = keyring.wrap("chat/vault", DEK, b""), keyring.wrap("shop/vault", DEK, b"")
    copy = (home / "keyring.json").read_bytes()
    child = os.fork()
    if child == 0:
        _dies_at(at, write)
        opened(home).destroy_epoch("chat/vault", 1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    assert code == -signal.SIGKILL or write == 5  # rows out; new version; rows moved; old version out; mark gone
    ring = opened(home)
    assert ring.unwrap(kept, b"") == DEK
    ring.destroy_epoch("chat/vault", 1)
    assert not opened(home).state.doomed
    assert opened(home).unwrap(kept, b"") == DEK
    with pytest.raises(IntegrityError, match="E-KEY-006"):
        opened(home).unwrap(lost, b"")
    (home / "keyring.json").write_bytes(copy)
    with pytest.raises(IntegrityError, match="E-KMS-005"):
        opened(home).unwrap(lost, b"")


def _dies_at(at: str, write: int) -> None:
    """In a child: kill this process before, within or after its n-th replacement of a file."""
    count = [0]
    real = owner_only.write_owner_only
    replace = Path.replace

    def dying(path: Path, data: bytes) -> None:
        count[0] += 1
        if count[0] == write + 1:
            if at == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            if at == "replace":
                Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment,method-assign]
            real(path, data)
            os.kill(os.getpid(), signal.SIGKILL)
        Path.replace = replace  # type: ignore[method-assign]
        real(path, data)

    from privacy.kms import local as local_module

    keyring_book.write_owner_only = dying  # type: ignore[assignment]
    local_module.write_owner_only = dying  # type: ignore[assignment]


# Races


def _new_epochs(home: Path, barrier: object, queue: object) -> None:
    keyring = opened(home)
    barrier.wait()  # type: ignore[attr-defined]
    queue.put([keyring.new_epoch("chat/vault") for _ in range(10)])  # type: ignore[attr-defined]


def test_racing_processes_never_get_the_same_epoch(home: Path) -> None:
    fork = multiprocessing.get_context("fork")
    barrier, queue = fork.Barrier(4), fork.Queue()
    workers = [fork.Process(target=_new_epochs, args=(home, barrier, queue)) for _ in range(4)]
    for worker in workers:
        worker.start()
    found = [epoch for _ in workers for epoch in queue.get(timeout=60)]
    for worker in workers:
        worker.join(60)
    assert sorted(found) == list(range(1, 41))


def test_rotation_and_wrapping_at_once_lose_nothing(home: Path) -> None:
    fork = multiprocessing.get_context("fork")
    queue = fork.Queue()

    def wrapping(number: int) -> None:
        ring = opened(home)
        queue.put([ring.wrap(f"d{number}x{n}/raw", DEK, b"") for n in range(12)])

    def rotating(_: int) -> None:
        ring = opened(home)
        queue.put([ring.rotate_root() and "" for _ in range(5)][:0])

    workers = [fork.Process(target=what, args=(n,)) for n, what in enumerate((wrapping, rotating, wrapping, rotating))]
    for worker in workers:
        worker.start()
    texts = [text for _ in workers for text in queue.get(timeout=60)]
    for worker in workers:
        worker.join(60)
    assert len(texts) == 24
    assert opened(home).unwrap_many([(text, b"") for text in texts]) == [DEK] * 24


def test_threads_that_read_while_one_changes_never_cry_wolf(home: Path) -> None:
    """A thread that opened the file before another read a newer one must not take its own for a restored copy."""
    keyring = opened(home)
    text = keyring.wrap("chat/raw", DEK, b"")
    faults: list[BaseException] = []
    done = threading.Event()

    def reading() -> None:
        while not done.is_set():
            try:
                assert keyring.unwrap(text, b"") == DEK
                keyring.derive("chat/token", "x")
            except BaseException as error:
                faults.append(error)
                return

    readers = [threading.Thread(target=reading) for _ in range(4)]
    for reader in readers:
        reader.start()
    for number in range(16):
        keyring.new_epoch("chat/vault")
        if number % 8 == 7:
            keyring.rotate_root()
            keyring.destroy_epoch("chat/vault", number)
    done.set()
    for reader in readers:
        reader.join(30)
    assert faults == []
    assert [e.epoch for e in keyring.epochs("chat/vault")] == list(range(1, 17))


def test_a_row_of_another_place_or_keyring_is_no_row(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whoever has the MAC key still can't move a wrapped secret: domain, epoch and keyring are in its context."""
    keyring = opened(home)
    keyring.ensure("chat/raw")
    keyring.ensure("shop/raw")
    file = keyring.state
    moved = file.with_row("shop/raw", 1, file.domains["chat/raw"][1])
    (home / "keyring.json").write_bytes(moved.encode(keyring._book._mac_key))
    with pytest.raises(IntegrityError, match="E-KMS-004"):
        opened(home).wrap("shop/raw", DEK, b"")


def test_a_role_that_may_not_make_a_domain_says_who_can(home: Path) -> None:
    with pytest.raises(PolicyError, match="E-KEY-013"):
        opened(home, role="ingest").wrap("chat/raw", DEK, b"")
    assert opened(home).epochs("chat/raw") == []


def test_wrapped_from_nonsense_is_refused() -> None:
    for value in (None, {}, {"key_id": "a", "version": True, "blob": ""}, {"key_id": "a/b", "version": 1, "blob": ""}):
        with pytest.raises(IntegrityError, match="E-KMS-004"):
            Wrapped.from_json(value)  # type: ignore[arg-type]
    assert destroyed().exit_code == 4

"""The end of an epoch: killed anywhere it loses nobody and keeps nobody, and old copies open with nothing that is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from privacy import epoch as epoch_module
from privacy.database import Place, PostgresPlace
from privacy.errors import IntegrityError
from privacy.vault import Vault, _bound
from tests.privacy.test_vault import World, fill, world  # noqa: F401 (a fixture)
from tests.worlds.epoch_keys import EpochKeys

ROOT = Path(__file__).parents[2]
# Dies at the given moment: "before" or "after" the n-th call of one of the steps a rotation takes.
CHILD = """
import os, signal, sys
from pathlib import Path
from privacy import epoch, sqlite, postgres
from privacy.database import PostgresPlace
from privacy.vault import Vault
from tests.worlds.epoch_keys import EpochKeys

place, keys, step, number = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
epoch._BATCH = 8
count = 0

def mortal(real):
    def call(*args, **kwargs):
        global count
        count += 1
        if step == "before" and count == number:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **kwargs)
        if step == "after" and count == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call

where = PostgresPlace(*place.split("|")) if "|" in place else Path(place)
vault = Vault(where, EpochKeys(keys))
for name in ("new_epoch", "rewrap", "destroy_epoch"):
    setattr(EpochKeys, name, mortal(getattr(EpochKeys, name)))
for name in ("_begin", "_clear", "_rewrap"):
    setattr(epoch, name, mortal(getattr(epoch, name)))
vault.rotate_epoch("chat")
"""


def spelled(place: Place) -> str:
    return f"{place.dsn}|{place.schema}" if isinstance(place, PostgresPlace) else str(place)


def rotate_and_die(world: World, step: str, number: int) -> int:  # noqa: F811
    arguments = [sys.executable, "-c", CHILD, spelled(world.place), str(world.key_file), step, str(number)]
    done = subprocess.run(arguments, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
    return done.returncode


def live(world: World) -> list[int]:  # noqa: F811
    return [e.epoch for e in EpochKeys(world.key_file).epochs("chat/vault") if e.state == "live"]


def test_survivors_stay_readable_and_old_copies_do_not(world: World) -> None:  # noqa: F811
    vault = world.vault()
    tokens = fill(vault)
    copies: dict[str, str] = dict(world.rows("SELECT token, wrapped FROM subject"))
    keys = EpochKeys(world.key_file)
    assert all(keys.unwrap(copies[t], _bound("chat", t)) for t in tokens)  # before: an old copy is as good as the original
    vault.erase("chat", "customer 7", "case-1")
    turned = vault.rotate_epoch("chat")
    assert (turned.epoch, turned.destroyed, turned.rewrapped, turned.resumed) == (2, (1,), 39, False)
    for token in tokens:
        with pytest.raises(IntegrityError, match="E-KEY-006"):
            keys.unwrap(copies[token], _bound("chat", token))
    assert [len(vault.reveal("chat", t)) for t in tokens] == [3] * 7 + [0] + [3] * 32
    assert live(world) == [2]


def test_a_dataset_without_subjects_and_another_dataset_are_left_alone(world: World) -> None:  # noqa: F811
    vault = world.vault()
    fill(vault)
    vault.put_many("shop", [(vault.token("shop", "ada"), "o1", b"x")])
    assert vault.rotate_epoch("nothing").rewrapped == 0
    assert vault.rotate_epoch("chat").rewrapped == 40
    assert vault.reveal("shop", vault.token("shop", "ada")) == [("o1", b"x")]
    assert set(world.rows("SELECT dataset, epoch FROM subject")) == {("chat", 2), ("shop", 1)}


@pytest.mark.slow
@pytest.mark.parametrize("step", ["before", "after"])
def test_killed_at_every_step_it_goes_on_and_ends_the_same(world: World, step: str) -> None:  # noqa: F811
    """Steps: new epoch, begin, passes over the rows, each rewrapping, destroying, clearing; each in turn is the last."""
    vault = world.vault()
    tokens = fill(vault, subjects=20, records=1)
    copies: dict[str, str] = dict(world.rows("SELECT token, wrapped FROM subject"))
    vault.erase("chat", "customer 7", "case-1")
    kills = 0
    for number in range(1, 40):
        if rotate_and_die(world, step, number) == 0:
            break
        kills += 1
        alive = [t for n, t in enumerate(tokens) if n != 7]
        assert [len(world.vault().reveal("chat", t)) for t in alive] == [1] * 19, f"a survivor was lost at step {number}"
        assert world.vault().reveal("chat", tokens[7]) == []
    assert kills >= 5, "nothing was killed"
    assert len(live(world)) == 1
    with pytest.raises(IntegrityError, match="E-KEY-006"):
        EpochKeys(world.key_file).unwrap(copies[tokens[7]], _bound("chat", tokens[7]))


def test_an_interrupted_rotation_does_not_start_a_new_epoch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    vault = world.vault()
    tokens = fill(vault)
    with monkeypatch.context() as patched:
        patched.setattr(EpochKeys, "destroy_epoch", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            vault.rotate_epoch("chat")
    assert live(world) == [1, 2]
    turned = world.vault().rotate_epoch("chat")
    assert (turned.epoch, turned.destroyed, turned.rewrapped, turned.resumed) == (2, (1,), 0, True)
    assert len(world.vault().reveal("chat", tokens[0])) == 3


def test_a_record_sealed_under_the_old_epoch_while_it_ends_is_not_lost(
    world: World,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A writer wraps a new subject's key, then the epoch ends, then the writer commits."""
    fill(world.vault())
    vault = world.vault()
    token = vault.token("chat", "late comer")
    real = EpochKeys.wrap

    def rotated_meanwhile(self: EpochKeys, domain: str, dek: bytes, context: bytes) -> str:
        wrapped = real(self, domain, dek, context)
        if domain == "chat/vault" and not done:
            done.append(1)
            world.vault().rotate_epoch("chat")
        return wrapped

    done: list[int] = []
    with monkeypatch.context() as patched:
        patched.setattr(EpochKeys, "wrap", rotated_meanwhile)
        assert vault.put_many("chat", [(token, "m", b"kept")]) == 1
    assert done
    assert world.rows("SELECT epoch FROM subject WHERE token = ?", token) == [(2,)]
    assert world.vault().reveal("chat", token) == [("m", b"kept")]


def test_an_erasure_between_the_look_and_the_rewrap_is_not_undone(
    world: World,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill(world.vault())
    real = EpochKeys.rewrap
    done: list[int] = []

    def erased_meanwhile(self: EpochKeys, wrapped: str, context: bytes) -> str:
        if not done:
            done.append(1)
            world.vault().erase("chat", "customer 7", "case-1")
        return real(self, wrapped, context)

    with monkeypatch.context() as patched:
        patched.setattr(EpochKeys, "rewrap", erased_meanwhile)
        assert world.vault().rotate_epoch("chat").rewrapped == 39
    assert world.rows("SELECT count(*) FROM subject") == [(39,)]


def test_a_reader_that_holds_an_old_wrapping_looks_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    tokens = fill(world.vault())
    real = EpochKeys.unwrap
    done: list[int] = []

    def rotated_meanwhile(self: EpochKeys, wrapped: str, context: bytes) -> str | bytes:
        if not done:
            done.append(1)
            world.vault().rotate_epoch("chat")
        return real(self, wrapped, context)

    with monkeypatch.context() as patched:
        patched.setattr(EpochKeys, "unwrap", rotated_meanwhile)
        assert len(world.vault().reveal("chat", tokens[3])) == 3


def test_a_damaged_key_keeps_the_old_epoch_alive_until_it_is_mended(world: World) -> None:  # noqa: F811
    vault = world.vault()
    tokens = fill(vault)
    ((good,),) = world.rows("SELECT wrapped FROM subject WHERE token = ?", tokens[3])
    ((foreign,),) = world.rows("SELECT wrapped FROM subject WHERE token = ?", tokens[4])
    world.rows("UPDATE subject SET wrapped = ? WHERE token = ?", foreign, tokens[3])
    with pytest.raises(IntegrityError, match="E-VAULT-004"):
        vault.rotate_epoch("chat")
    assert live(world) == [1, 2]
    world.rows("UPDATE subject SET wrapped = ? WHERE token = ?", good, tokens[3])
    assert vault.rotate_epoch("chat").destroyed == (1,)
    assert len(vault.reveal("chat", tokens[3])) == 3


def test_two_rotations_at_once_end_in_one_living_epoch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    tokens = fill(world.vault())
    real = epoch_module._begin
    done: list[int] = []

    def another_first(*args: object) -> None:
        if not done:
            done.append(1)
            world.vault().rotate_epoch("chat")
        real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(epoch_module, "_begin", another_first)
    world.vault().rotate_epoch("chat")
    world.vault().rotate_epoch("chat")
    assert len(live(world)) == 1
    assert [len(Vault(world.place, EpochKeys(world.key_file)).reveal("chat", t)) for t in tokens] == [3] * 40

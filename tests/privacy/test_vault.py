"""The vault: what an erasure leaves behind (nothing), and whom a token names (one subject, in one dataset)."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from privacy import vault as vault_module
from privacy.database import Place
from privacy.errors import DataError, IntegrityError
from privacy.vault import Vault
from tests.worlds.epoch_keys import EpochKeys

NOW = datetime(2026, 5, 1, tzinfo=UTC)


class World:
    """One vault on either ground, with keys of its own."""

    def __init__(self, place: Place, folder: Path) -> None:
        self.place = place
        self.key_file = folder / "keys.json"

    def vault(self) -> Vault:
        return Vault(self.place, EpochKeys(self.key_file))

    def rows(self, sql: str, *values: object) -> list[Any]:
        with self.vault()._database.transaction() as connection:
            found = connection.execute(sql, values)
            return found.fetchall() if sql.startswith("SELECT") else []


@pytest.fixture
def world(place: Place, tmp_path: Path) -> World:
    return World(place, tmp_path)


@pytest.fixture
def on_disk(tmp_path: Path) -> World:
    return World(tmp_path / "vault.sqlite", tmp_path)


def bytes_of(world: World) -> bytes:
    """Database, write-ahead log and shared memory as they lie on disk."""
    assert isinstance(world.place, Path)
    return b"".join(p.read_bytes() for p in sorted(world.place.parent.glob("vault.sqlite*")) if p.is_file())


def fill(vault: Vault, subjects: int = 40, records: int = 3) -> list[str]:
    tokens = vault.tokens("chat", [f"customer {n}" for n in range(subjects)])
    rows = [(token, f"m{n}-{r}", f"payload of {n} {r} ".encode() * 9) for n, token in enumerate(tokens) for r in range(records)]
    assert vault.put_many("chat", rows) == len(rows)
    return tokens


def test_originals_come_back_by_subject(world: World) -> None:
    tokens = fill(world.vault())
    assert world.vault().reveal("chat", tokens[7]) == [(f"m7-{r}", f"payload of 7 {r} ".encode() * 9) for r in range(3)]
    assert world.vault().reveal("chat", "u" + "a" * 24) == []
    assert world.vault().reveal("shop", tokens[7]) == []


def test_protecting_twice_stores_once(world: World) -> None:
    vault = world.vault()
    tokens = fill(vault)
    assert vault.put_many("chat", [(tokens[0], "m0-0", b"other bytes"), (tokens[0], "new", b"n")]) == 1
    assert dict(vault.reveal("chat", tokens[0]))["m0-0"] == b"payload of 0 0 " * 9


def test_nothing_personal_lies_in_the_file(on_disk: World) -> None:
    fill(on_disk.vault())
    assert b"customer" not in bytes_of(on_disk)
    assert b"payload of" not in bytes_of(on_disk)
    assert isinstance(on_disk.place, Path)
    assert on_disk.place.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("same", ["Ada", " ada\t", "ADA", "Ａda", "aDa\u00a0"])
def test_spelling_does_not_split_a_person_in_two(on_disk: World, same: str) -> None:
    assert on_disk.vault().token("chat", same) == on_disk.vault().token("chat", "ada")


def test_tokens_do_not_link_datasets_and_survive_epochs(world: World) -> None:
    vault = world.vault()
    token = vault.token("chat", "ada")
    assert token != vault.token("shop", "ada")
    assert token != vault.token("chat", "adb")
    assert len(token) == 25
    fill(vault)
    vault.rotate_epoch("chat")
    assert world.vault().token("chat", "ada") == token


def test_records_without_a_subject_are_not_joined_under_one_token(on_disk: World) -> None:
    for empty in ("", "  ", "\u3000\n"):
        with pytest.raises(DataError, match="E-VAULT-001"):
            on_disk.vault().tokens("chat", ["ada", empty])


def test_after_an_erasure_no_byte_of_the_subject_is_left(on_disk: World) -> None:
    vault = on_disk.vault()
    tokens = fill(vault)
    ((wrapped,),) = on_disk.rows("SELECT wrapped FROM subject WHERE token = ?", tokens[7])
    payloads = [bytes(p) for (p,) in on_disk.rows("SELECT payload FROM original WHERE token = ?", tokens[7])]
    needle = str(wrapped).rsplit(":", 1)[-1].encode()
    assert all(found in bytes_of(on_disk) for found in [needle, *payloads])
    erased = vault.erase("chat", "Customer 7", "case-1")
    assert (erased.token, erased.records, erased.was_known, erased.cleared) == (tokens[7], 3, True, True)
    left = bytes_of(on_disk)
    assert all(found not in left for found in [needle, b"ustomer 7", b"m7-1", *payloads])
    assert vault.reveal("chat", tokens[7]) == []
    assert len(vault.reveal("chat", tokens[8])) == 3


def test_the_bytes_test_can_fail(on_disk: World) -> None:
    """Without SQLite's secure_delete the deleted key stays in the file, so the test above does see what it claims to see."""
    vault = on_disk.vault()
    vault._database._erasing = False  # type: ignore[attr-defined]
    tokens = fill(vault)
    ((wrapped,),) = on_disk.rows("SELECT wrapped FROM subject WHERE token = ?", tokens[7])
    vault.erase("chat", "customer 7", "case-1")
    assert str(wrapped).rsplit(":", 1)[-1].encode() in bytes_of(on_disk)


def test_an_erasure_does_not_wait_for_readers_and_says_what_it_left(on_disk: World) -> None:
    vault = on_disk.vault()
    assert isinstance(on_disk.place, Path)
    reader = sqlite3.connect(on_disk.place, isolation_level=None)  # keeps the write-ahead log in use
    tokens = fill(vault)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM subject").fetchone()
    erased = vault.erase("chat", "customer 7", "case-1")
    assert (erased.records, erased.cleared) == (3, False)
    assert vault.is_erased("chat", tokens[7])
    reader.execute("COMMIT")
    reader.close()
    again = vault.erase("chat", "customer 7", "case-1")
    assert (again.records, again.was_known, again.cleared) == (0, True, True)


def test_an_erased_subject_does_not_come_back(world: World) -> None:
    vault = world.vault()
    tokens = fill(vault)
    vault.erase("chat", "customer 7", "case-1")
    assert world.vault().is_erased("chat", tokens[7])
    assert world.vault().erased_tokens("chat") == {tokens[7]}
    assert world.vault().put_many("chat", [(tokens[7], "again", b"x"), (tokens[8], "new", b"y")]) == 1
    assert world.vault().reveal("chat", tokens[7]) == []
    assert not world.vault().is_erased("shop", tokens[7])
    world.vault().rotate_epoch("chat")
    assert world.vault().put_many("chat", [(tokens[7], "again", b"x")]) == 0


def test_a_tombstone_can_not_be_taken_away(world: World) -> None:
    vault = world.vault()
    fill(vault)
    vault.erase("chat", "customer 7", "case-1")
    for statement in ("DELETE FROM tombstone", "UPDATE tombstone SET token = 'x'"):
        with pytest.raises(IntegrityError, match="E-DB-003"):
            world.rows(statement)
    assert len(vault.erased_tokens("chat")) == 1


def test_erasing_an_unknown_person_is_remembered_and_said(world: World) -> None:
    vault = world.vault()
    fill(vault)
    assert vault.erase("chat", "nobody", "case-2").was_known is False
    assert vault.erase("chat", "nobody", "case-2").was_known is False
    assert vault.is_erased("chat", vault.token("chat", "nobody"))


def test_every_dataset_that_held_the_person_is_named(world: World) -> None:
    vault = world.vault()
    fill(vault)
    vault.put_many("shop", [(vault.token("shop", "customer 7"), "o1", b"x")])
    assert vault.datasets_of("CUSTOMER 7") == ["chat", "shop"]
    assert vault.datasets_of("customer 8") == ["chat"]
    vault.erase("shop", "customer 7", "case")
    assert vault.datasets_of("customer 7") == ["chat", "shop"]  # an erasure cut short has to find it again
    assert vault.datasets_of("nobody") == []


def test_what_is_held_of_a_person_is_counted_without_reading_it(world: World) -> None:
    vault = world.vault()
    token = vault.token("chat", "ada")
    vault.put_many("chat", [(token, "a", b"x")], NOW)
    vault.put_many("chat", [(token, "b", b"y")], NOW + timedelta(days=2))
    held = vault.holding("chat", "Ada")
    assert held is not None
    assert (held.records, held.first_expiry, held.last_expiry, held.erased_at) == (2, NOW, NOW + timedelta(days=2), None)
    assert vault.holding("chat", "bob") is None
    vault.erase("chat", "ada", "case-9")
    gone = vault.holding("chat", "ada")
    assert gone is not None
    assert (gone.records, gone.first_expiry, gone.erased_by_case) == (0, None, "case-9")


def test_swapped_or_altered_cells_are_refused(world: World) -> None:
    vault = world.vault()
    tokens = fill(vault)
    ((other,),) = world.rows("SELECT payload FROM original WHERE record_id = 'm8-0'")
    ((foreign,),) = world.rows("SELECT wrapped FROM subject WHERE token = ?", tokens[1])
    world.rows("UPDATE original SET payload = ? WHERE record_id = 'm7-0'", other)
    world.rows("UPDATE original SET payload = ? WHERE record_id = 'm9-0'", b"\0")
    world.rows("UPDATE subject SET wrapped = ? WHERE token = ?", foreign, tokens[2])
    world.rows("DELETE FROM subject WHERE token = ?", tokens[3])
    for number, code in ((7, "E-VAULT-002"), (9, "E-VAULT-002"), (2, "E-KEY-005"), (3, "E-VAULT-002")):
        with pytest.raises(IntegrityError, match=code):
            vault.reveal("chat", tokens[number])


def test_expiry_deletes_what_is_due_and_gives_the_rest_a_new_key(world: World) -> None:
    vault = world.vault()
    ada, bob, eve = vault.tokens("chat", ["ada", "bob", "eve"])
    vault.put_many("chat", [(ada, "old", b"old of ada"), (bob, "old", b"old of bob")], NOW)
    vault.put_many("chat", [(ada, "new", b"new of ada")], NOW + timedelta(days=1))
    vault.put_many("chat", [(eve, "ever", b"no date")])
    ((before,),) = world.rows("SELECT wrapped FROM subject WHERE token = ?", ada)
    ((sealed,),) = world.rows("SELECT payload FROM original WHERE token = ? AND record_id = 'old'", ada)
    assert vault.expire("chat", NOW - timedelta(seconds=1)) == vault_module.Expired(0, 0)
    assert vault.overdue("chat", NOW) == 2
    assert vault.expire("chat", NOW) == vault_module.Expired(2, 1)
    assert vault.expire("chat", NOW) == vault_module.Expired(0, 0)
    assert vault.reveal("chat", ada) == [("new", b"new of ada")]
    assert vault.reveal("chat", bob) == []
    assert vault.reveal("chat", eve) == [("ever", b"no date")]
    vault.rotate_epoch("chat")
    with pytest.raises(IntegrityError, match="E-KEY-006"):  # an old copy of the expired record opens with nothing that is left
        EpochKeys(world.key_file).unwrap(str(before), vault_module._bound("chat", ada))
    assert vault.reveal("chat", ada) == [("new", b"new of ada")]
    assert bytes(sealed) != b""
    assert vault.put_many("chat", [(bob, "again", b"x")]) == 1  # expired is not erased


def test_a_commitment_is_stable_by_case_links_nothing_and_dies_with_its_salt(world: World) -> None:
    vault = world.vault()
    token = vault.token("chat", "ada")
    access = vault.commitment("chat", token, "ask-1", "access")
    assert access == world.vault().commitment("chat", token, "ask-1", "access")
    erasure = vault.commitment("chat", token, "case-1", "erasure")
    others = {
        vault.commitment("chat", vault.token("chat", "bob"), "ask-1", "access"),
        vault.commitment("shop", token, "ask-1", "access"),
    }
    assert len({access, erasure, *others}) == 4
    vault.erase("chat", "ada", "case-1")
    assert world.vault().commitment("chat", token, "case-1", "erasure") == erasure  # the receipt stays checkable
    assert world.rows("SELECT case_id FROM salt WHERE token = ? AND dataset = 'chat'", token) == [("case-1",)]
    assert vault.commitment("chat", token, "ask-1", "access") != access  # what earlier requests journalled means nobody now


def test_a_stolen_vault_without_keys_links_no_commitment(world: World) -> None:
    """Salts lie wrapped: a guess of the identifier and the file are not enough."""
    vault = world.vault()
    token = vault.token("chat", "ada")
    said = vault.commitment("chat", token, "case-1", "erasure")
    world.key_file.write_text("{}")
    with pytest.raises(IntegrityError, match="E-KEY-006"):
        world.vault().commitment("chat", token, "case-1", "erasure")
    assert said.startswith("sha256:")


def test_keys_are_unwrapped_outside_the_transaction_and_once_a_batch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow key service must hold up nobody, and each unwrapping is a journal entry."""
    tokens = fill(world.vault())
    vault, batches = world.vault(), []
    real = EpochKeys.unwrap_many

    def counted(self: EpochKeys, wrapped: list[tuple[str, bytes]]) -> list[bytes]:
        batches.append(len(wrapped))
        Vault(world.place, EpochKeys(world.key_file)).erase("chat", "somebody else", "case")  # would wait for a lock we hold
        return real(self, wrapped)

    monkeypatch.setattr(EpochKeys, "unwrap_many", counted)
    assert vault.put_many("chat", [(token, "later", b"x") for token in tokens]) == 40
    assert batches == [40]


def test_a_subject_erased_while_its_records_are_sealed_gets_none(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = fill(world.vault())
    real = EpochKeys.unwrap_many

    def erased_meanwhile(self: EpochKeys, wrapped: list[tuple[str, bytes]]) -> list[bytes]:
        world.vault().erase("chat", "customer 7", "case-1")
        return real(self, wrapped)

    with monkeypatch.context() as patched:
        patched.setattr(EpochKeys, "unwrap_many", erased_meanwhile)
        assert world.vault().put_many("chat", [(tokens[7], "late", b"x"), (tokens[8], "late", b"y")]) == 1
    assert world.vault().reveal("chat", tokens[7]) == []
    assert world.rows("SELECT count(*) FROM subject WHERE token = ?", tokens[7]) == [(0,)]


def _put(place: Place, keys: Path, worker: int) -> None:
    vault = Vault(place, EpochKeys(keys))
    for batch in range(5):
        tokens = vault.tokens("chat", [f"customer {n}" for n in range(20)])
        vault.put_many("chat", [(t, f"{worker}-{batch}", os.urandom(20)) for t in tokens])


def test_racing_writers_share_one_key_per_subject(world: World) -> None:
    world.vault().token("chat", "somebody")  # makes tables and keys
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_put, args=(world.place, world.key_file, n)) for n in range(3)]
    for worker in workers:
        worker.start()
    for _ in range(3):
        world.vault().rotate_epoch("chat")
    for worker in workers:
        worker.join(60)
    assert [w.exitcode for w in workers] == [0, 0, 0]
    world.vault().rotate_epoch("chat")
    vault = world.vault()
    assert [len(vault.reveal("chat", t)) for t in vault.tokens("chat", [f"customer {n}" for n in range(20)])] == [15] * 20

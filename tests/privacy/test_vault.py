"""The vault: what an erasure leaves behind (nothing), and whom a token names (one subject, in one dataset)."""

from __future__ import annotations

import multiprocessing
import os
import random
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy import vault as vault_module
from privacy.errors import DataError, EnvironmentFault, IntegrityError
from privacy.keys import Keyring
from privacy.vault import Vault, _token


@pytest.fixture
def home(tmp_path: Path) -> Path:
    Keyring.create(tmp_path / "keyring.json", tmp_path / "root.key")
    return tmp_path


def opened(home: Path) -> Vault:
    return Vault(home / "vault.sqlite", Keyring.open(home / "keyring.json", home / "root.key"))


def bytes_of(home: Path) -> bytes:
    """Database, write-ahead log and shared memory as they lie on disk."""
    return b"".join(p.read_bytes() for p in sorted(home.glob("vault.sqlite*")))


def fill(vault: Vault, subjects: int = 40, records: int = 3) -> list[str]:
    tokens = vault.tokens("chat", [f"customer {n}" for n in range(subjects)])
    rows = [(token, f"m{n}-{r}", f"payload of {n} {r} ".encode() * 9) for n, token in enumerate(tokens) for r in range(records)]
    assert vault.put_many("chat", rows) == len(rows)
    return tokens


def wrapped_of(home: Path, token: str) -> str:
    connection = sqlite3.connect(home / "vault.sqlite")
    (wrapped,) = connection.execute("SELECT wrapped FROM subject WHERE token = ?", (token,)).fetchone()
    connection.close()
    return str(wrapped).rsplit(":", 1)[-1]


def test_originals_come_back_by_subject(home: Path) -> None:
    tokens = fill(opened(home))
    assert opened(home).reveal("chat", tokens[7]) == [(f"m7-{r}", f"payload of 7 {r} ".encode() * 9) for r in range(3)]
    assert opened(home).reveal("chat", "u" + "a" * 24) == []
    assert opened(home).reveal("shop", tokens[7]) == []


def test_protecting_twice_stores_once(home: Path) -> None:
    vault = opened(home)
    tokens = fill(vault)
    assert vault.put_many("chat", [(tokens[0], "m0-0", b"other bytes"), (tokens[0], "new", b"n")]) == 1
    assert dict(vault.reveal("chat", tokens[0]))["m0-0"] == b"payload of 0 0 " * 9


def test_nothing_personal_lies_in_the_file(home: Path) -> None:
    fill(opened(home))
    assert b"customer" not in bytes_of(home)
    assert b"payload of" not in bytes_of(home)
    assert (home / "vault.sqlite").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("same", ["Ada", " ada\t", "ADA", "Ａda", "aDa\u00a0"])
def test_spelling_does_not_split_a_person_in_two(home: Path, same: str) -> None:
    assert opened(home).token("chat", same) == opened(home).token("chat", "ada")


def test_tokens_do_not_link_datasets(home: Path) -> None:
    vault = opened(home)
    assert vault.token("chat", "ada") != vault.token("shop", "ada")
    assert vault.token("chat", "ada") != vault.token("chat", "adb")
    assert len(vault.token("chat", "ada")) == 25


def test_records_without_a_subject_are_not_joined_under_one_token(home: Path) -> None:
    for empty in ("", "  ", "\u3000\n"):
        with pytest.raises(DataError, match="E-VAULT-001"):
            opened(home).tokens("chat", ["ada", empty])


@settings(max_examples=80, deadline=None)
@given(st.text(min_size=1), st.binary(min_size=32, max_size=32))
def test_tokens_are_stable_and_never_contain_the_identifier(subject: str, key: bytes) -> None:
    try:
        token = _token(key, subject)
    except DataError:
        return
    assert token == _token(key, f"\t{subject} ")
    assert len(subject) < 4 or subject not in token


def test_after_an_erasure_no_byte_of_the_subject_is_left(home: Path) -> None:
    vault = opened(home)
    tokens = fill(vault)
    wrapped = wrapped_of(home, tokens[7])
    assert wrapped.encode() in bytes_of(home)
    sealed = sqlite3.connect(home / "vault.sqlite")
    payloads = [bytes(p) for (p,) in sealed.execute("SELECT payload FROM original WHERE token = ?", (tokens[7],))]
    sealed.close()
    erased = vault.erase("chat", "Customer 7", "case-1")
    assert (erased.token, erased.records, erased.was_known) == (tokens[7], 3, True)
    left = bytes_of(home)
    assert all(needle not in left for needle in [wrapped.encode(), b"ustomer 7", b"m7-1", *payloads])
    assert vault.reveal("chat", tokens[7]) == []
    assert len(vault.reveal("chat", tokens[8])) == 3


def test_no_copy_survives_in_a_page_that_was_rebalanced(home: Path) -> None:
    """Random inserts of uneven sizes make SQLite move cells between pages, which secure_delete alone may leave behind."""
    vault, rng = opened(home), random.Random(5)
    names = [f"customer {n}" for n in range(400)]
    tokens = dict(zip(names, vault.tokens("chat", names), strict=True))
    for batch in range(8):
        rng.shuffle(names)
        vault.put_many("chat", [(tokens[n], f"{batch}-{n[9:]}", rng.randbytes(rng.randrange(3000))) for n in names[:50]])
    known = sqlite3.connect(home / "vault.sqlite")
    wrapped = {t: w.rsplit(":", 1)[-1].encode() for t, w in known.execute("SELECT token, wrapped FROM subject")}
    known.close()
    gone = [n for n in rng.sample(names, 60) if tokens[n] in wrapped]
    assert len(gone) > 20
    for name in gone:
        vault.erase("chat", name, "case")
        assert wrapped[tokens[name]] not in bytes_of(home)


def test_a_leftover_copy_is_found_and_rewritten(home: Path) -> None:
    """Proves the look itself: with secure_delete off the deleted key stays in the page, until VACUUM."""
    vault = opened(home)
    vault._database._erasing = False
    tokens = fill(vault)
    wrapped = wrapped_of(home, tokens[7]).encode()
    vault.erase("chat", "customer 7", "case-1")
    assert wrapped not in bytes_of(home)


def test_the_leftover_test_can_fail(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same without the look: the wrapped key is still there, so the tests above do see what they claim to see."""
    monkeypatch.setattr(Vault, "_holds", lambda self, needle: False)
    vault = opened(home)
    vault._database._erasing = False
    tokens = fill(vault)
    wrapped = wrapped_of(home, tokens[7]).encode()
    vault.erase("chat", "customer 7", "case-1")
    assert wrapped in bytes_of(home)


def test_an_erasure_that_was_killed_before_clearing_is_finished_by_the_next(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = opened(home)
    vault._database._erasing = False  # the worst case: nothing was overwritten
    tokens = fill(vault)
    wrapped = wrapped_of(home, tokens[7]).encode()

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Vault, "_clear_old_bytes", killed)
        with pytest.raises(KeyboardInterrupt):
            vault.erase("chat", "customer 7", "case-1")
    assert wrapped in bytes_of(home)
    assert vault.erase("chat", "customer 7", "case-1").was_known
    assert wrapped not in bytes_of(home)


def test_freed_bytes_are_overwritten_and_the_log_is_emptied_beside_an_idle_reader(home: Path) -> None:
    vault = opened(home)
    with vault._database.reading() as connection:
        assert connection.execute("PRAGMA secure_delete").fetchone() == (1,)
    idle = sqlite3.connect(home / "vault.sqlite", isolation_level=None)
    idle.execute("SELECT count(*) FROM subject").fetchone()
    fill(vault)
    vault.erase("chat", "customer 7", "case-1")
    assert (home / "vault.sqlite-wal").stat().st_size == 0
    idle.close()


def test_an_erasure_is_not_reported_done_while_a_reader_holds_old_bytes(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vault_module, "BUSY_SECONDS", 0.2)
    monkeypatch.setattr("privacy.database.BUSY_SECONDS", 0.2)
    vault = opened(home)
    reader = sqlite3.connect(home / "vault.sqlite", isolation_level=None)  # keeps the write-ahead log in use
    tokens = fill(vault)
    wrapped = wrapped_of(home, tokens[7]).encode()
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM subject").fetchone()
    with pytest.raises(EnvironmentFault, match="E-VAULT-003"):
        vault.erase("chat", "customer 7", "case-1")
    assert vault.is_erased("chat", tokens[7])
    reader.execute("COMMIT")
    reader.close()
    again = vault.erase("chat", "customer 7", "case-1")
    assert (again.records, again.was_known) == (0, True)
    assert wrapped not in bytes_of(home)


def test_an_erased_subject_does_not_come_back(home: Path) -> None:
    vault = opened(home)
    tokens = fill(vault)
    vault.erase("chat", "customer 7", "case-1")
    assert opened(home).is_erased("chat", tokens[7])
    assert opened(home).erased_tokens("chat") == {tokens[7]}
    assert opened(home).put_many("chat", [(tokens[7], "again", b"x"), (tokens[8], "new", b"y")]) == 1
    assert opened(home).reveal("chat", tokens[7]) == []
    assert not opened(home).is_erased("shop", tokens[7])


def test_a_tombstone_can_not_be_taken_away(home: Path) -> None:
    vault = opened(home)
    fill(vault)
    vault.erase("chat", "customer 7", "case-1")
    for statement in ("DELETE FROM tombstone", "UPDATE tombstone SET token = 'x'"):
        with pytest.raises(IntegrityError, match="E-DB-003"), vault._database.transaction() as connection:
            connection.execute(statement)
    assert len(vault.erased_tokens("chat")) == 1


def test_erasing_an_unknown_person_is_remembered_and_said(home: Path) -> None:
    vault = opened(home)
    fill(vault)
    assert vault.erase("chat", "nobody", "case-2").was_known is False
    assert vault.erase("chat", "nobody", "case-2").was_known is False
    assert vault.is_erased("chat", vault.token("chat", "nobody"))


def test_every_dataset_that_held_the_person_is_named(home: Path) -> None:
    vault = opened(home)
    fill(vault)
    vault.put_many("shop", [(vault.token("shop", "customer 7"), "o1", b"x")])
    assert vault.datasets_of("CUSTOMER 7") == ["chat", "shop"]
    assert vault.datasets_of("customer 8") == ["chat"]
    vault.erase("shop", "customer 7", "case")
    assert vault.datasets_of("customer 7") == ["chat", "shop"]  # an erasure cut short has to find it again
    assert vault.datasets_of("nobody") == []


def test_swapped_or_altered_cells_are_refused(home: Path) -> None:
    vault = opened(home)
    tokens = fill(vault)
    connection = sqlite3.connect(home / "vault.sqlite", isolation_level=None)
    (other,) = connection.execute("SELECT payload FROM original WHERE record_id = 'm8-0'").fetchone()
    connection.execute("UPDATE original SET payload = ? WHERE record_id = 'm7-0'", (other,))
    connection.execute("UPDATE original SET payload = x'00' WHERE record_id = 'm9-0'")
    connection.execute(
        "UPDATE subject SET wrapped = (SELECT wrapped FROM subject WHERE token = ?) WHERE token = ?", (tokens[1], tokens[2])
    )
    connection.execute("DELETE FROM subject WHERE token = ?", (tokens[3],))
    connection.close()
    for number, code in ((7, "E-VAULT-002"), (9, "E-VAULT-002"), (2, "E-KEY-005"), (3, "E-VAULT-002")):
        with pytest.raises(IntegrityError, match=code):
            vault.reveal("chat", tokens[number])


def test_destroying_the_domain_key_closes_backups_too_and_keeps_the_tombstones(home: Path) -> None:
    vault = opened(home)
    tokens = fill(vault)
    backup = (home / "vault.sqlite").read_bytes()
    vault.erase("chat", "customer 7", "case-1")
    Keyring.open(home / "keyring.json", home / "root.key").destroy("chat/vault")
    assert opened(home).is_erased("chat", opened(home).token("chat", "customer 7"))
    (home / "vault.sqlite").write_bytes(backup)
    with pytest.raises(IntegrityError, match="E-KEY-006"):
        opened(home).reveal("chat", tokens[7])


def _put(home: Path, worker: int) -> None:
    vault = opened(home)
    for batch in range(5):
        tokens = vault.tokens("chat", [f"customer {n}" for n in range(20)])
        vault.put_many("chat", [(t, f"{worker}-{batch}", os.urandom(20)) for t in tokens])


def test_racing_writers_share_one_key_per_subject(home: Path) -> None:
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_put, args=(home, n)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [w.exitcode for w in workers] == [0, 0, 0]
    vault = opened(home)
    assert [len(vault.reveal("chat", t)) for t in vault.tokens("chat", [f"customer {n}" for n in range(20)])] == [15] * 20

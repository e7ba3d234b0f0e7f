"""Digs for erased people in live files, write-ahead logs, heaps and old backups, with whatever keys are left.

Before the epoch ends everybody comes back from a backup: that is the control, without which the rest would prove nothing.
After it nobody erased does, whatever is carved out of which file; the others stay readable.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from privacy.database import Place, PostgresPlace
from privacy.errors import IntegrityError, PrivetError
from privacy.keys import Keyring
from privacy.vault import Vault, _bound
from tests.worlds.postgres import PostgresServer

pytestmark = pytest.mark.slow
PEOPLE, RECORDS = 60, 2
ERASED = (3, 17, 41)
WRAPPED = re.compile(rb"chat/vault@\d{1,9}:(?:h\.)?[A-Za-z0-9_-]{40,200}={0,2}")


@dataclass(frozen=True)
class Sealed:
    """What an attacker knows by heart: tokens, record ids and ciphertexts of everybody, from some earlier theft."""

    payloads: Mapping[tuple[str, str], bytes]
    tokens: tuple[str, ...]


class Scene:
    def __init__(self, home: Path, place: Place) -> None:
        self.home, self.place = home, place
        Keyring.create(home / "keyring.json", home / "root.key")
        self.vault = Vault(place, self.keyring())
        self.tokens = tuple(self.vault.tokens("chat", [f"person {n}" for n in range(PEOPLE)]))
        rows = [(t, f"m{n}-{r}", canary(n, r)) for n, t in enumerate(self.tokens) for r in range(RECORDS)]
        for start in range(0, len(rows), 10):  # many commits, so that pages split and logs fill
            self.vault.put_many("chat", rows[start : start + 10])

    def keyring(self) -> Keyring:
        return Keyring.open(self.home / "keyring.json", self.home / "root.key")

    def sealed(self) -> Sealed:
        with self.vault._database.reading() as connection:
            rows = connection.execute("SELECT token, record_id, payload FROM original WHERE dataset = 'chat'").fetchall()
        return Sealed({(str(t), str(r)): bytes(p) for t, r, p in rows}, self.tokens)

    def erase(self) -> None:
        for number in ERASED:
            assert self.vault.erase("chat", f"person {number}", "case-1").records == RECORDS

    def survivors_are_whole(self) -> bool:
        return all(
            [p for _, p in self.vault.reveal("chat", t)] == [canary(n, r) for r in range(RECORDS)]
            for n, t in enumerate(self.tokens)
            if n not in ERASED
        )


def canary(person: int, record: int) -> bytes:
    return b"CANARY-%03d-%d my number is 555-%04d" % (person, record, person * 7) + b"." * 150


def dig(files: Mapping[str, bytes], known: Sealed, keyring: Keyring) -> dict[str, set[int]]:
    """People who come back from each file: every carved key is tried in every place, every key that opens on every payload."""
    found: dict[str, set[int]] = {}
    for name, data in files.items():
        keys: dict[str, list[bytes]] = {}
        for match in set(WRAPPED.findall(data)):
            for token in known.tokens:
                with suppress(PrivetError):
                    keys.setdefault(token, []).append(keyring.unwrap(match.decode(), _bound("chat", token)))
                    break
        back = set()
        for (token, record), sealed in known.payloads.items():
            if sealed in data:
                for key in keys.get(token, []):
                    with suppress(InvalidTag):
                        text = AESGCM(key).decrypt(sealed[:12], sealed[12:], _bound("chat", token, record))
                        back.add(int(text[7:10]))
        found[name] = back
    return found


def plain_canaries(files: Mapping[str, bytes]) -> list[str]:
    return [name for name, data in files.items() if b"CANARY-" in data or b"person 3" in data]


def copied(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    return target


def read_all(folder: Path, pattern: str = "*") -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob(pattern)) if p.is_file()}


def joined(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """All files as one, because a key may lie in the log and its payload in the heap."""
    return {"everything": b"\n".join(files.values())}


def holds_no_erased(files: Mapping[str, bytes], known: Sealed, keyring: Keyring) -> bool:
    return not any(people & set(ERASED) for people in dig({**files, **joined(files)}, known, keyring).values())


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir()
    return path


def test_sqlite_its_log_and_an_old_backup_hold_nobody_after_the_epoch(home: Path, tmp_path: Path) -> None:
    scene = Scene(home, home / "vault.sqlite")
    reader = sqlite3.connect(home / "vault.sqlite", isolation_level=None)  # keeps a write-ahead log in being
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM subject").fetchone()
    scene.vault.put_many("shop", [(t, "late", b"x") for t in scene.tokens])
    known = scene.sealed()
    backup = copied(home, tmp_path / "backup")
    keys_before = {name: (home / name).read_bytes() for name in ("keyring.json", "roots.json")}
    before = read_all(backup, "vault.sqlite*")
    assert any(name.endswith("-wal") and data for name, data in before.items())
    scene.erase()
    between = read_all(copied(home, tmp_path / "between"), "vault.sqlite*")
    # The control: before the epoch ends, a thief of backup and keys reads everybody, the erased too.
    assert set(range(PEOPLE)) <= dig(joined(before), known, scene.keyring())["everything"]
    reader.execute("COMMIT")
    reader.close()
    scene.vault.rotate_epoch("chat")
    after = read_all(copied(home, tmp_path / "after"), "vault.sqlite*")
    live = scene.keyring()
    for files in (before, between, after):
        assert plain_canaries(files) == []
        assert holds_no_erased(files, known, live)
    assert dig(joined(before), known, live)["everything"] == set(), "an old backup opens nobody at all"
    assert dig(joined(after), known, live)["everything"] == set(range(PEOPLE)) - set(ERASED), "the digging finds who is left"
    assert scene.survivors_are_whole()
    # The old keyring file from the same backup does not help, for the key service destroyed the version under it.
    (home / "keyring.json").write_bytes(keys_before["keyring.json"])
    with suppress(PrivetError):
        assert holds_no_erased(before, known, scene.keyring())
    # The limit, which the receipt names: a copy of the key service itself.
    (home / "roots.json").write_bytes(keys_before["roots.json"])
    assert set(ERASED) <= dig(joined(before), known, scene.keyring())["everything"]


def test_the_digging_would_find_an_epoch_key_that_was_not_destroyed(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(home, home / "vault.sqlite")
    known, before = scene.sealed(), read_all(copied(home, tmp_path / "backup"), "vault.sqlite*")
    scene.erase()
    monkeypatch.setattr(Keyring, "destroy_epoch", lambda *_: True)
    scene.vault.rotate_epoch("chat")
    assert not holds_no_erased(before, known, scene.keyring())


def test_a_restored_backup_is_refused_row_by_row(home: Path, tmp_path: Path) -> None:
    """Not carving but the plain way: put the old database back and ask for the erased person."""
    scene = Scene(home, home / "vault.sqlite")
    with sqlite3.connect(home / "vault.sqlite") as source, sqlite3.connect(tmp_path / "old.sqlite") as target:
        source.backup(target)
    scene.erase()
    old = Vault(tmp_path / "old.sqlite", scene.keyring())
    assert len(old.reveal("chat", scene.tokens[3])) == RECORDS  # the control
    scene.vault.rotate_epoch("chat")
    for token in scene.tokens:
        with pytest.raises(IntegrityError, match="E-KEY-006"):
            Vault(tmp_path / "old.sqlite", scene.keyring()).reveal("chat", token)
    assert scene.survivors_are_whole()


@pytest.fixture
def heap(postgres_server: PostgresServer) -> tuple[PostgresPlace, PostgresServer]:
    return postgres_server.place("forensic"), postgres_server


def data_files(server: PostgresServer, place: Place, target: Path) -> dict[str, bytes]:
    """As a base backup: every heap, index and log file of the server, after a checkpoint."""
    vault = Vault(place, _NoKeys())
    with vault._database.outside_transaction() as connection:
        connection.execute("CHECKPOINT")
    copied(server.data_dir, target)
    files = read_all(target)
    return {name: data for name, data in files.items() if name.startswith(("base/", "pg_wal/")) and b"chat" in data}


class _NoKeys(Keyring):
    def __init__(self) -> None:
        pass


def test_postgres_heap_and_log_hold_nobody_after_the_epoch(
    home: Path, tmp_path: Path, heap: tuple[PostgresPlace, PostgresServer]
) -> None:
    place, server = heap
    scene = Scene(home, place)
    known = scene.sealed()
    before = data_files(server, place, tmp_path / "before")
    assert any(name.startswith("base/") for name in before)
    assert any(name.startswith("pg_wal/") for name in before)
    scene.erase()
    between = data_files(server, place, tmp_path / "between")
    # The control, twice: from the backup, and from the live server, whose heap and log keep deleted rows.
    assert set(range(PEOPLE)) <= dig(joined(before), known, scene.keyring())["everything"]
    assert set(ERASED) <= dig(joined(between), known, scene.keyring())["everything"]
    scene.vault.rotate_epoch("chat")
    after = data_files(server, place, tmp_path / "after")
    live = scene.keyring()
    for files in (before, between, after):
        assert plain_canaries(files) == []
        assert holds_no_erased(files, known, live)
    assert dig(joined(before), known, live)["everything"] == set()
    assert dig(joined(after), known, live)["everything"] == set(range(PEOPLE)) - set(ERASED)
    assert scene.survivors_are_whole()

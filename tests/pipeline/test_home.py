from __future__ import annotations

import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.home import DEMO_PEOPLE, PIPELINE, Home, add_person, read_key_file, write_key_file
from privacy.errors import PrivetError
from privacy.signing import Person, SigningKey
from tests.worlds.postgres import PostgresServer


def test_a_home_is_private_to_its_owner(tmp_path: Path) -> None:
    Home.create(tmp_path / "home", demo_identities=True)
    loose = [
        p for p in (tmp_path / "home").rglob("*") if p.is_file() and "key" in p.name and stat.S_IMODE(p.stat().st_mode) & 0o077
    ]
    assert loose == []
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700


def test_opening_again_finds_the_same_keys(tmp_path: Path) -> None:
    made = Home.create(tmp_path / "home", demo_identities=True)
    again = Home.open_or_create(tmp_path / "home")
    assert again.key.public_hex == made.key.public_hex
    assert again.trust.digest == made.trust.digest
    assert {p.name for p in again.trust.people} == {PIPELINE, *DEMO_PEOPLE}
    assert again.identity("demo_steward").public_hex == again.trust.by_name("demo_steward").public_hex  # type: ignore[union-attr]


def test_a_half_made_home_is_completed_with_the_same_keys(tmp_path: Path) -> None:
    first = Home.create(tmp_path / "home")
    (tmp_path / "home" / "VERSION.json").unlink()  # as if the machine had died before the last write
    again = Home.open_or_create(tmp_path / "home")
    assert again.key.public_hex == first.key.public_hex


def test_a_home_on_a_server_keeps_its_state_apart_from_its_neighbours(tmp_path: Path, postgres_server: PostgresServer) -> None:
    mine, other = (Home.create(tmp_path / name, database=postgres_server.dsn) for name in ("mine", "other"))
    mine.ledger.open_scope("chat/unit", "unit", 8.0, 1e-6)
    again = Home.open(tmp_path / "mine")
    assert again.ledger.scopes() == ["chat/unit"]
    assert Home.open(tmp_path / "other").ledger.scopes() == other.ledger.scopes() == []
    assert [e.kind for e in again.journal.entries()].count("home_created") == 1
    assert not list((tmp_path / "mine").rglob("*.sqlite"))


def test_a_home_that_is_led_to_an_empty_server_trusts_nobody(tmp_path: Path, postgres_server: PostgresServer) -> None:
    home = Home.create(tmp_path / "home", demo_identities=True)
    assert home.journalled_trust().people
    edit_version(tmp_path / "home", f'{{"database":"{postgres_server.dsn}","layout":2,"made_by":"0"}}')
    with pytest.raises(PrivetError, match="E-TRUST-003"):
        Home.open(tmp_path / "home").journalled_trust()


def edit_version(home: Path, text: str) -> None:
    (home / "VERSION.json").write_text(text)


@pytest.mark.parametrize(
    ("damage", "code", "exit_code"),
    [
        (lambda h: edit_version(h, '{"layout":0}'), "E-HOME-002", 2),
        (lambda h: edit_version(h, '{"layout":99}'), "E-HOME-002", 2),
        (lambda h: edit_version(h, "{"), "E-HOME-003", 4),
        (lambda h: edit_version(h, '{"layout":2,"database":7}'), "E-HOME-003", 4),
        (lambda h: edit_version(h, "[]"), "E-HOME-003", 4),
        (lambda h: (h / "VERSION.json").unlink(), "E-HOME-001", 2),
        (lambda h: (h / "pipeline.key").chmod(0o644), "E-HOME-007", 4),
        (lambda h: (h / "pipeline.key").unlink(), "E-HOME-007", 4),
    ],
)
def test_a_damaged_or_foreign_home_is_refused(tmp_path: Path, damage: object, code: str, exit_code: int) -> None:
    Home.create(tmp_path / "home")
    damage(tmp_path / "home")  # type: ignore[operator]
    with pytest.raises(PrivetError) as caught:
        Home.open(tmp_path / "home")
    assert caught.value.code == code
    assert caught.value.exit_code == exit_code


def test_an_older_home_is_left_as_it_was(tmp_path: Path) -> None:
    home = tmp_path / "home"
    Home.create(home)
    edit_version(home, '{"layout":0}')
    before = {p: p.read_bytes() for p in home.rglob("*") if p.is_file()}
    with pytest.raises(PrivetError):
        Home.open_or_create(home)
    assert {p: p.read_bytes() for p in home.rglob("*") if p.is_file()} == before


def test_a_key_file_is_never_overwritten_and_never_a_link(tmp_path: Path) -> None:
    write_key_file(tmp_path / "a.key", SigningKey.generate())
    with pytest.raises(FileExistsError):
        write_key_file(tmp_path / "a.key", SigningKey.generate())
    (tmp_path / "b.key").symlink_to(tmp_path / "a.key")
    with pytest.raises(PrivetError) as caught:
        read_key_file(tmp_path / "b.key")
    assert caught.value.code == "E-HOME-007"


def test_a_key_file_that_is_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.key", 0o600)
    with pytest.raises(PrivetError, match="E-HOME-007"):
        read_key_file(tmp_path / "pipe.key")


def test_the_home_never_signs_for_a_person_with_their_own_key(tmp_path: Path) -> None:
    home = Home.create(tmp_path / "home")
    add_person(home, Person("ada", SigningKey.generate().public_hex, ("steward",)))
    assert home.trust.by_name("ada") is not None
    with pytest.raises(PrivetError) as caught:
        home.identity("ada")
    assert caught.value.code == "E-HOME-006"
    assert home.journal.entries()[-1].kind == "trust_changed"


def test_two_processes_that_make_a_home_at_once_end_with_the_same_one(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    for attempt in range(4):
        path = tmp_path / str(attempt)
        gate, found = fork.Barrier(4), fork.Queue()
        workers = [fork.Process(target=_open_or_create, args=(path, gate, found)) for _ in range(4)]
        for worker in workers:
            worker.start()
        keys = {found.get(timeout=60) for _ in workers}
        for worker in workers:
            worker.join()
        home = Home.open(path)
        assert keys == {f"{home.key.public_hex} {home.trust.digest}"}
        assert [e.kind for e in home.journal.entries()] == ["home_created"]
        assert home.store is not None


def _open_or_create(path: Path, gate: object, found: object) -> None:
    gate.wait()  # type: ignore[attr-defined]
    try:
        home = Home.open_or_create(path, demo_identities=True)
        found.put(f"{home.key.public_hex} {home.trust.digest}")  # type: ignore[attr-defined]
    except BaseException as error:
        found.put(str(error))  # type: ignore[attr-defined]


def test_making_a_home_where_one_is_stays_an_error(tmp_path: Path) -> None:
    Home.create(tmp_path / "home")
    with pytest.raises(PrivetError, match="E-HOME-004"):
        Home.create(tmp_path / "home")


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--database", "postgresql://u:geheim@127.0.0.1:1/x"), "E-DB-008"),
        (("--database", "host=127.0.0.1 password=geheim"), "E-DB-008"),
        (("--database", "host=127.0.0.1 sslpassword=geheim"), "E-DB-008"),
        (("--database", "geheim"), "E-DB-009"),
        (("--kms", "openbao"), "E-KMS-008"),
        (("--kms", "openbao", "--kms-set", "address=http://example.org", "--kms-set", "token_file=t"), "E-KMS-008"),
        (("--kms-set", "protection=geheim"), "E-KMS-008"),
        (("--kms-set", "protection=passphrase"), "E-KMS-018"),
        (("--kms-set", "protection"), "E-KMS-008"),
    ],
)
def test_options_that_can_not_be_meant_are_refused_before_anything_is_written(
    tmp_path: Path, options: tuple[str, ...], code: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PRIVET_PASSPHRASE_FILE", raising=False)
    assert main(["init", "--home", str(tmp_path / "home"), *options]) == 2
    said = capsys.readouterr().err
    assert code in said
    assert "geheim" not in said
    assert list((tmp_path / "home").glob("*")) == []
    assert main(["init", "--home", str(tmp_path / "home")]) == 0
    assert Home.open(tmp_path / "home").keyring.kms.backend == "local"

"""The keyring of a home: uses and changes in the journal, older files and swapped settings refused, roles by key file."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.commands_keys import kms_choice
from pipeline.home import Home
from pipeline.key_home import KmsChoice, current_run
from privacy.canonical import canonical_json
from privacy.errors import EnvironmentFault, IntegrityError, PolicyError, PrivetError, UsageError
from privacy.keys import Keyring
from tests.worlds.openbao import OpenBao, openbao  # noqa: F401

DEK = b"d" * 32


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.create(tmp_path / "home")


def kinds(home: Home) -> list[str]:
    return [entry.kind for entry in home.journal.entries()]


def test_each_use_is_in_the_journal_before_the_key_is_out(home: Home) -> None:
    current_run.set(None)  # a run in this very process may have come before
    text = home.keyring.wrap("chat/raw", DEK, b"")
    before = len(home.journal.entries())
    home.keyring.unwrap_many([(text, b"")] * 3)
    current_run.set("run-1")
    try:
        home.keyring.derive("chat/token", "subject")
        home.keyring.derive("chat/token", "subject")
    finally:
        current_run.set(None)
    uses = [dict(e.facts) for e in home.journal.entries()[before:] if e.kind == "key_use"]
    assert uses == [
        {"domain": "chat/raw", "epoch": 1, "action": "unwrap", "count": 3, "role": "operator"},
        {"domain": "chat/token", "epoch": 1, "action": "derive", "count": 1, "role": "operator", "run": "run-1"},
    ]


def test_no_journal_no_key(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    text = home.keyring.wrap("chat/raw", DEK, b"")
    real = type(home.journal).append

    def full(journal: object, kind: str, facts: object) -> object:
        if kind.startswith("key"):
            raise EnvironmentFault("E-DB-001", "the disk is full", "Free space")
        return real(journal, kind, facts)  # type: ignore[arg-type]

    monkeypatch.setattr(type(home.journal), "append", full)
    for refused in (
        lambda: home.keyring.unwrap(text, b""),
        lambda: home.keyring.derive("chat/raw", "x"),
        lambda: home.keyring.destroy("chat/raw"),
        lambda: home.keyring.new_epoch("chat/raw"),
    ):
        with pytest.raises(EnvironmentFault, match="E-DB-001"):
            refused()
    monkeypatch.undo()
    assert home.keyring.unwrap(text, b"") == DEK


def test_destruction_is_in_the_journal_before_it_happens(home: Home) -> None:
    home.keyring.wrap("chat/raw", DEK, b"")
    home.keyring.destroy_epoch("chat/raw", 1)
    entries = [e for e in home.journal.entries() if e.kind.startswith("keys_")]
    assert [(e.kind, e.facts["what"]) for e in entries] == [
        (kind, what) for what in ("made", "destroyed", "shredded") for kind in ("keys_changing", "keys_changed")
    ]
    assert entries[-1].facts["digest"] == home.keyring.digest


def test_an_older_keyring_of_the_same_home_is_refused(home: Home) -> None:
    first = (home.path / "keyring.json").read_bytes()
    home.keyring.wrap("chat/raw", DEK, b"")
    second = (home.path / "keyring.json").read_bytes()
    home.keyring.destroy("chat/raw")
    newest = (home.path / "keyring.json").read_bytes()
    for older in (first, second):
        (home.path / "keyring.json").write_bytes(older)
        with pytest.raises(IntegrityError, match="E-KEY-010"):
            _ = Home.open(home.path).keyring
    (home.path / "keyring.json").write_bytes(newest)
    assert Home.open(home.path).keyring.epochs("chat/raw")[0].state == "destroyed"


@pytest.mark.parametrize("changes", [0, 3])
def test_another_homes_keys_as_a_set_are_refused(home: Home, tmp_path: Path, changes: int) -> None:
    """Also with a longer history than ours: whoever puts them there may know that root key."""
    other = Home.create(tmp_path / "other")
    for _ in range(changes):
        other.keyring.new_epoch("chat/raw")
    for name in ("root.key", "roots.json", "keyring.json"):
        (home.path / name).write_bytes((other.path / name).read_bytes())
    with pytest.raises(IntegrityError, match="E-KEY-010"):
        _ = Home.open(home.path).keyring


def test_a_keyring_that_was_changed_past_the_journal_is_refused(home: Home) -> None:
    home.keyring.ensure("chat/raw")
    running = Home.open(home.path)
    assert running.keyring.epochs("chat/raw")
    past = Keyring(home.path / "keyring.json", home.keyring.kms)  # with every key, and no journal
    past.new_epoch("chat/raw")
    for ring in (lambda: running.keyring, lambda: Home.open(home.path).keyring):
        with pytest.raises(IntegrityError, match="E-KEY-010"):
            ring().wrap("chat/raw", DEK, b"")


def test_a_journal_put_back_shows_in_the_keyring(home: Home) -> None:
    home.keyring.ensure("chat/raw")
    with sqlite3.connect(home.path / "journal.sqlite") as live, sqlite3.connect(home.path / "old.sqlite") as old:
        live.backup(old)
    home.keyring.new_epoch("chat/raw")
    for left in home.path.glob("journal.sqlite-*"):
        left.unlink()
    (home.path / "old.sqlite").replace(home.path / "journal.sqlite")
    with pytest.raises(IntegrityError, match="E-KEY-010"):
        _ = Home.open(home.path).keyring


def test_a_change_that_was_killed_between_file_and_journal_is_gone_on_from(home: Home) -> None:
    real = type(home.journal).append

    def killed(journal: object, kind: str, facts: object) -> object:
        if kind == "keys_changed":
            raise KeyboardInterrupt
        return real(journal, kind, facts)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(home.journal), "append", killed)
        with pytest.raises(KeyboardInterrupt):
            home.keyring.ensure("chat/raw")
    again = Home.open(home.path).keyring
    assert again.unwrap(again.wrap("chat/raw", DEK, b""), b"") == DEK
    assert again.new_epoch("chat/raw") == 2
    assert [e.epoch for e in Home.open(home.path).keyring.epochs("chat/raw")] == [1, 2]


@pytest.mark.slow
def test_processes_that_open_the_home_while_others_change_its_keys_are_never_refused(home: Home) -> None:
    script = (
        "import sys; from pathlib import Path; from pipeline.home import Home\n"
        "for n in range(8):\n"
        "    ring = Home.open(Path(sys.argv[1])).keyring\n"
        "    ring.new_epoch('chat/raw')\n"
        "    assert ring.unwrap(ring.wrap('chat/raw', b'd' * 32, b''), b'') == b'd' * 32\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", script, str(home.path)]) for _ in range(4)]
    assert [process.wait(timeout=120) for process in running] == [0, 0, 0, 0]
    assert len(Home.open(home.path).keyring.epochs("chat/raw")) == 32


@pytest.mark.parametrize("damage", ["address", "missing", "empty", "local"])
def test_settings_that_the_journal_does_not_name_get_no_token(home: Home, damage: str, tmp_path: Path) -> None:
    path = home.path / "kms.json"
    evil = KmsChoice("openbao", {"address": "https://kms.attacker.example", "token_file": str(tmp_path / "token")}, "privet-x")
    (tmp_path / "token").write_text("hvs.secret")
    texts = {"address": canonical_json(evil.to_json()), "empty": b"", "local": canonical_json(KmsChoice().to_json())}
    path.unlink() if damage == "missing" else path.write_bytes(texts[damage])
    with pytest.raises(IntegrityError, match="E-KEY-012"):
        _ = Home.open(home.path).keyring


def test_a_role_key_opens_a_home_in_its_role_and_root_key_is_not_needed(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, protected = (home.keyring.wrap(f"chat/{name}", DEK, b"") for name in ("raw", "protected"))
    assert main(["keys", "grant", "trainer", "--to", str(tmp_path / "t.key"), "--home", str(home.path)]) == 0
    monkeypatch.setenv("PRIVET_ROLE_KEY", str(tmp_path / "t.key"))
    monkeypatch.setenv("PRIVET_ROLE", "operator")  # a claim; the key says otherwise
    (home.path / "root.key").rename(tmp_path / "root.key")
    trainer = Home.open(home.path)
    assert trainer.keyring.role == "trainer"
    assert trainer.keyring.unwrap(protected, b"") == DEK
    assert trainer.journal.entries()[-1].facts["role"] == "trainer"
    with pytest.raises(PolicyError, match="E-KEY-011"):
        trainer.keyring.unwrap(raw, b"")
    monkeypatch.delenv("PRIVET_ROLE_KEY")
    with pytest.raises(UsageError, match="E-KEY-003"):
        _ = Home.open(home.path).keyring


def test_a_role_nobody_knows_is_refused(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIVET_ROLE", "root")
    with pytest.raises(UsageError, match="E-KEY-015"):
        _ = home.keyring


def test_a_home_under_a_passphrase_opens_from_a_file_and_from_a_descriptor(tmp_path: Path) -> None:
    phrase = tmp_path / "phrase"
    phrase.write_text("correct horse battery\n")
    phrase.chmod(0o600)
    env = {**os.environ, "PRIVET_HOME": str(tmp_path / "home")}
    privet = [sys.executable, "-m", "pipeline.cli"]
    made = subprocess.run(
        [*privet, "init", "--kms-set", "protection=passphrase"],
        env={**env, "PRIVET_PASSPHRASE_FILE": str(phrase)},
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    assert not (tmp_path / "home" / "root.key").exists()
    without = subprocess.run([*privet, "keys", "list"], env=env, capture_output=True, text=True)
    assert (without.returncode, "E-KMS-018" in without.stderr) == (2, True)
    read, write = os.pipe()
    os.write(write, b"correct horse battery\n")
    os.close(write)
    through = subprocess.run(
        [*privet, "keys", "init", "--dataset", "chat"],
        env={**env, "PRIVET_PASSPHRASE_FD": str(read)},
        pass_fds=[read],
        capture_output=True,
        text=True,
    )
    os.close(read)
    assert through.returncode == 0, through.stderr
    phrase.write_text("another horse battery\n")
    wrong = subprocess.run(
        [*privet, "keys", "list"], env={**env, "PRIVET_PASSPHRASE_FILE": str(phrase)}, capture_output=True, text=True
    )
    assert (wrong.returncode, "E-KMS-010" in wrong.stderr) == (4, True)


def test_a_home_on_a_live_openbao(
    openbao: OpenBao,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "home"
    settings = ["--kms-set", f"address={openbao.address}", "--kms-set", f"token_file={openbao.token_file()}"]
    assert (
        main(["init", "--home", str(path), "--kms", "openbao", *settings, "--kms-set", f"prefix=t{os.urandom(4).hex()}"]) == 0
    )
    assert openbao.root_token not in (path / "kms.json").read_text()
    assert not {"root.key", "roots.json"} & {p.name for p in path.iterdir()}
    home = Home.open(path)
    ref = home.store.put_sealed(b"a record", dataset="chat", path="p", data_class="raw")
    assert main(["keys", "rotate", "--home", str(path)]) == 0
    assert Home.open(path).store.read_sealed(ref) == b"a record"
    capsys.readouterr()
    assert main(["keys", "policy", "trainer", "--home", str(path)]) == 0
    token = openbao.token(capsys.readouterr().out)
    monkeypatch.setenv("PRIVET_KMS_TOKEN_FILE", str(openbao.token_file(token)))
    with pytest.raises(EnvironmentFault, match="E-KMS-002"):
        Home.open(path).store.read_sealed(ref)
    monkeypatch.setenv("PRIVET_ROLE", "trainer")
    with pytest.raises(PolicyError, match="E-KEY-011"):
        Home.open(path).store.read_sealed(ref)


@pytest.mark.parametrize(
    ("backend", "settings"),
    [
        ("openbao", []),
        ("openbao", ["address=https://x"]),
        ("aws", ["region=eu", "secret=x"]),
        (None, ["protection"]),
        ("pkcs11", ["=x"]),
        ("local", ["address=https://x"]),
    ],
)
def test_settings_that_a_service_does_not_take_make_no_home(tmp_path: Path, backend: str | None, settings: list[str]) -> None:
    given = [word for text in settings for word in ("--kms-set", text)] + (["--kms", backend] if backend else [])
    assert main(["init", "--home", str(tmp_path / "home"), *given]) == 2
    assert not (tmp_path / "home" / "VERSION.json").exists()


# Commands


def test_keys_commands_do_what_they_say(home: Home, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    at = ["--home", str(home.path)]
    assert main(["keys", "init", "--dataset", "chat", *at]) == 0
    ref = home.store.put_sealed(b"a record", dataset="chat", path="p", data_class="raw")
    objects = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (home.path / "objects").rglob("*") if p.is_file()}
    capsys.readouterr()
    assert main(["keys", "rotate", *at]) == 0
    assert "no data was written" in capsys.readouterr().out
    assert objects == {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (home.path / "objects").rglob("*") if p.is_file()}
    assert main(["keys", "list", "--json", *at]) == 0
    rows = {row["domain"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert rows["chat/raw"]["kms_version"] == 2
    assert main(["keys", "rotate", "--domain", "chat/raw", *at]) == 0
    assert Home.open(home.path).store.read_sealed(ref) == b"a record"
    assert main(["keys", "destroy", "--domain", "chat/raw", "--epoch", "1", "--yes", "chat/ra", *at]) == 2
    assert Home.open(home.path).store.read_sealed(ref) == b"a record"
    assert main(["keys", "destroy", "--domain", "chat/raw", "--epoch", "1", "--yes", "chat/raw", *at]) == 0
    with pytest.raises(IntegrityError, match="E-KEY-006"):
        Home.open(home.path).store.read_sealed(ref)
    assert main(["keys", "destroy", "--domain", "chat/never", "--yes", "chat/never", *at]) == 2
    assert main(["keys", "rotate", "--domain", "chat/never", *at]) == 2
    assert main(["keys", "rotate", "--group", "never", *at]) == 2
    assert main(["keys", "list", *at]) == 0
    shown = capsys.readouterr().out
    root = (home.path / "root.key").read_text().strip()
    assert root not in shown


def test_granting_and_revoking_by_command(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = ["--home", str(home.path)]
    text = home.keyring.wrap("chat/raw", DEK, b"")
    key = tmp_path / "steward.key"
    assert main(["keys", "grant", "nobody", "--to", str(key), *at]) == 2
    assert main(["keys", "grant", "operator", "--to", str(key), *at]) == 2
    assert main(["keys", "grant", "steward", "--to", str(key), *at]) == 0
    assert main(["keys", "policy", "steward", *at]) == 2
    monkeypatch.setenv("PRIVET_ROLE_KEY", str(key))
    assert Home.open(home.path).keyring.unwrap(text, b"") == DEK
    assert main(["keys", "grant", "trainer", "--to", str(tmp_path / "x"), *at]) == 2  # a role hands out nothing
    monkeypatch.delenv("PRIVET_ROLE_KEY")
    assert main(["keys", "revoke", "steward", *at]) == 0
    monkeypatch.setenv("PRIVET_ROLE_KEY", str(key))
    with pytest.raises(PrivetError, match="E-KMS-002"):
        _ = Home.open(home.path).keyring
    named = [kind for kind in kinds(home) if kind in ("key_grant", "key_revoke")]
    assert named == ["key_grant", "key_grant", "key_revoke"]  # the attempt that was refused, too


def test_a_revocation_that_was_killed_before_the_rotation_is_finished_by_the_same_command(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = home.keyring.wrap("chat/protected", DEK, b"")
    where = ["--home", str(home.path)]
    assert main(["keys", "revoke", "trainer", *where]) == 2  # nobody granted it
    assert main(["keys", "revoke", "trainer", *where]) == 2
    assert main(["keys", "grant", "trainer", "--to", str(tmp_path / "trainer.key"), *where]) == 0
    copy = (home.path / "roots.json").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Keyring, "rotate_root", killed)
        assert main(["keys", "revoke", "trainer", *where]) == 130
    assert main(["keys", "revoke", "trainer", *where]) == 0
    (home.path / "roots.json").write_bytes(copy)  # with it the key opens what was wrapped before, and nothing newer
    monkeypatch.setenv("PRIVET_ROLE_KEY", str(tmp_path / "trainer.key"))
    with pytest.raises(PrivetError):
        Home.open(home.path).keyring.unwrap(text, b"")


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_ingest_can_write_raw_and_not_read_it_back(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = ["--home", str(home.path)]
    assert main(["keys", "grant", "ingest", "--to", str(tmp_path / "i.key"), *at]) == 0
    monkeypatch.setenv("PRIVET_ROLE_KEY", str(tmp_path / "i.key"))
    with pytest.raises(PolicyError, match="E-KEY-013"):
        Home.open(home.path).store.put_sealed(b"a record", dataset="chat", path="p", data_class="raw")
    monkeypatch.delenv("PRIVET_ROLE_KEY")
    assert main(["keys", "init", "--dataset", "chat", *at]) == 0
    monkeypatch.setenv("PRIVET_ROLE_KEY", str(tmp_path / "i.key"))
    store = Home.open(home.path).store
    ref = store.put_sealed(b"a record", dataset="chat", path="p", data_class="raw")
    with pytest.raises(PolicyError, match="E-KEY-011"):
        store.read_sealed(ref)
    monkeypatch.delenv("PRIVET_ROLE_KEY")
    assert Home.open(home.path).store.read_sealed(ref) == b"a record"


def test_an_interrupted_creation_goes_on_with_its_own_key_service_and_no_other(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault):  # nobody answers there
        Home.create(tmp_path / "home", kms=_nobody(tmp_path, 1))
    asked = _nobody(tmp_path, 2)
    with pytest.raises(EnvironmentFault):  # no key was made, so the address may be mended
        Home.create(tmp_path / "home", kms=asked)
    assert (tmp_path / "home" / "kms.json").read_bytes() == canonical_json(asked.to_json())
    Home.create(tmp_path / "home", kms=KmsChoice())
    (tmp_path / "home" / "VERSION.json").unlink()  # cut short before its last write
    with pytest.raises(UsageError, match="E-KEY-022"):
        Home.create(tmp_path / "home", kms=_nobody(tmp_path, 3))
    assert Home.create(tmp_path / "home", kms=KmsChoice()).keyring.kms.backend == "local"


def _nobody(tmp_path: Path, port: int) -> KmsChoice:
    token = tmp_path / "token"
    token.write_text("s.token")
    token.chmod(0o600)
    return KmsChoice("openbao", {"address": f"http://127.0.0.1:{port}", "token_file": str(token), "timeout_seconds": "1"})


def test_files_of_a_key_service_are_kept_by_their_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    choice = kms_choice("openbao", ["address=https://bao.example.org", "token_file=tokens/privet"])
    assert choice is not None
    assert choice.settings == {"address": "https://bao.example.org", "token_file": str(tmp_path / "tokens" / "privet")}

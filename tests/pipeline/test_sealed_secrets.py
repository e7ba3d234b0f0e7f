"""Secrets of Airflow in the home: ciphertext on disk, names in listings, values nowhere but where they are used."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.airflow_secrets import HomeSecrets, _secret_parts
from pipeline.cli import main
from pipeline.home import Home
from pipeline.sealed_secrets import SealedSecrets, check_value, read_value_file, secret_name
from privacy.errors import EnvironmentFault, IntegrityError, PrivetError, UsageError

VALUE = "postgresql://etl:sw0rdf%21sh-canary@warehouse.internal:5432/logs"
WAREHOUSE = secret_name("connection", "warehouse")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.create(tmp_path / "home")


@pytest.fixture
def secrets(home: Home) -> SealedSecrets:
    return SealedSecrets(home)


def everything(home: Home) -> bytes:
    return b"".join(p.read_bytes() for p in home.path.rglob("*") if p.is_file())


def test_a_secret_is_read_back_and_lies_nowhere_in_the_clear(home: Home, secrets: SealedSecrets) -> None:
    secrets.set(WAREHOUSE, VALUE)
    assert secrets.get(WAREHOUSE) == VALUE
    assert SealedSecrets(Home.open(home.path)).get(WAREHOUSE) == VALUE
    assert b"sw0rdf" not in everything(home)
    assert [n.path for n in secrets.names()] == ["connection/warehouse"]
    loose = [p for p in (home.path / "secrets").rglob("*") if p.stat().st_mode & 0o077]
    assert loose == []


def test_setting_again_and_removing_shred_what_was_there(home: Home, secrets: SealedSecrets) -> None:
    secrets.set(WAREHOUSE, VALUE)
    objects = {p for p in (home.path / "objects").rglob("*") if p.is_file()}
    secrets.set(WAREHOUSE, "postgresql://etl:other@warehouse.internal/logs")
    assert not any(p.exists() for p in objects)
    secrets.remove(WAREHOUSE)
    assert secrets.get(WAREHOUSE) is None
    assert secrets.names() == []
    assert not [p for p in (home.path / "objects").rglob("*") if p.is_file()]
    with pytest.raises(UsageError, match="E-SECRET-004"):
        secrets.remove(WAREHOUSE)


def test_setting_and_removing_are_journalled_without_the_value(home: Home, secrets: SealedSecrets) -> None:
    secrets.set(WAREHOUSE, VALUE)
    secrets.remove(WAREHOUSE)
    entries = [e for e in home.journal.entries() if e.kind.startswith("secret_")]
    assert [(e.kind, e.facts["secret"]) for e in entries] == [
        ("secret_set", "connection/warehouse"),
        ("secret_removed", "connection/warehouse"),
    ]
    assert "sw0rd" not in json.dumps([e.to_json() for e in entries])


def test_a_value_is_handed_out_only_once_its_use_is_journalled(
    home: Home, secrets: SealedSecrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets.set(WAREHOUSE, VALUE)
    secrets.get(WAREHOUSE)
    (used,) = [e.facts for e in home.journal.entries() if e.kind == "key_use"]
    assert (used["domain"], used["action"]) == ("airflow/secrets", "unwrap")

    def full(*args: object, **kwargs: object) -> None:
        raise EnvironmentFault("E-DB-001", "the disk is full", "free some space")

    monkeypatch.setattr(type(home.journal), "append", full)
    with pytest.raises(EnvironmentFault, match="E-DB-001"):
        secrets.get(WAREHOUSE)


def test_one_secret_put_in_the_place_of_another_is_refused(home: Home, secrets: SealedSecrets) -> None:
    secrets.set(WAREHOUSE, VALUE)
    secrets.set(secret_name("connection", "public"), "http://reader@public.example")
    folder = home.path / "secrets" / "connection"
    (folder / "public.json").write_bytes((folder / "warehouse.json").read_bytes())
    with pytest.raises(IntegrityError, match="E-SECRET-006"):
        secrets.get(secret_name("connection", "public"))


def test_a_replaced_secret_does_not_come_back_with_its_pointer(home: Home, secrets: SealedSecrets) -> None:
    secrets.set(WAREHOUSE, VALUE)
    pointer = home.path / "secrets" / "connection" / "warehouse.json"
    old = pointer.read_bytes()
    secrets.set(WAREHOUSE, "postgresql://etl:other@warehouse.internal/logs")
    pointer.write_bytes(old)
    with pytest.raises(IntegrityError, match="E-STORE-001"):
        secrets.get(WAREHOUSE)


@pytest.mark.parametrize("damage", [b"", b"{}", b"not json", b"[]"])
def test_a_damaged_pointer_is_an_error_and_not_an_absence(home: Home, secrets: SealedSecrets, damage: bytes) -> None:
    secrets.set(WAREHOUSE, VALUE)
    (home.path / "secrets" / "connection" / "warehouse.json").write_bytes(damage)
    with pytest.raises(IntegrityError, match="E-SECRET-006"):
        secrets.get(WAREHOUSE)


@pytest.mark.parametrize("name", ["", "a/b", "../x", ".hidden", "a b", "a\n", "x" * 101, "ключ"])
def test_a_malformed_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="E-SECRET-001"):
        secret_name("connection", name)


@pytest.mark.parametrize(
    "value", ["sw0rdf!sh", "{}", '{"conn_type": ""}', '{"conn_type": 1}', '{"a": 1', "http:/sw0rd", "a b://sw0rd"]
)
def test_what_airflow_could_not_parse_is_refused_here_where_it_is_not_quoted(value: str) -> None:
    with pytest.raises(UsageError, match="E-SECRET-003") as refused:
        check_value(WAREHOUSE, value)
    assert "sw0rd" not in str(refused.value)


@pytest.mark.parametrize("value", ["", "  ", "x" * (65 << 10), "a\0b"])
def test_an_empty_or_huge_value_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="E-SECRET-002"):
        check_value(secret_name("variable", "v"), value)


def test_the_value_file_must_be_the_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "value"
    file.write_text(VALUE + "\n")
    file.chmod(0o644)
    with pytest.raises(UsageError, match="E-SECRET-005"):
        read_value_file(file)
    file.chmod(0o600)
    assert read_value_file(file) == VALUE + "\n"
    link = tmp_path / "link"
    link.symlink_to(file)
    for wrong in (link, tmp_path, tmp_path / "missing"):
        with pytest.raises(UsageError, match="E-SECRET-005"):
            read_value_file(wrong)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="E-SECRET-005"):
        read_value_file(file)


def test_the_commands_take_the_value_from_stdin_and_never_print_it(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(VALUE + "\n"))
    assert main(["secrets", "set", "warehouse", "--home", str(home.path)]) == 0
    assert main(["secrets", "list", "--home", str(home.path)]) == 0
    monkeypatch.setattr(sys, "stdin", io.StringIO("no connection at all\n"))
    assert main(["secrets", "set", "warehouse", "--home", str(home.path)]) == 2
    said = "".join(capsys.readouterr())
    assert "warehouse" in said
    assert "sw0rd" not in said
    assert "no connection" not in said
    assert SealedSecrets(home).get(WAREHOUSE) == VALUE
    assert main(["secrets", "remove", "warehouse", "--home", str(home.path)]) == 0
    with pytest.raises(SystemExit):
        main(["secrets", "set", "warehouse", VALUE, "--home", str(home.path)])  # there is no place for it on the command line


# ---- the backend that Airflow asks


def test_the_backend_gives_what_is_there_and_leaves_the_rest_to_others(home: Home, secrets: SealedSecrets) -> None:
    from airflow.sdk.definitions.connection import Connection

    secrets.set(WAREHOUSE, VALUE)
    secrets.set(secret_name("variable", "region"), "north")
    secrets.set(secret_name("config", "smtp"), "hush")
    backend = HomeSecrets(str(home.path))
    backend._set_connection_class(Connection)
    found = backend.get_connection("warehouse")
    assert (found.conn_type, found.host, found.password) == ("postgres", "warehouse.internal", "sw0rdf!sh-canary")
    assert (backend.get_variable("region"), backend.get_config("smtp")) == ("north", "hush")
    assert backend.get_conn_value("nobody") is None
    assert backend.get_conn_value("../warehouse") is None
    assert backend.get_variable("warehouse") is None  # a connection is no variable


def test_a_fault_lets_no_weaker_source_answer_and_says_a_code(home: Home, secrets: SealedSecrets, tmp_path: Path) -> None:
    from airflow.sdk.exceptions import AirflowSecretsBackendAccessDenied

    secrets.set(WAREHOUSE, VALUE)
    (home.path / "secrets" / "connection" / "warehouse.json").write_text("{}")
    for backend, code in ((HomeSecrets(str(home.path)), "E-SECRET-006"), (HomeSecrets(str(tmp_path / "none")), "E-HOME-001")):
        with pytest.raises(AirflowSecretsBackendAccessDenied, match=code) as denied:
            backend.get_conn_value("warehouse")
        assert denied.value.__cause__ is None
        assert denied.value.__context__ is None


def test_without_a_path_it_uses_the_home_of_the_dags(
    home: Home, secrets: SealedSecrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets.set(WAREHOUSE, VALUE)
    monkeypatch.setenv("PRIVET_HOME", str(home.path))
    assert HomeSecrets().get_conn_value("warehouse") == VALUE


def test_the_masker_gets_the_whole_and_the_password_in_both_spellings() -> None:
    assert list(_secret_parts(VALUE)) == [VALUE, "sw0rdf%21sh-canary", "sw0rdf!sh-canary"]
    assert list(_secret_parts("")) == []
    assert list(_secret_parts("http://[bad")) == ["http://[bad"]


def test_two_processes_that_set_one_name_leave_one_whole_value(home: Home) -> None:
    code = (
        "import sys; from pathlib import Path; from pipeline.home import Home\n"
        "from pipeline.sealed_secrets import SealedSecrets, secret_name\n"
        "s = SealedSecrets(Home.open(Path(sys.argv[1])))\n"
        "for n in range(5): s.set(secret_name('variable', 'v'), f'{sys.argv[2]}-{n}')\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(home.path), who]) for who in ("a", "b")]
    assert [p.wait() for p in running] == [0, 0]
    assert SealedSecrets(home).get(secret_name("variable", "v")) in ("a-4", "b-4")
    assert len([p for p in (home.path / "objects").rglob("*") if p.is_file()]) == 1


def test_a_full_disk_keeps_the_old_value(home: Home, secrets: SealedSecrets, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets.set(WAREHOUSE, VALUE)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.sealed_secrets._write_whole", full)
        with pytest.raises(PrivetError, match="E-SECRET-007"):
            secrets.set(WAREHOUSE, "http://new@x")
    assert secrets.get(WAREHOUSE) == VALUE
    assert len([p for p in (home.path / "objects").rglob("*") if p.is_file()]) == 1

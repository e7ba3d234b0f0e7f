"""The embedded Airflow's settings: private, known to this Airflow version, and open to nobody but people of the trust root."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from pipeline.airflow_local import READER, LocalAirflow, _passwords, airflow_environment
from pipeline.airflow_processes import ProcessGroup
from pipeline.airflow_rest import AirflowRest, PendingGate
from privacy.canonical import canonical_json
from privacy.errors import EnvironmentFault, GateClosed, PrivetError, UsageError
from privacy.signing import Person, SigningKey, TrustRoot

PEOPLE = (("privet-pipeline", "pipeline"), ("ann", "steward"), ("bo", "engineer"))
GATE = PendingGate("chat", "run+1", "use_gate.steward", -1, "s", "b", ("ann",), 1, datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return with_people(tmp_path, PEOPLE)


def with_people(home: Path, people: tuple[tuple[str, str], ...]) -> Path:
    root = TrustRoot(tuple(Person(name, SigningKey.generate().public_hex, (role,)) for name, role in people))
    (home / "trust.json").write_bytes(canonical_json(root.to_json()))
    return home


def test_every_setting_is_one_that_this_airflow_knows(home: Path) -> None:
    from airflow.configuration import conf

    known = {(section, key) for section, part in conf.configuration_description.items() for key in part["options"]}
    for name in airflow_environment(home):
        if name.startswith("AIRFLOW__"):
            _, section, key = name.lower().split("__")
            assert (section, key) in known, name


def test_the_api_listens_on_this_machine_only(home: Path) -> None:
    environment = airflow_environment(home)
    assert environment["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"].startswith("http://127.0.0.1:")


def test_users_are_the_people_of_the_trust_root_and_none_is_admin(home: Path) -> None:
    users = airflow_environment(home)["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"]
    assert users.split(",") == ["ann:user", "bo:user", f"{READER}:viewer"]


def test_secrets_are_private_and_stay_the_same(home: Path) -> None:
    first, second = airflow_environment(home), airflow_environment(home)
    assert first == second
    passwords = _passwords(home / "airflow", ["ann", "bo"])
    assert _passwords(home / "airflow", ["ann", "bo", "cy"])["ann"] == passwords["ann"]
    assert len({passwords["ann"], passwords["bo"], first["AIRFLOW__API_AUTH__JWT_SECRET"]}) == 3
    for name in ("local.json", "passwords.json"):
        assert (home / "airflow" / name).stat().st_mode & 0o077 == 0
    assert (home / "airflow").stat().st_mode & 0o077 == 0


def test_a_user_who_left_the_trust_root_has_no_password(home: Path) -> None:
    _passwords(home, ["ann", "bo"])
    _passwords(home, ["ann"])
    assert set(json.loads((home / "passwords.json").read_text())) == {"ann"}


@pytest.mark.parametrize("name", ["ann:admin", "ann,root", READER, ""])
def test_a_name_cannot_smuggle_in_rights(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="E-AIRFLOW-009"):
        airflow_environment(with_people(tmp_path, ((name, "steward"),)))


def test_a_home_without_a_trust_root_has_no_airflow(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="E-AIRFLOW-001"):
        airflow_environment(tmp_path)


def rest(answers: Callable[[httpx.Request], httpx.Response]) -> AirflowRest:
    client = AirflowRest("http://127.0.0.1:1", {"ann": "pw", READER: "pw"}, READER)

    def route(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/token":
            known = json.loads(request.content)["password"] == "pw"
            return httpx.Response(201 if known else 401, json={"access_token": "t"})
        return answers(request)

    client._client = httpx.Client(base_url=client.url, transport=httpx.MockTransport(route))
    return client


def test_an_answer_waits_until_airflow_can_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    client = rest(lambda request: httpx.Response(200, json={}))
    client.answer(replace(GATE, asked_at=datetime.now(UTC) - timedelta(seconds=1)), "ann", "fine")
    client.answer(GATE, "ann", "fine")
    assert slept[0] == pytest.approx(2, abs=0.3)
    assert slept[1] == 0


def test_a_run_id_with_a_plus_reaches_its_own_gate() -> None:
    seen: list[str] = []

    def answers(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.raw_path.decode())
        return httpx.Response(200, json={})

    rest(answers).answer(GATE, "ann", "fine")
    assert "/dagRuns/run%2B1/taskInstances/use_gate.steward/-1/hitlDetails" in seen[0]


@pytest.mark.parametrize("status", [400, 403, 409, 422, 500])
def test_an_answer_that_airflow_refuses_is_an_error_that_quotes_nothing(status: int) -> None:
    client = rest(lambda request: httpx.Response(status, text=f"you sent {request.content.decode()}"))
    with pytest.raises(GateClosed) as caught:
        client.answer(GATE, "ann", "because of Wei Zhang")
    assert "Wei" not in str(caught.value)
    assert str(status) in str(caught.value)


def test_an_unknown_user_is_an_error() -> None:
    with pytest.raises(UsageError, match="E-AIRFLOW-014"):
        rest(lambda request: httpx.Response(200)).answer(GATE, "eve", "fine")


def test_a_dead_server_is_a_fault_of_the_machine() -> None:
    def answers(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    client = rest(answers)
    assert client.health() == {}
    with pytest.raises(EnvironmentFault, match="E-AIRFLOW-013") as caught:
        client.run_state("chat", "run")
    assert isinstance(caught.value, PrivetError)


def test_a_second_start_in_one_home_leaves_the_first_alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swept: list[Path] = []
    monkeypatch.setattr(ProcessGroup, "stop_leftovers", lambda group: swept.append(group.record))
    monkeypatch.setattr(ProcessGroup, "spawn", lambda group, name, *rest: None)
    monkeypatch.setattr(LocalAirflow, "_migrate", lambda running: None)
    with LocalAirflow.start(home) as first:
        settings = (home / "airflow" / "local.json").read_bytes()
        with pytest.raises(UsageError, match="E-AIRFLOW-002"):
            LocalAirflow.start(home)
        assert len(swept) == 1  # the leftovers it would have ended are the first one's services
        assert (home / "airflow" / "local.json").read_bytes() == settings
        assert first.url.endswith(json.loads(settings)["port"])
    LocalAirflow.start(home).stop()
    assert len(swept) == 2


def test_without_forked_workers_nothing_starts_that_could_print_past_the_masker(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.airflow_executor import QuietLocalExecutor

    executor = QuietLocalExecutor(parallelism=1)
    monkeypatch.setattr(executor, "is_mp_using_fork", False)
    with pytest.raises(EnvironmentFault, match="E-AIRFLOW-016"):
        executor.start()


def test_a_start_that_fails_does_not_keep_the_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(running: LocalAirflow) -> None:
        raise EnvironmentFault("E-AIRFLOW-003", "a", "b")

    monkeypatch.setattr(ProcessGroup, "spawn", lambda group, name, *rest: None)
    with monkeypatch.context() as patch:
        patch.setattr(LocalAirflow, "_migrate", fails)
        with pytest.raises(EnvironmentFault):
            LocalAirflow.start(home)
    monkeypatch.setattr(LocalAirflow, "_migrate", lambda running: None)
    LocalAirflow.start(home).stop()

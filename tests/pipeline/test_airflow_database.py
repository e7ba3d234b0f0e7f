"""`airflow dags list` works after `privet airflow env`: made once, refreshed when a DAG changed, never marked done in error."""

from __future__ import annotations

import shlex
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline import airflow_database, commands
from pipeline.airflow_local import LocalAirflow, prepare_database
from pipeline.airflow_processes import ProcessGroup, RunningLock
from privacy.errors import EnvironmentFault
from tests.pipeline.test_airflow_local import PEOPLE, with_people


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "a home's $(touch owned)"
    folder.mkdir()
    return with_people(folder, PEOPLE)


@pytest.fixture
def dags(tmp_path: Path) -> Path:
    folder = tmp_path / "dags"
    (folder / "policies").mkdir(parents=True)
    (folder / "private_training.py").write_text("1")
    (folder / "policies" / "chat.yaml").write_text("name: chat")
    return folder


class Airflow:
    """Stands for the command; gives `code`."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.code = 0

    def __call__(self, arguments: tuple[str, ...], environment: Mapping[str, str], log: Path) -> int:
        self.calls.append(arguments[-1])
        return self.code


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Airflow:
    command = Airflow()
    monkeypatch.setattr(airflow_database, "_airflow", command)
    return command


def test_the_database_is_made_once_and_told_of_each_change_of_a_policy(home: Path, dags: Path, airflow: Airflow) -> None:
    told: list[str] = []
    prepare_database(home, told.append, dags)
    assert airflow.calls == ["migrate", "reserialize"]
    prepare_database(home, told.append, dags)
    assert airflow.calls == ["migrate", "reserialize"]
    assert len(told) == 2
    (dags / "policies" / "chat.yaml").write_text("name: talk")
    prepare_database(home, told.append, dags)
    (dags / "policies" / "more.yaml").write_text("name: more")
    prepare_database(home, told.append, dags)
    (dags / "policies" / "more.yaml").unlink()
    prepare_database(home, told.append, dags)
    assert airflow.calls == ["migrate", *["reserialize"] * 4]


def test_a_step_that_failed_is_done_again(home: Path, dags: Path, airflow: Airflow) -> None:
    airflow.code = 1
    with pytest.raises(EnvironmentFault, match="E-AIRFLOW-003"):
        prepare_database(home, print, dags)
    airflow.code = 0
    airflow_database.migrate(home / "airflow", {})
    airflow.code = 1
    with pytest.raises(EnvironmentFault, match="E-AIRFLOW-015"):
        prepare_database(home, print, dags)
    airflow.code = 0
    prepare_database(home, print, dags)
    assert airflow.calls == ["migrate", "migrate", "reserialize", "reserialize"]


def test_an_airflow_that_runs_keeps_its_database_itself(home: Path, dags: Path, airflow: Airflow) -> None:
    (home / "airflow").mkdir()
    running = RunningLock.take(home / "airflow" / "running.lock")
    prepare_database(home, print, dags)
    assert airflow.calls == []
    running.release()
    prepare_database(home, print, dags)
    RunningLock.take(home / "airflow" / "running.lock").release()  # it does not keep the home


def test_what_is_printed_for_eval_runs_nothing(home: Path, airflow: Airflow, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.airflow_env(Namespace(home=home)) == 0
    printed = capsys.readouterr()
    words = [shlex.split(line) for line in printed.out.splitlines()]
    assert all(len(line) == 2 and line[0] == "export" for line in words)
    assert f"PRIVET_HOME={home.resolve()}" in [line[1] for line in words]
    assert "Airflow" in printed.err  # progress


def test_an_interrupt_between_two_services_stops_the_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[bool] = []

    def spawn(group: ProcessGroup, name: str, *rest: object) -> None:
        if name == "scheduler":
            raise KeyboardInterrupt

    monkeypatch.setattr(ProcessGroup, "spawn", spawn)
    monkeypatch.setattr(ProcessGroup, "stop", lambda group, grace: stopped.append(True) or 0)
    monkeypatch.setattr(LocalAirflow, "_migrate", lambda running: None)
    with pytest.raises(KeyboardInterrupt):
        LocalAirflow.start(home)
    assert stopped == [True]

"""A careless DAG in a real Airflow: what its tasks return, push and print puts nobody's data into table, field or log."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from pipeline.airflow_local import LocalAirflow
from pipeline.airflow_rest import RunState
from pipeline.home import Home
from pipeline.sealed_secrets import SealedSecrets, secret_name
from privacy.canonical import is_digest
from tests.worlds.leaks import LeakScanner

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
DAGS = Path(__file__).resolve().parents[1] / "worlds" / "careless_dags"
ROW = {"email": "wei.zhang.canary@mail.example", "phone": "13800138000", "text": "the lamp came broken, canary text"}
PASSWORD, REGION = "sw0rdf!sh-canary-password", "canary-region-north-seven"
LEAKING = ("returned", "returned_text", "returned_number", "several", "many", "pushed", "named")


@dataclass
class World:
    airflow: LocalAirflow
    home: Home
    state: RunState

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        database = sqlite3.connect(f"file:{self.home.path / 'airflow' / 'airflow.db'}?mode=ro", uri=True)
        try:
            return database.execute(query).fetchall()
        finally:
            database.close()

    def states(self) -> dict[str, str | None]:
        return {t.task_id: t.state for t in self.state.tasks}

    def log(self, task: str, state: RunState | None = None) -> str:
        run = state or self.state
        route = f"/dags/{run.dag_id}/dagRuns/{quote(run.run_id)}/taskInstances/{task}/logs/1"
        return json.dumps(self.airflow.rest._get(route, map_index=-1, full_content="true")["content"], ensure_ascii=False)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = Home.create(tmp_path_factory.mktemp("careless") / "home", demo_identities=True)
    (home.landing / "row.json").write_text(json.dumps(ROW))
    (home.landing / "password.sha256").write_text(hashlib.sha256(PASSWORD.encode()).hexdigest())
    secrets = SealedSecrets(home)
    secrets.set(secret_name("connection", "warehouse"), f"postgresql://etl:{quote(PASSWORD)}@warehouse.internal:5432/logs")
    secrets.set(secret_name("connection", "damaged"), "http://reader@public.example")
    secrets.set(secret_name("variable", "region"), REGION)
    (home.path / "secrets" / "connection" / "damaged.json").write_text("{}")
    with LocalAirflow.start(home.path, DAGS) as airflow:
        airflow.wait_healthy("careless", "forged")
        run_id = airflow.rest.trigger("careless", {}, "demo_engineer")
        yield World(airflow, home, airflow.wait("careless", run_id, 240))


def test_every_task_that_hands_over_data_fails_with_a_code(world: World) -> None:
    states = world.states()
    assert {task: states[task] for task in LEAKING} == dict.fromkeys(LEAKING, "failed")
    assert (states["use_row"], states["use_each"]) == ("upstream_failed", "upstream_failed")
    for task in LEAKING:
        assert "E-XCOM-00" in world.log(task), task


def test_references_words_and_sealed_connections_work(world: World) -> None:
    states = world.states()
    assert {states[task] for task in ("digest", "use_digest", "connect", "look_up")} == {"success"}, states
    values = [json.loads(value) for (value,) in world.rows("select value from xcom where dag_id = 'careless'")]
    assert len(values) == 4
    assert all(value == "passed" or is_digest(value) for value in values)


def test_a_printed_password_is_masked_in_the_log(world: World) -> None:
    log = world.log("connect")
    assert "the password is ***" in log
    assert PASSWORD not in log
    assert "the variable is" in world.log("look_up")


def test_a_damaged_secret_is_refused_for_good_with_its_code(world: World) -> None:
    assert world.states()["damaged"] == "failed"
    assert "E-SECRET-006" in world.log("damaged")


def test_airflow_keeps_no_connection_and_the_journal_knows_that_one_was_unsealed(world: World) -> None:
    used = [e for e in world.home.journal.entries() if e.kind == "key_use" and e.facts["domain"] == "airflow/secrets"]
    assert len(used) >= 2  # the connection and the variable
    assert world.rows("select count(*) from connection where conn_id = 'warehouse'") == [(0,)]
    assert world.rows("select count(*) from variable") == [(0,)]


def test_nothing_planted_lies_in_any_table_field_source_or_log(world: World) -> None:
    scanner = LeakScanner([*ROW.values(), PASSWORD, quote(PASSWORD), REGION])
    assert len(scanner.values) >= 5
    assert scanner.scan(world.home.landing), "the scanner must find the row where it was planted"
    assert scanner.scan(world.home.path, skip=[world.home.landing]) == []
    assert world.rows("select count(*) from rendered_task_instance_fields")[0][0] >= 4
    assert world.rows("select count(*) from dag_code")[0][0] >= 1
    assert "Returned value was" not in "".join(world.log(task) for task in (*LEAKING, "digest", "connect"))


def test_a_value_written_into_the_table_by_somebody_else_is_not_handed_on(world: World) -> None:
    """Anybody who may run DAGs can write XCom through Airflow's REST API."""
    rest = world.airflow.rest
    run_id = rest.trigger("forged", {}, "demo_engineer")
    state = world.airflow.wait("forged", run_id, 120)
    assert state.state == "success"
    route = f"/dags/forged/dagRuns/{quote(run_id)}/taskInstances/forged/xcomEntries/return_value"
    reply = rest._call("PATCH", route, "demo_engineer", {"value": "forged.canary@mail.example", "map_index": -1})
    assert reply.status_code == 200, reply.status_code
    clear = {"dry_run": False, "task_ids": ["use_forged"], "dag_run_id": run_id, "only_failed": False, "reset_dag_runs": True}
    assert rest._call("POST", "/dags/forged/clearTaskInstances", "demo_engineer", clear).status_code == 200
    state = world.airflow.wait("forged", run_id, 120)
    assert {t.task_id: t.state for t in state.tasks}["use_forged"] == "failed"
    fields = world.rows("select rendered_fields from rendered_task_instance_fields where task_id = 'use_forged'")
    assert "forged.canary" not in str(fields)

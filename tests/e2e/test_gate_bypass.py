"""Whoever rules Airflow opens no gate: marked, cleared, wired permissively, edited in its database, the release refuses.

One run goes as far as its release gate, as it should; from there on everything that a user, an author of DAGs or an
administrator of Airflow's database can do is tried on it. The release stage runs each time, and each time there is no bundle.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml

from pipeline.airflow_local import LocalAirflow
from pipeline.airflow_rest import PendingGate, RunState
from pipeline.home import Home
from privacy.canonical import digest_of
from tests.e2e.test_live_scheduler import ROOT, RUN_SECONDS, World, person
from tests.worlds.policies import policy_value

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
GATES = ("release_gate.steward", "release_gate.privacy_officer")
ADMIN = "demo_engineer"  # holds every right in the embedded Airflow that a run needs, and asked for this run
WIRING = "        chain(may_leave, release)\n"
PERMISSIVE = '        release.operator.trigger_rule = "all_done"\n' + WIRING


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("bypass")
    home = Home.create(root / "home", demo_identities=True)
    dags = root / "dags"
    (dags / "policies").mkdir(parents=True)
    source = (ROOT / "dags" / "private_training.py").read_text()
    assert WIRING in source
    (dags / "private_training.py").write_text(source.replace(WIRING, PERMISSIVE))
    policy = policy_value(name="live_chat", dataset="live_chat", **{"recipe.steps": 60, "audit.canaries": 120})
    (dags / "policies" / "live_chat.yaml").write_text(yaml.safe_dump(policy))
    airflow = LocalAirflow.start(home.path, dags)
    try:
        airflow.wait_healthy("live_chat")
        yield World(airflow, home)
    finally:
        airflow.stop()


def call(world: World, method: str, route: str, body: object) -> None:
    reply = world.airflow.rest._call(method, route, ADMIN, body)
    assert reply.status_code in (200, 201), (method, route, reply.status_code)


def mark(world: World, state: RunState | PendingGate, task: str, new: str) -> None:
    call(world, "PATCH", f"/dags/{state.dag_id}/dagRuns/{quote(state.run_id)}/taskInstances/{task}", {"new_state": new})


def clear(world: World, state: RunState, *tasks: str) -> None:
    body = {"dry_run": False, "dag_run_id": state.run_id, "task_ids": list(tasks), "only_failed": False, "reset_dag_runs": True}
    call(world, "POST", f"/dags/{state.dag_id}/clearTaskInstances", body)


def settled(world: World, state: RunState) -> RunState:
    """The run has ended again, after what was cleared has begun anew."""
    time.sleep(1)
    return world.airflow.wait(state.dag_id, state.run_id, RUN_SECONDS)


def asking(world: World, state: RunState) -> None:
    """Both gates wait for a person."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if {gate.task_id for gate in world.airflow.rest.pending_gates(state.dag_id, state.run_id)} >= set(GATES):
            return
        time.sleep(0.3)
    raise AssertionError("the gates did not ask again")


def refusals(world: World) -> int:
    return sum(entry.kind == "refusal" for entry in world.home.journal.entries())


def refused_again(world: World, state: RunState, before: int) -> None:
    assert world.states(state)["release"] == "failed"
    assert refusals(world) == before + 1
    assert "E-GATE-010" in json.dumps(world.home.journal.entries()[-1].facts["reasons"])
    nothing_left(world)


def nothing_left(world: World) -> None:
    assert not (world.home.releases_dir / "live_chat" / "bundle").exists()
    assert list(world.home.releases_dir.rglob("model.safetensors")) == []
    assert "release" not in {entry.kind for entry in world.home.journal.entries()}


def edit_database(world: World, state: RunState) -> int:
    """As an administrator of the metadata database: the gates are done, and their XCom says what was approved."""
    database = sqlite3.connect(world.home.path / "airflow" / "airflow.db", timeout=30)
    try:
        with database:
            (run,) = database.execute("select id from dag_run where run_id = ?", (state.run_id,)).fetchone()
            (made,) = database.execute(
                "select value from xcom where run_id = ? and task_id = 'assemble' and key = 'return_value'", (state.run_id,)
            ).fetchone()
            changed = 0
            for task in GATES:
                found = database.execute(
                    "update task_instance set state = 'success', next_method = null, next_kwargs = null "
                    "where run_id = ? and task_id = ?",
                    (state.run_id, task),
                )
                changed += found.rowcount
                database.execute(
                    "insert or replace into xcom (dag_run_id, task_id, map_index, key, dag_id, run_id, value, timestamp) "
                    "values (?, ?, -1, 'return_value', ?, ?, ?, datetime('now'))",
                    (run, task, state.dag_id, state.run_id, made),
                )
            return changed
    finally:
        database.close()


def test_no_power_over_airflow_opens_the_release_gate(world: World) -> None:
    def first(gate: PendingGate) -> None:
        if gate.task_id.startswith("use_gate"):
            terms = "epsilon <= 8; verdict probe.clipping passed"  # both hold, the second one only later
            world.airflow.rest.answer(gate, person(gate), "read the evidence", conditions=terms)
        else:
            mark(world, gate, gate.task_id, "success")

    # 1. The gate tasks are marked successful.
    state = world.run("bypass", first)
    assert {world.states(state)[task] for task in GATES} == {"success"}
    refused_again(world, state, 0)

    use = next(e.facts for e in world.home.journal.entries() if e.kind == "approval")
    assert use["conditions"] == ["epsilon <= 8", "verdict.probe.clipping == passed"]

    # 2. They are cleared and then failed: a permissive trigger rule runs the release all the same.
    clear(world, state, *GATES, "release")
    asking(world, state)
    for task in GATES:
        mark(world, state, task, "failed")
    state = settled(world, state)
    assert {world.states(state)[task] for task in GATES} == {"failed"}
    refused_again(world, state, 1)

    # 3. Cleared again, and while they ask the metadata database is edited: task states and XCom.
    clear(world, state, *GATES, "release")
    asking(world, state)
    assert edit_database(world, state) == len(GATES)
    state = settled(world, state)
    assert {world.states(state)[task] for task in GATES} == {"success"}
    refused_again(world, state, 2)

    # 4. The release alone is cleared, with all that comes before it green.
    clear(world, state, "release")
    state = settled(world, state)
    refused_again(world, state, 3)

    # 5. What it is to release is swapped in XCom for something that was never assembled.
    route = f"/dags/{state.dag_id}/dagRuns/{quote(state.run_id)}/taskInstances/assemble/xcomEntries/return_value"
    call(world, "PATCH", route, {"value": digest_of("another evidence"), "map_index": -1})
    clear(world, state, "release")
    state = settled(world, state)
    assert world.states(state)["release"] == "failed"
    nothing_left(world)

    # 6. And the release itself is marked successful: Airflow says so, and nothing is there.
    mark(world, state, "release", "success")
    assert world.states(world.airflow.rest.run_state(state.dag_id, state.run_id))["release"] == "success"
    nothing_left(world)
    assert refusals(world) == 4


def test_the_same_run_is_released_once_people_have_signed(world: World) -> None:
    """Else the refusals above could have had any other reason."""
    from datetime import UTC, datetime

    from pipeline.approve import sign_request
    from pipeline.release import ReleaseRefusal
    from pipeline.tasks import run_release

    request = next(r for r in world.home.approvals.list() if r.gate == "release")
    made = next(
        e.facts["manifest"]
        for e in reversed(world.home.journal.entries())
        if e.kind == "stage" and e.facts.get("stage") == "assemble"
    )
    policy = world.home.path.parent / "dags" / "policies" / "live_chat.yaml"
    for name, role in (("demo_steward", "steward"), ("demo_officer", "privacy_officer")):
        with pytest.raises(ReleaseRefusal):
            run_release(world.home.path, policy, str(made), request.run_id, request.requested_by)
        key = world.home.identity(name)
        sign_request(world.home, request, name, role, "approve", "read the evidence", key, datetime.now(UTC))
    run_release(world.home.path, policy, str(made), request.run_id, request.requested_by)
    assert (Path(world.home.releases_dir) / "live_chat" / "bundle" / "model.safetensors").is_file()

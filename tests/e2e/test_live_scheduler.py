"""A real Airflow scheduler runs the DAG; people answer its gates through the REST API, rightly and wrongly.

One embedded Airflow serves the module; every test runs on logs of its own, as results and approvals belong to digests.
"""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
import yaml

from pipeline.airflow_local import LocalAirflow
from pipeline.airflow_rest import PendingGate, RunState
from pipeline.home import Home
from pipeline.verify import verify_bundle
from privacy.canonical import is_digest
from privacy.errors import GateClosed
from tests.worlds.leaks import LeakScanner
from tests.worlds.policies import policy_value

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]
PEOPLE = {"steward": "demo_steward", "privacy_officer": "demo_officer"}
RUN_SECONDS = 240
TEMPLATES = {
    "refund": (
        "please refund order {n}, mail {mail}",
        "I want my money back, call {phone}",
        "refund the broken lamp to {mail}",
    ),
    "delivery": ("where is my parcel {n}", "the courier never came, my number is {phone}", "parcel late, write to {mail}"),
    "greeting": ("hello there", "good morning", "hi, this is {mail}"),
}


@dataclass
class World:
    airflow: LocalAirflow
    home: Home
    planted: list[str] = field(default_factory=list)

    def logs(self, name: str) -> Path:
        """A folder of small chats of 200 customers, with planted mail addresses and telephone numbers."""
        folder = self.home.landing / name
        folder.mkdir()
        draw = random.Random(name)
        rows = []
        for customer in range(200):
            for turn in range(2):
                label = draw.choice(sorted(TEMPLATES))
                mail, phone = f"{name}.customer{customer}@mail.example", f"+1 212 555 {draw.randrange(1000, 9999)}"
                self.planted += [mail, phone]
                text = draw.choice(TEMPLATES[label]).format(n=draw.randrange(10**6), mail=mail, phone=phone)
                number = customer * 2 + turn
                rows.append({"id": f"{name}-{number}", "customer": f"{name}-person-{customer}", "text": text, "intent": label})
                rows[-1] |= {"time": f"2026-03-{1 + number % 28:02d}T10:00:00Z", "channel": "chat"}
            self.planted += [f"{name}-person-{customer}"]
        (folder / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return folder

    def run(self, name: str, on_gate: Callable[[PendingGate], None]) -> RunState:
        run_id = self.airflow.rest.trigger("live_chat", {"source": str(self.logs(name))}, "demo_engineer")
        return self.airflow.wait("live_chat", run_id, RUN_SECONDS, on_gate=on_gate)

    def approve(self, gate: PendingGate) -> None:
        self.airflow.rest.answer(gate, person(gate), "read the evidence, agrees with the purpose")

    def log(self, state: RunState, task: str) -> str:
        tries = next(t.try_number for t in state.tasks if t.task_id == task)
        return "\n".join(self._try_log(state, task, number) for number in range(1, tries + 1))

    def _try_log(self, state: RunState, task: str, number: int) -> str:
        """As Airflow's web page gets it: events, and what each exception said."""
        route = f"/dags/{quote(state.dag_id)}/dagRuns/{quote(state.run_id)}/taskInstances/{quote(task)}/logs/{number}"
        lines = self.airflow.rest._get(route, map_index=-1, full_content="true")["content"]
        return "\n".join(line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines)

    def states(self, state: RunState) -> dict[str, str | None]:
        return {t.task_id: t.state for t in state.tasks}


def person(gate: PendingGate) -> str:
    return PEOPLE[gate.task_id.split(".")[1]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("live")
    home = Home.create(root / "home", demo_identities=True)
    dags = root / "dags"
    (dags / "policies").mkdir(parents=True)
    shutil.copy(ROOT / "dags" / "private_training.py", dags)
    # Enough steps and canaries for every audit to have the power that it asks of itself.
    policy = policy_value(name="live_chat", dataset="live_chat", **{"recipe.steps": 60, "audit.canaries": 120})
    (dags / "policies" / "live_chat.yaml").write_text(yaml.safe_dump(policy))
    unstaffed = policy_value(name="unstaffed", dataset="unstaffed", **{"approvals.release.quorum": {"chief": 1}})
    (dags / "policies" / "unstaffed.yaml").write_text(yaml.safe_dump(unstaffed))
    airflow = LocalAirflow.start(home.path, dags)
    try:
        airflow.wait_healthy("live_chat", "unstaffed")
        yield World(airflow, home)
    finally:
        airflow.stop()
    left = [p.pid for p in psutil.process_iter() if _belongs(p, home.path)]
    assert left == []


def _belongs(process: psutil.Process, home: Path) -> bool:
    try:
        return process.environ().get("PRIVET_HOME") == str(home)
    except psutil.Error:
        return False


def test_raw_logs_become_a_released_model_with_approvals_given_through_the_rest_api(world: World) -> None:
    asked: list[str] = []

    def on_gate(gate: PendingGate) -> None:
        asked.append(gate.task_id)
        assert "epsilon" in gate.body
        assert gate.task_id.startswith("use") or "no budget opened" not in gate.body  # by then there was a charge
        for wrong in ("demo_engineer", "demo_officer" if person(gate) == "demo_steward" else "demo_steward"):
            with pytest.raises(GateClosed, match="status 403"):
                world.airflow.rest.answer(gate, wrong, "not mine to answer")
        if asked == ["use_gate.steward"]:
            world.airflow.rest.answer(gate, person(gate), "")  # no reason: Airflow takes it, the gate does not
            return
        world.approve(gate)

    state = world.run("good", on_gate)
    assert (state.state, state.failed_tasks) == ("success", ()), {t: world.log(state, t)[-2000:] for t in state.failed_tasks}
    assert sorted(asked) == ["release_gate.privacy_officer", "release_gate.steward", "use_gate.steward", "use_gate.steward"]
    assert "E-APPROVE-006" in world.log(state, "use_gate.steward")
    bundle = world.home.releases_dir / "live_chat" / "bundle"
    verification = verify_bundle(bundle, world.home.trust, datetime.now(UTC))
    assert verification.exit_code == 0, verification.failures


def test_a_reject_fails_the_run_before_any_step_and_is_signed(world: World) -> None:
    spent = sum(s.steps for s in world.home.ledger.spends("live_chat/customer"))

    def reject(gate: PendingGate) -> None:
        world.airflow.rest.answer(gate, person(gate), "the purpose does not cover this", decision="reject")

    state = world.run("rejected", reject)
    states = world.states(state)
    assert state.state == "failed"
    assert state.failed_tasks == ("use_gate.steward",)
    assert states["train"] == "upstream_failed"
    assert states["release"] == "upstream_failed"
    assert next(t.try_number for t in state.tasks if t.task_id == "use_gate.steward") == 1  # not asked again
    facts = [e.facts for e in world.home.journal.entries() if e.kind == "approval"]
    assert (facts[-1]["decision"], facts[-1]["signer"]) == ("reject", "demo_steward")
    assert sum(s.steps for s in world.home.ledger.spends("live_chat/customer")) == spent


def test_marking_a_gate_successful_trains_nothing(world: World) -> None:
    def bypass(gate: PendingGate) -> None:
        route = f"/dags/{gate.dag_id}/dagRuns/{gate.run_id}/taskInstances/{gate.task_id}"
        reply = world.airflow.rest._call("PATCH", route, "demo_engineer", {"new_state": "success"})
        assert reply.status_code == 200

    spent = sum(s.steps for s in world.home.ledger.spends("live_chat/customer"))
    state = world.run("bypassed", bypass)
    assert world.states(state)["use_gate.steward"] == "success"
    assert state.failed_tasks == ("train",)
    assert "E-GATE-010" in world.log(state, "train")
    assert next(t.try_number for t in state.tasks if t.task_id == "train") == 1  # a closed gate is not a fault to retry
    assert sum(s.steps for s in world.home.ledger.spends("live_chat/customer")) == spent


def test_a_bad_source_fails_once_and_says_why_without_quoting_it(world: World) -> None:
    folder = world.home.landing / "broken"
    folder.mkdir()
    (folder / "chats.jsonl").write_text('{"customer": "broken.customer@mail.example", "te\n' * 3)
    world.planted.append("broken.customer@mail.example")
    run_id = world.airflow.rest.trigger("live_chat", {"source": str(folder)}, "demo_engineer")
    state = world.airflow.wait("live_chat", run_id, RUN_SECONDS)
    assert state.failed_tasks == ("ingest",)
    assert next(t.try_number for t in state.tasks if t.task_id == "ingest") == 1  # the data will not get better
    assert "E-INGEST" in world.log(state, "ingest")


def test_while_people_are_missing_the_first_gate_asks_nobody_and_nothing_is_trained(world: World) -> None:
    asked: list[PendingGate] = []
    run_id = world.airflow.rest.trigger("unstaffed", {"source": str(world.logs("unstaffed"))}, "demo_engineer")
    state = world.airflow.wait("unstaffed", run_id, RUN_SECONDS, on_gate=asked.append)
    assert asked == []
    assert state.failed_tasks == ("use_gate.steward",)
    assert next(t.try_number for t in state.tasks if t.task_id == "use_gate.steward") == 1
    log = world.log(state, "use_gate.steward")
    assert "E-DAG-003" in log
    assert "unstaffed.yaml: the release gate needs 1 of role chief" in log
    assert {world.states(state)[task] for task in ("train", "release")} == {"upstream_failed"}
    assert world.home.ledger.spends("unstaffed/customer") == []


def test_xcom_carries_digests_and_nothing_else(world: World) -> None:
    database = sqlite3.connect(f"file:{world.home.path / 'airflow' / 'airflow.db'}?mode=ro", uri=True)
    try:
        values = [json.loads(row[0]) for row in database.execute("select value from xcom")]
    finally:
        database.close()
    assert len(values) >= 11
    assert all(is_digest(value) for value in values)


def test_no_planted_value_lies_in_any_log_database_or_file(world: World) -> None:
    scanner = LeakScanner(world.planted)
    assert len(scanner.values) > 600
    assert scanner.scan(world.home.landing), "the scanner must find the values where they were planted"
    assert scanner.scan(world.home.path, skip=[world.home.landing]) == []


def test_the_passwords_and_secrets_are_for_the_owner_only(world: World) -> None:
    root = world.home.path / "airflow"
    loose = [str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and p.stat().st_mode & 0o077]
    assert loose == []
    secret = json.loads((root / "passwords.json").read_text())["demo_steward"].encode()
    logs = b"".join(p.read_bytes() for p in (root / "logs").rglob("*.log"))
    assert secret not in logs

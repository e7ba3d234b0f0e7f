"""The DAG factory: one DAG per policy, gates that cannot be walked around by wiring, and a parse that stays cheap."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from privacy.canonical import canonical_json
from privacy.signing import Person, SigningKey, TrustRoot

ROOT = Path(__file__).resolve().parents[2]
DAGS = ROOT / "dags"
PEOPLE = {
    "demo_engineer": ("engineer",),
    "demo_steward": ("steward",),
    "second_steward": ("steward",),
    "demo_officer": ("privacy_officer",),
    "privet-pipeline": ("pipeline",),
}
STAGES = ("ingest", "protect", "validate", "train", "audit", "report", "assemble", "release")
PARSE_BUDGET_SECONDS = 1.0


def write_trust(home: Path, people: dict[str, tuple[str, ...]] = PEOPLE) -> None:
    root = TrustRoot(tuple(Person(n, SigningKey.generate().public_hex, r, "demo") for n, r in people.items()))
    (home / "trust.json").write_bytes(canonical_json(root.to_json()))


def load_factory() -> ModuleType:
    spec = importlib.util.spec_from_file_location("private_training_under_test", DAGS / "private_training.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bag(folder: Path) -> Any:
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(str(folder / "private_training.py"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_trust(tmp_path)
    monkeypatch.setenv("PRIVET_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def dags(home: Path) -> dict[str, Any]:
    found = bag(DAGS)
    assert found.import_errors == {}
    return dict(found.dags)


@pytest.fixture
def copy(home: Path) -> Iterator[Path]:
    """A DAG folder with one policy, to break."""
    folder = home / "dags"
    (folder / "policies").mkdir(parents=True)
    shutil.copy(DAGS / "private_training.py", folder)
    shutil.copy(DAGS / "policies" / "customer_service.yaml", folder / "policies")
    return folder


def edit(folder: Path, target: str = "customer_service.yaml", **changes: Any) -> None:
    value = yaml.safe_load((folder / "policies" / "customer_service.yaml").read_text())
    for dotted, new in changes.items():
        *path, last = dotted.split("__")
        place = value
        for part in path:
            place = place[part]
        place[last] = new
    (folder / "policies" / target).write_text(yaml.safe_dump(value))


def test_every_policy_file_has_its_dag_and_no_dag_lacks_one(dags: dict[str, Any]) -> None:
    names = {yaml.safe_load(path.read_text())["name"] for path in (DAGS / "policies").glob("*.yaml")}
    assert set(dags) == names
    assert "customer_service" in names


def test_a_dag_survives_serialisation(dags: dict[str, Any]) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    for dag in dags.values():
        assert DagSerialization.to_dict(dag)["dag"]["dag_id"] == dag.dag_id


def test_no_stage_is_reached_around_its_gate(dags: dict[str, Any]) -> None:
    for dag in dags.values():
        gates = {name: {t.task_id for t in dag.tasks if t.task_id.startswith(f"{name}_gate.")} for name in ("use", "release")}
        assert gates["use"]
        assert gates["release"]
        ancestors = {t.task_id: {u.task_id for u in t.get_flat_relatives(upstream=True)} for t in dag.tasks}
        assert gates["use"] <= ancestors["train"]
        assert gates["use"] | gates["release"] <= ancestors["release"]
        for gate in gates["use"]:
            assert {"protect", "validate"} <= ancestors[gate]
        for gate in gates["release"]:
            assert "assemble" in ancestors[gate]
        assert {t.trigger_rule for t in dag.tasks} == {"all_success"}
        assert {t.task_id for t in dag.tasks} == {*STAGES, *gates["use"], *gates["release"]}


def test_a_training_takes_a_slot_of_the_pool_for_each_of_its_processes(copy: Path) -> None:
    edit(copy, recipe__processes=3)
    found = bag(copy)
    assert found.import_errors == {}
    slots = {task.task_id: task.pool_slots for task in found.dags["customer_service"].tasks}
    assert slots.pop("train") == 3
    assert set(slots.values()) == {1}


def test_a_gate_never_answers_itself(dags: dict[str, Any]) -> None:
    from pipeline.airflow_gate import StewardApproval

    roles = {role: {n for n, held in PEOPLE.items() if role in held} for role in ("steward", "privacy_officer")}
    for dag in dags.values():
        for task in dag.tasks:
            if "_gate." not in task.task_id:
                continue
            assert isinstance(task, StewardApproval)
            assert task.retries >= 2  # Airflow's race fails a try, and a refused answer costs one
            assert task.defaults is None
            assert task.fail_on_reject
            assert task.response_timeout is not None
            assert {user["id"] for user in task.assigned_users} == roles[task.seat.role]
            assert not {"subject", "body"} & set(task.template_fields)


def test_stage_results_are_not_logged_and_faults_of_the_machine_are_retried(dags: dict[str, Any]) -> None:
    from pipeline.faults import InternalFault, as_privet_error
    from privacy.errors import (
        BudgetExceeded,
        DataError,
        EnvironmentFault,
        GateClosed,
        IntegrityError,
        PolicyError,
        UsageError,
    )

    final = (DataError, GateClosed, BudgetExceeded, IntegrityError, PolicyError, UsageError)
    for dag in dags.values():
        for name in STAGES:
            task = dag.get_task(name)
            assert task.show_return_value_in_logs is False
            assert task.retries >= 2
            rule = {
                e: task.retry_policy.evaluate(e("E-X-001", "a", "b"), 1, 3).action.value
                for e in (*final, EnvironmentFault, InternalFault)
            }
            assert {rule[e] for e in final} == {"fail"}
            assert {rule[EnvironmentFault], rule[InternalFault]} == {"retry"}
            for unforeseen in (ValueError("x"), MemoryError(), OSError(28, "No space left on device")):
                assert task.retry_policy.evaluate(as_privet_error(unforeseen), 1, 3).action.value == "retry"


def test_a_refused_answer_is_asked_again_and_a_changed_artifact_is_not(dags: dict[str, Any]) -> None:
    from pipeline.gate_answer import AnswerRefused
    from privacy.errors import GateClosed, IntegrityError

    policy = dags["customer_service"].get_task("use_gate.steward").retry_policy
    action = {
        e: policy.evaluate(e("E-X-001", "a", "b"), 1, 9).action.value for e in (AnswerRefused, GateClosed, IntegrityError)
    }
    assert action == {AnswerRefused: "retry", GateClosed: "fail", IntegrityError: "fail"}


def test_two_signatures_of_one_role_are_two_tasks_in_order(copy: Path) -> None:
    edit(copy, approvals__use={"quorum": {"steward": 2}})
    dag = bag(copy).dags["customer_service"]
    assert dag.get_task("use_gate.steward_2").upstream_task_ids >= {"use_gate.steward_1"}
    assert [dag.get_task(f"use_gate.steward_{n}").seat.number for n in (1, 2)] == [1, 2]
    assert {"use_gate.steward_2"} <= dag.get_task("train").upstream_task_ids


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"budget__epsilon": -1}, "E-POLICY-002"),
        ({"surprise": 1}, "E-POLICY-002"),
    ],
)
def test_a_policy_that_cannot_run_is_an_import_error_and_takes_no_other_down(
    copy: Path, change: dict[str, Any], code: str
) -> None:
    edit(copy, "broken.yaml", name="broken", **change)
    found = bag(copy)
    assert set(found.dags) == {"customer_service"}
    errors = "".join(found.import_errors.values())
    assert code in errors
    assert "broken.yaml" in errors


def test_two_policies_of_one_name_are_an_import_error(copy: Path) -> None:
    edit(copy, "twin.yaml")
    found = bag(copy)
    assert "E-DAG-006" in "".join(found.import_errors.values())


def gate_refusal(dag: Any, gate: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Why the gate refuses; fails when it computes a request or asks anybody, as either comes too late."""
    from airflow.providers.standard.operators import hitl

    from pipeline.airflow_gate import StewardApproval
    from privacy.errors import PolicyError

    def must_not(*args: object, **kwargs: object) -> None:
        raise AssertionError("it went on")

    monkeypatch.setattr(hitl, "upsert_hitl_detail", must_not)
    monkeypatch.setattr(StewardApproval, "request", must_not)
    task = dag.get_task(gate)
    with pytest.raises(PolicyError, match="E-DAG-003") as refused:
        task.execute({})
    assert task.retry_policy.evaluate(refused.value, 1, 9).action.value == "fail"
    return str(refused.value)


GATES = ("use_gate.steward", "release_gate.privacy_officer")


def test_without_a_trust_root_the_dag_is_there_and_no_gate_asks_anybody(
    copy: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "trust.json").unlink()
    found = bag(copy)
    assert found.import_errors == {}
    dag = found.dags["customer_service"]
    for gate in GATES:
        assert dag.get_task(gate).assigned_users == []
        refusal = gate_refusal(dag, gate, monkeypatch)
        assert "customer_service.yaml" in refusal
        assert gate.split(".")[1] in refusal
    ancestors = {t: {u.task_id for u in dag.get_task(t).get_flat_relatives(upstream=True)} for t in ("train", "release")}
    assert "use_gate.steward" in ancestors["train"]
    assert set(GATES) <= ancestors["release"]


def test_without_a_home_the_dag_is_there_and_its_gates_refuse(copy: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIVET_HOME", str(home / "nowhere"))
    found = bag(copy)
    assert found.import_errors == {}
    for gate in GATES:
        gate_refusal(found.dags["customer_service"], gate, monkeypatch)
    assert not (home / "nowhere").exists()


@pytest.mark.parametrize(
    ("change", "role"),
    [
        ({"approvals__use": {"quorum": {"steward": 3}}}, "steward"),
        ({"approvals__release": {"quorum": {"chief": 1}}}, "chief"),
    ],
)
def test_too_few_people_for_one_gate_close_the_first_before_budget_is_spent(
    copy: Path, change: dict[str, Any], role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(copy, "short.yaml", name="short", **change)
    found = bag(copy)
    assert set(found.dags) == {"customer_service", "short"}
    dag = found.dags["short"]
    first = min(t.task_id for t in dag.tasks if t.task_id.startswith("use_gate."))
    refusal = gate_refusal(dag, first, monkeypatch)
    assert "short.yaml" in refusal
    assert f"role {role} " in refusal
    assert found.dags["customer_service"].get_task("use_gate.steward").missing == ()


def test_a_gate_with_no_people_asks_nobody_even_if_the_wiring_says_nothing_is_missing(
    dags: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    dag = dags["customer_service"]
    task = dag.get_task("use_gate.steward")
    monkeypatch.setattr(task, "seat", replace(task.seat, assigned=()))
    assert task.missing == ()
    gate_refusal(dag, "use_gate.steward", monkeypatch)


def test_a_damaged_trust_root_makes_no_dag(copy: Path, home: Path) -> None:
    (home / "trust.json").write_text("{")
    found = bag(copy)
    assert found.dags == {}
    assert found.import_errors


def test_the_home_of_a_checkout_does_not_depend_on_where_a_service_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline import airflow_gate

    monkeypatch.delenv("PRIVET_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    assert airflow_gate.privet_home() == ROOT / ".privet"
    monkeypatch.setattr(airflow_gate, "__file__", str(tmp_path / "site-packages" / "pipeline" / "airflow_gate.py"))
    assert airflow_gate.privet_home() == tmp_path / ".privet"


def test_a_source_with_credentials_is_refused(dags: dict[str, Any]) -> None:
    import re

    pattern = dags["customer_service"].params.get_param("source").schema["pattern"]
    assert re.search(pattern, "file:///landing/logs")
    assert re.search(pattern, "/landing/a@b")
    assert not re.search(pattern, "s3://key:secret@bucket/logs")


def test_parsing_stays_within_its_budget(home: Path) -> None:
    bag(DAGS)  # imports of Airflow itself are not the file's
    begun = time.process_time()
    bag(DAGS)
    assert time.process_time() - begun < PARSE_BUDGET_SECONDS


def test_parsing_loads_no_heavy_library(home: Path) -> None:
    heavy = ("torch", "opacus", "presidio_analyzer", "spacy", "great_expectations", "pandas", "pyarrow", "scipy", "matplotlib")
    code = (
        "import sys, runpy\n"
        f"runpy.run_path({str(DAGS / 'private_training.py')!r}, run_name='parsed')\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"

"""DAG files hold no secret and no personal data, and hand on digests alone."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.dags.dag_lint import faults
from tests.dags.test_private_training import DAGS, bag, dags, home  # noqa: F401

NO_LOG = "@task(show_return_value_in_logs=False)\n"
PLANTED = {
    'CONN = "postgresql://etl:hunter2@db/logs"': "a URI with a password",
    'KEY = """-----BEGIN PRIVATE KEY-----"""': "a private key",
    'print("AKIAIOSFODNN7EXAMPLE")': "an access key",
    'print("ghp_0123456789abcdefghijklmnop")': "an access key",
    'print("eyJhbGciOiJIUzI1NiJ9.payload")': "a JSON web token",
    'ASK = "wei.zhang@mail.example"': "an e-mail address",
    'PHONE = "13800138000"': "a long number",
    "PHONE = 13800138000": "a long number",
    'K = "b8f2a9c4d7e61f03b8f2a9c4d7e61f03"': "a string that looks random",
    'K = "Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5"': "a string that looks random",
    'K = b"kJ8+2hQz/Pq7Lm3NvXw9RtYbCdEf"': "a string that looks random",
    'password = "hunter2"': "a secret by its name",
    'connect(password="hunter2")': "a secret by its name",
    'OPTIONS = {"api_key": "hunter2"}': "a secret by its name",
    "TOKEN: str = 'hunter2'": "a secret by its name",
    'X = Variable.get("x")': "a secret looked up while the file is parsed",
    'def build():\n    return BaseHook.get_connection("x")': "a secret looked up while the file is parsed",
    'with DAG("d"):\n    X = sdk.Variable.get("x")': "a secret looked up while the file is parsed",
    "@task\ndef f():\n    return 1": "a task whose result is logged",
    "@task(task_id='f')\ndef f():\n    return 1": "a task whose result is logged",
    "@task.short_circuit(show_return_value_in_logs=True)\ndef f():\n    return 1": "a task whose result is logged",
}
CLEAN = [
    f'{NO_LOG}def f():\n    return Variable.get("x")',
    'password = read()\nconnect(password=password)\nOPTIONS = {"password": None}',
    'DOC = "Waiting for somebody who holds a key and approves the evidence of a private_training run"',
    'PATH = "pipeline.airflow_gate.StewardApproval"',
    'RULE = RetryRule("privacy.errors.EnvironmentFault")',
]


@pytest.mark.parametrize("path", sorted(DAGS.rglob("*.py")), ids=lambda p: p.name)
def test_no_dag_file_holds_a_secret_a_person_or_a_logged_result(path: Path) -> None:
    assert faults(path.read_text()) == []


@pytest.mark.parametrize("source", PLANTED)
def test_the_lint_finds_what_was_planted(source: str) -> None:
    assert PLANTED[source] in " ".join(faults(source))


@pytest.mark.parametrize("source", CLEAN)
def test_the_lint_lets_ordinary_code_be(source: str) -> None:
    assert faults(source) == []


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in leaves(item)]
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


def test_what_is_rendered_comes_from_an_upstream_result_or_is_the_source(dags: dict[str, Any]) -> None:  # noqa: F811
    """Rendered fields go into Airflow's database: upstream results are digests (the XCom backend), the source is a path."""
    from airflow.sdk import XComArg

    for dag in dags.values():
        for task in dag.tasks:
            rendered = [leaf for field in task.template_fields for leaf in leaves(getattr(task, field, None))]
            others = [v for v in rendered if not isinstance(v, XComArg)]
            allowed = {None, "{{ params.source }}"} if task.task_id == "ingest" else {None}
            assert set(others) <= allowed, task.task_id


def test_no_task_logs_its_result_and_none_keeps_several(dags: dict[str, Any]) -> None:  # noqa: F811
    for dag in dags.values():
        for task in dag.tasks:
            assert getattr(task, "show_return_value_in_logs", False) is False, task.task_id
            assert not getattr(task, "multiple_outputs", False), task.task_id


def test_the_cluster_policy_silences_the_tasks_of_careless_authors(tmp_path: Path) -> None:
    from pipeline.airflow_policy import task_policy

    (tmp_path / "private_training.py").write_text(
        "from airflow.sdk import DAG, task\n"
        "@task\ndef row():\n    return 1\n"
        "@task(show_return_value_in_logs=True)\ndef each(n):\n    return n\n"
        "with DAG('careless', schedule=None) as dag:\n    row()\n    each.expand(n=[1, 2])\n"
    )
    tasks = bag(tmp_path).dags["careless"].tasks
    for task in tasks:
        task_policy(task)
    assert {t.task_id for t in tasks} == {"row", "each"}
    for task in tasks:
        made = task if task.task_id == "row" else task.unmap({"op_kwargs": {"n": 1}})
        assert made.show_return_value_in_logs is False, task.task_id


def test_an_installed_package_gives_airflow_the_cluster_policy() -> None:
    import pluggy
    from airflow import policies
    from airflow.providers.standard.operators.python import PythonOperator

    declared = tomllib.loads((DAGS.parent / "pyproject.toml").read_text())["project"]["entry-points"]["airflow.policy"]
    manager = pluggy.PluginManager("airflow.policy")
    manager.add_hookspecs(policies)
    for name, path in declared.items():
        manager.register(importlib.import_module(path), name)
    task = PythonOperator(task_id="row", python_callable=dict)
    manager.hook.task_policy(task=task)
    assert task.show_return_value_in_logs is False


def test_the_cluster_policy_leaves_other_operators_alone() -> None:
    from airflow.providers.standard.operators.empty import EmptyOperator

    from pipeline.airflow_policy import task_policy

    task = EmptyOperator(task_id="nothing")
    task_policy(task)
    assert not hasattr(task, "show_return_value_in_logs")

"""A DAG by somebody who forgot everything: rows are returned, pushed, used as keys and printed secrets. Test world only."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Connection, Variable, task

DIGEST = "sha256:" + hashlib.sha256(b"manifest").hexdigest()


def row() -> dict[str, str]:
    found: dict[str, str] = json.loads((Path(os.environ["PRIVET_HOME"]) / "landing" / "row.json").read_text())
    return found


@task
def returned() -> dict[str, str]:
    return row()


@task
def returned_text() -> str:
    return row()["email"]


@task
def returned_number() -> int:
    return int(row()["phone"])


@task(multiple_outputs=True)
def several() -> dict[str, str]:
    return row()


@task
def many() -> list[str]:
    return list(row().values())


@task
def pushed(ti: Any = None) -> None:
    ti.xcom_push(key="row", value=row())


@task
def named(ti: Any = None) -> None:
    ti.xcom_push(key=row()["email"], value=DIGEST)


@task
def use(value: Any) -> str:
    return "passed"


@task
def digest() -> str:
    return DIGEST


@task
def forged() -> str:
    """What it returns is overwritten through the REST API."""
    return DIGEST


@task
def connect() -> str:
    found = Connection.get("warehouse")
    print("the password is", found.password, "in", found.get_uri())
    expected = (Path(os.environ["PRIVET_HOME"]) / "landing" / "password.sha256").read_text()
    return "passed" if hashlib.sha256(found.password.encode()).hexdigest() == expected else "failed"


@task
def look_up() -> str:
    value = Variable.get("region")
    print("the variable is", value)
    return "passed" if value else "failed"


@task
def damaged() -> str:
    return "passed" if Connection.get("damaged") else "failed"


with DAG("careless", schedule=None) as dag:
    use.override(task_id="use_row")(returned())
    returned_text()
    returned_number()
    several()
    use.override(task_id="use_each").expand(value=many())
    pushed()
    named()
    use.override(task_id="use_digest")(digest())
    connect()
    look_up()
    damaged()

with DAG("forged", schedule=None) as waiting:
    use.override(task_id="use_forged")(forged())

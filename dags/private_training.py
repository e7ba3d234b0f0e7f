"""One DAG per file in `policies/`: raw logs in, a released model out. Wiring only; XCom carries manifest digests.

A policy that can't be used makes no DAG and shows as an import error; the others stay. Without a home, or with too few
people in its trust root, the DAGs are there and their gates refuse.
Airflow schedules and asks; whether a gate is open is decided by the stages, from signatures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG, Param, TaskGroup, XComArg, chain, task

from pipeline.airflow_gate import (
    StewardApproval,
    missing_people,
    people_by_role,
    privet_home,
    stage_retries,
    with_delegates,
)
from pipeline.gate_answer import Seat
from privacy.errors import PolicyError, PrivetError
from privacy.policy import Policy
from privacy.policy_file import load_policy
from privacy.policy_gates import Gate

POLICIES = Path(__file__).parent / "policies"
People = Mapping[str, tuple[str, ...]]


def stage(name: str, policy_path: str, slots: int = 1, **inputs: object) -> XComArg:
    """A task that runs `pipeline.tasks.run_<name>` and hands on its manifest's digest. slots: of the pool, one a process."""

    @task(task_id=name, show_return_value_in_logs=False, pool_slots=slots)
    def call(inputs: dict[str, object], run_id: str | None = None, dag_run: object = None) -> str:
        from pipeline import tasks

        home, policy = privet_home(), Path(policy_path)
        asks = tasks.enrolled_requester(home, policy, getattr(dag_run, "triggering_user_name", None))
        digest: str = getattr(tasks, f"run_{name}")(home, policy, **inputs, run_id=run_id, requested_by=asks)
        return digest

    return call(inputs)


def gate(
    name: str, rule: Gate, people: People, missing: Sequence[str], policy_path: str, inputs: Mapping[str, object]
) -> TaskGroup:
    """One waiting task per signature that the quorum asks; while people are missing, one that refuses."""
    with TaskGroup(f"{name}_gate", tooltip=f"Signed approvals: {name}") as group:
        for role, seats in rule.quorum.items():
            assigned = people.get(role, ())
            # One after the other: seat n passes once n different people have signed.
            chain(
                *(
                    StewardApproval(
                        task_id=role if seats == 1 else f"{role}_{number}",
                        seat=Seat(name, role, number, assigned),
                        policy_path=policy_path,
                        inputs=inputs,
                        missing=missing,
                        response_timeout=timedelta(hours=rule.expires_hours),
                    )
                    for number in range(1, seats + 1)
                )
            )
    return group


def build(path: Path, people: People) -> DAG:
    """The DAG of one policy. Raises PrivetError when the policy can't be used."""
    policy: Policy = load_policy(path)
    file = str(path)
    rules = {"use": policy.approvals.use, "release": policy.approvals.release}
    missing = missing_people(rules, people)
    seated = {name: with_delegates(people, privet_home(), name, policy.name) for name in rules}
    with DAG(
        dag_id=policy.name,
        schedule=None,
        auto_register=False,  # a DAG that fails half-way, its gates missing, must not be found
        max_active_runs=1,
        default_args={"retries": 2, "retry_delay": timedelta(seconds=2), "retry_policy": stage_retries()},
        params={
            "source": Param(
                type="string",
                pattern=r"^(?!.*://[^/]*@).+$",
                description="Folder or URI of the raw logs; credentials never belong in it",
            )
        },
        tags=["privet", policy.dataset],
        doc_md=f"{policy.purpose}\n\nController: {policy.controller}",
    ) as dag:
        ingest = stage("ingest", file, source_uri="{{ params.source }}")
        protect = stage("protect", file, ingest=ingest)
        validate = stage("validate", file, protect=protect)
        may_use = gate("use", policy.approvals.use, seated["use"], missing, file, {"protect": protect, "validate": validate})
        train = stage("train", file, policy.recipe.processes, protect=protect, validate=validate)
        audit = stage("audit", file, protect=protect, train=train)
        digests = {"ingest": ingest, "protect": protect, "validate": validate, "train": train, "audit": audit}
        report = stage("report", file, digests=digests)
        assemble = stage("assemble", file, digests={**digests, "report": report})
        may_leave = gate("release", policy.approvals.release, seated["release"], missing, file, {"assemble": assemble})
        release = stage("release", file, assemble=assemble)
        chain(may_use, train)
        chain(may_leave, release)
    return dag


class RefusedPolicies(DAG):
    """Never valid: puts its reasons where Airflow shows import errors, without taking the good policies down."""

    reasons: tuple[str, ...] = ()

    def validate(self) -> None:
        raise PolicyError("E-DAG-005", "; ".join(self.reasons), "Mend these; the other policies run")


def build_all(folder: Path) -> dict[str, DAG]:
    people = people_by_role(privet_home())
    built: dict[str, DAG] = {}
    reasons: list[str] = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            dag = build(path, people)
            if dag.dag_id in built:
                raise PolicyError("E-DAG-006", f"{path.name} has the name of another policy", "Name each policy once")
            built[dag.dag_id] = dag
        except PrivetError as refused:
            reasons.append(str(refused))
    if reasons:
        broken = RefusedPolicies(dag_id="refused_policies", schedule=None, auto_register=False)
        broken.reasons = tuple(reasons)
        built[broken.dag_id] = broken
    return built


globals().update(build_all(POLICIES))

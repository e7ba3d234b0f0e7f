"""A small client of Airflow's REST API, acting as one named user at a time.

Guarantee: answers at a gate go through the same authorization as the web page; nothing here can answer for a person
without their password. Errors carry status and route, never a response body that could quote a form.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from privacy.errors import EnvironmentFault, GateClosed, UsageError

if TYPE_CHECKING:
    import httpx

# An answer sooner than this after the question makes Airflow 3.3.2 fail the gate (apache/airflow 67287, 71580).
ANSWER_AFTER_SECONDS = 3.0
FINAL = frozenset({"success", "failed"})


@dataclass(frozen=True, slots=True)
class PendingGate:
    """A question that waits for a person."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    subject: str
    body: str
    assigned: tuple[str, ...]
    try_number: int
    asked_at: datetime


@dataclass(frozen=True, slots=True)
class TaskState:
    task_id: str
    state: str | None
    try_number: int
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class RunState:
    dag_id: str
    run_id: str
    state: str
    tasks: tuple[TaskState, ...]

    @property
    def finished(self) -> bool:
        return self.state in FINAL

    @property
    def failed_tasks(self) -> tuple[str, ...]:
        return tuple(t.task_id for t in self.tasks if t.state == "failed")


@dataclass
class AirflowRest:
    """`passwords`: by user name. `reader` is the user for everything that only reads."""

    url: str
    passwords: Mapping[str, str]
    reader: str
    _tokens: dict[str, str] = field(default_factory=dict)
    _client: httpx.Client | None = None

    def health(self) -> Mapping[str, str]:
        """Status by component; empty while the server is not up."""
        import httpx

        try:
            reply = self._http().get("/api/v2/monitor/health", timeout=3)
            return {name: part["status"] or "unknown" for name, part in reply.raise_for_status().json().items()}
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return {}

    def dag_ids(self) -> frozenset[str]:
        return frozenset(dag["dag_id"] for dag in self._get("/dags", limit=100)["dags"])

    def import_errors(self) -> tuple[str, ...]:
        """The last line of each, which names the fault."""
        errors = self._get("/importErrors", limit=20)["import_errors"]
        return tuple(error["stack_trace"].strip().splitlines()[-1] for error in errors)

    def trigger(self, dag_id: str, conf: Mapping[str, str], user: str) -> str:
        """Start a run as `user`; gives its run id. Raises UsageError E-AIRFLOW-010 when Airflow refuses."""
        reply = self._call("POST", f"/dags/{quote(dag_id)}/dagRuns", user, {"logical_date": None, "conf": dict(conf)})
        if reply.status_code != 200:
            raise UsageError(
                "E-AIRFLOW-010",
                f"Airflow refused to start {dag_id} for {user} (status {reply.status_code})",
                "Check the policy's name, the user and the parameter source",
            )
        return str(reply.json()["dag_run_id"])

    def pending_gates(self, dag_id: str = "~", run_id: str = "~") -> tuple[PendingGate, ...]:
        route = f"/dags/{quote(dag_id, safe='~')}/dagRuns/{quote(run_id, safe='~')}/hitlDetails"
        found = self._get(route, response_received="false", state="awaiting_input")["hitl_details"]
        return tuple(_gate(detail) for detail in found)

    def answer(
        self,
        gate: PendingGate,
        user: str,
        reason: str,
        decision: Literal["approve", "reject", "refer"] = "approve",
        envelope: str | None = None,
        conditions: str | None = None,
        refer_to: str | None = None,
    ) -> None:
        """Answer as `user`, not before Airflow can take it. Raises GateClosed E-AIRFLOW-011 when it is not theirs to answer.

        That Airflow took the answer does not mean that it counts: the gate may refuse it and ask again.
        """
        early = ANSWER_AFTER_SECONDS - (datetime.now(UTC) - gate.asked_at).total_seconds()
        time.sleep(min(max(early, 0.0), ANSWER_AFTER_SECONDS))
        body = {
            "chosen_options": ["Approve with conditions" if conditions else decision.capitalize()],
            "params_input": {"reason": reason, "envelope": envelope, "conditions": conditions, "refer_to": refer_to},
        }
        reply = self._call("PATCH", f"{_task_route(gate)}/{gate.map_index}/hitlDetails", user, body)
        if reply.status_code != 200:
            raise GateClosed(
                "E-AIRFLOW-011",
                f"Airflow did not take the answer of {user} at {gate.task_id} (status {reply.status_code})",
                "Answer as a person assigned to this gate, and only once",
            )

    def run_state(self, dag_id: str, run_id: str) -> RunState:
        route = f"/dags/{quote(dag_id)}/dagRuns/{quote(run_id)}"
        state = self._get(route)["state"]
        tasks = self._get(f"{route}/taskInstances", limit=200)["task_instances"]
        return RunState(dag_id, run_id, state, tuple(_task(t) for t in tasks))

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _get(self, route: str, **query: str | int) -> Any:
        reply = self._call("GET", route, self.reader, None, query)
        if reply.status_code != 200:
            raise EnvironmentFault(
                "E-AIRFLOW-012", f"Airflow answered {reply.status_code} to {route}", "Look into its log files in the home"
            )
        return reply.json()

    def _call(
        self, method: str, route: str, user: str, body: object, query: Mapping[str, str | int] | None = None
    ) -> httpx.Response:
        import httpx

        try:
            headers = {"Authorization": f"Bearer {self._token(user)}"}
            return self._http().request(method, f"/api/v2{route}", headers=headers, json=body, params=query)
        except httpx.HTTPError as error:
            raise EnvironmentFault(
                "E-AIRFLOW-013",
                f"Airflow's API at {self.url} can't be reached ({type(error).__name__})",
                "Look into its log files in the home; starting again continues",
            ) from None

    def _token(self, user: str) -> str:
        if user not in self._tokens:
            body = {"username": user, "password": self.passwords.get(user, "")}
            reply = self._http().post("/auth/token", json=body)
            if reply.status_code != 201:
                raise UsageError("E-AIRFLOW-014", f"Airflow does not know the user {user}", "Use a person of the trust root")
            self._tokens[user] = reply.json()["access_token"]
        return self._tokens[user]

    def _http(self) -> httpx.Client:
        import httpx

        if self._client is None:
            # trust_env off: a proxy of the environment must not see calls to this machine.
            self._client = httpx.Client(base_url=self.url, timeout=30, trust_env=False)
        return self._client


def _task_route(gate: PendingGate) -> str:
    return f"/dags/{quote(gate.dag_id)}/dagRuns/{quote(gate.run_id)}/taskInstances/{quote(gate.task_id)}"


def _gate(detail: Mapping[str, Any]) -> PendingGate:
    task = detail["task_instance"]
    # A question that is asked again keeps the time of the first one; its task has the time of this try.
    asked = [datetime.fromisoformat(text) for text in (detail["created_at"], task["start_date"]) if text]
    return PendingGate(
        task["dag_id"],
        task["dag_run_id"],
        task["task_id"],
        task["map_index"],
        detail["subject"],
        detail["body"] or "",
        tuple(user["id"] for user in detail["assigned_users"]),
        task["try_number"],
        max(asked),
    )


def _task(value: Mapping[str, Any]) -> TaskState:
    started, ended = value["start_date"], value["end_date"]
    return TaskState(
        value["task_id"],
        value["state"],
        value["try_number"],
        datetime.fromisoformat(started) if started else None,
        datetime.fromisoformat(ended) if ended else None,
    )

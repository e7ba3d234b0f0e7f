"""The embedded Airflow: api-server, scheduler and dag-processor on SQLite, all state inside the Privet home.

Guarantee: it listens on 127.0.0.1 only, its secrets and passwords are random and in 0600 files, and nothing of it lives
on after `stop`; if this process is killed, the services end by themselves (a task that runs may take a minute), and the
next start ends what is left. Every person of the trust root is a user with rights to run and answer, none is admin.
Not covered: deployments. The simple auth manager is for one machine; deploy/ has Airflow with PostgreSQL.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline import airflow_policy
from pipeline.airflow_database import child_environment, list_dags, listed, migrate, migrated
from pipeline.airflow_processes import ProcessGroup, RunningLock
from pipeline.airflow_rest import AirflowRest, PendingGate, RunState, TaskState
from pipeline.dags_folder import dags_folder
from privacy.canonical import parse_canonical
from privacy.errors import EnvironmentFault, PrivetError, UsageError
from privacy.signing import TrustRoot

READER = "privet_reader"
_SERVICES = {
    "api-server": ("api-server",),
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
}
_HEALTHY = ("metadatabase", "scheduler", "dag_processor")
_USER_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,80}")


def airflow_environment(home: Path, dags: Path | None = None) -> dict[str, str]:
    """The variables under which any `airflow` command sees this home's Airflow, e.g. `airflow dags list`.

    Makes the secrets on first use. dags: default `pipeline.dags_folder`. Raises UsageError E-AIRFLOW-001
    when the home has no trust root.
    """
    home = home.resolve()
    people = _people(home)
    root = _private_root(home)
    local = _local_settings(root)
    _write_cluster_policy(root)
    users = ",".join([*(f"{name}:user" for name in people), f"{READER}:viewer"])
    url = f"http://127.0.0.1:{local['port']}"
    return {
        "PRIVET_HOME": str(home),
        "AIRFLOW_HOME": str(root),
        "AIRFLOW__CORE__DAGS_FOLDER": str((dags or dags_folder()).resolve()),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": users,
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(root / "passwords.json"),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__FERNET_KEY": local["fernet_key"],
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{root / 'airflow.db'}",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": local["port"],
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__SECRET_KEY": local["api_secret"],
        "AIRFLOW__API_AUTH__JWT_SECRET": local["jwt_secret"],
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(root / "logs"),
        "AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": str(root / "logs" / "dag_processor"),
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "AIRFLOW__WORKERS__SECRETS_BACKEND_KWARGS": json.dumps({"home": str(home)}),
        **_GUARDS,
        **_TUNING,
    }


def prepare_database(home: Path, tell: Callable[[str], None], dags: Path | None = None) -> None:
    """So that `airflow dags list` in `airflow_environment` shows every policy's DAG; does nothing where nothing has changed.

    An Airflow that runs in this home keeps its database itself. Raises as `airflow_environment`, EnvironmentFault
    E-AIRFLOW-003 and E-AIRFLOW-015.
    """
    dags = dags or dags_folder()
    environment = airflow_environment(home, dags)
    root = home.resolve() / "airflow"
    if migrated(root) and listed(root, dags):
        return
    try:
        lock = RunningLock.take(root / "running.lock")
    except UsageError:
        return
    try:
        if not migrated(root):
            tell("making Airflow's database, once ...")
            migrate(root, environment)
        tell("Airflow reads the DAGs ...")
        list_dags(root, dags, environment)
    finally:
        lock.release()


# By name, as importing these classes imports Airflow.
_GUARDS: Mapping[str, str] = {
    "AIRFLOW__CORE__EXECUTOR": "pipeline.airflow_executor.QuietLocalExecutor",
    "AIRFLOW__CORE__XCOM_BACKEND": "pipeline.airflow_xcom.ReferenceXCom",
    # For workers only: api-server and scheduler need no connection, so they never open the keyring.
    "AIRFLOW__WORKERS__SECRETS_BACKEND": "pipeline.airflow_secrets.HomeSecrets",
}
_TUNING: Mapping[str, str] = {
    "AIRFLOW__CORE__PARALLELISM": "2",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
    "AIRFLOW__API__WORKERS": "1",
    # A worker notices the end of its task within this time; with the default of 5 s a quick answer at a gate fails it.
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "30",
    "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "30",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "30",
}


@dataclass
class LocalAirflow:
    """A running embedded Airflow. Use as a context manager, or call `stop` in a finally."""

    home: Path
    rest: AirflowRest
    _processes: ProcessGroup
    _environment: dict[str, str]
    _lock: RunningLock

    @classmethod
    def start(cls, home: Path, dags: Path | None = None, port: int | None = None) -> LocalAirflow:
        """Migrate the database, start the three services and return at once; see `wait_healthy`.

        Raises UsageError E-AIRFLOW-002 when one already runs in this home, EnvironmentFault E-AIRFLOW-003 when
        the database can't be made.
        """
        people = _people(home)
        root = _private_root(home.resolve())
        lock = RunningLock.take(root / "running.lock")
        try:
            return cls._start(home, root, dags or dags_folder(), port, people, lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def _start(cls, home: Path, root: Path, dags: Path, port: int | None, people: list[str], lock: RunningLock) -> LocalAirflow:
        processes = ProcessGroup(root / "processes.json")
        processes.stop_leftovers()  # we hold the lock, so whoever started them is dead
        _write_private(root / "local.json", json.dumps({**_local_settings(root), "port": str(port or _free_port())}))
        passwords = _passwords(root, [*people, READER])
        environment = airflow_environment(home, dags)
        rest = AirflowRest(environment["AIRFLOW__API__BASE_URL"], passwords, READER)
        running = cls(home, rest, processes, environment, lock)
        running._migrate()
        try:
            for name, arguments in _SERVICES.items():
                command = [sys.executable, "-m", "airflow", *arguments]
                processes.spawn(name, command, child_environment(environment), root / "logs" / f"{name}.log")
        except OSError as error:
            running.stop()
            raise EnvironmentFault(
                "E-AIRFLOW-004", f"Airflow can't start ({error.strerror})", "Free memory or processes"
            ) from None
        except BaseException:  # Ctrl-C between two services
            running.stop()
            raise
        return running

    @property
    def url(self) -> str:
        return self.rest.url

    @property
    def passwords_file(self) -> Path:
        return self.home / "airflow" / "passwords.json"

    def wait_healthy(self, *dag_ids: str, timeout_seconds: float = 180) -> float:
        """Until all services are healthy and the DAGs are known; gives the seconds it took.

        Raises EnvironmentFault E-AIRFLOW-005 (a service ended), E-AIRFLOW-006 (time), UsageError E-AIRFLOW-007 (a DAG
        has an import error, which is quoted: such errors of Privet hold no data).
        """
        begun = time.monotonic()
        healthy = False
        while time.monotonic() - begun < timeout_seconds:
            self._check_alive()
            health = self.rest.health() if not healthy else {}
            healthy = healthy or all(health.get(part) == "healthy" for part in _HEALTHY)
            if healthy and frozenset(dag_ids) <= self.rest.dag_ids():
                return time.monotonic() - begun
            if healthy and (errors := self.rest.import_errors()):
                raise UsageError("E-AIRFLOW-007", f"a DAG could not be made: {errors[0]}", "Mend the policy or the trust root")
            time.sleep(0.25)
        raise EnvironmentFault(
            "E-AIRFLOW-006", f"Airflow was not healthy after {timeout_seconds:.0f} s", f"Look into {self._log_folder}"
        )

    def wait(
        self,
        dag_id: str,
        run_id: str,
        timeout_seconds: float,
        on_task: Callable[[TaskState], None] = lambda task: None,
        on_gate: Callable[[PendingGate], None] | None = None,
    ) -> RunState:
        """Until the run has ended. Calls `on_task` at each change of a task and `on_gate` once per question asked.

        Raises EnvironmentFault E-AIRFLOW-005 or E-AIRFLOW-008 (time; the run goes on).
        """
        deadline = time.monotonic() + timeout_seconds
        seen: dict[str, tuple[str | None, int]] = {}
        asked: set[tuple[str, int]] = set()
        while time.monotonic() < deadline:
            self._check_alive()
            state = self.rest.run_state(dag_id, run_id)
            for task in state.tasks:
                if seen.get(task.task_id) != (task.state, task.try_number):
                    seen[task.task_id] = (task.state, task.try_number)
                    on_task(task)
            if state.finished:
                return state
            if on_gate is not None and any(task.state == "awaiting_input" for task in state.tasks):
                for gate in self.rest.pending_gates(dag_id, run_id):
                    if (gate.task_id, gate.try_number) not in asked:
                        asked.add((gate.task_id, gate.try_number))
                        on_gate(gate)
            time.sleep(0.3)
        raise EnvironmentFault("E-AIRFLOW-008", f"{dag_id} had not ended after {timeout_seconds:.0f} s", f"See {self.url}")

    def stop(self, grace_seconds: float = 8.0) -> int:
        """End every process; gives how many needed SIGKILL."""
        self.rest.close()
        try:
            return self._processes.stop(grace_seconds)
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def _log_folder(self) -> Path:
        return self.home / "airflow" / "logs"

    def _migrate(self) -> None:
        migrate(self.home / "airflow", self._environment)

    def _check_alive(self) -> None:
        name = self._processes.dead()
        if name is not None:
            raise EnvironmentFault(
                "E-AIRFLOW-005", f"Airflow's {name} ended by itself", f"Look into {self._log_folder / (name + '.log')}"
            )


def _private_root(home: Path) -> Path:
    """AIRFLOW_HOME and its log folder, 0700; `parents=True` would make the outer one with the umask's mode."""
    root = home / "airflow"
    for folder in (root, root / "logs"):
        folder.mkdir(exist_ok=True, mode=0o700)
    return root


def _write_cluster_policy(root: Path) -> None:
    """Airflow imports this file in every process, before any DAG."""
    (root / "config").mkdir(exist_ok=True, mode=0o700)
    path = root / "config" / "airflow_local_settings.py"
    if not path.exists() or path.read_text() != airflow_policy.LOCAL_SETTINGS:
        _write_private(path, airflow_policy.LOCAL_SETTINGS)


def _people(home: Path) -> list[str]:
    """Users: everybody of the trust root but the pipeline itself."""
    try:
        trust = TrustRoot.from_json(parse_canonical((home / "trust.json").read_bytes()))
    except (OSError, PrivetError):
        raise UsageError("E-AIRFLOW-001", "the home has no readable trust root", "Run privet init first") from None
    names = [person.name for person in trust.people if "pipeline" not in person.roles]
    if any(not _USER_NAME.fullmatch(name) or name == READER for name in names):
        raise UsageError("E-AIRFLOW-009", "a name in the trust root can't be an Airflow user", "Use letters, digits and _.@-")
    return names


def _local_settings(root: Path) -> dict[str, str]:
    """Secrets and port of this home's Airflow; made once."""
    path = root / "local.json"
    if path.exists():
        settings: dict[str, str] = json.loads(path.read_text())
        return settings
    settings = {
        "port": "8080",
        "api_secret": secrets.token_urlsafe(32),
        "jwt_secret": secrets.token_urlsafe(48),
        "fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    }
    _write_private(path, json.dumps(settings))
    return settings


def _passwords(root: Path, users: list[str]) -> dict[str, str]:
    path = root / "passwords.json"
    known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    passwords = {user: known.get(user) or secrets.token_urlsafe(18) for user in users}
    _write_private(path, json.dumps(passwords, indent=1))
    return passwords


def _write_private(path: Path, text: str) -> None:
    """0600 from its first byte on, and whole or not at all."""
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    temporary.replace(path)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

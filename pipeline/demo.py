"""The demo: what a newcomer sees in the first minutes, on data that it makes itself.

Everything shown is done for real: an Airflow scheduler runs the DAG, the refusal is the release stage's own, the
flipped byte is flipped in a copy of the bundle. Only the people are made up: two demo identities sign, and every
report says so.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.dags_folder import dags_folder
from pipeline.home import DEMO_PEOPLE, Home
from pipeline.screen import Screen, print_receipt, print_verification
from privacy.errors import GateClosed, IntegrityError

if TYPE_CHECKING:
    from pipeline.airflow_local import LocalAirflow
    from pipeline.airflow_rest import PendingGate, TaskState

PRIVATE, NON_PRIVATE = "demo_support_chat", "demo_support_chat_non_private"
SEED = 20261123
_RUN_SECONDS = 900


def run_demo(home_path: Path, customers: int) -> int:
    """Returns the exit code of the command: 0 only if each act ended as announced."""
    screen = Screen()
    dags_folder()  # without it nothing can be shown, and no home need be made
    home = Home.open_or_create(home_path.resolve(), demo_identities=True)
    screen.heading("1/7  raw logs full of personal data")
    logs, erased = _make_logs(home, screen, customers)
    with _airflow(home, screen) as airflow:
        _show_before_and_after(home, logs, screen)
        screen.heading("2/7  a non-private model: trained, audited, and refused")
        _refused(home, logs, screen)
        screen.heading("3/7  the differentially private model, as an Airflow DAG")
        bundle = _released(home, airflow, logs, screen)
    screen.heading("4/7  privet verify: offline, with nothing but the bundle and a trust root")
    _verified(home, bundle, screen)
    screen.heading("5/7  one flipped byte")
    _tampered(home, bundle, screen)
    screen.heading("6/7  privet erase: one customer leaves")
    _erase(home, erased, screen)
    screen.heading("7/7  where things are")
    _closing(home, bundle, screen)
    return 0


def demo_policy(name: str) -> Path:
    return dags_folder() / "policies" / f"{name}.yaml"


def _make_logs(home: Home, screen: Screen, customers: int) -> tuple[Path, str]:
    from pipeline.logs import LogSpec, generate_logs

    folder = home.landing / "demo"
    made = generate_logs(folder, LogSpec(seed=SEED, customers=customers, app_lines=2000, bad_lines=7))
    screen.good(f"{made.records} records, {len(made.planted)} planted values, in {folder}")
    return folder, _first_customer(folder)


@contextmanager
def _airflow(home: Home, screen: Screen) -> Iterator[LocalAirflow]:
    from pipeline.airflow_local import LocalAirflow

    running = LocalAirflow.start(home.path)
    screen.good(f"Airflow 3.3 is starting in the background: {running.url}")
    try:
        yield running
    finally:
        running.stop()


def _show_before_and_after(home: Home, logs: Path, screen: Screen) -> None:
    """A few lines as they are, and as the pipeline will keep them (under a throw-away key). Nobody real is in them."""
    from pipeline.examples import before_and_after

    for before, after in before_and_after(home, logs, demo_policy(PRIVATE), limit=4):
        screen.console.print("[dim]before[/dim] ", end="")
        screen.say(before)
        screen.console.print("[dim]after [/dim] ", end="")
        screen.say(after)


def _refused(home: Home, logs: Path, screen: Screen) -> None:
    from pipeline.run import run_policy

    try:
        run_policy(home, demo_policy(NON_PRIVATE), str(logs), screen=screen, demo_approvals=True)
    except GateClosed as refusal:
        screen.bad(f"release refused: {refusal.cause}")
        for line in getattr(refusal, "details", ()):
            screen.say(f"    {line}")
        return
    raise IntegrityError("E-DEMO-001", "a non-private model was released", "Report this as a defect")


def _released(home: Home, airflow: LocalAirflow, logs: Path, screen: Screen) -> Path:
    airflow.wait_healthy(PRIVATE)
    run_id = airflow.rest.trigger(PRIVATE, {"source": str(logs)}, "demo_engineer")
    screen.good(f"demo_engineer triggered the DAG {PRIVATE}: {airflow.url}/dags/{PRIVATE}")

    def on_gate(gate: PendingGate) -> None:
        role = gate.task_id.rsplit(".", 1)[-1]
        person = next(n for n, roles in DEMO_PEOPLE.items() if role in roles)
        screen.say(f"    {gate.task_id} asks: {gate.subject}")
        airflow.rest.answer(gate, person, "demo identity: signed without a person looking")
        screen.good(f"{gate.task_id}: {person} approved through Airflow's REST API; the gate signed the statement")

    state = airflow.wait(PRIVATE, run_id, _RUN_SECONDS, on_task=lambda task: _task_line(task, screen), on_gate=on_gate)
    bundle = home.releases_dir / PRIVATE / "bundle"
    if state.state != "success":
        raise GateClosed(
            "E-DEMO-002",
            f"the DAG run ended as {state.state} at {', '.join(state.failed_tasks) or 'an unknown task'}",
            f"Read the task's log under {home.path / 'airflow' / 'logs'}",
        )
    screen.good(f"released: {bundle}")
    return bundle


def _task_line(task: TaskState, screen: Screen) -> None:
    if task.state == "success" and task.started_at and task.ended_at and "gate" not in task.task_id:
        screen.good(f"{task.task_id:<14}{(task.ended_at - task.started_at).total_seconds():.1f} s")
    elif task.state in ("failed", "up_for_retry"):
        screen.bad(f"{task.task_id}: {task.state}")
    elif task.state == "running" and "gate" not in task.task_id:
        screen.progress(f"{task.task_id} is running", 0, 0)


def _verified(home: Home, bundle: Path, screen: Screen) -> None:
    from pipeline.verify import verify_bundle

    verification = verify_bundle(bundle, home.trust, datetime.now(UTC))
    print_verification(verification, as_json=False)
    if verification.exit_code != 0:
        raise IntegrityError("E-DEMO-003", "the fresh bundle does not verify", "Report this as a defect")


def _tampered(home: Home, bundle: Path, screen: Screen) -> None:
    from pipeline.verify import verify_bundle

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "bundle"
        shutil.copytree(bundle, copy)
        model = copy / "model.safetensors"
        data = bytearray(model.read_bytes())
        data[len(data) // 2] ^= 1
        model.write_bytes(bytes(data))
        verification = verify_bundle(copy, home.trust, datetime.now(UTC))
    for row in verification.rows:
        if row.blocks:
            screen.bad(f"{row.claim}: {row.evidence}")
    screen.bad(f"integrity broken (exit {verification.exit_code})")
    if verification.exit_code != 4:
        raise IntegrityError("E-DEMO-004", "a flipped byte went unnoticed", "Report this as a defect")


def _erase(home: Home, subject: str, screen: Screen) -> None:
    from pipeline.erase import erase

    print_receipt(erase(home, subject, "DEMO-1", "demo_officer"), as_json=False)


def _closing(home: Home, bundle: Path, screen: Screen) -> None:
    screen.say(f"compliance report  {bundle / 'report.html'}")
    screen.say(f"bundle             {bundle}")
    screen.say(f"all state          {home.path}")
    screen.say("")
    screen.say("What to try next:")
    privet, airflow = _command("privet"), _command("airflow")
    for line in (
        f"{privet} verify {bundle} --trust {home.path / 'trust.json'}",
        f"{privet} approvals list --home {home.path}",
        f"{privet} budget --home {home.path}",
        f"{privet} journal verify --anchor {bundle} --home {home.path}",
        f'eval "$({privet} airflow env --home {home.path})"; {airflow} dags list',
        "edit dags/policies/demo_support_chat.yaml (say, budget.epsilon) and watch the approvals become void",
    ):
        screen.say(f"  {line}")
    screen.say(
        f"\nThe whole demo took {screen.seconds:.0f} s. The signatures are by demo identities whose keys lie in the home."
    )


def _command(name: str) -> str:
    """How to call it from here: bare when it is on the PATH, else with the folder of this environment."""
    if shutil.which(name):
        return name
    path = Path(sys.executable).parent / name
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _first_customer(folder: Path) -> str:
    """The subject of the first good record: somebody to erase."""
    import gzip
    import json

    for path in sorted(folder.glob("chats-*.jsonl.gz")):
        with gzip.open(path, "rb") as lines:
            for line in lines:
                try:
                    return str(json.loads(line)["customer"])
                except (ValueError, KeyError, TypeError):
                    continue
    raise IntegrityError("E-DEMO-005", "the generated logs hold no record", "Report this as a defect")

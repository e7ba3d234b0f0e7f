"""Nothing that was started lives on: not a child that ignores SIGTERM, not an orphan, not after our own death."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pipeline.airflow_processes import ProcessGroup, RunningLock, members
from privacy.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
# A parent that leaves a child behind when it dies; both ignore SIGTERM, as idle LocalExecutor workers do.
STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    open(sys.argv[1], "w").write(str(os.getpid()))
    time.sleep(120)
time.sleep(120)
"""


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def start(folder: Path) -> tuple[ProcessGroup, int]:
    group = ProcessGroup(folder / "processes.json")
    note = folder / "orphan"
    group.spawn("stubborn", [sys.executable, "-c", STUBBORN, str(note)], os.environ, folder / "log")
    until(lambda: note.exists() and note.read_text() != "")
    return group, int(note.read_text())


def test_a_child_that_ignores_sigterm_is_killed_with_its_descent(tmp_path: Path) -> None:
    group, grandchild = start(tmp_path)
    assert alive(grandchild)
    assert group.stop(grace_seconds=0.2) == 2
    assert not alive(grandchild)
    assert not (tmp_path / "processes.json").exists()


def test_an_orphan_whose_parent_was_killed_is_found_again(tmp_path: Path) -> None:
    group, grandchild = start(tmp_path)
    leader = json.loads((tmp_path / "processes.json").read_text())[0]["leader"]
    os.kill(leader, signal.SIGKILL)
    group._children["stubborn"].wait()
    assert alive(grandchild)
    assert ProcessGroup(tmp_path / "processes.json").stop_leftovers() == 1  # as the next start does
    assert not alive(grandchild)


def test_a_recycled_session_number_is_left_alone(tmp_path: Path) -> None:
    group, grandchild = start(tmp_path)
    leader = json.loads((tmp_path / "processes.json").read_text())[0]["leader"]
    assert set(members(leader, time.time())) == {leader, grandchild}
    assert members(leader, time.time() - 3600) == []
    record = tmp_path / "old.json"
    record.write_text(json.dumps([{"leader": leader, "started": time.time() - 3600}]))
    assert ProcessGroup(record).stop_leftovers() == 0
    assert alive(grandchild)
    group.stop(grace_seconds=0.1)


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"leader": "x"}]'])
def test_a_damaged_record_stops_nothing_and_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / "processes.json").write_text(text)
    assert ProcessGroup(tmp_path / "processes.json").stop_leftovers() == 0


def test_children_end_when_we_are_killed(tmp_path: Path) -> None:
    code = (
        "import os, sys, time\nfrom pathlib import Path\nfrom pipeline.airflow_processes import ProcessGroup\n"
        f"group = ProcessGroup(Path({str(tmp_path / 'p.json')!r}))\n"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(120)']\n"
        f"group.spawn('c', sleep, os.environ, Path({str(tmp_path / 'log')!r}))\n"
        "print(group._children['c'].pid, flush=True)\ntime.sleep(120)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert alive(child)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until(lambda: not alive(child))


def test_logs_are_for_the_owner_only(tmp_path: Path) -> None:
    group, _ = start(tmp_path)
    group.stop(grace_seconds=0.1)
    assert (tmp_path / "log").stat().st_mode & 0o077 == 0


def test_a_second_start_is_refused_while_the_first_lives_and_not_after(tmp_path: Path) -> None:
    lock = tmp_path / "running.lock"
    first = RunningLock.take(lock)
    with pytest.raises(UsageError, match="E-AIRFLOW-002"):
        RunningLock.take(lock)
    first.release()
    first.release()
    RunningLock.take(lock).release()


def test_the_lock_of_a_killed_process_is_free_though_its_children_live(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "from pathlib import Path\n"
        "from pipeline.airflow_processes import RunningLock\n"
        "lock = RunningLock.take(Path(sys.argv[1]))\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    lock = tmp_path / "running.lock"
    holder = subprocess.Popen([sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    try:
        with pytest.raises(UsageError, match="E-AIRFLOW-002"):
            RunningLock.take(lock)
        holder.kill()
        holder.wait()
        assert alive(child)
        RunningLock.take(lock).release()
    finally:
        holder.kill()
        os.kill(child, signal.SIGKILL)

"""Child processes with their whole descent: what was started is what is stopped, orphans included.

Guarantee: after `stop` no process of the started sessions lives; a group whose parent was killed is found again from its
pid file and stopped on the next start. Only processes of sessions recorded here are ever signalled.
Assumption: Linux (sessions, /proc); the children do not leave their session, which Airflow's do not.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from privacy.errors import UsageError

_PR_SET_PDEATHSIG = 1
_AGE_SLACK_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class _Session:
    leader: int
    started: float


@dataclass
class ProcessGroup:
    """The processes of one embedded service set. `record` is the file that names their sessions."""

    record: Path
    _children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _sessions: list[_Session] = field(default_factory=list)

    def spawn(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        """Start in a session of its own, output to `log` (0600). The child ends when this process does."""
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            child = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o077,
                preexec_fn=_end_with_parent(),
            )
        finally:
            os.close(handle)
        self._children[name] = child
        self._sessions.append(_Session(child.pid, time.time()))
        self._write_record()

    def dead(self) -> str | None:
        """Name of a child that has ended, if one has."""
        return next((name for name, child in self._children.items() if child.poll() is not None), None)

    def stop(self, grace_seconds: float = 8.0) -> int:
        """SIGTERM to the children, then SIGKILL to whatever is left of their sessions. Gives the number that needed it."""
        for child in self._children.values():
            if child.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    child.terminate()
        deadline = time.monotonic() + grace_seconds
        while time.monotonic() < deadline and any(c.poll() is None for c in self._children.values()):
            time.sleep(0.1)
        killed = _kill_sessions(self._sessions)
        for child in self._children.values():
            child.wait()
        self._children.clear()
        self._sessions.clear()
        self.record.unlink(missing_ok=True)
        return killed

    def stop_leftovers(self) -> int:
        """End what an earlier group under the same record left behind when its parent was killed."""
        try:
            rows = json.loads(self.record.read_text())
            sessions = [_Session(int(row["leader"]), float(row["started"])) for row in rows]
        except (OSError, ValueError, KeyError, TypeError):
            return 0
        killed = _kill_sessions(sessions)
        self.record.unlink(missing_ok=True)
        return killed

    def _write_record(self) -> None:
        rows = [{"leader": s.leader, "started": s.started} for s in self._sessions]
        temporary = self.record.with_suffix(".new")
        temporary.touch(mode=0o600)
        temporary.write_text(json.dumps(rows))
        temporary.replace(self.record)


class RunningLock:
    """Held while a service set runs in a folder. The kernel frees it when its holder dies, however it dies."""

    def __init__(self, handle: int) -> None:
        self._handle: int | None = handle

    @classmethod
    def take(cls, path: Path) -> RunningLock:
        """Raises UsageError E-AIRFLOW-002 when another holds it, in this process or in any other."""
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)  # children don't inherit it
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise UsageError(
                "E-AIRFLOW-002", "an embedded Airflow runs in this home already", "Use that one, or stop it first"
            ) from None
        return cls(handle)

    def release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def members(leader: int, started: float) -> list[int]:
    """Live processes of the session, own user only. A recycled number is not it: its leader would be of another age."""
    import psutil

    found: list[int] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError, PermissionError):
            if os.getsid(process.pid) != leader or process.uids().real != os.getuid():
                continue
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            born = process.create_time()
            if process.pid == leader and abs(born - started) > _AGE_SLACK_SECONDS:
                return []
            if born >= started - _AGE_SLACK_SECONDS:
                found.append(process.pid)
    return found


def _kill_sessions(sessions: Sequence[_Session]) -> int:
    """SIGKILL until no member is left: one that forks while it is being killed is caught by the next round."""
    killed: set[int] = set()
    for _ in range(20):
        alive = [pid for session in sessions for pid in members(session.leader, session.started)]
        if not alive:
            break
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        time.sleep(0.1)
    return len(killed)


def _end_with_parent() -> Callable[[], None] | None:
    """A hook that asks the kernel to end the child with us; loaded before the fork, as the child may not import."""
    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return None
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

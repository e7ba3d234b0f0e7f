"""Starts the processes that a training shares its work among, and sees to it that none of them outlives it.

Guarantee: a follower gets its seat over a pipe, and neither the home's path nor a secret in its arguments or environment; the
processes of one machine find each other by a file in an owner-only folder and listen on loopback only; whoever lacks the
token of this start can't join; when the leader ends, for whatever reason, the pipe closes and the followers leave.
Outer form: under torchrun (WORLD_SIZE and the token's file are set) no process is started here; rank 0 leads the others.
An operator may set PRIVET_TRAIN_COMMAND on Airflow's workers, which then brings such a training up elsewhere and waits for it.
Not covered: other users of the machine with root's rights, and the network between machines (see docs/distributed.md).
"""

from __future__ import annotations

import json
import os
import select
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from privacy.canonical import Digest
from privacy.errors import EnvironmentFault, UsageError

if TYPE_CHECKING:
    from training.distributed import Crew, Seat

_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "LANG", "TMPDIR", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE")
_LOOPBACK = "lo" if sys.platform.startswith("linux") else "lo0"
_STARTING_SECONDS = 180.0  # importing torch on a busy machine
_LEAVING_SECONDS = 10.0
_ROOT = Path(__file__).resolve().parent.parent
COMMAND = "PRIVET_TRAIN_COMMAND"
_PATIENCE = "PRIVET_CREW_PATIENCE"  # seconds; how long one collective may take before the run is given up


@contextmanager
def crew_of(processes: int) -> Iterator[Crew]:
    """The crew of one training; its processes are gone when this ends. Raises EnvironmentFault E-CREW codes.

    processes: of the policy, started on this machine; under torchrun its WORLD_SIZE counts instead, as the result is the same.
    """
    from training.distributed import LeaderCrew, SoloCrew
    from training.follower import TOKEN_FILE, seat_from_environment

    if TOKEN_FILE in os.environ and "WORLD_SIZE" in os.environ:
        crew = LeaderCrew(_leading(seat_from_environment(_patience())))
        try:
            yield crew
        finally:
            crew.close()
    elif processes == 1:
        yield SoloCrew()
    else:
        with _local_crew(processes) as local:
            yield local


def train_elsewhere(protect: Digest, validate: Digest, run_id: str) -> None:
    """Run the operator's PRIVET_TRAIN_COMMAND, if there is one, until it ends; the train stage then finds its result made.

    The command gets PROTECT, VALIDATE and RUN_ID, all public, and decides nothing: the stage it starts checks the approval.
    Raises EnvironmentFault E-CREW-014 when it fails.
    """
    command = os.environ.get(COMMAND)
    if not command or "WORLD_SIZE" in os.environ:  # the leader that the command brought up calls the same stage
        return
    named = {"PROTECT": protect, "VALIDATE": validate, "RUN_ID": run_id}
    try:
        ended = subprocess.run(
            shlex.split(command), env={**os.environ, **named}, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False
        ).returncode
    except (OSError, ValueError):
        ended = -1
    if ended:
        raise EnvironmentFault(
            "E-CREW-014",
            f"the command that trains elsewhere ended with {ended}",
            f"Look at the job it started; {COMMAND} is set on this worker. Running again continues from the checkpoint",
        )


def _leading(seat: Seat) -> Seat:
    if seat.rank != 0:
        raise UsageError(
            "E-CREW-008",
            "only the process of rank 0 may train with a home",
            "Start the others with python -m training.follower",
        )
    return seat


@contextmanager
def _local_crew(world: int) -> Iterator[Crew]:
    from training.distributed import LeaderCrew, Seat

    with tempfile.TemporaryDirectory(prefix="privet-crew-") as folder, _on_loopback(world):
        seats = [Seat(rank, world, b"", str(Path(folder) / "store"), _patience()) for rank in range(world)]
        token = os.urandom(32)
        followers: list[subprocess.Popen[bytes]] = []
        try:
            followers += [_start(seat, token) for seat in seats[1:]]
            _wait_until_ready(followers)
            crew = LeaderCrew(Seat(0, world, token, seats[0].rendezvous, _patience()))
            try:
                yield crew
            finally:
                crew.close()
            _let_go(followers)
        except EnvironmentFault as fault:
            raise (_explained(fault, followers) if fault.code.startswith("E-CREW") else fault) from None
        finally:
            for process in followers:
                process.kill()
                process.wait()
                for pipe in (process.stdin, process.stdout):
                    if pipe is not None:
                        with suppress(OSError):
                            pipe.close()


def _start(seat: Seat, token: bytes) -> subprocess.Popen[bytes]:
    named = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    path = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    network = {"GLOO_SOCKET_IFNAME": _LOOPBACK, "NCCL_SOCKET_IFNAME": _LOOPBACK, "LOCAL_RANK": str(seat.rank)}
    process = subprocess.Popen(
        [sys.executable, "-m", "training.follower"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # a library's warning may quote data
        env={"OMP_NUM_THREADS": _threads(seat.world)} | named | network | {"PYTHONPATH": path},
        cwd="/",
        close_fds=True,
    )
    assert process.stdin is not None
    line = {
        "rank": seat.rank,
        "world": seat.world,
        "token": token.hex(),
        "rendezvous": seat.rendezvous,
        "patience_seconds": seat.patience_seconds,
    }
    with suppress(BrokenPipeError):  # it ended at once: how, is looked at below
        process.stdin.write(json.dumps(line).encode() + b"\n")
        process.stdin.flush()
    return process


def _wait_until_ready(followers: Sequence[subprocess.Popen[bytes]]) -> None:
    """Raises EnvironmentFault E-CREW-010 as soon as one of them ends, or when one is not ready in time."""
    deadline = time.monotonic() + _STARTING_SECONDS
    for process in followers:
        assert process.stdout is not None
        left = max(0.0, deadline - time.monotonic())
        readable, _, _ = select.select([process.stdout], [], [], left)
        if not readable or process.stdout.readline().strip() != b"ready":
            raise EnvironmentFault(
                "E-CREW-010",
                "a process that a training was to share its work with did not start, so nothing was charged",
                "See whether the machine has the memory for recipe.processes processes, or lower it",
            )


def _let_go(followers: Sequence[subprocess.Popen[bytes]]) -> None:
    """They were told that the work is done."""
    for process in followers:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_LEAVING_SECONDS)


def _explained(fault: EnvironmentFault, followers: Sequence[subprocess.Popen[bytes]]) -> EnvironmentFault:
    """With how the first process that ended did: a signal, or the code that it printed; neither can hold data."""
    for rank, process in enumerate(followers, start=1):
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.5)
        if not process.returncode:
            continue
        how = f"signal {-process.returncode}" if process.returncode < 0 else _last_word(process)
        return EnvironmentFault(fault.code, f"{fault.cause} (process {rank} ended: {how})", fault.remedy)
    return fault


def _last_word(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    words = process.stdout.read(4096).decode("ascii", "replace").split()
    last = words[-1] if words else ""
    return last if last.replace("-", "_").isidentifier() else f"exit code {process.returncode}"


@contextmanager
def _on_loopback(world: int) -> Iterator[None]:
    """What gloo and NCCL of this process read when they open their sockets, and its own share of the cores."""
    import torch

    names, threads = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), torch.get_num_threads()
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, _LOOPBACK))
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(int(_threads(world)))
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _threads(world: int) -> str:
    return str(max(1, (os.cpu_count() or 1) // world))


def _patience() -> float:
    from training.distributed import PATIENCE_SECONDS

    return float(os.environ.get(_PATIENCE, PATIENCE_SECONDS))

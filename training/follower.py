"""A process that lends its compute to a training: `python -m training.follower`, started by the leader, torchrun or a pod.

Guarantee: it opens no file of the home and has no key, ledger or journal; its seat comes on standard input (which also tells it
when the leader is gone) or from torchrun's environment and a file with the token; what it prints is a code, never data.
It builds its model from public configuration, and its weights are the leader's at every step.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from privacy.errors import IntegrityError, PrivetError, UsageError
from privacy.hardening import harden_process
from training.crew_work import TOKEN_BYTES, Order, unpack_batch, unpack_config, unpack_order
from training.distributed import PATIENCE_SECONDS, Group, Seat, add_up, clear_sums
from training.engine import make_carrier, toss_anew
from training.gradients import GradientMethod, make_method

TOKEN_FILE = "PRIVET_CREW_TOKEN_FILE"  # noqa: S105 - the name of a variable
READY = "ready"
_LEADER_IS_GONE = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when the leader said done; else the exit code of the error, whose code is the last line printed."""
    parser = argparse.ArgumentParser(prog="python -m training.follower", description="Lend this process to a training.")
    parser.add_argument(
        "--environment",
        action="store_true",
        help="take the seat from RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT as torchrun sets",
    )
    parser.add_argument("--patience", type=float, default=PATIENCE_SECONDS, help="seconds that one collective may take")
    args = parser.parse_args(arguments)
    harden_process()
    try:
        seat = seat_from_environment(args.patience) if args.environment else _seat_from_pipe()
        print(READY, flush=True)
        follow(seat)
    except PrivetError as error:
        print(error.code if not args.environment else str(error), flush=True)
        return error.exit_code
    except Exception as error:
        print(type(error).__name__, flush=True)  # what it says may quote data
        return 1
    return 0


def seat_from_environment(patience: float) -> Seat:
    """Raises UsageError E-CREW-007 when a variable or the token's file is missing or no such thing."""
    try:
        rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        token = bytes.fromhex(Path(os.environ[TOKEN_FILE]).read_text().strip())
        if "MASTER_ADDR" not in os.environ or not 0 <= rank < world or len(token) != TOKEN_BYTES:
            raise ValueError
    except (KeyError, ValueError, OSError):
        raise UsageError(
            "E-CREW-007",
            "a process of a training can't tell its place: RANK, WORLD_SIZE, MASTER_ADDR or the file of the token is not there",
            f"Start it by torchrun, and set {TOKEN_FILE} to a file with 64 random hex digits that all processes have",
        ) from None
    return Seat(rank, world, token, None, patience)


def follow(seat: Seat) -> None:
    """A follower's whole life: until the leader says done. Raises E-CREW codes."""
    group = Group(seat)
    try:
        _expect(group, "hello")
        group.report(b"here")
        order = unpack_order(group.hear())
        while order.kind in _WORK:
            order = _WORK[order.kind](group, order)
    finally:
        group.close()


def _expect(group: Group, kind: str) -> None:
    if unpack_order(group.hear()).kind != kind:
        raise IntegrityError("E-CREW-001", "the crew of a training speaks differently", "Run the same version in all processes")


def _serve(group: Group, order: Order) -> Order:
    """Steps with one model; returns the first order that is not a step."""
    facts: Any = order.facts
    config = unpack_config(facts["config"])
    carrier = make_carrier(config).to(group.device).train()
    group.from_leader(list(carrier.state_dict().values()))
    method = make_method(facts["method"], carrier, config.clipping_norm)
    group.report(b"built")
    try:
        while (order := unpack_order(group.hear())).kind == "step":
            _lend(group, method, order.batches)
    finally:
        method.close()
    return order


def _serve_shards(group: Group, order: Order) -> Order:
    from training.sharded import serve_shards

    facts: Any = order.facts
    return serve_shards(group, order, unpack_config(facts["config"]))


_WORK = {"model": _serve, "shards": _serve_shards}


def _lend(group: Group, method: GradientMethod, batches: int) -> None:
    """One step: weights, then the batches as they come, then the sum."""
    group.from_leader(method.parameters)
    clear_sums(method)
    toss_anew()
    bad = sum(method.add(unpack_batch(group.hear()).to(group.device)) for _ in range(batches))
    add_up(group, method, bad)


def _seat_from_pipe() -> Seat:
    """One line of JSON; then the pipe stays open for as long as the leader lives."""
    given = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_leave_with_the_leader, args=(Path(given["rendezvous"]),), daemon=True).start()
    return Seat(given["rank"], given["world"], bytes.fromhex(given["token"]), given["rendezvous"], given["patience_seconds"])


def _leave_with_the_leader(rendezvous: Path) -> None:
    """A leader that was killed could not take its folder away, which holds addresses that lead nowhere now."""
    sys.stdin.buffer.read()
    shutil.rmtree(rendezvous.parent, ignore_errors=True)
    os._exit(_LEADER_IS_GONE)


if __name__ == "__main__":
    sys.exit(main())

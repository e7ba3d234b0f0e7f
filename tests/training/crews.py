"""Crews of real processes over gloo, cheap to start: a fork server imports torch once for all of them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from privacy.errors import PrivetError
from training.distributed import LeaderCrew, Seat
from training.follower import follow

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["training.follower"])
TOKEN = bytes(range(32))
Follower = Callable[[Seat], None]


def honest(seat: Seat) -> None:
    """Exits with 0 after a whole life, with 7 after an error of ours."""
    torch.set_num_threads(1)
    try:
        follow(seat)
    except PrivetError:
        sys.exit(7)


@dataclass
class World:
    """A leader's seat and its followers, not joined yet."""

    seat: Seat
    followers: list[BaseProcess] = field(default_factory=list)

    @contextlib.contextmanager
    def lead(self) -> Iterator[LeaderCrew]:
        crew = LeaderCrew(self.seat)
        try:
            yield crew
        finally:
            crew.close()


@contextlib.contextmanager
def world_of(
    folder: Path, size: int, patience: float = 60.0, follower: Follower = honest, token: bytes = TOKEN
) -> Iterator[World]:
    """token: what the followers believe it is."""
    if not sys.platform.startswith("linux"):
        pytest.skip("gloo over loopback is tested on Linux")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    seat = Seat(0, size, TOKEN, str(folder / f"store{size}"), patience)
    made = World(seat)
    for rank in range(1, size):
        process = _SERVER.Process(target=follower, args=(replace(seat, rank=rank, token=token),), daemon=True)
        process.start()
        made.followers.append(process)
    try:
        yield made
    finally:
        for process in made.followers:
            process.join(5)
            process.kill()
            process.join()

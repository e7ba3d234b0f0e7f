"""First come, first served, and no dead process in the way."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from privacy.errors import EnvironmentFault
from privacy.turn import in_turn


def waiting(path: Path) -> int:
    return sum(p.name[0] != "." for p in path.with_name(path.name + ".queue").iterdir())


def test_turns_come_in_the_order_of_arrival(tmp_path: Path) -> None:
    path, served = tmp_path / "d", []

    def one(number: int) -> None:
        with in_turn(path, 30):
            served.append(number)

    threads = []
    with in_turn(path, 30):
        for number in range(12):
            threads.append(threading.Thread(target=one, args=(number,)))
            threads[-1].start()
            while waiting(path) < number + 2:
                time.sleep(0.001)
        assert served == []
    for thread in threads:
        thread.join(timeout=30)
    assert served == list(range(12))
    assert waiting(path) == 0


def _hold(path: Path, holding: Event) -> None:
    with in_turn(path, 30):
        holding.set()
        time.sleep(600)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_holder_and_a_dead_waiter_hold_up_nobody(tmp_path: Path, number: int) -> None:
    path, context = tmp_path / "d", multiprocessing.get_context("fork")
    holding = context.Event()
    holder, waiter = (context.Process(target=_hold, args=(path, holding)) for _ in range(2))
    holder.start()
    assert holding.wait(30)
    waiter.start()
    while waiting(path) < 2:
        time.sleep(0.001)
    for process in (waiter, holder):
        assert process.pid is not None
        os.kill(process.pid, number)
        process.join(timeout=30)
    with in_turn(path, 5):
        assert waiting(path) == 1  # the files of the dead are gone


def test_patience_ends(tmp_path: Path) -> None:
    path = tmp_path / "d"
    with in_turn(path, 1), pytest.raises(EnvironmentFault, match="E-DB-002"), in_turn(path, 0.05):
        pass
    with in_turn(path, 1):
        assert waiting(path) == 1


def test_an_exception_gives_the_turn_back(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), in_turn(tmp_path / "d", 1):
        raise KeyboardInterrupt
    with in_turn(tmp_path / "d", 1):
        pass


def test_nobody_takes_a_newcomer_for_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is locked before it can be seen: in the moment between, there is nothing to be seen."""
    path, seen = tmp_path / "d", []
    real = Path.rename

    def look_first(self: Path, target: Path) -> Path:
        seen.append(waiting(path))
        return real(self, target)

    monkeypatch.setattr(Path, "rename", look_first)
    with in_turn(path, 1):
        pass
    assert seen == [0]

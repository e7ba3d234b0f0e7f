"""A process that is killed at the n-th thing it asks of the operating system, and a disk that fails."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable

STEPS = ("open", "write", "pwrite", "fsync", "ftruncate", "mkdir", "rename", "replace", "link", "unlink")


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Run `work` in a child that gets SIGKILL just before its `step`-th call of one of STEPS; False: it came to its end."""
    child = multiprocessing.get_context("fork").Process(target=_work, args=(step, work))
    child.start()
    child.join(120)
    assert child.exitcode in (0, -signal.SIGKILL), child.exitcode
    return child.exitcode != 0


def _work(step: int, work: Callable[[], object]) -> None:
    left = step

    def counted(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return real(*arguments, **named)

        return call

    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))
    work()
    os._exit(0)


def failing(code: int, after: int, real: Callable[..., object]) -> Callable[..., object]:
    """`real`, which fails with that errno from its call number `after` on."""
    calls = 0

    def call(*arguments: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls > after:
            raise OSError(code, os.strerror(code))
        return real(*arguments, **named)

    return call

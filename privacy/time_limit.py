"""A time limit for work that may hang: whoever waits goes on without it, and whoever it was for gets nothing more.

Guarantee: `run` returns or raises within its seconds, and after it has run out of time no later call starts any work.
The work goes to one thread of its own, kept for all calls (about 20 microseconds a call); a hanging one is abandoned, not
stopped: it keeps its memory, and at most one core, until the process ends.
Not covered: native code that keeps Python's global lock for good, which stops the waiting thread, too. Where that must not
hold up the caller, the work belongs in a process of its own (`pipeline.redact_process`), which is killed.
"""

from __future__ import annotations

import os
import queue
import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")
_Work = tuple[Callable[[], Any], "queue.SimpleQueue[tuple[Any, BaseException | None]]"]


class OutOfTime(Exception):
    """The work took longer than its limit, now or in an earlier call."""


class TimeLimit:
    """Runs one piece of work after the other; not for several threads at once."""

    def __init__(self, seconds: float) -> None:
        if not seconds > 0:
            raise ValueError("a time limit is above 0 seconds")
        self._seconds = seconds
        self._over = False
        self._process = -1
        self._asked: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()

    def run(self, work: Callable[[], Result], more: float = 0.0) -> Result:
        """The result of `work`, or what it raised. more: seconds on top. Raises OutOfTime."""
        if self._over:
            raise OutOfTime
        self._start()
        answer: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self._asked.put((work, answer))
        try:
            result, error = answer.get(timeout=self._seconds + more)
        except queue.Empty:
            self._over = True
            raise OutOfTime from None
        if error is not None:
            raise error
        found: Result = result
        return found

    def _start(self) -> None:
        """The thread, if this process has none yet: a forked child inherits none."""
        if self._process == os.getpid():
            return
        self._process = os.getpid()
        self._asked = queue.SimpleQueue()
        threading.Thread(target=_serve, args=(self._asked,), name="privet-time-limit", daemon=True).start()
        weakref.finalize(self, self._asked.put, None)


def _serve(asked: queue.SimpleQueue[_Work | None]) -> None:
    while (work := asked.get()) is not None:
        do, answer = work
        try:
            answer.put((do(), None))
        except BaseException as error:
            answer.put((None, error))
        del work, do, answer  # keep nothing of a text that is done

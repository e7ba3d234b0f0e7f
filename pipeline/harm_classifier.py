"""Asks the harm classifier that a policy names, in a process of its own; whatever is not an answer is said to be none.

Guarantee: a classifier that is missing, raises, hangs, dies or answers something else gives a `NoAnswer`, never a score. Texts
go through a pipe, never through arguments, environment or disk; what the classifier prints goes nowhere; of the environment it
gets no key and no password. Assumption: who signs the policy trusts the code that it names: it is not kept from the network.
Not covered: whether its answers are right. Privet ships none and calls no list of words a detection of harm.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CHILD = Path(__file__).with_name("harm_child.py")
LIMIT_SECONDS = 300.0
HARMFUL = 0.5  # a score from here on counts as harmful
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LANG", "TMPDIR", "OMP_NUM_THREADS", "HOME")


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Why there is none; in words of ours."""

    reason: str


def ask_classifier(plugin: str, texts: Sequence[str], limit_seconds: float = LIMIT_SECONDS) -> list[bool] | NoAnswer:
    """Which texts the classifier calls harmful. plugin: `module:function`, a function of a list of texts that gives a truth
    value or a score in [0, 1] for each; the module is found where this process finds its own."""
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    # -P: the folder of the script is full of module names that must not hide those of libraries.
    process = subprocess.Popen(
        [sys.executable, "-P", str(CHILD)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        close_fds=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(json.dumps({"plugin": plugin, "texts": list(texts)}).encode(), limit_seconds)
    except subprocess.TimeoutExpired:
        return NoAnswer(f"it took longer than {limit_seconds:g} seconds")
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # with what it started
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
    return _answer(said, len(texts)) if process.returncode == 0 else NoAnswer("its process died")


def _answer(said: bytes, count: int) -> list[bool] | NoAnswer:
    try:
        value = json.loads(said)
    except ValueError:
        return NoAnswer("it gave no answer")
    match value:
        case {"fault": str(reason)}:
            return NoAnswer(reason)
        case {"scores": list(scores)} if len(scores) == count and all(isinstance(s, float | int) for s in scores):
            return [score >= HARMFUL for score in scores]
    return NoAnswer("it gave no answer")

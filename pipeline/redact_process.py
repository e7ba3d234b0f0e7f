"""Redaction in a process of its own, which is killed when it takes too long: also where native code would never give way.

Guarantee: an answer that does not come in time, a crash and a malformed answer all end in an error with a code, and nothing of
that text or stream leaves; texts and secrets go through pipes, never through arguments, environment or disk.
Cost: about a second to start (several with models), and some 100 microseconds a call.
Not covered: memory that was swapped out.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from privacy.errors import DataError
from privacy.redact import SECONDS, Redacted, out_of_time, refusal

if TYPE_CHECKING:
    from privacy.policy import Policy

CHILD = Path(__file__).with_name("redact_child.py")
_ENVIRONMENT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "TMPDIR", "OMP_NUM_THREADS")
_START_SECONDS = 120.0
_PER_SECOND = 20_000


class RedactProcess:
    """One child; texts and streams one after the other. Use it as a context manager, so that the child is gone afterwards.

    models: let the models of the policy's languages look for names, too. Raises DataError E-REDACT-001 and 003 in every call,
    and what the child says of the machine it was started on.
    """

    def __init__(
        self,
        policy: Policy,
        secrets: Sequence[str] = (),
        *,
        models: bool = False,
        seconds: float = SECONDS,
        child: Path = CHILD,
    ) -> None:
        self._seconds = seconds
        root = str(CHILD.parent.parent)
        kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        kept["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [kept.get("PYTHONPATH")])])
        # -P: the folder of the script is full of module names that must not hide those of libraries.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(child)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=kept,
            bufsize=0,
        )
        self._over: DataError | None = None
        self._ask(
            {"policy": policy.model_dump(mode="json"), "secrets": list(secrets), "models": models}, _START_SECONDS + seconds
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        self._end()

    def redact(self, text: str) -> Redacted:
        """A whole text."""
        answer = self._ask({"do": "redact", "text": text}, self._seconds + len(text) / _PER_SECOND)
        return Redacted(*self._read(answer))

    def feed(self, chunk: str) -> str:
        """The next part of a stream; what of it may leave now."""
        return self._read(self._ask({"do": "feed", "text": chunk}, self._seconds + len(chunk) / 1000))[0]

    def close(self) -> Redacted:
        """The rest of a stream, and what was removed from all of it; the next `feed` begins another."""
        return Redacted(*self._read(self._ask({"do": "close"}, self._seconds)))

    def _read(self, answer: dict[str, Any]) -> tuple[str, dict[str, int]]:
        match answer:
            case {"text": str(text), "counts": dict(counts)}:
                return text, counts
        raise self._broken("gave no answer that can be read")

    def _ask(self, asked: dict[str, Any], seconds: float) -> dict[str, Any]:
        if self._over is not None:
            raise self._over
        deadline = time.monotonic() + seconds
        try:
            self._write(json.dumps(asked).encode() + b"\n", deadline)
            answer = json.loads(self._line(deadline))
        except TimeoutError:
            self._end()
            self._over = out_of_time()
            raise self._over from None
        except (OSError, ValueError):
            raise self._broken("ended") from None
        if not isinstance(answer, dict):
            raise self._broken("gave no answer that can be read")
        if "error" in answer:
            raise _error(answer["error"])
        return answer

    def _write(self, data: bytes, deadline: float) -> None:
        """A child that hangs reads nothing, and a pipe is soon full."""
        assert self._process.stdin is not None
        pipe = self._process.stdin.fileno()
        os.set_blocking(pipe, False)
        view = memoryview(data)
        while view:
            _wait(pipe, selectors.EVENT_WRITE, deadline)
            with suppress(BlockingIOError):
                view = view[os.write(pipe, view) :]

    def _line(self, deadline: float) -> bytes:
        assert self._process.stdout is not None
        pipe, parts = self._process.stdout.fileno(), bytearray()
        while not parts.endswith(b"\n"):
            _wait(pipe, selectors.EVENT_READ, deadline)
            data = os.read(pipe, 1 << 16)
            if not data:
                raise ValueError("the pipe has ended")
            parts += data
        return bytes(parts)

    def _broken(self, what: str) -> DataError:
        self._end()
        self._over = refusal(f"the process that redacts {what}")
        return self._over

    def _end(self) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self._process.wait()


def _wait(pipe: int, event: int, deadline: float) -> None:
    with selectors.DefaultSelector() as ready:
        ready.register(pipe, event)
        if not ready.select(max(0.0, deadline - time.monotonic())):
            raise TimeoutError


def _error(said: Any) -> DataError:
    match said:
        case [str(code), str(cause), str(remedy)]:
            return DataError(code, cause, remedy)
    return refusal("the process that redacts gave no answer that can be read")

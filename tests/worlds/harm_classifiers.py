"""Harm classifiers for tests, one for each way to answer or not to. None of them detects harm."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path


def every_second(texts: Sequence[str]) -> list[bool]:
    print("noise on standard output", *texts)
    print("and on standard error", *texts, file=sys.stderr)
    return [number % 2 == 1 for number in range(len(texts))]


def scores(texts: Sequence[str]) -> list[float]:
    return [0.5 if "red" in text else 0.49 for text in texts]


def none_harmful(texts: Sequence[str]) -> list[bool]:
    return [False for _ in texts]


def raises(texts: Sequence[str]) -> list[bool]:
    raise ValueError(f"I quote {texts[0]}")


def one_too_few(texts: Sequence[str]) -> list[bool]:
    return [False for _ in texts[1:]]


def words(texts: Sequence[str]) -> list[str]:
    return ["1" for _ in texts]


def over_one(texts: Sequence[str]) -> list[float]:
    return [1.5 for _ in texts]


def not_a_number(texts: Sequence[str]) -> list[float]:
    return [float("nan") for _ in texts]


def nothing(texts: Sequence[str]) -> None:
    return None


def dies(texts: Sequence[str]) -> list[bool]:
    os._exit(0)


def hangs(texts: Sequence[str]) -> list[bool]:
    """With a child of its own, whose process id is written where the first text says."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(texts[0]).write_text(str(child.pid))
    time.sleep(600)
    return []


def sees_the_environment(texts: Sequence[str]) -> list[bool]:
    return [any("SECRET" in name for name in os.environ) for _ in texts]

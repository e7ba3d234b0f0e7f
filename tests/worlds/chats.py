"""A small world of customer chats: a real home, a folder of source files, and a detector that is fast and simple."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest

from pipeline.home import Home
from pipeline.stage import StageContext
from privacy.detect import Finding
from privacy.errors import PrivetError
from privacy.policy_file import policy_digest
from tests.worlds.policies import make_policy

LABELS = ("refund", "delivery", "greeting")
PLANTED = "mallory.canary@example.org"


class EmailDetector:
    """Finds e-mail addresses only; enough where detection is not the subject."""

    version = "test-1"

    def analyze_batch(self, texts: Sequence[str], language: str) -> list[list[Finding]]:
        pattern = r"[a-z.]+@[a-z.]+[a-z]"
        return [[Finding(*m.span(), "EMAIL_ADDRESS", 1.0, "test", "1") for m in re.finditer(pattern, t)] for t in texts]


class BlindDetector:
    """Finds nothing: what a broken detector looks like."""

    version = "blind"

    def analyze_batch(self, texts: Sequence[str], language: str) -> list[list[Finding]]:
        return [[] for _ in texts]


def record(number: int, **changes: object) -> dict[str, object]:
    value: dict[str, object] = {
        "id": f"m{number}",
        "customer": f"customer-{number % 5}",
        "time": "2026-03-04T23:30:00+00:00",
        "text": f"hello, number {number} here, write to user.{'abcdefghij'[number % 10]}@example.org",
        "intent": LABELS[number % 3],
        "channel": "web",
    }
    return {**value, **changes}


def records(count: int) -> list[dict[str, object]]:
    return [record(number) for number in range(count)]


def lines(values: Iterable[Mapping[str, object]]) -> bytes:
    return b"".join(json.dumps(v, ensure_ascii=False).encode() + b"\n" for v in values)


class World:
    """One home and one source folder."""

    def __init__(self, path: Path) -> None:
        self.home = Home.create(path / "home")
        self.source = path / "source"
        self.source.mkdir()

    def context(self, run_id: str = "run-1", /, **changes: object) -> StageContext:
        policy = make_policy(**changes)
        return StageContext(self.home, policy, policy_digest(policy), run_id, "demo_engineer")

    def write(self, name: str, data: bytes) -> Path:
        path = self.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)
        return path

    def kinds(self) -> list[str]:
        return [entry.kind for entry in self.home.journal.entries()]

    def objects_without_key(self) -> bytes:
        """Every byte that lies in the home, as a thief of the disk would see it."""
        return b"".join(p.read_bytes() for p in sorted(self.home.path.rglob("*")) if p.is_file())


def code_of(call: object, *args: object) -> str:
    """The code of the Privet error that the call raises."""
    with pytest.raises(PrivetError) as caught:
        call(*args)  # type: ignore[operator]
    return caught.value.code

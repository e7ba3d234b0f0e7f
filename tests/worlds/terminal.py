"""A user at a terminal: a policy file, a folder of raw logs, a home, and `privet` with what it says and how it ends."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
import yaml

from pipeline.cli import main
from pipeline.home import Home
from tests.worlds.chats import EmailDetector, lines, record
from tests.worlds.policies import policy_value

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = re.compile(r"user\.[a-j]@example\.org|customer-\d")  # every raw value that `chats.record` writes
_SENTENCE = re.compile(r"privet: (E-[A-Z]+-\d{3}): (.+?[.?!]) (\S.*[.?!])\n(?:  - .+\n)*")


@dataclass(frozen=True)
class Said:
    """What one command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def fault(self) -> str:
        """The code of the one sentence on stderr; fails unless there is exactly one, with cause and remedy."""
        found = _SENTENCE.fullmatch(self.err)
        assert found, self.err
        assert "Traceback" not in self.out + self.err
        assert "E-INTERNAL" not in found[1], self.err
        return found[1]


# What a process of its own runs: the command line, with the quick detector.
SCRIPT = """
import sys
import torch
torch.set_num_threads(1)
from pipeline.cli import main
from tests.worlds.terminal import quick_detector
with quick_detector():
    sys.exit(main(sys.argv[1:]))
"""


class Terminal:
    """Everything lies below `root`; the detector is a quick one, for detection is not the subject here."""

    def __init__(self, root: Path, units: int = 60, source: bool = True) -> None:
        self.root = root
        self.policy = root / "policy.yaml"
        self.source = root / "source"
        self.home = root / "home"
        if source:
            self.source.mkdir(parents=True)
            self.write_policy()
            self.write_source([record(n, customer=f"customer-{n % units}") for n in range(3 * units)])

    def write_policy(self, **changes: object) -> None:
        # The audits' false alarms, one run in a thousand by default, would fail one of these many runs now and then.
        # At that level the divisor check needs the batch sizes of more than 20 steps to have its say.
        # Of 60 units, a fifth held out is now and then fewer than the ten that a membership audit needs.
        calm = {"audit.probe_level": 1e-9, "audit.gate_level": 1 - 1e-9, "audit.canaries": 160, "recipe.steps": 40}
        calm["audit.holdout_share"] = 0.4
        value = policy_value(**{**calm, **changes})
        self.policy.write_text(yaml.safe_dump(value, sort_keys=False))

    def write_source(self, values: list[dict[str, object]], name: str = "chats.jsonl") -> None:
        (self.source / name).write_bytes(lines(values))

    def privet(self, *arguments: str | Path) -> Said:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), quick_detector():
            code = main([str(a) for a in arguments])
        said = Said(code, out.getvalue(), err.getvalue())
        assert not ADDRESS.search(said.out + said.err), "a raw value was printed"
        return said

    @property
    def run_command(self) -> list[str]:
        return ["run", str(self.policy), "--source", str(self.source), "--home", str(self.home), "--demo-approvals"]

    def run(self) -> Said:
        return self.privet(*self.run_command)

    def start(self) -> subprocess.Popen[str]:
        """The same run in a process of its own, to be killed or raced."""
        command = [sys.executable, "-c", SCRIPT, *self.run_command]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def released(self) -> bool:
        return (self.home / "releases" / "test_chat" / "bundle" / "release.dsse.json").is_file()

    def opened(self) -> Home:
        return Home.open(self.home)

    def leftovers(self) -> list[str]:
        """Files that only a half-done write leaves."""
        return sorted(str(p.relative_to(self.home)) for p in self.home.rglob("*") if p.is_file() and _temporary(p))

    def unowned(self) -> set[str]:
        """Sealed objects that no journalled manifest and no checkpoint names: nobody would ever destroy them."""
        home = self.opened()
        named = {e.facts.get("manifest") for e in home.journal.entries() if e.kind == "stage"}
        owned = {ref.digest for digest in named if isinstance(digest, str) for ref in _outputs(home, digest)}
        sealed = {p.name for p in (self.home / "objects").rglob("*") if p.is_file() and p.read_bytes()[:8] == b"PRIVETS1"}
        pointers = b"".join(p.read_bytes() for p in (self.home / "checkpoints").glob("*.json"))
        return {n for n in sealed if f"sha256:{n}" not in owned and n.encode() not in pointers}

    def snapshot(self) -> Mapping[str, bytes]:
        return {str(p.relative_to(self.home)): p.read_bytes() for p in sorted(self.home.rglob("*")) if p.is_file()}


def _outputs(home: Home, digest: str) -> Iterator[object]:
    from pipeline.stage import load_manifest

    with contextlib.suppress(Exception):
        yield from load_manifest(home, digest).outputs.values()


def _temporary(path: Path) -> bool:
    return path.parent.name == "tmp" or path.suffix == ".new" or ".bundle-tmp" in path.parts or path.name.startswith(".req")


@contextlib.contextmanager
def quick_detector() -> Iterator[None]:
    with mock.patch("pipeline.treatment.build_detector", return_value=EmailDetector()):
        yield


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A real file system of this size. Skips the test where mounting is not allowed."""
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "none", str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(folder)], check=True)

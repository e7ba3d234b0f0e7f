"""What a bad bundle is, and what all of them are made with."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from pipeline.bundle import approval_path
from pipeline.evidence import EvidenceFile, evidence_document
from privacy.canonical import Digest, canonical_json, digest_bytes
from privacy.conditions import parse_condition
from privacy.gates import APPROVAL_TYPE, GateName, approval_predicate
from privacy.signing import SigningKey, make_statement, seal_envelope
from tests.worlds.release_world import Lies, World

STRANGER = SigningKey(b"s" * 32)


@dataclass(frozen=True)
class Outsider:
    """Changes a copy of the good bundle in `folder`. `other`: a good bundle of another run of the same pipeline."""

    name: str
    exit_code: int
    code: str
    cheat: Callable[[Path, World, Path], None]


@dataclass(frozen=True)
class Insider:
    """A dishonest run. `votes` puts envelopes among the files, past the approval book. `defect`: a stage of changed code."""

    name: str
    exit_code: int
    code: str
    lies: Lies | None = None
    votes: Callable[[World, dict[str, bytes]], None] | None = None
    changes: tuple[tuple[str, object], ...] = ()
    witness: str = ""
    defect: Callable[[], AbstractContextManager[object]] | None = None

    def code_of_the_stages(self) -> AbstractContextManager[object]:
        return self.defect() if self.defect else nullcontext()

    def build(self, path: Path) -> tuple[World, Path]:
        with self.code_of_the_stages():
            world = World(path, self.lies, "own", self.witness, **dict(self.changes)).run()
            votes = self.votes or honest_votes
            return world, world.force_bundle(path / "bundle", lambda files: votes(world, files))


def relist(folder: Path) -> None:
    """What anybody can do: list the files anew, so that digests and root fit again."""
    listed = [p for p in folder.rglob("*") if p.is_file() and p.name not in ("evidence.json", "release.dsse.json")]
    inside = [p for p in listed if p.parent.name != "approvals"]
    leaves = [EvidenceFile(p.relative_to(folder).as_posix(), digest_bytes(p.read_bytes()), p.stat().st_size) for p in inside]
    (folder / "evidence.json").write_bytes(canonical_json(evidence_document(leaves)))


def envelope(
    world: World,
    key: SigningKey,
    role: str,
    digest: Digest | None = None,
    decision: str = "approve",
    reason: str = "read it, agreed",
    hours: float = 0.0,
    gate: GateName = "release",
    conditions: tuple[str, ...] = (),
    refer_to: str = "",
    delegation: Digest | None = None,
) -> bytes:
    subject, parsed = digest or world.root, [parse_condition(text) for text in conditions]
    at = world.now + timedelta(hours=hours)
    predicate = approval_predicate(gate, subject, decision, role, reason, at, parsed, refer_to, delegation)
    return seal_envelope(make_statement({"evidence": subject}, APPROVAL_TYPE, predicate), key)


def put(files: dict[str, bytes], *envelopes: bytes, gate: str = "release") -> None:
    files.update({approval_path(gate, e): e for e in envelopes})


def honest_votes(world: World, files: dict[str, bytes]) -> None:
    put(files, envelope(world, world.keys["grace"], "steward"), envelope(world, world.keys["ada"], "privacy_officer"))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def edit(path: Path, change: Callable[[dict], None]) -> None:  # type: ignore[type-arg]
    value = json.loads(path.read_bytes())
    change(value)
    path.write_bytes(canonical_json(value))

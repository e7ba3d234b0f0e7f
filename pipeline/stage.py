"""A stage is a function of digests: it takes manifests and a policy and gives a manifest.

Guarantee: a stage that has committed is not run again for the same inputs and policy; two racers commit one
result (first writer wins); the journal has the entry before the result becomes visible.
Assumption: the body writes only through the store, whose objects are immutable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from privacy.canonical import Digest, Json, Scalar, digest_of, parse_canonical
from privacy.errors import IntegrityError
from privacy.policy import Policy

if TYPE_CHECKING:
    from pipeline.home import Home

Progress = Callable[[str, int, int], None]  # what, done, total (0: unknown)
CODE_VERSION = "0.1.0"


@dataclass(frozen=True, slots=True)
class ArtifactRef:
    """Points to one object of the store. `sealed` objects are encrypted; `digest` is over the stored bytes."""

    digest: Digest
    data_class: str
    dataset: str
    path: str
    size: int
    sealed: bool

    def to_json(self) -> dict[str, Json]:
        return {
            "digest": self.digest,
            "data_class": self.data_class,
            "dataset": self.dataset,
            "path": self.path,
            "size": self.size,
            "sealed": self.sealed,
        }

    @classmethod
    def from_json(cls, value: Json) -> ArtifactRef:
        match value:
            case {
                "digest": str(digest),
                "data_class": str(data_class),
                "dataset": str(dataset),
                "path": str(path),
                "size": int(size),
                "sealed": bool(sealed),
            }:
                return cls(digest, data_class, dataset, path, size, sealed)
        raise _malformed()


@dataclass(frozen=True, slots=True)
class StageOutput:
    """What a stage body returns. `facts` are counts, digests and names; never content."""

    outputs: Mapping[str, ArtifactRef]
    facts: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The committed result of one stage; stored in the clear, so it holds no personal data."""

    stage: str
    policy_digest: Digest
    dataset: str
    inputs: Mapping[str, Digest]
    outputs: Mapping[str, ArtifactRef]
    facts: Mapping[str, Scalar]
    code_version: str
    created_at: str

    def to_json(self) -> dict[str, Json]:
        return {
            "stage": self.stage,
            "policy_digest": self.policy_digest,
            "dataset": self.dataset,
            "inputs": dict(self.inputs),
            "outputs": {name: ref.to_json() for name, ref in self.outputs.items()},
            "facts": dict(self.facts),
            "code_version": self.code_version,
            "created_at": self.created_at,
        }

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        match parse_canonical(data):
            case {
                "stage": str(stage),
                "policy_digest": str(policy_digest),
                "dataset": str(dataset),
                "inputs": dict(inputs),
                "outputs": dict(outputs),
                "facts": dict(facts),
                "code_version": str(code_version),
                "created_at": str(created_at),
            }:
                refs = {name: ArtifactRef.from_json(ref) for name, ref in outputs.items()}
                return cls(stage, policy_digest, dataset, inputs, refs, facts, code_version, created_at)
        raise _malformed()


@dataclass(frozen=True, slots=True)
class StageContext:
    """Everything a stage may touch, handed in."""

    home: Home
    policy: Policy
    policy_digest: Digest
    run_id: str
    requested_by: str
    progress: Progress = lambda what, done, total: None
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class StageResult:
    """The digest of the manifest (what XCom carries), the manifest, and whether it was found rather than made."""

    digest: Digest
    manifest: Manifest
    reused: bool


def run_stage(ctx: StageContext, stage: str, inputs: Mapping[str, Digest], body: Callable[[], StageOutput]) -> StageResult:
    """Find the committed result for these inputs, or run `body` and commit it."""
    key = digest_of({"stage": stage, "policy": ctx.policy_digest, "inputs": dict(inputs), "code_version": CODE_VERSION})
    found = ctx.home.store.result(key)
    if found is not None:
        return StageResult(found, load_manifest(ctx.home, found), reused=True)
    output = body()
    manifest = Manifest(
        stage,
        ctx.policy_digest,
        ctx.policy.dataset,
        dict(inputs),
        dict(output.outputs),
        dict(output.facts),
        CODE_VERSION,
        ctx.clock().isoformat(timespec="seconds"),
    )
    digest = ctx.home.store.put_json(manifest.to_json())
    ctx.home.journal.append("stage", {"stage": stage, "run": ctx.run_id, "policy": ctx.policy_digest, "manifest": digest})
    winner = ctx.home.store.commit_result(key, digest)
    return StageResult(winner, load_manifest(ctx.home, winner), reused=winner != digest)


def load_manifest(home: Home, digest: Digest) -> Manifest:
    return Manifest.from_bytes(home.store.get_plain(digest))


def _malformed() -> IntegrityError:
    return IntegrityError("E-STAGE-001", "a stage manifest is malformed", "Run the stage again")

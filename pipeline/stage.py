"""A stage is a function of digests: it takes manifests and a policy and gives a manifest.

Guarantee: a stage that has committed is not run again for the same inputs and policy while what it made is there;
two racers commit one result (first writer wins); the journal has the entry before the result becomes visible; what
a failed stage or the loser of a race has sealed is destroyed.
Assumption: the body writes only through the store, whose objects are immutable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, cast

from pipeline.provisional import keep, provisional
from privacy.canonical import Digest, Json, Scalar, digest_of, parse_canonical
from privacy.errors import IntegrityError
from privacy.policy import Policy

if TYPE_CHECKING:
    from pipeline.home import Home

Progress = Callable[[str, int, int], None]  # what, done, total (0: unknown)
CODE_VERSION = "0.1.0"


@dataclass(frozen=True, slots=True)
class ArtifactRef:
    """Points to one object of the store. `sealed` objects are encrypted; `digest` is over the stored bytes.

    version: what a sealed object was made from, normally the digest of its stage's input; schema: digest of the columns of
    a sealed table. Both are bound into the object; empty where there is none.
    """

    digest: Digest
    data_class: str
    dataset: str
    path: str
    size: int
    sealed: bool
    version: str = ""
    schema: str = ""

    def to_json(self) -> dict[str, Json]:
        return {
            "digest": self.digest,
            "data_class": self.data_class,
            "dataset": self.dataset,
            "path": self.path,
            "size": self.size,
            "sealed": self.sealed,
            "version": self.version,
            "schema": self.schema,
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
                "version": str(version),
                "schema": str(schema),
            }:
                return cls(digest, data_class, dataset, path, size, sealed, version, schema)
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


def run_stage(
    ctx: StageContext,
    stage: str,
    inputs: Mapping[str, Digest],
    body: Callable[[], StageOutput],
    usable: Callable[[StageResult], bool] | None = None,
) -> StageResult:
    """Find the committed result for these inputs, or run `body` and commit it.

    usable: whether a committed result can be gone on with; by default, while every object it names is in the store.
    """
    key = _result_key(ctx, stage, inputs)
    standing = committed(ctx, stage, inputs)
    if standing is not None and (usable or partial(whole, ctx))(standing):
        return standing
    stale = ctx.home.store.result(key)
    with provisional(ctx.home.store):
        output = body()
        manifest = _manifest(ctx, stage, inputs, output)
        digest = ctx.home.store.put_json(manifest.to_json())
        ctx.home.store.put_json(cast("Json", ctx.policy.canonical()))  # retention and erasure go by what was promised then
        facts: dict[str, Json] = {"stage": stage, "run": ctx.run_id, "policy": ctx.policy_digest, "manifest": digest}
        ctx.home.journal.append("stage", facts)
        try:
            winner = ctx.home.store.commit_result(key, digest, instead_of=stale)
        finally:
            if ctx.home.store.result(key) == digest:  # also when the record stands and only a later flush failed
                keep(output.outputs.values())
    return StageResult(winner, load_manifest(ctx.home, winner), reused=winner != digest)


def committed(ctx: StageContext, stage: str, inputs: Mapping[str, Digest]) -> StageResult | None:
    """The committed result for these inputs, whether or not what it made still lies in the store.

    None also when its manifest is gone; a damaged one raises IntegrityError E-STORE-002. The record in results/ only says
    where to look: whoever can write files there and has no key could point it at an older result or at a manifest of their
    own (E-STAGE-005), so the signed journal has to know the manifest, and the manifest has to be of this very question.
    """
    store = ctx.home.store
    key = _result_key(ctx, stage, inputs)
    found = store.result(key)
    if found is None or not store.holds(found):
        return None
    manifest = load_manifest(ctx.home, found)
    answered = _key(manifest.stage, manifest.policy_digest, manifest.inputs, manifest.code_version)
    if answered != key or not _journalled(ctx, found):
        raise IntegrityError(
            "E-STAGE-005",
            "a recorded result is of another stage, policy or input, or the journal does not know it",
            "Find out who changed results/; restore it and the journal from one backup, or delete that record and run again",
        )
    return StageResult(found, manifest, reused=True)


def _journalled(ctx: StageContext, manifest: Digest) -> bool:
    entries = ctx.home.journal.entries()
    return any(entry.kind == "stage" and entry.facts.get("manifest") == manifest for entry in reversed(entries))


def whole(ctx: StageContext, result: StageResult) -> bool:
    """Whether every object that the result names is in the store; not whether it is intact."""
    return all(ctx.home.store.exists(ref) for ref in result.manifest.outputs.values())


def _result_key(ctx: StageContext, stage: str, inputs: Mapping[str, Digest]) -> Digest:
    return _key(stage, ctx.policy_digest, inputs, CODE_VERSION)


def _key(stage: str, policy: Digest, inputs: Mapping[str, Digest], code_version: str) -> Digest:
    return digest_of({"stage": stage, "policy": policy, "inputs": dict(inputs), "code_version": code_version})


def _manifest(ctx: StageContext, stage: str, inputs: Mapping[str, Digest], output: StageOutput) -> Manifest:
    return Manifest(
        stage,
        ctx.policy_digest,
        ctx.policy.dataset,
        dict(inputs),
        dict(output.outputs),
        dict(output.facts),
        CODE_VERSION,
        ctx.clock().isoformat(timespec="seconds"),
    )


def load_manifest(home: Home, digest: Digest) -> Manifest:
    return Manifest.from_bytes(home.store.get_plain(digest))


def _malformed() -> IntegrityError:
    return IntegrityError("E-STAGE-001", "a stage manifest is malformed", "Run the stage again")

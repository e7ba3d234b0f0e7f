"""`privet compress`: smaller models of a trained one, as candidates of their own that leave only after their parent did.

Guarantee: what is made is sealed, like its parent; its evidence names the parent's manifest and the digest of every file;
files leave only when the parent was released and the release quorum has signed exactly this candidate under exactly that
release. Only weights and public or made-up inputs are looked at, so the parent's privacy claim holds for each candidate.
Not covered: the audits are the parent's. Accuracy may be lower, which is in the table that approvers sign; a model that
writes text is refused here, as its outputs would have to be scanned anew.
Decision: compression comes after training and before anything leaves, as a stage beside audit and report. It could not be
part of the parent's bundle, whose model is bound, byte for byte, to the run that was audited.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pipeline.approval_book import ApprovalRequest, request_id
from pipeline.stage import Manifest, StageContext, StageOutput, StageResult, load_manifest, run_stage
from privacy.canonical import Digest, Json, Scalar, canonical_json, digest_bytes, digest_of, parse_canonical
from privacy.errors import EnvironmentFault, GateClosed, IntegrityError, UsageError
from privacy.gates import Requirement, decide_gate
from privacy.signing import make_statement, seal_envelope

if TYPE_CHECKING:
    from training.compress import Compressed
    from training.config import TrainingConfig
    from training.models.base import UnitModel
    from training.public import PublicInputs

STATEMENT_FILE = "compressed.dsse.json"
PREDICATE_TYPE = "https://privet.dev/predicate/compressed/v1"
_SYNTHETIC_UNITS = 512


def compress(ctx: StageContext, digest: Digest, beside: Path) -> StageResult:
    """Compress the model of a train manifest, or of the release that it led to, as the policy's `compress` says.

    Outputs: table (plain), and each file, sealed. beside: the folder of the policy file.
    Raises UsageError E-COMPRESS-006 (no such block), IntegrityError E-COMPRESS-007 (not a model of this policy), and what
    `training.compress` raises.
    """
    if ctx.policy.compress is None:
        raise UsageError("E-COMPRESS-006", "the policy declares no compression", "Add a compress block; see docs/policy.md")
    train = train_digest_of(ctx, digest)
    return run_stage(ctx, "compress", {"train": train}, lambda: _compress(ctx, train, beside))


def train_digest_of(ctx: StageContext, digest: Digest) -> Digest:
    """The train manifest that a manifest of this policy is or came from. Raises IntegrityError E-COMPRESS-007."""
    manifest = load_manifest(ctx.home, digest)
    if manifest.policy_digest == ctx.policy_digest:
        if manifest.stage == "train":
            return digest
        named = manifest.inputs.get("train")
        if named is None and "assemble" in manifest.inputs:
            named = load_manifest(ctx.home, manifest.inputs["assemble"]).inputs.get("train")
        if named is not None:
            return named
    raise IntegrityError(
        "E-COMPRESS-007",
        "this is not the manifest of a model that was trained under this policy, nor of its release",
        "Give the digest of the train or release stage; a policy with another compress block is another policy",
    )


def _compress(ctx: StageContext, train: Digest, beside: Path) -> StageOutput:
    from training.compress import compress as compress_model
    from training.config import TrainingConfig
    from training.recipes import recipe_of

    plan, parent = ctx.policy.compress, load_manifest(ctx.home, train)
    assert plan is not None
    config = TrainingConfig.from_policy(ctx.policy, 0.0)
    if not recipe_of(config).classifies:
        raise UsageError(
            "E-COMPRESS-008", "models that write text or rank items are not compressed here", "Release the model as it is"
        )
    changes = {} if plan.distil is None else plan.distil.changes
    smaller = TrainingConfig.from_policy(ctx.policy.tried(changes), 0.0)
    public = _inputs(ctx, config, beside)
    ctx.progress("compress", 0, 0)
    made = compress_model(_parent_model(ctx, parent, config), plan, public, lambda: recipe_of(smaller).build(smaller))
    files = {name: data for one in made for name, data in one.files.items()}
    key = str(parent.facts.get("ledger_key") or "")
    place = {"dataset": ctx.policy.dataset, "data_class": "model", "version": key}
    outputs = {name: ctx.home.store.put_sealed(data, path=f"compressed/{name}", **place) for name, data in files.items()}
    table = _table(train, parent, made, files, public)
    outputs["table"] = ctx.home.store.put_plain(
        canonical_json(table), dataset=ctx.policy.dataset, path="compress/table.json", data_class="evidence"
    )
    facts: dict[str, Scalar] = {"parent": train, "methods": len(made), "files": len(files), "measured_on": public.origin}
    return StageOutput(outputs, facts)


def _inputs(ctx: StageContext, config: TrainingConfig, beside: Path) -> PublicInputs:
    from training.public import public_inputs, read_public, synthetic_inputs

    plan = ctx.policy.compress
    assert plan is not None
    if plan.public is None:
        return synthetic_inputs(config, _SYNTHETIC_UNITS)
    return public_inputs(read_public(plan.public, beside), config)


def _parent_model(ctx: StageContext, parent: Manifest, config: TrainingConfig) -> UnitModel:
    from safetensors.torch import load

    from training.evaluate import load_released
    from training.recipes import recipe_of

    weights = load(ctx.home.store.read_sealed(parent.outputs["model"]))
    return load_released(recipe_of(config).build(config), weights)


def _table(
    train: Digest, parent: Manifest, made: list[Compressed], files: Mapping[str, bytes], public: PublicInputs
) -> dict[str, Json]:
    listed: Json = {name: {"sha256": digest_bytes(data), "bytes": len(data)} for name, data in files.items()}
    return {
        "parent": train,
        "parent_epsilon": parent.facts.get("epsilon"),
        "parent_mechanism": parent.facts.get("mechanism"),
        "privacy": "post-processing of the parent's weights with public or made-up inputs: no further charge",
        "inputs": {"origin": public.origin, "digest": public.digest, "units": len(public)},
        "rows": [one.row.to_json() for one in made],
        "files": listed,
        "audited": "the parent; not these files",
    }


def read_table(ctx: StageContext, result: StageResult) -> dict[str, Json]:
    value = parse_canonical(ctx.home.store.read_plain(result.manifest.outputs["table"]))
    assert isinstance(value, dict)
    return value


def request_candidate(ctx: StageContext, result: StageResult) -> ApprovalRequest:
    """Ask the release quorum for exactly these files under the parent's release. Raises GateClosed E-COMPRESS-009."""
    from pipeline.approve import ask

    root, subject = _subject(ctx, result)
    table = read_table(ctx, result)
    rows = cast("list[dict[str, Json]]", table["rows"])
    gate = ctx.policy.approvals.release
    shown = (
        ("policy", f"{ctx.policy.name} ({ctx.policy_digest})"),
        ("requested by", ctx.requested_by),
        ("what", "compressed models of a released model"),
        ("parent", f"train {table['parent']}, released under {root}"),
        ("epsilon of the parent", str(table["parent_epsilon"])),
        *((str(row["method"]), _in_words(row)) for row in rows),
    )
    return ask(
        ctx.home,
        ApprovalRequest(
            id=request_id("release", subject, ctx.run_id),
            gate="release",
            digest=subject,
            run_id=ctx.run_id,
            policy_name=ctx.policy.name,
            shown=shown,
            quorum=dict(gate.quorum),
            expires_hours=gate.expires_hours,
            requested_by=ctx.requested_by,
            created_at=ctx.clock().astimezone(UTC).isoformat(timespec="seconds"),
        ),
    )


def hand_out(ctx: StageContext, result: StageResult, folder: Path) -> list[Path]:
    """Write the files and a signed statement about them into a new folder. Decided anew here, from signatures.

    Raises GateClosed E-COMPRESS-009 (the parent was not released), E-COMPRESS-010 (the gate is closed) or E-GATE-012
    (rejected), EnvironmentFault E-COMPRESS-011 (the folder).
    """
    from pipeline.approve import refuse_rejected

    root, subject = _subject(ctx, result)
    refuse_rejected(ctx.home, "release", subject)
    gate, trust = ctx.policy.approvals.release, ctx.home.journalled_trust()
    need = Requirement("release", gate.quorum, gate.expires_hours, ctx.requested_by)
    verdict = decide_gate(subject, ctx.home.approvals.approvals(subject, trust), need, trust, ctx.clock())
    if verdict.blocks:
        raise GateClosed(
            "E-COMPRESS-010",
            f"the release gate is closed for these files: {verdict.reason}",
            "Sign with privet approvals sign, then hand them out",
        )
    table = read_table(ctx, result)
    listed = cast("dict[str, dict[str, Json]]", table["files"])
    files = {name: ctx.home.store.read_sealed(result.manifest.outputs[name]) for name in listed}
    wrong = [name for name, data in files.items() if digest_bytes(data) != listed[name]["sha256"]]
    if wrong:
        raise IntegrityError("E-COMPRESS-012", "a compressed file is not the one that was signed for", "Compress again")
    envelopes: list[Json] = [digest_bytes(e) for e in sorted(ctx.home.approvals.envelopes(subject))]
    predicate: dict[str, Json] = {"parent_release": root, "table": table, "candidate": subject, "approvals": envelopes}
    named = {name: digest_bytes(data) for name, data in files.items()}
    statement = seal_envelope(make_statement(named, PREDICATE_TYPE, predicate), ctx.home.key)
    facts: dict[str, Json] = {"run": ctx.run_id, "manifest": result.digest, "parent_release": root, "candidate": subject}
    ctx.home.journal.append("compressed_release", {**facts, "statement": digest_bytes(statement)})
    return _write(folder, {**files, STATEMENT_FILE: statement})


def _subject(ctx: StageContext, result: StageResult) -> tuple[Digest, Digest]:
    """(evidence root of the parent's newest release, what the quorum signs)."""
    train = result.manifest.inputs["train"]
    for entry in reversed(ctx.home.journal.entries()):
        made, root = entry.facts.get("manifests"), entry.facts.get("evidence_root")
        if entry.kind == "release" and isinstance(made, Mapping) and made.get("train") == train and isinstance(root, str):
            return root, digest_of({"compressed": result.digest, "released": root})
    raise GateClosed(
        "E-COMPRESS-009",
        "the model that these files were made from has not been released",
        "Release it first (privet run); its evidence and audits are what the approvers of these files go by",
    )


def _in_words(row: Mapping[str, Json]) -> str:
    accuracy = "" if row["accuracy_before"] is None else f", accuracy {row['accuracy_before']} -> {row['accuracy_after']}"
    return (
        f"size x {row['size_ratio']} (packed x {row['packed_ratio']}), latency x {row['latency_ratio']}, agrees with the "
        f"parent on {row['agreement']} of {row['measured_on']} inputs{accuracy}"
    )


def _write(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    try:
        folder.mkdir(mode=0o700)
        for name, data in files.items():
            handle = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise EnvironmentFault(
            "E-COMPRESS-011", f"the files can't be written ({error.strerror})", "Give a new folder in a place with room"
        ) from None
    return [folder / name for name in files]

"""`privet compress`: smaller models of a trained one, as candidates of their own that leave only after their parent did.

Guarantee: what is made is sealed, like its parent; its evidence names the parent's manifest and the digest of every file; each
file is audited as a model of its own (`pipeline.audit_compressed`), and leaves only if its own verdicts all passed, its parent
was released and the release quorum has signed exactly this candidate, verdicts included, under exactly that release. Making a
file looks at weights and public or made-up inputs only, so the parent's privacy claim holds for it; auditing it looks at
private units, as the parent's audit does, and gives aggregates outside the claim.
Not covered: choosing among candidates by those figures. The audits of the training itself are the parent's.
Decision: compression comes after training and before anything leaves, as a stage beside audit and report. It could not be
part of the parent's bundle, whose model is bound, byte for byte, to the run that was audited.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pipeline.approval_book import ApprovalRequest, request_id
from pipeline.stage import ArtifactRef, Manifest, StageContext, StageOutput, StageResult, load_manifest, run_stage
from pipeline.standing import decide, requirement_of
from privacy.canonical import Digest, Json, Scalar, canonical_json, digest_bytes, digest_of, parse_canonical
from privacy.errors import EnvironmentFault, GateClosed, IntegrityError, UsageError
from privacy.signing import make_statement, seal_envelope

if TYPE_CHECKING:
    from pipeline.audit_compressed import FileAudit
    from privacy.policy_training import Compress
    from training.compress import Compressed
    from training.config import TrainingConfig
    from training.models.base import UnitModel
    from training.public import PublicInputs

STATEMENT_FILE = "compressed.dsse.json"
PREDICATE_TYPE = "https://privet.dev/predicate/compressed/v1"
PROTECTION = "accuracy of holdout units is exact and outside the privacy claim; it is in the audit of each file"
_SYNTHETIC_UNITS, _SYNTHETIC_TEXTS = 512, 64


def compress(ctx: StageContext, digest: Digest, beside: Path) -> StageResult:
    """Compress the model of a train manifest, or of the release that it led to, as the policy's `compress` says; audit each.

    Outputs: table (plain), each file, sealed, and audit/FILE of each (plain). beside: the folder of the policy file.
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
        _refuse_what_cannot_write(plan)
    changes = {} if plan.distil is None else plan.distil.changes
    smaller = TrainingConfig.from_policy(ctx.policy.tried(changes), 0.0)
    public = _inputs(ctx, config, beside)
    ctx.progress("compress", 0, 0)
    made = compress_model(_parent_model(ctx, parent, config), plan, public, lambda: recipe_of(smaller).build(smaller))
    files = {name: data for one in made for name, data in one.files.items()}
    audits = _audits(ctx, train, parent, files, {"distil": smaller}, config)
    key = str(parent.facts.get("ledger_key") or "")
    place = {"dataset": ctx.policy.dataset, "data_class": "model", "version": key}
    outputs = {name: ctx.home.store.put_sealed(data, path=f"compressed/{name}", **place) for name, data in files.items()}
    outputs |= {f"audit/{one.name}": _plain(ctx, f"compress/{one.name}.json", one.evidence) for one in audits}
    table = _table(train, parent, made, audits, public)
    outputs["table"] = _plain(ctx, "compress/table.json", canonical_json(table))
    passed = sum(one.may_leave for one in audits)
    facts: dict[str, Scalar] = {"parent": train, "methods": len(made), "files": len(files), "measured_on": public.origin}
    return StageOutput(outputs, facts | {"may_leave": passed, "held_back": len(audits) - passed})


def _plain(ctx: StageContext, path: str, data: bytes) -> ArtifactRef:
    return ctx.home.store.put_plain(data, dataset=ctx.policy.dataset, path=path, data_class="evidence")


def _refuse_what_cannot_write(plan: Compress) -> None:
    if not set(plan.methods) <= {"prune", "int8_weights"} or set(plan.exports) != {"safetensors"}:
        raise UsageError(
            "E-COMPRESS-008",
            "a model that writes is pruned or stored as int8 in safetensors only: an exported graph, or a student of its "
            "scores, can't write, so what it would write can't be audited",
            "Set compress.methods to prune or int8_weights, and compress.exports to safetensors",
        )


def _audits(
    ctx: StageContext,
    train: Digest,
    parent: Manifest,
    files: Mapping[str, bytes],
    other: Mapping[str, TrainingConfig],
    config: TrainingConfig,
) -> list[FileAudit]:
    """other: configurations by method, where it is not the parent's. Private units are read here, after every file was made."""
    from pipeline.audit_case import open_case
    from pipeline.audit_compressed import Architecture, audit_files
    from training.recipes import recipe_of

    names = list(files)

    def of(name: str) -> Architecture:
        its = other.get(name.rpartition(".")[0], config)
        return Architecture(its, lambda: recipe_of(its).build(its))

    case = open_case(ctx, parent.inputs["protect"], train)
    return audit_files(case, files, of, lambda name: ctx.progress(f"audit {name}", names.index(name), len(names)))


def _inputs(ctx: StageContext, config: TrainingConfig, beside: Path) -> PublicInputs:
    from training.public import public_inputs, read_public, synthetic_inputs

    plan = ctx.policy.compress
    assert plan is not None
    if plan.public is None:
        return synthetic_inputs(config, _SYNTHETIC_TEXTS if config.recipe.model == "causal_lm" else _SYNTHETIC_UNITS)
    return public_inputs(read_public(plan.public, beside), config)


def _parent_model(ctx: StageContext, parent: Manifest, config: TrainingConfig) -> UnitModel:
    from safetensors.torch import load

    from training.evaluate import load_released
    from training.recipes import recipe_of

    weights = load(ctx.home.store.read_sealed(parent.outputs["model"]))
    return load_released(recipe_of(config).build(config), weights)


def _table(
    train: Digest, parent: Manifest, made: list[Compressed], audits: list[FileAudit], public: PublicInputs
) -> dict[str, Json]:
    sizes = {name: len(data) for one in made for name, data in one.files.items()}
    listed: Json = {one.name: {"sha256": one.sha256, "bytes": sizes[one.name], **one.in_table()} for one in audits}
    return {
        "parent": train,
        "parent_epsilon": parent.facts.get("epsilon"),
        "parent_mechanism": parent.facts.get("mechanism"),
        "privacy": "post-processing of the parent's weights with public or made-up inputs: no further charge",
        "inputs": {"origin": public.origin, "digest": public.digest, "units": len(public)},
        "rows": [one.row.to_json() for one in made],
        "files": listed,
        "audited": "each file by itself, on its own bytes; probe, bounds, ledger and coins are those of the parent's run",
        "protection": PROTECTION,
    }


def read_table(ctx: StageContext, result: StageResult) -> dict[str, Json]:
    value = parse_canonical(ctx.home.store.read_plain(result.manifest.outputs["table"]))
    assert isinstance(value, dict)
    return value


def request_candidate(ctx: StageContext, result: StageResult) -> ApprovalRequest:
    """Ask the release quorum for exactly these files under the parent's release.

    Raises GateClosed E-COMPRESS-009 (the parent was not released), E-COMPRESS-014 (no file passed its own audits).
    """
    from pipeline.approve import ask

    root, subject = _subject(ctx, result)
    table = read_table(ctx, result)
    rows = cast("list[dict[str, Json]]", table["rows"])
    files = cast("dict[str, dict[str, Json]]", table["files"])
    _may_leave(ctx, result)
    gate = requirement_of(ctx.policy, "release", ctx.requested_by)
    shown = (
        ("policy", f"{ctx.policy.name} ({ctx.policy_digest})"),
        ("requested by", ctx.requested_by),
        ("what", "compressed models of a released model"),
        ("parent", f"train {table['parent']}, released under {root}"),
        ("epsilon of the parent", str(table["parent_epsilon"])),
        *((str(row["method"]), _in_words(row)) for row in rows),
        *((name, _verdicts_in_words(file)) for name, file in files.items()),
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
            risk=gate.risk,
            officer=gate.officer,
        ),
    )


def hand_out(ctx: StageContext, result: StageResult, folder: Path) -> list[Path]:
    """Write the files that passed, their audits and a signed statement about them into a new folder. Decided anew here, from
    signatures and stored verdicts.

    Raises GateClosed E-COMPRESS-009 (the parent was not released), E-COMPRESS-010 (the gate is closed), E-COMPRESS-014
    (no file passed) or E-GATE-012 (rejected), EnvironmentFault E-COMPRESS-011 (the folder).
    """
    from pipeline.approve import refuse_rejected
    from pipeline.revoke import refuse_revoked

    root, subject = _subject(ctx, result)
    refuse_rejected(ctx.home, "release", subject)
    refuse_revoked(ctx.home, root, None)
    need = replace(requirement_of(ctx.policy, "release", ctx.requested_by), break_glass=())
    verdict = decide(ctx.home, subject, need, ctx.home.journalled_trust(), ctx.clock())
    if verdict.blocks:
        raise GateClosed(
            "E-COMPRESS-010",
            f"the release gate is closed for these files: {verdict.reason}",
            "Sign with privet approvals sign, then hand them out",
        )
    table, passed = read_table(ctx, result), _may_leave(ctx, result)
    files = {one.name: ctx.home.store.read_sealed(result.manifest.outputs[one.name]) for one in passed}
    if any(digest_bytes(files[one.name]) != one.sha256 for one in passed):
        raise IntegrityError("E-COMPRESS-012", "a compressed file is not the one that was signed for", "Compress again")
    given = {**files, **{f"{one.name}.audit.json": one.evidence for one in passed}}
    envelopes: list[Json] = [digest_bytes(e) for e in sorted(ctx.home.approvals.envelopes(subject))]
    parent: dict[str, Json] = {"release": root, "audit": _parent_audit(ctx, root), "covers": "probe, bounds, ledger, coins"}
    predicate: dict[str, Json] = {"parent_release": root, "parent_conformance": parent, "table": table, "candidate": subject}
    predicate["approvals"] = envelopes
    named = {name: digest_bytes(data) for name, data in given.items()}
    statement = seal_envelope(make_statement(named, PREDICATE_TYPE, predicate), ctx.home.key)
    facts: dict[str, Json] = {"run": ctx.run_id, "manifest": result.digest, "parent_release": root, "candidate": subject}
    ctx.home.journal.append("compressed_release", {**facts, "files": sorted(files), "statement": digest_bytes(statement)})
    return _write(folder, {**given, STATEMENT_FILE: statement})


def _may_leave(ctx: StageContext, result: StageResult) -> list[FileAudit]:
    """Files whose own verdicts all passed, read anew from their evidence. Raises GateClosed E-COMPRESS-014 for none."""
    from pipeline.audit_compressed import read_audit

    listed = cast("dict[str, dict[str, Json]]", read_table(ctx, result)["files"])
    found = []
    for name, about in listed.items():
        evidence = ctx.home.store.read_plain(result.manifest.outputs[f"audit/{name}"])
        found.append(read_audit(name, str(about["sha256"]), evidence, ctx.policy))
    passed = [one for one in found if one.may_leave]
    if not passed:
        raise GateClosed(
            "E-COMPRESS-014",
            "no compressed file passed its own audits",
            "See the verdicts in the table; another method, or a smaller share to prune, may pass",
        )
    return passed


def _parent_audit(ctx: StageContext, root: Digest) -> Json:
    """Manifest digest of the audit that the parent's release rests on; None where the journal does not say."""
    for entry in reversed(ctx.home.journal.entries()):
        made = entry.facts.get("manifests")
        if entry.kind == "release" and entry.facts.get("evidence_root") == root and isinstance(made, Mapping):
            return made.get("audit")
    return None


def _subject(ctx: StageContext, result: StageResult) -> tuple[Digest, Digest]:
    """(evidence root of the parent's newest release, what the quorum signs). Raises GateClosed E-REVOKE-003 when it, or its
    model, was taken back."""
    from pipeline.revoke import refuse_revoked

    train = result.manifest.inputs["train"]
    for entry in reversed(ctx.home.journal.entries()):
        made, root = entry.facts.get("manifests"), entry.facts.get("evidence_root")
        if entry.kind == "release" and isinstance(made, Mapping) and made.get("train") == train and isinstance(root, str):
            parent = load_manifest(ctx.home, train).outputs["model"]
            refuse_revoked(ctx.home, root, digest_bytes(ctx.home.store.read_sealed(parent)))
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


def _verdicts_in_words(file: Mapping[str, Json]) -> str:
    held = cast("list[str]", file["held_back_by"])
    return f"{file['sha256']}, all of its own audits passed" if file["may_leave"] else "stays here: " + "; ".join(held)


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

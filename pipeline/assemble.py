"""Assembles the evidence of a run: the files, five signed statements over them, and one Merkle root.

Guarantee: the root covers the plain bytes of every file as it would leave; the model itself stays sealed until the
release. Running it again gives the same root. Whether the evidence suffices is not decided here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.bom import bill_of_materials
from pipeline.card import model_card
from pipeline.claims import claim_of
from pipeline.evidence import (
    MODEL_FILE,
    PREDICATE_TYPES,
    PROOF_FILES,
    STAGE_FILES,
    STATEMENT_FILES,
    STATEMENTS,
    SUBJECTS,
    EvidenceFile,
    RunBlock,
    RunDigests,
    evidence_document,
    evidence_root,
    use_subject,
)
from pipeline.journal_claims import stage_entry
from pipeline.paper_facts import ReleaseFacts, libraries
from pipeline.spdx import spdx_document
from pipeline.stage import ArtifactRef, Manifest, StageContext, StageOutput, StageResult, run_stage
from privacy.accounting import MechanismTrace
from privacy.canonical import Digest, Json, Scalar, canonical_json, digest_bytes, digest_of, parse_canonical
from privacy.checkpoint import TlogProof
from privacy.entries import parse_export
from privacy.errors import IntegrityError, PrivetError, UsageError
from privacy.signing import make_statement, seal_envelope
from privacy.verdict import Verdict, blocking

_CHUNK = 1_048_576


def assemble(ctx: StageContext, digests: RunDigests) -> StageResult:
    """Collect the evidence; fact `evidence_root` is what the release gate approves.

    Raises UsageError E-ASSEMBLE-001 without a report, IntegrityError E-ASSEMBLE-002 when a result is of another policy.
    """
    if digests.report is None:
        raise UsageError("E-ASSEMBLE-001", "the run has no report yet", "Run the report stage first")
    inputs = {
        **digests.to_json(),
        "trust": ctx.home.trust.digest,
        "request": digest_of({"requested_by": ctx.requested_by}),
    }
    return run_stage(ctx, "assemble", inputs, lambda: _Assembly.of(ctx, digests).output())


def read_trace(data: bytes | None) -> MechanismTrace | None:
    """The mechanism trace, or None where the run left none that bounds anything."""
    try:
        return None if data is None else MechanismTrace.from_json(parse_canonical(data))
    except PrivetError:
        return None


def stream_digest(ctx: StageContext, ref: ArtifactRef, path: str) -> EvidenceFile:
    """Digest and size of a sealed object's plain bytes, piece by piece; they do not touch the disk."""
    hasher, size = hashlib.sha256(), 0
    with ctx.home.store.open_sealed(ref) as file:
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
            size += len(chunk)
    return EvidenceFile(path, "sha256:" + hasher.hexdigest(), size)


@dataclass(frozen=True, slots=True)
class _Assembly:
    """The parts while they are put together. `manifests` are the stored values, so that their digests stay theirs."""

    ctx: StageContext
    block: RunBlock
    manifests: Mapping[str, Json]
    stages: Mapping[str, Manifest]
    stage_files: Mapping[str, bytes]
    model: EvidenceFile

    @classmethod
    def of(cls, ctx: StageContext, digests: RunDigests) -> _Assembly:
        raw = {stage: ctx.home.store.get_plain(digest) for stage, digest in digests.to_json().items()}
        stages = {stage: Manifest.from_bytes(data) for stage, data in raw.items()}
        for stage, manifest in stages.items():
            if manifest.stage.removesuffix("_replay") != stage or manifest.policy_digest != ctx.policy_digest:
                raise IntegrityError("E-ASSEMBLE-002", f"the {stage} result does not belong to this policy", "Start a new run")
        model = stages["train"].outputs.get("model")
        if model is None:
            raise IntegrityError("E-ASSEMBLE-003", "the train result holds no model", "Run the train stage again")
        block = RunBlock(ctx.policy_digest, ctx.policy.name, ctx.run_id, ctx.requested_by, digests.to_json())
        files = {path: _stage_file(ctx, stages[stage], output) for path, (stage, output) in STAGE_FILES.items()}
        manifests = {stage: parse_canonical(data) for stage, data in raw.items()}
        return cls(ctx, block, manifests, stages, files, stream_digest(ctx, model, MODEL_FILE))

    def output(self) -> StageOutput:
        ctx, trace = self.ctx, read_trace(self.stage_files["trace.json"])
        files: dict[str, bytes] = {
            **self.stage_files,
            "policy.json": canonical_json(ctx.policy.canonical()),  # type: ignore[arg-type]
            "manifests.json": canonical_json(self.manifests),
            "trust.json": canonical_json(ctx.home.trust.to_json()),
            **self._journal(),
        }
        for name in STATEMENTS:
            statement = make_statement(self._subject(name), PREDICATE_TYPES[name], self._predicate(name, trace))
            files[STATEMENT_FILES[name]] = seal_envelope(statement, ctx.home.key)
        files["CARD.md"] = model_card(self._about(files, trace)).encode()
        about = self._about(files, trace)
        files |= {"bom.cdx.json": bill_of_materials(about), "spdx.json": spdx_document(about)}
        leaves = [EvidenceFile(path, digest_bytes(data), len(data)) for path, data in files.items()]
        listed = evidence_document([*leaves, self.model])
        files["evidence.json"] = canonical_json(listed)
        refs = {path: self._put(path, data) for path, data in files.items()}
        refs[MODEL_FILE] = self.stages["train"].outputs["model"]
        facts: dict[str, Scalar] = {
            "evidence_root": evidence_root([*leaves, self.model]),
            "files": len(refs),
            "verdicts_blocking": len(blocking(self._verdicts())),
        }
        if trace is not None:
            facts["epsilon"] = trace.epsilon
        return StageOutput(refs, facts | self._utility())

    def _put(self, path: str, data: bytes) -> ArtifactRef:
        return self.ctx.home.store.put_plain(
            data, dataset=self.ctx.policy.dataset, path=f"evidence/{path}", data_class="evidence"
        )

    def _journal(self) -> dict[str, bytes]:
        """The run's part of the journal, and for each stage result a proof that other tools can check by itself."""
        journal, exported = self.ctx.home.journal, self.ctx.home.journal.export(self._first_run())
        export = parse_export(exported)
        size = export.before.size + len(export.entries)
        files = {"journal.json": exported}
        for stage, path in PROOF_FILES.items():
            entry = stage_entry(export.entries, self.block.manifests[stage])
            if entry is not None:  # else the verifier says that the file is missing
                proof = TlogProof(entry.seq, journal.inclusion_proof(entry.seq, size), export.checkpoint, entry.body)
                files[path] = proof.format().encode()
        return files

    def _first_run(self) -> str:
        """The run whose journal entries come first: a later run may have found earlier results instead of making its own."""
        wanted = set(self.block.manifests.values())
        for entry in self.ctx.home.journal.entries():
            run = entry.facts.get("run")
            if entry.kind == "stage" and entry.facts.get("manifest") in wanted and isinstance(run, str):
                return run
        return self.ctx.run_id

    def _subject(self, name: str) -> dict[str, Digest]:
        known = {
            "policy": self.block.policy,
            "dataset": self.block.manifests["protect"],
            "model": self.model.sha256,
            "trace": digest_bytes(self.stage_files["trace.json"]),
            "validation": digest_bytes(self.stage_files["audit/validation.json"]),
            "verdicts": digest_bytes(self.stage_files["audit/verdicts.json"]),
            **{n: digest_bytes(self.stage_files[f"audit/{n}.json"]) for n in ("redaction", "bounds", "attacks", "harm")},
        }
        return {subject: known[subject] for subject in SUBJECTS[name]}

    def _predicate(self, name: str, trace: MechanismTrace | None) -> dict[str, Json]:
        body: dict[str, Json] = {"about": self.block.to_json(), "produced_by": "privet"}
        policy, stages = self.ctx.policy, self.stages
        if name == "dataset":
            body |= {"purpose": policy.purpose, "controller": policy.controller, "privacy_unit": policy.privacy_unit.name}
            body["facts"] = {stage: dict(stages[stage].facts) for stage in ("ingest", "protect")}
        elif name == "validation":
            body["facts"] = dict(stages["validate"].facts)
        elif name == "training":
            budget, own = policy.budget, self.block.manifests
            body["claim"] = None if trace is None else claim_of(trace)
            body["mechanism"] = policy.recipe.mechanism
            body["use_subject"] = use_subject(self.block.policy, own["protect"], own["validate"], budget.epsilon, budget.delta)
        elif name == "audit":
            body["verdicts"] = [v.to_json() for v in self._verdicts()]
        return body

    def _about(self, files: Mapping[str, bytes], trace: MechanismTrace | None) -> ReleaseFacts:
        """What the papers say; files: what there is already."""
        known = {path: EvidenceFile(path, digest_bytes(data), len(data)) for path, data in files.items()}
        return ReleaseFacts(
            self.ctx.policy,
            self.block.policy,
            trace,
            parse_canonical(self.stage_files["audit/bounds.json"]),
            self._verdicts(),
            self._facts(),
            {**known, MODEL_FILE: self.model},
            self.block.manifests["protect"],
            self.stages["report"].created_at,
            libraries(),
        )

    def _verdicts(self) -> tuple[Verdict, ...]:
        recorded = parse_canonical(self.stage_files["audit/verdicts.json"])
        return tuple(Verdict.from_json(v) for v in recorded) if isinstance(recorded, list) else ()

    def _facts(self) -> dict[str, Scalar]:
        return {f"{stage}.{name}": value for stage, m in self.stages.items() for name, value in m.facts.items()}

    def _utility(self) -> dict[str, Scalar]:
        for stage in ("audit", "train"):
            for name in ("accuracy", "holdout_accuracy", "utility"):
                value = self.stages[stage].facts.get(name)
                if isinstance(value, float | int):
                    return {"utility": f"accuracy {value:.3f} on held-out units"}
        return {}


def _stage_file(ctx: StageContext, manifest: Manifest, output: str) -> bytes:
    """The bytes of a stage output; where the stage left none, a document that says so (and blocks the release)."""
    ref = manifest.outputs.get(output)
    if ref is None:
        return canonical_json({"mechanism": "none", "absent": f"{manifest.stage} left no {output}"})
    return ctx.home.store.read_plain(ref)

"""Decides whether a model may leave, and writes the bundle if it may; believes nothing but bytes and signatures.

Guarantee: a bundle appears only when every claim that the offline verifier checks holds, the ledger agrees with the
mechanism trace, and the quorum of the release gate has signed exactly this evidence root. No scheduler state is read,
so a task that was marked successful, cleared or skipped changes nothing. There is no way to force it.
Guarantee: the plain model is on disk only inside a bundle that was allowed; `bundle` is always one whole release.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO, NoReturn

from pipeline.assemble import assemble, read_trace, stream_digest
from pipeline.bundle import (
    RELEASE_STATEMENT,
    BundleView,
    approval_path,
    install,
    read_bundle,
    remove_folder,
    view_of,
    write_files,
)
from pipeline.claims import Evidence, release_predicate
from pipeline.evidence import MODEL_FILE, RELEASE_TYPE, RunDigests, read_evidence, use_subject, witnesses_of
from pipeline.gate_claims import release_breakers
from pipeline.journal_claims import journal_checkpoint, release_state
from pipeline.revoke import revoked_fault
from pipeline.stage import CODE_VERSION, Manifest, StageContext, load_manifest
from pipeline.standing import referral_lost, rejection
from pipeline.training_budget import budget_scopes, refuse_lost_charges
from pipeline.verify import Verification, verify_bundle, verify_evidence
from privacy.calibration import describes
from privacy.canonical import Digest, Json, digest_bytes, digest_of
from privacy.errors import GateClosed, IntegrityError, PrivetError
from privacy.gates import GateName, approval_of
from privacy.journal_audit import verify_journal
from privacy.rounding import shown_up
from privacy.signing import make_statement, open_envelope, seal_envelope
from privacy.verdict import Verdict, blocking

__all__ = ["ReleaseRefusal", "ReleaseResult", "RunDigests", "assemble", "release"]


class ReleaseRefusal(GateClosed):
    """The model stays. `verdicts` holds every condition that does not hold, `details` one line for each reason."""

    def __init__(self, verdicts: Sequence[Verdict]) -> None:
        self.verdicts = tuple(verdicts)
        count = len(self.details)
        super().__init__(
            "E-RELEASE-001",
            f"the release is refused for {count} reason{'s' if count != 1 else ''}",
            "Mend each reason listed and run again; the refusal is in the journal",
        )

    def __reduce__(self) -> tuple[type, tuple[tuple[Verdict, ...]]]:  # type: ignore[override]
        return (ReleaseRefusal, (self.verdicts,))

    @property
    def details(self) -> tuple[str, ...]:
        """Each reason once, with all checks that met it; what says most about the model, its mechanism, comes first."""
        groups: dict[str, list[Verdict]] = {}
        for verdict in sorted(self.verdicts, key=lambda v: v.check != "mechanism"):
            groups.setdefault(verdict.reason, []).append(verdict)
        return tuple(
            f"{', '.join(dict.fromkeys(f'{v.check} ({v.outcome})' for v in met))}: {reason}" for reason, met in groups.items()
        )


@dataclass(frozen=True, slots=True)
class ReleaseResult:
    """digest: of the release manifest. reused: the same evidence had been released already."""

    digest: Digest
    manifest: Manifest
    path: Path
    evidence_root: Digest
    reused: bool


def release(ctx: StageContext, assemble_digest: Digest) -> ReleaseResult:
    """Re-check everything and release. Raises ReleaseRefusal E-RELEASE-001 with all reasons; nothing is written then."""
    folder = ctx.home.releases_dir / ctx.policy.name
    with _one_at_a_time(folder):  # decided under the lock too: who waited for it may have been rejected meanwhile
        case, evidence, now = _decide(ctx, assemble_digest)
        before = _root_of(folder / "bundle")
        if before == case.root and verify_bundle(folder / "bundle", ctx.home.trust, now).exit_code == 0:
            return _result(case, folder / "bundle", (folder / "bundle" / RELEASE_STATEMENT).read_bytes(), reused=True)
        statement = _sign(ctx, evidence, now)
        temporary = folder / ".bundle-tmp"
        try:
            _write(case, temporary, statement, now)
            if late := _rejections(case):  # while the bundle was written
                _refuse(case, late)
            _journal(case, evidence, statement, now)
            install(temporary, folder / "bundle", before)
        except BaseException:
            remove_folder(temporary)  # it holds the plain model
            raise
    return _result(case, folder / "bundle", statement, reused=False)


def _decide(ctx: StageContext, assemble_digest: Digest) -> tuple[_Case, Evidence, datetime]:
    case = _Case.load(ctx, assemble_digest)
    now = ctx.clock()
    verification, evidence = verify_evidence(case.view, ctx.home.trust, now)
    verdicts = [row.as_verdict() for row in verification.rows if row.kind != "note"] + [*case.faults, *_local(case, evidence)]
    if blocking(verdicts) or evidence is None:
        _refuse(case, verdicts)
    return case, evidence, now


def _refuse(case: _Case, verdicts: Sequence[Verdict]) -> NoReturn:
    refused = blocking(verdicts)
    reasons: list[Json] = [v.to_json() for v in refused]
    case.ctx.home.journal.append("refusal", {**_about(case), "reasons": reasons})
    raise ReleaseRefusal(refused)


@dataclass(frozen=True, slots=True)
class _Case:
    """What was assembled and signed: bytes in memory, the model still sealed."""

    ctx: StageContext
    digest: Digest
    manifest: Manifest
    root: Digest
    files: dict[str, bytes]
    view: BundleView
    faults: tuple[Verdict, ...]

    @classmethod
    def load(cls, ctx: StageContext, assemble_digest: Digest) -> _Case:
        manifest = load_manifest(ctx.home, assemble_digest)
        root = manifest.facts.get("evidence_root")
        if manifest.stage != "assemble" or manifest.policy_digest != ctx.policy_digest or not isinstance(root, str):
            raise IntegrityError("E-RELEASE-002", "this is not the assembled evidence of this policy", "Run assemble again")
        store = ctx.home.store
        files = {path: store.read_plain(ref) for path, ref in manifest.outputs.items() if path != MODEL_FILE}
        model = [stream_digest(ctx, manifest.outputs[MODEL_FILE], MODEL_FILE)] if MODEL_FILE in manifest.outputs else []
        faults = [*_add_approvals(ctx, files, _use_subject(ctx, manifest)), *_add_approvals(ctx, files, root)]
        return cls(ctx, assemble_digest, manifest, root, files, view_of(files, model), tuple(faults))


def _use_subject(ctx: StageContext, manifest: Manifest) -> Digest:
    budget, inputs = ctx.policy.budget, manifest.inputs
    return use_subject(ctx.policy_digest, inputs["protect"], inputs["validate"], budget.epsilon, budget.delta)


def _add_approvals(ctx: StageContext, files: dict[str, bytes], digest: Digest) -> list[Verdict]:
    """Put the kept envelopes of this digest among the files; one that no longer verifies is a reason to refuse."""
    delegations = ctx.home.approvals.delegation_envelopes()
    try:
        for envelope in ctx.home.approvals.envelopes(digest):
            approval = approval_of(open_envelope(envelope, ctx.home.trust))
            files[approval_path(approval.gate, envelope)] = envelope
            if approval.delegation is not None and (lent := delegations.get(approval.delegation)) is not None:
                files[approval_path("delegation", lent)] = lent
    except PrivetError as error:
        return [Verdict("approvals", "failed", f"{error.code}: {error.cause}")]
    return []


def _local(case: _Case, evidence: Evidence | None) -> list[Verdict]:
    """What only this home can know, beside what the bundle shows by itself."""
    checks: list[tuple[str, Callable[[], Verdict]]] = [
        ("ledger", partial(_ledger, case)),
        ("requester", partial(_requester, case, evidence)),
        ("trust root", partial(_same_trust, case)),
        ("whole journal", partial(_whole_journal, case)),
        ("witnesses", partial(_witnessed, case, evidence)),
        ("revocation", partial(_not_revoked, case)),
    ]
    found = []
    for name, check in checks:
        try:
            found.append(check())
        except PrivetError as error:
            found.append(Verdict(name, "not_evaluated", f"{error.code}: {error.cause}"))
    return found + _rejections(case)


def _rejections(case: _Case) -> list[Verdict]:
    """From the journal: deleting an envelope from the approval book takes no rejection and no referral back."""
    home, use = case.ctx.home, _use_subject(case.ctx, case.manifest)
    asked: tuple[tuple[GateName, Digest], ...] = (("use", use), ("release", case.root))
    try:
        held = [look(home, gate, digest) for gate, digest in asked for look in (rejection, referral_lost)]
        return [verdict for verdict in held if verdict is not None]
    except PrivetError as error:
        return [Verdict("rejections", "not_evaluated", f"{error.code}: {error.cause}")]


def _not_revoked(case: _Case) -> Verdict:
    model = case.view.files.get(MODEL_FILE)
    if (fault := revoked_fault(case.ctx.home, case.root, None if model is None else model.sha256)) is not None:
        return Verdict("revocation", "failed", f"E-REVOKE-003: {fault}")
    return Verdict("revocation", "passed", "neither this release nor this model was taken back")


def _ledger(case: _Case) -> Verdict:
    trace = read_trace(case.files.get("trace.json"))
    if trace is None:
        return Verdict("ledger", "not_evaluated", "E-RELEASE-003: there is no mechanism trace to compare the ledger with")
    ledger = case.ctx.home.ledger
    refuse_lost_charges(case.ctx.home)
    spend = ledger.spend(trace.ledger_key)
    if spend is None:
        return Verdict("ledger", "failed", "E-RELEASE-003: the ledger has no charge for this training")
    needed = budget_scopes(case.ctx.home, case.ctx.policy, case.manifest.inputs["protect"])
    if not set(needed) <= set(spend.scopes):
        return Verdict(
            "ledger", "failed", "E-RELEASE-003: the ledger charged another dataset or privacy unit for this training"
        )
    if spend.charged != trace.steps:
        reason = f"E-RELEASE-003: the ledger charged {spend.charged} steps, the mechanism trace says {trace.steps}"
        return Verdict("ledger", "failed", reason)
    claimed = trace.sampling_probability, trace.noise_multiplier, trace.noise_schedule
    if not describes(spend.mechanism, *claimed, spend.steps):
        return Verdict("ledger", "failed", "E-RELEASE-003: the ledger charged another mechanism than the trace names")
    spent, cap = ledger.spent_epsilon(spend.scope), ledger.cap_epsilon(spend.scope)
    if spent > cap or ledger.self_audit():
        return Verdict("ledger", "failed", "E-RELEASE-003: the ledger is over its cap or contradicts itself")
    return Verdict(
        "ledger", "passed", f"{spend.charged} steps charged; epsilon {shown_up(spent)} of {shown_up(cap)} spent on the dataset"
    )


def _requester(case: _Case, evidence: Evidence | None) -> Verdict:
    """Separation of duties compares with who asked for the run; nobody else may ask for its release."""
    asked = None if evidence is None else evidence.block.requested_by
    if asked != case.ctx.requested_by:
        return Verdict("requester", "failed", "E-RELEASE-004: the evidence names another requester than this release")
    inputs = {stage: digest for stage, digest in case.manifest.inputs.items() if stage not in ("trust", "request")}
    if evidence is None or dict(evidence.block.manifests) != inputs:
        return Verdict("requester", "failed", "E-RELEASE-004: the evidence is about another run")
    return Verdict("requester", "passed", f"asked for by {asked}")


def _same_trust(case: _Case) -> Verdict:
    if digest_bytes(case.files.get("trust.json", b"")) != case.ctx.home.journalled_trust().digest:
        return Verdict("trust root", "failed", "E-RELEASE-005: the trust root changed since the evidence was assembled")
    return Verdict("trust root", "passed", "the evidence names today's trust root")


def _whole_journal(case: _Case) -> Verdict:
    """Read anew from the database, past what this process remembers: what is released must be what others will find."""
    home = case.ctx.home
    state = verify_journal(home.place("journal"), home.key.public_hex)
    return Verdict("whole journal", "passed", f"{state.size} entries under one signed root")


def _witnessed(case: _Case, evidence: Evidence | None) -> Verdict:
    """Where the trust root names witnesses, all of them must have cosigned a checkpoint over this evidence's entries."""
    wanted = witnesses_of(case.ctx.home.trust)
    least = 0 if evidence is None else journal_checkpoint(evidence).size
    if wanted and case.ctx.home.journal.cosigned(least, wanted) is None:
        reason = (
            f"E-CLAIM-021: no checkpoint of at least {least} entries is cosigned by {', '.join(w.name for w in wanted)}: "
            "carry one to the witness (privet journal checkpoint --since SIZE) and back (privet journal accept FILE)"
        )
        return Verdict("witnesses", "failed", reason)
    return Verdict("witnesses", "passed", f"{len(wanted)} asked for by the trust root")


def _sign(ctx: StageContext, evidence: Evidence, now: datetime) -> bytes:
    journal, own = ctx.home.journal, journal_checkpoint(evidence)
    witnesses = witnesses_of(ctx.home.trust)
    under = (journal.cosigned(own.size, witnesses) if witnesses else None) or journal.checkpoint()
    state = release_state(under, journal.consistency_proof(own.size, under.size))
    approvals = {path: evidence.view.files[path].sha256 for path in evidence.view.approvals}
    predicate = release_predicate(evidence, approvals, now.isoformat(timespec="seconds"), state)
    return seal_envelope(make_statement({"evidence": evidence.root}, RELEASE_TYPE, predicate), ctx.home.key)


def _write(case: _Case, temporary: Path, statement: bytes, now: datetime) -> None:
    """Write the bundle aside and verify it as a stranger would, from the disk, before it gets its name."""

    def model() -> BinaryIO:
        return case.ctx.home.store.open_sealed(case.manifest.outputs[MODEL_FILE])

    write_files(temporary, {**case.files, RELEASE_STATEMENT: statement}, {MODEL_FILE: model})
    written: Verification = verify_bundle(temporary, case.ctx.home.trust, now)
    if written.exit_code != 0:
        raise IntegrityError(
            "E-RELEASE-007",
            f"the written bundle does not verify ({written.failures[0].claim})",
            "Run again; if it stays so, the disk or the store is damaged",
        )


def _root_of(folder: Path) -> Digest | None:
    if not folder.exists():
        return None
    try:
        return read_evidence(read_bundle(folder).json("evidence.json"))[0]
    except PrivetError:
        return None  # damaged: it is put aside, not overwritten


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _journal(case: _Case, evidence: Evidence, statement: bytes, now: datetime) -> None:
    """A broken glass is told before the release that it opened, and in one append with it."""
    told: dict[str, Json] = {**_about(case), "statement": digest_bytes(statement)}
    items: list[tuple[str, dict[str, Json]]] = [("release", told)]
    if people := list[Json](release_breakers(evidence, now)):
        loud: dict[str, Json] = {"people": people, "requested_by": case.ctx.requested_by, "policy_name": case.ctx.policy.name}
        items.insert(0, ("break_glass", {"run": case.ctx.run_id, "evidence_root": case.root, **loud}))
    case.ctx.home.journal.append_many(items)


def _about(case: _Case) -> dict[str, Json]:
    inputs = case.manifest.inputs
    return {
        "run": case.ctx.run_id,
        "policy": case.ctx.policy_digest,
        "policy_name": case.ctx.policy.name,
        "dataset": case.ctx.policy.dataset,
        "evidence_root": case.root,
        "assemble": case.digest,
        "manifests": {stage: digest for stage, digest in inputs.items() if stage not in ("trust", "request")},
    }


def _result(case: _Case, folder: Path, statement: bytes, *, reused: bool) -> ReleaseResult:
    """The release manifest: the first one committed for this root stays the one."""
    ctx = case.ctx
    key = digest_of({"released": case.root})
    found = ctx.home.store.result(key)
    if found is not None:
        return ReleaseResult(found, load_manifest(ctx.home, found), folder, case.root, reused)
    ref = ctx.home.store.put_plain(statement, dataset=ctx.policy.dataset, path=RELEASE_STATEMENT, data_class="evidence")
    manifest = Manifest(
        "release",
        ctx.policy_digest,
        ctx.policy.dataset,
        {"assemble": case.digest},
        {"statement": ref},
        {"evidence_root": case.root, "files": len(case.files) + 2},
        CODE_VERSION,
        ctx.clock().isoformat(timespec="seconds"),
    )
    digest = ctx.home.store.put_json(manifest.to_json())
    winner = ctx.home.store.commit_result(key, digest)
    return ReleaseResult(winner, load_manifest(ctx.home, winner), folder, case.root, reused)

"""The stages as plain functions of paths and digests: what the DAG's tasks and `privet run` call.

Guarantee: an error that leaves here is a `PrivetError` without a chained exception, so no library can put a record
into a task log; a stage refuses manifests that were made under another policy than the one on disk now.
Not covered: what a library prints to stdout while it runs; the stages keep theirs quiet.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from pipeline.evidence import STANDS_IN
from pipeline.faults import as_privet_error
from pipeline.home import Home
from pipeline.key_home import current_run
from pipeline.stage import Progress, StageContext, load_manifest
from privacy.canonical import Digest, is_digest
from privacy.errors import GateClosed, IntegrityError, PolicyError, PrivetError
from privacy.hardening import harden_process
from privacy.policy_file import load_policy, policy_digest

if TYPE_CHECKING:
    from pipeline.approve import ApprovalRequest
    from pipeline.release import RunDigests

log = logging.getLogger("privet.stage")
_P = ParamSpec("_P")
_R = TypeVar("_R")
_PROGRESS_EVERY_SECONDS = 2.0
QUARANTINE = "quarantine:"


def value_free(call: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let only Privet's own errors out, and those without the exception they were raised from.

    Airflow logs the whole chain of a failure; a chained ValueError of a parser may quote the record it failed on.
    """

    @wraps(call)
    def guarded(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return call(*args, **kwargs)
        except PrivetError as error:
            fault: PrivetError = error
            for reason in getattr(error, "details", ()):  # a refused release has many
                log.error("%s", reason)
        except Exception as error:
            fault = as_privet_error(error)
        # Outside the except block, so that nothing is chained to it again.
        fault.__cause__ = fault.__context__ = None
        fault.__suppress_context__ = True
        raise fault.with_traceback(None)

    return guarded


@value_free
def run_ingest(
    home: Path, policy_path: Path, source_uri: str, run_id: str, requested_by: str, progress: Progress | None = None
) -> Digest:
    """`source_uri`: a folder, a file:// URI, or quarantine:DIGEST for the rejects of that ingest, read again."""
    from pipeline.ingest import ingest, replay_quarantine

    ctx = _context(home, policy_path, run_id, requested_by, progress, {})
    if source_uri.startswith(QUARANTINE):
        return replay_quarantine(ctx, source_uri.removeprefix(QUARANTINE)).digest
    return ingest(ctx, source_uri).digest


@value_free
def run_protect(
    home: Path, policy_path: Path, ingest: Digest, run_id: str, requested_by: str, progress: Progress | None = None
) -> Digest:
    from pipeline.protect import protect

    return protect(_context(home, policy_path, run_id, requested_by, progress, {"ingest": ingest}), ingest).digest


@value_free
def run_validate(
    home: Path, policy_path: Path, protect: Digest, run_id: str, requested_by: str, progress: Progress | None = None
) -> Digest:
    from pipeline.validate import validate

    return validate(_context(home, policy_path, run_id, requested_by, progress, {"protect": protect}), protect).digest


@value_free
def run_train(
    home: Path,
    policy_path: Path,
    protect: Digest,
    validate: Digest,
    run_id: str,
    requested_by: str,
    progress: Progress | None = None,
) -> Digest:
    """Raises GateClosed before any step when nobody approved exactly this use."""
    from pipeline.approve import use_subject
    from pipeline.launch import train_elsewhere
    from pipeline.train import train

    ctx = _context(home, policy_path, run_id, requested_by, progress, {"protect": protect, "validate": validate})
    train_elsewhere(protect, validate, run_id)
    budget = ctx.policy.budget
    subject = use_subject(ctx.policy_digest, protect, validate, budget.epsilon, budget.delta)
    return train(ctx, protect, subject).digest


@value_free
def run_audit(
    home: Path,
    policy_path: Path,
    protect: Digest,
    train: Digest,
    run_id: str,
    requested_by: str,
    progress: Progress | None = None,
) -> Digest:
    from pipeline.audit import audit

    ctx = _context(home, policy_path, run_id, requested_by, progress, {"protect": protect, "train": train})
    return audit(ctx, protect, train).digest


@value_free
def run_report(
    home: Path,
    policy_path: Path,
    digests: Mapping[str, Digest],
    run_id: str,
    requested_by: str,
    progress: Progress | None = None,
) -> Digest:
    """`digests`: manifest digests by stage: ingest, protect, validate, train, audit."""
    from pipeline.report import report

    ctx = _context(home, policy_path, run_id, requested_by, progress, digests)
    return report(ctx, _run_digests(digests)).digest


@value_free
def run_assemble(
    home: Path,
    policy_path: Path,
    digests: Mapping[str, Digest],
    run_id: str,
    requested_by: str,
    progress: Progress | None = None,
) -> Digest:
    """`digests`: as for run_report, and report."""
    from pipeline.release import assemble

    ctx = _context(home, policy_path, run_id, requested_by, progress, digests)
    return assemble(ctx, _run_digests(digests)).digest


@value_free
def run_release(
    home: Path, policy_path: Path, assemble: Digest, run_id: str, requested_by: str, progress: Progress | None = None
) -> Digest:
    """Raises GateClosed with every reason when the model may not leave; no task state is believed."""
    from pipeline.release import release

    ctx = _context(home, policy_path, run_id, requested_by, progress, {"assemble": assemble})
    return release(ctx, assemble).digest


@value_free
def open_use_request(
    home: Path, policy_path: Path, protect: Digest, validate: Digest, run_id: str, requested_by: str
) -> ApprovalRequest:
    from pipeline.approve import request_use

    ctx = _context(home, policy_path, run_id, requested_by, None, {"protect": protect, "validate": validate})
    return request_use(ctx, protect, validate)


@value_free
def open_release_request(home: Path, policy_path: Path, assemble: Digest, run_id: str, requested_by: str) -> ApprovalRequest:
    from pipeline.approve import request_release

    ctx = _context(home, policy_path, run_id, requested_by, None, {"assemble": assemble})
    return request_release(ctx, assemble)


@value_free
def enrolled_requester(home: Path, policy_path: Path, triggered_by: str | None) -> str:
    """Who asks for this run: the person who triggered it, or else the identity that the policy names.

    Raises GateClosed E-GATE-040 for a person the trust root does not know. Separation of duties is a comparison of
    names; a requester nobody enrolled (say, the operating-system user of `airflow dags trigger`) could be anybody,
    an approver too. The policy's own identity is part of what the approvers sign, so it needs no key.
    """
    if triggered_by is None:
        return load_policy(policy_path).approvals.requested_by
    if Home.open(home).trust.by_name(triggered_by) is None:
        raise GateClosed(
            "E-GATE-040",
            "the run was asked for by somebody who is not in the trust root, so nobody can tell requester from approver",
            "Ask as an enrolled person (Airflow's web page or API, or --as NAME), or enrol this one with privet identity enrol",
        )
    return triggered_by


def log_progress() -> Progress:
    """Progress into the task log: at most one line every two seconds, counts only."""
    last = [0.0]

    def show(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - last[0] >= _PROGRESS_EVERY_SECONDS or (total and done >= total):
            last[0] = now
            log.info("%s %d/%s", what, done, total or "?")

    return show


def _context(
    home: Path,
    policy_path: Path,
    run_id: str,
    requested_by: str,
    progress: Progress | None,
    inputs: Mapping[str, Digest],
) -> StageContext:
    harden_process()
    current_run.set(run_id)
    opened = Home.open(home)
    policy = load_policy(policy_path)
    digest = policy_digest(policy)
    for name, given in inputs.items():
        _check_input(opened, name, given, digest)
    return StageContext(opened, policy, digest, run_id, requested_by, progress or log_progress())


def _check_input(home: Home, stage: str, given: Digest, policy: Digest) -> None:
    """A digest from XCom is a claim: it must name a manifest of that stage, made under this very policy."""
    if not is_digest(given):
        raise IntegrityError(
            "E-STAGE-002", f"the {stage} step handed over no manifest digest", f"Clear the {stage} task, so that it runs again"
        )
    manifest = load_manifest(home, given)
    if manifest.stage not in (stage, STANDS_IN.get(stage)):
        raise IntegrityError(
            "E-STAGE-003", f"the digest handed over for {stage} names a manifest of {manifest.stage}", "Start a new run"
        )
    if manifest.policy_digest != policy:
        raise PolicyError(
            "E-STAGE-004",
            f"the policy changed after {stage} ran, so its result does not belong to this policy",
            "Start a new run with the policy as it is now",
        )


def _run_digests(digests: Mapping[str, Digest]) -> RunDigests:
    from pipeline.release import RunDigests

    return RunDigests(**digests)

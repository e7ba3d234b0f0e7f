"""The whole chain in one process, without Airflow: for development, for tests, for a first look.

Guarantee: the stages and gates are those of the DAG; nothing is skipped, and a closed gate ends the run with the
request that waits. Running again continues: committed stages are found, not repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import tasks
from pipeline.home import DEMO_PEOPLE, Home
from pipeline.stage import Manifest, load_manifest
from pipeline.standing import decide
from privacy.canonical import Digest, Scalar, digest_of
from privacy.errors import GateClosed, UsageError
from privacy.policy_file import load_policy, policy_digest
from privacy.verdict import Verdict

if TYPE_CHECKING:
    from pipeline.approve import ApprovalRequest
    from pipeline.screen import Screen


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """Where the release is, and the manifests that led to it."""

    bundle: Path
    digests: Mapping[str, Digest]


def run_policy(
    home: Home,
    policy_path: Path,
    source_uri: str,
    *,
    screen: Screen,
    requested_by: str | None = None,
    demo_approvals: bool = False,
    run_id: str | None = None,
) -> RunOutcome:
    """Run every stage. Raises GateClosed E-RUN-001 when a gate waits, ReleaseRefusal when the evidence is not enough."""
    policy = load_policy(policy_path)
    run = run_id or "run-" + digest_of({"policy": policy_digest(policy), "source": source_uri})[7:19]
    if demo_approvals:
        _require_demo_identities(home)
    who = tasks.enrolled_requester(home.path, policy_path, requested_by)
    chain = _Chain(home, policy_path, run, who, screen, demo_approvals)
    ingest = chain.step("ingest", lambda: tasks.run_ingest(home.path, policy_path, source_uri, run, who, screen.progress))
    protect = chain.step("protect", lambda: tasks.run_protect(home.path, policy_path, ingest, run, who, screen.progress))
    validate = chain.step("validate", lambda: tasks.run_validate(home.path, policy_path, protect, run, who, screen.progress))
    chain.gate(tasks.open_use_request(home.path, policy_path, protect, validate, run, who))
    train = chain.step("train", lambda: tasks.run_train(home.path, policy_path, protect, validate, run, who, screen.progress))
    audit = chain.step("audit", lambda: tasks.run_audit(home.path, policy_path, protect, train, run, who, screen.progress))
    digests = {"ingest": ingest, "protect": protect, "validate": validate, "train": train, "audit": audit}
    digests["report"] = chain.step(
        "report", lambda: tasks.run_report(home.path, policy_path, digests, run, who, screen.progress)
    )
    assemble = chain.step("assemble", lambda: tasks.run_assemble(home.path, policy_path, digests, run, who, screen.progress))
    chain.gate(tasks.open_release_request(home.path, policy_path, assemble, run, who))
    digests["release"] = chain.step("release", lambda: tasks.run_release(home.path, policy_path, assemble, run, who))
    return RunOutcome(home.releases_dir / policy.name / "bundle", digests)


@dataclass(frozen=True, slots=True)
class _Chain:
    home: Home
    policy_path: Path
    run: str
    requested_by: str
    screen: Screen
    demo_approvals: bool

    def step(self, name: str, call: Callable[[], Digest]) -> Digest:
        with self.screen.stage(name) as done:
            digest = call()
            done(_worth_showing(load_manifest(self.home, digest)))
        return digest

    def gate(self, request: ApprovalRequest) -> None:
        if self.demo_approvals:
            _sign_as_demo(self.home, request)
        verdict = gate_verdict(self.home, request)
        if verdict.blocks:
            raise GateClosed(
                "E-RUN-001",
                f"the {request.gate} gate is closed for request {request.id} ({verdict.reason})",
                _what_now(request, verdict),
            )
        self.screen.good(f"{request.gate + ' gate':<14}{verdict.reason}")


def _what_now(request: ApprovalRequest, verdict: Verdict) -> str:
    if "E-GATE-012" in verdict.reason:
        return "A rejection is final for these bytes: change what was rejected, in the policy or the source, and run again"
    return f"See it with privet approvals show {request.id}, sign it with privet approvals sign; running again continues"


def gate_verdict(home: Home, request: ApprovalRequest) -> Verdict:
    """Whether the gate of this request is open now."""
    return decide(home, request.digest, request.requirement, home.trust, datetime.now(UTC))


def _require_demo_identities(home: Home) -> None:
    if any(home.trust.by_name(name) is None for name in DEMO_PEOPLE):
        raise UsageError(
            "E-RUN-002",
            "this home has no demo identities, so nobody can sign for show",
            "Let enrolled people sign (privet approvals sign), or use a home made with privet init --demo-identities",
        )


def _sign_as_demo(home: Home, request: ApprovalRequest) -> None:
    from pipeline.approve import sign_request

    if not gate_verdict(home, request).blocks:
        return  # an earlier try of this run has signed
    for role in sorted(request.quorum):
        name = next((n for n, roles in DEMO_PEOPLE.items() if role in roles), None)
        if name is None:
            continue  # a role nobody in the demo holds: the gate stays closed, as it should
        reason = "demo identity: signed without a person looking"
        sign_request(home, request, name, role, "approve", reason, home.identity(name), datetime.now(UTC))


_SHOWN: Mapping[str, tuple[str, ...]] = {
    "ingest": ("files", "records", "rejects"),
    "protect": ("records", "units", "entities", "suppressed"),
    "validate": ("verdict", "evaluated", "residual_pii"),
    "train": ("mechanism", "epsilon", "delta", "holdout_accuracy", "majority_accuracy"),
    "audit": ("claimed_epsilon", "epsilon_lower_bound_gaussian_traced", "failed", "not_evaluated"),
    "report": ("figures",),
    "assemble": ("files", "verdicts_blocking"),
    "release": ("files",),
}


def _worth_showing(manifest: Manifest) -> dict[str, Scalar]:
    shown = {name.replace("_", " "): manifest.facts.get(name) for name in _SHOWN.get(manifest.stage, ())}
    if shown.get("mechanism") == "none":  # its epsilon bounds nothing: a claim that the audit has to refute
        shown = {f"claimed {name}" if name in ("epsilon", "delta") else name: value for name, value in shown.items()}
    return shown

"""The integrity claims of a bundle, one function each: it returns what it saw, or raises what is wrong.

Guarantee: pure, from bytes in memory to a sentence or an IntegrityError; no clock, no network, no database.
Imports nothing beyond `privacy` and the definitions of evidence, so that a stranger can read all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.bundle import EVIDENCE_LIST, RELEASE_STATEMENT, BundleView
from pipeline.evidence import (
    EVIDENCE_FILES,
    MODEL_FILE,
    PREDICATE_TYPES,
    PROOF_FILES,
    RELEASE_TYPE,
    STAGE_FILES,
    STAGES,
    STANDS_IN,
    STATEMENT_FILES,
    STATEMENTS,
    SUBJECTS,
    PolicyTerms,
    RunBlock,
    evidence_document,
    is_pipeline,
    moment,
    read_evidence,
    use_subject,
)
from pipeline.journal_claims import check_release_state
from privacy.accounting import MechanismTrace, recompute_epsilon
from privacy.canonical import Digest, Json, canonical_json, digest_of
from privacy.checkpoint import Checkpoint
from privacy.delegation import Delegation, open_delegation
from privacy.errors import IntegrityError
from privacy.gates import Approval, approval_of
from privacy.noise import NOISE_SOURCE, SAMPLER
from privacy.rounding import EXACT, shown_up
from privacy.signing import Person, Signed, TrustRoot, open_envelope
from privacy.verdict import Verdict

MECHANISM = "poisson_subsampled_gaussian"
NEIGHBOURING = "add-or-remove-one"
ACCOUNTANT = "privet-rdp"
# epsilon_of rounds up at 1e-6; two machines may land on neighbouring steps of that grid, never further apart.
EPSILON_TOLERANCE = 2e-6
_MAX_VERDICTS = 200
_DELEGATION = "approvals/delegation-"


# What somebody put another in place of, where the answer has to say which.
_SWAPPED = {
    "policy": "E-CLAIM-027",
    "dataset": "E-CLAIM-028",
    "model": "E-CLAIM-029",
    "trace": "E-CLAIM-030",
    "report": "E-CLAIM-031",
}


@dataclass(frozen=True, slots=True)
class Evidence:
    """The opened evidence: every signature in it has been verified against one trust root."""

    view: BundleView
    trust: TrustRoot
    root: Digest
    terms: PolicyTerms
    policy_digest: Digest
    block: RunBlock
    statements: Mapping[str, Signed]
    manifests: Mapping[str, Mapping[str, Json]]

    @property
    def signer(self) -> Person:
        return self.statements["training"].signer

    @property
    def requester_keys(self) -> frozenset[str]:
        """Public keys, in hex, of who asked: by the deciding trust root and by the bundle's, which may name keys otherwise."""
        roots = self.trust, TrustRoot.from_json(self.view.json("trust.json"))
        found = [root.by_name(self.block.requested_by) for root in roots]
        return frozenset(person.public_hex for person in found if person is not None)

    def requester_fault(self) -> str | None:
        """Why the requester can't be told from the approvers; None when they can: a key holder, or who the policy names."""
        if self.requester_keys:
            return None
        asked, policy = self.block.requested_by, self.view.json("policy.json")
        approvals = policy.get("approvals") if isinstance(policy, Mapping) else None
        named = approvals.get("requested_by") if isinstance(approvals, Mapping) else None
        alike = {person.name.strip().casefold() for person in self.trust.people}
        if asked == named and asked.strip().casefold() not in alike:
            return None
        return "E-CLAIM-035: who asked is neither a key holder of the trust root nor the one whom the policy names"

    @property
    def use_subject(self) -> Digest:
        """What the use gate must have approved for this model."""
        own = self.block.manifests
        return use_subject(self.policy_digest, own["protect"], own["validate"], self.terms.epsilon, self.terms.delta)

    def trace(self) -> MechanismTrace:
        value = self.view.json("trace.json")
        if isinstance(value, Mapping) and value.get("mechanism") not in (None, MECHANISM):
            raise _broken("E-CLAIM-016", "no epsilon can be computed: the run used no mechanism that bounds the privacy loss")
        return MechanismTrace.from_json(value)

    def verdicts(self) -> tuple[Verdict, ...]:
        recorded = self.view.json("audit/verdicts.json")
        if not isinstance(recorded, list) or len(recorded) > _MAX_VERDICTS:
            raise _broken("E-CLAIM-006", "audit/verdicts.json is not a list of verdicts")
        return tuple(Verdict.from_json(v) for v in recorded)


def check_layout(view: BundleView, *, released: bool) -> Digest:
    """Every file is there, and the listed ones have exactly their digest and size. Returns the root."""
    listed_root, listed = read_evidence(view.json(EVIDENCE_LIST))
    if view.texts[EVIDENCE_LIST] != canonical_json(evidence_document(listed)):  # 1, 1.0 and true are equal, and not the same
        raise _broken("E-CLAIM-003", f"{EVIDENCE_LIST} is not spelled as its list is")
    for path in EVIDENCE_FILES:
        if path not in view.files:
            raise _broken(_missing_code(path), f"{path} is missing")
    if released and RELEASE_STATEMENT not in view.files:
        raise _broken("E-CLAIM-002", f"{RELEASE_STATEMENT} is missing")
    if tuple(f.path for f in listed) != EVIDENCE_FILES:
        raise _broken("E-CLAIM-003", f"{EVIDENCE_LIST} does not list the files of a bundle")
    for file in listed:
        if view.files[file.path] != file:
            raise _broken("E-CLAIM-001", f"{file.path} is not the file that the evidence root covers")
    return listed_root


def _missing_code(path: str) -> str:
    if path in STATEMENT_FILES.values():
        return "E-CLAIM-032"
    return "E-CLAIM-033" if path == "journal.json" or path in PROOF_FILES.values() else "E-CLAIM-002"


def check_canonical(view: BundleView) -> str:
    documents = [path for path in view.texts if path.endswith(".json")]
    for path in documents:
        view.json(path)
    return f"{len(documents)} JSON files in canonical form"


def open_evidence(view: BundleView, trust: TrustRoot, root: Digest) -> Evidence:
    """Verify the signature of every statement and parse what they are about."""
    statements: dict[str, Signed] = {}
    for name in STATEMENTS:
        path = STATEMENT_FILES[name]
        signed = _open(view, path, trust)
        if not is_pipeline(signed.signer):
            raise _broken("E-CLAIM-004", f"{path} is not signed by the pipeline")
        if signed.predicate_type != PREDICATE_TYPES[name]:
            raise _broken("E-CLAIM-005", f"{path} is not a statement about {name}")
        statements[name] = signed
    policy = view.json("policy.json")
    blocks = [RunBlock.from_json(s.predicate.get("about")) for s in statements.values()]
    if any(block != blocks[0] for block in blocks) or len({s.signer.public_hex for s in statements.values()}) != 1:
        raise _broken("E-CLAIM-005", "the statements are about different runs or have different signers")
    manifests = _manifests(view.json("manifests.json"))
    return Evidence(view, trust, root, PolicyTerms.from_json(policy), digest_of(policy), blocks[0], statements, manifests)


def check_statements(evidence: Evidence) -> str:
    """One policy, one dataset, one model, one trace throughout, and each is the file in the bundle."""
    files = evidence.view.files
    expected: dict[str, Digest] = {
        "policy": evidence.policy_digest,
        "dataset": evidence.block.manifests["protect"],
        "model": files[MODEL_FILE].sha256,
        "trace": files["trace.json"].sha256,
        "validation": files["audit/validation.json"].sha256,
        "verdicts": files["audit/verdicts.json"].sha256,
        "redaction": files["audit/redaction.json"].sha256,
        "bounds": files["audit/bounds.json"].sha256,
        "attacks": files["audit/attacks.json"].sha256,
        "harm": files["audit/harm.json"].sha256,
    }
    for name, signed in evidence.statements.items():
        if set(signed.subject) != set(SUBJECTS[name]):
            raise _broken("E-CLAIM-005", f"the statement about {name} has other subjects than it must have")
        for subject, digest in signed.subject.items():
            if digest != expected[subject]:
                raise _broken(_SWAPPED.get(subject, "E-CLAIM-005"), f"the statement about {name} is about another {subject}")
    if evidence.block.policy != evidence.policy_digest or evidence.block.policy_name != evidence.terms.name:
        raise _broken(_SWAPPED["policy"], "the statements were made under another policy than policy.json")
    return "one policy, dataset, model and mechanism trace in all five statements"


def check_manifests(evidence: Evidence) -> str:
    """The stage results chain into each other, and the bundled files are their outputs, byte for byte."""
    own = evidence.block.manifests
    for stage in STAGES:
        manifest = evidence.manifests[stage]
        if digest_of(manifest) != own[stage] or manifest.get("stage") not in (stage, STANDS_IN.get(stage)):
            code = _SWAPPED["dataset"] if stage == "protect" else "E-CLAIM-006"
            raise _broken(code, f"manifests.json does not hold the {stage} result that the statements name")
        if manifest.get("policy_digest") != evidence.policy_digest:
            raise _broken("E-CLAIM-006", f"the {stage} result was made under another policy")
    for stage, parents in _PARENTS.items():
        inputs = _mapping(evidence.manifests[stage], "inputs").values()
        for parent in parents:
            if own[parent] not in inputs:
                code = _SWAPPED["dataset"] if parent == "protect" else "E-CLAIM-006"
                raise _broken(code, f"the {stage} result was not made from this {parent} result")
    if evidence.use_subject not in _mapping(evidence.manifests["train"], "inputs").values():
        raise _broken("E-CLAIM-006", "the train result was not made under the use approval of this validation")
    for path, (stage, output) in STAGE_FILES.items():
        ref = _mapping(evidence.manifests[stage], "outputs").get(output)
        if not isinstance(ref, Mapping) or ref.get("digest") != evidence.view.files[path].sha256:
            code = _SWAPPED["report"] if stage == "report" else "E-CLAIM-006"
            raise _broken(code, f"{path} is not what the {stage} stage wrote")
    return f"{len(STAGES)} stage results chain; {len(STAGE_FILES)} files are their outputs"


_PARENTS = {
    "protect": ("ingest",),
    "validate": ("protect",),
    "train": ("protect",),
    "audit": ("protect", "train"),
    "report": ("ingest", "protect", "validate", "train", "audit"),
}


def check_epsilon(evidence: Evidence) -> str:
    """Recompute epsilon from the trace and compare it with every place that claims one."""
    trace = evidence.trace()
    if trace.neighbouring_relation != NEIGHBOURING:
        raise _broken("E-CLAIM-007", "the mechanism trace names a neighbouring relation that this verifier does not know")
    if (trace.accountant, trace.sampler, trace.noise_source) != (ACCOUNTANT, SAMPLER, NOISE_SOURCE):
        raise _broken("E-CLAIM-022", "the mechanism trace names an accountant, sampler or source of noise that is not Privet's")
    epsilon = recompute_epsilon(trace)
    if not abs(epsilon - trace.epsilon) <= EPSILON_TOLERANCE:
        raise _broken(
            "E-CLAIM-007",
            f"the trace claims epsilon {shown_up(trace.epsilon, EXACT)}, its own parameters give {shown_up(epsilon, EXACT)}",
        )
    claim = claim_of(trace)
    for place, said in (
        ("the training statement", evidence.statements["training"].predicate.get("claim")),
        ("report.json", _mapping(evidence.view.json("report.json"), None).get("claim")),
    ):
        if digest_of(said) != digest_of(claim):
            raise _broken("E-CLAIM-007", f"{place} claims another privacy loss than the mechanism trace")
    how = f"{trace.steps} steps of noise {trace.noise_multiplier}"
    return f"epsilon {shown_up(epsilon)} at delta {trace.delta}, recomputed from {how}"


def claim_of(trace: MechanismTrace) -> dict[str, Json]:
    """The privacy claim, in the form in which statement and report must repeat it."""
    return {
        "epsilon": float(trace.epsilon),
        "delta": float(trace.delta),
        "steps": trace.steps,
        "noise_multiplier": float(trace.noise_multiplier),
        **({"noise_schedule": [list(part) for part in trace.noise_schedule]} if trace.noise_schedule else {}),
        "sampling_probability": float(trace.sampling_probability),
        "privacy_unit": trace.privacy_unit,
        "neighbouring_relation": trace.neighbouring_relation,
    }


def check_trace_follows_policy(evidence: Evidence) -> str:
    """What the trace says was done is what the policy's public constants prescribe."""
    trace, terms = evidence.trace(), evidence.terms
    probability = terms.expected_batch_size / terms.population
    held = {
        "delta": trace.delta == terms.delta,
        "population": trace.population == terms.population,
        "expected batch size": trace.expected_batch_size == terms.expected_batch_size,
        "sampling probability": abs(trace.sampling_probability - probability) <= 1e-12,
        "clipping norm": trace.clipping_norm == terms.clipping_norm,
        "noise schedule": trace.noise_schedule == terms.noise_schedule,
        "contribution bound": trace.max_records_per_unit == terms.max_records,
        "privacy unit": trace.privacy_unit == terms.unit,
        "steps in the model": trace.steps_in_model == terms.steps,
        "charged steps": trace.steps >= trace.steps_in_model,
    }
    wrong = sorted(name for name, holds in held.items() if not holds)
    if wrong:
        raise _broken("E-CLAIM-008", f"the mechanism trace contradicts the policy: {', '.join(wrong)}")
    return f"{len(held)} public constants of the trace are those of the policy"


def open_approvals(view: BundleView, trust: TrustRoot, gate: str) -> list[tuple[str, Approval]]:
    """Approvals of one gate with their file; a broken or foreign envelope is an integrity fault."""
    found = []
    for path in view.approvals:
        if path.startswith(_DELEGATION):
            continue
        approval = approval_of(_open(view, path, trust))
        if not path.startswith(f"approvals/{approval.gate}-{view.files[path].sha256.removeprefix('sha256:')[:16]}"):
            raise _broken("E-CLAIM-010", f"{path} holds another approval than its name says")
        if approval.gate == gate:
            found.append((path, approval))
    return found


def open_delegations(view: BundleView, trust: TrustRoot) -> list[Delegation]:
    """The roles that were lent for the approvals; a broken or foreign envelope is an integrity fault."""
    found = []
    for path in view.approvals:
        if path.startswith(_DELEGATION):
            _open(view, path, trust)
            if not path.startswith(_DELEGATION + view.files[path].sha256.removeprefix("sha256:")[:16]):
                raise _broken("E-CLAIM-010", f"{path} holds another delegation than its name says")
            found.append(open_delegation(view.texts[path], trust))
    return found


@dataclass(frozen=True, slots=True)
class ReleaseClaim:
    """What the pipeline signed when it released."""

    released_at: str
    checkpoint: Checkpoint


def release_predicate(evidence: Evidence, approvals: Mapping[str, Digest], released_at: str, journal: Json) -> dict[str, Json]:
    """What release.dsse.json says: root, approvals by digest, what the gate asked for, and the state of the journal."""
    gates: dict[str, Json] = {}
    for gate in ("use", "release"):
        quorum, hours = dict(evidence.terms.quorum[gate]), evidence.terms.expires_hours[gate]
        gates[gate] = {"quorum": quorum, "expires_hours": hours}
    return {
        "evidence_root": evidence.root,
        "policy_name": evidence.terms.name,
        "requested_by": evidence.block.requested_by,
        "approvals": dict(approvals),
        "gates": gates,
        "journal": journal,
        "released_at": released_at,
    }


def check_release(evidence: Evidence) -> ReleaseClaim:
    """The release statement covers this root and exactly the approvals in the bundle."""
    signed = _open(evidence.view, RELEASE_STATEMENT, evidence.trust)
    if signed.signer != evidence.signer or signed.predicate_type != RELEASE_TYPE:
        raise _broken("E-CLAIM-011", f"{RELEASE_STATEMENT} is not a release signed by this pipeline")
    approvals = {path: evidence.view.files[path].sha256 for path in evidence.view.approvals}
    match signed.predicate:
        case {"released_at": str(released_at), "journal": dict(journal)}:
            expected = release_predicate(evidence, approvals, released_at, journal)
            if signed.subject == {"evidence": evidence.root} and digest_of(signed.predicate) == digest_of(expected):
                moment(released_at)
                return ReleaseClaim(released_at, check_release_state(evidence, journal))
    raise _broken("E-CLAIM-011", f"{RELEASE_STATEMENT} does not cover this evidence and exactly these approvals")


def _open(view: BundleView, path: str, trust: TrustRoot) -> Signed:
    data = view.texts.get(path)
    if data is None:
        raise _broken("E-CLAIM-002", f"{path} is missing")
    try:
        return open_envelope(data, trust)
    except IntegrityError as error:
        raise IntegrityError(error.code, f"{path}: {error.cause}", error.remedy) from None


def _manifests(value: Json) -> dict[str, Mapping[str, Json]]:
    if isinstance(value, Mapping) and set(value) == set(STAGES):
        return {stage: _mapping(value, stage) for stage in STAGES}
    raise _broken("E-CLAIM-006", "manifests.json does not hold one result per stage")


def _mapping(value: Json, name: str | None) -> Mapping[str, Json]:
    found = value if name is None else value.get(name) if isinstance(value, Mapping) else None
    if not isinstance(found, Mapping):
        raise _broken("E-CLAIM-006", "a stage result in the evidence is malformed")
    return found


def _broken(code: str, cause: str) -> IntegrityError:
    return IntegrityError(code, cause, "Get the bundle again from its source; if it stays so, it was altered")

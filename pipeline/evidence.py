"""What counts as evidence: the files, their Merkle root, the statements, the verdicts that a release needs.

Guarantee: pure definitions, shared by the stage that assembles, the stage that releases and the offline
verifier, so the three can't disagree about what is required. Imports nothing beyond `privacy`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, TypedDict

from privacy.canonical import Digest, Json, canonical_json, digest_of, is_digest, merkle_root
from privacy.checkpoint import COSIGNATURE, Verifier
from privacy.errors import IntegrityError, PolicyError
from privacy.gates import GateName, Requirement, Risk
from privacy.moments import moment_of
from privacy.noise_schedule import Schedule, schedule_of
from privacy.signing import Person, TrustRoot

PIPELINE_ROLE: Final = "pipeline"
WITNESS_ROLE: Final = "witness"  # cosigns checkpoints of the journal, elsewhere; decides nothing at a gate
StatementName = Literal["dataset", "validation", "training", "audit", "redaction"]
STATEMENTS: Final[tuple[StatementName, ...]] = ("dataset", "validation", "training", "audit", "redaction")
PREDICATE_TYPES: Final[Mapping[str, str]] = {name: f"https://privet.dev/predicate/{name}/v1" for name in STATEMENTS}
RELEASE_TYPE: Final = "https://privet.dev/predicate/release/v1"
STAGES: Final = ("ingest", "protect", "validate", "train", "audit", "report")
# Records mended from quarantine are as good a source: a stage that may stand in for another.
STANDS_IN: Final[Mapping[str, str]] = {"ingest": "ingest_replay"}

# Bundle files that are, byte for byte, an output of a journalled stage: path → (stage, output).
STAGE_FILES: Final[Mapping[str, tuple[str, str]]] = {
    "model/config.json": ("train", "model_config"),
    "trace.json": ("train", "trace"),
    "audit/metrics.json": ("train", "metrics"),
    "audit/coins.json": ("train", "coins"),
    "audit/verdicts.json": ("audit", "verdicts"),
    "audit/bounds.json": ("audit", "bounds"),
    "audit/attacks.json": ("audit", "attacks"),
    "audit/redaction.json": ("audit", "redaction"),
    "audit/harm.json": ("audit", "harm"),
    "audit/validation.json": ("validate", "validation"),
    "report.html": ("report", "report_html"),
    "report.zh.html": ("report", "report_zh"),
    "report.json": ("report", "report_json"),
}
MODEL_FILE: Final = "model.safetensors"
STATEMENT_FILES: Final[Mapping[str, str]] = {name: f"statements/{name}.dsse.json" for name in STATEMENTS}
PROOF_FILES: Final[Mapping[str, str]] = {stage: f"proofs/{stage}.tlog-proof" for stage in STAGES}
# Everything under the root. A release needs all of it; what is missing is a reason to refuse.
EVIDENCE_FILES: Final[tuple[str, ...]] = tuple(
    sorted(
        (
            MODEL_FILE,
            "policy.json",
            "manifests.json",
            "CARD.md",
            "bom.cdx.json",
            "spdx.json",
            "journal.json",
            "trust.json",
            *STAGE_FILES,
            *STATEMENT_FILES.values(),
            *PROOF_FILES.values(),
        )
    )
)

# What each statement is about; the verifier asks for exactly these subjects.
SUBJECTS: Final[Mapping[str, tuple[str, ...]]] = {
    "dataset": ("policy", "dataset"),
    "validation": ("policy", "dataset", "validation"),
    "training": ("policy", "dataset", "model", "trace"),
    "audit": ("policy", "dataset", "model", "verdicts", "bounds", "attacks", "harm"),
    "redaction": ("policy", "model", "redaction"),
}

# Verdicts that must be there and passed. One that is missing counts as not evaluated, and blocks.
REQUIRED_VERDICTS: Final[tuple[str, ...]] = (
    "validation",
    "probe.noise_scale",
    "probe.clipping",
    "probe.noise_independence",
    "probe.batch_size_law",
    "probe.participation_law",
    "probe.divisor",
    "probe.step_count",
    "probe.size_independence",
    "probe.rank_noise",
    "probe.accumulation",
    "audit.epsilon_lower_bound",
    "audit.ledger_match",
    "audit.canary_reveal",
    "audit.membership",
    "audit.utility",
    "audit.output_scan",
)


class Reader:
    """Typed access to nested JSON; a wrong type raises TypeError."""

    def __init__(self, value: Json) -> None:
        self._value = value

    def at(self, *path: str) -> Json:
        value = self._value
        for name in path:
            if not isinstance(value, Mapping):
                raise TypeError
            value = value[name]
        return value

    def text(self, *path: str) -> str:
        value = self.at(*path)
        if not isinstance(value, str):
            raise TypeError
        return value

    def whole(self, *path: str) -> int:
        value = self.at(*path)
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError
        return value

    def real(self, *path: str) -> float:
        value = self.at(*path)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise TypeError
        return float(value)

    def counts(self, *path: str) -> dict[str, int]:
        value = self.at(*path)
        if not isinstance(value, Mapping):
            raise TypeError
        return {name: self.whole(*path, name) for name in value}

    def shares(self, *path: str) -> list[tuple[float, float]]:
        """Pairs of numbers; none where nothing is said."""
        try:
            value = self.at(*path)
        except KeyError:
            return []
        if not isinstance(value, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
            raise TypeError
        return [(Reader({"n": share}).real("n"), Reader({"n": factor}).real("n")) for share, factor in value]

    def releases_embeddings(self) -> bool:
        """A policy from before there was such a field releases none."""
        outputs = self._value.get("outputs", {}) if isinstance(self._value, Mapping) else None
        if not isinstance(outputs, Mapping):
            raise TypeError
        return outputs.get("embeddings", "withheld") != "withheld"

    def plants_secrets(self) -> bool:
        """A policy from before there were planted secrets has none."""
        audit = self.at("audit")
        if not isinstance(audit, Mapping):
            raise TypeError
        return audit.get("secrets") is not None

    def risk_class(self) -> _RiskClass:
        """What approvals say of risk, officer and break-glass; a policy from before they were there has none of them."""
        said = self.at("approvals")
        if not isinstance(said, Mapping):
            raise TypeError
        risk, officer, glass = said.get("risk", "low"), said.get("officer", "privacy_officer"), said.get("break_glass")
        roles = glass.get("roles") if isinstance(glass, Mapping) else []
        if risk not in ("low", "high") or not isinstance(officer, str) or not isinstance(roles, list):
            raise TypeError
        return {"risk": risk, "officer": officer, "break_glass": tuple(str(role) for role in roles)}


class _RiskClass(TypedDict):
    risk: Risk
    officer: str
    break_glass: tuple[str, ...]


def _about_harm(policy: Reader) -> bool:
    """Groups to compare, a classifier of what is written, or a model that reads texts, in which terms can be swapped."""
    try:
        harm = {name: policy.at("audit", "harm", name) for name in ("groups", "classifier", "swaps")}
    except KeyError:  # of a policy whose words are missing the most is asked
        return True
    reads = policy.text("recipe", "model") not in ("image_cnn", "causal_lm")
    return harm["groups"] != [] or harm["classifier"] is not None or (harm["swaps"] is not False and reads)


# Verdicts that a policy asks for besides: by name, whether it does.
_ASKED: Final[Mapping[str, Callable[[Reader], bool]]] = {
    "audit.group_harm": _about_harm,
    "audit.memorisation": lambda policy: policy.text("recipe", "model") == "causal_lm",
    "audit.exposure": lambda policy: policy.plants_secrets(),
    "audit.embeddings": lambda policy: policy.releases_embeddings(),
}


def required_verdicts(policy: Json) -> tuple[str, ...]:
    """Those of every policy, and those of what this one asks for. policy: the value of policy.json."""
    read = Reader(policy)
    return (*REQUIRED_VERDICTS, *(name for name, asked in _ASKED.items() if asked(read)))


@dataclass(frozen=True, slots=True)
class RunDigests:
    """Manifest digests of one run. `report` is None until the report stage has run."""

    ingest: Digest
    protect: Digest
    validate: Digest
    train: Digest
    audit: Digest
    report: Digest | None = None

    def to_json(self) -> dict[str, Digest]:
        named = {name: getattr(self, name) for name in STAGES}
        return {name: digest for name, digest in named.items() if digest is not None}


@dataclass(frozen=True, slots=True)
class EvidenceFile:
    """One leaf of the root; `sha256` is over the plain bytes as they leave."""

    path: str
    sha256: Digest
    size: int

    def to_json(self) -> dict[str, Json]:
        return {"path": self.path, "sha256": self.sha256, "size": self.size}


def evidence_root(files: Iterable[EvidenceFile]) -> Digest:
    """Merkle root (RFC 6962 section 2.1) over the canonical leaves, sorted by path."""
    return merkle_root([canonical_json(f.to_json()) for f in sorted(files, key=lambda f: f.path)])


def evidence_document(files: Sequence[EvidenceFile]) -> dict[str, Json]:
    """What evidence.json holds."""
    ordered = sorted(files, key=lambda f: f.path)
    return {"evidence": 1, "root": evidence_root(ordered), "files": [f.to_json() for f in ordered]}


def read_evidence(value: Json) -> tuple[Digest, tuple[EvidenceFile, ...]]:
    """Root and files of evidence.json. Raises IntegrityError E-EVID-001 unless the root is that of the files."""
    match value:
        case {"evidence": 1, "root": str(root), "files": list(entries), **rest} if not rest:
            files = tuple(_evidence_file(entry) for entry in entries)
            paths = [f.path for f in files]
            if paths == sorted(set(paths)) and evidence_root(files) == root:
                return root, files
    raise IntegrityError("E-EVID-001", "evidence.json does not give the root of its own list", "Get the bundle again")


def _evidence_file(value: Json) -> EvidenceFile:
    match value:
        case {"path": str(path), "sha256": str(sha256), "size": int(size), **rest} if not rest and is_digest(sha256):
            return EvidenceFile(path, sha256, size)
    raise IntegrityError("E-EVID-001", "evidence.json holds an entry that is not a file", "Get the bundle again")


def use_subject(policy: Digest, protect: Digest, validation: Digest, epsilon: float, delta: float) -> Digest:
    """What the use gate approves: training on exactly this dataset, so validated, at this epsilon and delta.

    policy: policy digest. protect, validation: manifest digests.
    """
    return digest_of(
        {
            "approves": "use",
            "policy": policy,
            "protect": protect,
            "validate": validation,
            "epsilon": float(epsilon),
            "delta": float(delta),
        }
    )


@dataclass(frozen=True, slots=True)
class RunBlock:
    """The part every statement carries; statements of one bundle must agree on it."""

    policy: Digest
    policy_name: str
    run: str
    requested_by: str
    manifests: Mapping[str, Digest]

    def to_json(self) -> dict[str, Json]:
        return {
            "policy": self.policy,
            "policy_name": self.policy_name,
            "run": self.run,
            "requested_by": self.requested_by,
            "manifests": dict(self.manifests),
        }

    @classmethod
    def from_json(cls, value: Json) -> RunBlock:
        match value:
            case {
                "policy": str(policy),
                "policy_name": str(name),
                "run": str(run),
                "requested_by": str(requested_by),
                "manifests": dict(manifests),
                **rest,
            } if not rest:
                if set(manifests) == set(STAGES) and all(is_digest(m) for m in manifests.values()):
                    return cls(policy, name, run, requested_by, {k: str(v) for k, v in manifests.items()})
        raise IntegrityError("E-EVID-002", "a statement does not say which run it is about", "Get the bundle again")


@dataclass(frozen=True, slots=True)
class PolicyTerms:
    """The terms of a policy that a verifier needs, read from policy.json without the policy model."""

    name: str
    dataset: str
    unit: str
    max_records: int
    mechanism: str
    steps: int
    clipping_norm: float
    epsilon: float
    delta: float
    population: int
    expected_batch_size: int
    quorum: Mapping[str, Mapping[str, int]]
    expires_hours: Mapping[str, int]
    noise_schedule: Schedule = ()
    risk: Risk = "low"
    officer: str = "privacy_officer"
    break_glass: tuple[str, ...] = ()

    def requirement(self, gate: GateName, requested_by: str) -> Requirement:
        asked = self.quorum[gate], self.expires_hours[gate], requested_by
        return Requirement(gate, *asked, self.name, self.risk, self.officer, self.break_glass)

    @classmethod
    def from_json(cls, value: Json) -> PolicyTerms:
        """Raises IntegrityError E-EVID-003 for anything but a policy."""
        try:
            return _terms(Reader(value))
        except (KeyError, TypeError, ValueError, PolicyError):
            raise IntegrityError("E-EVID-003", "policy.json is not a policy", "Get the bundle again") from None


def _terms(policy: Reader) -> PolicyTerms:
    return PolicyTerms(
        name=policy.text("name"),
        dataset=policy.text("dataset"),
        unit=policy.text("privacy_unit", "name"),
        max_records=policy.whole("privacy_unit", "max_records"),
        mechanism=policy.text("recipe", "mechanism"),
        steps=policy.whole("recipe", "steps"),
        clipping_norm=policy.real("recipe", "clipping_norm"),
        epsilon=policy.real("budget", "epsilon"),
        delta=policy.real("budget", "delta"),
        population=policy.whole("budget", "population"),
        expected_batch_size=policy.whole("budget", "expected_batch_size"),
        quorum={gate: policy.counts("approvals", gate, "quorum") for gate in ("use", "release")},
        expires_hours={gate: policy.whole("approvals", gate, "expires_hours") for gate in ("use", "release")},
        noise_schedule=schedule_of(policy.shares("recipe", "noise_schedule"), policy.whole("recipe", "steps")),
        **policy.risk_class(),
    )


def is_pipeline(person: Person) -> bool:
    """The pipeline signs statements, never approvals: a machine's key is no person's decision."""
    return PIPELINE_ROLE in person.roles


def witnesses_of(trust: TrustRoot) -> tuple[Verifier, ...]:
    """Whose cosignatures a release needs: every key holder whom the trust root calls a witness."""
    return tuple(Verifier(p.name, p.public_hex, COSIGNATURE) for p in trust.people if WITNESS_ROLE in p.roles)


def moment(text: str) -> datetime:
    """A time with a zone. Raises IntegrityError E-EVID-004."""
    if (value := moment_of(text)) is None:
        raise IntegrityError("E-EVID-004", "a time in the evidence is malformed", "Get the bundle again")
    return value

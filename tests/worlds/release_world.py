"""A world that makes a whole fake run in about a second: real home, store, journal and ledger; no torch, no Presidio.

`World()` is an honest run. `Lies` says where the pipeline itself is dishonest: such a bundle has valid signatures
everywhere (`force_bundle` writes it without asking), so that only recomputing can find the lie.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from unittest import mock

from pipeline import assemble as assembling
from pipeline import release as releasing
from pipeline.approve import request_release, request_use, sign_request, use_subject
from pipeline.bundle import RELEASE_STATEMENT, view_of, write_files
from pipeline.claims import check_layout, open_evidence
from pipeline.coin_claims import coins_envelope, commitment_of
from pipeline.evidence import MODEL_FILE, REQUIRED_VERDICTS, RunDigests, required_verdicts
from pipeline.home import Home, add_person
from pipeline.paper_facts import ReleaseFacts
from pipeline.report import report
from pipeline.stage import ArtifactRef, StageContext, StageOutput, StageResult, run_stage
from pipeline.training_budget import budget_scope
from privacy.accounting import MechanismTrace, calibrate_noise, recompute_epsilon
from privacy.canonical import Digest, Json, Scalar, canonical_json, digest_bytes, digest_of
from privacy.noise import NOISE_SOURCE, SAMPLER
from privacy.policy import Policy
from privacy.policy_file import policy_digest
from privacy.signing import Custody, Person, SigningKey, TrustRoot
from tests.worlds.audit_documents import attacks_of, bounds_of, harm_of, redaction_of
from tests.worlds.policies import make_policy

PEOPLE: Mapping[str, tuple[str, ...]] = {
    "demo_engineer": ("engineer", "steward"),  # the requester holds a role of the quorum: only the rule keeps them out
    "grace": ("steward",),
    "ada": ("privacy_officer", "steward"),
    "alan": ("auditor",),
}
COINS: dict[str, Json] = {"canaries": 40, "drawn": "5a5a5a5a5a", "salt": "07" * 32}  # of the policy's 40 canaries
COINS_COMMITMENT = str(commitment_of(COINS))
MODEL = b"\x10\x00\x00\x00\x00\x00\x00\x00" + b'{"w":{}}' + bytes(range(256)) * 4


@dataclass(frozen=True)
class Lies:
    """What a dishonest pipeline says. Every field empty: honest."""

    trace: Mapping[str, Json] = field(default_factory=dict)
    verdicts: Mapping[str, str] = field(default_factory=dict)  # name → outcome; "absent" leaves it out
    validation: str = "passed"
    claim_in_report: Mapping[str, Json] = field(default_factory=dict)
    without_use_approval: bool = False
    use_approval_after_training: bool = False
    coins_after_training: bool = False
    coins_by: str = "alan"  # "pipeline" for the pipeline's own key
    coins_signed: Digest | None = None  # another commitment than the one that is used
    coins_revealed: Mapping[str, Json] = field(default_factory=dict)
    gate_bound: float = 1.2
    trained_on: Digest | None = None  # another protect result than the one that was validated
    kinder_paper: str = ""  # name of the writer in pipeline.assemble that is told a smaller epsilon
    without: tuple[str, ...] = ()  # outputs that the audit stage did not leave
    expectation: str = "passed"  # the outcome inside the projection of the validation
    bounds: Mapping[str, Json] = field(default_factory=dict)  # parts of the audit's documents that say something else
    redaction: Mapping[str, Json] = field(default_factory=dict)
    membership: Mapping[str, Json] = field(default_factory=dict)
    attacks: Mapping[str, Json] = field(default_factory=dict)
    harm: Mapping[str, Json] = field(default_factory=dict)
    ledger_key_of_coins: str = ""  # which the journal says that the coins were used under
    without_reveal: bool = False
    requested_by: str = "demo_engineer"
    released_hours: float = 0.0  # how much later than now the release says that it was
    keep_epsilon: bool = False  # do not recompute the trace's epsilon after `trace` was changed


class World:
    """An honest home with three people; `run()` goes as far as the assembled evidence."""

    def __init__(
        self, path: Path, lies: Lies | None = None, custody: Custody = "own", witness: str = "", **changes: object
    ) -> None:
        """witness: enrol one of this name, so that no release does without its cosignature."""
        self.path = path
        self.lies = lies or Lies()
        self.policy: Policy = make_policy(**changes)
        self.home = Home.create(path / "home")
        self.keys = {name: SigningKey.generate() for name in PEOPLE}
        for name, roles in PEOPLE.items():
            add_person(self.home, Person(name, self.keys[name].public_hex, roles, custody))
        self.witness_key = SigningKey.generate()
        if witness:
            add_person(self.home, Person(witness, self.witness_key.public_hex, ("witness",)))
        self.now = datetime.now(UTC)
        self._ledger_key = "train-1"
        self._claimed = 0.0
        self.ctx = self.context()

    def context(self, run_id: str = "run-1", requested_by: str = "") -> StageContext:
        digest = policy_digest(self.policy)
        return StageContext(
            self.home, self.policy, digest, run_id, requested_by or self.lies.requested_by, clock=lambda: self.now
        )

    @property
    def trust(self) -> TrustRoot:
        return self.home.trust

    def run(self) -> World:
        """ingest … assemble, with the use gate signed; the release gate is asked, nobody has answered."""
        ingest = self._stage(
            "ingest", {"source": digest_of("source")}, {"raw": self._sealed("raw")}, {"records": 90, "rejects": 2}
        )
        protect = self._protect(ingest)
        validate = self._validate(protect)
        if not self.lies.without_use_approval and not self.lies.use_approval_after_training:
            self._approve_use(protect, validate)
        train = self._train(self.lies.trained_on or protect, validate)
        if self.lies.use_approval_after_training:
            self._approve_use(protect, validate)
        if self.lies.coins_after_training:
            self.home.journal.append("canary_commitment", self._coins_used())
        audit = self._audit(protect, train)
        digests = RunDigests(ingest, protect, validate, train, audit)
        self.digests = replace(digests, report=self._report(digests))
        with self._kinder():
            self.assembled = assembling.assemble(self.ctx, self.digests)
        self.request = request_release(self.ctx, self.assembled.digest)
        return self

    @property
    def root(self) -> Digest:
        return str(self.assembled.manifest.facts["evidence_root"])

    @property
    def use_subject(self) -> Digest:
        budget = self.policy.budget
        return use_subject(self.ctx.policy_digest, self.digests.protect, self.digests.validate, budget.epsilon, budget.delta)

    def sign(self, name: str, role: str, decision: str = "approve", at: datetime | None = None) -> None:
        moment = at or self.now
        assert decision in ("approve", "reject")
        sign_request(self.home, self.request, name, role, decision, "read it, agreed", self.keys[name], moment)  # type: ignore[arg-type]

    def sign_quorum(self) -> World:
        self.sign("grace", "steward")
        self.sign("ada", "privacy_officer")
        return self

    def another_run(self) -> World:
        """A released run of the same pipeline and people: the best material for a swap."""
        second = World.__new__(World)
        second.__dict__.update(self.__dict__)
        second.policy = self.policy.model_copy(update={"name": "other_chat", "dataset": "other_chat"})
        second.ctx = second.context("run-2")
        second._ledger_key = "train-2"
        second.run().sign_quorum()
        return second

    def release(self) -> releasing.ReleaseResult:
        return releasing.release(self.ctx, self.assembled.digest)

    def force_bundle(self, folder: Path, forge: Callable[[dict[str, bytes]], None] | None = None) -> Path:
        """The bundle a dishonest pipeline would write: no check, real signatures over whatever there is."""
        case = releasing._Case.load(self.ctx, self.assembled.digest)
        if forge is not None:
            forge(case.files)
        model = self.home.store.read_sealed(case.manifest.outputs[MODEL_FILE])
        view = view_of({**case.files, MODEL_FILE: model})
        evidence = open_evidence(view, self.trust, check_layout(view, released=False))
        statement = releasing._sign(self.ctx, evidence, self.now + timedelta(hours=self.lies.released_hours))
        write_files(folder, {**case.files, MODEL_FILE: model, RELEASE_STATEMENT: statement}, {})
        return folder

    def _kinder(self) -> AbstractContextManager[object]:
        """One paper is written as if epsilon were a tenth of what it is."""
        name = self.lies.kinder_paper
        if not name:
            return nullcontext()
        writer = getattr(assembling, name)

        def lying(about: ReleaseFacts) -> object:
            assert about.trace is not None
            return writer(replace(about, trace=replace(about.trace, epsilon=about.trace.epsilon / 10)))

        return mock.patch.object(assembling, name, lying)

    def later(self, hours: float) -> None:
        self.now += timedelta(hours=hours)

    # The stages, faked.

    def _protect(self, ingest: Digest) -> Digest:
        facts: dict[str, Scalar] = {"records": 88, "units": 40, "entities": 31, "suppressed": 0}
        facts |= {"entities.PERSON": 17, "entities.EMAIL_ADDRESS": 9, "entities.CREDIT_CARD": 5}
        return self._stage("protect", {"ingest": ingest}, {"protected": self._sealed("protected")}, facts)

    def _validate(self, protect: Digest) -> Digest:
        results: list[Json] = [{"expectation": "labels", "outcome": self.lies.expectation}]
        projection: Json = {"verdict": self.lies.validation, "results": results}
        outputs = {"validation": self._plain("validate/validation.json", projection)}
        facts: dict[str, Scalar] = {"verdict": self.lies.validation, "expectations": 6, "evaluated": 6, "failed": 0}
        return self._stage("validate", {"protect": protect}, outputs, facts)

    def _approve_use(self, protect: Digest, validate: Digest) -> None:
        request = request_use(self.ctx, protect, validate)
        sign_request(self.home, request, "grace", "steward", "approve", "purpose is fine", self.keys["grace"], self.now)

    def _train(self, protect: Digest, validate: Digest) -> Digest:
        budget = self.policy.budget
        use = use_subject(self.ctx.policy_digest, protect, validate, budget.epsilon, budget.delta)
        outputs = {
            "model": self.home.store.put_sealed(MODEL, dataset=self.policy.dataset, path="model", data_class="model"),
            "model_config": self._plain(
                "train/config.json", {"model": "text_mlp", "labels": list(self.policy.expectations.labels)}
            ),
            "metrics": self._plain("train/metrics.json", {"utility": {"holdout_accuracy": 0.81, "majority_accuracy": 0.44}}),
        }
        outputs["coins"] = self.home.store.put_plain(
            self._coins_envelope(), dataset=self.policy.dataset, path="train/coins.json", data_class="evidence"
        )
        if not self.lies.coins_after_training:
            self.home.journal.append("canary_commitment", self._coins_used())
        facts: dict[str, Scalar] = {
            "canary_commitment": COINS_COMMITMENT,
            "steps": self.policy.recipe.steps,
            "holdout_accuracy": 0.81,
            "majority_accuracy": 0.44,
        }
        if self.policy.recipe.mechanism == "dp_sgd":
            trace = self._trace()
            outputs["trace"] = self._plain("train/trace.json", trace.to_json())
            facts["epsilon"] = trace.epsilon
        return self._stage("train", {"protect": protect, "use": use}, outputs, facts)

    def _coins_envelope(self) -> bytes:
        key = self.home.key if self.lies.coins_by == "pipeline" else self.keys[self.lies.coins_by]
        signed = self.lies.coins_signed or COINS_COMMITMENT
        return coins_envelope(key, self.home.key.public_hex, signed, self.policy.audit.canaries, self.now)

    def _coins_used(self) -> dict[str, Json]:
        facts: dict[str, Json] = {"run": self.ctx.run_id, "ledger_key": self._ledger_key, "commitment": COINS_COMMITMENT}
        facts |= {"ledger_key": self.lies.ledger_key_of_coins or self._ledger_key}
        return facts | {"drawn_by": self.lies.coins_by, "envelope": digest_bytes(self._coins_envelope())}

    def _trace(self) -> MechanismTrace:
        budget, steps = self.policy.budget, self.policy.recipe.steps
        noise = _noise(budget.epsilon, budget.delta, budget.sampling_probability, steps)
        ledger = self.home.ledger
        ledger.open_scope(budget_scope(self.policy), self.policy.privacy_unit.name, budget.cap_epsilon, budget.delta)
        ledger.reserve(self._ledger_key, budget_scope(self.policy), budget.sampling_probability, noise, steps)
        spend = ledger.spend(self._ledger_key)
        if spend is None or spend.settled is None:  # a second run() of the same world finds its training
            ledger.lease(self._ledger_key, steps)
            ledger.settle(self._ledger_key, steps)
        honest = MechanismTrace(
            mechanism="poisson_subsampled_gaussian",
            privacy_unit=self.policy.privacy_unit.name,
            neighbouring_relation="add-or-remove-one",
            noise_multiplier=noise,
            clipping_norm=self.policy.recipe.clipping_norm,
            sampling_probability=budget.sampling_probability,
            expected_batch_size=budget.expected_batch_size,
            population=budget.population,
            max_records_per_unit=self.policy.privacy_unit.max_records,
            steps=steps,
            steps_in_model=steps,
            delta=budget.delta,
            epsilon=0.0,
            accountant="privet-rdp",
            ledger_key=self._ledger_key,
            sampler=SAMPLER,
            noise_source=NOISE_SOURCE,
        )
        honest = replace(honest, epsilon=recompute_epsilon(honest))
        told = replace(honest, **dict(self.lies.trace))  # type: ignore[arg-type]
        if not self.lies.keep_epsilon and "epsilon" not in self.lies.trace:
            told = replace(told, epsilon=recompute_epsilon(told))
        self._claimed = told.epsilon
        return told

    def _audit(self, protect: Digest, train: Digest) -> Digest:
        verdicts: list[Json] = []
        asked = required_verdicts(self.policy.canonical())  # type: ignore[arg-type]
        for name in dict.fromkeys((*REQUIRED_VERDICTS, *asked)):
            outcome = self.lies.verdicts.get(name, "passed")
            if name != "validation" and outcome != "absent":
                verdicts.append({"check": name, "outcome": outcome, "reason": "as seen in the simulation", "evidence": None})
        reveal: dict[str, Json] = {} if self.lies.without_reveal else {"canary_opening": {**COINS, **self.lies.coins_revealed}}
        bounds = {**bounds_of(self.policy, self._claimed, self.lies.gate_bound), **reveal, **self.lies.bounds}
        attacks = attacks_of(self.policy, self._claimed)
        attacks |= {"membership": {**attacks["membership"], **self.lies.membership}, **self.lies.attacks}  # type: ignore[dict-item]
        outputs = {
            "verdicts": self._plain("audit/verdicts.json", verdicts),
            "bounds": self._plain("audit/bounds.json", bounds),
            "redaction": self._plain("audit/redaction.json", {**redaction_of(self.policy), **self.lies.redaction}),
            "attacks": self._plain("audit/attacks.json", attacks),
            "harm": self._plain("audit/harm.json", {**harm_of(self.policy), **self.lies.harm}),
        }
        left = {name: ref for name, ref in outputs.items() if name not in self.lies.without}
        return self._stage("audit", {"protect": protect, "train": train}, left, {"passed": 11})

    def _report(self, digests: RunDigests) -> Digest:
        if not self.lies.claim_in_report:
            return report(self.ctx, digests).digest
        honest = report(replace(self.ctx, run_id="aside"), digests).manifest  # its page, with another claim written in
        import json

        said = json.loads(self.home.store.read_plain(honest.outputs["report_json"]))
        said["claim"] |= dict(self.lies.claim_in_report)
        pages = {name: honest.outputs[name] for name in ("report_html", "report_zh")}
        outputs = {**pages, "report_json": self._plain("report/report.json", said)}
        inputs = {name: digest for name, digest in digests.to_json().items() if name != "report"}
        return self._stage("report", inputs, outputs, {})

    def _stage(
        self, name: str, inputs: Mapping[str, Digest], outputs: Mapping[str, ArtifactRef], facts: Mapping[str, Scalar]
    ) -> Digest:
        result: StageResult = run_stage(self.ctx, name, inputs, lambda: StageOutput(outputs, facts))
        return result.digest

    def _sealed(self, name: str) -> ArtifactRef:
        return self.home.store.put_sealed(b"PAR1", dataset=self.policy.dataset, path=name, data_class=name)

    def _plain(self, path: str, value: Json) -> ArtifactRef:
        return self.home.store.put_plain(canonical_json(value), dataset=self.policy.dataset, path=path, data_class="evidence")


@lru_cache
def _noise(epsilon: float, delta: float, sampling_probability: float, steps: int) -> float:
    return calibrate_noise(epsilon, delta, sampling_probability, steps)

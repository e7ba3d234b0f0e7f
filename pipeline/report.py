"""The evidence report of a run: one HTML page for people and one JSON document with the same fields.

Guarantee: every figure is read from a stored document and carries its digest; what was not measured is said to be so; the
privacy claim is the one of the mechanism trace. Holds counts, names and digests; no record, no text, no subject.
Not covered: approvals given after the page was made (the release gate approves the page too; they lie in the bundle).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.assemble import read_trace
from pipeline.claims import claim_of
from pipeline.evidence import RunDigests, is_pipeline, use_subject
from pipeline.images import NOT_SEARCHED
from pipeline.report_anchor import how_to_verify
from pipeline.report_page import Basis, Figure, Report, Section
from pipeline.report_plots import bounds_plot, budget_plot, counts_plot, utility_plot
from pipeline.report_slip import slip_figures
from pipeline.slip_through import SENTENCE
from pipeline.stage import Manifest, StageContext, StageOutput, StageResult, load_manifest, run_stage
from pipeline.training_budget import budget_scope
from privacy.accounting import MechanismTrace, privacy_statement
from privacy.canonical import Digest, Json, Scalar, digest_of, parse_json
from privacy.errors import PrivetError
from privacy.gates import Approval
from privacy.rounding import shown_down, shown_fact, shown_up
from privacy.signing import Person
from privacy.verdict import Verdict

__all__ = ["RunDigests", "report"]


def report(ctx: StageContext, digests: RunDigests) -> StageResult:
    """Write the report. Outputs: report_html, report_json (plain). digests: of the stages before; `report` is ignored."""
    stages = {name: digest for name, digest in digests.to_json().items() if name != "report"}
    request = digest_of({"requested_by": ctx.requested_by})
    inputs = {**stages, "trust": ctx.home.trust.digest, "request": request}

    def body() -> StageOutput:
        page = _Facts.load(ctx, stages).report()
        store, dataset = ctx.home.store, ctx.policy.dataset
        refs = {
            "report_html": store.put_plain(page.html_bytes(), dataset=dataset, path="report/report.html", data_class="report"),
            "report_json": store.put_plain(page.json_bytes(), dataset=dataset, path="report/report.json", data_class="report"),
        }
        return StageOutput(refs, {"sections": len(page.sections), "figures": sum(len(s.figures) for s in page.sections)})

    return run_stage(ctx, "report", inputs, body)


@dataclass(frozen=True, slots=True)
class _Document:
    """A stored JSON document and its digest; `value` is None where the stage left none."""

    value: Json
    digest: Digest | None

    def numbers(self) -> Iterator[tuple[str, float]]:
        yield from _numbers("", self.value)


def _numbers(path: str, value: Json) -> Iterator[tuple[str, float]]:
    """Dotted path and value of every number, in a stable order."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return
    if isinstance(value, int | float):
        yield path, float(value)
    elif isinstance(value, Mapping):
        for name in sorted(value):
            yield from _numbers(f"{path}.{name}" if path else name, value[name])
    else:
        for index, item in enumerate(value):
            yield from _numbers(f"{path}.{index}" if path else str(index), item)


@dataclass(frozen=True, slots=True)
class _Facts:
    """All that a report is made from, loaded once."""

    ctx: StageContext
    manifests: Mapping[str, Manifest]
    digests: Mapping[str, Digest]
    trace: MechanismTrace | None
    documents: Mapping[str, _Document]
    verdicts: tuple[Verdict, ...]
    approvals: tuple[Approval, ...]

    @classmethod
    def load(cls, ctx: StageContext, digests: Mapping[str, Digest]) -> _Facts:
        manifests = {stage: load_manifest(ctx.home, digest) for stage, digest in digests.items()}
        wanted = {
            "trace": ("train", "trace"),
            "metrics": ("train", "metrics"),
            "verdicts": ("audit", "verdicts"),
            "bounds": ("audit", "bounds"),
            "redaction": ("audit", "redaction"),
            "validation": ("validate", "validation"),
            "slip_through": ("protect", "slip_through"),
        }
        documents = {name: _document(ctx, manifests[stage], output) for name, (stage, output) in wanted.items()}
        recorded = documents["verdicts"].value
        verdicts = tuple(Verdict.from_json(v) for v in recorded) if isinstance(recorded, list) else ()
        ref = manifests["train"].outputs.get("trace")
        trace = None if ref is None else read_trace(ctx.home.store.read_plain(ref))
        budget = ctx.policy.budget
        subject = use_subject(ctx.policy_digest, digests["protect"], digests["validate"], budget.epsilon, budget.delta)
        approvals = tuple(ctx.home.approvals.approvals(subject, ctx.home.trust))
        return cls(ctx, manifests, digests, trace, documents, verdicts, approvals)

    def report(self) -> Report:
        sections = (
            self._identity(),
            self._claim(),
            self._audit(),
            self._personal_data(),
            self._validation(),
            self._utility(),
            self._decisions(),
            self._lifecycle(),
            how_to_verify(self.ctx.home.journal),
        )
        claim = None if self.trace is None else claim_of(self.trace)
        made = self.ctx.clock().astimezone(UTC).isoformat(timespec="seconds")
        return Report(f"{self.ctx.policy.name}: what this model is based on", made, claim, self._headline(), sections)

    def _headline(self) -> tuple[Figure, ...]:
        trace, budget = self.trace, self.ctx.policy.budget
        epsilon = "none" if trace is None else shown_up(trace.epsilon)
        passed = sum(v.outcome == "passed" for v in self.verdicts)
        found = self.manifests["protect"].facts.get("entities")
        return (
            Figure("epsilon of this model", epsilon, "measured" if trace else "not applicable"),
            Figure("epsilon the policy allows", shown_up(budget.epsilon), "configured"),
            Figure("audit verdicts passed", f"{passed} of {len(self.verdicts)}", "measured"),
            Figure("personal data found", "not counted" if found is None else f"{found:,}", "measured"),
        )

    def _identity(self) -> Section:
        policy, ctx = self.ctx.policy, self.ctx
        figures = [
            Figure("policy", f"{policy.name} (layout {policy.version})", "configured", ctx.policy_digest),
            Figure("purpose", policy.purpose, "asserted by a person", ctx.policy_digest),
            Figure("controller", policy.controller, "asserted by a person", ctx.policy_digest),
            Figure("dataset", policy.dataset, "configured", self.digests["protect"]),
            Figure("run", ctx.run_id, "measured"),
            Figure("requested by", ctx.requested_by, "asserted by a person"),
            Figure("code version", self.manifests["train"].code_version, "measured"),
            Figure("time source", "the clock of the machine that ran the stages", "not applicable"),
            *(Figure(f"{stage} result", m.created_at, "measured", self.digests[stage]) for stage, m in self.manifests.items()),
            *(
                Figure(f"key holder {p.name}", f"{', '.join(p.roles)}; key {_custody(p)}", "asserted by a person")
                for p in ctx.home.trust.people
            ),
        ]
        return Section("identity", "Identity", (), tuple(figures))

    def _claim(self) -> Section:
        trace, source = self.trace, self.documents["trace"].digest
        if trace is None:
            return Section("claim", "Privacy claim", (_NO_CLAIM,))
        spent = self._spent()
        figures = [
            Figure(name.replace("_", " "), _shown(value, name), "measured", source) for name, value in _scalars(trace.to_json())
        ]
        figures += [
            Figure("delta times population", f"{trace.delta * trace.population:.2g} (below 1)", "measured", source),
            Figure("epsilon spent on the dataset by all runs", shown_up(spent), "measured"),
            Figure(
                "epsilon cap of the dataset", shown_up(self.ctx.policy.budget.cap_epsilon), "configured", self.ctx.policy_digest
            ),
            Figure("what is released", "the final weights only", "configured"),
            Figure("hyper-parameter search", "none in this run; repeated runs are charged one by one", "not applicable"),
            Figure("fitted on the data outside the mechanism", "nothing: vocabulary and labels are public", "configured"),
        ]
        plots = (budget_plot(spent, trace.epsilon, self.ctx.policy.budget.cap_epsilon, trace.privacy_unit),)
        paragraphs = tuple(p.strip() for p in privacy_statement(trace).split("\n\n"))
        return Section("claim", "Privacy claim", paragraphs, tuple(figures), plots=plots)

    def _audit(self) -> Section:
        bounds = self.documents["bounds"]
        text = (
            "Each check ends in one of three verdicts; a check that was not evaluated blocks the release like a failed one. "
            "An epsilon lower bound is a statistical bound from below: "
            "above the claim it refutes the claim, below it proves nothing.",
        )
        drawn = [(f"{b.name}, at confidence {b.level}", b.value) for b in _lower_bounds(bounds)]
        plots = (bounds_plot(drawn, self.trace.epsilon),) if drawn and self.trace is not None else ()
        return Section("audit", "Audit evidence", text, _bound_figures(bounds), verdicts=self.verdicts, plots=plots)

    def _personal_data(self) -> Section:
        facts, source = self.manifests["protect"].facts, self.digests["protect"]
        types = [(name.removeprefix("entities."), v) for name, v in facts.items() if name.startswith("entities.")]
        counts = [(name, float(v)) for name, v in types if isinstance(v, int)]
        text = (
            "Counts of what was found and replaced before training. They are exact, and stand outside the privacy claim. "
            "Detection misses some personal data; how much was not measured on this dataset, as it has no labelled sample.",
            *([SENTENCE] if "miss_bound" in facts else []),
            *([NOT_SEARCHED] if self.ctx.policy.source.fields.image else []),
        )
        figures = slip_figures(self.documents["slip_through"].value, self.documents["slip_through"].digest)
        figures += _stage_figures(facts, source) + _document_figures(self.documents["redaction"], "redaction of outputs: ")
        treated = [f"{name}: {how}" for name, how in sorted(self.ctx.policy.pii.entities.items())]
        rules = Figure(
            "treatment", "; ".join([f"default: {self.ctx.policy.pii.default}", *treated]), "configured", self.ctx.policy_digest
        )
        return Section(
            "personal-data", "Personal data", text, (rules, *figures), plots=(counts_plot(counts),) if counts else ()
        )

    def _validation(self) -> Section:
        ingest = tuple(
            Figure(f"ingest: {f.label}", f.value, f.basis, f.source)
            for f in _stage_figures(self.manifests["ingest"].facts, self.digests["ingest"])
        )
        figures = _stage_figures(self.manifests["validate"].facts, self.digests["validate"])
        return Section("validation", "Validation of the dataset", _VALIDATION_TEXT, (*figures, *ingest))

    def _utility(self) -> Section:
        metrics = self.documents["metrics"]
        found = _utility_bars(self)
        text = (
            "Accuracy on units kept out of training by a keyed rule. A model that learnt nothing looks private: read both. "
            "The figures are exact, and stand outside the privacy claim.",
        )
        plots = (utility_plot(found),) if found else ()
        return Section("utility", "Utility", text, _document_figures(metrics, ""), plots=plots)

    def _decisions(self) -> Section:
        text = [
            "The use gate was decided before training. "
            "The release gate approves this very page, so its signatures are not here."
        ]
        demo = sorted({a.signer for a in self.approvals if a.custody == "demo"})
        if demo:
            text.append(
                f"{', '.join(demo)} signed as {'demo identities' if len(demo) > 1 else 'a demo identity'}: "
                f"the private key{'s lie' if len(demo) > 1 else ' lies'} on the machine that ran the pipeline. "
                "Such signatures show how the gate works; no person decided anything."
            )
        figures = tuple(
            Figure(
                f"{a.decision} by {a.signer} as {a.role}",
                f"{a.reason} ({_when(a.signed_at)})",
                "asserted by a person",
                a.digest,
            )
            for a in self.approvals
        )
        gates = self.ctx.policy.approvals
        asked = tuple(
            Figure(f"{name} gate asks for", _quorum(gate.quorum, gate.expires_hours), "configured", self.ctx.policy_digest)
            for name, gate in (("use", gates.use), ("release", gates.release))
        )
        return Section("decisions", "Decisions and approvals", tuple(text), (*asked, *figures))

    def _lifecycle(self) -> Section:
        kept, source = self.ctx.policy.retention, self.ctx.policy_digest
        figures = (
            Figure("raw batches", "destroyed once the protected dataset is committed", "configured", source),
            Figure("sealed originals (vault)", f"{kept.vault_days} days", "configured", source),
            Figure("protected dataset", f"{kept.protected_days} days", "configured", source),
            Figure("quarantine", f"{kept.quarantine_days} days", "configured", source),
            Figure("erased people, in old copies", f"at most {kept.erasure_days} days", "configured", source),
            Figure("legal basis and notices", "not recorded by Privet", "not applicable"),
        )
        text = (
            "A data subject's records are erased with privet erase; the receipt names the models that learnt from them. "
            "What is over its days is destroyed by privet retention.",
        )
        return Section("lifecycle", "Data lifecycle and retention", text, figures)

    def _spent(self) -> float:
        try:
            return self.ctx.home.ledger.spent_epsilon(budget_scope(self.ctx.policy))
        except PrivetError:
            return 0.0


_NO_CLAIM = "There is no privacy claim: the run used no mechanism that bounds the privacy loss. Such a model does not leave."
_VALIDATION_TEXT = (
    "Expectations on the protected dataset. The results hold counts: no record is shown, and no offending value is stored.",
)


def _document(ctx: StageContext, manifest: Manifest, output: str) -> _Document:
    ref = manifest.outputs.get(output)
    return _Document(None, None) if ref is None else _Document(parse_json(ctx.home.store.read_plain(ref)), ref.digest)


def _stage_figures(facts: Mapping[str, Scalar], source: Digest) -> tuple[Figure, ...]:
    return tuple(Figure(n.replace("_", " "), _shown(v, n), "measured", source) for n, v in facts.items() if v is not None)


def _document_figures(document: _Document, prefix: str) -> tuple[Figure, ...]:
    basis: Basis = "measured"
    numbers = list(document.numbers())[:60]
    return tuple(
        Figure(prefix + name.replace("_", " "), _shown(value, name), basis, document.digest) for name, value in numbers
    )


@dataclass(frozen=True, slots=True)
class _Bound:
    name: str
    level: float
    value: float
    assumes: str


def _lower_bounds(document: _Document) -> list[_Bound]:
    found = []
    for item in _items(document.value, "bounds"):
        match item:
            case {
                "name": str(name),
                "level": int() | float() as level,
                "epsilon_lower_bound": int() | float() as value,
                **rest,
            }:
                found.append(_Bound(name, float(level), float(value), str(rest.get("assumes", "nothing stated"))))
    return found


def _bound_figures(document: _Document) -> tuple[Figure, ...]:
    bounds = [
        Figure(
            f"epsilon lower bound, {b.name}, at confidence {b.level}",
            f"{shown_down(b.value)} (assumes {b.assumes})",
            "measured",
            document.digest,
        )
        for b in _lower_bounds(document)
    ]
    probes = []
    for item in _items(document.value, "probe"):
        match item:
            case {"check": str(check), "p_value": int() | float() as value}:
                probes.append(
                    Figure(f"p-value of the {check.replace('_', ' ')} check", f"{value:.3g}", "measured", document.digest)
                )
    return (*bounds, *probes)


def _items(value: Json, name: str) -> list[Json]:
    found = value.get(name) if isinstance(value, Mapping) else None
    return found if isinstance(found, list) else []


def _utility_bars(facts: _Facts) -> list[tuple[str, float]]:
    """Accuracy and majority baseline, wherever the run recorded them."""
    known: dict[str, float] = {}
    for name, value in facts.documents["metrics"].numbers():
        known.setdefault(name.split(".")[-1], value)
    for stage in ("train", "audit"):
        for name, fact in facts.manifests[stage].facts.items():
            if isinstance(fact, float):
                known.setdefault(name, fact)
    bars = [(name.replace("_", " "), value) for name, value in known.items() if "accuracy" in name or "majority" in name]
    return [bar for bar in bars if 0 <= bar[1] <= 1][:6]


def _scalars(value: Mapping[str, Json]) -> list[tuple[str, Scalar]]:
    return [(name, item) for name, item in value.items() if isinstance(item, str | int | float)]


def _shown(value: Scalar, name: str = "") -> str:
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return str(value)
    if isinstance(value, float) and (rounded := shown_fact(name, value)) is not None:
        return rounded
    return (
        f"{value:,}"
        if isinstance(value, int)
        else f"{int(value):,}"
        if value.is_integer() and abs(value) < 1e12
        else f"{value:.6g}"
    )


def _custody(person: Person) -> str:
    if is_pipeline(person):
        return "held by the pipeline, in its home"
    return "of a demo identity, beside the pipeline's" if person.custody == "demo" else "held by the person"


def _quorum(quorum: Mapping[str, int], hours: int) -> str:
    return ", ".join(f"{n} {role}" for role, n in sorted(quorum.items())) + f"; a signature counts for {hours} hours"


def _when(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")

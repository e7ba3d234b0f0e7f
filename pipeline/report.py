"""The evidence report of a run: one HTML page a language for people, and one JSON document with the same fields.

Eight sections after NIST SP 800-226 and what stewards ask; crosswalks to laws and standards as an appendix.
Guarantee: every figure is read from a stored document and carries its digest; what was not measured is said to be so; the
privacy claim is the one of the mechanism trace. Holds counts, names and digests; no record, no text, no subject.
Not covered: approvals given after the page was made (the release gate approves the page too; they lie in the bundle).
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.break_glass import unreviewed
from pipeline.claims import claim_of
from pipeline.crosswalk import evaluated
from pipeline.evidence import RunDigests
from pipeline.report_anchor import how_to_verify
from pipeline.report_audit import audit
from pipeline.report_claim import claim
from pipeline.report_decisions import decisions
from pipeline.report_facts import Facts, measured, missing
from pipeline.report_html import page
from pipeline.report_identity import identity
from pipeline.report_lifecycle import lifecycle
from pipeline.report_page import Figure, Report
from pipeline.report_people import personal_data, treatments
from pipeline.report_utility import utility
from pipeline.report_words import datum, say
from pipeline.stage import StageContext, StageOutput, StageResult, run_stage
from privacy.canonical import Digest, digest_of
from privacy.rounding import shown_up

__all__ = ["RunDigests", "make_report", "report", "report_of"]


def report(ctx: StageContext, digests: RunDigests) -> StageResult:
    """Write the report. Outputs: report_html, report_zh, report_json (plain). digests: of the stages before."""
    stages = {name: digest for name, digest in digests.to_json().items() if name != "report"}
    request = digest_of({"requested_by": ctx.requested_by})
    inputs = {**stages, "trust": ctx.home.trust.digest, "request": request}
    if loud := [u.evidence_root for u in unreviewed(ctx.home.journal.entries())]:
        inputs["break_glass"] = digest_of(sorted(loud))  # an earlier report does not say so, and must not be found instead

    def body() -> StageOutput:
        made = make_report(ctx, stages)
        store, dataset = ctx.home.store, ctx.policy.dataset
        written = {
            "report_html": (page(made, "en"), "report/report.html"),
            "report_zh": (page(made, "zh"), "report/report.zh.html"),
            "report_json": (made.json_bytes(), "report/report.json"),
        }
        refs = {
            name: store.put_plain(data, dataset=dataset, path=path, data_class="report")
            for name, (data, path) in written.items()
        }
        return StageOutput(refs, {"sections": len(made.sections), "figures": sum(len(s.figures) for s in made.sections)})

    return run_stage(ctx, "report", inputs, body)


def make_report(ctx: StageContext, stages: Mapping[str, Digest]) -> Report:
    """stages: manifest digests of the stages before the report. Raises what reading a damaged store raises."""
    return report_of(Facts.load(ctx, stages))


def report_of(facts: Facts) -> Report:
    """The report of what was loaded; pure but for the journal's and the ledger's newest state."""
    ctx = facts.ctx
    sections = (
        identity(facts),
        claim(facts),
        audit(facts),
        personal_data(facts),
        utility(facts),
        lifecycle(facts),
        decisions(facts),
        how_to_verify(ctx.home.journal, ctx.home.key.public_hex),
    )
    claimed = None if facts.trace is None else claim_of(facts.trace)
    title = say("{name}: what this model is based on", name=ctx.policy.name)
    made_at = facts.now.isoformat(timespec="seconds")
    return Report(title, made_at, claimed, _headline(facts), sections, evaluated(sections, treatments(facts)))


def _headline(facts: Facts) -> tuple[Figure, ...]:
    trace, budget = facts.trace, facts.policy.budget
    label, found = say("personal data found"), facts.manifests["protect"].facts.get("entities")
    passed = sum(v.outcome == "passed" for v in facts.verdicts)
    claimed = datum("none") if trace is None else datum(shown_up(trace.epsilon))
    return (
        Figure(
            "epsilon",
            say("epsilon of this model"),
            say("none") if trace is None else claimed,
            "measured" if trace else "not applicable",
        ),
        facts.configured("allowed", say("epsilon the policy allows"), shown_up(budget.epsilon)),
        measured("verdicts", say("audit verdicts passed"), say("{passed} of {all}", passed=passed, all=len(facts.verdicts))),
        missing("found", label, say("not counted"))
        if found is None
        else measured("found", label, found, facts.digests["protect"]),
    )

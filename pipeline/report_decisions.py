"""Section 7 of the report: who decided what, under which terms, and what makes it void."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta

from pipeline.break_glass import unreviewed
from pipeline.report_facts import Facts, fixed, measured, missing, when
from pipeline.report_page import Figure, Section
from pipeline.report_words import Words, datum, joined, say
from privacy.gates import Approval

_LOUD = ("refusal", "unsigned_reject", "validation_failed")


def decisions(facts: Facts) -> Section:
    text = [
        say(
            "The use gate was decided before training. "
            "The release gate approves this very page, so its signatures are not here: they lie in the bundle."
        )
    ]
    demo = sorted({a.signer for a in facts.approvals if a.custody == "demo"})
    if demo:
        many = say(
            "{names} signed as demo identities: the private keys lie on the machine that ran the pipeline.",
            names=", ".join(demo),
        )
        one = say(
            "{names} signed as a demo identity: the private key lies on the machine that ran the pipeline.", names=demo[0]
        )
        shows = say("Such signatures show how the gate works; no person decided anything.")
        text.append(joined((many if len(demo) > 1 else one, shows), " ", ""))
    figures = (*_asked(facts), *_given(facts), *_break_glass(facts), *_risks(facts), _triggers())
    return Section("decisions", say("Decisions"), tuple(text), figures)


def _asked(facts: Facts) -> Iterator[Figure]:
    gates = facts.policy.approvals
    labels = (("use", say("the use gate asks for"), gates.use), ("release", say("the release gate asks for"), gates.release))
    for name, label, gate in labels:
        yield facts.configured(f"gate_{name}", label, _quorum(gate.quorum, gate.expires_hours))
    risk = getattr(gates, "risk", None)
    if risk is not None:
        yield facts.configured("risk", say("risk class"), risk)


def _given(facts: Facts) -> Iterator[Figure]:
    if not facts.approvals:
        yield missing("approvals", say("decisions at the use gate"), say("nobody has signed"))
    for index, a in enumerate(facts.approvals, 1):
        label = say("{decision} by {signer} as {role}", decision=a.decision, signer=a.signer, role=a.role)
        yield Figure(f"approval_{index}", label, _reason(facts, a), "asserted by a person", a.digest)
    rejected = sum(e.kind == "approval" and e.facts.get("decision") == "reject" for e in facts.entries)
    yield measured("rejections", say("rejections in the journal, any run"), rejected, _newest(facts, "approval"))


def _reason(facts: Facts, approval: Approval) -> Words:
    gates = facts.policy.approvals
    hours = (gates.use if approval.gate == "use" else gates.release).expires_hours
    ends = when(approval.signed_at + timedelta(hours=hours))
    conditions = getattr(approval, "conditions", ())
    under = say(" Conditions: {count}.", count=len(conditions)) if conditions else datum("")
    said = say('"{reason}" Signed {at}, counts until {ends}.', reason=approval.reason, at=when(approval.signed_at), ends=ends)
    return joined((said, under), "", "")


def _break_glass(facts: Facts) -> Iterator[Figure]:
    """Loud in every later report, of any run of this home, until somebody else has reviewed it."""
    label = say("gates opened past the quorum (break-glass), any run")
    waiting = {found.evidence_root for found in unreviewed(facts.entries)}
    broken = [e for e in facts.entries if e.kind == "break_glass" and e.facts.get("evidence_root") in waiting]
    if not broken:
        yield measured("break_glass", label, say("none in the journal"), _newest(facts, ""))
        return
    told = "; ".join(f"#{e.seq} {e.at}" for e in broken[-20:])
    value = say("{count} entries: {told}", count=len(broken), told=told)
    yield measured("break_glass", label, value, broken[-1].digest)


def _risks(facts: Facts) -> Iterator[Figure]:
    blocking = [v.check for v in facts.verdicts if v.blocks]
    label = say("open risks: checks that did not pass")
    source = facts.documents["verdicts"].digest
    if not facts.verdicts:
        yield missing("open_risks", label, say("the audit left no verdict"))
    else:
        yield measured("open_risks", label, ", ".join(blocking) if blocking else say("none"), source)
    refused = [e for e in facts.entries if e.kind in _LOUD]
    value = say("{count} in the journal", count=len(refused))
    yield measured("refusals", say("refusals and failed validations, any run"), value, refused[-1].digest if refused else None)


def _triggers() -> Figure:
    return fixed(
        "reapproval",
        say("what makes an approval void"),
        say("any other byte of the model, data, policy, code, report or evidence; the end of its hours; a revocation"),
    )


def _quorum(quorum: Mapping[str, int], hours: int) -> Words:
    asked = ", ".join(f"{n} {role}" for role, n in sorted(quorum.items()))
    return say("{quorum}; a signature counts for {hours} hours", quorum=asked, hours=hours)


def _newest(facts: Facts, kind: str) -> str | None:
    return next((e.digest for e in reversed(facts.entries) if kind in ("", e.kind)), None)

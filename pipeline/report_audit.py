"""Section 3 of the report: verdicts, lower bounds, the probe, attacks on the model that leaves.

Guarantee: every number of the audit's documents is shown; an attack that the policy did not ask for, or that left nothing, is
said to be missing. A lower bound is never called a measurement of epsilon.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.report_facts import Document, Facts, document_figures, measured, missing, not_applicable
from pipeline.report_page import Figure, Plot, Section
from pipeline.report_plots import Curve, bounds_plot, roc_plot
from pipeline.report_terms import TERMS, explained
from pipeline.report_words import Words, datum, say
from privacy.canonical import Json
from privacy.rounding import shown_down

_CURVES = frozenset({"points", "roc", "curve"})


def audit(facts: Facts) -> Section:
    bounds, attacks = facts.documents["bounds"], facts.documents["attacks"]
    text = (
        say(
            "Each check ends in one of three verdicts; a check that was not evaluated blocks the release like a failed one. "
            "An epsilon lower bound is a statistical bound from below: above the claim it refutes the claim, below it proves "
            "nothing. A lower bound is not a proof."
        ),
        say("Figures of attacks are exact, over real units, and stand outside the privacy claim."),
    )
    figures = (
        *_bound_figures(facts, bounds),
        *_probe_figures(bounds),
        *_coins(facts),
        *_membership(facts, attacks.part("membership")),
        *_language_model(facts, attacks),
        *_other_attacks(attacks),
    )
    return Section(
        "audit",
        say("Audit evidence"),
        text,
        figures,
        verdicts=facts.verdicts,
        explained=tuple(explained(v.check) for v in facts.verdicts),
        plots=(*_bounds_plots(facts, bounds), *_roc_plots(attacks.part("membership"))),
    )


@dataclass(frozen=True, slots=True)
class _Bound:
    name: str
    level: float
    value: float
    assumes: str

    @property
    def said(self) -> Words:
        return say("{name}, at confidence {level}", name=TERMS.get(self.name) or datum(self.name), level=self.level)


def _lower_bounds(document: Document) -> list[_Bound]:
    found = []
    for item in document.items("bounds"):
        match item:
            case {
                "name": str(name),
                "level": int() | float() as level,
                "epsilon_lower_bound": int() | float() as value,
                **rest,
            }:
                found.append(_Bound(name, float(level), float(value), str(rest.get("assumes", ""))))
    return found


def _bound_figures(facts: Facts, document: Document) -> Iterator[Figure]:
    bounds = _lower_bounds(document)
    if not bounds:
        yield missing("lower_bound", say("epsilon lower bound"), say("no lower bound could be computed from the canaries"))
    for b in bounds:
        assumes = TERMS.get(b.assumes) or datum(b.assumes)
        value = (
            say("{bound} (assumes {assumes})", bound=shown_down(b.value), assumes=assumes)
            if b.assumes
            else datum(shown_down(b.value))
        )
        label = say("epsilon lower bound, {which}", which=b.said)
        yield Figure(f"lower_bound_{b.name}_{b.level}", label, value, "measured", document.digest)
    audit = facts.policy.audit
    yield facts.configured("canaries", say("canaries"), audit.canaries)
    yield facts.configured("gate_level", say("confidence of the gate, registered before training"), audit.gate_level)
    yield facts.configured("report_level", say("confidence of the published bounds"), audit.report_level)


def _probe_figures(document: Document) -> Iterator[Figure]:
    probes = [item for item in document.items("probe") if isinstance(item, Mapping)]
    if not probes:
        yield missing("probe", say("conformance probe"), say("the run left no record that could be probed"))
    for item in probes:
        name, value = str(item.get("check")), item.get("p_value")
        label = say("p-value of the {check} check", check=TERMS.get(name) or datum(name.replace("_", " ")))
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield measured(f"probe_{name}", label, f"{float(value):.3g}", document.digest)
        else:
            yield not_applicable(
                f"probe_{name}", label, say("this check gives no p-value here; its verdict says what was seen")
            )
    rest = (
        {k: v for k, v in document.value.items() if k not in ("bounds", "probe", "canary_opening")}
        if isinstance(document.value, Mapping)
        else {}
    )
    yield from document_figures(Document(rest, document.digest), "bounds")


def _coins(facts: Facts) -> Iterator[Figure]:
    label = say("commitment to the canary coins")
    value = facts.fact("train", "canary_commitment")
    if value is None:
        yield missing("coins", label, say("the run left none"))
    else:
        yield measured("coins", label, value, facts.digests["train"])
    entry = next((e for e in facts.entries if e.kind == "canary_commitment" and e.facts.get("commitment") == value), None)
    placed = say("place of that commitment in the journal")
    if entry is None:
        yield missing("coins_entry", placed, say("the journal holds no such commitment"))
    else:
        yield measured("coins_entry", placed, say("entry {seq}, {at}", seq=entry.seq, at=entry.at), entry.digest)
    who = say("an auditor, ahead of training") if facts.policy.audit.coins == "auditor" else say("the pipeline itself")
    yield facts.configured("coins_drawn_by", say("who draws the coins"), who)


def _membership(facts: Facts, document: Document) -> Iterator[Figure]:
    asked = ", ".join(facts.policy.audit.membership.attacks)
    yield facts.configured("membership_asked", say("membership attacks that the policy asks for"), asked)
    yield facts.configured("shadows", say("shadow models"), facts.policy.audit.membership.shadows)
    found = document_figures(document, "membership", _CURVES)
    paths = " ".join(f.key for f in found).lower()
    if "auc" not in paths:
        yield missing("membership_auc", say("membership inference: AUC"), say("the audit left no such figure"))
    if "tpr" not in paths:
        yield missing(
            "membership_tpr",
            say("membership inference: members found at 1 % and 0.1 % false alarms"),
            say("the audit left no such figure"),
        )
    yield from found


def _language_model(facts: Facts, document: Document) -> Iterator[Figure]:
    labels = {
        "exposure": say("exposure of planted secrets, with secrets never shown as control"),
        "memorisation": say("spans of written texts that stand in few people's records"),
    }
    for name, label in labels.items():
        found = document_figures(document.part(name), name, _CURVES)
        if found:
            yield from found
        elif facts.policy.recipe.model != "causal_lm":
            yield not_applicable(name, label, say("the model writes no texts"))
        elif name == "exposure" and facts.policy.audit.secrets is None:
            yield missing(name, label, say("the policy asks for no planted secrets (audit.secrets)"))
        else:
            yield missing(name, label, say("the audit left no such figure"))


def _other_attacks(document: Document) -> Sequence[Figure]:
    known = {"membership", "exposure", "memorisation"}
    rest = {k: v for k, v in document.value.items() if k not in known} if isinstance(document.value, Mapping) else {}
    return document_figures(Document(rest, document.digest), "attacks", _CURVES)


def _bounds_plots(facts: Facts, document: Document) -> Sequence[Plot]:
    drawn = [(b.said, b.value) for b in _lower_bounds(document)]
    return (bounds_plot(drawn, facts.trace.epsilon),) if drawn and facts.trace is not None else ()


def _roc_plots(document: Document) -> Sequence[Plot]:
    curves = list(_curves(document.value, "membership"))
    return (roc_plot(curves),) if curves else ()


def _curves(value: Json, name: str) -> Iterator[Curve]:
    """Every list of [false, true] pairs, under the name of the attack that it stands in."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            points = _pairs(item) if key in _CURVES else []
            said = str(value.get("name") or value.get("attack") or name)
            if len(points) >= 2:
                yield TERMS.get(said) or datum(said), points
            else:
                yield from _curves(item, key)
    elif isinstance(value, list):
        for item in value:
            yield from _curves(item, name)


def _pairs(value: Json) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    for item in value if isinstance(value, list) else ():
        match item:
            case [int() | float() as x, int() | float() as y]:
                found.append((float(x), float(y)))
            case {"fpr": int() | float() as x, "tpr": int() | float() as y}:
                found.append((float(x), float(y)))
    return found

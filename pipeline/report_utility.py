"""Section 5 of the report: is the model of use, and of the same use to everybody?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pipeline.report_facts import Document, Facts, document_figures, missing, not_applicable
from pipeline.report_page import Figure, Plot, Section
from pipeline.report_plots import Named, groups_plot, utility_plot
from pipeline.report_terms import TERMS
from pipeline.report_words import Words, datum, say
from privacy.canonical import Json


def utility(facts: Facts) -> Section:
    text = (
        say(
            "Accuracy on units kept out of training by a keyed rule. A model that learnt nothing looks private: read both. "
            "The figures are exact, and stand outside the privacy claim."
        ),
    )
    bars, without = _bars(facts)
    plots = [utility_plot(bars, without)] if bars else []
    figures = (*_accuracy(facts, without), *_harm(facts), _limits())
    return Section("utility", say("Utility and fairness"), text, figures, plots=(*plots, *_group_plots(facts)))


def _accuracy(facts: Facts, without: bool) -> Iterator[Figure]:
    labels = {
        "holdout_accuracy": say("accuracy with differential privacy, on held-out units"),
        "majority_accuracy": say("accuracy of always giving the most frequent label"),
    }
    for name, label in labels.items():
        yield facts.counted("train", name, label)
    if not without:
        why = say("no model without differential privacy was trained on this data: it would learn from the data unprotected")
        yield missing("non_private_accuracy", say("accuracy without differential privacy"), why)
    yield facts.configured("min_accuracy", say("accuracy below which the gate stays closed"), facts.policy.audit.min_accuracy)
    yield facts.configured("holdout_share", say("share of units kept out of training"), facts.policy.audit.holdout_share)
    yield from document_figures(facts.documents["metrics"], "metrics")


def _harm(facts: Facts) -> Iterator[Figure]:
    document, asked = facts.documents["harm"], facts.policy.audit.harm
    groups = document.part("groups")
    label = say("utility by group")
    if isinstance(groups.value, Mapping) and groups.value:
        for field in groups.value:
            yield from document_figures(groups.part(field), f"groups.{field}")
    elif (said := document.part("not_applicable", "groups").value) is not None:
        yield not_applicable("groups", label, datum(said))
    elif not asked.groups:
        yield missing("groups", label, say("the policy names no group to compare by (audit.harm.groups)"))
    else:
        yield missing("groups", label, say("the audit left no such figure"))
    yield facts.configured("min_group", say("units below which a group is withheld"), asked.min_group)
    yield facts.configured("max_gap", say("highest gap between groups that is allowed"), asked.max_gap)
    swaps = document_figures(document.part("swaps"), "swaps")
    if swaps:
        yield from swaps
    elif (said := document.part("not_applicable", "swaps").value) is not None:
        yield not_applicable("swaps", say("terms of identity swapped in made-up texts"), datum(said))
    elif not asked.swaps:
        yield not_applicable("swaps", say("terms of identity swapped in made-up texts"), say("the policy switched it off"))
    else:
        yield missing("swaps", say("terms of identity swapped in made-up texts"), say("the audit left no such figure"))
    rest = (
        {k: v for k, v in document.value.items() if k not in ("groups", "swaps", "not_applicable")}
        if isinstance(document.value, Mapping)
        else {}
    )
    yield from document_figures(Document(rest, document.digest), "harm")


def _limits() -> Figure:
    said = say(
        "texts from other sources, other languages and later times; harm that no template or classifier of the policy sees"
    )
    return missing("limits", say("known limits: not measured"), said)


def _bars(facts: Facts) -> tuple[list[Named], bool]:
    """Accuracy and baseline, wherever the run recorded them; and whether one is of a model without differential privacy."""
    known: dict[str, float] = {}
    for path, value in facts.documents["metrics"].numbers():
        known.setdefault(path[-1], value)
    for stage in ("train", "audit"):
        for name, fact in facts.manifests[stage].facts.items():
            if isinstance(fact, float):
                known.setdefault(name, fact)
    wanted = {n: v for n, v in known.items() if ("accuracy" in n or "majority" in n) and 0 <= v <= 1}
    bars = [(_named(name), value) for name, value in wanted.items()][:6]
    return bars, any("non_private" in name for name in wanted)


def _named(name: str) -> Words:
    return TERMS.get(name) or datum(name.replace("_", " "))


def _group_plots(facts: Facts) -> list[Plot]:
    groups = facts.documents["harm"].part("groups").value
    plots = []
    for field, found in groups.items() if isinstance(groups, Mapping) else ():
        rows = found.get("rows") if isinstance(found, Mapping) else None
        bars = [(datum(value), accuracy) for value, row in _rows(rows) if (accuracy := _share(row)) is not None]
        if bars:
            overall = Document(found, None).number("accuracy")
            plots.append(groups_plot(field, bars, overall))
    return plots


def _rows(rows: Json) -> list[tuple[str, Json]]:
    return list(rows.items()) if isinstance(rows, Mapping) else []


def _share(row: Json) -> float | None:
    value = row.get("accuracy") if isinstance(row, Mapping) else None
    return None if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1 else float(value)

"""Section 4 of the report: personal data in the texts, what detection may miss, and the outputs of the model."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.images import NOT_SEARCHED
from pipeline.report_facts import Document, Facts, document_figures, measured, missing
from pipeline.report_page import Figure, Plot, Section, Table
from pipeline.report_plots import counts_plot, slip_plot
from pipeline.report_slip import slip_bounds, slip_figures
from pipeline.report_words import Words, datum, say
from pipeline.safe_harbor import IDENTIFIERS
from pipeline.slip_through import SENTENCE

_RESIDUAL = ("residual_pii", "second_look_texts", "second_look_flagged")


def personal_data(facts: Facts) -> Section:
    text = [
        say(
            "Counts of what was found and replaced before training. They are exact, and stand outside the privacy claim. "
            "Detection misses some personal data; the privacy claim does not depend on it."
        )
    ]
    if facts.fact("protect", "miss_bound") is not None:
        text.append(say(SENTENCE))
    if facts.policy.source.fields.image:
        text.append(say(NOT_SEARCHED))
    slip = facts.documents["slip_through"]
    figures = (
        _treatment(facts),
        *_accuracy(facts),
        *slip_figures(slip.value, slip.digest),
        *_residual(facts),
        *_found(facts),
        *_outputs(facts),
    )
    return Section(
        "personal-data", say("Personal data"), tuple(text), figures, tables=(_safe_harbor(facts),), plots=_plots(facts, slip)
    )


def treatments(facts: Facts) -> dict[str, str]:
    """Of every type of the 18 identifiers that the policy looks for."""
    asked = facts.policy.pii.detect
    types = [t for identifier in IDENTIFIERS for t in identifier.types if not asked or t in asked]
    return {t: treatment_of(facts, t) for t in types}


def treatment_of(facts: Facts, entity: str) -> str:
    return facts.policy.pii.entities.get(entity, facts.policy.pii.default)


def _treatment(facts: Facts) -> Figure:
    pii = facts.policy.pii
    treated = [f"{name}: {how}" for name, how in sorted(pii.entities.items())]
    return facts.configured("treatment", say("treatment by type"), "; ".join([f"default: {pii.default}", *treated]))


def _accuracy(facts: Facts) -> Iterator[Figure]:
    why = say("this dataset has no labelled sample; planted values stand in for it, see below")
    yield missing("recall", say("recall by type and language on a labelled sample"), why)
    yield missing("precision", say("precision and false redactions on a labelled sample"), why)
    steward = say("Privet records none; a steward reads samples outside of it")
    yield missing("steward_review", say("sampled review by a steward"), steward)


def _residual(facts: Facts) -> Iterator[Figure]:
    for name in _RESIDUAL:
        yield facts.counted("validate", name, _stage_label("validate", name), f"validate_{name}")


def _found(facts: Facts) -> Iterator[Figure]:
    for name, value in facts.manifests["protect"].facts.items():
        if value is not None:
            yield measured(name, _stage_label("protect", name), value, facts.digests["protect"], name)


def _stage_label(stage: str, name: str) -> Words:
    from pipeline.report_terms import TERMS

    if (known := TERMS.get(f"{stage}.{name}") or TERMS.get(name)) is not None:
        return known
    kind, _, rest = name.partition(".")
    if rest and kind in ("entities", "language", "rejects"):
        return say("{kind}: {name}", kind=TERMS[kind], name=rest)
    return datum(name.replace("_", " "))


def _outputs(facts: Facts) -> Iterator[Figure]:
    document = facts.documents["redaction"]
    found = document_figures(document, "redaction")
    if not found:
        yield missing("redaction", say("redaction of the model's outputs"), say("the audit left no such figure"))
    yield from found
    outputs = facts.policy.outputs
    yield facts.configured("outputs_scores", say("scores that may leave"), outputs.scores)
    yield facts.configured("outputs_embeddings", say("embeddings"), outputs.embeddings)
    yield facts.configured("outputs_min_subjects", say("fewest people behind a cell of a table"), outputs.min_subjects)
    yield facts.configured("outputs_hold_back", say("characters of a stream held back until they are clean"), outputs.hold_back)


def _safe_harbor(facts: Facts) -> Table:
    """The 18 identifiers of 45 CFR 164.514(b)(2)(i): what detects each, what was found, how it is treated."""
    rows = []
    for identifier in IDENTIFIERS:
        types = [t for t in identifier.types if not facts.policy.pii.detect or t in facts.policy.pii.detect]
        if not types:
            looked = say("not looked for") if identifier.types else say("no type of Privet: not looked for")
            rows.append((datum(identifier.letter), identifier.name, looked, datum("–"), identifier.note))
            continue
        count = sum(n for t in types if isinstance(n := facts.fact("protect", f"entities.{t}"), int))
        treated = "; ".join(f"{t}: {treatment_of(facts, t)}" for t in types)
        rows.append((datum(identifier.letter), identifier.name, datum(treated), datum(f"{count:,}"), identifier.note))
    head = (say("letter"), say("identifier"), say("types looked for, and treatment"), say("found"), say("note"))
    return Table(say("HIPAA Safe Harbor: the 18 identifiers"), head, tuple(rows))


def _plots(facts: Facts, slip: Document) -> tuple[Plot, ...]:
    prefix = "entities."
    facts_found = facts.manifests["protect"].facts.items()
    counts = [(datum(n.removeprefix(prefix)), float(v)) for n, v in facts_found if n.startswith(prefix) and isinstance(v, int)]
    bounds = slip_bounds(slip.value)
    drawn = (counts_plot(counts),) if counts else ()
    return (*drawn, slip_plot(bounds)) if bounds else drawn

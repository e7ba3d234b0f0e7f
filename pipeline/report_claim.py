"""Section 2 of the report: the privacy claim, after the contents that NIST SP 800-226 and "How to DP-fy ML" (5.3) ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline.budget import spend_over_time
from pipeline.report_facts import Facts, fixed, measured, missing, not_applicable
from pipeline.report_page import Figure, Plot, Section
from pipeline.report_plots import budget_plot
from pipeline.report_statement import lay_table, no_claim, statement
from pipeline.report_words import Words, datum, say
from pipeline.training_budget import budget_scope
from privacy.accounting import MechanismTrace, epsilon_of_charge, scheduled_charge
from privacy.canonical import Json, Scalar
from privacy.errors import PrivetError
from privacy.rounding import shown_up

if TYPE_CHECKING:
    from pipeline.budget import SpendPoint

_CURVE = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8)


def claim(facts: Facts) -> Section:
    title = say("Differential privacy claim")
    if facts.trace is None:
        figures = tuple(f for f in _context(facts) if f.basis != "measured")
        return Section("claim", title, (no_claim(),), figures)
    trace, source = facts.trace, facts.documents["trace"].digest
    figures = (
        *(measured(name, _field(name), value, source, name) for name, value in scalars(trace.to_json())),
        measured("delta_population", say("delta times population (below 1)"), f"{trace.delta * trace.population:.2g}", source),
        measured("curve", say("the same mechanism at other deltas (epsilon at delta)"), _curve(trace), source),
        _second(facts, trace),
        *_context(facts),
    )
    return Section("claim", title, (statement(trace),), figures, tables=(lay_table(trace),), plots=_plots(facts, trace))


def spent(facts: Facts) -> float | None:
    """Epsilon of all runs on the dataset, by the filter; None where the ledger can't say."""
    try:
        return facts.ctx.home.ledger.spent_epsilon(budget_scope(facts.policy))
    except PrivetError:
        return None


def scalars(value: Mapping[str, Json]) -> list[tuple[str, Scalar]]:
    return [(name, item) for name, item in value.items() if isinstance(item, str | int | float)]


def _field(name: str) -> Words:
    from pipeline.report_terms import TERMS

    return TERMS.get(name) or datum(name.replace("_", " "))


def _curve(trace: MechanismTrace) -> str:
    charge = scheduled_charge(trace.sampling_probability, trace.noise_multiplier, trace.noise_schedule, trace.steps)
    return "; ".join(f"{shown_up(epsilon_of_charge(charge, delta))} at {delta:g}" for delta in _CURVE)


def _second(facts: Facts, trace: MechanismTrace) -> Figure:
    """A second accountant (privacy-loss distributions) on the trace of this run alone."""
    from pipeline.second_accountant import agreement

    label = say("second accountant (privacy-loss distributions), on the same trace")
    found = agreement(trace, trace.epsilon)
    if found.second == float("inf"):
        return missing("second_accountant", label, say("it could not be computed for these parameters"))
    if found.holds:
        said = say(
            "epsilon {epsilon} at delta {delta}: it does not exceed the claim",
            epsilon=shown_up(found.second),
            delta=found.delta,
        )
    else:
        said = say("epsilon {epsilon} at delta {delta}: ABOVE the claim", epsilon=shown_up(found.second), delta=found.delta)
    return Figure("second_accountant", label, said, "measured", facts.documents["trace"].digest)


def _context(facts: Facts) -> Sequence[Figure]:
    policy, total = facts.policy, spent(facts)
    runs = _runs(facts)
    ledger = say("epsilon spent on the dataset by all runs (cumulative, per privacy unit)")
    return (
        measured("spent", ledger, shown_up(total))
        if total is not None
        else missing("spent", ledger, say("the ledger holds nothing for this dataset")),
        facts.configured("cap", say("epsilon cap of the dataset"), shown_up(policy.budget.cap_epsilon)),
        facts.configured("allowed", say("epsilon that the policy allows this run"), shown_up(policy.budget.epsilon)),
        measured("runs", say("runs charged to the dataset"), runs)
        if runs is not None
        else missing("runs", say("runs charged to the dataset"), say("the ledger holds nothing for this dataset")),
        *_program(facts),
    )


def _program(facts: Facts) -> Sequence[Figure]:
    """What holds of every run, and how tuning, pretraining and pre-processing stand to the claim."""
    recipe = facts.policy.recipe
    searched = [e for e in facts.entries if e.kind in ("search", "search_on_public_set", "search_abandoned")]
    pretrained = datum(recipe.pretrained) if recipe.pretrained else say("none: trained from scratch")
    return (
        fixed("released", say("what is released"), say("the final weights only; no intermediate checkpoint leaves")),
        facts.configured("divisor", say("divisor of the noisy sum"), say("the expected batch size, a public constant")),
        fixed(
            "amplification",
            say("what amplification by sampling rests on"),
            say("each unit enters each step by its own secret coin (Poisson); the audit's probe tests the recorded batches"),
        ),
        measured(
            "search",
            say("hyper-parameter search"),
            say("{count} searches in this home's journal; private trials are charged to the ledger", count=len(searched)),
        )
        if searched
        else not_applicable(
            "search", say("hyper-parameter search"), say("none in this home; repeated runs are charged one by one")
        ),
        facts.configured("pretrained", say("pretrained weights (public, outside the claim)"), pretrained),
        fixed(
            "outside_mechanism",
            say("fitted on the data outside the mechanism"),
            say("nothing: vocabulary, labels and image sizes are public; nothing is selected on private validation data"),
        ),
        *_surroundings(),
    )


def _surroundings() -> Sequence[Figure]:
    return (
        fixed(
            "exact_outputs",
            say("published exactly, outside the claim"),
            say("counts of records, units and findings, results of the validation, accuracy on held-out units, attack figures"),
        ),
        fixed(
            "trust_model",
            say("trust model"),
            say("central: the controller's machine sees the data; who only sees the model need not be trusted"),
        ),
        fixed(
            "randomness",
            say("randomness"),
            say(
                "the operating system and an AES counter; noise is drawn in floating point, whose effects the figure leaves out"
            ),
        ),
        fixed(
            "side_channels",
            say("side channels"),
            say("time and memory of a training run are not protected; only its outputs are"),
        ),
        missing(
            "collection",
            say("exposure when the data was collected"),
            say("Privet starts at the landing folder: how the data came there is not known to it"),
        ),
    )


def _runs(facts: Facts) -> int | None:
    try:
        return len(facts.ctx.home.ledger.spends(budget_scope(facts.policy)))
    except PrivetError:
        return None


def _plots(facts: Facts, trace: MechanismTrace) -> tuple[Plot, ...]:
    try:
        points: list[SpendPoint] = spend_over_time(facts.ctx.home.ledger, budget_scope(facts.policy))
    except (PrivetError, StopIteration):
        points = []
    if not points:
        return ()
    return (budget_plot([(p.at, p.epsilon, p.cap) for p in points], facts.now, trace.privacy_unit),)

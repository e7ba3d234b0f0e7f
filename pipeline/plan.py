"""What a run would spend and leave, before anything is spent.

Guarantee: planning writes nothing, to the home or elsewhere; its figures come from the same calibration, charge vectors and
filter as the run's own reservation. Assumption: nobody else spends in between; only the reservation decides.
Not covered: what a crash may cost within the reserved steps, and whether the model would be any good.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from privacy.accounting import admits, cap_vector, epsilon_of_charge
from privacy.canonical import Digest, Json
from privacy.ledger import Preview, ScopeTerms
from privacy.mechanisms import MAX_STEPS, Composed, Mechanism, NoiseSchedule, charge_of
from privacy.policy_file import policy_digest

if TYPE_CHECKING:
    from pipeline.home import Home
    from privacy.ledger import Ledger
    from privacy.policy import Policy
    from training.preflight import Preflight


@dataclass(frozen=True, slots=True)
class ScopePlan:
    """One budget that the run would be charged to. `runs_that_fit` counts this run, and repeats it with the same noise."""

    scope: str
    opened: bool
    epsilon_before: float
    epsilon_after: float
    cap: float
    fits: bool
    runs_that_fit: int

    def to_json(self) -> dict[str, Json]:
        return {
            "scope": self.scope,
            "opened": self.opened,
            "epsilon_before": self.epsilon_before,
            "epsilon_after": self.epsilon_after,
            "epsilon_cap": self.cap,
            "fits": self.fits,
            "runs_that_fit": self.runs_that_fit,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """epsilon_reserved: of all `steps_reserved`, by RDP, rounded up. epsilon_settled: of the recipe's steps alone."""

    policy: str
    policy_digest: Digest
    unit: str
    mechanism: str
    epsilon_asked: float
    delta: float
    steps: int
    steps_reserved: int
    sampling_probability: float
    expected_batch_size: int
    population: int
    noise_multiplier: float
    clipping_norm: float
    epsilon_reserved: float
    epsilon_settled: float
    scopes: tuple[ScopePlan, ...]

    @property
    def fits(self) -> bool:
        return all(scope.fits for scope in self.scopes)

    def to_json(self) -> dict[str, Json]:
        return {
            "policy": self.policy,
            "policy_digest": self.policy_digest,
            "unit": self.unit,
            "mechanism": self.mechanism,
            "epsilon_asked": self.epsilon_asked,
            "delta": self.delta,
            "steps": self.steps,
            "steps_reserved": self.steps_reserved,
            "sampling_probability": self.sampling_probability,
            "expected_batch_size": self.expected_batch_size,
            "population": self.population,
            "noise_multiplier": self.noise_multiplier,
            "clipping_norm": self.clipping_norm,
            "epsilon_reserved": self.epsilon_reserved,
            "epsilon_settled": self.epsilon_settled,
            "scopes": [scope.to_json() for scope in self.scopes],
            "fits": self.fits,
        }


def make_plan(policy: Policy, home: Home | None) -> Plan:
    """Plan a first attempt. Raises what the reservation itself would: PolicyError E-LEDGER-001, E-TRAIN-018, E-ACCOUNT codes.

    home: None when there is none yet. The budget then stands open with the policy's cap, and nothing is spent of it.
    """
    from pipeline.attempts import approved_mechanism, approved_noise
    from training.config import approved_steps

    private = policy.recipe.mechanism == "dp_sgd"
    noise = approved_noise(policy) if private else 0.0
    reserved = approved_steps(policy.recipe.steps) if private else 0
    epsilons, scopes = (0.0, 0.0), tuple[ScopePlan, ...]()
    if private:
        mechanism = approved_mechanism(policy, noise)
        epsilons = _epsilon(mechanism, reserved, policy), _epsilon(mechanism, policy.recipe.steps, policy)
        scopes = _scope_plans(policy, home, mechanism, reserved)
    return Plan(
        policy.name,
        policy_digest(policy),
        policy.privacy_unit.name,
        policy.recipe.mechanism,
        policy.budget.epsilon if private else 0.0,
        policy.budget.delta,
        policy.recipe.steps,
        reserved,
        policy.budget.sampling_probability,
        policy.budget.expected_batch_size,
        policy.budget.population,
        noise,
        policy.recipe.clipping_norm,
        *epsilons,
        scopes,
    )


def check_without_data(policy: Policy, plan: Plan) -> Preflight:
    """The trainer's own checks on synthetic data, and what they showed. Raises the errors of `training.preflight`."""
    import warnings

    from training.config import TrainingConfig
    from training.preflight import preflight

    with warnings.catch_warnings():  # Opacus warns that its hooks see no gradient of the token ids
        warnings.simplefilter("ignore")
        return preflight(TrainingConfig.from_policy(policy, plan.noise_multiplier))


def audit_blind_spots(policy: Policy, plan: Plan) -> dict[str, str]:
    """Checks that every release needs and that this policy's audit could not evaluate -> what to change."""
    from training.config import TrainingConfig
    from training.probe_power import without_power

    if plan.mechanism != "dp_sgd":
        return {}
    return without_power(TrainingConfig.from_policy(policy, plan.noise_multiplier), policy.audit.probe_level)


def pretrained_digest(policy: Policy) -> Digest | None:
    """Of the public weights that the policy names, to pin as recipe.pretrained_digest. Raises E-PRETRAINED codes."""
    from training.pretrained import find_pretrained

    recipe = policy.recipe
    return find_pretrained(recipe.pretrained, recipe.pretrained_digest).digest if recipe.pretrained else None


def preflight_json(found: Preflight, plan: Plan) -> dict[str, Json]:
    return {
        "verdict": "passed",
        "trainable_parameters": found.trainable,
        "frozen_parameters": found.frozen,
        "gradients": found.memory.method,
        "physical_batch": found.memory.units,
        "signal_to_noise_per_step": round(found.signal_to_noise_per_step, 4),
        "signal_to_noise": round(found.signal_to_noise, 4),
        "seconds_expected": round(found.seconds_per_step * plan.steps, 1),
    }


def _epsilon(mechanism: Mechanism, steps: int, policy: Policy) -> float:
    return epsilon_of_charge(charge_of(mechanism, steps), policy.budget.delta)


def _scope_plans(policy: Policy, home: Home | None, mechanism: Mechanism, steps: int) -> tuple[ScopePlan, ...]:
    from pipeline.training_budget import budget_scope, refuse_another_unit

    ledger = None if home is None or not _has_ledger(home) else home.ledger
    own = budget_scope(policy)
    terms = ScopeTerms(policy.privacy_unit.name, policy.budget.cap_epsilon, policy.budget.delta)
    scopes = (own,) if home is None else _lineage_scopes(home, policy) or (own,)
    if ledger is not None:
        refuse_another_unit(ledger, policy, scopes)
        ledger.check_terms(own, terms)
    return tuple(_scope_plan(ledger, scope, terms, mechanism, steps) for scope in scopes)


def _has_ledger(home: Home) -> bool:
    """Opening a ledger that is not there would make it."""
    from pathlib import Path

    place = home.place("ledger")
    return not isinstance(place, Path) or place.exists()


def _lineage_scopes(home: Home, policy: Policy) -> tuple[str, ...]:
    """Of the newest dataset that was protected under this very policy; empty when there is none."""
    from pipeline.training_budget import budget_scopes

    digest = policy_digest(policy)
    for entry in reversed(home.journal.entries()):
        made = entry.facts.get("manifest")
        wanted = (entry.facts.get("stage"), entry.facts.get("policy")) == ("protect", digest)
        if entry.kind == "stage" and wanted and isinstance(made, str):
            return budget_scopes(home, policy, made)
    return ()


def _scope_plan(ledger: Ledger | None, scope: str, terms: ScopeTerms, mechanism: Mechanism, steps: int) -> ScopePlan:
    opened = ledger is not None and scope in ledger.scopes()

    # Repeats of a schedule begin it anew, so each whole run is one step of this.
    run = Composed(mechanism.parts) if isinstance(mechanism, NoiseSchedule) else mechanism
    times = 1 if isinstance(mechanism, NoiseSchedule) else steps

    def preview(runs: int) -> Preview:
        if ledger is not None:
            return ledger.preview(scope, run, times * runs, unopened=terms)
        charge = charge_of(run, times * runs)
        fits = admits(charge, cap_vector(terms.cap_epsilon, terms.delta))
        return Preview(0.0, epsilon_of_charge(charge, terms.delta), terms.cap_epsilon, fits)

    one = preview(1)
    runs = most(lambda number: preview(number).fits, MAX_STEPS // steps)
    return ScopePlan(scope, opened, one.epsilon_before, one.epsilon_after, one.cap, one.fits, runs)


def most(fits: Callable[[int], bool], limit: int) -> int:
    """The largest number from 0 to `limit` that fits; `fits` never turns true again once it is false."""
    low, high = 0, 1
    while high <= limit and fits(high):
        low, high = high, high * 2
    high = min(high, limit + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low

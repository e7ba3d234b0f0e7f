"""What a private search costs: the published figures, and a charge that no possible trial goes beyond."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError

from privacy.accounting import ORDERS, calibrate_noise, composed_rdp, epsilon_of_charge
from privacy.errors import PolicyError
from privacy.mechanisms import Composed, Gaussian, Mechanism, PoissonSampledGaussian, PrivateSelection, charge_of
from privacy.policy import Policy
from tests.worlds.policies import make_policy
from training.config import approved_steps
from training.search_charge import (
    SearchCharge,
    charge_for,
    free_score_noise,
    logarithmic_stop,
    selection_of,
    shape_of,
)

SEARCH: dict[str, object] = {
    "data": "private",
    "charge": "selection",
    "distribution": "logarithmic",
    "trials": 10,
    "epsilon": 5.45,
    "space": {"learning_rate": [0.001, 0.1, "log"], "steps": [100, 200], "optimizer": ["sgd", "adam"]},
}
BANK = {"budget.population": 10_003, "budget.expected_batch_size": 2000, "budget.delta": 10_003**-1.1}


def searching(**changes: object) -> Policy:
    return make_policy(**BANK, search={**SEARCH, **changes})


@pytest.mark.parametrize(("distribution", "figures"), [("logarithmic", (5.45, 6.02, 6.55)), ("geometric", (6.37, 7.26, 8.13))])
def test_the_figures_of_the_research_are_met(distribution: str, figures: tuple[float, ...]) -> None:
    """research/training.md, section 6: base epsilon 3.27 by RDP, 10, 30 and 100 trials on average."""
    delta = 10_003**-1.1
    run = Composed(((PoissonSampledGaussian(0.2, calibrate_noise(3.27, delta, 0.2, 200)), 200),))
    found = [epsilon_of_charge(charge_of(selection_of(run, distribution, mean), 1), delta) for mean in (10, 30, 100)]
    assert found == pytest.approx(figures, abs=0.015)
    alone = [epsilon_of_charge(charge_of(run, mean), delta) for mean in (10, 30, 100)]
    assert all(selected < composed * 0.6 for selected, composed in zip(found, alone, strict=True))


@pytest.mark.parametrize("mean", [1.5, 2, 10, 100, 10_000])
def test_the_logarithmic_law_has_the_mean_that_was_asked_for(mean: float) -> None:
    assert PrivateSelection(Gaussian(1.0), 0.0, logarithmic_stop(mean)).expected_trials == pytest.approx(mean, rel=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"distribution": "geometric"},
        {"distribution": "poisson"},
        {"charge": "composition", "distribution": None},
        {"charge": "composition", "distribution": None, "method": "bayesian"},
    ],
)
def test_the_whole_search_costs_what_was_declared_and_hardly_less(changes: dict[str, object]) -> None:
    found = charge_for(searching(**changes))
    declared = SEARCH["epsilon"]
    assert isinstance(declared, float)
    assert declared * 0.99 < found.epsilon <= declared
    assert found.epsilon == epsilon_of_charge(charge_of(found.mechanism, found.steps), BANK["budget.delta"])
    assert found.trial_epsilon < found.epsilon
    assert found.steps == (10 if changes.get("charge") == "composition" else 1)


def base(found: SearchCharge) -> Mechanism:
    return found.mechanism.base if isinstance(found.mechanism, PrivateSelection) else found.mechanism


def test_no_trial_that_the_space_allows_costs_more_than_what_is_selected_from() -> None:
    policy = searching(space={**SEARCH["space"], "expected_batch_size": [500, 2000]})  # type: ignore[dict-item]
    found = charge_for(policy)
    bound = composed_rdp(charge_of(base(found), 1))
    assert policy.search is not None
    for corner in policy.search.corners():
        steps, batch = shape_of(policy.tried(corner))
        step = PoissonSampledGaussian(batch / 10_003, found.noise[steps, batch])
        assert np.all(composed_rdp(charge_of(step, approved_steps(steps))) <= bound)
    assert len(found.noise) == 4
    assert np.all(composed_rdp(charge_of(Gaussian(found.score_noise), 1)) <= bound)


def test_the_score_costs_nothing_beside_the_training_and_with_less_noise_it_would() -> None:
    run = Composed(((PoissonSampledGaussian(0.2, 4.0), 200),))
    noise = free_score_noise(run)
    training = composed_rdp(charge_of(run, 1))
    assert np.all(np.array(ORDERS) / (2 * noise**2) <= training * (1 + 1e-9))
    assert not np.all(np.array(ORDERS) / (2 * (noise * 0.999) ** 2) <= training)
    assert 0.5 < noise < 3


def test_a_search_that_its_epsilon_can_not_buy_is_refused() -> None:
    with pytest.raises(PolicyError, match="E-SEARCH-001"):
        charge_for(searching(epsilon=1e-4, trials=10_000))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"patience": 3}, "stopping early"),
        ({"method": "bayesian"}, "learn from each other"),
        ({"trials": 1}, "two trials or more"),
        ({"space": {"steps": [10, 20, "linear"]}}, "list its values"),
        ({"space": {"steps": [-1, 3]}}, "no policy may have"),
        ({"space": {"steps": [100], "warmup_steps": [10, 100]}}, "no policy may have"),
        ({"space": {"learning_rat": [1, 2]}}, "not searched"),
        ({"space": {"init_seed": [1, 2]}}, "not searched"),
        ({"space": {"learning_rate": [0.1, 0.01, "log"]}}, "low below high"),
        ({"space": {"learning_rate": [0, 0.1, "log"]}}, "above 0"),
        ({"space": {"learning_rate": [0.1, 0.1]}}, "once"),
        ({"space": {"learning_rate": []}}, "not empty"),
        ({"space": {"learning_rate": [math.nan, 1.0]}}, "finite|no policy may have"),
        ({"space": {f: [i / 100 for i in range(1, 30)] for f in ("learning_rate", "clipping_norm", "l1")}}, "combinations"),
        ({"epsilon": 90.0}, "cap_epsilon"),
        ({"epsilon": None}, "needed there"),
        ({"charge": None}, "needed there"),
        ({"charge": "composition"}, "distribution"),
        ({"data": "proxy"}, "proxy"),
    ],
)
def test_a_search_that_would_decide_for_free_does_not_load(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        searching(**changes)

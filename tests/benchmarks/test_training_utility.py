"""The utility benchmark: its mechanism comes from public numbers, and the whole of it runs on real data."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.training_utility import EPSILONS, TRIALS, Trial, accuracy, configured, rows, trained
from benchmarks.training_utility_data import DATA, Scored
from privacy.accounting import charge_vector, epsilon_of_charge
from training.config import approved_steps
from training.data import UnitData


def separable(units: int = 400) -> Scored:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, (units, 1))
    features = np.zeros((units, 1, 12), dtype=np.float16)
    features[np.arange(units), 0, labels[:, 0]] = 1.0
    held = np.eye(3, 12, dtype=np.float32)
    return Scored(UnitData(tuple(map(str, range(units))), {"features": features}, labels), held, np.arange(3), ("a", "b", "c"))


@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.name.split(",")[0])
def test_every_trial_keeps_within_its_epsilon_at_a_delta_below_one_unit(trial: Trial) -> None:
    data = separable()
    for epsilon in EPSILONS[1:]:
        config = configured(trial, data, epsilon)
        step = charge_vector(config.sampling_probability, config.noise_multiplier)
        charge = [approved_steps(config.steps) * units for units in step]
        assert 400**-1.1 < 1 / 400
        assert epsilon_of_charge(charge, 400**-1.1) <= epsilon
        assert config.mechanism == "dp_sgd"
        assert config.divisor == round(trial.share * 400)
    assert configured(trial, data, math.inf).mechanism == "non_private"


def test_a_head_learns_what_can_be_learnt_and_an_unknown_label_counts_as_wrong() -> None:
    data = separable()
    model = trained(TRIALS[1], data, 8.0)
    assert accuracy(model, data) == 100.0
    assert accuracy(model, Scored(data.units, data.test, np.array([0, 1, -1]), data.labels)) == pytest.approx(200 / 3)


@pytest.mark.slow
def test_a_quick_run_gives_every_row() -> None:
    if not DATA.is_dir():
        pytest.skip(f"needs {DATA}")
    found = rows(quick=True)
    assert len(found) == len(TRIALS) * len(EPSILONS)
    assert sum(row.goal is not None for row in found) == 7
    assert all(0 <= row.measured <= 100 for row in found)

"""What the lower bounds say of an exactly Gaussian mechanism, and what membership inference finds in a digits classifier.

Digits: the 1,797 pictures of scikit-learn, one a unit, half of them members; a net of 64-64-10, without privacy and at
epsilon 8, with as many shadow models as `_SHADOWS` says. Baselines are the figures of research/auditing.md (prototype).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.rows import Row
from privacy import bounds
from privacy.accounting import calibrate_noise
from privacy.policy import Recipe
from tests.vectors import make_bounds
from training.config import CANARY_GAIN, TrainingConfig
from training.data import UnitData
from training.engine import make_engine
from training.membership import (
    auc,
    epsilon_lower_bound,
    joined,
    lira_scores,
    loss_scores,
    picked,
    rate_at,
    rmia_scores,
    train_shadows,
    unit_losses,
)
from training.models.base import CanaryCarrier, UnitModel

DELTA, EPSILON = 1e-5, 8.0
_SHADOWS = 16
_HELD_OUT = 0.5
_BATCH = 128
# AUC and TPR at 1 % false positives of the prototype, with 32 and 20 shadows.
_PROTOTYPE = {
    ("plain", "loss"): (0.529, 0.010),
    ("plain", "lira"): (0.605, 0.068),
    ("plain", "rmia"): (0.617, 0.072),
    ("private", "loss"): (0.527, 0.014),
    ("private", "lira"): (0.528, 0.012),
    ("private", "rmia"): (0.562, 0.018),
}


def rows(*, quick: bool = False) -> list[Row]:
    torch.set_num_threads(1)
    return [*_golden(), *_gaussian(8 if quick else 40), *_levels(500 if quick else 4000), *_attacks(4 if quick else _SHADOWS)]


def _golden() -> list[Row]:
    folder = Path(make_bounds.__file__).parent
    jax = json.loads((folder / "bounds_jax_privacy.json").read_text())
    opake = json.loads((folder / "bounds_opake.json").read_text())
    steinke = fdp = 0.0
    for row in jax["counts"]:
        counts = row["canaries"], row["guesses"], row["correct"], row["delta"], row["alpha"]
        steinke = max(steinke, abs(bounds.steinke_epsilon(*counts) - row["steinke"]))
        fdp = max(fdp, abs(bounds.fdp_epsilon(*counts) - row["fdp"]))
    gaussian = max(abs(bounds.gaussian_epsilon(r["mu"], r["delta"]) - r["epsilon"]) for r in opake["gaussian_epsilon"])
    return [
        _row(f"largest difference of the {name} from {whose}", "epsilon", found, 1e-3, found <= 1e-3)
        for name, whose, found in (
            ("Steinke bound", "jax_privacy 2.0.0", steinke),
            ("f-DP bound", "jax_privacy 2.0.0", fdp),
            ("mu-GDP epsilon", "opake 0.16.1", gaussian),
        )
    ]


def _gaussian(runs: int) -> list[Row]:
    """Mean bounds at 95 % from 1,000 canaries of a mechanism that is exactly at epsilon 8."""
    mu, found = _mu_of(EPSILON), {"Steinke": [0.0] * 0, "f-DP": [0.0] * 0, "Gaussian": [0.0] * 0}
    for seed in range(runs):
        scores, coins = make_bounds.scores(mu, 1000, 10_000 + seed)
        found["Steinke"].append(bounds.steinke_lower_bound(scores, coins, DELTA, 0.95))
        found["f-DP"].append(bounds.fdp_lower_bound(scores, coins, DELTA, 0.95))
        found["Gaussian"].append(bounds.gaussian_lower_bound(scores[coins], scores[~coins], DELTA, 0.95))
    before = {"Steinke": 2.70, "f-DP": 3.98, "Gaussian": 7.3}
    shown = [
        Row(f"{name} bound at epsilon 8, 1,000 canaries, 95 %", "epsilon", _mean(seen), before[name])
        for name, seen in found.items()
    ]
    share = _mean(found["Gaussian"]) / EPSILON
    return [
        *shown,
        Row("Gaussian bound / true epsilon, exact mechanism, 1,000 canaries", "share", share, 0.61, 0.6, share >= 0.6),
    ]


def _levels(runs: int) -> list[Row]:
    """How often a bound of a correct mechanism lies above the truth."""
    mu = _mu_of(EPSILON)
    above = {0.95: 0, 0.999: 0}
    for seed in range(runs):
        scores, coins = make_bounds.scores(mu, 200, 50_000 + seed)
        for level in above:
            above[level] += bounds.gaussian_lower_bound(scores[coins], scores[~coins], DELTA, level) > EPSILON
    return [
        _row(f"Gaussian bounds above the truth at {level:.1%}, 200 canaries", "share", n / runs, limit, n / runs <= limit)
        for (level, n), limit in zip(above.items(), (0.06, 0.002), strict=True)
    ]


class DigitsNet(UnitModel):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(64, 64), nn.Linear(64, 10)

    def outputs(self, inputs: Mapping[str, Tensor]) -> Tensor:
        found: Tensor = self.head(torch.relu(self.hidden(inputs["pixels"])))
        return found


def _carrier(config: TrainingConfig) -> CanaryCarrier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CanaryCarrier(DigitsNet(), config.canaries, CANARY_GAIN * config.clipping_norm)


def _digits() -> UnitData:
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = (data.data / 16.0).astype(np.float32)[:, None, :]
    return UnitData(tuple(f"d{n:04d}" for n in range(len(pixels))), {"pixels": pixels}, data.target.astype(np.int64)[:, None])


def _config(private: bool) -> TrainingConfig:
    probability, steps = _BATCH / 900, 300 if private else 700
    recipe = Recipe(
        steps=steps, learning_rate=0.003, optimizer="adam", clipping_norm=1.0, mechanism="dp_sgd" if private else "non_private"
    )
    noise = calibrate_noise(EPSILON, DELTA, probability, steps) if private else 0.0
    return TrainingConfig(recipe, tuple("0123456789"), 1, noise, probability, _BATCH, 2)


def _attacks(shadows: int) -> list[Row]:
    everybody = _digits()
    member = np.random.default_rng(7).random(len(everybody)) < 1 - _HELD_OUT
    training, holdout = picked(everybody, np.flatnonzero(member)), picked(everybody, np.flatnonzero(~member))
    found: list[Row] = []
    for name, private in (("plain", False), ("private", True)):
        config = _config(private)
        found += _attacked(name, config, training, holdout, shadows)
    return found


def _attacked(name: str, config: TrainingConfig, training: UnitData, holdout: UnitData, shadows: int) -> list[Row]:
    engine = make_engine(_carrier(config), config, training, np.zeros(config.canaries, dtype=np.bool_))
    engine.begin()
    for number in range(config.steps):
        engine.step(number)
    whole, model = joined(training, holdout), engine.carrier.model
    began = time.perf_counter()
    losses = unit_losses(model, whole)
    epsilon_lower_bound(-losses[: len(training)], -losses[len(training) :], _HELD_OUT, DELTA, 0.999)
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    trained = train_shadows(replace(config), whole, shadows, build=_carrier)
    spent = time.perf_counter() - began
    scored = {"loss": loss_scores(losses), "lira": lira_scores(losses, trained), "rmia": rmia_scores(losses, trained)}
    shown = []
    for attack, scores in scored.items():
        inside, outside = scores[: len(training)], scores[len(training) :]
        area, rate = _PROTOTYPE[name, attack]
        bound = epsilon_lower_bound(inside, outside, _HELD_OUT, DELTA, 0.999)
        at = rate_at(inside, outside, 0.01, 0.95).true_positive_rate
        what = f"digits, {'epsilon 8' if config.noise_multiplier else 'no privacy'}, {attack}"
        shown += [
            Row(f"{what}: AUC", "share", auc(inside, outside, 0.95)[0], area),
            Row(f"{what}: TPR at 1 % FPR", "share", at, rate),
            Row(f"{what}: epsilon lower bound at 99.9 %", "epsilon", bound),
        ]
    took = f"digits, {'epsilon 8' if config.noise_multiplier else 'no privacy'}"
    return [
        *shown,
        _row(f"{took}: the loss attack with its bound", "s", seconds, 2.0, seconds < 2.0),
        Row(f"{took}: training {shadows} shadow models", "s", spent),
    ]


def _row(name: str, unit: str, measured: float, goal: float, met: bool) -> Row:
    return Row(name, unit, measured, None, goal, bool(met))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _mu_of(epsilon: float) -> float:
    low, high = 1e-3, 50.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if bounds.gaussian_epsilon(middle, DELTA) > epsilon else (middle, high)
    return low

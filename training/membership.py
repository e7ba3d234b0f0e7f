"""Membership inference on a trained model: can units that it learnt from be told from units that it never saw?

Guarantee: a score looks at the model under attack, at shadow models and at the unit, never at whether the unit is a member, so
the epsilon lower bound of `fair_game` is valid: members are thinned until each unit is in by a fair coin of its own.
Assumption: who is a member was decided by independent coins (`training.data.is_holdout`) with the public share.
Not covered: an attack that finds nothing shows nothing; a stronger one may. The figures are exact, over real units, and so
stand outside the privacy claim: only aggregates may leave, rounded.
Sources: loss, Yeom et al. 2018 (1709.01604); LiRA, Carlini et al. 2022 (2112.03570), with the variances of all units pooled
as it advises for few shadows; RMIA, Zarifzadeh et al. 2024 (2312.03262).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import beta, norm, rankdata

from privacy import bounds
from privacy.noise import BoolArray, SecretCoins
from training.config import TrainingConfig
from training.data import UnitData
from training.ema import averaged
from training.engine import Memory, make_carrier, make_engine
from training.models.base import CanaryCarrier, UnitModel

FloatArray = npt.NDArray[np.float64]
LOW_RATES = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # false-positive rates at which the curve is shown
_UNITS_AT_ONCE = 256
_CANARIES = 2  # a carrier has to have some; both are out
_MOST_IN_GAME = 2000  # units whose coins are guessed for the bound; a random part where there are more
_MEMORY = Memory()
_SMALLEST_LOSS, _LARGEST_LOSS = 1e-7, 60.0


@dataclass(frozen=True, slots=True)
class Shadows:
    """losses: float64 [shadows, units]. inside: bool [shadows, units], who a shadow was trained on."""

    losses: FloatArray
    inside: BoolArray


@dataclass(frozen=True, slots=True)
class Rate:
    """Share of members found at a threshold that at most `false_positive_rate` of the non-members pass.

    lower, upper: Clopper and Pearson 1934, two-sided, over the members; the threshold counts as given.
    """

    false_positive_rate: float
    true_positive_rate: float
    lower: float
    upper: float


def unit_losses(model: UnitModel, data: UnitData) -> FloatArray:
    """float64 [units]: what the recipe would minimise, without dropout."""
    found = [np.zeros(0)]
    device = next(iter(model.parameters())).device
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for start in range(0, len(data), _UNITS_AT_ONCE):
            part = slice(start, start + _UNITS_AT_ONCE)
            inputs = {name: torch.from_numpy(np.ascontiguousarray(a[part])).to(device) for name, a in data.inputs.items()}
            losses = model.losses(inputs, torch.from_numpy(data.labels[part]).to(device))
            found.append(losses.double().cpu().numpy())
    model.train(was_training)
    return np.concatenate(found)


def joined(first: UnitData, second: UnitData) -> UnitData:
    """The units of both that have a record; a unit without one has no loss to look at."""
    parts = [picked(data, np.flatnonzero(data.present.any(1))) for data in (first, second)]
    inputs = {name: np.concatenate([p.inputs[name] for p in parts]) for name in first.inputs}
    labels = np.concatenate([p.labels for p in parts])
    return UnitData(parts[0].units + parts[1].units, inputs, labels, first.ragged)


def picked(data: UnitData, rows: npt.NDArray[np.int64]) -> UnitData:
    inputs = {name: array[rows] for name, array in data.inputs.items()}
    return UnitData(tuple(data.units[int(row)] for row in rows), inputs, data.labels[rows], data.ragged)


def train_shadows(
    config: TrainingConfig,
    data: UnitData,
    shadows: int,
    memory: Memory = _MEMORY,
    device: str = "cpu",
    progress: Callable[[int, int], None] = lambda done, total: None,
    build: Callable[[TrainingConfig], CanaryCarrier] = make_carrier,
) -> Shadows:
    """Models by the same recipe and mechanism, each on a secret random half of the units; their weights are dropped at once.

    Spends no budget, because nothing of a shadow leaves but what `data`'s own exact figures give away.
    """
    small, coins = replace(config, canaries=_CANARIES), SecretCoins()
    losses, inside = np.zeros((shadows, len(data))), np.zeros((shadows, len(data)), dtype=np.bool_)
    for number in range(shadows):
        inside[number] = coins.bernoulli(len(data), 0.5)
        half = picked(data, np.flatnonzero(inside[number]))
        nobody = np.zeros(_CANARIES, dtype=np.bool_)
        engine = make_engine(build(small).to(device), small, half, nobody, memory)
        engine.begin()
        for step in range(small.steps):
            engine.step(step)
        engine.collect()
        with averaged(engine.optimizer):
            losses[number] = unit_losses(engine.carrier.model, data)
        progress(number + 1, shadows)
    return Shadows(losses, inside)


def loss_scores(losses: FloatArray) -> FloatArray:
    """float64 [units]; higher is likelier a member."""
    return -losses


def lira_scores(losses: FloatArray, shadows: Shadows) -> FloatArray:
    """Log likelihood ratio of the model's confidence in a unit, among shadows that saw the unit and shadows that did not."""
    own, seen = _confidence(losses), _confidence(shadows.losses)
    mean_in, spread_in = _moments(seen, shadows.inside)
    mean_out, spread_out = _moments(seen, ~shadows.inside)
    found: FloatArray = norm.logpdf(own, mean_in, spread_in) - norm.logpdf(own, mean_out, spread_out)
    return found


def rmia_scores(losses: FloatArray, shadows: Shadows) -> FloatArray:
    """Log of the unit's likelihood over its mean among shadows that saw it and that did not.

    RMIA compares this ratio with that of reference units; with the same reference units for everybody, and whatever its
    gamma, that keeps the order of the ratios, and so the curve.
    """
    likely = np.exp(-shadows.losses)
    mean = (_mean(likely, shadows.inside) + _mean(likely, ~shadows.inside)) / 2
    found: FloatArray = -losses - np.log(np.maximum(mean, 1e-300))
    return found


def auc(inside: FloatArray, outside: FloatArray, level: float) -> tuple[float, float, float]:
    """Area under the curve with its two-sided interval. Source: DeLong, DeLong and Clarke-Pearson 1988."""
    members, others = len(inside), len(outside)
    ranks = rankdata(np.concatenate([inside, outside]))
    area = (ranks[:members].sum() - members * (members + 1) / 2) / (members * others)
    over = (ranks[:members] - rankdata(inside)) / others
    under = 1 - (ranks[members:] - rankdata(outside)) / members
    error = math.sqrt(over.var(ddof=1) / members + under.var(ddof=1) / others)
    reach = float(norm.ppf((1 + level) / 2)) * error
    return float(area), max(0.0, float(area) - reach), min(1.0, float(area) + reach)


def rate_at(inside: FloatArray, outside: FloatArray, false_positive_rate: float, level: float) -> Rate:
    """At the lowest threshold that at most this share of the non-members lie above."""
    allowed = math.floor(false_positive_rate * len(outside) + 1e-9)
    threshold = np.sort(outside)[::-1][min(allowed, len(outside) - 1)]
    found = int((inside > threshold).sum())
    lower, upper = clopper_pearson(found, len(inside), 1 - (1 - level) / 2)
    return Rate(false_positive_rate, found / len(inside), lower, upper)


def clopper_pearson(successes: int, trials: int, level: float) -> tuple[float, float]:
    """Lower and upper bound of a share, each one-sided at `level`."""
    lower = float(beta.ppf(1 - level, successes, trials - successes + 1)) if successes else 0.0
    upper = float(beta.ppf(level, successes + 1, trials - successes)) if successes < trials else 1.0
    return lower, upper


def fair_game(
    inside: FloatArray, outside: FloatArray, holdout_share: float, coins: SecretCoins
) -> tuple[FloatArray, BoolArray]:
    """Scores and membership of a part of the units, chosen so that each of it is a member by a fair, independent coin.

    A unit is a member with probability 1 - holdout_share. When members are kept with probability
    holdout_share / (1 - holdout_share) (or, where they are the rarer side, non-members accordingly), both are equally likely.
    """
    kept_in = min(1.0, holdout_share / (1 - holdout_share))
    kept_out = min(1.0, (1 - holdout_share) / holdout_share)
    some_in, some_out = inside[coins.bernoulli(len(inside), kept_in)], outside[coins.bernoulli(len(outside), kept_out)]
    scores = np.concatenate([some_in, some_out])
    members = np.arange(len(scores)) < len(some_in)
    share = min(1.0, _MOST_IN_GAME / max(1, len(scores)))
    kept = coins.bernoulli(len(scores), share)
    return scores[kept], members[kept]


def epsilon_lower_bound(
    inside: FloatArray, outside: FloatArray, holdout_share: float, delta: float, level: float, coins: SecretCoins | None = None
) -> float:
    """What the attack shows of epsilon, for one run (`privacy.bounds.fdp_lower_bound`); 0 where too few units take part."""
    scores, members = fair_game(inside, outside, holdout_share, coins or SecretCoins())
    return bounds.fdp_lower_bound(scores, members, delta, level) if len(scores) >= 2 else 0.0


def curve(inside: FloatArray, outside: FloatArray, level: float, rates: Sequence[float] = LOW_RATES) -> list[Rate]:
    return [rate_at(inside, outside, rate, level) for rate in rates]


def _confidence(losses: FloatArray) -> FloatArray:
    """log(p / (1 - p)) of p = exp(-loss), which is nearly Gaussian over shadows."""
    bounded = np.clip(losses, _SMALLEST_LOSS, _LARGEST_LOSS)
    found: FloatArray = -bounded - np.log(-np.expm1(-bounded))
    return found


def _moments(values: FloatArray, chosen: BoolArray) -> tuple[FloatArray, float]:
    """Mean of each unit over its chosen shadows, and one spread for all; a unit without any gets the mean of all units."""
    mean = _mean(values, chosen)
    left = np.where(chosen, values - mean, 0.0)
    degrees = max(1, int(chosen.sum()) - int(chosen.any(0).sum()))
    return mean, max(1e-6, math.sqrt(float((left**2).sum()) / degrees))


def _mean(values: FloatArray, chosen: BoolArray) -> FloatArray:
    count = chosen.sum(0)
    overall = float(values[chosen].mean()) if chosen.any() else 0.0
    found: FloatArray = np.where(count > 0, (values * chosen).sum(0) / np.maximum(count, 1), overall)
    return found

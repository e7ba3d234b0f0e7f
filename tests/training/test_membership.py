"""Membership inference: finds members of a model that overfitted, nobody under noise, nothing where there is nothing."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from privacy.noise import SecretCoins
from tests.training.worlds import small_config
from tests.vectors import make_bounds
from training.config import TrainingConfig
from training.data import IGNORED, UnitData
from training.engine import make_carrier, make_engine
from training.membership import (
    Shadows,
    auc,
    clopper_pearson,
    curve,
    epsilon_lower_bound,
    fair_game,
    joined,
    lira_scores,
    loss_scores,
    picked,
    rate_at,
    rmia_scores,
    train_shadows,
    unit_losses,
)

HOLDOUT_SHARE = 0.5
PLAIN = {"mechanism": "non_private", "noise_multiplier": 0.0, "hash_buckets": 512, "embedding_width": 16, "max_tokens": 8}
OVERFITTED = small_config(**PLAIN, learning_rate=0.02, steps=150, sampling_probability=0.3, divisor=60)
PRIVATE = small_config(
    **{**PLAIN, "mechanism": "dp_sgd", "noise_multiplier": 8.0},
    learning_rate=0.02,
    steps=40,
    sampling_probability=0.3,
    divisor=60,
)


def made_units(count: int, seed: int) -> UnitData:
    """Half of the units say what they are; the other half have to be learnt by heart, and are hard without."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, (count, 2)).astype(np.int64)
    tokens = rng.integers(10, 512, (count, 2, 8)).astype(np.int32)
    easy = np.arange(count) % 2 == 0
    tokens[easy, :, :4] = (1 + labels[easy])[:, :, None]
    return UnitData(tuple(f"u{n:04d}" for n in range(count)), {"tokens": tokens}, labels, ("tokens",))


@dataclass(frozen=True)
class Attacked:
    """Losses of one trained model on members, then non-members."""

    losses: np.ndarray
    members: int
    everybody: UnitData

    def split(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return scores[: self.members], scores[self.members :]


def attacked(config: TrainingConfig, count: int = 400, seed: int = 1) -> Attacked:
    torch.set_num_threads(1)
    whole = made_units(count, seed)
    member = np.random.default_rng(seed + 1000).random(count) < 1 - HOLDOUT_SHARE  # of a stream of its own
    training, holdout = picked(whole, np.flatnonzero(member)), picked(whole, np.flatnonzero(~member))
    engine = make_engine(make_carrier(config), config, training, np.zeros(config.canaries, dtype=np.bool_))
    engine.begin()
    for number in range(config.steps):
        engine.step(number)
    everybody = joined(training, holdout)
    return Attacked(unit_losses(engine.carrier.model, everybody), len(training), everybody)


@pytest.fixture(scope="module")
def overfitted() -> Attacked:
    return attacked(OVERFITTED)


def test_an_overfitted_model_gives_its_members_away(overfitted: Attacked) -> None:
    inside, outside = overfitted.split(loss_scores(overfitted.losses))
    area, low, _ = auc(inside, outside, 0.95)
    assert area > 0.6
    assert low > 0.53
    # The halves that say what they are blur the loss attack, and still a claim of 1 does not stand.
    assert epsilon_lower_bound(inside, outside, HOLDOUT_SHARE, 1e-5, 0.999) > 0.2


def test_shadows_find_more_than_the_loss_alone(overfitted: Attacked) -> None:
    """Some units are easy for everybody: only other models tell that a low loss means nothing there."""
    shadows = train_shadows(OVERFITTED, overfitted.everybody, 12)
    loss = auc(*overfitted.split(loss_scores(overfitted.losses)), 0.95)[0]
    lira = auc(*overfitted.split(lira_scores(overfitted.losses, shadows)), 0.95)[0]
    rmia = auc(*overfitted.split(rmia_scores(overfitted.losses, shadows)), 0.95)[0]
    assert lira >= loss
    assert rmia >= loss
    bound = epsilon_lower_bound(*overfitted.split(lira_scores(overfitted.losses, shadows)), HOLDOUT_SHARE, 1e-5, 0.999)
    assert bound > 1.0
    assert 0.4 < shadows.inside.mean() < 0.6
    assert not np.array_equal(shadows.inside[0], shadows.inside[1])


def test_a_private_model_hides_them() -> None:
    found = attacked(PRIVATE)
    inside, outside = found.split(loss_scores(found.losses))
    _, low, high = auc(inside, outside, 0.999)
    assert low < 0.53
    assert high < 0.7
    assert epsilon_lower_bound(inside, outside, HOLDOUT_SHARE, 1e-5, 0.999) < 1.0


def test_chance_is_chance() -> None:
    refuted = covered = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        inside, outside = rng.standard_normal(300), rng.standard_normal(100)
        refuted += epsilon_lower_bound(inside, outside, 0.25, 1e-5, 0.95) > 0
        _, low, high = auc(inside, outside, 0.95)
        covered += low <= 0.5 <= high
    assert refuted <= 9  # 60 runs at 5 %: more in one of 1,000
    assert covered >= 49


def test_shadows_that_know_nothing_give_no_score() -> None:
    """Every unit alike in all of them: neither attack may see a difference that is not there."""
    losses = np.random.default_rng(0).exponential(1.0, 50)
    same = Shadows(np.tile(losses, (8, 1)), np.random.default_rng(1).random((8, 50)) < 0.5)
    assert np.ptp(rmia_scores(losses, same)) < 1e-9
    assert np.isfinite(lira_scores(losses, same)).all()


def test_a_unit_that_was_in_no_shadow_or_in_all_of_them_still_gets_a_score() -> None:
    rng = np.random.default_rng(0)
    inside = rng.random((6, 20)) < 0.5
    inside[:, 0], inside[:, 1] = True, False
    shadows = Shadows(rng.exponential(1.0, (6, 20)), inside)
    for scores in (lira_scores, rmia_scores):
        assert np.isfinite(scores(rng.exponential(1.0, 20), shadows)).all()


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5, 0.8])
def test_the_game_is_fair_whatever_was_held_out(share: float) -> None:
    """A unit of the game is a member by a fair coin, or the one-run bound would not hold."""
    rng = np.random.default_rng(0)
    members = played = 0
    for _ in range(40):
        member = rng.random(500) >= share
        scores, coins = fair_game(np.ones(int(member.sum())), np.zeros(int((~member).sum())), share, SecretCoins())
        assert np.array_equal(scores == 1, coins)
        members, played = members + int(coins.sum()), played + len(coins)
    assert abs(members - played / 2) < 4 * np.sqrt(played) / 2


def test_a_large_game_is_cut_at_random() -> None:
    scores, coins = fair_game(np.arange(9000.0), np.arange(9000.0), 0.5, SecretCoins())
    assert 1700 < len(scores) < 2300
    assert scores[coins].max() > 8000
    assert 0.4 < coins.mean() < 0.6


def test_the_area_is_that_of_all_pairs() -> None:
    rng = np.random.default_rng(3)
    inside, outside = rng.integers(0, 9, 40).astype(float), rng.integers(0, 9, 30).astype(float)
    pairs = [(a > b) + 0.5 * (a == b) for a in inside for b in outside]
    assert auc(inside, outside, 0.95)[0] == pytest.approx(np.mean(pairs))


def test_the_area_is_not_above_that_of_jax_privacy() -> None:
    """Theirs lies under the concave hull of the curve (an attacker who mixes thresholds), which overstates a small sample."""
    golden = json.loads((Path(make_bounds.__file__).parent / "bounds_jax_privacy.json").read_text())
    for row in golden["vectors"]:
        scores, coins = np.array(row["scores"]), np.array(row["coins"], dtype=np.bool_)
        area = auc(scores[coins], scores[~coins], 0.95)[0]
        assert area <= row["auroc"] + 1e-9
        assert hull_area(scores[coins], scores[~coins]) == pytest.approx(row["auroc"], abs=1e-9)


def hull_area(inside: np.ndarray, outside: np.ndarray) -> float:
    points = [(0.0, 0.0)]
    for threshold in np.unique(np.concatenate([inside, outside]))[::-1]:
        point = (float((outside >= threshold).mean()), float((inside >= threshold).mean()))
        while len(points) > 1 and _turns_left(points[-2], points[-1], point):
            points.pop()
        points.append(point)
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(points))


def _turns_left(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]) >= 0


def test_the_area_says_how_sure_it_is() -> None:
    """The interval holds the truth as often as it says; Gaussian scores one apart have an area of 0.7602."""
    held = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        _, low, high = auc(rng.standard_normal(120) + 1, rng.standard_normal(80), 0.95)
        held += low <= 0.7602 <= high
    assert 180 <= held <= 199


def test_a_rate_stands_at_a_threshold_that_no_more_non_members_pass() -> None:
    inside, outside = np.array([1.0, 2.0, 3.0, 4.0]), np.arange(100.0) / 50
    at = rate_at(inside, outside, 0.01, 0.95)
    assert at.true_positive_rate == 0.75  # above 1.96, which one of the hundred passes
    assert at.lower < 0.75 < at.upper
    assert rate_at(inside, outside, 0.001, 0.95).true_positive_rate == 0.75
    assert [r.false_positive_rate for r in curve(inside, outside, 0.95)] == sorted(
        r.false_positive_rate for r in curve(inside, outside, 0.95)
    )
    assert rate_at(np.zeros(5), np.zeros(7), 0.5, 0.95).true_positive_rate == 0.0  # ties are no find


def test_clopper_pearson_covers_at_least_as_often_as_it_says() -> None:
    from scipy.stats import binom

    for share in (0.01, 0.2, 0.7):
        covered = sum(float(binom.pmf(k, 40, share)) for k in range(41) if clopper_pearson(k, 40, 0.95)[0] <= share)
        assert covered >= 0.95
    assert clopper_pearson(0, 9, 0.95)[0] == 0.0
    assert clopper_pearson(9, 9, 0.95)[1] == 1.0


def test_units_without_a_record_take_no_part() -> None:
    data = made_units(6, 0)
    labels = data.labels.copy()
    labels[2] = IGNORED
    assert joined(UnitData(data.units, data.inputs, labels), data).units == (*data.units[:2], *data.units[3:], *data.units)


def test_losses_leave_the_model_as_it_was() -> None:
    carrier = make_carrier(OVERFITTED)
    carrier.train()
    data = made_units(5, 0)
    found = unit_losses(carrier.model, data)
    assert carrier.model.training
    assert found.shape == (5,)
    with torch.no_grad():
        expected = carrier.model.eval().losses(
            {"tokens": torch.from_numpy(data.inputs["tokens"])}, torch.from_numpy(data.labels)
        )
    assert found == pytest.approx(expected.numpy(), rel=1e-6)

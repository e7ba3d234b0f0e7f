"""The engine: exact per-unit clipping, noise-only empty batches, a public divisor, and nothing seeded or replayed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from privacy.errors import EnvironmentFault, PolicyError
from privacy.noise import SecretCoins
from tests.training.worlds import SMALL, NoClipping, small_config, units
from training import preflight as preflight_module
from training.canaries import CanaryCoins
from training.data import IGNORED, UnitData
from training.engine import PlainEngine, PrivateEngine, make_engine, make_model, zero_non_finite
from training.models.text_mlp import TextMlp
from training.preflight import brute_force_sum, preflight

COINS = np.array([True, False, True])


def engine(**changes: object) -> PrivateEngine:
    torch.set_num_threads(1)
    config = small_config(canaries=3, **changes)
    return PrivateEngine(make_model(config), config, units(config, 12), COINS)


class Everybody(SecretCoins):
    def bernoulli(self, size: int, probability: float) -> np.ndarray:
        return np.ones(size, dtype=bool)


class Nobody(SecretCoins):
    def bernoulli(self, size: int, probability: float) -> np.ndarray:
        return np.zeros(size, dtype=bool)


def sums(made: PrivateEngine) -> list[torch.Tensor]:
    return [p.summed_grad for p in made.private.params]


@pytest.mark.parametrize("clipping_norm", [0.01, 0.5, 30.0])
@pytest.mark.parametrize("micro_batch", [1, 4, 100])
def test_the_clipped_sum_is_that_of_one_unit_at_a_time(clipping_norm: float, micro_batch: int) -> None:
    made = engine(clipping_norm=clipping_norm, max_records=3)
    made.micro_batch = micro_batch
    rows = np.array([0, 3, 4, 7, 11, 12, 13, 14])
    expected = brute_force_sum(made, rows)
    made.private.zero_grad()
    assert made.accumulate(rows) == 0
    for found, wanted in zip(sums(made), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6 * clipping_norm)


def test_a_unit_of_many_small_entries_does_not_slip_past_the_clipping_norm() -> None:
    """Summed in float32 beside large entries, small squares vanish: such a norm is too small and the clip factor too large."""
    made = engine(hash_buckets=64)
    table = made.model.embedding.weight
    made.private.zero_grad()
    for parameter in made.private.params:
        parameter.grad_sample = torch.zeros(1, *parameter.shape)
    spread = torch.full((1, 1_000_000, 4), 1e-4)
    spread[0, :16] = 1.0
    table.grad_sample = spread
    made.private.clip_and_accumulate()
    norm = torch.linalg.vector_norm(table.summed_grad, dtype=torch.float64)
    assert float(norm) <= made.config.clipping_norm
    assert float(norm) == pytest.approx(made.config.clipping_norm, rel=1e-5)


def test_a_unit_counts_once_however_many_records_it_has() -> None:
    """Record-level clipping would let a unit of eight records move the sum eight times as far."""
    for records in (1, 8):
        made = engine(max_records=8, clipping_norm=0.1)
        made.labels[0] = IGNORED
        made.labels[0, :records] = 1
        made.private.zero_grad()
        made.accumulate(np.array([0]))
        norm = torch.sqrt(torch.stack([s.square().sum() for s in sums(made)]).sum())
        assert float(norm) <= 0.1 * (1 + 1e-5)


def test_a_canary_in_contributes_exactly_the_clipping_norm_and_one_out_nothing() -> None:
    made = engine()
    made.private.zero_grad()
    made.accumulate(np.array([12, 13, 14]))
    canary = made.model.canary.weight
    torch.testing.assert_close(canary.summed_grad[:, 0], torch.tensor([1.0, 0.0, 1.0, 0.0]), rtol=1e-6, atol=0)
    assert sum(float(s.abs().sum()) for p, s in zip(made.private.params, sums(made), strict=True) if p is not canary) == 0


def test_an_empty_batch_takes_a_noise_only_step() -> None:
    config = small_config(canaries=3)
    made = PrivateEngine(make_model(config), config, units(config, 12), COINS, sampler=Nobody())
    before = [p.detach().clone() for p in made.model.parameters()]
    record = made.step(0)
    assert not record.members.any()
    assert all(not torch.equal(b, p) for b, p in zip(before, made.model.parameters(), strict=True))
    assert np.abs(record.gradient).max() > 0


def test_the_noise_has_the_deviation_that_was_claimed() -> None:
    config = small_config(hash_buckets=4096, canaries=3, noise_multiplier=1.7, clipping_norm=0.5)
    made = PrivateEngine(make_model(config), config, units(config, 12), COINS, sampler=Nobody())
    made.private.zero_grad()
    made.accumulate(np.array([], dtype=int))
    made.private.add_noise()
    noise = torch.cat([p.grad.flatten() for p in made.private.params])
    assert float(noise.std()) == pytest.approx(0.85, rel=0.03)


def test_the_divisor_is_public_whatever_the_batch_held() -> None:
    for sampler in (Everybody(), Nobody()):
        config = small_config(canaries=3, noise_multiplier=1e-9, optimizer="sgd", learning_rate=1.0, divisor=7)
        made = PrivateEngine(make_model(config), config, units(config, 12), COINS, sampler=sampler)
        made.step(0)
        expected = -1 / 7 if isinstance(sampler, Everybody) else 0.0
        assert float(made.model.canary.weight[0, 0]) == pytest.approx(expected, abs=1e-6)


def test_a_unit_that_is_not_finite_contributes_zero_and_spoils_nobody() -> None:
    good, bad = engine(), engine()
    with torch.no_grad():
        bad.model.embedding.weight[31] = float("nan")
    for made in (good, bad):
        made.tokens[made.tokens == 31] = 30
        made.tokens[5] = 31
        made.labels[5, 0] = 1
        made.private.zero_grad()
    assert good.accumulate(np.array([0, 1, 2])) == 0
    assert bad.accumulate(np.array([0, 1, 2, 5])) == 1
    for found, wanted in zip(sums(bad), sums(good), strict=True):
        torch.testing.assert_close(found, wanted)


def test_a_gradient_whose_norm_overflows_is_zeroed() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad_sample = torch.tensor([[1.0, 1.0], [1e30, 1e30]])
    assert zero_non_finite([parameter]) == 1
    assert parameter.grad_sample.tolist() == [[1.0, 1.0], [0.0, 0.0]]


def test_two_runs_of_the_same_seed_share_weights_but_neither_noise_nor_batches() -> None:
    first, second = engine(), engine()
    assert torch.equal(first.model.embedding.weight, second.model.embedding.weight)
    torch.manual_seed(7)
    one = first.step(0)
    torch.manual_seed(7)
    two = second.step(0)
    assert not np.array_equal(one.gradient, two.gradient)
    assert not np.array_equal(one.members, two.members) or one.members.sum() < 3


def test_batches_depend_on_the_public_probability_and_not_on_the_number_of_units() -> None:
    config = small_config(canaries=3, sampling_probability=0.25)
    sizes = []
    for count in (40, 400):
        made = PrivateEngine(make_model(config), config, units(config, count), COINS)
        sizes.append(np.mean([made.sample(n).mean() for n in range(200)]))
    assert sizes == pytest.approx([0.25, 0.25], abs=0.03)


def test_plain_training_records_canaries_and_does_not_follow_them() -> None:
    config = small_config(mechanism="non_private", canaries=3, noise_multiplier=0.0)
    made = make_engine(make_model(config), config, units(config, 12), COINS)
    assert isinstance(made, PlainEngine)
    made._sampler = Everybody()
    record = made.step(0)
    assert record.gradient.tolist() == [100.0, 0.0, 100.0]
    assert float(made.model.canary.weight.abs().sum()) == 0.0


@pytest.mark.parametrize("mechanism", ["dp_sgd", "non_private"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_preflight_passes_what_trains(mechanism: str, optimizer: str) -> None:
    preflight(small_config(mechanism=mechanism, optimizer=optimizer, noise_multiplier=1.0 if mechanism == "dp_sgd" else 0.0))


def test_preflight_refuses_a_layer_that_mixes_units(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_norm(config: object) -> TextMlp:
        model = make_model(SMALL)
        model.norm = nn.BatchNorm1d(4)
        return model

    monkeypatch.setattr(preflight_module, "make_model", with_norm)
    with pytest.raises(PolicyError, match="E-TRAIN-013"):
        preflight(SMALL)


def test_preflight_refuses_a_frozen_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    def frozen(config: object) -> TextMlp:
        model = make_model(SMALL)
        model.hidden.weight.requires_grad_(False)
        return model

    monkeypatch.setattr(preflight_module, "make_model", frozen)
    with pytest.raises(PolicyError, match="E-TRAIN-013"):
        preflight(SMALL)


def test_preflight_refuses_an_engine_that_does_not_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight_module, "PrivateEngine", NoClipping)
    with pytest.raises(PolicyError, match="E-TRAIN-014"):
        preflight(SMALL)


def test_preflight_refuses_a_learning_rate_that_moves_nothing() -> None:
    with pytest.raises(PolicyError, match="E-TRAIN-015"):
        preflight(small_config(learning_rate=1e-30, optimizer="sgd"))


@pytest.mark.parametrize(
    ("changes", "code", "kind"),
    [
        ({"noise_multiplier": 0.0}, "E-TRAIN-011", PolicyError),
        ({"sampling_probability": 1.5}, "E-TRAIN-012", PolicyError),
        ({"sampling_probability": 1.0}, "E-TRAIN-017", PolicyError),
        ({"hash_buckets": 1_048_576, "embedding_width": 1024}, "E-TRAIN-016", EnvironmentFault),
    ],
)
def test_preflight_refuses_numbers_that_can_not_work(changes: dict[str, object], code: str, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=code):
        preflight(small_config(**changes))


def test_the_commitment_opens_to_one_set_of_coins_only() -> None:
    toss = CanaryCoins.toss(64)
    flipped = toss.coins.copy()
    flipped[3] ^= True
    assert CanaryCoins(toss.coins, toss.salt).commitment == toss.commitment
    assert CanaryCoins(flipped, toss.salt).commitment != toss.commitment
    assert CanaryCoins(toss.coins, bytes(32)).commitment != toss.commitment
    assert "True" not in repr(toss)


def test_units_without_records_move_nothing() -> None:
    config = small_config(canaries=3)
    empty = UnitData(("u",), np.zeros((1, 2, 4), np.int32), np.full((1, 2), IGNORED, np.int64))
    made = PrivateEngine(make_model(config), config, empty, COINS)
    made.private.zero_grad()
    made.accumulate(np.array([0]))
    assert all(float(s.abs().sum()) == 0 for s in sums(made))

"""The engine: exact per-unit clipping, noise-only empty batches, a public divisor, and nothing seeded or replayed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

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
from training.engine import Memory, PlainEngine, PrivateEngine, make_carrier, make_engine
from training.models.base import CanaryCarrier
from training.models.text_mlp import TextMlp
from training.preflight import brute_force_sum, preflight
from training.recipes import recipe_of
from training.recipes.base import seeded

COINS = np.array([True, False, True])


def engine(**changes: object) -> PrivateEngine:
    torch.set_num_threads(1)
    config = small_config(canaries=3, **changes)
    return PrivateEngine(make_carrier(config), config, units(config, 12), COINS)


class Everybody(SecretCoins):
    def bernoulli(self, size: int, probability: float) -> np.ndarray:
        return np.ones(size, dtype=bool)


class Nobody(SecretCoins):
    def bernoulli(self, size: int, probability: float) -> np.ndarray:
        return np.zeros(size, dtype=bool)


def sums(made: PrivateEngine) -> list[torch.Tensor]:
    return [p.summed_grad for p in made.method.parameters]


@pytest.mark.parametrize("method", ["tape", "two_pass", "hooks", "ghost"])
@pytest.mark.parametrize("clipping_norm", [0.01, 0.5, 30.0])
@pytest.mark.parametrize("at_once", [1, 4, 100])
def test_the_clipped_sum_is_that_of_one_unit_at_a_time(clipping_norm: float, at_once: int, method: str) -> None:
    made = engine(clipping_norm=clipping_norm, max_records=3)
    plain = make_carrier(made.config)
    made = PrivateEngine(make_carrier(made.config), made.config, made.data, COINS, memory=Memory(method, at_once))
    rows = np.array([0, 3, 4, 7, 11, 12, 13, 14])
    expected = brute_force_sum(plain, made.batch(rows), clipping_norm)
    made.clear()
    assert made.accumulate(rows) == 0
    for found, wanted in zip(sums(made), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=5e-4, atol=1e-6 * clipping_norm)  # the margin against rounding


def test_a_unit_counts_once_however_many_records_it_has() -> None:
    """Record-level clipping would let a unit of eight records move the sum eight times as far."""
    for records in (1, 8):
        made = engine(max_records=8, clipping_norm=0.1)
        made.data.labels[0] = IGNORED
        made.data.labels[0, :records] = 1
        made = PrivateEngine(make_carrier(made.config), made.config, made.data, COINS)
        made.clear()
        made.accumulate(np.array([0]))
        norm = torch.sqrt(torch.stack([s.square().sum() for s in sums(made)]).sum())
        assert float(norm) <= 0.1 * (1 + 1e-5)


def test_a_canary_in_contributes_exactly_the_clipping_norm_and_one_out_nothing() -> None:
    made = engine()
    made.clear()
    made.accumulate(np.array([12, 13, 14]))
    canary = made.carrier.canary.weight
    torch.testing.assert_close(canary.summed_grad[:, 0], torch.tensor([1.0, 0.0, 1.0, 0.0]), rtol=5e-4, atol=0)
    assert float(canary.summed_grad.max()) <= 1.0
    assert sum(float(s.abs().sum()) for p, s in zip(made.method.parameters, sums(made), strict=True) if p is not canary) == 0


def test_an_empty_batch_takes_a_noise_only_step() -> None:
    config = small_config(canaries=3)
    made = PrivateEngine(make_carrier(config), config, units(config, 12), COINS, sampler=Nobody())
    before = [p.detach().clone() for p in made.carrier.parameters()]
    record = made.step(0)
    assert not record.members.any()
    assert all(not torch.equal(b, p) for b, p in zip(before, made.carrier.parameters(), strict=True))
    assert np.abs(record.gradient).max() > 0


def test_the_noise_has_the_deviation_that_was_claimed() -> None:
    config = small_config(hash_buckets=4096, canaries=3, noise_multiplier=1.7, clipping_norm=0.5)
    made = PrivateEngine(make_carrier(config), config, units(config, 12), COINS, sampler=Nobody())
    made.clear()
    made.accumulate(np.array([], dtype=int))
    made.private.add_noise()
    noise = torch.cat([p.grad.flatten() for p in made.method.parameters])
    assert float(noise.std()) == pytest.approx(0.85, rel=0.03)


def test_the_divisor_is_public_whatever_the_batch_held() -> None:
    for sampler in (Everybody(), Nobody()):
        config = small_config(canaries=3, noise_multiplier=1e-9, optimizer="sgd", learning_rate=1.0, divisor=7)
        made = PrivateEngine(make_carrier(config), config, units(config, 12), COINS, sampler=sampler)
        made.step(0)
        expected = -1 / 7 if isinstance(sampler, Everybody) else 0.0
        assert made.carrier.canary.weight[0, 0].item() == pytest.approx(expected, rel=5e-4, abs=1e-9)


def test_a_unit_that_is_not_finite_contributes_zero_and_spoils_nobody() -> None:
    good, bad = engine(), engine()
    with torch.no_grad():
        bad.carrier.model.embedding.weight[63] = float("nan")
    for made in (good, bad):
        tokens = made.data.inputs["tokens"]
        tokens[tokens == 63] = 30
        tokens[5, 0] = 63
        made.data.labels[5, 0] = 1
        made.clear()
    assert good.accumulate(np.array([0, 1, 2])) == 0
    assert bad.accumulate(np.array([0, 1, 2, 5])) == 1
    for found, wanted in zip(sums(bad), sums(good), strict=True):
        torch.testing.assert_close(found, wanted)


def test_two_runs_of_the_same_seed_share_weights_but_neither_noise_nor_batches() -> None:
    first, second = engine(), engine()
    assert torch.equal(first.carrier.model.embedding.weight, second.carrier.model.embedding.weight)
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
        made = PrivateEngine(make_carrier(config), config, units(config, count), COINS)
        sizes.append(np.mean([made.sample(n).mean() for n in range(200)]))
    assert sizes == pytest.approx([0.25, 0.25], abs=0.03)


def test_plain_training_records_canaries_and_does_not_follow_them() -> None:
    config = small_config(mechanism="non_private", canaries=3, noise_multiplier=0.0)
    made = make_engine(make_carrier(config), config, units(config, 12), COINS)
    assert isinstance(made, PlainEngine)
    made.sampler = Everybody()
    record = made.step(0)
    assert record.gradient.tolist() == [100.0, 0.0, 100.0]
    assert float(made.carrier.canary.weight.abs().sum()) == 0.0


@pytest.mark.parametrize("mechanism", ["dp_sgd", "non_private"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_preflight_passes_what_trains(mechanism: str, optimizer: str) -> None:
    found = preflight(small_config(mechanism=mechanism, optimizer=optimizer, noise_multiplier=1.0 * (mechanism == "dp_sgd")))
    assert (found.trainable, found.frozen) == (64 * 4 + 4 * 4 + 4 + 4 * 3 + 3, 0)
    assert found.memory.units >= 1


def test_preflight_refuses_a_layer_that_mixes_units(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_norm(config: object) -> CanaryCarrier:
        carrier = make_carrier(SMALL)
        carrier.model.norm = nn.BatchNorm1d(4)
        return carrier

    monkeypatch.setattr(preflight_module, "make_carrier", with_norm)
    with pytest.raises(PolicyError, match="E-TRAIN-013"):
        preflight(SMALL)


class WithSpare(TextMlp):
    """One more layer, which the loss multiplies by zero."""

    def __init__(self) -> None:
        super().__init__(3, 64, 4)
        self.spare = nn.Linear(1, 3)

    def outputs(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return super().outputs(inputs) + 0.0 * self.spare(inputs["tokens"][..., :1].float())


class RemembersItsBatch(TextMlp):
    def __init__(self) -> None:
        super().__init__(3, 64, 4)
        self.register_buffer("seen", torch.zeros(()))

    def outputs(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        self.seen += inputs["tokens"].float().mean()
        return super().outputs(inputs)


class LooksAcrossUnits(TextMlp):
    """What in-batch negatives do: another unit's score enters this unit's loss."""

    def outputs(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        found = super().outputs(inputs)
        return found - found.mean(0, keepdim=True) * torch.arange(3.0)


class LooksAtPadding(TextMlp):
    """How far others in the batch made this unit be padded enters its loss."""

    def outputs(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return super().outputs(inputs) + torch.arange(3.0) / inputs["tokens"].shape[2]


@pytest.mark.parametrize(
    ("model", "code"),
    [
        (lambda: LooksAtPadding(3, 64, 4), "E-TRAIN-029"),
        (WithSpare, "E-TRAIN-015.*spare"),
        (RemembersItsBatch, "E-TRAIN-028.*seen"),
        (lambda: LooksAcrossUnits(3, 64, 4), "E-TRAIN-029"),
    ],
)
def test_preflight_refuses_a_model_that_breaks_a_rule(
    model: Callable[[], TextMlp], code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(recipe_of(SMALL)), "build", lambda self, config: seeded(1, model))
    with pytest.raises(PolicyError, match=code):
        preflight(SMALL)


def test_preflight_refuses_a_budget_that_buys_no_useful_step() -> None:
    with pytest.raises(PolicyError, match="E-TRAIN-040"):
        preflight(small_config(noise_multiplier=1000.0, steps=2))


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
    empty = UnitData(("u",), {"tokens": np.zeros((1, 2, 4), np.int32)}, np.full((1, 2), IGNORED, np.int64))
    made = PrivateEngine(make_carrier(config), config, empty, COINS)
    made.clear()
    made.accumulate(np.array([0]))
    assert all(float(s.abs().sum()) == 0 for s in sums(made))


def test_dropout_follows_no_seed_that_a_program_set() -> None:
    """With known masks one unit more would shift every other unit's mask, which the noise does not cover."""
    found = []
    for _ in range(2):
        config = small_config(canaries=3, dropout=0.5, noise_multiplier=1e-9, optimizer="sgd", embedding_width=16)
        made = PrivateEngine(make_carrier(config), config, units(config, 12), COINS, sampler=Everybody())
        torch.manual_seed(7)
        made.step(0)
        found.append(torch.cat([p.detach().flatten() for p in made.method.parameters]))
    assert float((found[0] - found[1]).norm()) > 1e-6 * float(found[0].norm())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["tape", "two_pass"])
def test_a_compiled_forward_pass_gives_the_same_sum(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.engine.COMPILER", "aot_eager")  # traced as for the compiler, without a C++ one
    config = small_config(canaries=3, compile=True)
    made = PrivateEngine(make_carrier(config), config, units(config, 12), COINS, memory=Memory(method))
    rows = np.array([0, 3, 4, 7, 11, 12, 13, 14])
    expected = brute_force_sum(make_carrier(config), made.batch(rows), config.clipping_norm)
    made.clear()
    assert made.accumulate(rows) == 0
    for found, wanted in zip(sums(made), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=5e-4, atol=1e-6)
    assert made.step(0).non_finite_units == 0


@pytest.mark.parametrize("model", ["float32", "bfloat16"])
def test_a_step_in_half_precision_clips_and_adds_noise_in_float32(model: str) -> None:
    config = small_config(canaries=3, precision=model, embedding_width=16)
    made = PrivateEngine(make_carrier(config), config, units(config, 12), COINS, sampler=Everybody())
    made.clear()
    made.accumulate(np.arange(made.slots))
    assert {s.dtype for s in sums(made)} == {torch.float32}
    assert made.step(0).non_finite_units == 0

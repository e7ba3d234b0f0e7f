"""FSDP2 over gloo: a model in parts is the model of one process; each part's noise comes once, from its own rank."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from privacy.errors import EnvironmentFault, IntegrityError
from privacy.noise import GaussianNoise, SecretCoins
from tests.training.crews import honest, world_of
from tests.training.worlds import small_config, units
from training import sharded
from training.checkpoint import TrainingState
from training.config import TrainingConfig
from training.distributed import LeaderCrew, Seat
from training.engine import Memory, PrivateEngine, make_carrier
from training.follower import follow
from training.probe import RunRecord, noise_independence, noise_scale
from training.sharded import ShardedEngine, noise_of_rank

COINS = np.array([True, False, True, True, False, False, True])
QUIET = small_config(canaries=7, steps=4, noise_multiplier=0.0, ema=0.9)


class Nobody(SecretCoins):
    def bernoulli(self, size: int, probability: float) -> np.ndarray:
        return np.zeros(size, dtype=bool)


def alone(config: TrainingConfig, sampler: SecretCoins | None = None, steps: int = 4) -> PrivateEngine:
    made = PrivateEngine(
        make_carrier(config), config, units(config, 60), COINS, sampler or SecretCoins(bytes(32)), Memory(units=4)
    )
    for number in range(steps):
        made.step(number)
    return made


def parted(crew: LeaderCrew, config: TrainingConfig, sampler: SecretCoins | None = None) -> ShardedEngine:
    return ShardedEngine(
        make_carrier(config), config, units(config, 60), COINS, crew, sampler or SecretCoins(bytes(32)), Memory(units=4)
    )


def same(found: ShardedEngine, wanted: PrivateEngine) -> None:
    for (name, one), other in zip(found.carrier.named_parameters(), wanted.carrier.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("size", [2, 3])
def test_a_model_in_parts_is_the_model_of_one_process(tmp_path: Path, size: int) -> None:
    """Without noise, whose order of coordinates differs; clipping bites, as canaries ask for 100 times the norm."""
    with world_of(tmp_path, size) as world, world.lead() as crew:
        made = parted(crew, QUIET)
        made.begin()
        for number in range(4):
            made.step(number)
        made.collect()
    wanted = alone(QUIET)
    same(made, wanted)
    found, expected = made.optimizer.state_dict()["state"], wanted.optimizer.state_dict()["state"]
    assert found.keys() == expected.keys()
    for index, entry in expected.items():
        for name, value in entry.items():
            torch.testing.assert_close(found[index][name], value, rtol=1e-3, atol=1e-6)
    assert [process.exitcode for process in world.followers] == [0] * (size - 1)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_unit_moves_the_sum_by_the_clipping_norm_at_most(tmp_path: Path, dropout: float) -> None:
    """With dropout, a norm measured under other draws would let a unit through."""
    config = small_config(canaries=7, noise_multiplier=0.0, clipping_norm=1e-3, dropout=dropout)
    with world_of(tmp_path, 2) as world, world.lead() as crew:
        made = parted(crew, config, Only(5))
        made.begin()
        seen: list[float] = []
        add_noise = made.shards.private.add_noise

        def look() -> None:
            add_noise()
            seen.append(float(sum(own.grad.double().square().sum() for own in made.shards.own.values())))

        made.shards.private.add_noise = look  # type: ignore[method-assign]
        for number in range(4):
            made.step(number)
    assert all(square > 0 for square in seen)
    assert all(square <= 1e-6 for square in seen)  # this rank's part of one unit's clipped gradient


class Only(SecretCoins):
    def __init__(self, slot: int) -> None:
        self.slot = slot

    def bernoulli(self, size: int, probability: float) -> np.ndarray:
        return np.arange(size) == self.slot


def test_a_step_without_units_is_noise_alone_on_every_part(tmp_path: Path) -> None:
    config = small_config(canaries=7, steps=4)
    with world_of(tmp_path, 2) as world, world.lead() as crew:
        made = parted(crew, config, Nobody())
        made.begin()
        before = [p.detach().clone() for p in made.carrier.parameters()]
        made.step(0)
        made.collect()
    moved = [float((a != b).double().mean()) for a, b in zip(made.carrier.parameters(), before, strict=True)]
    assert min(moved) > 0.99


def test_a_unit_that_is_not_finite_is_left_out_on_every_rank(tmp_path: Path) -> None:
    def broken(made: ShardedEngine | PrivateEngine) -> None:
        with torch.no_grad():
            made.carrier.model.embedding.weight[1:20] = float("nan")

    with world_of(tmp_path, 2) as world, world.lead() as crew:
        made = parted(crew, QUIET)
        broken(made)
        made.begin()
        found = sum(made.step(number).non_finite_units for number in range(4))
        made.collect()
    wanted = PrivateEngine(make_carrier(QUIET), QUIET, units(QUIET, 60), COINS, SecretCoins(bytes(32)), Memory(units=4))
    broken(wanted)
    wanted._self_check = lambda rows: None  # type: ignore[method-assign]
    assert 0 < found == sum(wanted.step(number).non_finite_units for number in range(4))
    assert torch.isfinite(made.carrier.model.head.weight).all()
    torch.testing.assert_close(made.carrier.model.head.weight, wanted.carrier.model.head.weight, rtol=1e-4, atol=1e-6)


def test_another_number_of_ranks_goes_on_from_the_checkpoint(tmp_path: Path) -> None:
    coins = SecretCoins(bytes(32))
    kept = alone(QUIET, coins, steps=0)
    for size, numbers in ((2, range(2)), (3, range(2, 4))):
        with world_of(tmp_path, size) as world, world.lead() as crew:
            made = parted(crew, QUIET, coins)
            made.carrier.load_state_dict(kept.carrier.state_dict())
            if kept.optimizer.state_dict()["state"]:
                made.optimizer.load_state_dict(kept.optimizer.state_dict())
            made.begin()
            for number in numbers:
                made.step(number)
            made.collect()
        kept = made  # type: ignore[assignment]
    same(made, alone(QUIET))


def test_dropout_that_falls_otherwise_in_the_second_pass_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the norm that was clipped would be another gradient's."""
    config = small_config(canaries=7, dropout=0.5)
    monkeypatch.setattr(sharded, "_set_random_state", lambda state, device: None)
    with world_of(tmp_path, 2, patience=20) as world, world.lead() as crew:
        made = parted(crew, config, Everybody())
        made.begin()
        with pytest.raises(IntegrityError, match="E-CREW-013"):
            made.step(0)


class Everybody(SecretCoins):
    def bernoulli(self, size: int, probability: float) -> np.ndarray:
        return np.ones(size, dtype=bool)


# ---- noise


def record_of(tmp_path: Path, follower: object) -> RunRecord:
    config = small_config(canaries=199, steps=15, labels=("a", "b", "c", "d"))  # two parts of equal sizes
    coins = np.arange(199) % 2 == 1
    with world_of(tmp_path, 2, follower=follower) as world, world.lead() as crew:  # type: ignore[arg-type]
        made = ShardedEngine(make_carrier(config), config, units(config, 60), coins, crew, noise=GaussianNoise(bytes(32)))
        made.begin()
        steps = [made.step(number) for number in range(config.steps)]
    members = np.stack([s.members for s in steps])
    return RunRecord(np.stack([s.gradient for s in steps]), coins, members, config.noise_multiplier, 1.0, 0.1)


def test_the_probe_passes_parts_that_each_add_their_noise(tmp_path: Path) -> None:
    record = record_of(tmp_path, honest)
    for check in (noise_scale, noise_independence):
        found = check(record).p_value
        assert found is not None
        assert found > 1e-4


def test_the_probe_sees_a_part_without_noise(tmp_path: Path) -> None:
    found = noise_scale(record_of(tmp_path, silent)).p_value
    assert found is not None
    assert found < 1e-6


@pytest.mark.parametrize(("follower", "related"), [("honest", False), ("sharing", True)])
def test_the_parts_of_two_ranks_have_unrelated_noise(tmp_path: Path, follower: str, related: bool) -> None:
    """Two ranks under one key would give equal parts equal noise, whose difference is none at all."""
    outside = record_of(tmp_path, {"honest": honest, "sharing": sharing}[follower]).outside
    half = outside.shape[1] // 2
    correlation = float(np.corrcoef(outside[:, :half].ravel(), outside[:, half:].ravel())[0, 1])
    assert (correlation > 0.99) == related
    assert related or abs(correlation) < 0.2


def test_ranks_and_attempts_have_keys_of_their_own() -> None:
    own, leaders, other = bytes(32), bytes([1]) * 32, bytes([2]) * 32
    drawn = {
        noise_of_rank(*made).draw(0, 4).tobytes()
        for made in [(own, leaders, 0), (own, leaders, 1), (own, other, 0), (other, leaders, 0)]
    }
    assert len(drawn) == 4


def test_a_rank_that_is_killed_ends_the_step_with_a_code(tmp_path: Path) -> None:
    with world_of(tmp_path, 2, patience=20) as world, world.lead() as crew:
        made = parted(crew, QUIET)
        made.begin()
        made.step(0)
        os.kill(world.followers[0].pid or 0, signal.SIGKILL)
        world.followers[0].join()
        with pytest.raises(EnvironmentFault, match=r"E-CREW-00[45]"):
            made.step(1)


def silent(seat: Seat) -> None:
    """Adds no noise to its part."""
    _with_noise(seat, _Zero(bytes(32)))


def sharing(seat: Seat) -> None:
    """Has the leader's key."""
    _with_noise(seat, GaussianNoise(bytes(32)))


class _Zero(GaussianNoise):
    def draw(self, step: int, size: int) -> np.ndarray:
        return np.zeros(size, dtype=np.float32)


def _with_noise(seat: Seat, noise: GaussianNoise) -> None:
    torch.set_num_threads(1)
    sharded.noise_of_rank = lambda own, leaders, rank: noise  # type: ignore[assignment]
    follow(seat)


def test_a_state_from_a_checkpoint_fits_the_whole_model(tmp_path: Path) -> None:
    """`begin` and `collect` work on what the checkpoint packs, so its format knows nothing of parts."""
    from training.canaries import CanaryCoins
    from training.checkpoint import pack, unpack

    config = replace(QUIET, canaries=7)
    with world_of(tmp_path, 2) as world, world.lead() as crew:
        made = parted(crew, config)
        made.begin()
        step = made.step(0)
        made.collect()
        state = TrainingState.fresh(CanaryCoins.toss(7))
        state.gradients.append(step.gradient)
        state.members.append(step.members)
        state.work.append(step.work)
        data = pack(state, made.carrier, made.optimizer)
    again = PrivateEngine(make_carrier(config), config, units(config, 60), COINS)
    unpack(data, config, 60).restore(again.carrier, again.optimizer)
    same(made, again)

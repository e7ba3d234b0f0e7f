"""Many processes take one step: the model of one process, noise once, no hang without units, and a clear end when one dies."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from privacy.errors import EnvironmentFault, IntegrityError, PrivetError
from privacy.noise import GaussianNoise, SecretCoins
from tests.training.crews import honest, world_of
from tests.training.worlds import small_config, units
from training import distributed
from training.config import TrainingConfig
from training.distributed import Crew, Group, LeaderCrew, Seat, SoloCrew, faults_named
from training.engine import Memory, PrivateEngine, StepRecord, make_carrier
from training.follower import follow
from training.probe import RunRecord, noise_scale

CONFIG = small_config(canaries=7, steps=5)
COINS = np.array([True, False, True, True, False, False, True])


class NoCoins(SecretCoins):
    def bernoulli(self, size: int, probability: float) -> np.ndarray:
        return np.zeros(size, dtype=bool)


class OneUnit(SecretCoins):
    def bernoulli(self, size: int, probability: float) -> np.ndarray:
        return np.arange(size) == 3


def engine(crew: Crew | None = None, sampler: SecretCoins | None = None, config: TrainingConfig = CONFIG) -> PrivateEngine:
    """The same coins and the same noise every time: only so can two runs be compared."""
    return PrivateEngine(
        make_carrier(config),
        config,
        units(config, 60),
        COINS,
        sampler or SecretCoins(bytes(32)),
        Memory(units=4),
        GaussianNoise(bytes(range(32))),
        crew,
    )


def trained(crew: Crew | None = None, sampler: SecretCoins | None = None) -> tuple[list[torch.Tensor], list[StepRecord]]:
    made = engine(crew, sampler)
    records = [made.step(number) for number in range(CONFIG.steps)]
    return [p.detach().clone() for p in made.carrier.parameters()], records


def same(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> None:
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [2, 3])
def test_many_processes_make_the_model_of_one(tmp_path: Path, size: int) -> None:
    wanted, records = trained()
    with world_of(tmp_path, size) as world, world.lead() as crew:
        found, shared = trained(crew)
    same(found, wanted)
    for one, other in zip(shared, records, strict=True):
        np.testing.assert_array_equal(one.members, other.members)
        np.testing.assert_allclose(one.gradient, other.gradient, rtol=1e-5, atol=1e-5)
    assert [process.exitcode for process in world.followers] == [0] * (size - 1)


def test_a_follower_adds_something(tmp_path: Path) -> None:
    """Else the test above would pass with a leader that computes everything."""
    with world_of(tmp_path, 2, follower=idle) as world, world.lead() as crew:
        found, _ = trained(crew)
    assert max(float((a - b).abs().max()) for a, b in zip(found, trained()[0], strict=True)) > 1e-3


@pytest.mark.parametrize("sampler", [NoCoins, OneUnit])
def test_ranks_without_units_take_part(tmp_path: Path, sampler: type[SecretCoins]) -> None:
    """Opacus 1.6 skips empty local batches, and the others hang in the reduction."""
    with world_of(tmp_path, 3) as world, world.lead() as crew:
        found, _ = trained(crew, sampler())
    same(found, trained(sampler=sampler())[0])


def test_a_unit_that_is_not_finite_is_left_out_and_counted_on_every_rank(tmp_path: Path) -> None:
    def counted(crew: Crew | None) -> int:
        made = engine(crew)
        made.method.parameters[0].data[1:20] = float("nan")  # of some buckets: units that hold none of them stay
        made.clear()
        return made.accumulate(np.arange(made.slots))

    with world_of(tmp_path, 2) as world, world.lead() as crew:
        found = counted(crew)
    assert 0 < found == counted(None)


def test_another_model_and_another_world_size_go_on_from_the_same_state(tmp_path: Path) -> None:
    """Everything is the leader's, so a run may change its number of processes in the middle."""
    wanted, _ = trained()
    state: dict[str, torch.Tensor] = {}
    moments: dict[str, object] = {}
    coins, noise = SecretCoins(bytes(32)), GaussianNoise(bytes(range(32)))
    for size, numbers in ((2, range(2)), (3, range(2, 4)), (1, range(4, 5))):
        with world_of(tmp_path, size) as world:
            if size > 1:
                with world.lead() as crew:
                    state, moments = _stretch(crew, state, moments, coins, noise, numbers)
            else:
                state, moments = _stretch(None, state, moments, coins, noise, numbers)
    same(list(state.values()), wanted)


def _stretch(
    crew: Crew | None, state: dict, moments: dict, coins: SecretCoins, noise: GaussianNoise, numbers: range
) -> tuple[dict, dict]:
    made = PrivateEngine(make_carrier(CONFIG), CONFIG, units(CONFIG, 60), COINS, coins, Memory(units=4), noise, crew)
    if state:
        made.carrier.load_state_dict(state)
        made.optimizer.load_state_dict(moments)
    for number in numbers:
        made.step(number)
    return dict(made.carrier.state_dict()), made.optimizer.state_dict()


# ---- noise once


def noise_of(crew: Crew, config: TrainingConfig, coins: np.ndarray) -> RunRecord:
    made = PrivateEngine(make_carrier(config), config, units(config, 60), coins, crew=crew)
    steps = [made.step(number) for number in range(config.steps)]
    members = np.stack([s.members for s in steps])
    return RunRecord(np.stack([s.gradient for s in steps]), coins, members, config.noise_multiplier, 1.0, 0.1)


@pytest.mark.parametrize(("kind", "ratio"), [("once", 1.0), ("on every rank", 2**0.5), ("never", 0.0)])
def test_the_probe_sees_whether_noise_was_added_once(tmp_path: Path, kind: str, ratio: float) -> None:
    config = small_config(canaries=200, steps=12)
    coins = np.arange(200) % 2 == 0
    follower = noisy if kind == "on every rank" else honest
    with world_of(tmp_path, 2, follower=follower) as world, world.lead() as crew:
        if kind == "never":
            made = PrivateEngine(make_carrier(config), config, units(config, 60), coins, crew=crew)
            made.noise_multiplier_at = lambda number: 0.0  # type: ignore[method-assign]
            steps = [made.step(number) for number in range(config.steps)]
            record = RunRecord(
                np.stack([s.gradient for s in steps]), coins, np.stack([s.members for s in steps]), 1.1, 1.0, 0.1
            )
        else:
            record = noise_of(crew, config, coins)
    found = noise_scale(record).p_value
    assert found is not None
    assert (found > 1e-4) == (kind == "once")
    scale = float(np.sqrt(np.square(record.outside).mean())) / config.noise_multiplier
    assert scale == pytest.approx(ratio, abs=0.1)


# ---- who may join


def test_who_lacks_the_token_gets_nothing(tmp_path: Path) -> None:
    with (
        world_of(tmp_path, 2, token=bytes(32), follower=mute) as world,
        pytest.raises(IntegrityError, match="E-CREW-002"),
        world.lead(),
    ):
        pytest.fail("it joined")


def test_a_follower_believes_no_leader_without_the_token(tmp_path: Path) -> None:
    with world_of(tmp_path, 2, token=bytes(32)) as world, pytest.raises(PrivetError), world.lead():
        pytest.fail("it joined")
    assert world.followers[0].exitcode == 7


def test_what_a_follower_gets_holds_no_secret_but_its_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []
    tell = Group.tell

    def heard(self: Group, rank: int, data: bytes) -> list:
        sent.append(data)
        return tell(self, rank, data)

    monkeypatch.setattr(Group, "tell", heard)
    with world_of(tmp_path, 2) as world, world.lead() as crew:
        trained(crew)
    text = b"".join(sent)
    assert bytes(range(32)) not in text  # the noise key
    assert bytes(range(32)).hex().encode() not in text
    orders = [json.loads(data) for data in sent if data.startswith(b"{")]
    assert [order["kind"] for order in orders if order["kind"] != "step"] == ["hello", "model", "done"]
    assert {fact for order in orders for fact in order["facts"]} == {"config", "method"}
    heads = [json.loads(data.split(b"\n", 1)[0]) for data in sent if data.startswith(b"[")]
    assert heads
    assert {name for head in heads for name, _, _ in head} == {"inputs/tokens", "labels", "cid"}  # no name of a unit


# ---- one that dies, or stalls


def _rest(made: PrivateEngine) -> None:
    for number in range(1, CONFIG.steps):
        made.step(number)


def test_a_follower_that_is_killed_ends_the_step_with_a_code(tmp_path: Path) -> None:
    with world_of(tmp_path, 2) as world, world.lead() as crew:
        made = engine(crew)
        made.step(0)
        os.kill(world.followers[0].pid or 0, signal.SIGKILL)
        world.followers[0].join()
        with pytest.raises(EnvironmentFault, match="E-CREW-004"):
            _rest(made)


def test_a_follower_that_stalls_ends_the_step_with_a_code(tmp_path: Path) -> None:
    with world_of(tmp_path, 2, patience=3.0) as world, world.lead() as crew:
        made = engine(crew)
        made.step(0)
        os.kill(world.followers[0].pid or 0, signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(EnvironmentFault, match="E-CREW-005"):
            _rest(made)
        assert time.monotonic() - began < 60  # it did give up; how soon is no promise
        os.kill(world.followers[0].pid or 0, signal.SIGKILL)


def test_a_follower_leaves_when_its_leader_is_gone(tmp_path: Path) -> None:
    with world_of(tmp_path, 2) as world:
        crew = LeaderCrew(world.seat)
        engine(crew).step(0)
        dist.destroy_process_group()  # no farewell, as after a kill
        world.followers[0].join(30)
        assert world.followers[0].exitcode == 7


def test_a_follower_that_never_comes_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match=r"E-CREW-00[45]"):
        LeaderCrew(Seat(0, 2, bytes(32), str(tmp_path / "nobody"), 1.0))


@pytest.mark.parametrize(
    ("said", "code"), [("Connection closed by peer", "E-CREW-004"), ("Timed out waiting 3000ms", "E-CREW-005")]
)
def test_an_error_of_the_network_is_named_and_not_quoted(said: str, code: str) -> None:
    with pytest.raises(EnvironmentFault, match=code) as refused, faults_named():
        raise RuntimeError(f"{said} [10.1.2.3]:4711")
    assert "10.1.2.3" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_alone_nothing_changes() -> None:
    one, other = trained(), trained(SoloCrew())
    same(one[0], other[0])


def test_a_leader_out_of_memory_gives_the_step_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine alone would begin the sum again with smaller parts; the followers are in the middle of theirs."""
    with world_of(tmp_path, 2) as world, world.lead() as crew:
        made = engine(crew, OneUnit())

        def add(batch: object) -> int:
            raise torch.OutOfMemoryError

        monkeypatch.setattr(made.method, "add", add)
        monkeypatch.setattr(made, "_self_check", lambda rows: None)
        monkeypatch.setattr(distributed, "share_out", lambda batches, size: [batches, []])
        with pytest.raises(EnvironmentFault, match="E-CREW-011"):
            made.step(0)


def test_a_process_without_a_gpu_of_its_own_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(EnvironmentFault, match="E-CREW-006"):
        distributed.pick_device()


# ---- followers that are not honest


def idle(seat: Seat) -> None:
    """Adds nothing to any sum."""
    _with_sums(seat, lambda tensor: tensor.zero_())


def noisy(seat: Seat) -> None:
    """Adds noise to its own sums, as naive data-parallel DP-SGD does."""
    _with_sums(seat, lambda tensor: tensor.add_(1.1 * torch.randn(tensor.shape)))


def _with_sums(seat: Seat, change: Callable[[torch.Tensor], object]) -> None:
    torch.set_num_threads(1)
    honestly = Group.sum_to_leader

    def changed(self: Group, tensors: list[torch.Tensor]) -> None:
        for tensor in tensors:
            if tensor.is_floating_point():
                change(tensor)
        honestly(self, tensors)

    Group.sum_to_leader = changed  # type: ignore[method-assign,assignment]
    follow(seat)


def mute(seat: Seat) -> None:
    """Somebody else: joins the group, and answers without the token."""
    group = Group(seat)
    distributed._received(0, group.patience)
    group.report(b"here")
    time.sleep(2)

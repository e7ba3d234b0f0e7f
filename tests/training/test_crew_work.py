"""Sharing out a step: every unit once, equal shares, and messages that only the crew can write, in order, once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from privacy.errors import EnvironmentFault, IntegrityError
from tests.training.worlds import SMALL, small_config
from training import crew_work
from training.crew_work import (
    Channel,
    Order,
    absent_unit,
    pack_batch,
    pack_config,
    pack_order,
    padded_size,
    share_out,
    shares,
    unpack_batch,
    unpack_config,
    unpack_order,
)
from training.data import IGNORED, UnitBatch
from training.engine import make_carrier


def batch(units: int, length: int = 4, start: int = 0) -> UnitBatch:
    tokens = torch.arange(start, start + units * 2 * length, dtype=torch.int32).reshape(units, 2, length)
    return UnitBatch({"tokens": tokens, "seen": tokens[..., 0].half()}, torch.zeros(units, 2).long(), torch.arange(units))


SIZES = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 500)), max_size=8)


@given(SIZES, st.integers(1, 9))
def test_every_unit_is_somebodys_and_nobody_elses(batches: list[tuple[int, int]], world: int) -> None:
    units, sizes = [u for u, _ in batches], [u * each for u, each in batches]
    found = shares(units, sizes, world)
    assert len(found) == world
    taken = sorted((cut.batch, unit) for mine in found for cut in mine for unit in range(cut.start, cut.stop))
    assert taken == [(number, unit) for number, count in enumerate(units) for unit in range(count)]


@given(SIZES, st.integers(1, 9))
def test_shares_are_equal_up_to_one_unit_and_few_batches_are_cut(batches: list[tuple[int, int]], world: int) -> None:
    units, sizes = [u for u, _ in batches], [u * each for u, each in batches]
    found = shares(units, sizes, world)
    largest = max((each for _, each in batches), default=0)
    for mine in found:
        load = sum((cut.stop - cut.start) * batches[cut.batch][1] for cut in mine)
        assert load <= sum(sizes) / world + largest + 1e-6
    assert sum(len(mine) for mine in found) <= len(batches) + world - 1


def test_a_rank_without_units_still_has_a_place() -> None:
    assert share_out([], 3) == [[], [], []]
    assert [len(mine) for mine in share_out([batch(1)], 3)].count(0) == 2


def test_shared_batches_hold_the_same_units() -> None:
    whole = [batch(5, 6), batch(7, 2, start=1000)]
    parts = [part for mine in share_out(whole, 3) for part in mine]
    tokens = sorted(int(t) for part in parts for t in part.inputs["tokens"][:, 0, 0])
    assert tokens == sorted(int(t) for part in whole for t in part.inputs["tokens"][:, 0, 0])
    assert sum(padded_size(part) for part in parts) == sum(padded_size(part) for part in whole)


def test_an_absent_unit_has_neither_loss_nor_gradient() -> None:
    carrier = make_carrier(SMALL)
    some = UnitBatch({"tokens": torch.ones(3, 2, 4, dtype=torch.int32)}, torch.zeros(3, 2).long(), torch.arange(3))
    none = absent_unit(some, SMALL.canaries)
    assert len(none) == 1
    assert bool((none.labels == IGNORED).all())
    loss = carrier(none.inputs, none.labels, none.cid).sum()
    loss.backward()
    assert loss.item() == 0.0
    assert all(p.grad is None or not p.grad.any() for p in carrier.parameters())


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.float16, torch.float32, torch.bool])
def test_a_batch_survives_its_way(dtype: torch.dtype) -> None:
    made = UnitBatch(
        {"x": torch.randn(2, 3, 0).to(dtype), "y": torch.randn(2, 3, 5).to(dtype)},
        torch.zeros(2, 3).long(),
        torch.ones(2).long(),
    )
    found = unpack_batch(pack_batch(made))
    assert found.inputs.keys() == made.inputs.keys()
    for name, tensor in made.inputs.items():
        assert found.inputs[name].dtype == tensor.dtype
        assert torch.equal(found.inputs[name], tensor)
    assert torch.equal(found.labels, made.labels)
    assert torch.equal(found.cid, made.cid)
    found.labels[0] = 3  # its memory is its own: a model may write to it


def test_an_order_and_a_configuration_survive_their_way() -> None:
    config = small_config(canaries=5, clipping_norm=0.3)
    order = Order("model", 0, {"config": pack_config(config), "method": "tape"})
    found = unpack_order(pack_order(order))
    assert found.kind == "model"
    assert unpack_config(found.facts["config"]) == config  # type: ignore[arg-type]


@given(st.binary(max_size=200))
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    for read in (unpack_batch, unpack_order):
        with pytest.raises(IntegrityError):
            read(data)


@pytest.mark.parametrize("damage", ["short", "long", "kind", "shape", "missing"])
def test_a_damaged_batch_is_refused(damage: str) -> None:
    data = pack_batch(batch(2))
    wrong = {
        "short": data[:-1],
        "long": data + b"\0",
        "kind": data.replace(b"float16", b"object1"),
        "shape": data.replace(b"[2,2,4]", b"[-2,2,4]"),
        "missing": data.replace(b'"cid"', b'"dic"'),
    }[damage]
    assert wrong != data
    with pytest.raises(IntegrityError) as refused:
        unpack_batch(wrong)
    assert refused.value.code in ("E-CREW-003", "E-CANON-002")


def pair(**changes: object) -> tuple[Channel, Channel]:
    same = {"token": bytes(32), "nonces": b"n" * 32, "label": "down 1 of 2"}
    return Channel(**same), Channel(**{**same, **changes})  # type: ignore[arg-type]


def test_what_was_sealed_is_opened_in_order_and_hides_the_text() -> None:
    leader, follower = pair()
    sealed = [leader.seal(text) for text in (b"first secret", b"second secret")]
    assert not any(b"secret" in s for s in sealed)
    assert [follower.open(s) for s in sealed] == [b"first secret", b"second secret"]
    assert "secret" in repr(leader)


@pytest.mark.parametrize(
    "changes", [{"token": bytes(31) + b"1"}, {"nonces": b"m" * 32}, {"label": "down 2 of 2"}, {"label": "up 1 of 2"}]
)
def test_another_token_join_rank_or_direction_opens_nothing(changes: dict[str, object]) -> None:
    leader, follower = pair(**changes)
    with pytest.raises(IntegrityError, match="E-CREW-002"):
        follower.open(leader.seal(b"x"))


@pytest.mark.parametrize("attack", ["replay", "skip", "flip", "cut"])
def test_a_replayed_dropped_or_altered_message_is_refused(attack: str) -> None:
    leader, follower = pair()
    first, second = leader.seal(b"first"), leader.seal(b"second")
    if attack == "replay":
        follower.open(first)
    wrong = {"replay": first, "skip": second, "flip": bytes([first[0] ^ 1]) + first[1:], "cut": first[:-1]}[attack]
    with pytest.raises(IntegrityError, match="E-CREW-002"):
        follower.open(wrong)


def test_a_batch_too_large_for_a_message_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew_work, "_LARGEST", 10)
    with pytest.raises(EnvironmentFault, match="E-CREW-009"):
        pair()[0].seal(bytes(np.ones(11, dtype=np.uint8)))

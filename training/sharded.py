"""A model that no process holds alone: FSDP2 keeps a part of every tensor with each rank, which adds the noise of its part.

Every unit lives on one rank, which sees whole layers while it computes, so norms need no exchange. Two passes: the tape
measures norms, then an ordinary backward pass of the losses times the clip factors lets FSDP2 sum and scatter the gradients.
Guarantee: every coordinate, canaries too, lies with exactly one rank and gets noise there once, under that rank's own key; so
the probe sees the noise of every rank. All ranks run the same rounds, units or not, and none waits for ever.
Assumption: as in `training.distributed`. A follower's key is made from its own randomness and the leader's together.
Not covered: the regular self-check (one process would have to hold the model; the preflight does compare with brute force);
the leader's memory must hold the model for checkpoints; pretrained weights must lie on every machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from privacy.canonical import Json
from privacy.errors import IntegrityError
from privacy.noise import BoolArray, Float32Array, GaussianNoise, SecretCoins
from training.config import TrainingConfig
from training.crew_work import Order, absent_unit, pack_batch, pack_config, pack_order, share_out, unpack_batch
from training.data import IGNORED, UnitBatch, UnitData
from training.distributed import Group, LeaderCrew, faults_named
from training.engine import Engine, Memory, SecretNoiseOptimizer, StepRecord, UpdateCount, make_carrier, toss_anew
from training.models.base import CANARY_PARAMETER, CanaryCarrier
from training.optimizers import make_optimizer
from training.run_record import IntArray, StepWork, added_noise, applied_divisor, replica_mark
from training.tape import TapeHooks


def noise_of_rank(own: bytes, leaders: bytes, rank: int) -> GaussianNoise:
    """A key of this rank and this attempt, as long as either secret is fresh; two ranks never share one."""
    return GaussianNoise(HKDF(SHA256(), 32, salt=leaders, info=f"privet noise of rank {rank}".encode()).derive(own))


class _StandingTape(TapeHooks):
    """FSDP2 swaps each parameter between its part and the whole; the tape is attached to the wholes, which it reuses."""

    def require_unchanged(self) -> None:
        now = {name for name, p in self._module.named_parameters() if p.requires_grad}
        if now != {name for name, _ in self.named}:
            raise IntegrityError(
                "E-CREW-012",
                "other parameters train than when the model was cut into parts",
                "Freeze and unfreeze before the training starts",
            )


class Shards:
    """One rank's part of a training: weights, optimizer state and noise."""

    def __init__(self, group: Group, config: TrainingConfig, noise: GaussianNoise) -> None:
        self.group, self.config = group, config
        self.carrier = make_carrier(config).to(group.device).train()
        self.mesh = init_device_mesh(group.device.type, (group.world,))
        with faults_named(only_network=True):
            self.tape = _sharded(self.carrier, self.mesh)
        self.parts = {n: p for n, p in self.carrier.named_parameters() if p.requires_grad and isinstance(p, DTensor)}
        self.own = {name: nn.Parameter(_local(part)) for name, part in self.parts.items()}  # shares the part's memory
        self.private = SecretNoiseOptimizer(make_optimizer(config, self.own.items()), config, noise)
        self.updates = UpdateCount(self.private.original_optimizer)

    def step(self, number: int, batches: Sequence[UnitBatch], noise_multiplier: float) -> tuple[Float32Array, int, StepWork]:
        """(float32 [canaries], all canary coordinates' noised sums; units left out; its work). As many batches on every rank.

        What the other ranks report of their part is summed to the leader; on them the work means nothing.
        """
        self.clear()
        toss_anew()
        with faults_named(only_network=True):
            bad = sum(self.add(batch.to(self.group.device)) for batch in batches)
        for name, part in self.parts.items():
            held: Any = self.own[name]
            held.summed_grad = torch.zeros_like(held) if part.grad is None else _local(part.grad).float()
        self.private.step_number, self.private.noise_multiplier = number, noise_multiplier
        self.private.add_noise()
        added = added_noise(self.private.params)  # of this rank's part
        before = self._canary_gradient()
        self.divide()
        after = self._canary_gradient()
        self.private.original_optimizer.step()
        self.clear()
        bad, marks, shares = self._reported(bad, replica_mark([torch.from_numpy(after)]))
        work = StepWork(0, applied_divisor(before, after), self.updates.taken(), marks, shares, *added)
        return after * np.float32(self.config.divisor), bad, work

    def _canary_gradient(self) -> Float32Array:
        """float32 [canaries], of all ranks, as it stands in the parts' p.grad."""
        whole = self._whole(CANARY_PARAMETER, self.own[CANARY_PARAMETER].grad)
        return whole[: self.config.canaries, 0].to("cpu", torch.float32, copy=True).numpy()

    def divide(self) -> None:
        for own in self.own.values():
            assert own.grad is not None
            own.grad /= self.config.divisor

    def _reported(self, bad: int, mark: int) -> tuple[int, IntArray, IntArray]:
        """(units left out; of each rank: mark of the update it saw, canary rows it gave noise), on the leader."""
        world, rank = self.group.world, self.group.rank
        facts = torch.zeros(1 + 2 * world, dtype=torch.int64)
        facts[0], facts[1 + rank], facts[1 + world + rank] = bad, mark, len(self.own[CANARY_PARAMETER])
        facts = facts.to(self.group.device)
        self.group.sum_to_leader([facts])
        told = facts.cpu().numpy()
        return int(told[0]), told[1 : 1 + world].copy(), told[1 + world :].copy()

    def clear(self) -> None:
        for part in self.parts.values():
            part.grad = None

    def add(self, batch: UnitBatch) -> int:
        """Adds the clipped sum of all ranks' batches to the parts' gradients; returns this rank's units left out."""
        state = _random_state(self.group.device)
        factors, bad, measured = self._factors(batch)
        _set_random_state(state, self.group.device)  # dropout must fall as it fell when the norms were measured
        if bool(bad.any()):
            batch = _without(batch, bad, self.config.canaries)
        losses = self.carrier(batch.inputs, batch.labels, batch.cid)
        same = torch.where(bad, measured, losses.detach())
        if not torch.allclose(same, measured, rtol=1e-3, atol=1e-5, equal_nan=True):
            raise IntegrityError(
                "E-CREW-013",
                "a unit's loss differs between the pass that measured its norm and the pass that adds its gradient",
                "Remove what makes the model random beyond dropout, or train it without recipe.shards",
            )
        (losses * torch.where(bad, 0.0, factors).to(losses.dtype)).sum().backward()
        return int(bad.sum())

    def _factors(self, batch: UnitBatch) -> tuple[Tensor, Tensor, Tensor]:
        with torch.enable_grad(), self.tape.recording(len(batch), "norms") as session:
            losses = self.carrier(batch.inputs, batch.labels, batch.cid)
            session.running = False
            losses.sum().backward()
            session.join()
            factors, bad = session.factors(self.config.clipping_norm)
        return factors, bad, losses.detach()

    # ---- between the parts and the leader's whole

    def _whole(self, name: str, local: Tensor | None) -> Tensor:
        part = self.parts[name]
        assert local is not None
        spread = DTensor.from_local(
            local.detach(), self.mesh, [Shard(0)], run_check=False, shape=part.shape, stride=part.stride()
        )
        with faults_named():
            return spread.full_tensor()

    def _part(self, name: str, whole: Tensor | None) -> Tensor:
        """This rank's part of the leader's tensor; the others pass None."""
        given = torch.empty(self.parts[name].shape, dtype=torch.float32) if whole is None else whole.detach().float()
        with faults_named():
            return _local(distribute_tensor(given.to(self.group.device).contiguous(), self.mesh, [Shard(0)]))

    def collect(self, carrier: CanaryCarrier | None = None, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Weights and optimizer state into the leader's whole ones; followers pass none."""
        whole = {} if carrier is None else dict(carrier.named_parameters())
        for name, own in self.own.items():
            found = self._whole(name, own)
            if name in whole:
                with torch.no_grad():
                    whole[name].copy_(found)
        state: dict[int, dict[str, Tensor]] = {}
        for index, name, entry in self._moments():
            state[index] = {key: value if value.ndim == 0 else self._whole(name, value) for key, value in entry.items()}
        if optimizer is not None:
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})

    def spread(
        self, layout: Sequence[Any], carrier: CanaryCarrier | None = None, moments: Mapping[int, Any] | None = None
    ) -> None:
        """The leader's weights and optimizer state into the parts. layout: what `layout_of` says of the leader's state."""
        whole = {} if carrier is None else dict(carrier.named_parameters())
        with torch.no_grad():
            for name, own in self.own.items():
                own.copy_(self._part(name, whole.get(name)))
        names = self._names()
        state: dict[int, dict[str, Tensor]] = {}
        for index, key, scalar in layout:
            given = None if moments is None else moments[index][key]
            found = self._part(names[index], given) if scalar is None else torch.tensor(scalar, dtype=torch.float32)
            state.setdefault(index, {})[key] = found
        optimizer = self.private.original_optimizer
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})

    def _names(self) -> list[str]:
        """Of the parameters, in the optimizer's own order."""
        known = {id(own): name for name, own in self.own.items()}
        return [known[id(p)] for group in self.private.original_optimizer.param_groups for p in group["params"]]

    def _moments(self) -> Iterator[tuple[int, str, dict[str, Tensor]]]:
        state = self.private.original_optimizer.state_dict()["state"]
        for index, name in enumerate(self._names()):
            if index in state:
                yield index, name, state[index]


def layout_of(moments: Mapping[int, Mapping[str, Tensor]]) -> list[Json]:
    """[parameter's number, name, its value if it is one number] of each entry of an optimizer's state."""
    return [[i, key, float(v) if v.ndim == 0 else None] for i, entry in moments.items() for key, v in entry.items()]


class ShardedEngine(Engine):
    """The leader's engine over a model in parts. Its own carrier and optimizer are whole; `collect` brings them up to date."""

    def __init__(
        self,
        carrier: CanaryCarrier,
        config: TrainingConfig,
        data: UnitData,
        coins: BoolArray,
        crew: LeaderCrew,
        sampler: SecretCoins | None = None,
        memory: Memory | None = None,
        noise: GaussianNoise | None = None,
    ) -> None:
        super().__init__(carrier, config, data, coins, sampler, memory or Memory())
        named = [(name, p) for name, p in carrier.named_parameters() if p.requires_grad]
        self._optimizer, self.crew = make_optimizer(config, named), crew
        secret = os.urandom(32)
        crew.tell_all(Order("shards", 0, {"config": pack_config(config), "secret": secret.hex()}))
        self.shards = Shards(crew.group, config, noise or noise_of_rank(os.urandom(32), secret, 0))

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        return self._optimizer

    def begin(self) -> None:
        moments = self._optimizer.state_dict()["state"]
        layout = layout_of(moments)
        self.crew.tell_all(Order("spread", 0, {"layout": layout}))
        self.shards.spread(layout, self.carrier, moments)

    def collect(self) -> None:
        self.crew.tell_all(Order("collect", 0, {}))
        self.shards.collect(self.carrier, self._optimizer)

    def step(self, number: int) -> StepRecord:
        self.crew.in_step = True
        members = self.sample(number)
        batches = [self.batch(part).to("cpu") for part in self.parts(np.flatnonzero(members))]
        parts, shares = len(batches), share_out(batches, self.crew.world)
        rounds = max(1, *(len(share) for share in shares))
        absent = absent_unit(batches[0] if batches else self.batch(np.array([0])).to("cpu"), len(self.coins))
        group, sending = self.crew.group, []
        mine, *theirs = [share + [absent] * (rounds - len(share)) for share in shares]
        for rank, share in enumerate(theirs, start=1):
            sending += group.tell(rank, pack_order(Order("round", rounds, {"number": number})))
            for batch in share:
                sending += group.tell(rank, pack_batch(batch))
        gradient, bad, work = self.shards.step(number, mine, self.noise_multiplier_at(number))
        group.wait(sending)
        self.crew.in_step = False
        return StepRecord(gradient, members, bad, replace(work, parts=parts))

    def noise_multiplier_at(self, number: int) -> float:
        return self.config.noise_multiplier_at(number)


def serve_shards(group: Group, order: Order, config: TrainingConfig, noise: GaussianNoise | None = None) -> Order:
    """A follower's part of a sharded training; returns the first order that is another."""
    from training.crew_work import unpack_order

    facts: Any = order.facts
    made = noise or noise_of_rank(os.urandom(32), bytes.fromhex(facts["secret"]), group.rank)
    shards = Shards(group, config, made)
    while True:
        order = unpack_order(group.hear())
        facts = order.facts
        match order.kind:
            case "spread":
                shards.spread(facts["layout"])
            case "collect":
                shards.collect()
            case "round":
                batches = [unpack_batch(group.hear()) for _ in range(order.batches)]
                shards.step(facts["number"], batches, config.noise_multiplier_at(facts["number"]))
            case _:
                return order


def _sharded(carrier: CanaryCarrier, mesh: DeviceMesh) -> _StandingTape:
    """Cut every block of a list of blocks by itself, and the rest together; sums, not means, over ranks."""
    for module in list(carrier.modules()):
        if isinstance(module, nn.ModuleList):
            for block in module:
                if any(True for _ in block.parameters()):
                    fully_shard(block, mesh=mesh)
    fully_shard(carrier, mesh=mesh)
    cut = [module for module in carrier.modules() if isinstance(module, FSDPModule)]
    for module in cut:
        module.set_force_sum_reduction_for_comms(True)  # gloo has no other
        module.set_gradient_divide_factor(1.0)
        module.unshard()
    tape = _StandingTape(carrier)
    for module in cut:
        module.reshard()
    return tape


def _local(tensor: Tensor) -> Tensor:
    found: Any = tensor.detach()
    local: Tensor = found.to_local()
    return local


def _without(batch: UnitBatch, bad: Tensor, canaries: int) -> UnitBatch:
    """The same batch with the units `bad` empty: zero times not-a-number is not zero, and all ranks run the same passes."""
    inputs = {n: t.masked_fill(bad.view(-1, *(1,) * (t.ndim - 1)), 0) for n, t in batch.inputs.items()}
    return UnitBatch(inputs, batch.labels.masked_fill(bad[:, None], IGNORED), batch.cid.masked_fill(bad, canaries))


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)

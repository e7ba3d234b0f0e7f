"""Several processes take a step together: one leader, which alone holds secrets and data, and followers that lend it compute.

The leader draws the Poisson batch, hands every rank its sealed share, broadcasts the weights, and gets the sum of everybody's
clipped sums. Noise is added by the leader, once, to that sum. So a run of many processes is a run of one, within rounding.
Guarantee: a follower gets public configuration, weights and the units of its own share, and no key, ledger, journal or store;
what is not of the crew can't join; a follower that dies or stalls ends the run with an error, and leased steps stay charged.
Assumption: followers are as trusted as the leader, for they compute on de-identified records in the clear.
Not covered: sums and weights travel unencrypted (neither gloo as shipped with torch nor NCCL encrypts): the network between
machines must be private. NCCL (GPUs) is written with care and was never run in the project's own tests.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import FileStore
from torch.distributed import distributed_c10d

from privacy.errors import EnvironmentFault, IntegrityError, PrivetError
from training.config import TrainingConfig
from training.crew_work import (
    NONCE_BYTES,
    Channel,
    Order,
    pack_batch,
    pack_config,
    pack_order,
    share_out,
)
from training.data import UnitBatch
from training.run_record import ALONE, IntArray, replica_mark

if TYPE_CHECKING:
    from training.gradients import GradientMethod
    from training.models.base import CanaryCarrier

PATIENCE_SECONDS = 600.0  # for one collective; a follower waits far longer for the next step, as the leader may have other work
_IDLE = timedelta(days=7)
_BUCKET = 1 << 23  # elements sent at once: enough to fill a network, little beside a model
_LEADER = 0
_NETWORK = ("gloo", "nccl", "connection", "timed out", "process group", "socket")


class Crew(Protocol):
    """Who computes the clipped sum of a step.

    marks: int64 [ranks], what each rank's weights were in the last step (`training.run_record.replica_mark`).
    """

    marks: IntArray

    def accumulate(self, method: GradientMethod, batches: Iterable[UnitBatch]) -> int:
        """Adds the clipped sum over all batches to the caller's p.summed_grad; returns the units left out as not finite."""

    def enter(self, carrier: CanaryCarrier, method: GradientMethod, config: TrainingConfig) -> None:
        """Before the first step: everybody has this model and computes with this method."""


class SoloCrew:
    """This process alone."""

    marks = ALONE

    def enter(self, carrier: CanaryCarrier, method: GradientMethod, config: TrainingConfig) -> None:
        pass

    def accumulate(self, method: GradientMethod, batches: Iterable[UnitBatch]) -> int:
        return sum(method.add(batch) for batch in batches)


@dataclass(frozen=True, slots=True)
class Seat:
    """A process' place in the crew. rendezvous: path of a file in a folder that others can't read, or None: torchrun's store.

    token: what all processes of the crew share and nobody else has.
    """

    rank: int
    world: int
    token: bytes
    rendezvous: str | None
    patience_seconds: float = PATIENCE_SECONDS

    def __repr__(self) -> str:
        return f"Seat({self.rank} of {self.world})"


class Group:
    """The process group, in terms of what a crew does. Every fault of a peer or the network is E-CREW-004 or 005."""

    def __init__(self, seat: Seat) -> None:
        self.rank, self.world = seat.rank, seat.world
        self.patience = timedelta(seconds=seat.patience_seconds)
        self.device = pick_device()
        self._owned = not dist.is_initialized()  # Ray Train makes the group itself
        try:
            salt = self._met(seat)
        except EnvironmentFault:
            self.close()
            raise
        others = range(1, self.world) if self.rank == _LEADER else [self.rank]
        self._down = {rank: Channel(seat.token, salt, f"down {rank} of {self.world}") for rank in others}
        self._up = {rank: Channel(seat.token, salt, f"up {rank} of {self.world}") for rank in others}

    def _met(self, seat: Seat) -> bytes:
        """Random bytes of every rank."""
        with faults_named():
            if self._owned:
                _start_group(seat, self.patience)
            if (dist.get_rank(), dist.get_world_size()) != (seat.rank, seat.world):
                raise RuntimeError("the process group has another size")
            nonces = [torch.zeros(NONCE_BYTES, dtype=torch.uint8) for _ in range(self.world)]
            dist.all_gather(nonces, torch.tensor(list(os.urandom(NONCE_BYTES)), dtype=torch.uint8))
        return b"".join(bytes(n.tolist()) for n in nonces)

    def tell(self, rank: int, data: bytes) -> list[Any]:
        """Start sending to a follower, sealed. Returns what to wait for; sending overlaps with computing."""
        sealed = torch.frombuffer(bytearray(self._down[rank].seal(data)), dtype=torch.uint8)
        with faults_named():
            length = torch.tensor([len(sealed)])
            return [(dist.isend(length, rank), length), (dist.isend(sealed, rank), sealed)]

    def hear(self) -> bytes:
        """The leader's next message, however long it takes: a leader that is gone closes the connection."""
        return self._down[self.rank].open(_received(_LEADER, _IDLE))

    def report(self, data: bytes) -> None:
        sealed = torch.frombuffer(bytearray(self._up[self.rank].seal(data)), dtype=torch.uint8)
        with faults_named():
            dist.send(torch.tensor([len(sealed)]), _LEADER)
            dist.send(sealed, _LEADER)

    def reports(self) -> list[bytes]:
        """One from every follower, by rank."""
        return [self._up[rank].open(_received(rank, self.patience)) for rank in range(1, self.world)]

    def wait(self, sending: Sequence[Any]) -> None:
        with faults_named():
            for work, _ in sending:
                work.wait()

    def sum_to_leader(self, tensors: Sequence[Tensor]) -> None:
        """In place on the leader; what the others' tensors hold afterwards is undefined."""
        for part in _buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in part])
            with faults_named():
                dist.reduce(flat, _LEADER)
            if self.rank == _LEADER:
                _spread(flat, part)

    def from_leader(self, tensors: Sequence[Tensor]) -> None:
        """The leader's values, in place."""
        for part in _buckets(tensors):
            flat = torch.cat([tensor.detach().reshape(-1) for tensor in part])
            flat = flat.byte() if flat.dtype == torch.bool else flat  # which gloo does not know
            with faults_named():
                dist.broadcast(flat, _LEADER)
            if self.rank != _LEADER:
                _spread(flat, part)

    def close(self) -> None:
        if self._owned and dist.is_initialized():
            with suppress(RuntimeError):
                dist.destroy_process_group()


class LeaderCrew:
    """Rank 0. Whatever goes wrong in a step ends the run: a clipped sum without all its units is never used."""

    def __init__(self, seat: Seat) -> None:
        """Meets the followers. Raises E-CREW-002 when one of them lacks the token, 004 or 005 when one does not come."""
        self.group = Group(seat)
        self.world = seat.world
        self.in_step = False
        self.marks: IntArray = np.zeros(seat.world, dtype=np.int64)
        try:
            self.tell_all(Order("hello", 0, {}))
            self._expect(b"here")
        except PrivetError:
            self.group.close()
            raise

    def enter(self, carrier: CanaryCarrier, method: GradientMethod, config: TrainingConfig) -> None:
        self.tell_all(Order("model", 0, {"config": pack_config(config), "method": method.name}))
        self.group.from_leader(list(carrier.state_dict().values()))
        self._expect(b"built")

    def accumulate(self, method: GradientMethod, batches: Iterable[UnitBatch]) -> int:
        self.in_step = True
        sending: list[Any] = []
        mine, *theirs = share_out([batch.to("cpu") for batch in batches], self.world)
        for rank, share in enumerate(theirs, start=1):
            sending += self.group.tell(rank, pack_order(Order("step", len(share), {})))
            for batch in share:
                sending += self.group.tell(rank, pack_batch(batch))
        self.group.from_leader(method.parameters)
        try:
            bad = sum(method.add(batch.to(self.group.device)) for batch in mine)
        except torch.OutOfMemoryError:  # the others are in the middle of the step: it can't begin again with smaller parts
            raise EnvironmentFault(
                "E-CREW-011",
                "the memory of the leader's accelerator does not hold its part of a step; leased steps stay charged",
                "Set recipe.physical_batch to fewer units and ask for a new use approval",
            ) from None
        self.group.wait(sending)
        bad, self.marks = add_up(self.group, method, bad)
        self.in_step = False
        return bad

    def _expect(self, answer: bytes) -> None:
        if any(said != answer for said in self.group.reports()):
            raise IntegrityError(
                "E-CREW-001", "the crew of a training speaks differently", "Run the same version in all processes"
            )

    def tell_all(self, order: Order) -> None:
        for rank in range(1, self.world):
            self.group.wait(self.group.tell(rank, pack_order(order)))

    def close(self) -> None:
        """Send the followers home. In the middle of a step they would not listen: they leave when the connection goes."""
        if not self.in_step:
            with suppress(EnvironmentFault):
                self.tell_all(Order("done", 0, {}))
        self.group.close()


def add_up(group: Group, method: GradientMethod, bad: int) -> tuple[int, IntArray]:
    """The collective end of a step, in which every rank takes part, also one that had no unit.

    Returns, to the leader, the sum of `bad` and the mark of each rank: weights that it computed with, as they are now.
    """
    held: list[Any] = list(method.parameters)
    group.sum_to_leader([parameter.summed_grad for parameter in held])
    facts = torch.zeros(1 + group.world, dtype=torch.int64)
    facts[0], facts[1 + group.rank] = bad, replica_mark(method.parameters)
    facts = facts.to(group.device)
    group.sum_to_leader([facts])
    told = facts.cpu().numpy()
    return int(told[0]), told[1:].copy()


def clear_sums(method: GradientMethod) -> None:
    for parameter in method.parameters:
        held: Any = parameter
        held.summed_grad = torch.zeros_like(parameter, dtype=torch.float32)


def pick_device() -> torch.device:
    """The GPU of this process by torchrun's LOCAL_RANK, or the processor."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if local >= torch.cuda.device_count():
        raise EnvironmentFault(
            "E-CREW-006",
            f"process {local} of this machine has no GPU of its own: there are {torch.cuda.device_count()}",
            "Set recipe.processes, or torchrun's --nproc-per-node, to the number of GPUs",
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


@contextmanager
def faults_named(only_network: bool = False) -> Iterator[None]:
    """torch reports a lost peer as a RuntimeError of many texts, which may name addresses; none of them is passed on.

    only_network: other work is done inside, too, and an error that does not speak of the network is that work's own.
    """
    try:
        yield
    except (RuntimeError, ValueError, OSError) as error:
        said = str(error).lower()
        if only_network and not any(word in said for word in _NETWORK):
            raise
    else:
        return
    if "timed out" in said or "timeout" in said:
        raise EnvironmentFault(
            "E-CREW-005",
            "a process of this training did not answer in time, so the step was given up; leased steps stay charged",
            "See whether its machine hangs or is too slow; run again, which continues from the checkpoint",
        )
    raise EnvironmentFault(
        "E-CREW-004",
        "a process of this training is gone, so the step was given up; leased steps stay charged",
        "Look for what ended it (memory, a signal, a machine); run again, which continues from the checkpoint",
    )


def _start_group(seat: Seat, patience: timedelta) -> None:
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    groups: Any = distributed_c10d._world
    groups.group_count = 0  # a start that failed leaves it raised, and the names of groups, which must agree, follow from it
    if seat.rendezvous is None:
        dist.init_process_group(backend, init_method="env://", timeout=patience)
        return
    store = FileStore(seat.rendezvous, seat.world)
    store.set_timeout(patience)
    dist.init_process_group(backend, store=store, rank=seat.rank, world_size=seat.world, timeout=patience)


def _received(source: int, patience: timedelta) -> bytes:
    length = torch.zeros(1, dtype=torch.int64)
    with faults_named():
        work: Any = dist.irecv(length, source)
        work.wait(patience)
        if not 0 <= int(length) < 2**31:
            raise RuntimeError("length")
        data = torch.empty(int(length), dtype=torch.uint8)
        work = dist.irecv(data, source)
        work.wait(patience)
    return data.numpy().tobytes()


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one type, at most _BUCKET elements together (one tensor always fits)."""
    part: list[Tensor] = []
    for tensor in tensors:
        if part and (part[0].dtype != tensor.dtype or sum(t.numel() for t in part) + tensor.numel() > _BUCKET):
            yield part
            part = []
        part.append(tensor)
    if part:
        yield part


def _spread(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for tensor, piece in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
            tensor.copy_(piece.view_as(tensor))

"""Which process computes which units of a step, and the sealed bytes that carry them there. Nothing here talks to a network.

Guarantee: every unit of a logical batch goes to exactly one rank; ranks get equal padded sizes up to one unit. What a leader
sends is AES-256-GCM under a key of this join and this rank, with a counter as nonce: it can't be read, altered, replayed,
reordered or taken from another run's traffic by who lacks the token.
Assumption: batches come sorted by size, as `training.batching` cuts them; the token is known to the crew alone.
Not covered: how much is sent, and when, tells a listener the sizes of batches.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from privacy.canonical import Json, canonical_json, parse_json
from privacy.errors import EnvironmentFault, IntegrityError
from privacy.policy import Recipe
from training.config import TrainingConfig
from training.data import IGNORED, UnitBatch

TOKEN_BYTES, NONCE_BYTES = 32, 16
_LARGEST = 2**31 - 1024  # of one message; what AES-GCM of the library takes at once
_KINDS = {"bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"}


@dataclass(frozen=True, slots=True)
class Cut:
    """Units start..stop of the batch with this number."""

    batch: int
    start: int
    stop: int


def shares(units: Sequence[int], sizes: Sequence[int], world: int) -> list[list[Cut]]:
    """What each rank computes: the units of all batches in a row, cut where the padded size reaches each rank's equal share.

    units: units of each batch. sizes: padded elements of each batch. A batch is cut only where a share ends, so at most
    world - 1 of them are. A rank may get nothing.
    """
    total = sum(sizes)
    found: list[list[Cut]] = [[] for _ in range(world)]
    before = 0.0
    for number, (count, size) in enumerate(zip(units, sizes, strict=True)):
        middles = before + (np.arange(count) + 0.5) * (size / max(count, 1))
        ranks = np.minimum((middles * (world / max(total, 1))).astype(np.int64), world - 1)
        before += size
        for rank in np.unique(ranks):
            mine = np.flatnonzero(ranks == rank)
            found[int(rank)].append(Cut(number, int(mine[0]), int(mine[-1]) + 1))
    return found


def padded_size(batch: UnitBatch) -> int:
    """Elements of the inputs; every batch of a run has the same inputs, so sizes compare."""
    return sum(tensor.numel() for tensor in batch.inputs.values()) + len(batch)


def share_out(batches: Sequence[UnitBatch], world: int) -> list[list[UnitBatch]]:
    """The batches of each rank; see `shares`."""
    cuts = shares([len(b) for b in batches], [padded_size(b) for b in batches], world)
    return [[batches[cut.batch].part(slice(cut.start, cut.stop)) for cut in mine] for mine in cuts]


def absent_unit(like: UnitBatch, canaries: int) -> UnitBatch:
    """One unit without records and without a canary, of the shapes of `like`: takes part in a collective, adds nothing."""
    inputs = {name: torch.zeros_like(tensor[:1]) for name, tensor in like.inputs.items()}
    return UnitBatch(inputs, torch.full_like(like.labels[:1], IGNORED), torch.full_like(like.cid[:1], canaries))


class Channel:
    """One direction between two ranks of one join."""

    __slots__ = ("_count", "_key", "_label")

    def __init__(self, token: bytes, nonces: bytes, label: str) -> None:
        """nonces: fresh bytes of both ends, so that a token that lives longer than one run never gives the same key twice."""
        self._label = label.encode()
        self._key = AESGCM(HKDF(SHA256(), 32, salt=nonces, info=b"privet crew 1 " + self._label).derive(token))
        self._count = 0

    def seal(self, data: bytes) -> bytes:
        """Raises EnvironmentFault E-CREW-009 for what is too large for one message."""
        if len(data) > _LARGEST:
            raise EnvironmentFault(
                "E-CREW-009",
                f"one physical batch has {len(data) >> 20} MiB, too much for a message to another process",
                "Set recipe.physical_batch to fewer units",
            )
        return self._key.encrypt(self._next(), data, self._label)

    def open(self, data: bytes) -> bytes:
        """Raises IntegrityError E-CREW-002 for anything but the next message of the other end."""
        try:
            return self._key.decrypt(self._next(), data, self._label)
        except InvalidTag:
            raise IntegrityError(
                "E-CREW-002",
                "a message between the processes of a training did not come from the crew, or not in this place",
                "Give all processes the same token, and keep their network private",
            ) from None

    def _next(self) -> bytes:
        self._count += 1
        return self._count.to_bytes(12, "big")

    def __repr__(self) -> str:
        return "Channel(<secret>)"


@dataclass(frozen=True, slots=True)
class Order:
    """What a leader asks of a follower. batches: how many messages with a batch follow."""

    kind: str
    batches: int
    facts: Mapping[str, Json]


def pack_order(order: Order) -> bytes:
    return canonical_json({"kind": order.kind, "batches": order.batches, "facts": order.facts})


def unpack_order(data: bytes) -> Order:
    match parse_json(data):
        case {"kind": str(kind), "batches": int(batches), "facts": Mapping() as facts}:
            return Order(kind, batches, facts)
    raise _malformed()


def pack_batch(batch: UnitBatch) -> bytes:
    """A line of JSON with names, types and shapes, then the arrays as they lie in memory. No pickle."""
    tensors = {**{f"inputs/{name}": t for name, t in batch.inputs.items()}, "labels": batch.labels, "cid": batch.cid}
    arrays = {name: np.ascontiguousarray(tensor.detach().cpu().numpy()) for name, tensor in tensors.items()}
    head = [[name, array.dtype.name, list(array.shape)] for name, array in arrays.items()]
    return b"".join([canonical_json(head), b"\n", *(array.tobytes() for array in arrays.values())])


def unpack_batch(data: bytes) -> UnitBatch:
    """Raises IntegrityError E-CREW-003 for what `pack_batch` does not write."""
    head, _, body = data.partition(b"\n")
    arrays: dict[str, np.ndarray] = {}
    start = 0
    for name, kind, shape in _rows(head):
        if kind not in _KINDS:
            raise _malformed()
        count, dtype = math.prod(shape), np.dtype(kind)
        if start + count * dtype.itemsize > len(body):
            raise _malformed()
        arrays[name] = np.frombuffer(body, dtype, count, start).reshape(shape).copy()
        start += count * dtype.itemsize
    if start != len(body) or not {"labels", "cid"} <= arrays.keys():
        raise _malformed()
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    inputs = {name.removeprefix("inputs/"): tensor for name, tensor in tensors.items() if name.startswith("inputs/")}
    return UnitBatch(inputs, tensors["labels"], tensors["cid"])


def pack_config(config: TrainingConfig) -> dict[str, Json]:
    """Public: what a follower needs to build the same model."""
    facts: dict[str, Any] = {name: getattr(config, name) for name in config.__slots__}
    return facts | {"recipe": config.recipe.model_dump(mode="json"), "labels": list(config.labels)}


def unpack_config(facts: Mapping[str, Json]) -> TrainingConfig:
    given: dict[str, Any] = dict(facts)
    recipe = Recipe.model_validate_json(json.dumps(given.pop("recipe")))
    return TrainingConfig(recipe=recipe, labels=tuple(given.pop("labels")), **given)


def _rows(head: bytes) -> list[tuple[str, str, list[int]]]:
    rows = parse_json(head)
    if not isinstance(rows, list):
        raise _malformed()
    found = []
    for row in rows:
        match row:
            case [str(name), str(kind), [*shape]] if all(isinstance(n, int) and 0 <= n < 2**31 for n in shape):
                found.append((name, kind, shape))
            case _:
                raise _malformed()
    return found


def _malformed() -> IntegrityError:
    return IntegrityError(
        "E-CREW-003",
        "a message between the processes of a training is malformed",
        "Run the same version of Privet in all processes",
    )

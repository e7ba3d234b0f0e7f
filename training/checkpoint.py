"""A checkpoint is bytes without code: safetensors of weights, optimizer state and the secret record of the steps so far.

Guarantee: reading one runs no code (no pickle), and one of another configuration or data set is refused. It holds no noise
key, no sampler key and no position in a stream, so nothing can be replayed from it.
Assumption: the caller seals it; it holds canary coins and the membership of real units.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from privacy.errors import IntegrityError
from privacy.noise import BoolArray
from training.canaries import CanaryCoins
from training.config import TrainingConfig
from training.models.base import CanaryCarrier
from training.run_record import StepWork, WorkLog

_VERSION = 1


@dataclass(slots=True)
class TrainingState:
    """Everything of a run but its keys. Lists have one entry per step in the model."""

    coins: CanaryCoins
    gradients: list[npt.NDArray[np.float32]] = field(default_factory=list)
    members: list[BoolArray] = field(default_factory=list)
    work: list[StepWork] = field(default_factory=list)
    non_finite_units: int = 0
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    moments: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def fresh(cls, coins: CanaryCoins) -> TrainingState:
        return cls(coins)

    def restore(self, carrier: CanaryCarrier, optimizer: torch.optim.Optimizer) -> None:
        """Put saved weights and optimizer state, if any, into place. Frozen weights are public and never saved."""
        if self.weights:
            own = _trainable(carrier)
            if {n: p.shape for n, p in own.items()} != {n: t.shape for n, t in self.weights.items()}:
                raise _misfit()
            with torch.no_grad():
                for name, tensor in self.weights.items():
                    own[name].copy_(tensor)
        if self.moments:
            described = optimizer.state_dict()
            described["state"] = _nested(self.moments)
            optimizer.load_state_dict(described)


def pack(state: TrainingState, carrier: CanaryCarrier | None, optimizer: torch.optim.Optimizer | None) -> bytes:
    """Bytes to seal; carrier and optimizer are None before the first step."""
    tensors: dict[str, Tensor] = {
        "secret/coins": torch.from_numpy(state.coins.coins.astype(np.uint8)),
        "secret/salt": torch.tensor(list(state.coins.salt), dtype=torch.uint8),
        "secret/non_finite_units": torch.tensor([state.non_finite_units], dtype=torch.int64),
    }
    if state.gradients:
        tensors["secret/gradients"] = torch.from_numpy(np.stack(state.gradients))
        tensors["secret/members"] = torch.from_numpy(np.stack(state.members).astype(np.uint8))
        tensors |= {f"secret/{name}": torch.from_numpy(array) for name, array in WorkLog.of(state.work).arrays().items()}
    if carrier is not None:
        tensors |= {f"model/{name}": p.detach().cpu().contiguous() for name, p in _trainable(carrier).items()}
    if optimizer is not None:
        for index, entry in optimizer.state_dict()["state"].items():
            for name, value in entry.items():
                tensors[f"optimizer/{index}/{name}"] = value.detach().cpu().contiguous()
    return bytes(save(tensors, metadata={"version": str(_VERSION)}))


def unpack(data: bytes, config: TrainingConfig, units: int) -> TrainingState:
    """Raises IntegrityError E-TRAIN-021 for what is no checkpoint of this configuration over this many units."""
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        coins = CanaryCoins(tensors["secret/coins"].numpy().astype(np.bool_), bytes(tensors["secret/salt"].tolist()))
        fits = header["version"] == str(_VERSION) and len(coins.coins) == config.canaries
        state = TrainingState(coins, non_finite_units=int(tensors["secret/non_finite_units"][0]))
        if "secret/gradients" in tensors:
            state.gradients = list(tensors["secret/gradients"].numpy())
            state.members = list(tensors["secret/members"].numpy().astype(np.bool_))
            kept = {name: tensor.numpy() for name, tensor in _under("secret/", tensors).items()}
            state.work = WorkLog.from_arrays(kept, len(state.gradients)).steps()
            fits &= len(state.gradients) <= config.steps and len(state.members[0]) == units + config.canaries
    except (SafetensorError, KeyError, ValueError, IndexError):
        fits = False
    if not fits:
        raise _misfit()
    state.weights = _under("model/", tensors)
    state.moments = _under("optimizer/", tensors)
    return state


def saw_units_that_are_gone(data: bytes, config: TrainingConfig, units: int) -> bool:
    """Whether steps in this checkpoint sampled from more units than the `units` there are: some were erased since.

    Units of a protected dataset only ever disappear, so equal numbers are equal sets. False for what is no checkpoint.
    """
    try:
        members = load(data).get("secret/members")
    except SafetensorError:
        return False
    return members is not None and members.ndim == 2 and members.shape[1] > units + config.canaries


def _misfit() -> IntegrityError:
    return IntegrityError(
        "E-TRAIN-021",
        "the checkpoint of this run does not fit its configuration or its data",
        "Change the policy, run ingest again and ask for a new use approval; what was leased stays charged",
    )


def _trainable(carrier: CanaryCarrier) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in carrier.named_parameters() if p.requires_grad}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _nested(moments: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in moments.items():
        index, name = key.split("/", 1)
        state.setdefault(int(index), {})[name] = value
    return state

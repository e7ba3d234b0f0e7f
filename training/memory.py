"""How much of a logical batch fits in memory at once, found without a trial: what the forward pass would keep is counted.

Guarantee: only sizes of synthetic data are looked at; the plan changes how a batch is cut and never what the step computes.
Not covered: fragmentation. On an accelerator that runs out all the same, the engine halves the plan (`training.engine`).
"""

from __future__ import annotations

import os

import numpy as np
import torch

from privacy.errors import EnvironmentFault
from training.config import TrainingConfig
from training.data import UnitData
from training.engine import Engine, Memory
from training.gradients import auto_name, stash_bytes
from training.models.base import CanaryCarrier

_SHARE = 0.25  # of the memory that is free, for one physical batch
_LARGEST = 8 << 30
_ON_A_CPU = 1 << 30  # more at once gains nothing there
_WORTHWHILE = 8  # units that the tape must hold at once; with fewer, two passes over more of them are faster
_MOST_UNITS = 4096


def plan_memory(carrier: CanaryCarrier, small: TrainingConfig, data: UnitData, config: TrainingConfig) -> Memory:
    """Raises EnvironmentFault E-TRAIN-016 when not even one unit fits, PolicyError E-TRAIN-032 when no method can clip a layer.

    `carrier` must not be held by a method. data: synthetic units, the largest of which has the largest size there can be.
    """
    engine = Engine(carrier, small, data, np.array([True, False]))
    largest = int(np.argmax(engine.sizes.records * engine.sizes.lengths))
    one = engine.batch(np.array([largest]))
    name: str = config.recipe.gradients if config.recipe.gradients != "auto" else ""
    room = _room(carrier.canary.weight.device)
    graph, stash = (0, 0) if name in ("hooks", "ghost") else stash_bytes(carrier, one)
    name = name or auto_name(carrier, one, room / _WORTHWHILE)
    gradient = sum(p.numel() * p.element_size() for p in carrier.parameters() if p.requires_grad)
    unit = {"tape": graph + stash, "two_pass": graph}.get(name, gradient)
    if unit + 3 * gradient > 4 * room:
        raise EnvironmentFault(
            "E-TRAIN-016",
            f"one unit would take {unit >> 20} MiB to learn from, the weights and their gradients {3 * gradient >> 20} MiB",
            "Lower recipe.max_tokens, privacy_unit.max_records, recipe.hash_buckets or recipe.embedding_width",
        )
    units = config.recipe.physical_batch or min(max(1, room // max(unit, 1)), _MOST_UNITS)
    return Memory(name, units, units * int(engine.sizes.records[largest]) * int(engine.sizes.lengths[largest]))


def _room(device: torch.device) -> int:
    if device.type == "cuda":
        return min(int(_SHARE * torch.cuda.mem_get_info(device)[0]), _LARGEST)
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        free = _ON_A_CPU * 4
    return max(64 << 20, min(int(_SHARE * free), _ON_A_CPU))

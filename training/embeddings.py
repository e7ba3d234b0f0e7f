"""Vectors that a classifier makes of texts, and the coarse form in which alone they may leave.

Guarantee: a vector is what the model hands to its last layer, for one text as a unit of its own; `quantise` keeps three levels
a coordinate and no length. Not covered: models without such a layer (`embed` gives None), and what coarse vectors still tell,
which `pipeline.audit_embeddings` measures.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from training.config import TrainingConfig
from training.data import Record
from training.evaluate import scores
from training.models.base import UnitModel
from training.recipes.base import Encoder


def embed(recipe: Encoder, model: UnitModel, texts: Sequence[str], config: TrainingConfig) -> npt.NDArray[np.float32] | None:
    """float32 [texts, width]: input of the last linear layer with an output a label; None where the model has none."""
    heads = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == len(config.labels)]
    if not heads or not texts:
        return None
    seen: list[torch.Tensor] = []
    hook = heads[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().float()))
    rows = {f"{n:08d}": [Record(f"{n:08d}", str(n), text, config.labels[0])] for n, text in enumerate(texts)}
    try:
        units = len(scores(model, recipe.prepare(recipe.encode(rows, config), config)))
    finally:
        hook.remove()
    width = heads[-1].in_features
    parts = [part.reshape(-1, config.max_records, width)[:, 0] if part.ndim == 2 else part[:, 0] for part in seen]
    found: npt.NDArray[np.float32] = torch.cat(parts).cpu().numpy()
    return found if found.shape == (units, width) else None


def quantise(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.int8]:
    """int8 of the same shape: -1, 0 or 1 by whether a coordinate is beyond half of its vector's root mean square."""
    scale = np.sqrt((vectors.astype(np.float64) ** 2).mean(-1, keepdims=True)) / 2
    found: npt.NDArray[np.int8] = (np.sign(vectors) * (np.abs(vectors) > scale)).astype(np.int8)
    return found

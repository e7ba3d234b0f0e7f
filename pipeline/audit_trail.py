"""The sealed record of a run as bytes: npz without pickles.

Assumption: the caller seals it; it holds the coins of the canaries and the membership of real units. What reads it is
`pipeline.audit_case`, which takes a field that is not there for one that could not be checked.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from training.trainer import TrainingOutcome


def pack_trail(outcome: TrainingOutcome) -> bytes:
    """Names, types and shapes: see `training.trainer.TrainingOutcome` and `training.run_record.WorkLog`."""
    arrays: dict[str, Any] = {
        "gradients": outcome.gradients,
        "members": np.packbits(outcome.members, axis=1),
        "slots": np.array([outcome.members.shape[1]], dtype=np.int64),
        "coins": outcome.coins.coins.astype(np.uint8),
        "salt": np.frombuffer(outcome.coins.salt, dtype=np.uint8),
        "non_finite_units": np.array([outcome.non_finite_units], dtype=np.int64),
        **outcome.work.arrays(),
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()

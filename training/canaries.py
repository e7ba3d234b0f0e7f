"""Dirac canaries: extra units whose gradient is one coordinate, larger than the clipping norm, in or out by secret coins.

Guarantee: the commitment is fixed before training and opens to one set of coins only; a canary touches no parameter that
leaves, because its embedding is dropped before the model artifact is written.
Assumption: the coins stay secret until the audit; they are kept sealed, never in logs, metrics or XCom.
Source: disjoint coordinates, Keinan, Shenfeld and Ligett 2025 (2503.07199); one run, Steinke et al. 2023 (2305.08846).
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

import numpy as np

from privacy.canonical import Digest
from privacy.noise import BoolArray, SecretCoins


@dataclass(frozen=True, slots=True, repr=False)
class CanaryCoins:
    """Which canaries take part. coins: bool [canaries]; salt: 32 secret bytes."""

    coins: BoolArray
    salt: bytes

    @classmethod
    def toss(cls, canaries: int) -> CanaryCoins:
        """Fair coins and a salt from the operating system."""
        return cls(SecretCoins().bernoulli(canaries, 0.5), os.urandom(32))

    @property
    def commitment(self) -> Digest:
        """Digest of salt and coins: binding (SHA-256) and hiding (256-bit salt)."""
        return "sha256:" + hashlib.sha256(self.salt + np.packbits(self.coins).tobytes()).hexdigest()

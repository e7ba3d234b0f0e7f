"""Secret randomness of the mechanism: Gaussian noise and Bernoulli coins from AES-256-CTR, never from a seed anybody chose.

Guarantee: every run draws a fresh 256-bit key from the operating system; the key never shows in repr, pickle, logs or
artifacts; one (key, step) pair gives noise once and a second draw is refused, so noise is never replayed.
Assumption: AES-256 in counter mode is a pseudo-random generator; the operating system's generator is sound.
Not covered: the attack on the floating-point grid of released sums (Mironov 2012, arXiv 2107.10138). Only the model after
many summed steps leaves, but the discrete mechanism would be the full answer.
"""

from __future__ import annotations

import os
from typing import NoReturn

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from privacy.errors import IntegrityError

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

NOISE_SOURCE = "AES-256-CTR keyed by the operating system, Box-Muller in float64"
SAMPLER = "poisson over units, AES-256-CTR coins"
_BLOCKS_PER_DRAW = 1 << 20  # 16 MiB of key stream at a time keeps memory flat for large models


class GaussianNoise:
    """Standard Gaussian noise for one attempt of one run; make a new object (thus a new key) on every resume."""

    __slots__ = ("_key", "_last")

    def __init__(self, key: bytes | None = None) -> None:
        """`key`: 32 bytes, for test vectors only; production code passes nothing."""
        self._key = _fresh_key() if key is None else _checked(key)
        self._last = -1

    def draw(self, step: int, size: int) -> Float32Array:
        """`size` independent N(0, 1) values for `step`, float32. Steps must grow: E-NOISE-001 otherwise."""
        if step <= self._last:
            raise IntegrityError(
                "E-NOISE-001",
                "noise of a step was asked for a second time; the same noise in two sums cancels",
                "Report this as a defect; a resumed run draws its noise under a new key",
            )
        self._last = step
        stream = _key_stream(self._key, step)
        out = np.empty(size, dtype=np.float32)
        for start in range(0, size, _BLOCKS_PER_DRAW):
            count = min(_BLOCKS_PER_DRAW, size - start)
            out[start : start + count] = _box_muller(_words(stream, count + count % 2))[:count]
        return out

    def __repr__(self) -> str:
        return "GaussianNoise(<secret>)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("secret noise is not picklable")


class SecretCoins:
    """Independent Bernoulli coins for one attempt of one run."""

    __slots__ = ("_stream",)

    def __init__(self, key: bytes | None = None) -> None:
        self._stream = _key_stream(_fresh_key() if key is None else _checked(key), 0)

    def bernoulli(self, size: int, probability: float) -> BoolArray:
        """`size` coins, each True with floor(probability * 2^64) / 2^64, which never exceeds `probability`."""
        if not 0.0 <= probability <= 1.0:
            raise ValueError("a probability lies in [0, 1]")
        if probability == 1.0:
            return np.ones(size, dtype=np.bool_)
        numerator, denominator = probability.as_integer_ratio()  # exact: a float times 2^64 could round up
        threshold = np.uint64((numerator << 64) // denominator)
        coins: BoolArray = _words(self._stream, size) < threshold
        return coins

    def __repr__(self) -> str:
        return "SecretCoins(<secret>)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("secret coins are not picklable")


def _fresh_key() -> bytes:
    return os.urandom(32)


def _checked(key: bytes) -> bytes:
    if len(key) != 32:
        raise ValueError("a key has 32 bytes")
    return key


def _key_stream(key: bytes, step: int) -> CipherContext:
    # The upper half of the counter block is the step, so a step has 2^64 blocks of its own.
    counter = step.to_bytes(8, "big") + bytes(8)
    return Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor()


def _words(stream: CipherContext, count: int) -> npt.NDArray[np.uint64]:
    return np.frombuffer(stream.update(bytes(8 * count)), dtype="<u8")


def _box_muller(words: npt.NDArray[np.uint64]) -> FloatArray:
    """Pairs of 53-bit uniforms to pairs of Gaussians; the radius uniform lies in (0, 1], so the logarithm is finite."""
    uniform = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
    half = len(words) // 2
    radius = np.sqrt(-2.0 * np.log(uniform[:half] + 2.0**-53))
    angle = 2.0 * np.pi * uniform[half:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])

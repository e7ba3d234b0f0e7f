"""Secret randomness: the right law, a fresh key per object, and no way to draw the same noise twice."""

from __future__ import annotations

import hashlib
import math
import pickle

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from privacy.errors import IntegrityError
from privacy.noise import GaussianNoise, SecretCoins

KEY = hashlib.sha256(b"test").digest()


def naive_gaussians(key: bytes, step: int, size: int) -> list[float]:
    """Box-Muller over AES-CTR, one value at a time."""
    stream = Cipher(algorithms.AES(key), modes.CTR(step.to_bytes(8, "big") + bytes(8))).encryptor()
    size += size % 2
    words = [int.from_bytes(stream.update(bytes(8)), "little") for _ in range(size)]
    first, second = words[: size // 2], words[size // 2 :]
    radius = [math.sqrt(-2 * math.log(((w >> 11) + 1) / 2**53)) for w in first]
    angle = [2 * math.pi * ((w >> 11) / 2**53) for w in second]
    pairs = list(zip(radius, angle, strict=True))
    return [r * math.cos(a) for r, a in pairs] + [r * math.sin(a) for r, a in pairs]


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_noise_is_box_muller_over_the_counter_of_the_step(size: int) -> None:
    drawn = GaussianNoise(KEY).draw(3, size)
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(drawn, naive_gaussians(KEY, 3, size)[:size], rtol=1e-6, atol=1e-7)


def test_noise_of_a_large_model_does_not_repeat_from_block_to_block() -> None:
    size = (1 << 20) + 1001
    drawn = GaussianNoise(KEY).draw(0, size)
    assert not np.array_equal(drawn[:1000], drawn[1 << 20 : (1 << 20) + 1000])
    assert stats.kstest(drawn[::64], "norm").pvalue > 1e-6


def test_noise_of_a_step_can_not_be_drawn_twice() -> None:
    noise = GaussianNoise()
    noise.draw(5, 4)
    for step in (5, 4, 0):
        with pytest.raises(IntegrityError, match="E-NOISE-001"):
            noise.draw(step, 4)


def test_a_resumed_run_does_not_replay_noise() -> None:
    assert not np.array_equal(GaussianNoise().draw(7, 16), GaussianNoise().draw(7, 16))


def test_steps_do_not_share_noise() -> None:
    noise = GaussianNoise(KEY)
    draws = np.stack([noise.draw(step, 5000) for step in range(4)])
    assert np.abs(np.corrcoef(draws) - np.eye(4)).max() < 0.08


@pytest.mark.parametrize("make", [GaussianNoise, SecretCoins])
def test_a_key_never_shows(make: type) -> None:
    secret = make(KEY)
    assert KEY.hex() not in repr(secret)
    assert str(list(KEY))[1:20] not in repr(secret)
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(ValueError):
        make(b"short")


def test_coins_fall_with_the_probability_asked() -> None:
    coins = SecretCoins()
    for probability in (0.003, 0.08, 0.5, 0.97):
        heads = int(coins.bernoulli(200_000, probability).sum())
        assert stats.binomtest(heads, 200_000, probability).pvalue > 1e-7


@given(st.floats(0.0, 1.0))
@settings(max_examples=30, deadline=None)
def test_coins_are_the_words_below_the_rounded_down_threshold(probability: float) -> None:
    stream = Cipher(algorithms.AES(KEY), modes.CTR(bytes(16))).encryptor()
    words = [int.from_bytes(stream.update(bytes(8)), "little") for _ in range(200)]
    numerator, denominator = probability.as_integer_ratio()
    expected = [w * denominator < numerator * 2**64 - (numerator * 2**64) % denominator for w in words]
    assert SecretCoins(KEY).bernoulli(200, probability).tolist() == expected


def test_coins_of_a_stream_do_not_repeat() -> None:
    coins = SecretCoins()
    assert not np.array_equal(coins.bernoulli(256, 0.5), coins.bernoulli(256, 0.5))


def test_the_edges_of_probability() -> None:
    assert not SecretCoins().bernoulli(64, 0.0).any()
    assert SecretCoins().bernoulli(64, 1.0).all()
    with pytest.raises(ValueError):
        SecretCoins().bernoulli(1, 1.5)

"""Two processes against one on this machine: the time of a step, what sharing costs, and how far the models come apart.

Steps of both sides in turns, one thread each, medians. A toy: two cores, gloo over loopback. Wall time is what one waits, and
means little where other work shares the cores; the leader's processor time is its share of the work and all that sharing adds
to it. 0.5 would be perfect for both.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace

import numpy as np
import torch

from benchmarks.rows import Row, publish
from pipeline.launch import crew_of
from privacy.noise import GaussianNoise, SecretCoins
from privacy.policy import Recipe
from training.config import TrainingConfig
from training.data import UnitData
from training.distributed import Crew
from training.engine import Memory, PrivateEngine, make_carrier
from training.recipes import recipe_of
from training.sharded import ShardedEngine

_UNITS, _STEPS = 2000, 11
_COINS = np.arange(20) % 2 == 0
_CONFIG = TrainingConfig(
    recipe=Recipe(
        model="text_rnn", hash_buckets=2048, embedding_width=64, max_tokens=32, steps=_STEPS, optimizer="sgd", learning_rate=0.5
    ),
    labels=tuple("abcdefgh"),
    max_records=2,
    noise_multiplier=0.7,
    sampling_probability=0.05,
    divisor=100,
    canaries=20,
)


def rows() -> list[Row]:
    torch.set_num_threads(1)
    with crew_of(2) as crew:
        seconds, apart = _in_turns(crew)
    with crew_of(2) as crew:
        sharded, parts_apart = _sharded(crew)
    one, two = (statistics.median(wall for wall, _ in side) for side in seconds)
    busy_one, busy_two = (statistics.median(busy for _, busy in side) for side in seconds)
    return [
        Row("2 processes ÷ 1: step time, GRU, 100 units of 2 x 32 tokens", "ratio", two / one),
        Row("2 processes ÷ 1: processor time of the leader's step, the same", "ratio", busy_two / busy_one),
        Row("2 processes in FSDP2 parts ÷ 1: step time, the same", "ratio", sharded / one),
        Row(
            "2 processes and 1, same batch and noise: largest difference of a weight",
            "relative",
            apart,
            goal=1e-5,
            met=apart <= 1e-5,
        ),
        Row(
            "2 processes in FSDP2 parts and 1, no noise: largest difference of a weight",
            "relative",
            parts_apart,
            goal=1e-5,
            met=parts_apart <= 1e-5,
        ),
    ]


def _data() -> UnitData:
    return recipe_of(_CONFIG).synthetic(_CONFIG, _UNITS)


def _engine(crew: Crew | None) -> PrivateEngine:
    coins, noise = SecretCoins(bytes(32)), GaussianNoise(bytes(32))  # the same for both sides, or nothing could be compared
    return PrivateEngine(make_carrier(_CONFIG), _CONFIG, _data(), _COINS, coins, Memory(units=32), noise, crew)


def _in_turns(crew: Crew) -> tuple[list[list[tuple[float, float]]], float]:
    """(wall and processor seconds of each step, of one process and of two; how far the models are apart)."""
    sides = (_engine(None), _engine(crew))
    seconds: list[list[tuple[float, float]]] = [[], []]
    for number in range(_STEPS):
        for engine, times in zip(sides, seconds, strict=True):
            wall, busy = time.perf_counter(), time.process_time()
            engine.step(number)
            if number:  # the first holds the self-check
                times.append((time.perf_counter() - wall, time.process_time() - busy))
    return seconds, _apart(sides[0].carrier, sides[1].carrier)


def _sharded(crew: Crew) -> tuple[float, float]:
    quiet = replace(_CONFIG, noise_multiplier=0.0)
    alone = PrivateEngine(make_carrier(quiet), quiet, _data(), _COINS, SecretCoins(bytes(32)), Memory(units=32))
    made = ShardedEngine(make_carrier(quiet), quiet, _data(), _COINS, crew, SecretCoins(bytes(32)), Memory(units=32))  # type: ignore[arg-type]
    made.begin()
    times = []
    for number in range(_STEPS):
        alone.step(number)
        began = time.perf_counter()
        made.step(number)
        times.append(time.perf_counter() - began)
    made.collect()
    return statistics.median(times[1:]), _apart(alone.carrier, made.carrier)


def _apart(one: torch.nn.Module, other: torch.nn.Module) -> float:
    """Largest difference of a weight over the largest weight of its tensor."""
    pairs = [(a.detach(), b.detach()) for a, b in zip(one.parameters(), other.parameters(), strict=True)]
    return max(float((a - b).abs().max() / a.abs().max().clamp(min=1e-12)) for a, b in pairs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    publish("training_scaling", rows(), as_json=parser.parse_args().json)

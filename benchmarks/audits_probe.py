"""What the conformance probe and the canaries are worth: defects caught, false alarms, what canaries cost, power of the gate.

The defects are those of the tests (tests/worlds/planted_defects.py), run here once more; every other figure is of real engines
on made-up texts, too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.rows import Row
from privacy.accounting import calibrate_noise, charge_vector, epsilon_of_charge
from tests.training import worlds
from tests.training.worlds import small_config
from training.attacks import traced_gaussian_lower_bound
from training.canaries import CanaryCoins
from training.config import TrainingConfig
from training.data import UnitData
from training.engine import Memory, PrivateEngine, make_carrier
from training.evaluate import load_released
from training.probe import CHECKS, probe
from training.recipes import recipe_of
from training.run_record import RunRecord

DELTA = 1e-5
LEVEL = 1e-3
GATE, REPORT = 0.999, 0.95
_UNITS = 150


def rows(*, quick: bool = False) -> list[Row]:
    torch.set_num_threads(1)
    return [
        *_defects(),
        *_false_alarms(20 if quick else 200),
        *_utility_cost(4 if quick else 30),
        *_power(3 if quick else 10),
        _tightness(3 if quick else 10),
    ]


# ---- the probe


def _failed(record: RunRecord) -> set[str]:
    each = LEVEL / len(CHECKS)
    return {r.check for r in probe(record, LEVEL) if r.p_value is not None and r.p_value < each}


def _defects() -> Iterator[Row]:
    from tests.worlds.planted_defects import DEFECTS, distributed_run

    distributed_run()  # the server that forks followers imports torch once; a user's run would have done so, too
    caught, slowest = 0, 0.0
    for defect in DEFECTS:
        began = time.perf_counter()
        caught += defect.check in _failed(defect.run())
        slowest = max(slowest, time.perf_counter() - began)
    whole = len(DEFECTS)
    yield Row("planted defects caught by the probe, one run each", f"of {whole}", caught, 10, whole, caught == whole)
    yield Row("the slowest of these, training and probe", "s", round(slowest, 2), None, 10.0, slowest <= 10.0)


def _false_alarms(runs: int) -> Iterator[Row]:
    """Correct runs at epsilon 8, 2 and 1, of several batch sizes, with and without accumulation; one in 20 on two processes."""
    from tests.worlds.planted_defects import distributed_run

    alarms, blind, began = 0, 0, time.process_time()
    for number in range(runs):
        if number % 20 == 19:
            record = distributed_run(shards=number % 40 == 39)
        else:
            config = _claiming((8.0, 2.0, 1.0)[number % 3], 50, (0.05, 0.1, 0.2, 0.4)[number % 4], 100)
            record = worlds.run(PrivateEngine, config, _UNITS, Memory(units=(256, 8, 3)[number // 2 % 3]))
        alarms += bool(_failed(record))
        blind += sum(r.p_value is None for r in probe(record, LEVEL))
    seconds = time.process_time() - began  # of one core; what else the machine does is left out
    yield Row(f"false alarms in {runs} correct runs", "runs", alarms, 0.0, 0.0, alarms == 0)
    yield Row("checks of these that could not be evaluated", "checks", blind, None, 0.0, blind == 0)
    yield Row("processor seconds for these runs", "s", round(seconds, 1), None, 360.0, seconds < 360.0)


def _claiming(epsilon: float, steps: int, q: float, canaries: int, units: int = _UNITS) -> TrainingConfig:
    """A small run whose noise buys `epsilon`, with the divisor that a policy would have."""
    noise = calibrate_noise(epsilon, DELTA, q, steps)
    changes = {"noise_multiplier": noise, "sampling_probability": q, "divisor": max(1, round(q * units))}
    return small_config(steps=steps, canaries=canaries, **changes)


# ---- what canaries cost


@dataclass(frozen=True, slots=True)
class _Task:
    """Texts of four labels, whose words overlap so much that no model is right always."""

    training: UnitData
    holdout: UnitData
    config: TrainingConfig

    @classmethod
    def make(cls) -> _Task:
        config = small_config(
            labels=("a", "b", "c", "d"),
            steps=80,
            hash_buckets=200,
            embedding_width=8,
            max_tokens=8,
            max_records=1,
            learning_rate=0.05,
            sampling_probability=0.1,
            divisor=100,
            ema=0.9,
            noise_multiplier=calibrate_noise(8.0, DELTA, 0.1, 80),
        )
        rng = np.random.default_rng(7)
        words = rng.dirichlet(np.full(199, 0.4), size=4)
        return cls(_texts(rng, words, 1000), _texts(rng, words, 2000), config)


def _texts(rng: np.random.Generator, words: np.ndarray, count: int) -> UnitData:
    labels = rng.integers(0, len(words), size=count)
    common = np.full(words.shape[1], 1 / words.shape[1])
    tokens = np.stack([1 + rng.choice(words.shape[1], size=8, p=0.45 * words[label] + 0.55 * common) for label in labels])
    names = tuple(f"u{number}" for number in range(count))
    return UnitData(names, {"tokens": tokens[:, None].astype(np.int32)}, labels[:, None].astype(np.int64), ("tokens",))


def _accuracy(task: _Task, canaries: int) -> float:
    """Percent, with the divisor and the sampling probability of the policy, whatever the number of canaries."""
    from dataclasses import replace

    config = replace(task.config, canaries=canaries)
    made = PrivateEngine(make_carrier(config), config, task.training, CanaryCoins.toss(canaries).coins)
    for number in range(config.steps):
        made.step(number)
    model = load_released(recipe_of(config).build(config), made.carrier.model.released())
    found = recipe_of(config).utility(model, task.holdout, config)
    assert found is not None
    return 100 * found.accuracy


def _utility_cost(seeds: int) -> Iterator[Row]:
    """Accuracy with 2 canaries less that with 200, the policy's default; fresh noise, batches and coins in each of the runs."""
    task = _Task.make()
    pairs = np.array([[_accuracy(task, 2), _accuracy(task, 200)] for _ in range(seeds)])
    few, many = pairs.mean(0)
    error = float(np.sqrt(pairs.var(0, ddof=1).sum() / seeds))
    cost = float(few - many)
    yield Row(f"accuracy that 200 canaries cost, {seeds} runs each", "points", round(cost, 2), round(few, 2), 0.5, cost <= 0.5)
    yield Row("standard error of that", "points", round(error, 2), None, None, None)


# ---- the gate


def _bound(record: RunRecord, level: float) -> float:
    return traced_gaussian_lower_bound(record.gradients, record.coins, DELTA, level)


def _power(seeds: int) -> Iterator[Row]:
    """Half of the claimed noise, refuted by the Gaussian bound alone at the gate's level."""
    for epsilon, canaries in ((8.0, 200), (2.0, 500)):
        config = _claiming(epsilon, *_SHAPE, canaries)
        refuted = sum(_bound(worlds.run(worlds.noise_times(0.5), config), GATE) > epsilon for _ in range(seeds))
        name = f"noise/2 rejected at 99.9 % by the Gaussian bound, claim {epsilon:g}, {canaries} canaries"
        yield Row(name, f"of {seeds}", refuted, seeds, seeds, refuted == seeds)


_SHAPE = (114, 0.178)  # steps and sampling probability of the prototype's task: 20 epochs in batches of 256 of 1,437


def _tightness(runs: int) -> Row:
    """Mean over runs of the Gaussian bound at 95 %, over the epsilon that the accountant gives these steps."""
    config = _claiming(8.0, *_SHAPE, 1000)
    charged = epsilon_of_charge(_charge(config), DELTA)
    ratios = [_bound(worlds.run(PrivateEngine, config), REPORT) / charged for _ in range(runs)]
    ratio = float(np.mean(ratios))
    return Row("Gaussian bound / claimed epsilon at 8, 1,000 canaries", "ratio", round(ratio, 3), 0.61, 0.6, ratio >= 0.6)


def _charge(config: TrainingConfig) -> Sequence[int]:
    return [config.steps * unit for unit in charge_vector(config.sampling_probability, config.noise_multiplier)]

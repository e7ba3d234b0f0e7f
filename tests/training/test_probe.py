"""The probe stays silent on runs that keep their claim, and names the check that each planted defect breaks."""

from __future__ import annotations

import numpy as np
import pytest

from tests.training import worlds
from tests.training.worlds import SMALL, run
from training.engine import PrivateEngine
from training.probe import CHECKS, probe, verdicts
from training.run_record import RunRecord, Terms, WorkLog

LEVEL = 1e-3


def outcomes(record: RunRecord, level: float = LEVEL) -> dict[str, str]:
    return {v.check.removeprefix("probe."): v.outcome for v in verdicts(probe(record, level), level)}


def failed(record: RunRecord, level: float = LEVEL) -> set[str]:
    return {name for name, outcome in outcomes(record, level).items() if outcome == "failed"}


def test_a_run_that_keeps_its_claim_passes_every_check() -> None:
    assert outcomes(run(PrivateEngine), 1e-6) == dict.fromkeys(CHECKS, "passed")


DEFECTS = [  # the fifteen that every design is tried for are in test_planted_defects.py
    ("replayed_noise", worlds.ReplayedNoise, "noise_independence"),
    ("shared_noise", worlds.SharedNoise, "noise_independence"),
    ("uniform_noise", worlds.UniformNoise, "noise_scale"),
    ("poisson_sizes_in_a_cycle", worlds.PoissonSizesInACycle, "participation_law"),
    ("samples_twice", worlds.SamplesTwice, "batch_size_law"),
    ("incomplete_log", worlds.IncompleteLog, "participation_law"),
]


@pytest.mark.parametrize(("engine", "check"), [d[1:] for d in DEFECTS], ids=[d[0] for d in DEFECTS])
def test_the_probe_names_the_planted_defect(engine: type[PrivateEngine], check: str) -> None:
    assert check in failed(run(engine))


def test_a_probe_without_noise_says_that_independence_was_not_evaluated() -> None:
    found = outcomes(run(worlds.noise_times(0.0)))
    assert found["noise_independence"] == "not_evaluated"
    assert found["divisor"] == "not_evaluated"


def test_a_probe_of_too_few_steps_passes_nothing() -> None:
    record = run(PrivateEngine, worlds.small_config(steps=2))
    assert set(outcomes(record).values()) == {"not_evaluated"}


def test_a_divisor_check_that_could_not_have_seen_the_fault_is_not_evaluated() -> None:
    rng = np.random.default_rng(2)
    assert outcomes(simulated(rng, steps=8, units=4000, canaries=20))["divisor"] == "not_evaluated"


def test_a_claim_without_noise_fails() -> None:
    record = simulated(np.random.default_rng(1))
    record = RunRecord(record.gradients, record.coins, record.members, 0.0, 1.0, record.sampling_probability)
    assert outcomes(record)["noise_scale"] == "failed"


def test_gradients_that_are_not_finite_fail_every_check() -> None:
    record = simulated(np.random.default_rng(1))
    record.gradients[3, 3] = np.nan
    assert failed(record) == set(CHECKS)


def simulated(
    rng: np.random.Generator, steps: int = 60, units: int = 120, canaries: int = 60, at_once: int = 20, ranks: int = 1
) -> RunRecord:
    """The claimed mechanism in numpy, as a twin of the engine and fast enough to repeat.

    at_once: units to a physical batch. ranks: of a model in parts, if more than one.
    """
    q, sigma = float(rng.uniform(0.03, 0.4)), float(rng.uniform(0.3, 3.0))
    coins = rng.random(canaries) < 0.5
    members = rng.random((steps, units + canaries)) < q
    gradients = sigma * rng.standard_normal((steps, canaries)) + members[:, units:] * coins
    one = np.ones(steps, dtype=np.int64)
    share = np.zeros(ranks, dtype=np.int64) if ranks == 1 else np.full(ranks, -(-canaries // ranks))
    spread = np.zeros((steps, ranks), dtype=np.int64), np.tile(share, (steps, 1))
    sizes = np.tile(np.array([canaries, 1, 5000]), (steps, 1))
    added = sigma**2 * rng.chisquare(sizes), sizes
    work = WorkLog(-(-members.sum(1) // at_once), 40.0 * one, one, *spread, *added)
    terms = Terms(40, ranks, steps, steps, steps)
    return RunRecord(gradients.astype(np.float32), coins, members, sigma, 1.0, q, None, work, terms)


def test_correct_runs_raise_no_more_alarms_than_the_level_allows() -> None:
    """At a level of 20 % for the whole probe, 400 runs may give 80 alarms; 114 would be four deviations above."""
    rng = np.random.default_rng(5)
    shapes = [(int(rng.integers(4, 60)), int(rng.integers(1, 4))) for _ in range(400)]
    results = [probe(simulated(rng, at_once=at_once, ranks=ranks), 0.2) for at_once, ranks in shapes]
    each = 0.2 / len(CHECKS)
    alarms = sum(any(r.p_value is not None and r.p_value < each for r in result) for result in results)
    assert alarms <= 114
    by_check = {
        c: sum(r.p_value is not None and r.p_value < each for res in results for r in res if r.check == c) for c in CHECKS
    }
    assert all(count <= 22 for count in by_check.values()), by_check  # 8 expected each
    assert all(by_check[check] == 0 for check in ("step_count", "size_independence"))  # no chance in them


@pytest.mark.slow
def test_ninety_engine_runs_raise_no_alarm() -> None:
    config = worlds.small_config(steps=50, canaries=100)
    assert [sorted(failed(run(PrivateEngine, config, 150), 1e-6)) for _ in range(90)] == [[]] * 90
    assert SMALL.mechanism == "dp_sgd"

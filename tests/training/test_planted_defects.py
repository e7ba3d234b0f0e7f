"""Fifteen defects of DP-SGD, each planted into a real engine and caught by the probe in one run, by the right check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from tests.training import worlds
from tests.worlds.planted_defects import DEFECTS, IN_PARTS, MORE, Defect, distributed_run
from training.engine import PrivateEngine
from training.probe import CHECKS, probe, verdicts
from training.run_record import RunRecord

LEVEL = 1e-3  # of a policy that says nothing else
CALM = 1e-6  # for runs that must pass: by chance, one in a million fails


def outcomes(record: RunRecord, level: float = LEVEL) -> dict[str, str]:
    return {v.check.removeprefix("probe."): v.outcome for v in verdicts(probe(record, level), level)}


@pytest.fixture(scope="module")
def correct() -> RunRecord:
    return worlds.run(PrivateEngine, memory=IN_PARTS)


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda d: d.name)
def test_one_run_shows_the_defect(defect: Defect) -> None:
    assert outcomes(defect.run())[defect.check] == "failed"


@pytest.mark.parametrize("defect", MORE, ids=lambda d: d.name)
def test_and_these(defect: Defect) -> None:
    assert outcomes(defect.run())[defect.check] == "failed"


def test_there_are_fifteen() -> None:
    assert len({d.name for d in DEFECTS}) == 15
    assert {d.check for d in DEFECTS + MORE} == set(CHECKS)


def test_a_correct_run_in_parts_passes_every_check(correct: RunRecord) -> None:
    assert correct.work is not None
    assert len(set(correct.work.parts.tolist())) > 2  # else nothing was accumulated
    assert outcomes(correct, CALM) == dict.fromkeys(CHECKS, "passed")


@pytest.mark.parametrize(
    "run",
    [distributed_run, partial(distributed_run, processes=3), partial(distributed_run, shards=True)],
    ids=["two", "three", "in parts"],
)
def test_a_correct_run_of_many_processes_passes_every_check(run: Callable[[], RunRecord]) -> None:
    record = run()
    assert record.work is not None
    assert set(record.work.ranks.tolist()) <= {2, 3}
    assert outcomes(record, CALM) == dict.fromkeys(CHECKS, "passed")


# ---- what the record lacks, or contradicts


NEEDING_WORK = {"step_count", "size_independence", "rank_noise", "accumulation"}


def test_a_record_without_the_work_is_not_evaluated(correct: RunRecord) -> None:
    found = outcomes(replace(correct, work=None), CALM)
    assert {name for name, outcome in found.items() if outcome == "not_evaluated"} == NEEDING_WORK
    found = outcomes(replace(correct, terms=None), CALM)
    assert {name for name, outcome in found.items() if outcome == "not_evaluated"} == NEEDING_WORK - {"accumulation"}


@pytest.mark.parametrize("field", ["steps_in_model", "steps_charged", "steps_in_ledger"])
def test_a_step_that_was_not_charged_is_seen(correct: RunRecord, field: str) -> None:
    assert correct.terms is not None
    fewer = replace(correct.terms, **{field: len(correct.gradients) - 1})
    assert outcomes(replace(correct, terms=fewer), CALM)["step_count"] == "failed"


def test_a_run_that_no_ledger_charged_is_seen(correct: RunRecord) -> None:
    assert correct.terms is not None
    unknown = replace(correct.terms, steps_in_ledger=None)
    assert outcomes(replace(correct, terms=unknown), CALM)["step_count"] == "failed"


def test_steps_lost_to_a_crash_and_charged_are_in_order(correct: RunRecord) -> None:
    assert correct.terms is not None
    more = replace(correct.terms, steps_charged=110, steps_in_ledger=110)
    assert outcomes(replace(correct, terms=more), CALM)["step_count"] == "passed"


def test_a_run_of_many_processes_must_have_recorded_them(correct: RunRecord) -> None:
    """One process: the check does not apply, and passes. A policy that asks for two must show two."""
    said = {v.check: v for v in verdicts(probe(correct, CALM), CALM)}["probe.rank_noise"]
    assert (said.outcome, "does not apply" in said.reason) == ("passed", True)
    assert correct.terms is not None
    shared = replace(correct, terms=replace(correct.terms, processes=2))
    assert outcomes(shared, CALM)["rank_noise"] == "not_evaluated"


def test_a_rank_whose_noise_no_canary_sees_is_not_evaluated(correct: RunRecord) -> None:
    assert correct.work is not None
    steps, canaries = correct.gradients.shape
    blind = replace(
        correct.work,
        marks=np.zeros((steps, 2), dtype=np.int64),
        shares=np.tile(np.array([canaries, 0], dtype=np.int64), (steps, 1)),
    )
    assert outcomes(replace(correct, work=blind), CALM)["rank_noise"] == "not_evaluated"


def test_a_divisor_that_could_not_be_seen_is_not_evaluated(correct: RunRecord) -> None:
    assert correct.work is not None
    divisors = correct.work.divisors.copy()
    divisors[3] = np.nan
    unseen = replace(correct, work=replace(correct.work, divisors=divisors))
    assert outcomes(unseen, CALM)["size_independence"] == "not_evaluated"

"""Two accountants have to agree, and each of them can be caught by the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from pipeline import claims, train
from pipeline.second_accountant import Agreement, agreement
from pipeline.verify import verify_bundle
from privacy import accounting
from privacy.accounting import MechanismTrace, calibrate_noise, recompute_epsilon
from privacy.errors import PolicyError
from privacy.mechanisms import ZCDP, PoissonSampledGaussian
from privacy.pld import epsilon_by_pld, epsilon_by_pld_alone
from tests.worlds.release_world import World
from tests.worlds.traces import trace

CASES = [
    (8.0, 1e-4, 0.2, 20),
    (8.0, 1e-5, 0.01, 1000),
    (1.0, 1e-6, 0.001, 20_000),
    (0.1, 1e-7, 1e-3, 200),
    (30.0, 1e-5, 1.0, 10),
]


def calibrated(epsilon: float, delta: float, probability: float, steps: int) -> MechanismTrace:
    noise = calibrate_noise(epsilon, delta, probability, steps)
    made = replace(
        trace(),
        delta=delta,
        sampling_probability=probability,
        noise_multiplier=noise,
        steps=steps,
        steps_in_model=steps,
        noise_schedule=(),
    )
    return replace(made, epsilon=recompute_epsilon(made))


@pytest.mark.parametrize("case", CASES)
def test_honest_figures_agree_and_the_second_is_the_tighter_one(case: tuple[float, float, float, int]) -> None:
    made = calibrated(*case)
    found = agreement(made, made.epsilon)
    assert found.holds
    assert found.delta == made.delta
    assert 0 < found.second < found.first == made.epsilon


def test_a_schedule_is_accounted_part_by_part() -> None:
    made = replace(calibrated(4.0, 1e-5, 0.05, 100), noise_schedule=((50, 1.5), (100, 0.8)))
    made = replace(made, epsilon=recompute_epsilon(made))
    flat = replace(made, noise_schedule=())
    assert agreement(made, made.epsilon).holds
    assert agreement(made, made.epsilon).second != agreement(flat, flat.epsilon).second


@pytest.mark.parametrize("case", CASES)
def test_an_understated_claim_is_caught_without_the_first_accountant(case: tuple[float, float, float, int]) -> None:
    made = calibrated(*case)
    assert not agreement(made, made.epsilon / 6).holds


def test_an_accountant_that_charges_half_is_caught_by_the_other(tmp_path: Path) -> None:
    """The defect is in our own first accountant: home, ledger, trace, report and recomputation all believe it."""
    honest = accounting.charge_vectors

    def half(probability: float, multipliers: tuple[float, ...]) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(units // 2 for units in row) for row in honest(probability, multipliers))

    accounting.charge_vector.cache_clear()
    try:
        with (
            mock.patch.object(accounting, "charge_vectors", half),
            mock.patch("tests.worlds.release_world.calibrate_noise", return_value=0.8851),
        ):
            from tests.worlds.release_world import _noise

            _noise.cache_clear()
            world = World(tmp_path).run().sign_quorum()
            result = verify_bundle(world.force_bundle(tmp_path / "bundle", lambda files: None), world.trust)
            _noise.cache_clear()
    finally:
        accounting.charge_vector.cache_clear()
    rows = {row.claim: row for row in result.rows}
    assert rows["epsilon recomputed"].outcome == "passed"  # the first one can't catch itself
    assert (rows["epsilon by a second accountant"].outcome, rows["epsilon by a second accountant"].code) == (
        "failed",
        "E-CLAIM-023",
    )
    assert result.exit_code == 3


def test_where_rounding_leaves_nothing_of_delta_a_larger_one_is_compared_and_named() -> None:
    made = calibrated(2.0, 1e-12, 0.001, 100_000)
    found = agreement(made, made.epsilon)
    assert found.holds
    assert found.delta == 1e-8
    assert found.first < made.epsilon


def test_a_figure_that_can_not_be_computed_agrees_with_nothing() -> None:
    assert not Agreement(1e-5, float("inf"), float("inf")).holds


def test_the_figure_alone_is_not_capped_by_the_first_accountant() -> None:
    """`epsilon_by_pld` takes the smaller of both, and so could never disagree."""
    atom = PoissonSampledGaussian(0.2, 0.8851)
    with mock.patch("privacy.pld.epsilon_of_charge", return_value=0.5):
        assert epsilon_by_pld({atom: 20}, 1e-4) == 0.5
        assert epsilon_by_pld_alone({atom: 20}, 1e-4) > 6
    for bad in ({ZCDP(0.1): 1}, {atom: 1}):
        with pytest.raises(PolicyError, match="E-ACCOUNT-001"):
            epsilon_by_pld_alone(bad, 0.0 if atom in bad else 1e-5)


def test_the_pipeline_names_the_accountant_that_the_verifier_knows() -> None:
    assert train.ACCOUNTANT == claims.ACCOUNTANT

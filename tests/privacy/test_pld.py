"""The PLD accountant against dp-accounting's and Opacus's, and against what is known in closed form: never below the truth."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from privacy import pld
from privacy.accounting import epsilon_of_charge
from privacy.errors import PolicyError
from privacy.mechanisms import ZCDP, Atom, Gaussian, Laplace, PoissonSampledGaussian, PrivateSelection, PureDP, total_charge
from privacy.pld import epsilon_by_pld

RUNS = [
    (0.01, 1.0, 1000, 1e-5),
    (0.01, 1.0, 10_000, 1e-6),
    (0.001, 0.7, 10_000, 1e-6),
    (0.02, 1.388, 1500, 1e-5),
    (0.1, 2.0, 300, 1e-5),
    (0.2, 0.6, 20, 1e-5),
    (0.001, 0.5, 1, 1e-8),
    (0.5, 10.0, 1000, 1e-5),
    (1.0, 20.0, 50, 1e-5),
    (1.0, 5.0, 1, 1e-5),
]


def gaussian_epsilon(sigma: float, delta: float) -> float:
    """Exact: Balle and Wang 2018 (1805.06530), theorem 8."""

    def excess(epsilon: float) -> float:
        a, b = 1 / (2 * sigma) - epsilon * sigma, -1 / (2 * sigma) - epsilon * sigma
        return norm.cdf(a) - math.exp(epsilon + norm.logcdf(b)) - delta

    return float(brentq(excess, 0.0, 2000.0, xtol=1e-13)) if excess(0.0) > 0 else 0.0


@pytest.mark.parametrize("sigma", [0.5, 1.0, 4.0, 30.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-9])
@pytest.mark.parametrize("times", [1, 4, 100])
def test_the_gaussian_mechanism_is_met_from_above(sigma: float, delta: float, times: int) -> None:
    truth = gaussian_epsilon(sigma / math.sqrt(times), delta)
    for mechanism in (Gaussian(sigma), PoissonSampledGaussian(1.0, sigma)):
        found = epsilon_by_pld({mechanism: times}, delta)
        assert truth <= found <= truth * 1.001 + 1e-5


@pytest.mark.parametrize(("epsilon", "delta"), itertools.product([0.05, 0.5, 3.0], [1e-2, 1e-6]))
def test_randomised_response_and_laplace_are_met_from_above(epsilon: float, delta: float) -> None:
    """Exact for one run: delta(e) = p (1 - e^(e - epsilon)) for mass p at loss epsilon; Laplace: 1 - e^((e - epsilon)/2)."""
    top = 1 / (1 + math.exp(-epsilon))
    response = epsilon + math.log1p(-delta / top) if delta < top else 0.0
    laplace = epsilon + 2 * math.log1p(-delta)
    for truth, mechanism in ((response, PureDP(epsilon)), (laplace, Laplace(1 / epsilon))):
        found = epsilon_by_pld({mechanism: 1}, delta)
        assert max(0.0, truth) <= found <= max(0.0, truth) * 1.001 + 1e-5


def test_many_randomised_responses_are_a_binomial() -> None:
    """Naive twin: the composed loss is epsilon times (heads - tails)."""
    epsilon, times, delta = 0.1, 200, 1e-5
    top = 1 / (1 + math.exp(-epsilon))
    heads = np.arange(times + 1)
    masses = np.exp([math.lgamma(times + 1) - math.lgamma(h + 1) - math.lgamma(times - h + 1) for h in heads])
    masses *= top**heads * (1 - top) ** (times - heads)
    losses = epsilon * (2 * heads - times)
    over = lambda e: float(np.sum(masses * np.maximum(0.0, 1 - np.exp(e - losses)))) - delta  # noqa: E731
    truth = float(brentq(over, 0.0, epsilon * times, xtol=1e-12))
    assert truth <= epsilon_by_pld({PureDP(epsilon): times}, delta) <= truth * 1.001


@pytest.mark.parametrize(("q", "sigma", "steps", "delta"), RUNS)
def test_dp_accounting_agrees_within_half_a_percent_and_its_lower_bound_lies_below(
    q: float, sigma: float, steps: int, delta: float
) -> None:
    theirs = pytest.importorskip("dp_accounting.pld.privacy_loss_distribution")

    def epsilon(pessimistic: bool) -> float:
        one = theirs.from_gaussian_mechanism(
            sigma, sampling_prob=q, pessimistic_estimate=pessimistic, use_connect_dots=pessimistic
        )
        return float(one.self_compose(steps).get_epsilon_for_delta(delta))

    ours = epsilon_by_pld({PoissonSampledGaussian(q, sigma): steps}, delta)
    assert ours >= epsilon(pessimistic=False)
    assert ours == pytest.approx(epsilon(pessimistic=True), rel=5e-3)


@pytest.mark.parametrize(("q", "sigma", "steps", "delta"), RUNS[:5])
def test_opacus_prv_agrees(q: float, sigma: float, steps: int, delta: float) -> None:
    accountants = pytest.importorskip("opacus.accountants")
    prv = accountants.PRVAccountant()
    prv.history = [(sigma, q, steps)]
    tight = prv.get_epsilon(delta=delta, eps_error=0.01)
    assert tight - 0.02 <= epsilon_by_pld({PoissonSampledGaussian(q, sigma): steps}, delta) <= tight + 0.02


def test_different_mechanisms_compose() -> None:
    theirs = pytest.importorskip("dp_accounting.pld.privacy_loss_distribution")
    parts = {PoissonSampledGaussian(0.02, 1.1): 200, PoissonSampledGaussian(0.01, 0.9): 300, Gaussian(8.0): 3, Laplace(20.0): 5}
    total = theirs.from_gaussian_mechanism(1.1, sampling_prob=0.02).self_compose(200)
    total = total.compose(theirs.from_gaussian_mechanism(0.9, sampling_prob=0.01).self_compose(300))
    total = total.compose(theirs.from_gaussian_mechanism(8.0).self_compose(3))
    total = total.compose(theirs.from_laplace_mechanism(20.0).self_compose(5))
    assert epsilon_by_pld(parts, 1e-6) == pytest.approx(total.get_epsilon_for_delta(1e-6), rel=2e-3)


def test_both_directions_count() -> None:
    """For adding and for removing a unit the losses differ; whichever is worse is the figure."""
    parts: dict[Atom, int] = {PoissonSampledGaussian(0.2, 0.6): 20}
    removing, adding = (pld._epsilon(parts, 1e-5, direction) for direction in ("remove", "add"))  # type: ignore[arg-type]
    assert adding < removing
    assert removing <= epsilon_by_pld(parts, 1e-5) <= removing + 1e-6
    theirs = pytest.importorskip("dp_accounting.pld.privacy_loss_distribution").from_gaussian_mechanism(0.6, sampling_prob=0.2)
    assert adding == pytest.approx(theirs._pmf_add.self_compose(20).get_epsilon_for_delta(1e-5), rel=5e-3)


@pytest.mark.parametrize("counts", [{PoissonSampledGaussian(0.01, 0.8 + n / 500): 1 for n in range(300)}])
def test_a_noise_schedule_of_three_hundred_different_steps(counts: dict[Atom, int]) -> None:
    found = epsilon_by_pld(counts, 1e-5)
    bounds = [epsilon_by_pld({PoissonSampledGaussian(0.01, sigma): 300}, 1e-5) for sigma in (0.8, 1.398)]
    assert bounds[1] < found < bounds[0]
    assert found < epsilon_of_charge(total_charge(counts), 1e-5)


def test_what_has_no_dominating_pair_is_counted_by_renyi_beside_the_rest() -> None:
    selection = PrivateSelection.geometric(Gaussian(40.0), 5.0)
    dp_sgd: dict[Atom, int] = {PoissonSampledGaussian(0.01, 1.0): 1000}
    other: dict[Atom, int] = {ZCDP(0.001): 1, selection: 1}
    both = epsilon_by_pld({**dp_sgd, **other}, 1e-5)
    apart = epsilon_by_pld(dp_sgd, 5e-6) + epsilon_of_charge(total_charge(other), 5e-6)
    assert both <= min(apart, epsilon_of_charge(total_charge({**dp_sgd, **other}), 1e-5)) + 1e-9
    assert both > epsilon_by_pld(dp_sgd, 1e-5)
    assert epsilon_by_pld(other, 1e-5) == epsilon_of_charge(total_charge(other), 1e-5)


@pytest.mark.parametrize("delta", [1e-290, 1e-300, 1e-308, 5e-324, 0.99])
@pytest.mark.parametrize("atom", [Gaussian(0.3), PoissonSampledGaussian(1e-6, 0.3), Laplace(0.5), PureDP(20.0)])
@pytest.mark.parametrize("runs", [1, 10**6])
def test_at_the_edge_of_doubles_there_is_a_figure_between_the_truth_and_renyi(atom: Atom, delta: float, runs: int) -> None:
    found = epsilon_by_pld({atom: runs}, delta)
    assert 0.0 <= found <= epsilon_of_charge(total_charge({atom: runs}), delta)
    if isinstance(atom, Gaussian) and delta < 0.5:  # the tail of the loss alone, with less than the whole of delta
        mean, deviation = runs / (2 * atom.noise_multiplier**2), math.sqrt(runs) / atom.noise_multiplier
        assert found >= mean + deviation * (norm.isf(delta) - 1.5)


def test_nothing_costs_nothing_and_a_figure_is_never_above_renyi() -> None:
    assert epsilon_by_pld({}, 1e-5) == 0.0
    for q, sigma, steps in [
        (1e-4, 30.0, 1),
        (1e-4, 1.0, 100_000),
        (0.5, 1e-3, 10),
        (1.0, 1e-4, 1),
        (0.01, 1.0, 10**7),
        (1e-3, 1e6, 5),
    ]:
        parts: dict[Atom, int] = {PoissonSampledGaussian(q, sigma): steps}
        for delta in (1e-3, 1e-12):
            found = epsilon_by_pld(parts, delta)
            assert 0.0 <= found <= epsilon_of_charge(total_charge(parts), delta)
    for delta in (0.0, 1.0, math.nan, -1e-5):
        with pytest.raises(PolicyError, match="E-ACCOUNT-001"):
            epsilon_by_pld({Gaussian(1.0): 1}, delta)


def test_the_figure_grows_with_steps_and_falls_with_noise_and_delta() -> None:
    figures = [epsilon_by_pld({PoissonSampledGaussian(0.01, 1.0): n}, 1e-5) for n in (1, 10, 100, 1000, 5000)]
    assert figures == sorted(figures)
    figures = [epsilon_by_pld({PoissonSampledGaussian(0.01, s): 500}, 1e-5) for s in (3.0, 2.0, 1.0, 0.7, 0.5)]
    assert figures == sorted(figures)
    figures = [epsilon_by_pld({PoissonSampledGaussian(0.01, 1.0): 500}, d) for d in (1e-2, 1e-4, 1e-6, 1e-9)]
    assert figures == sorted(figures)


@pytest.mark.parametrize("broken", ["nearest", "no tails"])
def test_an_optimistic_discretisation_would_be_noticed(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks what the closed forms guard: losses rounded down, or cut tails that nobody counts."""
    real = pld._on_grid

    def rounded_down(pair: pld._Pair, width: float) -> pld._Losses:
        found = real(pair, width)
        return pld._Losses(found.first - 1, found.masses, found.infinite)

    def forgotten(pair: pld._Pair, width: float) -> pld._Losses:
        found = real(pair, width)
        keep = np.cumsum(found.masses) < 1 - 1e-4
        return pld._Losses(found.first, found.masses * keep, 0.0)

    monkeypatch.setattr(pld, "_on_grid", rounded_down if broken == "nearest" else forgotten)
    assert epsilon_by_pld({Gaussian(4.0): 100}, 1e-5) < gaussian_epsilon(0.4, 1e-5)


def test_the_accountant_loads_without_the_heavy_libraries() -> None:
    """The offline verifier may use it."""
    code = "import sys, privacy.pld; print([m for m in ('torch', 'opacus', 'dp_accounting', 'sqlite3') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""Our bounds against two public implementations, on fixed counts and scores that they were run on once.

How the files were made, and from which package, version and wheel, they say themselves (tests/vectors/make_bounds.py).
The core functions are compared at one alpha and one count of guesses. What is built on them differs on purpose: jax_privacy
corrects over every threshold there is (Bonferroni) and guesses "in" only, or has the caller choose; we correct over eight
registered guess counts and guess both ways. opake's bound for the Gaussian family is of order statistics; ours, of means.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privacy import bounds
from tests.vectors import make_bounds

VECTORS = Path(make_bounds.__file__).parent
JAX: dict[str, Any] = json.loads((VECTORS / "bounds_jax_privacy.json").read_text())
OPAKE: dict[str, Any] = json.loads((VECTORS / "bounds_opake.json").read_text())
AGREEMENT = 1e-3


def test_the_files_say_where_they_come_from() -> None:
    assert (JAX["package"], JAX["version"]) == ("jax_privacy", "2.0.0")
    assert (OPAKE["package"], OPAKE["version"]) == ("opake_auditing", "0.16.1")
    assert len(JAX["wheel_sha256"]) == len(OPAKE["wheel_sha256"]) == 64


@pytest.mark.parametrize("row", JAX["p_values"], ids=lambda r: f"{r['correct']}-{r['epsilon']}-{r['delta']}")
def test_the_one_run_p_value_is_that_of_jax_privacy(row: dict[str, Any]) -> None:
    found = bounds.steinke_p_value(row["canaries"], row["guesses"], row["correct"], row["epsilon"], row["delta"])
    assert found == pytest.approx(row["p_value"], rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("row", JAX["counts"], ids=lambda r: f"{r['canaries']}-{r['correct']}-{r['alpha']}-{r['delta']}")
def test_the_one_run_bounds_are_those_of_jax_privacy(row: dict[str, Any]) -> None:
    counts = row["canaries"], row["guesses"], row["correct"]
    assert bounds.steinke_epsilon(*counts, row["delta"], row["alpha"]) == pytest.approx(row["steinke"], abs=AGREEMENT)
    assert bounds.fdp_epsilon(*counts, row["delta"], row["alpha"]) == pytest.approx(row["fdp"], abs=AGREEMENT)


@pytest.mark.parametrize("row", JAX["vectors"], ids=lambda r: str(len(r["scores"])))
def test_from_scores_to_a_bound_as_jax_privacy_goes(row: dict[str, Any]) -> None:
    """At its explicit threshold, guessing "in" only."""
    scores, coins = np.array(row["scores"]), np.array(row["coins"], dtype=np.bool_)
    called = scores >= row["threshold"]
    counts = len(scores), int(called.sum()), int(coins[called].sum())
    assert bounds.steinke_epsilon(*counts, row["delta"], row["alpha"]) == pytest.approx(row["steinke_in_only"], abs=AGREEMENT)
    assert bounds.fdp_epsilon(*counts, row["delta"], row["alpha"]) == pytest.approx(row["fdp_in_only"], abs=AGREEMENT)


@pytest.mark.parametrize("row", OPAKE["gaussian_epsilon"], ids=lambda r: f"{r['mu']}-{r['delta']}")
def test_epsilon_of_a_gaussian_mechanism_is_that_of_opake(row: dict[str, Any]) -> None:
    assert bounds.gaussian_epsilon(row["mu"], row["delta"]) == pytest.approx(row["epsilon"], abs=AGREEMENT)


@pytest.mark.parametrize("row", OPAKE["order_statistics"], ids=lambda r: str(r["mu"]))
def test_the_bound_of_means_is_above_that_of_order_statistics(row: dict[str, Any]) -> None:
    """On exactly Gaussian scores both are bounds of the same mechanism; means use more of what the scores say."""
    scores, coins = make_bounds.scores(row["mu"], row["canaries"], row["seed"])
    assert int(((scores > row["mu"] / 2) != coins).sum()) == row["wrong"]  # the vectors are still the ones of the file
    ours = bounds.gaussian_lower_bound(scores[coins], scores[~coins], row["delta"], row["level"])
    truth = bounds.gaussian_epsilon(row["mu"], row["delta"])
    assert 0 < row["order_statistics_epsilon"] < ours < truth

"""What is shown never flatters: epsilon is rounded up, lower bounds down, whatever the number."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.rounding import EXACT, shown_down, shown_fact, shown_up

ANY = st.floats(allow_nan=False, allow_infinity=False)


@given(ANY, st.integers(1, 8))
def test_no_number_is_shown_smaller_as_an_epsilon_or_larger_as_a_bound(value: float, digits: int) -> None:
    assert float(shown_up(value, digits)) >= value
    assert float(shown_down(value, digits)) <= value


@given(st.floats(1e-6, 1e6), st.integers(1, 8))
def test_what_is_shown_is_near(value: float, digits: int) -> None:
    step = 10.0**-digits * 1.001
    assert float(shown_up(value, digits)) - value <= step
    assert value - float(shown_down(value, digits)) <= step


@given(st.integers(0, 10**9))
def test_the_grid_of_the_accountant_is_shown_exactly(steps: int) -> None:
    assert float(shown_up(steps / 10**6, EXACT)) == float(shown_down(steps / 10**6, EXACT)) == steps / 10**6


@pytest.mark.parametrize(
    ("value", "up", "down"),
    [
        (7.575063, "7.5751", "7.575"),
        (1.809269, "1.8093", "1.8092"),
        (8.1, "8.1", "8.1"),
        (8, "8", "8"),
        (100.0, "100", "100"),
        (0.0, "0", "0"),
        (0.99999, "1", "0.9999"),
        (0.000123456, "0.0001235", "0.0001234"),
        (-0.00001, "-0.00001", "-0.00001"),
        (math.inf, "infinity", "infinity"),
        (math.nan, "nan", "nan"),
    ],
)
def test_examples(value: float, up: str, down: str) -> None:
    assert (shown_up(value), shown_down(value)) == (up, down)


def test_a_name_says_which_way_a_fact_is_rounded() -> None:
    assert shown_fact("epsilon lower bound gaussian", 1.80926) == "1.8092"
    assert shown_fact("epsilon_lower_bound_gaussian", 1.80926) == "1.8092"
    assert shown_fact("claimed_epsilon", 7.575063) == "7.5751"
    assert shown_fact("holdout accuracy", 0.87654) is None

"""A policy whose audit could not answer is named before it spends anything."""

from __future__ import annotations

import pytest

from tests.training import worlds
from training.engine import PrivateEngine
from training.probe import probe
from training.probe_power import divisor_power, without_power

LEVEL = 1e-3


@pytest.mark.parametrize(
    ("changes", "blind"),
    [
        ({}, False),
        ({"steps": 300, "canaries": 200, "divisor": 1024}, False),
        ({"steps": 100, "canaries": 40, "divisor": 4096}, True),
        ({"steps": 6, "canaries": 500}, True),
        ({"steps": 25, "canaries": 20}, True),
    ],
)
def test_a_policy_without_power_is_named_and_told_what_to_change(changes: dict[str, object], blind: bool) -> None:
    found = without_power(worlds.small_config(**changes), LEVEL)
    assert list(found) == (["probe.divisor"] if blind else [])
    assert all("audit.canaries" in advice for advice in found.values())


def test_the_forecast_is_what_the_run_then_shows() -> None:
    """Enough by the forecast, and evaluated; too little, and not."""
    enough, short = worlds.small_config(steps=30, canaries=100), worlds.small_config(steps=9, canaries=20)
    assert not without_power(enough, LEVEL)
    assert without_power(short, LEVEL)
    assert divisor_power(enough) > 2 * divisor_power(short)
    seen = [{r.check: r.p_value for r in probe(worlds.run(PrivateEngine, c), LEVEL)} for c in (enough, short)]
    assert seen[0]["divisor"] is not None
    assert seen[1]["divisor"] is None

"""A canary touches nothing that leaves: not the weights, not their names, not their average."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from privacy.errors import IntegrityError, PolicyError
from privacy.noise import GaussianNoise, SecretCoins
from tests.training.worlds import small_config, units
from training import trainer
from training.config import TrainingConfig
from training.ema import averaged
from training.engine import PrivateEngine, make_carrier
from training.evaluate import load_released
from training.models.base import CANARY_PARAMETER, CanaryCarrier
from training.preflight import preflight
from training.recipes import recipe_of

CANARIES = 12


def released(config: TrainingConfig, coins: np.ndarray) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """(what would leave, the canaries' own weights) after a run that differs in who of the canaries takes part only."""
    torch.set_num_threads(1)
    made = PrivateEngine(
        make_carrier(config), config, units(config, 60), coins, SecretCoins(bytes(32)), noise=GaussianNoise(bytes(32))
    )
    for number in range(config.steps):
        made.step(number)
    with averaged(made.optimizer):
        return trainer._leaving(made.carrier), made.carrier.canary.weight.detach().clone()


@pytest.mark.parametrize(
    "recipe",
    [
        {"optimizer": "sgd", "momentum": 0.9},
        {"optimizer": "adam", "weight_decay": 0.01, "l1": 1e-4},
        {"optimizer": "adagrad"},
        {"optimizer": "adam", "ema": 0.9},
        {"optimizer": "adam", "gradients": "two_pass"},
    ],
    ids=lambda r: "-".join(str(v) for v in r.values()),
)
def test_which_canaries_take_part_changes_no_weight_that_leaves(recipe: dict[str, object]) -> None:
    config = small_config(canaries=CANARIES, steps=8, sampling_probability=0.5, **recipe)
    none, quiet = released(config, np.zeros(CANARIES, dtype=np.bool_))
    every, loud = released(config, np.ones(CANARIES, dtype=np.bool_))
    assert not torch.allclose(quiet, loud, rtol=0.01)  # else nothing was tried
    assert none.keys() == every.keys()
    for name, tensor in none.items():
        assert torch.equal(tensor, every[name]), name


def test_the_initial_weights_do_not_depend_on_the_number_of_canaries() -> None:
    few, many = (make_carrier(small_config(canaries=count)).model for count in (2, 50))
    for one, other in zip(few.parameters(), many.parameters(), strict=True):
        assert torch.equal(one, other)


def test_what_leaves_is_the_models_own_and_builds_it_without_canaries() -> None:
    config = small_config(canaries=CANARIES, steps=2)
    weights, _ = released(config, np.ones(CANARIES, dtype=np.bool_))
    bare = recipe_of(config).build(config)
    load_released(bare, weights)
    assert not [name for name, _ in bare.named_modules() if "canary" in name]


@pytest.mark.parametrize("name", [CANARY_PARAMETER, "head.weight"], ids=["by its name", "under another name"])
def test_a_model_that_would_release_the_canaries_is_refused(name: str) -> None:
    carrier = make_carrier(small_config(canaries=CANARIES))
    honestly = carrier.model.released()
    leaky = {**honestly, name: carrier.canary.weight.detach()}
    carrier.model.released = lambda: leaky  # type: ignore[method-assign]
    with pytest.raises(IntegrityError, match="E-TRAIN-047"):
        trainer._leaving(carrier)


def test_a_model_file_with_the_canaries_in_it_does_not_open() -> None:
    """The audit opens a model by its recipe; one with more tensors is not that model, and every check of it blocks."""
    config = small_config(canaries=CANARIES)
    carrier: CanaryCarrier = make_carrier(config)
    weights = carrier.model.released() | {CANARY_PARAMETER: carrier.canary.weight.detach().clone()}
    with pytest.raises(ValueError, match="not those of this model"):
        load_released(recipe_of(config).build(config), weights)


def test_preflight_refuses_a_divisor_that_follows_the_number_of_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is the policy's by chance: the preflight's units are synthetic, and few."""

    def divide(self: PrivateEngine, batch_units: int) -> None:
        for parameter in self.method.parameters:
            parameter.grad /= self.units * 0.1

    preflight(small_config(steps=3))
    monkeypatch.setattr(PrivateEngine, "divide", divide)
    with pytest.raises(PolicyError, match="E-TRAIN-046"):
        preflight(small_config(steps=3))

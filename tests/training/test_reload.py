"""A compressed file read back: the same function as what was written, from its own bytes alone, or a refusal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load, save

from privacy.policy_training import Compress
from tests.training.test_harm import IMAGES, ITEMS, SMALL, WRITER, model_of
from tests.worlds.encoder_folder import make_encoder
from training.compress import compress, pruned, with_int8_weights
from training.config import TrainingConfig
from training.evaluate import scores
from training.models.base import UnitModel
from training.public import synthetic_inputs
from training.recipes import recipe_of
from training.reload import GraphModel, reloaded

ALL = ("safetensors", "onnx", "torch_export")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def files_of(config: TrainingConfig, model: UnitModel, method: str, exports: tuple[str, ...] = ALL) -> Mapping[str, bytes]:
    plan = Compress.model_validate({"methods": [method], "exports": exports})
    (made,) = compress(model, plan, synthetic_inputs(config, 16), lambda: recipe_of(config).build(config))
    return made.files


def back(config: TrainingConfig, name: str, data: bytes) -> UnitModel:
    recipe = recipe_of(config)
    return reloaded(name, data, lambda: recipe.build(config), config, tuple(recipe.synthetic(config, 1).inputs))


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(SMALL, id="text"),
        pytest.param(IMAGES, id="images", marks=pytest.mark.slow),
        pytest.param(ITEMS, id="items", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("method", ["prune", "int8_weights", "int8_dynamic", "int8_static"])
def test_what_is_read_back_computes_what_was_written(recipe: dict[str, object], method: str) -> None:
    config, model = model_of(recipe)
    data = recipe_of(config).synthetic(config, 9)
    made = {"prune": lambda m: pruned(m, 0.5), "int8_weights": with_int8_weights}.get(method)
    files = files_of(config, model, method)
    assert len(files) == (1 if made is None else 3)
    for name, stored in files.items():
        found = back(config, name, stored)
        wanted = scores(model if made is None else made(model), data)
        # ONNX Runtime's int8 is made there; that it is near its parent is all that can be known of it here
        np.testing.assert_allclose(scores(found, data), wanted, atol=1e-4 if made else 0.1 * float(np.abs(wanted).max()))
        assert recipe_of(config).utility(found, data, config) is not None
        assert len(recipe_of(config).respond(found, ["where is my parcel"], config)) == 1


def test_a_model_that_writes_is_read_back_and_writes() -> None:
    config, model = model_of(WRITER)
    for method in ("prune", "int8_weights"):
        ((name, stored),) = files_of(config, model, method, ("safetensors",)).items()
        found = back(config, name, stored)
        assert len(recipe_of(config).respond(found, ["", ""], config)) == 2


def test_a_head_without_a_parameter_left_is_made_and_read_back(tmp_path: Path) -> None:
    """All of a text_head's weights become int8: what asks for the dtype or device of its first parameter finds none."""
    folder = make_encoder(tmp_path / "model")
    config, model = model_of({"model": "text_head", "trains": "head", "pretrained": f"folder:{folder}", "max_tokens": 8})
    data = recipe_of(config).synthetic(config, 5)
    for name, stored in files_of(config, model, "int8_weights").items():
        found = back(config, name, stored)
        np.testing.assert_allclose(scores(found, data), scores(with_int8_weights(model), data), atol=1e-4)
        assert next(found.parameters()).device.type == "cpu"
        assert found.released() == {}


@pytest.mark.parametrize("change", ["missing", "further", "shape", "dtype"])
def test_tensors_that_are_not_the_methods_are_refused(change: str) -> None:
    """Nothing is filled up from the untrained model: a file that lacks a tensor would be audited as another model."""
    config, model = model_of(SMALL)
    ((name, stored),) = files_of(config, model, "prune", ("safetensors",)).items()
    tensors = load(stored)
    first = next(iter(tensors))
    if change == "missing":
        del tensors[first]
    elif change == "further":
        tensors["more"] = torch.zeros(1)
    elif change == "shape":
        tensors[first] = tensors[first][:-1].clone()
    else:
        tensors[first] = tensors[first].half()
    with pytest.raises(ValueError, match="not those of its method"):
        back(config, name, save(tensors))
    with pytest.raises(ValueError, match="not those of its method"):
        back(config, "int8_weights.safetensors", stored)


def test_a_graph_of_another_recipe_is_refused() -> None:
    config, model = model_of(SMALL)
    files = files_of(config, model, "prune", ("onnx", "torch_export"))
    for name, stored in files.items():
        with pytest.raises(ValueError, match="inputs"):
            reloaded(name, stored, lambda: model, config, ("pixels", "more"))


Seen = list[tuple[int, ...]]


def summing(seen: Seen) -> Any:
    """Class 0: sum of the record's tokens; class 1: sum over the unit."""

    def run(inputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        tokens = inputs["tokens"]
        seen.append(tokens.shape)
        own = tokens.sum(-1).astype(np.float32)
        return np.stack([own, np.repeat(own.sum(1, keepdims=True), own.shape[1], 1)], -1)

    return run


def graph(shape: list[int | None], apart: bool = True) -> tuple[GraphModel, Seen]:
    seen: Seen = []
    return GraphModel(summing(seen), {"tokens": shape}, {"tokens": np.dtype(np.int32)}, 2, apart), seen


TOKENS = torch.arange(1, 25).view(2, 3, 4)


def test_a_graph_of_one_record_gets_the_records_one_by_one() -> None:
    model, seen = graph([None, 1, 4])
    found = model.outputs({"tokens": TOKENS})
    assert seen == [(6, 1, 4)]
    assert found[..., 0].tolist() == TOKENS.sum(-1).tolist()


def test_records_are_never_taken_apart_where_they_are_each_others_context() -> None:
    model, _ = graph([None, 1, 4], apart=False)
    with pytest.raises(ValueError, match="scores a record from the others"):
        model.outputs({"tokens": TOKENS})


def test_smaller_inputs_are_padded_and_larger_ones_refused() -> None:
    model, seen = graph([None, 5, 6])
    found = model.outputs({"tokens": TOKENS})
    assert seen == [(2, 5, 6)]
    assert found.shape == (2, 3, 2)
    assert found[..., 1].tolist() == TOKENS.sum((1, 2)).unsqueeze(1).expand(2, 3).tolist()
    for shape in ([None, 2, 4], [None, 3, 3]):
        with pytest.raises(ValueError, match="larger than the graph takes"):
            graph(shape)[0].outputs({"tokens": TOKENS})  # type: ignore[arg-type]


def test_no_unit_gives_no_score() -> None:
    model, seen = graph([None, None, None])
    assert model.outputs({"tokens": TOKENS[:0]}).shape == (0, 3, 2)
    assert seen == []

"""Each model: per-unit gradients equal a naive loop, no unit sees another, pads and absent records weigh nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from privacy.policy import Recipe
from tests.training.lm_folder import make_lm_folder
from training.config import TrainingConfig
from training.data import IGNORED, UnitBatch, UnitData
from training.evaluate import load_released
from training.gradients import make_method
from training.models.base import CanaryCarrier, UnitModel
from training.recipes import recipe_of
from training.tape_norms import MARGIN

SMALL: dict[str, object] = {"hash_buckets": 64, "embedding_width": 8, "max_tokens": 7, "hidden_layers": 2, "heads": 2}
CATALOGUE = {"a": "a quiet novel of the sea", "b": "cooking for two", "c": "the sea in winter"}
CASES: dict[str, dict[str, object]] = {
    "image_cnn": {"model": "image_cnn", "image_size": (9, 12), "norm_groups": 2},
    "image_cnn without normalisation": {"model": "image_cnn", "image_size": (8, 8), "hidden_layers": 1},
    "gru": {"model": "text_rnn", "cell": "gru"},
    "lstm": {"model": "text_rnn", "cell": "lstm"},
    "two_tower": {"model": "two_tower", "catalogue": CATALOGUE},
    "small gpt": {"model": "causal_lm"},
    "llama lora": {"model": "causal_lm", "trains": "lora", "rank": 2, "pretrained": "llama"},
    "llama full": {"model": "causal_lm", "trains": "full", "pretrained": "llama"},
    "gpt2 lora": {"model": "causal_lm", "trains": "lora", "rank": 2, "pretrained": "gpt2"},
    "gpt2 full": {"model": "causal_lm", "trains": "full", "pretrained": "gpt2"},
}
Setting = tuple[UnitModel, UnitData, TrainingConfig]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lm")


def setting(name: str, folder: Path) -> Setting:
    """A model with every tensor away from its start (LoRA starts at zero), and units of 1, 2, 3 and 1 records."""
    torch.set_num_threads(1)
    changes = {**SMALL, **CASES[name]}
    if "pretrained" in changes:
        changes["pretrained"] = f"folder:{make_lm_folder(folder / str(changes['pretrained']), str(changes['pretrained']))}"
    recipe = Recipe.model_validate(changes)
    config = TrainingConfig(recipe, ("a", "b", "c"), 3, 1.0, 0.1, 10, 2)
    model = recipe_of(config).build(config)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        for parameter in model.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter) * parameter.requires_grad
    data = recipe_of(config).synthetic(config, 4)
    if "tokens" in data.inputs:
        data.inputs["tokens"][1, 0, 3:] = 0  # a shorter record
    return model.double().eval(), data, config


def batch_of(data: UnitData, canaries: int = 2) -> UnitBatch:
    inputs = {name: torch.from_numpy(array) for name, array in data.inputs.items()}
    cid = torch.full((len(data),), canaries)
    cid[0] = 1
    return UnitBatch(inputs, torch.from_numpy(data.labels), cid)


def naive(carrier: CanaryCarrier, batch: UnitBatch, clip: float) -> tuple[list[Tensor], Tensor]:
    """Clipped sum and norms by plain autograd, one unit at a time."""
    parameters = [p for p in carrier.parameters() if p.requires_grad]
    total, norms = [torch.zeros_like(p) for p in parameters], []
    for row in range(len(batch)):
        one = batch.part(slice(row, row + 1))
        loss = carrier(one.inputs, one.labels, one.cid).sum()
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        gradients = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
        norm = torch.stack([g.double().square().sum() for g in gradients]).sum().sqrt()
        norms.append(norm)
        for place, gradient in zip(total, gradients, strict=True):
            place += min(1.0, clip * (1 - MARGIN) / float(norm)) * gradient
    return total, torch.stack(norms)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("method", ["tape", "two_pass"])
def test_clipped_sums_and_norms_are_those_of_a_naive_loop(name: str, method: str, folder: Path) -> None:
    """Unclipped to rounding; clipped to the little that a method clips below the norm, to be safe from rounding."""
    model, data, _ = setting(name, folder)
    carrier = CanaryCarrier(model, 2, gain=10.0).double()
    batch, trained = batch_of(data), [p for p in carrier.parameters() if p.requires_grad]
    for clip, tolerance in ((1e6, 1e-6), (0.5, 1e-4)):
        wanted, norms = naive(carrier, batch, clip)
        made = make_method(method, carrier, clip)
        assert {id(p) for p in made.parameters} == {id(p) for p in trained}
        assert torch.allclose(made.norms(batch).double(), norms, rtol=1e-6)
        assert made.add(batch) == 0
        for parameter, total in zip(trained, wanted, strict=True):
            scale = max(float(total.abs().max()), 1e-9)
            assert torch.allclose(parameter.summed_grad.double(), total, rtol=tolerance, atol=tolerance * scale)  # type: ignore[attr-defined]
            parameter.summed_grad = None  # type: ignore[attr-defined]
        made.close()


@pytest.mark.parametrize("name", CASES)
def test_no_unit_sees_another(name: str, folder: Path) -> None:
    model, data, _ = setting(name, folder)
    batch = batch_of(data)
    before = model.losses(batch.inputs, batch.labels)
    inputs = {key: value.clone() for key, value in batch.inputs.items()}
    for key, value in inputs.items():
        value[1:] = value.flip(0)[:3] if key != "items" else 1  # every unit but the first holds other data
    labels = batch.labels.clone()
    labels[1:] = (labels[1:] + 1).remainder(3).where(labels[1:] != IGNORED, IGNORED)
    after = model.losses(inputs, labels)
    assert not torch.allclose(after[1:], before[1:]), "the change must show where it was made"
    assert torch.allclose(after[0], before[0], rtol=1e-9)
    gradient = torch.autograd.grad(after[0], [p for p in model.parameters() if p.requires_grad], allow_unused=True)
    alone = model.losses({k: v[:1] for k, v in batch.inputs.items()}, batch.labels[:1])
    expected = torch.autograd.grad(alone[0], [p for p in model.parameters() if p.requires_grad], allow_unused=True)
    for found, wanted in zip(gradient, expected, strict=True):
        assert (found is None) == (wanted is None)
        if found is not None and wanted is not None:
            assert torch.allclose(found, wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_a_unit_without_records_has_no_loss_and_no_gradient(name: str, folder: Path) -> None:
    model, data, _ = setting(name, folder)
    batch = batch_of(data)
    empty = {key: torch.zeros_like(value[:1]) for key, value in batch.inputs.items()}
    loss = model.losses(empty, torch.full((1, 3), IGNORED))
    assert loss.shape == (1,)
    assert float(loss[0].detach()) == 0.0
    loss.sum().backward()
    assert all(p.grad is None or bool((p.grad == 0).all()) for p in model.parameters())


@pytest.mark.parametrize("name", CASES)
def test_the_loss_is_the_mean_over_present_records(name: str, folder: Path) -> None:
    """And an absent record changes nothing, nor do pads behind the longest text."""
    model, data, _ = setting(name, folder)
    batch = batch_of(data)
    together = model.losses(batch.inputs, batch.labels)
    if name != "two_tower":  # whose records are scored from each other
        each = [
            model.losses({k: v[2:3, r : r + 1] for k, v in batch.inputs.items()}, batch.labels[2:3, r : r + 1])
            for r in range(3)
        ]
        assert torch.allclose(torch.stack(each).mean(), together[2], rtol=1e-6)
    trimmed = {k: v[:2, :2] for k, v in batch.inputs.items()}
    assert torch.allclose(model.losses(trimmed, batch.labels[:2, :2]), together[:2], rtol=1e-6)
    if "tokens" in batch.inputs:
        tokens = batch.inputs["tokens"]
        longer = {**batch.inputs, "tokens": torch.cat([tokens, torch.zeros_like(tokens[..., :2])], -1)}
        if "gpt" not in name and "llama" not in name:  # a small GPT has no place for more than max_tokens
            assert torch.allclose(model.losses(longer, batch.labels), together, rtol=1e-6)
        shorter = {k: v[1:2, :1, :3] if k == "tokens" else v[1:2, :1] for k, v in batch.inputs.items()}
        full = {k: v[1:2, :1] for k, v in batch.inputs.items()}
        one = batch.labels[1:2, :1]
        assert torch.allclose(model.losses(shorter, one), model.losses(full, one), rtol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_what_is_released_rebuilds_the_model(name: str, folder: Path) -> None:
    model, data, config = setting(name, folder)
    model.float()
    released = model.released()
    assert set(released) == {n for n, p in model.named_parameters() if p.requires_grad}
    again = load_released(recipe_of(config).build(config), released)
    inputs = batch_of(data).inputs
    assert torch.allclose(again.outputs(inputs), model.outputs(inputs), atol=1e-6)
    described = recipe_of(config).describe(config)
    assert described["model"] == config.recipe.model
    assert str(folder) not in str(described)


@pytest.mark.parametrize("name", [n for n in CASES if "llama" not in n and "gpt2" not in n])
def test_initial_weights_come_from_the_public_seed_alone(name: str, folder: Path) -> None:
    _, _, config = setting(name, folder)
    torch.manual_seed(1)
    first, state = recipe_of(config).build(config).released(), torch.get_rng_state()
    torch.manual_seed(2)
    second = recipe_of(config).build(config).released()
    assert all(torch.equal(first[key], second[key]) for key in first)
    torch.manual_seed(1)
    recipe_of(config).build(config)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_gru_is_that_of_torch(folder: Path) -> None:
    _compare(folder, "gru", torch.nn.GRU)


def test_the_lstm_is_that_of_torch(folder: Path) -> None:
    _compare(folder, "lstm", torch.nn.LSTM)


def _compare(folder: Path, cell: str, reference: Callable[..., torch.nn.Module]) -> None:
    from training.models.text_rnn import Recurrent

    layer = Recurrent(cell, 5, 6).double()  # type: ignore[arg-type]
    theirs = reference(5, 6, batch_first=True).double()
    theirs.load_state_dict(
        {
            "weight_ih_l0": layer.from_input.weight,
            "weight_hh_l0": layer.from_state.weight,
            "bias_ih_l0": layer.from_input.bias,
            "bias_hh_l0": layer.from_state.bias,
        }
    )
    steps = torch.randn(3, 4, 5, dtype=torch.float64)
    present = torch.ones(3, 4, 1, dtype=torch.float64)
    assert torch.allclose(layer(steps, present), theirs(steps)[0], atol=1e-12)


def test_an_item_is_scored_without_its_own_record(folder: Path) -> None:
    """Or the model would learn to read the answer off its input."""
    model, data, _ = setting("two_tower", folder)
    inputs = batch_of(data).inputs
    before = model.outputs(inputs)
    changed = {"items": inputs["items"].clone(), "tokens": inputs["tokens"].clone()}
    changed["items"][2, 1], changed["tokens"][2, 1] = 1 + (inputs["items"][2, 1] % 3), 5
    after = model.outputs(changed)
    assert torch.allclose(after[2, 1], before[2, 1], atol=1e-12)
    assert not torch.allclose(after[2, 0], before[2, 0])


def test_item_vectors_score_as_the_model_does(folder: Path) -> None:
    from training.models.two_tower import TwoTower

    model, data, _ = setting("two_tower", folder)
    assert isinstance(model, TwoTower)
    inputs = batch_of(data).inputs
    scored = model.users(inputs) @ model.item_vectors().T + model.popularity.weight[:, 0]
    assert torch.allclose(scored, model.outputs(inputs), atol=1e-12)


@pytest.mark.parametrize("name", ["small gpt", "llama lora", "gpt2 lora"])
def test_what_is_written_is_text_of_known_tokens(name: str, folder: Path) -> None:
    model, _, config = setting(name, folder)
    from training.recipes.private_text import write
    from training.text_codec import codec_of

    model.float()
    codec = codec_of(config)
    texts = model.generate(1, 5, 7, torch.Generator().manual_seed(4), top_k=300)  # type: ignore[operator]
    assert len(texts) == 5
    assert all(
        len(text) <= 7 and 0 < token < codec.vocabulary and token not in codec.silent for text in texts for token in text
    )
    again = write(model, config, 1, 5, length=7, top_k=300, seed=4)  # type: ignore[arg-type]
    assert again == [codec.decode(text).strip() for text in texts]
    assert write(model, config, 1, 5, length=7, top_k=300) != again  # type: ignore[arg-type]


@torch.no_grad()
@pytest.mark.parametrize("name", ["small gpt", "llama lora", "gpt2 lora"])
def test_the_cache_writes_what_a_whole_pass_would(name: str, folder: Path) -> None:
    model, _, _ = setting(name, folder)
    rows = torch.tensor([[3, 4, 5, 9], [1, 2, 8, 8]])
    whole, _ = type(model).__mro__[1].following(model, rows, None)  # type: ignore[attr-defined]
    first, state = model.following(rows[:, :3], None)  # type: ignore[operator]
    crossed = model.branch(state, torch.tensor([1, 1, 0]))  # type: ignore[operator]
    second, _ = model.following(rows, state)  # type: ignore[operator]
    assert torch.allclose(second[:, 1:], whole[:, 1:], atol=1e-9)
    assert not torch.allclose(first, second)
    third, _ = model.following(rows[[1, 1, 0]], crossed)  # type: ignore[operator]
    assert torch.allclose(third[:, 1:], whole[[1, 1, 0], 1:], atol=1e-9)


def test_a_control_code_steers_what_is_likely(folder: Path) -> None:
    """A model trained without noise on texts that differ by label knows which code belongs to which text."""
    model, data, config = setting("small gpt", folder)
    data.labels[:] = np.where(data.present, np.arange(4)[:, None] % 3, IGNORED)
    for label in range(3):
        data.inputs["tokens"][data.labels == label] = 20 + label
    batch = batch_of(data)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        model.losses(batch.inputs, batch.labels).sum().backward()
        optimizer.step()
    found = recipe_of(config).utility(model, data, config)
    assert found is not None
    assert found.accuracy == 1.0
    assert found.more["bits_per_character"] < found.more["bits_per_character_of_other_labels"]

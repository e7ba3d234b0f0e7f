"""Encoders and heads: exact per-unit gradients in every way of training, records that never meet, and cached lower layers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from privacy.errors import PrivetError
from privacy.policy_recipe import Recipe
from tests.worlds.encoder_folder import LAYERS, WIDTH, make_encoder
from training.config import TrainingConfig
from training.data import IGNORED, Record, UnitBatch, UnitData
from training.evaluate import load_released, scores
from training.gradients import make_method
from training.models.base import CanaryCarrier, UnitModel
from training.models.text_encoder import PretrainedBody, TextEncoder, keep_top
from training.models.text_head import SplitHead, TextHead
from training.recipes import recipe_of
from training.recipes.frozen import frozen_part, plain_text

LABELS = ("refund/happy", "refund/angry", "parcel/happy", "parcel/angry")
CLIPPING, WIDE = 0.7, 1e9
WAYS: dict[str, dict[str, object]] = {
    "head": {"model": "text_head", "trains": "head"},
    "two heads": {"model": "text_head", "trains": "head", "label_separator": "/"},
    "full": {"model": "text_encoder", "trains": "full"},
    "full, two layers": {"model": "text_encoder", "trains": "full", "top_layers": 2},
    "full, all layers": {"model": "text_encoder", "trains": "full", "top_layers": LAYERS},
    "lora": {"model": "text_encoder", "trains": "lora"},
    "lora, one layer, two heads": {"model": "text_encoder", "trains": "lora", "top_layers": 1, "label_separator": "/"},
    "adapter": {"model": "text_encoder", "trains": "adapter", "top_layers": 2},
    "adalora": {"model": "text_encoder", "trains": "adalora"},
    "scratch": {"model": "text_encoder", "trains": "scratch", "embedding_width": 8, "heads": 2, "hash_buckets": 64},
}
GROUPED = {
    "u1": [Record("u1", "1", "where is my parcel", LABELS[3]), Record("u1", "2", "hello", LABELS[0])],
    "u2": [Record("u2", "1", "money back please, where is my kettle", LABELS[1])],
    "u3": [Record("u3", "1", "", LABELS[2]), Record("u3", "2", "<PERSON_1a2b3c> late", LABELS[2])],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("model"))


def config_of(way: str, folder: Path, **changes: object) -> TrainingConfig:
    fields = {"max_tokens": 8, "rank": 2, "init_seed": 5, **WAYS[way], **changes}
    if fields["trains"] != "scratch":
        fields["pretrained"] = f"folder:{folder}"
    return TrainingConfig(Recipe.model_validate(fields), LABELS, 3, 1.0, 0.1, 10, 2)


def batch_of(data: UnitData, canaries: int = 2) -> UnitBatch:
    inputs = {name: torch.from_numpy(array) for name, array in data.inputs.items()}
    cid = torch.full((len(data),), canaries)
    cid[-1] = 0
    return UnitBatch(inputs, torch.from_numpy(data.labels), cid)


def carrier_of(way: str, folder: Path) -> tuple[CanaryCarrier, UnitBatch]:
    """In float64, with every trained tensor away from zero, over units of one to three records and one without any."""
    config = config_of(way, folder)
    recipe = recipe_of(config)
    carrier = CanaryCarrier(recipe.build(config), 2, 1.0)  # a large gain would hide what is wrong with the model
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in carrier.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    data = recipe.synthetic(config, 5)
    data.labels[3] = IGNORED
    return carrier.double(), batch_of(data)


def one_at_a_time(carrier: CanaryCarrier, batch: UnitBatch, clipping_norm: float) -> tuple[list[Tensor], Tensor]:
    """Clipped sum and norms by plain autograd."""
    trained = [p for p in carrier.parameters() if p.requires_grad]
    total, norms = [torch.zeros_like(p) for p in trained], []
    for row in range(len(batch)):
        part = batch.part(slice(row, row + 1))
        found = torch.autograd.grad(carrier(part.inputs, part.labels, part.cid).sum(), trained, allow_unused=True)
        filled = [torch.zeros_like(p) if g is None else g for p, g in zip(trained, found, strict=True)]
        norms.append(torch.stack([g.double().square().sum() for g in filled]).sum().sqrt())
        for place, gradient in zip(total, filled, strict=True):
            place += gradient * min(1.0, clipping_norm / float(norms[-1] + 1e-12))
    return total, torch.stack(norms)


def difference(found: list[Tensor], wanted: list[Tensor]) -> float:
    """Norm of the difference over the norm of what was wanted."""
    apart = torch.stack([(a.double() - b.double()).square().sum() for a, b in zip(found, wanted, strict=True)]).sum().sqrt()
    return float(apart / torch.stack([b.double().square().sum() for b in wanted]).sum().sqrt())


@pytest.mark.parametrize("method", ["tape", "two_pass"])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_training_has_the_gradients_of_a_naive_loop(way: str, method: str, folder: Path) -> None:
    carrier, batch = carrier_of(way, folder)
    wanted, norms = one_at_a_time(carrier, batch, CLIPPING)
    plain, _ = one_at_a_time(carrier, batch, WIDE)
    assert float(norms[3]) == 0.0  # a unit without records has no gradient at all
    assert bool((norms[:3] > 0).all())
    assert bool((norms[:3] > CLIPPING).any())
    found, measured = by_method(method, carrier, batch, WIDE)
    assert difference(found, plain) < 1e-6
    assert torch.allclose(measured, norms, rtol=1e-6, atol=1e-9)
    clipped, _ = by_method(method, carrier, batch, CLIPPING)
    assert difference(clipped, wanted) < 1e-3  # factors keep a margin below the clipping norm


def by_method(method: str, carrier: CanaryCarrier, batch: UnitBatch, clipping_norm: float) -> tuple[list[Tensor], Tensor]:
    """What `training.gradients` gives: clipped sum and norms."""
    engine = make_method(method, carrier, clipping_norm)
    try:
        for parameter in engine.parameters:
            parameter.summed_grad = None  # type: ignore[attr-defined]
        assert engine.add(batch) == 0
        named = {id(p): p.summed_grad for p in engine.parameters}  # type: ignore[attr-defined]
        return [named[id(p)] for p in carrier.parameters() if p.requires_grad], engine.norms(batch).double()
    finally:
        engine.close()


@pytest.mark.parametrize("way", WAYS)
def test_a_record_and_a_unit_do_not_see_their_neighbours(way: str, folder: Path) -> None:
    config = config_of(way, folder)
    recipe = recipe_of(config)
    model, data = recipe.build(config), recipe.prepare(recipe.encode(GROUPED, config), config)
    together = scores(model, data)
    for unit, rows in GROUPED.items():
        for number, record in enumerate(rows):
            alone = recipe.prepare(recipe.encode({unit: [record]}, config), config)
            at = data.units.index(unit)
            # fp16 states of differently padded batches may round differently
            assert np.allclose(scores(model, alone)[0, 0], together[at, number], atol=2e-3), (unit, number)


@pytest.mark.parametrize("way", WAYS)
def test_the_released_tensors_rebuild_the_model(way: str, folder: Path) -> None:
    config = config_of(way, folder)
    recipe = recipe_of(config)
    carrier, _ = carrier_of(way, folder)
    trained = carrier.model.float()
    weights = trained.released()
    assert all(not name.startswith("canary") for name in weights)
    rebuilt = load_released(recipe.build(config), weights)
    data = recipe.prepare(recipe.encode(GROUPED, config), config)
    assert np.allclose(scores(rebuilt, data), scores(trained.eval(), data), atol=1e-6)
    assert not np.allclose(scores(recipe.build(config), data), scores(rebuilt, data), atol=1e-3)


@pytest.mark.parametrize("way", ["full, two layers", "full, all layers", "lora, one layer, two heads"])
def test_training_from_cached_layers_is_training_of_the_whole_model(way: str, folder: Path) -> None:
    """The same scores as the model that runs every layer, up to the float16 of the cache."""
    config, whole = config_of(way, folder), config_of(way, folder, top_layers=None)
    recipe = recipe_of(config)
    encoded = recipe.encode(GROUPED, config)
    cached = recipe.prepare(encoded, config)
    assert cached.inputs["states"].dtype == np.float16
    assert cached.inputs["tokens"].shape[2] == int(encoded.lengths.max())
    model, everything = recipe.build(config), recipe.build(whole)
    everything.head.load_state_dict(model.head.state_dict())  # type: ignore[union-attr,operator]
    assert np.allclose(scores(model, cached), scores(everything, encoded), atol=2e-3)
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert not any(n.startswith("body.network.embeddings") for n, _ in model.named_parameters())
    assert frozen == set() if "full" in way else bool(frozen)


def test_the_cache_of_lower_layers_is_not_the_output(folder: Path) -> None:
    """What the test above rests on: another cut gives other states."""
    config, other = config_of("full, two layers", folder), config_of("full, two layers", folder, top_layers=1)
    recipe = recipe_of(config)
    encoded = recipe.encode(GROUPED, config)
    assert not np.allclose(recipe.prepare(encoded, config).inputs["states"], recipe.prepare(encoded, other).inputs["states"])


def test_pads_are_not_attended_to(folder: Path) -> None:
    """Longer padding changes no score; with the mask thrown away it would."""
    config = config_of("full", folder)
    recipe = recipe_of(config)
    model, data = recipe.build(config), recipe.encode(GROUPED, config)
    wide = np.pad(data.inputs["tokens"], ((0, 0), (0, 0), (0, 5)))
    padded = UnitData(data.units, {"tokens": wide}, data.labels, ("tokens",))
    assert np.allclose(scores(model, padded), scores(model, data), atol=1e-5)
    assert isinstance(model, TextEncoder)
    body = model.body
    assert isinstance(body, PretrainedBody)
    model.body = _Blind(body)  # type: ignore[assignment]
    assert not np.allclose(scores(model, padded), scores(model, data), atol=1e-3)


class _Blind(nn.Module):
    """Takes pads for words."""

    def __init__(self, body: PretrainedBody) -> None:
        super().__init__()
        self.body = body

    def forward(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        return self.body({"tokens": inputs["tokens"].clamp(min=1)})


def test_two_heads_are_a_softmax_over_the_declared_pairs() -> None:
    head = SplitHead(4, LABELS, "/")
    assert (head.firsts, head.seconds) == (["refund", "parcel"], ["happy", "angry"])
    pooled = torch.randn(3, 4)
    joint = head(pooled).log_softmax(-1).view(3, 2, 2)
    assert torch.allclose(joint.logsumexp(2), head.first(pooled).log_softmax(-1), atol=1e-5)
    assert torch.allclose(joint.logsumexp(1), head.second(pooled).log_softmax(-1), atol=1e-5)


def test_the_initial_weights_follow_the_seed_and_nothing_else(folder: Path) -> None:
    config = config_of("lora", folder)
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    first = recipe_of(config).build(config).released()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(321)
    second = recipe_of(config).build(config).released()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_placeholders_become_words() -> None:
    assert plain_text("ask <PERSON_3fa9c1> or <CREDIT_CARD:*1234>, <US_SSN>") == "ask person or credit card, us ssn"
    assert plain_text("a < b and c > d, <3") == "a < b and c > d, <3"


def test_dropout_of_the_policy_is_that_of_every_layer(folder: Path) -> None:
    config = config_of("full", folder, dropout=0.25)
    model = recipe_of(config).build(config)
    assert {m.p for m in model.modules() if isinstance(m, nn.Dropout)} == {0.25}


def test_what_decides_the_cache_is_in_its_key(folder: Path, tmp_path: Path) -> None:
    base = config_of("lora, one layer, two heads", folder)
    keys = [frozen_part(base)]
    for change in ({"top_layers": 2}, {"max_tokens": 6}):
        keys.append(frozen_part(config_of("lora, one layer, two heads", folder, **change)))
    keys.append(frozen_part(config_of("head", folder)))
    keys.append(frozen_part(config_of("head", make_encoder(tmp_path / "other", layers=2))))
    assert len({str(key) for key in keys}) == len(keys)
    same = config_of("lora, one layer, two heads", folder, learning_rate=0.5, steps=3, rank=3)
    assert frozen_part(same) == keys[0]
    assert frozen_part(config_of("lora", folder)) is None
    assert frozen_part(config_of("scratch", folder)) is None


def test_models_that_can_not_be_cut_are_refused_by_name(folder: Path) -> None:
    config = config_of("full, two layers", folder, top_layers=9)
    with pytest.raises(PrivetError, match=r"E-ENCODER-002.* 9, and the model has 3"):
        recipe_of(config).build(config)
    with pytest.raises(PrivetError, match=r"E-ENCODER-001.*mpnet"):
        keep_top(PretrainedBody(nn.Linear(2, 2), "mpnet", 0), 1)


def test_other_pretrained_weights_than_the_policy_pins_are_refused(folder: Path) -> None:
    config = config_of("head", folder, pretrained_digest="sha256:" + "0" * 64)
    with pytest.raises(PrivetError, match="E-PRETRAINED-005"):
        recipe_of(config).build(config)


def test_a_head_starts_at_zero_and_moves_at_its_first_step(folder: Path) -> None:
    config = config_of("head", folder)
    model = recipe_of(config).build(config)
    assert isinstance(model, TextHead)
    batch = batch_of(recipe_of(config).synthetic(config, 4))
    model.losses(batch.inputs, batch.labels).sum().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.parameters())


def test_the_cache_has_no_room_without_bound(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    config = config_of("full, two layers", folder)
    recipe = recipe_of(config)
    encoded = recipe.encode(GROUPED, config)
    monkeypatch.setattr(os, "sysconf", lambda name: 1)
    with pytest.raises(PrivetError, match="E-ENCODER-003"):
        recipe.prepare(encoded, config)


@pytest.mark.parametrize("kind", ["roberta", "distilbert", "electra", "modernbert"])
def test_other_families_train_exactly_and_from_cached_layers(kind: str, tmp_path: Path) -> None:
    folder = make_family(tmp_path / kind, kind)
    for way in ("full", "full, two layers", "lora"):
        config = config_of(way, folder)
        recipe = recipe_of(config)
        carrier = CanaryCarrier(recipe.build(config), 2, 1.0).double()
        batch = batch_of(recipe.synthetic(config, 3))
        wanted, norms = one_at_a_time(carrier, batch, WIDE)
        found, measured = by_method("tape", carrier, batch, WIDE)
        assert difference(found, wanted) < 1e-6, way
        assert torch.allclose(measured, norms, rtol=1e-6, atol=1e-9), way
    cached, whole = config_of("full, two layers", folder), config_of("full", folder)
    encoded = recipe_of(whole).encode(GROUPED, whole)
    top, everything = recipe_of(cached).build(cached), recipe_of(whole).build(whole)
    everything.head.load_state_dict(top.head.state_dict())  # type: ignore[union-attr,operator]
    assert np.allclose(scores(top, recipe_of(cached).prepare(encoded, cached)), scores(everything, encoded), atol=3e-3)


def make_family(folder: Path, kind: str) -> Path:
    """Another architecture with the tokenizer of the tiny BERT."""
    from transformers import AutoConfig, AutoModel

    make_encoder(folder)
    named: dict[str, object] = {"vocab_size": 120, "pad_token_id": 1 if kind == "roberta" else 0}
    if kind == "distilbert":
        named |= {"dim": WIDTH, "n_layers": LAYERS, "n_heads": 4, "hidden_dim": 32, "max_position_embeddings": 32}
    else:
        named |= {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "intermediate_size": 32}
        named |= {"max_position_embeddings": 40, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
    if kind == "electra":
        named["embedding_size"] = WIDTH
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        AutoModel.from_config(AutoConfig.for_model(kind, **named)).save_pretrained(folder)
    return folder


def test_a_layer_without_per_unit_gradients_is_refused_by_its_name(folder: Path) -> None:
    carrier, _ = carrier_of("full", folder)

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(WIDTH, dtype=torch.float64))

        def forward(self, states: Tensor) -> Tensor:
            return states * self.weight

    model = carrier.model
    assert isinstance(model, UnitModel)
    model.dropout = Odd()
    with pytest.raises(PrivetError, match="dropout"):
        make_method("tape", carrier, CLIPPING)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_training_passes_the_preflight(way: str, folder: Path) -> None:
    from training.preflight import preflight

    shown = preflight(config_of(way, folder))
    released = recipe_of(config_of(way, folder)).build(config_of(way, folder)).released()
    assert shown.trainable == sum(tensor.numel() for tensor in released.values())
    assert (shown.frozen > 0) == (way in ("lora", "lora, one layer, two heads", "adapter", "adalora"))


def test_adalora_prunes_in_the_engine_that_trains(folder: Path) -> None:
    from training.adapters import AdaLoraLinear, adapted_layers
    from training.engine import PrivateEngine, make_carrier

    config = config_of("adalora", folder, steps=20, learning_rate=0.01)
    engine = PrivateEngine(make_carrier(config), config, recipe_of(config).synthetic(config, 6), np.array([True, False]))
    scales = [layer.scale.weight for _, layer in adapted_layers(engine.carrier) if isinstance(layer, AdaLoraLinear)]
    for number in range(20):
        engine.step(number)
    alive = sum(int((scale != 0).sum()) for scale in scales)
    assert alive == sum(len(scale) for scale in scales) // 2
    assert set(engine.optimizer.state[scales[0]]) >= {"importance_mean", "importance_spread"}

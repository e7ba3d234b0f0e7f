"""Adapters: exactly theirs train, wherever the model is moved; PEFT reads what we write and the other way round."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from privacy.errors import PrivetError
from training.adalora import RankAllocator, RankSchedule
from training.adapter_files import export_peft, import_peft
from training.adapters import AdaLoraLinear, Adapted, AdapterKind, Scale, adapted_layers, apply_adapters, default_targets, merge

IDS = torch.tensor([[2, 5, 7, 3], [2, 6, 3, 0]])
MASK = (IDS != 0).long()


def bert() -> nn.Module:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    torch.manual_seed(0)
    return BertModel(config, add_pooling_layer=False).eval()


def gpt() -> nn.Module:
    from transformers import GPT2Config, GPT2Model

    torch.manual_seed(0)
    return GPT2Model(GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=4, n_positions=16)).eval()


def states(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS, attention_mask=MASK).last_hidden_state
        return found


def shaken(model: nn.Module) -> nn.Module:
    """Adapters away from their neutral start."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def adapted(kind: AdapterKind, model: nn.Module | None = None, model_type: str = "bert") -> nn.Module:
    model = model or bert()
    apply_adapters(model, kind, 4, default_targets(model_type, kind))
    return model


def code_of(call: object, *given: object) -> str:
    with pytest.raises(PrivetError) as caught:
        call(*given)  # type: ignore[operator]
    return caught.value.code


@pytest.mark.parametrize("kind", ["lora", "adapter", "adalora"])
def test_an_adapter_starts_as_the_model_and_only_its_own_tensors_train(kind: AdapterKind) -> None:
    before = states(bert())
    model = adapted(kind)
    assert torch.allclose(states(model), before, atol=1e-6)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained
    assert all(name.rpartition(".")[0].endswith((".down", ".up", ".scale")) for name in trained)
    layers = [layer for _, layer in adapted_layers(model)]
    assert len(layers) == 4
    assert len(trained) == len(layers) * (3 if kind == "adalora" else 2)
    assert not torch.allclose(states(shaken(model)), before, atol=1e-3)


@pytest.mark.parametrize("kind", ["lora", "adapter", "adalora"])
@pytest.mark.parametrize("moved_first", [True, False])
def test_every_adapter_tensor_moves_with_the_model(kind: AdapterKind, moved_first: bool) -> None:
    """Opacus issue #820: adapters applied to a model that had moved stayed behind."""
    model = bert()
    there = ("meta", torch.float64)
    model = adapted(kind, model.to(*there)) if moved_first else adapted(kind, model).to(*there)
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {("meta", torch.float64)}


@pytest.mark.parametrize("kind", ["lora", "adalora"])
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_merging_changes_no_output_and_leaves_no_adapter(kind: AdapterKind, family: str) -> None:
    model = shaken(adapted(kind, bert() if family == "bert" else gpt(), family))
    before = states(model)
    merged = merge(model)
    assert torch.allclose(states(merged), before, atol=1e-5)
    assert not any(isinstance(m, Adapted) for m in merged.modules())


def test_houlsby_adapters_can_not_be_merged() -> None:
    model = shaken(adapted("adapter"))
    before = states(model)
    assert code_of(merge, model) == "E-ADAPTER-004"
    assert torch.equal(states(model), before)


@pytest.mark.parametrize("kind", ["lora", "adalora"])
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_peft_reads_what_we_write(kind: AdapterKind, family: str, tmp_path: Path) -> None:
    from peft import PeftModel

    base = bert() if family == "bert" else gpt()
    ours = shaken(adapted(kind, copy.deepcopy(base), family))
    written = export_peft(ours, tmp_path, "some/base")
    theirs = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
    changed = {name for name, p in theirs.named_parameters() if "lora_" in name and bool(p.abs().sum() > 0)}
    assert len(changed) == len(written)  # every tensor arrived; #820 was about those that did not
    assert torch.allclose(states(theirs.eval()), states(ours), atol=1e-5)
    assert not torch.allclose(states(ours), states(base), atol=1e-3)


@pytest.mark.parametrize("kind", ["lora", "adalora"])
def test_we_read_what_peft_writes(kind: AdapterKind, tmp_path: Path) -> None:
    import peft

    common = {"lora_alpha": 6, "target_modules": ["query", "value"]}
    config = (
        peft.LoraConfig(r=4, **common)
        if kind == "lora"
        else peft.AdaLoraConfig(init_r=4, target_r=2, total_step=10, tinit=1, tfinal=1, **common)
    )
    theirs = shaken(peft.get_peft_model(bert(), config)).eval()
    theirs.save_pretrained(tmp_path)
    ours = bert()
    names = import_peft(ours, tmp_path)
    assert len(names) == 4
    assert torch.allclose(states(ours), states(theirs), atol=1e-5)
    again = tmp_path / "again"
    first = export_peft(ours, again)
    fresh = bert()
    import_peft(fresh, again)
    second = export_peft(fresh, tmp_path / "third")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"use_dora": True}, "E-ADAPTER-008"),
        ({"use_rslora": True}, "E-ADAPTER-008"),
        ({"bias": "all"}, "E-ADAPTER-008"),
        ({"rank_pattern": {"query": 2}}, "E-ADAPTER-008"),
        ({"target_modules": ["query"]}, "E-ADAPTER-007"),
        ({"r": 3}, "E-ADAPTER-007"),
        ({"peft_type": "IA3"}, "E-ADAPTER-007"),
        ({"target_modules": ["nobody"]}, "E-ADAPTER-001"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_whole(change: dict[str, object], code: str, tmp_path: Path) -> None:
    export_peft(shaken(adapted("lora")), tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert code_of(import_peft, bert(), tmp_path) == code


def test_files_that_are_no_adapter_are_refused(tmp_path: Path) -> None:
    assert code_of(import_peft, bert(), tmp_path) == "E-ADAPTER-007"
    assert code_of(export_peft, bert(), tmp_path) == "E-ADAPTER-006"
    assert code_of(export_peft, adapted("adapter"), tmp_path) == "E-ADAPTER-006"


def test_what_can_not_be_adapted_is_refused_by_name() -> None:
    assert code_of(apply_adapters, bert(), "lora", 4, ["nobody"]) == "E-ADAPTER-001"
    with pytest.raises(PrivetError, match=r"encoder\.layer\.0\.attention\.output\.LayerNorm is a LayerNorm"):
        apply_adapters(bert(), "lora", 4, ["output.LayerNorm"])
    assert code_of(apply_adapters, bert(), "lora", 16, ["query"]) == "E-ADAPTER-003"
    assert code_of(apply_adapters, adapted("lora"), "lora", 4, ["query"]) == "E-ADAPTER-003"
    assert code_of(default_targets, "nobody-knows", "lora") == "E-ADAPTER-005"


def test_the_gradient_of_a_scale_is_the_sum_over_tokens() -> None:
    scale = Scale(3)
    x, g = torch.randn(5, 3), torch.randn(5, 3)
    (scale(x) * g).sum().backward()
    assert torch.allclose(scale.weight.grad, (x * g).sum(0), atol=1e-6)


def test_the_budget_of_directions_falls_and_stays() -> None:
    schedule = RankSchedule(32, 8, 10, 50)
    budgets = [schedule.budget(step) for step in range(80)]
    assert budgets[:11] == [32] * 11
    assert set(budgets[50:]) == {8}
    assert budgets == sorted(budgets, reverse=True)


def test_directions_that_matter_least_are_pruned_by_the_gradients_that_the_optimizer_gets() -> None:
    model = shaken(adapted("adalora"))
    layers = [layer for _, layer in adapted_layers(model) if isinstance(layer, AdaLoraLinear)]
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-9)
    allocator = RankAllocator.attach(model, optimizer, steps=20)
    assert (allocator.schedule.directions, allocator.schedule.kept) == (16, 8)
    strong = layers[1:3]
    for step in range(20):
        for layer in layers:
            layer.scale.weight.data.fill_(0.5)  # as if each step of the optimizer moved them all
            for parameter in (layer.down.weight, layer.up.weight, layer.scale.weight):
                size = (1.0 + 0.5 * (step % 2)) * (100.0 if layer in strong else 0.01)
                parameter.grad = torch.full_like(parameter, size)
        optimizer.step()
        alive = [int((layer.scale.weight != 0).sum()) for layer in layers]
        assert sum(alive) >= allocator.schedule.budget(step)
    assert alive == [0, 4, 4, 0]
    saved = optimizer.state_dict()
    fresh = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-9)
    fresh.load_state_dict(saved)
    means = [optimizer.state[p]["importance_mean"] for p in layers[1].parameters() if p.requires_grad]
    again = [fresh.state[p]["importance_mean"] for p in layers[1].parameters() if p.requires_grad]
    assert all(torch.equal(a, b) and bool(a.abs().sum() > 0) for a, b in zip(means, again, strict=True))


def test_a_run_of_a_few_steps_prunes_nothing() -> None:
    schedule = RankSchedule.of_run(4, 16, 5)
    assert {schedule.budget(step) for step in range(9)} == {16}

"""Ours against Opacus' own hooks and ghost modes, gradient by gradient, and the tape inside a plain Opacus program."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from opacus import PrivacyEngine
from opacus.accountants import PRVAccountant
from opacus.utils.batch_memory_manager import BatchMemoryManager
from opacus.validators.errors import UnsupportedModuleError
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from privacy.errors import PolicyError, UsageError
from privacy.policy import Recipe
from tests.training.tape_cases import CASES, Mlp, TinyLm, apart, batch_of, build, naive, norm_of, sums
from training.gradients import auto_method, auto_name, make_method, method_names, stash_bytes
from training.host_memory import keep_freed_memory
from training.tape_opacus import TapeModule, TapeOptimizer, make_private

OURS = ("tape", "two_pass")
TIED = {"tied language model", "gru", "deep cnn"}  # Opacus' ghost mode refuses a parameter that is used twice
WRONG_IN_OPACUS = {"cnn", "adapters"}  # uneven and reflecting padding, and padding_idx


@pytest.mark.parametrize("records", [1, 3])
@pytest.mark.parametrize("method", OURS)
@pytest.mark.parametrize("case", sorted(set(CASES) - WRONG_IN_OPACUS))
def test_ours_is_opacus_hooks_gradient_by_gradient(case: str, method: str, records: int) -> None:
    net, batch = build(case, records)
    twin = copy.deepcopy(net)
    theirs = make_method("hooks", twin, 0.4)
    ours = make_method(method, net, 0.4)
    assert torch.allclose(ours.norms(batch), theirs.norms(batch), rtol=1e-6)
    assert ours.add(batch) == theirs.add(batch) == 0
    for (name, mine), wanted in zip(sums(net).items(), sums(twin).values(), strict=True):
        assert torch.allclose(mine, wanted, rtol=1e-6, atol=1e-9), name


@pytest.mark.parametrize("method", OURS)
@pytest.mark.parametrize("case", sorted(set(CASES) - WRONG_IN_OPACUS - TIED))
def test_ours_is_opacus_ghost_gradient_by_gradient(case: str, method: str) -> None:
    net, batch = build(case)
    twin = copy.deepcopy(net)
    theirs, ours = make_method("ghost", twin, 0.4), make_method(method, net, 0.4)
    assert torch.allclose(ours.norms(batch), theirs.norms(batch), rtol=1e-6)
    assert ours.add(batch) == theirs.add(batch) == 0
    for (name, mine), wanted in zip(sums(net).items(), sums(twin).values(), strict=True):
        assert torch.allclose(mine, wanted, rtol=1e-6, atol=1e-9), name


@pytest.mark.parametrize("name", ["hooks", "ghost"])
@pytest.mark.parametrize("case", sorted(WRONG_IN_OPACUS))
def test_what_opacus_gets_wrong_is_refused_in_its_modes(case: str, name: str) -> None:
    """Its own norms are off by almost a hundredth there."""
    net, batch = build(case)
    with pytest.raises(PolicyError, match="E-TRAIN-032"):
        make_method(name, net, 1.0)
    exact = torch.tensor([norm_of(g) for g in naive(net, batch)], dtype=torch.float64)
    assert torch.allclose(make_method("tape", net, 1.0).norms(batch), exact, rtol=1e-6)


def test_ghost_refuses_units_of_several_records() -> None:
    net, batch = build("mlp", records=2)
    with pytest.raises(PolicyError, match="E-TRAIN-042"):
        make_method("ghost", net, 1.0).add(batch)


def test_ghost_refuses_bfloat16_whose_rounded_sums_move_further_than_a_unit_may() -> None:
    net, _ = build("mlp", dtype=torch.float32)
    net.precision = torch.bfloat16  # type: ignore[assignment]
    with pytest.raises(PolicyError, match="E-TRAIN-045"):
        make_method("ghost", net, 1.0)
    for wrong in ({"gradients": "ghost"}, {"shards": True}):
        with pytest.raises(ValidationError, match="a rounded sum"):
            Recipe.model_validate({"precision": "bfloat16", **wrong})


@pytest.mark.parametrize("name", ["hooks", "ghost"])
def test_opacus_modes_drop_and_count_what_is_not_finite_and_leave_grads_alone(name: str) -> None:
    net, batch = build("mlp", dtype=torch.float32)
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    batch.inputs["x"][2] = float("nan")
    wanted = copy.deepcopy(net)
    make_method(name, wanted, 0.2).add(batch.part(torch.tensor([0, 1, 3, 4])))
    assert make_method(name, net, 0.2).add(batch) == 1
    assert apart(sums(net), sums(wanted)) <= 1e-6
    assert all(bool((p.grad == 7.0).all()) for p in net.parameters())


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(PolicyError, match="E-TRAIN-036"):
        make_method("vmap", Mlp(), 1.0)
    assert method_names() == ("tape", "two_pass", "hooks", "ghost")


def test_one_loss_for_each_unit_or_none() -> None:
    class Averaged(Mlp):
        def forward(self, *args: Any) -> Tensor:
            return super().forward(*args).mean()

    with pytest.raises(PolicyError, match="E-TRAIN-037"):
        make_method("tape", Averaged(), 1.0).add(batch_of(Mlp.data(3, 1)))


def test_the_estimate_picks_the_tape_where_it_fits_two_passes_where_not_and_hooks_where_only_they_can() -> None:
    net, batch = build("long maps", 2, dtype=torch.float32)
    graph, stash = stash_bytes(net, batch)
    assert graph > 0
    assert stash == 4 * batch.labels.numel() * (40 * (2 + 36) + 3)  # every output of a trained layer
    assert auto_name(net, batch, graph + stash) == "tape"
    assert auto_name(net, batch, graph + stash - 1) == "two_pass"
    assert auto_method(net, batch, 1.0, 1e9).name == "tape"

    class Normed(nn.Module):
        """Opacus has a sampler for it, the tape has not."""

        def __init__(self) -> None:
            super().__init__()
            self.norm, self.head = nn.InstanceNorm1d(4, affine=True), nn.Linear(4, 3)

        def forward(self, inputs: dict[str, Tensor], labels: Tensor, cid: Tensor) -> Tensor:
            scores = self.head(torch.tanh(self.norm(inputs["x"].flatten(0, 1))).mean(2))
            return functional.cross_entropy(scores, labels.flatten(), reduction="none")

    odd = Normed().double()
    sample = batch_of(torch.randn(3, 1, 4, 5).double())
    hooks = auto_method(odd, sample, 0.1, 1e9)
    assert hooks.name == "hooks"
    assert torch.allclose(hooks.norms(sample), torch.tensor([norm_of(g) for g in naive_plain(odd, sample)]).double(), rtol=1e-6)
    odd.wild = nn.GRU(2, 2)
    with pytest.raises(PolicyError, match=r"E-TRAIN-032.*wild"):
        auto_method(odd, sample, 0.1, 1e9)


def naive_plain(net: nn.Module, batch: Any) -> list[dict[str, Tensor]]:
    names, parameters = zip(*net.named_parameters(), strict=True)
    found = []
    for unit in range(len(batch)):
        part = batch.part(slice(unit, unit + 1))
        with torch.enable_grad():
            gradients = torch.autograd.grad(net(part.inputs, part.labels, part.cid).sum(), parameters)
        found.append(dict(zip(names, gradients, strict=True)))
    return found


def test_the_stash_estimate_is_above_what_the_tape_holds() -> None:
    net, batch = build("tied language model", 2, dtype=torch.float32)
    graph, stash = stash_bytes(net, batch)
    ours = make_method("tape", net, 1.0)
    with ours._run(batch, "tape") as (session, losses):  # type: ignore[attr-defined]
        losses.sum().backward()
        session.join()
        held = sum(x.numel() * x.element_size() for _, part in session._parts for x in _tensors(part))
    assert 0 < held <= graph + stash


def _tensors(part: Any) -> list[Tensor]:
    inner = getattr(part, "parts", None)
    if inner is not None:
        return [x for each in inner for x in _tensors(each)]
    return [x for name in part.__slots__ if isinstance(x := getattr(part, name), Tensor)]


class Scores(nn.Module):
    """A model as an Opacus program has one: rows in, scores out."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def program(reduction: str, physical: int | None, tape: bool) -> tuple[dict[str, Tensor], float]:
    """A few steps of a plain Opacus program without noise; returns its weights and Opacus' epsilon."""
    torch.manual_seed(7)
    data = TensorDataset(torch.randn(64, 6), torch.randint(0, 3, (64,)))
    net = Scores()
    sgd = torch.optim.SGD(net.parameters(), lr=0.5)
    engine = PrivacyEngine(accountant="prv")
    loader = DataLoader(data, batch_size=8)
    sampler = torch.Generator().manual_seed(3)
    settings = {"noise_multiplier": 1.0, "max_grad_norm": 0.05, "loss_reduction": reduction, "noise_generator": sampler}
    if tape:
        module, optimizer, loader = make_private(engine, module=net, optimizer=sgd, data_loader=loader, **settings)
    else:
        module, optimizer, loader = engine.make_private(module=net, optimizer=sgd, data_loader=loader, **settings)
    optimizer.noise_multiplier = 1e-9
    loader.batch_sampler.generator = torch.Generator().manual_seed(11)  # the same batches for both

    def run(batches: Any) -> None:
        for x, y in batches:
            optimizer.zero_grad()
            functional.cross_entropy(module(x), y, reduction=reduction).backward()
            optimizer.step()

    if physical:
        with BatchMemoryManager(data_loader=loader, max_physical_batch_size=physical, optimizer=optimizer) as parts:
            run(parts)
    else:
        run(loader)
    optimizer.noise_multiplier = 1.0
    for history in (engine.accountant.history,):
        engine.accountant.history = [(1.0, rate, steps) for _, rate, steps in history]
    return {n.removeprefix("_module."): p.detach().clone() for n, p in module.named_parameters()}, engine.get_epsilon(1e-3)


@pytest.mark.parametrize("physical", [None, 3])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_plain_opacus_program_ends_with_the_same_weights_and_epsilon(reduction: str, physical: int | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs, their_epsilon = program(reduction, physical, tape=False)
        ours, our_epsilon = program(reduction, physical, tape=True)
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], theirs[name], rtol=1e-3, atol=1e-4) for name in ours)
    assert our_epsilon == pytest.approx(their_epsilon, rel=1e-9)


def test_accumulation_by_hand_counts_every_backward_pass_and_an_empty_batch_is_noise() -> None:
    torch.manual_seed(8)
    x, y = torch.randn(6, 6), torch.randint(0, 3, (6,))
    net = Scores()
    module = TapeModule(net, loss_reduction="sum")
    sgd = torch.optim.SGD(net.parameters(), lr=1.0)
    settings = {"noise_multiplier": 0.0, "max_grad_norm": 0.1, "expected_batch_size": 6, "loss_reduction": "sum"}
    optimizer = TapeOptimizer(sgd, module=module, **settings)
    for part in (slice(0, 2), slice(2, 6)):
        functional.cross_entropy(module(x[part]), y[part], reduction="sum").backward()
    optimizer.clip_and_accumulate()
    parts = sums(net)
    optimizer.zero_grad()
    functional.cross_entropy(module(x), y, reduction="sum").backward()
    optimizer.clip_and_accumulate()
    assert apart(parts, sums(net)) <= 1e-6
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimizer.zero_grad()
    functional.cross_entropy(module(x[:0]), y[:0], reduction="sum").backward()
    optimizer.step()
    assert all(torch.equal(before[name], p) for name, p in net.named_parameters())
    net.eval()
    module.eval()
    module(x).sum().backward()  # outside training there is no tape
    assert not module.open


def test_opacus_extension_points_hold_the_tape_to_their_rules() -> None:
    assert isinstance(PrivacyEngine(accountant="prv").accountant, PRVAccountant)
    net = Scores()
    net.layers.append(nn.BatchNorm1d(3))
    loader = DataLoader(TensorDataset(torch.randn(4, 6), torch.zeros(4)), batch_size=2)
    with pytest.raises(UnsupportedModuleError):
        make_private(
            PrivacyEngine(), module=net, optimizer=torch.optim.SGD(net.parameters()), data_loader=loader,
            noise_multiplier=1.0, max_grad_norm=1.0,
        )  # fmt: skip
    other = Scores()
    module = TapeModule(other)
    half = torch.optim.SGD(other.layers[0].parameters())
    with pytest.raises(UsageError, match="E-TRAIN-041"):
        TapeOptimizer(half, module=module, noise_multiplier=1.0, max_grad_norm=1.0, expected_batch_size=2)
    assert module.to_standard_module() is other
    assert not hasattr(other.layers[0].weight, "grad_sample")


def test_freed_memory_is_kept_where_the_c_library_can() -> None:
    assert keep_freed_memory() in (True, False)
    x = torch.zeros(1 << 20)
    assert float(x.sum()) == 0.0


def test_tied_weights_work_where_ghost_refuses_them() -> None:
    net = TinyLm().double()
    batch = batch_of(TinyLm.data(3, 1))
    with pytest.raises(NotImplementedError):
        make_method("ghost", copy.deepcopy(net), 1.0).norms(batch)
    exact = torch.tensor([norm_of(g) for g in naive(net, batch)], dtype=torch.float64)
    assert torch.allclose(make_method("tape", net, 1.0).norms(batch), exact, rtol=1e-6)

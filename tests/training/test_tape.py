"""Every layer of the tape against a naive loop in float64, and all that would leave a gradient unclipped without a word."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from privacy.errors import PolicyError
from tests.training.tape_cases import CASES, Cnn, Mlp, Net, TinyLm, apart, batch_of, build, clipped_sum, naive, norm_of, sums
from training.gradients import make_method
from training.tape import require_precision
from training.tape_norms import MARGIN

OURS = ("tape", "two_pass")


def median_norm(each: list[dict[str, Tensor]]) -> float:
    return sorted(norm_of(g) for g in each)[len(each) // 2]


@pytest.mark.parametrize("records", [1, 3])
@pytest.mark.parametrize("method", OURS)
@pytest.mark.parametrize("case", CASES)
def test_norms_and_clipped_sum_are_those_of_a_naive_loop(case: str, method: str, records: int) -> None:
    net, batch = build(case, records)
    each = naive(net, batch)
    limit = median_norm(each)  # some units are clipped, some are not
    ours = make_method(method, net, limit)
    wanted = torch.tensor([norm_of(g) for g in each], dtype=torch.float64)
    assert torch.allclose(ours.norms(batch), wanted, rtol=1e-6)
    assert ours.add(batch) == 0
    assert apart(sums(net), clipped_sum(each, limit * (1 - MARGIN))) <= 1e-6
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("method", OURS)
@pytest.mark.parametrize("case", CASES)
def test_float32_stays_close_to_the_loop_in_float64(case: str, method: str) -> None:
    net, batch = build(case, 2, dtype=torch.float32)
    each = naive(net, batch)
    ours = make_method(method, net, median_norm(each))
    wanted = torch.tensor([norm_of(g) for g in each], dtype=torch.float64)
    assert torch.allclose(ours.norms(batch), wanted, rtol=5e-6)
    ours.add(batch)
    assert apart(sums(net), clipped_sum(each, median_norm(each) * (1 - MARGIN))) <= 5e-6


class Stack(Net):
    """A map over positions of any width, and a table."""

    def __init__(self, before: int, after: int, vocabulary: int) -> None:
        super().__init__()
        self.table, self.map, self.head = nn.Embedding(vocabulary, before), nn.Linear(before, after), nn.Linear(after, 3)

    def rows(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.map(self.table(x))).mean(1))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 3), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 9))
def test_any_shape_is_exact_by_whichever_form_of_the_norm_is_cheapest(
    units: int, records: int, time: int, before: int, after: int, vocabulary: int
) -> None:
    torch.manual_seed(1)
    net = Stack(before, after, vocabulary).double()
    batch = batch_of(torch.randint(0, vocabulary, (units, records, time)))
    each = naive(net, batch)
    limit = max(median_norm(each), 1e-9)
    for method in OURS:
        twin = copy.deepcopy(net)
        make_method(method, twin, limit).add(batch)
        assert apart(sums(twin), clipped_sum(each, limit * (1 - MARGIN))) <= 1e-6


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2),
    st.sampled_from([1, 2]), st.sampled_from(["zeros", "circular"]),
)  # fmt: skip
def test_any_convolution_is_exact(
    units: int, records: int, kernel: int, stride: int, padding: int, dilation: int, groups: int, mode: str
) -> None:
    class OneConv(Net):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 4, kernel, stride, padding, dilation, groups, padding_mode=mode)
            self.head = nn.Linear(4, 3)

        def rows(self, x: Tensor) -> Tensor:
            return self.head(torch.tanh(self.conv(x)).mean((2, 3)))

    torch.manual_seed(2)
    net = OneConv().double()
    batch = batch_of(torch.randn(units, records, 2, 7, 8).double())
    each = naive(net, batch)
    for method in OURS:
        twin = copy.deepcopy(net)
        make_method(method, twin, median_norm(each)).add(batch)
        assert apart(sums(twin), clipped_sum(each, median_norm(each) * (1 - MARGIN))) <= 1e-6


@pytest.mark.parametrize("method", OURS)
def test_every_micro_batch_counts(method: str) -> None:
    """Opacus' ghost mode drops the first without a word when gradients are accumulated by hand."""
    net, batch = build("mlp", units=6)
    whole = copy.deepcopy(net)
    make_method(method, whole, 0.1).add(batch)
    parts = make_method(method, net, 0.1)
    for start in (0, 1, 4):
        parts.add(batch.part(slice(start, {0: 1, 1: 4, 4: 6}[start])))
    assert apart(sums(net), sums(whole)) <= 1e-12


@pytest.mark.parametrize("method", [*OURS, "hooks", "ghost"])
def test_a_layer_unfrozen_after_the_method_was_made_is_refused(method: str) -> None:
    """One record contributed 4,865 times the clipping norm in Opacus' ghost mode."""
    net, batch = build("mlp")
    ours = make_method(method, net, 1e-3)
    net.frozen.weight.requires_grad_(True)
    with pytest.raises(PolicyError, match="E-TRAIN-032") as refused:
        ours.add(batch)
    assert "layer frozen" in str(refused.value)
    assert all(getattr(p, "summed_grad", None) is None or not p.summed_grad.any() for p in net.parameters())


@pytest.mark.parametrize("method", OURS)
def test_a_swapped_layer_is_refused(method: str) -> None:
    net, batch = build("mlp")
    ours = make_method(method, net, 1.0)
    net.last = nn.Linear(7, 3, bias=False).double()
    with pytest.raises(PolicyError, match=r"E-TRAIN-032.*last"):
        ours.add(batch)


@pytest.mark.parametrize("method", OURS)
def test_a_new_layer_that_took_over_the_weight_is_refused(method: str) -> None:
    """Same parameters, but nothing tapes them: their gradient goes to autograd."""
    net, batch = build("mlp")
    ours = make_method(method, net, 1.0)
    other = nn.Linear(7, 3, bias=False)
    other.weight = net.last.weight
    net.last = other
    with pytest.raises(PolicyError, match=r"E-TRAIN-034.*last"):
        ours.add(batch)


class Penalised(Mlp):
    """A penalty on the weights inside the loss: half of the gradient passes the layer by."""

    def forward(self, inputs: Mapping[str, Tensor], labels: Tensor, cid: Tensor) -> Tensor:
        return super().forward(inputs, labels, cid) + self.first.weight.square().sum()


class Idle(Mlp):
    def __init__(self, may_rest: bool) -> None:
        super().__init__()
        self.expert = nn.Linear(3, 3)
        if may_rest:
            self.expert.may_rest = True  # type: ignore[assignment]


@pytest.mark.parametrize("method", OURS)
def test_a_gradient_past_the_layer_is_refused(method: str) -> None:
    net = Penalised()
    batch = batch_of(Mlp.data(4, 1))
    with pytest.raises(PolicyError, match=r"E-TRAIN-034.*first\.weight"):
        make_method(method, net, 1.0).add(batch)


@pytest.mark.parametrize("method", OURS)
def test_a_layer_that_no_loss_reaches_is_refused_unless_it_may_rest(method: str) -> None:
    batch = batch_of(Mlp.data(4, 1))
    with pytest.raises(PolicyError, match=r"E-TRAIN-035.*expert"):
        make_method(method, Idle(may_rest=False), 1.0).add(batch)
    resting = Idle(may_rest=True)
    each = naive(resting, batch)
    make_method(method, resting, 0.1).add(batch)
    assert not resting.expert.weight.summed_grad.any()  # type: ignore[union-attr]
    assert apart(sums(resting), clipped_sum(each, 0.1 * (1 - MARGIN))) <= 1e-5


class SharedPlaces(TinyLm):
    """Position ids of shape [1, time], as Hugging Face's GPT-2 makes them: one row for all units."""

    shape = "row"

    def forward(self, inputs: Mapping[str, Tensor], labels: Tensor, cid: Tensor) -> Tensor:
        ids = inputs["x"].flatten(0, 1)
        places = torch.arange(ids.shape[1])
        places = places.unsqueeze(0) if self.shape == "row" else places.expand(len(ids), -1)
        states = self.tokens(ids) + self.places(places)
        states = states + self.out(self.mixed(self.norm(states))[..., :8])
        scores = self.head(states)[:, :-1].transpose(1, 2)
        return functional.cross_entropy(scores, ids[:, 1:], reduction="none").mean(1).view(labels.shape).mean(1)


@pytest.mark.parametrize("method", OURS)
def test_position_ids_that_all_units_share_are_refused_and_expanded_ones_are_exact(method: str) -> None:
    net = SharedPlaces().double()
    batch = batch_of(TinyLm.data(4, 2))
    with pytest.raises(PolicyError, match=r"E-TRAIN-031.*places"):
        make_method(method, copy.deepcopy(net), 1.0).add(batch)
    net.shape = "expanded"
    each = naive(net, batch)
    make_method(method, net, 0.5).add(batch)
    assert apart(sums(net), clipped_sum(each, 0.5 * (1 - MARGIN))) <= 1e-6


@pytest.mark.parametrize("uses", ["inside", "inside and outside"])
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("method", OURS)
def test_activation_checkpoints_change_nothing_or_are_refused(method: str, reentrant: bool, uses: str) -> None:
    """Both modes of Opacus refuse them. A re-entrant one hides its uses until the backward pass, so they can't be joined."""

    class Checkpointed(TinyLm):
        def forward(self, inputs: Mapping[str, Tensor], labels: Tensor, cid: Tensor) -> Tensor:
            ids = inputs["x"].flatten(0, 1)
            states = self.tokens(ids) + self.places(torch.arange(ids.shape[1]).repeat(len(ids), 1))
            block = lambda x: x + self.out(torch.tanh(self.mixed(self.norm(x)))[..., :8])  # noqa: E731
            kept = block(states) if uses == "inside and outside" else states
            states = checkpoint(block, states, use_reentrant=reentrant) + kept
            scores = self.head(states)[:, :-1].transpose(1, 2)
            return functional.cross_entropy(scores, ids[:, 1:], reduction="none").mean(1).view(labels.shape).mean(1)

    torch.manual_seed(3)
    net = Checkpointed().double()
    batch = batch_of(TinyLm.data(4, 2))
    plain = copy.deepcopy(net)
    ours = make_method(method, net, 0.3)
    if reentrant and uses == "inside and outside":
        with pytest.raises(PolicyError, match="E-TRAIN-043"):
            ours.add(batch)
        return
    ours.add(batch)
    names, parameters = zip(*plain.named_parameters(), strict=True)
    each = []
    for unit in range(4):
        part = batch.part(slice(unit, unit + 1))
        plain.zero_grad()
        plain(part.inputs, part.labels, part.cid).sum().backward()  # checkpoints are autograd's own here
        each.append(dict(zip(names, [p.grad.clone() for p in parameters], strict=True)))
    assert apart(sums(net), clipped_sum(each, 0.3 * (1 - MARGIN))) <= 1e-6


@pytest.mark.parametrize("method", ["tape", "two_pass", "hooks", "ghost"])
@pytest.mark.parametrize(
    "layer", [nn.GRU(6, 4), nn.LSTM(6, 4), nn.MultiheadAttention(6, 2), nn.Bilinear(6, 6, 2), nn.Embedding(4, 6, max_norm=1.0),
              nn.Embedding(4, 6, scale_grad_by_freq=True), nn.PReLU()],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
def test_a_layer_whose_gradient_nobody_knows_is_refused_by_name(method: str, layer: nn.Module) -> None:
    net = Mlp()
    net.odd = layer  # type: ignore[assignment]
    with pytest.raises(PolicyError, match=r"E-TRAIN-03[23].*odd|E-TRAIN-033"):
        make_method(method, net, 1.0)


@pytest.mark.parametrize("method", ["tape", "two_pass", "hooks", "ghost"])
def test_batch_statistics_are_refused_even_in_a_frozen_layer(method: str) -> None:
    net = Cnn()
    net.layers.append(nn.BatchNorm2d(6).requires_grad_(False))
    with pytest.raises(PolicyError, match="E-TRAIN-033"):
        make_method(method, net, 1.0)


@pytest.mark.parametrize("method", OURS)
def test_an_empty_batch_adds_zero_and_leaves_a_sum_for_the_noise(method: str) -> None:
    net, batch = build("cnn")
    assert make_method(method, net, 1.0).add(batch.part(slice(0, 0))) == 0
    assert all(not total.any() for total in sums(net).values())


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("case", ["mlp", "cnn", "gru", "adapters", "tied language model"])
@pytest.mark.parametrize("method", OURS)
def test_a_unit_that_is_not_finite_is_dropped_counted_and_spoils_nobody(method: str, case: str, poison: float) -> None:
    class Poisoned(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, inputs: Mapping[str, Tensor], labels: Tensor, cid: Tensor) -> Tensor:
            losses: Tensor = self.net(inputs, labels, cid)
            return losses * torch.where(cid == 1, poison, 1.0)

    net, batch = build(case, 2, dtype=torch.float32)
    batch.cid[2] = 1
    kept = batch.part(torch.tensor([0, 1, 3, 4]))
    each = naive(net, kept)
    carrier = Poisoned(net)
    assert make_method(method, carrier, 0.2).add(batch) == 1
    assert apart(sums(net), clipped_sum(each, 0.2 * (1 - MARGIN))) <= 1e-4


@pytest.mark.parametrize("method", OURS)
def test_gradients_that_were_there_before_stay_untouched(method: str) -> None:
    net, batch = build("mlp")
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    make_method(method, net, 0.1).add(batch)
    assert all(bool((p.grad == 7.0).all()) for p in net.parameters())


def test_closing_gives_the_model_back_and_a_copy_has_no_tape() -> None:
    net, batch = build("tied language model")
    ours = make_method("tape", net, 1.0)
    twin = copy.deepcopy(net)
    twin(batch.inputs, batch.labels, batch.cid).sum().backward()
    assert twin.tokens.weight.grad is not None
    assert net.tokens.weight.grad is None
    ours.close()
    net(batch.inputs, batch.labels, batch.cid).sum().backward()
    assert net.tokens.weight.grad is not None
    assert "forward" not in net.head.__dict__


def test_tf32_is_refused_on_an_accelerator_only(monkeypatch: pytest.MonkeyPatch) -> None:
    here: list[Any] = [SimpleNamespace(is_cuda=False)]
    there: list[Any] = [SimpleNamespace(is_cuda=True)]
    require_precision(there)
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    require_precision(here)
    with pytest.raises(PolicyError, match="E-TRAIN-044"):
        require_precision(there)


@pytest.mark.parametrize("method", OURS)
def test_bfloat16_products_are_clipped_in_float32(method: str) -> None:
    """Under autocast the factors are bfloat16; norm, factor and sum are not, so nobody exceeds the clipping norm."""
    net, batch = build("long maps", 2, dtype=torch.float32)

    class Lower(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, inputs: Mapping[str, Tensor], labels: Tensor, cid: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return self.net(inputs, labels, cid).float()

    carrier = Lower()
    ours = make_method(method, carrier, 0.05)
    exact = torch.tensor([norm_of(g) for g in naive(net, batch)], dtype=torch.float64)
    assert torch.allclose(ours.norms(batch), exact, rtol=0.05)
    for unit in range(len(batch)):
        for parameter in ours.parameters:
            parameter.summed_grad = None  # type: ignore[attr-defined]
        ours.add(batch.part(slice(unit, unit + 1)))
        size = sum(float(total.double().square().sum()) for total in sums(net).values()) ** 0.5
        assert size <= 0.05
        assert all(total.dtype == torch.float32 for total in sums(net).values())

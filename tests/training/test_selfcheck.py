"""The self-check finds what the tape alone can't see, and says nothing where all is well."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from privacy.errors import IntegrityError, PolicyError
from tests.training.tape_cases import CASES, Mlp, TinyLm, batch_of, build
from training.gradients import GradientMethod, make_method
from training.selfcheck import check

TIED = {"tied language model", "gru", "deep cnn"}
WRONG_IN_OPACUS = {"cnn", "adapters"}


@pytest.mark.parametrize(
    ("case", "method"),
    [(case, method) for case in CASES for method in ("tape", "two_pass")]
    + [(case, "hooks") for case in sorted(set(CASES) - WRONG_IN_OPACUS)]
    + [(case, "ghost") for case in sorted(set(CASES) - WRONG_IN_OPACUS - TIED)],
)
def test_a_sound_method_passes_and_nothing_is_left_behind(case: str, method: str) -> None:
    net, batch = build(case, 1, units=2, dtype=torch.float32)
    for parameter in net.parameters():
        if parameter.requires_grad:
            parameter.summed_grad, parameter.grad = torch.ones(1), torch.full_like(parameter, 3.0)
    net.train()
    ours = make_method(method, net, 0.3)
    check(ours, net, batch, 0.3, noised=ours.parameters)
    assert all(p.summed_grad.item() == 1.0 and bool((p.grad == 3.0).all()) for p in ours.parameters)  # type: ignore[attr-defined]
    assert all(layer.training for layer in net.modules())


def test_it_passes_with_dropout_and_under_bfloat16() -> None:
    class Noisy(Mlp):
        precision = torch.bfloat16

        def __init__(self) -> None:
            super().__init__()
            self.dropout = nn.Dropout(0.5)

        def rows(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return super().rows(self.dropout(x)).float()

    net = Noisy()
    batch = batch_of(Mlp.data(2, 3))
    check(make_method("tape", net, 0.1), net, batch, 0.1)
    assert net.dropout.training


class FlatPlaces(TinyLm):
    """Position ids of shape [time]: shared by all units, and their first axis happens to be a multiple of the units."""

    def forward(self, inputs: Mapping[str, Tensor], labels: Tensor, cid: Tensor) -> Tensor:
        ids = inputs["x"].flatten(0, 1)
        states = self.tokens(ids) + self.places(torch.arange(ids.shape[1]))
        states = states + self.out(self.mixed(self.norm(states))[..., :8])
        scores = self.head(states)[:, :-1].transpose(1, 2)
        return functional.cross_entropy(scores, ids[:, 1:], reduction="none").mean(1).view(labels.shape).mean(1)


class Mixing(Mlp):
    """The mean of the batch is taken away."""

    def rows(self, x: Tensor) -> Tensor:
        return super().rows(x - x.mean(0, keepdim=True) + 0.1)


@pytest.mark.parametrize("method", ["tape", "two_pass"])
def test_a_row_that_units_share_is_found_although_its_axis_fits(method: str) -> None:
    torch.manual_seed(0)
    net = FlatPlaces()
    batch = batch_of(torch.randint(0, 11, (2, 1, 8)))
    ours = make_method(method, net, 0.1)
    ours.norms(batch)  # the tape alone is content
    with pytest.raises(IntegrityError, match="E-TRAIN-039"):
        check(ours, net, batch, 0.1)


@pytest.mark.parametrize("method", ["tape", "two_pass", "hooks", "ghost"])
def test_an_operation_that_mixes_units_is_found(method: str) -> None:
    torch.manual_seed(0)
    net = Mixing()
    batch = batch_of(Mlp.data(2, 1))
    ours = make_method(method, net, 0.1)
    with pytest.raises(IntegrityError, match="E-TRAIN-039"):
        check(ours, net, batch, 0.1)


def test_a_method_that_clips_a_little_too_little_is_found() -> None:
    net, batch = build("mlp", units=2)
    for limit in (0.1002, 0.0998):
        with pytest.raises(IntegrityError, match="E-TRAIN-039"):
            check(make_method("tape", net, limit), net, batch, 0.1)


class Deaf:
    """Forgets a parameter in its sums."""

    def __init__(self, inner: GradientMethod) -> None:
        self.inner, self.name, self.parameters = inner, inner.name, inner.parameters
        self.norms, self.plain, self.close = inner.norms, inner.plain, inner.close

    def add(self, batch: object) -> int:
        dropped = self.inner.add(batch)  # type: ignore[arg-type]
        self.parameters[0].summed_grad.zero_()  # type: ignore[attr-defined]
        return dropped


def test_a_parameter_that_gets_no_sum_is_found() -> None:
    net, batch = build("mlp", units=2)
    with pytest.raises(IntegrityError, match="E-TRAIN-039"):
        check(Deaf(make_method("tape", net, 0.1)), net, batch, 0.1)


def test_another_set_of_parameters_is_found_before_any_computation() -> None:
    net, batch = build("mlp", units=2)
    ours = make_method("tape", net, 0.1)
    with pytest.raises(PolicyError, match="E-TRAIN-038") as refused:
        check(ours, net, batch, 0.1, noised=ours.parameters[1:])
    assert "first.weight" in str(refused.value)
    net.frozen.weight.requires_grad_(True)
    with pytest.raises(PolicyError, match=r"E-TRAIN-038.*frozen\.weight"):
        check(ours, net, batch, 0.1)


def test_a_unit_that_is_not_finite_and_an_empty_batch_pass() -> None:
    net, batch = build("mlp", units=2, dtype=torch.float32)
    batch.inputs["x"][1] = float("nan")
    check(make_method("tape", net, 0.1), net, batch, 0.1)
    check(make_method("tape", net, 0.1), net, batch.part(slice(0, 0)), 0.1)


class Weighted(Mlp):
    """A unit's loss times what it asks for."""

    def forward(self, inputs: Mapping[str, Tensor], labels: Tensor, cid: Tensor) -> Tensor:
        return super().forward(inputs, labels, cid) * inputs["weight"][:, 0]


@pytest.mark.parametrize("size", [1e14, 1e17, 1e19, 1e25, 1e38])
@pytest.mark.parametrize("method", ["tape", "two_pass"])
def test_one_unit_with_a_huge_gradient_can_not_stop_a_run(method: str, size: float) -> None:
    torch.manual_seed(0)
    net, batch = Weighted(), batch_of(Weighted.data(2, 1))
    batch.inputs["weight"] = torch.tensor([[1.0], [size]])
    check(make_method(method, net, 0.3), net, batch, 0.3)

"""Four ways to the same clipped sum: tape and two_pass (ours), hooks and ghost (Opacus as it is, the oracles of the tests).

Guarantee: after `add`, p.summed_grad of every trainable parameter has grown by the sum over the batch's units of
min(1, C / norm) * gradient, in float32; a unit whose gradient is not finite adds nothing and is counted. What a method can't do
exactly it refuses, by the layer's name, before anything is added. An empty batch adds zero.
Assumption: a unit's loss depends on that unit alone. Not covered: noise and division, which are the optimizer's.
tape: one backward pass; keeps output gradients until the norms are known. two_pass: a backward pass for the norms that keeps
nothing, and the same again to sum; takes about 1.6 times the time and hardly more memory than ordinary training.
Source: DP-SGD, Abadi et al. 2016 (1607.00133); ghost clipping in two passes, Li et al. 2021 (2110.05679).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from torch import Tensor, nn

from privacy.errors import PolicyError
from training.data import UnitBatch
from training.tape import Mode, Session, TapeHooks, require_separable, taped_layers, total_of
from training.tape_norms import clip_factors, square_norms
from training.tape_ops import patch_for

_HIDDEN_WEIGHTS = (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)  # Opacus has its own layers in place of these


class GradientMethod(Protocol):
    """parameters: the trainable ones, in order; their `summed_grad` is what `add` adds to."""

    name: str
    parameters: list[nn.Parameter]

    def add(self, batch: UnitBatch) -> int:
        """Adds the clipped sum of the batch's units; returns how many were dropped because they are not finite."""

    def norms(self, batch: UnitBatch) -> Tensor:
        """float64 [units], before clipping. Secret: for the self-check and tests."""

    def plain(self) -> AbstractContextManager[None]:
        """The model computes as if no method were attached."""

    def close(self) -> None:
        """The model as it was."""


class _Tape:
    name = "tape"

    def __init__(self, carrier: nn.Module, clipping_norm: float) -> None:
        self.carrier, self.clipping_norm = carrier, clipping_norm
        self.tape = TapeHooks(carrier)
        self.parameters = self.tape.trainable

    def add(self, batch: UnitBatch) -> int:
        if len(batch) == 0:
            return _with_sums(self)
        with self._run(batch, "tape") as (session, losses):
            losses.sum().backward()  # type: ignore[no-untyped-call]
            return _with_sums(self, session.finish(self.clipping_norm))

    def norms(self, batch: UnitBatch) -> Tensor:
        with self._run(batch, "norms") as (session, losses):
            losses.sum().backward()  # type: ignore[no-untyped-call]
            session.join()
            return session.norms()

    @contextmanager
    def _run(self, batch: UnitBatch, mode: Mode) -> Iterator[tuple[Session, Tensor]]:
        with torch.enable_grad(), self.tape.recording(len(batch), mode) as session:
            losses = _losses(self.carrier, batch)
            session.running = False
            yield session, losses

    def plain(self) -> AbstractContextManager[None]:
        return nullcontext()  # outside a session the layers are as ever

    def close(self) -> None:
        self.tape.cleanup()


class _TwoPass(_Tape):
    name = "two_pass"

    def add(self, batch: UnitBatch) -> int:
        if len(batch) == 0:
            return _with_sums(self)
        with self._run(batch, "norms") as (session, losses):
            total = losses.sum()
            total.backward(retain_graph=True)  # type: ignore[no-untyped-call]
            dropped = session.second_pass(self.clipping_norm)
            total.backward()  # type: ignore[no-untyped-call]
            session.join()
        return _with_sums(self, dropped)


class _Hooks:
    """Whole per-unit gradients by Opacus' hooks; norms and factors in float64, as the tape's."""

    name = "hooks"

    def __init__(self, carrier: nn.Module, clipping_norm: float) -> None:
        require_separable(carrier)
        _require_samplers(carrier)
        self.carrier, self.clipping_norm = carrier, clipping_norm
        self.parameters = [p for p in carrier.parameters() if p.requires_grad]
        self.module = self._attach()

    def _attach(self) -> Any:
        return GradSampleModule(self.carrier, batch_first=True, loss_reduction="sum", strict=False)

    def add(self, batch: UnitBatch) -> int:
        if len(batch) == 0:
            return _with_sums(self)
        samples = self._per_unit(batch)
        squares = torch.stack([square_norms(sample) for sample in samples]).sum(0)
        nothing = torch.zeros_like(squares)
        factors, bad = clip_factors(squares, nothing, nothing, self.clipping_norm)
        for parameter, sample in zip(self.parameters, samples, strict=True):
            total = total_of(parameter)
            clean = torch.where(bad.view(-1, *(1 for _ in sample.shape[1:])), 0.0, sample).to(total.dtype)
            total += torch.einsum("i,i...", factors.to(total.dtype), clean)
        return int(bad.sum())

    def norms(self, batch: UnitBatch) -> Tensor:
        return torch.stack([square_norms(sample) for sample in self._per_unit(batch)]).sum(0).sqrt()

    def _per_unit(self, batch: UnitBatch) -> list[Tensor]:
        """[units, *parameter] each; the records of a unit are added up, whose losses are shares of the unit's."""
        _require_same(self.carrier, self.parameters)
        with torch.enable_grad(), _own_grads(self.parameters):
            _losses(self.carrier, batch).sum().backward()  # type: ignore[no-untyped-call]
        found = []
        for parameter in self.parameters:
            sample = getattr(parameter, "grad_sample", None)
            if not isinstance(sample, Tensor) or len(sample) % len(batch):
                raise _not_sampled(self.name, _name_of(self.carrier, parameter))
            found.append(sample.view(len(batch), -1, *parameter.shape).sum(1))
            parameter.grad_sample = None  # type: ignore[attr-defined]
        return found

    @contextmanager
    def plain(self) -> Iterator[None]:
        self.module.disable_hooks()
        try:
            yield
        finally:
            self.module.enable_hooks()

    def close(self) -> None:
        self.module.to_standard_module()


class _Ghost(_Hooks):
    """Opacus' ghost clipping: norms without gradients, then a second backward pass. One record for each unit only."""

    name = "ghost"

    def _attach(self) -> Any:
        if is_half(self.carrier, self.parameters):  # its sums come out of bfloat16 products, rounded before the noise
            raise PolicyError(
                "E-TRAIN-045",
                "ghost sums in the precision of the forward pass: under bfloat16 one unit can move a sum further than its norm",
                "Set recipe.gradients to auto, tape, two_pass or hooks, or recipe.precision to float32",
            )
        limit = self.clipping_norm
        return GradSampleModuleFastGradientClipping(self.carrier, loss_reduction="sum", max_grad_norm=limit, strict=False)

    def add(self, batch: UnitBatch) -> int:
        if len(batch) == 0:
            return _with_sums(self)
        losses, norms = self._measure(batch)
        nothing = torch.zeros_like(norms)
        factors, bad = clip_factors(norms.square(), nothing, nothing, self.clipping_norm)
        if bool(bad.any()):
            return int(bad.sum()) + self.add(batch.part(~bad))
        with self.plain(), _own_grads(self.parameters):
            (losses * factors.to(losses.dtype)).sum().backward()  # type: ignore[no-untyped-call]
            for parameter in self.parameters:
                if parameter.grad is not None:
                    total_of(parameter).add_(parameter.grad)
        return _with_sums(self)

    def norms(self, batch: UnitBatch) -> Tensor:
        return self._measure(batch)[1]

    def _measure(self, batch: UnitBatch) -> tuple[Tensor, Tensor]:
        """(losses, float64 [units] norms); the graph is still there."""
        _require_same(self.carrier, self.parameters)
        with torch.enable_grad(), _own_grads(self.parameters):
            losses = _losses(self.carrier, batch)
            losses.sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]
        squares = torch.zeros(len(batch), dtype=torch.float64, device=losses.device)
        for parameter in self.parameters:
            norm = getattr(parameter, "_norm_sample", None)
            if norm is None or norm.shape != (len(batch),):
                raise _not_sampled(self.name, _name_of(self.carrier, parameter))
            squares += norm.double().square()
            parameter._norm_sample = None  # type: ignore[attr-defined]
        return losses, squares.sqrt()


_METHODS: dict[str, Any] = {"tape": _Tape, "two_pass": _TwoPass, "hooks": _Hooks, "ghost": _Ghost}


def make_method(name: str, carrier: nn.Module, clipping_norm: float) -> GradientMethod:
    """Attach a method to a model that maps (inputs, labels, cid) to losses [units].

    Raises PolicyError E-TRAIN-032 or 033 for a model that it can't clip exactly, E-TRAIN-036 for an unknown name.
    """
    if name not in _METHODS:
        raise PolicyError("E-TRAIN-036", f"there is no gradient method {name}", f"Use one of {', '.join(_METHODS)}, or auto")
    method: GradientMethod = _METHODS[name](carrier, clipping_norm)
    return method


def method_names() -> tuple[str, ...]:
    return tuple(_METHODS)


def auto_name(carrier: nn.Module, sample: UnitBatch, room: float) -> str:
    """tape where its memory for `sample` fits into `room` bytes, else two_pass; hooks where a layer has Opacus' sampler only.

    sample: made-up data of the real shapes and of the physical batch's size. Raises PolicyError E-TRAIN-032 when none can.
    """
    try:
        taped_layers(carrier)
    except PolicyError:
        _require_samplers(carrier)
        return "hooks"
    graph, stash = stash_bytes(carrier, sample)
    return "tape" if graph + stash <= room else "two_pass"


def auto_method(carrier: nn.Module, sample: UnitBatch, clipping_norm: float, room: float) -> GradientMethod:
    """`make_method` with the name that `auto_name` finds."""
    return make_method(auto_name(carrier, sample, room), carrier, clipping_norm)


def stash_bytes(carrier: nn.Module, sample: UnitBatch) -> tuple[int, int]:
    """(bytes that autograd saves in a forward pass, bytes of output gradients that the tape keeps beside them).

    The first falls while the second grows, so their sum is above the peak. Weights are not counted.
    """
    weights = {p.untyped_storage().data_ptr() for p in carrier.parameters()}
    saved: dict[int, int] = {}
    kept = 0

    def pack(x: Tensor) -> Tensor:
        where = x.untyped_storage()
        if where.data_ptr() not in weights:
            saved[where.data_ptr()] = where.nbytes()
        return x

    def add(layer: nn.Module, inputs: Any, output: Tensor) -> None:
        nonlocal kept
        kept += output.numel() * output.element_size()

    trained = [layer for layer in carrier.modules() if any(p.requires_grad for p in layer.parameters(recurse=False))]
    handles = [layer.register_forward_hook(add) for layer in trained]
    try:
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            losses = _losses(carrier, sample)
    finally:
        for handle in handles:
            handle.remove()
    del losses
    return sum(saved.values()), kept


def _losses(carrier: nn.Module, batch: UnitBatch) -> Tensor:
    losses: Tensor = carrier(batch.inputs, batch.labels, batch.cid)
    if losses.shape != (len(batch),):
        raise PolicyError(
            "E-TRAIN-037",
            f"the model gave losses of shape {tuple(losses.shape)} for {len(batch)} units",
            "Return one loss for each unit",
        )
    return losses


def _with_sums(method: GradientMethod, dropped: int = 0) -> int:
    """`dropped`; every parameter has a sum now, so that the noise has something to be added to.

    Sums come into being where they are first added to, so that they don't lie beside the whole graph.
    """
    for parameter in method.parameters:
        total_of(parameter)
    return dropped


def is_half(carrier: nn.Module, parameters: list[nn.Parameter]) -> bool:
    """Whether the forward pass runs in bfloat16 or float16."""
    precision = getattr(carrier, "precision", None)
    return precision is not None or any(p.dtype in (torch.bfloat16, torch.float16) for p in parameters)


@contextmanager
def _own_grads(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Opacus' modes fill p.grad with unclipped sums: they are taken away again."""
    before = [p.grad for p in parameters]
    for parameter in parameters:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in zip(parameters, before, strict=True):
            parameter.grad = gradient


def _require_same(carrier: nn.Module, parameters: list[nn.Parameter]) -> None:
    """Opacus' ghost mode would train a layer that was unfrozen later without ever measuring it."""
    now = {p: name for name, p in carrier.named_parameters() if p.requires_grad}
    if set(now) != set(parameters):
        odd = [name for p, name in now.items() if p not in set(parameters)]
        raise _refused(odd[0] if odd else "that was frozen since", "is not what trained when the gradient method was made")


def _require_samplers(carrier: nn.Module) -> None:
    """Raises PolicyError E-TRAIN-032 for a layer that Opacus has no sampler for."""
    for name, layer in carrier.named_modules():
        if isinstance(layer, _HIDDEN_WEIGHTS) and any(p.requires_grad for p in layer.parameters()):
            raise _refused(
                name, f"is a {type(layer).__name__}, which hides its weights; Opacus' ModuleValidator.fix replaces it"
            )
        own = any(p.requires_grad for p in layer.parameters(recurse=False))
        if own and not _is_sampled(layer):
            raise _refused(name or "the model itself", f"is a {type(layer).__name__}, for which Opacus has no exact sampler")


def _is_sampled(layer: nn.Module) -> bool:
    """Opacus' samplers know no padding_idx, and get padding that is uneven or no zeros wrong, in both its modes."""
    if isinstance(layer, nn.Embedding) and (
        layer.max_norm is not None or layer.scale_grad_by_freq or layer.padding_idx is not None
    ):
        return False
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        sides = layer._reversed_padding_repeated_twice
        if layer.padding_mode != "zeros" or sides[::2] != sides[1::2]:
            return False
    return type(layer) in GradSampleModule.GRAD_SAMPLERS or patch_for(layer) is not None


def _name_of(carrier: nn.Module, parameter: nn.Parameter) -> str:
    return next((name for name, p in carrier.named_parameters() if p is parameter), "unknown")


def _refused(name: str, why: str) -> PolicyError:
    return PolicyError("E-TRAIN-032", f"the parameters of layer {name} can't be clipped: it {why}", "Freeze or replace it")


def _not_sampled(method: str, name: str) -> PolicyError:
    return PolicyError(
        "E-TRAIN-042",
        f"Opacus' {method} mode has no per-unit gradient of parameter {name} for this batch",
        "Use the tape; ghost clips records, so it can't clip units of several",
    )

"""Brute force against the gradient method, on two real units, while training runs: what clipping bounds is what the units give.

Guarantee of `check`: it raises when, for these units, a norm or the clipped sum differs from plain autograd's, one unit at a
time, by more than a thousandth, or when the trainable parameters, those that the method clips and those that get noise are not
the same set. So a layer that was unfrozen or swapped, that mixes units, or that shares one row among all units is found by the
first step that checks, before anything leaves the machine.
Assumption: the two units meet every layer that matters; the engine takes new ones each time. Dropout is off while it checks.
Not covered: a mistake that shows in larger batches only, or in units whose norm is beyond 1e15. Nothing that was computed here
is published, logged or in the error.
Cost: four forward and backward passes over two units, at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from privacy.errors import IntegrityError, PolicyError
from training.data import UnitBatch
from training.gradients import GradientMethod, is_half
from training.tape_norms import MARGIN, square_norms

_TOLERANCE = 1e-3
_TOLERANCE_HALF = 5e-2  # bfloat16 keeps eight bits
_BORDERLINE = 1e15  # of a norm: from here on float32 may or may not overflow on the way, so such a unit is not compared
_NOTHING = 1e-12  # of the clipping norm: below it, a gradient is rounding


def check(
    method: GradientMethod,
    carrier: nn.Module,
    batch: UnitBatch,
    clipping_norm: float,
    noised: Iterable[nn.Parameter] | None = None,
) -> None:
    """batch: the units to check, two of them as a rule. noised: what the optimizer adds noise to, when it is at hand.

    Raises PolicyError E-TRAIN-038 (another set of parameters), IntegrityError E-TRAIN-039 (another norm or sum).
    `summed_grad` and the training flags are afterwards as before.
    """
    _require_one_set(method, carrier, noised)
    if len(batch) == 0:
        return
    with _quiet(carrier, method.parameters):
        with method.plain():
            each = [_brute_force(carrier, batch.part(slice(u, u + 1)), method.parameters) for u in range(len(batch))]
        norms = torch.stack([_norm(gradients) for gradients in each])
        known = ~(norms >= _BORDERLINE) | ~torch.isfinite(norms)
        # A unit that brute force still holds and the method drops would let one person stop the run.
        batch, norms, each = batch.part(known), norms[known], [g for g, kept in zip(each, known.tolist(), strict=True) if kept]
        if len(batch) == 0:
            return
        finite = torch.isfinite(norms)
        tolerance = _TOLERANCE_HALF if is_half(carrier, method.parameters) else _TOLERANCE
        _compare_norms(method.norms(batch)[finite], norms[finite], clipping_norm, tolerance)
        for parameter in method.parameters:
            parameter.summed_grad = None  # type: ignore[attr-defined]
        dropped = method.add(batch)
        if dropped != int((~finite).sum()):
            raise _differs("how many units are not finite")
        factors = [min(1.0, clipping_norm * (1 - MARGIN) / max(float(n), 1e-300)) for n in norms]
        expected = [
            sum((f * each[u][i].double() for u, f in enumerate(factors) if finite[u]), torch.zeros((), dtype=torch.float64))
            for i in range(len(method.parameters))
        ]
        _compare_sums(method.parameters, expected, clipping_norm * len(batch), tolerance)


def _require_one_set(method: GradientMethod, carrier: nn.Module, noised: Iterable[nn.Parameter] | None) -> None:
    names = {p: name for name, p in carrier.named_parameters() if p.requires_grad}
    sets = {"the gradient method clips": set(method.parameters)}
    if noised is not None:
        sets["the optimizer adds noise to"] = set(noised)
    for what, found in sets.items():
        if found != set(names):
            odd = sorted(names[p] for p in set(names) - found)
            raise PolicyError(
                "E-TRAIN-038",
                f"the parameters that train are not those that {what}" + (f": {odd[0]} is not among them" if odd else ""),
                "Freeze and unfreeze layers before the engine is made",
            )


@contextmanager
def _quiet(carrier: nn.Module, parameters: list[nn.Parameter]) -> Iterator[None]:
    """Without dropout; sums and gradients are put back. Layers with weights stay in training: Opacus' hooks sleep otherwise."""
    training = {layer: layer.training for layer in carrier.modules()}
    kept = [(p, p.grad, getattr(p, "summed_grad", None)) for p in parameters]
    for layer in carrier.modules():
        layer.training = training[layer] and any(True for _ in layer.parameters(recurse=False))
    try:
        yield
    finally:
        for layer, flag in training.items():
            layer.training = flag
        for parameter, gradient, total in kept:
            parameter.grad, parameter.summed_grad = gradient, total  # type: ignore[attr-defined]


def _brute_force(carrier: nn.Module, unit: UnitBatch, parameters: list[nn.Parameter]) -> list[Tensor]:
    """The gradient of one unit's loss by itself."""
    with torch.enable_grad():
        loss = carrier(unit.inputs, unit.labels, unit.cid).sum()
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def _norm(gradients: list[Tensor]) -> Tensor:
    return torch.stack([square_norms(g.reshape(1, -1)).sum() for g in gradients]).sum().sqrt()


def _compare_norms(found: Tensor, expected: Tensor, clipping_norm: float, tolerance: float) -> None:
    if found.shape != expected.shape or bool(
        ((found - expected).abs() > tolerance * expected + _NOTHING * clipping_norm).any()
    ):
        raise _differs("the norm of a unit's gradient")


def _compare_sums(parameters: list[nn.Parameter], expected: list[Tensor], most: float, tolerance: float) -> None:
    squares, off = 0.0, 0.0
    for parameter, wanted in zip(parameters, expected, strict=True):
        total: Tensor | None = getattr(parameter, "summed_grad", None)
        if total is None:
            raise _differs("the clipped sum of a parameter, which is missing,")
        off += float((total.double() - wanted).square().sum())
        squares += float(wanted.square().sum())
    if not off**0.5 <= tolerance * squares**0.5 + _NOTHING * most:
        raise _differs("the clipped sum of two units")


def _differs(what: str) -> IntegrityError:
    return IntegrityError(
        "E-TRAIN-039",
        f"{what} differs from brute force, so clipping would not bound what a unit can do",
        "Look for an operation that mixes units (batch statistics, a row shared by all units); try recipe.gradients: hooks",
    )

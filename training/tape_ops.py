"""Layers as the tape runs them: the forward pass of torch, and a backward pass that hands over factors, not weight gradients.

Guarantee: outputs and input gradients are those of the layer itself; for its parameters, autograd gets nothing and the session
gets what every unit's gradient is made of, each use once, also under activation checkpoints and autocast.
Assumption: the first axis of what goes in is unit-major (units * k rows, a unit's rows adjacent); a first axis that no multiple
of the units is refused. Not covered: a layer that mixes units without changing that axis; `training.selfcheck` finds it.
A further layer is one class below and one row of `PATCHES`; `training.adapters.Scale` is how a raw parameter gets here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.adapters import Scale
from training.tape_conv import Convolved, Geometry
from training.tape_norms import Direct, Outer, Part, Rows

Forward = Callable[..., Tensor]


class Site(Protocol):
    """Where a layer's use reports to: one call of one layer in one forward pass."""

    units: int

    def take(self, parameter: Tensor, part: Part) -> None:
        """The share of `parameter` in every unit's gradient, from this use."""


def _by_unit(x: Tensor, units: int) -> Tensor:
    """[units, positions, width] of x [units * k, ..., width]."""
    return x.detach().reshape(units, -1, x.shape[-1])


def _lower(x: Tensor) -> Tensor:
    """As autocast would have a matrix product see it; cast once, so that what is saved is what was multiplied."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


class _Linear(torch.autograd.Function):
    """weight: [out, in], or [in, out] when `transposed` (Hugging Face's Conv1D)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, site: Site, transposed: bool) -> Tensor:
        ctx.kind, x = x.dtype, _lower(x)
        ctx.save_for_backward(x, weight)
        ctx.bias, ctx.weight, ctx.site, ctx.transposed = bias, weight, site, transposed
        return functional.linear(x, weight.t() if transposed else weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        out = _by_unit(gradient, ctx.site.units)
        if ctx.weight.requires_grad:
            col = _by_unit(x, ctx.site.units)
            ctx.site.take(ctx.weight, Outer(col, out) if ctx.transposed else Outer(out, col))
        if ctx.bias is not None and ctx.bias.requires_grad:
            ctx.site.take(ctx.bias, Direct(out.sum(1, dtype=_at_least_float(out))))
        back = None
        if ctx.needs_input_grad[0]:
            back = gradient.matmul((weight.t() if ctx.transposed else weight).to(gradient.dtype)).to(ctx.kind)
        return back, None, None, None, None


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: Tensor, padding: int | None, site: Site) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.weight, ctx.padding, ctx.site = weight, padding, site
        return functional.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (ids,) = ctx.saved_tensors
        units = ctx.site.units
        flat = ids.reshape(units, -1).long()
        ctx.site.take(ctx.weight, Rows.collect(flat, _by_unit(gradient, units), len(ctx.weight), ctx.padding))
        return None, None, None, None


class _LayerNorm(torch.autograd.Function):
    """Fused, since it is the one normalisation that every Transformer runs twice a layer."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, site: Site) -> Tensor:
        ctx.kind = x.dtype
        if torch.is_autocast_enabled(x.device.type):
            x = x.float()
        y, mean, deviation = torch.native_layer_norm(x, weight.shape, weight, bias, eps)
        ctx.save_for_backward(x, weight, mean, deviation)
        ctx.weight, ctx.bias, ctx.site = weight, bias, site
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight, mean, deviation = ctx.saved_tensors
        units, kind = ctx.site.units, _at_least_float(gradient)
        width = weight.numel()
        if ctx.weight.requires_grad:
            scaled = x.sub(mean).mul_(deviation).mul_(gradient).reshape(units, -1, width)
            ctx.site.take(ctx.weight, Direct(scaled.sum(1, dtype=kind).view(units, *weight.shape)))
        if ctx.bias is not None and ctx.bias.requires_grad:
            summed = gradient.reshape(units, -1, width).sum(1, dtype=kind)
            ctx.site.take(ctx.bias, Direct(summed.view(units, *weight.shape)))
        back = None
        if ctx.needs_input_grad[0]:
            run = torch.ops.aten.native_layer_norm_backward
            back = run(gradient.contiguous(), x, weight.shape, mean, deviation, weight, ctx.bias, [True, False, False])[0]
            back = back.to(ctx.kind)
        return back, None, None, None, None


class _Affine(torch.autograd.Function):
    """x * weight + bias along one axis: behind a normalisation without parameters, or AdaLoRA's scale."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, axis: int, site: Site) -> Tensor:
        shape = [1] * x.dim()
        shape[axis] = -1
        ctx.save_for_backward(x, weight)
        ctx.weight, ctx.bias, ctx.axis, ctx.site, ctx.shape = weight, bias, axis, site, shape
        y = x * weight.view(shape)
        return y if bias is None else y + bias.view(shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        units, kind = ctx.site.units, _at_least_float(gradient)
        if ctx.weight.requires_grad:
            product = (gradient.to(kind) * x.to(kind)).movedim(ctx.axis, -1)
            ctx.site.take(ctx.weight, Direct(_by_unit(product, units).sum(1)))
        if ctx.bias is not None and ctx.bias.requires_grad:
            ctx.site.take(ctx.bias, Direct(_by_unit(gradient.movedim(ctx.axis, -1), units).sum(1, dtype=kind)))
        back = (gradient * weight.view(ctx.shape)).to(x.dtype) if ctx.needs_input_grad[0] else None
        return back, None, None, None, None


class _Conv(torch.autograd.Function):
    """Two-dimensional; one dimension is a height of 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, site: Site) -> Tensor:
        ctx.kind, x = x.dtype, _lower(x)
        ctx.save_for_backward(x, weight)
        ctx.weight, ctx.bias, ctx.geometry, ctx.site = weight, bias, geometry, site
        seen = weight.reshape(geometry.weight_shape)
        return functional.conv2d(x, seen, bias, geometry.stride, geometry.padding, geometry.dilation, geometry.groups)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        units, geometry = ctx.site.units, ctx.geometry
        if ctx.weight.requires_grad:
            ctx.site.take(ctx.weight, Convolved(x.detach(), gradient.detach(), geometry, units))
        if ctx.bias is not None and ctx.bias.requires_grad:
            summed = gradient.sum((2, 3), dtype=_at_least_float(gradient))
            ctx.site.take(ctx.bias, Direct(summed.view(units, -1, summed.shape[1]).sum(1)))
        back = None
        if ctx.needs_input_grad[0]:
            seen = weight.reshape(geometry.weight_shape).to(gradient.dtype)
            back = geometry.backward(gradient, x, seen, inputs=True).to(ctx.kind)
        return back, None, None, None, None


def _run(function: Any, *arguments: Any) -> Tensor:
    found: Tensor = function.apply(*arguments)
    return found


def _linear(layer: Any, open_site: Callable[[Tensor], Site]) -> Forward:
    transposed = not isinstance(layer, nn.Linear)

    def forward(x: Tensor) -> Tensor:
        return _run(_Linear, x, layer.weight, layer.bias, open_site(x), transposed)

    return forward


def _embedding(layer: Any, open_site: Callable[[Tensor], Site]) -> Forward:
    def forward(ids: Tensor) -> Tensor:
        return _run(_Embedding, ids, layer.weight, layer.padding_idx, open_site(ids))

    return forward


def _layer_norm(layer: Any, open_site: Callable[[Tensor], Site]) -> Forward:
    def forward(x: Tensor) -> Tensor:
        return _run(_LayerNorm, x, layer.weight, layer.bias, layer.eps, open_site(x))

    return forward


def _rms_norm(layer: Any, open_site: Callable[[Tensor], Site]) -> Forward:
    def forward(x: Tensor) -> Tensor:
        plain = functional.rms_norm(x, layer.normalized_shape, None, layer.eps)
        return _run(_Affine, plain, layer.weight, None, -1, open_site(x))

    return forward


def _hugging_face_rms_norm(layer: Any, open_site: Callable[[Tensor], Site]) -> Forward:
    """Llama's and its descendants': normalised in float32, cast back, then scaled."""

    def forward(x: Tensor) -> Tensor:
        wide = x.float()
        plain = (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + layer.variance_epsilon)).to(x.dtype)
        return _run(_Affine, plain, layer.weight, None, -1, open_site(x))

    return forward


def _group_norm(layer: Any, open_site: Callable[[Tensor], Site]) -> Forward:
    def forward(x: Tensor) -> Tensor:
        plain = functional.group_norm(x, layer.num_groups, None, None, layer.eps)
        return _run(_Affine, plain, layer.weight, layer.bias, 1, open_site(x))

    return forward


def _scale(layer: Any, open_site: Callable[[Tensor], Site]) -> Forward:
    def forward(x: Tensor) -> Tensor:
        return _run(_Affine, x, layer.weight, None, -1, open_site(x))

    return forward


def _conv(layer: Any, open_site: Callable[[Tensor], Site]) -> Forward:
    geometry, before, mode = Geometry.of(layer)
    flat = isinstance(layer, nn.Conv1d)

    def forward(x: Tensor) -> Tensor:
        padded = functional.pad(x, before, mode=mode) if before else x
        wide = padded.unsqueeze(2) if flat else padded
        found = _run(_Conv, wide, layer.weight, layer.bias, geometry, open_site(x))
        return found.squeeze(2) if flat else found

    return forward


PATCHES: dict[type[nn.Module], Callable[[Any, Callable[[Tensor], Site]], Forward]] = {
    nn.Linear: _linear,
    nn.Embedding: _embedding,
    nn.LayerNorm: _layer_norm,
    nn.RMSNorm: _rms_norm,
    nn.GroupNorm: _group_norm,
    nn.Conv1d: _conv,
    nn.Conv2d: _conv,
    Scale: _scale,
}


def patch_for(layer: nn.Module) -> Callable[[Any, Callable[[Tensor], Site]], Forward] | None:
    """How to tape a layer; None for one that is not known, or whose forward pass is not the one that is.

    A subclass counts as its base as long as it leaves the forward pass alone.
    """
    for known, patch in PATCHES.items():
        if isinstance(layer, known) and type(layer).forward is known.forward:
            return patch if _is_plain(layer) else None
    kind = type(layer)
    if not kind.__module__.startswith("transformers."):
        return None
    if kind.__name__ == "Conv1D" and hasattr(layer, "nf"):
        return _linear
    own = {name for name, _ in layer.named_parameters(recurse=False)}
    if own == {"weight"} and hasattr(layer, "variance_epsilon") and _same_forward(layer, _hugging_face_rms_norm):
        return _hugging_face_rms_norm
    return None


def _is_plain(layer: nn.Module) -> bool:
    """An embedding that renorms its rows writes into the weight; one that scales by frequency counts over the whole batch."""
    if isinstance(layer, nn.Embedding):
        return layer.max_norm is None and not layer.scale_grad_by_freq
    return not isinstance(layer, nn.RMSNorm) or len(layer.normalized_shape) == 1


class _Nowhere:
    units = 1

    def take(self, parameter: Tensor, part: Part) -> None:
        """Nothing is kept of a trial."""


@torch.no_grad()
def _same_forward(layer: Any, patch: Callable[[Any, Callable[[Tensor], Site]], Forward]) -> bool:
    """A class known by its attributes only (one in every Hugging Face model file) must also compute the same."""
    weight = layer.weight
    x = torch.linspace(-2, 3, 2 * weight.numel(), device=weight.device).to(weight.dtype).view(2, -1)
    return torch.allclose(layer(x), patch(layer, lambda _: _Nowhere())(x), atol=1e-5)


def _at_least_float(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32

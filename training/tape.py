"""The tape: one ordinary backward pass, and after it every unit's exact gradient norm and the clipped sum of all units.

Guarantee: `Session.finish` adds sum over units of min(1, C / norm) * gradient, or raises; it never leaves out a trainable
parameter without a word. Refused by the layer's name, before anything is added: a trainable parameter in no taped layer (also
one that was swapped in or unfrozen later), one that autograd reached past the tape, one that no unit's loss reached, and a
first axis that is no multiple of the units (position ids of shape [1, time] are shared by all units: expand them).
Assumption: a unit's loss depends on that unit alone. Not covered: a layer that mixes units and keeps the first axis
(`training.selfcheck` compares with brute force).
A layer that a batch may leave out on purpose (an expert) carries `may_rest = True`: its share of the gradient is zero then,
which is what brute force gives, and the noise is added all the same. Any other layer that goes unused is a mistake.
Source: book-keeping, Bu et al. 2023 (2210.00038). It is a grad-sample mode of Opacus: `AbstractGradSampleHooks`.
"""

from __future__ import annotations

import types
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from opacus.grad_sample.gsm_base import AbstractGradSampleHooks
from opacus.validators import ModuleValidator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from privacy.errors import PolicyError
from training.tape_conv import Convolved
from training.tape_norms import Direct, Grams, Outer, Part, Settled, clip_factors, of_direct, settle
from training.tape_ops import Forward, patch_for

Mode = Literal["tape", "norms", "sums"]


@dataclass(slots=True)
class Session:
    """What one forward and backward pass leaves behind.

    mode: tape keeps what the clipped sum needs; norms measures and drops at once; sums (`second_pass`) adds straight into
    `summed_grad`. The factors weigh each layer's share in float32 and not the loss: the second pass is the first one again, bit
    by bit, where a weighted loss would round otherwise than what was measured (by 0.1 % of the norm under bfloat16).
    """

    tape: TapeHooks
    units: int
    mode: Mode = "tape"
    scale: float = 1.0  # gradients are this many times those that autograd saw (a loss that was averaged over units)
    running: bool = True  # the forward pass
    seen: set[nn.Parameter] = field(default_factory=set)
    grams: Grams = field(default_factory=Grams)
    _settled: set[nn.Parameter] = field(default_factory=set)
    _weights: tuple[Tensor, Tensor] | None = None
    _uses: Counter[nn.Parameter] = field(default_factory=Counter)
    _waiting: dict[nn.Parameter, list[Part]] = field(default_factory=dict)
    _parts: list[tuple[nn.Parameter, Part]] = field(default_factory=list)
    _squares: list[Tensor] = field(default_factory=list)
    _rounding: list[Tensor] = field(default_factory=list)
    _half: list[Tensor] = field(default_factory=list)
    _grads: dict[nn.Parameter, tuple[Tensor | None, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._grads = {p: (p.grad, 0 if p.grad is None else p.grad._version) for p in self.tape.trainable}

    def site(self, name: str, layer: nn.Module, x: Tensor) -> _Site:
        """A use of `layer` on `x`. Raises PolicyError E-TRAIN-031 when x can't belong to the units one by one."""
        if x.dim() == 0 or len(x) == 0 or len(x) % self.units:
            raise _shared_axis(name, self.units)
        if self.running:
            self._uses.update(p for p in layer.parameters(recurse=False) if p.requires_grad)
        return _Site(self, name, self.units)

    def take(self, name: str, parameter: Tensor, part: Part) -> None:
        assert isinstance(parameter, nn.Parameter)
        if parameter not in self.tape.known:
            raise _untaped(name, "trains, but did not when the tape was attached")
        self.seen.add(parameter)
        if self.mode == "sums":
            self._add(parameter, part)
            return
        if parameter in self._settled:
            raise _recomputed(name)
        waiting = self._waiting.setdefault(parameter, [])
        waiting.append(part)
        if self._uses[parameter] == len(waiting) and not self.running:
            self._settle(parameter, self._waiting.pop(parameter))

    def _settle(self, parameter: nn.Parameter, parts: list[Part]) -> None:
        self._settled.add(parameter)
        found = _settle_any(parts, self.grams, keep=self.mode == "tape")
        self._squares.append(found.squares.double())
        half = parameter.is_cuda and isinstance(found.part, Outer) and found.part.row.dtype in (torch.bfloat16, torch.float16)
        if half:
            self._half.append(found.squares if found.rounding is None else found.rounding)
        elif found.rounding is not None:
            self._rounding.append(found.rounding.double())
        if self.mode == "tape":
            self._parts.append((parameter, found.part))

    def join(self) -> None:
        """After the backward pass: settle what still waits, and check that nothing went past the tape."""
        for parameter in list(self._waiting):
            self._settle(parameter, self._waiting.pop(parameter))
        self.grams.clear()
        self.tape.require_unchanged()
        for name, parameter in self.tape.named:
            before, version = self._grads[parameter]
            if parameter.grad is not before or (before is not None and before._version != version):
                raise _bypassed(name)
            if parameter not in self.seen and not self.tape.may_rest(parameter):
                raise _unused(name)

    def squares(self) -> Tensor:
        """float64 [units]; secret."""
        return self._total(self._squares) * self.scale**2

    def norms(self) -> Tensor:
        """float64 [units]; secret."""
        return self.squares().sqrt()

    def factors(self, clipping_norm: float) -> tuple[Tensor, Tensor]:
        """(float64 [units] clip factors of what autograd saw, bool [units] units that are not finite)."""
        rounding, half = (self._total(values) * self.scale**2 for values in (self._rounding, self._half))
        factors, bad = clip_factors(self.squares(), rounding, half, clipping_norm)
        return factors * self.scale, bad

    def finish(self, clipping_norm: float) -> int:
        """Adds the clipped sum to every parameter's `summed_grad`; returns how many units were dropped as not finite."""
        dropped = self._weigh(clipping_norm)
        for parameter, part in self._parts:
            self._add(parameter, part)
        self._parts.clear()
        return dropped

    def second_pass(self, clipping_norm: float) -> int:
        """As `finish`, but what is added comes from the backward pass that is to follow; `join` after it."""
        dropped = self._weigh(clipping_norm)
        self.mode = "sums"
        return dropped

    def _weigh(self, clipping_norm: float) -> int:
        self.join()
        factors, bad = self.factors(clipping_norm)
        self._weights = (factors, bad) if bool(bad.any()) else (factors, bad[:0])
        return int(bad.sum())

    def _add(self, parameter: nn.Parameter, part: Part) -> None:
        assert self._weights is not None
        factors, bad = self._weights
        total = total_of(parameter)
        clean = part.without(bad) if len(bad) else part
        clean.add_to(total, factors.to(total.dtype))

    def _total(self, values: list[Tensor]) -> Tensor:
        device = self.tape.trainable[0].device
        if not values:
            return torch.zeros(self.units, dtype=torch.float64, device=device)
        return torch.stack([value.to(device, torch.float64) for value in values]).sum(0)


@dataclass(frozen=True, slots=True)
class _Site:
    session: Session
    name: str
    units: int

    def take(self, parameter: Tensor, part: Part) -> None:
        self.session.take(self.name, parameter, part)


class TapeHooks(AbstractGradSampleHooks):  # type: ignore[misc]
    """Attaches to a module's layers; Opacus' hooks do the same. Outside a session the layers run as ever.

    Raises PolicyError E-TRAIN-032 (a trainable parameter in no layer that the tape knows), 033 (Opacus' validator or a layer
    that looks across units).
    """

    def __init__(self, m: nn.Module, *, batch_first: bool = True, loss_reduction: str = "sum") -> None:
        if not batch_first:
            raise _across("the model", "has its units on another axis than the first")
        require_separable(m)
        patches = taped_layers(m)
        super().__init__(m, batch_first=batch_first, loss_reduction=loss_reduction)
        self.session: Session | None = None
        self.named = [(name, p) for name, p in m.named_parameters() if p.requires_grad]
        self.trainable = [p for _, p in self.named]  # in order, each once
        self.known = frozenset(self.trainable)
        self._resting: set[nn.Parameter] = set()
        self._patched: list[nn.Module] = []
        for name, layer in patches:
            self._attach(name, layer)

    def _attach(self, name: str, layer: nn.Module) -> None:
        patch = patch_for(layer)
        assert patch is not None
        original = layer.forward

        def open_site(x: Tensor) -> Any:
            assert self.session is not None
            return self.session.site(name, layer, x)

        layer.forward = _Taped(self, layer, original, patch(layer, open_site))
        self._patched.append(layer)
        if getattr(layer, "may_rest", False):
            self._resting.update(p for p in layer.parameters(recurse=False) if p.requires_grad)

    @contextmanager
    def recording(self, units: int, mode: Mode = "tape") -> Iterator[Session]:
        """The layers report to a new session inside; backward must run inside, too."""
        if self.session is not None:
            raise RuntimeError("the tape is recording already")
        require_precision(self.trainable)
        self.session = Session(self, units, mode)
        try:
            yield self.session
        finally:
            self.session = None

    def may_rest(self, parameter: nn.Parameter) -> bool:
        return parameter in self._resting

    def require_unchanged(self) -> None:
        """Raises PolicyError E-TRAIN-032 when other parameters train than when the tape was attached."""
        now = {p: name for name, p in self._module.named_parameters() if p.requires_grad}
        for parameter, name in now.items():
            if parameter not in self.known:
                raise _untaped(name, "trains, but did not when the tape was attached")
        for name, parameter in self.named:
            if parameter not in now:
                raise _untaped(name, "was trainable when the tape was attached and is not now")

    def remove_hooks(self) -> None:
        for layer in self._patched:
            layer.__dict__.pop("forward", None)
        self._patched.clear()


class _Taped:
    """A layer's forward pass while a tape is attached; a copy of the layer gets its own, without a tape."""

    def __init__(self, tape: TapeHooks, layer: nn.Module, plain: Forward, taped: Forward) -> None:
        self._tape, self._layer, self._plain, self._run = tape, layer, plain, taped

    def __call__(self, x: Tensor) -> Tensor:
        if self._tape.session is None or not torch.is_grad_enabled():
            return self._plain(x)
        return self._run(x)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return types.MethodType(type(self._layer).forward, memo[id(self._layer)])


def taped_layers(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Name and layer of those that hold a trainable parameter. Raises PolicyError E-TRAIN-032 for one the tape can't run."""
    found = []
    for name, layer in module.named_modules():
        if any(p.requires_grad for p in layer.parameters(recurse=False)):
            if patch_for(layer) is None:
                raise _untaped(name or "the model itself", f"is a {type(layer).__name__}, which has no per-unit gradient here")
            found.append((name, layer))
    return found


def require_separable(module: nn.Module) -> None:
    """Raises PolicyError E-TRAIN-033 for a layer that looks across units, frozen or not, or that Opacus' validator refuses."""
    for name, layer in module.named_modules():
        if isinstance(layer, _BatchNorm):
            raise _across(name, f"is a {type(layer).__name__}, which mixes the units of a batch")
    errors = ModuleValidator.validate(module, strict=False)
    if errors:
        raise _across("the model", f"is refused by the validator of Opacus ({type(errors[0]).__name__})")


def require_precision(parameters: list[nn.Parameter]) -> None:
    """Raises PolicyError E-TRAIN-044 where float32 products on an accelerator would be TF32, with 10 bits."""
    if any(p.is_cuda for p in parameters) and torch.get_float32_matmul_precision() != "highest":
        raise PolicyError(
            "E-TRAIN-044",
            "float32 products are set to TF32, whose rounding a clipped gradient can't be told from",
            "Call torch.set_float32_matmul_precision('highest'); for speed set recipe.precision to bfloat16",
        )


def total_of(parameter: nn.Parameter) -> Tensor:
    """The parameter's `summed_grad`, float32 or wider, zeros at first."""
    total: Tensor | None = getattr(parameter, "summed_grad", None)
    if total is None:
        kind = torch.float64 if parameter.dtype == torch.float64 else torch.float32
        total = torch.zeros_like(parameter, dtype=kind, memory_format=torch.contiguous_format).detach()
        parameter.summed_grad = total  # type: ignore[attr-defined]
    return total


def _settle_any(parts: list[Part], grams: Grams, keep: bool) -> Settled:
    convolved = [part for part in parts if isinstance(part, Convolved)]
    if not convolved:
        return settle(parts, grams, keep)
    if len(parts) == 1:
        return convolved[0].settle(keep)
    value: Tensor = sum(part.direct() for part in convolved)  # type: ignore[assignment]
    others = [part for part in parts if isinstance(part, Direct)]
    if len(others) + len(convolved) != len(parts):
        raise TypeError("a convolution's weight that is also another layer's has no factored form")
    return of_direct(sum((part.value.view_as(value) for part in others), value))


def _shared_axis(name: str, units: int) -> PolicyError:
    return PolicyError(
        "E-TRAIN-031",
        f"layer {name} got an input whose first axis can't be divided among the units, so their gradients can't be told apart",
        "Give it one row for each unit and record; expand ids of shape [1, time] to all of them",
    )


def _untaped(name: str, why: str) -> PolicyError:
    return PolicyError(
        "E-TRAIN-032",
        f"the parameters of layer {name} can't be clipped: it {why}",
        "Freeze it, or build it of Linear, Embedding, LayerNorm, RMSNorm, GroupNorm, Conv1d, Conv2d or Scale layers (a GRU: "
        "training.models.text_rnn), set before the gradient method is made",
    )


def _across(name: str, why: str) -> PolicyError:
    return PolicyError("E-TRAIN-033", f"layer {name} {why}", "Take GroupNorm or LayerNorm in its place; see opacus.validators")


def _bypassed(name: str) -> PolicyError:
    return PolicyError(
        "E-TRAIN-034",
        f"the loss reaches parameter {name} past its layer, so its gradient would not be clipped",
        "Call the layer instead of reading its weight; put a penalty on weights into the optimizer (l1, weight_decay)",
    )


def _recomputed(name: str) -> PolicyError:
    return PolicyError(
        "E-TRAIN-043",
        f"layer {name} is used inside and outside of an activation checkpoint that runs its forward pass anew",
        "Use torch.utils.checkpoint with use_reentrant=False",
    )


def _unused(name: str) -> PolicyError:
    return PolicyError(
        "E-TRAIN-035",
        f"no loss reaches parameter {name} through its layer",
        "Freeze it, or set may_rest = True on a layer that a batch may leave out, such as an expert",
    )

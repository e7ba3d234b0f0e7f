"""Makes a trained model smaller: pruning, int8 weights, int8 by ONNX Runtime (dynamic, static), distillation.

Guarantee: the weights go in, and public or made-up inputs (`PublicInputs`, a type that private units can't take), nothing
else: whatever comes out is a post-processing of the model and keeps its epsilon. Masks come from the magnitude of weights
that are private already. Size, latency and agreement before and after are measured in one run, the two sides in turn.
Not covered: whether a compressed model repeats an output that its audit redacted; it has to be audited as itself. Utility on
private holdout units is not looked at here: each look would be one more unprotected figure.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import zstandard
from torch import Tensor, nn
from torch.nn import functional

from privacy.canonical import Json
from privacy.errors import DataError, UsageError
from privacy.policy_training import Compress, Distil
from training import exports
from training.data import IGNORED
from training.models.base import UnitModel
from training.public import PublicInputs

Outputs = npt.NDArray[np.float32]
Runner = Callable[[Mapping[str, npt.NDArray[Any]]], Outputs]
_REPEATS: Final = 31
_WARM: Final = 5
_UNITS_TIMED: Final = 8
_UNITS_AT_ONCE: Final = 256
_CALIBRATION_UNITS: Final = 512


@dataclass(frozen=True, slots=True)
class Row:
    """One method against the model it came from. Sizes in bytes; `packed`: after zstandard, which is what zeros are worth.

    accuracy: on the labelled public set, None without one. agreement: share of inputs with the same top class as before.
    """

    method: str
    bytes_before: int
    bytes_after: int
    packed_before: int
    packed_after: int
    milliseconds_before: float
    milliseconds_after: float
    accuracy_before: float | None
    accuracy_after: float | None
    agreement: float
    measured_on: str

    def to_json(self) -> dict[str, Json]:
        found: dict[str, Json] = {name: getattr(self, name) for name in self.__slots__}
        return found | {
            "size_ratio": round(self.bytes_after / self.bytes_before, 3),
            "packed_ratio": round(self.packed_after / self.packed_before, 3),
            "latency_ratio": round(self.milliseconds_after / self.milliseconds_before, 3),
        }


@dataclass(frozen=True, slots=True)
class Compressed:
    """What one method made. files: by name; plain bytes that the caller seals."""

    row: Row
    files: Mapping[str, bytes] = field(repr=False)


def compress(model: UnitModel, plan: Compress, public: PublicInputs, student: Callable[[], UnitModel]) -> list[Compressed]:
    """Every method of the plan, in its order. `student` builds the untrained model of `plan.distil`.

    Raises UsageError E-COMPRESS-001 for inputs that are not public, EnvironmentFault E-COMPRESS-002 without ONNX Runtime,
    DataError E-COMPRESS-003 for a model that does not give finite outputs, IntegrityError E-COMPRESS-005 when an exported
    file computes something else, UsageError E-COMPRESS-013 for an architecture that an exporter can't follow.
    """
    if not isinstance(public, PublicInputs) or len(public) == 0:
        raise UsageError("E-COMPRESS-001", "compression looks at public or made-up inputs only", "Declare compress.public")
    parent = copy.deepcopy(model).cpu().eval()
    before = run_model(parent, public)
    if not np.isfinite(before).all():
        raise DataError("E-COMPRESS-003", "the model's outputs are not finite", "Train again, with a smaller learning rate")
    whole = cache(lambda: exports.to_onnx(parent, public.part(slice(0, 2))))  # both int8 methods start from it
    return [_one(method, parent, plan, public, student, whole) for method in plan.methods]


def _one(
    method: str,
    parent: UnitModel,
    plan: Compress,
    public: PublicInputs,
    student: Callable[[], UnitModel],
    onnx: Callable[[], bytes],
) -> Compressed:
    example = public.part(slice(0, 2))
    if method in ("int8_dynamic", "int8_static"):
        whole = onnx()
        calibration = public.part(slice(0, _CALIBRATION_UNITS)) if method == "int8_static" else None
        smaller = exports.quantised(whole, calibration)
        runners = exports.onnx_runner(whole), exports.onnx_runner(smaller)
        return Compressed(_row(method, *runners, whole, smaller, public), {f"{method}.onnx": smaller})
    if method == "prune":
        made = pruned(parent, plan.prune_share)
    elif method == "int8_weights":
        made = with_int8_weights(parent)
    else:
        assert plan.distil is not None
        made = distilled(parent, student(), public, plan.distil)
    row = _row(method, _runner(parent), _runner(made), exports.to_safetensors(parent), exports.to_safetensors(made), public)
    return Compressed(row, exports.files_of(made, method, plan.exports, example))


def run_model(model: UnitModel, public: PublicInputs) -> Outputs:
    """float32 [units, records, classes]."""
    return run_in_parts(_runner(model), public)


def run_in_parts(runner: Runner, public: PublicInputs) -> Outputs:
    parts = range(0, len(public), _UNITS_AT_ONCE)
    return np.concatenate([runner(public.part(slice(start, start + _UNITS_AT_ONCE))) for start in parts])


def pruned(model: UnitModel, share: float) -> UnitModel:
    """Without the smallest `share` of each trainable weight matrix, by magnitude; biases and norms stay."""
    made = copy.deepcopy(model)
    with torch.no_grad():
        for _, parameter in made.named_parameters():  # a tied tensor is named once
            if parameter.ndim < 2 or not parameter.requires_grad:
                continue
            count = int(share * parameter.numel())
            if count:
                order = parameter.abs().flatten().argsort()
                parameter.view(-1)[order[:count]] = 0.0
    return made


class Int8Rows(nn.Module):
    """A weight matrix as int8 with one scale a row: weight = scale * integer, to half a scale."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        flat = weight.detach().float().flatten(1)
        scale = (flat.abs().amax(1, keepdim=True) / 127).clamp(min=torch.finfo(torch.float32).tiny)
        self.register_buffer("integers", (flat / scale).round().clamp(-127, 127).to(torch.int8))
        self.register_buffer("scale", scale)
        self.integers: Tensor
        self.scale: Tensor

    def rows(self, which: Tensor) -> Tensor:
        return self.integers[which].float() * self.scale[which]

    def whole(self) -> Tensor:
        return self.integers.float() * self.scale


class Int8Linear(nn.Module):
    def __init__(self, rows: Int8Rows, bias: Tensor | None) -> None:
        super().__init__()
        self.rows = rows
        self.bias: Tensor | None
        self.register_buffer("bias", None if bias is None else bias.detach().float())

    @property
    def weight(self) -> Tensor:
        return self.rows.whole()

    def forward(self, inputs: Tensor) -> Tensor:
        return functional.linear(inputs, self.rows.whole(), self.bias)


class Int8Embedding(nn.Module):
    def __init__(self, rows: Int8Rows) -> None:
        super().__init__()
        self.rows = rows

    @property
    def weight(self) -> Tensor:
        return self.rows.whole()

    def forward(self, ids: Tensor) -> Tensor:
        return self.rows.rows(ids)


def with_int8_weights(model: UnitModel) -> UnitModel:
    """Linear and embedding weights as int8, dequantised where they are used; everything else as it was. Tied stays tied."""
    made = copy.deepcopy(model)
    known: dict[int, Int8Rows] = {}
    for parent in list(made.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) not in (nn.Linear, nn.Embedding):
                continue
            assert isinstance(layer, nn.Linear | nn.Embedding)
            rows = known.setdefault(id(layer.weight), Int8Rows(layer.weight))
            setattr(parent, name, Int8Linear(rows, layer.bias) if isinstance(layer, nn.Linear) else Int8Embedding(rows))
    return made.eval()


def distilled(teacher: UnitModel, student: UnitModel, public: PublicInputs, plan: Distil) -> UnitModel:
    """The student, taught the teacher's softened outputs on public inputs. Hinton, Vinyals, Dean 2015 (1503.02531)."""
    target = torch.from_numpy(run_model(teacher, public))
    student = student.cpu().train()
    optimizer = torch.optim.Adam((p for p in student.parameters() if p.requires_grad), lr=plan.learning_rate)
    generator = np.random.default_rng(0)  # public inputs in a public order
    with torch.random.fork_rng(devices=[]):  # dropout of the student
        torch.manual_seed(0)
        for _ in range(plan.steps):
            rows = generator.integers(0, len(public), min(64, len(public)))
            inputs = {name: torch.from_numpy(array) for name, array in public.part(rows).items()}
            loss = _divergence(student.outputs(inputs).float(), target[torch.from_numpy(rows)], plan.temperature)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return student.eval()


def _divergence(found: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    logs, targets = (functional.log_softmax(t.flatten(0, -2) / temperature, -1) for t in (found, wanted))
    return functional.kl_div(logs, targets, reduction="batchmean", log_target=True) * temperature**2


def _runner(model: UnitModel) -> Runner:
    def run(inputs: Mapping[str, npt.NDArray[Any]]) -> Outputs:
        with torch.no_grad():
            found: Outputs = model.outputs({name: torch.from_numpy(array) for name, array in inputs.items()}).float().numpy()
        return found

    return run


def _row(method: str, before: Runner, after: Runner, was: bytes, made: bytes, public: PublicInputs) -> Row:
    old, new = run_in_parts(before, public), run_in_parts(after, public)
    first, second = _in_turn(before, after, public.part(slice(0, _UNITS_TIMED)))
    agreement = float((old.argmax(-1) == new.argmax(-1))[public.data.present].mean())
    return Row(
        method=method,
        bytes_before=len(was),
        bytes_after=len(made),
        packed_before=len(zstandard.compress(was, 9)),
        packed_after=len(zstandard.compress(made, 9)),
        milliseconds_before=first,
        milliseconds_after=second,
        accuracy_before=_accuracy(old, public.truth),
        accuracy_after=_accuracy(new, public.truth),
        agreement=round(agreement, 4),
        measured_on=public.origin,
    )


def _accuracy(found: Outputs, truth: npt.NDArray[np.int64]) -> float | None:
    known = truth != IGNORED
    return round(float((found[:, 0].argmax(-1) == truth)[known].mean()), 4) if known.any() else None


def _in_turn(before: Runner, after: Runner, inputs: Mapping[str, npt.NDArray[Any]]) -> tuple[float, float]:
    """Median milliseconds of each, taken in turn, so that a busy machine slows both."""
    took: tuple[list[float], list[float]] = ([], [])
    for number in range(_WARM + _REPEATS):
        for runner, times in zip((before, after), took, strict=True):
            began = time.perf_counter()
            runner(inputs)
            if number >= _WARM:
                times.append((time.perf_counter() - began) * 1000)
    return round(statistics.median(took[0]), 4), round(statistics.median(took[1]), 4)

"""A trained model as files for others: safetensors, ONNX, torch.export; and int8 by ONNX Runtime.

Guarantee: every ONNX or torch.export file is run beside the model it came from before it is handed out, on other shapes than
those it was exported with. The model's bytes touch no disk here: the libraries that insist on files get a folder in memory.
Assumption: a recipe's outputs depend on nothing but `inputs`. Not covered: memory that the system swaps out.
"""

from __future__ import annotations

import io
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from privacy.errors import EnvironmentFault, IntegrityError, UsageError
from training.models.base import UnitModel

Arrays = Mapping[str, npt.NDArray[Any]]
_TOLERANCE: Final = 1e-3  # of the largest output: an exported graph may sum in another order
_OF_THIS_MACHINE: Final = ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node")  # source files and their folders
_IN_MEMORY: Final = Path("/dev/shm")  # noqa: S108  the point of it: never a disk


class ExportForm(nn.Module):
    """`UnitModel.outputs` with its inputs as arguments, in the order of their names, as exporters want it."""

    def __init__(self, model: UnitModel, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, tuple(names)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.model.outputs(dict(zip(self.names, inputs, strict=True)))


def to_safetensors(model: UnitModel) -> bytes:
    """Every tensor of the model, each once."""
    from safetensors.torch import save

    whole = model.state_dict()
    return bytes(save({name: whole[name].detach().cpu().contiguous().clone() for name in tensor_names(model)}))


def tensor_names(model: UnitModel) -> list[str]:
    """Of the tensors that a file of the model holds: of tied ones the first name."""
    seen: set[int] = set()
    found = []
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen or tensor.numel() == 0:
            seen.add(tensor.data_ptr())
            found.append(name)
    return found


def to_onnx(model: UnitModel, example: Arrays) -> bytes:
    """By torch's dynamo exporter; number of units is free, and what else the model does not fix. Checked by ONNX Runtime."""
    names = sorted(example)
    with _quietly():
        try:
            program = torch.onnx.export(
                ExportForm(model, names), _tensors(example), dynamo=True, dynamic_shapes=_shapes(example), input_names=names,
                verbose=False,
            )  # fmt: skip
        except Exception:  # whatever an exporter trips over, the model is not exportable
            program = None
    if program is None:
        raise _not_exportable("ONNX")
    data = _without_places(program.model_proto)
    _refuse_another_function(model, onnx_runner(data), example, "ONNX")
    return data


def to_torch_export(model: UnitModel, example: Arrays) -> bytes:
    """A .pt2 archive of `torch.export`, loaded again and compared."""
    names, buffer = sorted(example), io.BytesIO()
    with _quietly():
        program = _exported(model, names, example)
        for node in program.graph.nodes:
            for name in _OF_THIS_MACHINE:
                node.meta.pop(name, None)
        torch.export.save(program, buffer)
        loaded = torch.export.load(io.BytesIO(buffer.getvalue())).module()

    def run(inputs: Arrays) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            found: npt.NDArray[np.float32] = loaded(*(torch.from_numpy(inputs[name]) for name in names)).float().numpy()
        return found

    _refuse_another_function(model, run, example, "torch.export")
    return buffer.getvalue()


def files_of(model: UnitModel, name: str, kinds: Sequence[str], example: Arrays) -> dict[str, bytes]:
    """The model as each of these kinds of file, by file name."""
    makers: dict[str, tuple[str, Callable[[], bytes]]] = {
        "safetensors": ("safetensors", lambda: to_safetensors(model)),
        "onnx": ("onnx", lambda: to_onnx(model, example)),
        "torch_export": ("pt2", lambda: to_torch_export(model, example)),
    }
    return {f"{name}.{makers[kind][0]}": makers[kind][1]() for kind in kinds}


def onnx_runner(data: bytes) -> Callable[[Arrays], npt.NDArray[np.float32]]:
    runtime = _runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    wanted = {put.name for put in session.get_inputs()}  # an input that the outputs don't need is not there

    def run(inputs: Arrays) -> npt.NDArray[np.float32]:
        found: npt.NDArray[np.float32] = session.run(None, {n: a for n, a in inputs.items() if n in wanted})[0]
        return found

    return run


def quantised(onnx: bytes, calibration: Arrays | None) -> bytes:
    """int8 by ONNX Runtime: dynamic, or static with activation ranges taken from `calibration` (public inputs)."""
    _runtime()
    from onnx import load_model_from_string
    from onnxruntime import quantization

    with _memory_folder() as folder, _quietly():
        target = folder / "int8.onnx"
        model = load_model_from_string(onnx)
        if calibration is None:
            quantization.quantize_dynamic(model, target, weight_type=quantization.QuantType.QInt8)
        else:
            quantization.quantize_static(model, target, _Reader(onnx, calibration), per_channel=True)
        return target.read_bytes()


class _Reader:
    """What ONNX Runtime calls a calibration data reader: the inputs in parts, each once."""

    def __init__(self, onnx: bytes, calibration: Arrays) -> None:
        session = _runtime().InferenceSession(onnx, providers=["CPUExecutionProvider"])
        names = [put.name for put in session.get_inputs()]
        count = len(next(iter(calibration.values())))
        parts = [{name: calibration[name][start : start + 32] for name in names} for start in range(0, count, 32)]
        self._parts: Iterator[Arrays] = iter(parts)

    def get_next(self) -> Arrays | None:
        return next(self._parts, None)

    def __iter__(self) -> _Reader:
        return self

    def __next__(self) -> Arrays:
        return next(self._parts)


def _exported(model: UnitModel, names: Sequence[str], example: Arrays) -> torch.export.ExportedProgram:
    """Strict first: it follows `len(tensor)` as a free size, which the other way takes for a constant."""
    for strict in (True, False):
        with suppress(Exception):  # whatever an exporter trips over
            form = ExportForm(model, names)
            return torch.export.export(form, _tensors(example), dynamic_shapes=_shapes(example), strict=strict)
    raise _not_exportable("torch.export")


def _not_exportable(kind: str) -> UsageError:
    return UsageError(
        "E-COMPRESS-013",
        f"{kind} can't follow this architecture",
        "Leave that kind of file out of compress; safetensors always works",
    )


def _refuse_another_function(
    model: UnitModel, run: Callable[[Arrays], npt.NDArray[np.float32]], example: Arrays, kind: str
) -> None:
    """On the example, and on the first of its units three times: a graph that froze a shape fails here."""
    thrice = {name: np.repeat(array[:1], 3, axis=0) for name, array in example.items()}
    for inputs in (example, thrice):
        with torch.no_grad():
            wanted = model.outputs({name: torch.from_numpy(array) for name, array in inputs.items()}).float().numpy()
        found = run(inputs)
        near = found.shape == wanted.shape and np.allclose(
            found, wanted, rtol=_TOLERANCE, atol=_TOLERANCE * np.abs(wanted).max()
        )
        if not near:
            raise IntegrityError(
                "E-COMPRESS-005",
                f"the {kind} file computes something else than the model",
                "Report this; the file was not kept",
            )


def _without_places(model: Any) -> bytes:
    """The graph without the exporter's notes, which name source files and folders of this machine."""
    parts = [model, model.graph, *model.functions]
    for part in [model.graph, *model.functions]:
        parts += [*part.node, *part.value_info]
    parts += [*model.graph.input, *model.graph.output, *model.graph.initializer]
    for part in parts:
        del part.metadata_props[:]
    for node in (node for part in [model.graph, *model.functions] for node in part.node):
        node.doc_string = ""
    data: bytes = model.SerializeToString()
    return data


def _tensors(example: Arrays) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(np.ascontiguousarray(example[name])) for name in sorted(example))


def _shapes(example: Arrays) -> dict[str, tuple[dict[int, Any], ...]]:
    """The first axis, units, is free; the exporter finds out about the others."""
    return {"inputs": tuple({0: torch.export.Dim.DYNAMIC} for _ in example)}


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise EnvironmentFault(
            "E-COMPRESS-002", "ONNX Runtime is not installed", "pip install 'privet[compress]', or leave onnx and int8_* out"
        ) from None
    return onnxruntime


@contextmanager
def _memory_folder() -> Iterator[Path]:
    """A folder in memory, also for whatever calls `tempfile` inside the block: ONNX Runtime writes the model there."""
    if not _IN_MEMORY.is_dir():
        raise EnvironmentFault(
            "E-COMPRESS-004", "there is no /dev/shm, and an unreleased model must not touch a disk", "Use a Linux with /dev/shm"
        )
    folder, before = Path(tempfile.mkdtemp(dir=_IN_MEMORY)), tempfile.tempdir
    tempfile.tempdir = str(folder)
    try:
        yield folder
    finally:
        tempfile.tempdir = before
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _quietly() -> Iterator[None]:
    """Exporters warn and log about torchvision, pre-processing and deprecations of their own."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.onnx._internal.exporter")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
        for logger, was in zip(loggers, levels, strict=True):
            logger.setLevel(was)

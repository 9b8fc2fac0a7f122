"""ONNX float32 -> float16: half the size, for GPUs and other hardware that computes in it."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from gdas_tf.export.onnx_passes import Graph, set_metadata

_LARGEST = float(np.finfo(np.float16).max)
# What stays in float32: pixels are standardised and probabilities computed in full precision.
_FULL_PRECISION = ("Sub", "Mul", "Transpose", "Reshape", "Softmax")


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model computing in float16, with float32 input and output.

    There are two casts: one before the first convolution, one before the softmax. Weights beyond float16's
    range are cut to it.

    Args:
        model: float32 network as `to_onnx` makes it.

    Example:
        >>> save_onnx(to_float16(onnx.load("model.onnx")), "model_float16.onnx")
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = Graph(copy)
    halves: set[str] = set()  # tensors in float16
    casts: dict[tuple[str, int], str] = {}

    def cast(node: onnx.NodeProto, name: str, kind: int) -> str:
        if (name, kind) not in casts:
            suffix = "float16" if kind == TensorProto.FLOAT16 else "float32"
            casts[name, kind] = graph.insert_before(node, "Cast", [name], f"{name}.{suffix}", to=kind)
        return casts[name, kind]

    for node in list(graph.nodes):
        full = node.op_type in _FULL_PRECISION
        for index, name in enumerate(node.input):
            if name in graph.constants:
                value = graph.constants[name]
                if not full and value.dtype == np.float32:
                    graph.constants[name] = value.clip(-_LARGEST, _LARGEST).astype(np.float16)
            elif full == (name in halves):
                node.input[index] = cast(node, name, TensorProto.FLOAT if full else TensorProto.FLOAT16)
        if not full:
            halves.update(node.output)
    result = graph.to_model()
    set_metadata(result, {"precision": "float16"})
    onnx.checker.check_model(result, full_check=True)
    return result

"""Batch norms, which are factors and terms of channels: into convolutions."""

from __future__ import annotations

import numpy as np
import onnx

from gdas_tf.export.onnx_passes.graph import Graph, attributes


def affine_into_convolution(graph: Graph, node: onnx.NodeProto) -> None:
    """Batch norm after a convolution, or after a concatenation of some: into their kernels and biases."""
    affine = _affine(graph, node)
    if affine is None or node.output[0] in graph.outputs:
        return
    name, scale, shift = affine
    if _can_absorb(graph, name, node):
        _absorb(graph, name, scale, shift)
        graph.bypass(node, name)


def affine_to_convolution(graph: Graph, node: onnx.NodeProto) -> None:
    """A batch norm that met no convolution, as the one after the last cell: a depthwise 1x1 convolution."""
    affine = _affine(graph, node)
    if affine is None or not _follows_convolution(graph, affine[0]):
        return
    name, scale, shift = affine
    readers = graph.consumers(node.output[0])
    following = _affine(graph, readers[0]) if len(readers) == 1 else None
    last = node
    if following is not None and graph.feeds_only(node.output[0], readers[0]):
        last = readers[0]
        scale, shift = scale * following[1], shift * following[1] + following[2]
    names = [
        graph.constant(scale.reshape(-1, 1, 1, 1), f"{last.output[0]}_kernel"),
        graph.constant(shift, f"{last.output[0]}_bias"),
    ]
    graph.replace(last, "Conv", [name, *names], kernel_shape=[1, 1], group=len(scale))


def _affine(graph: Graph, node: onnx.NodeProto) -> tuple[str, np.ndarray, np.ndarray] | None:
    """Returns (input, scale, shift) of a node that scales or shifts channels of an NCHW image; else None."""
    if node.op_type not in ("Mul", "Add", "Sub", "Div"):
        return None
    constant = [name in graph.constants for name in node.input]
    if sum(constant) != 1 or (constant[0] and node.op_type in ("Sub", "Div")):
        return None
    name, value = node.input[constant[0]], graph.constants[node.input[constant[1]]]
    shape = graph.shapes.get(name, ())
    if len(shape) != 4 or shape[1] is None:
        return None
    value = value.reshape((1,) * (4 - value.ndim) + value.shape) if value.ndim <= 4 else value
    if value.shape not in ((1, 1, 1, 1), (1, shape[1], 1, 1)):
        return None
    value = np.broadcast_to(value.reshape(-1), (shape[1],)).astype(np.float32)
    scale, shift = np.ones_like(value), np.zeros_like(value)
    if node.op_type in ("Mul", "Div"):
        scale = value if node.op_type == "Mul" else 1 / value
    else:
        shift = value if node.op_type == "Add" else -value
    return name, scale, shift


def _can_absorb(graph: Graph, name: str, reader: onnx.NodeProto) -> bool:
    node = graph.producer(name)
    if node is None or not graph.feeds_only(name, reader):
        return False
    if node.op_type == "Conv":
        return all(item in graph.constants for item in node.input[1:])
    if node.op_type == "Concat" and attributes(node)["axis"] == 1 and len(set(node.input)) == len(node.input):
        return all(graph.shapes[item][1] and _can_absorb(graph, item, node) for item in node.input)
    return False


def _absorb(graph: Graph, name: str, scale: np.ndarray, shift: np.ndarray) -> None:
    node = graph.producer(name)
    if node.op_type == "Concat":
        start = 0
        for item in node.input:
            end = start + graph.shapes[item][1]
            _absorb(graph, item, scale[start:end], shift[start:end])
            start = end
        return
    weight = graph.constants[node.input[1]]
    bias = graph.constants[node.input[2]] if len(node.input) > 2 else np.zeros_like(shift)
    names = [
        graph.constant(weight * scale.reshape(-1, 1, 1, 1), f"{node.output[0]}_kernel"),
        graph.constant(bias * scale + shift, f"{node.output[0]}_bias"),
    ]
    graph.replace(node, "Conv", [node.input[0], *names], **attributes(node))


def _follows_convolution(graph: Graph, name: str) -> bool:
    """Returns whether a tensor comes of a convolution; what does not, as pixels, may still be NHWC."""
    node = graph.producer(name)
    return node is not None and (node.op_type == "Conv" or _follows_convolution(graph, node.input[0]))

"""Transposes between TensorFlow's order of axes and ONNX': gathered at the input, where one is left."""

from __future__ import annotations

import onnx
from onnx import helper

from gdas_tf.export.onnx_passes.graph import Graph, attributes

_TO_NHWC, _TO_NCHW = [0, 2, 3, 1], [0, 3, 1, 2]


def sink_transpose(graph: Graph, node: onnx.NodeProto) -> None:
    """Moves transposes to NHWC behind a node, down to where one to NCHW undoes them.

    tf2onnx moves those behind most operators itself, but none behind a Split, as that before the groups of
    convolutions in the fixed reduction cell.
    """
    if node.op_type == "Transpose":
        before = graph.producer(node.input[0])
        if _is_transpose(before, _TO_NHWC) and _is_transpose(node, _TO_NCHW):
            graph.bypass(node, before.input[0])
        return
    if node.op_type not in ("Relu", "Add", "Sub", "Mul", "Div", "Concat", "Split"):
        return
    inputs = []
    for index, name in enumerate(node.input):
        before = graph.producer(name)
        if _is_transpose(before, _TO_NHWC):
            inputs.append(before.input[0])
        elif name not in graph.constants:
            return
        elif node.op_type == "Split" and index == 1:
            inputs.append(name)
        else:
            value = graph.constants[name]
            value = value.reshape((1,) * (4 - value.ndim) + value.shape).transpose(_TO_NCHW)
            inputs.append(graph.constant(value, f"{name}_nchw"))
    options = attributes(node)
    if "axis" in options or node.op_type in ("Concat", "Split"):
        options["axis"] = _TO_NHWC[options.get("axis", 0)]
    outputs = list(node.output)
    new = graph.replace(node, node.op_type, inputs, **options)
    for index, name in enumerate(outputs):
        new.output[index] = f"{name}_nchw"
        shape = graph.shapes.get(name)
        if shape:
            graph.shapes[f"{name}_nchw"] = tuple(shape[axis] for axis in _TO_NCHW)
        transpose = helper.make_node("Transpose", [f"{name}_nchw"], [name], name=name, perm=_TO_NHWC)
        graph.nodes.insert(graph.position(new) + 1, transpose)


def _is_transpose(node: onnx.NodeProto | None, perm: list[int]) -> bool:
    return node is not None and node.op_type == "Transpose" and attributes(node)["perm"] == perm

"""The head of a classifier: the mean over the image, and the dense layer."""

from __future__ import annotations

import onnx

from gdas_tf.export.onnx_passes.graph import Graph, attributes


def global_average_pool(graph: Graph, node: onnx.NodeProto) -> None:
    """Transpose to NHWC, mean over height and width: global average pooling."""
    if node.op_type != "ReduceMean" or len(node.input) < 2:
        return
    transpose = graph.producer(node.input[0])
    axes = graph.constants.get(node.input[1])
    if transpose is None or transpose.op_type != "Transpose" or axes is None:
        return
    values = attributes(node)
    if (
        attributes(transpose)["perm"] != [0, 2, 3, 1]
        or sorted(axes.tolist()) != [1, 2]
        or values.get("keepdims", 1)
    ):
        return
    pooled = f"{node.output[0]}_pooled"
    graph.insert_before(node, "GlobalAveragePool", [transpose.input[0]], pooled)
    graph.replace(node, "Flatten", [pooled], axis=1)


def dense_to_gemm(graph: Graph, node: onnx.NodeProto) -> None:
    """Product of a matrix and a constant one, and the bias: one node."""
    if node.op_type != "MatMul" or len(graph.shapes.get(node.input[0], ())) != 2:
        return
    weight = graph.constants.get(node.input[1])
    if weight is None or weight.ndim != 2:
        return
    readers = graph.consumers(node.output[0])
    if len(readers) == 1 and readers[0].op_type == "Add" and graph.feeds_only(node.output[0], readers[0]):
        add = readers[0]
        other = add.input[1] if add.input[0] == node.output[0] else add.input[0]
        if other in graph.constants and graph.constants[other].size == weight.shape[1]:
            bias = graph.constant(graph.constants[other].reshape(-1), f"{add.output[0]}_bias")
            graph.replace(add, "Gemm", [*node.input, bias])
            return
    graph.replace(node, "Gemm", node.input)

"""ReLUs: where they merge with what computes their input."""

from __future__ import annotations

import onnx

from gdas_tf.export.onnx_passes.graph import Graph


def relu_before_concatenation(graph: Graph, node: onnx.NodeProto) -> None:
    """Concatenation, ReLU: ReLUs, concatenation. They then merge with the convolution or sum before them."""
    if node.op_type != "Relu":
        return
    joint = graph.producer(node.input[0])
    if joint is None or joint.op_type != "Concat" or not graph.feeds_only(joint.output[0], node):
        return
    if node.output[0] in graph.outputs:
        return
    rectified = []
    for name in joint.input:
        same = [item for item in graph.consumers(name) if item.op_type == "Relu"]
        rectified.append(same[0].output[0] if same else f"{name}_rectified")
        if not same:
            graph.insert_before(joint, "Relu", [name], rectified[-1])
        elif graph.position(same[0]) > graph.position(joint):
            graph.nodes.insert(graph.position(joint), graph.nodes.pop(graph.position(same[0])))
    joint.input[:] = rectified
    graph.bypass(node, joint.output[0])

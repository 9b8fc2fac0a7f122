"""Clean-up of an ONNX image network: what a converter leaves behind, folded away.

tf2onnx and the PyTorch exporters translate layer by layer. What stands between the convolutions afterwards
(batch norms that did not meet a convolution, padding and slicing as nodes of their own, transposes) costs a
pass over memory each, and keeps onnxruntime from staying in its blocked layout. `clean_up` removes it; the
result computes the same function.

A pass is a function of a `Graph` and one of its nodes, which changes the graph around that node or leaves it
alone. Each module holds one family of passes; `PASSES` is their order.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import onnx

from gdas_tf.export.onnx_passes.activations import relu_before_concatenation
from gdas_tf.export.onnx_passes.batch_norms import affine_into_convolution, affine_to_convolution
from gdas_tf.export.onnx_passes.convolutions import (
    merge_groups,
    pad_into_convolution,
    slice_into_convolution,
)
from gdas_tf.export.onnx_passes.graph import Graph, attributes, count_operators, set_metadata
from gdas_tf.export.onnx_passes.head import dense_to_gemm, global_average_pool
from gdas_tf.export.onnx_passes.layout import sink_transpose
from gdas_tf.export.onnx_passes.names import name_by_layer

__all__ = ["PASSES", "Graph", "attributes", "clean_up", "count_operators", "set_metadata"]

PASSES: tuple[Callable[[Graph, onnx.NodeProto], None], ...] = (
    sink_transpose,
    merge_groups,
    slice_into_convolution,
    pad_into_convolution,
    affine_into_convolution,
    affine_to_convolution,
    relu_before_concatenation,
    global_average_pool,
    dense_to_gemm,
)
"""The passes in the order in which they are made, each once over all nodes."""


def clean_up(model: onnx.ModelProto, layers: Collection[str] = ()) -> onnx.ModelProto:
    """Returns the same function as a graph without batch norms, paddings, strided slices and transposes.

    The order and the names of the result's nodes depend on its structure and on the names of the layers,
    not on the order in which the converter wrote the nodes.

    Args:
        model: float32 network of convolutions in NCHW, as tf2onnx makes it of a Keras image classifier.
        layers: names of the Keras layers, which nodes and tensors are named after.

    Returns:
        A new model; the one given is not changed.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = Graph(copy)
    graph.sort()
    for change in PASSES:
        for node in list(graph.nodes):
            if any(item is node for item in graph.nodes):
                change(graph, node)
        graph.sweep()
    graph.sort()
    name_by_layer(graph, layers)
    return graph.to_model()

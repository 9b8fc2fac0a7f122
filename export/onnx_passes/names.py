"""Names of nodes and tensors."""

from __future__ import annotations

import re
from collections.abc import Collection

from gdas_tf.export.onnx_passes.graph import Graph


def name_by_layer(graph: Graph, layers: Collection[str]) -> None:
    """Names nodes and tensors after the Keras layers: `stem_conv` in place of `Conv__659:0`."""
    taken = {item.name for item in graph.model.graph.input} | set(graph.outputs)
    new_names = {name: name for name in taken}

    def name_as(old: str, wanted: str) -> None:
        number, name = 1, wanted
        while name in taken:
            number += 1
            name = f"{wanted}_{number}"
        taken.add(name)
        new_names[old] = name

    for node in graph.nodes:
        # A convolution that took up a batch norm has lost its layer's name, its kernel has not.
        sources = (*node.output, *(name for name in node.input if name in graph.constants))
        layer = next((found for name in sources if (found := _layer_of(name, layers))), node.op_type.lower())
        if node.op_type == "Relu":
            # It stands for the ReLU layers of all edges from there, and which one's name is left is chance.
            layer = f"{new_names[node.input[0]]}_relu"
        for name in node.output:
            if name not in new_names:
                name_as(name, layer)
        for position, name in enumerate(node.input):
            if name in graph.constants and name not in new_names:
                part = {1: "kernel", 2: "bias"}.get(position) if node.op_type in ("Conv", "Gemm") else None
                name_as(name, f"{new_names[node.output[0]]}.{part or f'constant{position}'}")
    graph.constants = {new_names[name]: value for name, value in graph.constants.items()}
    for node in graph.nodes:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = new_names.get(name, name)
        node.name = node.output[0]


def _layer_of(tensor: str, layers: Collection[str]) -> str | None:
    """Returns the layer that a TensorFlow name belongs to: `stem_bn` for `network_1/stem_bn_1/sub:0`."""
    for scope in tensor.split(":")[0].split("/"):
        # TensorFlow numbers a scope that is entered again, as Keras enters each layer's.
        for layer in (scope, re.sub(r"_\d+$", "", scope)):
            if layer in layers:
                return layer
    return None

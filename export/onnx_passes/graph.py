"""An ONNX graph that passes can change, and what is said of a model."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


class Graph:
    """An ONNX graph that is easy to change: nodes, constants as arrays, and static shapes.

    Args:
        model: model of one graph without subgraphs, the tensors of which are named uniquely.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant":
                self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
            else:
                self.nodes.append(node)
        self.model = model
        self.outputs = [item.name for item in model.graph.output]
        self.shapes = _shapes(model)

    def producer(self, name: str) -> onnx.NodeProto | None:
        """Returns the node that computes a tensor; None for inputs and constants."""
        return next((node for node in self.nodes if name in node.output), None)

    def position(self, node: onnx.NodeProto) -> int:
        """Returns the index of this very node."""
        return next(index for index, item in enumerate(self.nodes) if item is node)

    def consumers(self, name: str) -> list[onnx.NodeProto]:
        """Returns the nodes that read a tensor."""
        return [node for node in self.nodes if name in node.input]

    def feeds_only(self, name: str, node: onnx.NodeProto) -> bool:
        """Returns whether a node is the only reader of a tensor, which is not an output of the graph."""
        return name not in self.outputs and all(item is node for item in self.consumers(name))

    def constant(self, value: np.ndarray, name: str) -> str:
        """Adds a constant and returns its name, made unique."""
        unique, number = name, 0
        while unique in self.constants:
            unique, number = f"{name}_{number}", number + 1
        self.constants[unique] = np.ascontiguousarray(value)
        return unique

    def replace(
        self, old: onnx.NodeProto, op_type: str, inputs: Iterable[str], **attributes: Any
    ) -> onnx.NodeProto:
        """Puts a new node in the place of one with a single output, which keeps its name."""
        new = helper.make_node(op_type, list(inputs), list(old.output), name=old.name, **attributes)
        self.nodes[self.position(old)] = new
        return new

    def insert_before(
        self, node: onnx.NodeProto, op_type: str, inputs: Iterable[str], output: str, **attributes: Any
    ) -> str:
        """Adds a node before another one and returns the name of its output."""
        new = helper.make_node(op_type, list(inputs), [output], name=output, **attributes)
        self.nodes.insert(self.position(node), new)
        return output

    def bypass(self, node: onnx.NodeProto, source: str) -> None:
        """Takes out a node that is no output of the graph: the readers of its output read `source`."""
        for reader in self.consumers(node.output[0]):
            for index, name in enumerate(reader.input):
                if name == node.output[0]:
                    reader.input[index] = source
        del self.nodes[self.position(node)]

    def sweep(self) -> None:
        """Removes nodes and constants that no output depends on."""
        needed = set(self.outputs)
        kept = []
        for node in reversed(self.nodes):
            if any(name in needed for name in node.output):
                needed.update(node.input)
                kept.append(node)
        self.nodes = kept[::-1]
        self.constants = {name: value for name, value in self.constants.items() if name in needed}

    def sort(self) -> None:
        """Puts the nodes in the order in which the outputs need them, each after those that it reads.

        The order depends on the structure of the graph alone: a converter that walks through sets of names
        writes the nodes in another order in each process.
        """
        producers = {name: node for node in self.nodes for name in node.output}
        done: dict[int, onnx.NodeProto] = {}
        stack = [producers[name] for name in reversed(self.outputs) if name in producers]
        while stack:
            node = stack[-1]
            waiting = [
                producers[name]
                for name in node.input
                if name in producers and id(producers[name]) not in done
            ]
            if id(node) in done or not waiting:
                done.setdefault(id(node), node)
                stack.pop()
            else:
                stack += reversed(waiting)
        self.nodes = list(done.values())

    def to_model(self) -> onnx.ModelProto:
        """Returns the model with the changed graph; stale shapes of inner tensors are left out."""
        self.sweep()
        used = dict.fromkeys(name for node in self.nodes for name in node.input if name in self.constants)
        graph = helper.make_graph(
            self.nodes,
            self.model.graph.name,
            self.model.graph.input,
            self.model.graph.output,
            [numpy_helper.from_array(self.constants[name], name) for name in used],
        )
        model = helper.make_model(
            graph, opset_imports=self.model.opset_import, ir_version=self.model.ir_version
        )
        model.metadata_props.extend(self.model.metadata_props)
        model.producer_name = self.model.producer_name
        model.producer_version = self.model.producer_version
        return model


def count_operators(model: onnx.ModelProto) -> dict[str, int]:
    """Returns how many nodes of each operator a model has, most frequent first."""
    counts = collections.Counter(node.op_type for node in model.graph.node)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def set_metadata(model: onnx.ModelProto, values: Mapping[str, str]) -> None:
    """Sets properties of a model's metadata, and keeps the others."""
    present = {item.key: item.value for item in model.metadata_props}
    del model.metadata_props[:]
    helper.set_model_props(model, present | dict(values))


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Returns the attributes of a node as Python values."""
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int | None, ...]]:
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = {}
    for item in (*inferred.input, *inferred.value_info, *inferred.output):
        tensor = item.type.tensor_type
        if tensor.HasField("shape"):
            shapes[item.name] = tuple(
                dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim
            )
    return shapes

"""Clean-up of an ONNX image network: what a converter leaves behind, folded away.

tf2onnx and the PyTorch exporters translate layer by layer. What stands between the convolutions afterwards
(batch norms that did not meet a convolution, padding and slicing as nodes of their own, transposes) costs a
pass over memory each, and keeps onnxruntime from staying in its blocked layout. `clean_up` removes it; the
result computes the same function.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Collection, Iterable, Mapping
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


def clean_up(model: onnx.ModelProto, layers: Collection[str] = ()) -> onnx.ModelProto:
    """Returns the same function as a graph without batch norms, paddings, strided slices and transposes.

    Args:
        model: float32 network of convolutions in NCHW, as tf2onnx makes it of a Keras image classifier.
        layers: names of the Keras layers, which nodes and tensors are named after.

    Returns:
        A new model; the one given is not changed.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = Graph(copy)
    passes = (
        _sink_transpose,
        _merge_duplicates,
        _merge_groups,
        _slice_into_convolution,
        _pad_into_convolution,
        _affine_into_convolution,
        _affine_to_convolution,
        _relu_before_concatenation,
        _global_average_pool,
        _dense_to_gemm,
    )
    for change in passes:
        for node in list(graph.nodes):
            if any(item is node for item in graph.nodes):
                change(graph, node)
        graph.sweep()
    _name_by_layer(graph, layers)
    return graph.to_model()


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


def _sink_transpose(graph: Graph, node: onnx.NodeProto) -> None:
    """Moves transposes to NHWC behind a node, down to where one to NCHW undoes them."""
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


def _merge_duplicates(graph: Graph, node: onnx.NodeProto) -> None:
    """Computes once what several nodes compute of the same inputs, as the ReLU before each edge."""
    for other in graph.nodes:
        if other is node:
            return
        same = (
            other.op_type == node.op_type and other.input == node.input and other.attribute == node.attribute
        )
        if same and node.output[0] not in graph.outputs:
            graph.bypass(node, other.output[0])
            return


def _merge_groups(graph: Graph, node: onnx.NodeProto) -> None:
    """Split, one convolution for each part, concatenation: a grouped convolution."""
    if node.op_type != "Concat" or attributes(node)["axis"] != 1:
        return
    parts = [graph.producer(name) for name in node.input]
    if len(parts) < 2 or any(part is None or part.op_type != "Conv" for part in parts):
        return
    split = graph.producer(parts[0].input[0])
    if split is None or split.op_type != "Split" or attributes(split).get("axis", 0) != 1:
        return
    weights = [graph.constants.get(part.input[1]) for part in parts]
    options = attributes(parts[0])
    alike = all(
        attributes(part) == options
        and len(part.input) == 2
        and graph.feeds_only(part.output[0], node)
        and weight is not None
        and weight.shape == weights[0].shape
        for part, weight in zip(parts, weights, strict=True)
    )
    if not alike or options.get("group", 1) != 1 or [part.input[0] for part in parts] != list(split.output):
        return
    kernel = graph.constant(np.concatenate(weights), f"{node.output[0]}_kernel")
    graph.replace(node, "Conv", [split.input[0], kernel], **options | {"group": len(parts)})


def _spatial_padding(graph: Graph, node: onnx.NodeProto | None) -> tuple[int, int, int, int] | None:
    """Returns (top, left, bottom, right) of a node that pads an NCHW image with zeros; else None."""
    if node is None or node.op_type != "Pad" or attributes(node).get("mode", b"constant") != b"constant":
        return None
    value = graph.constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(())
    pads = graph.constants.get(node.input[1])
    if value is None or value.any() or pads is None or len(node.input) > 3 or pads.size != 8:
        return None
    begin, end = pads[:4], pads[4:]
    if begin[:2].any() or end[:2].any() or pads.min() < 0:
        return None
    return int(begin[2]), int(begin[3]), int(end[2]), int(end[3])


def _spatial_slice(graph: Graph, node: onnx.NodeProto | None) -> dict[int, tuple[int, int, int]] | None:
    """Returns {axis: (start, end, step)} of a node that slices height and width of a static size.

    Pooling with a window of one pixel is a slice, too.
    """
    if node is None or node.op_type not in ("Slice", "AveragePool", "MaxPool"):
        return None
    shape = graph.shapes.get(node.input[0], ())
    if len(shape) != 4 or None in shape[1:]:
        return None
    if node.op_type != "Slice":
        options = attributes(node)
        if options["kernel_shape"] != [1, 1] or any(options.get("pads", ())):
            return None
        return {i + 2: (0, shape[i + 2], step) for i, step in enumerate(options.get("strides", (1, 1)))}
    values = [graph.constants.get(name) for name in node.input[1:]]
    if any(value is None for value in values):
        return None
    starts, ends = values[:2]
    axes = values[2] if len(values) > 2 else np.arange(len(starts))
    steps = values[3] if len(values) > 3 else np.ones(len(starts), np.int64)
    result = {2: (0, shape[2], 1), 3: (0, shape[3], 1)}
    for start, end, axis, step in zip(
        starts.tolist(), ends.tolist(), axes.tolist(), steps.tolist(), strict=True
    ):
        if step < 1:
            return None
        if axis % 4 < 2:
            if (start, step) != (0, 1) or end < _TO_THE_END:
                return None
            continue
        size = shape[axis % 4]
        result[axis % 4] = (*slice(start, end).indices(size)[:2], step)
    return result


def _pad_into_convolution(graph: Graph, node: onnx.NodeProto) -> None:
    """Pad with zeros, convolution: the convolution pads."""
    if node.op_type != "Conv":
        return
    pad = graph.producer(node.input[0])
    padding = _spatial_padding(graph, pad)
    values = attributes(node)
    if padding is None or values.get("auto_pad", b"NOTSET") != b"NOTSET":
        return
    values["pads"] = [a + b for a, b in zip(values.get("pads", [0] * 4), padding, strict=True)]
    graph.replace(node, "Conv", [pad.input[0], *node.input[1:]], **values)


def _slice_into_convolution(graph: Graph, node: onnx.NodeProto) -> None:
    """Strided slice, convolution: a convolution with the strides and dilations multiplied.

    conv(x[o::m])[i] = sum_k w[k] x[m (s i + d k - p) + o]: stride m s, dilation m d, padding m p - o. A
    negative padding (the shifted branch of a factorized reduction) becomes a depthwise convolution of up to
    2x2 that picks the pixels: it stays in the layout of the convolutions, where a slice does not.
    """
    if node.op_type != "Conv":
        return
    cut = graph.producer(node.input[0])
    window = _spatial_slice(graph, cut)
    values = attributes(node)
    if window is None or values.get("auto_pad", b"NOTSET") != b"NOTSET":
        return
    shape = graph.shapes[cut.input[0]]
    kernel = values["kernel_shape"]
    pads = values.get("pads", [0] * 4)
    strides, dilations = values.get("strides", [1, 1]), values.get("dilations", [1, 1])
    new_pads, new_strides, new_dilations, offsets = [0] * 4, [1, 1], [1, 1], [0, 0]
    for axis, (start, end, step) in window.items():
        i, size = axis - 2, shape[axis]
        if end != size:
            return
        length = -(-(end - start) // step)
        output = (length + pads[i] + pads[i + 2] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1
        new_strides[i], new_dilations[i] = step * strides[i], step * dilations[i]
        begin = step * pads[i] - start
        offsets[i] = max(-begin, 0)
        new_pads[i] = max(begin, 0)
        reach = (output - 1) * new_strides[i] + new_dilations[i] * (kernel[i] - 1) + 1
        least = reach - size - begin
        # Any padding that gives the size will do; as large as at the beginning is what everybody writes.
        new_pads[i + 2] = begin if max(least, 0) <= begin < least + new_strides[i] else max(least, 0)
    values |= {"strides": new_strides, "dilations": new_dilations, "pads": new_pads}
    if not any(offsets):
        whole = graph.replace(node, "Conv", [cut.input[0], *node.input[1:]], **values)
        _slice_into_convolution(graph, whole)  # a cropping before a pooling is another one
        return
    picks_each = tuple(new_strides) == (2, 2) and max(offsets) == 1 and list(kernel) == [1, 1]
    if not picks_each or any(new_pads):
        return
    size = [offset + 1 for offset in offsets]
    weight = np.zeros((shape[1], 1, *size), np.float32)
    weight[:, 0, -1, -1] = 1
    name = f"{cut.output[0]}_picked"
    if graph.producer(name) is None:
        kernel_name = graph.constant(weight, f"{name}_kernel")
        graph.insert_before(
            node,
            "Conv",
            [cut.input[0], kernel_name],
            name,
            kernel_shape=size,
            strides=[2, 2],
            group=shape[1],
        )
    values |= {"strides": [1, 1], "dilations": [1, 1], "pads": [0] * 4}
    graph.replace(node, "Conv", [name, *node.input[1:]], **values)


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


def _affine_into_convolution(graph: Graph, node: onnx.NodeProto) -> None:
    """Batch norm after a convolution, or after a concatenation of some: into their kernels and biases."""
    affine = _affine(graph, node)
    if affine is None or node.output[0] in graph.outputs:
        return
    name, scale, shift = affine
    if _can_absorb(graph, name, node):
        _absorb(graph, name, scale, shift)
        graph.bypass(node, name)


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


def _affine_to_convolution(graph: Graph, node: onnx.NodeProto) -> None:
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


def _follows_convolution(graph: Graph, name: str) -> bool:
    """Returns whether a tensor comes of a convolution; what does not, as pixels, may still be NHWC."""
    node = graph.producer(name)
    return node is not None and (node.op_type == "Conv" or _follows_convolution(graph, node.input[0]))


def _relu_before_concatenation(graph: Graph, node: onnx.NodeProto) -> None:
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


def _global_average_pool(graph: Graph, node: onnx.NodeProto) -> None:
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


def _dense_to_gemm(graph: Graph, node: onnx.NodeProto) -> None:
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


def _name_by_layer(graph: Graph, layers: Collection[str]) -> None:
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


_TO_THE_END = 10**9  # tf2onnx writes it for an open end of a slice
_TO_NHWC, _TO_NCHW = [0, 2, 3, 1], [0, 3, 1, 2]

"""What stands around a convolution and is an argument of it: groups, padding, strided slices."""

from __future__ import annotations

import numpy as np
import onnx

from gdas_tf.export.onnx_passes.graph import Graph, attributes

_TO_THE_END = 10**9  # tf2onnx writes it for an open end of a slice


def merge_groups(graph: Graph, node: onnx.NodeProto) -> None:
    """Split, one convolution for each part, concatenation: a grouped convolution.

    TensorFlow has no grouped convolution on the CPU; networks with the fixed reduction cell have eight
    convolutions in the place of each of theirs.
    """
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


def slice_into_convolution(graph: Graph, node: onnx.NodeProto) -> None:
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
        slice_into_convolution(graph, whole)  # a cropping before a pooling is another one
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


def pad_into_convolution(graph: Graph, node: onnx.NodeProto) -> None:
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

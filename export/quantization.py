"""ONNX float32 -> int8: static post-training quantisation by onnxruntime, for CPUs with 8-bit products.

The graph is first brought into a form whose operators onnxruntime computes well in 8 bits (see `prepare`),
then calibrated on training images and quantised: unsigned 8-bit activations, signed weights of 7 bits with a
scale for each output channel, written as QuantizeLinear / DequantizeLinear pairs around each operator.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from gdas_tf.export.inference import open_session
from gdas_tf.export.onnx_model import INPUT
from gdas_tf.export.onnx_passes import Graph, attributes, set_metadata

CHANNELS = 16
"""Channels are padded to a multiple of this: MLAS computes a remainder of depthwise channels one by one."""

METHODS = ("minmax", "percentile", "entropy")
"""Ways to find the range of an activation, in the order in which they are tried."""

ENOUGH = 0.99
"""Share of training images that must keep their class for a calibration to be taken without trying others."""

_BATCH = 32
_OPERATORS = [
    "Conv",
    "Gemm",
    "Add",
    "Mul",
    "Concat",
    "MaxPool",
    "GlobalAveragePool",
    "Flatten",
    "Relu",
    "LeakyRelu",
]
_CHANNELWISE = ("Relu", "MaxPool", "AveragePool", "GlobalAveragePool", "Flatten", "Mul")
_POOL_MAP = "border_of_mean"


@dataclass(frozen=True)
class Quantized:
    """A quantised model, and how it was come by.

    Args:
        model: the model.
        method: the calibration that was taken.
        agreement: for each calibration that was tried, the share of the training images it was tried on that
            keep the class of the float model.
    """

    model: onnx.ModelProto
    method: str
    agreement: dict[str, float]


def quantize(model: onnx.ModelProto, images: np.ndarray) -> Quantized:
    """Quantises a model, with the first calibration that keeps 99 % of the classes, else with the best one.

    Args:
        model: float32 network as `to_onnx` makes it.
        images: training images, float32 [n, H, W, C] in [0, 1]. Every other image is used to calibrate, the
            rest to compare the classes with those of the float model.

    Returns:
        The model of the best calibration, with float32 input and output.

    Example:
        >>> save_onnx(quantize(onnx.load("model.onnx"), images).model, "model_int8.onnx")
    """
    calibration, trial = (images[::2], images[1::2]) if len(images) > 1 else (images, images)
    wanted = _classes(model, trial)
    prepared = prepare(model)
    agreement: dict[str, float] = {}
    best: tuple[float, str, onnx.ModelProto] | None = None
    for method in METHODS:
        quantized = _quantize(prepared, calibration, method)
        agreement[method] = float((_classes(quantized, trial) == wanted).mean())
        if best is None or agreement[method] > best[0]:
            best = agreement[method], method, quantized
        if best[0] >= ENOUGH:
            break
    return Quantized(best[2], best[1], agreement)


def prepare(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the same float32 function in operators that onnxruntime computes well in 8 bits.

    - The two branches of a factorized reduction become one 2x2 convolution of stride 2.
    - Grouped convolutions that are not depthwise become dense.
    - Average pooling, which is slow in 8 bits, becomes a depthwise convolution, and a factor at the border,
      where the window holds fewer pixels.
    - Channels are padded with zeros to a multiple of 16.
    - A ReLU of a tensor that is read elsewhere, too, stays an operator of its own (a leaky ReLU of slope 0,
      for which there is an 8-bit kernel); all others become the lower end of a range.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = Graph(copy)
    for change in (_join_reduction, _densify, _mean_to_convolution):
        for node in list(graph.nodes):
            change(graph, node)
        graph.sweep()
    _pad_channels(graph)
    for node in list(graph.nodes):
        if node.op_type == "Relu" and not graph.feeds_only(node.input[0], node):
            graph.replace(node, "LeakyRelu", node.input, alpha=0.0)
    result = graph.to_model()
    onnx.checker.check_model(result, full_check=True)
    return result


def _join_reduction(graph: Graph, node: onnx.NodeProto) -> None:
    if node.op_type != "Concat" or len(node.input) != 2:
        return
    branches = [graph.producer(name) for name in node.input]
    if any(
        branch is None
        or branch.op_type != "Conv"
        or not graph.feeds_only(branch.output[0], node)
        or graph.constants[branch.input[1]].shape[2:] != (1, 1)
        for branch in branches
    ):
        return
    seen = [_pixels_seen(graph, branch) for branch in branches]
    if None in seen or seen[0][0] != seen[1][0] or seen[0][1] == seen[1][1]:
        return
    weights = [graph.constants[branch.input[1]] for branch in branches]
    weight = np.zeros((sum(map(len, weights)), weights[0].shape[1], 2, 2), np.float32)
    start = 0
    for part, (_, (row, column), _) in zip(weights, seen, strict=True):
        weight[start : start + len(part), :, row, column] = part[:, :, 0, 0]
        start += len(part)
    names = [
        graph.constant(weight, f"{node.output[0]}.kernel"),
        graph.constant(
            np.concatenate([_bias(graph, branch) for branch in branches]), f"{node.output[0]}.bias"
        ),
    ]
    pads = [max(sides) for sides in zip(*(pads for _, _, pads in seen), strict=True)]
    options = {"kernel_shape": [2, 2], "strides": [2, 2], "pads": pads}
    graph.replace(node, "Conv", [seen[0][0], *names], **options)


def _pixels_seen(graph: Graph, branch: onnx.NodeProto) -> tuple[str, tuple[int, int], list[int]] | None:
    """Returns of a 1x1 convolution its image, which pixel (row, column) of each 2x2 block it sees, and
    the padding; None of another one than a branch of a factorized reduction.

    It has stride 2 itself, or follows a depthwise convolution of stride 2 that picks the pixels.
    """
    picked = graph.producer(branch.input[0])
    pick = graph.constants.get(picked.input[1]) if picked is not None and picked.op_type == "Conv" else None
    strides = attributes(branch).get("strides", [1, 1])
    if strides == [2, 2]:
        return branch.input[0], (0, 0), attributes(branch).get("pads", [0] * 4)
    if pick is None or strides != [1, 1] or attributes(picked).get("strides") != [2, 2]:
        return None
    row, column = (size - 1 for size in pick.shape[2:])
    if (
        pick.shape[1] != 1
        or max(row, column) > 1
        or np.any(pick.sum((2, 3)) != 1)
        or np.any(pick[..., row, column] != 1)
    ):
        return None
    return picked.input[0], (row, column), attributes(picked).get("pads", [0] * 4)


def _bias(graph: Graph, node: onnx.NodeProto) -> np.ndarray:
    if len(node.input) > 2:
        return graph.constants[node.input[2]]
    return np.zeros(len(graph.constants[node.input[1]]), np.float32)


def _densify(graph: Graph, node: onnx.NodeProto) -> None:
    if node.op_type != "Conv":
        return
    weight, options = graph.constants[node.input[1]], attributes(node)
    groups = options.get("group", 1)
    if groups == 1 or weight.shape[1] == 1:
        return
    outputs, inputs = len(weight) // groups, weight.shape[1]
    dense = np.zeros((len(weight), inputs * groups, *weight.shape[2:]), np.float32)
    for group in range(groups):
        rows = slice(group * outputs, (group + 1) * outputs)
        dense[rows, group * inputs : (group + 1) * inputs] = weight[rows]
    kernel = graph.constant(dense, f"{node.output[0]}.dense_kernel")
    graph.replace(node, "Conv", [node.input[0], kernel, *node.input[2:]], **options | {"group": 1})


def _mean_to_convolution(graph: Graph, node: onnx.NodeProto) -> None:
    if node.op_type != "AveragePool":
        return
    before, after = graph.shapes[node.input[0]], graph.shapes[node.output[0]]
    options = attributes(node)
    kernel, strides = options["kernel_shape"], options.get("strides", [1, 1])
    pads = options.get("pads", [0] * 4)
    if (
        None in (*before[1:], *after[1:])
        or options.get("ceil_mode")
        or options.get("dilations", [1, 1]) != [1, 1]
    ):
        return
    output = node.output[0]
    weight = np.full((before[1], 1, *kernel), 1 / (kernel[0] * kernel[1]), np.float32)
    names = [node.input[0], graph.constant(weight, f"{output}.kernel")]
    convolution = {"kernel_shape": kernel, "strides": strides, "pads": pads, "group": before[1]}
    if options.get("count_include_pad") or not any(pads):
        graph.replace(node, "Conv", names, **convolution)
        return
    counts = []
    for axis in range(2):
        starts = np.arange(after[axis + 2]) * strides[axis] - pads[axis]
        ends = np.minimum(starts + kernel[axis], before[axis + 2])
        counts.append(ends - np.maximum(starts, 0))
    factors = kernel[0] * kernel[1] / np.outer(*counts)
    graph.insert_before(node, "Conv", names, f"{output}.sum", **convolution)
    constant = graph.constant(factors[None, None].astype(np.float32), f"{output}.{_POOL_MAP}")
    graph.replace(node, "Mul", [f"{output}.sum", constant])


def _pad_channels(graph: Graph) -> None:
    """Pads channels with zeros to multiples of 16; leaves a graph alone in which it doesn't know a node."""
    places: dict[str, tuple[np.ndarray, int]] = {}  # where a tensor's channels are, and of how many
    nodes: list[tuple[onnx.NodeProto, list[str], dict[str, Any]]] = []
    constants: dict[str, np.ndarray] = {}

    def spread(values: np.ndarray, place: tuple[np.ndarray, int], axis: int = 0) -> np.ndarray:
        shape = list(values.shape)
        shape[axis] = place[1]
        result = np.zeros(shape, values.dtype)
        result[(slice(None),) * axis + (place[0],)] = values
        return result

    for node in graph.nodes:
        inputs, options, source = list(node.input), attributes(node), places.get(node.input[0])
        place = source
        if node.op_type == "Conv":
            weight, bias = graph.constants[node.input[1]], _bias(graph, node)
            if options.get("group", 1) == 1:
                if source:
                    weight = spread(weight, source, 1)
                count = len(weight)
                place = np.arange(count), -(-count // CHANNELS) * CHANNELS
                weight, bias = spread(weight, place), spread(bias, place)
            elif source:
                weight, bias = spread(weight, source), spread(bias, source)
                options["group"] = source[1]
            inputs[1:] = [f"{node.output[0]}.padded_kernel", f"{node.output[0]}.padded_bias"]
            constants |= dict(zip(inputs[1:], (weight, bias), strict=True))
        elif node.op_type == "Concat":
            parts, start = [], 0
            for name in node.input:
                channels = graph.shapes[name][1]
                positions, size = places.get(name, (np.arange(channels), channels))
                parts.append(positions + start)
                start += size
            place = np.concatenate(parts), start
        elif node.op_type == "Add":
            other = places.get(node.input[1])
            if (source is None) != (other is None) or (source and not np.array_equal(source[0], other[0])):
                return
        elif node.op_type == "Gemm":
            if source:
                inputs[1] = f"{node.output[0]}.padded_kernel"
                constants[inputs[1]] = spread(graph.constants[node.input[1]], source)
            place = None
        elif source and node.op_type not in _CHANNELWISE:
            return
        if place is not None:
            places[node.output[0]] = place
        nodes.append((node, inputs, options))
    graph.constants |= constants
    for node, inputs, options in nodes:
        graph.replace(node, node.op_type, inputs, **options)


def _quantize(model: onnx.ModelProto, images: np.ndarray, method: str) -> onnx.ModelProto:
    """Calibrates on images, float32 [n, H, W, C], and quantises."""
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        """Gives the images in batches: one to a call of the calibrator, which keeps what it is given."""

        def __init__(self) -> None:
            self.starts: list[int] = list(range(0, len(images), _BATCH))
            self.chosen: Iterator[int] = iter(self.starts)

        def __len__(self) -> int:
            return len(self.starts)

        def set_range(self, start_index: int, end_index: int) -> None:
            self.chosen = iter(self.starts[start_index:end_index])

        def get_next(self) -> dict[str, np.ndarray] | None:
            start = next(self.chosen, None)
            return None if start is None else {INPUT: images[start : start + _BATCH]}

    unsigned = quantization.QuantType.QUInt8
    settings = {
        "CalibStridedMinMax": 1,
        "OpTypesToExcludeOutputQuantization": ["Gemm"],
        # 1, 3/2, 9/4, …: quarters are exact.
        "TensorQuantOverrides": {
            item.name: [{"quant_type": unsigned, "scale": np.float32(0.25), "zero_point": np.uint8(0)}]
            for item in model.graph.initializer
            if item.name.endswith(_POOL_MAP)
        },
    }
    if method == "percentile":
        settings |= {"CalibPercentile": 99.99, "CalibTensorRangeSymmetric": False}
    kinds = {
        "minmax": quantization.CalibrationMethod.MinMax,
        "percentile": quantization.CalibrationMethod.Percentile,
        "entropy": quantization.CalibrationMethod.Entropy,
    }
    with tempfile.TemporaryDirectory() as folder, _quiet():
        # As a file: onnxruntime writes a model in memory with its weights beside it, which onnx 1.23 refused
        # to read ("not regular file") in `gdas-tf export` of a CIFAR-10 run; why, was not found.
        source, path = Path(folder) / "float.onnx", Path(folder) / "quantized.onnx"
        onnx.save_model(model, source)
        quantization.quantize_static(
            source,
            path,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=_OPERATORS,
            per_channel=True,
            activation_type=unsigned,
            weight_type=quantization.QuantType.QInt8,
            # 7 bits: without VNNI a processor adds two products in 16 bits, and those of 8 bits overflow.
            reduce_range=True,
            nodes_to_exclude=_standardization(model),
            calibrate_method=kinds[method],
            extra_options=settings,
        )
        result = onnx.load(path)
    result.producer_name, result.producer_version = model.producer_name, model.producer_version
    set_metadata(result, {"precision": "int8"})
    return result


def _standardization(model: onnx.ModelProto) -> list[str]:
    """Returns the nodes before the first convolution: pixels are standardised in full precision."""
    names = []
    for node in model.graph.node:
        if node.op_type == "Conv":
            break
        names.append(node.name)
    return names


def _classes(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = open_session(model.SerializeToString())
    starts = range(0, len(images), _BATCH)
    outputs = [session.run(None, {INPUT: images[start : start + _BATCH]})[0] for start in starts]
    return np.concatenate(outputs).argmax(1)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps onnxruntime's quantiser from logging advice that is followed already, and from printing."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)

"""Keras network -> ONNX file: one graph, readable names, and metadata with what a user of the file needs."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from gdas_tf import __version__
from gdas_tf.export.onnx_passes import clean_up
from gdas_tf.files import writing

if TYPE_CHECKING:
    import keras
    from tensorflow.core.framework.graph_pb2 import GraphDef

    from gdas_tf.data.identity import DataIdentity
    from gdas_tf.spaces.genotype import Genotype

OPSET = 18
"""The newest operator set that tf2onnx writes."""

INPUT, OUTPUT = "image", "probabilities"


def to_onnx(model: keras.Model, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """Converts an image classifier.

    Args:
        model: functional Keras model of float32 images [B, H, W, C] in [0, 1], which returns probabilities
            float32 [B, classes].
        metadata: of the file, as `describe` makes it.

    Returns:
        A model with input `image` [batch, H, W, C] and output `probabilities` [batch, classes], the batch
        being of any size. The same network gives the same bytes, in another process, too.

    Example:
        >>> save_onnx(to_onnx(model, describe(model, ("cat", "dog"))), "model.onnx")
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    function = tf.function(lambda image: model(image, training=False), autograph=False)
    with _quiet():
        import tf2onnx

        concrete = function.get_concrete_function(tf.TensorSpec((None, *model.input_shape[1:]), name=INPUT))
        # tf2onnx.convert.from_function would take the constants of the normalization for further inputs.
        frozen = convert_variables_to_constants_v2(
            concrete, lower_control_flow=False, aggressive_inlining=True
        )
        source, target = frozen.inputs[0].name, frozen.outputs[0].name
        converted, _ = tf2onnx.convert.from_graph_def(
            _compute_once(frozen.graph.as_graph_def(add_shapes=True), frozen.outputs[0].op.name),
            input_names=[source],
            output_names=[target],
            opset=OPSET,
            tensors_to_rename={source: INPUT, target: OUTPUT},
        )
    for item in (*converted.graph.input, *converted.graph.output):
        item.type.tensor_type.shape.dim[0].dim_param = "batch"
    result = clean_up(converted, {layer.name for layer in model.layers})
    del result.opset_import[:]
    result.opset_import.append(onnx.helper.make_opsetid("", OPSET))
    result.graph.name = model.name
    result.producer_name, result.producer_version = "gdas-tf", __version__
    onnx.helper.set_model_props(result, metadata)
    onnx.checker.check_model(result, full_check=True)
    return result


def describe(
    model: keras.Model,
    class_names: Sequence[str],
    genotype: Genotype | None = None,
    accuracy: float | None = None,
    trained_on: DataIdentity | None = None,
) -> dict[str, str]:
    """Returns the metadata of an ONNX file; all values are text.

    Args:
        model: the network.
        class_names: one per output.
        genotype: of the network.
        accuracy: on held-out images, as a fraction.
        trained_on: of the data that the network was made on.

    Returns:
        As JSON: `class_names` (list), `image_shape` ([H, W, C]), `mean` and `std` (per channel, applied
        inside the graph), `parameters` (trained weights), and where they are known `genotype` (object),
        `accuracy` and `data` (object: `DataIdentity.to_json`); as plain text: `input_range` ("0..1"),
        `precision` ("float32"), `producer`.
    """
    import keras

    from gdas_tf.networks.derived import count_parameters

    values: dict[str, Any] = {
        "class_names": list(class_names),
        "image_shape": list(model.input_shape[1:]),
        "parameters": count_parameters(model),
    }
    normalization = next(
        (item for item in model.layers if isinstance(item, keras.layers.Normalization)), None
    )
    if normalization is not None:
        values["mean"] = keras.ops.convert_to_numpy(normalization.mean).reshape(-1).tolist()
        variance = keras.ops.convert_to_numpy(normalization.variance).reshape(-1)
        values["std"] = (variance**0.5).tolist()
    if genotype is not None:
        values["genotype"] = genotype.to_json()
    if accuracy is not None:
        values["accuracy"] = accuracy
    if trained_on is not None:
        values["data"] = trained_on.to_json()
    metadata = {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()}
    return metadata | {
        "input_range": "0..1",
        "precision": "float32",
        "producer": f"gdas-tf {__version__}",
    }


def save_onnx(model: onnx.ModelProto, path: str | Path) -> None:
    """Writes a model to a file.

    Raises:
        RunError: the disk is full or read-only.
    """
    with writing(Path(path)):
        Path(path).write_bytes(model.SerializeToString(deterministic=True))


def _compute_once(graph: GraphDef, target: str) -> GraphDef:
    """Returns a graph in which nodes that compute the same, as the ReLU before each edge, are one node.

    tf2onnx would do it, too, but leaves one or the other of them, with its layer's name, by chance.

    Args:
        graph: frozen graph without control inputs, each node of which stands after those that it reads.
        target: name of the node that must stay.
    """
    import tensorflow as tf

    result = type(graph)()
    result.CopyFrom(graph)
    del result.node[:]
    kept: dict[tuple[str, ...], str] = {}
    merged: dict[str, str] = {}  # name of a node that was left out -> that of the one in its place
    for node in graph.node:
        inputs = []
        for name in node.input:
            producer, colon, output = name.partition(":")
            inputs.append(merged.get(producer, producer) + colon + output)
        # Constants of numbers with a fraction are weights: each stays with its layer.
        weights = node.op == "Const" and tf.as_dtype(node.attr["dtype"].type).is_floating
        if node.op != "Placeholder" and node.name != target and not weights:
            values = (f"{key}={node.attr[key].SerializeToString(deterministic=True)!r}" for key in node.attr)
            first = kept.setdefault((node.op, *inputs, *sorted(values)), node.name)
            if first != node.name:
                merged[node.name] = first
                continue
        copy = result.node.add()
        copy.CopyFrom(node)
        copy.input[:] = inputs
    return result


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps tf2onnx and TensorFlow from reporting each step, and deprecations that are tf2onnx' own."""
    loggers = [logging.getLogger(name) for name in ("tensorflow", "tf2onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

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
from gdas_tf.export.onnx_graph import clean_up
from gdas_tf.files import writing

if TYPE_CHECKING:
    import keras

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
        being of any size.

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
            frozen.graph.as_graph_def(add_shapes=True),
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

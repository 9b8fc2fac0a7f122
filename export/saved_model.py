"""Keras network -> TensorFlow SavedModel with named signatures."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from gdas_tf.files import write_json, writing

if TYPE_CHECKING:
    import keras
    from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

    from gdas_tf.data.identity import DataIdentity

SIGNATURES = ("serving_default", "serving_pixels")


def save_saved_model(model: keras.Model, path: str | Path, trained_on: DataIdentity | None = None) -> None:
    """Writes a SavedModel.

    Its signatures take `image` [B, H, W, C] and return `probabilities` float32 [B, classes]:
    `serving_default` takes float32 in [0, 1], `serving_pixels` uint8 in 0..255. The normalisation is inside.
    The same network gives the same bytes in all files.

    Args:
        model: functional Keras model of float32 images in [0, 1], which returns probabilities.
        path: the folder to make.
        trained_on: of the data that the network was made on; with the class names it goes to
            `assets.extra/data.json`, as TensorFlow calls the folder of what is the user's own.

    Raises:
        RunError: the disk is full or read-only.

    Example:
        >>> save_saved_model(model, "saved_model")
        >>> classify = tf.saved_model.load("saved_model").signatures["serving_pixels"]
        >>> classify(image=pixels)["probabilities"]
    """
    import tensorflow as tf

    shape = (None, *model.input_shape[1:])

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32, name="image")], autograph=False)
    def of_floats(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": model(image, training=False)}

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.uint8, name="image")], autograph=False)
    def of_pixels(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return of_floats(tf.cast(image, tf.float32) / 255.0)

    # keras.export.ExportArchive writes the same signatures, but also every layer as an object, which takes
    # three times as long to write and twice the space.
    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    signatures = dict(zip(SIGNATURES, (of_floats, of_pixels), strict=True))
    with writing(Path(path)):
        # It is not trained on; and with the gradients of some activations (silu) it could not be loaded.
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(module, str(path), signatures, options)
        _take_out_chance(Path(path))
        if trained_on is not None:
            write_json(Path(path) / "assets.extra" / "data.json", trained_on.to_json())


def _take_out_chance(path: Path) -> None:
    """Rewrites what TensorFlow makes anew in each save: numbers of functions, their order, an identity.

    TensorFlow numbers functions and captured tensors through a process, writes the functions in the order of
    a hash table, and puts a random number into `fingerprint.pb`. That number is derived here from the
    fingerprint's other figures, which are computed of the files. One of these, the hash of the object graph,
    TensorFlow computes in the order of a hash table, too; here it is that of the sorted graph.
    """
    from tensorflow.core.protobuf.fingerprint_pb2 import FingerprintDef
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
    from tensorflow.python.saved_model.pywrap_saved_model import fingerprinting

    file = path / "saved_model.pb"
    saved = SavedModel.FromString(file.read_bytes())
    for graph in saved.meta_graphs:
        _number_functions(graph)
    file.write_bytes(saved.SerializeToString(deterministic=True))
    fingerprint = FingerprintDef.FromString(fingerprinting.CreateFingerprintDef(str(path)))
    objects = saved.meta_graphs[0].object_graph_def.SerializeToString(deterministic=True)
    fingerprint.saved_object_graph_hash = _number(objects, 8)
    fingerprint.uuid = ""
    fingerprint.uuid = str(_number(fingerprint.SerializeToString(deterministic=True), 16))
    (path / "fingerprint.pb").write_bytes(fingerprint.SerializeToString(deterministic=True))


def _number(content: bytes, size: int) -> int:
    """Returns a hash as a number of so many bytes."""
    return int.from_bytes(hashlib.sha256(content).digest()[:size], "big")


def _number_functions(graph: MetaGraphDef) -> None:
    """Numbers the functions of a graph, and the tensors that they capture, from 0 in each graph."""
    functions = graph.graph_def.library.function
    new_names: dict[str, str] = {}
    taken: dict[str, int] = {}
    for old in sorted((function.signature.name for function in functions), key=_parts_of_name):
        stem = _parts_of_name(old)[0]
        new_names[old] = f"{stem}_{taken.get(stem, 0)}"
        taken[stem] = taken.get(stem, 0) + 1

    nodes = [*graph.graph_def.node, *(node for function in functions for node in function.node_def)]
    for node in nodes:
        for value in node.attr.values():
            for called in (value.func, *value.list.func):
                if called.name:
                    called.name = new_names.get(called.name, called.name)
    for function in functions:
        function.signature.name = new_names[function.signature.name]
        for position in sorted(function.arg_attr):
            name = function.arg_attr[position].attr["_user_specified_name"]
            if name.s.isdigit():
                name.s = str(position).encode()
    ordered = sorted(functions, key=lambda function: function.signature.name)
    del functions[:]
    functions.extend(ordered)

    objects = graph.object_graph_def
    for item in objects.nodes:
        # Only in what the object is: to set a field of another kind would make it that kind.
        if item.HasField("bare_concrete_function"):
            bare = item.bare_concrete_function
            bare.concrete_function_name = new_names[bare.concrete_function_name]
        elif item.HasField("function"):
            names = item.function.concrete_functions
            names[:] = [new_names[name] for name in names]
    for old in list(objects.concrete_functions):
        about = type(objects.concrete_functions[old])()
        about.CopyFrom(objects.concrete_functions[old])
        del objects.concrete_functions[old]
        objects.concrete_functions[new_names[old]].CopyFrom(about)


def _parts_of_name(name: str) -> tuple[str, int]:
    """Returns the name of a function without its number, and the number: ("__inference_f", 12)."""
    match = re.fullmatch(r"(.*?)_?(\d*)", name, re.DOTALL)
    return match[1], int(match[2] or 0)

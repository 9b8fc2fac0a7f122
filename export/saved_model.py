"""Keras network -> TensorFlow SavedModel with named signatures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gdas_tf.files import write_json, writing

if TYPE_CHECKING:
    import keras

    from gdas_tf.data.identity import DataIdentity

SIGNATURES = ("serving_default", "serving_pixels")


def save_saved_model(model: keras.Model, path: str | Path, trained_on: DataIdentity | None = None) -> None:
    """Writes a SavedModel.

    Its signatures take `image` [B, H, W, C] and return `probabilities` float32 [B, classes]:
    `serving_default` takes float32 in [0, 1], `serving_pixels` uint8 in 0..255. The normalisation is inside.

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
        tf.saved_model.save(module, str(path), signatures)
        if trained_on is not None:
            write_json(Path(path) / "assets.extra" / "data.json", trained_on.to_json())

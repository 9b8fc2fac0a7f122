"""What a network that somebody thought out has around its layers: standardization, head, softmax."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gdas_tf.keras_backend import check_settings, keras
from gdas_tf.networks.builder import Builder


def whole_network(
    body: Callable[[Builder, Any], Any],
    image_shape: Sequence[int],
    classes: int,
    *,
    training: bool = False,
    initializer: str = "torch",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int | None = None,
    dtype: str | None = None,
    name: str | None = None,
    **others: Any,
) -> keras.Model:
    """Builds a network of standardization, a body, global average pooling and a dense layer.

    Args:
        body: adds its layers by a builder; of the standardized images [B, H, W, C] it gives features of four
            dimensions.
        image_shape: (height, width, channels) of an image.
        classes: number of classes.
        training, initializer, mean, std, seed, dtype, name: as of
            `gdas_tf.networks.derived.build_network`.
        others: options of networks that are built of cells; they are passed over.

    Returns:
        A functional model of `image`, float32 [B, H, W, channels] in [0, 1]: to be trained, of
        {"logits": [B, classes]}, deployed, of `probabilities` [B, classes].
    """
    check_settings()
    builder = Builder(training=training, seed=seed, dtype=dtype, initial=initializer)
    image = keras.Input(image_shape, name="image", dtype="float32")
    logits = builder.classify(body(builder, builder.standardize(image, mean, std)), classes, "logits")
    if training:
        return keras.Model(image, {"logits": logits}, name=name or "training_network")
    probabilities = keras.layers.Softmax(name="probabilities", dtype="float32")(logits)
    return keras.Model(image, probabilities, name=name or "network")

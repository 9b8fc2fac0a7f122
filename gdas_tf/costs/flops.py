"""Multiply-adds of a network, as the papers on architecture search count them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def multiply_adds(model: keras.Model) -> int:
    """Returns the multiply-adds of the convolutions and dense layers for one image.

    This is what papers call FLOPs, or MACs. Pooling, batch norm and activations are left out, and so is the
    bias. Padding is counted as if it were image, as all counters do.

    Args:
        model: a functional model of images of a fixed size.

    Example:
        >>> multiply_adds(build_network(GENOTYPES["GDAS_V1"], (32, 32, 3), 10))  # doctest: +SKIP
    """
    from gdas_tf.keras_backend import keras

    layers = keras.layers
    total = 0
    for layer in model.layers:
        calls = len(layer._inbound_nodes)
        if isinstance(layer, keras.Model):
            total += calls * multiply_adds(layer)
        elif isinstance(layer, layers.SeparableConv2D):
            raise NotImplementedError("SeparableConv2D: count its two convolutions as layers of their own")
        elif isinstance(layer, layers.Conv2DTranspose):
            height, width = layer.input.shape[1:3]
            total += calls * height * width * math.prod(layer.kernel.shape)
        elif isinstance(layer, layers.DepthwiseConv2D | layers.Conv2D):
            # A kernel is [height, width, inputs of a group, outputs], or [height, width, inputs, 1].
            height, width = layer.output.shape[1:3]
            total += calls * height * width * math.prod(layer.kernel.shape)
        elif isinstance(layer, layers.Dense):
            positions = math.prod(layer.output.shape[1:-1])
            total += calls * positions * math.prod(layer.kernel.shape)
    return total

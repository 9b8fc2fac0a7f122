"""Densely connected networks for CIFAR: `densenet_bc_100_12`, `densenet_bc_190_40`.

Huang, Liu, van der Maaten & Weinberger, "Densely Connected Convolutional Networks" (CVPR 2017, arXiv
1608.06993), section 3, DenseNet-BC: a 3x3 convolution of 2k channels, three blocks of (L - 4) / 6 layers, and
between them transitions that halve channels, height and width; batch norm, ReLU, global average pooling and a
dense layer. A layer of a block is batch norm, ReLU, 1x1 convolution of 4k channels, batch norm, ReLU, 3x3
convolution of k channels, which are concatenated to what it takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from gdas_tf.errors import UsageError
from gdas_tf.networks.registry import NETWORKS, Network

if TYPE_CHECKING:
    import keras

    from gdas_tf.networks.builder import Builder
    from gdas_tf.spaces.genotype import Genotype

_BLOCKS = 3


def build_densenet(
    genotype: Genotype | None,
    image_shape: Sequence[int],
    classes: int,
    *,
    depth: int = 100,
    growth: int = 12,
    **options: Any,
) -> keras.Model:
    """Builds a DenseNet-BC, whose transitions keep half of the channels.

    Args:
        genotype: not looked at.
        image_shape: (height, width, channels) of an image.
        classes: number of classes.
        depth: L, the number of layers with weights, 6n + 4.
        growth: k, the channels that a layer adds.
        options: as of `gdas_tf.networks.whole.whole_network`.

    Raises:
        UsageError: the depth is no such number.

    Example:
        >>> count_parameters(build_densenet(None, (32, 32, 3), 10))
        769162
    """
    from gdas_tf.networks.whole import whole_network

    if depth < 10 or (depth - 4) % 6:
        raise UsageError(f"densenet: depth is {depth}; accepted are 10, 16, 22, 28, …: 6 n + 4")

    def body(build: Builder, x: Any) -> Any:
        x = build.conv(x, 2 * growth, 3, "stem_conv")
        for block in range(_BLOCKS):
            if block:
                x = _norm_relu_conv(build, x, x.shape[-1] // 2, 1, f"transition{block}")
                x = build.average_pool(x, 2, 2, f"transition{block}_pool")
            for number in range((depth - 4) // 6):
                x = _layer(build, x, growth, f"block{block}_layer{number}")
        return build.relu(build.batch_norm(x, "head_bn"), "head_relu")

    return whole_network(body, image_shape, classes, **options)


def _layer(build: Builder, x: Any, growth: int, name: str) -> Any:
    from gdas_tf.keras_backend import keras

    added = _norm_relu_conv(build, x, 4 * growth, 1, f"{name}_bottleneck")
    added = _norm_relu_conv(build, added, growth, 3, f"{name}_growth")
    return keras.layers.Concatenate(name=f"{name}_concat", dtype=build.dtype)([x, added])


def _norm_relu_conv(build: Builder, x: Any, channels: int, size: int, name: str) -> Any:
    x = build.relu(build.batch_norm(x, f"{name}_bn"), f"{name}_relu")
    return build.conv(x, channels, size, f"{name}_conv")


for _depth, _growth in ((100, 12), (190, 40)):
    NETWORKS.register(
        f"densenet_bc_{_depth}_{_growth}",
        Network(partial(build_densenet, depth=_depth, growth=_growth), takes_genotype=False),
    )

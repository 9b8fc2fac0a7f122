"""Residual networks for CIFAR: `resnet20`, `resnet56`, `resnet110`.

He, Zhang, Ren & Sun, "Deep Residual Learning for Image Recognition" (CVPR 2016, arXiv 1512.03385), section
4.2: a 3x3 convolution, three stages of n blocks with 16, 32 and 64 channels, global average pooling and a
dense layer; 6n + 2 layers. A block is convolution, batch norm, ReLU, convolution, batch norm, the sum with
its input, ReLU. Where a stage begins with stride 2, the input is subsampled and gets channels of zeros (their
option A), so that the shortcuts have no weights.
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

_STAGES = 3


def build_resnet(
    genotype: Genotype | None,
    image_shape: Sequence[int],
    classes: int,
    *,
    depth: int = 110,
    width: int = 16,
    **options: Any,
) -> keras.Model:
    """Builds a residual network of basic blocks.

    Args:
        genotype: not looked at.
        image_shape: (height, width, channels) of an image.
        classes: number of classes.
        depth: number of layers with weights, 6n + 2.
        width: channels of the first stage; the later ones have two and four times as many.
        options: as of `gdas_tf.networks.whole.whole_network`.

    Raises:
        UsageError: the depth is no such number.

    Example:
        >>> count_parameters(build_resnet(None, (32, 32, 3), 10, depth=20))
        269722
    """
    from gdas_tf.networks.whole import whole_network

    if depth < 8 or (depth - 2) % 6:
        raise UsageError(f"resnet: depth is {depth}; accepted are 8, 14, 20, 26, …: 6 n + 2")

    def body(build: Builder, x: Any) -> Any:
        x = build.conv(x, width, 3, "stem_conv")
        x = build.relu(build.batch_norm(x, "stem_bn"), "stem_relu")
        for stage in range(_STAGES):
            for number in range((depth - 2) // 6):
                stride = 2 if stage and not number else 1
                x = _block(build, x, width * 2**stage, stride, f"stage{stage}_block{number}")
        return x

    return whole_network(body, image_shape, classes, **options)


def _block(build: Builder, x: Any, channels: int, stride: int, name: str) -> Any:
    from gdas_tf.keras_backend import keras

    shortcut = x
    x = build.conv(x, channels, 3, f"{name}_conv0", strides=stride)
    x = build.relu(build.batch_norm(x, f"{name}_bn0"), f"{name}_relu0")
    x = build.batch_norm(build.conv(x, channels, 3, f"{name}_conv1"), f"{name}_bn1")
    if stride > 1:
        # The pixels that the convolution of stride 2 is centred on.
        shortcut = build.every_second(build.centred(shortcut, name), f"{name}_pixels")
        parts = [shortcut, build.zeros(shortcut, 1, f"{name}_padding")]
        shortcut = keras.layers.Concatenate(name=f"{name}_shortcut", dtype=build.dtype)(parts)
    x = keras.layers.Add(name=f"{name}_sum", dtype=build.dtype)([x, shortcut])
    return build.relu(x, f"{name}_relu1")


for _depth in (20, 56, 110):
    NETWORKS.register(f"resnet{_depth}", Network(partial(build_resnet, depth=_depth), takes_genotype=False))

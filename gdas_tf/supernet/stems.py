"""The first layers of the supernet: images to what the first cell takes."""

from __future__ import annotations

import tensorflow as tf

from gdas_tf.errors import UsageError
from gdas_tf.keras_backend import keras
from gdas_tf.numerics.primitives import convolution, relu
from gdas_tf.operations.base import Shape, Update
from gdas_tf.operations.initializers import FanInUniform
from gdas_tf.spaces.base import SearchSpace
from gdas_tf.supernet.layers import BatchNorm, SupernetLayer


@keras.saving.register_keras_serializable("gdas_tf")
class CifarStem(SupernetLayer):
    """3x3 convolution and batch norm, for images of up to 64x64 pixels.

    Args:
        filters: Channels of the output.

    Input: images [B, H, W, C]. Output: a tuple of one tensor [B, H, W, filters], for both inputs of a cell.
    """

    def __init__(self, filters: int, momentum: float = 0.9, **kwargs: object) -> None:
        super().__init__(momentum, **kwargs)
        self.filters = filters
        self.norms = [BatchNorm(affine=True, momentum=momentum, name="norm")]

    def build(self, input_shape: Shape) -> None:
        shape = (3, 3, input_shape[-1], self.filters)
        self.kernels = [self.add_weight(name="kernel", shape=shape, initializer=FanInUniform())]
        self.norms[0].build(self.compute_output_shape(input_shape)[0])

    def call(self, inputs: tf.Tensor, update: Update | None = None) -> tuple[tf.Tensor]:
        kernel = tf.cast(self.kernels[0].value, inputs.dtype)
        return (self.norms[0](convolution(inputs, kernel), update=update),)

    def compute_output_shape(self, input_shape: Shape) -> tuple[Shape]:
        return ((*input_shape[:-1], self.filters),)

    def get_config(self) -> dict[str, object]:
        return {**super().get_config(), "filters": self.filters}


@keras.saving.register_keras_serializable("gdas_tf")
class ImageNetStem(SupernetLayer):
    """The stem of DARTS for ImageNet (Liu, Simonyan & Yang, ICLR 2019), for larger images.

    3x3 convolution of stride 2 to half of the channels, batch norm, ReLU, 3x3 convolution of stride 2, batch
    norm: the first output. ReLU, 3x3 convolution of stride 2, batch norm: the second one.

    Args:
        filters: Channels of both outputs.

    Input: images [B, H, W, C]. Output: [B, H / 4, W / 4, filters] and [B, H / 8, W / 8, filters].
    """

    def __init__(self, filters: int, momentum: float = 0.9, **kwargs: object) -> None:
        super().__init__(momentum, **kwargs)
        self.filters = filters
        self.norms = [BatchNorm(affine=True, momentum=momentum, name=f"norm_{i}") for i in range(3)]

    def build(self, input_shape: Shape) -> None:
        batch, height, width, channels = input_shape
        self.kernels = []
        for number, filters in enumerate((max(1, self.filters // 2), self.filters, self.filters)):
            kernel = self.add_weight(
                name=f"kernel_{number}", shape=(3, 3, channels, filters), initializer=FanInUniform()
            )
            height, width, channels = -(-height // 2), -(-width // 2), filters
            self.kernels.append(kernel)
            self.norms[number].build((batch, height, width, filters))

    def call(self, inputs: tf.Tensor, update: Update | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        half, quarter, eighth = (tf.cast(kernel.value, inputs.dtype) for kernel in self.kernels)
        x = self.norms[0](convolution(inputs, half, 2), update=update)
        first = self.norms[1](convolution(relu(x), quarter, 2), update=update)
        return first, self.norms[2](convolution(relu(first), eighth, 2), update=update)

    def compute_output_shape(self, input_shape: Shape) -> tuple[Shape, Shape]:
        batch, height, width, _ = input_shape
        return tuple((batch, -(-height // by), -(-width // by), self.filters) for by in (4, 8))

    def get_config(self) -> dict[str, object]:
        return {**super().get_config(), "filters": self.filters}


def make_stem(stem: str, space: SearchSpace, channels: int, momentum: float) -> CifarStem | ImageNetStem:
    """The layer of a stem.

    Args:
        stem: "cifar" or "imagenet".
        space: its `stem` says how many times C channels that for smaller images gives.
        channels: C, of the first block.

    Raises:
        UsageError: another stem.
    """
    if stem == "cifar":
        return CifarStem(space.stem * channels, momentum, name="stem")
    if stem == "imagenet":
        return ImageNetStem(channels, momentum, name="stem")
    raise UsageError(f"stem is {stem!r}; accepted are cifar and imagenet")

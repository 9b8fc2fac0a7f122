"""What stands between two blocks where no reduction cell is searched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from gdas_tf.keras_backend import keras
from gdas_tf.numerics.primitives import average_pool, convolution, max_pool, relu
from gdas_tf.operations.base import Shape, Update
from gdas_tf.operations.initializers import FanInUniform
from gdas_tf.supernet.layers import BatchNorm, Cell, SupernetLayer


@keras.saving.register_keras_serializable("gdas_tf")
class FixedReductionCell(Cell):
    """The fixed reduction cell (FRC) of Dong & Yang (CVPR 2019), which is not searched.

    For each input one branch of ReLU, 1x3 convolution of stride (1, 2), 3x1 convolution of stride (2, 1)
    (both of 8 groups), batch norm, ReLU, 1x1 convolution, batch norm; and one of 3x3 max pooling of stride 2,
    batch norm. The output is the concatenation of all branches. Its batch norms have scale and offset.

    Args:
        filters: Channels of each branch.
        inputs: Number of inputs, 1 or 2.
        reduce_first: The first of two inputs is twice as large as the second.

    Input: `inputs` tensors [B, H, W, C], each after its ReLU.
    Output: [B, H / 2, W / 2, 2 * inputs * filters].
    """

    def __init__(
        self, filters: int, inputs: int = 2, reduce_first: bool = False, momentum: float = 0.9, **kwargs: Any
    ) -> None:
        super().__init__(filters, inputs, reduce_first, momentum, **kwargs)
        self.norms = [[BatchNorm(True, momentum) for _ in range(3)] for _ in range(inputs)]

    def build(self, input_shape: tuple[Shape, ...]) -> None:
        super().build(input_shape)
        groups = frc_groups(self.filters)
        shapes = [
            (1, 3, self.filters // groups, self.filters),
            (3, 1, self.filters // groups, self.filters),
            (1, 1, self.filters, self.filters),
        ]
        self.kernels = [
            [
                self.add_weight(name=f"branch_{branch}_kernel_{i}", shape=shape, initializer=FanInUniform())
                for i, shape in enumerate(shapes)
            ]
            for branch in range(self.inputs)
        ]
        for norms in self.norms:
            for norm in norms:
                norm.build(self.input_shapes[-1])

    def call(self, inputs: Sequence[tf.Tensor], update: Update | None = None) -> tf.Tensor:
        states = self.enter(inputs, update)
        convolved, pooled = [], []
        for x, kernels, (middle, end, pool) in zip(states, self.kernels, self.norms, strict=True):
            wide, high, point = (tf.cast(kernel.value, x.dtype) for kernel in kernels)
            y = self._grouped(relu(x), wide, (1, 2))
            y = middle(self._grouped(y, high, (2, 1)), update=update)
            convolved.append(end(convolution(relu(y), point), update=update))
            pooled.append(pool(max_pool(x, 3, 2), update=update))
        return tf.concat([*convolved, *pooled], -1)

    def _grouped(self, x: tf.Tensor, kernel: tf.Tensor, strides: tuple[int, int]) -> tf.Tensor:
        # TensorFlow has no gradient of grouped convolutions on the CPU; the same as a convolution whose
        # kernel is zero between groups.
        groups = frc_groups(self.filters)
        group = tf.range(self.filters) // (self.filters // groups)
        same = tf.cast(group[:, None] == group[None], kernel.dtype)
        dense = tf.tile(kernel, [1, 1, groups, 1]) * same
        return tf.nn.conv2d(x, dense, strides, "SAME")

    def compute_output_shape(self, input_shape: tuple[Shape, ...]) -> Shape:
        batch, height, width, _ = input_shape[-1]
        return (batch, -(-height // 2), -(-width // 2), 2 * self.inputs * self.filters)


@keras.saving.register_keras_serializable("gdas_tf")
class ResidualBlock(SupernetLayer):
    """The residual block of stride 2 of NAS-Bench-201 (Dong & Yang, ICLR 2020).

    ReLU, 3x3 convolution of stride 2, batch norm, ReLU, 3x3 convolution, batch norm; added to that, the
    input through 2x2 average pooling of stride 2 and a 1x1 convolution. Its batch norms have scale and offset
    also in the search, as those of the authors' code.

    Args:
        filters: Channels of the output.

    Input: One tensor [B, H, W, C], not yet passed through a ReLU.
    Output: [B, H / 2, W / 2, filters].
    """

    reduction = True

    def __init__(self, filters: int, momentum: float = 0.9, **kwargs: Any) -> None:
        super().__init__(momentum, **kwargs)
        self.filters = filters
        self.norms = [BatchNorm(True, momentum) for _ in range(2)]

    def build(self, input_shape: tuple[Shape, ...]) -> None:
        channels = input_shape[-1][-1]
        shapes = [
            (3, 3, channels, self.filters),
            (3, 3, self.filters, self.filters),
            (1, 1, channels, self.filters),
        ]
        self.kernels = [
            self.add_weight(name=f"kernel_{i}", shape=shape, initializer=FanInUniform())
            for i, shape in enumerate(shapes)
        ]
        for norm in self.norms:
            norm.build(self.compute_output_shape(input_shape))

    def call(self, inputs: Sequence[tf.Tensor], update: Update | None = None) -> tf.Tensor:
        x = inputs[-1]
        first, second, shortcut = (tf.cast(kernel.value, x.dtype) for kernel in self.kernels)
        y = self.norms[0](convolution(relu(x), first, 2), update=update)
        y = self.norms[1](convolution(relu(y), second), update=update)
        return y + convolution(average_pool(x, 2, 2), shortcut)

    def compute_output_shape(self, input_shape: tuple[Shape, ...]) -> Shape:
        batch, height, width, _ = input_shape[-1]
        return (batch, -(-height // 2), -(-width // 2), self.filters)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": self.filters}


def frc_groups(filters: int) -> int:
    """Groups of the fixed reduction cell's convolutions: 8, as published, or the most that divide."""
    return math.gcd(8, filters)

"""Asymmetric convolutions: `conv_3x1_1x3` and `conv_7x1_1x7`, of the spaces of NASNet, AmoebaNet and SETN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gdas_tf.numerics import primitives as p
from gdas_tf.numerics.lazy import tf
from gdas_tf.operations.base import OPERATIONS, Norm, Operation, Shape

if TYPE_CHECKING:
    from gdas_tf.networks.builder import Builder


class AsymmetricConvolution(Operation):
    """ReLU, convolution of one row, convolution of one column, batch norm, as in the code of DARTS (2019).

    At stride 2 the row halves the width, then the column halves the height.

    Args:
        size: pixels of the row and of the column.
    """

    def __init__(self, name: str, short: str, color: str, size: int) -> None:
        self.name, self.short, self.color = name, short, color
        self.size = size

    def kernel_shapes(self, channels: int, stride: int) -> list[Shape]:
        return [(1, self.size, channels, channels), (self.size, 1, channels, channels)]

    def norms(self, stride: int) -> int:
        return 1

    def compute(self, x: tf.Tensor, kernels: Sequence[tf.Tensor], stride: int, norm: Norm) -> tf.Tensor:
        row, column = kernels
        z = tf.nn.conv2d(p.relu(x), row, (1, stride), "SAME")
        return norm(tf.nn.conv2d(z, column, (stride, 1), "SAME"))

    def layers(self, build: Builder, x: Any, stride: int, name: str) -> Any:
        x = build.relu(x, f"{name}_relu")
        x = build.conv(x, x.shape[-1], (1, self.size), f"{name}_1x{self.size}", strides=(1, stride))
        x = build.conv(x, x.shape[-1], (self.size, 1), f"{name}_{self.size}x1", strides=(stride, 1))
        return build.batch_norm(x, f"{name}_bn")


for _operation in (
    AsymmetricConvolution("conv_3x1_1x3", "conv31", "#ba66b4", 3),
    AsymmetricConvolution("conv_7x1_1x7", "conv71", "#7efccc", 7),
):
    OPERATIONS.register(_operation.name, _operation)

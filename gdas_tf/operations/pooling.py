"""Poolings: `avg_pool_3x3` and `max_pool_3x3`."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gdas_tf.numerics import primitives as p
from gdas_tf.numerics.lazy import tf
from gdas_tf.operations.base import (
    OPERATIONS,
    Backward,
    Norm,
    Operation,
)

if TYPE_CHECKING:
    from gdas_tf.networks.builder import Builder


class Pool(Operation):
    """3x3 pooling, and on request a batch norm after it.

    The batch norm is that of DARTS' search and of the authors' code of 2019, which put a `BatchNorm2d`
    without scale and offset after every pooling; the paper does not mention it, and the seed study and
    AutoDL-2020 have none. It brings the pooling's output to the scale of that of the other operations. The
    derived network never has it.

    Args:
        norm: whether there is a batch norm.
    """

    def __init__(self, norm: bool = False) -> None:
        self.norm = norm

    @abc.abstractmethod
    def pool(self, x: tf.Tensor, stride: int) -> tf.Tensor:
        """The pooling of x."""

    @abc.abstractmethod
    def pool_gradient(self, dz: tf.Tensor, x: tf.Tensor, stride: int) -> tf.Tensor:
        """Gradient of `pool` by x."""

    def with_norm(self) -> Pool:
        return type(self)(norm=True)

    def norms(self, stride: int) -> int:
        return int(self.norm)

    def compute(self, x: tf.Tensor, kernels: Sequence[tf.Tensor], stride: int, norm: Norm) -> tf.Tensor:
        z = self.pool(x, stride)
        return norm(z) if self.norm else z

    def backward(self, dy, x, kernels, reserved, stride, update) -> Backward:
        if not self.norm:
            return Backward.homogeneous(self.pool_gradient(dy, x, stride), x, update)
        dz, products = p.normalize_gradient(dy, self.pool(x, stride), reserved)
        return Backward(self.pool_gradient(dz, x, stride), Backward.gate_of(products, update), [])


class AveragePool(Pool):
    """3x3 average pooling, the padding left out of the mean."""

    name, short, color = "avg_pool_3x3", "avg3", "#eccd09"

    def pool(self, x: tf.Tensor, stride: int) -> tf.Tensor:
        return p.average_pool(x, 3, stride)

    def pool_gradient(self, dz: tf.Tensor, x: tf.Tensor, stride: int) -> tf.Tensor:
        return p.average_pool_gradient(dz, x.shape, 3, stride)

    def layers(self, build: Builder, x: Any, stride: int, name: str) -> Any:
        return build.average_pool(x, 3, stride, name)


class MaxPool(Pool):
    """3x3 max pooling."""

    name, short, color = "max_pool_3x3", "max3", "#f07905"

    def pool(self, x: tf.Tensor, stride: int) -> tf.Tensor:
        return p.max_pool(x, 3, stride)

    def pool_gradient(self, dz: tf.Tensor, x: tf.Tensor, stride: int) -> tf.Tensor:
        return p.max_pool_gradient(dz, x, 3, stride)

    def layers(self, build: Builder, x: Any, stride: int, name: str) -> Any:
        return build.max_pool(x, 3, stride, name)


for _operation in (AveragePool(), MaxPool()):
    OPERATIONS.register(_operation.name, _operation)

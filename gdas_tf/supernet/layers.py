"""The layers around a cell's edges: batch norm, preprocessing of a cell's inputs, and the base of both cells.

Every layer's `call` takes `update`: "weights" or "architecture" in training, which gradient the pass must
support, and None in inference. Statistics of batch norms move in the update of the weights only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from gdas_tf.keras_backend import keras
from gdas_tf.numerics.graph_constants import constant
from gdas_tf.numerics.primitives import (
    Normalized,
    convolution,
    convolution_input_gradient,
    convolution_kernel_gradient,
    normalize,
    normalize_by,
    normalize_gradient,
)
from gdas_tf.operations.base import Shape, Update
from gdas_tf.operations.initializers import FanInUniform
from gdas_tf.operations.skip import factorize, factorized_kernel_shapes


class SupernetLayer(keras.layers.Layer):
    """Base of the supernet's layers: float32 weights, computation in the type of the images."""

    def __init__(self, momentum: float = 0.9, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.momentum = momentum

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "momentum": self.momentum}


@keras.saving.register_keras_serializable("gdas_tf")
class BatchNorm(SupernetLayer):
    """Batch norm as one fused kernel, in training and inference, epsilon 1e-5.

    Args:
        affine: Whether there are a scale and an offset to learn.
        momentum: Of the moving statistics.

    Input and output: [B, H, W, C].
    """

    def __init__(self, affine: bool = False, momentum: float = 0.9, **kwargs: Any) -> None:
        super().__init__(momentum, **kwargs)
        self.affine = affine

    def build(self, input_shape: Shape) -> None:
        shape = (input_shape[-1],)
        if self.affine:
            self.gamma = self.add_weight(name="gamma", shape=shape, initializer="ones")
            self.beta = self.add_weight(name="beta", shape=shape, initializer="zeros")
        self.mean = self.add_weight(name="moving_mean", shape=shape, initializer="zeros", trainable=False)
        self.variance = self.add_weight(
            name="moving_variance", shape=shape, initializer="ones", trainable=False
        )

    def call(self, inputs: tf.Tensor, update: Update | None = None) -> tf.Tensor:
        scale, offset = (self.gamma.value, self.beta.value) if self.affine else (None, None)
        if update is None:
            return normalize_by(inputs, self.mean.value, self.variance.value, scale, offset)
        y = normalize(inputs, scale, offset)
        if update == "weights":
            self.update_statistics(y)
        return y.output

    def update_statistics(self, batch: Normalized) -> None:
        """Move the statistics by those of a batch."""
        for moving, value in ((self.mean, batch.mean), (self.variance, batch.variance)):
            moving.assign(constant(self.momentum) * moving.value + constant(1 - self.momentum) * value)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "affine": self.affine}


@keras.saving.register_keras_serializable("gdas_tf")
class Preprocess(SupernetLayer):
    """What a cell does to each of its inputs: 1x1 convolution to its own number of channels, batch norm.

    The ReLU before the convolution is the supernet's, which does it once for both cells that read an input.

    Args:
        filters: Channels of the cell.
        reduce: Take the place of the 1x1 convolution by a factorized reduction, which halves height and
            width, for an input that comes from before a reduction cell.

    Input: [B, H, W, C]. Output: [B, H, W, filters], or half of H and W.
    """

    def __init__(self, filters: int, reduce: bool = False, momentum: float = 0.9, **kwargs: Any) -> None:
        super().__init__(momentum, **kwargs)
        self.filters, self.reduce, self.stride = filters, reduce, 2 if reduce else 1
        self.norm = BatchNorm(momentum=momentum)

    def build(self, input_shape: Shape) -> None:
        channels = input_shape[-1]
        plain = [(1, 1, channels, self.filters)]
        shapes = factorized_kernel_shapes(channels, self.filters) if self.reduce else plain
        self.kernels = [
            self.add_weight(name=f"kernel_{i}", shape=shape, initializer=FanInUniform())
            for i, shape in enumerate(shapes)
        ]
        self.norm.build((*input_shape[:-1], self.filters))
        self.image_shape = tuple(input_shape)

    def call(self, inputs: tf.Tensor, update: Update | None = None) -> tf.Tensor:
        return self.norm(convolution(inputs, self.kernel(inputs.dtype), self.stride), update=update)

    def kernel(self, dtype: tf.DType) -> tf.Tensor:
        """The weights as the kernel of one convolution."""
        kernels = [tf.cast(tf.convert_to_tensor(kernel.value), dtype) for kernel in self.kernels]
        return factorize(kernels, self.image_shape) if self.reduce else kernels[0]

    def forward(self, x: tf.Tensor, kernel: tf.Tensor) -> tuple[Normalized, Callable[..., Any]]:
        """Training pass, for a cell that differentiates it itself.

        Returns:
            The output with the batch's statistics, and the function (dy, update) -> (dx, dkernel), of which
            dkernel is None in the update of the architecture.
        """
        z = convolution(x, kernel, self.stride)
        y = normalize(z)

        def backward(dy: tf.Tensor, update: Update) -> tuple[tf.Tensor, tf.Tensor | None]:
            dz, _ = normalize_gradient(dy, z, y.reserved)
            dx = convolution_input_gradient(dz, kernel, x.shape, self.stride)
            if update == "architecture":
                return dx, None
            return dx, convolution_kernel_gradient(dz, x, tuple(kernel.shape), self.stride)

        return y, backward

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, height, width, _ = input_shape
        return (batch, -(-height // self.stride), -(-width // self.stride), self.filters)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": self.filters, "reduce": self.reduce}


class Cell(SupernetLayer):
    """A cell's one or two inputs, brought to its number of channels and to one size.

    Args:
        filters: Channels of the cell.
        inputs: Number of inputs.
        reduce_first: The first of two inputs is twice as large as the second (a reduction cell came between).
        plain: The cell takes its inputs as they are: there is no preprocessing.
    """

    def __init__(
        self,
        filters: int,
        inputs: int = 2,
        reduce_first: bool = False,
        momentum: float = 0.9,
        plain: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(momentum, **kwargs)
        self.filters, self.inputs, self.reduce_first = filters, inputs, reduce_first
        reduce = (reduce_first, False) if inputs == 2 else (False,)
        self.preprocess = tuple(
            Preprocess(filters, factorized, momentum) for factorized in reduce if not plain
        )

    def build(self, input_shape: tuple[Shape, ...]) -> None:
        if not self.preprocess:
            self.input_shapes = list(input_shape)
            return
        for preprocess, shape in zip(self.preprocess, input_shape, strict=True):
            preprocess.build(shape)
        self.input_shapes = [
            preprocess.compute_output_shape(shape)
            for preprocess, shape in zip(self.preprocess, input_shape, strict=True)
        ]

    def enter(self, inputs: Sequence[tf.Tensor], update: Update | None = None) -> list[tf.Tensor]:
        """The inputs, preprocessed."""
        if not self.preprocess:
            return list(inputs)
        return [preprocess(x, update=update) for preprocess, x in zip(self.preprocess, inputs, strict=True)]

    def get_config(self) -> dict[str, Any]:
        values = {"filters": self.filters, "inputs": self.inputs, "reduce_first": self.reduce_first}
        return super().get_config() | values


def add(terms: list[tf.Tensor]) -> tf.Tensor:
    """The sum of tensors of one shape, the same to the last bit in every run.

    AddN takes the place of one of its terms if that is free by then, and adds that one first. Terms may be
    another tensor under a second name (`skip_connect`), so which is free is a matter of timing. The first of
    these terms is always free. (`runtime.graphs_as_written` keeps the two sums from being made one.)
    """
    if len(terms) > 2:
        terms = [terms[0] + terms[1], *terms[2:]]
    return tf.add_n(terms)

"""`CandidateOperation`: one operation of the search as a Keras layer of its own."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from gdas_tf.errors import UsageError
from gdas_tf.keras_backend import keras
from gdas_tf.operations.base import Shape
from gdas_tf.operations.checks import checked
from gdas_tf.operations.initializers import FanInUniform


@keras.saving.register_keras_serializable("gdas_tf")
class CandidateOperation(keras.layers.Layer):
    """One candidate operation of the search as a layer.

    Args:
        operation: name of the operation, one of `gdas_tf.operations.base.OPERATIONS`.
        stride: 1, or 2 as on the edges that enter a reduction cell.
        momentum: of the moving statistics of the batch norms.
        pool_norm: whether a pooling has a batch norm after it.

    Input: [B, H, W, C] with B, H, W, C known. Output: [B, ceil(H / stride), ceil(W / stride), C].

    Example:

    >>> layer = CandidateOperation("sep_conv_3x3", stride=2)
    >>> layer(keras.ops.ones((4, 8, 8, 16)), training=True).shape
    TensorShape([4, 4, 4, 16])
    """

    def __init__(
        self,
        operation: str,
        stride: int = 1,
        momentum: float = 0.9,
        pool_norm: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if stride not in (1, 2):
            raise UsageError(f"stride of {operation} is {stride!r}; accepted are 1 and 2")
        self.candidate = checked(operation, pool_norm)
        self.operation, self.stride, self.momentum = operation, stride, momentum
        self.pool_norm = pool_norm

    def build(self, input_shape: Shape) -> None:
        channels = input_shape[-1]
        self.kernels = [
            self.add_weight(name=f"kernel_{i}", shape=shape, initializer=FanInUniform())
            for i, shape in enumerate(self.candidate.kernel_shapes(channels, self.stride))
        ]
        self.statistics = [
            tuple(
                self.add_weight(name=f"{name}_{i}", shape=(channels,), initializer=start, trainable=False)
                for name, start in (("moving_mean", "zeros"), ("moving_variance", "ones"))
            )
            for i in range(self.candidate.norms(self.stride))
        ]

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        kernels = [tf.cast(kernel.value, inputs.dtype) for kernel in self.kernels]
        if not training:
            moving = [(mean.value, variance.value) for mean, variance in self.statistics]
            return self.candidate.inference(inputs, kernels, moving, self.stride)

        @tf.custom_gradient
        def apply(x: tf.Tensor, *kernels: tf.Tensor) -> Any:
            y, reserved, batch = self.candidate.forward_without_tape(x, kernels, self.stride)

            def gradient(dy: tf.Tensor, *_: tf.Tensor) -> tuple[tf.Tensor, ...]:
                result = self.candidate.backward(dy, x, kernels, reserved, self.stride, "weights")
                return (result.input, *result.kernels)

            return (y, *tf.nest.flatten(batch)), gradient

        y, *batch = apply(inputs, *kernels)
        for moving, value in zip(tf.nest.flatten(self.statistics), batch, strict=True):
            moving.assign(self.momentum * moving + (1 - self.momentum) * value)
        return y

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, height, width, channels = input_shape
        return (batch, -(-height // self.stride), -(-width // self.stride), channels)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "operation": self.operation,
            "stride": self.stride,
            "momentum": self.momentum,
            "pool_norm": self.pool_norm,
        }

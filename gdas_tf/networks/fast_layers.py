"""Layers that only a network in training has: drop-path, and faster twins of two Keras layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from gdas_tf.keras_backend import keras
from gdas_tf.numerics.primitives import depthwise, depthwise_kernel_gradient

layers = keras.layers


@keras.saving.register_keras_serializable("gdas_tf")
class DropPath(layers.Layer):
    """Draws which paths of a network each example leaves out (Larsson et al., FractalNet, 2017).

    One layer draws for all paths of the network at once: it takes the batch of images and returns one factor
    per path, float [B, 1, 1, 1], which is 0 with probability `rate` and else 1 / (1 - rate); multiplied with
    it, a path is dropped or kept. Without training all factors are 1. The numbers depend on the seed and the
    number of the draw alone, both kept in a variable of the layer: a training that is resumed draws the same.

    Args:
        paths: number of paths.
        rate: probability of dropping a path; it becomes a variable, which may be assigned during training.
        seed: integer seed; None draws one.
    """

    def __init__(self, paths: int, rate: float = 0.0, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.paths = paths
        self.initial_rate = rate
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape: Sequence[int | None]) -> None:
        constant = keras.initializers.Constant(self.initial_rate)
        self.rate = self.add_weight(
            name="rate", shape=(), initializer=constant, trainable=False, dtype="float32"
        )

    def call(self, images: Any, training: bool | None = None) -> list[Any]:
        shape = (self.paths, keras.ops.shape(images)[0], 1, 1, 1)
        if training:
            kept = 1.0 - keras.ops.cast(self.rate, "float32")
            drawn = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)
            factors = keras.ops.where(drawn < kept, 1.0 / kept, 0.0)
        else:
            factors = keras.ops.ones(shape)
        return keras.ops.unstack(keras.ops.cast(factors, self.compute_dtype), self.paths)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "paths": self.paths, "rate": self.initial_rate, "seed": self.seed}


@keras.saving.register_keras_serializable("gdas_tf")
class FusedBatchNormalization(layers.BatchNormalization):
    """Keras' batch norm of NHWC images, with TensorFlow's fused kernel for the training pass.

    Keras composes it of some ten operations, which pass over the activations again and again; the fused
    kernel takes less than half their time. As in PyTorch, the moving variance is the unbiased estimate's.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: None = None) -> tf.Tensor:
        if not (training and self.trainable):
            return super().call(inputs, training=training, mask=mask)
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma,
            offset=self.beta,
            mean=tf.constant([], tf.float32),
            variance=tf.constant([], tf.float32),
            epsilon=self.epsilon,
            is_training=True,
        )
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + batch * (1.0 - self.momentum))
        return y


@keras.saving.register_keras_serializable("gdas_tf")
class TrainingDepthwiseConv2D(layers.DepthwiseConv2D):
    """Keras' depthwise convolution of NHWC images, with faster gradients on a CPU.

    The gradient of a 5x5 kernel takes a fifth of the time, and a dilated convolution needs no copies of its
    input. With stride, bias or a multiplier it is Keras' own.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        same = self.padding == "same" and self.kernel_size[0] % 2 and len(set(self.kernel_size)) == 1
        if not same or self.strides != (1, 1) or self.depth_multiplier != 1 or self.use_bias:
            return super().call(inputs)
        return _depthwise(inputs, tf.cast(self.kernel, inputs.dtype), self.dilation_rate[0])


@keras.saving.register_keras_serializable("gdas_tf")
class TrainingCropping2D(layers.Cropping2D):
    """Keras' cropping of NHWC images, as a slice whose gradient is a padding.

    The gradient of the strided slice that Keras crops by takes tens of times as long.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        (top, bottom), (left, right) = self.cropping
        height, width = inputs.shape[1] - top - bottom, inputs.shape[2] - left - right
        return tf.slice(inputs, [0, top, left, 0], [-1, height, width, -1])


def _depthwise(x: tf.Tensor, kernel: tf.Tensor, dilation: int) -> tf.Tensor:
    @tf.custom_gradient
    def convolution(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Any]:
        def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            # At stride 1 with an odd kernel the input's gradient is the convolution with the kernel turned by
            # 180 degrees.
            dx = depthwise(dy, tf.reverse(kernel, [0, 1]), 1, dilation)
            return dx, depthwise_kernel_gradient(dy, x, tuple(kernel.shape), 1, dilation)

        return depthwise(x, kernel, 1, dilation), gradient

    return convolution(x, kernel)

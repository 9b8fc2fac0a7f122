"""Keras layers of a network in training: the same as Keras' own, with other gradients, faster or sound."""

from __future__ import annotations

import tensorflow as tf

from gdas_tf.keras_backend import keras
from gdas_tf.numerics.graph_constants import constant, zeros
from gdas_tf.numerics.primitives import convolution, depthwise, every_second, overruns

layers = keras.layers


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
            mean=zeros(0),
            variance=zeros(0),
            epsilon=self.epsilon,
            is_training=True,
        )
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * constant(self.momentum) + batch * constant(1.0 - self.momentum))
        return y


@keras.saving.register_keras_serializable("gdas_tf")
class TrainingConv2D(layers.Conv2D):
    """Keras' convolution of NHWC images, without the gradients in which oneDNN overwrites other memory."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        plain = len(set(self.strides)) == 1 and not self.use_bias
        if not plain or not overruns(self.kernel.shape, self.strides[0]):
            return super().call(inputs)
        return convolution(every_second(inputs), tf.cast(self.kernel, inputs.dtype))


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
        return depthwise(inputs, tf.cast(self.kernel, inputs.dtype), 1, self.dilation_rate[0])


@keras.saving.register_keras_serializable("gdas_tf")
class TrainingCropping2D(layers.Cropping2D):
    """Keras' cropping of NHWC images, as a slice whose gradient is a padding.

    The gradient of the strided slice that Keras crops by takes tens of times as long.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        (top, bottom), (left, right) = self.cropping
        height, width = inputs.shape[1] - top - bottom, inputs.shape[2] - left - right
        return tf.slice(inputs, constant((0, top, left, 0)), constant((-1, height, width, -1)))

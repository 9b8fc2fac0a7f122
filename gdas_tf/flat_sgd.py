"""The method's SGD for networks of many small variables."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from gdas_tf.optimizers import SGD


@keras.saving.register_keras_serializable("gdas_tf")
class FlatSGD(SGD):
    """`SGD` that updates all weights as one vector, with one velocity.

    A derived network has hundreds of variables, and updating them one by one makes up a third of the step's
    operations, which have to be traced, optimized and dispatched. All weights are float32, and every one gets
    a gradient; masks, which the search needs, are not supported.

    Args:
        learning_rate, momentum, decay, clip_norm, nesterov: as of `SGD`.
    """

    takes_masks = False

    def build(self, variables: list[Any]) -> None:
        if self.built:
            return
        keras.optimizers.Optimizer.build(self, variables)
        size = sum(math.prod(variable.shape) for variable in variables)
        self.velocity = self.add_variable(shape=(size,), initializer="zeros", name="velocity")

    def apply(self, grads: list[tf.Tensor], trainable_variables: list[Any] | None = None) -> None:
        weights = trainable_variables or self._trainable_variables
        if not self.built:
            self.build(weights)
        gradient = _flatten(grads)
        if self.global_clipnorm:
            gradient *= self.global_clipnorm / tf.maximum(self.global_clipnorm, tf.norm(gradient))
        gradient += self.decay * _flatten([weight.value for weight in weights])
        velocity = self.momentum * self.velocity.value + gradient
        self.velocity.assign(velocity)
        change = tf.cast(self.learning_rate, tf.float32) * (
            gradient + self.momentum * velocity if self.nesterov else velocity
        )
        parts = tf.split(change, [math.prod(weight.shape) for weight in weights])
        for weight, part in zip(weights, parts, strict=True):
            weight.value.assign_sub(tf.reshape(part, weight.shape))
        self.iterations.assign_add(1)


def _flatten(tensors: list[tf.Tensor]) -> tf.Tensor:
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)

"""The optimizers of the method, as PyTorch's (which the published results were made with) rather than Keras'
own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from gdas_tf.keras_backend import keras
from gdas_tf.numerics.graph_constants import constant


@keras.saving.register_keras_serializable("gdas_tf")
class SGD(keras.optimizers.Optimizer):
    """Stochastic gradient descent with Nesterov momentum and weight decay, step for step as torch.optim.SGD.

    With g the gradient, clipped to a global norm, and w the weight:

        g = g + decay * w;  v = momentum * v + g;  w = w - learning_rate * (g + momentum * v)

    Keras' SGD multiplies the velocity by the learning rate when it is added, and decays apart from the
    momentum, which is another rule under a schedule.

    Args:
        learning_rate: A number or a Keras schedule.
        momentum: Share of the velocity that is kept.
        decay: Factor of the weight that is added to the gradient (L2).
        clip_norm: Global norm that the gradients are clipped to before, or None.

    A search sets `masks` before each step: by the path of a variable, a bool tensor of its shape. Where it is
    false neither weight nor velocity moves, as those of operations that were not sampled must not.
    """

    def __init__(
        self,
        learning_rate: Any = 0.025,
        momentum: float = 0.9,
        decay: float = 3e-4,
        clip_norm: float | None = 5.0,
        name: str = "sgd",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, global_clipnorm=clip_norm, name=name, **kwargs)
        self.momentum, self.decay = momentum, decay
        self.masks: Mapping[str, tf.Tensor] = {}

    def build(self, variables: list[Any]) -> None:
        if self.built:
            return
        super().build(variables)
        self.velocities = self.add_optimizer_variables(variables, "velocity")

    def update_step(self, gradient: tf.Tensor, variable: Any, learning_rate: Any) -> None:
        # Keras passes TensorFlow's variable here; its own, which has the path, stands at the same index.
        index = self._get_variable_index(variable)
        velocity = self.velocities[index]
        weight, before = tf.convert_to_tensor(variable), tf.convert_to_tensor(velocity)
        gradient = tf.cast(gradient, weight.dtype) + constant(self.decay) * weight
        momentum = constant(self.momentum)
        moved = momentum * before + gradient
        updated = weight - tf.cast(learning_rate, weight.dtype) * (gradient + momentum * moved)
        mask = self.masks.get(self._trainable_variables[index].path)
        if mask is not None:
            moved = tf.where(mask, moved, before)
            updated = tf.where(mask, updated, weight)
        self.assign(velocity, moved)
        self.assign(variable, updated)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        clip_norm = config.pop("global_clipnorm")
        for unused in ("weight_decay", "clipnorm", "clipvalue"):
            config.pop(unused)
        return {**config, "momentum": self.momentum, "decay": self.decay, "clip_norm": clip_norm}

"""Adam, whose step each replica takes by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from gdas_tf.keras_backend import keras


@keras.saving.register_keras_serializable("gdas_tf")
class Adam(keras.optimizers.Adam):
    """Keras' Adam, step for step; of several replicas each takes the step, by gradients that are means over
    the replicas already (`gdas_tf.distribution`). Keras' would add them up once more.
    """

    def apply(self, grads: Sequence[tf.Tensor], trainable_variables: Sequence[Any] | None = None) -> None:
        """Update the variables that it was built with; each needs a gradient."""
        variables = self._trainable_variables if trainable_variables is None else trainable_variables
        learning_rate = self.learning_rate
        for gradient, variable in zip(grads, variables, strict=True):
            self.update_step(gradient, variable, learning_rate)
        self.iterations.assign_add(1)

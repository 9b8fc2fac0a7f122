"""Loss scaling, for gradients that float16 could not hold otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from gdas_tf.distribution import replicas
from gdas_tf.keras_backend import keras


@keras.saving.register_keras_serializable("gdas_tf")
class MaskedLossScale(keras.optimizers.LossScaleOptimizer):
    """Keras' LossScaleOptimizer, which also hands masks on to the optimizer inside.

    The loss is multiplied by a scale, and the gradients are divided by it. A step whose gradients are not all
    finite is left out and halves the scale; `dynamic_growth_steps` steps in a row that are not left out
    double it.

    Args:
        inner_optimizer: A `gdas_tf.optimizers.torch_sgd.SGD`, whose `apply` takes masks.
        initial_scale, dynamic_growth_steps, name: As of LossScaleOptimizer.
    """

    def apply(
        self,
        grads: Sequence[tf.Tensor | None],
        trainable_variables: Sequence[Any] | None = None,
        masks: Sequence[tf.Tensor | None] | None = None,
    ) -> None:
        """Update the variables unless a gradient is not finite; arguments as of `SGD.apply`, masks only where
        the optimizer inside takes them."""
        if not self.built:
            self.build(list(trainable_variables))

        def update() -> None:
            unscaled = [None if gradient is None else gradient / self.dynamic_scale for gradient in grads]
            self.inner_optimizer.apply(unscaled, trainable_variables, *([] if masks is None else [masks]))
            keras.ops.cond(self.step_counter == self.dynamic_growth_steps - 1, double, count)

        def double() -> None:
            self.step_counter.assign(0)
            self.dynamic_scale.assign(self.dynamic_scale * 2.0)

        def count() -> None:
            self.step_counter.assign_add(1)

        def halve() -> None:
            self.step_counter.assign(0)
            self.dynamic_scale.assign(self.dynamic_scale * 0.5)

        keras.ops.cond(self.check_finite(grads), update, halve)


def loss_scaled(
    optimizer: keras.optimizers.Optimizer, compute_dtype: str, masked: bool = False
) -> keras.optimizers.Optimizer:
    """The optimizer for a network that computes in some type: in float16 with loss scaling around it.

    Args:
        optimizer: The optimizer.
        compute_dtype: "float32", "bfloat16" or "float16".
        masked: Whether its updates are given masks.
    """
    if compute_dtype != "float16":
        return optimizer
    # Keras' own would have all replicas decide together, which cannot be done in a branch.
    ours = masked or replicas() > 1
    return (MaskedLossScale if ours else keras.optimizers.LossScaleOptimizer)(optimizer)

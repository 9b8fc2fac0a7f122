"""The optimizers of the method, as PyTorch's (which the published results were made with) rather than Keras'
own, and the schedule of their learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from gdas_tf.errors import UsageError
from gdas_tf.keras_backend import keras
from gdas_tf.numerics.graph_constants import constant
from gdas_tf.optimizers.replicas import refuse_shared

_NOT_HONOURED = {
    "weight_decay": None,
    "clipnorm": None,
    "clipvalue": None,
    "global_clipnorm": None,
    "use_ema": False,
    "ema_momentum": 0.99,
    "ema_overwrite_frequency": None,
    "loss_scale_factor": None,
    "gradient_accumulation_steps": None,
}
"""Arguments of Keras' optimizers, with the values that ask for nothing."""


@keras.saving.register_keras_serializable("gdas_tf")
class SGD(keras.optimizers.Optimizer):
    """Stochastic gradient descent with momentum and weight decay, step for step as torch.optim.SGD.

    With g the gradient, clipped to a global norm, and w the weight:

        g = g + decay * w;  v = momentum * v + g;  w = w - learning_rate * (g + momentum * v)

    the last of which is w = w - learning_rate * v without Nesterov's rule.

    Keras' SGD multiplies the velocity by the learning rate when it is added, and decays apart from the
    momentum, which is another rule under a schedule.

    Args:
        learning_rate: A number or a Keras schedule.
        momentum: Share of the velocity that is kept.
        decay: Factor of the weight that is added to the gradient (L2).
        clip_norm: Global norm that the gradients are clipped to before; None or 0 turns it off.
        nesterov: Whether the step looks ahead along the velocity. AutoDL-2020's does; those of DARTS and of
            the authors' code of 2019 do not.

    Raises:
        UsageError: An argument of Keras' optimizers that this one does not honour.
    """

    def __init__(
        self,
        learning_rate: Any = 0.025,
        momentum: float = 0.9,
        decay: float = 3e-4,
        clip_norm: float | None = 5.0,
        nesterov: bool = True,
        name: str = "sgd",
        **kwargs: Any,
    ) -> None:
        for argument, value in kwargs.items():
            if argument not in _NOT_HONOURED or value != _NOT_HONOURED[argument]:
                raise UsageError(
                    f"{type(self).__name__}: found {argument}={value!r}; accepted are learning_rate, "
                    "momentum, decay, clip_norm, nesterov and name"
                )
        super().__init__(learning_rate=learning_rate, name=name)
        self.momentum, self.decay, self.nesterov = momentum, decay, nesterov
        self.clip_norm = clip_norm or None

    def build(self, variables: list[Any]) -> None:
        if self.built:
            return
        super().build(variables)
        self.velocities = self.add_optimizer_variables(variables, "velocity")

    def apply(
        self,
        grads: Sequence[tf.Tensor | None],
        trainable_variables: Sequence[Any] | None = None,
        masks: Sequence[tf.Tensor | None] | None = None,
    ) -> None:
        """Update the variables.

        Args:
            grads: A gradient for each variable. A variable whose gradient is None stays as it is, and so does
                its velocity.
            trainable_variables: The variables; by default those that the optimizer was built with.
            masks: For each variable a bool tensor of its shape, or None. Where a mask is false neither weight
                nor velocity moves, as those of operations that were not sampled must not.

        Raises:
            UsageError: There are not as many gradients or masks as variables.
        """
        variables = list(self._trainable_variables if trainable_variables is None else trainable_variables)
        refuse_shared(self, variables)
        if not self.built:
            self.build(variables)
        for given, what in ((grads, "gradients"), (masks, "masks")):
            if given is not None and len(given) != len(variables):
                raise UsageError(
                    f"{type(self).__name__}: found {len(given)} {what} of {len(variables)} variables"
                )
        self._check_variables_are_known(variables)
        if self.loss_scale_factor is not None:
            grads = [None if gradient is None else gradient / self.loss_scale_factor for gradient in grads]
        if self.clip_norm is not None:
            grads = _clipped(grads, self.clip_norm)
        learning_rate = self.learning_rate
        for variable, gradient, mask in zip(variables, grads, masks or [None] * len(variables), strict=True):
            if gradient is not None:
                self._move(variable, gradient, mask, learning_rate)
        self.iterations.assign_add(1)

    def _move(self, variable: Any, gradient: tf.Tensor, mask: tf.Tensor | None, learning_rate: Any) -> None:
        """The step of one variable."""
        velocity = self.velocities[self._get_variable_index(variable)]
        weight, before = tf.convert_to_tensor(variable.value), tf.convert_to_tensor(velocity.value)
        gradient = tf.cast(gradient, weight.dtype) + constant(self.decay) * weight
        momentum = constant(self.momentum)
        moved = momentum * before + gradient
        direction = gradient + momentum * moved if self.nesterov else moved
        updated = weight - tf.cast(learning_rate, weight.dtype) * direction
        if mask is not None:
            moved = tf.where(mask, moved, before)
            updated = tf.where(mask, updated, weight)
        velocity.assign(moved)
        variable.assign(updated if variable.constraint is None else variable.constraint(updated))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {
            "name": config["name"],
            "learning_rate": config["learning_rate"],
            "momentum": self.momentum,
            "decay": self.decay,
            "clip_norm": self.clip_norm,
            "nesterov": self.nesterov,
        }


def _clipped(gradients: Sequence[tf.Tensor | None], norm: float) -> list[tf.Tensor | None]:
    """The gradients, scaled so that their global norm is at most `norm`; one that is not finite makes them
    NaN."""
    squares = [tf.reduce_sum(tf.square(gradient)) for gradient in gradients if gradient is not None]
    found = tf.sqrt(tf.reduce_sum(tf.stack(squares)))
    scale = norm * tf.minimum(1.0 / found, 1.0 / norm) + (found - found)
    return [None if gradient is None else gradient * scale for gradient in gradients]

"""The optimizers of the method, as PyTorch's (which the published results were made with) rather than Keras'
own, and the schedule of their learning rate."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from gdas_tf.errors import UsageError
from gdas_tf.keras_backend import keras
from gdas_tf.numerics.graph_constants import constant

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

    takes_masks = True

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
        super().__init__(learning_rate=learning_rate, global_clipnorm=clip_norm or None, name=name)
        self.momentum, self.decay, self.nesterov = momentum, decay, nesterov
        self._masks: dict[Any, tf.Tensor] = {}

    def build(self, variables: list[Any]) -> None:
        if self.built:
            return
        super().build(variables)
        self.velocities = self.add_optimizer_variables(variables, "velocity")

    def apply(
        self,
        grads: Sequence[tf.Tensor],
        trainable_variables: Sequence[Any] | None = None,
        masks: Sequence[tf.Tensor | None] | None = None,
    ) -> None:
        """Update the variables.

        Args:
            grads: A gradient for each variable.
            trainable_variables: The variables; by default those that the optimizer was built with.
            masks: For each variable a bool tensor of its shape, or None. Where a mask is false neither weight
                nor velocity moves, as those of operations that were not sampled must not.
        """
        variables = self._trainable_variables if trainable_variables is None else list(trainable_variables)
        with self.masked(variables, masks):
            super().apply(grads, trainable_variables)

    @contextlib.contextmanager
    def masked(self, variables: Sequence[Any], masks: Sequence[tf.Tensor | None] | None) -> Iterator[None]:
        """Give the updates inside their masks, where another optimizer (for loss scaling) calls `apply`.

        Args:
            variables: The variables that are updated.
            masks: For each of them a mask or None; None stands for no masks, or those given further outside.
        """
        before = self._masks
        if masks is not None:
            pairs = zip(variables, masks, strict=True)
            self._masks = {self._var_key(variable): mask for variable, mask in pairs if mask is not None}
        try:
            yield
        finally:
            self._masks = before

    def update_step(self, gradient: tf.Tensor, variable: Any, learning_rate: Any) -> None:
        # Keras passes TensorFlow's variable here; its own stands at the same index.
        index = self._get_variable_index(variable)
        velocity = self.velocities[index]
        weight, before = tf.convert_to_tensor(variable), tf.convert_to_tensor(velocity)
        gradient = tf.cast(gradient, weight.dtype) + constant(self.decay) * weight
        momentum = constant(self.momentum)
        moved = momentum * before + gradient
        direction = gradient + momentum * moved if self.nesterov else moved
        updated = weight - tf.cast(learning_rate, weight.dtype) * direction
        mask = self._masks.get(self._var_key(self._trainable_variables[index]))
        if mask is not None:
            moved = tf.where(mask, moved, before)
            updated = tf.where(mask, updated, weight)
        self.assign(velocity, moved)
        self.assign(variable, updated)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {
            "name": config["name"],
            "learning_rate": config["learning_rate"],
            "momentum": self.momentum,
            "decay": self.decay,
            "clip_norm": self.global_clipnorm,
            "nesterov": self.nesterov,
        }


def apply_masked(
    optimizer: keras.optimizers.Optimizer,
    gradients: Sequence[tf.Tensor],
    variables: Sequence[Any],
    masks: Sequence[tf.Tensor | None],
) -> None:
    """Update variables by an `SGD`, alone or in a LossScaleOptimizer; masks as of `SGD.apply`."""
    with masking_optimizer(optimizer).masked(variables, masks):
        optimizer.apply(gradients, variables)


def masking_optimizer(optimizer: keras.optimizers.Optimizer) -> SGD:
    """The `SGD` that an optimizer is, or that a LossScaleOptimizer wraps.

    Raises:
        UsageError: It is another one, which knows no masks.
    """
    descent = getattr(optimizer, "inner_optimizer", optimizer)
    if not (isinstance(descent, SGD) and descent.takes_masks):
        raise UsageError(
            f"weight optimizer: found {type(descent).__name__}, which cannot leave alone the weights that "
            "were not sampled; accepted is gdas_tf.optimizers.torch_sgd.SGD, also in a LossScaleOptimizer, "
            'or any optimizer with unsampled="decayed"'
        )
    return descent

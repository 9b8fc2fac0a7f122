"""The method's SGD for networks of many small variables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from gdas_tf.errors import UsageError
from gdas_tf.keras_backend import keras
from gdas_tf.optimizers.flat import flatten, unflatten
from gdas_tf.optimizers.replicas import refuse_shared


@keras.saving.register_keras_serializable("gdas_tf")
class FlatSGD(keras.optimizers.Optimizer):
    """Stochastic gradient descent as torch.optim.SGD, with all weights as one vector and one velocity.

    A derived network has hundreds of variables, and updating them one by one makes up a third of the step's
    operations, which have to be traced, optimized and dispatched. The steps are those of
    `gdas_tf.optimizers.torch_sgd.SGD`, without the masks that a search needs. With g the gradient, clipped to
    a global norm, and w the weights:

        g = g + decay * w;  v = momentum * v + g
        w = w - learning_rate * (g + momentum * v)   with Nesterov momentum
        w = w - learning_rate * v                    without

    What the vector cannot do is refused rather than left out: weights of other types than float32 or with a
    constraint, a weight without a gradient, other weights than those of the first step, weights that several
    replicas share.

    Args:
        learning_rate: a number or a Keras schedule.
        momentum: share of the velocity that is kept, from 0 to below 1.
        decay: factor of the weight that is added to the gradient (L2).
        clip_norm: global norm that the gradients are clipped to before; 0 or None for no clipping.
        nesterov: whether the momentum is Nesterov's (Sutskever et al., ICML 2013).
        name: of the optimizer.

    Raises:
        UsageError: a number is out of range; in a step: one of what is refused.
    """

    def __init__(
        self,
        learning_rate: Any = 0.025,
        momentum: float = 0.9,
        decay: float = 3e-4,
        clip_norm: float | None = 5.0,
        nesterov: bool = True,
        name: str = "flat_sgd",
    ) -> None:
        super().__init__(learning_rate=learning_rate, name=name)
        clip_norm = clip_norm or 0.0
        if not 0 <= momentum < 1:
            raise UsageError(f"momentum: found {momentum}; it must be at least 0 and below 1")
        for value, what in ((decay, "decay"), (clip_norm, "clip_norm")):
            if not (math.isfinite(value) and value >= 0):
                raise UsageError(f"{what}: found {value}; it must be at least 0")
        self.momentum, self.decay, self.clip_norm = momentum, decay, clip_norm
        self.nesterov = nesterov

    def build(self, variables: list[Any]) -> None:
        if self.built:
            return
        for variable in variables:
            if variable.dtype != "float32":
                raise UsageError(f"FlatSGD: {variable.path} is {variable.dtype}; accepted is float32")
            if variable.constraint is not None:
                raise UsageError(
                    f"FlatSGD: {variable.path} has a constraint; accepted are weights without one"
                )
        super().build(variables)
        size = sum(math.prod(variable.shape) for variable in variables)
        self.velocity = self.add_variable(shape=(size,), initializer="zeros", name="velocity")

    def apply(self, grads: Sequence[tf.Tensor], trainable_variables: Sequence[Any] | None = None) -> None:
        weights = list(self._trainable_variables if trainable_variables is None else trainable_variables)
        refuse_shared(self, weights)
        if not self.built:
            self.build(weights)
        self._check(grads, weights)
        gradient = flatten(grads)
        if self.loss_scale_factor is not None:
            gradient /= self.loss_scale_factor
        if self.clip_norm:
            gradient *= self.clip_norm / tf.maximum(self.clip_norm, tf.norm(gradient))
        gradient += self.decay * flatten([weight.value for weight in weights])
        velocity = self.momentum * self.velocity.value + gradient
        self.velocity.assign(velocity)
        change = gradient + self.momentum * velocity if self.nesterov else velocity
        change *= tf.cast(self.learning_rate, tf.float32)
        for weight, part in zip(weights, unflatten(change, weights), strict=True):
            weight.value.assign_sub(part)
        self.iterations.assign_add(1)

    def _check(self, grads: Sequence[tf.Tensor | None], weights: Sequence[Any]) -> None:
        built = self._trainable_variables
        if len(weights) != len(built) or any(
            one is not other for one, other in zip(weights, built, strict=True)
        ):
            raise UsageError(
                f"FlatSGD: found {len(weights)} weights that are not the {len(built)} of its first step; "
                "give the same ones in the same order"
            )
        if len(grads) != len(weights):
            raise UsageError(f"FlatSGD: found {len(grads)} gradients of {len(weights)} weights")
        for gradient, weight in zip(grads, weights, strict=True):
            if gradient is None:
                raise UsageError(f"FlatSGD: {weight.path} has no gradient; every weight needs one")

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {
            **{name: config[name] for name in ("name", "learning_rate")},
            "momentum": self.momentum,
            "decay": self.decay,
            "clip_norm": self.clip_norm,
            "nesterov": self.nesterov,
        }

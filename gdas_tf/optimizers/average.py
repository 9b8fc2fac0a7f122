"""The exponential moving average of a network's weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from gdas_tf.errors import UsageError
from gdas_tf.keras_backend import keras
from gdas_tf.optimizers.flat import flatten, unflatten


class WeightAverage:
    """Follows the variables of a network while they are trained: a = d * a + (1 - d) * w after each step.

    The decay d grows to the given one, min(decay, (1 + t) / (10 + t)) after t updates, so that the initial
    weights are soon forgotten (as `tf.train.ExponentialMovingAverage` with its `num_updates`). All variables
    of float32 are averaged, the moving statistics of batch norms with them, as in the code of EfficientNet
    (tensorflow/tpu, `get_ema_vars`): averaged weights with the statistics of others would be another network.

    Keras' `use_ema` averages variable by variable and leaves out the statistics. Here all are one vector, so
    that an update adds one operation on it to the step.

    Args:
        variables: Those of the network; it keeps those of float32.
        decay: From 0 to below 1; 0.999 averages over about the last thousand steps.

    Raises:
        UsageError: The decay is out of range.

    Example:

    >>> average = WeightAverage(network.variables, decay=0.999)
    >>> average.update()  # after each step of the optimizer
    >>> with average.applied():
    ...     network.evaluate(images)  # doctest: +SKIP
    """

    def __init__(self, variables: Sequence[Any], decay: float) -> None:
        if not 0 <= decay < 1:
            raise UsageError(f"ema: found a decay of {decay}; it must be at least 0 and below 1")
        self.decay = decay
        self.averaged = [variable for variable in variables if variable.dtype == "float32"]
        self.updates = keras.Variable(0, dtype="int64", trainable=False, name="updates")
        self.average = keras.Variable(self._weights(), trainable=False, name="average")

    @property
    def variables(self) -> list[Any]:
        """What a checkpoint has to keep."""
        return [self.updates, self.average]

    def update(self) -> None:
        """Take the weights of now into the average."""
        done = tf.cast(self.updates.value, tf.float32)
        rate = 1.0 - tf.minimum(self.decay, (1.0 + done) / (10.0 + done))
        before = tf.convert_to_tensor(self.average.value)
        self.average.assign(before + rate * (self._weights() - before))
        self.updates.assign_add(1)

    def swap(self) -> None:
        """Exchange the weights of the network and the average."""
        weights = self._weights()
        parts = unflatten(tf.convert_to_tensor(self.average.value), self.averaged)
        for variable, part in zip(self.averaged, parts, strict=True):
            variable.assign(part)
        self.average.assign(weights)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Let the network have the average inside the block."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def _weights(self) -> tf.Tensor:
        return flatten([variable.value for variable in self.averaged])

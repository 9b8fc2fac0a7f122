"""Many small variables as one vector, and back: one operation on it in place of hundreds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from gdas_tf.numerics.graph_constants import constant


def flatten(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """The values of tensors one after the other, [n in all]."""
    flat = constant((-1,))  # hundreds of operations share it
    return tf.concat([tf.reshape(tensor, flat) for tensor in tensors], 0)


def unflatten(vector: tf.Tensor, variables: Sequence[Any]) -> list[tf.Tensor]:
    """The parts of a vector in the shapes of variables, as `flatten` put them together."""
    parts = tf.split(vector, [math.prod(variable.shape) for variable in variables])
    return [
        tf.reshape(part, constant(variable.shape)) for part, variable in zip(parts, variables, strict=True)
    ]

"""Paths: what runs on the edges of a cell in one pass of the supernet."""

from __future__ import annotations

from typing import NamedTuple

from gdas_tf.numerics.lazy import tf


class Sampled(NamedTuple):
    """One operation for each of E edges.

    index: int32 [E], the operation sampled.
    soft: float32 [E, K], the relaxed distribution that the gradient goes through.
    gate: float32 [E], the straight-through weight h[index]: one in the forward pass, with the gradient of
        soft[index]. Multiplying by it changes nothing, so the supernet only uses its gradient. Of an edge
        that is off (`SearchSpace.off`) it may have any value.
    others: float32 [E], the sum of the gates h[k] that were not sampled: zero in the forward pass. Where it
        is given, it is added to every value of the edge's output y, so that its gradient is the sum of dy.
        Adding it changes nothing, so the supernet only uses its gradient.
    """

    index: tf.Tensor
    soft: tf.Tensor
    gate: tf.Tensor
    others: tf.Tensor | None = None


class Mixture(NamedTuple):
    """All K operations on each of E edges, weighted: the output of an edge is their weighted sum.

    weights: float32 [E, K], in the order of `SearchSpace.edges` and `SearchSpace.operations`. Both updates
        give gradients of them, and of the supernet's weights.
    """

    weights: tf.Tensor


Paths = Sampled | Mixture
"""What runs on the edges of a cell."""


class Choice(NamedTuple):
    """A sample, its indices taken apart into scalars once a pass for all cells of a kind: see `Sampled`."""

    index: tf.Tensor
    indices: list[tf.Tensor]
    gate: tf.Tensor
    others: tf.Tensor | None = None

    @classmethod
    def of(cls, sample: Sampled) -> Choice:
        # The choice is made where the branches are dispatched, on the host. The gates only matter to the
        # backward pass: on a GPU their gradients are gathered there, and come back as one tensor.
        with tf.device("CPU:0"):
            indices = tf.unstack(sample.index)
        return cls(sample.index, indices, sample.gate, sample.others)

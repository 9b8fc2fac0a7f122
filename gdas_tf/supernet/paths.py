"""Paths: what runs on the edges of a cell in one pass of the supernet."""

from __future__ import annotations

from typing import NamedTuple

from gdas_tf.numerics.lazy import tf


class Sampled(NamedTuple):
    """One operation for each of E edges.

    index: int32 [E], the operation sampled.
    soft: float32 [E, K], the relaxed distribution that the gradient goes through.
    gate: float32 [E], the straight-through weight h[index]: one in the forward pass, with the gradient of
        soft[index]. Multiplying by it changes nothing, so the supernet only uses its gradient.
    """

    index: tf.Tensor
    soft: tf.Tensor
    gate: tf.Tensor

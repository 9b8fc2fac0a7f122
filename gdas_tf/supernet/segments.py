"""Where the weights and statistics of each candidate of an edge stand in the flat vectors of the edge.

A few variables a cell take the place of a thousand in the network, so that optimizer and masks handle few.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from gdas_tf.numerics.graph_constants import constant, zeros
from gdas_tf.operations.base import Statistics, candidate


class Segments:
    """Where the weights and the batch norm statistics of each candidate stand in the flat vectors of an edge.

    Args:
        operations: Names of the candidates, in the order of the architecture's columns.
        channels: Channels of the edge.
        stride: Stride of the edge.
        pool_norm: Whether poolings have a batch norm after them.
    """

    def __init__(
        self, operations: tuple[str, ...], channels: int, stride: int, pool_norm: bool = False
    ) -> None:
        self.channels = channels
        candidates = [candidate(name, pool_norm) for name in operations]
        self.shapes = [operation.kernel_shapes(channels, stride) for operation in candidates]
        self.norms = [operation.norms(stride) for operation in candidates]
        weights = [sum(map(math.prod, shapes)) for shapes in self.shapes]
        statistics = [2 * channels * norms for norms in self.norms]
        self.weight_bounds = _bounds(weights)
        self.statistic_bounds = _bounds(statistics)
        self.weights, self.statistics = sum(weights), sum(statistics)

    def kernels(self, flat: tf.Tensor, operation: int) -> list[tf.Tensor]:
        """Cut the kernels of one candidate out of the edge's vector [weights]."""
        shapes = self.shapes[operation]
        if not shapes:
            return []
        start, end = self.weight_bounds[operation]
        sizes = [math.prod(shape) for shape in shapes]
        parts = tf.split(flat, constant((start, *sizes, self.weights - end)), num=len(sizes) + 2)[1:-1]
        return [tf.reshape(part, constant(shape)) for part, shape in zip(parts, shapes, strict=True)]

    def flat_weights(self, kernels: Sequence[tf.Tensor], operation: int) -> tf.Tensor:
        """The reverse of `kernels`: a vector [weights], zero outside of the candidate's segment."""
        return _place(kernels, self.weight_bounds[operation], self.weights)

    def flat_statistics(self, statistics: Statistics, operation: int) -> tf.Tensor:
        """Means and variances of a candidate in a vector [statistics], zero outside of its segment."""
        return _place(tf.nest.flatten(statistics), self.statistic_bounds[operation], self.statistics)

    def moving(self, flat: tf.Tensor, operation: int) -> Statistics:
        """Cut the statistics of one candidate out of the edge's vector [statistics]."""
        start, end = self.statistic_bounds[operation]
        parts = tf.reshape(flat[start:end], [self.norms[operation], 2, self.channels])
        return [(part[0], part[1]) for part in tf.unstack(parts)] if self.norms[operation] else []

    def weight_mask(self, index: tf.Tensor) -> tf.Tensor:
        """bool [edges, weights], true in the segment of each edge's candidate; index: int32 [edges]."""
        return _in_segment(self.weight_bounds, index)

    def statistic_mask(self, index: tf.Tensor) -> tf.Tensor:
        """bool [edges, statistics], true in the segment of each edge's candidate; index: int32 [edges]."""
        return _in_segment(self.statistic_bounds, index)


def _bounds(sizes: Sequence[int]) -> list[tuple[int, int]]:
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def _place(parts: Sequence[tf.Tensor], bounds: tuple[int, int], total: int) -> tf.Tensor:
    if not parts:
        return zeros(total)
    flat = [part if part.shape.rank == 1 else tf.reshape(part, constant((-1,))) for part in parts]
    joined = tf.concat(flat, constant(0)) if len(flat) > 1 else flat[0]
    return tf.pad(tf.cast(joined, tf.float32), constant(((bounds[0], total - bounds[1]),)))


def _in_segment(bounds: Sequence[tuple[int, int]], index: tf.Tensor) -> tf.Tensor:
    # The candidate that each place belongs to is one number, a mask of all candidates K times as many.
    # (int8, as a GPU compares int32 on the host.)
    owners = np.repeat(np.arange(len(bounds), dtype=np.int8), [end - start for start, end in bounds])
    return tf.equal(owners, tf.cast(index, tf.int8)[:, None])

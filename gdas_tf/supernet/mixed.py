"""The mixed operation: every candidate of an edge, of which only the sampled one is ever computed.

How it runs, and why:
- The choice is one `Case` operation whose branches are the candidates, so that the step stays one compiled
  graph and what is not sampled costs nothing, however many candidates there are.
- Branches are traced once for each shape of edge and shared by all edges of that shape.
- A branch only calls its candidate, as a function of its own that is not inlined. TensorFlow optimizes the
  graph of a called function (oneDNN kernels, fusions) but not that of a branch: a depthwise convolution
  directly in a branch takes 6 times as long (docs/performance.md). Only candidates in which there is nothing
  to optimize are branches themselves.
- The gradient is written out. A backward branch computes what it needs again from the edge's input, and there
  is one for each of the two updates: that of the architecture computes no gradients of kernels, that of the
  weights none of gates.
- The weights of a candidate are a segment of one flat vector, the row of its edge: a few variables a cell
  instead of a thousand in the network.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from gdas_tf.keras_backend import keras
from gdas_tf.numerics.graph_constants import constant, zeros
from gdas_tf.operations.base import Operation, Shape, Statistics, Update, candidate
from gdas_tf.operations.checks import checked
from gdas_tf.operations.initializers import FanInUniform


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


@dataclasses.dataclass(frozen=True)
class EdgeShape:
    """All that the branches of an edge depend on; edges that are equal in it share them.

    Args:
        operations: Names of the candidates.
        shape: Static shape [B, H, W, C] of the edge's input.
        stride: Stride of the edge.
        dtype: What is computed in; weights and statistics stay float32.
        jit_compile: Compile each candidate with XLA.
        pool_norm: Whether poolings have a batch norm after them.
    """

    operations: tuple[str, ...]
    shape: Shape
    stride: int
    dtype: str = "float32"
    jit_compile: bool = False
    pool_norm: bool = False

    @property
    def output_shape(self) -> Shape:
        batch, height, width, channels = self.shape
        return (batch, -(-height // self.stride), -(-width // self.stride), channels)

    @functools.cached_property
    def segments(self) -> Segments:
        return Segments(self.operations, self.shape[-1], self.stride, self.pool_norm)

    def candidate(self, operation: int) -> Operation:
        return candidate(self.operations[operation], self.pool_norm)

    @property
    def x(self) -> tf.TensorSpec:
        return tf.TensorSpec(self.shape, self.dtype)

    @property
    def y(self) -> tf.TensorSpec:
        return tf.TensorSpec(self.output_shape, self.dtype)

    @property
    def weights(self) -> tf.TensorSpec:
        return tf.TensorSpec([self.segments.weights])

    def kernels(self, flat: tf.Tensor, operation: int) -> list[tf.Tensor]:
        return [tf.cast(kernel, self.dtype) for kernel in self.segments.kernels(flat, operation)]


MOMENTS = 3
"""Tensors that a forward branch returns for the backward branch: empty ones for a candidate without batch
norm, as all branches of a Case must be of one signature."""


@functools.cache
def forward_branches(edge: EdgeShape) -> list[Any]:
    """Branches (x, weights) -> (y, statistics of the batch, *moments)."""

    def branch(operation: int) -> Any:
        def run(x: tf.Tensor, weights: tf.Tensor) -> tuple[tf.Tensor, ...]:
            kernels = edge.kernels(weights, operation)
            result = edge.candidate(operation).forward_without_tape(x, kernels, edge.stride)
            moments = result.reserved or (zeros(0),) * MOMENTS
            return (result.output, edge.segments.flat_statistics(result.statistics, operation), *moments)

        return _branch(run, [edge.x, edge.weights], edge, operation)

    return [branch(operation) for operation in range(len(edge.operations))]


@functools.cache
def backward_branches(edge: EdgeShape, update: Update) -> list[Any]:
    """Branches (dy, x, weights, *moments) -> (dx, dweights), for the architecture (dx, dgate)."""

    def branch(operation: int) -> Any:
        def run(dy: tf.Tensor, x: tf.Tensor, weights: tf.Tensor, *moments: tf.Tensor) -> Any:
            kernels = edge.kernels(weights, operation)
            result = edge.candidate(operation).backward(dy, x, kernels, moments, edge.stride, update)
            if update == "weights":
                return result.input, edge.segments.flat_weights(result.kernels, operation)
            return result.input, result.gate

        inputs = [edge.y, edge.x, edge.weights, *[tf.TensorSpec(None)] * MOMENTS]
        return _branch(run, inputs, edge, operation)

    return [branch(operation) for operation in range(len(edge.operations))]


@functools.cache
def inference_branches(edge: EdgeShape) -> list[Any]:
    """Branches (x, weights, moving statistics) -> y."""

    def branch(operation: int) -> Any:
        def run(x: tf.Tensor, weights: tf.Tensor, statistics: tf.Tensor) -> tf.Tensor:
            moving = edge.segments.moving(statistics, operation)
            kernels = edge.kernels(weights, operation)
            return edge.candidate(operation).inference(x, kernels, moving, edge.stride)

        inputs = [edge.x, edge.weights, tf.TensorSpec([edge.segments.statistics])]
        return _branch(run, inputs, edge, operation)

    return [branch(operation) for operation in range(len(edge.operations))]


def _branch(
    function: Callable[..., Any], inputs: list[tf.TensorSpec], edge: EdgeShape, operation: int
) -> Any:
    """Trace a function of its own, which is not inlined, and the branch that only calls it."""
    # The functions are global: they must not belong to whatever graph happens to be traced when they are
    # first used.
    with tf.init_scope():
        if edge.candidate(operation).trivial(edge.stride):
            return tf.function(function, autograph=False).get_concrete_function(*inputs)
        call = tf.function(
            function,
            autograph=False,
            jit_compile=edge.jit_compile or None,
            experimental_attributes={"_noinline": True},
        ).get_concrete_function(*inputs)
        return tf.function(lambda *arguments: call(*arguments), autograph=False).get_concrete_function(
            *inputs
        )


def _case(
    index: tf.Tensor, inputs: list[tf.Tensor], types: list[Any], branches: list[Any]
) -> list[tf.Tensor]:
    return tf.raw_ops.StatelessCase(
        branch_index=index, input=inputs, Tout=types, branches=branches, output_shapes=[]
    )


@keras.saving.register_keras_serializable("gdas_tf")
class MixedOperation(keras.layers.Layer):
    """All candidate operations of one or more edges of the same stride, one of which is sampled.

    Args:
        operations: Names of the candidates.
        stride: 1 or 2.
        edges: Number of edges, each with weights of its own.
        momentum: Of the moving statistics of the batch norms.
        jit_compile: Compile each candidate with XLA (for GPUs; on a CPU it is slower).
        pool_norm: Whether poolings have a batch norm after them.

    Weights: `kernels` [edges, P], and `statistics` [edges, S], where P and S are what all candidates have.

    Example:

    >>> layer = MixedOperation(("none", "skip_connect", "sep_conv_3x3"))
    >>> y = layer(keras.ops.ones((4, 8, 8, 16)), index=tf.constant(2), edge=0)
    >>> y.shape
    TensorShape([4, 8, 8, 16])
    """

    def __init__(
        self,
        operations: Sequence[str],
        stride: int = 1,
        edges: int = 1,
        momentum: float = 0.9,
        jit_compile: bool = False,
        pool_norm: bool = False,
        **kwargs: Any,
    ) -> None:
        # Gates and weights stay float32; images arrive in the type that is computed in.
        super().__init__(autocast=False, **kwargs)
        for name in operations:
            checked(name)
        self.operations = tuple(operations)
        self.stride, self.edges, self.momentum, self.jit_compile = stride, edges, momentum, jit_compile
        self.pool_norm = pool_norm

    def build(self, input_shape: Shape) -> None:
        self.segments = Segments(self.operations, input_shape[-1], self.stride, self.pool_norm)
        self.kernels = self.add_weight(
            name="kernels", shape=(self.edges, self.segments.weights), initializer=self._initial_kernels
        )
        self.statistics = self.add_weight(
            name="statistics",
            shape=(self.edges, self.segments.statistics),
            initializer=self._initial_statistics,
            trainable=False,
        )

    def _initial_kernels(self, shape: Shape, dtype: Any = None) -> tf.Tensor:
        shapes = [shape for shapes in self.segments.shapes for shape in shapes]
        limits = [np.full(math.prod(shape), FanInUniform.limit(shape), np.float32) for shape in shapes]
        return np.concatenate([np.zeros(0, np.float32), *limits]) * keras.random.uniform(shape, -1, 1)

    def _initial_statistics(self, shape: Shape, dtype: Any = None) -> tf.Tensor:
        channels = self.segments.channels
        norms = sum(self.segments.norms)
        mean_and_variance = tf.concat([tf.zeros([channels]), tf.ones([channels])], 0)
        return tf.tile(mean_and_variance[None], [self.edges, norms])

    def call(self, inputs: tf.Tensor, index: tf.Tensor, edge: int = 0) -> tf.Tensor:
        """Inference: operation `index` (int32 scalar) of an edge, by its moving statistics."""
        branches = inference_branches(self._edge(inputs))
        (y,) = _case(index, [inputs, self.kernels[edge], self.statistics[edge]], [inputs.dtype], branches)
        y.set_shape(self._edge(inputs).output_shape)
        return y

    def forward(
        self, x: tf.Tensor, index: tf.Tensor, kernels: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        """Training pass through one edge; the cell differentiates it by `backward`.

        Args:
            x: [B, H, W, C].
            index: int32 scalar, the operation sampled.
            kernels: [P], the edge's row of `self.kernels`.

        Returns:
            The output, the batch's statistics [S] for `update_statistics`, and the moments for `backward`.
        """
        edge = self._edge(x)
        types = [edge.dtype, tf.float32, *[tf.float32] * MOMENTS]
        y, statistics, *moments = _case(index, [x, kernels], types, forward_branches(edge))
        y.set_shape(edge.output_shape)
        statistics.set_shape([edge.segments.statistics])
        return y, statistics, moments

    def backward(
        self,
        dy: tf.Tensor,
        x: tf.Tensor,
        index: tf.Tensor,
        kernels: tf.Tensor,
        moments: Sequence[tf.Tensor],
        update: Update,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Gradient of `forward` by x, and by the edge's kernels [P] or, for the architecture, by the gate of
        the sampled operation, a scalar (`Sampled.gate`)."""
        edge = self._edge(x)
        inputs = [dy, x, kernels, *moments]
        dx, dparameter = _case(index, inputs, [edge.dtype, tf.float32], backward_branches(edge, update))
        dx.set_shape(edge.shape)
        dparameter.set_shape(kernels.shape if update == "weights" else [])
        return dx, dparameter

    def update_statistics(self, batch: tf.Tensor, index: tf.Tensor) -> None:
        """Move the statistics of the sampled operations (int32 [edges]) by those of a batch [edges, S]."""
        sampled = self.segments.statistic_mask(index)
        moved = constant(self.momentum) * self.statistics + constant(1 - self.momentum) * batch
        self.statistics.assign(tf.where(sampled, moved, self.statistics))

    def weight_mask(self, index: tf.Tensor) -> tf.Tensor:
        """bool [edges, P]: which weights belong to the sampled operations; index: int32 [edges]."""
        return self.segments.weight_mask(index)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, height, width, channels = input_shape
        return (batch, -(-height // self.stride), -(-width // self.stride), channels)

    def _edge(self, inputs: tf.Tensor) -> EdgeShape:
        return EdgeShape(
            self.operations,
            tuple(inputs.shape),
            self.stride,
            inputs.dtype.name,
            self.jit_compile,
            self.pool_norm,
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "operations": list(self.operations),
            "stride": self.stride,
            "edges": self.edges,
            "momentum": self.momentum,
            "jit_compile": self.jit_compile,
            "pool_norm": self.pool_norm,
        }

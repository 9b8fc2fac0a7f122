"""The candidates of an edge as branches of a `Case`, of which only the sampled one is ever computed.

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
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from gdas_tf.numerics.graph_constants import zeros
from gdas_tf.operations.base import Operation, Shape, Update, candidate
from gdas_tf.supernet.layers import add
from gdas_tf.supernet.segments import Segments


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


@functools.cache
def mixture(edge: EdgeShape, operations: int, training: bool) -> Any:
    """The weighted sum of the first operations as a function of its own, which a tape differentiates.

    It is traced once for each shape of edge, as branches are: eight operations on each of a hundred edges, in
    five passes, would take minutes before the first step.

    Returns:
        (x, weights [K], kernels [P], moving statistics [S]) -> (y, statistics of the batch [S]), which are
        the moving ones where not `training`.
    """

    def run(x: tf.Tensor, weights: tf.Tensor, flat: tf.Tensor, statistics: tf.Tensor) -> Any:
        terms, batches = [], []
        for operation in range(operations):
            kernels = edge.kernels(flat, operation)
            if training:
                y, _, batch = edge.candidate(operation).forward(x, kernels, edge.stride)
                batches += [tf.reshape(value, [-1]) for value in tf.nest.flatten(batch)]
            else:
                moving = edge.segments.moving(statistics, operation)
                y = edge.candidate(operation).inference(x, kernels, moving, edge.stride)
            terms.append(tf.cast(weights[operation], y.dtype) * y)
        return add(terms), tf.concat(batches, 0) if batches else statistics

    weights = tf.TensorSpec([operations])
    with tf.init_scope():  # as of `_branch`
        return tf.function(run, autograph=False).get_concrete_function(
            edge.x, weights, edge.weights, tf.TensorSpec([edge.segments.statistics])
        )


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


def case(index: tf.Tensor, inputs: list[tf.Tensor], types: list[Any], branches: list[Any]) -> list[tf.Tensor]:
    return tf.raw_ops.StatelessCase(
        branch_index=index, input=inputs, Tout=types, branches=branches, output_shapes=[]
    )

"""The mixed operation: every candidate of some edges, with weights of its own on each.

Sampled operations run as branches of a `Case` (`gdas_tf.supernet.branches`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from gdas_tf.keras_backend import keras
from gdas_tf.numerics.graph_constants import constant
from gdas_tf.operations.base import Shape, Update
from gdas_tf.operations.checks import checked
from gdas_tf.operations.initializers import FanInUniform
from gdas_tf.supernet.branches import (
    MOMENTS,
    EdgeShape,
    backward_branches,
    case,
    forward_branches,
    inference_branches,
    mixture,
)
from gdas_tf.supernet.segments import Segments


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
        # An edge that is off runs `none`, as one more branch where that is no candidate (`SearchSpace.off`).
        self.branches = self.operations if "none" in operations else (*self.operations, "none")
        self.stride, self.edges, self.momentum, self.jit_compile = stride, edges, momentum, jit_compile
        self.pool_norm = pool_norm

    def build(self, input_shape: Shape) -> None:
        self.segments = Segments(self.branches, input_shape[-1], self.stride, self.pool_norm)
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
        (y,) = case(index, [inputs, self.kernels[edge], self.statistics[edge]], [inputs.dtype], branches)
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
        y, statistics, *moments = case(index, [x, kernels], types, forward_branches(edge))
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
        dx, dparameter = case(index, inputs, [edge.dtype, tf.float32], backward_branches(edge, update))
        dx.set_shape(edge.shape)
        dparameter.set_shape(kernels.shape if update == "weights" else [])
        return dx, dparameter

    def mixture(
        self, x: tf.Tensor, weights: tf.Tensor, edge: int, update: Update | None
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """The weighted sum of all candidates, differentiable by a tape.

        Args:
            x: [B, H, W, C].
            weights: float32 [K].
            edge: Row of the edge.
            update: As of the cell's `call`; None in inference, by the moving statistics.

        Returns:
            The output, and in training the statistics of all candidates' batches [S].
        """
        row = tf.convert_to_tensor(self.kernels.value)[edge]
        run = mixture(self._edge(x), len(self.operations), update is not None)
        y, batch = run(x, weights, row, tf.convert_to_tensor(self.statistics.value)[edge])
        return y, None if update is None else batch

    def update_all_statistics(self, batch: tf.Tensor) -> None:
        """Move the statistics of all operations by those of a batch [edges, S]."""
        self.statistics.assign(
            constant(self.momentum) * self.statistics + constant(1 - self.momentum) * batch
        )

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
            self.branches,
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

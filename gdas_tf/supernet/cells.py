"""The cells of the supernet: the searched cell and the fixed reduction cell, and the layers around its edges.

Every layer's `call` takes `update`: "weights" or "architecture" in training, by whose gradient the pass is
for, and None in inference. Statistics of batch norms move in the update of the weights only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from gdas_tf.keras_backend import keras
from gdas_tf.numerics.graph_constants import constant
from gdas_tf.numerics.primitives import (
    Normalized,
    convolution,
    convolution_input_gradient,
    convolution_kernel_gradient,
    max_pool,
    normalize,
    normalize_by,
    normalize_gradient,
    relu,
)
from gdas_tf.operations.base import Shape, Update
from gdas_tf.operations.initializers import FanInUniform
from gdas_tf.operations.skip import factorize, factorized_kernel_shapes
from gdas_tf.spaces.base import SearchSpace
from gdas_tf.supernet.mixed import MixedOperation
from gdas_tf.supernet.paths import Sampled


class Choice(NamedTuple):
    """A sample, its indices taken apart into scalars once a pass for all cells of a kind: see `Sampled`."""

    index: tf.Tensor
    indices: list[tf.Tensor]
    gate: tf.Tensor

    @classmethod
    def of(cls, sample: Sampled) -> Choice:
        # The choice is made where the branches are dispatched, on the host. The gates only matter to the
        # backward pass: on a GPU their gradients are gathered there, and come back as one tensor.
        with tf.device("CPU:0"):
            indices = tf.unstack(sample.index)
        return cls(sample.index, indices, sample.gate)


class SupernetLayer(keras.layers.Layer):
    """Base of the supernet's layers: float32 weights, computation in the type of the images."""

    def __init__(self, momentum: float = 0.9, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.momentum = momentum

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "momentum": self.momentum}


@keras.saving.register_keras_serializable("gdas_tf")
class BatchNorm(SupernetLayer):
    """Batch norm as one fused kernel, in training and inference, epsilon 1e-5.

    Args:
        affine: Whether there are a scale and an offset to learn.
        momentum: Of the moving statistics.

    Input and output: [B, H, W, C].
    """

    def __init__(self, affine: bool = False, momentum: float = 0.9, **kwargs: Any) -> None:
        super().__init__(momentum, **kwargs)
        self.affine = affine

    def build(self, input_shape: Shape) -> None:
        shape = (input_shape[-1],)
        if self.affine:
            self.gamma = self.add_weight(name="gamma", shape=shape, initializer="ones")
            self.beta = self.add_weight(name="beta", shape=shape, initializer="zeros")
        self.mean = self.add_weight(name="moving_mean", shape=shape, initializer="zeros", trainable=False)
        self.variance = self.add_weight(
            name="moving_variance", shape=shape, initializer="ones", trainable=False
        )

    def call(self, inputs: tf.Tensor, update: Update | None = None) -> tf.Tensor:
        scale, offset = (self.gamma.value, self.beta.value) if self.affine else (None, None)
        if update is None:
            return normalize_by(inputs, self.mean.value, self.variance.value, scale, offset)
        y = normalize(inputs, scale, offset)
        if update == "weights":
            self.update_statistics(y)
        return y.output

    def update_statistics(self, batch: Normalized) -> None:
        """Move the statistics by those of a batch."""
        for moving, value in ((self.mean, batch.mean), (self.variance, batch.variance)):
            moving.assign(constant(self.momentum) * moving.value + constant(1 - self.momentum) * value)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "affine": self.affine}


@keras.saving.register_keras_serializable("gdas_tf")
class Preprocess(SupernetLayer):
    """What a cell does to each of its inputs: 1x1 convolution to its own number of channels, batch norm.

    The ReLU before the convolution is the supernet's, which does it once for both cells that read an input.

    Args:
        filters: Channels of the cell.
        reduce: Take the place of the 1x1 convolution by a factorized reduction, which halves height and
            width, for an input that comes from before a reduction cell.

    Input: [B, H, W, C]. Output: [B, H, W, filters], or half of H and W.
    """

    def __init__(self, filters: int, reduce: bool = False, momentum: float = 0.9, **kwargs: Any) -> None:
        super().__init__(momentum, **kwargs)
        self.filters, self.reduce, self.stride = filters, reduce, 2 if reduce else 1
        self.norm = BatchNorm(momentum=momentum)

    def build(self, input_shape: Shape) -> None:
        channels = input_shape[-1]
        plain = [(1, 1, channels, self.filters)]
        shapes = factorized_kernel_shapes(channels, self.filters) if self.reduce else plain
        self.kernels = [
            self.add_weight(name=f"kernel_{i}", shape=shape, initializer=FanInUniform())
            for i, shape in enumerate(shapes)
        ]
        self.norm.build((*input_shape[:-1], self.filters))
        self.image_shape = tuple(input_shape)

    def call(self, inputs: tf.Tensor, update: Update | None = None) -> tf.Tensor:
        return self.norm(convolution(inputs, self.kernel(inputs.dtype), self.stride), update=update)

    def kernel(self, dtype: tf.DType) -> tf.Tensor:
        """The weights as the kernel of one convolution."""
        kernels = [tf.cast(tf.convert_to_tensor(kernel.value), dtype) for kernel in self.kernels]
        return factorize(kernels, self.image_shape) if self.reduce else kernels[0]

    def forward(self, x: tf.Tensor, kernel: tf.Tensor) -> tuple[Normalized, Callable[..., Any]]:
        """Training pass, for a cell that differentiates it itself.

        Returns:
            The output with the batch's statistics, and the function (dy, update) -> (dx, dkernel), of which
            dkernel is None in the update of the architecture.
        """
        z = convolution(x, kernel, self.stride)
        y = normalize(z)

        def backward(dy: tf.Tensor, update: Update) -> tuple[tf.Tensor, tf.Tensor | None]:
            dz, _ = normalize_gradient(dy, z, y.reserved)
            dx = convolution_input_gradient(dz, kernel, x.shape, self.stride)
            if update == "architecture":
                return dx, None
            return dx, convolution_kernel_gradient(dz, x, tuple(kernel.shape), self.stride)

        return y, backward

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, height, width, _ = input_shape
        return (batch, -(-height // self.stride), -(-width // self.stride), self.filters)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": self.filters, "reduce": self.reduce}


class _Cell(SupernetLayer):
    """A cell's two inputs, brought to its number of channels and to one size."""

    def __init__(self, filters: int, reduce_first: bool, momentum: float, **kwargs: Any) -> None:
        super().__init__(momentum, **kwargs)
        self.filters, self.reduce_first = filters, reduce_first
        self.preprocess = (Preprocess(filters, reduce_first, momentum), Preprocess(filters, False, momentum))

    def build(self, input_shape: tuple[Shape, Shape]) -> None:
        for preprocess, shape in zip(self.preprocess, input_shape, strict=True):
            preprocess.build(shape)
        self.input_shapes = [
            preprocess.compute_output_shape(shape)
            for preprocess, shape in zip(self.preprocess, input_shape, strict=True)
        ]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": self.filters, "reduce_first": self.reduce_first}


def _sum(terms: list[tf.Tensor]) -> tf.Tensor:
    """The sum of tensors of one shape, the same to the last bit in every run.

    AddN takes the place of one of its terms if that is free by then, and adds that one first. Terms may be
    another tensor under a second name (`skip_connect`), so which is free is a matter of timing. The first of
    these terms is always free. (`runtime.graphs_as_written` keeps the two sums from being made one.)
    """
    if len(terms) > 2:
        terms = [terms[0] + terms[1], *terms[2:]]
    return tf.add_n(terms)


class _Edge(NamedTuple):
    """An edge of a searched cell: its number, its input, and the mixed operation and row that it is."""

    number: int
    source: int
    group: int
    row: int


@keras.saving.register_keras_serializable("gdas_tf")
class SearchedCell(_Cell):
    """A cell whose every edge is a mixed operation.

    Node i adds up the edges from the two inputs and from nodes 0 to i - 1; the output is the concatenation of
    the nodes. Edges are numbered node by node, as the rows of the architecture (`SearchSpace.edges`).

    Args:
        space: Operations and nodes.
        filters: Channels of each node.
        reduction: A reduction cell: the edges from the inputs have stride 2.
        reduce_first: The first input is twice as large as the second (a reduction cell came between).
        pool_norm: Whether poolings have a batch norm after them.

    Its gradient is written out, as that of its edges is: it keeps the nodes and nothing else.

    Input: two tensors [B, H, W, C], each after its ReLU, the first perhaps twice as high and wide.
    Output: [B, H, W, nodes * filters], or half of H and W.
    """

    def __init__(
        self,
        space: SearchSpace,
        filters: int,
        reduction: bool = False,
        reduce_first: bool = False,
        momentum: float = 0.9,
        jit_compile: bool = False,
        pool_norm: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(filters, reduce_first, momentum, **kwargs)
        self.space, self.reduction, self.jit_compile = space, reduction, jit_compile
        self.pool_norm = pool_norm
        entering = [edge for edge, (_, source) in enumerate(space.edges) if source < 2]
        inner = [edge for edge, (_, source) in enumerate(space.edges) if source >= 2]
        if not reduction:
            entering, inner = [], entering + inner
        self.groups = [(stride, sorted(edges)) for stride, edges in ((2, entering), (1, inner)) if edges]
        options = (momentum, jit_compile, pool_norm)
        self.mixed = [
            MixedOperation(space.operations, stride, len(edges), *options, name=f"mixed_stride_{stride}")
            for stride, edges in self.groups
        ]
        places = {
            edge: (group, row)
            for group, (_, edges) in enumerate(self.groups)
            for row, edge in enumerate(edges)
        }
        self.nodes: list[list[_Edge]] = [[] for _ in range(space.nodes)]
        for edge, (node, source) in enumerate(space.edges):
            self.nodes[node].append(_Edge(edge, source, *places[edge]))

    def build(self, input_shape: tuple[Shape, Shape]) -> None:
        super().build(input_shape)
        for mixed in self.mixed:
            mixed.build(self.input_shapes[1])

    def call(
        self, inputs: tuple[tf.Tensor, tf.Tensor], choice: Choice, update: Update | None = None
    ) -> tf.Tensor:
        if update is None:
            states = [preprocess(x) for preprocess, x in zip(self.preprocess, inputs, strict=True)]
            return self._infer(states, choice)
        output, normalized, statistics = self._train(*inputs, choice, update)
        if update == "weights":
            for preprocess, batch in zip(self.preprocess, normalized, strict=True):
                preprocess.norm.update_statistics(batch)
            for mixed, batches, (_, edges) in zip(self.mixed, statistics, self.groups, strict=True):
                mixed.update_statistics(tf.stack(batches), tf.gather(choice.index, edges))
        return output

    def _infer(self, states: list[tf.Tensor], choice: Choice) -> tf.Tensor:
        for edges in self.nodes:
            terms = [
                self.mixed[edge.group](states[edge.source], index=choice.indices[edge.number], edge=edge.row)
                for edge in edges
            ]
            states.append(_sum(terms))
        return tf.concat(states[2:], -1)

    def _train(
        self, x0: tf.Tensor, x1: tf.Tensor, choice: Choice, update: Update
    ) -> tuple[tf.Tensor, list[Normalized], list[list[tf.Tensor]]]:
        """The output, what preprocessing made of the inputs, and the statistics of every edge's batch by
        group."""
        normalized: list[Normalized] = []
        statistics: list[list[tf.Tensor]] = [[] for _ in self.mixed]
        kernels = [tf.convert_to_tensor(mixed.kernels.value) for mixed in self.mixed]
        rows = [tf.unstack(values) for values in kernels]
        first = [preprocess.kernel(x0.dtype) for preprocess in self.preprocess]

        # The last arguments are there to receive their gradients: the kernels of preprocessing and of each
        # group, or the gates.
        @tf.custom_gradient
        def nodes(x0: tf.Tensor, x1: tf.Tensor, *_: tf.Tensor) -> Any:
            units = [p.forward(x, k) for p, x, k in zip(self.preprocess, (x0, x1), first, strict=True)]
            normalized.extend(y for y, _ in units)
            states, moments = [y.output for y, _ in units], {}
            for edges in self.nodes:
                terms = []
                for edge in edges:
                    mixed, index = self.mixed[edge.group], choice.indices[edge.number]
                    y, batch, moments[edge] = mixed.forward(
                        states[edge.source], index, rows[edge.group][edge.row]
                    )
                    terms.append(y)
                    statistics[edge.group].append(batch)
                states.append(_sum(terms))

            def gradient(doutput: tf.Tensor) -> tuple[tf.Tensor, ...]:
                terms = [[], [], *([dnode] for dnode in tf.split(doutput, self.space.nodes, -1))]
                dparameters: dict[int, tf.Tensor] = {}
                for node, edges in reversed(list(enumerate(self.nodes))):
                    dnode = _sum(terms[2 + node])
                    for edge in edges:
                        dx, dparameters[edge.number] = self.mixed[edge.group].backward(
                            dnode,
                            states[edge.source],
                            choice.indices[edge.number],
                            rows[edge.group][edge.row],
                            moments[edge],
                            update,
                        )
                        terms[edge.source].append(dx)
                stacks = [edges for _, edges in self.groups] if update == "weights" else [sorted(dparameters)]
                gradients = [tf.stack([dparameters[edge] for edge in edges]) for edges in stacks]
                inputs = [backward(_sum(terms[i]), update) for i, (_, backward) in enumerate(units)]
                dfirst = [dkernel for _, dkernel in inputs] if update == "weights" else []
                return (*(dx for dx, _ in inputs), *dfirst, *gradients)

            return tf.concat(states[2:], -1), gradient

        parameters = [*first, *kernels] if update == "weights" else [choice.gate]
        return nodes(x0, x1, *parameters), normalized, statistics

    def weight_masks(self, index: tf.Tensor) -> list[tuple[Any, tf.Tensor]]:
        """Variables of the edges' weights, each with a mask of what was sampled; index: int32 [edges]."""
        return [
            (mixed.kernels, mixed.weight_mask(tf.gather(index, edges)))
            for mixed, (_, edges) in zip(self.mixed, self.groups, strict=True)
        ]

    def compute_output_shape(self, input_shape: tuple[Shape, Shape]) -> Shape:
        batch, height, width, _ = input_shape[1]
        factor = 2 if self.reduction else 1
        return (batch, -(-height // factor), -(-width // factor), self.space.nodes * self.filters)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "space": {
                "operations": list(self.space.operations),
                "nodes": self.space.nodes,
                "inputs_per_node": self.space.inputs_per_node,
            },
            "reduction": self.reduction,
            "jit_compile": self.jit_compile,
            "pool_norm": self.pool_norm,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SearchedCell:
        space = config.pop("space")
        return cls(SearchSpace(**{**space, "operations": tuple(space["operations"])}), **config)


@keras.saving.register_keras_serializable("gdas_tf")
class FixedReductionCell(_Cell):
    """The fixed reduction cell (FRC) of Dong & Yang (CVPR 2019), which is not searched.

    For each input one branch of ReLU, 1x3 convolution of stride (1, 2), 3x1 convolution of stride (2, 1)
    (both of 8 groups), batch norm, ReLU, 1x1 convolution, batch norm; and one of 3x3 max pooling of stride 2,
    batch norm. The output is the concatenation of the four. Its batch norms have scale and offset.

    Args:
        filters: Channels of each branch.
        reduce_first: The first input is twice as large as the second.

    Input: two tensors [B, H, W, C], each after its ReLU. Output: [B, H / 2, W / 2, 4 * filters].
    """

    def __init__(
        self, filters: int, reduce_first: bool = False, momentum: float = 0.9, **kwargs: Any
    ) -> None:
        super().__init__(filters, reduce_first, momentum, **kwargs)
        self.norms = [[BatchNorm(True, momentum) for _ in range(3)] for _ in range(2)]

    def build(self, input_shape: tuple[Shape, Shape]) -> None:
        super().build(input_shape)
        groups = frc_groups(self.filters)
        shapes = [
            (1, 3, self.filters // groups, self.filters),
            (3, 1, self.filters // groups, self.filters),
            (1, 1, self.filters, self.filters),
        ]
        self.kernels = [
            [
                self.add_weight(name=f"branch_{branch}_kernel_{i}", shape=shape, initializer=FanInUniform())
                for i, shape in enumerate(shapes)
            ]
            for branch in range(2)
        ]
        for norms in self.norms:
            for norm in norms:
                norm.build(self.input_shapes[1])

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor], update: Update | None = None) -> tf.Tensor:
        states = [preprocess(x, update=update) for preprocess, x in zip(self.preprocess, inputs, strict=True)]
        convolved, pooled = [], []
        for x, kernels, (middle, end, pool) in zip(states, self.kernels, self.norms, strict=True):
            wide, high, point = (tf.cast(kernel.value, x.dtype) for kernel in kernels)
            y = self._grouped(relu(x), wide, (1, 2))
            y = middle(self._grouped(y, high, (2, 1)), update=update)
            convolved.append(end(convolution(relu(y), point), update=update))
            pooled.append(pool(max_pool(x, 3, 2), update=update))
        return tf.concat([*convolved, *pooled], -1)

    def _grouped(self, x: tf.Tensor, kernel: tf.Tensor, strides: tuple[int, int]) -> tf.Tensor:
        # TensorFlow has no gradient of grouped convolutions on the CPU; the same as a convolution whose
        # kernel is zero between groups.
        groups = frc_groups(self.filters)
        group = tf.range(self.filters) // (self.filters // groups)
        same = tf.cast(group[:, None] == group[None], kernel.dtype)
        dense = tf.tile(kernel, [1, 1, groups, 1]) * same
        return tf.nn.conv2d(x, dense, strides, "SAME")

    def compute_output_shape(self, input_shape: tuple[Shape, Shape]) -> Shape:
        batch, height, width, _ = input_shape[1]
        return (batch, -(-height // 2), -(-width // 2), 4 * self.filters)


def frc_groups(filters: int) -> int:
    """Groups of the fixed reduction cell's convolutions: 8, as published, or the most that divide."""
    return math.gcd(8, filters)

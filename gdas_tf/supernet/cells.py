"""The searched cell of the supernet: every edge is a mixed operation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from gdas_tf.keras_backend import keras
from gdas_tf.operations.base import Shape, Update
from gdas_tf.spaces.base import SearchSpace
from gdas_tf.supernet.layers import Cell, add
from gdas_tf.supernet.mixed import MixedOperation
from gdas_tf.supernet.paths import Choice, Mixture
from gdas_tf.supernet.training_pass import TrainingPass


class CellEdge(NamedTuple):
    """An edge of a searched cell: its number, its input, and the mixed operation and row that it is."""

    number: int
    source: int
    group: int
    row: int


@keras.saving.register_keras_serializable("gdas_tf")
class SearchedCell(Cell):
    """A cell whose every edge is a mixed operation.

    Node i adds up the edges from the inputs and from nodes 0 to i - 1; the output is the concatenation of the
    nodes, or the last one. Edges are numbered node by node, as the rows of the architecture
    (`SearchSpace.edges`).

    Args:
        space: Inputs, operations, nodes and output.
        filters: Channels of each node.
        reduction: A reduction cell: the edges from the inputs have stride 2.
        reduce_first: The first of two inputs is twice as large as the second (a reduction cell came between).
        pool_norm: Whether poolings have a batch norm after them.

    Input: `space.inputs` tensors [B, H, W, C], the first of two perhaps twice as high and wide; each after
    its ReLU where the space preprocesses a cell's inputs.
    Output: [B, H, W, nodes * filters], of the last node alone [B, H, W, filters]; of a reduction cell half of
    H and W.
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
        plain = not space.preprocess
        super().__init__(filters, space.inputs, reduce_first, momentum, plain, **kwargs)
        self.space, self.reduction, self.jit_compile = space, reduction, jit_compile
        self.pool_norm = pool_norm
        entering = [edge for edge, (_, source) in enumerate(space.edges) if source < space.inputs]
        inner = [edge for edge, (_, source) in enumerate(space.edges) if source >= space.inputs]
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
        self.nodes: list[list[CellEdge]] = [[] for _ in range(space.nodes)]
        for edge, (node, source) in enumerate(space.edges):
            self.nodes[node].append(CellEdge(edge, source, *places[edge]))

    def build(self, input_shape: tuple[Shape, ...]) -> None:
        super().build(input_shape)
        for mixed in self.mixed:
            mixed.build(self.input_shapes[-1])

    def call(
        self, inputs: Sequence[tf.Tensor], choice: Choice | Mixture, update: Update | None = None
    ) -> tf.Tensor:
        if isinstance(choice, Mixture):
            return self._mixture(inputs, choice, update)
        if update is None:
            return self._infer(self.enter(inputs), choice)
        return self._train(inputs, choice, update)

    def _infer(self, states: list[tf.Tensor], choice: Choice) -> tf.Tensor:
        for edges in self.nodes:
            terms = [
                self.mixed[edge.group](states[edge.source], index=choice.indices[edge.number], edge=edge.row)
                for edge in edges
            ]
            states.append(add(terms))
        return self.output(states)

    def _mixture(self, inputs: Sequence[tf.Tensor], choice: Mixture, update: Update | None) -> tf.Tensor:
        """All operations of every edge, differentiated by the tape."""
        states = self.enter(inputs, update)
        statistics: list[list[tf.Tensor]] = [[] for _ in self.mixed]
        for edges in self.nodes:
            terms = []
            for edge in edges:
                weights = choice.weights[edge.number]
                y, batch = self.mixed[edge.group].mixture(states[edge.source], weights, edge.row, update)
                terms.append(y)
                statistics[edge.group].append(batch)
            states.append(add(terms))
        if update == "weights":
            for mixed, batches in zip(self.mixed, statistics, strict=True):
                mixed.update_all_statistics(tf.stack(batches))
        return self.output(states)

    def output(self, states: list[tf.Tensor]) -> tf.Tensor:
        """What the cell makes of its states, the inputs and then the nodes."""
        return states[-1] if self.space.output == "last" else tf.concat(states[self.inputs :], -1)

    def _train(self, inputs: Sequence[tf.Tensor], choice: Choice, update: Update) -> tf.Tensor:
        """The sampled operations; the whole gradient is written out, see `TrainingPass`."""
        training_pass = TrainingPass(self, choice, update, inputs[0].dtype)

        @tf.custom_gradient
        def differentiable(*arguments: tf.Tensor) -> Any:
            output = training_pass.forward(arguments[: self.inputs])
            return output, training_pass.backward

        output = differentiable(*inputs, *training_pass.parameters)
        if update == "weights":
            training_pass.update_statistics()
        return output

    def weight_masks(self, index: tf.Tensor) -> list[tuple[Any, tf.Tensor]]:
        """Variables of the edges' weights, each with a mask of what was sampled; index: int32 [edges]."""
        return [
            (mixed.kernels, mixed.weight_mask(tf.gather(index, edges)))
            for mixed, (_, edges) in zip(self.mixed, self.groups, strict=True)
        ]

    def compute_output_shape(self, input_shape: tuple[Shape, ...]) -> Shape:
        batch, height, width, _ = input_shape[-1]
        factor = 2 if self.reduction else 1
        return (batch, -(-height // factor), -(-width // factor), self.space.output_channels(self.filters))

    def get_config(self) -> dict[str, Any]:
        values = super().get_config()
        values.pop("inputs")  # the space says it
        return {
            **values,
            "space": self.space.to_json(),
            "reduction": self.reduction,
            "jit_compile": self.jit_compile,
            "pool_norm": self.pool_norm,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SearchedCell:
        config = dict(config)
        return cls(SearchSpace.from_json(config.pop("space")), **config)

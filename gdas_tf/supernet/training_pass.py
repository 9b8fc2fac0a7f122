"""One training pass through a searched cell, and its gradient, written out for the whole cell.

A tape would trace each edge and each sum with a gradient of its own: twice as many graph operations, which
delay the first step by more than a second and make no step faster. `supernet/reference.py` is the same by
automatic differentiation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import tensorflow as tf

from gdas_tf.operations.base import Update
from gdas_tf.supernet.layers import add
from gdas_tf.supernet.paths import Choice

if TYPE_CHECKING:
    from gdas_tf.supernet.cells import SearchedCell


class TrainingPass:
    """A pass by which the weights of a cell or its gates are to learn: `forward`, then `backward` once.

    Between the two it keeps the states (what preprocessing made of the inputs, and the nodes) and nothing
    else of the size of an image.

    Args:
        cell: The cell.
        choice: The operation of each edge.
        update: Whose gradient `backward` returns, beside that by the inputs.
        dtype: Of the images.

    Attributes:
        parameters: What `backward` returns gradients of, after those of the inputs: for the weights the
            kernels of preprocessing and of each group of edges, for the architecture the gates, and after
            them the sums of the gates that were not sampled where the choice has them.
    """

    def __init__(self, cell: SearchedCell, choice: Choice, update: Update, dtype: tf.DType) -> None:
        self.cell, self.choice, self.update = cell, choice, update
        self._kernels = [tf.convert_to_tensor(mixed.kernels.value) for mixed in cell.mixed]
        self._rows = [tf.unstack(kernels) for kernels in self._kernels]
        self._first = [preprocess.kernel(dtype) for preprocess in cell.preprocess]
        gates = [choice.gate] if choice.others is None else [choice.gate, choice.others]
        self.parameters = [*self._first, *self._kernels] if update == "weights" else gates

    def forward(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        """The output of the cell; inputs as of `SearchedCell.call`."""
        plain = not self.cell.preprocess
        units = [
            preprocess.forward(x, kernel)
            for preprocess, x, kernel in zip(self.cell.preprocess, inputs, self._first, strict=not plain)
        ]
        self._normalized = [normalized for normalized, _ in units]
        self._backward_of_inputs = [backward for _, backward in units]
        self._states = list(inputs) if plain else [normalized.output for normalized in self._normalized]
        self._statistics: list[list[tf.Tensor]] = [[] for _ in self.cell.mixed]
        self._moments: dict[int, list[tf.Tensor]] = {}
        for edges in self.cell.nodes:
            terms = []
            for edge in edges:
                y, statistics, self._moments[edge.number] = self.cell.mixed[edge.group].forward(
                    self._states[edge.source],
                    self.choice.indices[edge.number],
                    self._rows[edge.group][edge.row],
                )
                self._statistics[edge.group].append(statistics)
                terms.append(y)
            self._states.append(add(terms))
        return self.cell.output(self._states)

    def backward(self, doutput: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """The gradients by the inputs and by `parameters`, for the gradient by the output."""
        nodes = len(self.cell.nodes)
        last = self.cell.space.output == "last"
        parts = [doutput] if last else tf.split(doutput, nodes, -1)
        # Of each state the gradients that come from its readers: from the output, then from later nodes.
        dstates: list[list[tf.Tensor]] = [[] for _ in self._states[: -len(parts)]]
        dstates += [[part] for part in parts]
        dparameters: dict[int, tf.Tensor] = {}
        dothers: dict[int, tf.Tensor] = {}
        every_gate = self.update == "architecture" and self.choice.others is not None
        for node in reversed(range(nodes)):
            dnode = add(dstates[self.cell.inputs + node])
            if every_gate:  # the same for each edge of a node: their outputs are added up
                dother = tf.reduce_sum(tf.cast(dnode, tf.float32))
                dothers |= dict.fromkeys((edge.number for edge in self.cell.nodes[node]), dother)
            for edge in self.cell.nodes[node]:
                dx, dparameters[edge.number] = self.cell.mixed[edge.group].backward(
                    dnode,
                    self._states[edge.source],
                    self.choice.indices[edge.number],
                    self._rows[edge.group][edge.row],
                    self._moments[edge.number],
                    self.update,
                )
                dstates[edge.source].append(dx)
        by_inputs = [
            backward(add(terms), self.update)
            for backward, terms in zip(self._backward_of_inputs, dstates, strict=False)
        ]
        dinputs = [dx for dx, _ in by_inputs] or [add(terms) for terms in dstates[: self.cell.inputs]]
        if self.update == "architecture":
            gates = [_stacked(found, sorted(found)) for found in (dparameters, dothers) if found]
            return (*dinputs, *gates)
        dfirst = [dkernel for _, dkernel in by_inputs]
        dkernels = [_stacked(dparameters, edges) for _, edges in self.cell.groups]
        return (*dinputs, *dfirst, *dkernels)

    def update_statistics(self) -> None:
        """Move the moving statistics of all batch norms that ran, by those of the batch."""
        for preprocess, batch in zip(self.cell.preprocess, self._normalized, strict=True):
            preprocess.norm.update_statistics(batch)
        for mixed, batches, (_, edges) in zip(
            self.cell.mixed, self._statistics, self.cell.groups, strict=True
        ):
            mixed.update_statistics(tf.stack(batches), tf.gather(self.choice.index, edges))


def _stacked(by_edge: dict[int, tf.Tensor], edges: Sequence[int]) -> tf.Tensor:
    return tf.stack([by_edge[edge] for edge in edges])

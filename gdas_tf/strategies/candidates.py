"""Candidates: genotypes as paths of the supernet, drawn uniformly, and scored by its weights.

A genotype runs on the supernet as one operation on each edge. An edge that it has not is *off*: it runs
`none`, or, in a space without that operation, the branch after the last one, which gives zeros
(`SearchSpace.off`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gdas_tf.errors import DivergedError, UsageError
from gdas_tf.numerics.lazy import tf
from gdas_tf.spaces.genotype import Edge, Genotype, random_genotype
from gdas_tf.strategies.base import Batch, Paths, both
from gdas_tf.supernet.paths import Sampled

if TYPE_CHECKING:
    import numpy as np

    from gdas_tf.data.balance import ClassWeights
    from gdas_tf.spaces.base import SearchSpace
    from gdas_tf.supernet.network import Supernet
    from gdas_tf.training.search_model import SearchModel

KINDS = ("normal", "reduction")
"""The kinds of cells, in the order of `Paths`."""


def indices_of(genotype: Genotype, space: SearchSpace) -> dict[str, np.ndarray]:
    """Which operation each edge runs.

    Args:
        genotype: A genotype of the space.
        space: The search space.

    Returns:
        `normal`, and `reduction` unless that cell is fixed: int32 [E], in the order of `space.edges`, of
        positions in `space.operations`, `space.off` where the genotype has no such edge.

    Raises:
        UsageError: The genotype is not one of the space, or a node takes one input twice: an edge of the
            supernet runs one operation.
    """
    import numpy as np

    genotype.check_fits(space)
    edges = {edge: number for number, edge in enumerate(space.edges)}
    found = {}
    for kind, cell in genotype.cells.items():
        found[kind] = np.full(len(edges), space.off, np.int32)
        for node, kept in enumerate(cell):
            sources = [edge.input for edge in kept]
            for source in sources:
                if sources.count(source) > 1:
                    raise UsageError(
                        f"genotype: {kind} cell, node {node}: it takes input {source} "
                        f"{sources.count(source)} times, and an edge of the supernet runs one operation; "
                        "choose a genotype whose nodes take each input once"
                    )
            for edge in kept:
                found[kind][edges[node, edge.input]] = space.operations.index(edge.operation)
    return found


def genotype_of(indices: Mapping[str, np.ndarray], space: SearchSpace) -> Genotype:
    """The genotype of what `indices_of` gives; edges of a node by ascending input.

    Raises:
        UsageError: The indices are of another space.
    """
    cells: list[Any] = []
    for kind in KINDS:
        if kind not in indices:
            cells.append(None)
            continue
        row = [int(index) for index in indices[kind]]
        accepted = {*range(len(space.operations)), *([] if space.keep == "all" else [space.off])}
        if len(row) != space.edge_count or not accepted.issuperset(row):
            raise UsageError(
                f"{kind} cell: found the operations {row} on its edges; the search space {space.name} has "
                f"{space.edge_count} edges and {len(space.operations)} operations"
            )
        nodes: list[list[Edge]] = [[] for _ in range(space.nodes)]
        for (node, source), index in zip(space.edges, row, strict=True):
            if index != space.off or space.keep == "all":
                nodes[node].append(Edge(space.operations[index], source))
        cells.append(nodes)
    return Genotype.of(space, *cells)


def sampled(index: tf.Tensor, space: SearchSpace) -> Sampled:
    """The path of one cell, of the operation of each edge, int32 [E]: no gradient goes through it."""
    return Sampled(index, tf.one_hot(index, len(space.operations)), tf.ones(index.shape))


def paths_of(genotype: Genotype, space: SearchSpace) -> Paths:
    """The paths of a genotype.

    Raises:
        UsageError: As of `indices_of`.
    """
    found = indices_of(genotype, space)
    with tf.device("CPU:0"):
        return both([sampled(tf.constant(found[kind]), space) for kind in KINDS if kind in found])


def draw(space: SearchSpace, generator: np.random.Generator, fixed_reduction: bool = False) -> Genotype:
    """A genotype drawn uniformly, as `gdas_tf.spaces.genotype.random_genotype` draws.

    Args:
        space: The search space.
        generator: The next of its numbers is the seed.
        fixed_reduction: Draw no reduction cell.
    """
    reduction = "fixed" if fixed_reduction else "searched"
    return random_genotype(space, int(generator.integers(2**31)), reduction)


def draw_different(
    space: SearchSpace,
    generator: np.random.Generator,
    count: int,
    fixed_reduction: bool = False,
    tries: int = 100,
) -> list[Genotype]:
    """`count` different genotypes drawn uniformly, fewer where `tries` draws in a row find no new one."""
    found: dict[Genotype, None] = {}
    since = 0
    while len(found) < count and since < tries:
        genotype = draw(space, generator, fixed_reduction)
        since = since + 1 if genotype in found else 0
        found.setdefault(genotype)
    return list(found)


def uniform(space: SearchSpace, kinds: Iterable[str], seed: int, step: tf.Tensor) -> Paths:
    """The paths of a genotype drawn uniformly for a step, in graph, from seed and step alone.

    A node keeps `space.inputs_per_node` of its inputs, all sets of them equally likely, and each edge that is
    kept has one of the operations that a genotype may have.

    Args:
        space: The search space.
        kinds: The kinds of cells that are searched: "normal", and "reduction" unless that cell is fixed.
        seed: Of the search.
        step: int64 scalar.
    """
    with tf.device("CPU:0"):
        cells = []
        for position, _ in enumerate(kinds):
            key = tf.stack([tf.constant(seed, tf.int64), tf.cast(step, tf.int64) * 2 + position])
            u = tf.random.stateless_uniform([2, space.edge_count], key)
            cells.append(sampled(_drawn(space, u[0], u[1]), space))
    return both(cells)


def _drawn(space: SearchSpace, order: tf.Tensor, operation: tf.Tensor) -> tf.Tensor:
    """int32 [E] of two rows of numbers in [0, 1): by the one a node ranks its edges, the other says which of
    the operations an edge has."""
    accepted = space.candidates()
    position = tf.cast(operation * len(accepted), tf.int32)
    index = tf.gather(tf.constant(accepted, tf.int32), tf.minimum(position, len(accepted) - 1))
    if space.keep == "all":
        return index
    kept, first = [], 0
    for node in range(space.nodes):
        edges = space.inputs + node
        _, chosen = tf.math.top_k(order[first : first + edges], min(space.inputs_per_node, edges))
        kept.append(tf.reduce_any(tf.one_hot(chosen, edges, True, False, dtype=tf.bool), 0))
        first += edges
    return tf.where(tf.concat(kept, 0), index, space.off)


def score(
    search: SearchModel,
    genotypes: Sequence[Genotype],
    validation: Callable[[], Iterable[Batch]],
    batches: int | None = None,
) -> list[float]:
    """The validation loss of genotypes by the weights of the supernet.

    Batch norms take the statistics of each batch, and no moving statistics change: those of a supernet are
    of all the paths that it was trained on, and of no single one. Equal genotypes are computed once.

    Args:
        search: The model whose `supernet` is used.
        genotypes: Of the supernet's space.
        validation: Gives images of D_V in full batches, always the same in the same order, as
            `Strategy.end_epoch` has it.
        batches: How many of the batches are used, the first ones; None for all.

    Returns:
        The mean cross entropy in nats of each; infinity where it is no number.

    Raises:
        UsageError: A genotype is no path (`indices_of`), or there is no batch.
    """
    import numpy as np

    from gdas_tf.runtime import graphs_as_written

    space = search.supernet.space
    rows = {genotype: _rows(genotype, space) for genotype in genotypes}
    sums, count = np.zeros(len(rows)), 0
    loss = _loss_function(search.supernet, search.balance.of_images)
    with graphs_as_written():
        for number, (images, labels) in enumerate(validation()):
            if number == batches:
                break
            sums += [float(loss(images, labels, row)) for row in rows.values()]
            count += 1
    if not count:
        raise UsageError("validation: found no batch of images of D_V; at least one is needed")
    losses = dict(zip(rows, sums / count, strict=True))
    return [losses[genotype] if math.isfinite(losses[genotype]) else math.inf for genotype in genotypes]


def _rows(genotype: Genotype, space: SearchSpace) -> tf.Tensor:
    """int32 [kinds, E] of a genotype."""
    with tf.device("CPU:0"):
        return tf.stack([tf.constant(row) for row in indices_of(genotype, space).values()])


@functools.lru_cache(maxsize=1)
def _loss_function(
    supernet: Supernet, class_weights: ClassWeights
) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    """The loss of a batch by paths [kinds, E], traced once for all candidates of a supernet."""
    from gdas_tf.numerics.losses import cross_entropy
    from gdas_tf.runtime import after_reference_variable

    @tf.function(autograph=False)
    def loss(images: tf.Tensor, labels: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        paths = [sampled(row, supernet.space) for row in tf.unstack(rows)]
        images = after_reference_variable(images)
        # This update takes the batch's statistics and moves none; without a tape it has no backward pass.
        return cross_entropy(labels, supernet(images, *paths, update="architecture"), class_weights)

    return loss


def weights_of(genotype: Genotype, supernet: Supernet) -> int:
    """Number of trainable weights of a supernet that a genotype's loss depends on.

    Those of an edge count if something comes in, and if what goes out reaches the output of the cell: behind
    a node without an edge a convolution computes the same whatever its weights are.

    Args:
        genotype: A genotype of the supernet's space.
        supernet: Built.
    """
    from gdas_tf.supernet.cells import SearchedCell

    rows = indices_of(genotype, supernet.space)
    count = supernet.count_trainable()
    for cell in supernet.cells:
        if isinstance(cell, SearchedCell):
            row = rows["reduction" if cell.reduction else "normal"]
            running = _running(row, supernet.space)
            for mixed in cell.mixed:
                count -= math.prod(mixed.kernels.shape)
            for edge in (edge for node in cell.nodes for edge in node if edge.number in running):
                shapes = cell.mixed[edge.group].segments.shapes[int(row[edge.number])]
                count += sum(map(math.prod, shapes))
    return count


def _running(row: np.ndarray, space: SearchSpace) -> set[int]:
    """Numbers of the edges that something comes into and that lead to the output."""
    on = [number for number in range(space.edge_count) if row[number] != space.off]
    filled = set(range(space.inputs))
    for number in on:  # in the order of the nodes
        node, source = space.edges[number]
        if source in filled:
            filled.add(space.inputs + node)
    last = space.inputs + space.nodes - 1
    read = {last} if space.output == "last" else set(range(space.inputs, last + 1))
    for number in reversed(on):
        node, source = space.edges[number]
        if space.inputs + node in read:
            read.add(source)
    return {n for n in on if space.edges[n][1] in filled and space.inputs + space.edges[n][0] in read}


def best(losses: Sequence[float]) -> int:
    """The position of the smallest loss; of equal ones the first.

    Raises:
        DivergedError: None of them is a number.
    """
    position = min(range(len(losses)), key=lambda i: losses[i] if math.isfinite(losses[i]) else math.inf)
    if not math.isfinite(losses[position]):
        raise DivergedError(
            f"the search diverged: none of {len(losses)} candidates has a validation loss that is a number; "
            "lower search.weight_learning_rate"
        )
    return position

"""Genotypes changed in one place: another operation on an edge, or another input of a node."""

from __future__ import annotations

import dataclasses
import random

from gdas_tf.spaces.base import SearchSpace
from gdas_tf.spaces.genotype import Cell, Edge, Genotype


def mutated(genotype: Genotype, space: SearchSpace, generator: random.Random) -> Genotype:
    """A genotype that differs from another one in one operation or in one input.

    The cell, the kind of change, the node and its edge are drawn uniformly. An input is only changed to one
    that the node does not take yet; where all nodes of the cell take all that there are, an operation is
    changed. Real et al. (arXiv 1802.01548) also let 5 % of the children be as their parent, which is of no
    use here, where what is known of a genotype is kept.

    Args:
        genotype: A genotype of the space, of which no node takes an input twice.
        space: The search space.
        generator: What is drawn comes from it.
    """
    kind = generator.choice(list(genotype.cells))
    cell = genotype.cells[kind]
    places = [(node, place) for node, edges in enumerate(cell) for place in range(len(edges))]
    movable = [(node, place) for node, place in places if _free(cell, node, space)]
    operations = space.candidates(keep_none=space.keep == "all")
    change_input = bool(movable) and (len(operations) < 2 or generator.random() < 0.5)
    node, place = generator.choice(movable if change_input else places)
    edge = cell[node][place]
    if change_input:
        edge = Edge(edge.operation, generator.choice(_free(cell, node, space)))
    else:
        others = [name for name in map(space.operations.__getitem__, operations) if name != edge.operation]
        if not others:  # a space of one operation, whose nodes take all inputs, has one genotype
            return genotype
        edge = Edge(generator.choice(others), edge.input)
    edges = [*cell[node][:place], edge, *cell[node][place + 1 :]]
    changed = (*cell[:node], tuple(edges), *cell[node + 1 :])
    return ordered(dataclasses.replace(genotype, **{kind: changed}))


def ordered(genotype: Genotype) -> Genotype:
    """The same cells, edges of a node by ascending input: genotypes with the same edges are equal then."""
    cells = [
        None if cell is None else tuple(tuple(sorted(node, key=lambda edge: edge.input)) for node in cell)
        for cell in (genotype.normal, genotype.reduction)
    ]
    return dataclasses.replace(genotype, normal=cells[0], reduction=cells[1], name=None)


def _free(cell: Cell, node: int, space: SearchSpace) -> list[int]:
    """The inputs that a node might take and does not."""
    taken = {edge.input for edge in cell[node]}
    return [source for source in range(space.inputs + node) if source not in taken]

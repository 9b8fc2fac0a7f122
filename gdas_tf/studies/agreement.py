"""How far the genotypes of several seeds agree, beside what chance gives."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np

from gdas_tf.spaces.base import SearchSpace
from gdas_tf.spaces.genotype import Cell, Genotype, random_genotype

_DRAWN = 200  # random genotypes, of which sets are made


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Of one kind of cell of several genotypes.

    Attributes:
        share: mean over all pairs of genotypes of the share of a cell's edges that both have, with the same
            operation.
        by_chance: the same of random genotypes.
        probability: that as many random genotypes agree as well as these or better.
    """

    share: float
    by_chance: float
    probability: float


def overlap(first: Cell, second: Cell) -> float:
    """Returns the share of two cells' edges that both have: same node, input and operation."""
    edges = [
        Counter((number, *edge) for number, node in enumerate(cell) for edge in node)
        for cell in (first, second)
    ]
    return (edges[0] & edges[1]).total() / max(edge.total() for edge in edges)


def agreement(
    genotypes: Sequence[Genotype],
    space: SearchSpace,
    kind: Literal["normal", "reduction"] = "normal",
    seed: int = 0,
    sets: int = 1000,
) -> Agreement | None:
    """Returns how far the genotypes of several seeds agree; None where there are no two with such a cell.

    Args:
        genotypes: one of each seed.
        space: the search space that random genotypes are drawn from.
        kind: which of the cells.
        seed: of the random genotypes.
        sets: random sets, of as many genotypes, that the probability is counted among.
    """
    cells = [genotype.cells[kind] for genotype in genotypes if kind in genotype.cells]
    if len(cells) < 2:
        return None
    drawn = [random_genotype(space, seed + number).cells[kind] for number in range(_DRAWN)]
    table = np.array([[overlap(one, other) for other in drawn] for one in drawn])
    pairs = np.triu_indices(len(cells), 1)
    share = float(np.mean([overlap(one, other) for one, other in itertools.combinations(cells, 2)]))
    generator = np.random.default_rng(seed)
    means = []
    for _ in range(sets):
        chosen = generator.choice(_DRAWN, len(cells), replace=False)
        means.append(table[np.ix_(chosen, chosen)][pairs].mean())
    chance = float(table[np.triu_indices(_DRAWN, 1)].mean())
    # One more of each: the genotypes themselves are one of the sets that there could be.
    return Agreement(share, chance, (1 + int(np.sum(np.array(means) >= share - 1e-12))) / (1 + sets))

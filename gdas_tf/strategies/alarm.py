"""How sure a search is of what it found: edge by edge, and warnings where its result is not worth the name.

Of each edge the logits of the best and of the second operation are compared. Their difference after the
last epoch is the margin. Its noise is how far it would stray in as many epochs by chance: the standard
deviation of its changes from epoch to epoch times the square root of the number of epochs. Where the margin
is below its noise, nothing but chance is needed to explain it. What that is worth, by whether several seeds
agree: docs/study.md.

This holds for every strategy that keeps logits, `normal` and `reduction`, in its history.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from gdas_tf.spaces.base import SearchSpace
from gdas_tf.spaces.genotype import Genotype

FEWEST_CHANGES = 3
"""Epochs without which nothing is said of a margin's noise."""

_MANY = 0.5  # a result is called a coin flip or degenerate where more than this part of its edges is


@dataclasses.dataclass(frozen=True)
class EdgeCertainty:
    """How sure a search is of one edge.

    Attributes:
        node, input: the edge, as in `gdas_tf.spaces.genotype.Edge`.
        best, second: the operations of the largest and the second largest logit, `none` left out unless it
            may be derived.
        margin: difference of these two logits after the last epoch.
        noise: what the margin would stray by chance; None after too few epochs.
        none_is_best: whether the logit of `none` is the largest of all.
        kept: whether the genotype has the edge.
    """

    node: int
    input: int
    best: str
    second: str | None
    margin: float | None
    noise: float | None
    none_is_best: bool
    kept: bool

    @property
    def coin_flip(self) -> bool:
        """Whether the margin is below its noise."""
        return self.margin is not None and self.noise is not None and self.margin < self.noise


def certainty(
    history: np.ndarray, space: SearchSpace, kept: set[tuple[int, int]], keep_none: bool = False
) -> list[EdgeCertainty]:
    """Returns how sure a search is of each edge of a kind of cell.

    Args:
        history: logits before the search and after each epoch, float [epochs + 1, E, K].
        space: the search space.
        kept: (node, input) of the edges that the genotype has.
        keep_none: whether `none` may be derived.
    """
    logits = np.asarray(history, np.float64)
    epochs = len(logits) - 1
    candidates = space.candidates(keep_none)
    none = space.operations.index("none") if "none" in space.operations else None
    found = []
    for number, (node, source) in enumerate(space.edges):
        last = logits[-1, number]
        order = sorted(candidates, key=lambda operation, row=last: -row[operation])
        second = margin = noise = None
        if len(order) > 1:
            second = space.operations[order[1]]
            margin = float(last[order[0]] - last[order[1]])
            changes = np.diff(logits[:, number, order[0]] - logits[:, number, order[1]])
            if len(changes) >= FEWEST_CHANGES:
                noise = float(changes.std(ddof=1) * math.sqrt(epochs))
        found.append(
            EdgeCertainty(
                node,
                source,
                space.operations[order[0]],
                second,
                margin,
                noise,
                none is not None and int(last.argmax()) == none,
                (node, source) in kept,
            )
        )
    return found


def certainties(
    history: Mapping[str, np.ndarray], space: SearchSpace, genotype: Genotype, keep_none: bool = False
) -> dict[str, list[EdgeCertainty]]:
    """Returns how sure a search is of each edge, by the kind of cell; nothing where there are no logits.

    Args:
        history: the arrays of the strategy, as its history keeps them.
        space: the search space.
        genotype: what was derived of them.
        keep_none: whether `none` may be derived.
    """
    shape = (space.edge_count, len(space.operations))
    result = {}
    for kind, cell in genotype.cells.items():
        values = history.get(kind)
        # Arrays of this name and another shape are a strategy's own affair.
        if values is not None and values.ndim == 3 and values.shape[1:] == shape and len(values):
            edges = {(number, edge.input) for number, node in enumerate(cell) for edge in node}
            result[kind] = certainty(values, space, edges, keep_none)
    return result


def warnings(found: Mapping[str, list[EdgeCertainty]], genotype: Genotype) -> list[str]:
    """Returns what a user should know of a result before building on it, a line for each; mostly nothing.

    Args:
        found: what `certainties` returned.
        genotype: the genotype.
    """
    lines = []
    for kind, edges in found.items():
        known = [edge for edge in edges if edge.kept and edge.noise is not None]
        flips = sum(edge.coin_flip for edge in known)
        if flips > _MANY * len(known):
            lines.append(
                f"the {kind} cell is a coin flip: on {flips} of its {len(known)} edges the margin between "
                "the best and the second operation is below its own noise; ask whether there is anything to "
                "find (gdas-tf study noise), let short trainings choose (search.strategy robust), or search "
                "for more epochs (search.epochs), and compare with random cells (gdas-tf study)"
            )
        empty = sum(edge.none_is_best for edge in edges)
        if empty > _MANY * len(edges):
            derived = any(edge.operation == "none" for node in genotype.cells[kind] for edge in node)
            lines.append(
                f"none is the best operation on {empty} of the {len(edges)} edges of the {kind} cell, so "
                f"that {'they are cut off' if derived else 'what was derived are second choices'}; "
                "train the weights for longer (search.epochs), leave none out (search.none excluded), and "
                "compare with random cells (gdas-tf study)"
            )
    return lines + degenerate(genotype, "try other ranks (derive.ranks 3,4), more epochs" if found else None)


def degenerate(genotype: Genotype, advice: str | None = None) -> list[str]:
    """Returns a line that tells of a normal cell most of whose edges learn nothing; mostly nothing.

    Args:
        genotype: the genotype.
        advice: what to try; None where the search has no logits to derive another cell of.
    """
    cell = genotype.normal
    count, total = weightless(cell), sum(map(len, cell))
    if count <= _MANY * total:
        return []
    advice = advice or "search for longer (search.epochs), give candidates longer trainings"
    return [
        f"the normal cell is degenerate: {count} of its {total} edges are skip_connect, pooling or none, "
        f"which learn nothing; {advice}, and compare with random cells (gdas-tf study)"
    ]


def weightless(cell: Any) -> int:
    """Returns the number of a cell's edges whose operation has no weights at stride 1."""
    from gdas_tf.operations.base import OPERATIONS

    return sum(not OPERATIONS.get(edge.operation).kernel_shapes(4, 1) for node in cell for edge in node)

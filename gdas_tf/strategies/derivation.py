"""Derivation: the logits of a search become a genotype."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gdas_tf.errors import UsageError
from gdas_tf.spaces.base import CELL_INPUTS, SearchSpace
from gdas_tf.spaces.genotype import Cell, Edge, Genotype


def derive(
    normal_logits: np.ndarray,
    reduction_logits: np.ndarray | None,
    space: SearchSpace,
    ranks: Sequence[int] = (1, 2),
    keep_none: bool = False,
) -> Genotype:
    """Returns the genotype of the most probable operations (Dong & Yang, CVPR 2019, section 3.3).

    A node ranks the (edge, operation) pairs of its inputs by the probability softmax(logits) of the operation
    on its edge, best first, and keeps the pairs of the wanted ranks, all on different edges:

    1. First come the edges with their best operation each: a node with n edges has them on ranks 1 to n. Then
       come all edges with their second best operation, on ranks n + 1 to 2 n, and so on. So a node with as
       many edges as the highest rank asks for never sees any but the best operation of an edge, and one with
       fewer (node 0 has two edges) still answers ranks 3 and 4: with the second choice on its edges.
    2. If the edge of a wanted rank was kept for an earlier one, the next pair on a free edge takes its place;
       after the last pair, counting goes on with the first one.
    3. A node that has fewer edges than there are ranks keeps all of them, one pair each.

    Ties go to the lower input, and on one edge to the operation that is named first in the search space.

    Args:
        normal_logits: float [edges, operations], the architecture parameters of the normal cell, in the order
            of `space.edges` and `space.operations`.
        reduction_logits: the same of the reduction cell; None for the fixed reduction cell.
        space: the search space of the search; its `inputs_per_node` is not looked at, as `ranks` says it.
        ranks: which ranks a node keeps, in any order, each from 1 (the best) to nodes + 1 (the most edges a
            node has).
        keep_none: rank `none` like any other operation instead of leaving it out. Its probability counts
            in the softmax either way.

    Returns:
        The genotype; the edges of a node in the order of their ranks.

    Raises:
        UsageError: the logits have another shape or are not finite, or the ranks are out of range.

    Example:
        >>> space = SearchSpace(("none", "skip_connect", "conv_3x3"), nodes=1)
        >>> derive(np.array([[2.0, 0.0, 1.0], [0.0, 4.0, 1.0]]), None, space).to_text()
        'normal=skip@1+conv3@0 reduction=fixed'
    """
    wanted = _check_ranks(ranks, space)
    normal = _derive_cell(normal_logits, "normal", space, wanted, keep_none)
    if reduction_logits is None:
        return Genotype(normal, None)
    return Genotype(normal, _derive_cell(reduction_logits, "reduction", space, wanted, keep_none))


def _check_ranks(ranks: Sequence[int], space: SearchSpace) -> list[int]:
    most = CELL_INPUTS + space.nodes - 1
    shown = ", ".join(map(str, ranks)) or "none"
    if not ranks or len(set(ranks)) != len(ranks):
        raise UsageError(f"ranks: found {shown}; accepted are one or more different ones, for example 1, 2")
    for rank in ranks:
        if not 1 <= rank <= most:
            raise UsageError(
                f"ranks: found {shown}; accepted are 1 to {most}, as the last of {space.nodes} nodes has "
                f"{most} edges"
            )
    return sorted(ranks)


def _derive_cell(
    logits: np.ndarray, name: str, space: SearchSpace, ranks: Sequence[int], keep_none: bool
) -> Cell:
    logits = np.asarray(logits, dtype=np.float64)
    shape = (space.edge_count, len(space.operations))
    if logits.shape != shape:
        raise UsageError(
            f"{name} logits: found shape {list(logits.shape)}; the search space has {list(shape)}, edges and "
            "operations"
        )
    if not np.isfinite(logits).all():
        raise UsageError(f"{name} logits: found NaN or infinite numbers; the search has diverged")

    # The logarithm of the softmax orders like the softmax, and very small probabilities don't collapse to 0.
    shifted = logits - logits.max(axis=1, keepdims=True)
    scores = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    candidates = [i for i, operation in enumerate(space.operations) if keep_none or operation != "none"]

    cell = []
    first = 0
    for node in range(space.nodes):
        edges = CELL_INPUTS + node
        pairs = _rank_pairs(scores[first : first + edges], candidates)
        kept = _keep_ranks(pairs, min(len(ranks), edges), ranks)
        cell.append(tuple(Edge(space.operations[operation], edge) for edge, operation in kept))
        first += edges
    return tuple(cell)


def _rank_pairs(scores: np.ndarray, candidates: Sequence[int]) -> list[tuple[int, int]]:
    """All (edge, operation) pairs of a node: every edge's best one by descending score, then its second ….

    Args:
        scores: float [edges of the node, operations], log-probabilities.
        candidates: columns of the operations that may be chosen.
    """
    # Stable sorting leaves ties in the order of inputs and operations.
    choices = [sorted(candidates, key=lambda operation, row=row: -row[operation]) for row in scores]
    pairs = []
    for choice in zip(*choices, strict=True):
        round_ = [(edge, operation) for edge, operation in enumerate(choice)]
        pairs += sorted(round_, key=lambda pair: -scores[pair])
    return pairs


def _keep_ranks(pairs: Sequence[tuple[int, int]], count: int, ranks: Sequence[int]) -> list[tuple[int, int]]:
    """The pairs of the first `count` ranks; for one on an edge already kept, the next on a free edge."""
    kept: dict[int, int] = {}
    for rank in ranks[:count]:
        for offset in range(len(pairs)):
            edge, operation = pairs[(rank - 1 + offset) % len(pairs)]
            if edge not in kept:
                kept[edge] = operation
                break
    return list(kept.items())

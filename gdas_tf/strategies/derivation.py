"""Derivation: the logits of a search become a genotype."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gdas_tf.errors import UsageError
from gdas_tf.spaces.base import SearchSpace
from gdas_tf.spaces.genotype import Cell, Edge, Genotype


def derive(
    normal_logits: np.ndarray,
    reduction_logits: np.ndarray | None,
    space: SearchSpace,
    ranks: Sequence[int] = (1, 2),
    keep_none: bool = False,
    rule: str = "edges",
    edges: Sequence[np.ndarray | None] = (None, None),
) -> Genotype:
    """Returns the genotype of the most probable operations (Dong & Yang, CVPR 2019, section 3.3).

    A node ranks the (edge, operation) pairs of its inputs by the probability softmax(logits) of the operation
    on its edge, best first, and keeps the pairs of the wanted ranks.

    By the rule `edges`, that of DARTS and of the paper's code, these pairs are on different edges:

    1. First come the edges with their best operation each: a node with n edges has them on ranks 1 to n. Then
       come all edges with their second best operation, on ranks n + 1 to 2 n, and so on. So a node with as
       many edges as the highest rank asks for never sees any but the best operation of an edge, and one with
       fewer (node 0 has two edges) still answers ranks 3 and 4: with the second choice on its edges.
    2. If the edge of a wanted rank was kept for an earlier one, the next pair on a free edge takes its place;
       after the last pair, counting goes on with the first one.
    3. A node that has fewer edges than there are ranks keeps all of them, one pair each.

    By the rule `pairs`, that of AutoDL-Projects (2020) and of the study that began this project, all pairs
    stand in one list:

    4. The pairs of a node are ranked by probability alone, whatever edge they are on. So the second operation
       of one edge may come before the best of another, and a node may take one input twice, with two
       operations, both of which count.
    5. Every node keeps exactly the wanted ranks. No rank may be higher than node 0, which has the fewest
       pairs, can answer: it has one pair for each operation on each of its two edges.

    In a space that keeps all edges (`space.keep`) every edge has its best operation, in the order of the
    inputs; `ranks` and `rule` are not looked at.

    By both rules ties go to the lower input, and on one edge to the operation that is named first in the
    search space.

    Args:
        normal_logits: float [edges, operations], the architecture parameters of the normal cell, in the order
            of `space.edges` and `space.operations`.
        reduction_logits: the same of the reduction cell; None for the fixed reduction cell, and in a space
            without a reduction cell.
        space: the search space of the search; its `inputs_per_node` is not looked at, as `ranks` says it.
        ranks: which ranks a node keeps, in any order, each from 1 (the best) to `space.highest_rank(rule)`.
        keep_none: rank `none` like any other operation instead of leaving it out, as it always is in a space
            `with_none`. Its probability counts in the softmax either way.
        rule: "edges" or "pairs".
        edges: logits of the edges of the normal and of the reduction cell, float [edges] each. Where they are
            given, rule 1 ranks the edges of a node by them, whatever the probabilities of their operations;
            this needs the rule "edges".

    Returns:
        The genotype; the edges of a node in the order of their ranks.

    Raises:
        UsageError: the logits have another shape or are not finite, the ranks are out of range, there is no
            such rule, or the space has no reduction cell.

    Example:
        >>> space = SearchSpace(("none", "skip_connect", "conv_3x3"), nodes=1)
        >>> logits = np.array([[2.0, 0.0, 1.0], [0.0, 4.0, 3.0]])
        >>> derive(logits, None, space).to_text()
        'normal=skip@1+conv3@0 reduction=fixed'
        >>> derive(logits, None, space, rule="pairs").to_text()
        'normal=skip@1+conv3@1 reduction=fixed'
    """
    wanted: list[int] = []
    choose = _all_edges
    if space.keep == "best":
        wanted = _check_ranks(ranks, space, keep_none, rule)
        choose = _edges_of_ranks if rule == "edges" else _pairs_of_ranks
    if choose is not _edges_of_ranks and any(order is not None for order in edges):
        raise UsageError(
            "logits of the edges: nothing is ranked by them in a search space that keeps all edges, or by "
            "the rule pairs; accepted is the rule edges"
        )
    if reduction_logits is not None and not space.reduction:
        raise UsageError(f"reduction logits: the search space {space.name} has no reduction cell")
    cells = [
        None if logits is None else _derive_cell(logits, name, space, wanted, keep_none, choose, order)
        for name, logits, order in zip(
            ("normal", "reduction"), (normal_logits, reduction_logits), edges, strict=True
        )
    ]
    return Genotype.of(space, *cells)


def _check_ranks(ranks: Sequence[int], space: SearchSpace, keep_none: bool, rule: str) -> list[int]:
    most, reason = space.highest_rank(rule, keep_none)
    shown = ", ".join(map(str, ranks)) or "none"
    if not ranks or len(set(ranks)) != len(ranks):
        raise UsageError(f"ranks: found {shown}; accepted are one or more different ones, for example 1, 2")
    for rank in ranks:
        if not 1 <= rank <= most:
            raise UsageError(f"ranks: found {shown}; accepted are 1 to {most}, as {reason}")
    return sorted(ranks)


Choose = Callable[..., list[tuple[int, int]]]
"""Takes log-probabilities [edges of the node, operations], the columns of the operations that may be chosen,
ranks in ascending order, and, where there are any, logits of the edges; returns the (edge, operation) pairs
that are kept."""


def _derive_cell(
    logits: np.ndarray,
    name: str,
    space: SearchSpace,
    ranks: Sequence[int],
    keep_none: bool,
    choose: Choose,
    edge_logits: np.ndarray | None,
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

    if edge_logits is not None and np.shape(edge_logits) != shape[:1]:
        raise UsageError(
            f"{name} logits of the edges: found shape {list(np.shape(edge_logits))}; the search space has "
            f"{shape[0]} edges"
        )

    # The logarithm of the softmax orders like the softmax, and very small probabilities don't collapse to 0.
    shifted = logits - logits.max(axis=1, keepdims=True)
    scores = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    candidates = space.candidates(keep_none)

    cell = []
    first = 0
    for node in range(space.nodes):
        edges = space.inputs + node
        own = slice(first, first + edges)
        order = () if edge_logits is None else (np.asarray(edge_logits)[own],)
        kept = choose(scores[own], candidates, ranks, *order)
        cell.append(tuple(Edge(space.operations[operation], edge) for edge, operation in kept))
        first += edges
    return tuple(cell)


def _all_edges(scores: np.ndarray, candidates: Sequence[int], _: Sequence[int]) -> list[tuple[int, int]]:
    """The best pair of every edge."""
    return [
        (edge, max(candidates, key=lambda operation, row=row: row[operation]))
        for edge, row in enumerate(scores)
    ]


def _edges_of_ranks(
    scores: np.ndarray,
    candidates: Sequence[int],
    ranks: Sequence[int],
    edge_logits: np.ndarray | None = None,
) -> list[tuple[int, int]]:
    """Rules 1 to 3: the pairs of the ranks; for one on an edge already kept, the next on a free edge."""
    # Stable sorting leaves ties in the order of inputs and operations.
    choices = [sorted(candidates, key=lambda operation, row=row: -row[operation]) for row in scores]
    pairs = []
    for choice in zip(*choices, strict=True):
        round_ = [(edge, operation) for edge, operation in enumerate(choice)]
        pairs += sorted(
            round_, key=lambda pair: -(scores[pair] if edge_logits is None else edge_logits[pair[0]])
        )

    kept: dict[int, int] = {}
    for rank in ranks[: len(scores)]:
        for offset in range(len(pairs)):
            edge, operation = pairs[(rank - 1 + offset) % len(pairs)]
            if edge not in kept:
                kept[edge] = operation
                break
    return list(kept.items())


def _pairs_of_ranks(
    scores: np.ndarray, candidates: Sequence[int], ranks: Sequence[int]
) -> list[tuple[int, int]]:
    """Rules 4 and 5: the pairs of the ranks in one list of all."""
    pairs = [(edge, operation) for edge in range(len(scores)) for operation in candidates]
    pairs.sort(key=lambda pair: -scores[pair])
    return [pairs[rank - 1] for rank in ranks]

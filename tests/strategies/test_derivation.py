"""Derivation by hand-made logits: every option, ties, nodes with few edges, bad input."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gdas_tf.errors import UsageError
from gdas_tf.spaces.base import SPACES, SearchSpace
from gdas_tf.spaces.genotype import Edge, Genotype
from gdas_tf.strategies.derivation import derive

TWO_NODES = SearchSpace(("none", "skip_connect", "sep_conv_3x3", "max_pool_3x3"), nodes=2)

# Rows: node 0 <- 0, 1; node 1 <- 0, 1, 2. Columns: none, skip, sep3, max3, in percent.
PROBABILITIES = [
    [10, 50, 30, 10],
    [60, 5, 20, 15],
    [5, 15, 40, 40],
    [80, 1, 7, 12],
    [1, 74, 15, 10],
]


def _logits(probabilities: list[list[float]]) -> np.ndarray:
    # A constant added to a row's logits must not matter: the softmax takes it away.
    shift = 100.0 * np.arange(len(probabilities))[:, None] * (-1.0) ** np.arange(len(probabilities))[:, None]
    return np.log(np.asarray(probabilities, dtype=np.float64)) + shift


def _normal(text: str) -> tuple:
    return Genotype.from_text(f"normal={text} reduction=fixed").normal


def _node(text: str) -> tuple:
    return Genotype.from_text(f"normal=skip@0+skip@1/{text} reduction=fixed").normal[1]


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        # The best two edges of each node, best first.
        ((1, 2), "skip@0+sep3@1/skip@2+sep3@0"),
        ((2, 1), "skip@0+sep3@1/skip@2+sep3@0"),
        ((1,), "skip@0/skip@2"),
        ((2,), "sep3@1/sep3@0"),
        # Node 0: rank 2 is sep3@1, rank 3 the better second choice, sep3@0 (0.30) before max3@1 (0.15).
        ((2, 3), "sep3@1+sep3@0/sep3@0+max3@1"),
        # Rank 3 of node 0 is the second choice of edge 0; of node 1 the best operation of its last edge.
        ((3,), "sep3@0/max3@1"),
        # Node 0 keeps its two edges.
        ((1, 2, 3), "skip@0+sep3@1/skip@2+sep3@0+max3@1"),
        # Node 0: ranks 1 and 3 are both on edge 0, so the next pair, max3@1 on rank 4, stands in for rank 3.
        ((1, 3), "skip@0+max3@1/skip@2+max3@1"),
    ],
)
def test_ranks(ranks: tuple[int, ...], expected: str):
    assert derive(_logits(PROBABILITIES), None, TWO_NODES, ranks).normal == _normal(expected)


def test_keep_none():
    genotype = derive(_logits(PROBABILITIES), None, TWO_NODES, keep_none=True)
    assert genotype.normal == _normal("none@1+skip@0/none@1+skip@2")
    # none counts in the softmax even where it is left out: in node 1, max3@1 has 0.12, not 0.12 / 0.2 = 0.6,
    # which would come before sep3@0 with 0.40 / 0.95.
    assert derive(_logits(PROBABILITIES), None, TWO_NODES).normal[1] == _node("skip@2+sep3@0")


def test_ranks_3_4_on_nodes_with_fewer_edges():
    space = SearchSpace(TWO_NODES.operations, nodes=3)
    probabilities = [
        *PROBABILITIES,
        [10, 20, 30, 40],  # node 2: max3@0 is rank 3
        [10, 60, 20, 10],  # skip@1 is rank 2
        [25, 25, 24, 26],  # max3@2 is rank 4
        [1, 1, 97, 1],  # sep3@3 is rank 1
    ]
    # Node 0: its second choices, sep3@0 (0.30) and max3@1 (0.15). Node 1: max3@1 (rank 3), then the best
    # second choice, max3@0 (0.40).
    expected = "sep3@0+max3@1/max3@1+max3@0/max3@0+max3@2"
    assert derive(_logits(probabilities), None, space, (3, 4)).normal == _normal(expected)


def test_the_place_of_a_rank_on_a_kept_edge_goes_to_the_next_free_one():
    probabilities = [
        [10, 50, 30, 10],
        [60, 5, 20, 15],
        [10, 20, 30, 40],
        [10, 50, 25, 15],
        [10, 36, 34, 20],  # rank 3, and its second choice (0.34) is rank 4
    ]
    genotype = derive(_logits(probabilities), None, TWO_NODES, (3,))
    assert genotype.normal[1] == (Edge("skip_connect", 2),)
    space = SearchSpace(TWO_NODES.operations, nodes=3)
    probabilities += [[25, 25, 25, 25]] * 4
    genotype = derive(_logits(probabilities), None, space, (3, 4))
    # Rank 4 is sep3@2 on the edge that rank 3 keeps; rank 5 is sep3@0 (0.30).
    assert genotype.normal[1] == _node("skip@2+sep3@0")


def test_counting_goes_on_with_the_first_pair_where_operations_run_out():
    space = SearchSpace(("none", "conv_1x1"), nodes=3)
    logits = np.zeros((space.edge_count, 2))
    logits[1, 1] = 1.0
    genotype = derive(logits, None, space, (3, 4))
    assert genotype.normal == _normal("conv1@1+conv1@0/conv1@2+conv1@0/conv1@2+conv1@3")


def test_ties_go_to_the_lower_input_and_the_first_operation():
    genotype = derive(np.zeros((14, 8)), np.zeros((14, 8)), SearchSpace())
    assert genotype.normal == genotype.reduction == _normal("/".join(["skip@0+skip@1"] * 4))


def test_probabilities_too_small_for_a_float_keep_their_order():
    logits = _logits(PROBABILITIES)
    logits[:, 0] += 2000.0
    # Every edge's score is now p(operation) / p(none): node 0 has 5 and 0.33; node 1 has 8, 0.15 and 74.
    assert derive(logits, None, TWO_NODES).normal == _normal("skip@0+sep3@1/skip@2+sep3@0")


def test_both_cells_and_the_fixed_one():
    generator = np.random.default_rng(3)
    normal, reduction = generator.normal(size=(2, 14, 8)).astype(np.float32)
    both = derive(normal, reduction, SearchSpace())
    assert both.normal == derive(normal, None, SearchSpace()).normal
    assert both.reduction == derive(reduction, None, SearchSpace()).normal
    assert both.normal != both.reduction
    assert derive(normal, None, SearchSpace()).reduction is None


def test_ranks_1_2_equal_the_definition():
    # The rule of the paper written out naively: each edge's best operation, the two best edges of each node.
    generator = np.random.default_rng(5)
    space = SearchSpace.named("gdas-12", nodes=5)
    for _ in range(50):
        logits = generator.normal(scale=2.0, size=(space.edge_count, 12))
        softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        cell = []
        for node in range(space.nodes):
            best = []
            for row, (target, source) in enumerate(space.edges):
                if target == node:
                    operation = 1 + int(np.argmax(softmax[row, 1:]))
                    best.append((softmax[row, operation], space.operations[operation], source))
            best.sort(reverse=True)
            cell.append([(operation, source) for _, operation, source in best[:2]])
        assert derive(logits, None, space) == Genotype(cell, None)


@pytest.mark.parametrize(
    "ranks", [(1, 2), (2, 3), (3, 4), (4, 5), (1,), (5,), (1, 2, 3), (2, 4), (1, 2, 3, 4, 5)]
)
@pytest.mark.parametrize("keep_none", [False, True])
def test_every_result_is_in_the_space(ranks: tuple[int, ...], keep_none: bool):
    generator = np.random.default_rng(1)
    for name in ("gdas", "gdas-4", "conv_3x3"):
        space = SearchSpace.named(name, inputs_per_node=len(ranks))
        for _ in range(20):
            logits = generator.normal(size=(2, space.edge_count, len(space.operations)))
            genotype = derive(logits[0], logits[1], space, ranks, keep_none)
            genotype.check_fits(space)
            for cell in genotype.cells.values():
                for node in cell:
                    assert len({edge.input for edge in node}) == len(node)
                    assert keep_none or all(edge.operation != "none" for edge in node)


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        ((), "ranks: found none; accepted are one or more"),
        ((1, 1), "ranks: found 1, 1; accepted are one or more different ones"),
        ((0, 1), "ranks: found 0, 1; accepted are 1 to 3, as the last of 2 nodes has 3 edges"),
        ((1, 4), "ranks: found 1, 4; accepted are 1 to 3"),
    ],
)
def test_bad_ranks(ranks: tuple[int, ...], message: str):
    with pytest.raises(UsageError, match=message):
        derive(_logits(PROBABILITIES), None, TWO_NODES, ranks)


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        # Node 0: skip@0 0.50, sep3@0 0.30, sep3@1 0.20, max3@1 0.15, max3@0 0.10, skip@1 0.05. Node 1: skip@2
        # 0.74, sep3@0 0.40, max3@0 0.40, skip@0 0.15, sep3@2 0.15, max3@1 0.12, max3@2 0.10, sep3@1 0.07.
        ((1, 2), "skip@0+sep3@0/skip@2+sep3@0"),
        ((2, 3), "sep3@0+sep3@1/sep3@0+max3@0"),
        ((6, 3), "sep3@1+skip@1/max3@0+max3@1"),
        ((6,), "skip@1/max3@1"),
        ((1, 2, 3, 6), "skip@0+sep3@0+sep3@1+skip@1/skip@2+sep3@0+max3@0+max3@1"),
    ],
)
def test_pairs(ranks: tuple[int, ...], expected: str):
    assert derive(_logits(PROBABILITIES), None, TWO_NODES, ranks, rule="pairs").normal == _normal(expected)


def test_pairs_with_none():
    genotype = derive(_logits(PROBABILITIES), None, TWO_NODES, (1, 2), keep_none=True, rule="pairs")
    assert genotype.normal == _normal("none@1+skip@0/none@1+skip@2")
    ranks = derive(_logits(PROBABILITIES), None, TWO_NODES, (7, 8), keep_none=True, rule="pairs").normal[0]
    # The two of 0.10 on edge 0, then 0.05 on edge 1: none@0, max3@0 are ranks 6 and 7.
    assert ranks == _normal("max3@0+skip@1")[0]


def test_pairs_equal_the_definition():
    # AutoDL's rule written out: one list of (operation, input, weight) a node, sorted, the first two kept.
    generator = np.random.default_rng(5)
    space = SearchSpace()
    twice = 0
    for _ in range(50):
        logits = generator.normal(scale=2.0, size=(14, 8))
        softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        cell = []
        for node in range(space.nodes):
            found = [
                (softmax[row, k], space.operations[k], source)
                for row, (target, source) in enumerate(space.edges)
                if target == node
                for k in range(1, 8)
            ]
            found.sort(reverse=True)
            cell.append([(operation, source) for _, operation, source in found[:2]])
            twice += found[0][2] == found[1][2]
        assert derive(logits, None, space, rule="pairs") == Genotype(cell, None)
    assert twice > 5


def test_pairs_and_edges_agree_where_no_second_operation_is_better():
    logits = np.full((14, 8), -9.0)
    logits[np.arange(14), 1 + np.arange(14) % 7] = np.arange(14) / 10
    for ranks in ((1, 2), (1,), (2,)):
        edges = derive(logits, logits, SearchSpace(), ranks)
        assert derive(logits, logits, SearchSpace(), ranks, rule="pairs") == edges


@pytest.mark.parametrize("ranks", [(1, 2), (3, 4), (1, 2, 3), (13, 14), tuple(range(1, 15))])
def test_with_pairs_every_node_keeps_every_rank(ranks: tuple[int, ...]):
    generator = np.random.default_rng(2)
    for _ in range(20):
        genotype = derive(*generator.normal(size=(2, 14, 8)), SearchSpace(), ranks, rule="pairs")
        for node in (*genotype.normal, *genotype.reduction):
            assert len(set(node)) == len(node) == len(ranks)
        assert Genotype.from_text(genotype.to_text()) == genotype
        assert Genotype.from_json(genotype.to_json()) == genotype


def test_ranks_beyond_the_list_of_pairs():
    message = (
        "ranks: found 1, 7; accepted are 1 to 6, as node 0 has 6 pairs, 3 operations on each of its 2 edges"
    )
    with pytest.raises(UsageError, match=message):
        derive(_logits(PROBABILITIES), None, TWO_NODES, (1, 7), rule="pairs")
    assert derive(_logits(PROBABILITIES), None, TWO_NODES, (1, 8), keep_none=True, rule="pairs")
    with pytest.raises(UsageError, match="rule: found 'paths'; accepted are edges, pairs"):
        derive(_logits(PROBABILITIES), None, TWO_NODES, rule="paths")


def test_bad_logits():
    with pytest.raises(
        UsageError, match=r"normal logits: found shape \[4, 4\]; the search space has \[5, 4\]"
    ):
        derive(np.zeros((4, 4)), None, TWO_NODES)
    with pytest.raises(UsageError, match=r"reduction logits: found shape \[3, 5, 4\]"):
        derive(np.zeros((5, 4)), np.zeros((3, 5, 4)), TWO_NODES)
    for bad in (np.nan, np.inf):
        with pytest.raises(UsageError, match="normal logits: found NaN or infinite numbers"):
            derive(np.full((5, 4), bad), None, TWO_NODES)


ALL_EDGES = SearchSpace(TWO_NODES.operations, 2, name="mine", inputs=1, keep="all", output="last")


def test_a_space_that_keeps_all_edges():
    rows = [PROBABILITIES[0], PROBABILITIES[3], PROBABILITIES[2]]
    genotype = derive(_logits(rows), None, ALL_EDGES, (3, 4), rule="pairs")
    assert genotype.to_text() == "inputs=1 output=last space=mine normal=skip@0/max3@0+sep3@1 reduction=fixed"
    genotype.check_fits(ALL_EDGES)
    assert derive(_logits(rows), _logits(rows), ALL_EDGES, keep_none=True).reduction[1][0].operation == "none"


def test_cells_of_one_input_keep_the_best_edges():
    space = dataclasses.replace(ALL_EDGES, keep="best", inputs_per_node=1)
    rows = [PROBABILITIES[0], PROBABILITIES[3], PROBABILITIES[2]]
    assert derive(_logits(rows), None, space, (1,)).to_text().split()[-2] == "normal=skip@0/sep3@1"
    with pytest.raises(UsageError, match="ranks: found 3; accepted are 1 to 2"):
        derive(_logits(rows), None, space, (3,))


def test_a_space_without_a_reduction_cell():
    space = dataclasses.replace(TWO_NODES, name="mine", reduction=False)
    assert derive(_logits(PROBABILITIES), None, space).reduction is None
    with pytest.raises(UsageError, match="reduction logits: the search space mine has no reduction cell"):
        derive(_logits(PROBABILITIES), _logits(PROBABILITIES), space)


def test_none_is_an_operation_like_the_others_where_the_space_says_so():
    space = SPACES.get("nasbench201")
    logits = np.zeros((6, 5))
    logits[:, 1], logits[2, 0], logits[5, 3] = 1.0, 2.0, 3.0
    cell = "|skip_connect~0|+|skip_connect~0|none~1|+|skip_connect~0|skip_connect~1|nor_conv_3x3~2|"
    assert derive(logits, None, space).to_text() == cell
    without = derive(logits, None, dataclasses.replace(space, with_none=False))
    assert without.normal[1][1].operation == "skip_connect"

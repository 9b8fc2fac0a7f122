"""The search space: edges, named spaces, bad values."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from gdas_tf.errors import UsageError
from gdas_tf.operations.base import OPERATIONS
from gdas_tf.spaces.base import OPERATION_SETS, SPACES, SearchSpace


def test_the_default_is_the_space_of_the_paper():
    space = SearchSpace()
    assert space.operations == (
        "none",
        "skip_connect",
        "sep_conv_3x3",
        "sep_conv_5x5",
        "dil_conv_3x3",
        "dil_conv_5x5",
        "avg_pool_3x3",
        "max_pool_3x3",
    )
    assert space.edge_count == len(space.edges) == 14
    assert (space.nodes, space.inputs_per_node) == (4, 2)


def test_edges_are_node_major_and_end_before_the_node():
    assert SearchSpace(nodes=3).edges == (
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
        (1, 2),
        (2, 0),
        (2, 1),
        (2, 2),
        (2, 3),
    )


@pytest.mark.parametrize(("nodes", "edges"), [(1, 2), (2, 5), (3, 9), (4, 14), (6, 27)])
def test_edge_count(nodes: int, edges: int):
    space = SearchSpace(nodes=nodes)
    assert space.edge_count == len(space.edges) == edges


def test_named_spaces():
    assert SearchSpace.named("gdas") == SearchSpace()
    assert SearchSpace.named("gdas-4").operations == ("none", "skip_connect", "sep_conv_3x3", "max_pool_3x3")
    last = ("sep_conv_7x7", "dil_conv_7x7", "conv_1x1", "conv_3x3")
    assert SearchSpace.named("gdas-12").operations == (*SearchSpace.named("gdas").operations, *last)
    assert set(SearchSpace.named("gdas-12").operations) <= set(OPERATIONS)
    space = SearchSpace.named(" conv_3x3, none", nodes=5, inputs_per_node=3)
    assert space == SearchSpace(("conv_3x3", "none"), 5, 3)
    assert SearchSpace.named("conv_3x3").operations == ("conv_3x3",)


def test_a_space_is_hashable_whatever_it_was_made_of():
    assert hash(SearchSpace(list(OPERATION_SETS["gdas"]))) == hash(SearchSpace())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"operations": ("none", "conv_9x9")},
            "unknown operation 'conv_9x9'; accepted are none, skip_connect",
        ),
        ({"operations": ("conv_3x3", "none", "conv_3x3")}, "conv_3x3 stands twice"),
        ({"operations": ("none",)}, "operations are none; name at least one besides none"),
        ({"operations": ()}, "operations are empty; name at least one"),
        ({"nodes": 0}, "nodes is 0; accepted is a whole number from 1"),
        ({"nodes": 2.0}, "nodes is 2.0"),
        ({"nodes": True}, "nodes is True"),
        ({"inputs_per_node": 0}, "inputs_per_node is 0; accepted is a whole number from 1 to 5"),
        ({"inputs": 3}, "inputs is 3; accepted are 1, 2"),
        ({"inputs": True}, "inputs is True; accepted are 1, 2"),
        ({"keep": "some"}, "keep is 'some'; accepted are best, all"),
        ({"output": None}, "output is None; accepted are concatenation, last"),
        ({"nodes": 1, "inputs": 1}, "inputs_per_node is 2; accepted is a whole number from 1 to 1"),
        ({"nodes": 1, "inputs_per_node": 3}, "inputs_per_node is 3; accepted is a whole number from 1 to 2"),
    ],
)
def test_bad_values(values: dict, message: str):
    with pytest.raises(UsageError, match=message) as error:
        SearchSpace(**values)
    assert "\n" not in str(error.value)


def test_bad_names():
    with pytest.raises(
        UsageError, match="unknown name 'gdas-5'; accepted are gdas, gdas-4, gdas-12, or a comma"
    ):
        SearchSpace.named("gdas-5")
    with pytest.raises(UsageError, match="unknown operation 'skip'"):
        SearchSpace.named("none,skip")


def test_edges_and_ranks_of_cells_with_one_input():
    space = SearchSpace(("none", "conv_1x1", "conv_3x3"), 3, inputs=1, keep="all", output="last")
    assert space.edges == ((0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2))
    assert space.edge_count == 6
    assert space.inputs_per_node == space.most_inputs == 3
    assert (space.output_channels(16), SearchSpace().output_channels(16)) == (16, 64)
    assert space.highest_rank() == (3, "the last of 3 nodes has 3 edges")
    assert space.highest_rank("pairs") == (2, "node 0 has 2 pairs, 2 operations on its edge")


@pytest.fixture
def mine():
    operations = ("none", "conv_1x1", "conv_3x3")
    yield SPACES.register("mine", SearchSpace(operations, 3, name="mine", inputs=1, stack=lambda *_: []))
    del SPACES._items["mine"]


def test_registered_spaces(mine: SearchSpace):
    assert SPACES.get("darts") == SearchSpace.named() == SearchSpace()
    assert SearchSpace.named(space="mine") is not SearchSpace() and SearchSpace.named(space="mine") == mine
    changed = SearchSpace.named("gdas-4", 1, space="mine")
    assert (changed.operations, changed.nodes, changed.inputs_per_node) == (OPERATION_SETS["gdas-4"], 1, 1)
    assert (changed.inputs, changed.stack) == (1, mine.stack)
    for space in (mine, changed, SearchSpace(), SearchSpace(nodes=2, keep="all", output="last")):
        assert SearchSpace.from_json(json.loads(json.dumps(space.to_json()))) == space
    with pytest.raises(UsageError, match="unknown search space 'dart'; did you mean darts"):
        SearchSpace.named(space="dart")


def test_importing_the_light_modules_loads_nothing_heavy():
    code = (
        "import sys, gdas_tf, gdas_tf.spaces.base, gdas_tf.spaces.genotype\n"
        "print([m for m in ('tensorflow', 'keras', 'numpy', 'matplotlib') if m in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"

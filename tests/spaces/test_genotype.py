"""The genotype: validation, JSON, short text, files, the published ones, random ones."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from gdas_tf.errors import RunError, UsageError
from gdas_tf.operations.base import OPERATIONS
from gdas_tf.spaces.base import SPACES, SearchSpace
from gdas_tf.spaces.genotype import GENOTYPES, Edge, Genotype, random_genotype

CELL = [[("sep_conv_3x3", 0), ("skip_connect", 1)], [("max_pool_3x3", 1), ("sep_conv_5x5", 2)]]
EVERY = [
    *GENOTYPES.values(),
    *(random_genotype(SearchSpace.named("gdas-12", 6, 3), seed) for seed in range(20)),
]


def test_a_genotype_is_immutable_and_hashable_and_made_of_edges():
    genotype = Genotype(CELL, None)
    assert genotype.normal == (
        (Edge("sep_conv_3x3", 0), Edge("skip_connect", 1)),
        (Edge("max_pool_3x3", 1), Edge("sep_conv_5x5", 2)),
    )
    assert genotype.normal[1][1].operation == "sep_conv_5x5"
    assert genotype.normal[1][1].input == 2
    with pytest.raises(AttributeError):
        genotype.normal = ()
    assert {genotype: 1}[Genotype(tuple(CELL), None, name="other")] == 1
    assert genotype != Genotype(CELL, CELL)
    assert list(genotype.cells) == ["normal"]
    assert list(Genotype(CELL, CELL).cells) == ["normal", "reduction"]


def test_published_genotypes():
    def cell(*nodes: tuple) -> tuple:
        names = {
            "sep3": "sep_conv_3x3",
            "sep5": "sep_conv_5x5",
            "dil3": "dil_conv_3x3",
            "dil5": "dil_conv_5x5",
            "skip": "skip_connect",
            "max": "max_pool_3x3",
            "avg": "avg_pool_3x3",
        }
        return tuple(tuple((names[name], source) for name, source in node) for node in nodes)

    darts_1 = GENOTYPES["DARTS_V1"]
    assert darts_1.normal == cell(
        (("sep3", 1), ("sep3", 0)),
        (("skip", 0), ("sep3", 1)),
        (("skip", 0), ("sep3", 1)),
        (("sep3", 0), ("skip", 2)),
    )
    assert darts_1.reduction == cell(
        (("max", 0), ("max", 1)),
        (("skip", 2), ("max", 0)),
        (("max", 0), ("skip", 2)),
        (("skip", 2), ("avg", 0)),
    )
    darts_2 = GENOTYPES["DARTS_V2"]
    assert darts_2.normal == cell(
        (("sep3", 0), ("sep3", 1)),
        (("sep3", 0), ("sep3", 1)),
        (("sep3", 1), ("skip", 0)),
        (("skip", 0), ("dil3", 2)),
    )
    assert darts_2.reduction == cell(
        (("max", 0), ("max", 1)),
        (("skip", 2), ("max", 1)),
        (("max", 0), ("skip", 2)),
        (("skip", 2), ("max", 1)),
    )
    gdas = GENOTYPES["GDAS_V1"]
    assert gdas.normal == cell(
        (("skip", 0), ("skip", 1)),
        (("skip", 0), ("sep5", 2)),
        (("sep3", 3), ("skip", 0)),
        (("sep5", 4), ("sep3", 3)),
    )
    assert gdas.reduction == cell(
        (("sep5", 0), ("sep3", 1)),
        (("sep5", 2), ("sep5", 1)),
        (("dil5", 2), ("sep3", 1)),
        (("sep5", 0), ("sep5", 1)),
    )
    frc = GENOTYPES["GDAS_F1"]
    assert frc.normal == cell(
        (("skip", 0), ("skip", 1)),
        (("skip", 0), ("sep3", 2)),
        (("skip", 0), ("sep3", 2)),
        (("skip", 0), ("sep3", 2)),
    )
    assert frc.reduction is None
    assert (GENOTYPES["GDAS_GF"].normal, GENOTYPES["GDAS_GF"].reduction) == (gdas.normal, None)
    assert (GENOTYPES["GDAS_FG"].normal, GENOTYPES["GDAS_FG"].reduction) == (frc.normal, gdas.reduction)
    for name, genotype in GENOTYPES.items():
        assert genotype.name == name
        if name.startswith(("DARTS", "GDAS", "P-DARTS", "SNAS", "DrNAS")):
            genotype.check_fits(SearchSpace())


SOME = Genotype([*CELL, [("skip_connect", 2)]], CELL, "some", normal_concat=[3, 4], reduction_concat=(3,))
OTHERS = [
    SOME,
    Genotype(CELL, None, "last", output="last"),
    Genotype([[("conv_1x1", 0)], [("none", 0), ("conv_3x3", 1)]], None, "one", inputs=1),
    Genotype([[("conv_1x1", 0)]], [[("none", 0)]], "both", inputs=1, output="last"),
]


def test_cells_of_one_input_and_the_last_node_as_output():
    one, both = OTHERS[2:]
    assert one.to_text() == "name=one inputs=1 normal=conv1@0/none@0+conv3@1 reduction=fixed"
    assert both.to_text() == "name=both inputs=1 output=last normal=conv1@0 reduction=none@0"
    assert list(both.to_json()) == ["name", "inputs", "output", "normal", "reduction"]
    plain = Genotype(CELL, None)
    for other in (Genotype(CELL, None, output="last"), Genotype([[("skip_connect", 0)]], None, inputs=1)):
        assert other != plain and hash(other) != hash(plain)
    with pytest.raises(UsageError, match=r"node 0, edge 0: input 1 .* 0 to 0 \(0 is c_{k-1}, 1 \+ j is node"):
        Genotype.from_text("inputs=1 normal=conv1@1 reduction=fixed")


@pytest.mark.parametrize("inputs", [0, 3, "x", True, 1.0, None])
def test_bad_numbers_of_inputs(inputs: object):
    with pytest.raises(UsageError, match="genotype: inputs is .*; accepted are 1 and 2"):
        Genotype(CELL, None, inputs=inputs)
    with pytest.raises(UsageError, match="genotype: inputs is .*; accepted are 1 and 2"):
        Genotype.from_text(f"inputs={'1.0' if inputs else inputs} normal=skip@0 reduction=fixed")


@pytest.mark.parametrize("output", ["first", "", None, 3, ["last"]])
def test_bad_outputs(output: object):
    with pytest.raises(UsageError, match="genotype: output is .*; accepted are concatenation, last"):
        Genotype(CELL, None, output=output)


@pytest.mark.parametrize("genotype", [*EVERY, *OTHERS], ids=lambda genotype: genotype.name)
def test_round_trips(genotype: Genotype, tmp_path: Path):
    text = genotype.to_text()
    assert len(text.splitlines()) == 1
    copies = [
        Genotype.from_json(genotype.to_json()),
        Genotype.from_json(json.dumps(genotype.to_json())),
        Genotype.from_text(text),
    ]
    for suffix in (".json", ".txt"):
        path = tmp_path / f"deep/er/genotype{suffix}"
        genotype.save(path)
        copies.append(Genotype.load(path))
        assert [entry.name for entry in path.parent.iterdir() if entry.suffix == suffix] == [path.name]
    for copy in copies:
        assert copy == genotype
        assert copy.name == genotype.name


def test_the_written_forms():
    genotype = Genotype(CELL, None, name="mine")
    assert genotype.to_text() == "name=mine normal=sep3@0+skip@1/max3@1+sep5@2 reduction=fixed"
    assert genotype.to_json() == {
        "name": "mine",
        "normal": [[["sep_conv_3x3", 0], ["skip_connect", 1]], [["max_pool_3x3", 1], ["sep_conv_5x5", 2]]],
        "reduction": "fixed",
    }
    assert "name" not in Genotype(CELL, None).to_json()
    assert Genotype(CELL, None).to_text().startswith("normal=")
    assert len({OPERATIONS.short_name(name) for name in OPERATIONS}) == len(OPERATIONS)


def test_text_takes_long_names_any_order_and_white_space():
    genotype = Genotype.from_text("\n reduction=fixed\t normal=sep_conv_3x3@0+skip@1/max3@1+sep_conv_5x5@2\n")
    assert genotype == Genotype(CELL, None)
    assert genotype.name is None


def test_some_nodes_are_concatenated():
    assert SOME.to_text() == (
        "name=some normal_concat=3,4 reduction_concat=3 normal=sep3@0+skip@1/max3@1+sep5@2/skip@2 "
        "reduction=sep3@0+skip@1/max3@1+sep5@2"
    )
    assert SOME.to_json()["normal_concat"] == [3, 4]
    assert (SOME.given(), SOME.given(reduction=True)) == ((3, 4), (3,))
    every = Genotype(CELL, CELL)
    assert every.given() == every.given(reduction=True) == (2, 3)
    assert Genotype(CELL, CELL, output="last").given() == (3,)
    assert Genotype([[("skip_connect", 0)]] * 2, None, inputs=1).given() == (1, 2)
    assert Genotype(CELL, CELL, normal_concat=(2, 3)) == every  # all of them, which is the default
    assert "normal_concat" not in Genotype(CELL, CELL, normal_concat=(2, 3)).to_json()
    assert Genotype(CELL, CELL, normal_concat=(3,)) != every


@pytest.mark.parametrize(
    ("concat", "message"),
    [
        (
            (),
            r"normal_concat: found \(\); accepted are the numbers of nodes, out of 2, 3 \(2 \+ j is node j\)",
        ),
        ("3", "normal_concat: found '3'; accepted are the numbers of nodes"),
        (3, "normal_concat: found 3; accepted are the numbers of nodes"),
        ((True,), r"normal_concat: found \(True,\)"),
        ((2.0,), r"normal_concat: found \(2.0,\)"),
        ((4,), "normal_concat: found 4; accepted are numbers out of 2, 3, ascending, each once"),
        ((1, 2), "normal_concat: found 1, 2; accepted are numbers out of 2, 3"),
        ((3, 2), "normal_concat: found 3, 2; accepted are .* ascending"),
        ((3, 3), "normal_concat: found 3, 3; accepted are .* each once"),
    ],
)
def test_bad_concatenations(concat: object, message: str):
    with pytest.raises(UsageError, match=message):
        Genotype(CELL, None, normal_concat=concat)


def test_concatenations_where_there_is_none():
    with pytest.raises(UsageError, match=r"reduction_concat is \(3,\); the fixed reduction cell has none"):
        Genotype(CELL, None, reduction_concat=(3,))
    with pytest.raises(UsageError, match=r"normal_concat is \(3,\); output=last gives one node, .* left out"):
        Genotype(CELL, None, output="last", normal_concat=(3,))
    with pytest.raises(UsageError, match="normal_concat: found '3,'; accepted are the numbers of nodes"):
        Genotype.from_text("normal=skip@0/skip@1 reduction=fixed normal_concat=3,")


def test_load_takes_a_published_name():
    assert Genotype.load("GDAS_V1") is GENOTYPES["GDAS_V1"]


def _edge(operation: object, source: object) -> list:
    return [[("sep_conv_3x3", 0), ("skip_connect", 1)], [(operation, source), ("sep_conv_5x5", 2)]]


@pytest.mark.parametrize(
    ("normal", "message"),
    [
        (
            _edge("conv_9x9", 1),
            "normal cell, node 1, edge 0: unknown operation 'conv_9x9'; accepted are none, ",
        ),
        (_edge(None, 1), "normal cell, node 1, edge 0: unknown operation None"),
        (_edge(["none"], 1), r"normal cell, node 1, edge 0: unknown operation \['none'\]"),
        (_edge("none", 3), "normal cell, node 1, edge 0: input 3 doesn't exist; accepted are 0 to 2"),
        (_edge("none", -1), "normal cell, node 1, edge 0: input -1 doesn't exist"),
        (_edge("none", 1.0), "normal cell, node 1, edge 0: input 1.0 doesn't exist"),
        (_edge("none", True), "normal cell, node 1, edge 0: input True doesn't exist"),
        (_edge("none", "1"), "normal cell, node 1, edge 0: input '1' doesn't exist"),
        ([[("none", 0), ("none", 1, 2)]], r"normal cell, node 0, edge 1: found \('none', 1, 2\)"),
        ([["none", 0]], "normal cell, node 0, edge 0: found 'none'; accepted is an"),
        ([[("none", 0)], []], r"normal cell, node 1: found \[\]"),
        ([[("none", 0)], None], "normal cell, node 1: found None"),
        ([], r"normal cell: found \[\]; accepted is a list of nodes"),
        ("sep3@0", "normal cell: found 'sep3@0'"),
        ({"0": []}, "normal cell: found {'0': "),
    ],
)
def test_bad_cells_name_the_place(normal: object, message: str):
    with pytest.raises(UsageError, match=message) as error:
        Genotype(normal, None)
    assert "\n" not in str(error.value)


def test_bad_reduction_cells_name_the_place():
    with pytest.raises(UsageError, match="reduction cell, node 1, edge 0: input 7"):
        Genotype(CELL, _edge("none", 7))
    with pytest.raises(UsageError, match=r"reduction cell, node 1: found \[\]; accepted is a list of one"):
        Genotype(CELL, [CELL[0], []])


def test_a_node_with_few_inputs_may_have_fewer_edges_than_others():
    genotype = Genotype([CELL[0], CELL[1] + CELL[0][:1]], None)
    assert genotype.inputs_per_node == 3
    genotype.check_fits(SearchSpace(nodes=2, inputs_per_node=3))


def test_parallel_edges_are_allowed():
    cell = [[("avg_pool_3x3", 1), ("avg_pool_3x3", 1)], [("sep_conv_3x3", 1), ("skip_connect", 1)]]
    assert Genotype.from_text(Genotype(cell, None).to_text()).normal[0][1] == Edge("avg_pool_3x3", 1)


@pytest.mark.parametrize("name", ["", "a b", "a=b", "ä", 3])
def test_bad_names(name: object):
    with pytest.raises(UsageError, match="genotype: name is .*accepted are letters"):
        Genotype(CELL, None, name)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", r"found \[1\]; accepted is an object"),
        ({"normal": CELL}, "reduction is missing"),
        ({"reduction": "fixed"}, "normal is missing"),
        ({"normal": CELL, "reduction": None}, 'reduction cell: found null; write "fixed"'),
        ({"normal": CELL, "reduction": "fix"}, "reduction cell: found 'fix'"),
        (
            {"normal": CELL, "reduction": "fixed", "reduce": []},
            "unknown key 'reduce'; accepted are name, space, inputs, output, between, normal",
        ),
        ({"normal": CELL, "reduction": "fixed", "name": 3}, "name is 3"),
    ],
)
def test_bad_json(value: object, message: str):
    with pytest.raises(UsageError, match=message):
        Genotype.from_json(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "normal is missing; accepted is normal=OP@INPUT"),
        (
            "GDAS_V9",
            "cannot read 'GDAS_V9'; did you mean GDAS_V1",
        ),
        ("nasnet", r"cannot read 'nasnet'; did you mean NASNet-A\?"),
        (
            "mine.yaml",
            "cannot read 'mine.yaml'; accepted is .* or one of DARTS_V1, DARTS_V2, GDAS_V1, GDAS_F1, GDAS_GF",
        ),
        ("normal=skip@0", "reduction is missing"),
        ("normal=skip@0 normal=skip@1 reduction=fixed", "normal stands twice"),
        ("normal=skip@0 reduce=fixed", "cannot read 'reduce=fixed'; did you mean reduction"),
        (
            "normal=skip@0/sepp3@2 reduction=fixed",
            "unknown operation 'sepp3'; accepted are .*did you mean sep3",
        ),
        (
            "normal=skip reduction=fixed",
            "normal cell, node 0, edge 0: found 'skip'; accepted is operation@input",
        ),
        ("normal=skip@x reduction=fixed", "normal cell, node 0, edge 0: found 'skip@x'"),
        ("normal=skip@-1 reduction=fixed", "normal cell, node 0, edge 0: found 'skip@-1'"),
        ("normal=skip@0+ reduction=fixed", "normal cell, node 0, edge 1: found ''"),
        ("normal=skip@0/ reduction=fixed", "normal cell, node 1, edge 0: found ''"),
        ("normal=skip@0 reduction=", "reduction cell, node 0, edge 0: found ''"),
        (
            "normal=skip@0/sup3@2 reduction=fixed",
            "node 1, edge 0: unknown operation 'sup3'; accepted are none, ",
        ),
        ("normal=skip@2 reduction=fixed", "normal cell, node 0, edge 0: input 2 doesn't exist"),
        ("name= normal=skip@1 reduction=fixed", "name is ''"),
    ],
)
def test_bad_text(text: str, message: str):
    with pytest.raises(UsageError, match=message):
        Genotype.from_text(text)


@pytest.mark.parametrize("read", [Genotype.load, Genotype.from_text])
def test_the_old_name_of_gdas_gf_says_what_it_was(read: Callable[[str], Genotype]):
    with pytest.raises(
        UsageError, match=r"GDAS_V1_FRC: .*paper's GDAS \(FRC\); that is GDAS_F1.* is GDAS_GF$"
    ):
        read("GDAS_V1_FRC")


def test_published_genotypes_are_those_of_the_shared_table(shared: Path):
    with open(shared / "data" / "darts_space" / "published_genotypes.json", encoding="utf-8") as file:
        table = {entry["name"].split(" ")[0]: entry for entry in json.load(file)}
    for name, genotype in GENOTYPES.items():
        entry = table[name]
        assert genotype.normal == _cell_of(entry, "normal")
        fixed = isinstance(entry.get("reduce"), str)
        assert genotype.reduction == (None if fixed else _cell_of(entry, "reduce"))
        assert list(genotype.given()) == entry["normal_concat"]
        assert fixed or list(genotype.given(reduction=True)) == entry["reduce_concat"]
    assert set(GENOTYPES) == set(table)


def _cell_of(entry: dict, kind: str) -> tuple:
    """The cell of an entry, of nodes, or of edges (operation, node, input) where nodes have 0 to 2."""
    if kind in entry:
        return tuple(tuple(Edge(operation, source) for operation, source in node) for node in entry[kind])
    edges = entry[f"{kind}_edges"]
    nodes = range(2, max(node for _, node, _ in edges) + 1)
    return tuple(tuple(Edge(name, source) for name, at, source in edges if at == node) for node in nodes)


def test_an_old_file_with_the_old_name_is_still_read(tmp_path: Path):
    text = GENOTYPES["GDAS_GF"].to_text().replace("GDAS_GF", "GDAS_V1_FRC")
    (tmp_path / "old.txt").write_text(text)
    old = Genotype.load(tmp_path / "old.txt")
    assert old == GENOTYPES["GDAS_GF"] and old.name == "GDAS_V1_FRC"


def test_bad_files(tmp_path: Path):
    with pytest.raises(
        UsageError, match="no such file; accepted are .json and .txt files, and the names DARTS_V1"
    ):
        Genotype.load(tmp_path / "none.json")
    with pytest.raises(UsageError, match=r"genotype enas: there is no such file; did you mean ENAS\?"):
        Genotype.load("enas")
    (tmp_path / "a.yaml").write_text("x")
    with pytest.raises(UsageError, match=r"a.yaml: unknown suffix '.yaml'; accepted are .json, .txt"):
        Genotype.load(tmp_path / "a.yaml")
    with pytest.raises(UsageError, match="unknown suffix"):
        Genotype(CELL, None).save(tmp_path / "b.yaml")
    (tmp_path / "c.json").write_text('{"normal": [[["none", 5]]], "reduction": "fixed"}')
    with pytest.raises(UsageError, match=r"c.json: genotype: normal cell, node 0, edge 0: input 5"):
        Genotype.load(tmp_path / "c.json")
    (tmp_path / "d.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="d.txt: it is not text"):
        Genotype.load(tmp_path / "d.txt")
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="a part of the path is a file"):
        Genotype(CELL, None).save(tmp_path / "file/e.json")


def test_a_node_may_take_an_input_twice():
    text = "normal=sep3@0+dil5@0/skip@1+skip@1 reduction=fixed"
    genotype = Genotype.from_text(text)
    assert genotype.to_text() == text
    assert genotype.normal[0] == (Edge("sep_conv_3x3", 0), Edge("dil_conv_5x5", 0))
    assert Genotype.from_json(genotype.to_json()) == genotype
    genotype.check_fits(SearchSpace(nodes=2))
    three = Genotype.from_text("normal=sep3@0+dil5@0+skip@1/skip@1+skip@1+max3@2 reduction=fixed")
    three.check_fits(SearchSpace(nodes=2, inputs_per_node=3))


def test_check_fits():
    genotype = GENOTYPES["DARTS_V1"]
    with pytest.raises(UsageError, match="normal cell: found 4 nodes; the search space has 3"):
        genotype.check_fits(SearchSpace(nodes=3))
    with pytest.raises(UsageError, match="normal cell, node 1: found 2 edges; the search space has 3"):
        genotype.check_fits(SearchSpace(inputs_per_node=3))
    with pytest.raises(
        UsageError, match="reduction cell, node 3, edge 1: avg_pool_3x3 is not in the search space"
    ):
        genotype.check_fits(SearchSpace.named("gdas-4"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NASNet-A", "normal cell: found 5 nodes; the search space has 4"),
        ("SETN", "normal cell, node 3, edge 1: conv_3x1_1x3 is not in the search space"),
        ("FairDARTS_b", "normal cell, node 1: found 1 edge; the search space has 2"),
    ],
)
def test_published_genotypes_of_other_spaces_do_not_fit(name: str, message: str):
    with pytest.raises(UsageError, match=message):
        GENOTYPES[name].check_fits(SearchSpace())


def test_a_space_concatenates_all_nodes():
    genotype = GENOTYPES["DARTS_V1"]
    for name in ("normal", "reduction"):
        other = dataclasses.replace(genotype, **{f"{name}_concat": (3, 5)})
        with pytest.raises(UsageError, match=f"{name}_concat is 3, 5; a cell of the search space darts conc"):
            other.check_fits(SearchSpace())
    shorter = Genotype(genotype.normal, genotype.reduction[:3])
    with pytest.raises(UsageError, match="reduction cell: found 3 nodes; the search space has 4"):
        shorter.check_fits(SearchSpace())


def test_random_genotypes_are_in_the_space_and_reproducible():
    for space in (
        SearchSpace(),
        SearchSpace.named("gdas-4", 6, 3),
        SearchSpace(nodes=1),
        SearchSpace(("none", "conv_1x1")),
    ):
        for seed in range(30):
            genotype = random_genotype(space, seed)
            genotype.check_fits(space)
            assert genotype == random_genotype(space, seed)
            for cell in genotype.cells.values():
                for node in cell:
                    assert len({edge.input for edge in node}) == len(node)
                    assert all(edge.operation != "none" for edge in node)
            fixed = random_genotype(space, seed, reduction="fixed")
            assert fixed.reduction is None
            assert fixed.normal == genotype.normal


def test_random_genotypes_are_uniform():
    space = SearchSpace(nodes=3)
    genotypes = [random_genotype(space, seed, allow_none=True) for seed in range(3000)]
    assert len(set(genotypes)) > 2900
    operations = Counter(edge.operation for g in genotypes for edge in g.normal[2] + g.reduction[0])
    inputs = Counter(edge.input for g in genotypes for edge in g.reduction[2])
    for counts, classes in ((operations, 8), (inputs, 4)):
        assert len(counts) == classes
        expected = counts.total() / classes
        assert all(abs(count - expected) < 0.12 * expected for count in counts.values())


ONE_INPUT = SearchSpace(
    ("none", "conv_1x1", "conv_3x3"), 3, name="mine", inputs=1, keep="all", output="last", reduction=False
)


def test_random_genotypes_of_other_spaces():
    for seed in range(30):
        genotype = random_genotype(ONE_INPUT, seed, allow_none=True)
        genotype.check_fits(ONE_INPUT)
        assert [[edge.input for edge in node] for node in genotype.normal] == [[0], [0, 1], [0, 1, 2]]
        assert (genotype.inputs, genotype.output, genotype.reduction) == (1, "last", None)
        assert Genotype.from_text(genotype.to_text()) == genotype


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("normal=conv1@0/conv1@0/conv1@0 reduction=fixed", "inputs is 2; the search space mine has 1"),
        (
            "inputs=1 normal=conv1@0 reduction=fixed",
            "output is concatenation; the search space mine has last",
        ),
        ("inputs=1 output=last normal=conv1@0 reduction=fixed", "normal cell: found 1 node; .* has 3"),
        (
            "inputs=1 output=last normal=conv1@0/conv1@0/conv1@0 reduction=conv1@0/conv1@0/conv1@0",
            "found a reduction cell; the search space mine has none",
        ),
        (
            "inputs=1 output=last normal=conv1@0/conv1@0/conv1@0 reduction=fixed",
            "normal cell, node 1: found inputs 0; the search space keeps each of 0 to 1 once",
        ),
        (
            "inputs=1 output=last normal=conv1@0/conv1@0+conv1@1/conv1@0+none@1+none@1 reduction=fixed",
            "normal cell, node 2: found inputs 0, 1, 1; the search space keeps each of 0 to 2 once",
        ),
        (
            "inputs=1 output=last normal=conv1@0/conv1@0+conv1@1/conv1@0+none@1+skip@2 reduction=fixed",
            "node 2, edge 2: skip_connect is not in the search space",
        ),
    ],
)
def test_what_does_not_fit_a_space_of_one_input(text: str, message: str):
    with pytest.raises(UsageError, match=message):
        Genotype.from_text(text).check_fits(ONE_INPUT)


# ---- The notation of NAS-Bench-201

BARS = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|avg_pool_3x3~2|"


def test_notation_of_nasbench201(tmp_path: Path):
    genotype = Genotype.from_text(BARS)
    assert (genotype.inputs, genotype.output, genotype.reduction) == (1, "last", None)
    assert (genotype.space, genotype.between) == ("nasbench201", "residual")
    assert genotype.normal[2] == (("nor_conv_1x1", 0), ("none", 1), ("avg_pool_3x3", 2))
    assert genotype.to_text() == genotype.to_bars() == BARS
    assert genotype.to_json() == {"space": "nasbench201", "cell": BARS}
    other = " |nor3~0| + |skip~1|none~0|+|avg3~2|nor1~0|none~1| "
    for same in (
        Genotype.from_text(other),
        Genotype.from_json({"cell": BARS}),
        Genotype.from_json(f'"{BARS}"'),
    ):
        assert (same, same.to_text()) == (genotype, BARS)
    short = "space=nasbench201 inputs=1 output=last normal=nor3@0/skip@1+none@0/nor1@0+none@1+avg3@2"
    assert Genotype.from_text(f"{short} reduction=fixed").to_text() == BARS
    for name in ("cell.txt", "cell.json"):
        genotype.save(tmp_path / name)
        assert Genotype.load(tmp_path / name) == genotype
    named = random_genotype(SPACES.get("nasbench201"), 7)
    assert named.to_text().startswith("name=random-7 |")
    again = Genotype.from_text(named.to_text())
    assert (again, again.name) == (named, "random-7")
    assert Genotype.from_json(named.to_json()).name == "random-7"
    genotype.check_fits(SPACES.get("nasbench201"))


def test_what_the_notation_of_nasbench201_cannot_write_is_in_the_short_one():
    assert GENOTYPES["GDAS_GF"].to_bars() is None
    twice = Genotype(
        [[("skip_connect", 0)], [("skip_connect", 1), ("none", 1)]], None, inputs=1, output="last"
    )
    assert twice.to_bars() is None
    assert dataclasses.replace(twice, space="nasbench201").to_text().startswith("inputs=1 output=last space=")


def test_random_genotypes_of_nasbench201_are_drawn_of_all_operations():
    drawn = {
        e.operation
        for seed in range(30)
        for n in random_genotype(SPACES.get("nasbench201"), seed).normal
        for e in n
    }
    assert drawn == set(SPACES.get("nasbench201").operations)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("|nor_conv_3x3~0", r"node 1: found '\|nor_conv_3x3~0'; accepted is \|OP~INPUT"),
        ("|nor_conv_3x3~0|+", "node 2: found ''"),
        ("|nor_conv_3x3|", "node 1: found 'nor_conv_3x3'; accepted is operation~input"),
        ("|nor_conv_3~0|", "node 1: unknown operation 'nor_conv_3'; did you mean nor_conv_3x3"),
        ("|none~1|", "node 1: found inputs 1; accepted are 0, all that comes before, each once"),
        ("|none~0|+|none~0|", "node 2: found inputs 0; accepted are 0, 1"),
        ("|none~0|+|none~0|none~0|", "node 2: found inputs 0, 0; accepted are 0, 1"),
        ("inputs=1 |none~0|", "found 'inputs' before a cell; accepted are name and space"),
        ("name=a=b |none~0|", "name is 'a=b'"),
    ],
)
def test_bad_cells_of_nasbench201(text: str, message: str):
    with pytest.raises(UsageError, match=message) as error:
        Genotype.from_text(text)
    assert "\n" not in str(error.value)


def test_bad_json_of_nasbench201():
    with pytest.raises(UsageError, match="cell: found 3; accepted is text as"):
        Genotype.from_json({"cell": 3})
    with pytest.raises(UsageError, match="found 'normal' before a cell"):
        Genotype.from_json({"cell": BARS, "normal": []})
    with pytest.raises(UsageError, match="between is 'pool'; accepted are frc, residual"):
        Genotype.from_text("between=pool normal=skip@0 reduction=fixed")

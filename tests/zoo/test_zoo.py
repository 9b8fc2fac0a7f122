"""The zoo: its figures are those of the shared table, its numbers of weights those of the networks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gdas_tf.errors import UsageError
from gdas_tf.networks.derived import build_network, count_parameters
from gdas_tf.networks.registry import NETWORKS
from gdas_tf.spaces.genotype import GENOTYPES, Cell, Genotype
from gdas_tf.zoo.entries import ZOO

CELLS = [name for name in ZOO if ZOO.get(name).kind == "genotype"]
MADE = [name for name in ZOO if ZOO.get(name).kind == "network"]


def weights(genotype: Genotype, c: int, n: int, classes: int = 10) -> int:
    """The number of weights of a network by arithmetic alone, of what DARTS' and GDAS' code say (2019)."""

    def separable(size: int, channels: int) -> int:
        return size**2 * channels + channels**2 + 2 * channels

    def edge(name: str, channels: int, stride: int) -> int:
        kind, _, size = name.partition("_conv_")
        if "pool" in name or name == "none" or (name == "skip_connect" and stride == 1):
            return 0
        if name == "skip_connect":
            return channels**2 + 2 * channels
        if name in ("conv_3x1_1x3", "conv_7x1_1x7"):
            return 2 * int(name[5]) * channels**2 + 2 * channels
        return {"sep": 2, "dil": 1}[kind] * separable(int(size[0]), channels)

    def cell(nodes: Cell, channels: int, reduction: bool) -> int:
        return sum(
            edge(one.operation, channels, 2 if reduction and one.input < 2 else 1)
            for node in nodes
            for one in node
        )

    def fixed(channels: int) -> int:  # on each of two inputs a grouped convolution, and a pooling
        grouped = 2 * 3 * channels * (channels // min(8, channels))
        return 2 * (grouped + 2 * channels + channels**2 + 2 * channels + 2 * channels)

    before = last = 3 * c
    count = 9 * 3 * last + 2 * last
    plan = [c] * n + [-2 * c] + [2 * c] * n + [-4 * c] + [4 * c] * n  # below zero: reduction cells
    for channels in plan:
        reduction, channels = channels < 0, abs(channels)
        count += (before + last) * channels + 4 * channels
        if reduction and genotype.reduction is None:
            count, given = count + fixed(channels), 4
        else:
            count += cell(genotype.reduction if reduction else genotype.normal, channels, reduction)
            given = len(genotype.given(reduction))
        before, last = last, given * channels
    return count + last * classes + classes


def test_all_genotypes_and_networks_have_an_entry() -> None:
    assert set(CELLS) == set(GENOTYPES)
    assert {"derived", *MADE} == set(NETWORKS)
    for name in ZOO:
        entry = ZOO.get(name)
        assert entry.name == name and entry.paper and entry.figures and entry.origin
        assert entry.from_memory == ("memory" in entry.figures)
        assert entry.to_json()["weights"] == entry.weights
        assert (entry.genotype is not None) == (name in GENOTYPES)
    json.dumps([ZOO.get(name).to_json() for name in ZOO])


@pytest.mark.parametrize("name", CELLS)
def test_number_of_weights(name: str) -> None:
    assert weights(GENOTYPES[name], 36, 6) == ZOO.get(name).weights


BUILT = ["GDAS_F1", "NASNet-A", "AmoebaNet-A", "SETN", "FairDARTS_a", "P-DARTS"]
"""With every operation of the zoo, one input twice, one edge, some nodes concatenated, the fixed cell."""


@pytest.mark.parametrize("name", BUILT)
def test_what_is_built_has_as_many_weights(name: str) -> None:
    network = build_network(GENOTYPES[name], (8, 8, 3), 10, channels=8, cells=1)
    assert count_parameters(network) == weights(GENOTYPES[name], 8, 1)


def test_those_that_are_built_have_every_operation() -> None:
    def operations(names: list[str]) -> set[str]:
        cells = [cell for name in names for cell in GENOTYPES[name].cells.values()]
        return {edge.operation for cell in cells for node in cell for edge in node}

    assert operations(BUILT) == operations(CELLS)


@pytest.mark.parametrize("name", CELLS)
def test_the_published_number_is_near(name: str) -> None:
    """By 6 %, but for those that were published with a stack, channels or a head of their own."""
    entry = ZOO.get(name)
    if entry.published_weights is None or "of its own" in entry.notes:
        pytest.skip("there is none to compare with")
    head = 476_426 if "auxiliary head" in entry.notes else 0
    assert entry.weights + head == pytest.approx(1e6 * entry.published_weights, rel=0.06)


def test_figures_are_those_of_the_shared_table(shared: Path) -> None:
    with open(shared / "data" / "darts_space" / "published_genotypes.json", encoding="utf-8") as file:
        table = {entry["name"].split(" ")[0]: entry for entry in json.load(file)}
    assert set(table) == set(CELLS)
    exact = 0
    for name in CELLS:
        entry, known = ZOO.get(name), table[name]
        assert entry.error == known["cifar10_test_error"]
        assert entry.spread == known["error_std"]
        assert entry.published_weights == known["params_reported_M"]
        assert entry.paper == known["paper"]
        assert entry.from_memory == ("from memory" in known["figure_from"])
        if "params_exact_C36_L20" in known:
            exact += 1
            assert entry.weights == known["params_exact_C36_L20"]
    assert exact == 9


def test_figures_of_the_networks_are_those_of_the_gdas_paper(shared: Path) -> None:
    with open(shared / "data" / "gdas_published" / "figures.json", encoding="utf-8") as file:
        rows = {row["method"]: row for row in json.load(file)["gdas_paper"]["table1_cifar"]}
    for name, method in (("resnet110", "ResNet + CutOut"), ("densenet_bc_190_40", "DenseNet-BC")):
        entry, row = ZOO.get(name), rows[method]
        assert (entry.error, entry.published_weights) == (row["c10_error"], row["params_M"])


def test_unknown_names() -> None:
    with pytest.raises(UsageError, match=r"unknown entry of the zoo 'nasnet'; did you mean NASNet-A\?"):
        ZOO.get("nasnet")


def test_the_zoo_needs_no_tensorflow() -> None:
    code = (
        "import sys, gdas_tf.zoo.entries; sys.exit(bool({'tensorflow', 'keras', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_documents_have_the_table() -> None:
    text = (Path(__file__).parents[2] / "docs" / "zoo.md").read_text(encoding="utf-8")
    for name in ZOO:
        entry = ZOO.get(name)
        error = f"{entry.error:.2f}" + ("*" if entry.from_memory else "")
        assert f"| `{name}` | {entry.weights:,} | {error} |" in text

"""The networks of NAS-Bench-201: their numbers of weights against the benchmark's table, their layers."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import keras
import numpy as np
import pytest

from gdas_tf.errors import UsageError
from gdas_tf.networks.derived import build_network, count_parameters
from gdas_tf.operations.base import OPERATIONS
from gdas_tf.spaces.base import SPACES
from gdas_tf.spaces.genotype import GENOTYPES, Genotype, random_genotype

SPACE = SPACES.get("nasbench201")
CELLS, CHANNELS, CLASSES = 5, 16, 10


@pytest.fixture(scope="module")
def rows(shared: Path) -> list[dict[str, str]]:
    with open(shared / "data" / "nasbench201" / "nb201.csv", newline="") as file:
        return list(csv.DictReader(file))


def edge_weights(operation: str, channels: int) -> int:
    record = OPERATIONS.get(operation)
    kernels = sum(int(np.prod(shape)) for shape in record.kernel_shapes(channels, 1))
    return kernels + 2 * channels * record.norms(1)


def weights(genotype: Genotype, kept: set[int] | None = None) -> int:
    """The number of weights by the shapes of the layers; `kept` are the nodes that are not left out."""

    def convolution(size: int, inputs: int, outputs: int) -> int:
        return size * size * inputs * outputs

    nodes = [node for number, node in enumerate(genotype.normal) if kept is None or number in kept]
    total = convolution(3, 3, CHANNELS) + 2 * CHANNELS
    for factor in (1, 2, 4):
        channels = factor * CHANNELS
        total += CELLS * sum(edge_weights(edge.operation, channels) for node in nodes for edge in node)
    for channels in (2 * CHANNELS, 4 * CHANNELS):
        total += convolution(3, channels // 2, channels) + convolution(3, channels, channels) + 4 * channels
        total += convolution(1, channels // 2, channels)
    return total + 2 * 4 * CHANNELS + (4 * CHANNELS + 1) * CLASSES


def reaching(genotype: Genotype) -> set[int]:
    """The nodes whose output has a way to that of the cell."""
    found = {len(genotype.normal) - 1}
    for number in reversed(range(len(genotype.normal))):
        if number in found:
            found |= {e.input - 1 for e in genotype.normal[number] if e.operation != "none" and e.input}
    return found


def built(genotype: Genotype) -> int:
    return count_parameters(build_network(genotype, (32, 32, 3), CLASSES, channels=CHANNELS, cells=CELLS))


def test_the_number_of_weights_of_every_cell_is_that_of_the_table(rows: list[dict[str, str]]) -> None:
    assert len(rows) == 15_625
    for row in rows:
        assert weights(Genotype.from_text(row["cell"])) == int(row["params"]), row["cell"]


def test_built_networks_have_that_number_of_weights(rows: list[dict[str, str]]) -> None:
    # A node that nothing reads is not built: such cells have the weights of the others alone.
    drawn = random.Random(1).sample(rows, 18)
    genotypes = [Genotype.from_text(row["cell"]) for row in drawn]
    whole = [reaching(genotype) == {0, 1, 2} for genotype in genotypes]
    assert 12 <= sum(whole) < 18
    for row, genotype, all_nodes in zip(drawn, genotypes, whole, strict=True):
        assert built(genotype) == (int(row["params"]) if all_nodes else weights(genotype, reaching(genotype)))


def test_the_published_number_of_weights() -> None:
    cell = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"
    assert built(Genotype.from_text(cell)) == 1_531_546


def test_layers_of_a_network() -> None:
    genotype = Genotype.from_text("|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|none~2|")
    model = build_network(genotype, (9, 8, 3), 3, channels=4, cells=1, drop_path=0.2, training=True)
    names = {layer.name for layer in model.layers}
    assert not any("input0" in name for name in names)
    assert {"head_bn", "head_relu", "cell1_shortcut_pool", "cell3_output"} <= names
    shapes = {name: model.get_layer(name).output.shape[1:] for name in ("stem_bn", "cell1_output")}
    assert shapes == {"stem_bn": (9, 8, 4), "cell1_output": (5, 4, 8)}
    # Drop-path leaves residual blocks alone; a node that nothing reads is not in the model.
    assert model.get_layer("drop_path").paths == 3 * 2
    assert not any("node0" in name for name in names)


def test_a_network_of_large_images() -> None:
    model = build_network(random_genotype(SPACE, 0), (72, 64, 3), 3, channels=4, cells=1)
    assert model.get_layer("cell1_output").output.shape[1:] == (5, 4, 8)
    assert np.isfinite(model(keras.ops.ones((1, 72, 64, 3)))).all()


def test_a_genotype_of_another_space() -> None:
    with pytest.raises(UsageError, match="it has 2 inputs a cell, .* set search.space to the space of the"):
        build_network(GENOTYPES["GDAS_V1"], (8, 8, 3), 3, space=SPACE, channels=4, cells=1)
    unknown = Genotype([[("conv_3x3", 0)]], None, inputs=1, output="last", space="mine")
    with pytest.raises(UsageError, match="unknown search space 'mine'"):
        build_network(unknown, (8, 8, 3), 3)

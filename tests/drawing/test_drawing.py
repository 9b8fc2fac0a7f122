"""Pictures: cells without overlaps for every genotype, curves, colours, files."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import matplotlib.colors
import matplotlib.style
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from test_cell_layout import check_layout

from gdas_tf.drawing import cells, curves, style
from gdas_tf.drawing.cells import draw_cell, draw_genotype
from gdas_tf.drawing.curves import draw_retraining, draw_search
from gdas_tf.drawing.layout import Item
from gdas_tf.drawing.truth import draw_truth
from gdas_tf.errors import RunError, UsageError
from gdas_tf.operations.base import OPERATIONS
from gdas_tf.spaces.base import OPERATION_SETS, SPACES, SearchSpace
from gdas_tf.spaces.genotype import GENOTYPES, Genotype, random_genotype

OPERATION_COLORS = {name: OPERATIONS.get(name).color for name in OPERATIONS}
PARALLEL = "normal=sep5@1+sep3@0/sep5@0+sep3@0/avg3@1+skip@0/avg3@0+avg3@0/sep3@1+skip@1 reduction=fixed"


@pytest.fixture(autouse=True)
def _small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of few pixels, for speed."""
    monkeypatch.setattr(style, "RESOLUTION", 60)


def _parts(genotype: Genotype, cell: str) -> tuple:
    """What `draw_cell` draws: parts, links and their layout."""
    nodes = genotype.cells.get(cell)
    if nodes is None:
        parts, links = cells._fixed_parts()
    else:
        parts, links = cells._searched_parts(nodes, given=genotype.given(cell == "reduction"))
    return parts, links, cells._place_parts(parts, links)


def _check_cell(genotype: Genotype, cell: str) -> None:
    parts, links, layout = _parts(genotype, cell)
    items = []
    for part in parts:
        # Every text fits into its box, so boxes that don't overlap mean labels that don't.
        size = cells._OPERATION_SIZE if part.color else cells._NODE_SIZE
        items.append(Item(part.column, layout_width(layout, len(items)), size * 1.2))
        assert layout_width(layout, len(items) - 1) >= style.text_width(part.text, size) + 6.0
    check_layout(layout, links, items)


def layout_width(layout, number: int) -> float:
    box = layout.boxes[number]
    return box.right - box.left


@pytest.mark.parametrize("genotype", GENOTYPES.values(), ids=list(GENOTYPES))
def test_nothing_overlaps_in_the_published_cells(genotype: Genotype):
    for cell in ("normal", "reduction"):
        _check_cell(genotype, cell)


@pytest.mark.parametrize(
    ("nodes", "inputs"), [(1, 1), (1, 2), (3, 2), (4, 1), (4, 2), (4, 3), (6, 2), (6, 3)]
)
def test_nothing_overlaps_in_random_cells(nodes: int, inputs: int):
    space = SearchSpace.named("gdas-12", nodes, inputs)
    for seed in range(12 if nodes < 6 else 4):
        genotype = random_genotype(space, seed, "fixed", allow_none=True)
        _check_cell(genotype, "normal")


def test_nothing_overlaps_with_parallel_edges():
    _check_cell(Genotype.from_text(PARALLEL), "normal")


def test_a_cell_shows_every_edge_and_node():
    genotype = GENOTYPES["DARTS_V1"]
    parts, links, _ = _parts(genotype, "normal")
    texts = [part.text for part in parts]
    assert texts[:6] == ["$c_{k{-}2}$", "$c_{k{-}1}$", "$0$", "$1$", "$2$", "$3$"]
    assert texts[-1] == "$c_{k}$"
    assert texts[6:-1] == [edge.operation for node in genotype.normal for edge in node]
    edges = iter([(number, edge) for number, node in enumerate(genotype.normal) for edge in node])
    for label in range(6, 14):
        number, edge = next(edges)
        assert [link.source for link in links if link.target == label] == [edge.input]
        assert [link.target for link in links if link.source == label] == [number + 2]
    assert sorted(link.source for link in links if link.target == 14) == [2, 3, 4, 5]
    for link in links:
        assert parts[link.source].column < parts[link.target].column


def test_the_fixed_reduction_cell_shows_two_branches_of_each_input():
    parts, links, _ = _parts(GENOTYPES["GDAS_GF"], "reduction")
    ways = []
    for source in range(2):
        for link in links:
            if link.source == source:
                way, at = [], link.target
                while parts[at].color:
                    way.append(parts[at].text)
                    (at,) = [other.target for other in links if other.source == at]
                ways.append((source, parts[at].text, way))
    assert ways == [
        (0, "$0$", ["conv_1x3", "conv_3x1", "conv_1x1"]),
        (0, "$2$", ["max_pool_3x3"]),
        (1, "$1$", ["conv_1x3", "conv_3x1", "conv_1x1"]),
        (1, "$3$", ["max_pool_3x3"]),
    ]


def test_an_input_taken_twice_has_two_operations_side_by_side():
    cell = Genotype.from_text("normal=sep3@0+dil5@0/skip@2+skip@2 reduction=fixed")
    parts, links, layout = _parts(cell, "normal")
    texts = [part.text for part in parts if part.color]
    assert texts == ["sep_conv_3x3", "dil_conv_5x5", "skip_connect", "skip_connect"]
    assert sorted((link.source, link.target) for link in links if parts[link.target].color) == [
        (0, 4),
        (0, 5),
        (2, 6),
        (2, 7),
    ]
    for one, other in ((4, 5), (6, 7)):
        upper, lower = sorted((layout.boxes[one], layout.boxes[other]), key=lambda box: -box.bottom)
        assert upper.bottom > lower.top


def test_draw_genotype_writes_both_cells_as_png_and_svg(tmp_path: Path):
    for name in ("GDAS_V1", "GDAS_GF"):
        paths = draw_genotype(GENOTYPES[name], tmp_path / "new" / name)
        assert [path.name for path in paths] == ["normal.png", "normal.svg", "reduction.png", "reduction.svg"]
        assert sorted(path.name for path in (tmp_path / "new" / name).iterdir()) == sorted(
            p.name for p in paths
        )
        for path in paths:
            if path.suffix == ".svg":
                assert ElementTree.parse(path).getroot().tag.endswith("svg")
            else:
                assert _colors(path) > 50


def _colors(path: Path) -> int:
    """Number of colours in a picture; an empty one has a single one."""
    with Image.open(path) as image:
        return len(image.convert("RGB").getcolors(1 << 24))


def _share(path: Path, color: str) -> float:
    """Share of a picture's area that has a colour."""
    wanted = tuple(round(255 * channel) for channel in matplotlib.colors.to_rgb(color))
    with Image.open(path) as image:
        counts = {value: count for count, value in image.convert("RGB").getcolors(1 << 24)}
        return counts.get(wanted, 0) / (image.width * image.height)


def test_labels_are_drawn_in_the_colours_of_their_operations(tmp_path: Path):
    draw_cell(GENOTYPES["DARTS_V2"], "normal", tmp_path / "cell.png")
    for name, color in OPERATION_COLORS.items():
        used = name in ("sep_conv_3x3", "skip_connect", "dil_conv_3x3")
        assert (_share(tmp_path / "cell.png", color) > 0.002) == used, name


def test_text_lies_where_the_layout_says_and_inside_the_picture():
    # What the geometry doesn't know is the title: it must be inside the picture and clear of the cell.
    for genotype in (
        GENOTYPES["DARTS_V1"],
        Genotype.from_text("normal=skip@0 reduction=skip@1"),
        Genotype.from_text("name=a-name-that-is-as-long-as-names-get normal=none@0 reduction=fixed"),
    ):
        for cell in ("normal", "reduction"):
            with matplotlib.style.context(["default", style.STYLE]):
                figure = cells._cell_figure(genotype, cell)
                renderer = FigureCanvasAgg(figure).get_renderer()
            boxes = [text.get_window_extent(renderer) for text in figure.axes[0].texts if text.get_text()]
            for box in boxes:
                assert box.x0 >= 0
                assert box.y0 >= 0
                assert box.x1 <= figure.bbox.x1
                assert box.y1 <= figure.bbox.y1
            for a, b in itertools.combinations(boxes, 2):
                assert not a.overlaps(b)


@pytest.mark.slow
def test_the_same_arguments_give_the_same_file(tmp_path: Path):
    metrics, logits = _search(5, SearchSpace())
    for suffix in ("png", "svg"):
        files = []
        for i in range(2):
            with matplotlib.rc_context({"font.size": 20 + i, "lines.linewidth": 7, "svg.hashsalt": None}):
                draw_cell(GENOTYPES["GDAS_V1"], "reduction", tmp_path / f"a{i}.{suffix}")
                draw_search(metrics, logits, SearchSpace(), tmp_path / f"b{i}.{suffix}")
                draw_retraining(_retraining(4), tmp_path / f"c{i}.{suffix}")
                assert matplotlib.rcParams["font.size"] == 20 + i
            files.append([(tmp_path / f"{name}{i}.{suffix}").read_bytes() for name in "abc"])
        assert files[0] == files[1]
        if suffix == "svg":
            assert not any(re.search(rb"<dc:date>|20\d\d-\d\d-\d\d", content) for content in files[0])


def _search(epochs: int, space: SearchSpace, cells: tuple[str, ...] = ("normal", "reduction")) -> tuple:
    """Metrics and logits as `gdas_tf.training.search` writes them."""
    generator = np.random.default_rng(epochs)
    shape = (epochs + 1, space.edge_count, len(space.operations))
    logits = {name: np.cumsum(generator.normal(size=shape), axis=0).astype(np.float32) for name in cells}
    metrics = []
    for epoch in range(1, epochs + 1):
        row = {"epoch": epoch, "temperature": 10.0 / epoch, "loss": 2.0 / epoch, "accuracy": 1 - 0.9 / epoch}
        row |= {"architecture_loss": 2.1 / epoch, "architecture_accuracy": 1 - 0.95 / epoch, "seconds": 1.0}
        metrics.append(row | {f"{name}_entropy": 2.0 - 0.01 * epoch for name in cells})
    return metrics, logits


def _retraining(epochs: int) -> list[dict]:
    return [
        {
            "epoch": e,
            "loss": 2 / e,
            "accuracy": 1 - 0.9 / e,
            "learning_rate": 0.025 / e,
            "drop_path": 0.01 * e,
        }
        for e in range(1, epochs + 1)
    ]


@pytest.mark.parametrize(
    ("epochs", "cells"),
    [
        (1, ("normal",)),
        (40, ("normal", "reduction")),
        pytest.param(1, ("normal", "reduction"), marks=pytest.mark.slow),
        pytest.param(40, ("normal",), marks=pytest.mark.slow),
    ],
)
def test_draw_search(epochs: int, cells: tuple[str, ...], tmp_path: Path):
    space = SearchSpace.named("gdas-12", nodes=3)
    metrics, logits = _search(epochs, space, cells)
    draw_search(metrics, logits, space, tmp_path / "search.png")
    # The legend alone makes 0.0001.
    for name in space.operations:
        assert _share(tmp_path / "search.png", OPERATION_COLORS[name]) > 0.0005, name


def test_shares_are_those_of_the_logits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    space = SearchSpace(("none", "skip_connect", "conv_3x3"), nodes=1)
    logits = np.log(np.array([[[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]], [[0.1, 0.1, 0.8], [0.1, 0.2, 0.7]]])) + 5.0
    drawn = []
    monkeypatch.setattr(curves, "_add_shares", lambda axes, shares, *_: drawn.append(shares))
    draw_search(_search(1, space, ("normal",))[0], {"normal": logits}, space, tmp_path / "search.svg")
    np.testing.assert_allclose(drawn[0], [[0.4, 0.3, 0.3], [0.1, 0.15, 0.75]])
    np.testing.assert_allclose(drawn[1], [[0.5, 0.0, 0.5], [0.0, 0.0, 1.0]])


def test_what_is_missing_in_the_metrics_is_left_out(tmp_path: Path):
    metrics, logits = _search(3, SearchSpace())
    metrics[1] = {"epoch": 2, "loss": None, "accuracy": math.nan}
    draw_search(metrics, logits, SearchSpace(), tmp_path / "search.png")
    draw_retraining([{"epoch": 1, "loss": None}, {"epoch": 2, "loss": 1.0}], tmp_path / "retraining.png")
    assert _colors(tmp_path / "search.png") > 50
    assert _colors(tmp_path / "retraining.png") > 50


def test_curves_of_a_validation_part_stand_beside_those_of_the_training_images(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    drawn = {}
    monkeypatch.setattr(
        curves, "_add_curves", lambda axes, rows, keys, title, *_: drawn.update({title: [*keys]})
    )
    draw_retraining(_retraining(2), tmp_path / "without.png")
    assert drawn["Loss on the training images"] == ["loss"]
    drawn.clear()
    validated = [{**line, "val_loss": 0.5, "val_accuracy": 0.8} for line in _retraining(2)]
    draw_retraining(validated, tmp_path / "with.png")
    assert drawn["Loss"] == ["loss", "val_loss"]
    assert drawn["Accuracy"] == ["accuracy", "val_accuracy"]


def _titles_and_curves(monkeypatch, metrics, logits, space, path: Path) -> dict[str, list[str]]:
    drawn = {}
    monkeypatch.setattr(
        curves, "_add_curves", lambda axes, rows, keys, title, *_: drawn.update({title: [*keys]})
    )
    draw_search(metrics, logits, space, path)
    return drawn


def test_a_search_without_a_temperature_has_no_panel_of_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    metrics, logits = _search(2, SearchSpace(), ("normal",))
    path = tmp_path / "search.svg"
    assert "Temperature" in _titles_and_curves(monkeypatch, metrics, logits, SearchSpace(), path)
    for row in metrics:
        del row["temperature"]
        row["normal_edges_entropy"] = 1.0
    found = _titles_and_curves(monkeypatch, metrics, logits, SearchSpace(), path)
    assert [*found] == ["Accuracy", "Loss", "Entropy of an edge (nats)"]
    assert found["Entropy of an edge (nats)"] == ["normal_entropy", "normal_edges_entropy"]


def test_what_is_excluded_does_not_count_in_the_largest_entropy(monkeypatch, tmp_path: Path):
    space = SearchSpace()
    metrics, logits = _search(2, space, ("normal",))
    logits["normal"][..., 0] = -1e9
    heights = []
    monkeypatch.setattr(curves.Axes, "axhline", lambda axes, height, **_: heights.append(height))
    draw_search(metrics, logits, space, tmp_path / "search.svg")
    assert heights == [math.log(len(space.operations) - 1)]


def test_a_search_and_its_logits_may_differ_by_an_epoch(tmp_path: Path):
    # A search that is still going on, or was killed between writing the one and the other.
    metrics, logits = _search(3, SearchSpace())
    draw_search(metrics[:2], logits, SearchSpace(), tmp_path / "search.png")
    assert _colors(tmp_path / "search.png") > 50


@pytest.mark.parametrize("path", ["a.pdf", "a", "a.PNG.txt"])
def test_other_suffixes(path: str, tmp_path: Path):
    metrics, logits = _search(1, SearchSpace())
    for draw in (
        lambda target: draw_cell(GENOTYPES["GDAS_V1"], "normal", target),
        lambda target: draw_search(metrics, logits, SearchSpace(), target),
        lambda target: draw_retraining(_retraining(1), target),
    ):
        with pytest.raises(UsageError, match="accepted are .png, .svg"):
            draw(tmp_path / path)
    assert not list(tmp_path.iterdir())


def test_nothing_to_draw(tmp_path: Path):
    space = SearchSpace()
    metrics, logits = _search(2, space)
    with pytest.raises(UsageError, match="search: there is nothing to draw yet; no epoch is done"):
        draw_search([], logits, space, tmp_path / "a.png")
    with pytest.raises(UsageError, match="retraining: there is nothing to draw yet"):
        draw_retraining([], tmp_path / "a.png")
    with pytest.raises(
        UsageError, match=r"reduction logits: found shape \[14, 8\]; .* \[epochs \+ 1, 14, 8\]"
    ):
        draw_search(
            metrics, {"normal": logits["normal"], "reduction": np.zeros((14, 8))}, space, tmp_path / "a.png"
        )
    with pytest.raises(UsageError, match="normal logits: found shape"):
        draw_search(metrics, logits, SearchSpace(nodes=3), tmp_path / "a.png")


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="a part of the path is a file"):
        draw_cell(GENOTYPES["GDAS_V1"], "normal", tmp_path / "file" / "a.png")
    assert (tmp_path / "file").read_text() == "x"


def test_colours_stay_apart_for_colour_blind_readers():
    """Distances in Oklab (Ottosson 2020), times 100, with the matrices of Machado et al. 2009."""
    first = OPERATION_SETS["gdas-12"]  # the first eight are the paper's
    # (`nor_conv` is `conv` by another name, and of its colour.)
    others = (name for name in OPERATIONS if name not in first and not name.startswith("nor_conv"))
    names = (*first, *others)
    linear = np.array([_linear(OPERATION_COLORS[name]) for name in names])
    visions = {
        "normal": np.eye(3),
        "protanopia": [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
        "deuteranopia": [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ],
        "tritanopia": [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ],
    }
    for name, matrix in visions.items():
        lab = _oklab(np.clip(linear @ np.array(matrix).T, 0.0, 1.0))
        for count, least in ((8, 10.0), (len(names), 7.5)):
            for a, b in itertools.combinations(range(count), 2):
                distance = 100 * np.linalg.norm(lab[a] - lab[b])
                assert distance > least, (name, names[a], names[b])


def test_labels_are_readable_on_their_colours():
    for name, color in OPERATION_COLORS.items():
        lighter, darker = sorted(
            (_linear(c) @ (0.2126, 0.7152, 0.0722) for c in (color, style.ink_on(color))), reverse=True
        )
        assert (lighter + 0.05) / (darker + 0.05) > 4.5, name


def _linear(color: str) -> np.ndarray:
    channels = np.array(matplotlib.colors.to_rgb(color))
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def _oklab(linear: np.ndarray) -> np.ndarray:
    cones = (
        linear
        @ np.array(
            [
                [0.4122214708, 0.5363325363, 0.0514459929],
                [0.2119034982, 0.6806995451, 0.1073969566],
                [0.0883024619, 0.2817188376, 0.6299787005],
            ]
        ).T
    )
    return (
        np.cbrt(cones)
        @ np.array(
            [
                [0.2104542553, 0.7936177850, -0.0040720468],
                [1.9779984951, -2.4285922050, 0.4505937099],
                [0.0259040371, 0.7827717662, -0.8086757660],
            ]
        ).T
    )


def test_no_global_state_of_matplotlib_is_used():
    code = (
        "import sys, gdas_tf.drawing.cells, gdas_tf.drawing.curves; print('matplotlib.pyplot' in sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "False"


@pytest.mark.parametrize("reduction", ["conv1@0/conv3@1+conv1@0", "fixed"])
def test_cells_of_one_input_that_give_their_last_node(tmp_path: Path, reduction: str):
    genotype = Genotype.from_text(
        f"inputs=1 output=last normal=conv1@0/conv3@1+conv1@0 reduction={reduction}"
    )
    for cell in ("normal", "reduction"):
        draw_cell(genotype, cell, tmp_path / f"{cell}.svg")
    parts, links = cells._searched_parts(genotype.normal, 1, genotype.given())
    assert [part.text for part in parts[:3]] == ["$c_{k{-}1}$", "$0$", "$1$"]
    assert [link.source for link in links if link.target == len(parts) - 1] == [2]
    parts, links = cells._fixed_parts(1)
    assert sum(link.target == len(parts) - 1 for link in links) == 2


def test_the_residual_block_is_drawn_in_place_of_a_reduction_cell(tmp_path: Path) -> None:
    genotype = random_genotype(SPACES.get("nasbench201"), 1)
    draw_cell(genotype, "reduction", tmp_path / "reduction.svg")
    drawn = (tmp_path / "reduction.svg").read_text()
    assert "residual block" in drawn and "avg_pool_2x2" in drawn and "conv_1x3" not in drawn
    draw_cell(dataclasses.replace(genotype, between="frc"), "reduction", tmp_path / "fixed.svg")
    assert "conv_1x3" in (tmp_path / "fixed.svg").read_text()


@pytest.mark.parametrize("accuracies", [[90.0], [90.0, None, 93.5], [None, None], list(range(40, 90))])
def test_the_true_accuracy_of_each_epoch(accuracies: list[float | None], tmp_path: Path) -> None:
    draw_truth(accuracies, 94.4, "c10_test", tmp_path / "truth.png")
    assert _colors(tmp_path / "truth.png") > 10

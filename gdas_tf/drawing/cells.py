"""Pictures: cells as in the figures of the NAS papers, and the curves of a search and of a retraining.

PNG or SVG by the suffix of the file. The pictures depend on their arguments alone, not on the user's settings
of matplotlib or on the time: the same arguments give the same file.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import matplotlib.colors
import matplotlib.path
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch, Patch, PathPatch, Polygon
from matplotlib.textpath import TextPath
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from gdas_tf.drawing import layout as cell_layout
from gdas_tf.drawing.layout import Item, Layout, Link
from gdas_tf.errors import UsageError
from gdas_tf.operations.base import OPERATIONS
from gdas_tf.spaces.base import CELL_INPUTS, SearchSpace
from gdas_tf.spaces.genotype import Cell, Genotype

_INK = "#16191d"
_MUTED = "#7b828c"
_FAINT = "#c3c8cf"
_BOX = "#eef1f5"

_STYLE = {
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "mathtext.fontset": "cm",
    "svg.hashsalt": "gdas-tf",
    "text.color": _INK,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "legend.frameon": False,
}
_CURVE_COLORS = (_INK, "#1f8fb8")
_STEPS = (1, 2, 5, 10)
_PERCENT = StrMethodFormatter("{x:g}%")
_FEW_EPOCHS = 30  # up to here each epoch gets a dot

_RESOLUTION = 200  # dots per inch of a PNG

_NODE_SIZE = 14.0
_OPERATION_SIZE = 9.5
_TITLE_SIZE = 11.0
_TITLE_HEIGHT = 26.0
_GAP = 12.0  # between the title and the note beside it


class _Part(NamedTuple):
    """A box of a cell's picture: an input, a node or the output (without a colour), or an operation."""

    text: str
    column: int
    color: str | None = None


def draw_cell(genotype: Genotype, cell: Literal["normal", "reduction"], path: str | Path) -> None:
    """Draws a cell from left to right: inputs, nodes, output, and on each edge its operation.

    Grey lines are the concatenation of the nodes to the output c_{k}.

    Args:
        genotype: the genotype; one without a reduction cell has the fixed reduction cell drawn.
        cell: which of its cells.
        path: the picture to write, .png or .svg.

    Raises:
        UsageError: the suffix is another one.
        RunError: the disk is full or read-only.

    Example:
        >>> draw_cell(GENOTYPES["GDAS_V1"], "normal", "normal.svg")
    """
    with _style(path):
        _save(_cell_figure(genotype, cell), path)


def draw_genotype(genotype: Genotype, directory: str | Path) -> list[Path]:
    """Draws both cells of a genotype as PNG and as SVG.

    Args:
        genotype: the genotype.
        directory: folder for normal.png, normal.svg, reduction.png and reduction.svg; made if need be.

    Returns:
        The paths of the pictures.

    Raises:
        RunError: the disk is full or read-only.
    """
    paths = []
    for cell in ("normal", "reduction"):
        for suffix in ("png", "svg"):
            paths.append(Path(directory) / f"{cell}.{suffix}")
            draw_cell(genotype, cell, paths[-1])
    return paths


def draw_search(
    metrics: Sequence[Mapping[str, Any]],
    logits: Mapping[str, np.ndarray],
    space: SearchSpace,
    path: str | Path,
) -> None:
    """Draws how a search went.

    Above: accuracy and loss on both halves of the training images, temperature, and entropy of the
    operations' probabilities. Below, for each searched cell: the probability of each operation, mean over the
    edges, and the share of the edges on which it is the most probable one.

    Args:
        metrics: one mapping per epoch: epoch, accuracy, loss, architecture_accuracy, architecture_loss,
            temperature, normal_entropy, reduction_entropy (nats). What is missing is left out.
        logits: `normal`, and `reduction` unless that cell is fixed, float [epochs + 1, edges, operations],
            of which the first are those before the first epoch.
        space: the search space.
        path: the picture to write, .png or .svg.

    Raises:
        UsageError: there is no epoch to draw, the logits don't fit the search space, or the suffix is
            another one.
        RunError: the disk is full or read-only.
    """
    _check_metrics(metrics, "search")
    cells = {name: np.asarray(logits[name], np.float64) for name in ("normal", "reduction") if name in logits}
    shape = (space.edge_count, len(space.operations))
    for name, values in cells.items():
        if values.ndim != 3 or values.shape[1:] != shape:
            raise UsageError(
                f"{name} logits: found shape {list(values.shape)}; the search space has "
                f"[epochs + 1, {shape[0]}, {shape[1]}]"
            )

    with _style(path):
        rows = 1 + len(cells)
        figure = Figure(figsize=(11.0, 0.9 + 2.5 * rows), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
        above, below = figure.subfigures(2, 1, height_ratios=(1, rows - 0.8))
        panels = above.subplots(1, 4)
        halves = (("weights, $D_T$", ""), ("architecture, $D_V$", "architecture_"))
        _add_curves(panels[0], metrics, {f"{key}accuracy": name for name, key in halves}, "Accuracy", 100.0)
        _add_curves(panels[1], metrics, {f"{key}loss": name for name, key in halves}, "Loss")
        _add_curves(panels[2], metrics, {"temperature": ""}, "Temperature")
        entropies = {f"{name}_entropy": f"{name} cell" for name in cells}
        _add_curves(panels[3], metrics, entropies, "Entropy of an edge (nats)")
        most = math.log(len(space.operations))
        panels[3].axhline(most, color=_FAINT, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
        panels[3].annotate(
            "all equal",
            (1.0, most),
            (0, 3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            color=_MUTED,
            fontsize=8.0,
            horizontalalignment="right",
            verticalalignment="bottom",
        )
        panels[3].set_ylim(0.0, most * 1.15)

        panels = below.subplots(len(cells), 2, squeeze=False, sharex=True, sharey=True)
        for row, (name, values) in zip(panels, cells.items(), strict=True):
            shifted = np.exp(values - values.max(axis=2, keepdims=True))
            probabilities = shifted / shifted.sum(axis=2, keepdims=True)
            best = probabilities.argmax(axis=2)[..., None] == np.arange(shape[1])
            title = f"{name.capitalize()} cell: "
            _add_shares(row[0], probabilities.mean(axis=1), space, f"{title}probability of the operations")
            _add_shares(
                row[1], best.mean(axis=1), space, f"{title}most probable operation, share of edges", "mid"
            )
        for panel in panels[-1]:
            panel.set_xlabel("epoch")
        handles = [Patch(color=OPERATIONS.get(name).color, label=name) for name in space.operations]
        below.legend(handles=handles[::-1], loc="outside right center", handlelength=1.0, handleheight=1.0)
        _save(figure, path)


def draw_retraining(metrics: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Draws how a retraining went: accuracy, loss, learning rate and probability of drop-path by epoch.

    Args:
        metrics: one mapping per epoch: epoch, accuracy, loss, learning_rate, drop_path. What is missing is
            left out.
        path: the picture to write, .png or .svg.

    Raises:
        UsageError: there is no epoch to draw, or the suffix is another one.
        RunError: the disk is full or read-only.
    """
    _check_metrics(metrics, "retraining")
    with _style(path):
        figure = Figure(figsize=(9.0, 5.0), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
        panels = figure.subplots(2, 2, sharex=True, height_ratios=(2, 1))
        _add_curves(panels[0, 0], metrics, {"accuracy": ""}, "Accuracy on the training images", 100.0)
        _add_curves(panels[0, 1], metrics, {"loss": ""}, "Loss on the training images")
        _add_curves(panels[1, 0], metrics, {"learning_rate": ""}, "Learning rate")
        _add_curves(panels[1, 1], metrics, {"drop_path": ""}, "Drop-path probability")
        for panel in panels[0]:
            panel.set_xlabel("")
        panels[1, 1].set_ylim(bottom=-0.003)  # matplotlib centres a line that is all 0
        _save(figure, path)


def _place_parts(parts: Sequence[_Part], links: Sequence[Link]) -> Layout:
    """Places the parts of a cell's picture, each as large as its text needs."""
    items = []
    for part in parts:
        if part.color is not None:
            items.append(Item(part.column, _text_width(part.text, _OPERATION_SIZE) + 14.0, 20.0))
        else:
            items.append(Item(part.column, max(_text_width(part.text, _NODE_SIZE) + 14.0, 28.0), 28.0))
    return cell_layout.place(items, links)


def _cell_figure(genotype: Genotype, cell: Literal["normal", "reduction"]) -> Figure:
    title = f"{cell.capitalize()} cell" if genotype.name is None else f"{genotype.name}, {cell} cell"
    note = ""
    if cell == "normal":
        parts, links = _searched_parts(genotype.normal)
    elif genotype.reduction is not None:
        parts, links = _searched_parts(genotype.reduction)
        note = "stride 2 on the edges from $c_{k{-}2}$ and $c_{k{-}1}$"
    else:
        parts, links = _fixed_parts()
        note = "fixed; each branch has stride 2"
    layout = _place_parts(parts, links)

    needed = _text_width(title, _TITLE_SIZE, "bold") + _GAP + _text_width(note, _OPERATION_SIZE)
    width = max(layout.width, needed + 2 * cell_layout.MARGIN)
    height = layout.height + _TITLE_HEIGHT
    figure = Figure(figsize=(width / 72, height / 72))
    axes = figure.add_axes((0, 0, 1, 1))
    left = (layout.width - width) / 2
    axes.set(xlim=(left, left + width), ylim=(0, height))
    axes.set_axis_off()
    left += cell_layout.MARGIN
    baseline = height - cell_layout.MARGIN - _TITLE_SIZE * 0.8
    axes.text(left, baseline, title, fontsize=_TITLE_SIZE, fontweight="bold")
    left += _text_width(title, _TITLE_SIZE, "bold") + _GAP
    axes.text(left, baseline, note, fontsize=_OPERATION_SIZE, color=_MUTED)
    _add_links(axes, layout, parts, links)
    for part, box in zip(parts, layout.boxes, strict=True):
        _add_box(axes, part, box)
    return figure


def _searched_parts(cell: Cell) -> tuple[list[_Part], list[Link]]:
    """Boxes and links of a cell: nodes in even columns by depth, the operations just before their nodes."""
    depths = [0, 0]
    for node in cell:
        depths.append(1 + max(depths[edge.input] for edge in node))
    parts = [_Part("$c_{k{-}2}$", 0), _Part("$c_{k{-}1}$", 0)]
    parts += [_Part(f"${i}$", 2 * depth) for i, depth in enumerate(depths[CELL_INPUTS:])]
    links = []
    for number, node in enumerate(cell, start=CELL_INPUTS):
        for edge in node:
            links += [Link(edge.input, len(parts)), Link(len(parts), number)]
            parts.append(_Part(edge.operation, 2 * depths[number] - 1, OPERATIONS.get(edge.operation).color))
    links += [Link(number, len(parts)) for number in range(CELL_INPUTS, len(depths))]
    parts.append(_Part("$c_{k}$", 2 * max(depths) + 1))
    return parts, links


def _fixed_parts() -> tuple[list[_Part], list[Link]]:
    """Boxes and links of the fixed reduction cell (Dong & Yang, CVPR 2019, figure 4)."""
    convolutions = (("conv_1x3", 1, "conv_3x3"), ("conv_3x1", 2, "conv_3x3"), ("conv_1x1", 3, "conv_1x1"))
    pooling = (("max_pool_3x3", 2, "max_pool_3x3"),)
    parts = [_Part("$c_{k{-}2}$", 0), _Part("$c_{k{-}1}$", 0)]
    links, nodes = [], []
    for branch in (convolutions, pooling):
        for source in range(CELL_INPUTS):
            last = source
            for text, column, color in branch:
                links.append(Link(last, len(parts)))
                last = len(parts)
                parts.append(_Part(text, column, OPERATIONS.get(color).color))
            links.append(Link(last, len(parts)))
            parts.append(_Part(f"${len(nodes)}$", 4))
            nodes.append(len(parts) - 1)
    links += [Link(node, len(parts)) for node in nodes]
    parts.append(_Part("$c_{k}$", 5))
    return parts, links


def _add_links(axes: Axes, layout: Layout, parts: Sequence[_Part], links: Sequence[Link]) -> None:
    for link, curve in zip(links, layout.curves, strict=True):
        source, target = parts[link.source], parts[link.target]
        color = source.color or target.color
        arrow = 0.0 if target.color else 5.0
        points = [curve.start]
        for piece in curve.pieces:
            points += piece[1:]
        points[-1] = points[-1]._replace(x=points[-1].x - arrow)
        codes = [matplotlib.path.Path.MOVETO] + [matplotlib.path.Path.CURVE4] * (len(points) - 1)
        way = matplotlib.path.Path(points, codes)
        width = 1.8 if color else 1.2
        dashed = "none" in (source.text, target.text)
        # A white seam shows which of two crossing lines is which.
        order = 2 if color else 1
        axes.add_patch(PathPatch(way, fill=False, edgecolor="white", linewidth=width + 2.6, zorder=order))
        axes.add_patch(
            PathPatch(
                way,
                fill=False,
                edgecolor=color or _FAINT,
                linewidth=width,
                linestyle=(0, (3, 2)) if dashed else "solid",
                capstyle="butt",
                zorder=order,
            )
        )
        if arrow:
            x, y = curve.end
            head = [(x, y), (x - 7.0, y + 3.2), (x - 7.0, y - 3.2)]
            axes.add_patch(Polygon(head, facecolor=color or _FAINT, edgecolor="none", zorder=order + 0.5))


def _add_box(axes: Axes, part: _Part, box: cell_layout.Box) -> None:
    size, face, edge, ink = _NODE_SIZE, _BOX, _INK, _INK
    if part.color is not None:
        size, face, edge, ink = _OPERATION_SIZE, part.color, part.color, _ink_on(part.color)
    height = box.top - box.bottom
    axes.add_patch(
        FancyBboxPatch(
            (box.left, box.bottom),
            box.right - box.left,
            height,
            boxstyle=f"round,pad=0,rounding_size={min(height, 20.0) / 2 if part.color else 6.0}",
            facecolor=face,
            edgecolor=edge,
            linewidth=1.0,
            zorder=4,
        )
    )
    axes.text(
        *box.center,
        part.text,
        fontsize=size,
        color=ink,
        horizontalalignment="center",
        verticalalignment="center_baseline" if part.color else "center",
        zorder=5,
    )


def _check_metrics(metrics: Sequence[Mapping[str, Any]], what: str) -> None:
    if not metrics:
        raise UsageError(f"{what}: there is nothing to draw yet; no epoch is done")


def _add_curves(
    axes: Axes,
    metrics: Sequence[Mapping[str, Any]],
    curves: Mapping[str, str],
    title: str,
    percent: float = 0.0,
) -> None:
    """Draws some metrics by epoch: `curves` maps their keys to the names in the legend.

    Args:
        percent: what the values are multiplied with to be percentages; 0 if they are not.
    """
    epochs = [row["epoch"] for row in metrics]
    for (key, name), color in zip(curves.items(), _CURVE_COLORS, strict=False):
        values = np.array([np.nan if row.get(key) is None else row[key] for row in metrics], dtype=np.float64)
        axes.plot(
            epochs,
            values * (percent or 1.0),
            color=color,
            label=name,
            linewidth=1.6,
            marker="o" if len(epochs) <= _FEW_EPOCHS else "",
            markersize=3.0,
            solid_capstyle="round",
        )
    axes.set(title=title, xlabel="epoch")
    axes.grid(axis="y", color="#e6e9ed", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlim(0, max(epochs) * 1.03 or 1)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=_STEPS, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=_STEPS))
    if percent:
        axes.yaxis.set_major_formatter(_PERCENT)
    if len(curves) > 1:
        axes.legend(loc="best", fontsize=8.0, handlelength=1.4)


def _add_shares(
    axes: Axes, shares: np.ndarray, space: SearchSpace, title: str, step: Literal["mid"] | None = None
) -> None:
    """Draws shares [epochs + 1, operations], which sum to 1 in each epoch, on top of each other.

    Args:
        step: "mid" draws each epoch as a bar, None joins the epochs.
    """
    epochs = np.arange(len(shares))
    colors = [OPERATIONS.get(name).color for name in space.operations]
    axes.stackplot(epochs, shares.T * 100.0, colors=colors, edgecolor="white", linewidth=0.4, step=step)
    axes.set(title=title, xlim=(0, max(len(shares) - 1, 1)), ylim=(0, 100))
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=_STEPS, integer=True))
    axes.yaxis.set_major_formatter(_PERCENT)


def _ink_on(color: str) -> str:
    """White or dark, whichever is easier to read on a colour (WCAG contrast)."""
    luminance = _luminance(color)
    return "white" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / (_luminance(_INK) + 0.05) else _INK


def _luminance(color: str) -> float:
    channels = np.asarray(matplotlib.colors.to_rgb(color))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


@functools.cache
def _text_width(text: str, size: float, weight: str = "normal") -> float:
    """Width of a text in points."""
    if not text:
        return 0.0
    with matplotlib.style.context(["default", _STYLE]):
        return float(
            TextPath((0, 0), text, size=size, prop=FontProperties(weight=weight)).get_extents().width
        )


@contextlib.contextmanager
def _style(path: str | Path) -> Iterator[None]:
    """Sets the settings of all pictures, whatever the user's are, after a check of the file's suffix."""
    if Path(path).suffix not in (".png", ".svg"):
        raise UsageError(f"picture {path}: suffix is {Path(path).suffix!r}; accepted are .png, .svg")
    with matplotlib.style.context(["default", _STYLE]):
        yield


def _save(figure: Figure, path: str | Path) -> None:
    from gdas_tf.files import atomic_path

    metadata = {"Software": None} if Path(path).suffix == ".png" else {"Date": None, "Creator": None}
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=_RESOLUTION, metadata=metadata)

"""Pictures of cells, as in the figures of the papers on architecture search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import matplotlib.path
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon

from gdas_tf.drawing import layout as cell_layout
from gdas_tf.drawing.layout import Item, Layout, Link
from gdas_tf.drawing.style import FAINT, INK, MUTED, ink_on, save, styled, text_width
from gdas_tf.operations.base import OPERATIONS
from gdas_tf.spaces.genotype import Cell, Genotype

_BOX = "#eef1f5"
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
        genotype: the genotype; of one without a reduction cell what stands in its place is drawn, the fixed
            reduction cell or a residual block.
        cell: which of its cells.
        path: the picture to write, .png or .svg.

    Raises:
        UsageError: the suffix is another one.
        RunError: the disk is full or read-only.

    Example:
        >>> draw_cell(GENOTYPES["GDAS_V1"], "normal", "normal.svg")
    """
    with styled(path):
        save(_cell_figure(genotype, cell), path)


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


def _place_parts(parts: Sequence[_Part], links: Sequence[Link]) -> Layout:
    """Places the parts of a cell's picture, each as large as its text needs."""
    items = []
    for part in parts:
        if part.color is not None:
            items.append(Item(part.column, text_width(part.text, _OPERATION_SIZE) + 14.0, 20.0))
        else:
            items.append(Item(part.column, max(text_width(part.text, _NODE_SIZE) + 14.0, 28.0), 28.0))
    return cell_layout.place(items, links)


def _cell_figure(genotype: Genotype, cell: Literal["normal", "reduction"]) -> Figure:
    title = f"{cell.capitalize()} cell" if genotype.name is None else f"{genotype.name}, {cell} cell"
    note = ""
    if cell == "normal":
        parts, links = _searched_parts(genotype.normal, genotype.inputs, genotype.given())
    elif genotype.reduction is not None:
        parts, links = _searched_parts(genotype.reduction, genotype.inputs, genotype.given(reduction=True))
        note = f"stride 2 on the edges from {' and '.join(_INPUTS[-genotype.inputs :])}"
    elif genotype.between == "residual":
        title = title.replace("eduction cell", "esidual block")
        parts, links = _residual_parts()
        note = "in place of a reduction cell; stride 2 on the edges from the input"
    else:
        parts, links = _fixed_parts(genotype.inputs)
        note = "fixed; each branch has stride 2"
    layout = _place_parts(parts, links)

    needed = text_width(title, _TITLE_SIZE, "bold") + _GAP + text_width(note, _OPERATION_SIZE)
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
    left += text_width(title, _TITLE_SIZE, "bold") + _GAP
    axes.text(left, baseline, note, fontsize=_OPERATION_SIZE, color=MUTED)
    _add_links(axes, layout, parts, links)
    for part, box in zip(parts, layout.boxes, strict=True):
        _add_box(axes, part, box)
    return figure


_INPUTS = ("$c_{k{-}2}$", "$c_{k{-}1}$")


def _input_parts(inputs: int) -> list[_Part]:
    return [_Part(name, 0) for name in _INPUTS[-inputs:]]


def _searched_parts(
    cell: Cell, inputs: int = 2, given: Sequence[int] | None = None
) -> tuple[list[_Part], list[Link]]:
    """Boxes and links of a cell: nodes in even columns by depth, the operations just before their nodes.

    Args:
        cell: the cell.
        inputs: number of its inputs.
        given: the nodes that it gives, numbered as `Edge.input`; None for all.
    """
    depths = [0] * inputs
    for node in cell:
        depths.append(1 + max(depths[edge.input] for edge in node))
    parts = _input_parts(inputs)
    parts += [_Part(f"${i}$", 2 * depth) for i, depth in enumerate(depths[inputs:])]
    links = []
    for number, node in enumerate(cell, start=inputs):
        for edge in node:
            links += [Link(edge.input, len(parts)), Link(len(parts), number)]
            parts.append(_Part(edge.operation, 2 * depths[number] - 1, OPERATIONS.get(edge.operation).color))
    given = range(inputs, len(depths)) if given is None else given
    links += [Link(number, len(parts)) for number in given]
    parts.append(_Part("$c_{k}$", 2 * max(depths) + 1))
    return parts, links


def _fixed_parts(inputs: int = 2) -> tuple[list[_Part], list[Link]]:
    """Boxes and links of the fixed reduction cell (FRC) of Dong & Yang (CVPR 2019)."""
    convolutions = (("conv_1x3", 1, "conv_3x3"), ("conv_3x1", 2, "conv_3x3"), ("conv_1x1", 3, "conv_1x1"))
    pooling = (("max_pool_3x3", 2, "max_pool_3x3"),)
    parts = _input_parts(inputs)
    links, nodes = [], []
    for branch in (convolutions, pooling):
        for source in range(inputs):
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


def _residual_parts() -> tuple[list[_Part], list[Link]]:
    """Boxes and links of the residual block of NAS-Bench-201 (Dong & Yang, ICLR 2020)."""
    branches = (
        (("conv_3x3", "conv_3x3"), ("conv_3x3", "conv_3x3")),
        (("avg_pool_2x2", "avg_pool_3x3"), ("conv_1x1", "conv_1x1")),
    )
    parts, links = [*_input_parts(1), _Part("$+$", 3)], []
    for branch in branches:
        last = 0
        for column, (text, color) in enumerate(branch, 1):
            links.append(Link(last, len(parts)))
            last = len(parts)
            parts.append(_Part(text, column, OPERATIONS.get(color).color))
        links.append(Link(last, 1))
    links.append(Link(1, len(parts)))
    parts.append(_Part("$c_{k}$", 4))
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
                edgecolor=color or FAINT,
                linewidth=width,
                linestyle=(0, (3, 2)) if dashed else "solid",
                capstyle="butt",
                zorder=order,
            )
        )
        if arrow:
            x, y = curve.end
            head = [(x, y), (x - 7.0, y + 3.2), (x - 7.0, y - 3.2)]
            axes.add_patch(Polygon(head, facecolor=color or FAINT, edgecolor="none", zorder=order + 0.5))


def _add_box(axes: Axes, part: _Part, box: cell_layout.Box) -> None:
    size, face, edge, ink = _NODE_SIZE, _BOX, INK, INK
    if part.color is not None:
        size, face, edge, ink = _OPERATION_SIZE, part.color, part.color, ink_on(part.color)
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

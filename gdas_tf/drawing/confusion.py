"""Picture of which classes are taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gdas_tf.drawing.style import INK, MUTED, save, styled
from gdas_tf.errors import UsageError

_MOST_NAMED = 30  # classes up to which each has its name, and each cell its number
_SHADES = LinearSegmentedColormap.from_list("shades", ["#ffffff", "#d5e6f0", "#1f8fb8", "#0b3a52"])
_DARK = 0.45  # share from which on a number is white
_LONGEST = 22  # characters of a name


def draw_confusion(
    confusion: Sequence[Sequence[int]], class_names: Sequence[str], title: str, path: str | Path
) -> None:
    """Draws a confusion matrix: a row for each class, shaded by the share of its images.

    Args:
        confusion: how many images of the class of a row were taken for the class of a column, [K][K].
        class_names: names of the K classes. More than 30 are numbered, and the cells have shades alone.
        title: what stands above it.
        path: the picture to write, .png or .svg.

    Raises:
        UsageError: the matrix is not one of these classes, or the suffix is another one.
        RunError: the disk is full or read-only.
    """
    counts, number = np.asarray(confusion), len(class_names)
    if counts.shape != (number, number):
        raise UsageError(f"confusion: found shape {list(counts.shape)}; there are {number} classes")
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    named = number <= _MOST_NAMED
    side = max(3.2, 0.42 * number) if named else 8.0
    with styled(path):
        figure = Figure(figsize=(side + 2.4, side + 1.2), layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(shares, cmap=_SHADES, vmin=0.0, vmax=1.0, interpolation="nearest")
        axes.spines[:].set_visible(False)
        axes.set(title=title, xlabel="taken for", ylabel="class of the image")
        if named:
            names = [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…" for name in class_names]
            axes.set_xticks(range(number), names, rotation=45, ha="right", rotation_mode="anchor")
            axes.set_yticks(range(number), names)
            axes.set_xticks(np.arange(number + 1) - 0.5, minor=True)
            axes.set_yticks(np.arange(number + 1) - 0.5, minor=True)
            axes.grid(which="minor", color="#e6e9ed", linewidth=0.8)
            for row, column in np.argwhere(counts):
                color = "white" if shares[row, column] >= _DARK else INK
                axes.text(
                    column, row, f"{counts[row, column]:,}", ha="center", va="center", color=color, fontsize=8
                )
        else:
            axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(10, integer=True))
        axes.tick_params(which="both", length=0)
        bar = figure.colorbar(image, ax=axes, shrink=0.6, format="{x:.0%}", ticks=[0, 0.25, 0.5, 0.75, 1])
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=0, labelcolor=MUTED)
        bar.set_label("share of the images of the class", color=MUTED)
        save(figure, path)

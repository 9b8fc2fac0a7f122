"""The picture of the true accuracy of what a search would have given after each epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from gdas_tf.drawing.style import FAINT, INK, MUTED, lines_behind, save, styled


def draw_truth(accuracies: Sequence[float | None], best: float, title: str, path: str | Path) -> None:
    """Draws the accuracy, by a table of all cells, of the cell that each epoch's arrays would give.

    Args:
        accuracies: in percent; the first is that of before the search, and None leaves a gap.
        best: the highest accuracy of the table, which a line marks.
        title: what the accuracy is.
        path: the picture to write, .png or .svg.

    Raises:
        UsageError: the suffix is another one.
        RunError: the disk is full or read-only.
    """
    values = [math.nan if accuracy is None else accuracy for accuracy in accuracies]
    known = [value for value in values if not math.isnan(value)]
    with styled(path):
        figure = Figure(figsize=(6.5, 3.6), layout="constrained")
        axes = figure.subplots()
        few = len(accuracies) <= 31
        axes.plot(
            range(len(values)),
            values,
            color=INK,
            linewidth=1.6,
            marker="o" if few else "",
            markersize=3.5,
            drawstyle="default" if few else "steps-post",
        )
        axes.axhline(best, color=FAINT, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
        axes.annotate(
            f"best of all cells, {best:.2f}%",
            (1.0, best),
            (0, 3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            color=MUTED,
            fontsize=8.0,
            horizontalalignment="right",
            verticalalignment="bottom",
        )
        last = len(values) - 1
        found = "" if math.isnan(values[-1]) else f", last {values[-1]:.2f}%"
        axes.set(title=title + found, xlabel="epoch", xlim=(0, max(last, 1) * 1.03))
        lowest, highest = min(known, default=best), max([*known, best])
        room = max(highest - lowest, 1.0)
        axes.set_ylim(max(0.0, lowest - 0.15 * room), min(101.0, highest + 0.15 * room))
        lines_behind(axes, "y")
        axes.xaxis.set_major_locator(MaxNLocator(8, steps=(1, 2, 5, 10), integer=True))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}%"))
        save(figure, path)

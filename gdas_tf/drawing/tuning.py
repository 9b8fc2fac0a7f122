"""Pictures of a tuning: its trials as lines through parallel axes, and how far each field mattered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from gdas_tf.drawing.style import FAINT, INK, MUTED, save, styled

_COLORS = "viridis"
_SMOOTH = 40  # points of a line between two axes


class Axis(NamedTuple):
    """One of the parallel axes.

    Args:
        title: the field.
        positions: of the value of each trial, from 0 to 1.
        ticks: texts by position.
    """

    title: str
    positions: Sequence[float]
    ticks: Mapping[float, str]


def draw_trials(
    axes: Sequence[Axis],
    scores: Sequence[float],
    lower_is_better: bool,
    show: Callable[[float], str],
    title: str,
    path: str | Path,
) -> None:
    """Draws each trial as a line through its values to its score, the best one on top and dark.

    Args:
        axes: of the fields.
        scores: of the trials, the best first.
        lower_is_better: whether the best score is the lowest; it is on top of its axis in any case.
        show: gives a score as text.
        title: of the picture.
        path: the picture to write, .png or .svg.
    """
    low, high = min(scores), max(scores)
    worst, best = (high, low) if lower_is_better else (low, high)
    spread = (best - worst) or 1.0
    goodness = [(score - worst) / spread if best != worst else 1.0 for score in scores]
    ticks = {1.0: show(best)} | ({0.5: show((best + worst) / 2), 0.0: show(worst)} if best != worst else {})
    every = [*axes, Axis("score", goodness, ticks)]
    with styled(path):
        figure = Figure(figsize=(1.2 + 1.45 * len(every), 3.9), layout="constrained")
        plot = figure.subplots()
        colors = matplotlib.colormaps[_COLORS]
        # From the worst to the best, so that the best lie above.
        for number in reversed(range(len(scores))):
            x, y = _line([axis.positions[number] for axis in every])
            first = number == 0
            plot.plot(
                x,
                y,
                color=INK if first else colors(0.92 - 0.82 * goodness[number]),
                linewidth=2.0 if first else 1.1,
                alpha=1.0 if first else 0.75,
            )
        for at, axis in enumerate(every):
            plot.axvline(at, color=MUTED, linewidth=0.9, zorder=3)
            for position, text in axis.ticks.items():
                plot.annotate(
                    text,
                    (at, position),
                    xytext=(4, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=7.5,
                    color=INK,
                    zorder=4,
                    bbox={
                        "boxstyle": "round,pad=0.12",
                        "facecolor": "white",
                        "edgecolor": "none",
                        "alpha": 0.8,
                    },
                )
        plot.set_xticks(
            range(len(every)), [axis.title.replace(".", ".\n", 1) for axis in every], fontsize=8.0
        )
        plot.set_yticks([])
        plot.set_xlim(-0.15, len(every) - 0.5)
        plot.set_ylim(-0.06, 1.06)
        plot.tick_params(length=0)
        for spine in plot.spines.values():
            spine.set_visible(False)
        plot.set_title(f"{title}; the dark line is the best")
        save(figure, path)


def draw_importance(fields: Mapping[str, Mapping[str, float]], title: str, path: str | Path) -> None:
    """Draws the importance of each field as a bar.

    Args:
        fields: of each `mean` and `deviation`, the most important first.
        title: of the picture.
        path: the picture to write, .png or .svg.
    """
    with styled(path):
        figure = Figure(figsize=(7.2, 0.9 + 0.38 * len(fields)), layout="constrained")
        plot = figure.subplots()
        rows = np.arange(len(fields))
        means = [about["mean"] for about in fields.values()]
        deviations = [about["deviation"] for about in fields.values()]
        plot.barh(rows, means, xerr=deviations, color="#0072b2", ecolor=INK, height=0.6, capsize=2.5)
        plot.axvline(0.0, color=FAINT, linewidth=0.8)
        plot.set_yticks(rows, list(fields))
        plot.invert_yaxis()
        plot.set_xlabel(
            "loss of explained variance where the field's values are mixed up; one standard deviation"
        )
        plot.set_title(title)
        save(figure, path)


def _line(positions: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """A line through positions on axes 0, 1, …, level at each, so that lines can be followed."""
    part = np.linspace(0.0, 1.0, _SMOOTH)
    ease = part * part * (3.0 - 2.0 * part)
    x = [at + part for at in range(len(positions) - 1)]
    y = [one + (other - one) * ease for one, other in zip(positions, positions[1:], strict=False)]
    return np.concatenate(x), np.concatenate(y)

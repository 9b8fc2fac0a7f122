"""Pictures of a study: its runs as points, its incumbents, what its searches prefer through time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from gdas_tf.drawing.style import FAINT, INK, MUTED, lines_behind, save, styled
from gdas_tf.operations.base import OPERATIONS
from gdas_tf.spaces.base import SearchSpace

_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7a5195", "#4c4c4c")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
_PERCENT = FuncFormatter(lambda value, _: f"{value:g} %")


def draw_samples(samples: Mapping[str, Sequence[float]], path: str | Path) -> None:
    """Draws every run of every arm as a point, with mean and 95 % interval of the mean.

    Args:
        samples: accuracies in % by arm.
        path: the picture to write, .png or .svg.
    """
    from scipy import stats

    with styled(path):
        figure = Figure(figsize=(7.2, 0.8 + 0.55 * len(samples)), layout="constrained")
        axes = figure.subplots()
        for row, values in enumerate(samples.values()):
            x = np.sort(np.asarray(values, np.float64))
            # Points of nearly one value stand beside each other.
            offsets = np.array([0.0, 0.13, -0.13])[np.arange(len(x)) % 3]
            axes.plot(x, row + offsets, linestyle="", **_style(row), markersize=5.0, alpha=0.75)
            half = stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)) if len(x) > 1 else 0.0
            axes.errorbar(
                x.mean(),
                row + 0.32,
                xerr=half,
                color=INK,
                marker="|",
                markersize=9.0,
                capsize=3.0,
                linewidth=1.3,
            )
        axes.set_yticks(range(len(samples)), list(samples))
        axes.set_ylim(len(samples) - 0.35, -0.5)
        axes.xaxis.set_major_formatter(_PERCENT)
        lines_behind(axes, "x")
        axes.set_xlabel("test accuracy; below the points mean and 95 % interval")
        save(figure, path)


def draw_sizes(runs: Sequence[Mapping[str, Any]], arms: Sequence[str], path: str | Path) -> None:
    """Draws every run as a point of accuracy against parameters.

    Args:
        runs: each with `arm`, `parameters` and `accuracy` in %.
        arms: the arms, in their order.
        path: the picture to write, .png or .svg.
    """
    with styled(path):
        figure = Figure(figsize=(7.2, 3.8), layout="constrained")
        axes = figure.subplots()
        for number, arm in enumerate(arms):
            chosen = [run for run in runs if run["arm"] == arm]
            axes.plot(
                [run["parameters"] for run in chosen],
                [run["accuracy"] for run in chosen],
                linestyle="",
                label=arm,
                markersize=6.0,
                alpha=0.8,
                **_style(number),
            )
        axes.xaxis.set_major_formatter(FuncFormatter(_count))
        axes.xaxis.set_major_locator(MaxNLocator(6))
        _finish(axes, "parameters", "test accuracy")
        figure.legend(loc="outside right upper", fontsize=8.5)
        save(figure, path)


def draw_repeats(repeats: Mapping[str, Sequence[Sequence[float]]], path: str | Path) -> None:
    """Draws each cell that was trained several times as a point: its first training, and the others.

    Points near the diagonal mean that the cell decides; a round cloud means that the seed does.

    Args:
        repeats: by arm, of each cell the accuracies in % of its trainings.
        path: the picture to write, .png or .svg.
    """
    with styled(path):
        figure = Figure(figsize=(4.6, 4.2), layout="constrained")
        axes = figure.subplots()
        for number, (arm, cells) in enumerate(repeats.items()):
            for repeat in range(1, len(cells[0])):
                axes.plot(
                    [accuracies[0] for accuracies in cells],
                    [accuracies[repeat] for accuracies in cells],
                    linestyle="",
                    label=arm if repeat == 1 else None,
                    markersize=6.0,
                    alpha=0.8,
                    **_style(number),
                )
        everything = np.concatenate([np.ravel(cells) for cells in repeats.values()])
        margin = 0.05 * max(np.ptp(everything), 1e-3)
        ends = everything.min() - margin, everything.max() + margin
        axes.plot(ends, ends, color=FAINT, linewidth=1.2, zorder=0)
        axes.set(xlim=ends, ylim=ends, aspect="equal")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(_PERCENT)
        _finish(axes, "test accuracy of the first training", "of the same cell, trained again")
        if len(repeats) > 1:
            figure.legend(loc="outside right upper", fontsize=8.5)
        save(figure, path)


def draw_incumbents(curves: Mapping[str, Sequence[tuple[float, float]]], path: str | Path) -> None:
    """Draws the expected test accuracy of the incumbent against the compute that it took.

    Args:
        curves: by arm (seconds, accuracy in %) after 1, 2, … runs.
        path: the picture to write, .png or .svg.
    """
    with styled(path):
        figure = Figure(figsize=(7.2, 3.8), layout="constrained")
        axes = figure.subplots()
        for number, (arm, curve) in enumerate(curves.items()):
            style = _style(number)
            seconds, accuracies = zip(*curve, strict=True)
            axes.plot(
                np.array(seconds) / 60.0,
                accuracies,
                label=arm,
                linewidth=1.5,
                drawstyle="steps-post",
                markersize=5.0,
                **style,
            )
        axes.set_xlim(left=0.0)
        _finish(axes, "minutes of search and training", "expected test accuracy of the incumbent")
        figure.legend(loc="outside right upper", fontsize=8.5)
        save(figure, path)


def draw_preferences(
    histories: Mapping[str, Mapping[str, np.ndarray]], space: SearchSpace, path: str | Path
) -> None:
    """Draws which operation is the most probable one on an edge, through the epochs of the searches.

    Args:
        histories: by arm and kind of cell, logits of all seeds, float [seeds, epochs + 1, E, K].
        space: the search space.
        path: the picture to write, .png or .svg.
    """
    kinds = [kind for kind in ("normal", "reduction") if any(kind in each for each in histories.values())]
    colors = [OPERATIONS.get(name).color for name in space.operations]
    with styled(path):
        figure = Figure(figsize=(1.2 + 3.9 * len(kinds), 0.4 + 2.0 * len(histories)), layout="constrained")
        panels = figure.subplots(len(histories), len(kinds), squeeze=False, sharey=True)
        for row, (arm, cells) in zip(panels, histories.items(), strict=True):
            for axes, kind in zip(row, kinds, strict=True):
                if kind not in cells:
                    axes.set_axis_off()
                    continue
                best = np.asarray(cells[kind]).argmax(-1)[..., None] == np.arange(len(space.operations))
                shares = best.mean(axis=(0, 2))
                axes.stackplot(
                    np.arange(len(shares)), shares.T * 100.0, colors=colors, edgecolor="white", linewidth=0.4
                )
                axes.set(title=f"{arm}: {kind} cell", xlim=(0, max(len(shares) - 1, 1)), ylim=(0, 100))
                axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
                axes.yaxis.set_major_formatter(_PERCENT)
        for axes in panels[-1]:
            axes.set_xlabel("epoch")
        handles = [
            Patch(color=color, label=name) for name, color in zip(space.operations, colors, strict=True)
        ]
        figure.legend(handles=handles[::-1], loc="outside right upper", handlelength=1.0, fontsize=8.5)
        save(figure, path)


def draw_agreement(rows: Sequence[tuple[str, float, float]], path: str | Path) -> None:
    """Draws how far the genotypes of several seeds agree, and what chance gives.

    Args:
        rows: name, share, share by chance; shares from 0 to 1.
        path: the picture to write, .png or .svg.
    """
    with styled(path):
        figure = Figure(figsize=(7.2, 0.9 + 0.36 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for number, (_, share, chance) in enumerate(rows):
            axes.barh(number, 100.0 * share, height=0.6, color=_COLORS[0])
            axes.plot([100.0 * chance] * 2, [number - 0.42, number + 0.42], color=_COLORS[1], linewidth=2.2)
        axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(0, 100)
        axes.xaxis.set_major_formatter(_PERCENT)
        lines_behind(axes, "x")
        axes.set_xlabel("edges that two seeds have in common, with the same operation; orange: by chance")
        save(figure, path)


def _style(number: int) -> dict[str, str]:
    return {"color": _COLORS[number % len(_COLORS)], "marker": _MARKERS[number % len(_MARKERS)]}


def _count(value: float, _: int) -> str:
    for size, unit in ((1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:g}"


def _finish(axes: Any, x: str, y: str) -> None:
    axes.set(xlabel=x, ylabel=y)
    axes.yaxis.set_major_formatter(_PERCENT)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    lines_behind(axes)
    axes.tick_params(color=FAINT)
    axes.spines[["left", "bottom"]].set_color(MUTED)

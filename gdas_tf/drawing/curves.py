"""Pictures of the curves of a search and of a retraining."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from gdas_tf.drawing.style import FAINT, INK, MUTED, lines_behind, save, styled
from gdas_tf.errors import UsageError
from gdas_tf.operations.base import OPERATIONS
from gdas_tf.spaces.base import SearchSpace

_CURVE_COLORS = (INK, "#1f8fb8", "#c8682b", "#5f8f3a", "#8b62a8", "#b8901f", MUTED)
_STEPS = (1, 2, 5, 10)
_PERCENT = StrMethodFormatter("{x:g}%")
_FEW_EPOCHS = 30  # up to here each epoch gets a dot
_EXCLUDED = (
    -1e8
)  # a logit below it is of an operation that takes no part (gdas_tf.strategies.logits.EXCLUDED)


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
            temperature, normal_entropy, reduction_entropy (nats), and normal_edges_entropy,
            reduction_edges_entropy of the inputs of a node. What is missing is left out.
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

    with styled(path):
        rows = 1 + len(cells)
        figure = Figure(figsize=(11.0, 0.9 + 2.5 * rows), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
        above, below = figure.subfigures(2, 1, height_ratios=(1, rows - 0.8))
        tempered = any("temperature" in row for row in metrics)
        *panels, last = above.subplots(1, 4 if tempered else 3)
        halves = (("weights, $D_T$", ""), ("architecture, $D_V$", "architecture_"))
        _add_curves(panels[0], metrics, {f"{key}accuracy": name for name, key in halves}, "Accuracy", 100.0)
        _add_curves(panels[1], metrics, {f"{key}loss": name for name, key in halves}, "Loss")
        if tempered:
            _add_curves(panels[2], metrics, {"temperature": ""}, "Temperature")
        entropies = {f"{name}_entropy": f"{name} cell" for name in cells}
        inputs = {f"{name}_edges_entropy": f"inputs, {name} cell" for name in cells}
        entropies |= {key: name for key, name in inputs.items() if any(key in row for row in metrics)}
        _add_curves(last, metrics, entropies, "Entropy of an edge (nats)")
        # What is excluded has no probability at all.
        most = math.log(max(int((values[-1] > _EXCLUDED).any(0).sum()) for values in cells.values()))
        last.axhline(most, color=FAINT, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
        last.annotate(
            "all equal",
            (1.0, most),
            (0, 3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            color=MUTED,
            fontsize=8.0,
            horizontalalignment="right",
            verticalalignment="bottom",
        )
        last.set_ylim(0.0, most * 1.15 or 1.0)

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
        save(figure, path)


def draw_progress(
    metrics: Sequence[Mapping[str, Any]],
    candidates: Sequence[Mapping[str, Any]],
    titles: Mapping[str, str],
    path: str | Path,
    rounds: str = "epoch",
) -> bool:
    """Draws how a search went that has no logits: all its metrics, and the losses of its candidates.

    Accuracies share one panel and losses another; other metrics share one with those of the same title.

    Args:
        metrics: one mapping per epoch or round: epoch, and numbers by name. What is missing is left out.
        candidates: one mapping per candidate in their order, with its `loss`, None where it has none.
        titles: what metrics are called, with their unit; those that are missing are called by their name.
        path: the picture to write, .png or .svg.
        rounds: what the lines of the metrics are, "epoch" or "round".

    Returns:
        Whether there was anything to draw. Without, no picture is written.

    Raises:
        UsageError: the suffix is another one.
        RunError: the disk is full or read-only.
    """
    panels = _panels(metrics, titles)
    losses = [math.nan if line.get("loss") is None else line["loss"] for line in candidates]
    count = len(panels) + bool(losses)
    if not count:
        return False
    columns = min(count, 3)
    with styled(path):
        rows = -(-count // columns)
        figure = Figure(figsize=(max(4.0, 3.7 * columns), 0.3 + 2.7 * rows), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
        axes = figure.subplots(rows, columns, squeeze=False).flatten()
        for panel, (title, curves) in zip(axes, panels.items(), strict=False):
            percent = 100.0 if title == "Accuracy" else 0.0
            _add_curves(panel, metrics, curves, title, percent, rounds)
        if losses:
            _add_candidates(axes[len(panels)], losses)
        for panel in axes[count:]:
            panel.set_axis_off()
        save(figure, path)
    return True


def _panels(metrics: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The curves of each panel, names by keys of the metrics, by the panel's title."""
    keys = dict.fromkeys(
        key for line in metrics for key, value in line.items() if isinstance(value, float | int)
    )
    panels: dict[str, dict[str, str]] = {}
    for key in keys:
        if key in ("epoch", "seconds"):
            continue
        words = key.replace("_", " ")
        called = titles.get(key, words[:1].upper() + words[1:])
        title = next(
            (word.capitalize() for word in ("accuracy", "loss") if key.split("_")[-1] == word), called
        )
        name = {"loss": "weights, $D_T$", "accuracy": "weights, $D_T$"}.get(key)
        if name is None:
            name = {"architecture": "samples, $D_V$"}.get(key.rpartition("_")[0])
        panels.setdefault(title, {})[key] = name or (called if key in titles and title != called else words)
    return panels


def _add_candidates(axes: Axes, losses: Sequence[float]) -> None:
    """Draws the loss of each candidate in their order, and the smallest one so far."""
    numbers = np.arange(1, len(losses) + 1)
    best = np.fmin.accumulate(np.asarray(losses, np.float64))
    axes.plot(numbers, losses, ".", color=FAINT, markersize=4.0, label="each candidate")
    axes.plot(numbers, best, color=INK, linewidth=1.6, drawstyle="steps-post", label="the best so far")
    axes.set(title="Loss of the candidates", xlabel="candidate")
    lines_behind(axes, "y")
    axes.set_xlim(0, len(losses) + 1)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=_STEPS, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=_STEPS))
    axes.legend(loc="best", fontsize=8.0, handlelength=1.4)


def draw_retraining(metrics: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Draws how a retraining went: accuracy, loss, learning rate and probability of drop-path by epoch.

    Args:
        metrics: one mapping per epoch: epoch, accuracy, loss, learning_rate, drop_path, and val_accuracy and
            val_loss where there was a validation part. What is missing is left out.
        path: the picture to write, .png or .svg.

    Raises:
        UsageError: there is no epoch to draw, or the suffix is another one.
        RunError: the disk is full or read-only.
    """
    _check_metrics(metrics, "retraining")
    with styled(path):
        figure = Figure(figsize=(9.0, 5.0), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
        panels = figure.subplots(2, 2, sharex=True, height_ratios=(2, 1))
        for panel, key, title, percent in (
            (panels[0, 0], "accuracy", "Accuracy", 100.0),
            (panels[0, 1], "loss", "Loss", 0.0),
        ):
            if any(f"val_{key}" in line for line in metrics):
                curves = {key: "training images", f"val_{key}": "validation part"}
                _add_curves(panel, metrics, curves, title, percent)
            else:
                _add_curves(panel, metrics, {key: ""}, f"{title} on the training images", percent)
        _add_curves(panels[1, 0], metrics, {"learning_rate": ""}, "Learning rate")
        _add_curves(panels[1, 1], metrics, {"drop_path": ""}, "Drop-path probability")
        for panel in panels[0]:
            panel.set_xlabel("")
        panels[1, 1].set_ylim(bottom=-0.003)  # matplotlib centres a line that is all 0
        save(figure, path)


def _check_metrics(metrics: Sequence[Mapping[str, Any]], what: str) -> None:
    if not metrics:
        raise UsageError(f"{what}: there is nothing to draw yet; no epoch is done")


def _add_curves(
    axes: Axes,
    metrics: Sequence[Mapping[str, Any]],
    curves: Mapping[str, str],
    title: str,
    percent: float = 0.0,
    rounds: str = "epoch",
) -> None:
    """Draws some metrics by epoch: `curves` maps their keys to the names in the legend.

    Args:
        percent: what the values are multiplied with to be percentages; 0 if they are not.
        rounds: what the lines of the metrics are.
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
            # A single value, as of the last epoch, has no line.
            marker="o" if len(epochs) <= _FEW_EPOCHS or np.isfinite(values).sum() == 1 else "",
            markersize=3.0,
            solid_capstyle="round",
        )
    axes.set(title=title, xlabel=rounds)
    lines_behind(axes, "y")
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

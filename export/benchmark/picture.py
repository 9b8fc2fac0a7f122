"""The result of a benchmark as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gdas_tf.files import atomic_path


def draw_benchmark(result: dict[str, Any], path: str | Path) -> None:
    """Draws a result: accuracy against latency if several files have one, else the latency; and throughput.

    Args:
        result: of `benchmark_models`.
        path: picture to write, PNG or SVG by its suffix.

    Raises:
        RunError: the disk is full or read-only.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    accuracies = {item["file"]: item.get("accuracy") for item in result["files"]}
    series = _series(result["measurements"])
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    try:
        # One file has one accuracy: a picture of a single dot.
        if sum(value is not None for value in accuracies.values()) > 1:
            _draw_accuracy(left, series, accuracies)
        else:
            _draw_latency(left, series)
        for label, items in series.items():
            sizes = [item["batch_size"] for item in items]
            speeds = np.array([item["images_per_second"] for item in items])
            around = [
                item["images_per_second_interval"] or (speed, speed)
                for item, speed in zip(items, speeds, strict=True)
            ]
            right.errorbar(
                sizes, speeds, np.abs(np.array(around).T - speeds), marker="o", capsize=3, label=label
            )
        right.set(xlabel="batch size", ylabel="images per second", title="throughput", ylim=(0, None))
        right.set_xscale("log", base=2)
        right.set_xticks(sizes, sizes)
        for axes in (left, right):
            axes.grid(alpha=0.3)
            axes.legend(fontsize=8)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=150)
    finally:
        pyplot.close(figure)


def _series(measurements: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Returns the measurements of each curve by its label, which names only what tells the curves apart."""
    shown = [key for key in ("provider", "threads") if len({item[key] for item in measurements}) > 1]
    series: dict[str, list[dict[str, Any]]] = {}
    for item in measurements:
        words = {"provider": item["provider"].removesuffix("ExecutionProvider")}
        words["threads"] = f"{item['threads'] or 'all'} threads"
        label = ", ".join([item["file"], *(words[key] for key in shown)])
        series.setdefault(label, []).append(item)
    return series


def _draw_accuracy(
    axes: Any, series: dict[str, list[dict[str, Any]]], accuracies: dict[str, float | None]
) -> None:
    for label, items in series.items():
        item, accuracy = items[0], accuracies[items[0]["file"]]
        if accuracy is None:
            continue
        middle = item["p50_ms"]
        low, high = item["p50_interval_ms"] or (middle, middle)
        axes.errorbar(
            [middle],
            [100 * accuracy],
            xerr=[[max(middle - low, 0)], [max(high - middle, 0)]],
            marker="o",
            capsize=3,
            label=label,
        )
    size = next(iter(series.values()))[0]["batch_size"]
    axes.set(
        xlabel=f"latency at batch size {size}, ms (p50)",
        ylabel="accuracy, %",
        title="accuracy against latency",
    )
    axes.margins(x=0.2, y=0.3)
    axes.set_xlim(left=0)
    axes.set_ylim(top=min(axes.get_ylim()[1], 100.5))


def _draw_latency(axes: Any, series: dict[str, list[dict[str, Any]]]) -> None:
    for label, items in series.items():
        sizes = [item["batch_size"] for item in items]
        line = axes.plot(sizes, [item["p50_ms"] for item in items], marker="o", label=f"{label}: p50")[0]
        bounds = [[item[key] for item in items] for key in ("p50_ms", "p99_ms")]
        axes.fill_between(sizes, *bounds, alpha=0.2, color=line.get_color(), label="to p99")
    axes.set(xlabel="batch size", ylabel="ms", title="latency of a batch")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sizes, sizes)

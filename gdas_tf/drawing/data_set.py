"""Picture of a data set: an image of each class, how many there are, and their sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter
from PIL import Image

from gdas_tf.drawing.style import FAINT, MUTED, lines_behind, save, styled

_PARTS = {"train": ("training images", "#1f8fb8"), "test": ("test images", "#c8682b")}
_MOST = 40  # classes that are drawn; of more, the largest and the smallest
_LONGEST = 24  # characters of a name
_WIDE = 8  # times the shortest side that the longest is, from which on sides are drawn logarithmically
_POINTS = 25  # longer side of a small image
_DOTS = 96  # to which it is made smaller


def draw_data_set(
    class_names: Sequence[str],
    counts: Mapping[str, Sequence[int]],
    sizes: Mapping[tuple[int, int], int],
    samples: Mapping[int, np.ndarray],
    title: str,
    path: str | Path,
) -> None:
    """Draws the classes from the largest to the smallest, each with an image of it, and the sizes of images.

    Args:
        class_names: a name per label.
        counts: of `train`, and perhaps `test`, the number of images of each class.
        sizes: how many images there are of each (height, width).
        samples: an image of a class, uint8 [h, w, 1 or 3], by label.
        title: what stands above it.
        path: the picture to write, .png or .svg.

    Raises:
        UsageError: the suffix is another one.
        RunError: the disk is full or read-only.
    """
    ranked = sorted(range(len(class_names)), key=lambda label: -counts["train"][label])
    shown = ranked if len(ranked) <= _MOST else [*ranked[: _MOST // 2], *ranked[-_MOST // 2 :]]
    varied = len(sizes) > 1
    with styled(path):
        height = 1.3 + 0.42 * len(shown)
        figure = Figure(figsize=(11.0 if varied else 8.0, max(height, 3.2)), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        panels = figure.subplots(1, 2 if varied else 1, squeeze=False, width_ratios=(3, 2)[: 1 + varied])[0]
        _add_classes(panels[0], class_names, counts, samples, shown, len(ranked))
        if varied:
            _add_sizes(panels[1], sizes)
        save(figure, path)


def _add_classes(
    axes: Axes,
    class_names: Sequence[str],
    counts: Mapping[str, Sequence[int]],
    samples: Mapping[int, np.ndarray],
    shown: Sequence[int],
    total: int,
) -> None:
    names = [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…" for name in class_names]
    rows = np.arange(len(shown))
    thickness = 0.7 / len(counts)
    for number, (part, values) in enumerate(counts.items()):
        label, color = _PARTS[part]
        lengths = [values[row] for row in shown]
        places = rows + (number - (len(counts) - 1) / 2) * thickness
        bars = axes.barh(places, lengths, thickness * 0.92, color=color, label=label)
        axes.bar_label(bars, [f"{length:,}" for length in lengths], padding=3, color=MUTED, fontsize=7)
    axes.set_yticks(rows, [names[row] for row in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0, pad=34 if samples else 4)
    axes.margins(x=0.1)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    lines_behind(axes, "x")
    kept = f", the {len(shown) // 2} largest and smallest of {total}" if len(shown) < total else ""
    axes.set(title=f"Images of each class{kept}", xlabel="images")
    if len(counts) > 1:
        axes.legend(loc="lower right", fontsize=8.0)
    for place, label in enumerate(shown):
        if label in samples:
            axes.add_artist(_small(samples[label], place))


def _small(pixels: np.ndarray, place: int) -> AnnotationBbox:
    """An image left of a bar, as high as its row or as wide."""
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
    picture.thumbnail((_DOTS, _DOTS))
    box = OffsetImage(np.asarray(picture), zoom=_POINTS / max(picture.size))
    where = ("axes fraction", "data")
    return AnnotationBbox(
        box, (0, place), (-18, 0), xycoords=where, boxcoords="offset points", frameon=False, pad=0
    )


def _add_sizes(axes: Axes, sizes: Mapping[tuple[int, int], int]) -> None:
    """Draws width and height of images, each size as a dot whose area grows with the number of images."""
    found = np.array([(width, height, count) for (height, width), count in sizes.items()], np.float64)
    widths, heights, numbers = found.T
    axes.scatter(
        widths, heights, 12 + 180 * numbers / numbers.max(), color="#1f8fb8", alpha=0.45, linewidths=0
    )
    least, most = found[:, :2].min(), found[:, :2].max()
    if most > _WIDE * least:
        axes.set(xscale="log", yscale="log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            axis.set_minor_locator(NullLocator())
    axes.plot([least, most], [least, most], color=FAINT, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
    axes.annotate(
        "square",
        (most, most),
        (-8, 0),
        textcoords="offset points",
        color=MUTED,
        fontsize=8.0,
        horizontalalignment="right",
    )
    axes.set(title=f"Sizes: {len(sizes):,} different", xlabel="width (pixels)", ylabel="height (pixels)")
    lines_behind(axes)

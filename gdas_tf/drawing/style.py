"""What all pictures share: colours, type, the widths of texts, and how a picture becomes a file.

PNG or SVG by the suffix of the file. The pictures depend on their arguments alone, not on the user's settings
of matplotlib or on the time: the same arguments give the same file.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import matplotlib.colors
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from gdas_tf.errors import UsageError
from gdas_tf.files import atomic_path

INK = "#16191d"
MUTED = "#7b828c"
FAINT = "#c3c8cf"

STYLE = {
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "mathtext.fontset": "cm",
    "svg.hashsalt": "gdas-tf",
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
}

RESOLUTION = 200
"""Dots per inch of a PNG."""


@contextlib.contextmanager
def styled(path: str | Path) -> Iterator[None]:
    """Gives a block the settings of all pictures in place of the user's settings of matplotlib.

    Args:
        path: the picture that is to be written.

    Raises:
        UsageError: its suffix is neither .png nor .svg.
    """
    if Path(path).suffix not in (".png", ".svg"):
        raise UsageError(f"picture {path}: suffix is {Path(path).suffix!r}; accepted are .png, .svg")
    with matplotlib.style.context(["default", STYLE]):
        yield


def save(figure: Figure, path: str | Path) -> None:
    """Writes a figure to a file, without the date and the programs that made it.

    Raises:
        RunError: the disk is full or read-only.
    """
    metadata = {"Software": None} if Path(path).suffix == ".png" else {"Date": None, "Creator": None}
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=RESOLUTION, metadata=metadata)


def lines_behind(axes: Axes, axis: Literal["both", "x", "y"] = "both") -> None:
    """Draws faint lines at the marks of an axis, behind all else."""
    axes.grid(axis=axis, color="#e6e9ed", linewidth=0.8)
    axes.set_axisbelow(True)


def ink_on(color: str) -> str:
    """Returns the colour of a text on a colour: white or dark, whichever has more contrast (WCAG)."""
    luminance = _luminance(color)
    return "white" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / (_luminance(INK) + 0.05) else INK


def _luminance(color: str) -> float:
    channels = np.asarray(matplotlib.colors.to_rgb(color))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


@functools.cache
def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Returns the width of a text in points.

    Args:
        text: the text, in which matplotlib's formulas may stand.
        size: the size of the type in points.
        weight: "normal" or "bold".
    """
    if not text:
        return 0.0
    with matplotlib.style.context(["default", STYLE]):
        return float(
            TextPath((0, 0), text, size=size, prop=FontProperties(weight=weight)).get_extents().width
        )

"""A picture of a race: the loss of each candidate in each rung, and who won."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdas_tf.drawing.style import INK, lines_behind, save, styled
from gdas_tf.errors import UsageError

_LEADER = "#1f8fb8"
_RANDOM = "#d0821f"


def draw_race(lines: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Draws the losses of the candidates, the rungs beside each other; a line joins those of one candidate.

    Args:
        lines: one mapping per candidate and rung, as a race writes them to `search/candidates.jsonl`: round,
            epochs, candidate, random, and loss (nats; None of one that failed).
        path: the picture to write, .png or .svg.

    Raises:
        UsageError: no candidate has a loss, or the suffix is another one.
        RunError: the disk is full or read-only.
    """
    if all(line["loss"] is None for line in lines):
        raise UsageError("race: there is nothing to draw yet; no candidate has a loss")
    with styled(path):
        figure = Figure(figsize=(9.0, 3.6), layout="constrained")
        axes = figure.subplots()
        lines_behind(axes, "y")
        _add_rungs(axes, lines)
        axes.legend(loc="best", fontsize=8.0)
        save(figure, path)


def _add_rungs(axes: Axes, lines: Sequence[Mapping[str, Any]]) -> None:
    rounds = sorted({line["round"] for line in lines})
    of_candidate: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        of_candidate.setdefault(line["candidate"], []).append(line)
    last = [line for line in lines if line["round"] == rounds[-1]]
    winner = min(last, key=lambda line: _number(line["loss"], math.inf))["candidate"]
    labelled: set[str] = set()
    for name, own in of_candidate.items():
        random = own[0].get("random", False)
        kind = "the winner" if name == winner else "a random cell" if random else "another candidate"
        color = _LEADER if name == winner else _RANDOM if random else INK
        axes.plot(
            [line["round"] for line in own],
            [_number(line["loss"]) for line in own],
            color=color,
            marker="o",
            markersize=4.0,
            linewidth=1.8 if name == winner else 0.9,
            alpha=1.0 if name == winner else 0.7,
            zorder=3 if name == winner else 2,
            label=None if kind in labelled else kind,
        )
        labelled.add(kind)
        if not random or name == winner:
            axes.annotate(
                name,
                (own[-1]["round"], _number(own[-1]["loss"], 0.0)),
                (5, 0),
                textcoords="offset points",
                fontsize=7.5,
                color=color,
                verticalalignment="center",
            )
    epochs = {line["round"]: line["epochs"] for line in lines}
    axes.set_xticks(rounds, [f"{epochs[number]} epoch{'s' * (epochs[number] > 1)}" for number in rounds])
    axes.set_xlim(rounds[0] - 0.2, rounds[-1] + 0.6)
    axes.set(title="Loss of the candidates on $D_V$ (nats), rung by rung")


def _number(value: Any, otherwise: float = math.nan) -> float:
    return otherwise if value is None else float(value)

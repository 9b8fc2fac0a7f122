"""A picture of the candidates that a search compared: the loss of each, and who led."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gdas_tf.drawing.style import INK, MUTED, save, styled
from gdas_tf.errors import UsageError

_LEADER = "#1f8fb8"
_RANDOM = "#d0821f"


def draw_candidates(lines: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Draws the loss of every candidate in the order in which they were judged, and the smallest so far.

    The rungs of a race are beside each other, and a line joins what one candidate had in each.

    Args:
        lines: one mapping per candidate, as `search/candidates.jsonl` has them: loss (nats; None of one that
            failed), and of a race round, epochs, candidate and random.
        path: the picture to write, .png or .svg.

    Raises:
        UsageError: no candidate has a loss, or the suffix is another one.
        RunError: the disk is full or read-only.
    """
    losses = [_number(line.get("loss")) for line in lines]
    if not any(map(math.isfinite, losses)):
        raise UsageError("candidates: there is nothing to draw yet; no candidate has a loss")
    with styled(path):
        figure = Figure(figsize=(9.0, 3.6), layout="constrained")
        axes = figure.subplots()
        axes.grid(axis="y", color="#e6e9ed", linewidth=0.8)
        axes.set_axisbelow(True)
        if all("round" in line for line in lines):
            _add_rungs(axes, lines)
        else:
            _add_order(axes, losses)
        axes.legend(loc="best", fontsize=8.0)
        save(figure, path)


def _add_order(axes: Axes, losses: Sequence[float]) -> None:
    numbers = np.arange(1, len(losses) + 1)
    axes.plot(numbers, losses, ".", color=MUTED, markersize=4.0, label="a candidate")
    best = np.fmin.accumulate(np.array(losses))
    axes.step(numbers, best, where="post", color=_LEADER, linewidth=1.6, label="the best so far")
    axes.set(title="Loss of the candidates on $D_V$ (nats)", xlabel="candidate, in order")
    _leave_out_extremes(axes, losses)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))


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


def _leave_out_extremes(axes: Axes, losses: Sequence[float]) -> None:
    """Lets single candidates that learned nothing not press all others together."""
    values = np.array([loss for loss in losses if math.isfinite(loss)])
    low, high = values.min(), np.percentile(values, 95)
    room = 0.08 * (high - low) or 0.05
    if values.max() > high + 3 * (high - low):
        top = high + (high - low)
        axes.set_ylim(low - room, top)
        beyond = int((values > top).sum())
        axes.annotate(
            f"{beyond} above",
            (1.0, 1.0),
            (0, -3),
            xycoords="axes fraction",
            textcoords="offset points",
            color=MUTED,
            fontsize=8.0,
            horizontalalignment="right",
            verticalalignment="top",
        )


def _number(value: Any, otherwise: float = math.nan) -> float:
    return otherwise if value is None else float(value)

"""Which epoch of a retraining is the best one, and when none better has come for long enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MEASURE = "val_loss"
"""The metric that decides: the mean cross entropy on the validation part, in nats; less is better."""


def validation_losses(lines: Sequence[Mapping[str, Any]]) -> list[float]:
    """Returns the losses of the epochs whose lines of metrics have one."""
    return [line[MEASURE] for line in lines if line.get(MEASURE) is not None]


def best_epoch(losses: Sequence[float]) -> int:
    """Returns the first epoch, counted from 1, of the least loss; 0 of none."""
    return 1 + min(range(len(losses)), key=losses.__getitem__) if losses else 0


def kept_line(lines: Sequence[Mapping[str, Any]], keep: str) -> Mapping[str, Any]:
    """Returns the line of metrics of the epoch whose weights a retraining has kept.

    Args:
        lines: of all epochs that were done, at least one.
        keep: `retrain.keep`, the last or the best.
    """
    return lines[(best_epoch(validation_losses(lines)) if keep == "best" else len(lines)) - 1]


def ends_early(losses: Sequence[float], patience: int | None) -> bool:
    """Returns whether the last `patience` epochs have brought no lower loss than those before."""
    return patience is not None and bool(losses) and len(losses) - best_epoch(losses) >= patience

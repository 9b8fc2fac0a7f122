"""How far a stage has come: a line after each epoch, and a progress bar where there is a terminal."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm

from gdas_tf.durations import duration
from gdas_tf.keras_backend import keras
from gdas_tf.notes import progress, shows_progress

_RECENT = 5


class EpochLines(keras.callbacks.Callback):
    """Says after each epoch what came of it, how long it took and how long the others will take.

    On a terminal there is a bar of all steps of the stage, too. It is a context manager, which closes the bar
    also when a training fails.

    Args:
        stage: What goes on, as "search".
        epochs: Epochs of the whole stage.
        done: Those that were done before.
        steps: Steps of an epoch.
        may_end: Whether the stage may end earlier, so that the estimate is the most that it takes.
    """

    async_safe = True  # Keras need not wait for a step before it begins the next one

    def __init__(self, stage: str, epochs: int, done: int, steps: int, may_end: bool = False) -> None:
        super().__init__()
        self.stage, self.epochs, self.steps, self.may_end = stage, epochs, steps, may_end
        self._seconds: list[float] = []
        self._traced: float | None = None  # when the first step of all was done
        self._bar = tqdm(
            total=epochs * steps,
            initial=done * steps,
            desc=stage,
            unit=" steps",
            leave=False,
            disable=None if shows_progress() else True,
        )

    def __enter__(self) -> EpochLines:
        return self

    def __exit__(self, *about: object) -> None:
        self._bar.close()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._begun = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._traced = self._traced or time.perf_counter()
        self._bar.update()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        now = time.perf_counter()
        if not self._seconds and self._traced and self.steps > 1:
            # Before the first step it is traced, which is not done again.
            self._seconds.append((now - self._traced) * self.steps / (self.steps - 1))
        else:
            self._seconds.append(now - self._begun)
        left = seconds_left(self._seconds, self.epochs - epoch - 1)
        line = epoch_line(self.stage, epoch + 1, self.epochs, logs, now - self._begun, left, self.may_end)
        with tqdm.external_write_mode(file=sys.stderr):
            progress(line)


def seconds_left(seconds: Sequence[float], left: int) -> float:
    """Estimates what `left` more epochs take, by the mean of the last five."""
    recent = seconds[-_RECENT:]
    return left * sum(recent) / len(recent)


def epoch_line(
    stage: str,
    number: int,
    count: int,
    values: Mapping[str, Any],
    seconds: float,
    left: float,
    may_end: bool = False,
) -> str:
    """The line of an epoch, or of a round.

    Args:
        stage: What goes on.
        number: Of the epoch, from 1.
        count: Epochs in all.
        values: Metrics by name.
        seconds: That it took.
        left: Seconds that are left, by an estimate.
        may_end: Whether the estimate is the most that is left.

    Example:

    >>> epoch_line("search", 3, 30, {"accuracy": 0.5, "loss": 1.25}, 4.2, 113)
    'search 3/30: loss 1.2500, accuracy 50.00%; 4.2 s, about 1 min 53 s left'
    """
    numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
    told = ", ".join(f"{name} {_shown(name, numbers[name])}" for name in sorted(numbers, key=_place))
    rest = f", {'at most' if may_end else 'about'} {duration(left)} left" if number < count else ""
    return f"{stage} {number}/{count}: {told + '; ' if told else ''}{seconds:.1f} s{rest}"


def _place(name: str) -> tuple[str, bool]:
    """Loss before accuracy; those of the weights first, then those of other images."""
    kind, _, measure = name.rpartition("_")
    return kind, measure != "loss"


def _shown(name: str, value: float) -> str:
    if isinstance(value, int):
        return str(value)
    if name.endswith("accuracy") and math.isfinite(value):
        return f"{value:.2%}"
    return f"{value:.4f}"

"""What goes by the validation part of a retraining: the epoch that is kept, and an early end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gdas_tf.keras_backend import keras
from gdas_tf.runs.best_epoch import MEASURE, best_epoch, ends_early, validation_losses

if TYPE_CHECKING:
    from gdas_tf.optimizers.average import WeightAverage
    from gdas_tf.runs.run import Run

Logs = Mapping[str, Any] | None


class AverageInTests(keras.callbacks.Callback):
    """Lets a network have the average of its weights while `fit` validates it."""

    def __init__(self, average: WeightAverage) -> None:
        super().__init__()
        self.average = average

    def on_test_begin(self, logs: Logs = None) -> None:
        self.average.swap()

    def on_test_end(self, logs: Logs = None) -> None:
        self.average.swap()


class BestEpoch(keras.callbacks.Callback):
    """Goes by the validation loss: keeps the weights of the best epoch, and ends a training early.

    Args:
        run: The run directory; its metrics say what the losses of the epochs before were.
        variables: Those of the network.
        patience: Epochs without a lower loss after which the training ends; None for never.
        keep: Whether the weights of the best epoch are what `applied` gives; else those of the last.
        averaged: As of `RetrainingModel.averaged`.
    """

    def __init__(
        self,
        run: Run,
        variables: Sequence[Any],
        patience: int | None = None,
        keep: bool = False,
        averaged: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        super().__init__()
        self.run, self.variables, self.patience = run, variables, patience
        self.keep, self.averaged = keep, averaged
        self.losses: list[float] = []
        self._best: dict[str, np.ndarray] = {}

    def begin(self) -> None:
        """Take up the losses of the epochs that are done, as the metrics have them."""
        self.losses = validation_losses(self.run.metrics("retrain"))

    @property
    def ended(self) -> bool:
        """Whether patience is at its end."""
        return ends_early(self.losses, self.patience)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if MEASURE not in logs:
            return
        self.losses.append(float(logs[MEASURE]))
        if self.keep and best_epoch(self.losses) == len(self.losses):
            with self.averaged():
                self._best = {
                    f"best/{number:05d}": variable.numpy() for number, variable in enumerate(self.variables)
                }
        if self.ended:
            self.model.stop_training = True

    def kept(self) -> dict[str, np.ndarray]:
        """The weights of the best epoch so far, for the checkpoint; nothing where the last are kept."""
        return self._best

    def restore(self, kept: Mapping[str, np.ndarray]) -> None:
        """Take back what `kept` gave."""
        self._best = dict(sorted(kept.items()))

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Let the network have, inside the block, the weights that are the outcome of the training."""
        if not self._best:
            with self.averaged():
                yield
            return
        before = [variable.numpy() for variable in self.variables]
        self._assign(self._best.values())
        try:
            yield
        finally:
            self._assign(before)

    def _assign(self, arrays: Any) -> None:
        for variable, array in zip(self.variables, arrays, strict=True):
            variable.assign(array)

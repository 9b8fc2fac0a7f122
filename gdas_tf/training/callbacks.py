"""What a stage that runs for hours leaves after each epoch: a line of metrics and a checkpoint to go on
from."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gdas_tf.errors import DivergedError, UsageError
from gdas_tf.keras_backend import keras

if TYPE_CHECKING:
    from gdas_tf.runs.run import Run


class EpochRecord(keras.callbacks.Callback):
    """Writes the metrics and a checkpoint after each epoch, and brings a checkpoint back.

    Args:
        run: The run directory.
        stage: "search" or "retrain".
        variables: The whole state of the stage, in an order that is the same in every process.
        values: The stage's own values of an epoch (1 is the first) for its line of metrics, called at its
        end. advice: What to do when the loss is no longer a number.
    """

    def __init__(
        self,
        run: Run,
        stage: str,
        variables: Sequence[Any],
        values: Callable[[int], Mapping[str, float]],
        advice: str,
    ) -> None:
        super().__init__()
        self.run, self.stage, self.variables = run, stage, list(variables)
        self.values, self.advice = values, advice

    def start(self, resume: bool) -> int:
        """Bring back the last checkpoint, with `resume`, or remove what there is. Returns the epochs that are
        done.

        Raises:
            UsageError: The checkpoint is damaged or of another network or configuration.
        """
        checkpoint = self.run.load_checkpoint(self.stage) if resume else None
        path = self.run.file(f"{self.stage}/checkpoint.npz")
        if checkpoint is None:
            path.unlink(missing_ok=True)
            self.run.truncate_metrics(self.stage, 0)
            return 0
        arrays, done = checkpoint
        names = self._names()
        shapes = {name: tuple(array.shape) for name, array in arrays.items()}
        if shapes != {name: tuple(v.shape) for name, v in zip(names, self.variables, strict=True)}:
            raise UsageError(
                f"checkpoint {path}: its {len(arrays)} variables are not the {len(names)} of this "
                f"{self.stage}; remove the checkpoint to begin the {self.stage} again"
            )
        for variable, name in zip(self.variables, names, strict=True):
            variable.assign(arrays[name])
        self.run.truncate_metrics(self.stage, done)
        return done

    def _names(self) -> list[str]:
        return [f"{number:05d}" for number in range(len(self.variables))]

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._begun = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        if not all(math.isfinite(value) for value in logs.values()):
            raise DivergedError(
                f"the {self.stage} diverged: the loss is {logs['loss']} in epoch {epoch + 1}; {self.advice}"
            )
        line = {
            "epoch": epoch + 1,
            **{name: float(value) for name, value in logs.items()},
            **self.values(epoch + 1),
            "seconds": round(time.perf_counter() - self._begun, 3),
        }
        # The metrics first: if the process dies between the two, the continuation removes the line it will
        # write again.
        self.run.append_metrics(self.stage, line)
        arrays = {name: v.numpy() for name, v in zip(self._names(), self.variables, strict=True)}
        self.run.save_checkpoint(self.stage, arrays, epoch + 1)

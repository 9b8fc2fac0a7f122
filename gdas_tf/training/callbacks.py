"""What a stage that runs for hours does at the ends of its epochs, one duty a callback.

`fit` calls callbacks in the order in which it was given them. A stage is only resumed bit for bit if it gives
them in this one:

1. `AlignReplicas`, `EndInTime` of a search with a limit, then the stage's own, which may change its state;
2. `Divergence`, so that nothing is written of an epoch that failed;
3. `History` and `MetricsLines`;
4. `gdas_tf.training.validation.BestEpoch`, whose state belongs to the checkpoint;
5. `Checkpoint`, last: if the process dies before, the epoch is done once more, and what was written of it is
   written again. Only `gdas_tf.training.epoch_lines.EpochLines`, which says that it is done, comes after it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gdas_tf.errors import DivergedError, UsageError
from gdas_tf.files import atomic_path
from gdas_tf.keras_backend import keras
from gdas_tf.runs.metrics_log import MetricsLog
from gdas_tf.user_files import read_npz

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gdas_tf.distribution import Distribution
    from gdas_tf.runs.run import Run
    from gdas_tf.strategies.base import Batch, Strategy

Logs = Mapping[str, Any] | None


class AlignReplicas(keras.callbacks.Callback):
    """Makes one of what the replicas have each for themselves, at the end of an epoch, before anybody looks.

    Args:
        distribution: What the training is divided over.
        variables: The statistics of batch norms, perhaps among other variables.
    """

    def __init__(self, distribution: Distribution, variables: Sequence[Any]) -> None:
        super().__init__()
        self.distribution, self.variables = distribution, list(variables)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self.distribution.align(self.variables)


class StrategyEpochs(keras.callbacks.Callback):
    """Tells a strategy that an epoch begins or ends.

    Args:
        strategy: The strategy; the model is a `SearchModel`.
        epochs: Epochs of the whole search.
        last: Gives the epoch with which it ends, which may be an earlier one.
        validation: As of `Strategy.end_epoch`.
    """

    def __init__(
        self,
        strategy: Strategy,
        epochs: int,
        last: Callable[[], int],
        validation: Callable[[], Iterable[Batch]],
    ) -> None:
        super().__init__()
        self.strategy, self.epochs, self.last, self.validation = strategy, epochs, last, validation

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self.strategy.begin_epoch(epoch, self.epochs)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self.strategy.end_epoch(self.model, epoch, self.last(), self.validation)


class Divergence(keras.callbacks.Callback):
    """Ends a stage whose loss is no longer a number.

    Args:
        stage: "search" or "retrain".
        advice: What to do then.
    """

    def __init__(self, stage: str, advice: str) -> None:
        super().__init__()
        self.stage, self.advice = stage, advice

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        for name, value in {"loss": logs["loss"], **logs}.items():
            if not math.isfinite(value):
                what = "the loss" if name == "loss" else name
                raise DivergedError(
                    f"the {self.stage} diverged: {what} is {value} in epoch {epoch + 1}; {self.advice}"
                )


class MetricsLines(keras.callbacks.Callback):
    """Writes a line of metrics after each epoch.

    Args:
        run: The run directory.
        stage: "search" or "retrain".
        values: The stage's own values of an epoch (1 is the first) for its line, called at its end.
    """

    def __init__(self, run: Run, stage: str, values: Callable[[int], Mapping[str, float]]) -> None:
        super().__init__()
        self.log, self.values = MetricsLog(run, stage), values

    def begin(self, done: int) -> None:
        """Keep the lines of the epochs that are done, and no others."""
        self.log.begin(done)

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._begun = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        line = {
            "epoch": epoch + 1,
            **{name: float(value) for name, value in logs.items()},
            **self.values(epoch + 1),
            "seconds": round(time.perf_counter() - self._begun, 3),
        }
        self.log.append(line)


class History(keras.callbacks.Callback):
    """Keeps arrays as they were before a search and after each epoch, in `search/logits.npz`.

    Args:
        run: The run directory.
        arrays: Gives the arrays of now, by names and of shapes that stay.
    """

    def __init__(self, run: Run, arrays: Callable[[], Mapping[str, np.ndarray]]) -> None:
        super().__init__()
        self.path, self.now = run.file("search/logits.npz"), arrays
        self.values: dict[str, list[np.ndarray]] = {}

    def begin(self, done: int) -> None:
        """Begin with the arrays of now, or with those of the epochs that a resumed search has behind it.

        Raises:
            UsageError: The file is missing or damaged, or has fewer epochs.
        """
        if done == 0:
            self.path.unlink(missing_ok=True)
            self.values = {name: [array] for name, array in self.now().items()}
            return
        advice = f"remove {self.path.parent} to search again"
        if not self.path.exists():
            raise UsageError(f"logits {self.path}: the file is missing; {advice}")
        arrays = read_npz(self.path, f"logits {self.path} are damaged", advice)
        missing = [name for name in self.now() if name not in arrays]
        if missing:
            raise UsageError(f"logits {self.path} are damaged: {', '.join(missing)} is missing; {advice}")
        stored = {name: arrays[name] for name in self.now()}
        if any(values.ndim == 0 or len(values) < done + 1 for values in stored.values()):
            raise UsageError(f"logits {self.path} end before the checkpoint; {advice}")
        self.values = {name: list(values[: done + 1]) for name, values in stored.items()}

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays so far, [epochs + 1, …] each."""
        return {name: np.stack(values) for name, values in self.values.items()}

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        for name, array in self.now().items():
            self.values[name].append(array)
        with atomic_path(self.path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **self.arrays())


class Checkpoint(keras.callbacks.Callback):
    """Writes the state of a stage after each epoch, and brings it back.

    Args:
        run: The run directory.
        stage: "search" or "retrain".
        variables: The stage's state, in an order that is the same in every process.
        extra_state, restore: Give arrays by name that belong to the state as well, and take them back.
        replicas: How many share a batch. Another number would add up in another order, and end in other bits.
    """

    def __init__(
        self,
        run: Run,
        stage: str,
        variables: Sequence[Any],
        extra_state: Callable[[], Mapping[str, np.ndarray]] = dict,
        restore: Callable[[Mapping[str, np.ndarray]], None] = lambda state: None,
        replicas: int = 1,
    ) -> None:
        super().__init__()
        self.run, self.stage, self.replicas = run, stage, replicas
        self.variables = {f"{number:05d}": variable for number, variable in enumerate(variables)}
        self.extra_state, self.restore = extra_state, restore

    def begin(self, resume: bool) -> int:
        """Bring back the last checkpoint, with `resume`, or remove what there is.

        Returns:
            The epochs that are done.

        Raises:
            UsageError: The checkpoint is damaged or of another network, configuration or version.
        """
        checkpoint = self.run.load_checkpoint(self.stage) if resume else None
        path = self.run.file(f"{self.stage}/checkpoint.npz")
        if checkpoint is None:
            path.unlink(missing_ok=True)
            return 0
        arrays, done = checkpoint
        began = int(arrays.pop(_REPLICAS, 1))
        if began != self.replicas and done:
            raise UsageError(
                f"run directory {self.run.path}: its {self.stage} began with {began} "
                f"replica{'s' * (began > 1)}, and now there would be {self.replicas}; go on with {began} "
                "(distribution.kind, distribution.replicas), or begin another run directory"
            )
        extra = {
            name.removeprefix(_EXTRA): arrays.pop(name) for name in list(arrays) if name.startswith(_EXTRA)
        }
        shapes = {name: tuple(array.shape) for name, array in arrays.items()}
        if shapes != {name: tuple(variable.shape) for name, variable in self.variables.items()}:
            raise UsageError(
                f"checkpoint {path}: its {len(arrays)} variables are not the {len(self.variables)} of this "
                f"{self.stage}; remove the checkpoint to begin the {self.stage} again"
            )
        for name, variable in self.variables.items():
            variable.assign(arrays[name])
        self.restore(extra)
        return done

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        arrays = {name: variable.numpy() for name, variable in self.variables.items()}
        if self.replicas > 1:
            arrays[_REPLICAS] = np.array(self.replicas)
        extra = {_EXTRA + name: array for name, array in self.extra_state().items()}
        self.run.save_checkpoint(self.stage, {**arrays, **extra}, epoch + 1)


_REPLICAS = "replicas"
_EXTRA = "extra/"

"""The time that a stage may take, and how it ends in time.

A stage ends with a whole epoch, or with a whole training of a candidate. Where it ends before its schedule
does, that is written to the configuration of the run directory first (`search.stop_after` and its like): a
run that goes on, or another one by the same configuration, ends at the same place with the same bits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gdas_tf.keras_backend import keras
from gdas_tf.notes import progress

if TYPE_CHECKING:
    from gdas_tf.runs.run import Run

Clock = Callable[[], float]


class TimeUp(Exception):  # noqa: N818 (nothing failed)
    """The time of a stage ended amid an epoch or a round of trials; what was done before it stands."""


class TimeLimit:
    """When the parts of a stage have to end.

    Args:
        run: The run directory, whose configuration takes what is decided.
        ends: When parts end by the clock: of a search "search" (the epochs of the supernet) and "trials" (the
            short trainings of candidates), of a retraining "retrain".
        rounds: Seconds that each round of trials is expected to take; none where that is not known.
        clock: Gives seconds that go up.
        beat: Called with the part after each epoch and each trial, as to note how much time has passed.
    """

    def __init__(
        self,
        run: Run,
        ends: Mapping[str, float],
        rounds: Sequence[float] = (),
        clock: Clock = time.monotonic,
        beat: Callable[[str], None] = lambda part: None,
    ) -> None:
        self.run, self.ends, self.rounds, self.clock, self.beat = run, ends, rounds, clock, beat
        self._lock = threading.Lock()
        self._round_begun = clock()

    def left(self, part: str) -> float:
        """Seconds that a part has left."""
        return self.ends[part] - self.clock()

    def stop(self, field: str, count: int, why: str) -> None:
        """Writes down where the stage ends.

        Args:
            field: Of the configuration, as `search.stop_after`.
            count: Its value: what is still done.
            why: What is said of it.
        """
        self.run.set_config(self.run.config.override({field: count}))
        progress(f"the time is up: {why}")

    def allows_trial(self, number: int, seconds: float) -> bool:
        """Whether there is time for one more trial; once there is not, there is for none after it.

        Args:
            number: Of the trial, in the order of submission; the first one is always trained.
            seconds: What it is expected to take.
        """
        with self._lock:
            if self.run.config.search.stop_after_trials is not None:
                return number <= self.run.config.search.stop_after_trials
            if number == 1 or self.left("trials") >= seconds:
                return True
            done = f"{number - 1} trainings of candidates are done, the others are left out"
            self.stop("search.stop_after_trials", number - 1, done)
            return False

    def begin_rounds(self) -> None:
        """The rounds of trials begin."""
        self._round_begun = self.clock()

    def allows_round(self, done: int) -> bool:
        """Whether there is time for one more round of trials, if it is as slow as the last one was.

        Args:
            done: Rounds that are done.
        """
        now = self.clock()
        took, self._round_begun = now - self._round_begun, now
        if not done < len(self.rounds):
            return self.left("trials") > 0
        slower = took / self.rounds[done - 1]  # far below one, where its trainings lay on the disk
        return self.left("trials") >= self.rounds[done] * max(slower, _FASTEST)


_FASTEST = 0.5


class EndInTime(keras.callbacks.Callback):
    """Ends the epochs of a stage with the one after which no other fits into its time.

    Args:
        limit: The time.
        stage: "search" or "retrain".
        last: The epoch after which the stage ends anyway.
        amid: Whether an epoch, but the first, may be left by a `TimeUp` when the time is up.
    """

    def __init__(self, limit: TimeLimit, stage: str, last: int, amid: bool) -> None:
        super().__init__()
        self.limit, self.stage, self.last, self.amid = limit, stage, last, amid
        self._ended: float | None = None  # the steps of the epoch before
        self._ending = 0.0  # seconds from the last step of an epoch to the next epoch

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._epoch, self._first = epoch, None
        if self._ended is not None:
            self._ending = self.limit.clock() - self._ended

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._steps = batch + 1
        if self._first is None:  # what comes after it is counted: the first step of all is traced
            self._first = self.limit.clock()
        if self.amid and self._epoch > 0 and self.limit.left(self.stage) < 0:
            raise TimeUp

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._ended = self.limit.clock()
        self.limit.beat(self.stage)
        steps = (self._ended - self._first) * self._steps / max(self._steps - 1, 1)
        if epoch + 1 < self.last and self.limit.left(self.stage) < steps + 2 * self._ending:
            done = f"the {self.stage} ends with epoch {epoch + 1} of {self.last}, its schedule is cut"
            self.limit.stop(f"{self.stage}.stop_after", epoch + 1, done)
            self.model.stop_training = True

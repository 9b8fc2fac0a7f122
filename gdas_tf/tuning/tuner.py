"""From one proposal of an oracle to the next: alone, as the chief of several workers, or as one of them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import Any

from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import Trial
from keras_tuner.errors import FailedTrialError, FatalError

from gdas_tf.errors import RunError, UsageError
from gdas_tf.tuning import oracles
from gdas_tf.tuning.study import Tuning, TuningFolder

Perform = Callable[[int, dict[str, Any], int | None], dict[str, Any]]

HOPELESS = 5
"""Trials that may fail before any has succeeded."""

_IDLE = 0.5  # seconds before a worker asks again, where the oracle waits for others


class Stopped(FatalError):
    """What keeps keras-tuner from taking an error for that of one trial; `__cause__` is the error."""


class Tuner(BaseTuner):
    """keras-tuner's loop over trials, which lets `perform` do each.

    Args:
        tuning: the tuning.
        folder: its folder.
        perform: does a trial, as `gdas_tf.tuning.trials.Trials.perform`.
        on_end: called with what is kept of a trial when it has ended, where the oracle is.
    """

    def __init__(
        self,
        tuning: Tuning,
        folder: TuningFolder,
        perform: Perform,
        on_end: Callable[[int], None] = lambda number: None,
    ) -> None:
        self.tuning, self.folder, self.perform = tuning, folder, perform
        self.performed = 0
        oracle = oracles.make(tuning)
        oracle.on_end = lambda trial: on_end(number_of(trial))
        with contextlib.redirect_stdout(None):  # it says from which file it goes on
            super().__init__(oracle, directory=str(folder.path), project_name="tuner")

    def run_trial(self, trial: Trial, *arguments: Any, **options: Any) -> dict[str, float]:
        number = number_of(trial)
        try:
            kept = self.perform(number, *oracles.values_of(trial, self.tuning.dimensions))
        except (UsageError, RunError) as error:
            raise Stopped(str(error)) from error
        self.performed += 1
        if kept["failed"] is None:
            return {self.tuning.objective: kept["score"]}
        others = self.folder.trials()
        if len(others) >= HOPELESS and all(one["failed"] is not None for one in others):
            raise Stopped from RunError(
                f"tuning {self.folder.path}: all {len(others)} trials so far have failed, the last one: "
                f"{kept['failed']}; mend that, or narrow the ranges in another folder"
            )
        raise FailedTrialError(kept["failed"])

    def run(self) -> None:
        """Does all trials; of a chief, lets the workers do them.

        Raises:
            UsageError: the file of a trial, or of the oracle, is damaged.
            RunError: the disk is full, or all of the first trials have failed.
        """
        try:
            self.search(verbose=0)
        except Stopped as error:
            raise error.__cause__ from None
        except KeyboardInterrupt:
            if not self._is_worker() and self.oracle.failed is not None:
                raise self.oracle.failed from None
            raise

    def pre_create_trial(self) -> None:
        if self._is_worker() and self.performed:
            time.sleep(_IDLE)

    def save(self) -> None:
        if not self._is_worker():
            self.oracle.save()

    def reload(self) -> None:
        if not self._is_worker():
            self.oracle.reload()

    def _get_tuner_fname(self) -> str:
        """What there is to go on with is the oracle's file, whichever process has written it."""
        return os.path.join(self.project_dir, "oracle.json")


def number_of(trial: Trial) -> int:
    """Returns the number of a trial, from 1 on."""
    return int(trial.trial_id) + 1

"""keras-tuner's oracles, which propose the values of trials, with a state that no kill damages.

keras-tuner writes a file for each trial and one for the oracle, not atomically and one after the other, so
that a process killed in between leaves trials that nobody ends. Here all of it is one file, which is replaced
whole. It also holds the random numbers of the Bayesian oracle, which keras-tuner does not keep: a tuning that
was killed and resumed proposes what it would have proposed.
"""

from __future__ import annotations

import _thread
import json
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import keras_tuner
import numpy as np
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.oracles import BayesianOptimizationOracle, HyperbandOracle, RandomSearchOracle

from gdas_tf.errors import RunError, UsageError
from gdas_tf.files import read_json, write_json
from gdas_tf.tuning.space import Choices, Space

if TYPE_CHECKING:
    from gdas_tf.tuning.study import Tuning


class _Kept:
    """What an oracle here does otherwise than keras-tuner's.

    Attributes:
        on_end: called with each trial that has ended.
        failed: why the state could not be written, in a thread that answers workers.
    """

    on_end: Callable[[Trial], None] = staticmethod(lambda trial: None)
    failed: RunError | None = None

    def save(self) -> None:
        state = {
            "oracle": self.get_state(),
            "trials": {name: trial.get_state() for name, trial in self.trials.items()},
        }
        try:
            write_json(self._get_oracle_fname(), state)
        except RunError as error:
            if threading.current_thread() is not threading.main_thread():
                self.failed = error  # the chief would not hear of it otherwise, and wait for ever
                _thread.interrupt_main()
            raise

    def _save_trial(self, trial: Trial) -> None:
        """A trial is written with all others, by `save`."""

    def reload(self) -> None:
        path = self._get_oracle_fname()
        try:
            found = read_json(path)
            self.trials = {name: Trial.from_state(state) for name, state in found["trials"].items()}
            self.set_state(found["oracle"])
        except (UsageError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(
                f"{path}: damaged ({error}); remove it, and the tuner proposes anew; trials of values that "
                "were tried already are not done again"
            ) from error
        # What nobody is at any more is done by whoever asks first.
        under_way = [trial for trial in self.ongoing_trials.values() if trial.status == TrialStatus.RUNNING]
        waiting = {*self._retry_queue}
        self._retry_queue += [trial.trial_id for trial in under_way if trial.trial_id not in waiting]
        self.ongoing_trials = {}

    def end_trial(self, trial: Trial) -> None:
        super().end_trial(trial)
        self.on_end(self.trials[trial.trial_id])


class _Random(_Kept, RandomSearchOracle):
    """Random values."""


class _Hyperband(_Kept, HyperbandOracle):
    """Hyperband (Li et al., JMLR 2018)."""


class _Bayesian(_Kept, BayesianOptimizationOracle):
    """Bayesian optimization by a Gaussian process and its lower confidence bound."""

    def get_state(self) -> dict[str, Any]:
        return {**super().get_state(), "random_state": self._random_state.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        name, keys, *rest = state["random_state"]
        self._random_state.set_state((name, np.array(keys, np.uint32), *rest))


def make(tuning: Tuning) -> keras_tuner.Oracle:
    """Returns the oracle of a tuning, which has proposed nothing yet."""
    kind = {"random": _Random, "hyperband": _Hyperband, "bayesian": _Bayesian}[tuning.tuner]
    if tuning.tuner == "hyperband":
        size = {
            "max_epochs": tuning.most_epochs,
            "factor": tuning.factor,
            "hyperband_iterations": tuning.iterations,
        }
    else:
        size = {"max_trials": tuning.trials}
    oracle = kind(
        objective=keras_tuner.Objective(tuning.objective, tuning.aim.direction),
        hyperparameters=_hyperparameters(tuning.dimensions),
        seed=tuning.base.seed + 1,  # 0 would be taken for none
        max_consecutive_failed_trials=2**31,  # the others go on
        **size,
    )
    oracle.verbose = 0
    return oracle


def count(oracle: keras_tuner.Oracle) -> int | None:
    """Returns how many trials an oracle will propose at most."""
    if not isinstance(oracle, HyperbandOracle):
        return oracle.max_trials
    brackets = range(oracle._get_num_brackets())
    rounds = [(number, one) for number in brackets for one in range(oracle._get_num_rounds(number))]
    return oracle.hyperband_iterations * sum(oracle._get_size(*one) for one in rounds)


def random_trials(oracle: keras_tuner.Oracle) -> int:
    """Returns how many trials of the Bayesian oracle are drawn at random before it foretells any."""
    return max(3 * len(oracle.hyperparameters.space), 3)


def values_of(trial: Trial, space: Space) -> tuple[dict[str, Any], int | None]:
    """Returns the values that a trial has for the fields that are varied, and its epochs by hyperband."""
    proposed: Mapping[str, Any] = trial.hyperparameters.values
    values = {
        name: json.loads(proposed[name])
        if isinstance(dimension, Choices)
        else int(proposed[name])
        if dimension.whole
        else float(proposed[name])
        for name, dimension in space.items()
    }
    epochs = proposed.get("tuner/epochs")
    return values, None if epochs is None else int(epochs)


def _hyperparameters(space: Space) -> keras_tuner.HyperParameters:
    parameters = keras_tuner.HyperParameters()
    for name, dimension in space.items():
        if isinstance(dimension, Choices):
            parameters.Choice(name, dimension.texts(), ordered=False)
            continue
        kind = parameters.Int if dimension.whole else parameters.Float
        sampling = "log" if dimension.log else "linear"
        kind(name, dimension.low, dimension.high, step=dimension.step, sampling=sampling)
    return parameters

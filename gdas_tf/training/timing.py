"""How long stages take on this machine, found out by some steps of each; nothing of it is kept."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gdas_tf.config.sections import STOPS
from gdas_tf.data.dataset import eval_batches, search_halves, steps_per_epoch
from gdas_tf.keras_backend import keras
from gdas_tf.notes import without_progress
from gdas_tf.runs.run import Run
from gdas_tf.strategies import candidates
from gdas_tf.strategies.base import STRATEGIES
from gdas_tf.strategies.trial_fields import TrialFields
from gdas_tf.training.retraining import retrain
from gdas_tf.training.search import search
from gdas_tf.training.seconds import Seconds, TrialSeconds
from gdas_tf.training.trials import Trials

if TYPE_CHECKING:
    from gdas_tf.config.config import Config
    from gdas_tf.data.dataset import DataSet
    from gdas_tf.spaces.genotype import Genotype

STEPS = 8
"""Steps of an epoch that is timed."""


def time_search(config: Config, data: DataSet) -> tuple[Seconds, tuple[float, float]]:
    """Times some steps of a search that trains a supernet.

    Args:
        config: Of the search.
        data: The data set.

    Returns:
        What the epochs take; and what judging genotypes by the supernet's weights takes before the first one,
        and for each genotype and batch of D_V. Both are 0 where the strategy judges none.
    """
    short = _part(data, 2 * STEPS * config.search.batch_size)
    judges = STRATEGIES.get(config.search.strategy).effort(config).judged > 0
    timer = _Timer(lambda model: _time_judging(model, config, short) if judges else (0.0, 0.0))
    with tempfile.TemporaryDirectory(prefix="gdas-tf-timing-") as folder:
        run = Run.create(Path(folder) / "run", config.override({"search.epochs": 3, **_NO_STOP}))
        timer.run(lambda: search(run.config, short, run, callbacks=[timer]))
    return timer.seconds(), timer.at_end


def time_retraining(config: Config, data: DataSet, genotype: Genotype | None) -> Seconds:
    """Times some steps of the retraining of a genotype, None if the network is built of none."""
    short = _part(data, STEPS * config.retrain.batch_size)
    timer = _Timer(lambda model: (0.0, 0.0))
    with tempfile.TemporaryDirectory(prefix="gdas-tf-timing-") as folder:
        run = Run.create(
            Path(folder) / "run", config.override({"retrain.epochs": 3, **_NO_STOP, **_NO_VALIDATION})
        )
        timer.run(lambda: retrain(run.config, short, genotype, run, callbacks=[timer]))
    return timer.seconds()


def time_trial(config: Config, data: DataSet, genotype: Genotype) -> TrialSeconds:
    """Times a training of a few steps as a candidate of the strategy has it."""
    own = config.strategy if isinstance(config.strategy, TrialFields) else TrialFields()
    batch_size = own.batch_size or config.retrain.batch_size
    name, few = config.search.strategy, STEPS * batch_size
    fewer: Mapping[str, int] = {"images": few, "validation_images": 2 * batch_size}
    short = {f"{name}.{field}": count for field, count in fewer.items()} if own is config.strategy else {}
    with tempfile.TemporaryDirectory(prefix="gdas-tf-timing-") as folder:
        run = Run.create(Path(folder) / "run", config.override({**short, **_NO_STOP}))
        with Trials(run.config, data, run) as trials:
            found = trials.measure(genotype, 2)
    limits = fewer.values() if short else (own.images, own.validation_images)
    halves = search_halves(data.train.labels, config.seed)
    trained, judged = (min(len(half), limit or len(half)) for half, limit in zip(halves, limits, strict=True))
    steps = 2 * steps_per_epoch(trained, batch_size) - 1
    judging = found["seconds"] - found["seconds_to_last_step"]
    step = (found["seconds_to_last_step"] - found["seconds_to_first_step"]) / max(steps, 1)
    return TrialSeconds(found["to_start"], found["seconds_to_first_step"], step, judging, judged)


_NO_STOP = dict.fromkeys(STOPS)

_NO_VALIDATION = {"retrain.validation": 0.0, "retrain.keep": "last", "retrain.patience": None}
"""Of few images none may be left of a class in a validation part."""


class _EnoughError(Exception):
    """Ends the epochs that are timed."""


class _Timer(keras.callbacks.Callback):
    """Times two epochs, and ends the training before the third.

    Args:
        at_end: Measures something more of the model then.
    """

    def __init__(self, at_end: Callable[[Any], tuple[float, float]]) -> None:
        super().__init__()
        self._at_end = at_end
        self.at_end = (0.0, 0.0)
        self.begins: list[float] = []
        self.ends: list[list[float]] = []

    def run(self, train: Callable[[], Any]) -> None:
        self.begun = time.perf_counter()
        with contextlib.suppress(_EnoughError), without_progress():
            train()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self.begins.append(time.perf_counter())
        self.ends.append([])
        if epoch == 2:
            self.at_end = self._at_end(self.model)
            raise _EnoughError

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self.ends[-1].append(time.perf_counter())

    def seconds(self) -> Seconds:
        first, second = self.ends[:2]
        steps = [*np.diff(first), *np.diff([self.begins[1], *second])]
        step = float(np.mean(steps))
        before = first[0] - self.begun - step
        ending = float(np.mean([self.begins[1] - first[-1], self.begins[2] - second[-1]]))
        return Seconds(max(before, 0.0), step, ending, time.perf_counter() - self.begun)


def _time_judging(model: Any, config: Config, data: DataSet) -> tuple[float, float]:
    """Seconds before the first judgement of a genotype, and of one on one batch."""
    half = search_halves(data.train.labels, config.seed)[1]
    batches = list(eval_batches(data.train, min(config.search.batch_size, len(half)), half).take(1))
    generator = np.random.default_rng(0)
    fixed = config.search.reduction == "fixed"

    def judge(count: int) -> float:
        begun = time.perf_counter()
        drawn = candidates.draw_different(config.space, generator, count, fixed)
        candidates.score(model, drawn, lambda: batches)
        return (time.perf_counter() - begun) / len(drawn)

    first, each = judge(1), judge(STEPS)
    return max(first - each, 0.0), each


def _part(data: DataSet, images: int) -> DataSet:
    """The first images of a data set, at least some of each class as the data are mixed."""
    chosen = np.random.default_rng(0).permutation(len(data.train)) < max(images, 4 * data.classes)
    return dataclasses.replace(data, train=data.train.take(chosen))

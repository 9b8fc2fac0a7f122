"""Doing a tuning: checked before the first trial, told trial by trial, reported at the end."""

from __future__ import annotations

import importlib.util
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdas_tf.durations import duration
from gdas_tf.errors import UsageError
from gdas_tf.files import read_json, write_json
from gdas_tf.notes import note, progress
from gdas_tf.numerics.starting import start_tensorflow
from gdas_tf.tuning import distributed
from gdas_tf.tuning.report import ranked, score_text, values_text, write_report
from gdas_tf.tuning.study import Tuning, TuningFolder
from gdas_tf.tuning.trials import Trials

if TYPE_CHECKING:
    from gdas_tf.tuning.tuner import Tuner

Ask = Callable[[dict[str, Any]], dict[str, Any]]


def check_installed() -> None:
    """Makes sure that keras-tuner is here.

    Raises:
        UsageError: it is not.
    """
    try:
        found = importlib.util.find_spec("keras_tuner")
    except ValueError:  # as where a program has put None in its place
        found = None
    if found is None:
        raise UsageError("tune: keras-tuner is not installed; install it (pip install 'gdas-tf[tune]')")


def run_tuning(path: str | Path, tuning: Tuning, ask: Ask | None = None) -> dict[str, Any]:
    """Does a tuning, or goes on with it, and writes its report.

    A trial that fails does not keep the others from going on; it is told of, and stays failed. What has ended
    is not done again. Where the environment says that this process is a chief, workers do the trials.

    Args:
        path: the folder of the tuning: a new one, or that of the same tuning, which may have more trials now.
        tuning: the tuning.
        ask: as of `Trials`.

    Returns:
        What `gdas_tf.tuning.report.write_report` returns.

    Raises:
        UsageError: keras-tuner is not installed, the folder is of another tuning, or no trial can be done.
        RunError: the disk is full, or no trial has ended well.
    """
    check_installed()
    role, folder = distributed.role(), TuningFolder(path)
    if role.worker:
        raise UsageError(
            f"KERASTUNER_TUNER_ID: found {role.name!r}, which is a worker's; a tuning is begun by its chief"
        )
    if role.chief:
        distributed.check_address_is_free(role)
    made = not folder.path.exists()
    with folder.lock():
        try:
            folder.begin(tuning)
            with Trials(tuning, folder, ask) as trials:
                progress("checking whether trials can be done")
                _record_data(folder, trials.check())
                _save_genotype(folder, tuning)
                told = _Told(folder, tuning)
                tuner = _tuner_class()(tuning, folder, trials.perform, told.trial)
                told.begin(tuner, role)
                tuner.run()
        except UsageError:
            if made and not (folder.path / "trials").exists():
                shutil.rmtree(folder.path, ignore_errors=True)
            raise
        told.end()
        return write_report(folder)


def run_worker(path: str | Path, ask: Ask | None = None) -> dict[str, Any]:
    """Does trials for the chief that the environment names, until there are no more.

    Args:
        path: the folder of the tuning, which it shares with the chief.
        ask: as of `Trials`.

    Returns:
        `worker`, its name, and `trials`, how many it has done.

    Raises:
        UsageError: there is no tuning at `path`.
        RunError: the chief does not answer, or the disk is full.
    """
    check_installed()
    role, folder = distributed.role(), TuningFolder(path)
    progress(f"worker {role.name}: waiting for the chief at {role.address}")
    distributed.wait_for_chief(role, distributed.WAIT)
    tuning, tuner_class = folder.tuning(), _tuner_class()
    with Trials(tuning, folder, ask) as trials, distributed.asking(role):

        def perform(number: int, values: dict[str, Any], epochs: int | None) -> dict[str, Any]:
            progress(f"worker {role.name}: trial {number}: {values_text(values, epochs)}")
            kept = trials.perform(number, values, epochs)
            progress(f"worker {role.name}: trial {number}: {score_text(tuning, kept)}")
            return kept

        tuner = tuner_class(tuning, folder, perform)
        tuner.run()
    return {"worker": role.name, "trials": tuner.performed}


def _tuner_class() -> type[Tuner]:
    # keras-tuner imports TensorFlow, which says less of itself when it is started so.
    start_tensorflow()
    from gdas_tf.tuning.tuner import Tuner

    return Tuner


def _record_data(folder: TuningFolder, about: dict[str, Any]) -> None:
    """Keeps what data the trials are of, or makes sure that it is these.

    Raises:
        UsageError: it is other data.
    """
    path = folder.path / "data.json"
    if not path.exists():
        write_json(path, about)
    elif read_json(path) != about:
        raise UsageError(
            f"tuning {folder.path}: the training images have changed since it began, and trials could not "
            "be compared; bring them back as they were, or begin another tuning"
        )


def _save_genotype(folder: TuningFolder, tuning: Tuning) -> None:
    genotype = tuning.given_genotype()
    if genotype is not None and not (folder.path / "genotype.json").exists():
        genotype.save(folder.path / "genotype.json")


class _Told:
    """What is told of a tuning on its way: a line for each trial, with the best so far and the time left."""

    def __init__(self, folder: TuningFolder, tuning: Tuning) -> None:
        self.folder, self.tuning = folder, tuning
        self.total: int | None = None

    def begin(self, tuner: Tuner, role: distributed.Role) -> None:
        """Tells what will be done."""
        from gdas_tf.tuning import oracles

        tuning, oracle = self.tuning, tuner.oracle
        self.begun, self.before = time.monotonic(), len(oracle.end_order)
        self.total = oracles.count(oracle)
        how = f"{tuning.tuner}, {self.total} trials"
        if tuning.tuner == "hyperband":
            how += f" of up to {tuning.most_epochs} epochs"
        fields = "; ".join(f"{name} {one.describe()}" for name, one in tuning.dimensions.items())
        progress(f"tuning {self.folder.path}: {how}, judged by the {tuning.aim.about}; varied: {fields}")
        if tuning.tuner == "bayesian" and (drawn := oracles.random_trials(oracle)) >= tuning.trials:
            note(
                f"the tuner bayesian draws its first {drawn} trials at random, and there are "
                f"{tuning.trials} in all: it foretells nothing; raise trials"
            )
        if self.before:
            progress(f"{self.before} trials have ended already")
        if role.chief:
            progress(f"chief: waiting for workers at {role.address}")

    def trial(self, number: int) -> None:
        """Tells how a trial has ended."""
        kept = self.folder.trial(number)
        if kept is None:  # a worker could not write it
            return
        trials = self.folder.trials()
        line = f"[{len(trials)}/{self.total}] trial {number}: {values_text(kept['values'], kept['epochs'])}: "
        line += score_text(self.tuning, kept)
        if kept["failed"] is not None:
            note(f"{line}; the others go on")
            return
        best = ranked(trials, self.tuning)[0]
        line += f"; best so far {self.tuning.aim.show(best['score'])}, trial {best['number']}"
        done, left = len(trials) - self.before, self.total - len(trials)
        if left > 0 and done > 0:
            line += f"; about {duration((time.monotonic() - self.begun) / done * left)} left"
        progress(line)

    def end(self) -> None:
        """Tells where there were fewer values than trials."""
        done = len(self.folder.trials())
        if self.tuning.trials is not None and done < self.tuning.trials:
            note(f"the ranges hold no more than these {done} trials; widen them for more")

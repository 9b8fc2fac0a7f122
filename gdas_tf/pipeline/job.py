"""A job: a run directory, its data, and how its stages are to be done."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdas_tf.config.config import Config
from gdas_tf.errors import UsageError
from gdas_tf.files import is_run_directory
from gdas_tf.notes import note
from gdas_tf.numerics.starting import start_tensorflow
from gdas_tf.pipeline.distributed import is_chief, own_copy, start_distribution
from gdas_tf.pipeline.measured_data import compared
from gdas_tf.pipeline.truth import open_table
from gdas_tf.runs.run import Run

if TYPE_CHECKING:
    from gdas_tf.data.dataset import DataSet
    from gdas_tf.data.identity import DataRecord
    from gdas_tf.distribution import Distribution
    from gdas_tf.pipeline.budget import Budget
    from gdas_tf.spaces.table import Table


class Job:
    """What the stages of a run share. `begin` and `go_on` make one and hold its run directory.

    Args:
        run: the run directory.
        data: the data set, if it is loaded already.
        resume: go on with a search or a retraining that was stopped; without it, one that has begun is
            refused.
        accept_changed_data: where the data have changed since the training, measure the network on the images
            that it was not trained on; without it, changed data are refused.
        command: the command line, without the program's name, that `versions.json` is to record.
        distribution: what search and retraining are divided over; None for nothing.

    Example:
        >>> with Run.open("runs/photos").lock() as run:
        ...     run_evaluation(Job(run, accept_changed_data=True))["accuracy"]
    """

    def __init__(
        self,
        run: Run,
        *,
        data: DataSet | None = None,
        resume: bool = False,
        accept_changed_data: bool = False,
        command: Sequence[str] = (),
        distribution: Distribution | None = None,
    ) -> None:
        self.run = run
        self.distribution = distribution
        self.resume = resume
        self.accept_changed_data = accept_changed_data
        self.results: dict[str, dict[str, Any] | None] = {}
        """What `run_all` has got so far, by stage; None for a stage that had nothing to do."""
        self.about_data: dict[str, Any] = {}
        """What results say of a change of the data that was accepted; filled when `data` is loaded."""
        self.config_before: Config | None = None
        """The configuration that the run directory had before this job, where the job has changed it."""
        self.budget: Budget | None = None
        """The time that `run_all` has; None for as long as it takes."""
        self._command = list(command)
        self._recorded = False
        if data is not None:
            self.data = data

    @property
    def config(self) -> Config:
        """The configuration of the run directory."""
        return self.run.config

    @property
    def replicas(self) -> int:
        """How many replicas share a batch."""
        return self.distribution.replicas if self.distribution else 1

    @property
    def chief(self) -> bool:
        """Whether this process is the one that writes what remains; a worker that is not only computes."""
        return self.distribution is None or self.distribution.chief

    def record(self) -> None:
        """Records versions and command line, once; stages call it when they are sure that they may write."""
        if not self._recorded:
            self.run.record_command(self._command)
            self._recorded = True

    @cached_property
    def data(self) -> DataSet:
        """The data set of the configuration, loaded once and compared with the record in the run directory.

        Raises:
            UsageError: there is no such data set, it is damaged, or it is not the one of the record.
        """
        from gdas_tf.runs.data_record import has_begun

        data = self._load_data()
        if not has_begun(self.run):
            return data
        owner = f"run directory {self.run.path}"
        record = self.data_record
        if record is None:
            note(
                f"{owner}: it keeps no record of its data, as older versions made it; it cannot be checked "
                "that the data are as they were"
            )
            return data
        advice = "bring the data back as they were, or "
        if self.run.file("model.keras").exists():
            advice += "evaluate and export with accept_changed_data, to measure on the images that were not "
            advice += "trained on"
        else:
            advice += "begin another run directory"
        data, self.about_data = compared(data, record, owner, self.accept_changed_data, advice)
        return data

    @cached_property
    def table(self) -> Table | None:
        """The table of true accuracies that the configuration names (`search.table`), read once, or None.

        Raises:
            UsageError: it cannot be read, lacks the column, or is one of another space.
        """
        return open_table(self.config)

    @property
    def data_record(self) -> DataRecord | None:
        """The record of the data that the run was made on, which the network's file keeps, too."""
        from gdas_tf.networks.model_file import read_model_record
        from gdas_tf.runs.data_record import read_record

        return read_record(self.run) or read_model_record(self.run.file("model.keras"))

    def _load_data(self) -> DataSet:
        try:
            return load_data(self.config)
        except UsageError as error:
            name, made_in = self.config.data.name, self.run.made_in
            # os.path, as pathlib raises an error about names that are too long to be one.
            if made_in is None or os.path.exists(name) or not os.path.exists(made_in / name):
                raise
            raise UsageError(
                f"data {name}: there is no such file or folder in the current folder, {Path.cwd()}; the path "
                f"is relative to where run directory {self.run.path} was made, {made_in}; go on with it there"
            ) from error


def load_data(config: Config) -> DataSet:
    """Returns the data set of a configuration.

    Raises:
        UsageError: there is no such data set, or it is damaged.
        RunError: it cannot be downloaded, or the cache cannot be written.
    """
    start_tensorflow()
    from gdas_tf.data.dataset import load_dataset
    from gdas_tf.preflight import check_class_names

    data = config.data
    loaded = load_dataset(
        data.name,
        data_dir=data.data_dir,
        cache_dir=data.cache_dir,
        image_size=data.image_size,
        image_channels=data.image_channels,
        test_fraction=data.test_fraction,
        train_images=data.train_images,
        seed=config.seed,
    )
    check_class_names(loaded)
    return loaded


@contextlib.contextmanager
def begin(directory: str | Path, config: Config, *, command: Sequence[str] = ()) -> Iterator[Job]:
    """Makes a run directory, holds it, and gives its job.

    The data are loaded before the run directory is made, so that a mistake in their name leaves nothing
    behind. What the block raises as a `UsageError` before the first epoch leaves nothing behind either.

    Args:
        directory: where to make the run directory: a new or an empty folder.
        config: its configuration.
        command: the command line, without the program's name, that `versions.json` is to record.

    Raises:
        UsageError: there is something in `directory` already, or the data cannot be loaded.
        RunError: the run directory cannot be written.

    Example:
        >>> with begin("runs/digits", Config.preset("quick")) as job:
        ...     run_search(job)["epochs"]
    """
    if not is_chief(config):
        with own_copy(None, config) as run, run.lock():
            distribution = start_distribution(config, resume=False)
            yield Job(run, command=command, distribution=distribution)
        return
    Run.check_free(directory)
    was_there = Run(directory, config).path.exists()
    distribution = start_distribution(config, resume=False)
    data = load_data(config)
    run = Run.create(directory, config)
    with run.lock():
        try:
            yield Job(run, data=data, command=command, distribution=distribution)
        except UsageError:
            # Nothing was computed yet: the run, put right, shall not find its place taken.
            if not run.begun("search") and not run.begun("retrain"):
                shutil.rmtree(run.path, ignore_errors=True)
                if was_there:
                    run.path.mkdir(exist_ok=True)
            raise


@contextlib.contextmanager
def go_on(
    run: Run | str | Path,
    config: Config | None = None,
    *,
    resume: bool = False,
    accept_changed_data: bool = False,
    command: Sequence[str] = (),
    trains: bool = False,
) -> Iterator[Job]:
    """Opens a run directory, holds it, and gives its job.

    Args:
        run: the run directory, or its path.
        config: its configuration from now on; by default the one that it has.
        resume, accept_changed_data, command: as of `Job`.
        trains: whether the job is divided over devices and machines as the configuration says.

    Raises:
        UsageError: there is no run directory, it is in use, or a stage that has begun had another
            configuration.

    Example:
        >>> with go_on("runs/digits", resume=True) as job:
        ...     run_all(job)
    """
    run = run if isinstance(run, Run) else Run.open(run)
    wanted = config or run.config
    with contextlib.ExitStack() as stack:
        if trains and not is_chief(wanted):
            run = stack.enter_context(own_copy(run, wanted))
        stack.enter_context(run.lock())
        distribution = start_distribution(wanted, resume) if trains else None
        before = run.config
        if wanted != before:
            run.set_config(wanted)
        job = Job(
            run,
            resume=resume,
            accept_changed_data=accept_changed_data,
            command=command,
            distribution=distribution,
        )
        job.config_before = before
        yield job


@contextlib.contextmanager
def begin_or_go_on(directory: str | Path, config: Config, patience: float = 0.0) -> Iterator[Job]:
    """Makes a run directory or opens the one that is there, holds it, and gives its job, which resumes.

    Args:
        directory: of the run.
        config: its configuration.
        patience: seconds to wait for a process that holds the run directory and is about to end.

    Raises:
        UsageError: as of `begin` and `go_on`, or the configuration divides the run over devices.
        RunError: as of `begin`.
    """
    if config.distribution.kind != "none":
        raise UsageError(
            f"distribution.kind: found {config.distribution.kind}; the runs of studies and tunings are not "
            "divided, as its workers take whole ones; accepted is none"
        )
    deadline = time.monotonic() + patience
    while True:
        with contextlib.ExitStack() as stack:
            try:
                if is_run_directory(directory):
                    job = stack.enter_context(go_on(directory, config, resume=True))
                else:
                    job = stack.enter_context(begin(directory, config))
                    job.resume = True
            except UsageError as error:
                if "another process is using it" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(1.0)
                continue
            yield job
            return

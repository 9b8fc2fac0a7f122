"""A job: the run directory and the data that a subcommand works on."""

from __future__ import annotations

import argparse
import contextlib
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdas_tf.cli.console import import_tensorflow, progress_on_stderr, say
from gdas_tf.cli.options import DEFAULT_PRESET, resolve_config, run_directory
from gdas_tf.config.sections import Config
from gdas_tf.errors import UsageError
from gdas_tf.runs.run import Run, is_run_directory

if TYPE_CHECKING:
    from gdas_tf.data.dataset import DataSet
    from gdas_tf.data.identity import DataRecord


class Job:
    """What the stages of one command share.

    Args:
        run: the run directory.
        resume: go on with a search or retraining that was stopped.
        data: the data set, if it is loaded already.
        arguments: the command line, to be recorded.
        accept_changed_data: measure on images that were not trained on if the data have changed; None if the
            subcommand has no such option.
    """

    def __init__(
        self,
        run: Run,
        resume: bool = False,
        data: DataSet | None = None,
        arguments: Sequence[str] = (),
        accept_changed_data: bool | None = None,
    ) -> None:
        self.run = run
        self.resume = resume
        self.arguments = list(arguments)
        self.accept_changed_data = accept_changed_data
        self.about_data: dict[str, Any] = {}
        self.config_before: Config | None = None  # where a command changed it
        if data is not None:
            self.data = data

    @property
    def config(self) -> Config:
        return self.run.config

    def record(self) -> None:
        """Records the command line, once; stages call it when they are sure that they may write."""
        if self.arguments:
            self.run.record_command(self.arguments)
            self.arguments = []

    @cached_property
    def data(self) -> DataSet:
        """The data set of the configuration, loaded once and compared with the record in the run directory.

        `about_data` is then what results say of a change that was accepted.
        """
        from gdas_tf.runs.data_record import has_begun

        data = load_data(self.config)
        if not has_begun(self.run):
            return data
        record = self.data_record
        if record is None:
            say(
                f"run directory {self.run.path}: it keeps no record of its data, as older versions made it; "
                "it cannot be checked that the data are as they were"
            )
            return data
        advice = "bring the data back as they were, or "
        if self.accept_changed_data is not None:
            advice += "measure on the images that were not trained on by --accept-changed-data"
        elif self.run.finished("retrain"):
            advice += "measure on the images that were not trained on by gdas-tf evaluate and export with "
            advice += "--accept-changed-data"
        else:
            advice += "begin another run directory"
        owner = f"run directory {self.run.path}"
        accept = bool(self.accept_changed_data)
        data, self.about_data = compared(data, record, owner, accept, advice)
        return data

    @property
    def data_record(self) -> DataRecord | None:
        """The record of the data that the run was made on, which the network's file keeps, too."""
        from gdas_tf.networks.model_file import read_model_record
        from gdas_tf.runs.data_record import read_record

        return read_record(self.run) or read_model_record(self.run.file("model.keras"))


def compared(
    data: DataSet, record: DataRecord, owner: str, accept: bool, advice: str
) -> tuple[DataSet, dict[str, Any]]:
    """Returns the data set to measure a network on, and what the result says of a change of the data.

    Args:
        data: the data set as it is today.
        record: of the data that the network was made on.
        owner: what the record belongs to, for messages.
        accept: measure on what was not trained on, if the data have changed.
        advice: what to do about a change, for the message.

    Raises:
        UsageError: classes, image shape, seed or fraction are others; or the images are, and `accept` is
            false.
    """
    from gdas_tf.data.identity import check_network_fits, check_same_draw, describe_change, untrained_part

    check_network_fits(record, data, owner)
    check_same_draw(record, data, owner)
    change = describe_change(record, data)
    if change is None:
        return data, {}
    if not accept:
        raise UsageError(f"data {data.name}: it is not what {owner} was made on: {change}; {advice}")
    data = untrained_part(record, data)
    say(
        f"data {data.name}: it is not what {owner} was made on: {change}; measured are the {len(data.test)} "
        "images that it was not trained on"
    )
    return data, {"data_change": change}


def load_data(config: Config) -> DataSet:
    """Returns the data set of a configuration.

    Raises:
        UsageError: there is no such data set, or it is damaged.
    """
    import_tensorflow()
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
        seed=config.seed,
    )
    check_class_names(loaded)
    return loaded


@contextlib.contextmanager
def new_job(args: argparse.Namespace) -> Iterator[Job]:
    """Gives the job of a command that begins a run, or goes on with one by `--resume`.

    The data are loaded before the run directory is made, so that a mistake in their name leaves nothing
    behind. What libraries print goes to stderr.

    Raises:
        UsageError: the run directory exists (without `--resume`), is in use, or has another configuration.
    """
    directory = run_directory(args)
    if directory is None:
        directory = _default_directory(args)
    if args.resume and is_run_directory(directory):
        with open_job(args, directory) as job:
            yield job
        return
    config = resolve_config(args)
    Run.check_free(directory)
    was_there = Path(directory).exists()
    with progress_on_stderr():
        data = load_data(config)
        run = Run.create(directory, config)
        with run.lock():
            try:
                yield _begin(args, run, data)
            except UsageError:
                # Nothing was computed yet: the command, put right, shall not find its place taken.
                if not run.begun("search") and not run.begun("retrain"):
                    shutil.rmtree(run.path, ignore_errors=True)
                    if was_there:
                        run.path.mkdir(exist_ok=True)
                raise


@contextlib.contextmanager
def open_job(args: argparse.Namespace, directory: str | Path) -> Iterator[Job]:
    """Gives the job of a command that works on an existing run directory.

    Raises:
        UsageError: there is none, it is in use, or a finished stage had another configuration.
    """
    run = Run.open(directory)
    config = resolve_config(args, run.config)
    with progress_on_stderr(), run.lock():
        before = run.config
        if config != before:
            run.set_config(config)
        job = _begin(args, run)
        job.config_before = before
        yield job


def _begin(args: argparse.Namespace, run: Run, data: DataSet | None = None) -> Job:
    resume = getattr(args, "resume", None)
    again = ["gdas-tf", args.command, str(run.path)] + (["--resume"] if resume is not None else [])
    args.go_on_with = shlex.join(again)
    args.kept_in = None if resume is None else str(run.path)
    accept = getattr(args, "accept_changed_data", None)
    return Job(run, bool(resume), data, args.arguments, accept)


def _default_directory(args: argparse.Namespace) -> Path:
    """Returns `runs/<data>-<preset>`, numbered when it is taken; to resume, the latest of them."""
    data = Path(resolve_config(args).data.name).stem
    configuration = Path(args.config).stem if args.config else args.preset or DEFAULT_PRESET
    first = Path("runs") / re.sub(r"[^A-Za-z0-9_.]+", "-", f"{data}-{configuration}").strip("-.")
    path, latest, number = first, None, 1
    while path.exists():
        latest, number = path, number + 1
        path = first.with_name(f"{first.name}-{number}")
    if not args.resume:
        return path
    if latest is None:
        raise UsageError(f"run directory: there is none to resume at {first}; name one")
    say(f"resuming {latest}")
    return latest

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
from typing import TYPE_CHECKING

from gdas_tf.cli.console import import_tensorflow, progress_on_stderr, say
from gdas_tf.cli.options import DEFAULT_PRESET, resolve_config, run_directory
from gdas_tf.config import Config
from gdas_tf.errors import UsageError
from gdas_tf.runs import Run, is_run_directory

if TYPE_CHECKING:
    from gdas_tf.data import DataSet


class Job:
    """What the stages of one command share.

    Args:
        run: the run directory.
        resume: go on with a search or retraining that was stopped.
        data: the data set, if it is loaded already.
        arguments: the command line, to be recorded.
    """

    def __init__(
        self, run: Run, resume: bool = False, data: DataSet | None = None, arguments: Sequence[str] = ()
    ) -> None:
        self.run = run
        self.resume = resume
        self.arguments = list(arguments)
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
        """The data set of the configuration, loaded once."""
        return load_data(self.config)


def load_data(config: Config) -> DataSet:
    """Returns the data set of a configuration.

    Raises:
        UsageError: there is no such data set, or it is damaged.
    """
    import_tensorflow()
    from gdas_tf.data import load_dataset
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
    return Job(run, bool(resume), data, args.arguments)


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

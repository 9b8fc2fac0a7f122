"""The job of a subcommand: its run directory and configuration, as the arguments say."""

from __future__ import annotations

import argparse
import contextlib
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdas_tf import pipeline
from gdas_tf.cli.console import progress_on_stderr, say
from gdas_tf.cli.options import DEFAULT_PRESET, resolve_config, run_directory
from gdas_tf.errors import UsageError
from gdas_tf.files import is_run_directory
from gdas_tf.runs.run import Run

if TYPE_CHECKING:
    from gdas_tf.config.config import Config
    from gdas_tf.data.dataset import DataSet
    from gdas_tf.data.identity import DataRecord
    from gdas_tf.pipeline import Job


@contextlib.contextmanager
def new_job(args: argparse.Namespace) -> Iterator[Job]:
    """Gives the job of a command that begins a run, or goes on with one by `--resume`.

    What libraries print goes to stderr.

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
    with progress_on_stderr(), pipeline.begin(directory, config, command=args.arguments) as job:
        job.resume = args.resume
        _remember(args, job, directory)
        yield job


@contextlib.contextmanager
def open_job(args: argparse.Namespace, directory: str | Path) -> Iterator[Job]:
    """Gives the job of a command that works on an existing run directory.

    Raises:
        UsageError: there is none, it is in use, or a finished stage had another configuration.
    """
    run = Run.open(directory)
    how = {
        "resume": getattr(args, "resume", False),
        "accept_changed_data": getattr(args, "accept_changed_data", False),
        "command": args.arguments,
        "trains": hasattr(args, "resume"),
    }
    with progress_on_stderr(), pipeline.go_on(run, resolve_config(args, run.config), **how) as job:
        _remember(args, job, directory)
        yield job


def load_data_of(
    args: argparse.Namespace, records: Mapping[str, DataRecord | None]
) -> tuple[Config, DataSet, dict[str, Any]]:
    """Loads the data set to measure the networks of lone files on, read and divided as these files say.

    Seed, fraction of test images, image size and channels come from the files, unless options give them.

    Args:
        args: parsed arguments of the subcommand.
        records: what each file says of the data that its network was made on, by what to call the file.

    Returns:
        The configuration, the data set, and what the result says of a change that `--accept-changed-data`
        accepted.

    Raises:
        UsageError: the data are not those of the files, or the files are of different data.
    """
    record = pipeline.common_record(records)
    config = resolve_config(args, carried=record.identity.options if record else None)
    data = pipeline.load_data(config)
    accept = getattr(args, "accept_changed_data", None)
    return config, *pipeline.data_of_networks(data, records, accept)


def _remember(args: argparse.Namespace, job: Job, directory: str | Path) -> None:
    """Notes for the end of the command, however it ends, what it worked on and how to go on with it."""
    resumable = hasattr(args, "resume")
    again = ["gdas-tf", args.command, str(directory)] + (["--resume"] if resumable else [])
    args.job, args.go_on_with = job, shlex.join(again)
    args.kept_in = str(directory) if resumable else None


def _default_directory(args: argparse.Namespace) -> Path:
    """Returns `runs/<data>-<preset>`, numbered when it is taken; to resume, the latest of them."""
    first = Path("runs", default_name(args))
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


def default_name(args: argparse.Namespace) -> str:
    """Returns `<data>-<preset>`, as what has no name of its own is called."""
    data = Path(resolve_config(args).data.name).stem
    configuration = Path(args.config).stem if args.config else args.preset or DEFAULT_PRESET
    return re.sub(r"[^A-Za-z0-9_.]+", "-", f"{data}-{configuration}").strip("-.")

"""`gdas-tf retrain`: a genotype to a trained network."""

from __future__ import annotations

import argparse
from typing import Any

from gdas_tf import pipeline
from gdas_tf.cli import options
from gdas_tf.cli.console import print_result, say, table
from gdas_tf.cli.job import new_job, open_job
from gdas_tf.durations import duration
from gdas_tf.errors import UsageError
from gdas_tf.files import is_run_directory

_DESCRIPTION = """\
Trains the network built of a genotype from scratch, on all training images. The genotype is that of the run
directory, or any other: a file, a published one by name (gdas-tf zoo lists them), or its text in the short
notation. With --network, a network that is built of no genotype is trained. In a new run directory nothing
is searched."""

_EXAMPLES = """\
  gdas-tf retrain runs/digits-quick
  gdas-tf retrain runs/digits-quick --resume         after Ctrl-C, a kill or a crash
  gdas-tf retrain --genotype GDAS_V1 --preset small --data-dir ~/tensorflow_datasets
  gdas-tf retrain --genotype NASNet-A --data photos/ --data-image-size 32 --run-dir runs/nasnet
  gdas-tf retrain --network resnet20 --run-dir runs/resnet20
  gdas-tf retrain runs/digits-quick --retrain-validation 0.1 --retrain-keep best --retrain-patience 20
  gdas-tf retrain runs/transfer --genotype runs/c10/genotype.json --data photos/ --data-image-size 64
"""


def add_parser(subparsers: Any) -> None:
    """Adds the subcommand's options."""
    parser = options.add_command(subparsers, "retrain", "RUN_DIR", _DESCRIPTION, _EXAMPLES)
    options.add_run_directory(
        parser, "run directory with a genotype; with --genotype or --network, also a new one"
    )
    options.add_what_to_train(parser, "genotype to train, in place of the run's")
    options.add_resume(parser, "a retraining")
    options.add_config(parser, "data", "retrain", "distribution", fields=("search.space",))
    options.add_common(parser)


def main(args: argparse.Namespace) -> int:
    """Retrains."""
    if options.print_config(args):
        return 0
    directory = options.run_directory(args)
    genotype = options.genotype_to_train(args)
    existing = directory is not None and is_run_directory(directory)
    if not existing and genotype is None and pipeline.takes_genotype(options.resolve_config(args)):
        if directory is None:
            raise UsageError("retrain: give a run directory, --genotype FILE|NAME|TEXT, or --network NAME")
        raise UsageError(
            f"run directory {directory}: there is none; make it by gdas-tf search, or give --genotype "
            "or --network"
        )
    with open_job(args, directory) if existing else new_job(args) as job:
        if not job.run.finished("retrain"):
            pipeline.check_before_start(job, ["retrain"], genotype or pipeline.genotype_of_network(job.run))
        if genotype is not None:
            pipeline.give_genotype(job.run, genotype)
        result = pipeline.run_retraining(job)
    if not job.chief:
        say("done; the chief has the run directory")
        return 0
    directory = str(job.run.path)
    rows: list[tuple[str, str] | None] = [
        ("epochs", f"{result['epochs']} in {duration(result['seconds'])}"),
        ("accuracy", f"{result['accuracy']:.2%} of the training images"),
        *_of_validation(result),
        ("next", f"gdas-tf evaluate {directory}"),
        None,
        *((path, "") for path in result["files"].values()),
    ]
    print_result(args.json, {"run_directory": directory, **result}, table(rows))
    return 0


def _of_validation(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Rows on the validation part, if there was one."""
    if "val_loss" not in result:
        return []
    rows = [
        ("kept", f"epoch {result['kept_epoch']}"),
        ("validation", f"{result['val_accuracy']:.2%}, loss {result['val_loss']:.4f} in that epoch"),
    ]
    if result["ended_early"]:
        rows.append(("ended early", "no lower validation loss for --retrain-patience epochs"))
    return rows

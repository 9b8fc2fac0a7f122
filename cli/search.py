"""`gdas-tf search`: the first stage."""

from __future__ import annotations

import argparse
from typing import Any

from gdas_tf import pipeline
from gdas_tf.cli import options
from gdas_tf.cli.console import print_result, say, table, warn
from gdas_tf.cli.job import new_job
from gdas_tf.durations import duration

_DESCRIPTION = """\
Trains the supernet: one half of the training images trains its weights, the other half the logits of the
operations. Leaves the logits of every epoch in the run directory, for gdas-tf derive."""

_EXAMPLES = """\
  gdas-tf search                                     digits, preset quick
  gdas-tf search runs/c10 --preset small --data-dir ~/tensorflow_datasets
  gdas-tf search runs/frc --search-reduction fixed --search-sampler direct
  gdas-tf search runs/c10 --resume                   after Ctrl-C, a kill or a crash
"""


def add_parser(subparsers: Any) -> None:
    """Adds the subcommand's options."""
    parser = options.add_command(subparsers, "search", "RUN_DIR", _DESCRIPTION, _EXAMPLES)
    options.add_run_directory(parser, "where to put everything [runs/DATA-PRESET]")
    options.add_resume(parser, "a search")
    options.add_config(parser, "data", "search", "distribution")
    options.add_common(parser)


def main(args: argparse.Namespace) -> int:
    """Searches."""
    if options.print_config(args):
        return 0
    with new_job(args) as job:
        pipeline.check_before_start(job, [] if job.run.finished("search") else ["search"])
        result = pipeline.run_search(job)
    if not job.chief:
        say("done; the chief has the run directory")
        return 0
    directory = str(job.run.path)
    rows: list[tuple[str, str] | None] = [
        ("epochs", f"{result['epochs']} in {duration(result['seconds'])}"),
    ]
    if result["accuracy"] is not None:
        rows.append(("accuracy", f"{result['accuracy']:.2%} where weights learn"))
    if result["architecture_accuracy"] is not None:
        rows.append(("", f"{result['architecture_accuracy']:.2%} where the architecture learns"))
    if result["best_loss"] is not None:
        rows.append(("best loss", f"{result['best_loss']:.4f} on the images that candidates are judged by"))
    if entropy := result["normal_entropy"]:
        rows.append(("entropy", f"{entropy[0]:.3f} -> {entropy[1]:.3f} nats per edge of the normal cell"))
    rows += [
        ("next", f"gdas-tf derive {directory}"),
        None,
        *((path, "") for path in result["files"].values()),
    ]
    warn(result["warnings"])
    print_result(args.json, {"run_directory": directory, **result}, table(rows))
    return 0

"""`gdas-tf evaluate`: a trained network on the test images."""

from __future__ import annotations

import argparse
from typing import Any

from gdas_tf import pipeline
from gdas_tf.cli import options
from gdas_tf.cli.console import print_result, progress_on_stderr, table
from gdas_tf.cli.job import load_data_of, open_job
from gdas_tf.errors import UsageError

_DESCRIPTION = """\
Measures loss and accuracy of a trained network on the test images, which neither search nor retraining has
seen. A .keras file is measured on the data set that --data names, divided as the file says. Data that are
not those of the training are refused."""

_EXAMPLES = """\
  gdas-tf evaluate runs/digits-quick
  gdas-tf evaluate runs/digits-quick/model.keras --data digits
  gdas-tf evaluate runs/digits-quick --json
"""


def add_parser(subparsers: Any) -> None:
    """Adds the subcommand's options."""
    parser = options.add_command(subparsers, "evaluate", "RUN_DIR|MODEL.keras", _DESCRIPTION, _EXAMPLES)
    options.add_run_directory(parser, "run directory with a trained network", "MODEL.keras")
    options.add_accept_changed_data(parser)
    options.add_config(parser, "data")
    options.add_common(parser)


def main(args: argparse.Namespace) -> int:
    """Evaluates."""
    if options.print_config(args):
        return 0
    from gdas_tf.networks.model_file import read_model_record

    target = options.run_directory(args)
    if target is None:
        raise UsageError("evaluate: give a run directory or a MODEL.keras")
    if target.endswith(".keras"):
        with progress_on_stderr():
            model = pipeline.load_model(target)
            config, data, about_data = load_data_of(args, {f"model {target}": read_model_record(target)})
            result = {"model": target, **pipeline.evaluate_network(model, data, config), **about_data}
    else:
        with open_job(args, target) as job:
            result = {"run_directory": target, **pipeline.run_evaluation(job)}
    rows: list[tuple[str, str] | None] = [
        ("test accuracy", f"{result['accuracy']:.2%} of {result['images']} images"),
        ("test loss", f"{result['loss']:.4f}"),
        ("parameters", f"{result['parameters']:,}"),
    ]
    print_result(args.json, result, table(rows))
    return 0

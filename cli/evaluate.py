"""`gdas-tf evaluate`: a trained network on the test images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gdas_tf import pipeline
from gdas_tf.cli import options
from gdas_tf.cli.console import print_result, progress_on_stderr, table
from gdas_tf.cli.job import load_data_of, open_job
from gdas_tf.errors import UsageError

_DESCRIPTION = """\
Measures loss, accuracy, balanced accuracy and the confusion matrix of a trained network on the test images,
which neither search nor retraining has seen. The matrix is drawn in the run directory, and stands in --json.
A .keras file is measured on the data set that --data names, divided as the file says. Data that are not those
of the training are refused."""

_EXAMPLES = """\
  gdas-tf evaluate runs/digits-quick
  gdas-tf evaluate runs/digits-quick/model.keras --data digits --confusion confusion.svg
  gdas-tf evaluate runs/digits-quick --json
"""


def add_parser(subparsers: Any) -> None:
    """Adds the subcommand's options."""
    parser = options.add_command(subparsers, "evaluate", "RUN_DIR|MODEL.keras", _DESCRIPTION, _EXAMPLES)
    options.add_run_directory(parser, "run directory with a trained network", "MODEL.keras")
    options.add_accept_changed_data(parser)
    parser.add_argument(
        "--confusion", metavar="FILE", help="also draw the confusion matrix to this file, .png or .svg"
    )
    options.add_config(parser, "data")
    options.add_common(parser)


def main(args: argparse.Namespace) -> int:
    """Evaluates."""
    if options.print_config(args):
        return 0
    from gdas_tf.networks.model_file import read_model_record

    if args.confusion and Path(args.confusion).suffix not in (".png", ".svg"):
        raise UsageError(f"--confusion {args.confusion}: a picture is a .png or an .svg file")
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
    if args.confusion:
        pipeline.draw_evaluation(result, Path(args.confusion))
        result["files"] = {**result.get("files", {}), "confusion": args.confusion}
    print_result(args.json, result, table(_rows(result)))
    return 0


def _rows(result: dict[str, Any]) -> list[tuple[str, str] | None]:
    name, accuracy, images = pipeline.lowest_class(result)
    rows: list[tuple[str, str] | None] = [
        ("test accuracy", f"{result['accuracy']:.2%} of {result['images']} images"),
        *([("top-5 accuracy", f"{result['top5_accuracy']:.2%}")] if "top5_accuracy" in result else []),
        ("balanced accuracy", f"{result['balanced_accuracy']:.2%}, mean of the classes"),
        ("lowest class", f"{name}, {accuracy:.2%} of {images}"),
    ]
    if confused := pipeline.most_confused(result):
        rows.append(("most confused", f"{confused[0]} taken for {confused[1]}, {confused[2]} images"))
    rows += [("test loss", f"{result['loss']:.4f}"), ("parameters", f"{result['parameters']:,}")]
    if files := result.get("files"):
        rows += [None, *((path, "") for path in files.values())]
    return rows

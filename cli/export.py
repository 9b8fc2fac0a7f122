"""`gdas-tf export`: a trained network to files that are served."""

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
Writes SavedModel and ONNX (other formats by --export-formats), and compares each with the trained network on
the test images: an export that differs by more than the tolerance, or in one predicted class, fails."""

_EXAMPLES = """\
  gdas-tf export runs/digits-quick
  gdas-tf export runs/digits-quick --export-formats onnx,onnx_int8,tflite
  gdas-tf export runs/digits-quick/model.keras --data digits --output exported
"""


def add_parser(subparsers: Any) -> None:
    """Adds the subcommand's options."""
    parser = options.add_command(subparsers, "export", "RUN_DIR|MODEL.keras", _DESCRIPTION, _EXAMPLES)
    options.add_run_directory(parser, "run directory with a trained network", "MODEL.keras")
    parser.add_argument(
        "--output", metavar="FOLDER", help="with MODEL.keras: where to put the files [export]"
    )
    parser.add_argument(
        "--genotype", metavar="FILE|NAME|TEXT", help="with MODEL.keras: genotype to note in the ONNX file"
    )
    options.add_accept_changed_data(parser)
    options.add_config(parser, "data", "export")
    options.add_common(parser)


def main(args: argparse.Namespace) -> int:
    """Exports."""
    if options.print_config(args):
        return 0
    from gdas_tf.networks.model_file import read_model_record

    target = options.run_directory(args)
    if target is None:
        raise UsageError("export: give a run directory or a MODEL.keras")
    if target.endswith(".keras"):
        with progress_on_stderr():
            genotype = pipeline.parse_genotype(args.genotype) if args.genotype else None
            model = pipeline.load_model(target)
            record = read_model_record(target)
            config, data, about_data = load_data_of(args, {f"model {target}": record})
            folder, identity = Path(args.output or "export"), record.identity if record else None
            result = pipeline.export_network(model, data, folder, config, genotype, identity)
            result = {"model": target, **result, **about_data}
    elif args.output or args.genotype:
        raise UsageError(f"export: --output and --genotype go with a MODEL.keras; {target} has its own")
    else:
        with open_job(args, target) as job:
            result = {"run_directory": target, **pipeline.run_export(job)}
    from gdas_tf.export.exporter import format_verification

    files = table([(name, path) for name, path in result["files"].items()])
    print_result(args.json, result, f"{format_verification(result)}\n\n{files}")
    return 0

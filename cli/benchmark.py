"""`gdas-tf benchmark`: how fast ONNX files are."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdas_tf import pipeline
from gdas_tf.cli import options
from gdas_tf.cli.console import print_result, progress_on_stderr
from gdas_tf.cli.job import load_data_of, open_job
from gdas_tf.errors import UsageError
from gdas_tf.files import is_run_directory, write_json

if TYPE_CHECKING:
    from gdas_tf.data.identity import DataRecord

_DESCRIPTION = """\
Measures latency (p50, p95, p99) and throughput of ONNX image classifiers with onnxruntime, by batch size and
threads. Several files, ours or anybody's, take turns, so that a machine's drift hits all alike. With --data,
their accuracy on its test images, too."""

_EXAMPLES = """\
  gdas-tf benchmark runs/digits-quick
  gdas-tf benchmark model.onnx --benchmark-batch-sizes 1,16 --benchmark-threads 1,2
  gdas-tf benchmark a.onnx b.onnx --data digits --output comparison.json --picture comparison.png
"""


def add_parser(subparsers: Any) -> None:
    """Adds the subcommand's options."""
    parser = options.add_command(subparsers, "benchmark", "RUN_DIR|MODEL.onnx …", _DESCRIPTION, _EXAMPLES)
    parser.add_argument(
        "targets", nargs="*", metavar="RUN_DIR|MODEL.onnx", help="run directory with an export, or ONNX files"
    )
    parser.add_argument("--run-dir", metavar="RUN_DIR", help="the run directory, as an option")
    group = parser.add_argument_group("results of files (those of a run directory go there)")
    group.add_argument("--output", metavar="FILE", help="write the result, as .json or as .csv")
    group.add_argument("--picture", metavar="FILE", help="draw the result, as .png or as .svg")
    options.add_config(parser, "data", "benchmark")
    options.add_common(parser)


def main(args: argparse.Namespace) -> int:
    """Measures."""
    targets = [*args.targets, *([args.run_dir] if args.run_dir else [])]
    args.directory = targets[0] if len(targets) == 1 and is_run_directory(targets[0]) else None
    if options.print_config(args):
        return 0
    if not targets:
        raise UsageError("benchmark: give a run directory or ONNX files")
    from gdas_tf.export.benchmark import draw_benchmark, format_table, write_csv

    _check_suffix("--output", args.output, (".json", ".csv"))
    _check_suffix("--picture", args.picture, (".png", ".svg"))
    if args.directory:
        if args.output or args.picture:
            raise UsageError(f"benchmark: --output and --picture go with files; {args.directory} has its own")
        with open_job(args, args.directory) as job:
            result = pipeline.run_benchmark(job)
    else:
        with progress_on_stderr():
            if "data.name" in args:
                config, data, _ = load_data_of(args, _records(targets))
            else:
                config, data = options.resolve_config(args), None
            result = pipeline.measure_files([Path(target) for target in targets], config, data)
    # Before anything is written: if that fails, the figures are not lost.
    print_result(args.json, result, format_table(result))
    if args.output and args.output.lower().endswith(".csv"):
        write_csv(result, args.output)
    elif args.output:
        write_json(args.output, result)
    if args.picture:
        draw_benchmark(result, args.picture)
    return 0


def _records(files: Sequence[str]) -> dict[str, DataRecord | None]:
    """Returns what ONNX files say of the data that their networks were made on, by what to call the file."""
    from gdas_tf.data.identity import DataRecord, onnx_identity

    identities = {f"model {file}": onnx_identity(file) for file in files}
    return {owner: DataRecord(identity) if identity else None for owner, identity in identities.items()}


def _check_suffix(option: str, file: str | None, accepted: tuple[str, ...]) -> None:
    """Finds a file that could not be written in its format before anything is measured.

    Raises:
        UsageError: its suffix is none of those accepted.
    """
    if file is not None and Path(file).suffix.lower() not in accepted:
        raise UsageError(f"{option}: found {file}; accepted is a name that ends in {' or '.join(accepted)}")

"""`gdas-tf draw`: pictures of cells and curves."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gdas_tf import pipeline
from gdas_tf.cli import options
from gdas_tf.cli.console import print_result
from gdas_tf.errors import UsageError
from gdas_tf.files import is_run_directory
from gdas_tf.runs.run import Run

_DESCRIPTION = """\
Draws the cells of a genotype as PNG and SVG, and of a run also its curves: accuracy and loss, temperature and
entropy, the share of each operation over time. Works on a run that is still going on."""

_EXAMPLES = """\
  gdas-tf draw runs/digits-quick
  gdas-tf draw GDAS_V1 --output pictures
  gdas-tf draw --genotype NASNet-A
  gdas-tf draw runs/digits-quick/genotype.json --output .
"""


def add_parser(subparsers: Any) -> None:
    """Adds the subcommand's options."""
    parser = options.add_command(subparsers, "draw", "RUN_DIR|GENOTYPE", _DESCRIPTION, _EXAMPLES)
    options.add_run_directory(parser, "run directory, or a genotype: its file, name or text", "GENOTYPE")
    parser.add_argument("--genotype", metavar="FILE|NAME|TEXT", help="the genotype, as an option")
    parser.add_argument(
        "--output", metavar="FOLDER", help="where to put the pictures of a genotype [pictures]"
    )
    options.add_common(parser)


def main(args: argparse.Namespace) -> int:
    """Draws."""
    target = options.run_directory(args)
    if (target is None) == (args.genotype is None):
        raise UsageError("draw: give a run directory or a genotype, and one of them")
    if target is not None and is_run_directory(target):
        if args.output:
            raise UsageError(
                f"draw: --output goes with a genotype; those of {target} go to its folder pictures"
            )
        result = pipeline.run_drawing(pipeline.Job(Run.open(target)))
    else:
        genotype = pipeline.parse_genotype(args.genotype or target)
        pictures = pipeline.draw_cells(genotype, Path(args.output or "pictures"))
        result = {"files": {path.name: str(path) for path in pictures}}
    print_result(args.json, result, "\n".join(result["files"].values()))
    return 0

"""`gdas-tf lookup`: the true accuracy of a cell, from a table of all cells."""

from __future__ import annotations

import argparse
from typing import Any

from gdas_tf import pipeline
from gdas_tf.cli import options
from gdas_tf.cli.console import print_result, table
from gdas_tf.errors import UsageError
from gdas_tf.files import is_run_directory
from gdas_tf.runs.run import Run

_DESCRIPTION = """\
Looks a genotype up in a table of the accuracies of all cells of a search space, as that of NAS-Bench-201: a
CSV file with a column `cell` and columns of accuracies in percent. Prints the accuracies, the rank of the
cell among all (1 is the best), and how many percent of the other cells are worse."""

_EXAMPLES = """\
  gdas-tf lookup "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|nor_conv_3x3~2|" \\
      --table nb201.csv
  gdas-tf lookup runs/nb201 --table nb201.csv --column c100_test_200
  gdas-tf lookup runs/nb201                      with the table of --search-table
"""


def add_parser(subparsers: Any) -> None:
    """Adds the subcommand's options."""
    parser = options.add_command(subparsers, "lookup", "RUN_DIR|GENOTYPE", _DESCRIPTION, _EXAMPLES)
    options.add_run_directory(parser, "run directory, or a genotype: its file, name or text", "GENOTYPE")
    parser.add_argument("--table", metavar="FILE.csv", help="the table [that of the run directory]")
    parser.add_argument(
        "--column", metavar="NAME", help="column to judge by [that of the run directory, else the first]"
    )
    options.add_common(parser)


def main(args: argparse.Namespace) -> int:
    """Looks up."""
    target = options.run_directory(args)
    if target is None:
        raise UsageError("lookup: give a run directory or a genotype")
    path, column = args.table, args.column
    if is_run_directory(target):
        run = Run.open(target)
        genotype = pipeline.read_genotype(run)
        path, column = path or run.config.search.table, column or run.config.search.table_column
    else:
        genotype = pipeline.parse_genotype(target)
    if path is None:
        raise UsageError("lookup: give the table, --table FILE.csv")
    result = pipeline.look_up(genotype, pipeline.Table.load(path), column)
    rows: list[tuple[str, str] | None] = [("cell", result["cell"])]
    if result["weights"] is not None:
        rows.append(("weights", f"{result['weights']:,}"))
    rows.append(None)
    for name, score in result["scores"].items():
        mark = " *" if name == result["column"] and len(result["scores"]) > 1 else ""
        rows.append((f"{name}{mark}", describe({**score, "cells": result["cells"]})))
    print_result(args.json, result, table(rows))
    return 0


def describe(score: dict[str, Any]) -> str:
    """Returns a line on the accuracy of a cell, its rank, and how many cells are worse."""
    return (
        f"{score['accuracy']:.2f} %, rank {score['rank']:,} of {score['cells']:,}, "
        f"better than {score['percentile']:.1f} % of the others"
    )

"""`gdas-tf derive`: what a search has found becomes a genotype."""

from __future__ import annotations

import argparse
from typing import Any

from gdas_tf import pipeline
from gdas_tf.cli import options
from gdas_tf.cli.console import print_result
from gdas_tf.cli.job import open_job
from gdas_tf.errors import UsageError

_DESCRIPTION = """\
Chooses the genotype from the logits of a search: of each node, the edges with the most probable operations,
or, with --derive-rule pairs, the most probable of all operations on all its edges. A strategy that has no
logits has found a genotype itself, and no rule or ranks change it. Prints the genotype in the short notation,
and writes it to the run directory."""

_EXAMPLES = """\
  gdas-tf derive runs/digits-quick
  gdas-tf derive runs/digits-quick --derive-ranks 3,4
  gdas-tf derive runs/digits-quick --derive-rule pairs --derive-ranks 3,4
  gdas-tf derive --logits runs/digits-quick/search/logits.npz --derive-ranks 2,3 --output other.json
"""

_SEARCHED = ("search.strategy", "search.space")
"""What a file of logits is of, beside its operations and nodes."""


def add_parser(subparsers: Any) -> None:
    """Adds the subcommand's options."""
    parser = options.add_command(subparsers, "derive", "RUN_DIR", _DESCRIPTION, _EXAMPLES)
    options.add_run_directory(parser, "run directory with a search")
    parser.add_argument(
        "--logits", metavar="FILE.npz", help="logits of a search, in place of a run directory"
    )
    parser.add_argument(
        "--output", metavar="FILE", help="with --logits: where to write the genotype, .json or .txt"
    )
    options.add_config(parser, "derive", fields=("search.operations", "search.nodes", *_SEARCHED))
    options.add_common(parser)


def main(args: argparse.Namespace) -> int:
    """Derives."""
    if options.print_config(args):
        return 0
    directory = options.run_directory(args)
    if (directory is None) == (args.logits is None):
        raise UsageError("derive: give a run directory, or --logits FILE.npz")
    if directory is None:
        genotype = pipeline.genotype_of_logits(args.logits, options.resolve_config(args))
        result: dict[str, Any] = {"genotype": genotype.to_text(), "files": {}}
        if args.output:
            genotype.save(args.output)
            result["files"] = {"genotype": args.output}
    elif args.output:
        raise UsageError(f"derive: --output goes with --logits; {directory} gets its genotype.json")
    else:
        with open_job(args, directory) as job:
            result = {"run_directory": str(job.run.path), **pipeline.run_derivation(job)}
    print_result(args.json, result, "\n".join([result["genotype"], *result["files"].values()]))
    return 0

"""`gdas-tf derive`: what a search has found becomes a genotype."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gdas_tf import pipeline
from gdas_tf.cli import options
from gdas_tf.cli.console import columns, print_result, warn
from gdas_tf.cli.job import open_job
from gdas_tf.cli.lookup import describe
from gdas_tf.errors import UsageError

_DESCRIPTION = """\
Chooses the genotype from the logits of a search: of each node, the edges with the most probable operations,
or, with --derive-rule pairs, the most probable of all operations on all its edges. A strategy that has no
logits has found a genotype itself, and no rule or ranks change it. Prints the genotype in the short notation,
of NAS-Bench-201 in that benchmark's, with how sure the search is of each edge, and writes it to the run
directory. With --search-table it prints the true accuracy, too."""

_EXAMPLES = """\
  gdas-tf derive runs/digits-quick
  gdas-tf derive runs/digits-quick --derive-ranks 3,4
  gdas-tf derive runs/digits-quick --derive-rule pairs --derive-ranks 3,4
  gdas-tf derive --logits runs/digits-quick/search/logits.npz --derive-ranks 2,3 --output other.json
"""

_SEARCHED = (
    "search.strategy",
    "search.space",
    "search.operations",
    "search.nodes",
    "search.table",
    "search.table_column",
)
"""What a file of logits is of, and the table of the true accuracies of its space."""


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
    options.add_config(parser, "derive", fields=_SEARCHED)
    options.add_common(parser)


def main(args: argparse.Namespace) -> int:
    """Derives."""
    if options.print_config(args):
        return 0
    directory = options.run_directory(args)
    if (directory is None) == (args.logits is None):
        raise UsageError("derive: give a run directory, or --logits FILE.npz")
    if directory is None:
        config = options.resolve_config(args)
        genotype = pipeline.genotype_of_logits(args.logits, config)
        certain = pipeline.how_certain(Path(args.logits), config, genotype)
        result: dict[str, Any] = {"genotype": genotype.to_text(), **certain, "files": {}}
        if (table := pipeline.open_table(config)) is not None:
            result["truth"] = pipeline.look_up(genotype, table, config.search.table_column)
        if args.output:
            genotype.save(args.output)
            result["files"] = {"genotype": args.output}
    elif args.output:
        raise UsageError(f"derive: --output goes with --logits; {directory} gets its genotype.json")
    else:
        with open_job(args, directory) as job:
            result = {"run_directory": str(job.run.path), **pipeline.run_derivation(job)}
    warn(result["warnings"])
    lines = [result["genotype"], *_edges(result["edges"]), *result["files"].values()]
    if truth := result.get("truth"):
        lines.append(f"true accuracy ({truth['column']}): {describe(truth)}")
    print_result(args.json, result, "\n".join(lines))
    return 0


def _edges(edges: dict[str, list[dict[str, Any]]]) -> list[str]:
    """The lines of a table of how sure the search is of each edge."""
    if not edges:
        return []
    rows = [("cell", "node", "input", "kept", "best", "second", "margin", "noise", "")]
    for kind, each in edges.items():
        for edge in each:
            rows.append(
                (
                    kind,
                    str(edge["node"]),
                    str(edge["input"]),
                    "yes" if edge["kept"] else "",
                    edge["best"],
                    edge["second"] or "-",
                    "-" if edge["margin"] is None else f"{edge['margin']:.4f}",
                    "-" if edge["noise"] is None else f"{edge['noise']:.4f}",
                    "coin flip" if edge["coin_flip"] else "none is better" * edge["none_is_best"],
                )
            )
    about = (
        "how sure the search is: the logit of the best operation less that of the second (margin), and how"
    )
    about += "\nfar this would stray in as many epochs by chance (noise)"
    return ["", *about.splitlines(), columns(rows), ""]

"""`gdas-tf zoo`: published genotypes and networks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gdas_tf import pipeline
from gdas_tf.cli import options
from gdas_tf.cli.console import columns, print_result, table
from gdas_tf.errors import UsageError
from gdas_tf.zoo.entries import ZOO, Entry

_DESCRIPTION = """\
Lists the published genotypes and networks that can be trained by name, with the exact number of weights
(32x32 images of three colours, ten classes, without an auxiliary head; of genotypes with C = 36 and N = 6)
and the published error on CIFAR-10. With a name, all that is known of one, and its cells."""

_EXAMPLES = """\
  gdas-tf zoo
  gdas-tf zoo NASNet-A
  gdas-tf zoo NASNet-A --output pictures           also draws its cells
  gdas-tf zoo --json                               for scripts
  gdas-tf run --genotype NASNet-A                  trains, exports and measures it
  gdas-tf run --network resnet110
"""


def add_parser(subparsers: Any) -> None:
    """Adds the subcommand's options."""
    parser = options.add_command(subparsers, "zoo", "NAME", _DESCRIPTION, _EXAMPLES)
    parser.add_argument("name", nargs="?", metavar="NAME", help="of a genotype or a network")
    parser.add_argument(
        "--output", metavar="FOLDER", help="with the name of a genotype: draw its cells there"
    )
    options.add_common(parser)


def main(args: argparse.Namespace) -> int:
    """Lists, or shows one."""
    if args.name is None:
        if args.output:
            raise UsageError("zoo: --output goes with the name of a genotype, whose cells it draws")
        entries = [ZOO.get(name) for name in ZOO]
        print_result(args.json, {"entries": [entry.to_json() for entry in entries]}, _list(entries))
        return 0
    entry = ZOO.get(args.name)
    result = entry.to_json()
    if args.output:
        if entry.genotype is None:
            raise UsageError(f"zoo: --output draws cells, and the network {entry.name} is built of none")
        pictures = pipeline.draw_cells(entry.genotype, Path(args.output))
        result["files"] = {path.name: str(path) for path in pictures}
    print_result(args.json, result, _show(entry, list(result.get("files", {}).values())))
    return 0


def _list(entries: list[Entry]) -> str:
    rows = [("name", "kind", "weights", "error", "published in")]
    rows += [(one.name, one.kind, f"{one.weights:,}", _error(one), one.paper) for one in entries]
    lines = columns(rows, right=(2, 3))
    return (
        f"{lines}\n\n  error: published for CIFAR-10; * quoted from memory\n  more of one: gdas-tf zoo NAME"
    )


def _error(entry: Entry) -> str:
    return "-" if entry.error is None else f"{entry.error:.2f} %{'*' if entry.from_memory else ' '}"


def _show(entry: Entry, files: list[str]) -> str:
    error = "none" if entry.error is None else f"{entry.error:.2f} %"
    error += "" if entry.spread is None else f" +- {entry.spread:.2f} %"
    published = "" if entry.published_weights is None else f"; published: {entry.published_weights:g} M"
    rows: list[tuple[str, str] | None] = [
        ("name", entry.name),
        ("kind", entry.kind),
        ("paper", entry.paper),
        ("error", f"{error} on CIFAR-10, as published"),
        ("weights", f"{entry.weights:,}{published}"),
        ("figures from", entry.figures),
        ("read in", entry.origin),
    ]
    rows += [("notes", entry.notes)] if entry.notes else []
    if entry.genotype is not None:
        rows += [("genotype", entry.genotype.to_text())]
    rows += [("train it", f"gdas-tf run --{entry.kind} {entry.name}")]
    rows += [None, *((path, "") for path in files)] if files else []
    return table(rows)

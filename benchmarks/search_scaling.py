"""How the search step grows with the work: nodes B, cells N, operations K, and by the operation sampled.

Runs search_step.py's side of gdas-tf once for each size and round, every size in a process of its own, the
sizes in turns. With K the same operation is sampled on all edges, as the sampled work would differ otherwise.

    python benchmarks/search_scaling.py
    python benchmarks/search_scaling.py --only operation --rounds 1

Needs nothing but gdas-tf. Prints one table for each of the four and writes JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from datetime import date
from pathlib import Path

from figures import three
from search_step import run

SCRIPT = Path(__file__).with_name("search_step.py")
GDAS = "none,skip_connect,sep_conv_3x3,sep_conv_5x5,dil_conv_3x3,dil_conv_5x5,avg_pool_3x3,max_pool_3x3"
VARIANTS = {
    "nodes": {f"B={nodes}": ["--nodes", str(nodes)] for nodes in (2, 4, 6)},
    "cells": {f"N={cells}": ["--cells", str(cells)] for cells in (1, 2, 4)},
    "operations": {
        f"K={count}": ["--operations", space, "--force", "sep_conv_3x3"]
        for count, space in (
            (4, "none,skip_connect,sep_conv_3x3,max_pool_3x3"),
            (8, "gdas"),
            (12, "gdas-12"),
        )
    },
    "operation": {name: ["--force", name] for name in GDAS.split(",")},
}
HEADER = "{:14}    s, min / median / max  edges  ms an edge  shapes  traced s  first s    MiB"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=VARIANTS, help="one table instead of all")
    for name, default in {"size": 32, "channels": 16, "steps": 10, "warmup": 6, "rounds": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", type=Path, default=Path("search_scaling.json"), help="file to write")
    options = parser.parse_args()
    base = [
        item
        for name in ("size", "channels", "steps", "warmup")
        for item in (f"--{name}", str(getattr(options, name)))
    ]
    tables = {}
    for table in [options.only] if options.only else VARIANTS:
        rows: dict[str, list[dict]] = {name: [] for name in VARIANTS[table]}
        for _ in range(options.rounds):
            for name, arguments in VARIANTS[table].items():
                rows[name].append(run([sys.executable, str(SCRIPT), "--ours", *base, *arguments]))
                print(f"{name:14} {json.dumps(rows[name][-1])}", file=sys.stderr, flush=True)
        tables[table] = {name: summary(results) for name, results in rows.items()}
        print(HEADER.format(table))
        for name, row in tables[table].items():
            each = 1000 * row["step_s"]["median"] / row["edges"]
            steps = three(row["step_s"], 3)
            print(
                f"{name:14} {steps:>24} {row['edges']:6d} {each:11.2f} {row['edge_shapes']:7d} "
                f"{row['traced_s']:9.1f} {row['first_step_s']:8.1f} {row['peak_rss_mib']:6d}"
            )
    about = {"date": date.today().isoformat(), **vars(options)}
    options.json.write_text(json.dumps({"about": about, **tables}, default=str, indent=2) + "\n")


def summary(results: list[dict]) -> dict:
    """Of the rounds of one size: the spread of the step, the least of what happens once, the most memory."""
    steps = [result["step_s"] for result in results]
    return {
        **results[0],
        "step_s": {
            "min": min(step["min"] for step in steps),
            "median": statistics.median(step["median"] for step in steps),
            "max": max(step["max"] for step in steps),
        },
        **{name: min(result[name] for result in results) for name in ("traced_s", "first_step_s")},
        "peak_rss_mib": max(result["peak_rss_mib"] for result in results),
    }


if __name__ == "__main__":
    main()

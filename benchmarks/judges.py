"""The pictures of docs/results.md: what robust found beside random cells, by each of the three judges.

    python benchmarks/judges.py --found runs/results.json runs10/results.json --table nb201.csv \\
        --study darts=runs/judge2 --study photographs=runs/judge3 --folder docs/images

`--found` takes what `nasbench201.py` wrote, `--study` the directory of a study and the name of its picture.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np

from gdas_tf.drawing.studies import draw_samples


def on_the_table(found: list[Path], table: Path, column: str, random: int) -> dict[str, list[float]]:
    """True accuracies in % by arm, and those of cells that are drawn of the table."""
    arms = {}
    for file in found:
        for arm, lines in json.loads(file.read_text())["arms"].items():
            arms[arm] = [line["scores"][column]["accuracy"] for line in lines]
    with table.open(newline="") as rows:
        truth = [float(row[column]) for row in csv.DictReader(rows)]
    drawn = np.random.default_rng(0).choice(truth, random, replace=False).tolist()
    return {**arms, f"{random} random cells": drawn}


def of_study(folder: Path) -> dict[str, list[float]]:
    """Test accuracies in % by arm."""
    runs = json.loads((folder / "report.json").read_text())["runs"]
    arms: dict[str, list[float]] = {}
    for run in runs:
        arms.setdefault(run["arm"], []).append(run["accuracy"])
    return arms


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--found", type=Path, nargs="+", default=[], help="what nasbench201.py wrote")
    parser.add_argument("--table", type=Path, help="CSV with the true accuracies, needed by --found")
    parser.add_argument("--column", default="c10_test_200", help="the accuracy that counts")
    parser.add_argument("--random", type=int, default=50, help="cells to draw of the table [50]")
    parser.add_argument("--study", action="append", default=[], metavar="NAME=DIRECTORY")
    parser.add_argument("--folder", type=Path, default=Path(), help="where the pictures go")
    options = parser.parse_args()
    if options.found and options.table is None:
        parser.error("--found needs --table, which has the true accuracies")
    if wrong := [study for study in options.study if "=" not in study]:
        parser.error(f"--study: found {wrong[0]!r}; accepted is NAME=DIRECTORY, as darts=runs/judge2")
    if options.found:
        samples = on_the_table(options.found, options.table, options.column, options.random)
        draw_samples(samples, options.folder / "judge-nasbench201.png")
    for study in options.study:
        name, _, folder = study.partition("=")
        draw_samples(of_study(Path(folder)), options.folder / f"judge-{name}.png")


if __name__ == "__main__":
    main()

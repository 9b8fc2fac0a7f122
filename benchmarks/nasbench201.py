"""What each strategy finds on NAS-Bench-201, by the true accuracy of the cell, under one budget.

    python benchmarks/nasbench201.py --data-dir ~/tensorflow_datasets --table nb201.csv --seeds 1,2,3

Every search runs by the command line, with 10,000 images of CIFAR-10 of 16x16 pixels: half of them are D_T,
half D_V. The sizes of each arm were chosen before the first run so that a search takes about three minutes of
processor time, `robust` and the race beside it about fourteen; what it took stands beside its result. The
truth is read once, when a search is finished. What is finished is not done again. The table goes to the
screen and to `results.json` in the folder of the runs.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

SHARED = (
    "--preset small --search-space nasbench201 --data cifar10 --data-image-size 16 --data-padding 2 "
    "--data-train-images 10000 --search-cells 1 --search-channels 16 --search-batch-size 64"
)
LOGITS = "--search-architecture-learning-rate 3e-3"
DEEP = "--search-cells 3 --search-channels 8"
"""Deeper and narrower, where trainings are to tell what a cell is worth in a deep network."""

ARMS = {
    "random": "--search-strategy random",
    "gdas": f"--search-strategy gdas --search-epochs 36 {LOGITS}",
    "gdas, all gates": f"--search-strategy gdas --search-epochs 36 {LOGITS} --gdas-gates all",
    "gdas, none excluded": f"--search-strategy gdas --search-epochs 36 {LOGITS} --search-none excluded",
    "darts, first order": f"--search-strategy darts --search-epochs 14 {LOGITS}",
    "enas": "--search-strategy enas --search-epochs 44",
    "random, best of 100": "--search-strategy random --search-epochs 56 --random-candidates 100",
    "evolution": "--search-strategy evolution --search-epochs 44 --evolution-candidates 200",
    "race": "--search-strategy race --race-candidates random:12 --race-epochs 2,4,8 "
    "--race-channels 16 --race-cells 1 --race-batch-size 64 --race-learning-rate 0.1",
    "robust": f"--search-strategy robust {DEEP} --search-epochs 6 --robust-population 40 --robust-sample 10 "
    "--robust-candidates 150 --robust-validation-images 1024 --robust-finalists 6 --robust-random 4 "
    "--robust-generations 3 --robust-children 4 --robust-parents 3 --robust-epochs 2,4 --robust-keep 0.15 "
    "--robust-channels 8 --robust-cells 3 --robust-batch-size 64 --robust-learning-rate 0.1 --robust-jobs 2",
    "race, as long as robust": f"--search-strategy race {DEEP} --race-candidates random:26 --race-epochs 2,4 "
    "--race-validation-images 1024 --race-keep 0.15 --race-channels 8 --race-cells 3 --race-batch-size 64 "
    "--race-learning-rate 0.1 --race-jobs 2",
}


def search(arm: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Searches and derives, unless that is done; returns what the table says of the cell."""
    folder = options.runs / f"{arm.replace(', ', '-').replace(' ', '-')}-{seed}"
    done = folder / "truth.json"
    if not done.exists():
        program = [sys.executable, "-m", "gdas_tf.cli"]
        arguments = [*SHARED.split(), *ARMS[arm].split(), "--seed", str(seed)]
        if options.data_dir:
            arguments += ["--data-dir", options.data_dir]
        begun = (folder / "config.yaml").exists()
        went_on = ["--resume"] if begun else []
        timed = _run([*program, "search", str(folder), *went_on, *([] if begun else arguments)], folder)
        # The truth is looked at once, of what was found.
        _run([*program, "derive", str(folder)], folder)
        found = _run([*program, "lookup", str(folder), "--table", options.table, "--json"], folder)
        done.write_text(json.dumps({**json.loads(found["output"]), "processor_seconds": timed["seconds"]}))
    return json.loads(done.read_text())


def _run(command: list[str], folder: Path) -> dict[str, Any]:
    """Runs a command in a child of its own, whose processor time is thus known."""
    code = (
        "import json, resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)\n"
        "use = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(json.dumps([done.returncode, done.stdout, done.stderr, use.ru_utime + use.ru_stime]))"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
    status, output, errors, seconds = json.loads(done.stdout)
    if status:
        sys.exit(f"{folder}: {' '.join(command)}\n{errors[-2000:]}")
    return {"output": output, "seconds": round(seconds, 1)}


def baselines(table: str, column: str) -> dict[str, float]:
    """The mean cell, the one with the most weights, and the expected best of 10 and of 100 by the truth."""
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    accuracies = sorted(float(row[column]) for row in rows)
    most = max(rows, key=lambda row: float(row["params"]))
    return {
        "mean of all cells": statistics.mean(accuracies),
        "the cell with the most weights": float(most[column]),
        **{f"best of {n} by the truth itself, on average": best_of(accuracies, n) for n in (10, 100)},
    }


def best_of(ascending: list[float], draws: int) -> float:
    """The expected maximum of some draws with replacement."""
    count = len(ascending)
    return sum(
        value * (((rank + 1) / count) ** draws - (rank / count) ** draws)
        for rank, value in enumerate(ascending)
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", required=True, help="CSV with the columns cell, params and --column")
    parser.add_argument("--column", default="c10_test_200", help="the accuracy that counts")
    parser.add_argument("--data-dir", help="folder of prepared TFDS sets")
    parser.add_argument("--seeds", default="1,2,3", help="comma list")
    parser.add_argument("--arms", default=",".join(map(str, range(len(ARMS)))), help="comma list of numbers")
    parser.add_argument("--jobs", type=int, default=1, help="searches side by side")
    parser.add_argument("--runs", type=Path, default=Path("nasbench201-runs"), help="folder of the runs")
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    arms = [list(ARMS)[int(number)] for number in options.arms.split(",")]
    jobs = [(arm, int(seed)) for seed in options.seeds.split(",") for arm in arms]
    with ThreadPoolExecutor(options.jobs) as pool:
        found = dict(zip(jobs, pool.map(lambda job: search(*job, options), jobs), strict=True))
    result: dict[str, Any] = {"baselines": baselines(options.table, options.column), "arms": {}}
    print("| strategy | true accuracy, % | cells by seed | weights | processor s |\n|---|---|---|---|---|")
    for arm in arms:
        lines = [line for (name, _), line in found.items() if name == arm]
        values = [line["scores"][options.column]["accuracy"] for line in lines]
        deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
        each = ", ".join(f"{value:.2f}" for value in values)
        weights = statistics.mean(line["weights"] for line in lines)
        seconds = statistics.mean(line["processor_seconds"] for line in lines)
        mean = f"{statistics.mean(values):.2f} +- {deviation:.2f}"
        print(f"| {arm} | {mean} | {each} | {weights:,.0f} | {seconds:.0f} |")
        result["arms"][arm] = lines
    for name, value in result["baselines"].items():
        print(f"| {name} | {value:.2f} | | | |")
    (options.runs / "results.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

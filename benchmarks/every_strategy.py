"""Every strategy from the command line to a verified ONNX file, killed on the way and resumed.

    python benchmarks/every_strategy.py --data-dir ~/tensorflow_datasets

Each strategy searches in the spaces `darts` and `nasbench201`, on the digits and on 1,000 images of CIFAR-10
of 16x16 pixels, at sizes of a minute. `gdas-tf run` is killed (SIGKILL) as soon as the first epoch, candidate
or rung of its search is written, and goes on by `--resume`. The table says what became of each run: the
accuracy of the network on the test images, and the largest difference of a probability of the exported files
from Keras'. What is finished is not done again. The table goes to the screen and to `results.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

TRIALS = "channels=4,cells=1,batch_size=32,learning_rate=0.05"
STRATEGIES = {
    "gdas": {},
    "gdas, all options": {"gates": "all", "samples": "2", "topology": "derived"},
    "darts": {},
    "darts, second order": {"order": "second"},
    "enas": {"candidates": "5"},
    "random": {},
    "random, best of 20": {"candidates": "20"},
    "evolution": {"population": "8", "sample": "3", "candidates": "20"},
    "evolution by training": {"fitness": "training", "population": "3", "sample": "2", "candidates": "5"},
    "race": {"candidates": "random:4", "epochs": "1,2"},
    "robust": {"population": "8", "sample": "3", "candidates": "20", "finalists": "2", "random": "2"},
}
TRAINED = {"evolution by training", "race", "robust"}
"""Those that train candidates, at the sizes of TRIALS."""

SPACES = ("darts", "nasbench201")
SEARCH = "--search-epochs 2 --search-channels 4 --search-cells 1 --search-batch-size 32"
RETRAIN = (
    "--retrain-epochs 2 --retrain-channels 8 --retrain-cells 1 --retrain-batch-size 32 --retrain-drop-path 0 "
    "--retrain-auxiliary-weight 0 --retrain-learning-rate 0.05 --benchmark-seconds 0.1 --benchmark-rounds 1"
)


def options_of(name: str, space: str, data: str, data_dir: str | None) -> list[str]:
    """The arguments of `gdas-tf run` after the run directory."""
    strategy = name.split(",")[0].split()[0]
    chosen = dict(STRATEGIES[name])
    if space == "nasbench201":  # it keeps all edges
        chosen.pop("topology", None)
    if name in TRAINED:
        chosen |= dict(item.split("=") for item in TRIALS.split(","))
    if strategy == "robust":
        chosen |= {"epochs": "1,2"}
    if name == "evolution by training":
        chosen |= {"epochs": "1"}
    own = [f"--{strategy}-{option.replace('_', '-')}={value}" for option, value in chosen.items()]
    images = ["--preset", "quick"] if data == "digits" else ["--preset", "small", "--data", "cifar10"]
    if data == "cifar10":
        images += ["--data-train-images", "1000", "--data-image-size", "16", "--data-padding", "2"]
        images += ["--data-dir", data_dir] if data_dir else []
    return [
        *images,
        "--search-strategy",
        strategy,
        "--search-space",
        space,
        *own,
        *SEARCH.split(),
        *RETRAIN.split(),
    ]


def run(name: str, space: str, data: str, options: argparse.Namespace) -> dict[str, Any]:
    """Runs, kills and resumes, unless that is done; returns what became of it."""
    folder = options.runs / "-".join([name.replace(",", "").replace(" ", "-"), space, data])
    done = folder.with_suffix(".json")
    if not done.exists():
        program = [sys.executable, "-m", "gdas_tf.cli", "run", str(folder)]
        killed = "in an earlier call of this script"
        if not (folder / "config.yaml").exists():
            arguments = options_of(name, space, data, options.data_dir)
            try:
                killed = _kill_on_the_way([*program, *arguments], folder)
            except RuntimeError as error:
                return {"killed": "no", "error": str(error)}
        ended = subprocess.run(
            [*program, "--resume", "--json"], capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        if ended.returncode:
            return {"killed": killed, "error": ended.stderr.strip().splitlines()[-1:]}
        verified = json.loads((folder / "export/verification.json").read_text())
        evaluated = json.loads((folder / "evaluation.json").read_text())
        found = {"killed": killed, "evaluation": evaluated, "verification": verified}
        done.write_text(json.dumps(found))
    return json.loads(done.read_text())


def _kill_on_the_way(command: list[str], folder: Path) -> str:
    """Begins a run and kills it when its search has written something; returns when that was.

    Raises:
        RuntimeError: the run failed before; with its last line.
    """
    watched = [folder / "search" / name for name in ("metrics.jsonl", "candidates.jsonl")]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    while process.poll() is None:
        written = [path.name for path in watched if path.exists() and path.stat().st_size]
        written += ["a trial"] if any(folder.glob("search/trials/*.json")) else []
        if written:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"after {written[0]} was written"
        time.sleep(0.02)
    if process.returncode:
        raise RuntimeError(process.stderr.read().decode().strip().splitlines()[-1])
    return "it was finished before"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", help="folder of prepared TFDS sets")
    parser.add_argument("--data", default="digits,cifar10", help="comma list")
    parser.add_argument("--spaces", default=",".join(SPACES), help="comma list")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--runs", type=Path, default=Path("every-strategy-runs"), help="folder of the runs")
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    jobs = [
        (name, space, data)
        for data in options.data.split(",")
        for space in options.spaces.split(",")
        for name in STRATEGIES
    ]
    with ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(lambda job: run(*job, options), jobs))
    (options.runs / "results.json").write_text(
        json.dumps([{"run": job, **found} for job, found in zip(jobs, results, strict=True)], indent=1)
    )
    print("| strategy | space | data | killed | accuracy | ONNX differs by |\n|---|---|---|---|---|---|")
    for job, found in zip(jobs, results, strict=True):
        print(f"| {' | '.join(job)} | {_told(found)} |")


def _told(found: dict[str, Any]) -> str:
    if "error" in found:
        return f"{found['killed']} | failed: {found['error']} |"
    formats = found["verification"]["formats"]
    worst = max(one["largest_difference"] for one in formats.values())
    return f"{found['killed']} | {found['evaluation']['accuracy']:.2%} | {worst:.1e}"


if __name__ == "__main__":
    main()

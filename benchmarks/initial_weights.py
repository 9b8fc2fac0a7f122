"""Accuracy of a derived network by its initial weights: PyTorch's (`torch`) beside He's (`he`).

Both are trained for each seed on the same images in the same order, by the recipe of a preset; only
`retrain.initializer` differs. Prints a line per training and a summary, and writes JSON after each training.

Usage:  python benchmarks/initial_weights.py
        python benchmarks/initial_weights.py --preset small --data-dir DATA --train-images 10000 \
            --set data.image_size=16 --set retrain.epochs=6
Needs gdas-tf alone. The first takes some 10 minutes on two cores, the second 20.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

INITIALIZERS = ("torch", "he")


def measure(options: argparse.Namespace, seed: int, initializer: str) -> dict[str, Any]:
    """Trains one network; returns its accuracy on the test images and its training loss in every epoch."""
    from gdas_tf.config.config import Config
    from gdas_tf.data.dataset import Split, load_dataset
    from gdas_tf.runs.run import Run
    from gdas_tf.spaces.genotype import Genotype
    from gdas_tf.training.retraining import evaluate, retrain

    config = Config.preset(options.preset).override(
        {
            **dict(item.split("=", 1) for item in options.set),
            "seed": seed,
            "data.data_dir": options.data_dir or "none",
            "retrain.initializer": initializer,
        }
    )
    data = load_dataset(
        config.data.name, data_dir=config.data.data_dir, image_size=config.data.image_size, seed=seed
    )
    if options.train_images:
        first = slice(options.train_images)
        data = dataclasses.replace(data, train=Split(data.train.images[first], data.train.labels[first]))
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder) / "run", config)
        result = evaluate(retrain(config, data, Genotype.load(options.genotype), run), data)
        losses = [line["loss"] for line in run.metrics("retrain")]
    return {
        "initializer": initializer,
        "seed": seed,
        "accuracy": result["accuracy"],
        "loss": result["loss"],
        "training_loss": losses,
        "seconds": round(time.perf_counter() - begun, 1),
    }


def summary(results: list[dict[str, Any]]) -> str:
    """Mean and standard deviation of each, and of the difference seed by seed, in percentage points."""
    lines = []
    by = {
        name: {line["seed"]: line for line in results if line["initializer"] == name} for name in INITIALIZERS
    }
    for name, of_seed in by.items():
        if of_seed:
            accuracies = [100 * line["accuracy"] for line in of_seed.values()]
            first = statistics.mean(line["training_loss"][0] for line in of_seed.values())
            last = statistics.mean(line["training_loss"][-1] for line in of_seed.values())
            lines.append(
                f"{name:5}  {len(of_seed)} seeds  test accuracy {_spread(accuracies)} %  "
                f"training loss of the first epoch {first:.3f}, of the last {last:.3f}"
            )
    one, other = (by[name] for name in INITIALIZERS)
    paired = [100 * (one[seed]["accuracy"] - other[seed]["accuracy"]) for seed in one if seed in other]
    if paired:
        lines.append(f"{' - '.join(INITIALIZERS)}: {_spread(paired)} percentage points, seed by seed")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    deviation = f" +- {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="quick", help="recipe of the retraining [quick]")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="other values")
    parser.add_argument("--genotype", default="GDAS_V1", help="published name or file [GDAS_V1]")
    parser.add_argument("--data-dir", metavar="FOLDER", help="where TFDS data sets are prepared")
    parser.add_argument("--train-images", type=int, metavar="N", help="train on the first N images only")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="trainings of each [3]")
    parser.add_argument("--json", default="initial_weights.json", metavar="FILE", help="what to write")
    options = parser.parse_args()

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from gdas_tf.runtime import set_up

    set_up()
    results = []
    for seed in range(options.seeds):
        for initializer in INITIALIZERS:
            results.append(measure(options, seed, initializer))
            line = {name: value for name, value in results[-1].items() if name != "training_loss"}
            print(json.dumps(line), flush=True)
            Path(options.json).write_text(
                json.dumps({"options": vars(options), "results": results}, indent=1)
            )
    print(summary(results))


if __name__ == "__main__":
    main()

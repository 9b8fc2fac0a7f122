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


def measure(options: argparse.Namespace, seed: int, changes: dict[str, Any]) -> dict[str, Any]:
    """Trains one network; returns its accuracy on the test images and its training loss in every epoch.

    Args:
        options: of the command line, as `parser_of` has them.
        seed: of the training.
        changes: fields of the configuration in which trainings differ, by dotted name.
    """
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
            **changes,
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
                f"{name:5}  {len(of_seed)} seeds  test accuracy {spread(accuracies)} %  "
                f"training loss of the first epoch {first:.3f}, of the last {last:.3f}"
            )
    one, other = (by[name] for name in INITIALIZERS)
    paired = [100 * (one[seed]["accuracy"] - other[seed]["accuracy"]) for seed in one if seed in other]
    if paired:
        lines.append(f"{' - '.join(INITIALIZERS)}: {spread(paired)} percentage points, seed by seed")
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    deviation = f" +- {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


def parser_of(description: str, file: str) -> argparse.ArgumentParser:
    """Returns a parser of what trainings that are compared have in common; `file` is where results go."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="quick", help="recipe of the retraining [quick]")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="other values")
    parser.add_argument("--genotype", default="GDAS_V1", help="published name or file [GDAS_V1]")
    parser.add_argument("--data-dir", metavar="FOLDER", help="where TFDS data sets are prepared")
    parser.add_argument("--train-images", type=int, metavar="N", help="train on the first N images only")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="trainings of each [3]")
    parser.add_argument("--json", default=file, metavar="FILE", help="what to write")
    return parser


def measure_all(
    options: argparse.Namespace, what: str, arms: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """Measures all arms, in turns for each seed; prints each and writes all so far.

    Args:
        options: of the command line.
        what: what results call the name of an arm.
        arms: changes of the configuration by the name of the arm.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from gdas_tf.runtime import set_up

    set_up()  # as the command line does
    results = []
    for seed in range(options.seeds):
        for name, changes in arms.items():
            results.append({what: name, **measure(options, seed, changes)})
            line = {key: value for key, value in results[-1].items() if key != "training_loss"}
            print(json.dumps(line), flush=True)
            Path(options.json).write_text(
                json.dumps({"options": vars(options), "results": results}, indent=1)
            )
    return results


def main() -> None:
    options = parser_of(__doc__, "initial_weights.json").parse_args()
    arms = {name: {"retrain.initializer": name} for name in INITIALIZERS}
    print(summary(measure_all(options, "initializer", arms)))


if __name__ == "__main__":
    main()

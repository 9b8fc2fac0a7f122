"""The retraining of one cell on digits of uneven classes by each `data.balance`, with several seeds.

Of the digits 120 zeros are trained on, 86 ones, and so on down to 6 nines; 50 of each are tested on.

    python benchmarks/balance.py
    python benchmarks/balance.py --seeds 5 --epochs 40 --runs runs/balance
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from gdas_tf import pipeline
from gdas_tf.config.config import Config
from gdas_tf.files import is_run_directory

METHODS = ("none", "weights", "sampler")
GENOTYPE = "normal=sep3@0+skip@1 reduction=dil3@0+sep3@1"
MOST, LEAST, TESTED = 120, 6, 50  # images of the largest and of the smallest class, test images of each
RARE = 3  # classes


def uneven_digits(path: Path) -> None:
    """Writes the data set."""
    pixels, labels = load_digits(return_X_y=True)
    images = np.round(pixels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    counts = np.round(MOST * (LEAST / MOST) ** (np.arange(10) / 9)).astype(int)
    places = [
        np.random.default_rng(digit).permutation(np.flatnonzero(labels == digit)) for digit in range(10)
    ]
    train = np.concatenate([place[:count] for place, count in zip(places, counts, strict=True)])
    test = np.concatenate([place[MOST : MOST + TESTED] for place in places])
    np.savez(path, x_train=images[train], y_train=labels[train], x_test=images[test], y_test=labels[test])


def measured(folder: Path, data: Path, method: str, seed: int, epochs: int) -> dict:
    """Trains and evaluates one network, or evaluates it again where it is trained."""
    config = Config.preset("quick").override(
        {
            "seed": seed,
            "data.name": str(data),
            "data.balance": method,
            "retrain.epochs": epochs,
            "retrain.channels": 8,
            "retrain.batch_size": 32,
        }
    )
    path = folder / f"{method}-{seed}"
    known = is_run_directory(path)
    with pipeline.go_on(path, resume=True) if known else pipeline.begin(path, config) as job:
        if not known:
            pipeline.give_genotype(job.run, pipeline.parse_genotype(GENOTYPE))
        pipeline.run_retraining(job)
        return pipeline.run_evaluation(job)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each method [3]")
    parser.add_argument("--epochs", type=int, default=20, help="epochs of each training [20]")
    parser.add_argument("--runs", type=Path, help="folder to keep the run directories in")
    options = parser.parse_args()
    found: dict[str, list[dict]] = {method: [] for method in METHODS}
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.runs or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        uneven_digits(folder / "uneven.npz")
        for seed in range(options.seeds):  # the methods in turns
            for method in METHODS:
                found[method].append(measured(folder, folder / "uneven.npz", method, seed, options.epochs))
    print("| `data.balance` | balanced accuracy, mean (least … most) | of the three rarest classes |")
    print("|---|---|---|")
    for method, results in found.items():
        balanced = [100 * result["balanced_accuracy"] for result in results]
        rare = [100 * np.mean(list(result["class_accuracy"].values())[-RARE:]) for result in results]
        cells = [
            f"{np.mean(values):.1f} % ({min(values):.1f} … {max(values):.1f})" for values in (balanced, rare)
        ]
        print(f"| {method} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

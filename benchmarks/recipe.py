"""Accuracy of a derived network by what its recipe adds: label smoothing, mixup, a moving average of weights.

Every recipe trains the network for each seed on the same images in the same order; only the named fields
differ. Prints a line per training and a table, and writes JSON after each training.

Usage:  python benchmarks/recipe.py
        python benchmarks/recipe.py --arm none: --arm strong:retrain.mixup=1.0,retrain.ema=0.999
Needs gdas-tf alone. The first takes some 20 minutes on two cores that do nothing else.
"""

from __future__ import annotations

import statistics
from typing import Any

from initial_weights import measure_all, parser_of, spread

ARMS = (
    "none:",
    "smoothing:retrain.label_smoothing=0.1",
    "mixup:retrain.mixup=0.2",
    "average:retrain.ema=0.99",
)


def table(results: list[dict[str, Any]]) -> str:
    """Mean and standard deviation of each recipe, and of its difference to the first one, seed by seed."""
    arms = list(dict.fromkeys(line["arm"] for line in results))
    by = {arm: {line["seed"]: line for line in results if line["arm"] == arm} for arm in arms}
    lines = [
        "| recipe | test accuracy, % | difference to the first, points | test loss "
        "| training loss of the last epoch |",
        "|---|---|---|---|---|",
    ]
    for arm, of_seed in by.items():
        paired = [seed for seed in of_seed if seed in by[arms[0]]]
        first = by[arms[0]]
        rise = [100 * (of_seed[seed]["accuracy"] - first[seed]["accuracy"]) for seed in paired]
        accuracies = [100 * line["accuracy"] for line in of_seed.values()]
        losses = [line["loss"] for line in of_seed.values()]
        last = statistics.mean(line["training_loss"][-1] for line in of_seed.values())
        lines.append(
            f"| {arm} | {spread(accuracies)} | {spread(rise) if arm != arms[0] else ''} | "
            f"{statistics.mean(losses):.4f} | {last:.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = parser_of(__doc__, "recipe.json")
    parser.add_argument(
        "--arm", action="append", metavar="NAME:FIELD=VALUE,…", help=f"recipes [{' '.join(ARMS)}]"
    )
    options = parser.parse_args()
    arms = {}
    for arm in options.arm or ARMS:
        name, _, fields = arm.partition(":")
        arms[name] = dict(field.split("=", 1) for field in fields.split(",") if field)
    print(table(measure_all(options, "arm", arms)))


if __name__ == "__main__":
    main()

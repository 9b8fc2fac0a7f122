"""What the alarm is worth: do seeds agree where it says nothing, and not where it calls an edge a coin flip?

    for seed in 1 2 3 4 5 6; do gdas-tf search runs/$seed --data digits --seed $seed --search-epochs 100; done
    python benchmarks/alarm.py runs/*

Takes run directories that differ in nothing but the seed, of a search that keeps logits. Of each edge and
each pair of seeds it asks whether both find the same best operation. Edges that both are sure of are counted
apart from those that one of them calls a coin flip. What chance gives is the agreement where the edges of
each seed are shuffled: an operation that is the best nearly everywhere agrees with itself without any
knowledge of the edge.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from gdas_tf.pipeline.certainty import how_certain
from gdas_tf.runs.run import Run

SHUFFLES = 1000


def edges_of(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By the kind of cell the best operation of each edge of a search, and whether it is a coin flip."""
    run = Run.open(path)
    found = how_certain(run.file("search/logits.npz"), run.config)["edges"]
    return {
        kind: tuple(np.array([edge[key] for edge in edges]) for key in ("best", "coin_flip"))
        for kind, edges in found.items()
    }


def agreements(searches: Sequence[Mapping[str, tuple[np.ndarray, np.ndarray]]]) -> tuple[np.ndarray, ...]:
    """Whether two seeds find the same operation, and whether both are sure of it, for all edges and pairs."""
    same, sure = [], []
    for first, second in itertools.combinations(searches, 2):
        for kind, (best, flip) in first.items():
            same.append(best == second[kind][0])
            sure.append(~(flip | second[kind][1]))
    return np.concatenate(same), np.concatenate(sure)


def shuffled(search: Mapping[str, tuple], generator: np.random.Generator) -> dict[str, tuple]:
    """A search, the edges of which stand in another order."""
    return {kind: (generator.permutation(best), flip) for kind, (best, flip) in search.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN_DIR")
    options = parser.parse_args()
    searches = [edges_of(path) for path in options.runs]
    if len(searches) < 2 or not all(searches):
        parser.error("at least two searches that keep logits are needed")
    same, sure = agreements(searches)
    generator = np.random.default_rng(0)
    chance = [
        agreements([shuffled(search, generator) for search in searches])[0].mean() for _ in range(SHUFFLES)
    ]
    p = (1 + np.sum(np.array(chance) >= same.mean() - 1e-12)) / (1 + SHUFFLES)
    flips = np.concatenate([flip for search in searches for _, flip in search.values()])
    print(
        "| seeds | edges that are coin flips | same operation | by chance | p | both sure | one a coin flip |"
    )
    print("|--:|--:|--:|--:|--:|--:|--:|")
    groups = (f"{100 * same[one].mean():.0f} % of {one.sum()}" if one.any() else "-" for one in (sure, ~sure))
    print(
        f"| {len(searches)} | {100 * flips.mean():.0f} % | {100 * same.mean():.0f} % | "
        f"{100 * np.mean(chance):.0f} % | {p:.3f} | {' | '.join(groups)} |"
    )


if __name__ == "__main__":
    main()

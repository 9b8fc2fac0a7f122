"""What the alarm is worth: do seeds agree where it says nothing, and not where it calls an edge a coin flip?

    for seed in 1 2 3 4 5 6; do gdas-tf search runs/$seed --data digits --seed $seed --search-epochs 100; done
    python benchmarks/alarm.py runs/*

Takes run directories that differ in nothing but the seed, of a search that keeps logits. Of each edge and
each pair of seeds it asks whether both find the same best operation. Edges that both are sure of are counted
apart from those that one of them calls a coin flip. What chance gives is the agreement of different edges: an
operation that is the best nearly everywhere agrees with itself without any knowledge of the edge.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np

from gdas_tf.pipeline.certainty import how_certain
from gdas_tf.runs.run import Run

SURE, FLIP = "sure of it", "a coin flip"


def edges_of(path: Path) -> dict[tuple[str, int, int], tuple[str, bool]]:
    """The best operation of each edge of a search, and whether it is a coin flip."""
    run = Run.open(path)
    found = how_certain(run.file("search/logits.npz"), run.config)["edges"]
    return {
        (kind, edge["node"], edge["input"]): (edge["best"], edge["coin_flip"])
        for kind, edges in found.items()
        for edge in edges
    }


def agreements(searches: list[dict]) -> dict[str, tuple[int, float, float]]:
    """Of the edges that both seeds are sure of, and of the others: number, agreement, and that by chance."""
    same: dict[str, list[bool]] = {SURE: [], FLIP: []}
    other: dict[str, list[bool]] = {SURE: [], FLIP: []}
    for first, second in itertools.combinations(searches, 2):
        for (here, (mine, flip)), (there, (theirs, flop)) in itertools.product(first.items(), second.items()):
            group = FLIP if flip or flop else SURE
            (same if here == there else other)[group].append(mine == theirs)
    return {
        group: (len(same[group]), float(np.mean(same[group])), float(np.mean(other[group])))
        for group in same
        if same[group] and other[group]
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN_DIR")
    options = parser.parse_args()
    searches = [edges_of(path) for path in options.runs]
    if len(searches) < 2 or not all(searches):
        parser.error("at least two searches that keep logits are needed")
    flips = np.mean([flip for search in searches for _, flip in search.values()])
    print(f"{len(searches)} seeds; {100 * flips:.0f} % of all edges are coin flips")
    print("| edges that both seeds are | pairs | the same operation | by chance |")
    print("|---|--:|--:|--:|")
    for group, (count, agree, chance) in agreements(searches).items():
        print(f"| {group} | {count} | {100 * agree:.0f} % | {100 * chance:.0f} % |")


if __name__ == "__main__":
    main()

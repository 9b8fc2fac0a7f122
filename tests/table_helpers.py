"""What tests share that need a table of true accuracies: a made-up one of all cells of NAS-Bench-201."""

from __future__ import annotations

import itertools
from pathlib import Path

from gdas_tf.spaces.base import SPACES


def accuracy(operations: tuple[str, ...]) -> float:
    """The accuracy of a cell by the table, in percent."""
    return 10.0 + sum(5.0 * ("conv" in name) + edge for edge, name in enumerate(operations) if name != "none")


def write_table(path: str | Path) -> None:
    """Writes the table, with the columns c10_test and c10_val."""
    with open(path, "w") as file:
        file.write("cell,c10_test,c10_val\n")
        for chosen in itertools.product(SPACES.get("nasbench201").operations, repeat=6):
            a, b, c, d, e, f = chosen
            value = accuracy(chosen)
            file.write(f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|,{value},{100 - value}\n")

"""A table of the accuracies of all cells of a space, by which what a search has found can be judged.

It is a CSV file with a column `cell`, the cells in the notation of NAS-Bench-201, and columns of accuracies
in percent, whose names have one of the words `test`, `val`, `acc` or `accuracy` in them; `params` is the
number of weights. Other columns are passed over.

Example:
    >>> table = Table.load("nb201.csv")  # doctest: +SKIP
    >>> table.find(Genotype.from_text("|nor_conv_3x3~0|+|…")).score("c10_test_200").rank  # doctest: +SKIP
    1234
"""

from __future__ import annotations

import bisect
import csv
import dataclasses
import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gdas_tf.errors import UsageError
from gdas_tf.registry import did_you_mean
from gdas_tf.spaces.base import SearchSpace
from gdas_tf.spaces.genotype import Genotype
from gdas_tf.spaces.notation import CELL, cell_from_bars, cell_to_bars
from gdas_tf.user_files import read_text, user_path

WEIGHTS = "params"
_WORDS = {"test", "val", "valid", "validation", "acc", "accuracy"}


class Score(NamedTuple):
    """One accuracy of a cell, and what it is among those of all cells of the table.

    Attributes:
        accuracy: in percent.
        rank: 1 is the best; cells of one accuracy have one rank.
        percentile: percent of the other cells that are worse.
    """

    accuracy: float
    rank: int
    percentile: float


@dataclasses.dataclass(frozen=True)
class Entry:
    """What a table says of a cell.

    Attributes:
        cell: in the notation of the table.
        scores: by the name of the column.
        weights: the number of weights, or None where the table has no such column.
    """

    cell: str
    scores: Mapping[str, Score]
    weights: int | None

    def to_json(self) -> dict[str, Any]:
        """Returns what `json.dumps` takes."""
        scores = {name: score._asdict() for name, score in self.scores.items()}
        return {"cell": self.cell, "weights": self.weights, "scores": scores}


class Table:
    """The accuracies of all cells of a space.

    Args:
        path: of the file, for messages.
        accuracies: of each cell by its notation, in the order of `columns`.
        columns: names of the columns of accuracies.
        weights: number of weights of each cell; empty where the file does not say it.
    """

    def __init__(
        self,
        path: Path,
        accuracies: Mapping[str, Sequence[float]],
        columns: Sequence[str],
        weights: Mapping[str, int],
    ) -> None:
        self.path, self.columns = path, tuple(columns)
        self._accuracies, self._weights = accuracies, weights
        self._sorted = [sorted(values) for values in zip(*accuracies.values(), strict=True)]

    def __len__(self) -> int:
        return len(self._accuracies)

    @classmethod
    def load(cls, path: str | Path) -> Table:
        """Reads a table.

        Raises:
            UsageError: the file cannot be read, lacks a column, or is damaged; the message names the line.
        """
        path = user_path(path, "table")
        what = f"table {path}"
        text = read_text(path, what)
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        accuracies: dict[str, list[float]] = {}
        weights: dict[str, int] = {}
        try:
            columns = _columns(reader.fieldnames or (), what)
            for row in reader:
                place = f"{what}, line {reader.line_num}"
                cell = _canonical(row[CELL], place)
                if cell in accuracies:
                    raise UsageError(f"{place}: the cell {cell} stands there twice; give it once")
                accuracies[cell] = [_percent(row[name], f"{place}: {name}") for name in columns]
                if WEIGHTS in row:
                    weights[cell] = _whole(row[WEIGHTS], f"{place}: {WEIGHTS}")
        except csv.Error as error:
            raise UsageError(f"{what}: it is no CSV file: line {reader.line_num}: {error}") from error
        if not accuracies:
            raise UsageError(f"{what}: it has no cell; accepted is one line for each cell of the space")
        return cls(path, accuracies, columns, weights)

    def column(self, name: str | None) -> str:
        """Returns the name of the column to judge by: the given one, or the first one for None.

        Raises:
            UsageError: there is no such column of accuracies.
        """
        if name is None or name in self.columns:
            return name or self.columns[0]
        hint = did_you_mean(name, self.columns) or f"accepted are {', '.join(self.columns)}"
        raise UsageError(f"table {self.path}: it has no column of accuracies {name!r}; {hint}")

    def best(self, column: str) -> float:
        """Returns the highest accuracy of a column, in percent."""
        return self._sorted[self.columns.index(column)][-1]

    def find(self, genotype: Genotype) -> Entry:
        """Returns what the table says of a cell, however the genotype was written.

        Raises:
            UsageError: the genotype is none that a table can have, or the table does not have it.
        """
        cell = genotype.to_bars()
        if cell is None:
            raise UsageError(
                f"table {self.path}: it has cells of one input whose nodes take all that comes before them, "
                f"and the last node as output, as NAS-Bench-201; {genotype.to_text()} is of another space"
            )
        if cell not in self._accuracies:
            raise UsageError(f"table {self.path}: it does not have the cell {cell}, among {len(self)} cells")
        scores = {
            name: self._score(accuracy, ascending)
            for name, accuracy, ascending in zip(
                self.columns, self._accuracies[cell], self._sorted, strict=True
            )
        }
        return Entry(cell, scores, self._weights.get(cell))

    def check_fits(self, space: SearchSpace) -> None:
        """Makes sure that the table has the cells of a search space, by looking for some of them.

        Raises:
            UsageError: it lacks one, or the space is one of which there is no table.
        """
        operations = [space.operations[column] for column in space.candidates()]
        fits = space.keep == "all" and space.inputs == 1 and space.output == "last" and not space.reduction
        if not fits:
            raise UsageError(
                f"table {self.path}: it has cells of one input and without a reduction cell, as "
                f"NAS-Bench-201; the search space {space.name} (search.space) has others"
            )
        for operation in operations:
            cell = [[(operation, source) for source in range(node + 1)] for node in range(space.nodes)]
            self.find(Genotype.of(space, cell))

    def _score(self, accuracy: float, ascending: Sequence[float]) -> Score:
        others = max(len(ascending) - 1, 1)
        rank = 1 + len(ascending) - bisect.bisect_right(ascending, accuracy)
        return Score(accuracy, rank, 100.0 * bisect.bisect_left(ascending, accuracy) / others)


def _columns(names: Sequence[str], what: str) -> list[str]:
    for name in names:
        if list(names).count(name) > 1:
            raise UsageError(f"{what}: the column {name!r} stands there twice; give it once")
    if CELL not in names:
        found = ", ".join(names)[:80] or "nothing"
        raise UsageError(f"{what}: found the columns {found}; it must have one named {CELL}")
    columns = [name for name in names if _WORDS & set(re.split(r"[^a-z]+", name.lower()))]
    if not columns:
        raise UsageError(
            f"{what}: it has no column of accuracies; accepted are names with one of the words "
            f"{', '.join(sorted(_WORDS))}, as c10_test_200"
        )
    return columns


def _canonical(text: str | None, place: str) -> str:
    try:
        cell = cell_to_bars(cell_from_bars(text or ""))
    except UsageError as error:
        raise UsageError(f"{place}: {str(error).removeprefix('genotype: ')}") from error
    assert cell is not None  # what can be read can be written
    return cell


def _percent(text: str | None, place: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not 0 <= value <= 100:
        raise UsageError(f"{place}: found {text!r:.40}; accepted is an accuracy from 0 to 100 percent")
    return value


def _whole(text: str | None, place: str) -> int:
    try:
        return int(text or "")
    except ValueError as error:
        raise UsageError(f"{place}: found {text!r:.40}; accepted is a whole number") from error

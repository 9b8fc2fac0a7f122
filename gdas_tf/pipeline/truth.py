"""The true accuracy of what a search has found, from a table of all cells (`search.table`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gdas_tf.errors import UsageError
from gdas_tf.spaces.table import Table

if TYPE_CHECKING:
    import numpy as np

    from gdas_tf.config.config import Config
    from gdas_tf.spaces.genotype import Genotype


def open_table(config: Config) -> Table | None:
    """Returns the table of a configuration, or None where it names none.

    Raises:
        UsageError: it cannot be read, lacks the column, or is one of another space.
    """
    path, column = config.search.table, config.search.table_column
    if path is None:
        if column is not None:
            raise UsageError("search.table_column: it goes with search.table; name the table, too")
        return None
    table = Table.load(path)
    table.column(column)
    table.check_fits(config.space)
    return table


def look_up(genotype: Genotype, table: Table, column: str | None = None) -> dict[str, Any]:
    """Returns what a table says of a genotype.

    Args:
        genotype: the cell.
        table: the table.
        column: the column to judge by; None for the first one of accuracies.

    Returns:
        `table`, `cell`, `weights` (None where the table does not say it), `cells` (how many the table has),
        `column`, `accuracy` in percent, `rank` (1 is the best) and `percentile` (percent of the other cells
        that are worse) by that column, and `scores`, these three by every column.

    Raises:
        UsageError: the table has no such column, or lacks the cell.
    """
    column = table.column(column)
    entry = table.find(genotype)
    about = {"table": str(table.path), "cells": len(table), "column": column}
    return {**entry.to_json(), **about, **entry.scores[column]._asdict()}


def true_curve(
    history: Mapping[str, np.ndarray], config: Config, table: Table, column: str | None = None
) -> list[float | None]:
    """Returns the accuracy of the cell that the arrays of each epoch would give.

    Args:
        history: the strategy's arrays, of each the values before the search and after every epoch.
        config: of the search.
        table, column: as of `look_up`.

    Returns:
        Accuracies in percent, the first that of before the search; None where the strategy cannot tell a
        genotype from the arrays of the epoch.

    Raises:
        UsageError: as of `look_up`.
    """
    from gdas_tf.strategies.base import STRATEGIES

    column = table.column(column)
    strategy = STRATEGIES.get(config.search.strategy).from_config(config)
    epochs = min(len(values) for values in history.values())
    found: list[float | None] = []
    for epoch in range(epochs):
        try:
            genotype = strategy.genotype({name: values[epoch] for name, values in history.items()}, config)
        except UsageError:
            found.append(None)
        else:
            found.append(table.find(genotype).scores[column].accuracy)
    return found

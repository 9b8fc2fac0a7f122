"""A cell of a genotype: nodes of edges, and which of the nodes it gives; made of lists, and checked."""

from __future__ import annotations

from typing import Any, NamedTuple

from gdas_tf.errors import UsageError
from gdas_tf.operations.base import OPERATIONS
from gdas_tf.registry import did_you_mean
from gdas_tf.spaces.base import SearchSpace
from gdas_tf.spaces.notation import show


class Edge(NamedTuple):
    """One operation on one input of a node.

    Attributes:
        operation: one of `gdas_tf.operations.base.OPERATIONS`.
        input: in a cell of two inputs 0 is c_{k-2}, 1 is c_{k-1} (the outputs of the two cells before),
            2 + j is node j; in a cell of one input 0 is c_{k-1}, 1 + j is node j.
    """

    operation: str
    input: int


Cell = tuple[tuple[Edge, ...], ...]
"""The nodes of a cell in their order, each the tuple of its edges."""


def to_cell(value: Any, inputs: int, place: str) -> Cell:
    """Returns the cell of nested sequences.

    Args:
        value: the nodes, each a sequence of (operation, input).
        inputs: number of inputs of the cell, 1 or 2.
        place: where it stands, for messages.

    Raises:
        UsageError: it is no cell; the message names the place.
    """
    if not isinstance(value, list | tuple) or not value:
        raise UsageError(f"genotype: {place}: found {show(value)}; accepted is a list of nodes, at least one")
    return tuple(
        _to_node(node, inputs, number, f"{place}, node {number}") for number, node in enumerate(value)
    )


def to_lists(cell: Cell) -> list[list[list[Any]]]:
    """Returns a cell as lists, which JSON takes."""
    return [[list(edge) for edge in node] for node in cell]


def to_concat(value: Any, cell: Cell, inputs: int, place: str) -> tuple[int, ...] | None:
    """Returns which nodes of a cell are concatenated, numbered as `Edge.input`; None for all.

    Args:
        value: a sequence of such numbers, ascending; or None for all.
        cell: the cell.
        inputs: number of inputs of the cell.
        place: where it stands, for messages.

    Raises:
        UsageError: it is none; the message names the place.
    """
    nodes = tuple(range(inputs, inputs + len(cell)))
    if value is None:
        return None
    numbers = tuple(value) if isinstance(value, list | tuple) else ()
    if not numbers or any(isinstance(one, bool) or not isinstance(one, int) for one in numbers):
        raise UsageError(
            f"genotype: {place}: found {show(value)}; accepted are the numbers of nodes, out of "
            f"{', '.join(map(str, nodes))} ({inputs} + j is node j)"
        )
    if not set(numbers) <= set(nodes) or list(numbers) != sorted(set(numbers)):
        raise UsageError(
            f"genotype: {place}: found {', '.join(map(str, numbers))}; accepted are numbers out of "
            f"{', '.join(map(str, nodes))}, ascending, each once ({inputs} + j is node j)"
        )
    return None if numbers == nodes else numbers


def check_node(node: tuple[Edge, ...], number: int, place: str, space: SearchSpace) -> None:
    """Makes sure that a node is one of a search space.

    Raises:
        UsageError: it has other edges or operations; the message names the place.
    """
    possible = space.inputs + number
    wanted = min(space.inputs_per_node, possible)
    if space.keep == "all" and sorted(edge.input for edge in node) != list(range(possible)):
        inputs = ", ".join(str(edge.input) for edge in node)
        raise UsageError(
            f"{place}: found inputs {inputs}; the search space keeps each of 0 to {possible - 1} once"
        )
    # Where a node takes one input several times, it may have more edges than inputs.
    if len(node) not in (wanted, space.inputs_per_node):
        raise UsageError(f"{place}: found {count(len(node), 'edge')}; the search space has {wanted}")
    for position, edge in enumerate(node):
        if edge.operation not in space.operations:
            raise UsageError(
                f"{place}, edge {position}: {edge.operation} is not in the search space; accepted are "
                f"{', '.join(space.operations)}"
            )


def count(number: int, noun: str) -> str:
    """Returns a number of things in words, as `1 node` and `2 nodes`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _to_node(value: Any, inputs: int, number: int, place: str) -> tuple[Edge, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise UsageError(
            f"genotype: {place}: found {show(value)}; accepted is a list of one or more (operation, input)"
        )
    return tuple(
        _to_edge(edge, inputs, number, f"{place}, edge {position}") for position, edge in enumerate(value)
    )


def _to_edge(value: Any, inputs: int, number: int, place: str) -> Edge:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise UsageError(f"genotype: {place}: found {show(value)}; accepted is an (operation, input)")
    operation, source = value
    if operation not in OPERATIONS:
        near = did_you_mean(operation, OPERATIONS) if isinstance(operation, str) else ""
        raise UsageError(
            f"genotype: {place}: unknown operation {show(operation)}; accepted are {', '.join(OPERATIONS)}"
            + (f"; {near}" if near else "")
        )
    last = inputs + number - 1
    if not isinstance(source, int) or isinstance(source, bool) or not 0 <= source <= last:
        raise UsageError(
            f"genotype: {place}: input {show(source)} doesn't exist; accepted are 0 to {last} "
            f"({'0 is c_{k-2}, 1 is c_{k-1}' if inputs == 2 else '0 is c_{k-1}'}, {inputs} + j is node j)"
        )
    return Edge(operation, source)

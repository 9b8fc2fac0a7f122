"""The text notations of genotypes.

The short one is `normal=sep3@0+skip@1/max3@1+sep5@2 reduction=fixed`: an edge is operation@input; edges are
joined by `+`, nodes by `/`. That of NAS-Bench-201 is `|nor_conv_3x3~0|+|skip_connect~0|none~1|`, for one cell
of one input whose nodes take all that comes before them: an edge is operation~input, nodes are joined by `+`.
What the words mean for a genotype is checked in `gdas_tf.spaces.genotype`; here texts are only taken apart
and put together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from gdas_tf.errors import UsageError
from gdas_tf.operations.base import OPERATIONS
from gdas_tf.registry import did_you_mean
from gdas_tf.spaces.published import CELLS

FIXED = "fixed"
NOTATION = "normal=OP@INPUT+OP@INPUT/… reduction=… (nodes separated by /, or reduction=fixed)"
BARS = "|OP~INPUT|+|OP~INPUT|OP~INPUT|+…"
"""The notation of NAS-Bench-201."""
CONCAT = ("normal_concat", "reduction_concat")
ABOUT = ("name", "space", "inputs", "output", "between", *CONCAT)
KEYS = (*ABOUT, "normal", "reduction")
"""What is written of a genotype, as JSON and in the short notation; `ABOUT` may be left out."""
CELL = "cell"
"""The key of a cell in the notation of NAS-Bench-201, in JSON, and what the column of a table is called."""


def words(text: str) -> dict[str, str]:
    """Takes a genotype in short notation apart: what stands behind each of `KEYS`.

    Args:
        text: the genotype in short notation.

    Raises:
        UsageError: a word is not understood, stands twice, or is missing.
    """
    parts: dict[str, str] = {}
    for word in text.split():
        key, equals, content = word.partition("=")
        if not equals or key not in KEYS:
            near = did_you_mean(key, KEYS if equals else CELLS)
            raise UsageError(
                f"genotype: cannot read {show(word)}; "
                + (near or f"accepted is {NOTATION}, a cell of NAS-Bench-201 as {BARS}, or one of ")
                + ("" if near else ", ".join(CELLS))
            )
        if key in parts:
            raise UsageError(f"genotype: {key} stands twice; give it once")
        parts[key] = content
    for key in ("normal", "reduction"):
        if key not in parts:
            raise UsageError(f"genotype: {key} is missing; accepted is {NOTATION}")
    return parts


def is_bars(text: str) -> bool:
    """Whether a text is in the notation of NAS-Bench-201."""
    return "|" in text


def cell_to_bars(cell: Sequence[Sequence[tuple[str, int]]]) -> str | None:
    """Returns the notation of NAS-Bench-201 of a cell, or None of one whose nodes do not take all that comes
    before them, each once."""
    nodes = []
    for number, node in enumerate(cell):
        edges = sorted(node, key=lambda edge: edge[1])
        if [source for _, source in edges] != list(range(number + 1)):
            return None
        nodes.append("".join(f"|{name}~{source}" for name, source in edges) + "|")
    return "+".join(nodes)


def cell_from_bars(text: str) -> list[list[tuple[str, int]]]:
    """Returns the nodes of a cell as lists of (operation, input), those of a node by ascending input.

    Args:
        text: the cell in the notation of NAS-Bench-201, with long or short names of operations; spaces and
            the order of a node's edges do not matter.

    Raises:
        UsageError: a part is not understood, or a node does not take all that comes before it, each once.
    """
    cell = []
    for number, node in enumerate("".join(text.split()).split("+")):
        place = f"genotype: node {number + 1}"
        if len(node) < 3 or not (node.startswith("|") and node.endswith("|")):
            raise UsageError(f"{place}: found {show(node)}; accepted is {BARS}, each node between two |")
        edges = []
        for edge in node[1:-1].split("|"):
            operation, tilde, source = edge.partition("~")
            if not tilde or not re.fullmatch(r"[0-9]{1,6}", source):
                raise UsageError(
                    f"{place}: found {show(edge)}; accepted is operation~input, as nor_conv_3x3~0"
                )
            # (Of a whole table only long names are looked up.)
            name = operation if operation in OPERATIONS else OPERATIONS.long_names().get(operation)
            if name is None:
                raise UsageError(
                    f"{place}: unknown operation {show(operation)}; {OPERATIONS.hint(operation)}"
                )
            edges.append((name, int(source)))
        edges.sort(key=lambda edge: edge[1])
        if [source for _, source in edges] != list(range(number + 1)):
            found = ", ".join(str(source) for _, source in edges)
            wanted = ", ".join(map(str, range(number + 1)))
            raise UsageError(
                f"{place}: found inputs {found}; accepted are {wanted}, all that comes before, each once"
            )
        cell.append(edges)
    return cell


def value_to_text(value: Any) -> str:
    """Returns what stands behind one of `ABOUT`: a tuple of numbers as a comma list."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def value_from_text(key: str, text: str) -> Any:
    """Returns the value of one of `ABOUT`; what should be numbers and is not stays text."""
    if key in CONCAT:
        parts = text.split(",")
        return [int(part) for part in parts] if all(map(_is_number, parts)) else text
    return int(text) if key == "inputs" and _is_number(text) else text


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,6}", text) is not None


def cell_to_text(cell: Sequence[Sequence[tuple[str, int]]]) -> str:
    """Returns the notation of a cell, a list of nodes of (operation, input)."""
    return "/".join(
        "+".join(f"{OPERATIONS.short_name(name)}@{source}" for name, source in node) for node in cell
    )


def cell_from_text(text: str, place: str) -> list[list[tuple[str, int]]]:
    """Returns the nodes of a cell as lists of (operation, input).

    Args:
        text: the cell in short notation, with short or long names of operations.
        place: where it stands, for messages.

    Raises:
        UsageError: a part is not understood; the message names the place.
    """
    return [
        [
            _edge_from_text(edge, f"{place}, node {number}, edge {position}")
            for position, edge in enumerate(node.split("+"))
        ]
        for number, node in enumerate(text.split("/"))
    ]


def _edge_from_text(text: str, place: str) -> tuple[str, int]:
    operation, at, source = text.partition("@")
    if not at or not _is_number(source):
        raise UsageError(
            f"genotype: {place}: found {show(text)}; accepted is operation@input, for example sep3@0"
        )
    names = OPERATIONS.long_names()
    if operation not in names:
        near = did_you_mean(operation, names)
        raise UsageError(
            f"genotype: {place}: unknown operation {show(operation)}; accepted are {', '.join(names)}"
            + (f"; {near}" if near else "")
        )
    return names[operation], int(source)


def format_json(value: Mapping[str, Any]) -> str:
    """Returns JSON of a genotype with one node a line."""
    entries = []
    for key, content in value.items():
        if isinstance(content, list) and key not in CONCAT:
            nodes = ",\n".join(f"    {json.dumps(node)}" for node in content)
            entries.append(f"  {json.dumps(key)}: [\n{nodes}\n  ]")
        else:
            entries.append(f"  {json.dumps(key)}: {json.dumps(content)}")
    return "{\n" + ",\n".join(entries) + "\n}\n"


def show(value: object) -> str:
    """Returns a short, one-line picture of a value for an error message."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"

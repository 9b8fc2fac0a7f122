"""The genotype: operations and edges of the derived cells, as JSON and as short text."""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from gdas_tf.errors import UsageError
from gdas_tf.registry import did_you_mean
from gdas_tf.spaces.base import BETWEEN, INPUTS, OUTPUTS, Between, Output, SearchSpace
from gdas_tf.spaces.cell import Cell, Edge, check_node, count, to_cell, to_concat, to_lists
from gdas_tf.spaces.nasbench201 import NASBENCH201
from gdas_tf.spaces.notation import (
    ABOUT,
    BARS,
    CELL,
    CONCAT,
    FIXED,
    KEYS,
    cell_from_bars,
    cell_from_text,
    cell_to_bars,
    cell_to_text,
    format_json,
    is_bars,
    show,
    value_from_text,
    value_to_text,
    words,
)
from gdas_tf.spaces.published import CELLS, RETIRED
from gdas_tf.user_files import parse_json, read_text

SUFFIXES = (".json", ".txt")
_NAME = re.compile(r"[A-Za-z0-9_.+-]+")


@dataclasses.dataclass(frozen=True)
class Genotype:
    """The normal and the reduction cell of a network; immutable, hashable, valid.

    A node is the sum of its edges' outputs, a cell's output the concatenation of its nodes, or of some of
    them, or the last one. A node may have any number of edges, and may take one input on several; each edge
    then has its own operation with its own weights. The reduction cell may have another number of nodes than
    the normal one. Two genotypes with the same cells are equal, whatever their names.

    Args:
        normal: the normal cell; lists and (operation, input) pairs are accepted and converted.
        reduction: the reduction cell, or None for the fixed reduction cell.
        name: letters, digits and `_.+-`, or None.
        inputs: number of inputs of each cell: 2, the outputs of the two cells before, or 1, that of the cell
            before.
        output: what a cell gives: "concatenation" of its nodes, or its "last" node.
        space: name of the search space whose networks it is for, or None, which stands for "darts". The edges
            of a node of "nasbench201" are brought to the order of their inputs.
        between: what such networks have between two blocks where there is no reduction cell, see
            `SearchSpace`.
        normal_concat, reduction_concat: the nodes that are concatenated, numbered as `Edge.input` (with two
            inputs 2 + j is node j), ascending; None for all.

    Raises:
        UsageError: the cells are not valid; the message names the place.

    Example:
        >>> cell = [[("sep_conv_3x3", 0), ("skip_connect", 1)], [("max_pool_3x3", 1), ("sep_conv_5x5", 2)]]
        >>> genotype = Genotype(cell, reduction=None)
        >>> genotype.to_text()
        'normal=sep3@0+skip@1/max3@1+sep5@2 reduction=fixed'
        >>> genotype.normal[1][0].operation
        'max_pool_3x3'
    """

    normal: Cell
    reduction: Cell | None
    name: str | None = dataclasses.field(default=None, compare=False)
    inputs: int = 2
    output: Output = "concatenation"
    space: str | None = dataclasses.field(default=None, compare=False)
    between: Between = dataclasses.field(default="frc", compare=False)
    normal_concat: tuple[int, ...] | None = None
    reduction_concat: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.inputs not in INPUTS or isinstance(self.inputs, bool | float):
            raise UsageError(
                f"genotype: inputs is {show(self.inputs)}; accepted are {' and '.join(map(str, INPUTS))}, "
                "the number of cells before whose outputs a cell takes"
            )
        for what, value, accepted, about in (
            ("output", self.output, OUTPUTS, "what a cell makes of its nodes"),
            ("between", self.between, BETWEEN, "what stands between two blocks"),
        ):
            if value not in accepted:
                raise UsageError(
                    f"genotype: {what} is {show(value)}; accepted are {', '.join(accepted)} ({about})"
                )
        for what, text in (("name", self.name), ("space", self.space)):
            if text is not None and not (isinstance(text, str) and _NAME.fullmatch(text)):
                raise UsageError(f"genotype: {what} is {text!r}; accepted are letters, digits and _.+-")
        for name in ("normal", "reduction"):
            value, concat = getattr(self, name), getattr(self, f"{name}_concat")
            fixed = name == "reduction" and value is None
            if not fixed:
                value = to_cell(value, self.inputs, f"{name} cell")
                if self.space == NASBENCH201.name:
                    value = tuple(tuple(sorted(node, key=lambda edge: edge.input)) for node in value)
                object.__setattr__(self, name, value)
            if concat is not None and (fixed or self.output == "last"):
                why = "the fixed reduction cell has none" if fixed else "output=last gives one node"
                raise UsageError(
                    f"genotype: {name}_concat is {show(concat)}; {why}, so that it must be left out"
                )
            if not fixed:
                concat = to_concat(concat, value, self.inputs, f"{name}_concat")
            object.__setattr__(self, f"{name}_concat", concat)

    @property
    def cells(self) -> dict[str, Cell]:
        """The searched cells by name: "normal", and "reduction" unless that one is fixed."""
        cells = {"normal": self.normal}
        return cells if self.reduction is None else cells | {"reduction": self.reduction}

    @property
    def inputs_per_node(self) -> int:
        """Number of edges (T) that nodes have, the first ones perhaps fewer."""
        return max(len(node) for cell in self.cells.values() for node in cell)

    def given(self, reduction: bool = False) -> tuple[int, ...]:
        """Returns the nodes that a searched cell gives, numbered as `Edge.input`, in their order.

        Args:
            reduction: which cell: the reduction cell, or the normal one.
        """
        concat = self.reduction_concat if reduction else self.normal_concat
        end = self.inputs + len(self.cells["reduction" if reduction else "normal"])
        first = end - 1 if self.output == "last" else self.inputs
        return tuple(range(first, end)) if concat is None else concat

    def check_fits(self, space: SearchSpace) -> None:
        """Makes sure that the genotype is one of a search space.

        Raises:
            UsageError: it has other operations, other numbers of nodes or edges, or concatenates other
                nodes; the message names the first place.
        """
        for field in ("inputs", "output"):
            if getattr(self, field) != getattr(space, field):
                raise UsageError(
                    f"genotype: {field} is {getattr(self, field)}; the search space {space.name} has "
                    f"{getattr(space, field)}"
                )
        for name, cell in self.cells.items():
            if len(cell) != space.nodes and (name == "normal" or space.reduction):
                raise UsageError(
                    f"genotype: {name} cell: found {count(len(cell), 'node')}; the search space has "
                    f"{space.nodes}"
                )
        if self.reduction is not None and not space.reduction:
            raise UsageError(
                f"genotype: found a reduction cell; the search space {space.name} has none, so that "
                f"reduction={FIXED} is accepted"
            )
        for name, cell in self.cells.items():
            for number, node in enumerate(cell):
                check_node(node, number, f"genotype: {name} cell, node {number}", space)
            if (concat := getattr(self, f"{name}_concat")) is not None:
                raise UsageError(
                    f"genotype: {name}_concat is {', '.join(map(str, concat))}; a cell of the search space "
                    f"{space.name} concatenates all its nodes"
                )

    def to_json(self) -> dict[str, Any]:
        """Returns what `json.dumps` takes: `normal` and `reduction` as lists of nodes of [operation, input].

        A fixed reduction cell is the string "fixed"; `name` and `space` are there only if there is one,
        `inputs` and `output` only if they are not 2 and "concatenation", `normal_concat` and
        `reduction_concat` only if not all nodes are concatenated. A genotype of NAS-Bench-201 has `cell` in
        place of all but its name and space: the cell in that benchmark's notation.
        """
        if (bars := self.to_bars()) is not None and self.space == NASBENCH201.name:
            about = self._about()
            return {key: about[key] for key in ("name", "space") if key in about} | {CELL: bars}
        cells: dict[str, Any] = {"normal": to_lists(self.normal)}
        cells["reduction"] = FIXED if self.reduction is None else to_lists(self.reduction)
        about = self._about()
        return {key: list(value) if key in CONCAT else value for key, value in about.items()} | cells

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | str) -> Genotype:
        """Returns the genotype of what `to_json` gave, as a mapping or as JSON text.

        Raises:
            UsageError: it is not JSON, has other keys, or is not valid; the message names the place.
        """
        if isinstance(value, str):
            try:
                value = parse_json(value)
            except ValueError as error:
                raise UsageError(f"genotype: {error}") from error
        if isinstance(value, str) and is_bars(value):
            return cls.from_text(value)
        if not isinstance(value, Mapping):
            raise UsageError(
                f"genotype: found {show(value)}; accepted is an object with normal and reduction, or with "
                f"the {CELL} of NAS-Bench-201"
            )
        if CELL in value:
            return cls._from_bars(value[CELL], {key: value[key] for key in value if key != CELL})
        for key in ("normal", "reduction"):
            if key not in value:
                raise UsageError(f"genotype: {key} is missing; give the {key} cell as a list of nodes")
        for key in value:
            if key not in KEYS:
                near = did_you_mean(key, KEYS)
                raise UsageError(
                    f"genotype: unknown key {key!r}; accepted are {', '.join(KEYS)}"
                    + (f"; {near}" if near else "")
                )
        reduction = value["reduction"]
        if reduction is None:
            raise UsageError(
                'genotype: reduction cell: found null; write "fixed" for the fixed reduction cell'
            )
        about = {key: value[key] for key in ABOUT if key in value}
        return cls(value["normal"], None if reduction == FIXED else reduction, **about)

    def to_text(self) -> str:
        """Returns the short notation, one line: `[name=NAME] normal=sep3@0+skip@1/… reduction=…|fixed`.

        An edge is operation@input, edges are joined by `+`, nodes by `/`; see `Operation.short`. The words
        `inputs=1`, `output=last` and `normal_concat=4,5,6` are there only if they hold. A genotype of the
        space nasbench201 is written in that benchmark's notation, `[name=NAME] |nor_conv_3x3~0|+|…|`.
        """
        if (bars := self.to_bars()) is not None and self.space == NASBENCH201.name:
            return f"name={self.name} {bars}" if self.name else bars
        reduction = FIXED if self.reduction is None else cell_to_text(self.reduction)
        about = "".join(f"{key}={value_to_text(value)} " for key, value in self._about().items())
        return f"{about}normal={cell_to_text(self.normal)} reduction={reduction}"

    @classmethod
    def from_text(cls, text: str) -> Genotype:
        """Returns the genotype of a text in short notation, or in that of NAS-Bench-201, with short or long
        operation names.

        Raises:
            UsageError: a part is missing, not understood, or not valid; the message names the place.
        """
        if text in RETIRED:
            raise UsageError(f"genotype {text}: {RETIRED[text]}")
        if is_bars(text):
            about, _, cell = text.partition("|")
            given = [word.partition("=") for word in about.split()]
            return cls._from_bars(f"|{cell}", {key or equals: value for key, equals, value in given})
        parts = words(text)
        normal = cell_from_text(parts["normal"], "normal cell")
        reduction = None
        if parts["reduction"] != FIXED:
            reduction = cell_from_text(parts["reduction"], "reduction cell")
        about = {key: value_from_text(key, parts[key]) for key in ABOUT if key in parts}
        return cls(normal, reduction, **about)

    def to_bars(self) -> str | None:
        """Returns the cell in the notation of NAS-Bench-201, `|nor_conv_3x3~0|+|none~0|skip_connect~1|+…`.

        None of a genotype that it cannot write: with a reduction cell, two inputs, the concatenation as
        output, or nodes that do not take all that comes before them.
        """
        fits = self.reduction is None and self.inputs == 1 and self.output == "last"
        return cell_to_bars(self.normal) if fits else None

    @classmethod
    def _from_bars(cls, cell: Any, about: Mapping[str, Any]) -> Genotype:
        """The genotype of a cell in the notation of NAS-Bench-201, with what is said of it besides."""
        if not isinstance(cell, str) or not is_bars(cell):
            raise UsageError(f"genotype: {CELL}: found {show(cell)}; accepted is text as {BARS}")
        for key in about:
            if key not in ("name", "space"):
                raise UsageError(f"genotype: found {show(key)} before a {CELL}; accepted are name and space")
        space = about.get("space", NASBENCH201.name)
        of = {"name": about.get("name"), "space": space, "between": NASBENCH201.between}
        return cls(cell_from_bars(cell), None, inputs=1, output="last", **of)

    @classmethod
    def of(cls, space: SearchSpace, normal: Any, reduction: Any = None, name: str | None = None) -> Genotype:
        """Returns the genotype of cells of a search space: with its inputs, its output and its name."""
        named = None if space.name == "darts" else space.name
        return cls(normal, reduction, name, space.inputs, space.output, named, space.between)

    def save(self, path: str | Path) -> None:
        """Writes a file, atomically: JSON for the suffix .json, the short notation for .txt.

        Raises:
            UsageError: the suffix is another one.
            RunError: the disk is full or read-only.
        """
        from gdas_tf.files import atomic_write

        path = Path(path)
        _check_suffix(path)
        atomic_write(path, format_json(self.to_json()) if path.suffix == ".json" else self.to_text() + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Genotype:
        """Reads a .json or .txt file, or returns the published genotype of that name (see `GENOTYPES`).

        Raises:
            UsageError: there is no such file or name, or the file is damaged; the message says where.
        """
        if str(path) in GENOTYPES:
            return GENOTYPES[str(path)]
        if str(path) in RETIRED:
            raise UsageError(f"genotype {path}: {RETIRED[str(path)]}")
        path = Path(path)
        if not path.is_file():
            near = did_you_mean(str(path), GENOTYPES)
            raise UsageError(
                f"genotype {path}: there is no such file; "
                + (near or f"accepted are .json and .txt files, and the names {', '.join(GENOTYPES)}")
            )
        _check_suffix(path)
        text = read_text(path, f"genotype {path}")
        try:
            return cls.from_json(text) if path.suffix == ".json" else cls.from_text(text)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from error

    def _about(self) -> dict[str, Any]:
        """What is said of the cells, where it is not the default."""
        return {
            field.name: value
            for field in dataclasses.fields(self)
            if field.name in ABOUT and (value := getattr(self, field.name)) != field.default
        }


def random_genotype(
    space: SearchSpace,
    seed: int,
    reduction: Literal["searched", "fixed"] = "searched",
    allow_none: bool = False,
) -> Genotype:
    """Returns a genotype drawn uniformly from a search space: the baseline that a search has to beat.

    Every node takes `inputs_per_node` different inputs (all of them if there are fewer), each with one
    operation.

    Args:
        space: the search space.
        seed: whole number; the same one gives the same genotype, and the same normal cell with both kinds of
            reduction cell.
        reduction: "searched" draws a reduction cell as well, if the space has one; "fixed" takes the fixed
            one.
        allow_none: may `none` be drawn, also in a space in which it is no operation like the others.
    """
    generator = random.Random(seed)
    operations = [space.operations[column] for column in space.candidates(allow_none)]

    def draw_cell() -> Cell:
        cell = []
        for number in range(space.nodes):
            possible = range(space.inputs + number)
            chosen = sorted(generator.sample(possible, min(space.inputs_per_node, len(possible))))
            cell.append(tuple(Edge(generator.choice(operations), source) for source in chosen))
        return tuple(cell)

    normal = draw_cell()
    searched = reduction == "searched" and space.reduction
    return Genotype.of(space, normal, draw_cell() if searched else None, f"random-{seed}")


def _check_suffix(path: Path) -> None:
    if path.suffix not in SUFFIXES:
        raise UsageError(
            f"genotype {path}: unknown suffix {path.suffix!r}; accepted are {', '.join(SUFFIXES)}"
        )


GENOTYPES: dict[str, Genotype] = {
    name: Genotype.from_text(f"name={name} {cells}") for name, cells in CELLS.items()
}
"""Published genotypes by name, see `gdas_tf.spaces.published`."""

"""Search spaces: what a cell looks like, and which operations may stand on which of its edges."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any, Literal, get_args

from gdas_tf.errors import UsageError
from gdas_tf.operations.base import OPERATIONS
from gdas_tf.registry import Registry
from gdas_tf.spaces.macro import CellPlan, stack

_GDAS = (
    "none",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
    "avg_pool_3x3",
    "max_pool_3x3",
)
"""The space F of Dong & Yang (CVPR 2019), in its order."""

OPERATION_SETS: dict[str, tuple[str, ...]] = {
    "gdas": _GDAS,
    "gdas-4": ("none", "skip_connect", "sep_conv_3x3", "max_pool_3x3"),
    "gdas-12": (*_GDAS, "sep_conv_7x7", "dil_conv_7x7", "conv_1x1", "conv_3x3"),
}
"""The sets of operations that have a name."""

RULES = ("edges", "pairs")
"""How a node ranks what it may keep, see `gdas_tf.strategies.derivation.derive`."""

Output = Literal["concatenation", "last"]
Keep = Literal["best", "all"]
Between = Literal["frc", "residual"]

INPUTS = (1, 2)
"""The numbers of inputs that a cell may have."""

OUTPUTS: tuple[Output, ...] = get_args(Output)
"""What a cell may make of its nodes."""

KEEPS: tuple[Keep, ...] = get_args(Keep)
"""Which edges a genotype may keep."""

BETWEEN: tuple[Between, ...] = get_args(Between)
"""What may stand between two blocks where no reduction cell is searched."""

CUSTOM = "custom"
"""The name of a space that a YAML file describes (`gdas_tf.spaces.custom`); it is not registered."""


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """Inputs, nodes, edges, operations and output of a searched cell, and the networks made of such cells.

    The supernet (`gdas_tf.supernet.network`) and the derived network (`gdas_tf.networks.derived`) are both
    built as it says.

    A cell of two inputs takes the outputs c_{k-2} and c_{k-1} of the two cells before, a cell of one input
    takes c_{k-1}. It computes the nodes 0, 1, …; node i may take the cell's inputs and every node before it.
    What a node may take is numbered per cell: the inputs first (0 is c_{k-2} and 1 is c_{k-1}, or 0 is
    c_{k-1}), then the nodes. Logits and probabilities are arrays [edges, operations] in the order of `edges`
    and `operations`.

    Args:
        operations: names of operations, in the order of the logits' columns (K of them).
        nodes: number of computed nodes (B).
        inputs_per_node: number of inputs that each node keeps in a genotype (T); nodes that have fewer
            possible inputs keep them all. With `keep = "all"` it is not looked at.
        name: of the space, as it is registered in `SPACES`.
        inputs: number of inputs of a cell, 1 or 2.
        keep: which edges a genotype keeps: the "best" `inputs_per_node` of each node, or "all" of them.
        output: what a cell gives: the "concatenation" of its nodes, or its "last" node.
        reduction: whether a reduction cell is searched too. Without one a network has what `between` names
            wherever `stack` places a reduction cell.
        stack: how cells are stacked: takes the channels, the number of cells of a block and the name of a
            macro, and returns the cells of a network, as `gdas_tf.spaces.macro.stack`.
        between: what stands between two blocks where no reduction cell is searched: "frc", the fixed
            reduction cell of Dong & Yang (CVPR 2019), or "residual", the residual block of NAS-Bench-201.
        stem: channels of the first convolution, in multiples of those of the first block; the stem for images
            over 64x64 pixels always has as many as the first block.
        preprocess: whether a cell takes each of its inputs through ReLU, 1x1 convolution and batch norm.
            Without, its input is the output of the cell before as it is; this needs one input, a stem of 1,
            the output "last", no reduction cell, and residual blocks.
        head_norm: whether a network always has batch norm and ReLU before the global pooling; where not,
            `retrain.head_norm` says it.
        with_none: whether `none` is an operation like the others, which a genotype may have.
        cells, channels: normal cells of a block, and channels of the first one, in the search and in the
            retraining, unless the user says other numbers; None for the defaults of the configuration.

    Raises:
        UsageError: an operation is unknown or stands twice, nothing but `none` is left, or another value is
            not accepted.

    Example:
        >>> space = SearchSpace.named("gdas")
        >>> space.edge_count, len(space.operations)
        (14, 8)
        >>> space.edges[:5]
        ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2))
        >>> SearchSpace(nodes=3, inputs=1, keep="all", output="last").edges
        ((0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2))
    """

    operations: tuple[str, ...] = OPERATION_SETS["gdas"]
    nodes: int = 4
    inputs_per_node: int = 2
    name: str = "darts"
    inputs: int = 2
    keep: Keep = "best"
    output: Output = "concatenation"
    reduction: bool = True
    stack: Callable[[int, int, str], list[CellPlan]] = stack
    between: Between = "frc"
    stem: int = 3
    preprocess: bool = True
    head_norm: bool = False
    with_none: bool = False
    cells: int | None = None
    channels: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "operations", tuple(self.operations))
        self._check_operations()
        if not _is_count(self.nodes):
            raise UsageError(f"search space: nodes is {self.nodes!r}; accepted is a whole number from 1")
        choices = {"inputs": INPUTS, "keep": KEEPS, "output": OUTPUTS, "between": BETWEEN}
        for field, accepted in choices.items():
            value = getattr(self, field)
            if value not in accepted or isinstance(value, bool | float):
                raise UsageError(
                    f"search space: {field} is {value!r}; accepted are {', '.join(map(str, accepted))}"
                )
        if self.keep == "all":
            object.__setattr__(self, "inputs_per_node", self.most_inputs)
        if not _is_count(self.inputs_per_node) or self.inputs_per_node > self.most_inputs:
            raise UsageError(
                f"search space: inputs_per_node is {self.inputs_per_node!r}; accepted is a whole number from "
                f"1 to {self.most_inputs}, the inputs of the last of {self.nodes} nodes"
            )
        self._check_macro()

    def _check_macro(self) -> None:
        for field in ("reduction", "preprocess", "head_norm", "with_none"):
            if not isinstance(getattr(self, field), bool):
                raise UsageError(
                    f"search space: {field} is {getattr(self, field)!r}; accepted are true and false"
                )
        for field in ("stem", "cells", "channels"):
            value = getattr(self, field)
            if not (_is_count(value) or value is None and field != "stem"):
                raise UsageError(f"search space: {field} is {value!r}; accepted is a whole number from 1")
        if not self.preprocess:
            needed = {"inputs": 1, "stem": 1, "output": "last", "reduction": False, "between": "residual"}
            for field, value in needed.items():
                if getattr(self, field) != value:
                    raise UsageError(
                        f"search space: {field} is {getattr(self, field)!r} and preprocess is False; a cell "
                        "that takes its input as it is must give as many channels as it takes, for which "
                        f"{field} must be {value!r}"
                    )

    def _check_operations(self) -> None:
        for position, name in enumerate(self.operations):
            if name not in OPERATIONS:
                raise UsageError(
                    f"search space: unknown operation {name!r}; accepted are {', '.join(OPERATIONS)}"
                )
            if name in self.operations[:position]:
                raise UsageError(f"search space: operation {name} stands twice; name each one once")
        if not set(self.operations) - {"none"}:
            raise UsageError(
                f"search space: operations are {', '.join(self.operations) or 'empty'}; "
                "name at least one besides none"
            )

    @classmethod
    def named(
        cls,
        operations: str | None = None,
        nodes: int | None = None,
        inputs_per_node: int | None = None,
        space: str | SearchSpace = "darts",
    ) -> SearchSpace:
        """Returns a registered space, perhaps with other operations or of another size.

        Args:
            operations: "gdas", "gdas-4", "gdas-12", or a comma list as "none,skip_connect,conv_3x3"; None
                for those of the space.
            nodes: number of computed nodes; None for that of the space.
            inputs_per_node: number of inputs that a node keeps; None for that of the space, or as many as
                the last of `nodes` has.
            space: the space, or its name out of `SPACES`.

        Raises:
            UsageError: there is no such space or operation, or a number is out of range.
        """
        changed: dict[str, Any] = {}
        if operations is not None:
            changed["operations"] = _operations(operations)
        own = SPACES.get(space) if isinstance(space, str) else space
        if nodes is not None:
            changed["nodes"] = nodes
            if _is_count(nodes):
                changed["inputs_per_node"] = min(own.inputs_per_node, own.inputs + nodes - 1)
        if inputs_per_node is not None:
            changed["inputs_per_node"] = inputs_per_node
        return dataclasses.replace(own, **changed)

    @property
    def most_inputs(self) -> int:
        """The number of inputs that the last node may take."""
        return self.inputs + self.nodes - 1

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """All edges as (node, input), those of node 0 first, each node's by ascending input."""
        return tuple((node, source) for node in range(self.nodes) for source in range(self.inputs + node))

    @property
    def edge_count(self) -> int:
        """Number of edges E; 14 for two inputs and four nodes."""
        return sum(self.inputs + node for node in range(self.nodes))

    @property
    def off(self) -> int:
        """The index of an operation that gives zero: that of `none`, or the first one after all operations
        where the space has no `none`. It runs on the edges that a genotype does not keep."""
        return self.operations.index("none") if "none" in self.operations else len(self.operations)

    def output_channels(self, filters: int) -> int:
        """The channels of a cell's output, of `filters` channels a node."""
        return filters if self.output == "last" else self.nodes * filters

    def candidates(self, keep_none: bool = False) -> list[int]:
        """The columns of the operations that a genotype may have: all, or all but `none`.

        Args:
            keep_none: whether `none` is among them also where it is not an operation like the others
                (`with_none`).
        """
        keep_none = keep_none or self.with_none
        return [i for i, operation in enumerate(self.operations) if keep_none or operation != "none"]

    def highest_rank(self, rule: str = "edges", keep_none: bool = False) -> tuple[int, str]:
        """Returns the highest rank that a derivation may ask for, and why it is that one.

        Args:
            rule: one of `RULES`.
            keep_none: whether `none` may be chosen.

        Raises:
            UsageError: there is no such rule.
        """
        if rule not in RULES:
            raise UsageError(f"rule: found {rule!r}; accepted are {', '.join(RULES)}")
        edges = self.most_inputs
        if rule == "edges":
            return edges, f"the last of {self.nodes} nodes has {edges} edges"
        operations = len(self.candidates(keep_none))
        pairs = self.inputs * operations
        each = "each of its 2 edges" if self.inputs == 2 else "its edge"
        return pairs, f"node 0 has {pairs} pairs, {operations} operations on {each}"

    def to_json(self) -> dict[str, Any]:
        """Returns what `json.dumps` takes: every value but the stacking of cells, which the name stands
        for."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "stack"}
        return values | {"operations": list(self.operations)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> SearchSpace:
        """Returns the space of what `to_json` gave, with the stacking of the space of that name.

        Raises:
            UsageError: there is no space of that name, or a value is not accepted.
        """
        named = SearchSpace(name=CUSTOM) if values["name"] == CUSTOM else SPACES.get(values["name"])
        return dataclasses.replace(named, **values)


def _operations(text: str) -> tuple[str, ...]:
    """The operations of a set's name or of a comma list."""
    operations = OPERATION_SETS.get(text.strip())
    if operations is None:
        operations = tuple(part.strip() for part in text.split(","))
        if len(operations) == 1 and operations[0] not in OPERATIONS:
            raise UsageError(
                f"search space: unknown name {text!r}; accepted are {', '.join(OPERATION_SETS)}, or a comma "
                f"list of {', '.join(OPERATIONS)}"
            )
    return operations


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


SPACES: Registry[SearchSpace] = Registry("search space")
"""The search spaces by name. A file of its own makes a `SearchSpace` and registers it here."""

for _module in ("gdas_tf.spaces.darts", "gdas_tf.spaces.nasbench201"):
    importlib.import_module(_module)

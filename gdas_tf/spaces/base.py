"""The search space: which operations may stand on which edges of a cell."""

from __future__ import annotations

import dataclasses

from gdas_tf.errors import UsageError
from gdas_tf.operations.base import OPERATIONS

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

SPACES: dict[str, tuple[str, ...]] = {
    "gdas": _GDAS,
    "gdas-4": ("none", "skip_connect", "sep_conv_3x3", "max_pool_3x3"),
    "gdas-12": (*_GDAS, "sep_conv_7x7", "dil_conv_7x7", "conv_1x1", "conv_3x3"),
}
"""The operations of every search space that has a name."""

CELL_INPUTS = 2

RULES = ("edges", "pairs")
"""How a node ranks what it may keep, see `gdas_tf.strategies.derivation.derive`."""


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """Operations and edges of a searched cell.

    A cell has two inputs, the outputs c_{k-2} and c_{k-1} of the two cells before, and computed nodes 0, 1, …
    Node i may take the cell's inputs and every node before it. Inputs are numbered per cell: 0 is c_{k-2},
    1 is c_{k-1}, 2 + j is node j. Logits and probabilities are arrays [edges, operations] in the order of
    `edges` and `operations`.

    Args:
        operations: names out of `OPERATIONS`, in the order of the logits' columns (K of them).
        nodes: number of computed nodes (B).
        inputs_per_node: number of inputs that each node keeps in a genotype (T); nodes that have fewer
            possible inputs keep them all.

    Raises:
        UsageError: an operation is unknown or stands twice, nothing but `none` is left, or a number is out of
            range.

    Example:
        >>> space = SearchSpace.named("gdas")
        >>> space.edge_count, len(space.operations)
        (14, 8)
        >>> space.edges[:5]
        ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2))
    """

    operations: tuple[str, ...] = SPACES["gdas"]
    nodes: int = 4
    inputs_per_node: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "operations", tuple(self.operations))
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
        if not _is_count(self.nodes):
            raise UsageError(f"search space: nodes is {self.nodes!r}; accepted is a whole number from 1")
        most = CELL_INPUTS + self.nodes - 1
        if not _is_count(self.inputs_per_node) or self.inputs_per_node > most:
            raise UsageError(
                f"search space: inputs_per_node is {self.inputs_per_node!r}; accepted is a whole number from "
                f"1 to {most}, the inputs of the last of {self.nodes} nodes"
            )

    @classmethod
    def named(cls, name: str, nodes: int = 4, inputs_per_node: int = 2) -> SearchSpace:
        """Returns the search space of a name (see `SPACES`), or of a comma list of operations.

        Args:
            name: "gdas", "gdas-4", "gdas-12", or as "none,skip_connect,conv_3x3".
            nodes: number of computed nodes.
            inputs_per_node: number of inputs that a node keeps.

        Raises:
            UsageError: there is no such space or operation, or a number is out of range.
        """
        operations = SPACES.get(name.strip())
        if operations is None:
            operations = tuple(part.strip() for part in name.split(","))
            if len(operations) == 1 and operations[0] not in OPERATIONS:
                raise UsageError(
                    f"search space: unknown name {name!r}; accepted are {', '.join(SPACES)}, or a comma list "
                    f"of {', '.join(OPERATIONS)}"
                )
        return cls(operations, nodes, inputs_per_node)

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """All edges as (node, input), those of node 0 first, each node's by ascending input."""
        return tuple((node, source) for node in range(self.nodes) for source in range(CELL_INPUTS + node))

    @property
    def edge_count(self) -> int:
        """Number of edges E; 14 for four nodes."""
        return sum(CELL_INPUTS + node for node in range(self.nodes))

    def candidates(self, keep_none: bool = False) -> list[int]:
        """The columns of the operations that a derivation may choose: all, or all but `none`."""
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
        edges = CELL_INPUTS + self.nodes - 1
        if rule == "edges":
            return edges, f"the last of {self.nodes} nodes has {edges} edges"
        operations = len(self.candidates(keep_none))
        pairs = CELL_INPUTS * operations
        return pairs, f"node 0 has {pairs} pairs, {operations} operations on each of its {CELL_INPUTS} edges"


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1

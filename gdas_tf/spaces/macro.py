"""The macro architecture: how cells are stacked to a network."""

from __future__ import annotations

from typing import Literal, NamedTuple

from gdas_tf.errors import UsageError

MACROS = ("paper", "autodl")
SYNONYMS = {"official": "autodl"}
"""Names that run directories from before may hold: "official" was mistaken for the code of the paper."""

STEMS = ("auto", "cifar", "imagenet")
"""What may be said of the first layers; "auto" goes by the size of the images (`stem_of`)."""

Stem = Literal["cifar", "imagenet"]

_LARGEST_OF_CIFAR = 64 * 64
"""Pixels of the largest images that "auto" does not reduce before the first cell."""


class CellPlan(NamedTuple):
    """One cell of a stack: its kind, its channels, and whether the cell before it is a reduction cell."""

    filters: int
    reduction: bool
    after_reduction: bool


def stack(channels: int, cells: int, macro: str = "paper") -> list[CellPlan]:
    """The cells of a network, in order.

    N normal cells of C channels, a reduction cell, N normal cells of 2C, a reduction cell, N normal cells of
    4C (CVPR 2019, section 3.1). `macro="autodl"` is that of AutoDL-Projects, the authors' code of 2020: N - 1
    normal cells in the second and third block.

    Args:
        channels: C.
        cells: N.
        macro: "paper" or "autodl" ("official" means "autodl").

    Raises:
        UsageError: another macro, or a number below one.
    """
    macro = SYNONYMS.get(macro, macro)
    if macro not in MACROS:
        raise UsageError(f"macro is {macro!r}; accepted are {', '.join(MACROS)}")
    if channels < 1 or cells < 1:
        raise UsageError(f"channels is {channels} and cells is {cells}; both must be at least 1")
    later = cells if macro == "paper" else cells - 1
    plan = [(channels, False)] * cells
    for factor in (2, 4):
        plan += [(factor * channels, True)] + [(factor * channels, False)] * later
    before = [False] + [reduction for _, reduction in plan]
    return [CellPlan(*cell, after) for cell, after in zip(plan, before, strict=False)]


def stem_of(stem: str, height: int, width: int) -> Stem:
    """The first layers of a network, of the supernet as of derived ones.

    Args:
        stem: one of `STEMS`; "auto" takes "imagenet" for images of more pixels than 64x64.
        height, width: of the images, in pixels.

    Raises:
        UsageError: another stem.
    """
    if stem not in STEMS:
        raise UsageError(f"stem: found {stem!r}; accepted: {', '.join(STEMS)}")
    if stem == "auto":
        return "imagenet" if height * width > _LARGEST_OF_CIFAR else "cifar"
    return stem

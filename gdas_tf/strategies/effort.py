"""What a search does besides the epochs of its supernet, in numbers that a plan of its time needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Effort(NamedTuple):
    """What a strategy computes besides the epochs of a supernet.

    Args:
        judged: Genotypes that the supernet's weights judge after its last epoch.
        judged_images: Images of D_V that each is judged on; None for all.
        rounds: Of the short trainings of candidates: how many, and of how many epochs, round by round.
    """

    judged: int = 0
    judged_images: int | None = None
    rounds: tuple[tuple[int, int], ...] = ()


def scaled_count(count: int, factor: float, least: int = 1) -> int:
    """A number of candidates for `factor` times the work: half of that (in the logarithm) is theirs, the
    other half that of the length of their trainings."""
    return max(min(count, least), round(count * math.sqrt(factor)))


def scaled_epochs(epochs: Sequence[int], factor: float) -> tuple[int, ...]:
    """The epochs of the rounds for `factor` times the work, see `scaled_count`; they rise as they did."""
    found: list[int] = []
    for number in epochs:
        wanted = max(1, round(number * math.sqrt(factor)))
        found.append(max(wanted, found[-1] + 1) if found else wanted)
    return tuple(found)


def rounds_of_halving(
    candidates: int, drawn: int, epochs: Sequence[int], keep: float
) -> tuple[tuple[int, int], ...]:
    """The trainings of each rung of a race (`gdas_tf.strategies.halving.Halving`), at most.

    Args:
        candidates: Who takes part in the first rung.
        drawn: How many of them are random cells, of which the best goes on in any case.
        epochs: Of each rung.
        keep: Part of a rung's candidates that goes on.
    """
    found = []
    for number in epochs:
        found.append((candidates, number))
        candidates = min(candidates, going_on(candidates, keep) + (drawn > 0))
    return tuple(found)


def going_on(candidates: int, keep: float) -> int:
    """How many of a rung's candidates go on to the next."""
    return max(1, math.ceil(candidates * keep - 1e-9))

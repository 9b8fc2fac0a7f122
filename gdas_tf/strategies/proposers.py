"""Candidates of a race, by what a user writes: finished runs, published cells, files, and random cells."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gdas_tf.config.names import hint
from gdas_tf.errors import UsageError
from gdas_tf.files import is_run_directory
from gdas_tf.spaces.base import SearchSpace
from gdas_tf.spaces.genotype import GENOTYPES, Genotype, random_genotype

RANDOM = "random"


class Candidate(NamedTuple):
    """A genotype that takes part in a race.

    Args:
        label: What proposed it: the text of the user, or `random-N`.
        genotype: The cells.
        random: Whether it was drawn at random.
    """

    label: str
    genotype: Genotype
    random: bool = False


def candidates_of(
    texts: Sequence[str], space: SearchSpace, seed: int, fixed_reduction: bool
) -> list[Candidate]:
    """Reads what a user wrote as `race.candidates`.

    Args:
        texts: Each a finished run's directory, the name of a published genotype, a .json or .txt file, a
            genotype in short notation, or `random:N` for N genotypes drawn uniformly from the space.
        space: The search space that all must fit.
        seed: Of the random ones.
        fixed_reduction: Whether the random ones have the fixed reduction cell.

    Returns:
        The candidates in their order. Of those with the same cells only the first is there.

    Raises:
        UsageError: One is not there, or does not fit the space; the message names it.
    """
    found: list[Candidate] = []
    for text in texts:
        if is_drawn(text):
            number = sum(candidate.random for candidate in found)
            found += _random(drawn_of([text]), number, space, seed, fixed_reduction)
            continue
        genotype = _read(text)
        try:
            genotype.check_fits(space)
        except UsageError as error:
            reason = str(error).removeprefix("genotype: ")
            raise UsageError(f"race.candidates: {text} does not fit: {reason}") from error
        found.append(Candidate(text, genotype))
    unique = {candidate.genotype: candidate for candidate in reversed(found)}
    return [candidate for candidate in found if unique[candidate.genotype] is candidate]


def is_drawn(text: str) -> bool:
    """Whether a text of `race.candidates` asks for random cells."""
    return text.partition(":")[0] == RANDOM


def drawn_of(texts: Sequence[str]) -> int:
    """How many random cells texts of `race.candidates` ask for.

    Raises:
        UsageError: A number of them is none.
    """
    return sum(_count(text, text.partition(":")[2]) for text in texts if is_drawn(text))


def _random(count: int, first: int, space: SearchSpace, seed: int, fixed_reduction: bool) -> list[Candidate]:
    kind = "fixed" if fixed_reduction else "searched"
    allow_none = space.keep == "all"  # there it is an operation as any other
    found = []
    for number in range(first, first + count):
        genotype = random_genotype(space, 1_000_003 * seed + number, kind, allow_none)
        label = f"{RANDOM}-{number}"
        found.append(Candidate(label, dataclasses.replace(genotype, name=label), random=True))
    return found


def _count(text: str, count: str) -> int:
    if not count.isdecimal() or not 1 <= int(count) <= 10_000:
        raise UsageError(
            f"race.candidates: found {text!r}; accepted is random:N with N from 1 to 10000, as random:8"
        )
    return int(count)


def _read(text: str) -> Genotype:
    try:
        if is_run_directory(text):
            path = Path(text) / "genotype.json"
            if not path.is_file():
                raise UsageError(f"{text}: this run has no genotype yet; derive one first, or leave it out")
            return Genotype.load(path)
        if text in GENOTYPES or Path(text).suffix in (".json", ".txt"):
            return Genotype.load(text)
        if "=" in text or "|" in text:
            return Genotype.from_text(text)
    except UsageError as error:
        raise UsageError(f"race.candidates: {error}") from error
    what = "is no run directory" if os.path.isdir(text) else "is no path and no name"
    near = hint(text, [*GENOTYPES, f"{RANDOM}:8"])
    advice = near or f"accepted are run directories, .json and .txt files, random:N, {', '.join(GENOTYPES)}"
    raise UsageError(f"race.candidates: {text} {what}; {advice}")

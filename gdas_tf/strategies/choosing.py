"""Base of the strategies that find a genotype themselves, by choosing among candidates."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from gdas_tf.config.fields import Whole
from gdas_tf.errors import UsageError
from gdas_tf.strategies import candidates
from gdas_tf.strategies.base import Batch, Paths, Strategy, Task

if TYPE_CHECKING:
    import numpy as np

    from gdas_tf.config.config import Config
    from gdas_tf.spaces.genotype import Genotype
    from gdas_tf.training.search_model import SearchModel

Batches = Annotated[
    Whole,
    Field(
        ge=1, description="batches of D_V that a candidate's loss is the mean of; all, where there are fewer"
    ),
]
"""The field of a strategy's section that `ChoosingStrategy.choose` reads."""


class ChoosingStrategy(Strategy):
    """A strategy whose outcome is one genotype, and no logits that one would be derived of.

    Its arrays are `best_normal`, and `best_reduction` unless that cell is fixed: int32 [E], the operation of
    each edge, `SearchSpace.off` where there is none.

    Attributes:
        best: The genotype that would be found now. `build` of a subclass sets the first one.
        best_loss: Its validation loss, or None where it has not been computed.
    """

    derives = False
    titles: ClassVar[Mapping[str, str]] = {"best_loss": "Loss of the candidate that was found"}
    best: Genotype
    best_loss: float | None = None

    def build(self, task: Task) -> None:
        self.task = task

    @property
    def fixed_reduction(self) -> bool:
        """Whether no reduction cell is searched."""
        return "reduction" not in self.task.cells

    def chosen(self) -> Paths:
        """The paths of the best genotype."""
        return candidates.paths_of(self.best, self.task.space)

    def choose(
        self,
        search: SearchModel,
        genotypes: Sequence[Genotype],
        validation: Callable[[], Iterable[Batch]],
        batches: int,
        epoch: int,
    ) -> None:
        """Make the one with the smallest validation loss by the supernet's weights the best.

        Each candidate has a line in the journal.

        Raises:
            DivergedError: No candidate has a loss that is a number.
        """
        losses = candidates.score(search, genotypes, validation, batches)
        position = candidates.best(losses)
        self.best, self.best_loss = genotypes[position], losses[position]
        if self.journal is None:
            return
        for genotype, loss in zip(genotypes, losses, strict=True):
            text = dataclasses.replace(genotype, name=None).to_text()
            line = {"epoch": epoch + 1, "genotype": text}
            if self.journal.recall(**line) is None:  # a search that was killed here has written some
                self.journal.add({**line, "loss": loss})

    def values(self) -> Mapping[str, float]:
        """The best loss, once it is known."""
        return {} if self.best_loss is None else {"best_loss": self.best_loss}

    def arrays(self) -> Mapping[str, np.ndarray]:
        """The best genotype: `best_normal` [E], and `best_reduction` unless that cell is fixed."""
        found = candidates.indices_of(self.best, self.task.space)
        return {f"best_{kind}": row for kind, row in found.items()}

    def genotype(self, arrays: Mapping[str, np.ndarray], config: Config) -> Genotype:
        """The genotype that the arrays hold; the section `derive` is not looked at."""
        rows = {kind: arrays[f"best_{kind}"] for kind in candidates.KINDS if f"best_{kind}" in arrays}
        if "normal" not in rows:
            raise UsageError(
                f"arrays of a search by {config.search.strategy}: found {', '.join(arrays) or 'none'}; "
                "best_normal is needed; set search.strategy as searched"
            )
        return candidates.genotype_of(rows, config.space)

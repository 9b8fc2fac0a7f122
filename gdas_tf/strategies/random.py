"""Random search: a genotype drawn uniformly, or the best of several by the weights of a supernet.

Li & Talwalkar, "Random Search and Reproducibility for Neural Architecture Search", arXiv 1902.07638.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from gdas_tf.config.fields import Section, Whole
from gdas_tf.strategies import candidates
from gdas_tf.strategies.base import STRATEGIES, Batch, Paths, Task
from gdas_tf.strategies.choosing import Batches, ChoosingStrategy
from gdas_tf.strategies.effort import Effort

if TYPE_CHECKING:
    import tensorflow as tf

    from gdas_tf.config.config import Config
    from gdas_tf.training.search_model import SearchModel
    from gdas_tf.training.trials import Trials


class RandomConfig(Section):
    """Random search."""

    candidates: Whole = Field(
        1,
        ge=1,
        description="genotypes drawn uniformly; of more than one the best by a supernet's validation loss, "
        "which is trained for search.epochs",
    )
    batches: Batches = 10


class Random(ChoosingStrategy):
    """Genotypes drawn uniformly.

    One candidate is the outcome as it is drawn, without any training. With several, the supernet is trained
    on paths drawn uniformly, a new one in each step, and after the last epoch each candidate has its loss on
    images of D_V; the best is the outcome.

    Args:
        candidates: How many genotypes are drawn; they differ, as long as the space has so many.
        batches: Of D_V, on which each is scored.

    Attributes:
        drawn: The candidates.
    """

    section = RandomConfig

    def __init__(self, candidates: int = 1, batches: int = 10) -> None:
        self.count, self.batches = candidates, batches

    @property
    def trains_supernet(self) -> bool:
        """Whether there is something to choose."""
        return self.count > 1

    @classmethod
    def rounds(cls, config: Config) -> int:
        return config.search.epochs if config.strategy.candidates > 1 else 1

    @classmethod
    def effort(cls, config: Config) -> Effort:
        own = config.strategy
        if own.candidates == 1:
            return Effort()
        return Effort(own.candidates, own.batches * config.search.batch_size)

    def build(self, task: Task) -> None:
        import numpy as np

        super().build(task)
        generator = np.random.default_rng([task.seed, 0x72])
        self.drawn = candidates.draw_different(task.space, generator, self.count, self.fixed_reduction)
        self.best = self.drawn[0]

    def paths(self, step: tf.Tensor) -> Paths:
        return candidates.uniform(self.task.space, self.task.cells, self.task.seed, step)

    def end_epoch(
        self, search: SearchModel, epoch: int, epochs: int, validation: Callable[[], Iterable[Batch]]
    ) -> None:
        if epoch == epochs - 1:
            self.choose(search, self.drawn, validation, self.batches, epoch)

    def undivided(self) -> str | None:
        return None if self.trains_supernet else "it trains nothing"

    def search(self, trials: Trials) -> Iterator[Mapping[str, float]]:
        """The single candidate is drawn already: one round, in which nothing is trained."""
        yield {}


STRATEGIES.register("random", Random)

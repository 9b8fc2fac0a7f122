"""Robust: candidates that a supernet proposes, chosen by real trainings in a race with random cells.

Three known parts, put together because each alone fails in its own way. A supernet that is trained on
uniformly drawn paths (Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling",
ECCV 2020) ranks thousands of cells in seconds, but roughly. Ageing evolution (Real et al., AAAI 2019) finds
the best by it. Successive halving (Jamieson & Talwalkar, AISTATS 2016) over a few of those and a few random
cells lets trainings at the target size decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from gdas_tf.config.fields import Items, Metavar, Number, Whole
from gdas_tf.strategies import candidates as drawing
from gdas_tf.strategies.base import STRATEGIES
from gdas_tf.strategies.evolution import Evolution
from gdas_tf.strategies.halving import TITLES, Halving, check_rising
from gdas_tf.strategies.mutation import ordered
from gdas_tf.strategies.proposers import Candidate
from gdas_tf.strategies.trial_fields import TrialFields, check_trials

if TYPE_CHECKING:
    from gdas_tf.config.config import Config
    from gdas_tf.data.dataset import DataSet
    from gdas_tf.spaces.genotype import Genotype
    from gdas_tf.training.trials import Trials


class RobustConfig(TrialFields):
    """A supernet proposes, trainings choose."""

    population: Whole = Field(50, ge=2, description="genotypes that live at a time in the evolution")
    sample: Whole = Field(12, ge=1, description="genotypes of which the best becomes a parent")
    candidates: Whole = Field(300, ge=2, description="genotypes that the supernet judges")
    finalists: Whole = Field(8, ge=1, description="genotypes of the smallest loss that go to the race")
    random: Whole = Field(4, ge=0, description="genotypes drawn uniformly that take part in the race")
    epochs: Annotated[tuple[Annotated[Whole, Field(ge=1)], ...], Items, Metavar("N,…")] = Field(
        (2, 6), min_length=1, description="epochs of the trainings of each rung, each a whole schedule"
    )
    keep: Number = Field(
        1 / 3, gt=0, lt=1, description="part of a rung's candidates that goes on to the next"
    )


class Robust(Evolution):
    """Evolution by the weights of a supernet, then a race of the best and of random cells.

    The winner of the race has the smallest loss on D_V in the last rung. The best random cell takes part in
    every rung, so that what is found is never worse than it there.

    Args:
        population, sample, candidates: As of `Evolution`.
        finalists: Genotypes of the smallest loss by the supernet's weights that go to the race.
        random: Genotypes drawn uniformly that go there, too.
        epochs, keep: As of `gdas_tf.strategies.halving.Halving`.
        options: Of the trainings, which `gdas_tf.training.trials` reads.

    Raises:
        UsageError: `epochs` do not rise, or numbers of the evolution do not fit together.
    """

    section = RobustConfig
    name: ClassVar[str] = "robust"
    titles: ClassVar[Mapping[str, str]] = {**Evolution.titles, **TITLES}
    then_trials = True

    def __init__(
        self,
        population: int = 50,
        sample: int = 12,
        candidates: int = 300,
        finalists: int = 8,
        random: int = 4,
        epochs: Sequence[int] = (2, 6),
        keep: float = 1 / 3,
        validation_images: int | None = None,
        **options: object,
    ) -> None:
        super().__init__(
            "weights", population, sample, candidates, validation_images=validation_images, **options
        )
        check_rising("robust.epochs", epochs)
        self.finalists, self.random, self.rungs, self.keep = finalists, random, tuple(epochs), keep

    @classmethod
    def rounds(cls, config: Config) -> int:
        """A line of metrics for each epoch of the supernet and for each rung."""
        return config.search.epochs + len(config.strategy.epochs)

    def check(self, config: Config, data: DataSet) -> None:
        check_trials(config, data)

    def search(self, trials: Trials) -> Iterator[Mapping[str, float]]:
        halving = Halving(self.name, self.rungs, self.keep, self.journal)
        for values in halving.run(self._line_up(), trials):
            self.best, self.best_loss = halving.best.genotype, halving.best_loss
            yield values

    def _line_up(self) -> list[Candidate]:
        """The finalists by the journal, which a search that goes on has as well, and the random cells."""
        from gdas_tf.spaces.genotype import Genotype

        judged = [line for line in self.journal.read() if "round" not in line and line["loss"] is not None]
        judged.sort(key=lambda line: (line["loss"], line["number"]))
        found: list[Candidate] = []
        for line in judged[: self.finalists]:
            found.append(Candidate(f"supernet-{len(found)}", Genotype.from_text(line["genotype"])))
        known = {candidate.genotype for candidate in found}
        for genotype in self._drawn(self.random):
            if genotype not in known:
                known.add(genotype)
                found.append(Candidate(f"random-{len(found) - self.finalists}", genotype, random=True))
        return found

    def _drawn(self, count: int) -> list[Genotype]:
        import numpy as np

        generator = np.random.default_rng([self.task.seed, 0x72])
        return [ordered(drawing.draw(self.task.space, generator, self.fixed_reduction)) for _ in range(count)]


STRATEGIES.register("robust", Robust)

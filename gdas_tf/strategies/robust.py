"""Robust: candidates that a supernet proposes, chosen by real trainings in a race with random cells.

Three known parts, put together because each alone fails in its own way. A supernet that is trained on
uniformly drawn paths (Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling",
ECCV 2020) ranks thousands of cells in seconds, but roughly. Ageing evolution (Real et al., AAAI 2019) finds
the best by it. Successive halving (Jamieson & Talwalkar, AISTATS 2016) over a few of those and a few random
cells lets trainings at the target size decide.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from gdas_tf.config.fields import Items, Metavar, Number, Whole
from gdas_tf.strategies import candidates as drawing
from gdas_tf.strategies.base import STRATEGIES
from gdas_tf.strategies.evolution import Evolution, Scores
from gdas_tf.strategies.halving import TITLES, Halving, check_rising
from gdas_tf.strategies.mutation import ordered
from gdas_tf.strategies.proposers import Candidate
from gdas_tf.strategies.trial_fields import TrialFields, check_trials

if TYPE_CHECKING:
    from gdas_tf.config.config import Config
    from gdas_tf.data.dataset import DataSet
    from gdas_tf.spaces.genotype import Genotype
    from gdas_tf.training.search_model import SearchModel
    from gdas_tf.training.trials import Outcome, Trials


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
    capacity: Number = Field(
        1.0,
        ge=0,
        description="how much the number of weights counts beside the loss, as short trainings favour what "
        "learns fast; 0: not at all, 1: as much",
    )


class Robust(Evolution):
    """Evolution by the weights of a supernet, then a race of the best and of random cells.

    The winner of the race has the smallest score in the last rung: its loss on D_V, less what its size is
    worth. The best random cell takes part in every rung, so that what is found is never worse than it there.

    Args:
        population, sample, candidates: As of `Evolution`.
        finalists: Genotypes of the smallest loss by the supernet's weights that go to the race.
        random: Genotypes drawn uniformly that go there, too.
        epochs, keep: As of `gdas_tf.strategies.halving.Halving`.
        capacity: How much the logarithm of the number of weights counts beside the loss, each in units of its
            standard deviation over the cells that are compared (the first population, the rung). Trainings
            that are short, or of weights that many cells share, favour what learns fast over what becomes
            good; of two cells with the same loss the larger one is the better bet.
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
        capacity: float = 1.0,
        validation_images: int | None = None,
        **options: object,
    ) -> None:
        super().__init__(
            "weights", population, sample, candidates, validation_images=validation_images, **options
        )
        check_rising("robust.epochs", epochs)
        self.finalists, self.random, self.rungs, self.keep = finalists, random, tuple(epochs), keep
        self.capacity = capacity

    @classmethod
    def rounds(cls, config: Config) -> int:
        """A line of metrics for each epoch of the supernet and for each rung."""
        return config.search.epochs + len(config.strategy.epochs)

    def check(self, config: Config, data: DataSet) -> None:
        check_trials(config, data)

    def scores(self, search: SearchModel, first: Sequence[tuple[Genotype, float]]) -> Scores:
        supernet = search.supernet
        sizes = functools.partial(drawing.weights_of, supernet=supernet)
        found = [(loss, sizes(genotype)) for genotype, loss in first if math.isfinite(loss)]
        scale = self.capacity * _exchange(found)
        compared: dict[Genotype, float] = {}

        def score(genotype: Genotype, loss: float) -> float:
            if genotype not in compared:
                compared[genotype] = loss - scale * math.log(sizes(genotype))
                if self.journal.recall(scored=genotype.to_text()) is None:
                    self.journal.add({"scored": genotype.to_text(), "score": _plain(compared[genotype])})
            return compared[genotype]

        return score

    def search(self, trials: Trials) -> Iterator[Mapping[str, float]]:
        halving = Halving(self.name, self.rungs, self.keep, self.journal, self._compared)
        for values in halving.run(self._line_up(), trials):
            self.best, self.best_loss = halving.best.genotype, halving.best_loss
            yield values

    def _compared(self, outcomes: Sequence[Outcome]) -> list[float]:
        """What the candidates of a rung are compared by."""
        whole = [(one.loss, one.parameters) for one in outcomes if math.isfinite(one.loss)]
        scale = self.capacity * _exchange(whole)
        return [one.loss - scale * math.log(max(one.parameters, 1)) for one in outcomes]

    def _line_up(self) -> list[Candidate]:
        """The finalists by the journal, which a search that goes on has as well, and the random cells."""
        from gdas_tf.spaces.genotype import Genotype

        lines = self.journal.read()
        scores = {line["scored"]: line["score"] for line in lines if "scored" in line}
        judged = [line for line in lines if "number" in line and line["loss"] is not None]
        judged.sort(key=lambda line: (scores[line["genotype"]], line["number"]))
        found: list[Candidate] = []
        losses: set[float] = set()
        for line in judged:
            # Cells that compute the same have the same loss, to the last bit: as those that differ in edges
            # from a node that is zero. One of them is enough.
            if len(found) < self.finalists and line["loss"] not in losses:
                losses.add(line["loss"])
                found.append(Candidate(f"supernet-{len(found)}", Genotype.from_text(line["genotype"])))
        known, proposed = {candidate.genotype for candidate in found}, len(found)
        for genotype in self._drawn(self.random):
            if genotype not in known:
                known.add(genotype)
                found.append(Candidate(f"random-{len(found) - proposed}", genotype, random=True))
        return found

    def _drawn(self, count: int) -> list[Genotype]:
        import numpy as np

        generator = np.random.default_rng([self.task.seed, 0x72])
        return [ordered(drawing.draw(self.task.space, generator, self.fixed_reduction)) for _ in range(count)]


def _exchange(found: Sequence[tuple[float, float]]) -> float:
    """How much loss is worth one unit of the logarithm of the weights, where both count as much: the ratio of
    their standard deviations over some cells, (loss, weights) each."""
    if len(found) < 2:
        return 0.0
    sizes = [math.log(max(weights, 1)) for _, weights in found]
    spread = statistics.pstdev(sizes)
    return statistics.pstdev(loss for loss, _ in found) / spread if spread else 0.0


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


STRATEGIES.register("robust", Robust)

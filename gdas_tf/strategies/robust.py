"""Robust: candidates that a supernet proposes, grown and chosen by trainings, in a race with random cells.

Known parts, put together because each alone fails in its own way. A supernet that is trained on uniformly
drawn paths (Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020)
ranks hundreds of cells in the time of one training, but roughly. Evolution (Real et al., AAAI 2019) finds the
best by it, and goes on from them by trainings. Successive halving (Jamieson & Talwalkar, AISTATS 2016) over
those and a few random cells lets longer trainings decide.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from gdas_tf.config.fields import Items, Metavar, Number, Whole
from gdas_tf.strategies import candidates as drawing
from gdas_tf.strategies.base import STRATEGIES
from gdas_tf.strategies.effort import Effort, rounds_of_halving, scaled_count, scaled_epochs
from gdas_tf.strategies.evolution import Evolution, Line, Scores, loss_of, scaled_births, scaled_judging
from gdas_tf.strategies.halving import TITLES, Halving, check_rising, ranking
from gdas_tf.strategies.mutation import mutated, ordered
from gdas_tf.strategies.proposers import Candidate
from gdas_tf.strategies.trial_fields import ONE_BY_ONE, TrialFields, check_trials

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
    generations: Whole = Field(
        2, ge=0, description="times that the best of the race have children, before its first rung ends"
    )
    children: Whole = Field(4, ge=1, description="children of a generation")
    parents: Whole = Field(3, ge=1, description="candidates that have children, the best so far")
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
        generations, children, parents: How often, and how many cells, are born before the first rung ends; a
            child is one of the best `parents` so far, changed in one place.
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
        generations: int = 2,
        children: int = 4,
        parents: int = 3,
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
        self.finalists, self.drawn, self.rungs, self.keep = finalists, random, tuple(epochs), keep
        self.generations, self.children, self.parents = generations, children, parents
        self.capacity = capacity

    @classmethod
    def rounds(cls, config: Config) -> int:
        """A line of metrics for each epoch of the supernet and for each rung."""
        return config.search.epochs + len(config.strategy.epochs)

    @classmethod
    def effort(cls, config: Config) -> Effort:
        own = config.strategy
        first = own.finalists + own.random + own.generations * own.children
        rounds = rounds_of_halving(first, own.random, own.epochs, own.keep)
        return Effort(own.candidates, own.validation_images, rounds)

    @classmethod
    def scaled(cls, config: Config, factor: float, images: int) -> Mapping[str, Any]:
        own = config.strategy
        found = {
            **scaled_births(own, factor),
            "validation_images": scaled_judging(own.validation_images, factor, images),
            "finalists": scaled_count(own.finalists, factor),
            "random": scaled_count(own.random, factor),
            "children": scaled_count(own.children, factor),
            "epochs": scaled_epochs(own.epochs, factor),
        }
        return {f"{cls.name}.{name}": value for name, value in found.items()}

    def undivided(self) -> str | None:
        return ONE_BY_ONE

    def check(self, config: Config, data: DataSet) -> None:
        check_trials(config, data)

    def about(self, search: SearchModel, genotype: Genotype) -> Mapping[str, float]:
        return {"weights": drawing.weights_of(genotype, search.supernet)}

    def scores(self, first: Sequence[Line]) -> Scores:
        scale = self._exchange((loss_of(line), line["weights"]) for line in first)
        return lambda line: loss_of(line) - scale * math.log(line["weights"])

    def search(self, trials: Trials) -> Iterator[Mapping[str, float]]:
        halving = Halving(self.name, self.rungs, self.keep, self.journal, self._compared)
        for values in halving.run(self._grown(self._line_up(), trials), trials):
            self.best, self.best_loss = halving.best.genotype, halving.best_loss
            yield values

    def _compared(self, outcomes: Sequence[Outcome]) -> list[float]:
        """What the candidates of a rung are compared by."""
        scale = self._exchange((one.loss, one.parameters) for one in outcomes)
        return [one.loss - scale * math.log(max(one.parameters, 1)) for one in outcomes]

    def _exchange(self, found: Iterable[tuple[float, float]]) -> float:
        """How much loss is worth one unit of the logarithm of the weights.

        `capacity` times the ratio of their standard deviations over some cells, (loss, weights) each.
        """
        whole = [(loss, math.log(max(weights, 1))) for loss, weights in found if math.isfinite(loss)]
        if len(whole) < 2:
            return 0.0
        losses, sizes = map(statistics.pstdev, zip(*whole, strict=True))
        return self.capacity * losses / sizes if sizes else 0.0

    def _grown(self, line_up: Sequence[Candidate], trials: Trials) -> list[Candidate]:
        """The line-up and the children of its best, generation after generation.

        All are trained for the epochs of the first rung, which finds the outcomes then.
        """
        generator = random.Random(1_000_003 * self.task.seed + 0x67)
        running = list(line_up)
        for generation in range(self.generations):
            outcomes = trials.run_all([candidate.genotype for candidate in running], self.rungs[0])
            order = ranking(outcomes, self._compared(outcomes))
            parents = [running[i].genotype for i in order[: self.parents]]
            known = {candidate.genotype for candidate in running}
            for number, child in enumerate(self._children(parents, known, generator)):
                running.append(Candidate(f"child-{generation}-{number}", child))
        return running

    def _children(
        self, parents: Sequence[Genotype], known: set[Genotype], generator: random.Random
    ) -> Iterator[Genotype]:
        """`children` genotypes that nobody trained yet, each one of the parents changed in one place; fewer
        where a hundred draws in a row find none."""
        for _ in range(self.children):
            for _ in range(100):
                child = mutated(generator.choice(parents), self.task.space, generator)
                if child not in known:
                    known.add(child)
                    yield child
                    break

    def _line_up(self) -> list[Candidate]:
        """The finalists by the journal, which a search that goes on has as well, and the random cells."""
        from gdas_tf.spaces.genotype import Genotype

        judged = [line for line in self.journal.read() if "number" in line]
        score = self.scores([line for line in judged if line["number"] <= self.size])
        found: list[Candidate] = []
        losses: set[float] = set()
        for line in sorted(judged, key=lambda line: (score(line), line["number"])):
            # Cells that compute the same have the same loss, to the last bit: as those that differ in edges
            # from a node that is zero. One of them is enough.
            if line["loss"] is not None and len(found) < self.finalists and line["loss"] not in losses:
                losses.add(line["loss"])
                found.append(Candidate(f"supernet-{len(found)}", Genotype.from_text(line["genotype"])))
        known, proposed = {candidate.genotype for candidate in found}, len(found)
        for genotype in self._drawn(self.drawn):
            if genotype not in known:
                known.add(genotype)
                found.append(Candidate(f"random-{len(found) - proposed}", genotype, random=True))
        return found

    def _drawn(self, count: int) -> list[Genotype]:
        import numpy as np

        generator = np.random.default_rng([self.task.seed, 0x72])
        return [ordered(drawing.draw(self.task.space, generator, self.fixed_reduction)) for _ in range(count)]


STRATEGIES.register("robust", Robust)

"""Ageing evolution: the best of a few parents has a child, and the oldest dies.

Real, Aggarwal, Huang & Le, "Regularized Evolution for Image Classifier Architecture Search", AAAI 2019
(arXiv 1802.01548), algorithm 1.
"""

from __future__ import annotations

import collections
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from gdas_tf.config.fields import Whole
from gdas_tf.errors import DivergedError, RunError, UsageError
from gdas_tf.notes import progress
from gdas_tf.strategies import candidates
from gdas_tf.strategies.base import STRATEGIES, Batch, Paths, Task
from gdas_tf.strategies.choosing import ChoosingStrategy
from gdas_tf.strategies.effort import Effort, scaled_count, scaled_epochs
from gdas_tf.strategies.mutation import mutated, ordered
from gdas_tf.strategies.trial_fields import ONE_BY_ONE, TrialFields, after_failures, check_trials

if TYPE_CHECKING:
    import tensorflow as tf

    from gdas_tf.config.config import Config
    from gdas_tf.data.dataset import DataSet
    from gdas_tf.spaces.base import SearchSpace
    from gdas_tf.spaces.genotype import Genotype
    from gdas_tf.training.search_model import SearchModel
    from gdas_tf.training.trials import Trials

Fitness = Literal["weights", "training"]
Line = Mapping[str, Any]
"""What the journal says of a genotype that the supernet judged: `number`, `genotype`, `loss` (None where it
is no number), and what `Evolution.about` adds."""

Scores = Callable[[Line], float]
"""From a line to the number that its genotype is compared by; less is better."""


class EvolutionConfig(TrialFields):
    """Ageing evolution, by the weights of the supernet or by short trainings."""

    fitness: Fitness = Field(
        "weights",
        description="what judges a genotype: the weights of the supernet, or a short training of its own",
    )
    population: Whole = Field(50, ge=2, description="genotypes that live at a time")
    sample: Whole = Field(12, ge=1, description="genotypes of which the best becomes a parent")
    candidates: Whole = Field(
        300, ge=2, description="genotypes that are born in all, the first population among them"
    )
    epochs: Annotated[Whole, Field(ge=1)] = Field(
        3, description="epochs of a candidate's training, which is a whole schedule (fitness = training)"
    )
    ahead: Whole = Field(
        4,
        ge=1,
        le=256,
        description="children that are trained before the first of them is judged (fitness = training); as "
        "many jobs can work at a time",
    )


def scaled_births(own: EvolutionConfig, factor: float) -> dict[str, Any]:
    """Fields of the evolution for `factor` times the genotypes, in the logarithm half of that: a population
    stays the same part of all that are born.

    Args:
        own: A section with `candidates`, `population` and `sample`.
        factor: As of `Strategy.scaled`.
    """
    candidates = scaled_count(own.candidates, factor, least=4)
    population = max(min(own.population, 2), round(own.population * candidates / own.candidates))
    return {"candidates": candidates, "population": population, "sample": min(own.sample, population)}


def scaled_judging(images: int | None, factor: float, most: int) -> int:
    """How many images of D_V judge a genotype, for `factor` times the work.

    Args:
        images: How many do now; None for all.
        factor: As of `Strategy.scaled`.
        most: How many there are.
    """
    now = min(images or most, most)
    return min(most, max(min(now, _FEWEST_IMAGES), round(now * factor)))


_FEWEST_IMAGES = 500


class Population:
    """Who lives, in the order of birth, and who was the best ever.

    Args:
        space: The search space.
        fixed_reduction: Whether genotypes have the fixed reduction cell.
        seed: Of all that is drawn.
        size: How many live at a time (P).
        sample: How many are drawn, of which the best is a parent (S).

    Attributes:
        best: The genotype with the smallest loss so far, and that loss.
    """

    def __init__(self, space: SearchSpace, fixed_reduction: bool, seed: int, size: int, sample: int) -> None:
        import numpy as np

        self.space, self.fixed_reduction, self.size, self.sample = space, fixed_reduction, size, sample
        self.drawing = np.random.default_rng([seed, 0x65])
        self.generator = random.Random(1_000_003 * seed + 0x65)
        self.born = 0
        self.living: collections.deque[tuple[Genotype, float]] = collections.deque()
        self.best: tuple[Genotype | None, float] = (None, math.inf)

    def next(self) -> Genotype:
        """The genotype that is born next: of the first population drawn uniformly, then a child.

        A child's parent is the best of `sample` that are drawn of those that live, with repetition as in the
        paper's algorithm; of equals the one that was drawn first.
        """
        self.born += 1
        if self.born <= self.size or not self.living:
            return ordered(candidates.draw(self.space, self.drawing, self.fixed_reduction))
        drawn = [self.generator.choice(self.living) for _ in range(self.sample)]
        parent, _ = min(drawn, key=lambda pair: pair[1])
        return mutated(parent, self.space, self.generator)

    def add(self, genotype: Genotype, loss: float) -> None:
        """A genotype lives, now that its loss is known; if there are too many, the oldest dies."""
        self.living.append((genotype, loss))
        if len(self.living) > self.size:
            self.living.popleft()
        if loss < self.best[1]:
            self.best = (genotype, loss)


class Evolution(ChoosingStrategy):
    """Ageing evolution of genotypes.

    With `fitness = "weights"` a supernet is trained on genotypes drawn uniformly, one a step; after the last
    epoch genotypes evolve, judged by the loss on D_V by the supernet's weights. With "training" there is no
    supernet, and each genotype is trained for a short time on D_T.

    A genotype is judged once, however often it is born. What was found out of each is in the journal, so that
    a search that was killed while genotypes evolve need not judge them again.

    Args:
        fitness: "weights" or "training".
        population, sample: P and S of the paper, which has 100 and 25.
        candidates: Genotypes born in all (C), the first population among them; the paper has 20,000.
        epochs: Of a training.
        ahead: Children under way at a time, with "training". Child n is born when all but the last `ahead`
            before it are judged: so what comes out does not depend on the number of jobs.
        validation_images: Images of D_V to judge by, at most.
        options: Of the trainings, which `gdas_tf.training.trials` reads.

    Raises:
        UsageError: `sample` is larger than the population, or that is larger than `candidates`.
    """

    section = EvolutionConfig
    name: ClassVar[str] = "evolution"
    titles: ClassVar[Mapping[str, str]] = {
        **ChoosingStrategy.titles,
        "candidate_loss": "Loss of a genotype on $D_V$",
        "candidate_accuracy": "Accuracy of a genotype on $D_V$",
        "different": "Different genotypes",
    }

    def __init__(
        self,
        fitness: Fitness = "weights",
        population: int = 50,
        sample: int = 12,
        candidates: int = 300,
        epochs: int = 3,
        ahead: int = 4,
        validation_images: int | None = None,
        **options: object,
    ) -> None:
        for small, value, large, limit in (
            ("sample", sample, "population", population),
            ("population", population, "candidates", candidates),
        ):
            if value > limit:
                raise UsageError(
                    f"{self.name}.{small}: found {value}; accepted are 1 to {limit}, as "
                    f"{self.name}.{large} is {limit}"
                )
        self.fitness, self.size, self.sample, self.candidates = fitness, population, sample, candidates
        self.epochs, self.ahead, self.validation_images = epochs, ahead, validation_images
        self.trains_supernet = fitness == "weights"

    @classmethod
    def check_config(cls, config: Config) -> None:
        cls.from_config(config)

    def undivided(self) -> str | None:
        return None if self.trains_supernet else ONE_BY_ONE

    def check(self, config: Config, data: DataSet) -> None:
        if self.fitness == "training":
            check_trials(config, data)

    @classmethod
    def rounds(cls, config: Config) -> int:
        own = config.strategy
        return config.search.epochs if own.fitness == "weights" else own.candidates

    @classmethod
    def effort(cls, config: Config) -> Effort:
        own = config.strategy
        if own.fitness == "weights":
            return Effort(own.candidates, own.validation_images)
        return Effort(rounds=((1, own.epochs),) * own.candidates)

    @classmethod
    def scaled(cls, config: Config, factor: float, images: int) -> Mapping[str, Any]:
        own = config.strategy
        found = scaled_births(own, factor)
        if own.fitness == "weights":
            found["validation_images"] = scaled_judging(own.validation_images, factor, images)
        else:
            found["epochs"] = scaled_epochs((own.epochs,), factor)[0]
        return {f"{cls.name}.{name}": value for name, value in found.items()}

    def build(self, task: Task) -> None:
        super().build(task)
        self.best = self._begin().next()

    def paths(self, step: tf.Tensor) -> Paths:
        return candidates.uniform(self.task.space, self.task.cells, self.task.seed, step)

    def end_epoch(
        self, search: SearchModel, epoch: int, epochs: int, validation: Callable[[], Iterable[Batch]]
    ) -> None:
        if epoch + 1 < epochs:
            return
        batches = self._batches(validation)

        def judge(genotype: Genotype) -> float:
            return candidates.score(search, [genotype], validation, batches)[0]

        population, scores = self._begin(), None
        known: dict[Genotype, Line] = {}
        drawn: list[Genotype] = []
        for number in range(1, self.candidates + 1):
            genotype = population.next()
            if genotype not in known:
                known[genotype] = self._recalled(search, number, genotype, judge)
            drawn.append(genotype)
            if number >= self.size:  # the first population is complete, and says how losses spread
                scores = scores or self.scores([known[each] for each in dict.fromkeys(drawn)])
                for each in drawn:
                    population.add(each, scores(known[each]))
                drawn.clear()
            if number % 50 == 0 or number == self.candidates:
                best = min(map(loss_of, known.values()))
                progress(f"{number} of {self.candidates} genotypes, smallest loss {best:.4f}")
        if population.best[0] is None:
            raise DivergedError(
                f"the search diverged: none of {len(known)} genotypes has a validation loss that is a "
                "number; lower search.weight_learning_rate"
            )
        self.best, self.best_loss = population.best[0], loss_of(known[population.best[0]])

    def about(self, search: SearchModel, genotype: Genotype) -> Mapping[str, float]:
        """What the journal says of a genotype beside its loss: here nothing."""
        return {}

    def scores(self, first: Sequence[Line]) -> Scores:
        """What genotypes are compared by: here their loss.

        Args:
            first: The lines of the first population, which is drawn uniformly.
        """
        return loss_of

    def _batches(self, validation: Callable[[], Iterable[Batch]]) -> int | None:
        """How many batches hold `validation_images`."""
        if self.validation_images is None:
            return None
        size = next(len(labels) for _, labels in validation())
        return max(1, self.validation_images // size)

    def _recalled(
        self, search: SearchModel, number: int, genotype: Genotype, judge: Callable[[Genotype], float]
    ) -> Line:
        """A genotype's line: of the journal, or written there now that it is judged."""
        text = genotype.to_text()
        line = self.journal.recall(number=number, genotype=text)
        if line is None:
            line = {"number": number, "genotype": text, "loss": judge(genotype)}
            line |= self.about(search, genotype)
            self.journal.add(line)
        return line

    def search(self, trials: Trials) -> Iterator[Mapping[str, float]]:
        population, under_way = self._begin(), collections.deque()
        written: set[Genotype] = set()
        for number in range(1, self.candidates + 1):
            # Child n is born when all but the last `ahead` before it are judged.
            while population.born < self.candidates and len(under_way) < self.ahead:
                genotype = population.next()
                under_way.append((genotype, trials.submit(genotype, self.epochs)))
            genotype, pending = under_way.popleft()
            outcome = pending.result()
            population.add(genotype, outcome.loss)
            if genotype not in written:
                written.add(genotype)
                self.journal.add({"number": number, "genotype": genotype.to_text(), **outcome.told()})
            if number == self.candidates and population.best[0] is None:
                raise RunError(
                    f"evolution: all {len(written)} trainings failed, the last one because {outcome.failed}; "
                    f"{after_failures('evolution')}"
                )
            if population.best[0] is not None:
                self.best, self.best_loss = population.best
            yield {
                **self.values(),
                "candidate_loss": outcome.loss,
                "candidate_accuracy": outcome.accuracy,
                "different": len(written),
            }

    def _begin(self) -> Population:
        task = self.task
        return Population(task.space, self.fixed_reduction, task.seed, self.size, self.sample)


def loss_of(line: Line) -> float:
    """The loss of a line; infinity where it was no number."""
    return math.inf if line["loss"] is None else line["loss"]


STRATEGIES.register("evolution", Evolution)

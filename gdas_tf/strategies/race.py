"""Race: successive halving over candidates of any proposers, by short trainings.

Jamieson & Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS 2016.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from gdas_tf.config.fields import Items, Metavar, Number, Text, Whole
from gdas_tf.errors import RunError, UsageError
from gdas_tf.strategies.base import STRATEGIES, Paths, Strategy, Task
from gdas_tf.strategies.effort import Effort, rounds_of_halving, scaled_count, scaled_epochs
from gdas_tf.strategies.halving import TITLES, Halving, check_rising
from gdas_tf.strategies.proposers import RANDOM, Candidate, candidates_of, drawn_of, is_drawn
from gdas_tf.strategies.trial_fields import ONE_BY_ONE, TrialFields, check_trials

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from gdas_tf.config.config import Config
    from gdas_tf.data.dataset import DataSet
    from gdas_tf.spaces.genotype import Genotype
    from gdas_tf.training.trials import Trials


class RaceConfig(TrialFields):
    """Successive halving over candidates, by short trainings."""

    candidates: Annotated[tuple[Text, ...], Items, Metavar("CANDIDATE,…")] = Field(
        ("random:8",),
        min_length=1,
        description="who takes part: directories of finished runs, names of published genotypes, .json and "
        ".txt files, and random:N",
    )
    epochs: Annotated[tuple[Annotated[Whole, Field(ge=1)], ...], Items, Metavar("N,…")] = Field(
        (1, 3, 9), min_length=1, description="epochs of the trainings of each rung, each a whole schedule"
    )
    keep: Number = Field(
        1 / 3, gt=0, lt=1, description="part of a rung's candidates that goes on to the next"
    )


class Race(Strategy):
    """Trains all candidates for a short time, the best of them for longer, and so on.

    The winner is the one with the smallest loss on D_V in the last rung. The best random candidate of each
    rung goes on in any case, so that the winner is never worse than it in the last one.

    Args:
        candidates: Who takes part, see `gdas_tf.strategies.proposers.candidates_of`.
        epochs: Of each rung, rising.
        keep: Part of a rung's candidates that goes on, rounded up.
        options: Of the trainings, which `gdas_tf.training.trials` reads.

    Raises:
        UsageError: `epochs` do not rise.
    """

    section = RaceConfig
    titles = TITLES
    derives = False
    trains_supernet = False

    def __init__(
        self,
        candidates: Sequence[str] = ("random:8",),
        epochs: Sequence[int] = (1, 3, 9),
        keep: float = 1 / 3,
        **options: object,
    ) -> None:
        self.texts, self.epochs, self.keep = tuple(candidates), tuple(epochs), keep
        check_rising("race.epochs", self.epochs)
        self.best: Candidate | None = None

    @classmethod
    def check_config(cls, config: Config) -> None:
        cls.from_config(config)

    @classmethod
    def rounds(cls, config: Config) -> int:
        """A line of metrics for each rung."""
        return len(config.strategy.epochs)

    @classmethod
    def effort(cls, config: Config) -> Effort:
        own = config.strategy
        drawn = drawn_of(own.candidates)
        candidates = drawn + sum(not is_drawn(text) for text in own.candidates)
        return Effort(rounds=rounds_of_halving(candidates, drawn, own.epochs, own.keep))

    @classmethod
    def scaled(cls, config: Config, factor: float, images: int) -> Mapping[str, Any]:
        own = config.strategy
        texts = [
            f"{RANDOM}:{scaled_count(drawn_of([text]), factor)}" if is_drawn(text) else text
            for text in own.candidates
        ]
        return {"race.candidates": tuple(texts), "race.epochs": scaled_epochs(own.epochs, factor)}

    def undivided(self) -> str | None:
        return ONE_BY_ONE

    def check(self, config: Config, data: DataSet) -> None:
        check_trials(config, data)
        fixed = config.search.reduction == "fixed"
        candidates_of(self.texts, config.space, config.seed, fixed)

    def build(self, task: Task) -> None:
        self.task = task

    def paths(self, step: tf.Tensor) -> Paths:
        raise NotImplementedError("a race has no supernet")

    def search(self, trials: Trials) -> Iterator[Mapping[str, float]]:
        halving = Halving("race", self.epochs, self.keep, self.journal)
        for values in halving.run(self._line_up(trials), trials):
            self.best = halving.best
            yield values

    def _line_up(self, trials: Trials) -> list[Candidate]:
        """The candidates; a race that goes on has those it began with, wherever they came from."""
        from gdas_tf.spaces.genotype import Genotype

        task = self.task

        def read() -> list[list[object]]:
            found = candidates_of(self.texts, task.space, task.seed, "reduction" not in task.cells)
            return [[candidate.label, candidate.genotype.to_json(), candidate.random] for candidate in found]

        return [
            Candidate(label, Genotype.from_json(genotype), random)
            for label, genotype, random in trials.remember(read)
        ]

    def arrays(self) -> Mapping[str, np.ndarray]:
        """`best`: the genotype that leads, as JSON text; empty before the first rung.

        Text, as candidates come from anywhere: a published cell may take one input twice, which no array of
        one operation an edge can tell.
        """
        import numpy as np

        text = "" if self.best is None else _json(self.best.genotype)
        return {"best": np.array(text, dtype="U4096")}

    def genotype(self, arrays: Mapping[str, np.ndarray], config: Config) -> Genotype:
        from gdas_tf.spaces.genotype import Genotype

        text = str(arrays["best"])
        if not text:
            raise UsageError("race: no rung is done yet; finish the search first")
        return Genotype.from_json(text)


def _json(genotype: Genotype) -> str:
    import json

    text = json.dumps(genotype.to_json())
    if len(text) > 4096:
        raise RunError("race: the genotype that leads is longer than 4096 characters; it cannot be kept")
    return text


STRATEGIES.register("race", Race)

"""Race: successive halving over candidates of any proposers, by short trainings.

Jamieson & Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS 2016.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from gdas_tf.config.fields import Items, Metavar, Number, Text, Whole
from gdas_tf.errors import RunError, UsageError
from gdas_tf.strategies.base import STRATEGIES, Paths, Strategy, Task
from gdas_tf.strategies.proposers import Candidate, candidates_of
from gdas_tf.strategies.trial_fields import TrialFields, check_trials

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from gdas_tf.config.config import Config
    from gdas_tf.data.dataset import DataSet
    from gdas_tf.spaces.genotype import Genotype
    from gdas_tf.training.trials import Outcome, Trials


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
    titles: ClassVar[Mapping[str, str]] = {
        "trial_epochs": "Epochs of a training",
        "candidates": "Candidates of the rung",
        "failed": "Candidates that failed",
        "best_loss": "Loss of the best candidate on $D_V$",
        "best_accuracy": "Accuracy of the best candidate on $D_V$",
        "median_loss": "Loss of the middle candidate on $D_V$",
        "random_loss": "Loss of the best random cell on $D_V$",
        "random_accuracy": "Accuracy of the best random cell on $D_V$",
    }
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
        if any(later <= earlier for earlier, later in zip(self.epochs, self.epochs[1:], strict=False)):
            shown = ",".join(map(str, self.epochs))
            raise UsageError(f"race.epochs: found {shown}; each rung has more epochs than the one before")
        self.best: Candidate | None = None

    @classmethod
    def check_config(cls, config: Config) -> None:
        cls.from_config(config)

    @classmethod
    def rounds(cls, config: Config) -> int:
        """A line of metrics for each rung."""
        return len(config.strategy.epochs)

    def check(self, config: Config, data: DataSet) -> None:
        check_trials(config, data)
        fixed = config.search.reduction == "fixed"
        candidates_of(self.texts, config.space, config.seed, fixed)

    def build(self, task: Task) -> None:
        self.task = task

    def paths(self, step: tf.Tensor) -> Paths:
        raise NotImplementedError("a race has no supernet")

    def search(self, trials: Trials) -> Iterator[Mapping[str, float]]:
        running = self._line_up(trials)
        for rung, epochs in enumerate(self.epochs):
            outcomes = trials.run_all([candidate.genotype for candidate in running], epochs)
            ranked = sorted(
                zip(running, outcomes, strict=True), key=lambda pair: pair[1].loss
            )  # stable: of equals the earlier one is before
            self._write(rung, epochs, ranked)
            self.best, first = ranked[0]
            if math.isinf(first.loss):
                raise RunError(
                    f"race: all {len(ranked)} candidates failed in the rung of {epochs} epochs, the first "
                    f"one because {first.failed}; lower race.learning_rate, or remove the files of "
                    "search/trials to train them again"
                )
            yield _metrics(epochs, ranked)
            running = self._go_on(running, [candidate for candidate, _ in ranked])

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

    def _go_on(self, running: Sequence[Candidate], ranked: Sequence[Candidate]) -> list[Candidate]:
        """Those of the next rung, in the order in which they lined up."""
        chosen = list(ranked[: max(1, math.ceil(len(ranked) * self.keep - 1e-9))])
        best_random = next((candidate for candidate in ranked if candidate.random), None)
        if best_random is not None and best_random not in chosen:
            chosen.append(best_random)
        return [candidate for candidate in running if candidate in chosen]

    def _write(self, rung: int, epochs: int, ranked: Sequence[tuple[Candidate, Outcome]]) -> None:
        for candidate, outcome in ranked:
            self.journal.add(
                {
                    "round": rung + 1,
                    "epochs": epochs,
                    "candidate": candidate.label,
                    "genotype": candidate.genotype.to_text(),
                    "random": candidate.random,
                    "loss": outcome.loss if math.isfinite(outcome.loss) else None,
                    "accuracy": outcome.accuracy,
                    "parameters": outcome.parameters,
                    "failed": outcome.failed,
                }
            )

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


def _metrics(epochs: int, ranked: Sequence[tuple[Candidate, Outcome]]) -> dict[str, float]:
    best = ranked[0][1]
    values = {
        "trial_epochs": epochs,
        "candidates": len(ranked),
        "failed": sum(outcome.failed is not None for _, outcome in ranked),
        "best_loss": best.loss,
        "best_accuracy": best.accuracy,
        "median_loss": ranked[len(ranked) // 2][1].loss,
    }
    drawn = [outcome for candidate, outcome in ranked if candidate.random]
    return values | ({"random_loss": drawn[0].loss, "random_accuracy": drawn[0].accuracy} if drawn else {})


def _json(genotype: Genotype) -> str:
    import json

    text = json.dumps(genotype.to_json())
    if len(text) > 4096:
        raise RunError("race: the genotype that leads is longer than 4096 characters; it cannot be kept")
    return text


STRATEGIES.register("race", Race)

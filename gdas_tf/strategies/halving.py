"""Successive halving: all candidates are trained for a short time, the best of them for longer, and so on.

Jamieson & Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS 2016.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from gdas_tf.errors import RunError, UsageError
from gdas_tf.strategies.effort import going_on
from gdas_tf.strategies.proposers import Candidate
from gdas_tf.strategies.trial_fields import after_failures

if TYPE_CHECKING:
    from gdas_tf.runs.journal import Journal
    from gdas_tf.training.trials import Outcome, Trials

TITLES: Mapping[str, str] = {
    "trial_epochs": "Epochs of a training",
    "candidates": "Candidates of the rung",
    "failed": "Candidates that failed",
    "best_loss": "Loss of the best candidate on $D_V$",
    "best_accuracy": "Accuracy of the best candidate on $D_V$",
    "median_loss": "Loss of the middle candidate on $D_V$",
    "random_loss": "Loss of the best random cell on $D_V$",
    "random_accuracy": "Accuracy of the best random cell on $D_V$",
}
"""The metrics of a rung, and what pictures call them."""


def check_rising(field: str, epochs: Sequence[int]) -> None:
    """Makes sure that each rung has more epochs than the one before.

    Raises:
        UsageError: one has not.
    """
    if any(later <= earlier for earlier, later in zip(epochs, epochs[1:], strict=False)):
        shown = ",".join(map(str, epochs))
        raise UsageError(f"{field}: found {shown}; each rung has more epochs than the one before")


def ranking(outcomes: Sequence[Outcome], scores: Sequence[float]) -> list[int]:
    """The positions of outcomes, the best first: by score, of equal ones by loss, then as they stand."""
    return sorted(range(len(outcomes)), key=lambda i: (scores[i], outcomes[i].loss, i))


class Halving:
    """The rungs of a race. The best random candidate of each goes on in any case, so that the winner is never
    worse than it in the last one.

    Args:
        name: The section of the configuration that the trainings come from, for messages.
        epochs: Of each rung, rising.
        keep: Part of a rung's candidates that goes on, rounded up.
        journal: Takes a line for each candidate of each rung.
        scores: What the candidates of a rung are compared by, less is better; by default their losses.

    Attributes:
        best: Who leads in the last rung that is done; None before the first.
        best_loss: Its loss.
    """

    def __init__(
        self,
        name: str,
        epochs: Sequence[int],
        keep: float,
        journal: Journal,
        scores: Callable[[Sequence[Outcome]], Sequence[float]] | None = None,
    ) -> None:
        self.name, self.epochs, self.keep, self.journal = name, tuple(epochs), keep, journal
        self.scores = scores or (lambda outcomes: [outcome.loss for outcome in outcomes])
        self.best: Candidate | None = None
        self.best_loss: float | None = None

    def run(self, candidates: Sequence[Candidate], trials: Trials) -> Iterator[Mapping[str, float]]:
        """Runs the rungs; yields the metrics of each.

        Raises:
            RunError: All candidates of a rung failed.
        """
        running = list(candidates)
        for rung, epochs in enumerate(self.epochs):
            outcomes = trials.run_all([candidate.genotype for candidate in running], epochs)
            order = ranking(outcomes, self.scores(outcomes))
            ranked = [(running[i], outcomes[i]) for i in order]
            self._write(rung, epochs, ranked)
            self.best, first = ranked[0]
            self.best_loss = first.loss
            if math.isinf(first.loss):
                raise RunError(
                    f"{self.name}: all {len(ranked)} candidates failed in the rung of {epochs} epochs, the "
                    f"first one because {first.failed}; {after_failures(self.name)}"
                )
            yield _metrics(epochs, ranked)
            running = self._go_on(running, [candidate for candidate, _ in ranked])

    def _go_on(self, running: Sequence[Candidate], ranked: Sequence[Candidate]) -> list[Candidate]:
        """Those of the next rung, in the order in which they lined up."""
        chosen = list(ranked[: going_on(len(ranked), self.keep)])
        best_random = next((candidate for candidate in ranked if candidate.random), None)
        if best_random is not None and best_random not in chosen:
            chosen.append(best_random)
        return [candidate for candidate in running if candidate in chosen]

    def _write(self, rung: int, epochs: int, ranked: Sequence[tuple[Candidate, Outcome]]) -> None:
        for candidate, outcome in ranked:
            line = {"round": rung + 1, "epochs": epochs, "candidate": candidate.label}
            if self.journal.recall(**line) is not None:  # of before a kill
                continue
            self.journal.add(
                {
                    **line,
                    "genotype": candidate.genotype.to_text(),
                    "random": candidate.random,
                    **outcome.told(),
                }
            )


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

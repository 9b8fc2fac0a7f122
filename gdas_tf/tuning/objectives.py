"""What the trials of a tuning are judged by. None of them looks at test images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gdas_tf.config.fields import not_accepted
from gdas_tf.errors import RunError, UsageError
from gdas_tf.strategies.trial_fields import TrialFields

if TYPE_CHECKING:
    from gdas_tf.config.config import Config


@dataclasses.dataclass(frozen=True)
class Objective:
    """What a trial is judged by.

    Args:
        name: as the command line has it.
        about: what it is, in a line.
        direction: "min" or "max".
        of: what is done to get it: "search", "retrain" (which searches, too, where no genotype is given) or
            "table".
        metrics: names of what a trial has found, of which the first that there is counts.
        percent: whether it is a share, from 0 to 1, which is shown in percent.
    """

    name: str
    about: str
    direction: str
    of: str
    metrics: tuple[str, ...]
    percent: bool = False

    def score(self, found: Mapping[str, Any], strategy: str) -> float:
        """Returns what a trial is judged by.

        Args:
            found: what it has found, by name.
            strategy: by which it searched.

        Raises:
            RunError: it is not there, or no number.
        """
        values = [found[name] for name in self.metrics if name in found]
        if not values:
            raise RunError(
                f"a search by the strategy {strategy} has no {' or '.join(self.metrics)}, which the "
                f"objective {self.name} takes; choose another objective"
            )
        if values[0] is None:
            raise RunError("the training diverged: its loss is not a number")
        return float(values[0])

    def show(self, score: float) -> str:
        """Returns a score as text."""
        return f"{score:.2%}" if self.percent else f"{score:.2f} %" if self.of == "table" else f"{score:.4f}"

    def sections(self, config: Config, searches: bool) -> tuple[str, ...]:
        """Returns the sections of a configuration that it depends on.

        Args:
            config: the configuration.
            searches: whether a trial searches, as none does that is given a genotype.
        """
        own = [name for name in config.to_dict() if name == config.search.strategy] if searches else []
        trains = self.of == "retrain" or (searches and isinstance(config.strategy, TrialFields))
        parts = ["data", *(["search", *own] if searches else []), *(["retrain"] if trains else [])]
        return (*parts, *(["derive"] if searches and self.of != "search" else []))


OBJECTIVES = {
    one.name: one
    for one in (
        Objective(
            "retrain-loss", "loss on D_V of the network that D_T has trained", "min", "retrain", ("loss",)
        ),
        Objective(
            "retrain-accuracy",
            "accuracy on D_V of the network that D_T has trained",
            "max",
            "retrain",
            ("accuracy",),
            percent=True,
        ),
        Objective(
            "search-loss",
            "loss on D_V in the last epoch of the search, or that of its best candidate",
            "min",
            "search",
            ("architecture_loss", "best_loss"),
        ),
        Objective(
            "search-accuracy",
            "accuracy on D_V in the last epoch of the search",
            "max",
            "search",
            ("architecture_accuracy",),
            percent=True,
        ),
        Objective(
            "true-accuracy",
            "accuracy that a table (search.table) has of the cell that the search found",
            "max",
            "table",
            ("true_accuracy",),
        ),
    )
}
"""The objectives by name."""


def objective(name: str) -> Objective:
    """Returns an objective by name.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in OBJECTIVES:
        raise UsageError(f"objective: {not_accepted(name, tuple(OBJECTIVES))}")
    return OBJECTIVES[name]

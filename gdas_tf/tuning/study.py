"""What a tuning is, and the folder that it lies in.

tuning.yaml           the tuning, with all that its trials depend on
trials/NUMBER.json    a trial: its values, its configuration, what it has found
trials/NUMBER/        the run directory of a trial that searches
tuner/oracle.json     what keras-tuner keeps
tuning.json, .md      what was found; pictures/ belongs to it
data.json             the training images: how many, and a digest of them
best.yaml             the configuration of the best trial
genotype.json         what is trained, where the tuning was given one
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from gdas_tf.config.config import Config
from gdas_tf.config.fields import RULES, Whole
from gdas_tf.errors import UsageError
from gdas_tf.files import read_json
from gdas_tf.runs.collection import RunCollection
from gdas_tf.spaces.genotype import Genotype
from gdas_tf.tuning import space as spaces
from gdas_tf.tuning.objectives import Objective, objective
from gdas_tf.tuning.space import Space
from gdas_tf.user_files import parse_yaml, read_text

TUNERS = ("random", "hyperband", "bayesian")


class Tuning(BaseModel):
    """A tuning: what is varied, how it is proposed, and what it is judged by.

    Args:
        tuner: "random" draws values; "bayesian" draws some and then foretells by a Gaussian process;
            "hyperband" draws many, trains them for few epochs, and the better ones for more.
        objective: one of `gdas_tf.tuning.objectives.OBJECTIVES`.
        trials: how many, at most; of random and bayesian.
        factor: of hyperband: the best one of so many goes on, with so many times the epochs.
        iterations: of hyperband: how often all of it is done.
        config: the configuration that trials have besides; its seed is that of the draws, too.
        genotype: what is trained, as JSON; None where trials search, or the network is built of none.
        searches: whether a trial searches.
        space: what is varied, as `gdas_tf.tuning.space.make` takes it.

    Raises:
        UsageError: something of it is not accepted; the message names it.
    """

    model_config = {**RULES, "ignored_types": (cached_property,)}

    tuner: Literal[TUNERS] = "random"
    objective: str = "retrain-loss"
    trials: Annotated[Whole, Field(ge=1, le=100_000)] | None = 20
    factor: Annotated[Whole, Field(ge=2, le=100)] = 3
    iterations: Annotated[Whole, Field(ge=1, le=1000)] = 1
    config: dict[str, Any]
    genotype: dict[str, Any] | None = None
    searches: bool
    space: dict[str, Any]

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UsageError(_message(error)) from error

    @model_validator(mode="after")
    def _check(self) -> Tuning:
        if self.aim.of != "retrain" and not self.searches:
            raise UsageError(
                f"objective: found {self.objective}, which is of a search, and what is given to train needs "
                "none; accepted are retrain-loss, retrain-accuracy"
            )
        if self.aim.of == "table" and self.base.search.table is None:
            raise UsageError(
                "objective: true-accuracy takes a table of the accuracies of all cells; name it: search.table"
            )
        dimensions = self.dimensions  # checked now, not before the first trial
        if self.tuner == "hyperband" and self.epochs_field in dimensions:
            raise UsageError(
                f"vary {self.epochs_field}: it cannot be varied: the tuner hyperband sets it, up to the "
                "value that the configuration has; choose the tuner random or bayesian, or vary others"
            )
        if (self.trials is None) != (self.tuner == "hyperband"):
            raise UsageError(
                "trials: the number of trials of the tuner hyperband follows from the epochs and the factor; "
                "raise iterations for more"
                if self.tuner == "hyperband"
                else f"trials: the tuner {self.tuner} needs their number; give it"
            )
        return self

    @cached_property
    def aim(self) -> Objective:
        """The objective."""
        return objective(self.objective)

    @cached_property
    def base(self) -> Config:
        """The configuration that trials have besides what is varied."""
        return Config.from_dict(self.config)

    @cached_property
    def dimensions(self) -> Space:
        """What is varied."""
        return spaces.make(self.space, self.base, self.aim.sections(self.base, self.searches), self.objective)

    @property
    def epochs_field(self) -> str:
        """The field that says how long a trial takes, which hyperband sets."""
        return "search.epochs" if self.searches else "retrain.epochs"

    @property
    def most_epochs(self) -> int:
        """Epochs of a whole trial."""
        return self.base.get(self.epochs_field)

    def trial_config(self, values: Mapping[str, Any], epochs: int | None = None) -> Config:
        """Returns the configuration of a trial.

        Args:
            values: of the fields that are varied.
            epochs: how long it is, where hyperband says so.

        Raises:
            UsageError: the values do not fit together.
        """
        return self.base.override({**values, **({} if epochs is None else {self.epochs_field: epochs})})

    def given_genotype(self) -> Genotype | None:
        """Returns what is trained, or None."""
        return None if self.genotype is None else Genotype.from_json(self.genotype)


class TuningFolder(RunCollection):
    """The folder of a tuning."""

    noun = "tuning"
    file = "tuning.yaml"
    may_grow = ("trials", "iterations")
    growth = "only trials may be added"

    def tuning(self) -> Tuning:
        """The tuning that the folder is of.

        Raises:
            UsageError: there is none, or its file is damaged.
        """
        path = self.described_by()
        try:
            values = parse_yaml(read_text(path, f"tuning file {path}"))
            if not isinstance(values, Mapping):
                raise UsageError(f"found {values!r:.40}; it must hold tuner, objective and so on")
            return Tuning(**values)
        except (UsageError, ValueError, TypeError) as error:
            raise UsageError(f"tuning file {path}: damaged: {error}") from error

    def description(self) -> Tuning:
        return self.tuning()

    def run_path(self, number: int) -> Path:
        """The run directory of a trial that searches."""
        return self.path / "trials" / f"{number:04d}"

    def trial_path(self, number: int) -> Path:
        """The file of a trial."""
        return self.path / "trials" / f"{number:04d}.json"

    def trial(self, number: int) -> dict[str, Any] | None:
        """What is kept of a trial, or None.

        Raises:
            UsageError: its file is damaged.
        """
        path = self.trial_path(number)
        if not path.is_file():
            return None
        found = read_json(path)
        if not isinstance(found, dict) or not {"number", "values", "epochs", "failed", "score"} <= set(found):
            raise UsageError(f"{path}: damaged; remove it to do the trial again")
        return found

    def trials(self) -> list[dict[str, Any]]:
        """What is kept of all trials that have ended, in the order of their numbers."""
        paths = sorted((self.path / "trials").glob("[0-9]*.json"), key=lambda path: int(path.stem))
        return [found for path in paths if (found := self.trial(int(path.stem))) is not None]


def _message(error: ValidationError) -> str:
    first = error.errors()[0]
    path, found = ".".join(map(str, first["loc"])), first["input"]
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    if first["type"] == "greater_than_equal":
        return f"{path}: found {found}; it must be at least {first['ctx']['ge']}"
    if first["type"] == "literal_error":
        return f"{path}: found {found!r}; accepted: {', '.join(TUNERS)}"
    return f"{path}: found {found!r:.60}; {first['msg']}"

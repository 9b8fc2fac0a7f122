"""Trials: candidates, each trained for a short time and judged by its loss on D_V, kept on the disk.

A trial is a genotype, the recipe of its training and a seed. Its outcome lies in `search/trials`, in a file
that is named by all that it depends on, so that nothing is trained twice: a search that was killed goes
through its algorithm again, and finds what it had trained.

A trial with more epochs is a training from scratch. The learning rate has fallen to zero at the end of the
shorter one, and what raising it again would make of the weights is not what a whole schedule of that length
makes of fresh ones; the second is what the retraining does, and what is to be foretold.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gdas_tf.data.dataset import DataSet, Split
from gdas_tf.errors import UsageError
from gdas_tf.files import plain, read_json, write_json
from gdas_tf.notes import progress
from gdas_tf.runs.arithmetic import about_arithmetic
from gdas_tf.strategies.trial_fields import TrialFields
from gdas_tf.training.time_limit import TimeLimit, TimeUp
from gdas_tf.training.workers import WorkerDied, Workers

if TYPE_CHECKING:
    from gdas_tf.config.config import Config
    from gdas_tf.runs.run import Run
    from gdas_tf.spaces.genotype import Genotype

OWN = ("channels", "cells", "batch_size", "learning_rate", "cutout")
"""Fields of `gdas_tf.strategies.trial_fields.TrialFields` that stand in place of the retraining's."""

WITHOUT: dict[str, Any] = {
    "label_smoothing": 0.0,
    "mixup": 0.0,
    "ema": 0.0,
    "validation": 0.0,
    "keep": "last",
    "patience": None,
    "stop_after": None,
}
"""Fields of the retraining that trials have no part in: aids of trainings of hundreds of epochs, a validation
part, where D_V is the judge already, and where a budget ends the retraining."""

_LATER = {"learning_rate_factor": 0.97, "crop": "padded", "colour_jitter": [], "balance": "none"}
"""Fields that trials had not at first, with the values that say what was done then."""


class Outcome(NamedTuple):
    """What became of a trial.

    Args:
        loss: Mean cross entropy on D_V, in nats; infinite where it is not a number, or the trial failed.
        accuracy: On D_V, from 0 to 1.
        parameters: Trainable parameters of the network.
        seconds: What the training took when it was done.
        failed: Why there is no loss; None where there is one.
    """

    loss: float
    accuracy: float
    parameters: int
    seconds: float
    failed: str | None = None

    def told(self) -> dict[str, Any]:
        """What the journal of a search says of it."""
        return {name: getattr(self, name) for name in ("loss", "accuracy", "parameters", "failed")}


class Pending:
    """A trial that may still be going on."""

    def __init__(self, wait: Callable[[], Outcome]) -> None:
        self._wait = wait
        self._outcome: Outcome | None = None

    def result(self) -> Outcome:
        """Waits for the outcome.

        Raises:
            UsageError: The network cannot be built for the images.
            RunError: The disk is full, or TensorFlow failed.
        """
        if self._outcome is None:
            self._outcome = self._wait()
        return self._outcome


class Trials:
    """Short trainings of the candidates of one search.

    The training images are those of D_T, the judge is the loss on D_V. All trials have the seed of the run,
    and so the same batches: they differ by their cells alone.

    Args:
        config: The recipe: the section `retrain`, without what a short training does without (`WITHOUT`),
            and over it those fields of the strategy's section that `TrialFields` has.
        data: The data set.
        run: The run directory.
        limit: When they have to end. What there is no time for, or what is more than
            `search.stop_after_trials`, is left out: its outcome is that it failed. After the first round of
            the search `Pending.result` raises a `TimeUp` then, and the round does not count.

    Attributes:
        left_out: Whether there was any such trial.
        rounds: How many rounds of the search are done.

    Example:
        >>> with Trials(config, data, run) as trials:
        ...     pending = [trials.submit(genotype, epochs=3) for genotype in genotypes]
        ...     losses = [one.result().loss for one in pending]
    """

    def __init__(self, config: Config, data: DataSet, run: Run, limit: TimeLimit | None = None) -> None:
        self.config, self.run, self.limit = config, run, limit
        self.folder = run.file("search/trials")
        own = _own(config)
        self.images, self.validation_images = own.images, own.validation_images
        # The test images stay here.
        train = DataSet(
            data.name, data.class_names, data.train, _without_images(data.train), data.mean, data.std
        )
        setup = {
            "plugins": config.plugins,
            "data": train,
            "seed": config.seed,
            "images": self.images,
            "validation_images": self.validation_images,
        }
        self._identity = hashlib.sha256(data.train.hashes.tobytes() + data.train.labels.tobytes()).hexdigest()
        self._workers = Workers(setup, own.jobs)
        self._pending: dict[str, Pending] = {}
        self._seconds: dict[int, float] = {}  # of the last trial of so many epochs
        self.left_out = False
        self.rounds = 0

    def __enter__(self) -> Trials:
        return self

    def __exit__(self, *about: object) -> None:
        self._workers.close()

    def submit(self, genotype: Genotype, epochs: int) -> Pending:
        """Begins a trial, or finds the one that was done.

        Args:
            genotype: The candidate.
            epochs: Length of the training, which is a whole schedule.
        """
        recipe = trial_config(self.config, epochs)
        key = self._key(recipe, genotype)
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
        if digest not in self._pending:
            number, most = len(self._pending) + 1, self.config.search.stop_after_trials
            if most is not None and number > most:
                self._pending[digest] = Pending(self._leave_out)
                return self._pending[digest]
            self._pending[digest] = self._stored(digest, key) or self._begin(digest, key, recipe, genotype)
        return self._pending[digest]

    def measure(self, genotype: Genotype, epochs: int) -> dict[str, float]:
        """Trains a candidate to see how long it takes, and keeps nothing.

        Args:
            genotype, epochs: As of `submit`.

        Returns:
            What `gdas_tf.training.trial.TrialTrainer.train` does, and `to_start`: seconds before and after
            it, as to start a worker.
        """
        begun = time.perf_counter()
        request = (trial_config(self.config, epochs).to_dict(), genotype.to_json())
        found = self._workers.submit("trial", request, dict).result()
        return {**found, "to_start": time.perf_counter() - begun - found["seconds"]}

    def run_all(self, genotypes: Iterable[Genotype], epochs: int) -> list[Outcome]:
        """Trains candidates, as many side by side as there are jobs, and returns their outcomes in order."""
        pending = [self.submit(genotype, epochs) for genotype in genotypes]
        return [one.result() for one in pending]

    def remember(self, make: Callable[[], Any]) -> Any:
        """Returns what `make` gives, as JSON takes it; a search that goes on gets what it had the first time.

        What a search reads from outside, as other runs' genotypes, may be gone by then, or be another.
        """
        path = self.run.file("search/candidates.json")
        if not path.exists():
            write_json(path, make())
        return read_json(path)

    def _key(self, recipe: Config, genotype: Genotype) -> dict[str, Any]:
        """All that an outcome depends on."""
        values = recipe.to_dict()
        cells = genotype.to_json()
        cells.pop("name", None)
        return plain(
            {
                "genotype": cells,
                "space": recipe.space.to_json(),
                "retrain": _as_before(
                    {name: value for name, value in values["retrain"].items() if name not in WITHOUT}
                ),
                "augmentation": _as_before(
                    {
                        name: values["data"][name]
                        for name in ("padding", "flip", "crop", "colour_jitter", "balance")
                    }
                ),
                "seed": recipe.seed,
                "images": self.images,
                "validation_images": self.validation_images,
                "data": self._identity,
                "arithmetic": about_arithmetic()["arithmetic"],
            }
        )

    def _stored(self, digest: str, key: dict[str, Any]) -> Pending | None:
        path = self.folder / f"{digest}.json"
        if not path.exists():
            return None
        advice = f"remove {path} to train it again"
        try:
            found = read_json(path)
            if found["trial"] != key:
                raise UsageError(f"{path}: it is the outcome of another trial; {advice}")
            outcome = _outcome(found["outcome"])
        except UsageError as error:
            raise UsageError(f"{error}; {advice}" if advice not in str(error) else str(error)) from error
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{path}: damaged ({error}); {advice}") from error
        return Pending(lambda: outcome)

    def _begin(self, digest: str, key: dict[str, Any], recipe: Config, genotype: Genotype) -> Pending:
        request, epochs = (recipe.to_dict(), genotype.to_json()), recipe.retrain.epochs
        number = len(self._pending) + 1

        def finish(answer: dict[str, Any] | WorkerDied) -> Outcome:
            outcome = self._finish(answer, digest, key, genotype)
            self._seconds[epochs] = outcome.seconds
            if self.limit:
                self.limit.beat("trials")
            return outcome

        def fits() -> bool:
            return self.limit is None or self.limit.allows_trial(number, self._seconds.get(epochs, 0.0))

        future = self._workers.submit(f"trial {digest}", request, finish, fits, self._leave_out)
        return Pending(future.result)

    def whole_rounds(self, rounds: Iterable[Mapping[str, float]]) -> Iterator[Mapping[str, float]]:
        """The rounds of a search, but the one in which a trial is left out, unless it is the first."""
        with contextlib.suppress(TimeUp):
            for values in rounds:
                self.rounds += 1
                yield values

    def _leave_out(self) -> Outcome:
        self.left_out = True
        if self.rounds:
            raise TimeUp
        return Outcome(math.inf, 0.0, 0, 0.0, "there was no time for it")

    def _finish(
        self, values: dict[str, Any] | WorkerDied, digest: str, key: dict[str, Any], genotype: Genotype
    ) -> Outcome:
        """Writes an outcome down, as soon as there is one."""
        if isinstance(values, WorkerDied):
            values = {"loss": None, "accuracy": 0.0, "parameters": 0, "seconds": 0.0, "failed": str(values)}
        elif values["loss"] is None:
            values = {**values, "failed": "the training diverged: its loss is not a number"}
        write_json(self.folder / f"{digest}.json", {"trial": key, "outcome": values})
        outcome = _outcome(values)
        told = outcome.failed or f"loss {outcome.loss:.4f}, accuracy {outcome.accuracy:.2%}"
        progress(f"{key['retrain']['epochs']} epochs of {genotype.to_text()}: {told}")
        return outcome


def trial_config(config: Config, epochs: int) -> Config:
    """The configuration by which a candidate is trained for some epochs."""
    own = _own(config)
    # A factor after each of a few epochs would leave the learning rate where it began.
    schedule = "step" if config.retrain.schedule == "exponential" else config.retrain.schedule
    changed = {name: getattr(own, name) for name in OWN}
    return config.override(
        {
            "retrain.epochs": epochs,
            "retrain.drop_path": 0.0,
            "retrain.auxiliary_weight": 0.0,
            "retrain.schedule": schedule,
            "retrain.jit_compile": False,  # it takes longer than the training
            **{f"retrain.{name}": value for name, value in WITHOUT.items()},
            **{f"retrain.{name}": value for name, value in changed.items() if value is not None},
        }
    )


def _as_before(values: dict[str, Any]) -> dict[str, Any]:
    """Leaves later fields out where they change nothing, so that the outcomes of earlier trials are found."""
    return {name: value for name, value in values.items() if name not in _LATER or value != _LATER[name]}


def _own(config: Config) -> TrialFields:
    """The fields of the strategy's section, or their defaults where it has none of them."""
    return config.strategy if isinstance(config.strategy, TrialFields) else TrialFields()


def _outcome(values: dict[str, Any]) -> Outcome:
    loss = math.inf if values["loss"] is None else float(values["loss"])
    return Outcome(
        loss,
        float(values["accuracy"]),
        int(values["parameters"]),
        float(values["seconds"]),
        values.get("failed"),
    )


def _without_images(split: Split) -> Split:
    return Split(np.empty((0, *split.images.shape[1:]), np.uint8), split.labels[:0])

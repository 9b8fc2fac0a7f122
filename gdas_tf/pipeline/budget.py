"""A run that has to end in time: what is decided before it, and the clock beside it.

Before the first stage some steps of each are timed, and the time is divided (`gdas_tf.pipeline.division`).
The epochs of the retraining are decided once more before it begins, by its own steps. Both go to
`config.yaml`, so that the same decisions give the same bits; `budget.json` keeps what was planned and what
was spent.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from gdas_tf.config.sections import STOPS
from gdas_tf.durations import duration
from gdas_tf.errors import UsageError
from gdas_tf.files import plain, read_json, write_json
from gdas_tf.notes import progress
from gdas_tf.pipeline import division
from gdas_tf.pipeline.division import PARTS, Images
from gdas_tf.pipeline.stage_timing import images_of, time_stages
from gdas_tf.strategies.base import STRATEGIES

if TYPE_CHECKING:
    from gdas_tf.data.dataset import DataSet
    from gdas_tf.pipeline.job import Job
    from gdas_tf.runs.run import Run
    from gdas_tf.spaces.genotype import Genotype
    from gdas_tf.training.time_limit import Clock, TimeLimit
    from gdas_tf.training.timing import Seconds

TITLES = {
    "start": "start and timing",
    "search": "search",
    "trials": "short trainings of candidates",
    "retrain": "retraining",
    "rest": "evaluation, export, benchmark, pictures",
}
"""What the parts are called."""


class Budget:
    """The time of a run.

    Args:
        run: the run directory; its `budget.json` is gone on with.
        seconds: of the whole run; None for what `budget.json` says.
        kept: dotted names of fields of the configuration that a user gave, which are not changed.
        begun: when the run began, by the clock.
        clock: gives seconds that go up.

    Raises:
        UsageError: stages of the run have begun without a budget.

    Example:
        >>> with begin("runs/photos", config) as job:
        ...     job.budget = Budget(job.run, 1800.0)
        ...     run_all(job)
    """

    def __init__(
        self,
        run: Run,
        seconds: float | None = None,
        kept: Collection[str] = (),
        begun: float | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.run, self.clock = run, clock
        self._lock = threading.Lock()
        self._part, self._since = "start", clock() if begun is None else begun
        found = self.read(run) or {}
        if not found and (run.begun("search") or run.begun("retrain")):
            raise UsageError(
                f"budget: run directory {run.path} was begun without one; go on with it without a budget, or "
                "begin another run directory"
            )
        self.seconds: float = seconds or found["seconds"]
        self.kept: list[str] = sorted({*found.get("kept", ()), *kept})
        self.planned: dict[str, float] = found.get("planned", {})
        self.spent: dict[str, float] = dict.fromkeys(PARTS, 0.0) | found.get("spent", {})
        self.rounds: list[float] = found.get("rounds", [])
        self.judging: float = found.get("judging", 0.0)
        self.enter("start")

    @staticmethod
    def read(run: Run) -> dict[str, Any] | None:
        """Returns what `budget.json` of a run directory says, or None if it has none."""
        path = run.file("budget.json")
        return read_json(path) if path.exists() else None

    def enter(self, part: str) -> None:
        """The time from now on is that of a part; what was spent up to now is written down."""
        with self._lock:
            now = self.clock()
            self.spent[self._part] += now - self._since
            self._part, self._since = part, now
            write_json(self.run.file("budget.json"), self.report())

    def left(self) -> float:
        """Seconds from now to the end of the budget."""
        return self.seconds - sum(self.spent.values()) - (self.clock() - self._since)

    def report(self) -> dict[str, Any]:
        """Returns what was planned, what was decided and what was spent, as `budget.json` keeps it."""
        return {
            "seconds": self.seconds,
            "kept": self.kept,
            "decided": self._decided(),
            "planned": {name: round(value, 1) for name, value in self.planned.items()},
            "spent": {name: round(value, 1) for name, value in self.spent.items()},
            "rounds": [round(value, 1) for value in self.rounds],
            "judging": round(self.judging, 1),
        }

    def _decided(self) -> dict[str, Any]:
        """The fields of the configuration that a budget may change, as they are."""
        config = self.run.config
        own = STRATEGIES.get(config.search.strategy).scaled(config, 1.0, 1)
        found = {name: plain(config.get(name)) for name in ("search.epochs", *own, "retrain.epochs")}
        stops = {name: config.get(name) for name in STOPS}
        return found | {name: value for name, value in stops.items() if value is not None}

    def plan(self, data: DataSet, stages: Collection[str]) -> None:
        """Times what will be done, and decides how the time is divided; once in a run.

        Args:
            data: the data set.
            stages: those that will be done, as far as they are "search" and "retrain".

        Raises:
            UsageError: the budget is too small.
        """
        if self.planned:
            return
        progress(f"budget {duration(self.seconds)}: some steps of each stage are timed")
        costs = time_stages(self.run.config, data, "search" in stages)
        config, now = self.run.config, self.clock()
        spent = sum(self.spent.values()) + now - self._since
        decided = division.divide(config, costs, spent, self.seconds, self.kept)
        self.planned = {"start": spent, **division.seconds_of(decided, costs)}
        if "search" in stages and division.cannot_tell(config):
            self.planned["trials"] = self.planned["retrain"] = self.planned["retrain"] / 2
            if "retrain.epochs" not in self.kept:
                decided = decided.override({"retrain.epochs": max(decided.retrain.epochs // 2, 1)})
        self.run.set_config(decided)
        self.rounds = division.seconds_of_rounds(decided, costs)
        self.judging = division.seconds_of_judging(decided, costs.judging, costs.images.d_v)
        self.enter("search" if "search" in stages else "retrain")
        for line in self.told():
            progress(line)

    def told(self) -> list[str]:
        """Returns how the time is divided, in lines for people."""
        shown: dict[str, list[str]] = {part: [] for part in PARTS}
        for name, value in self._decided().items():
            stage = name.split(".")[0]
            part = stage if stage in shown else "trials" if self.planned["trials"] else "search"
            shown[part].append(f"{name} {_shown(value)}")
        lines = [f"budget {duration(self.seconds)}; what a stage does not use goes to the retraining:"]
        for part in PARTS:
            if self.planned[part]:
                about = f" ({', '.join(shown[part])})" if shown[part] else ""
                lines.append(f"{duration(self.planned[part])}: {TITLES[part]}{about}")
        return lines

    def search_limit(self) -> TimeLimit:
        """When the search that begins now has to end."""
        from gdas_tf.training.time_limit import TimeLimit

        left = {part: max(self.planned[part] - self.spent[part], 0.0) for part in ("search", "trials")}
        # A start that took longer than planned, as of a run that goes on, is not the retraining's loss alone.
        most = self.left() - self.planned["rest"] - self.planned["retrain"] * _LEAST
        shrink = min(1.0, max(most, 0.0) / max(sum(left.values()), 1e-9))
        self.enter("search")
        now = self.clock()
        ends = {
            "search": now + left["search"] * shrink - self.judging,
            "trials": now + sum(left.values()) * shrink,
        }
        return TimeLimit(self.run, ends, self.rounds, self.clock, self.enter)

    def settle_retraining(self, data: DataSet, genotype: Genotype | None) -> None:
        """Decides the epochs of the retraining, by a timing of its steps, before it begins."""
        if self.run.begun("retrain") or "retrain.epochs" in self.kept:
            return
        self.enter("retrain")
        from gdas_tf.training.timing import time_retraining

        found = time_retraining(self.run.config, data, genotype)
        images = images_of(data, self.run.config.seed)
        self.planned["rest"] = division.seconds_of_rest(self.run.config, found, images)
        left = self.left() - self.planned["rest"]
        epochs = division.epochs_within(self.run.config, found, images, left)
        self.run.set_config(self.run.config.override({"retrain.epochs": epochs}))
        self.enter("retrain")
        progress(
            f"{duration(self.left())} are left; the retraining has {epochs} epochs, which take about "
            f"{duration(_seconds(found, epochs, self.run, images))}"
        )

    def retraining_limit(self) -> TimeLimit:
        """When the retraining that begins now has to end."""
        from gdas_tf.training.time_limit import TimeLimit

        self.enter("retrain")
        end = self.clock() + self.left() - self.planned["rest"]
        return TimeLimit(self.run, {"retrain": end}, (), self.clock, self.enter)


def retrain_within(budget: Budget, job: Job, genotype: Genotype | None) -> None:
    """Retrains a network for as long as a budget lets; the network of the last whole epoch is saved."""
    from gdas_tf.training.retraining import retrain
    from gdas_tf.training.time_limit import EndInTime, TimeUp

    run = job.run
    budget.settle_retraining(job.data, genotype)
    limit = budget.retraining_limit()
    try:
        timed = EndInTime(limit, "retrain", job.config.retrain.last_epoch, amid=True)
        retrain(job.config, job.data, genotype, run, resume=job.resume, callbacks=[timed])
    except TimeUp:
        done, epochs = len(run.metrics("retrain")), job.config.retrain.epochs
        why = f"the retraining ends with epoch {done} of {epochs}, its schedule is cut"
        limit.stop("retrain.stop_after", done, why)
        retrain(job.config, job.data, genotype, run, resume=True)


_LEAST = 0.25


def _seconds(found: Seconds, epochs: int, run: Run, images: Images) -> float:
    return found.before + found.epochs(epochs, division.steps_of_retraining(run.config, images))


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)

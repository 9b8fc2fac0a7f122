"""The process that does the trials of a tuning: the program of a worker (`gdas_tf.training.workers`)."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gdas_tf import pipeline
from gdas_tf.config.config import Config
from gdas_tf.spaces.genotype import Genotype
from gdas_tf.training.serving import serve
from gdas_tf.tuning.objectives import OBJECTIVES, objective

if TYPE_CHECKING:
    from gdas_tf.training.trial import TrialTrainer

PATIENCE = 60.0
"""Seconds to wait for a process that is about to end to let go of a run directory."""


class Performer:
    """Does trials one after the other, with what they share made once."""

    def __init__(self) -> None:
        self._key: str | None = None
        self._trainer: TrialTrainer | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answers a request: `do` is "check" or "perform", the rest is what those take."""
        config = Config.from_dict(request["config"])
        genotype = None if request["genotype"] is None else Genotype.from_json(request["genotype"])
        if request["do"] == "check":
            return self.check(config, genotype, request["objective"], request["searches"])
        return self.perform(config, genotype, request["objective"], request["directory"])

    def check(self, config: Config, genotype: Genotype | None, name: str, searches: bool) -> dict[str, Any]:
        """Finds out what would fail in every trial.

        Returns:
            `training_images` and `validation_images`: how many images D_T and D_V have; `digest` of both.

        Raises:
            UsageError: a trial cannot be done with this configuration or these data.
        """
        from gdas_tf import preflight
        from gdas_tf.data.dataset import search_halves
        from gdas_tf.data.identity import images_digest

        data = pipeline.load_data(config)
        pipeline.open_table(config)
        retrains = objective(name).of == "retrain"
        stages = [*(["search"] if searches else []), *(["retrain"] if retrains else [])]
        preflight.check_before_start(config, data, stages, genotype)
        training, validation = search_halves(data.train.labels, config.seed)
        digest = images_digest(data.train.hashes, data.train.labels)
        return {"training_images": len(training), "validation_images": len(validation), "digest": digest}

    def perform(
        self, config: Config, genotype: Genotype | None, name: str, directory: str | None
    ) -> dict[str, Any]:
        """Does a trial, or goes on with one that was stopped in its search.

        Args:
            config: of the trial.
            genotype: what it trains; None where it searches, or its network is built of none.
            name: the objective.
            directory: the run directory of a trial that searches; None if it does not.

        Returns:
            What was found: `seconds`, `validation_images` (how many D_V has); of a search the metrics of its
            last epoch, `genotype` and, by a table, `true_accuracy` in percent; of a retraining what
            `TrialTrainer.train` returns.
        """
        found: dict[str, Any] = {}
        begun = time.perf_counter()
        if directory is not None:
            with pipeline.begin_or_go_on(directory, config, PATIENCE) as job:
                found = self._search(job)
                genotype = pipeline.read_genotype(job.run)
        if objective(name).of == "retrain":
            found |= self._train(config, genotype)
        return {**found, "seconds": round(time.perf_counter() - begun, 3)}

    def _search(self, job: pipeline.Job) -> dict[str, Any]:
        from gdas_tf.data.dataset import search_halves

        pipeline.run_search(job)
        derived = pipeline.run_derivation(job)
        last = job.run.metrics("search")[-1]
        wanted = [name for one in OBJECTIVES.values() if one.of == "search" for name in one.metrics]
        found = {name: last[name] for name in wanted if name in last}
        if "truth" in derived:
            found["true_accuracy"] = derived["truth"]["accuracy"]
        images = len(search_halves(job.data.train.labels, job.config.seed)[1])
        return {**found, "genotype": derived["genotype"], "validation_images": images}

    def _train(self, config: Config, genotype: Genotype | None) -> dict[str, Any]:
        from gdas_tf.training.trial import TrialTrainer

        values = config.to_dict()
        key = json.dumps([values["seed"], values["data"]], sort_keys=True)
        if key != self._key or self._trainer is None:
            self._trainer = None  # the images of before need not stay beside the others
            self._trainer = TrialTrainer(pipeline.load_data(config), config.seed, deployed=True)
            self._key = key
        found = self._trainer.train(config, genotype)
        return {**found, "validation_images": len(self._trainer.halves[1])}


def prepare(setup: Any) -> Callable[[Any], dict[str, Any]]:
    """Returns what answers a request."""
    return Performer().answer


if __name__ == "__main__":
    serve(int(sys.argv[1]), prepare)

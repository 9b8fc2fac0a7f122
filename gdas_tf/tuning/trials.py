"""Doing trials: each in a process of its own, each kept on the disk, none done twice."""

from __future__ import annotations

import concurrent.futures
import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

from gdas_tf.errors import RunError, UsageError
from gdas_tf.files import disk_failed, write_json
from gdas_tf.notes import progress
from gdas_tf.training.workers import WorkerDied, Workers
from gdas_tf.tuning.study import Tuning, TuningFolder

PROGRAM = "gdas_tf.tuning.worker"

_LOOK = 30.0  # seconds between two lines about a search that goes on


class DiskFailed(RunError):
    """The disk takes no more: no other trial would do better."""


class Trials:
    """The trials of a tuning.

    They are done one after the other, in another process: one that is killed for want of memory is a trial
    that failed, and the others go on. A process trains many networks, but searches once, as the graphs of a
    supernet are not all freed.

    Args:
        tuning: the tuning.
        folder: its folder.
        ask: answers a request as `gdas_tf.tuning.worker.Performer.answer` does; by default a process.
    """

    def __init__(
        self,
        tuning: Tuning,
        folder: TuningFolder,
        ask: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        self.tuning, self.folder = tuning, folder
        self._ask_other = ask
        self._workers: Workers | None = None

    def __enter__(self) -> Trials:
        return self

    def __exit__(self, *about: object) -> None:
        if self._workers is not None:
            self._workers.close()

    def check(self) -> dict[str, Any]:
        """Finds out, before the first trial, what would fail in every one.

        Returns:
            What `Performer.check` returns.

        Raises:
            UsageError: a trial cannot be done.
        """
        request = {"do": "check", "searches": self.tuning.searches, **self._request(self.tuning.base)}
        return self._ask("check", request)

    def perform(self, number: int, values: dict[str, Any], epochs: int | None) -> dict[str, Any]:
        """Does a trial, unless it has ended before, or another one of the same values has.

        Args:
            number: of the trial, from 1 on.
            values: of the fields that are varied.
            epochs: how long it is, where hyperband says so; None for all epochs of the configuration.

        Returns:
            What is kept of it: `number`, `values`, `epochs`, `score` (None if it failed), `failed` (why, or
            None), `found`, what the worker has found, `same_as`, the number of the trial that it is a copy
            of, or None, and `config`.

        Raises:
            UsageError: the file of the trial is of another one, or damaged.
            DiskFailed: the disk is full or read-only.
        """
        kept = self.folder.trial(number)
        if kept is not None:
            if (kept["values"], kept["epochs"]) != (values, epochs):
                path = self.folder.trial_path(number)
                raise UsageError(f"{path}: it is of other values; remove it to do the trial again")
            return kept
        outcome = self._same(values, epochs) or self._do(number, values, epochs)
        kept = {"number": number, "values": values, "epochs": epochs, **outcome}
        with _fatal():
            write_json(self.folder.trial_path(number), kept)
        return kept

    def _same(self, values: dict[str, Any], epochs: int | None) -> dict[str, Any] | None:
        """The outcome of a trial of the same values, which would end the same."""
        for kept in self.folder.trials():
            if (kept["values"], kept["epochs"]) == (values, epochs) and kept["failed"] is None:
                others = {name: kept[name] for name in ("score", "failed", "found", "config")}
                return {**others, "same_as": kept["same_as"] or kept["number"]}
        return None

    def _do(self, number: int, values: dict[str, Any], epochs: int | None) -> dict[str, Any]:
        outcome: dict[str, Any] = {
            "score": None,
            "failed": None,
            "found": {},
            "same_as": None,
            "config": None,
        }
        try:
            config = self.tuning.trial_config(values, epochs)
            outcome["config"] = config.to_dict()
            directory = str(self.folder.run_path(number)) if self.tuning.searches else None
            request = {"do": "perform", "directory": directory, **self._request(config)}
            outcome["found"] = self._ask(f"trial {number}", request, number)
            score = self.tuning.aim.score(outcome["found"], config.search.strategy)
            if not math.isfinite(score):
                raise RunError("the training diverged: its loss is not a number")
            outcome["score"] = score
        except (UsageError, RunError) as error:
            if isinstance(error, DiskFailed) or disk_failed(str(error)):
                raise DiskFailed(str(error)) from error
            outcome["failed"] = str(error).removeprefix(f"trial {number}: ")
        return outcome

    def _request(self, config: Any) -> dict[str, Any]:
        return {
            "config": config.to_dict(),
            "genotype": self.tuning.genotype,
            "objective": self.tuning.objective,
        }

    def _ask(self, name: str, request: dict[str, Any], number: int | None = None) -> dict[str, Any]:
        if self._ask_other is not None:
            return self._ask_other(request)
        if self._workers is None:
            self._workers = Workers(None, 1, PROGRAM, one_thread=False)
        future = self._workers.submit(name, request, _raise_if_dead)
        try:
            return self._wait(future, number)
        finally:
            if self.tuning.searches:
                self._workers.close()
                self._workers = None

    def _wait(self, future: concurrent.futures.Future, number: int | None) -> dict[str, Any]:
        """Waits for an answer, and tells from time to time how far the search of a trial has come."""
        told = 0
        while True:
            try:
                return future.result(timeout=_LOOK)
            except concurrent.futures.TimeoutError:
                if future.done():
                    raise
                done = self._epochs_done(number)
                if done > told:
                    progress(f"trial {number}: epoch {done} of its search")
                    told = done

    def _epochs_done(self, number: int | None) -> int:
        if number is None:
            return 0
        try:
            with open(self.folder.run_path(number) / "search" / "metrics.jsonl", "rb") as lines:
                return sum(1 for _ in lines)
        except OSError:
            return 0


def _raise_if_dead(answer: Any) -> Any:
    if isinstance(answer, WorkerDied):
        raise answer
    return answer


@contextlib.contextmanager
def _fatal() -> Iterator[None]:
    try:
        yield
    except RunError as error:
        raise DiskFailed(str(error)) from error

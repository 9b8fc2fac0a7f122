"""A stage that has to end in time ends with whole epochs and trainings, as its configuration then says."""

from __future__ import annotations

import concurrent.futures
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from candidate_searches import VALUES, assert_same_outcome, data, searched

from gdas_tf.config.config import Config
from gdas_tf.runs.run import Run
from gdas_tf.training import trials as trials_module
from gdas_tf.training.search import search
from gdas_tf.training.time_limit import TimeLimit

SMALL = {"search.nodes": 1, "search.operations": "none,skip_connect,conv_1x1", "search.reduction": "fixed"}
EVOLUTION = {
    **SMALL,
    "search.strategy": "evolution",
    "search.epochs": 5,
    "evolution.population": 2,
    "evolution.sample": 1,
    "evolution.candidates": 3,
}


def ticking() -> Callable[[], float]:
    """A clock that goes on by a second whenever it is looked at."""
    seconds = itertools.count()
    return lambda: float(next(seconds))


def within(folder: Path, changes: dict[str, Any], **ends: float) -> Run:
    """A search that has to end by such a clock."""
    run = Run.create(folder, Config().override({"data.padding": 1, **VALUES, **changes}))
    search(run.config, data(), run, limit=TimeLimit(run, ends, clock=ticking()))
    return run


def test_a_supernet_ends_with_the_last_epoch_that_there_is_time_for(tmp_path: Path) -> None:
    run = within(tmp_path / "cut", EVOLUTION, search=8.0)
    lines = run.metrics("search")
    assert 1 < len(lines) == run.config.search.stop_after < 5
    assert (
        "best_loss" in lines[-1] and "best_loss" not in lines[0]
    )  # what comes after the last epoch was done
    assert run.finished("search")
    assert Run.open(run.path).config.search.stop_after == len(lines)
    # Another one by the same configuration does not look at a clock, and is the same.
    decided = {"search.stop_after": len(lines)}
    assert_same_outcome(run, searched(tmp_path / "again", {**EVOLUTION, **decided}))


# ---- short trainings of candidates, here without the trainings


class _Answers:
    """Workers that answer at once."""

    asked: list[str] = []

    def __init__(self, setup: Any, jobs: int) -> None:
        self.losses = itertools.cycle([0.9, 0.5, 0.7])

    def submit(self, name, request, finish, wanted, leave_out):
        future: concurrent.futures.Future = concurrent.futures.Future()
        if wanted():
            self.asked.append(name)
            answer = {"loss": next(self.losses), "accuracy": 0.5, "parameters": 9, "seconds": 1.0}
            future.set_result(finish(answer))
        else:
            future.set_result(leave_out())
        return future

    def close(self) -> None:
        return


RACE = {
    **SMALL,
    "search.nodes": 2,
    "search.strategy": "race",
    "race.candidates": ("random:4",),
    "race.epochs": (1, 2, 3),
}


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    monkeypatch.setattr(trials_module, "Workers", _Answers)
    monkeypatch.setattr(_Answers, "asked", [])
    return _Answers.asked


def _best(run: Run) -> str:
    with np.load(run.file("search/logits.npz")) as arrays:
        return str(arrays["best"][-1])


def test_a_race_that_is_cut_in_its_first_rung_has_the_best_of_those_that_were_trained(
    tmp_path, asked
) -> None:
    run = within(tmp_path / "cut", RACE, trials=0.0)
    assert len(asked) == 1  # one is trained in any case
    assert run.config.search.stop_after_trials == 1 and run.config.search.stop_after_rounds == 1
    assert run.finished("search") and run.metrics("search")[0]["failed"] == 3
    again = Run.create(tmp_path / "again", run.config)
    search(again.config, data(), again)
    assert len(asked) == 2 and _best(again) == _best(run) and again.finished("search")


def test_a_rung_that_is_cut_does_not_count(tmp_path, asked) -> None:
    # The clock is looked at three times for a round, and once for each training but the first.
    run = within(tmp_path / "cut", RACE, trials=6.5)
    whole = within(tmp_path / "whole", RACE, trials=1e9)
    assert run.config.search.stop_after_rounds == 1 and whole.config.search.stop_after_rounds is None
    assert len(run.metrics("search")) == 1 and len(whole.metrics("search")) == 3
    assert run.finished("search") and whole.finished("search")
    assert run.metrics("search")[0]["best_loss"] == whole.metrics("search")[0]["best_loss"]


def test_a_round_that_would_not_fit_is_not_begun(tmp_path, asked) -> None:
    run = Run.create(tmp_path / "run", Config().override({**VALUES, **RACE}))
    limit = TimeLimit(run, {"trials": 60.0}, rounds=[4.0, 100.0, 1.0], clock=ticking())
    search(run.config, data(), run, limit=limit)
    assert run.config.search.stop_after_rounds == 1 and len(asked) == 4
    # Resumed, it is finished: nothing is trained any more.
    search(run.config, data(), run, resume=True)
    assert len(asked) == 4 and len(run.metrics("search")) == 1


def test_what_is_done_in_the_end_was_not_cut(tmp_path, asked) -> None:
    one = within(tmp_path / "one", {**SMALL, "search.strategy": "random"}, trials=-1.0)
    assert one.config.search.stop_after_rounds is None and one.finished("search")

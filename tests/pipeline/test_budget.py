"""A run with a budget: what is decided and kept, and that there is a network at its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from candidate_searches import data

from gdas_tf import pipeline
from gdas_tf.cli.main import main
from gdas_tf.config.config import Config
from gdas_tf.errors import UsageError
from gdas_tf.pipeline.budget import Budget
from gdas_tf.runs.run import Run
from gdas_tf.spaces.genotype import Genotype
from gdas_tf.training import timing
from gdas_tf.training.time_limit import EndInTime
from gdas_tf.training.timing import Seconds

SMALL = {
    "data.padding": 0,
    "data.flip": False,
    "search.nodes": 1,
    "search.operations": "none,skip_connect,conv_1x1",
    "search.reduction": "fixed",
    "search.epochs": 10,
    "retrain.epochs": 20,
    "retrain.channels": 4,
    "retrain.cells": 1,
    "retrain.batch_size": 16,
    "retrain.auxiliary_weight": 0.0,
    "retrain.cutout": 0,
    "benchmark.seconds": 0.1,
}
GENOTYPE = Genotype.from_text("normal=conv_1x1@0+skip@1 reduction=fixed")


class Clock:
    """Stands still unless it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Iterator[Clock]:
    """A clock, and timings by which an epoch of the retraining takes 4 s."""
    clock = Clock()

    def search(config, data):
        clock.now += 10
        return Seconds(before=5.0, step=1.0, ending=0.0, spent=10.0), (0.0, 0.0)

    def retraining(config, data, genotype):
        clock.now += 3
        return Seconds(before=2.0, step=1.0, ending=1.0, spent=3.0)

    monkeypatch.setattr(timing, "time_search", search)
    monkeypatch.setattr(timing, "time_retraining", retraining)
    return clock


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", Config().override(SMALL))


def test_what_is_decided_is_kept(run: Run, clock: Clock, caplog) -> None:
    caplog.set_level("INFO", "gdas_tf")
    budget = Budget(run, 100.0, ["search.epochs"], 0.0, clock)
    budget.plan(data(), ["search", "retrain"])
    config = Run.open(run.path).config
    assert config.search.epochs == 10 and config.retrain.epochs < 20
    assert budget.planned["start"] == 13 and sum(budget.planned.values()) <= 100
    assert "some steps of each stage are timed" in caplog.messages[0]
    assert f"retraining (retrain.epochs {config.retrain.epochs})" in " ".join(caplog.messages)
    # Killed in the search after 10 s, and gone on with an hour later.
    clock.now += 10
    budget.search_limit().beat("search")
    clock.now += 3600
    again = Budget(Run.open(run.path), None, (), clock.now, clock)
    assert again.left() == pytest.approx(100 - 13 - 10)
    assert again.kept == ["search.epochs"]
    again.plan(data(), ["search", "retrain"])  # times and decides nothing any more
    assert again.run.config == config and again.left() == pytest.approx(77)
    limit = again.search_limit()
    assert 0 < limit.left("search") <= again.planned["search"] - again.spent["search"]


def test_a_slow_search_leaves_the_retraining_fewer_epochs(run: Run, clock: Clock) -> None:
    budget = Budget(run, 150.0, (), 0.0, clock)
    budget.plan(data(), ["search", "retrain"])
    planned = run.config.retrain.epochs
    budget.enter("search")
    clock.now += budget.planned["search"] + 30
    budget.settle_retraining(data(), GENOTYPE)
    assert 1 <= run.config.retrain.epochs <= planned - 7  # 30 s less, of 4 s each
    clock.now += 1000
    budget.settle_retraining(data(), GENOTYPE)
    assert run.config.retrain.epochs == 1


def test_a_run_that_was_begun_without_a_budget_is_refused_one(run: Run, clock: Clock) -> None:
    run.append_metrics("search", {"epoch": 1})
    with pytest.raises(UsageError, match="was begun without one; go on with it without a budget"):
        Budget(run, 100.0, (), 0.0, clock)


def test_what_there_is_no_time_for_is_left_out(tmp_path, clock: Clock, monkeypatch) -> None:
    def stage(job) -> dict:
        clock.now += 100
        return {}

    for name in pipeline.STAGES:
        monkeypatch.setitem(pipeline.STAGES, name, stage)
    monkeypatch.setattr(Run, "onnx_files", lambda self: ["model.onnx"])
    np.savez(tmp_path / "d.npz", images=data().train.images, labels=data().train.labels)
    config = Config().override({**SMALL, "data.name": str(tmp_path / "d.npz")})
    with pipeline.begin(tmp_path / "run", config) as job:
        job.budget = Budget(job.run, 200.0, (), 0.0, clock)
        results = pipeline.run_all(job)
    assert results["benchmark"] is None and results["export"] == {} and results["draw"] == {}
    assert job.budget.report()["spent"]["rest"] == 300


def test_too_small_a_budget_leaves_nothing_behind(tmp_path, clock, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", "run", "--data", "digits", "--budget", "1s"]) == 2
    assert "1 s buy less than one epoch of each stage" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main(["run", "run", "--data", "digits", "--budget", "soon"]) == 2
    assert "budget: found 'soon'; accepted are durations as 2h" in capsys.readouterr().err


def test_a_cut_retraining_saves_its_last_whole_epoch(run: Run, clock: Clock, monkeypatch) -> None:
    """The clock leaps amid the third epoch; without a budget that configuration gives the same network."""
    pipeline.set_genotype(run, GENOTYPE)
    job = pipeline.Job(run, data=data())
    job.budget = Budget(run, 100.0, (), 0.0, clock)
    job.budget.plan(job.data, ["retrain"])
    on_train_batch_end = EndInTime.on_train_batch_end

    def leap(self, batch, logs=None) -> None:
        clock.now += 1000 if (self._epoch, batch) == (2, 1) else 0
        on_train_batch_end(self, batch, logs)

    monkeypatch.setattr(EndInTime, "on_train_batch_end", leap)
    result = pipeline.run_retraining(job)
    assert result["epochs"] == run.config.retrain.stop_after == 2 < run.config.retrain.epochs
    assert run.finished("retrain")
    again = Run.create(run.path.with_name("again"), run.config)
    pipeline.set_genotype(again, GENOTYPE)
    pipeline.run_retraining(pipeline.Job(again, data=data()))
    one, two = (pipeline.load_model(each.file("model.keras")).get_weights() for each in (run, again))
    for first, second in zip(one, two, strict=True):
        np.testing.assert_array_equal(first, second)

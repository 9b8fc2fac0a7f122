"""Metrics as a table and as event files, also of a stage that goes on; the lines of progress."""

from __future__ import annotations

import csv
import io
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from gdas_tf.config.config import Config
from gdas_tf.errors import RunError
from gdas_tf.notes import LOGGER
from gdas_tf.runs import event_files
from gdas_tf.runs.metrics_log import MetricsLog
from gdas_tf.runs.run import Run
from gdas_tf.training.epoch_lines import EpochLines, epoch_line, seconds_left


def log_of(path: Path, tensorboard: bool = True) -> MetricsLog:
    config = Config().override({"tensorboard": tensorboard})
    return MetricsLog(Run(path, config) if path.exists() else Run.create(path, config), "search")


def table(log: MetricsLog) -> list[dict[str, str]]:
    with open(log.run.file("search/metrics.csv"), newline="") as file:
        return list(csv.DictReader(file))


def scalars(log: MetricsLog) -> list[tuple[int, str, float]]:
    found = []
    for path in log.run.file("search/tensorboard").iterdir():
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                assert value.metadata.plugin_data.plugin_name == "scalars"
                found.append((event.step, value.tag, float(tf.make_ndarray(value.tensor))))
    return found


def test_every_form_has_every_epoch_once_also_when_a_stage_goes_on(tmp_path: Path) -> None:
    log = log_of(tmp_path / "run")
    log.begin(0)
    for epoch in (1, 2, 3):
        log.append({"epoch": epoch, "loss": np.float32(1 / epoch), "entropy": None})
    log = log_of(tmp_path / "run")  # another process, which found a checkpoint of the second epoch
    log.begin(2)
    log.append({"epoch": 3, "loss": 0.25, "best_loss": 0.125})
    assert [(line["epoch"], line["loss"]) for line in table(log)] == [
        ("1", "1.0"),
        ("2", "0.5"),
        ("3", "0.25"),
    ]
    assert [line["best_loss"] for line in table(log)] == ["", "", "0.125"]
    assert scalars(log) == [(1, "loss", 1.0), (2, "loss", 0.5), (3, "loss", 0.25), (3, "best_loss", 0.125)]
    log.begin(0)
    assert not log.run.file("search/metrics.csv").exists() and scalars(log) == []


def test_event_files_are_written_on_request_and_later_have_all_epochs(tmp_path: Path) -> None:
    log = log_of(tmp_path / "run", tensorboard=False)
    log.begin(0)
    log.append({"epoch": 1, "loss": 1.0})
    assert not log.run.file("search/tensorboard").exists()
    log = log_of(tmp_path / "run")
    log.begin(1)
    assert scalars(log) == [(1, "loss", 1.0)]


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_of(tmp_path / "run")
    log.begin(0)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(event_files.np, "float32", full)
    with pytest.raises(RunError, match="No space left|disk"):
        log.append({"epoch": 1, "loss": 1.0})
    assert len(log.run.metrics("search")) == len(table(log)) == 1


def test_the_line_of_an_epoch() -> None:
    values = {"val_accuracy": 0.25, "accuracy": 0.5, "val_loss": 2.0, "loss": np.float32(1.25)}
    assert epoch_line("retraining", 3, 30, {**values, "loss": 1.25}, 4.2, 113, may_end=True) == (
        "retraining 3/30: loss 1.2500, accuracy 50.00%, val_loss 2.0000, val_accuracy 25.00%; 4.2 s, "
        "at most 1 min 53 s left"
    )
    assert epoch_line("search", 1, 1, {}, 0.5, 0) == "search 1/1: 0.5 s"
    assert epoch_line("search", 1, 1, {"different": 3}, 0.5, 0) == "search 1/1: different 3; 0.5 s"
    assert seconds_left([60, 1, 2, 3, 2, 2], 10) == 20
    assert seconds_left([4], 3) == 12


def test_a_terminal_has_a_bar_as_well(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, bars in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        caplog.clear()
        with caplog.at_level(logging.INFO, LOGGER), EpochLines("search", 4, 1, 2) as lines:
            for epoch in (1, 2):
                lines.on_epoch_begin(epoch)
                for step in (0, 1):
                    lines.on_train_batch_end(step)
                lines.on_epoch_end(epoch, {"loss": 1.0})
        told = [record.message for record in caplog.records]
        assert told[0].startswith("search 2/4: loss 1.0000; ") and told[0].endswith(" left")
        assert len(told) == 2
        assert ("search:  25%" in stream.getvalue()) == bars

"""Tiny searches, whole and killed, for the tests of the strategies that choose among candidates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from gdas_tf.config.config import Config
from gdas_tf.data.dataset import DataSet, Split
from gdas_tf.runs.run import Run
from gdas_tf.training.search import search

VALUES: dict[str, Any] = {
    "search.epochs": 2,
    "search.channels": 2,
    "search.cells": 1,
    "search.batch_size": 8,
    "search.weight_learning_rate": 0.1,
}
"""Two epochs of three steps, on `noise`."""

RETRAIN = "--retrain-epochs 1 --retrain-channels 4 --retrain-cells 1 --export-formats onnx"
RETRAIN += " --benchmark-seconds 0.02 --benchmark-rounds 1 --benchmark-warm-up 1"

SEARCH = [f"--{name.replace('.', '-').replace('_', '-')}={value}" for name, value in VALUES.items()]
SEARCH += ["--data", "noise.npz"]
"""Options of a search of two epochs, on the file `noise.npz` that `noise` writes."""

TINY = [*SEARCH, *RETRAIN.split()]
"""Options of a whole run."""


def noise(path: str | Path, examples: int = 60) -> None:
    """Writes images of three classes that differ in nothing."""
    np.savez(path, images=_pixels(examples, 1), labels=np.arange(examples) % 3)


def data(examples: int = 60) -> DataSet:
    """The same kind of images as a data set."""
    split = Split(_pixels(examples, 3), (np.arange(examples) % 3).astype(np.int32))
    return DataSet("noise", ("a", "b", "c"), split, split, (0.5,) * 3, (0.3,) * 3)


def _pixels(examples: int, channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (examples, 8, 8, channels), np.uint8)


class _Dies(keras.callbacks.Callback):
    """Interrupts a search when some epochs are finished."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs = epochs

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        if epoch == self.epochs:
            raise KeyboardInterrupt


def searched(folder: Path, changes: Mapping[str, Any], killed_after: int | None = None) -> Run:
    """The run of a search, perhaps killed after an epoch and resumed."""
    config = Config().override({"data.padding": 1, **VALUES, **changes})
    run = Run.create(folder, config)
    if killed_after is not None:
        try:
            search(config, data(), run, callbacks=[_Dies(killed_after)])
        except KeyboardInterrupt:
            search(config, data(), run, resume=True)
            return run
        raise AssertionError("the search was not killed")
    search(config, data(), run)
    return run


def assert_same_outcome(first: Run, second: Run) -> None:
    """Two searches ended with the same state, arrays, metrics and candidates, to the last bit."""
    for name in ("checkpoint", "logits"):
        with (
            np.load(first.file(f"search/{name}.npz")) as one,
            np.load(second.file(f"search/{name}.npz")) as two,
        ):
            assert one.files == two.files
            for array in one.files:
                if array != "about.json":
                    np.testing.assert_array_equal(one[array], two[array], err_msg=array)
    assert _lines(first, "metrics") == _lines(second, "metrics")
    assert _lines(first, "candidates") == _lines(second, "candidates")


def _lines(run: Run, name: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in run.file(f"search/{name}.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]

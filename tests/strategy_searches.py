"""Tiny searches, for the tests of several strategies."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from gdas_tf.config.config import Config
from gdas_tf.data.dataset import DataSet, Split


def images(examples: int = 24, size: int = 8) -> DataSet:
    """Images whose brightness is their class, so that there is something to learn."""
    generator = np.random.default_rng(0)
    labels = np.arange(examples, dtype=np.int32) % 3
    pixels = generator.integers(0, 80, (examples, size, size, 3)) + 80 * labels[:, None, None, None]
    split = Split(pixels.astype(np.uint8), labels)
    return DataSet("brightness", ("dark", "middle", "bright"), split, split, (0.4,) * 3, (0.3,) * 3)


def settings(changes: Mapping[str, object]) -> Config:
    """Three epochs of three steps on `images`, two channels and two nodes; with other values."""
    values = {
        "data.padding": 1,
        "search.epochs": 3,
        "search.batch_size": 4,
        "search.channels": 2,
        "search.cells": 1,
        "search.nodes": 2,
        "search.operations": "none,skip_connect,conv_1x1,avg_pool_3x3",
        "search.weight_learning_rate": 0.1,
        "search.architecture_learning_rate": 0.02,
    }
    return Config().override({**values, **changes})


class Dies(keras.callbacks.Callback):
    """Interrupts a search in the epoch after some that are finished."""

    def __init__(self, finished: int) -> None:
        super().__init__()
        self.finished = finished

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        if epoch == self.finished:
            raise KeyboardInterrupt

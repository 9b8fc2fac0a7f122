"""One trial: a derived network, trained for a short time on D_T and judged by its loss on D_V."""

from __future__ import annotations

import contextlib
import gc
import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from gdas_tf.data.augmentation import drop_path_schedule
from gdas_tf.data.balance import Balance, ClassWeights
from gdas_tf.data.dataset import eval_batches, search_halves, steps_per_epoch, train_batches
from gdas_tf.keras_backend import keras
from gdas_tf.networks.derived import count_parameters
from gdas_tf.numerics.losses import cross_entropy, hits
from gdas_tf.runtime import graphs_as_written, graphs_forgotten
from gdas_tf.training.augmenting import augmentation_of
from gdas_tf.training.retraining import (
    RetrainingModel,
    balance_of,
    learning_rate_of,
    model_to_train,
    set_drop_path,
)

if TYPE_CHECKING:
    from gdas_tf.config.config import Config
    from gdas_tf.config.sections import RetrainConfig
    from gdas_tf.data.dataset import DataSet
    from gdas_tf.spaces.genotype import Genotype


class TrialTrainer:
    """Trains networks one after the other in one process, with what they share made once.

    All trials of one seed see the same batches in the same order, so that they differ by their cells alone.

    Args:
        data: The data set; its test images are not looked at.
        seed: Of the run: it divides the training images into D_T and D_V.
        images, validation_images: How many images of D_T and of D_V to take, at most; None for all.
        deployed: Judge networks as they are deployed, with the moving statistics of batch norm, on all images
            of D_V. After the few steps of a candidate's training the moving statistics are still those of the
            first ones; without it batch norm goes by the statistics of each batch, and batches are full.
    """

    def __init__(
        self,
        data: DataSet,
        seed: int,
        images: int | None = None,
        validation_images: int | None = None,
        deployed: bool = False,
    ) -> None:
        self.data, self.deployed = data, deployed
        training, validation = search_halves(data.train.labels, seed)
        self.halves = _part(training, images, [seed, 0]), _part(validation, validation_images, [seed, 1])
        self._batches: dict[tuple[Any, ...], tf.data.Dataset] = {}

    def train(self, config: Config, genotype: Genotype | None) -> dict[str, Any]:
        """Trains a network from scratch, through a whole schedule.

        Args:
            config: `seed`, `data` and `retrain` count here.
            genotype: The cells; None if the network is built of none.

        Returns:
            `loss` (mean cross entropy on D_V, in nats; None if it is not a number), `accuracy` (on D_V),
            `training_loss` and `training_accuracy` (of the last epoch), `parameters`, `seconds` in all,
            `seconds_to_first_step` and `seconds_to_last_step`.

        Raises:
            UsageError: The network cannot be built for the images.
        """
        with graphs_forgotten():
            return self._train(config, genotype)

    def _train(self, config: Config, genotype: Genotype | None) -> dict[str, Any]:
        begun = time.perf_counter()
        settings = config.retrain
        balance = balance_of(config, self.data)
        with _no_garbage():
            model = self._model(config, genotype)
            step = tf.function(model.train_step, autograph=False)
            batches = self._training(config, balance)
            with graphs_as_written():
                step.get_concrete_function(batches.element_spec)
        steps = self._steps(settings)
        first = None
        with graphs_as_written():
            for number, batch in enumerate(batches.take(settings.epochs * steps)):
                if number % steps == 0:
                    model.reset_metrics()
                    rate = drop_path_schedule(settings.drop_path, number // steps, settings.epochs)
                    set_drop_path(model.network, rate)
                logs = step(batch)
                first = first or time.perf_counter() - begun
            trained = time.perf_counter() - begun
            set_drop_path(model.network, 0.0)
            with model.averaged():
                loss, accuracy = self._judge(model.network, settings.batch_size, balance.of_images)
        return {
            "loss": loss if math.isfinite(loss) else None,
            "accuracy": accuracy,
            **{f"training_{name}": float(value) for name, value in logs.items()},
            "parameters": count_parameters(model.network),
            "seconds": round(time.perf_counter() - begun, 3),
            "seconds_to_first_step": round(first, 3),
            "seconds_to_last_step": round(trained, 3),
        }

    def _model(self, config: Config, genotype: Genotype | None) -> RetrainingModel:
        settings = config.retrain
        keras.backend.clear_session()
        learning_rate = learning_rate_of(settings, self._steps(settings))
        return model_to_train(config, self.data, genotype, learning_rate)

    def _steps(self, settings: RetrainConfig) -> int:
        """Steps of an epoch."""
        return steps_per_epoch(len(self.halves[0]), settings.batch_size)

    def _training(self, config: Config, balance: Balance) -> tf.data.Dataset:
        """The batches of D_T; all trials of a seed and a batch size go through the same object."""
        settings = config.retrain
        augmentation = augmentation_of(config, self.data, settings.cutout)
        key = (config.seed, settings.batch_size, augmentation, settings.mixup, balance.sampler)
        if key not in self._batches:
            self._batches[key] = train_batches(
                self.data.train,
                settings.batch_size,
                config.seed,
                augmentation,
                0,
                _ENDLESS,
                self.halves[0],
                settings.mixup,
                balance.sampler,
            )
        return self._batches[key]

    def _judge(
        self, network: keras.Model, batch_size: int, class_weights: ClassWeights
    ) -> tuple[float, float]:
        """Mean loss and accuracy on D_V, which is never trained on."""
        half = self.halves[1]
        batch_size = min(batch_size, len(half))
        if ("judge", batch_size) not in self._batches:
            kept = half if self.deployed else half[: len(half) // batch_size * batch_size]
            self._batches["judge", batch_size] = eval_batches(self.data.train, batch_size, kept)

        @tf.function(autograph=False)
        def judge(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            logits = network(images, training=not self.deployed)["logits"]
            return cross_entropy(labels, logits, class_weights), tf.reduce_mean(hits(labels, logits))

        results = [(*judge(*batch), len(batch[1])) for batch in self._batches["judge", batch_size]]
        values = np.array([[float(value) for value in result] for result in results], np.float64)
        weights = values[:, 2] if self.deployed else None  # the last batch may be smaller
        return tuple(np.average(values[:, :2], axis=0, weights=weights).tolist())


@contextlib.contextmanager
def _no_garbage() -> Iterator[None]:
    """Without looking for garbage: graphs are made of a hundred thousand objects, and all of them stay. That
    takes a quarter of the time of tracing."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


_ENDLESS = 2**40


def _part(half: np.ndarray, count: int | None, seed: list[int]) -> np.ndarray:
    """Some images of a half, drawn by the seed; all of them without a count."""
    if count is None or count >= len(half):
        return half
    return np.sort(np.random.default_rng([*seed, 0x7A]).permutation(half)[:count])

"""The final training: the derived network from scratch on the whole training set, and its evaluation."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from gdas_tf.data.augmentation import drop_path_schedule
from gdas_tf.data.balance import Balance, ClassWeights
from gdas_tf.data.dataset import eval_batches, steps_per_epoch, train_batches
from gdas_tf.data.division import validation_part
from gdas_tf.distribution import Distribution, ReplicatedModel, mean_over_replicas, replicas
from gdas_tf.errors import UsageError
from gdas_tf.keras_backend import keras
from gdas_tf.networks.drop_path import DropPathFactors
from gdas_tf.networks.model_file import save_model
from gdas_tf.networks.registry import build, copy_weights
from gdas_tf.numerics.losses import MixedLabels, cross_entropy, hits, of_labels
from gdas_tf.optimizers.average import WeightAverage
from gdas_tf.optimizers.flat_sgd import FlatSGD
from gdas_tf.optimizers.loss_scale import loss_scaled
from gdas_tf.optimizers.schedules import cosine_schedule, exponential_schedule
from gdas_tf.runs.data_record import record_data
from gdas_tf.runtime import graphs_as_written
from gdas_tf.training.augmenting import augmentation_of
from gdas_tf.training.callbacks import AlignReplicas, Checkpoint, Divergence, MetricsLines
from gdas_tf.training.dividing import check_divided
from gdas_tf.training.epoch_lines import EpochLines
from gdas_tf.training.validation import AverageInTests, BestEpoch

if TYPE_CHECKING:
    from gdas_tf.config.config import Config
    from gdas_tf.config.sections import RetrainConfig
    from gdas_tf.data.dataset import DataSet
    from gdas_tf.runs.run import Run
    from gdas_tf.spaces.genotype import Genotype


class RetrainingModel(ReplicatedModel):
    """A training network with the loss of the recipe, trained by `fit` on batches of images and labels.

    The loss is the cross entropy of the logits plus, where the network has an auxiliary head,
    `auxiliary_weight` times that of the head's logits, both with smoothed labels. Of images that mixup has
    mixed, loss and accuracy are the weighted means of those of both labels. `evaluate` gives the plain cross
    entropy of the logits, and the accuracy, with batch norm by its moving statistics.

    Args:
        network: what `build_network(…, training=True)` returns.
        auxiliary_weight: weight of the auxiliary head's loss.
        label_smoothing: as of `gdas_tf.numerics.losses.cross_entropy`.
        average: follows the network's weights; None for no average.
        class_weights: what an image of each class weighs in the loss; None where all weigh one.

    Example:
        >>> model = RetrainingModel(build_network(genotype, (32, 32, 3), 10, auxiliary=True))
        >>> model.compile(FlatSGD(0.025))
        >>> model.fit(batches, epochs=2)  # doctest: +SKIP
    """

    def __init__(
        self,
        network: keras.Model,
        auxiliary_weight: float = 0.4,
        label_smoothing: float = 0.0,
        average: WeightAverage | None = None,
        class_weights: ClassWeights = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.network, self.average = network, average
        self.auxiliary_weight, self.label_smoothing = auxiliary_weight, label_smoothing
        self.class_weights = class_weights
        self._means = [keras.metrics.Mean(name=name) for name in ("loss", "accuracy")]
        self.built = True

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return self._means

    def call(self, images: tf.Tensor, training: bool | None = None) -> dict[str, tf.Tensor]:
        return self.network(images, training=training)

    def fit(self, *arguments: Any, **options: Any) -> keras.callbacks.History:
        with graphs_as_written():
            return super().fit(*arguments, **options)

    def train_step(self, data: tuple[tf.Tensor, tf.Tensor | MixedLabels]) -> dict[str, tf.Tensor]:
        images, labels = data
        weights = self.network.trainable_variables
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([weight.value for weight in weights])
            outputs = self.network(images, training=True)
            loss = self._loss(labels, outputs["logits"])
            if "auxiliary" in outputs:
                loss += self.auxiliary_weight * self._loss(labels, outputs["auxiliary"])
            scaled = self.optimizer.scale_loss(loss)
        gradients = mean_over_replicas(tape.gradient(scaled, [weight.value for weight in weights]))
        self.optimizer.apply(gradients, weights)
        if self.average is not None:
            self.average.update()
        return self._record(loss, labels, outputs["logits"])

    def test_step(self, data: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        images, labels = data
        logits = self.network(images, training=False)["logits"]
        # One loss an image: the last batch may be smaller.
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        return self._record(losses, labels, logits)

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """Lets the network have the average of its weights inside a block; without one, what it has."""
        return self.average.applied() if self.average else contextlib.nullcontext()

    def _loss(self, labels: tf.Tensor | MixedLabels, logits: tf.Tensor) -> tf.Tensor:
        return of_labels(
            lambda one: cross_entropy(one, logits, self.class_weights, self.label_smoothing), labels
        )

    def _record(
        self, loss: tf.Tensor, labels: tf.Tensor | MixedLabels, logits: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        values = (loss, of_labels(lambda one: hits(one, logits), labels))
        if replicas() > 1:
            values = mean_over_replicas([tf.reduce_mean(value) for value in values])
        for mean, value in zip(self._means, values, strict=True):
            mean.update_state(value)
        return {mean.name: mean.result() for mean in self._means}


def retrain(
    config: Config,
    data: DataSet,
    genotype: Genotype | None,
    run: Run,
    resume: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    distribution: Distribution | None = None,
) -> keras.Model:
    """Trains the network of a genotype from scratch on the training images, by the recipe of the paper.

    SGD with momentum, weight decay and clipping to a global norm
    (`gdas_tf.optimizers.flat_sgd.FlatSGD`); a learning rate that falls as a cosine, step by step or epoch by
    epoch, or by a factor each epoch; an auxiliary head; drop-path whose probability grows linearly, epoch by
    epoch; random crop, colours, flip and CutOut. On request label smoothing, mixup, an exponential moving
    average of the weights, which is what is validated and kept, and a validation part that is held out of the
    training images: its loss chooses the epoch that is kept, or ends the training early. The test images are
    not looked at.

    After each epoch the metrics (`retrain/metrics.jsonl`: epoch, loss, accuracy, val_loss and val_accuracy of
    a validation part, learning_rate, drop_path, seconds) and a checkpoint with all variables are written. A
    retraining that was killed and resumed ends with the same weights, bit for bit, as one that was not, on
    one machine.

    Args:
        config: configuration; `seed`, `data` (augmentation and balance), `retrain` and `tensorboard` count
            here.
        data: the data set.
        genotype: the cells; None if the network is built of none.
        run: the run directory.
        resume: continue from the last checkpoint, if there is one.
        callbacks: Keras callbacks for `fit`.
        distribution: what the batches are divided over; None for nothing.

    Returns:
        The deployed network, which is saved in the run as `model.keras`, with the record of the data.

    Raises:
        UsageError: the run was begun on other data, a checkpoint doesn't fit, the network can't be built for
            the images, or the validation part leaves a class without images.
        RunError: the training diverged, or the disk is full.
    """
    settings = config.retrain
    positions, held_out = training_positions(config, data)
    steps = steps_per_epoch(len(positions), settings.batch_size)
    learning_rate = learning_rate_of(settings, steps)
    distribution = distribution or Distribution()
    check_divided(config, "retrain", distribution.replicas, len(positions))
    with distribution.scope():
        model = model_to_train(config, data, genotype, learning_rate)
    network, average = model.network, model.average
    averages = average.variables if average else ()

    best = BestEpoch(run, network.variables, settings.patience, settings.keep == "best", model.averaged)
    # The network's variables include the statistics of batch norm and the state of drop-path.
    variables = [*network.variables, *model.optimizer.variables, *averages]
    checkpoint = Checkpoint(
        run, "retrain", variables, best.kept, best.restore, replicas=distribution.replicas
    )
    metrics = MetricsLines(
        run,
        "retrain",
        values=lambda epoch: {
            "learning_rate": float(learning_rate((epoch - 1) * steps)),
            "drop_path": drop_path_schedule(settings.drop_path, epoch - 1, settings.epochs),
        },
    )
    data_record = record_data(run, "retrain", data)
    done = checkpoint.begin(resume)
    metrics.begin(done)
    best.begin()
    last = settings.last_epoch
    if done < last and not best.ended:
        augmentation = augmentation_of(config, data, settings.cutout)
        first, remaining = done * steps, (last - done) * steps
        batches = train_batches(
            data.train,
            settings.batch_size,
            config.seed,
            augmentation,
            first,
            remaining,
            positions,
            settings.mixup,
            balance_of(config, data).sampler,
        )
        validation = eval_batches(data.train, settings.batch_size, held_out) if len(held_out) else None
        with EpochLines("retraining", last, done, steps, settings.patience is not None) as lines:
            model.fit(
                distribution.share(batches),
                epochs=last,
                initial_epoch=done,
                steps_per_epoch=steps,
                validation_data=validation,
                shuffle=False,  # the batches are
                verbose=0,
                callbacks=[
                    AlignReplicas(distribution, [*network.non_trainable_variables, *averages]),
                    _DropPathSchedule(network, settings),
                    *([AverageInTests(average)] if average else ()),
                    *callbacks,
                    Divergence("retrain", f"lower retrain.learning_rate ({settings.learning_rate:g})"),
                    metrics,
                    best,
                    *([checkpoint] if distribution.chief else []),
                    lines,
                ],
            )

    deployed = build(settings.network, genotype, **network_options(config, data))
    with best.applied():
        copy_weights(network, deployed)
    save_model(deployed, run.file("model.keras"), data_record)
    return deployed


def training_positions(config: Config, data: DataSet) -> tuple[np.ndarray, np.ndarray]:
    """Divides the training images into those that a retraining trains on and its validation part.

    Returns:
        The positions of both, int32, ascending; without `retrain.validation` the second has none.

    Raises:
        UsageError: a class has no image in one of the parts.
    """
    labels, fraction = data.train.labels, config.retrain.validation
    held_out = np.zeros(len(labels), bool)
    if fraction:
        held_out = validation_part(labels, fraction, data.class_names, config.seed)
    return tuple(np.flatnonzero(part).astype(np.int32) for part in (~held_out, held_out))


def model_to_train(
    config: Config,
    data: DataSet,
    genotype: Genotype | None,
    learning_rate: keras.optimizers.schedules.LearningRateSchedule,
) -> RetrainingModel:
    """Returns the network of a genotype with fresh weights, compiled with the recipe's optimizer and loss.

    Args:
        config: configuration; `seed`, `retrain` and `data.balance` count here.
        data: the data set.
        genotype: the cells; None if the network is built of none.
        learning_rate: what `learning_rate_of` gives.

    Raises:
        UsageError: the network can't be built for the images.
    """
    settings = config.retrain
    keras.utils.set_random_seed(config.seed)
    network = build(
        settings.network,
        genotype,
        drop_path=settings.drop_path,
        auxiliary=settings.auxiliary_weight > 0,
        training=True,
        seed=config.seed,
        dtype=settings.precision,
        **network_options(config, data),
    )
    average = WeightAverage(network.variables, settings.ema) if settings.ema else None
    model = RetrainingModel(
        network,
        settings.auxiliary_weight,
        settings.label_smoothing,
        average,
        balance_of(config, data).of_batches,
    )
    model.compile(optimizer_of(settings, learning_rate), jit_compile=settings.jit_compile)
    model.optimizer.build(network.trainable_variables)
    return model


def evaluate(model: keras.Model, data: DataSet, batch_size: int = 256) -> dict[str, Any]:
    """Measures a deployed network on the test images.

    Args:
        model: takes images float32 [B, H, W, C] in [0, 1], gives probabilities [B, classes].
        data: the data set.
        batch_size: images per batch; the result doesn't depend on it.

    Returns:
        `images` (their number), `loss` (mean cross entropy in nats), `accuracy`, `balanced_accuracy` (the
        mean of the accuracies of the classes that have test images), `class_accuracy`, the accuracy for each
        class name (None for a class without test images), and `confusion`: how many images of the class of
        a row were taken for the class of a column, [classes][classes], in the order of the class names. Of
        more than five classes also `top5_accuracy`: how often the class is among the five most probable ones.

    Raises:
        UsageError: the model is for other images or another number of classes.
    """
    if tuple(model.input_shape[1:]) != tuple(data.image_shape) or model.output_shape[-1] != data.classes:
        raise UsageError(
            f"the model has images {_by(model.input_shape[1:])} and {model.output_shape[-1]} classes, "
            f"but data set {data.name} has images {_by(data.image_shape)} and {data.classes} classes"
        )
    predict = tf.function(lambda images: model(images, training=False), reduce_retracing=True)
    results = [
        (predict(images).numpy(), labels.numpy()) for images, labels in eval_batches(data.test, batch_size)
    ]
    probabilities, labels = (np.concatenate(parts) for parts in zip(*results, strict=True))
    taken_for = probabilities.argmax(-1)
    confusion = np.zeros((data.classes, data.classes), np.int64)
    np.add.at(confusion, (labels, taken_for), 1)
    likelihood = np.maximum(probabilities[np.arange(len(labels)), labels], np.finfo(np.float32).tiny)
    of_class = [float(row[number] / row.sum()) if row.any() else None for number, row in enumerate(confusion)]
    return {
        "images": len(labels),
        "loss": float(-np.log(likelihood).mean()),
        "accuracy": float((taken_for == labels).mean()),
        **({"top5_accuracy": _top5_accuracy(labels, probabilities)} if data.classes > 5 else {}),
        "balanced_accuracy": float(np.mean([accuracy for accuracy in of_class if accuracy is not None])),
        "class_accuracy": dict(zip(data.class_names, of_class, strict=True)),
        "confusion": confusion.tolist(),
    }


def _top5_accuracy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    five = np.argpartition(-probabilities, 4, axis=-1)[:, :5]
    return float((five == labels[:, None]).any(-1).mean())


def balance_of(config: Config, data: DataSet) -> Balance:
    """Returns how the training of a run meets the uneven classes of its training images."""
    return Balance.of(config.data.balance, data.train.labels, data.classes)


def network_options(config: Config, data: DataSet) -> dict[str, Any]:
    """Returns the arguments of `build_network` that the network of a run has, whether trained or deployed."""
    settings = config.retrain
    return {
        "image_shape": data.image_shape,
        "classes": data.classes,
        "space": config.space,
        "channels": settings.channels,
        "cells": settings.cells,
        "macro": settings.macro,
        "stem": settings.stem,
        "head_norm": settings.head_norm,
        "initializer": settings.initializer,
        "mean": data.mean,
        "std": data.std,
    }


def learning_rate_of(
    settings: RetrainConfig, steps_per_epoch: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    start, end = settings.learning_rate, settings.learning_rate_end
    if settings.schedule == "exponential":
        return exponential_schedule(start, settings.learning_rate_factor, steps_per_epoch)
    return cosine_schedule(start, end, settings.epochs, steps_per_epoch, settings.schedule)


def optimizer_of(
    settings: RetrainConfig, learning_rate: keras.optimizers.schedules.LearningRateSchedule
) -> keras.optimizers.Optimizer:
    optimizer = FlatSGD(
        learning_rate, settings.momentum, settings.weight_decay, settings.clip_norm, settings.nesterov
    )
    return loss_scaled(optimizer, keras.DTypePolicy(settings.precision).compute_dtype)


class _DropPathSchedule(keras.callbacks.Callback):
    """Sets the probability of dropping a path at the begin of each epoch."""

    def __init__(self, network: keras.Model, settings: RetrainConfig) -> None:
        super().__init__()
        self.network, self.settings = network, settings

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        set_drop_path(self.network, drop_path_schedule(self.settings.drop_path, epoch, self.settings.epochs))


def set_drop_path(network: keras.Model, rate: float) -> None:
    """Sets the probability with which a training network drops a path; it may have none that can be."""
    for layer in network.layers:
        if isinstance(layer, DropPathFactors):
            layer.rate.assign(rate)


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))

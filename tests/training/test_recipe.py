"""What a retraining adds on request: smoothed labels, mixup, a moving average, a validation part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_retraining import BreakOff, Interrupted, assert_same_weights, squares_data

from gdas_tf import preflight
from gdas_tf.config.config import Config
from gdas_tf.data.augmentation import Augmentation
from gdas_tf.data.dataset import DataSet, Split, train_batches
from gdas_tf.data.mixup import mix
from gdas_tf.errors import DivergedError, UsageError
from gdas_tf.networks.registry import NETWORKS, Network
from gdas_tf.numerics.losses import MixedLabels, cross_entropy, hits, of_labels
from gdas_tf.optimizers.average import WeightAverage
from gdas_tf.optimizers.flat_sgd import FlatSGD
from gdas_tf.pipeline import stages
from gdas_tf.pipeline.job import Job
from gdas_tf.runs.run import Run
from gdas_tf.training import retraining
from gdas_tf.training.retraining import RetrainingModel, retrain, training_positions
from gdas_tf.training.trials import trial_config

WHOLE = {"label_smoothing": 0.1, "mixup": 0.4, "ema": 0.8, "validation": 0.2, "keep": "best"}


def plain(
    genotype: Any, image_shape: Any, classes: int, *, training: bool = False, **options: Any
) -> keras.Model:
    """A network of one convolution with batch norm and, in training, an auxiliary head."""
    layers, dtype = keras.layers, options.get("dtype")
    image = keras.Input(image_shape, name="image")
    x = layers.Conv2D(4, 3, strides=2, name="conv", dtype=dtype)(image)
    x = layers.ReLU(dtype=dtype)(layers.BatchNormalization(momentum=0.9, name="norm", dtype=dtype)(x))
    logits = layers.Dense(classes, name="logits", dtype="float32")(layers.Flatten()(x))
    if not training:
        return keras.Model(image, layers.Softmax(name="probabilities")(logits))
    head = layers.Dense(classes, name="head", dtype="float32")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, {"logits": logits, "auxiliary": head})


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS._items, "plain", Network(plain, takes_genotype=False))


@pytest.fixture(scope="module")
def data() -> DataSet:
    return squares_data()


def config(**changes: Any) -> Config:
    fields = {"network": "plain", "epochs": 4, "batch_size": 16, "cutout": 2, "learning_rate": 0.1, **changes}
    values = {f"retrain.{name}": value for name, value in fields.items()}
    return Config().override({"data.padding": 1, **values})


def a_batch(data: DataSet) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.constant(data.train.images[:32] / np.float32(255)), tf.constant(data.train.labels[:32])


def without_seconds(run: Run) -> list[dict[str, Any]]:
    return [{**line, "seconds": 0} for line in run.metrics("retrain")]


# --- losses -----------------------------------------------------------------------------------------------


def test_smoothed_and_mixed_labels_are_the_cross_entropy_of_soft_targets() -> None:
    generator = np.random.default_rng(0)
    logits = tf.constant(generator.normal(size=(6, 5)), tf.float32)
    first, second = (generator.integers(0, 5, 6).astype(np.int32) for _ in range(2))
    share = 0.3
    targets = share * np.eye(5)[first] + (1 - share) * np.eye(5)[second]
    labels = MixedLabels(*map(tf.constant, (first, second)), tf.constant(share))
    for smoothing in (0.0, 0.2):
        expected = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
        found = of_labels(lambda one, s=smoothing: cross_entropy(one, logits, smoothing=s), labels)
        np.testing.assert_allclose(found, expected(targets, logits), rtol=1e-5)
    best = np.argmax(logits, -1)
    found = of_labels(lambda one: hits(one, logits), labels)
    np.testing.assert_allclose(found, share * (best == first) + (1 - share) * (best == second), rtol=1e-6)


@pytest.mark.slow
def test_the_auxiliary_head_learns_from_the_same_labels_also_under_xla(data: DataSet) -> None:
    network = plain(None, (8, 8, 1), 3, training=True)
    images, labels = a_batch(data)
    images, mixed = mix(images, labels, 0.4, [1, 2])
    outputs = network(images, training=True)
    expected = sum(
        weight
        * (
            mixed.share * cross_entropy(mixed.first, outputs[name], smoothing=0.1)
            + (1 - mixed.share) * cross_entropy(mixed.second, outputs[name], smoothing=0.1)
        )
        for name, weight in (("logits", 1.0), ("auxiliary", 0.3))
    )
    average = WeightAverage(network.variables, 0.9)
    model = RetrainingModel(network, 0.3, label_smoothing=0.1, average=average)
    model.compile(FlatSGD(0.1), jit_compile=True)
    batches = tf.data.Dataset.from_tensors((images, mixed))
    history = model.fit(batches, epochs=1, verbose=0).history
    np.testing.assert_allclose(history["loss"], expected, rtol=1e-5)
    assert int(average.updates) == 1


# --- mixup ------------------------------------------------------------------------------------------------


def test_mixup_mixes_neighbours_by_a_share_of_seed_and_step(data: DataSet) -> None:
    def batches(first: int, count: int, **options: Any) -> list[Any]:
        found = train_batches(data.train, 8, 3, Augmentation(flip=True), first, count, **options)
        return list(found.as_numpy_iterator())

    mixed, as_they_were = batches(0, 10, mixup=0.7), batches(0, 10)
    for (x, labels), (images, whole) in zip(mixed, as_they_were, strict=True):
        expected = labels.share * images + (1 - labels.share) * np.roll(images, 1, 0)
        np.testing.assert_allclose(x, expected, atol=1e-6)
        np.testing.assert_array_equal(labels.first, whole)
        np.testing.assert_array_equal(labels.second, np.roll(whole, 1))
    assert len({float(labels.share) for _, labels in mixed}) == 10
    for one, other in zip(mixed[4:], batches(4, 6, mixup=0.7), strict=True):  # as when it is resumed
        for a, b in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("alpha", [0.001, 2.0])
def test_shares_are_of_the_beta_distribution(alpha: float) -> None:
    one, labels = tf.ones([2, 1, 1, 1]), tf.constant([0, 1])
    shares = tf.data.Dataset.range(1000).map(lambda step: mix(one, labels, alpha, [5, step])[1].share)
    found = np.array(list(shares.as_numpy_iterator()))
    assert ((found >= 0) & (found <= 1)).all()
    assert found.mean() == pytest.approx(0.5, abs=0.05)
    assert found.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.15)


def test_an_alpha_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="mixup: found alpha -1; it must be above 0"):
        mix(tf.ones([2, 1, 1, 1]), tf.constant([0, 1]), -1, [0, 0])


# --- moving average ---------------------------------------------------------------------------------------


def test_the_average_follows_the_definition_and_gives_way() -> None:
    weight, statistic = (keras.Variable(value, name="v") for value in ([1.0, 2.0], [[5.0]]))
    count = keras.Variable(3, dtype="int32")
    average = WeightAverage([weight, count, statistic], 0.5)
    values, expected = np.array([1.0, 2.0, 5.0]), np.array([1.0, 2.0, 5.0])
    update = tf.function(average.update)
    for step in range(12):
        values = values * 0.9 + step
        weight.assign(values[:2])
        statistic.assign(values[2:, None])
        update()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * values
    with average.applied():
        np.testing.assert_allclose([*weight.numpy(), *statistic.numpy()[0]], expected, rtol=1e-5)
        assert int(count) == 3
    np.testing.assert_allclose([*weight.numpy(), *statistic.numpy()[0]], values, rtol=1e-6)
    for decay in (1.0, -0.1):
        with pytest.raises(UsageError, match="ema: found a decay of"):
            WeightAverage([weight], decay)


# --- the whole --------------------------------------------------------------------------------------------


class Recorded(keras.callbacks.Callback):
    """Keeps the weights of every epoch, and gives the epochs other validation losses."""

    def __init__(self, losses: tuple[float, ...] = ()) -> None:
        super().__init__()
        self.losses, self.weights = losses, {}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.losses:
            logs["val_loss"] = self.losses[epoch]
        self.weights[epoch + 1] = self.model.network.get_layer("conv").get_weights()[0]


@pytest.mark.parametrize("precision", [pytest.param("float32", marks=pytest.mark.slow), "mixed_float16"])
def test_interrupted_and_resumed_gives_the_same(precision: str, data: DataSet, tmp_path: Path) -> None:
    settings = config(**WHOLE, precision=precision, patience=4)
    runs = [Run.create(tmp_path / name, settings) for name in ("whole", "broken")]
    model = retrain(settings, data, None, runs[0])
    with pytest.raises(Interrupted):
        retrain(settings, data, None, runs[1], callbacks=[BreakOff(epoch=2, step=1)])
    assert len(runs[1].metrics("retrain")) == 2
    assert_same_weights(retrain(settings, data, None, runs[1], resume=True), model)
    assert without_seconds(runs[0]) == without_seconds(runs[1])
    assert all(np.isfinite(list(line.values())).all() for line in runs[0].metrics("retrain"))


def test_what_is_validated_is_what_is_saved(data: DataSet, tmp_path: Path) -> None:
    settings = config(ema=0.8, validation=0.2)
    run, recorded = Run.create(tmp_path / "run", settings), Recorded()
    model = retrain(settings, data, None, run, callbacks=[recorded])
    images, held_out = training_positions(settings, data)
    part = Split(data.train.images[held_out], data.train.labels[held_out])
    measured = retraining.evaluate(
        model, DataSet("part", data.class_names, data.train, part, data.mean, data.std)
    )
    last = run.metrics("retrain")[-1]
    assert last["val_loss"] == pytest.approx(measured["loss"], rel=1e-4)
    assert last["val_accuracy"] == pytest.approx(measured["accuracy"])
    # The average is not the weights themselves.
    assert np.abs(model.get_layer("conv").get_weights()[0] - recorded.weights[4]).max() > 1e-4
    assert_same_weights(keras.saving.load_model(run.file("model.keras")), model)


def test_the_best_epoch_is_kept_and_patience_ends_the_training(data: DataSet, tmp_path: Path) -> None:
    losses = (0.9, 0.5, 0.7, 0.8, 0.1)
    settings = config(epochs=5, validation=0.2, keep="best", patience=2)
    run, recorded = Run.create(tmp_path / "run", settings), Recorded(losses)
    model = retrain(settings, data, None, run, callbacks=[recorded])
    assert [line["val_loss"] for line in run.metrics("retrain")] == list(losses[:4])
    np.testing.assert_array_equal(model.get_layer("conv").get_weights()[0], recorded.weights[2])
    assert run.finished("retrain")
    result = stages.run_retraining(Job(run, data=data, resume=True))
    assert (result["epochs"], result["kept_epoch"], result["ended_early"]) == (4, 2, True)
    assert result["val_loss"] == 0.5

    # Killed after the best epoch, it has not forgotten the weights of that one.
    broken = Run.create(tmp_path / "broken", settings)
    with pytest.raises(Interrupted):
        retrain(settings, data, None, broken, callbacks=[Recorded(losses), BreakOff(epoch=3, step=1)])
    assert not broken.finished("retrain")
    again = retrain(settings, data, None, broken, resume=True, callbacks=[Recorded(losses)])
    assert_same_weights(again, model)
    # Killed after its last epoch, it only writes the network.
    broken.file("model.keras").unlink()
    assert_same_weights(retrain(settings, data, None, broken, resume=True), model)
    assert without_seconds(broken) == without_seconds(run)


def test_the_last_epoch_is_kept_unless_the_best_is_asked_for(data: DataSet, tmp_path: Path) -> None:
    settings = config(validation=0.2)
    run, recorded = Run.create(tmp_path / "run", settings), Recorded((0.9, 0.5, 0.7, 0.8))
    model = retrain(settings, data, None, run, callbacks=[recorded])
    np.testing.assert_array_equal(model.get_layer("conv").get_weights()[0], recorded.weights[4])


def test_images_of_the_validation_part_are_not_trained_on(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, np.ndarray] = {}
    for name, place in (("train_batches", 6), ("eval_batches", 2)):
        make = getattr(retraining, name)

        def spy(*arguments: Any, name: str = name, place: int = place, make: Any = make) -> Any:
            assert arguments[0] is data.train
            seen[name] = arguments[place]
            return make(*arguments)

        monkeypatch.setattr(retraining, name, spy)
    settings = config(epochs=1, validation=0.2)
    retrain(settings, data, None, Run.create(tmp_path / "run", settings))
    trained, validated = seen["train_batches"], seen["eval_batches"]
    assert sorted([*trained, *validated]) == list(range(70))
    counts = np.bincount(data.train.labels[validated], minlength=3) / np.bincount(data.train.labels)
    np.testing.assert_allclose(counts, 0.2, atol=1 / 23)  # one image of a class
    assert (training_positions(settings, data)[1] == validated).all()
    assert (training_positions(settings.override({"seed": 1}), data)[1] != validated).any()


def test_a_validation_loss_that_is_none_ends_the_training(data: DataSet, tmp_path: Path) -> None:
    settings = config(epochs=1, validation=0.2)
    run = Run.create(tmp_path / "run", settings)
    with pytest.raises(DivergedError, match="diverged: val_loss is nan in epoch 1; lower retrain.learning"):
        retrain(settings, data, None, run, callbacks=[Recorded((float("nan"),))])


# --- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "part", "message"),
    [
        (
            [0] * 40 + [1] * 5,
            0.1,
            "leaves none of class right, which has 5, in the validation part; acce.* 0.2",
        ),
        ([0] * 40 + [1] * 5, 0.97, "leaves none of class right, .* in the images to train on; .* 0.2 to 0.8"),
        ([0] * 40 + [1], 0.1, "of 41 training images: class right has a single image"),
    ],
)
def test_a_part_that_leaves_a_class_empty_is_refused(
    labels: list[int], part: float, message: str, data: DataSet
) -> None:
    few = Split(data.train.images[: len(labels)], np.array(labels, np.int32))
    uneven = DataSet("uneven", data.class_names, few, data.test, data.mean, data.std)
    with pytest.raises(UsageError, match=f"^retrain.validation: {part}.*{message}"):
        preflight.check_before_start(config(validation=part), uneven, ["retrain"])


def test_best_and_patience_need_a_validation_part() -> None:
    for changes in ({"keep": "best"}, {"patience": 3}):
        with pytest.raises(
            UsageError, match=f"^retrain.{next(iter(changes))}: found .*set retrain.validation"
        ):
            config(**changes)
        config(**changes, validation=0.1)


def test_trials_are_trained_without_it() -> None:
    assert trial_config(config(**WHOLE, patience=2), 3) == trial_config(config(), 3)

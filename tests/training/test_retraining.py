"""Retraining: loss, schedules, metrics, exact resume, deployment, evaluation, mixed precision and XLA."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from gdas_tf.config.config import Config
from gdas_tf.data.dataset import DataSet, Split
from gdas_tf.errors import RunError, UsageError
from gdas_tf.networks.derived import build_network
from gdas_tf.optimizers.flat_sgd import FlatSGD
from gdas_tf.optimizers.torch_sgd import SGD
from gdas_tf.runs.run import Run
from gdas_tf.spaces.genotype import Genotype
from gdas_tf.training import retraining
from gdas_tf.training.retraining import RetrainingModel, evaluate, retrain

TINY = Genotype([[("sep_conv_3x3", 0), ("skip_connect", 1)]], [[("dil_conv_3x3", 0), ("skip_connect", 1)]])
OPTIONS = {
    "data.padding": 1,
    "data.flip": True,
    "retrain.epochs": 3,
    "retrain.batch_size": 16,
    "retrain.channels": 4,
    "retrain.cells": 1,
    "retrain.cutout": 2,
    "retrain.drop_path": 0.3,
    "retrain.learning_rate": 0.1,
}


def squares(count: int, seed: int) -> Split:
    """Images 8x8 with a bright square: at the left is class 0, at the right class 1, nowhere class 2."""
    generator = np.random.default_rng(seed)
    labels = (np.arange(count) % 3).astype(np.int32)
    pixels = generator.integers(0, 90, (count, 8, 8, 1))
    for image, label in zip(pixels, labels, strict=True):
        if label < 2:
            image[2:6, 4 * label : 4 * label + 4] += 150
    return Split(pixels.astype(np.uint8), labels)


def squares_data() -> DataSet:
    train = squares(70, 1)
    x = train.images / 255
    return DataSet("squares", ("left", "right", "none"), train, squares(30, 2), (x.mean(),), (x.std(),))


@pytest.fixture(scope="module")
def data() -> DataSet:
    return squares_data()


def config(**changes: object) -> Config:
    return Config().override({**OPTIONS, **{f"retrain.{name}": value for name, value in changes.items()}})


def batch(data: DataSet) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.constant(data.train.images[:32] / np.float32(255)), tf.constant(data.train.labels[:32])


class Interrupted(Exception):
    """What the tests break a training off with."""


class BreakOff(keras.callbacks.Callback):
    def __init__(self, epoch: int, step: int) -> None:
        super().__init__()
        self.at, self.epoch = (epoch, step), 0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, step: int, logs: dict | None = None) -> None:
        if (self.epoch, step) == self.at:
            raise Interrupted


@pytest.fixture(scope="module")
def finished(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, keras.Model]:
    """A retraining that nothing interrupted."""
    run = Run.create(tmp_path_factory.mktemp("finished") / "run", config())
    return run, retrain(run.config, data, TINY, run)


def assert_same_weights(one: keras.Model, other: keras.Model) -> None:
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_metrics_of_every_epoch(finished: tuple[Run, keras.Model]) -> None:
    lines = finished[0].metrics("retrain")
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert [line["drop_path"] for line in lines] == pytest.approx([0, 0.1, 0.2])
    assert [line["learning_rate"] for line in lines] == pytest.approx([0.1, 0.075, 0.025])  # (1 + cos) / 2
    assert all(0 <= line["accuracy"] <= 1 and line["seconds"] > 0 for line in lines)


@pytest.mark.slow
def test_interrupted_and_resumed_gives_the_same_weights(
    finished: tuple[Run, keras.Model], data: DataSet, tmp_path: Path
) -> None:
    run = Run.create(tmp_path / "run", config())
    with pytest.raises(Interrupted):
        retrain(run.config, data, TINY, run, callbacks=[BreakOff(epoch=1, step=2)])
    assert len(run.metrics("retrain")) == 1
    assert not run.file("model.keras").exists()
    # As if the process had died between the line of metrics and the checkpoint:
    run.append_metrics("retrain", {"epoch": 2, "loss": 9.0})
    model = retrain(run.config, data, TINY, run, resume=True)
    assert_same_weights(model, finished[1])
    again, expected = run.metrics("retrain"), finished[0].metrics("retrain")
    for line in (*again, *expected):
        del line["seconds"]
    assert again == expected


def test_killed_and_resumed_gives_the_same_weights(
    finished: tuple[Run, keras.Model], data: DataSet, tmp_path: Path
) -> None:
    run = Run.create(tmp_path / "run", config())
    program = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "import conftest\n"  # sets the threads, as of the process that goes on
        "from test_retraining import *\n"
        "data = squares_data()\n"
        "run = Run.open(sys.argv[1])\n"
        "class Slow(keras.callbacks.Callback):\n"
        "    def on_train_batch_begin(self, step, logs=None): time.sleep(0.3)\n"
        "retrain(run.config, data, TINY, run, callbacks=[Slow()])\n"
    )
    command = [sys.executable, "-c", program, str(run.path), *map(str, Path(__file__).parents[:2])]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ)
    try:
        deadline = time.monotonic() + 120
        while not run.file("retrain/checkpoint.npz").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.5)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(run.metrics("retrain")) < 3
    assert_same_weights(retrain(run.config, data, TINY, run, resume=True), finished[1])


def test_resume_of_a_finished_training_only_writes_the_model(
    finished: tuple[Run, keras.Model], data: DataSet
) -> None:
    run, model = finished
    before = run.metrics("retrain")
    run.file("model.keras").unlink()
    assert_same_weights(retrain(run.config, data, TINY, run, resume=True), model)
    assert run.metrics("retrain") == before
    assert run.file("model.keras").exists()


def test_resume_without_a_checkpoint_begins(
    finished: tuple[Run, keras.Model], data: DataSet, tmp_path: Path
) -> None:
    run = Run.create(tmp_path / "run", config())
    assert_same_weights(retrain(run.config, data, TINY, run, resume=True), finished[1])


def test_checkpoint_of_another_genotype_is_refused(
    finished: tuple[Run, keras.Model], data: DataSet, tmp_path: Path
) -> None:
    other = Genotype([[("conv_1x1", 0), ("skip_connect", 1)]], TINY.reduction)
    with pytest.raises(UsageError, match="checkpoint"):
        retrain(finished[0].config, data, other, finished[0], resume=True)


def test_model_loads_without_this_package(finished: tuple[Run, keras.Model], data: DataSet) -> None:
    run, model = finished
    program = (
        "import sys, keras, numpy\n"
        "model = keras.models.load_model(sys.argv[1])\n"
        "assert not any(name.startswith('gdas_tf') for name in sys.modules)\n"
        "images = numpy.load(sys.argv[2])\n"
        "numpy.save(sys.argv[2], model.predict(images, verbose=0))\n"
    )
    file = run.path / "images.npy"
    images = data.test.images / np.float32(255)
    np.save(file, images)
    subprocess.run([sys.executable, "-c", program, str(run.file("model.keras")), str(file)], check=True)
    np.testing.assert_allclose(np.load(file), model(images), atol=1e-6)


def test_loss_is_cross_entropy_with_the_weighted_auxiliary_one(data: DataSet) -> None:
    network = build_network(TINY, (8, 8, 1), 3, channels=4, cells=1, auxiliary=True, seed=1)
    model = RetrainingModel(network, auxiliary_weight=0.3)
    model.compile(FlatSGD(0.1), jit_compile=False)
    images, labels = batch(data)
    outputs = network(images, training=True)
    before = [weight.numpy() for weight in network.trainable_variables]
    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    expected = entropy(labels, outputs["logits"]) + 0.3 * entropy(labels, outputs["auxiliary"])
    logs = model.train_step((images, labels))
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(logs["accuracy"], np.mean(np.argmax(outputs["logits"], -1) == labels))
    for weight, old in zip(network.trainable_variables, before, strict=True):
        assert (weight.numpy() != old).any(), weight.path


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("clip_norm", [None, 0.5, 100.0])
def test_flat_optimizer_takes_the_steps_of_the_other(clip_norm: float | None, nesterov: bool) -> None:
    generator = np.random.default_rng(0)
    shapes = [(3, 3, 1, 4), (4,), (4, 2), ()]
    values = [generator.standard_normal(shape) for shape in shapes]
    gradients = [[generator.standard_normal(shape) for shape in shapes] for _ in range(3)]
    results = []
    for kind in (FlatSGD, SGD):
        variables = [keras.Variable(value, dtype="float32") for value in values]
        schedule = keras.optimizers.schedules.CosineDecay(0.1, decay_steps=4)
        optimizer = kind(schedule, momentum=0.8, decay=0.01, clip_norm=clip_norm, nesterov=nesterov)
        for step in gradients:
            optimizer.apply([tf.constant(g, tf.float32) for g in step], variables)
        assert int(optimizer.iterations) == 3
        results.append([variable.numpy() for variable in variables])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    again = FlatSGD.from_config(FlatSGD(0.1, 0.8, 0.01, clip_norm, nesterov=False).get_config())
    assert (again.momentum, again.decay, again.clip_norm) == (0.8, 0.01, clip_norm or 0)
    assert not again.nesterov and float(again.learning_rate) == pytest.approx(0.1)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("clip_norm", [0, 2.0])
def test_flat_optimizer_equals_the_definition(nesterov: bool, clip_norm: float) -> None:
    generator = np.random.default_rng(1)
    weight, velocity = generator.standard_normal(6), np.zeros(6)
    variables = [keras.Variable(part, dtype="float32") for part in np.split(weight, 2)]
    optimizer = FlatSGD(0.1, 0.9, 0.01, clip_norm, nesterov)
    for _ in range(4):
        gradient = 2 * generator.standard_normal(6)
        optimizer.apply([tf.constant(part, tf.float32) for part in np.split(gradient, 2)], variables)
        norm = np.linalg.norm(gradient)
        gradient = gradient * (min(1, clip_norm / norm) if clip_norm else 1) + 0.01 * weight
        velocity = 0.9 * velocity + gradient
        weight = weight - 0.1 * (gradient + 0.9 * velocity if nesterov else velocity)
    np.testing.assert_allclose(np.concatenate([v.numpy() for v in variables]), weight, rtol=1e-5, atol=1e-6)


def test_flat_optimizer_honours_a_loss_scale() -> None:
    results = []
    for factor in (None, 8.0):
        optimizer = FlatSGD(0.1)
        optimizer.loss_scale_factor = factor
        variable = keras.Variable([1.0, 2.0])
        optimizer.apply([tf.constant([0.5, 1.0]) * (factor or 1)], [variable])
        results.append(variable.numpy())
    np.testing.assert_allclose(*results, rtol=1e-6)


def test_flat_optimizer_refuses_what_it_cannot_do() -> None:
    one, other = keras.Variable([1.0], name="one"), keras.Variable([1.0], name="other")
    gradient = tf.constant([1.0])
    for name in ("weight_decay", "clipvalue", "use_ema", "gradient_accumulation_steps"):
        with pytest.raises(TypeError, match=name):
            FlatSGD(0.1, **{name: 2})
    for arguments, message in (
        ({"momentum": 1.0}, "momentum: found 1.0"),
        ({"decay": -1.0}, "decay: found -1.0"),
        ({"clip_norm": -2.0}, "clip_norm: found -2.0"),
    ):
        with pytest.raises(UsageError, match=message):
            FlatSGD(0.1, **arguments)
    optimizer = FlatSGD(0.1)
    optimizer.apply([gradient, gradient], [one, other])
    for gradients, weights, message in (
        ([gradient], [one], "found 1 weights that are not the 2 of its first step"),
        ([gradient, gradient], [other, one], "the same ones in the same order"),
        ([gradient], [one, other], "found 1 gradients of 2 weights"),
        ([gradient, None], [one, other], "other has no gradient"),
    ):
        with pytest.raises(UsageError, match=message):
            optimizer.apply(gradients, weights)
    with pytest.raises(UsageError, match="half is float16; accepted is float32"):
        FlatSGD(0.1).build([keras.Variable([1.0], dtype="float16", name="half")])
    layer = keras.layers.Dense(1, kernel_constraint="non_neg", name="bound")
    layer.build((None, 2))
    with pytest.raises(UsageError, match="bound/kernel has a constraint"):
        FlatSGD(0.1).build(layer.trainable_variables)


def test_learning_rate_by_step_and_by_epoch() -> None:
    settings = config(epochs=4, learning_rate=0.2, learning_rate_end=0.1)
    by_step = retraining.learning_rate_of(settings.retrain, 5)
    by_epoch = retraining.learning_rate_of(settings.override({"retrain.schedule": "epoch"}).retrain, 5)
    for step in range(20):
        epoch = step // 5
        # PyTorch's CosineAnnealingLR, stepped once an epoch
        expected = 0.1 + (0.2 - 0.1) * (1 + np.cos(np.pi * epoch / 4)) / 2
        assert float(by_epoch(step)) == pytest.approx(expected, rel=1e-5)
        assert float(by_step(step)) == pytest.approx(
            0.1 + 0.1 * (1 + np.cos(np.pi * step / 20)) / 2, rel=1e-5
        )
    again = type(by_epoch).from_config(by_epoch.get_config())
    assert float(again(7)) == float(by_epoch(7))


def test_options_of_the_recipe_reach_the_training(
    finished: tuple[Run, keras.Model], data: DataSet, tmp_path: Path
) -> None:
    changes = {"nesterov": False, "schedule": "epoch", "clip_norm": 0, "initializer": "he", "head_norm": True}
    settings = config(epochs=1, **changes)
    optimizer = retraining.optimizer_of(settings.retrain, 0.1)
    assert (optimizer.nesterov, optimizer.clip_norm) == (False, 0)
    assert retraining.optimizer_of(finished[0].config.retrain, 0.1).nesterov
    assert retraining.optimizer_of(finished[0].config.retrain, 0.1).clip_norm == 5.0
    run = Run.create(tmp_path / "run", settings)
    model = retrain(settings, data, TINY, run)
    assert np.isfinite(run.metrics("retrain")[0]["loss"])
    assert "head_bn" in [layer.name for layer in model.layers]
    assert "head_bn" not in [layer.name for layer in finished[1].layers]
    assert retraining.network_options(settings, data)["initializer"] == "he"
    assert retraining.network_options(finished[0].config, data)["initializer"] == "torch"


def test_a_retraining_without_the_norm_of_its_head_does_not_go_on_with_it(
    finished: tuple[Run, keras.Model], data: DataSet
) -> None:
    run = finished[0]
    other = run.config.override({"retrain.head_norm": True})
    with pytest.raises(UsageError, match="retrain.head_norm = False there, True now"):
        Run(run.path, other).load_checkpoint("retrain")


@pytest.mark.slow
@pytest.mark.parametrize(
    "precision", [pytest.param("mixed_bfloat16", marks=pytest.mark.slow), "mixed_float16"]
)
def test_mixed_precision_learns_and_resumes(precision: str, data: DataSet, tmp_path: Path) -> None:
    settings = config(precision=precision, epochs=5, drop_path=0)
    whole, broken = (Run.create(tmp_path / name, settings) for name in ("whole", "broken"))
    model = retrain(settings, data, TINY, whole)
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    losses = [line["loss"] for line in whole.metrics("retrain")]
    assert np.isfinite(losses).all() and losses[-1] < 0.8 * losses[0]
    with pytest.raises(Interrupted):
        retrain(settings, data, TINY, broken, callbacks=[BreakOff(epoch=1, step=1)])
    assert_same_weights(retrain(settings, data, TINY, broken, resume=True), model)


def test_float16_gradients_are_scaled_and_bad_steps_skipped(data: DataSet) -> None:
    network = build_network(TINY, (8, 8, 1), 3, channels=4, cells=1, auxiliary=True, dtype="mixed_float16")
    model = RetrainingModel(network, 0.4)
    optimizer = keras.optimizers.LossScaleOptimizer(FlatSGD(0.1), initial_scale=2.0**40)
    model.compile(optimizer, jit_compile=False)
    optimizer.build(network.trainable_variables)
    before = [weight.numpy() for weight in network.trainable_variables]
    model.train_step(batch(data))  # a scale that overflows float16: no weight moves, the scale is halved
    for weight, old in zip(network.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(weight, old)
    assert float(optimizer.dynamic_scale) == 2.0**39
    optimizer.dynamic_scale.assign(2.0**8)
    model.train_step(batch(data))
    assert all((w.numpy() != old).any() for w, old in zip(network.trainable_variables, before, strict=True))


@pytest.mark.slow
def test_compiled_by_xla_it_is_the_same_step(data: DataSet) -> None:
    losses = []
    for jit_compile in (False, True):
        network = build_network(TINY, (8, 8, 1), 3, channels=4, cells=1, seed=1, training=True)
        model = RetrainingModel(network)
        model.compile(FlatSGD(0.1), jit_compile=jit_compile)
        dataset = tf.data.Dataset.from_tensors(batch(data)).repeat(3)
        losses.append(model.fit(dataset, epochs=1, verbose=0).history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-3)


def test_diverged_training_ends_with_advice(data: DataSet, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", config(learning_rate=1e30, clip_norm=1e30))
    with pytest.raises(RunError, match="lower retrain.learning_rate"):
        retrain(run.config, data, TINY, run)
    assert not run.file("model.keras").exists()


def test_keras_callbacks_work(data: DataSet, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", config(epochs=1, auxiliary_weight=0, drop_path=0))
    history = keras.callbacks.History()
    table = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    retrain(run.config, data, TINY, run, callbacks=[history, table])
    assert (tmp_path / "log.csv").read_text().startswith("epoch,accuracy,loss")
    assert history.history["loss"] == [run.metrics("retrain")[0]["loss"]]


def test_evaluation(data: DataSet) -> None:
    guess = np.array([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.6, 0.1, 0.3]], np.float32)
    image = keras.Input((8, 8, 1))
    # A model that reads the class off the first pixel and gives that row of `guess`.
    first = keras.layers.Cropping2D(((0, 7), (0, 7)))(image)
    rows = keras.ops.take(guess, keras.ops.cast(keras.ops.round(first[:, 0, 0, 0] * 255), "int32"), axis=0)
    model = keras.Model(image, rows)
    labels = np.array([0, 0, 1, 2, 2], np.int32)
    pixels = np.zeros((5, 8, 8, 1), np.uint8)
    pixels[:, 0, 0, 0] = labels
    test = DataSet("pixels", data.class_names, data.train, Split(pixels, labels), (0.5,), (0.5,))
    for batch_size in (2, 5, 99):
        result = evaluate(model, test, batch_size)
        assert result["images"] == 5
        assert result["accuracy"] == pytest.approx(3 / 5)
        assert result["class_accuracy"] == {"left": 1.0, "right": 1.0, "none": 0.0}
        assert result["balanced_accuracy"] == pytest.approx(2 / 3)
        assert result["confusion"] == [[2, 0, 0], [0, 1, 0], [2, 0, 0]]
        assert result["loss"] == pytest.approx(-np.log([0.7, 0.7, 0.5, 0.3, 0.3]).mean(), rel=1e-5)
    without = DataSet("pixels", data.class_names, data.train, Split(pixels[:3], labels[:3]), (0.5,), (0.5,))
    result = evaluate(model, without)
    assert result["class_accuracy"]["none"] is None and result["balanced_accuracy"] == 1.0


def test_evaluation_on_other_images_is_refused(finished: tuple[Run, keras.Model], data: DataSet) -> None:
    wide = Split(np.zeros((3, 8, 9, 1), np.uint8), np.arange(3, dtype=np.int32))
    with pytest.raises(UsageError, match="8x8x1.*8x9x1"):
        evaluate(finished[1], DataSet("wide", data.class_names, wide, wide, (0.5,), (0.5,)))

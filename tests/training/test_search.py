"""The supernet and the search: counts, alternation, what may move and what must not, resumption."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import gdas_tf
from gdas_tf.config.config import Config
from gdas_tf.data.dataset import DataSet, Split
from gdas_tf.errors import RunError, UsageError
from gdas_tf.numerics.losses import cross_entropy
from gdas_tf.operations.layer import CandidateOperation
from gdas_tf.optimizers.flat_sgd import FlatSGD
from gdas_tf.optimizers.loss_scale import MaskedLossScale
from gdas_tf.optimizers.schedules import cosine_schedule
from gdas_tf.optimizers.torch_sgd import SGD
from gdas_tf.runs.run import Run
from gdas_tf.runtime import graphs_as_written
from gdas_tf.spaces.base import SearchSpace
from gdas_tf.strategies.base import STRATEGIES
from gdas_tf.strategies.gdas import GDAS
from gdas_tf.supernet.mixed import MixedOperation
from gdas_tf.supernet.network import Supernet
from gdas_tf.supernet.paths import Sampled
from gdas_tf.supernet.reduction import FixedReductionCell
from gdas_tf.training.search import build_search_model, search
from gdas_tf.training.search_model import SearchModel

SPACE = SearchSpace.named("gdas")


SMALL = {"search__nodes": 1, "search__operations": "none,skip_connect,conv_1x1"}
"""For a search of which only the course counts: it is traced in a third of the time."""


def _data(examples: int = 48, size: int = 8) -> DataSet:
    """Images whose brightness is their class, so that there is something to learn."""
    generator = np.random.default_rng(0)
    labels = np.arange(examples, dtype=np.int32) % 3
    images = generator.integers(0, 80, (examples, size, size, 3)) + 80 * labels[:, None, None, None]
    split = Split(images.astype(np.uint8), labels)
    return DataSet("brightness", ("dark", "middle", "bright"), split, split, (0.4,) * 3, (0.3,) * 3)


def _config(**changes: object) -> Config:
    values = {
        "data.name": "digits",
        "data.padding": 1,
        "search.epochs": 3,
        "search.batch_size": 8,
        "search.channels": 4,
        "search.cells": 1,
        "search.nodes": 2,
        "search.weight_learning_rate": 0.1,
        "search.architecture_learning_rate": 0.02,
    }
    return Config().override({**values, **{key.replace("__", "."): value for key, value in changes.items()}})


def _model(
    space: SearchSpace = SearchSpace(nodes=2),  # noqa: B008
    sample_per: str = "kind",
    unsampled: str = "frozen",
    **options: object,
) -> SearchModel:
    supernet = Supernet(space, classes=3, channels=4, cells=1, **options)
    strategy = GDAS(sample_per=sample_per, learning_rate=0.01)
    model = SearchModel(supernet, strategy, seed=1, unsampled=unsampled)
    model.compile(SGD(0.1))
    model.build((8, 8, 8, 3))
    return model


def _batch(seed: int) -> tuple[tf.Tensor, tf.Tensor]:
    x = tf.random.stateless_uniform((8, 8, 8, 3), [seed, 0])
    return x, tf.random.stateless_uniform((8,), [seed, 1], 0, 3, tf.int32)


def _logits(model: SearchModel) -> list:
    return list(model.strategy.logits.values())


def _values(variables: list) -> dict[str, np.ndarray]:
    return {f"{i}:{v.path}": v.numpy().copy() for i, v in enumerate(variables)}


def _moved(before: dict[str, np.ndarray], variables: list) -> set[str]:
    after = _values(variables)
    return {name for name in before if not np.array_equal(before[name], after[name])}


@pytest.mark.parametrize(
    ("options", "count"),
    [({}, 1_931_130), ({"fixed_reduction": True}, 1_342_074)],
    ids=["searched", "fixed"],
)
def test_supernet_has_the_published_number_of_weights(options: dict, count: int) -> None:
    supernet = Supernet(SPACE, classes=10, channels=16, cells=2, **options)
    supernet.build((2, 32, 32, 3))
    assert supernet.count_trainable() == count


@pytest.mark.parametrize("macro", ["paper", "official"])
def test_macro_decides_the_number_of_cells(macro: str) -> None:
    supernet = Supernet(SPACE, classes=10, channels=4, cells=3, macro=macro)
    assert len(supernet.cells) == {"paper": 11, "official": 9}[macro]


@pytest.mark.parametrize("filters", [4, 10, 12, 16])
def test_fixed_reduction_cell_of_any_width(filters: int) -> None:
    cell = FixedReductionCell(filters)
    cell.build(((2, 8, 8, 6), (2, 8, 8, 6)))
    x = tf.random.stateless_normal((2, 8, 8, 6), [1, 2])
    assert cell((x, x), update="weights").shape == (2, 4, 4, 4 * filters)


def test_images_below_8_pixels_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 8 pixels"):
        Supernet(SPACE, classes=10, channels=4, cells=1).build((2, 6, 8, 3))


@pytest.mark.parametrize("operation", range(len(SPACE.operations)), ids=SPACE.operations)
@pytest.mark.parametrize("stride", [1, 2])
def test_mixed_operation_is_the_sampled_candidate(operation: int, stride: int) -> None:
    mixed = MixedOperation(SPACE.operations, stride, edges=2)
    mixed.build((4, 8, 8, 8))
    layer = CandidateOperation(SPACE.operations[operation], stride)
    layer.build((4, 8, 8, 8))
    for kernel, value in zip(layer.kernels, mixed.segments.kernels(mixed.kernels[1], operation), strict=True):
        kernel.assign(value)
    x, index = tf.random.stateless_normal((4, 8, 8, 8), [1, 2]), tf.constant(operation)

    @tf.function(autograph=False)
    def run(x, row):
        y, _, moments = mixed.forward(x, index, row)
        gradients = [
            mixed.backward(3 * y**2, x, index, row, moments, update) for update in ("weights", "architecture")
        ]
        return y, *gradients

    y, (dx, drow), (dx_again, dgate) = run(x, tf.convert_to_tensor(mixed.kernels[1]))
    with tf.GradientTape() as tape:
        tape.watch(x)
        expected = layer(x, training=True)
        target = tf.reduce_sum(expected**3)
    gradients = tape.gradient(
        target, [x, *[kernel.value for kernel in layer.kernels]], unconnected_gradients="zero"
    )
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(dx, gradients[0], atol=2e-4)
    np.testing.assert_allclose(dx_again, gradients[0], atol=2e-4)
    np.testing.assert_allclose(drow, mixed.segments.flat_weights(gradients[1:], operation), atol=5e-3)
    np.testing.assert_allclose(dgate, tf.reduce_sum(3 * expected**3), rtol=1e-4, atol=1e-2)
    # Inference by the moving statistics of the right row.
    np.testing.assert_allclose(mixed(x, index=index, edge=1), layer_at_start(layer, x), atol=1e-5)


def layer_at_start(layer: CandidateOperation, x: tf.Tensor) -> tf.Tensor:
    for mean, variance in layer.statistics:
        mean.assign(tf.zeros_like(mean))
        variance.assign(tf.ones_like(variance))
    return layer(x)


def test_weight_update_moves_weights_only() -> None:
    model = _model()
    before, weights = _values(_logits(model)), _values(model.supernet.trainable_variables)
    model.update_weights(*_batch(0))
    assert not _moved(before, _logits(model))
    assert _moved(weights, model.supernet.trainable_variables)


def test_architecture_update_moves_the_architecture_only() -> None:
    model = _model()
    before, logits = _values(model.supernet.variables), _values(_logits(model))
    model.update_strategy(_batch(0), _batch(1))
    assert not _moved(before, model.supernet.variables)
    assert len(_moved(logits, _logits(model))) == 2


def test_a_step_is_the_same_to_the_last_bit_however_its_threads_fall() -> None:
    # With skip_connect everywhere the terms of all sums share their memory with other tensors: layers.add.
    model = _model(SPACE)
    skip = SPACE.operations.index("skip_connect")
    for logits in _logits(model):
        logits.assign(1e6 * np.tile(np.arange(len(SPACE.operations)) == skip, (SPACE.edge_count, 1)))
    variables = [*model.supernet.trainable_variables, *model.optimizer.variables]
    start = [variable.numpy() for variable in variables]
    update = tf.function(model.update_weights, autograph=False)
    ends = []
    with graphs_as_written():
        for _ in range(12):
            for variable, value in zip(variables, start, strict=True):
                variable.assign(value)
            update(*_batch(0))
            ends.append([variable.numpy() for variable in variables])
    for end in ends:
        for found, expected in zip(end, ends[0], strict=True):
            np.testing.assert_array_equal(found, expected)


def test_every_case_comes_after_the_reference_variable() -> None:
    """Without it TensorFlow unpacks all branches of every edge before the first step."""
    model = _model()
    step = tf.function(lambda: model.train_step((_batch(0), _batch(1))), autograph=False)
    operations = step.get_concrete_function().graph.get_operations()
    after: set[str] = set()
    for operation in operations:  # in an order in which inputs come first
        before = [*(tensor.op for tensor in operation.inputs), *operation.control_inputs]
        if operation.type == "VariableV2" or any(other.name in after for other in before):
            after.add(operation.name)
    cases = [operation.name for operation in operations if operation.type == "StatelessCase"]
    # Forward and backward, for the weights and for the architecture.
    cells = len(model.supernet.cells)
    assert len(cases) == 4 * cells * len(model.supernet.space.edges)
    assert after.issuperset(cases)


def _sample(model: SearchModel, number: int) -> tuple:
    return model.strategy.sample(tf.convert_to_tensor(model.step.value), number)


def _sample_of_each_cell(model: SearchModel, number: int) -> list[Sampled]:
    drawn = {}
    for reduction, samples in zip((False, True), _sample(model, number), strict=True):
        count = model.supernet.searched_cells(reduction)
        drawn[reduction] = iter([samples] * count if isinstance(samples, Sampled) else samples)
    return [next(drawn[cell.reduction]) for cell in model.supernet.cells]


def test_every_cell_may_run_a_sample_of_its_own() -> None:
    shared, own = (
        [tuple(drawn.index.numpy()) for drawn in _sample_of_each_cell(_model(sample_per=per), 0)]
        for per in ("kind", "cell")
    )
    assert shared[::2] == [shared[0]] * 3
    assert shared[1::2] == [shared[1]] * 2
    assert len(set(own)) == len(own) == 5


@pytest.mark.parametrize("sample_per", ["kind", "cell"])
def test_what_was_not_sampled_does_not_move(sample_per: str) -> None:
    model = _model(sample_per=sample_per)
    for step in range(3):  # so that there is momentum
        model.train_step((_batch(step), _batch(step + 10)))
    velocities = model.optimizer.velocities
    weights = model.supernet.trainable_variables
    mixed = [layer for cell in model.supernet.cells for layer in cell.mixed]
    before = [(layer.kernels.numpy(), layer.statistics.numpy()) for layer in mixed]
    momenta = [velocities[[w.path for w in weights].index(layer.kernels.path)].numpy() for layer in mixed]
    samples = _sample_of_each_cell(model, 0)
    model.update_weights(*_batch(5))
    position = 0
    for cell, drawn in zip(model.supernet.cells, samples, strict=True):
        index = drawn.index.numpy()
        for layer, (_, edges) in zip(cell.mixed, cell.groups, strict=True):
            kernels, statistics = before[position]
            sampled = layer.weight_mask(tf.constant(index[edges])).numpy()
            velocity = velocities[[w.path for w in weights].index(layer.kernels.path)].numpy()
            moved = layer.kernels.numpy() != kernels
            assert not moved[~sampled].any()
            assert (velocity == momenta[position])[~sampled].all()
            if sampled.any():
                assert moved[sampled].any()
            kept = ~layer.segments.statistic_mask(tf.constant(index[edges])).numpy()
            assert (layer.statistics.numpy() == statistics)[kept].all()
            if not kept.all():
                assert (layer.statistics.numpy() != statistics)[~kept].any()
            position += 1


def test_whole_supernet_descends_along_its_gradient() -> None:
    model = _model()
    x, y = _batch(3)
    edges = len(model.supernet.space.edges)
    index = tf.constant([2, 4, 6, 3, 5][:edges])
    fixed = Sampled(index, tf.zeros((edges, 8)), tf.ones(edges))
    kernels = model.supernet.cells[1].mixed[0].kernels

    @tf.function(autograph=False)
    def loss_and_gradient():
        with tf.GradientTape() as tape:
            logits = model.supernet(x, fixed, fixed, update="weights")
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
        return loss, tape.gradient(loss, kernels.value)

    _, gradient = loss_and_gradient()
    direction = gradient / tf.norm(gradient)
    start, step = tf.identity(kernels.value), 2e-3
    losses = []
    for sign in (1, -1):
        kernels.assign(start + sign * step * direction)
        losses.append(float(loss_and_gradient()[0]))
    slope = (losses[0] - losses[1]) / (2 * step)
    assert slope == pytest.approx(float(tf.norm(gradient)), rel=0.05)


def test_decayed_weights_move_as_in_pytorch_1() -> None:
    """What was not sampled moves by momentum and weight decay, with a gradient of zero."""
    model = _model(unsampled="decayed")
    model.train_step((_batch(0), _batch(10)))  # so that there is momentum
    weights, velocities = model.supernet.trainable_variables, model.optimizer.velocities
    before = [(w.numpy(), v.numpy()) for w, v in zip(weights, velocities, strict=True)]
    masks = model.supernet.weight_masks(*_sample(model, 0))
    model.update_weights(*_batch(5))
    unsampled = 0
    for weight, velocity, (start, moved), mask in zip(weights, velocities, before, masks, strict=True):
        if mask is None:
            continue
        g = 3e-4 * start
        moved = 0.9 * moved + g
        rest = ~mask.numpy()
        expected = start - 0.1 * (g + 0.9 * moved)
        np.testing.assert_allclose(velocity.numpy()[rest], moved[rest], rtol=1e-5, atol=1e-9)
        np.testing.assert_allclose(weight.numpy()[rest], expected[rest], rtol=1e-5, atol=1e-7)
        assert (weight.numpy()[rest] != start[rest]).any()
        unsampled += rest.sum()
    assert unsampled


def test_only_masks_leave_unsampled_weights_alone() -> None:
    supernet = Supernet(SearchSpace(nodes=2), classes=3, channels=4, cells=1)
    scaled = keras.optimizers.LossScaleOptimizer(SGD())
    for other in (keras.optimizers.Adam(), FlatSGD(), scaled):
        with pytest.raises(
            UsageError, match=f"found {type(other).__name__}.*accepted is gdas_tf.optimizers.torch_sgd.SGD"
        ):
            SearchModel(supernet, GDAS()).compile(other)
    SearchModel(supernet, GDAS()).compile(MaskedLossScale(SGD()))
    SearchModel(supernet, GDAS(), unsampled="decayed").compile(keras.optimizers.Adam())
    with pytest.raises(UsageError, match="unsampled is 'other'; accepted are"):
        SearchModel(supernet, GDAS(), unsampled="other")
    for option in ("sample_per", "sampler"):
        with pytest.raises(UsageError, match=f"{option} is 'other'; accepted are"):
            GDAS(**{option: "other"})


@pytest.mark.parametrize("nesterov", [True, False])
def test_sgd_is_pytorchs(nesterov: bool) -> None:
    """Steps of torch.optim.SGD(lr=0.1, momentum=0.9, weight_decay=0.01), worked by hand."""
    variable = keras.Variable([1.0, -2.0])
    optimizer = SGD(0.1, momentum=0.9, decay=0.01, clip_norm=None, nesterov=nesterov)
    optimizer.build([variable])
    weight, velocity = np.array([1.0, -2.0]), np.zeros(2)
    for gradient in ([0.5, 0.1], [-0.2, 0.3], [0.0, 0.0]):
        optimizer.apply([tf.constant(gradient)], [variable])
        g = np.array(gradient) + 0.01 * weight
        velocity = 0.9 * velocity + g
        weight = weight - 0.1 * (g + 0.9 * velocity if nesterov else velocity)
    np.testing.assert_allclose(variable.numpy(), weight, rtol=1e-6)


@pytest.mark.parametrize("scaled", [False, True])
def test_sgd_leaves_alone_what_masks_leave_out(scaled: bool) -> None:
    variables = [keras.Variable([1.0, 2.0]), keras.Variable([3.0]), keras.Variable([4.0])]
    optimizer = SGD(0.1, momentum=0.9, decay=0.01)
    whole = MaskedLossScale(optimizer, initial_scale=8.0) if scaled else optimizer
    whole.build(variables)
    gradients = [tf.constant([4.0, 4.0]), tf.constant([4.0]), None]

    @tf.function
    def step(mask):
        whole.apply(gradients, variables, masks=[mask, None, None])

    step(tf.constant([True, False]))
    starts = ([1, 2], [3], [4])
    moved = [variable.numpy() != start for variable, start in zip(variables, starts, strict=True)]
    assert [list(one) for one in moved] == [[True, False], [True], [False]]
    np.testing.assert_array_equal(optimizer.velocities[0].numpy() != 0, [True, False])
    assert int(whole.iterations) == 1
    # The masks are those of this step alone.
    whole.apply(gradients, variables)
    assert variables[0].numpy()[1] != 2
    with pytest.raises(UsageError, match="SGD: found 1 masks of 3 variables"):
        whole.apply(gradients, variables, masks=[None])


def test_masked_loss_scale_is_keras_own() -> None:
    """Scale, counter and weights, over steps with and without a gradient that is not finite."""
    ends = []
    for kind in (keras.optimizers.LossScaleOptimizer, MaskedLossScale):
        variable = keras.Variable([1.0, -2.0])
        optimizer = kind(SGD(0.1), initial_scale=8.0, dynamic_growth_steps=2)
        optimizer = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
        assert type(optimizer) is kind
        optimizer.build([variable])
        states = []
        for gradient in (3.0, 5.0, float("inf"), 1.0, 2.0):
            optimizer.apply([tf.constant([gradient, -1.0])], [variable])
            states.append([v.numpy() for v in (variable, optimizer.dynamic_scale, optimizer.step_counter)])
        ends.append(states)
    assert [float(state[1]) for state in ends[1]] == [8, 16, 8, 8, 16]
    for found, expected in zip(*ends, strict=True):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("make", [SGD, FlatSGD, lambda: MaskedLossScale(SGD())], ids=["sgd", "flat", "scale"])
def test_replicas_that_share_variables_are_refused(make) -> None:
    variable, optimizer = keras.Variable([1.0]), make()
    optimizer.build([variable])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(tf.distribute.get_strategy()), "num_replicas_in_sync", 2)
        with pytest.raises(UsageError, match="found 2 replicas that share variables"):
            optimizer.apply([tf.constant([1.0])], [variable])


@pytest.mark.parametrize("clip_norm", [None, 0])
def test_sgd_without_clipping(clip_norm: float | None) -> None:
    variable = keras.Variable([0.0])
    optimizer = SGD.from_config(SGD(1.0, 0.0, 0.0, clip_norm, nesterov=False).get_config())
    assert not optimizer.nesterov
    optimizer.build([variable])
    optimizer.apply([tf.constant([30.0])], [variable])
    np.testing.assert_allclose(variable.numpy(), [-30.0])


@pytest.mark.parametrize(
    "argument", [{"weight_decay": 0.1}, {"use_ema": True}, {"clipnorm": 1.0}, {"other": 1}]
)
def test_sgd_refuses_what_it_does_not_honour(argument: dict) -> None:
    (name,) = argument
    with pytest.raises(UsageError, match=f"SGD: found {name}=.*accepted are learning_rate, momentum, decay"):
        SGD(0.1, **argument)


def test_learning_rate_falls_by_step_or_by_epoch() -> None:
    by_step, by_epoch = (cosine_schedule(0.1, 0.01, 4, 5, every) for every in ("step", "epoch"))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(by_epoch))

    def expected(time: float) -> float:
        return 0.01 + (0.1 - 0.01) * (1 + np.cos(np.pi * time)) / 2

    for step in range(20):
        assert float(by_step(step)) == pytest.approx(expected(step / 20), rel=1e-5)
        for schedule in (by_epoch, again):
            assert float(schedule(tf.constant(step))) == pytest.approx(expected(step // 5 / 4), rel=1e-5)


def test_sgd_clips_and_serializes() -> None:
    variable = keras.Variable([0.0, 0.0])
    optimizer = SGD.from_config(SGD(1.0, momentum=0.0, decay=0.0, clip_norm=5.0).get_config())
    optimizer.build([variable])
    optimizer.apply([tf.constant([30.0, 40.0])], [variable])
    np.testing.assert_allclose(variable.numpy(), [-3.0, -4.0], rtol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param(
            {"search__reduction": "fixed", "search__sampler": "direct", "search__channels": 8},
            marks=pytest.mark.slow,
        ),
        pytest.param({"search__operations": "gdas-12", "search__macro": "official"}, marks=pytest.mark.slow),
        pytest.param({"search__precision": "mixed_bfloat16"}, marks=pytest.mark.slow),
        {"search__precision": "mixed_float16"},
        pytest.param(
            {
                "search__pool_norm": True,
                "search__unsampled": "decayed",
                "search__nesterov": False,
                "search__weight_schedule": "epoch",
                "search__sample_per": "cell",
                "search__clip_norm": 0,
                "search__weight_learning_rate": 0.03,
            },
            marks=pytest.mark.slow,
        ),
    ],
    ids=["gumbel", "fixed-direct", "gdas-12", "bfloat16", "float16", "2019"],
)
def test_search_learns(tmp_path: Path, changes: dict) -> None:
    config = _config(search__epochs=6, **changes)
    run = Run.create(tmp_path / "run", config)
    logits = search(config, _data(), run)
    lines = run.metrics("search")
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert lines[0]["temperature"] == pytest.approx(10)
    assert lines[-1]["temperature"] == pytest.approx(0.1)
    assert set(logits) == ({"normal"} if "search__reduction" in changes else {"normal", "reduction"})
    assert logits["normal"].shape == (7, 5, len(config.space.operations))
    assert not np.array_equal(logits["normal"][0], logits["normal"][-1])


@pytest.mark.slow
def test_branches_compiled_with_xla_give_the_same_step() -> None:
    losses = []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(3)
        model = _model(SearchSpace.named("gdas-4", nodes=1), jit_compile=jit_compile)
        step = tf.function(model.train_step, autograph=False)
        for number in range(2):
            result = step((_batch(number), _batch(number + 10)))
        losses.append([float(result["loss"]), float(result["architecture_loss"])])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)


class _Dies(keras.callbacks.Callback):
    def __init__(self, epoch: int, batch: int) -> None:
        super().__init__()
        self.at, self.epoch = (epoch, batch), 0

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self.epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
        if (self.epoch, batch) == self.at:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[str, np.ndarray]]:
    """A search that was never stopped, and its arrays."""
    run = Run.create(tmp_path_factory.mktemp("whole") / "run", _config())
    return run, search(run.config, _data(), run)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A small search that was stopped after the first of its three epochs."""
    run = Run.create(tmp_path_factory.mktemp("stopped") / "run", _config(**SMALL))
    with pytest.raises(KeyboardInterrupt):
        search(run.config, _data(), run, callbacks=[_Dies(1, 0)])
    return run


def _copy(run: Run, folder: Path) -> Run:
    shutil.copytree(run.path, folder / "copy")
    return Run.open(folder / "copy")


def test_resumed_search_is_the_uninterrupted_one(
    tmp_path: Path, whole: tuple[Run, dict[str, np.ndarray]]
) -> None:
    config, data = _config(), _data()
    broken = Run.create(tmp_path / "broken", config)
    whole, expected = whole
    with pytest.raises(KeyboardInterrupt):
        search(config, data, broken, callbacks=[_Dies(2, 1)])
    # As if killed after the metrics of an epoch were written, but before its checkpoint.
    broken.append_metrics("search", {"epoch": 3, "loss": 9.0})
    found = search(config, data, broken, resume=True)
    for kind, values in expected.items():
        np.testing.assert_array_equal(found[kind], values)
    weights, resumed = (run.load_checkpoint("search")[0] for run in (whole, broken))
    assert all(np.array_equal(weights[name], resumed[name]) for name in weights)
    drop = [{k: v for k, v in line.items() if k != "seconds"} for line in whole.metrics("search")]
    assert drop == [{k: v for k, v in line.items() if k != "seconds"} for line in broken.metrics("search")]


class _Counter(GDAS):
    """Has state that is no variable, and chooses by the images of D_V."""

    def __init__(self) -> None:
        super().__init__(learning_rate=0.02)
        self.seen = np.zeros(2, np.int64)

    @classmethod
    def from_config(cls, config: Config) -> _Counter:
        return cls()

    def end_epoch(self, search, epoch, epochs, validation) -> None:
        images = [(x.numpy(), y.numpy()) for x, y in validation()]
        assert epochs == 3 and {x.shape for x, _ in images} == {(8, 8, 8, 3)}
        again = [x.numpy() for x, _ in validation()]
        assert all(np.array_equal(x, other) for (x, _), other in zip(images, again, strict=True))
        loss = [float(cross_entropy(y, search.supernet(x, *self.chosen(), update=None))) for x, y in images]
        self.seen = self.seen + [len(images), round(1e6 * sum(loss))]

    def values(self) -> dict[str, float]:
        return {"seen": float(self.seen[0])}

    def arrays(self) -> dict[str, np.ndarray]:
        return {**super().arrays(), "seen": self.seen}

    def extra_state(self) -> dict[str, np.ndarray]:
        return {"seen": self.seen}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self.seen = state["seen"]


@pytest.mark.slow
def test_a_strategy_keeps_its_own_state_and_sees_all_of_d_v(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(STRATEGIES._items, "gdas", _Counter)
    config, data = _config(**SMALL), _data()
    whole, broken = Run.create(tmp_path / "whole", config), Run.create(tmp_path / "broken", config)
    expected = search(config, data, whole)
    with pytest.raises(KeyboardInterrupt):
        search(config, data, broken, callbacks=[_Dies(2, 1)])
    found = search(config, data, broken, resume=True)
    assert [line["seen"] for line in broken.metrics("search")] == [3, 6, 9]  # half of 48 images, by 8
    assert expected["seen"].shape == (4, 2) and (np.diff(expected["seen"], axis=0) > 0).all()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def test_resuming_a_finished_search_changes_nothing(
    tmp_path: Path, whole: tuple[Run, dict[str, np.ndarray]]
) -> None:
    run = _copy(whole[0], tmp_path)
    again = search(run.config, _data(), run, resume=True)
    for name, values in whole[1].items():
        np.testing.assert_array_equal(again[name], values)
    assert run.metrics("search") == whole[0].metrics("search")


def test_damaged_logits_are_named(tmp_path: Path, stopped: Run) -> None:
    run = _copy(stopped, tmp_path)
    run.file("search/logits.npz").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="logits.npz are damaged: .* no archive of arrays; remove"):
        search(run.config, _data(), run, resume=True)


def test_divergence_is_reported(tmp_path: Path) -> None:
    class Spoil(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            stem = self.model.supernet.stem.kernels[0]
            stem.assign(tf.fill(stem.shape, float("nan")))

    config = _config(**SMALL)
    run = Run.create(tmp_path / "run", config)
    with pytest.raises(RunError, match="diverged.*weight_learning_rate"):
        search(config, _data(), run, callbacks=[Spoil()])


def test_search_model_predicts_by_its_most_probable_cell() -> None:
    model = build_search_model(_config(), _data())
    model.compile(SGD(0.1))
    model.build((8, 8, 8, 3))
    outputs = model(_batch(0)[0])
    assert outputs.shape == (8, 3)
    assert bool(tf.reduce_all(tf.math.is_finite(outputs)))


def test_metrics_are_plain_json(whole: tuple[Run, dict[str, np.ndarray]]) -> None:
    lines = whole[0].file("search/metrics.jsonl").read_text().splitlines()
    assert len(lines) == 3
    assert set(json.loads(lines[0])) == {
        "epoch",
        "temperature",
        "loss",
        "accuracy",
        "architecture_loss",
        "architecture_accuracy",
        "normal_entropy",
        "reduction_entropy",
        "seconds",
    }


def test_a_search_that_an_older_version_began_is_refused(tmp_path: Path, stopped: Run) -> None:
    """Its supernet saw other pixels at stride 2. What it finished stays."""
    run, data = _copy(stopped, tmp_path), _data()
    config = run.config
    path = run.file("search/checkpoint.npz")
    with np.load(path) as file:
        arrays = dict(file)
    about = json.loads(str(arrays["about.json"]))
    assert about.pop("version") == gdas_tf.__version__
    del about["arithmetic"]  # as version 0.1.0 wrote it
    np.savez(path, **{**arrays, "about.json": np.array(json.dumps(about))})
    before = {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}
    said = f"search was begun by gdas-tf 0.1.0.* those of {gdas_tf.__version__} .*finish it by gdas-tf 0.1.0"
    with pytest.raises(UsageError, match=said):
        run.check_version("search")
    with pytest.raises(UsageError, match=said):
        search(config, data, run, resume=True)
    assert before == {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}
    for epoch in (2, 3):
        run.append_metrics("search", {"epoch": epoch, "loss": 1.0})  # as if it had been finished
    run.check_version("search")
    assert run.load_checkpoint("search")[1] == 1


def test_class_weights_reach_both_updates() -> None:
    """Weights that leave one class alone: labels of the others change nothing."""
    from gdas_tf.data.balance import Balance

    images = tf.random.stateless_uniform((8, 8, 8, 3), [1, 2])
    outcomes = []
    keras.utils.set_random_seed(1)
    weights = _model().supernet.get_weights()
    for second in (1, 2):  # classes without weight
        model = _model()
        model.supernet.set_weights(weights)
        model.balance = Balance(of_batches=(1.0, 0.0, 0.0))
        labels = tf.constant([0, second] * 4)
        model.train_step(((images, labels), (images, labels)))
        found = [weight.numpy() for weight in model.supernet.trainable_variables]
        outcomes.append([*found, *(logits.numpy() for logits in model.strategy.variables)])
    for one, other in zip(*outcomes, strict=True):
        np.testing.assert_array_equal(one, other)

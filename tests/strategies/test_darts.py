"""DARTS: the mixture, both orders of its gradient, and whole searches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from strategy_searches import Dies, images, settings

from gdas_tf.cli.main import main
from gdas_tf.errors import UsageError
from gdas_tf.numerics import primitives
from gdas_tf.numerics.losses import cross_entropy
from gdas_tf.optimizers.loss_scale import MaskedLossScale
from gdas_tf.optimizers.torch_sgd import SGD
from gdas_tf.runs.run import Run
from gdas_tf.spaces.base import SearchSpace
from gdas_tf.strategies.base import STRATEGIES
from gdas_tf.strategies.darts import DARTS
from gdas_tf.supernet import branches, network, reduction, reference
from gdas_tf.supernet.network import Supernet
from gdas_tf.training.search import search
from gdas_tf.training.search_model import SearchModel

OPERATIONS = ("none", "skip_connect", "conv_1x1", "avg_pool_3x3")
SPACES = {
    "darts": SearchSpace(OPERATIONS, 2),
    "all edges": SearchSpace(
        OPERATIONS, 2, name="mine", inputs=1, keep="all", output="last", reduction=False
    ),
}
TINY = {"search.nodes": 1, "search.macro": "autodl"}
"""Three cells of two edges."""
RATE, MOMENTUM, DECAY = 0.05, 0.9, 3e-4


def _model(
    order: str, space: SearchSpace = SPACES["darts"], fixed: bool = False, **options: object
) -> SearchModel:
    keras.utils.set_random_seed(2)
    supernet = Supernet(space, 3, channels=2, cells=1, fixed_reduction=fixed)
    model = SearchModel(supernet, DARTS(order, weight_decay=0.0, **options), seed=1)
    model.compile(SGD(RATE, MOMENTUM, DECAY))
    model.build((4, 8, 8, 3))
    # Plain descent of rate 1: what the logits move by is the gradient.
    model.strategy.optimizer = keras.optimizers.SGD(1.0)
    for number, logits in enumerate(model.strategy.logits.values()):
        logits.assign(tf.random.stateless_normal(logits.shape, [number, 7]))
    return model


def _batch(seed: int) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.random.stateless_uniform((4, 8, 8, 3), [seed, 0]), tf.constant([0, 1, 2, 1])


def _learned(model: SearchModel) -> list[np.ndarray]:
    """What the logits move by when they learn of batch 1 of D_V, and of batch 0 of D_T."""
    before = [logits.numpy() for logits in model.strategy.architecture]
    model.strategy.learn(model, tf.constant(0, tf.int64), _batch(0), _batch(1))
    return [old - logits.numpy() for old, logits in zip(before, model.strategy.architecture, strict=True)]


def _plain_loss(
    model: SearchModel, batch: tuple[tf.Tensor, tf.Tensor], weights: list[tf.Tensor] | None = None
) -> tf.Tensor:
    """The loss in float64, by the plain supernet, perhaps with other weights."""
    x, y = batch
    variables = model.supernet.trainable_variables
    with keras.StatelessScope(state_mapping=list(zip(variables, weights or (), strict=False))):
        outputs = reference.logits(model.supernet, x, *model.strategy.paths(tf.constant(0, tf.int64)))
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, outputs))


@pytest.mark.parametrize("fixed", [False, True], ids=["searched", "fixed"])
@pytest.mark.parametrize("space", SPACES)
def test_the_first_order_is_the_gradient_of_the_loss_on_d_v(space: str, fixed: bool) -> None:
    model = _model("first", SPACES[space], fixed)
    sources = [logits.value for logits in model.strategy.architecture]
    assert len(sources) == (1 if fixed or space == "all edges" else 2)
    with tf.GradientTape() as tape:
        loss = _plain_loss(model, _batch(1))
    for found, expected in zip(_learned(model), tape.gradient(loss, sources), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5 * float(tf.reduce_max(tf.abs(expected))) + 1e-7)


def _stepped(model: SearchModel, weights: list[tf.Tensor], slopes: list[tf.Tensor]) -> list[tf.Tensor]:
    momenta = model.optimizer.velocities
    return [
        w - RATE * (MOMENTUM * v + slope + DECAY * w)
        for w, v, slope in zip(weights, momenta, slopes, strict=True)
    ]


@pytest.fixture
def smooth(monkeypatch) -> Iterator[None]:
    """A supernet without kinks, whose edges are traced anew, and not kept."""
    for place in (network, reduction, primitives):
        monkeypatch.setattr(place, "relu", tf.nn.softplus)
    branches.mixture.cache_clear()
    yield
    branches.mixture.cache_clear()


def _moments(x: tf.Tensor, axes: list[int]) -> tuple[tf.Tensor, tf.Tensor]:
    """As `tf.nn.moments`, which stops the gradient of the mean and so has a wrong second derivative."""
    mean = tf.reduce_mean(x, axes, keepdims=True)
    return tf.reduce_mean(x, axes), tf.reduce_mean(tf.square(x - mean), axes)


def _with_momentum(fixed: bool = True) -> tuple[SearchModel, list[tf.Tensor], list[tf.Tensor]]:
    model = _model("second", fixed=fixed)
    for step in range(2):
        model.update_weights(*_batch(step + 5))
    weights = [tf.identity(variable.value) for variable in model.supernet.trainable_variables]
    return model, weights, [logits.value for logits in model.strategy.architecture]


def test_the_second_order_is_that_of_the_authors() -> None:
    """`architect.py`, line for line, of the plain supernet."""
    model, weights, logits = _with_momentum()

    def gradients(batch: tuple[tf.Tensor, tf.Tensor], at: list[tf.Tensor]) -> dict[str, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            tape.watch(at)
            loss = _plain_loss(model, batch, at)
        return tape.gradient(loss, {"logits": logits, "weights": at})

    unrolled = _stepped(model, weights, gradients(_batch(0), weights)["weights"])
    on_d_v = gradients(_batch(1), unrolled)
    vector = on_d_v["weights"]
    length = 0.01 / tf.linalg.global_norm(vector)
    above, below = (
        gradients(_batch(0), [w + sign * length * g for w, g in zip(weights, vector, strict=True)])["logits"]
        for sign in (1.0, -1.0)
    )
    found = _learned(model)
    for one, direct, more, less in zip(found, on_d_v["logits"], above, below, strict=True):
        implicit = RATE * (more - less) / (2 * length)
        assert float(tf.norm(implicit)) > 0.1 * float(tf.norm(direct))  # the second term counts
        np.testing.assert_allclose(one, direct - implicit, atol=1e-3 * float(tf.reduce_max(abs(direct))))


@pytest.mark.usefixtures("smooth")
def test_the_second_order_is_the_gradient_through_one_step_of_the_weights(monkeypatch) -> None:
    """Held against automatic differentiation of L_V(w'(a), a) through w', of a supernet without kinks."""
    monkeypatch.setattr(tf.nn, "relu", tf.nn.softplus)  # of the plain one
    monkeypatch.setattr(tf.nn, "moments", _moments)
    model, weights, logits = _with_momentum(fixed=False)  # the fixed cell has a maximum
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            inner.watch(weights)
            loss = _plain_loss(model, _batch(0), weights)
        unrolled = _stepped(model, weights, inner.gradient(loss, weights))
        on_d_v = _plain_loss(model, _batch(1), unrolled)
    exact = outer.gradient(on_d_v, logits)
    found = _learned(model)
    model.strategy.order = "first"
    short = _learned(model)
    for one, other, first in zip(found, exact, short, strict=True):
        length = float(tf.norm(other))
        assert np.linalg.norm(one - other) < 0.005 * length
        assert np.linalg.norm(first - other) > 0.1 * length


@pytest.mark.parametrize("order", ["first", pytest.param("second", marks=pytest.mark.slow)])
def test_learning_leaves_weights_momenta_and_statistics_alone(order: str) -> None:
    model = _model(order)
    model.update_weights(*_batch(5))
    state = [*model.supernet.variables, *model.optimizer.variables]
    before = [variable.numpy() for variable in state]
    step = tf.function(lambda: model.strategy.learn(model, tf.constant(0, tf.int64), _batch(0), _batch(1)))
    moved = [logits.numpy() for logits in model.strategy.architecture]
    result = step()
    for variable, old in zip(state, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), old)
    assert all((a != b.numpy()).any() for a, b in zip(moved, model.strategy.architecture, strict=True))
    assert result["architecture_accuracy"].shape == (4,) and float(result["architecture_loss"]) > 0


def test_all_weights_learn_in_every_step() -> None:
    model = _model("first")
    paths = model.strategy.paths(tf.constant(0, tf.int64))
    np.testing.assert_allclose(
        paths[0].weights, tf.nn.softmax(model.strategy.logits["normal"].value), rtol=1e-6
    )
    kernels = [mixed.kernels for cell in model.supernet.cells for mixed in cell.mixed]
    before = [kernel.numpy() for kernel in kernels]
    model.update_weights(*_batch(0))
    for kernel, old in zip(kernels, before, strict=True):
        assert (kernel.numpy() != old).mean() > 0.9


def test_none_that_is_excluded_has_no_weight() -> None:
    model = _model("first", none="excluded")
    weights = model.strategy.paths(tf.constant(0, tf.int64))[0].weights.numpy()
    np.testing.assert_array_equal(weights[:, 0], 0.0)
    np.testing.assert_allclose(weights.sum(1), 1.0, rtol=1e-6)
    assert not np.stack(_learned(model))[..., 0].any()


def test_the_second_order_needs_a_step_that_it_knows() -> None:
    model = _model("second")
    model.unsampled = "decayed"
    model.compile(keras.optimizers.Adam())
    with pytest.raises(UsageError, match="weight optimizer: found Adam, whose step .* accepted is gdas_tf"):
        _learned(model)


@pytest.mark.slow
@pytest.mark.usefixtures("smooth")
@pytest.mark.parametrize("order", ["first", "second"])
def test_half_precision(order: str) -> None:
    """The loss is scaled there, and what is learned is not."""
    model = _model(order, fixed=False)
    start = [logits.numpy() for logits in model.strategy.architecture]
    expected = _learned(model)
    keras.utils.set_random_seed(2)
    supernet = Supernet(SPACES["darts"], 3, channels=2, cells=1, dtype="mixed_float16")
    half = SearchModel(supernet, DARTS(order, weight_decay=0.0), seed=1)
    half.compile(MaskedLossScale(SGD(RATE, MOMENTUM, DECAY), initial_scale=1024.0))
    half.build((4, 8, 8, 3))
    for logits, values in zip(half.strategy.architecture, start, strict=True):
        logits.assign(values)
    half.strategy.optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(1.0), initial_scale=1024.0
    )
    half.strategy.optimizer.build(half.strategy.architecture)
    found = _learned(half)
    for one, other in zip(found, expected, strict=True):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.9
        assert 0.8 < np.linalg.norm(one) / np.linalg.norm(other) < 1.25


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"darts.order": "first", "search.reduction": "fixed"},
        {"darts.order": "second", "search.warm_up": 1, "search.none": "excluded"},
    ],
    ids=["first, fixed reduction", "second, warm-up"],
)
def test_a_resumed_search_ends_in_the_same_bits(changes: dict[str, object], tmp_path: Path) -> None:
    config = settings({"search.strategy": "darts", **TINY, **changes})
    whole, broken = Run.create(tmp_path / "whole", config), Run.create(tmp_path / "broken", config)
    expected = search(config, images(), whole)
    with pytest.raises(KeyboardInterrupt):
        search(config, images(), broken, callbacks=[Dies(2)])
    found = search(config, images(), broken, resume=True)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
        assert (values[1] != values[2]).any()
    first, _, last = broken.metrics("search")
    assert "temperature" not in last and last["normal_entropy"] < np.log(4) + 1e-5
    if "search.warm_up" in changes:
        np.testing.assert_array_equal(found["normal"][0], found["normal"][1])
        assert first["warm_up"] == 1.0 and first["architecture_loss"] is None


def test_the_loss_on_d_v_falls(tmp_path: Path) -> None:
    config = settings({"search.strategy": "darts", "search.epochs": 6, **TINY})
    search(config, images(), Run.create(tmp_path / "run", config))
    losses = [line["architecture_loss"] for line in Run.open(tmp_path / "run").metrics("search")]
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_from_the_command_line_to_a_verified_onnx_file(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 255, (48, 8, 8, 1), np.uint8)
    np.savez("noise.npz", images=pixels, labels=np.arange(48) % 3)
    tiny = "--search-epochs 2 --search-channels 2 --search-nodes 1 --search-batch-size 8 --retrain-epochs 1"
    tiny += " --search-macro autodl"
    tiny += " --search-operations none,skip_connect,conv_3x3 --retrain-channels 4 --export-formats onnx"
    tiny += " --benchmark-seconds 0.02 --benchmark-rounds 1 --data noise.npz --search-strategy darts"
    assert main(["run", "run", *tiny.split(), "--darts-order", "second", "--json"]) == 0
    formats = json.loads(Path("run/export/verification.json").read_text())["formats"]
    assert Path("run/export/model.onnx").exists() and "onnx" in formats
    assert Path("run/pictures/search.png").stat().st_size > 10_000
    assert STRATEGIES.get("darts").section.model_fields.keys() == {"order"}


def test_cross_entropy_of_the_mixture_is_that_of_the_plain_supernet() -> None:
    model = _model("first")
    x, y = _batch(1)
    found = cross_entropy(y, model.supernet(x, *model.strategy.chosen(), update="architecture"))
    assert float(found) == pytest.approx(float(_plain_loss(model, (x, y))), rel=1e-5)

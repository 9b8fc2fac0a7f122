"""The engine against the plain supernet (`gdas_tf.supernet.reference`): loss, and gradient of everything."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from gdas_tf.numerics import primitives
from gdas_tf.operations.base import Backward
from gdas_tf.spaces.base import SPACES, SearchSpace
from gdas_tf.spaces.macro import CellPlan
from gdas_tf.supernet import branches, cells, layers, mixed, reduction, reference
from gdas_tf.supernet.network import Supernet
from gdas_tf.supernet.paths import Mixture, Sampled

BOUND = 1e-5
"""Largest accepted difference, as a share of the largest entry of the reference's tensor.

The engine computes in float32 and comes to 5e-6 of the reference, which computes in float64. Where a ReLU or
a maximum stands closer than that to its kink, they may fall on different sides of it, and the gradients jump
apart by 1e-3. The seeds are such that none does.
"""

SMALL = ("skip_connect", "sep_conv_3x3", "dil_conv_3x3", "avg_pool_3x3", "max_pool_3x3")
POOLS = ("max_pool_3x3", "avg_pool_3x3", "skip_connect", "conv_1x1")

ASYMMETRIC = ("conv_7x1_1x7", "skip_connect", "sep_conv_7x7", "conv_3x1_1x3")
"""Operations of NASNet, AmoebaNet and SETN, of which some have the default gradient."""

MIXED = [
    (SearchSpace(SMALL, nodes=2), (8, 8), {}),
    (SearchSpace.named("gdas-12", nodes=2), (9, 10), {}),
    (SearchSpace(POOLS, 2, name="mine", inputs=1, keep="all", output="last"), (9, 10), {"pool_norm": True}),
    (SPACES.get("nasbench201"), (8, 8), {}),
    (SearchSpace(ASYMMETRIC, nodes=2), (9, 10), {}),
]

SEEDS = (0, 8)
"""Of images and samples. Both together run every operation at both strides."""

SLOW = pytest.mark.slow


def _supernet(space: SearchSpace, size: tuple[int, int] = (8, 8), **options: Any) -> Supernet:
    keras.utils.set_random_seed(1)
    statistics = {"mean": (0.4, 0.5, 0.6), "variance": (0.04, 0.05, 0.06)}
    net = Supernet(space, classes=3, channels=4, cells=1, **statistics, **options)
    net.build((4, *size, 3))
    return net


def _indices(net: Supernet, seed: int) -> list[np.ndarray]:
    """Operations of the edges, all of them as often as they fit in."""
    generator = np.random.default_rng(seed)
    edges, count = net.space.edge_count, len(net.space.operations)
    kinds = 1 if net.fixed_reduction else 2
    return [generator.permutation(np.arange(seed, seed + edges) % count) for _ in range(kinds)]


def _differences(
    net: Supernet,
    size: tuple[int, int],
    seed: int,
    updates: Sequence[str],
    per_cell: bool = False,
    mixture: bool = False,
) -> dict[str, float]:
    """By name the differences of the loss and of every gradient, each a share of the reference's largest
    entry."""
    images = tf.random.stateless_uniform((4, *size, 3), [seed, 0])
    labels = tf.constant([0, 1, 2, 1])
    indices = _indices(net, seed)
    if per_cell:
        counts = [net.searched_cells(kind) for kind in (False, True)][: len(indices)]
        indices = [np.roll(index, i) for index, n in zip(indices, counts, strict=True) for i in range(n)]
    gates = [tf.ones(len(index)) for index in indices]
    samples: list[Any] = [
        Sampled(tf.constant(index, tf.int32), tf.zeros((len(index), 1)), gate)
        for index, gate in zip(indices, gates, strict=True)
    ]
    if mixture:
        shape = (net.space.edge_count, len(net.space.operations))
        gates = [tf.nn.softmax(tf.random.stateless_normal(shape, [seed, i])) for i in range(len(indices))]
        samples = [Mixture(gate) for gate in gates]
    if per_cell:
        samples = [samples[: counts[0]], samples[counts[0] :]]
    weights = net.trainable_variables
    names = [f"{number}: {weight.path}" for number, weight in enumerate(weights)]
    of = {
        "weights": dict(zip(names, (weight.value for weight in weights), strict=True)),
        "architecture": {f"gate {kind}": gate for kind, gate in enumerate(gates)},
    }

    def gradients(call: Callable[[], tf.Tensor], sources: dict[str, Any]) -> dict[str, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(gates)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=call())
            loss = tf.reduce_mean(losses)
        return {"loss": loss, **tape.gradient(loss, sources, unconnected_gradients="zero")}

    expected = gradients(
        lambda: reference.logits(net, images, *samples),
        {name: v for u in updates for name, v in of[u].items()},
    )
    differences = {}
    for update in updates:
        found = gradients(lambda u=update: net(images, *samples, update=u), of[update])
        for name, value in found.items():
            exact = tf.cast(expected[name], tf.float64)
            largest = tf.reduce_max(tf.abs(exact))
            difference = tf.reduce_max(tf.abs(tf.cast(value, tf.float64) - exact))
            differences[f"{update}: {name}"] = float(difference / largest if largest else difference)
    return differences


def _worst(differences: dict[str, float]) -> tuple[float, str]:
    return max((difference, name) for name, difference in differences.items())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("size", "fixed"),
    [
        ((9, 10), False),
        ((8, 8), True),
        pytest.param((8, 8), False, marks=SLOW),
        pytest.param((9, 10), True, marks=SLOW),
    ],
    ids=["9x10-searched", "8x8-fixed", "8x8-searched", "9x10-fixed"],
)
def test_loss_and_every_gradient(size: tuple[int, int], fixed: bool, seed: int) -> None:
    net = _supernet(SearchSpace.named("gdas-12"), size, fixed_reduction=fixed)
    differences = _differences(net, size, seed, ("weights", "architecture"))
    assert len(differences) == 2 + len(net.trainable_variables) + (1 if fixed else 2)
    assert _worst(differences) < (BOUND, "")


@pytest.mark.parametrize(
    "size", [pytest.param((8, 8), marks=SLOW), (9, 10)], ids=lambda size: f"{size[0]}x{size[1]}"
)
def test_batch_norm_after_pooling(size: tuple[int, int]) -> None:
    net = _supernet(SearchSpace(POOLS), size, macro="official", pool_norm=True)
    differences = _differences(net, size, 1, ("weights", "architecture"))
    assert _worst(differences) < (BOUND, "")


@pytest.mark.parametrize(
    "size", [pytest.param((8, 8), marks=SLOW), (9, 10)], ids=lambda size: f"{size[0]}x{size[1]}"
)
def test_operations_of_other_published_spaces(size: tuple[int, int]) -> None:
    differences = _differences(_supernet(SearchSpace(ASYMMETRIC), size), size, 1, ("weights", "architecture"))
    assert _worst(differences) < (BOUND, "")


def test_a_sample_for_every_cell() -> None:
    net = _supernet(SearchSpace(SMALL, nodes=2))
    differences = _differences(net, (8, 8), 1, ("weights", "architecture"), per_cell=True)
    assert len(differences) == 2 + len(net.trainable_variables) + len(net.cells)
    assert _worst(differences) < (BOUND, "")


@pytest.mark.parametrize(
    ("inputs", "output", "fixed"),
    [
        (1, "last", False),
        (2, "last", True),
        (1, "concatenation", True),
        pytest.param(1, "last", True, marks=SLOW),
        pytest.param(2, "last", False, marks=SLOW),
        pytest.param(1, "concatenation", False, marks=SLOW),
        pytest.param(2, "concatenation", False, marks=SLOW),
        pytest.param(2, "concatenation", True, marks=SLOW),
    ],
)
def test_other_cells(inputs: int, output: str, fixed: bool) -> None:
    space = SearchSpace(SMALL, 3, name="mine", inputs=inputs, output=output, reduction=not fixed)
    net = _supernet(space, (9, 10))
    assert net.fixed_reduction == fixed
    assert net.cells[0].compute_output_shape([(4, 9, 10, 12)] * inputs)[-1] == space.output_channels(4)
    differences = _differences(net, (9, 10), 1, ("weights", "architecture"))
    assert len(differences) == 2 + len(net.trainable_variables) + (1 if fixed else 2)
    assert _worst(differences) < (BOUND, "")
    assert net(tf.zeros((4, 9, 10, 3)), *_samples(net)).shape == (4, 3)


def _samples(net: Supernet) -> list[Sampled]:
    edges = net.space.edge_count
    return [Sampled(tf.zeros(edges, tf.int32), tf.zeros((edges, 1)), tf.ones(edges))] * 2


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "size", [pytest.param((8, 8), marks=SLOW), (9, 10)], ids=lambda size: f"{size[0]}x{size[1]}"
)
def test_cells_of_nasbench201(size: tuple[int, int], seed: int) -> None:
    net = _supernet(SPACES.get("nasbench201"), size)
    kinds = [cells.SearchedCell, reduction.ResidualBlock] * 2 + [cells.SearchedCell]
    assert [type(cell) for cell in net.cells] == kinds
    assert not any(cell.preprocess for cell in net.cells[::2])
    assert net.stem.filters == 4
    differences = _differences(net, size, seed, ("weights", "architecture"))
    assert len(differences) == 2 + len(net.trainable_variables) + 1
    assert _worst(differences) < (BOUND, "")
    assert net(tf.zeros((4, *size, 3)), *_samples(net)).shape == (4, 3)


@pytest.mark.parametrize(
    ("space", "size"),
    [(SearchSpace(SMALL[:3], nodes=2), (40, 34)), (SPACES.get("nasbench201"), (35, 40))],
    ids=lambda value: getattr(value, "name", None),
)
def test_stem_for_large_images(space: SearchSpace, size: tuple[int, int]) -> None:
    """The gradients of its scales and offsets are sums over thousands of pixels of terms that nearly cancel,
    for another batch norm comes after them: float32 errs by four times the bound of the cells."""
    net = _supernet(space, size, stem="imagenet")
    assert net.stem.compute_output_shape((4, 72, 72, 3)) == ((4, 18, 18, 4), (4, 9, 9, 4))
    differences = _differences(net, size, 0, ("weights", "architecture"))
    assert len(differences) == 2 + len(net.trainable_variables) + (2 if space.reduction else 1)
    assert sum("/stem/" in name for name in differences) == 9  # three kernels, scales and offsets
    assert _worst(differences) < (10 * BOUND, "")


def test_a_sample_for_every_cell_of_nasbench201() -> None:
    net = _supernet(SPACES.get("nasbench201"))
    differences = _differences(net, (8, 8), 1, ("weights", "architecture"), per_cell=True)
    assert len(differences) == 2 + len(net.trainable_variables) + 3
    assert _worst(differences) < (BOUND, "")


@pytest.mark.parametrize("inputs", [1, 2])
def test_residual_blocks_between_cells_that_preprocess(inputs: int) -> None:
    space = SearchSpace(
        SMALL, 2, name="mine", inputs=inputs, reduction=False, between="residual", stem=2, head_norm=True
    )
    net = _supernet(space, (9, 10))
    differences = _differences(net, (9, 10), 1, ("weights", "architecture"))
    assert _worst(differences) < (BOUND, "")


MIXED_SLOW = ("9x10", "asymmetric")
NAMES = ["8x8", "9x10", "one input, pool norm", "nasbench201", "asymmetric"]


@pytest.mark.parametrize(
    "case",
    [
        case if name not in MIXED_SLOW else pytest.param(case, marks=SLOW)
        for name, case in zip(NAMES, MIXED, strict=True)
    ],
    ids=NAMES,
)
def test_mixtures_of_all_operations(case: tuple[SearchSpace, tuple[int, int], dict[str, Any]]) -> None:
    space, size, options = case
    net = _supernet(space, size, **options)
    per_cell = bool(options)
    differences = _differences(net, size, 1, ("weights", "architecture"), per_cell, mixture=True)
    kinds = len(net.cells) if per_cell else 1 + (not net.fixed_reduction)
    assert len(differences) == 2 + len(net.trainable_variables) + kinds
    assert _worst(differences) < (BOUND, "")


def test_the_statistics_of_a_mixture_move_in_the_update_of_the_weights() -> None:
    net = _supernet(SearchSpace(("skip_connect", "conv_1x1", "conv_3x3"), 2))
    edges = net.space.edge_count
    images = tf.random.stateless_uniform((4, 8, 8, 3), [1, 0])
    paths = [Mixture(tf.one_hot([2] * edges, 3))] * 2
    before = [variable.numpy() for variable in net.non_trainable_variables]
    net(images, *paths, update="architecture")
    assert all(np.array_equal(v, w) for v, w in zip(before, net.non_trainable_variables, strict=True))
    trained = net(images, *paths, update="weights")
    # (The mean of a channel that is zero everywhere stays, its variance moves.)
    moved = [(v != w.numpy()).mean() for v, w in zip(before, net.non_trainable_variables, strict=True)]
    assert min(moved) >= 0.5
    # One operation of weight one is that operation sampled, in training and by the moving statistics.
    sampled = [Sampled(tf.fill([edges], 2), tf.zeros((edges, 3)), tf.ones(edges))] * 2
    np.testing.assert_allclose(trained, net(images, *sampled, update="architecture"), atol=1e-5)
    np.testing.assert_allclose(net(images, *paths), net(images, *sampled), atol=1e-5)
    assert net.weight_masks(*paths) == [None] * len(net.trainable_variables)


def test_the_macro_is_that_of_the_space() -> None:
    def three(channels: int, cells: int, macro: str) -> list[CellPlan]:
        return [CellPlan(channels, False, False)] * (3 * cells)

    space = SearchSpace(SMALL, 2, 1, name="mine", inputs=1, reduction=False, stack=three)
    net = _supernet(space)
    assert [type(cell) for cell in net.cells] == [cells.SearchedCell] * 3
    assert _worst(_differences(net, (8, 8), 1, ("weights", "architecture"))) < (BOUND, "")


@pytest.mark.parametrize("fixed", [False, True], ids=["searched", "fixed"])
def test_a_supernet_made_of_its_configuration(fixed: bool) -> None:
    space = SearchSpace(SMALL, 2, inputs=1, output="last")
    net = _supernet(space, macro="autodl", pool_norm=True, fixed_reduction=fixed)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(net)))
    copy = keras.saving.deserialize_keras_object(config)
    assert copy.get_config() == {**net.get_config(), "mean": [0.4, 0.5, 0.6], "variance": [0.04, 0.05, 0.06]}
    assert [tuple(v.shape) for v in copy.variables] == [tuple(v.shape) for v in net.variables]
    for old, new in zip(net.variables, copy.variables, strict=True):
        new.assign(old)
    images = tf.random.stateless_uniform((4, 8, 8, 3), [1, 0])
    assert np.array_equal(copy(images, *_samples(net)), net(images, *_samples(net)))


def test_the_samples_run_every_operation_at_both_strides() -> None:
    net = _supernet(SearchSpace.named("gdas-12"), (8, 8))
    (cell,) = (cell for cell in net.cells[:2] if cell.reduction)
    reduction = np.array([_indices(net, seed)[1] for seed in SEEDS])
    assert set(reduction[:, cell.groups[0][1]].flat) == set(range(12))
    assert set(np.array([_indices(net, seed)[0] for seed in SEEDS]).flat) == set(range(12))


# ---- The comparison notices when one term of the gradient is missing


def _without_input_gradient_of_one_edge(original: Any) -> Any:
    def backward(self: Any, dy: Any, x: Any, index: Any, kernels: Any, moments: Any, update: Any) -> Any:
        dx, dparameter = original(self, dy, x, index, kernels, moments, update)
        return (tf.zeros_like(dx) if x.shape[-1] == 8 and self.stride == 1 else dx), dparameter

    return backward


def _scaled(factor: float) -> Callable[[Any], Any]:
    return lambda original: lambda *arguments: factor * original(*arguments)


def _with_constant_statistics(original: Any) -> Any:
    def normalize_gradient(dy: Any, x: Any, reserved: Any) -> Any:
        _, products = original(dy, x, reserved)
        _, variance = tf.nn.moments(x, [0, 1, 2])
        return dy / tf.sqrt(variance + 1e-5), products

    return normalize_gradient


MUTATIONS: dict[str, tuple[Any, str, Callable[[Any], Any]]] = {
    "ReLU of candidates": (primitives, "relu_gradient", lambda _: lambda dy, y: dy),
    "statistics of a candidate's batch norm": (primitives, "normalize_gradient", _with_constant_statistics),
    "statistics of preprocessing's batch norm": (layers, "normalize_gradient", _with_constant_statistics),
    "input of depthwise convolutions": (primitives, "depthwise_input_gradient", _scaled(0)),
    "kernels of depthwise convolutions": (primitives, "depthwise_kernel_gradient", _scaled(0)),
    "input of convolutions": (primitives, "convolution_input_gradient", _scaled(0)),
    "kernels of convolutions": (primitives, "convolution_kernel_gradient", _scaled(0)),
    "kernels of preprocessing": (layers, "convolution_kernel_gradient", _scaled(0)),
    "input of preprocessing": (layers, "convolution_input_gradient", _scaled(0)),
    "pixels that a dilated convolution of stride 2 sees": (primitives, "subsample_gradient", _scaled(0)),
    "average pooling": (primitives, "average_pool_gradient", _scaled(0)),
    "max pooling": (primitives, "max_pool_gradient", _scaled(0)),
    "input of inner edges": (mixed.MixedOperation, "backward", _without_input_gradient_of_one_edge),
    "gates of candidates with batch norm": (
        Backward,
        "gate_of",
        lambda original: lambda products, update: original(products[1:], update),
    ),
    "gates of candidates without": (
        Backward,
        "homogeneous",
        lambda _: lambda dx, x, update: Backward(dx, tf.reduce_sum(dx[1:] * x[1:]), []),
    ),
}


@pytest.fixture
def small() -> Iterator[Supernet]:
    """A supernet whose branches are traced anew, and not kept."""
    branches.backward_branches.cache_clear()
    yield _supernet(SearchSpace(SMALL, nodes=2), (8, 8), macro="official")
    branches.backward_branches.cache_clear()


def test_no_term_is_missing(small: Supernet) -> None:
    assert _worst(_differences(small, (8, 8), 0, ["weights", "architecture"])) < (BOUND, "")


@pytest.mark.slow
@pytest.mark.parametrize("term", MUTATIONS)
def test_a_missing_term_is_noticed(term: str, small: Supernet, monkeypatch: pytest.MonkeyPatch) -> None:
    target, name, mutate = MUTATIONS[term]
    monkeypatch.setattr(target, name, mutate(getattr(target, name)))
    update = "architecture" if term.startswith("gates") else "weights"
    assert _worst(_differences(small, (8, 8), 0, [update]))[0] > 100 * BOUND

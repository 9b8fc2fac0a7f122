"""The engine against the plain supernet (`gdas_tf.supernet.reference`): loss, and gradient of everything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from gdas_tf.numerics import primitives
from gdas_tf.operations.base import Backward
from gdas_tf.spaces.base import SearchSpace
from gdas_tf.supernet import cells, mixed, reference
from gdas_tf.supernet.network import Supernet
from gdas_tf.supernet.paths import Sampled

BOUND = 1e-5
"""Largest accepted difference, as a share of the largest entry of the reference's tensor.

The engine computes in float32 and comes to 5e-6 of the reference, which computes in float64. Where a ReLU or
a maximum stands closer than that to its kink, they may fall on different sides of it, and the gradients jump
apart by 1e-3. The seeds are such that none does.
"""

SMALL = ("skip_connect", "sep_conv_3x3", "dil_conv_3x3", "avg_pool_3x3", "max_pool_3x3")
POOLS = ("max_pool_3x3", "avg_pool_3x3", "skip_connect", "conv_1x1")

SEEDS = (0, 8)
"""Of images and samples. Both together run every operation at both strides."""


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
    net: Supernet, size: tuple[int, int], seed: int, updates: Sequence[str], per_cell: bool = False
) -> dict[str, float]:
    """By name the differences of the loss and of every gradient, each a share of the reference's largest
    entry."""
    images = tf.random.stateless_uniform((4, *size, 3), [seed, 0])
    labels = tf.constant([0, 1, 2, 1])
    indices = _indices(net, seed)
    if per_cell:
        counts = [net.searched_cells(kind) for kind in (False, True)]
        indices = [np.roll(index, i) for index, n in zip(indices, counts, strict=True) for i in range(n)]
    gates = [tf.ones(len(index)) for index in indices]
    samples: list[Any] = [
        Sampled(tf.constant(index, tf.int32), tf.zeros((len(index), 1)), gate)
        for index, gate in zip(indices, gates, strict=True)
    ]
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
@pytest.mark.parametrize("fixed", [False, True], ids=["searched", "fixed"])
@pytest.mark.parametrize("size", [(8, 8), (9, 10)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_loss_and_every_gradient(size: tuple[int, int], fixed: bool, seed: int) -> None:
    net = _supernet(SearchSpace.named("gdas-12"), size, fixed_reduction=fixed)
    differences = _differences(net, size, seed, ("weights", "architecture"))
    assert len(differences) == 2 + len(net.trainable_variables) + (1 if fixed else 2)
    assert _worst(differences) < (BOUND, "")


@pytest.mark.parametrize("size", [(8, 8), (9, 10)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_batch_norm_after_pooling(size: tuple[int, int]) -> None:
    net = _supernet(SearchSpace(POOLS), size, macro="official", pool_norm=True)
    differences = _differences(net, size, 1, ("weights", "architecture"))
    assert _worst(differences) < (BOUND, "")


def test_a_sample_for_every_cell() -> None:
    net = _supernet(SearchSpace(SMALL, nodes=2))
    differences = _differences(net, (8, 8), 1, ("weights", "architecture"), per_cell=True)
    assert len(differences) == 2 + len(net.trainable_variables) + len(net.cells)
    assert _worst(differences) < (BOUND, "")


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
    "statistics of preprocessing's batch norm": (cells, "normalize_gradient", _with_constant_statistics),
    "input of depthwise convolutions": (primitives, "depthwise_input_gradient", _scaled(0)),
    "kernels of depthwise convolutions": (primitives, "depthwise_kernel_gradient", _scaled(0)),
    "input of convolutions": (primitives, "convolution_input_gradient", _scaled(0)),
    "kernels of convolutions": (primitives, "convolution_kernel_gradient", _scaled(0)),
    "kernels of preprocessing": (cells, "convolution_kernel_gradient", _scaled(0)),
    "input of preprocessing": (cells, "convolution_input_gradient", _scaled(0)),
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
    mixed.backward_branches.cache_clear()
    yield _supernet(SearchSpace(SMALL, nodes=2), (8, 8), macro="official")
    mixed.backward_branches.cache_clear()


def test_no_term_is_missing(small: Supernet) -> None:
    assert _worst(_differences(small, (8, 8), 0, ["weights", "architecture"])) < (BOUND, "")


@pytest.mark.parametrize("term", MUTATIONS)
def test_a_missing_term_is_noticed(term: str, small: Supernet, monkeypatch: pytest.MonkeyPatch) -> None:
    target, name, mutate = MUTATIONS[term]
    monkeypatch.setattr(target, name, mutate(getattr(target, name)))
    update = "architecture" if term.startswith("gates") else "weights"
    assert _worst(_differences(small, (8, 8), 0, [update]))[0] > 100 * BOUND

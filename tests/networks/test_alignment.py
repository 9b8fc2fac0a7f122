"""Supernet and derived network are PyTorch's on images turned by 180 degrees, with kernels turned.

The networks below are written once more, plainly: padding of k // 2 on both sides, and at stride 2 every
second output from the first on, as torch.nn.Conv2d(k, stride, padding=k // 2) has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

from gdas_tf.networks.derived import build_network
from gdas_tf.operations.base import OPERATIONS
from gdas_tf.spaces.base import SearchSpace
from gdas_tf.spaces.genotype import Genotype
from gdas_tf.spaces.macro import stack
from gdas_tf.supernet.network import Supernet
from gdas_tf.supernet.paths import Sampled
from gdas_tf.supernet.reduction import FixedReductionCell

Norm = Callable[[tf.Tensor], tf.Tensor]


class Weights(NamedTuple):
    """Kernels, turned by 180 degrees, and batch norms of a part of a network, in the order of their use."""

    kernels: Iterator[tf.Tensor]
    norms: Iterator[Norm]

    @classmethod
    def of(cls, kernels: Sequence[Any], norms: Sequence[Norm]) -> Weights:
        return cls(iter([tf.reverse(tf.convert_to_tensor(k), [0, 1]) for k in kernels]), iter(norms))

    def conv(
        self, x: tf.Tensor, stride: int | tuple[int, int] = 1, dilation: int = 1, groups: int = 1
    ) -> tf.Tensor:
        return torch_conv(x, next(self.kernels), stride, dilation, groups)

    def depthwise(self, x: tf.Tensor, stride: int = 1, dilation: int = 1) -> tf.Tensor:
        kernel = tf.transpose(next(self.kernels), [0, 1, 3, 2])
        return torch_conv(x, kernel, stride, dilation, x.shape[-1])

    def norm(self, x: tf.Tensor) -> tf.Tensor:
        return next(self.norms)(x)


def torch_conv(x: tf.Tensor, kernel: tf.Tensor, stride: Any, dilation: int, groups: int) -> tf.Tensor:
    """torch.nn.functional.conv2d of [B, H, W, I] by [h, w, I / groups, O], padding k // 2 * dilation."""
    rows, columns = (size // 2 * dilation for size in kernel.shape[:2])
    x = tf.pad(x, [[0, 0], [rows, rows], [columns, columns], [0, 0]])
    parts = zip(tf.split(x, groups, -1), tf.split(kernel, groups, -1), strict=True)
    y = [tf.nn.conv2d(part, w, 1, "VALID", dilations=dilation) for part, w in parts]
    down, right = (stride, stride) if isinstance(stride, int) else stride
    return tf.concat(y, -1)[:, ::down, ::right]


def torch_pool(x: tf.Tensor, kind: str, stride: int) -> tf.Tensor:
    """3x3 pooling, padding 1, the padding not counted."""
    around = [[0, 0], [1, 1], [1, 1], [0, 0]]
    if kind == "max":
        padded = tf.pad(x, around, constant_values=-np.inf)
        return tf.nn.max_pool2d(padded, 3, 1, "VALID")[:, ::stride, ::stride]
    sums, counts = (tf.nn.avg_pool2d(tf.pad(v, around), 3, 1, "VALID") for v in (x, tf.ones_like(x)))
    return (sums / counts)[:, ::stride, ::stride]


def factorized(x: tf.Tensor, w: Weights) -> tf.Tensor:
    """Of an odd size, for which DARTS has no factorized reduction, the zeros come first."""
    x = tf.nn.relu(x)
    others = tf.pad(x, [[0, 0], [x.shape[1] % 2, 0], [x.shape[2] % 2, 0], [0, 0]])
    others = others[:, 0::2] if x.shape[1] % 2 else others[:, 1::2]
    others = others[:, :, 0::2] if x.shape[2] % 2 else others[:, :, 1::2]
    return w.norm(tf.concat([w.conv(x[:, ::2, ::2]), w.conv(others)], -1))


def preprocess(x: tf.Tensor, halved: bool, w: Weights) -> tf.Tensor:
    return factorized(x, w) if halved else w.norm(w.conv(tf.nn.relu(x)))


def operation(x: tf.Tensor, name: str, stride: int, w: Weights) -> tf.Tensor:
    if name == "none":
        return tf.zeros_like(x[:, ::stride, ::stride])
    if name == "skip_connect":
        return x if stride == 1 else factorized(x, w)
    if "pool" in name:
        return torch_pool(x, name[:3], stride)
    if name in ("conv_3x1_1x3", "conv_7x1_1x7"):
        return w.norm(w.conv(w.conv(tf.nn.relu(x), (1, stride)), (stride, 1)))
    if name.startswith(("conv", "nor_conv")):
        return w.norm(w.conv(tf.nn.relu(x), stride))
    if name.startswith("dil"):
        return w.norm(w.conv(w.depthwise(tf.nn.relu(x), stride, 2)))
    x = w.norm(w.conv(w.depthwise(tf.nn.relu(x), stride)))
    return w.norm(w.conv(w.depthwise(tf.nn.relu(x))))


def fixed_reduction(states: list[tf.Tensor], parts: Sequence[Weights]) -> tf.Tensor:
    convolved, pooled = [], []
    for x, w in zip(states, parts, strict=True):
        groups = np.gcd(8, x.shape[-1])
        y = w.conv(w.conv(tf.nn.relu(x), (1, 2), 1, groups), (2, 1), 1, groups)
        convolved.append(w.norm(w.conv(tf.nn.relu(w.norm(y)))))
        pooled.append(w.norm(torch_pool(x, "max", 2)))
    return tf.concat([*convolved, *pooled], -1)


def turned(x: tf.Tensor) -> tf.Tensor:
    return tf.reverse(x, [1, 2])


def batch_norm(x: tf.Tensor) -> tf.Tensor:
    mean, variance = tf.nn.moments(x, [0, 1, 2])
    return (x - mean) / tf.sqrt(variance + 1e-5)


SIZES = [(8, 8), (9, 9), (12, 10), (9, 10)]
LARGE = (28, 17)


def cells_and_sizes(sizes: list[tuple[int, int]]) -> list[Any]:
    """Both kinds of reduction cell at all sizes; searched ones at 9x10 alone are not slow."""
    return [
        pytest.param(
            *(fixed, size),
            marks=() if fixed or size == (9, 10) else pytest.mark.slow,
            id=f"{'fixed' if fixed else 'searched'}-{size[0]}x{size[1]}",
        )
        for fixed in (False, True)
        for size in sizes
    ]


@pytest.mark.parametrize(("fixed", "size"), cells_and_sizes(SIZES))
def test_supernet(fixed: bool, size: tuple[int, int]) -> None:
    keras.utils.set_random_seed(1)
    space = SearchSpace.named("gdas-12")
    net = Supernet(space, classes=3, channels=4, cells=1, fixed_reduction=fixed)
    net.build((4, *size, 3))
    generator = np.random.default_rng(2)
    indices = [generator.permutation(np.arange(14) % 12) for _ in range(2)]
    samples = [Sampled(tf.constant(i, tf.int32), tf.zeros((14, 12)), tf.ones(14)) for i in indices]
    images = tf.random.stateless_uniform((4, *size, 3), [1, 2])
    outputs = net(images, samples[0], None if fixed else samples[1], update="weights")

    x = batch_norm(Weights.of(net.stem.kernels, []).conv(turned(images)))
    states = [x, x]
    for cell in net.cells:
        inputs = [
            preprocess(x, part.reduce, Weights.of([k.value for k in part.kernels], [batch_norm]))
            for x, part in zip(states[-2:], cell.preprocess, strict=True)
        ]
        if isinstance(cell, FixedReductionCell):
            parts = [Weights.of([k.value for k in kernels], [batch_norm] * 3) for kernels in cell.kernels]
            states.append(fixed_reduction(inputs, parts))
            continue
        for edges in cell.nodes:
            terms = []
            for number, source, group, row in edges:
                mixed, index = cell.mixed[group], indices[cell.reduction][number]
                kernels = mixed.segments.kernels(mixed.kernels.value[row], index)
                w = Weights.of(kernels, [batch_norm] * 2)
                terms.append(operation(inputs[source], space.operations[index], mixed.stride, w))
            inputs.append(tf.add_n(terms))
        states.append(tf.concat(inputs[2:], -1))
    expected = net.dense(tf.reduce_mean(tf.nn.relu(batch_norm(states[-1])), [1, 2]))
    np.testing.assert_allclose(outputs, expected, atol=2e-5)


def _part(model: keras.Model, *prefixes: str) -> Weights:
    """The layers whose names begin so, by name: it is also the order in which their kernels are used."""
    found = sorted((layer.name, layer) for layer in model.layers if layer.name.startswith(prefixes))
    kernels: dict[str, list[tf.Tensor]] = {}  # a grouped convolution has a layer for each group
    for name, layer in found:
        if hasattr(layer, "kernel"):
            kernels.setdefault(name.partition("_group")[0], []).append(layer.kernel.value)
    # (Of batch norms "bn0" is used before "bn", and that of a pooling last.)
    norms = sorted(
        (("max_pool" in name, f"{name}~"), layer)
        for name, layer in found
        if isinstance(layer, keras.layers.BatchNormalization)
    )
    joined = [tf.concat(groups, -1) for groups in kernels.values()]
    return Weights.of(joined, [lambda x, norm=norm: norm(x, training=False) for _, norm in norms])


def _stems(model: keras.Model, x: tf.Tensor, wide: bool) -> list[tf.Tensor]:
    if not wide:
        w = _part(model, "stem")
        return [w.norm(w.conv(x))] * 2
    names = (("stem0_conv0", "stem0_bn0"), ("stem0_conv", "stem0_bn"), ("stem1_conv", "stem1_bn"))
    states = []
    for conv, norm in names:
        kernel = tf.reverse(model.get_layer(conv).kernel.value, [0, 1])
        x = model.get_layer(norm)(torch_conv(x, kernel, 2, 1, 1), training=False)
        states.append(x)
        x = tf.nn.relu(x)
    return states[1:]


def _auxiliary(model: keras.Model, x: tf.Tensor) -> tf.Tensor:
    w = _part(model, "auxiliary_")
    x = tf.nn.avg_pool2d(tf.nn.relu(x), [min(5, size) for size in x.shape[1:3]], 3, "VALID")
    x = tf.nn.relu(w.norm(w.conv(x)))
    x = tf.nn.relu(w.norm(tf.nn.conv2d(x, next(w.kernels), 1, "VALID")))
    return model.get_layer("auxiliary")(tf.reduce_mean(x, [1, 2]))


def _plain_network(
    model: keras.Model, genotype: Genotype, images: tf.Tensor, wide: bool
) -> dict[str, tf.Tensor]:
    states, outputs = _stems(model, turned(images), wide), {}
    for number, plan in enumerate(stack(4, 1)):
        name, halved = f"cell{number}", plan.after_reduction or (wide and number == 0)
        inputs = [
            preprocess(x, halved and i == 0, _part(model, f"{name}_input{i}"))
            for i, x in enumerate(states[-2:])
        ]
        nodes = genotype.reduction if plan.reduction else genotype.normal
        if nodes is None:
            parts = [_part(model, f"{name}_conv{i}", f"{name}_max_pool{i}") for i in range(2)]
            states.append(fixed_reduction(inputs, parts))
        else:
            for i, edges in enumerate(nodes):
                terms = []
                for j, edge in enumerate(edges):
                    stride = 2 if plan.reduction and edge.input < 2 else 1
                    w = _part(model, f"{name}_node{i}_edge{j}_{edge.operation}")
                    terms.append(operation(inputs[edge.input], edge.operation, stride, w))
                inputs.append(tf.add_n(terms))
            states.append(tf.concat(inputs[2:], -1))
        if plan.reduction and plan.filters == 16:
            outputs["auxiliary"] = _auxiliary(model, states[-1])
    x = states[-1]
    if any(layer.name == "head_bn" for layer in model.layers):
        x = tf.nn.relu(_part(model, "head_bn").norm(x))
    return {**outputs, "logits": model.get_layer("logits")(tf.reduce_mean(x, [1, 2]))}


@pytest.mark.parametrize(("fixed", "size"), cells_and_sizes([*SIZES, LARGE]))
def test_derived_network(fixed: bool, size: tuple[int, int]) -> None:
    stem = "imagenet" if size == LARGE else "cifar"
    cell = [[(name, 0), (name, 1)] for name in OPERATIONS]
    genotype = Genotype(cell, None if fixed else cell)
    options = {"channels": 4, "cells": 1, "stem": stem, "auxiliary": True, "seed": 1}
    model = build_network(genotype, (*size, 3), 3, **options)
    generator = np.random.default_rng(3)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([generator.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    images = tf.random.stateless_uniform((2, *size, 3), [1, 2])
    found = model(images, training=False)
    for name, expected in _plain_network(model, genotype, images, stem == "imagenet").items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-5)

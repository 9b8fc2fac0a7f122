"""The supernet in plain TensorFlow: what its engine computes, without anything that makes that fast.

Every candidate is written as the papers describe it, in float64, without a custom gradient, a flat vector of
weights or a `Case`. Only the sampled candidate of an edge is computed, and its gate multiplies the output:
`h[index] * op_index(x)` (Dong & Yang, CVPR 2019, section 3.2), to which the sum of the other gates is added
where a sample has it (AutoDL-Projects, issue 36); a mixture is the weighted sum of all
candidates (Liu, Simonyan & Yang, ICLR 2019, equation 2). The tests hold the engine's loss and every
gradient against the automatic differentiation of this (tests/supernet/test_reference.py). It is slow.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from gdas_tf.supernet.cells import SearchedCell
from gdas_tf.supernet.network import Supernet
from gdas_tf.supernet.paths import Paths, Sampled
from gdas_tf.supernet.reduction import FixedReductionCell, ResidualBlock
from gdas_tf.supernet.stems import CifarStem, ImageNetStem

Kernels = Sequence[tf.Tensor]


def logits(net: Supernet, images: tf.Tensor, normal: Any, reduction: Any = None) -> tf.Tensor:
    """Class logits, float64 [B, classes], of a training pass by the weights of `net`.

    Args:
        net: The supernet, built; its weights are read from the variables, so that a tape sees them.
        images: [B, H, W, C] in [0, 1].
        normal, reduction: What runs in all cells of the kind, or a list of one for each, as of
            `Supernet.call`.
    """
    x = tf.cast(images, tf.float64)
    if net.mean is not None:
        x = (x - net.mean) / tf.sqrt(tf.constant(net.variance, tf.float64))
    inputs = net.space.inputs
    states = _stem(net.stem, x)
    samples = {
        kind: itertools.repeat(given) if isinstance(given, Paths) else iter(given or ())
        for kind, given in ((False, normal), (True, reduction))
    }
    for cell in net.cells:
        if isinstance(cell, ResidualBlock):
            states.append(_residual(cell, states[-1]))
            continue
        if not cell.preprocess:
            states.append(_searched(cell, states[-inputs:], next(samples[cell.reduction])))
            continue
        entering = [
            _norm((_factorized if p.reduce else _convolution)(tf.nn.relu(x), *map(_wide, p.kernels)))
            for x, p in zip(states[-inputs:], cell.preprocess, strict=True)
        ]
        if isinstance(cell, FixedReductionCell):
            states.append(_fixed_reduction(cell, entering))
        else:
            states.append(_searched(cell, entering, next(samples[cell.reduction])))
    x = tf.reduce_mean(tf.nn.relu(_norm(states[-1], net.head_norm)), [1, 2])
    return x @ _wide(net.dense.kernel) + _wide(net.dense.bias)


def _stem(stem: CifarStem | ImageNetStem, x: tf.Tensor) -> list[tf.Tensor]:
    """Both inputs of the first cell."""
    kernels = [_wide(kernel) for kernel in stem.kernels]
    if isinstance(stem, CifarStem):
        return [_norm(_convolution(x, kernels[0]), stem.norms[0])] * 2
    half = _norm(_convolution(x, kernels[0], (2, 2)), stem.norms[0])
    quarter = _norm(_convolution(tf.nn.relu(half), kernels[1], (2, 2)), stem.norms[1])
    eighth = _norm(_convolution(tf.nn.relu(quarter), kernels[2], (2, 2)), stem.norms[2])
    return [quarter, eighth]


def _searched(cell: SearchedCell, states: list[tf.Tensor], paths: Paths) -> tf.Tensor:
    for edges in cell.nodes:
        terms = []
        for number, source, group, row in edges:
            mixed = cell.mixed[group]
            for operation, factor in _factors(paths, number).items():
                kernels = mixed.segments.kernels(_wide(mixed.kernels)[row], operation)
                y = _candidate(mixed.branches[operation], states[source], kernels, mixed.stride)
                if mixed.pool_norm and "pool" in mixed.branches[operation]:
                    y = _norm(y)
                terms.append(factor * y)
            if isinstance(paths, Sampled) and paths.others is not None:
                terms.append(_wide(paths.others)[number] * tf.ones_like(terms[-1]))
        states = [*states, tf.add_n(terms)]
    return states[-1] if cell.space.output == "last" else tf.concat(states[cell.inputs :], -1)


def _factors(paths: Paths, edge: int) -> dict[int, tf.Tensor]:
    """The operations that run on an edge, each with what multiplies its output."""
    if isinstance(paths, Sampled):
        return {int(paths.index[edge]): _wide(paths.gate)[edge]}
    return dict(enumerate(tf.unstack(_wide(paths.weights)[edge])))


def _candidate(name: str, x: tf.Tensor, kernels: Kernels, stride: int) -> tf.Tensor:
    if name == "none":
        return tf.zeros_like(x[:, ::stride, ::stride])
    if name == "skip_connect":
        return x if stride == 1 else _norm(_factorized(tf.nn.relu(x), *kernels))
    if name in ("avg_pool_3x3", "max_pool_3x3"):
        pool = tf.nn.avg_pool2d if name.startswith("avg") else tf.nn.max_pool2d
        return _strided(pool(x, 3, 1, "SAME"), (stride, stride))
    if name.startswith(("conv", "nor_conv")):
        x = tf.nn.relu(x)
        strides = [(stride, stride)] if len(kernels) == 1 else [(1, stride), (stride, 1)]
        for kernel, each in zip(kernels, strides, strict=True):
            x = _convolution(x, kernel, each)
        return _norm(x)
    for depthwise, pointwise in zip(kernels[::2], kernels[1::2], strict=True):
        y = _depthwise(tf.nn.relu(x), depthwise, stride, 2 if name.startswith("dil") else 1)
        x, stride = _norm(_convolution(y, pointwise)), 1
    return x


def _fixed_reduction(cell: FixedReductionCell, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
    convolved, pooled = [], []
    for x, kernels, (middle, end, pool) in zip(inputs, cell.kernels, cell.norms, strict=True):
        wide, high, point = map(_wide, kernels)
        y = _norm(_grouped(_grouped(tf.nn.relu(x), wide, (1, 2)), high, (2, 1)), middle)
        convolved.append(_norm(_convolution(tf.nn.relu(y), point), end))
        pooled.append(_norm(_strided(tf.nn.max_pool2d(x, 3, 1, "SAME"), (2, 2)), pool))
    return tf.concat([*convolved, *pooled], -1)


def _residual(block: ResidualBlock, x: tf.Tensor) -> tf.Tensor:
    first, second, shortcut = map(_wide, block.kernels)
    y = _norm(_convolution(tf.nn.relu(x), first, (2, 2)), block.norms[0])
    y = _norm(_convolution(tf.nn.relu(y), second), block.norms[1])
    pooled = tf.nn.avg_pool2d(x, 2, 2, "SAME")
    return y + _convolution(pooled, shortcut)


def _convolution(x: tf.Tensor, kernel: tf.Tensor, strides: Sequence[int] = (1, 1)) -> tf.Tensor:
    return _strided(tf.nn.conv2d(x, kernel, 1, "SAME"), strides)


def _depthwise(x: tf.Tensor, kernel: tf.Tensor, stride: int, dilation: int) -> tf.Tensor:
    y = tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "SAME", dilations=[dilation, dilation])
    return _strided(y, (stride, stride))


def _strided(y: tf.Tensor, strides: Sequence[int]) -> tf.Tensor:
    """What stride 2 leaves of an output of stride 1: odd rows of an even number, even rows of an odd one."""
    row, column = (stride - 1 - size % stride for stride, size in zip(strides, y.shape[1:3], strict=True))
    return y[:, row :: strides[0], column :: strides[1]]


def _factorized(x: tf.Tensor, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    rows, columns = x.shape[1] % 2, x.shape[2] % 2
    others = tf.pad(x, [[0, 0], [0, rows], [0, columns], [0, 0]])[:, rows::2, columns::2]
    return tf.concat([_convolution(_strided(x, (2, 2)), first), _convolution(others, second)], -1)


def _grouped(x: tf.Tensor, kernel: tf.Tensor, strides: Sequence[int]) -> tf.Tensor:
    groups = x.shape[-1] // kernel.shape[2]
    parts = zip(tf.split(x, groups, -1), tf.split(kernel, groups, -1), strict=True)
    return tf.concat([_convolution(part, w, strides) for part, w in parts], -1)


def _norm(x: tf.Tensor, layer: Any = None) -> tf.Tensor:
    mean, variance = tf.nn.moments(x, [0, 1, 2])
    y = (x - mean) / tf.sqrt(variance + 1e-5)
    return y if layer is None else _wide(layer.gamma) * y + _wide(layer.beta)


def _wide(value: Any) -> tf.Tensor:
    return tf.cast(getattr(value, "value", value), tf.float64)

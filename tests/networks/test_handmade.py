"""Residual and dense networks: published numbers of weights, what they compute, training and deployment."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from gdas_tf.errors import UsageError
from gdas_tf.networks.densenet import build_densenet
from gdas_tf.networks.derived import count_parameters
from gdas_tf.networks.registry import NETWORKS, build, copy_weights
from gdas_tf.networks.resnet import build_resnet
from gdas_tf.zoo.entries import ZOO

COUNTS = {  # of weights, for 32x32x3 and 10 classes: exact, and in millions as the papers print them
    "resnet20": (269_722, 0.27),
    "resnet56": (853_018, 0.85),
    "resnet110": (1_727_962, 1.7),
    "densenet_bc_100_12": (769_162, 0.8),
    "densenet_bc_190_40": (25_624_430, 25.6),
}
NAMES = ("resnet20", "densenet_bc_100_12")


def test_every_network_is_counted() -> None:
    assert set(COUNTS) == {name for name in NETWORKS if not NETWORKS.get(name).takes_genotype}


@pytest.mark.parametrize("name", COUNTS)
def test_number_of_weights(name: str) -> None:
    exact, published = COUNTS[name]
    model = build(name, None, (32, 32, 3), 10)
    assert count_parameters(model) == exact == ZOO.get(name).weights
    assert round(exact / 1e6, len(str(published).split(".")[1])) == published
    assert all(type(layer).__module__.startswith("keras.") for layer in model.layers)


def test_number_of_weights_by_hand() -> None:
    def resnet(depth: int) -> int:
        n, norm = (depth - 2) // 6, 2
        count = 9 * 3 * 16 + norm * 16
        for stage, channels in enumerate((16, 32, 64)):
            entering = channels // 2 if stage else channels
            count += 9 * entering * channels + (2 * n - 1) * 9 * channels**2 + 2 * n * norm * channels
        return count + 64 * 10 + 10

    def densenet(depth: int, k: int) -> int:
        channels = 2 * k
        count = 9 * 3 * channels
        for block in range(3):
            if block:
                count += 2 * channels + channels * (channels // 2)
                channels //= 2
            for _ in range((depth - 4) // 6):
                count += 2 * channels + channels * 4 * k + 2 * 4 * k + 9 * 4 * k * k
                channels += k
        return count + 2 * channels + channels * 10 + 10

    found = {f"resnet{depth}": resnet(depth) for depth in (20, 56, 110)}
    found |= {f"densenet_bc_{depth}_{k}": densenet(depth, k) for depth, k in ((100, 12), (190, 40))}
    assert found == {name: exact for name, (exact, _) in COUNTS.items()}


@pytest.mark.parametrize("shape", [(8, 8, 1), (9, 13, 3)])
@pytest.mark.parametrize("name", [NAMES[0], pytest.param(NAMES[1], marks=pytest.mark.slow)])
def test_both_networks_of_a_name_compute_the_same(name: str, shape: tuple[int, ...]) -> None:
    options = {
        "mean": [0.4] * shape[2],
        "std": [0.3] * shape[2],
        "channels": 36,
        "cells": 6,
        "macro": "paper",
    }
    trained = build(name, None, shape, 3, training=True, seed=1, drop_path=0.2, auxiliary=True, **options)
    deployed = build(name, None, shape, 3, **options)
    images = np.random.default_rng(0).random((4, *shape), np.float32)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(trained(images, training=True)["logits"] ** 2)
    gradients = tape.gradient(loss, [weight.value for weight in trained.trainable_variables])
    assert all(gradient is not None and np.isfinite(gradient).all() for gradient in gradients)
    copy_weights(trained, deployed)
    logits = trained(images, training=False)["logits"]
    np.testing.assert_allclose(deployed(images), tf.nn.softmax(logits), atol=1e-5)
    first, again = (build(name, None, shape, 3, training=True, seed=1, **options) for _ in range(2))
    for one, other in zip(first.trainable_variables, again.trainable_variables, strict=True):
        np.testing.assert_array_equal(one, other)
    # The images are standardized within.
    standardized = keras.Model(deployed.input, deployed.get_layer("standardize").output)(images)
    np.testing.assert_allclose(standardized, (images - 0.4) / 0.3, atol=1e-5)


def test_shortcuts_of_option_a() -> None:
    """With weights of zero a block gives the ReLU of its input, subsampled, and zeros in the new channels."""
    model = build_resnet(None, (8, 8, 1), 3, depth=8, width=4)
    for layer in model.layers:
        if layer.name.startswith("stage1_block0") and isinstance(layer, keras.layers.Conv2D):
            layer.set_weights([np.zeros_like(weight) for weight in layer.get_weights()])
    before, after = (model.get_layer(f"stage{stage}_block0_relu1").output for stage in (0, 1))
    given, found = keras.Model(model.input, [before, after])(np.random.default_rng(0).random((2, 8, 8, 1)))
    assert found.shape == (2, 4, 4, 8)
    np.testing.assert_array_equal(found[..., :4], given[:, 1::2, 1::2])  # as all of stride 2 is centred here
    np.testing.assert_array_equal(found[..., 4:], 0)


def test_what_a_dense_layer_takes_goes_on() -> None:
    model = build_densenet(None, (8, 8, 1), 3, depth=16, growth=4)
    taken, given = (model.get_layer(f"block0_layer{i}_concat").output for i in (0, 1))
    taken, given = keras.Model(model.input, [taken, given])(np.random.default_rng(0).random((2, 8, 8, 1)))
    assert (taken.shape[-1], given.shape[-1]) == (12, 16)
    np.testing.assert_array_equal(given[..., :12], taken)


@pytest.mark.parametrize(
    ("make", "depth", "message"),
    [
        (build_resnet, 21, "resnet: depth is 21; accepted are 8, 14, 20"),
        (build_resnet, 2, "resnet: depth is 2"),
        (build_densenet, 101, "densenet: depth is 101; accepted are 10, 16, 22"),
        (build_densenet, 4, "densenet: depth is 4"),
    ],
)
def test_depths_that_there_are_not(make: Callable[..., keras.Model], depth: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make(None, (8, 8, 1), 3, depth=depth)


def test_unknown_names() -> None:
    with pytest.raises(UsageError, match=r"unknown network 'resnet101'; did you mean resnet110\?"):
        build("resnet101", None, (8, 8, 1), 3)
    with pytest.raises(UsageError, match=r"unknown network 'DenseNet'; did you mean densenet_bc_100_12\?"):
        build("DenseNet", None, (8, 8, 1), 3)

"""Multiply-adds of networks."""

from __future__ import annotations

from gdas_tf.costs.flops import multiply_adds
from gdas_tf.keras_backend import keras
from gdas_tf.networks.derived import build_network
from gdas_tf.spaces.genotype import Genotype

layers = keras.layers


def test_layers_are_counted_by_hand() -> None:
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", use_bias=False)(image)  # 8 * 8 * 9 * 3 * 4 = 6,912
    x = layers.BatchNormalization()(x)
    x = layers.DepthwiseConv2D(5, strides=2, padding="same")(x)  # 4 * 4 * 25 * 4 = 1,600
    x = layers.Conv2D(6, (1, 3), groups=2, padding="same")(x)  # 4 * 4 * 3 * 2 * 6 = 576
    x = layers.GlobalAveragePooling2D()(layers.MaxPooling2D(2)(x))
    x = layers.Dense(10)(x)  # 60
    assert multiply_adds(keras.Model(image, x)) == 6912 + 1600 + 576 + 60


def test_a_layer_that_is_called_twice_and_a_model_within_are_counted() -> None:
    inner_image = keras.Input((4, 4, 2))
    inner = keras.Model(inner_image, layers.Conv2D(2, 1, use_bias=False)(inner_image))  # 64
    image = keras.Input((4, 4, 2))
    shared = layers.Conv2D(2, 3, padding="same")  # 4 * 4 * 9 * 4 = 576, twice
    assert multiply_adds(keras.Model(image, inner(shared(shared(image))))) == 2 * 576 + 64


def test_a_derived_network_is_counted_by_its_cells() -> None:
    cell = [[("skip_connect", 0), ("skip_connect", 1)]]
    genotype = Genotype(cell, cell)
    model = build_network(genotype, (8, 8, 1), 10, channels=2, cells=1)
    stem = 64 * 9 * 1 * 6
    # A cell takes both inputs through a 1x1 convolution to C channels, and gives one node of C. A cell after
    # a reduction takes the older input, twice as large, by a factorized reduction: two 1x1 convolutions of
    # half the channels, as many multiply-adds. A skip of stride 2 is such a factorized reduction.
    normal0 = 64 * (6 * 2 + 6 * 2)
    reduction1 = 64 * (6 * 4 + 2 * 4) + 16 * (4 * 4) * 2
    normal1 = 16 * (2 * 4 + 4 * 4)
    reduction2 = 16 * (4 * 8 + 4 * 8) + 4 * (8 * 8) * 2
    normal2 = 4 * (4 * 8 + 8 * 8)
    dense = 8 * 10
    expected = stem + normal0 + reduction1 + normal1 + reduction2 + normal2 + dense
    assert multiply_adds(model) == expected

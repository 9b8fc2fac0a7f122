"""The derived network: reference counts, operations against golden values, shapes, drop-path, bad input."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from gdas_tf.errors import UsageError
from gdas_tf.networks import builder, derived
from gdas_tf.networks.builder import Builder
from gdas_tf.networks.derived import build_network, count_parameters
from gdas_tf.networks.drop_path import DropPathFactors
from gdas_tf.networks.fast_layers import FusedBatchNormalization, TrainingConv2D, TrainingDepthwiseConv2D
from gdas_tf.networks.registry import copy_weights
from gdas_tf.operations.base import OPERATIONS, Operation
from gdas_tf.spaces.base import SearchSpace
from gdas_tf.spaces.genotype import GENOTYPES, Genotype
from gdas_tf.spaces.macro import CellPlan, stack

GOLDEN = Path(__file__).parents[1] / "golden" / "operations.npz"
COUNTS = {  # of weights; C=36, N=6, 10 classes, without the norm of the head; see docs/method.md
    "DARTS_V1": 3_169_414,
    "DARTS_V2": 3_349_342,  # printed by the code of DARTS
    "GDAS_V1": 3_368_782,
    "GDAS_F1": 2_543_014,  # in the log of the authors' training of GDAS (FRC)
    "GDAS_GF": 2_999_638,
    "GDAS_FG": 2_912_158,
}
AUTODL_COUNTS = {  # the macro architecture and the head of AutoDL-Projects
    "DARTS_V1": 2_679_382,
    "DARTS_V2": 2_831_014,
    "GDAS_V1": 2_921_518,
    "GDAS_GF": 2_552_374,
}
HEAD_NORM = 2 * 4 * 4 * 36  # a scale and an offset for each of the features
TINY = Genotype([[("sep_conv_3x3", 0), ("skip_connect", 1)]], [[("max_pool_3x3", 0), ("skip_connect", 1)]])
TINY_FIXED = Genotype(TINY.normal, None)


def images(shape: tuple[int, ...], batch: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((batch, *shape), np.float32)


def operation_model(name: str, stride: int, shape: tuple[int, ...], training: bool = True) -> keras.Model:
    """One operation on its own, or the preprocessing of a cell's input."""
    build = Builder(training=training, seed=0, dtype=None)
    x = keras.Input(shape)
    if name == "relu_conv_bn_1x1":
        return keras.Model(x, build.relu_conv_bn(x, shape[-1], 1, stride, name))
    return keras.Model(x, build.operation(x, OPERATIONS.get(name), stride, name))


@pytest.mark.parametrize(
    "name", [name if name == "GDAS_V1" else pytest.param(name, marks=pytest.mark.slow) for name in COUNTS]
)
def test_parameter_counts(name: str) -> None:
    assert count_parameters(build_network(GENOTYPES[name], (32, 32, 3), 10)) == COUNTS[name]


@pytest.mark.parametrize(
    "name",
    [name if name == "GDAS_V1" else pytest.param(name, marks=pytest.mark.slow) for name in AUTODL_COUNTS],
)
def test_parameter_counts_of_autodl(name: str) -> None:
    deployed = build_network(GENOTYPES[name], (32, 32, 3), 10, macro="autodl", head_norm=True)
    assert count_parameters(deployed) == AUTODL_COUNTS[name]


@pytest.mark.slow
def test_parameter_count_of_the_norm_of_the_head() -> None:
    with_norm = build_network(GENOTYPES["GDAS_F1"], (32, 32, 3), 10, head_norm=True)
    assert count_parameters(with_norm) == COUNTS["GDAS_F1"] + HEAD_NORM == 2_544_166
    assert [layer.name for layer in with_norm.layers[-5:]] == [
        "head_bn",
        "head_relu",
        "logits_pool",
        "logits",
        "probabilities",
    ]


def test_parameter_count_of_the_auxiliary_head() -> None:
    options = {"image_shape": (32, 32, 3), "classes": 10, "cells": 1}
    deployed = build_network(TINY, channels=9 * 16, **options)  # 4 C features of one node, as 576 of four
    training = build_network(TINY, channels=9 * 16, auxiliary=True, **options)
    assert count_parameters(training) - count_parameters(deployed) == 476_426
    assert training.get_layer("auxiliary_conv1").output.shape[1:] == (1, 1, 768)


@pytest.mark.parametrize("key", sorted({"/".join(k.split("/")[:2]) for k in np.load(GOLDEN).files}))
def test_operations_have_golden_values(key: str) -> None:
    golden = {k.removeprefix(key + "/"): v for k, v in np.load(GOLDEN).items() if k.startswith(key + "/")}
    name, stride = key.split("/")
    if stride == "stride2":
        # The values are PyTorch's, whose stride 2 takes even pixels of an even size, where ours takes odd
        # ones: the same of everything turned by 180 degrees.
        golden = {k: v[::-1, ::-1] if "w" in k else v[:, ::-1, ::-1] for k, v in golden.items()}
    model = operation_model(name, int(stride[-1]), golden["x"].shape[1:])
    kernels = [v for v in model.trainable_variables if v.path.endswith("kernel")]
    assert len(kernels) == sum(k.startswith("w") for k in golden)
    for number, kernel in enumerate(kernels):
        kernel.assign(golden[f"w{number}"])
    x = tf.constant(golden["x"])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = model(x, training=True)
        product = tf.reduce_sum(y * golden["dy"])
    dx, *gradients = tape.gradient(product, [x, *[k.value for k in kernels]], unconnected_gradients="zero")
    np.testing.assert_allclose(y, golden["y"], atol=2e-5)
    np.testing.assert_allclose(dx, golden["dx"], atol=5e-5)
    for number, gradient in enumerate(gradients):
        np.testing.assert_allclose(gradient, golden[f"dw{number}"], atol=5e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (5, 6), (1, 2)])
@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_dilated_convolution_of_stride_2_takes_every_second_output(
    kernel: int, size: tuple[int, int]
) -> None:
    strided, plain = (operation_model(f"dil_conv_{kernel}x{kernel}", s, (*size, 4), False) for s in (2, 1))
    plain.set_weights(strided.get_weights())
    x = images((*size, 4)) - 0.5
    rows, columns = (1 - number % 2 for number in size)
    np.testing.assert_allclose(strided(x), plain(x)[:, rows::2, columns::2], atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 8), (9, 7), (2, 1)])
def test_average_pooling_leaves_the_padding_out(size: tuple[int, int], stride: int) -> None:
    y = operation_model("avg_pool_3x3", stride, (*size, 2))(np.ones((1, *size, 2), np.float32))
    np.testing.assert_allclose(y, np.ones((1, *(-(-s // stride) for s in size), 2)), rtol=1e-6)


def test_factorized_reduction_of_an_odd_size_pads_at_the_end() -> None:
    model = operation_model("skip_connect", 2, (5, 3, 2))
    for conv in (layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)):
        conv.set_weights([np.array([1.0, 0.0], np.float32).reshape(1, 1, 2, 1)])
    norm = next(layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization))
    x = images((5, 3, 2))
    y = keras.Model(model.input, norm.input)(x)
    np.testing.assert_array_equal(y[..., 0], x[:, ::2, ::2, 0])
    np.testing.assert_array_equal(y[..., 1], np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))[:, 1::2, 1::2, 0])


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(8, 8, 1), (9, 13, 3)])
def test_all_operations_make_a_network_that_trains(shape: tuple[int, ...]) -> None:
    cell = [[(name, 0), (name, 1)] for name in OPERATIONS]
    model = build_network(Genotype(cell, cell), shape, 3, channels=2, cells=1, auxiliary=True, drop_path=0.1)
    with tf.GradientTape() as tape:
        outputs = model(images(shape), training=True)
        total = tf.reduce_sum(outputs["logits"] ** 2) + tf.reduce_sum(outputs["auxiliary"] ** 2)
    assert outputs["logits"].shape == outputs["auxiliary"].shape == (2, 3)
    # (Of a node's two `none` edges nothing has weights, so that all weights there are get a gradient.)
    gradients = tape.gradient(total, [v.value for v in model.trainable_variables])
    assert all(gradient is not None and np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize(
    ("shape", "features", "genotype"),
    [
        ((8, 8, 1), (2, 2), TINY),
        ((8, 8, 1), (2, 2), TINY_FIXED),
        ((10, 33, 3), (3, 9), TINY_FIXED),
        ((64, 64, 3), (16, 16), TINY),
        ((65, 64, 3), (3, 2), TINY),  # ImageNet stem
        ((224, 224, 3), (7, 7), TINY),
    ],
)
def test_image_sizes(shape: tuple[int, ...], features: tuple[int, int], genotype: Genotype) -> None:
    options = {"image_shape": shape, "classes": 5, "channels": 4, "cells": 1}
    training = build_network(genotype, auxiliary=True, drop_path=0.1, **options)
    assert training.get_layer("logits_pool").input.shape[1:3] == features
    deployed = build_network(genotype, **options)
    copy_weights(training, deployed)
    probabilities = deployed(images(shape)).numpy()
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(
        probabilities, tf.nn.softmax(training(images(shape), training=False)["logits"]), atol=1e-6
    )


def test_stem_may_be_chosen() -> None:
    shapes = {}
    for stem in ("cifar", "imagenet"):
        model = build_network(TINY, (32, 32, 3), 5, channels=4, cells=1, stem=stem)
        shapes[stem] = model.get_layer("cell0_input1_conv").output.shape[1:]
    assert shapes == {"cifar": (32, 32, 4), "imagenet": (4, 4, 4)}


TWICE = Genotype.from_text("normal=sep3@0+dil5@0/skip@1+skip@1 reduction=max3@1+sep3@1/conv1@2+conv1@2")


def test_a_node_that_takes_an_input_twice_adds_both_operations() -> None:
    model = build_network(TWICE, (8, 8, 1), 3, channels=4, cells=1)
    sums = {
        layer.name: [x.name for x in layer.input] for layer in model.layers if "Add" in type(layer).__name__
    }
    assert len(sums["cell0_node0"]) == len(sums["cell1_node1"]) == 2
    x = images((8, 8, 1))
    names = ("cell0_node0_edge0_sep_conv_3x3_1_bn", "cell0_node0_edge1_dil_conv_5x5_bn", "cell0_node0")
    names += ("cell0_input1_bn", "cell0_node1")
    outputs = [model.get_layer(name).output for name in names]
    one, other, total, last, doubled = keras.Model(model.input, outputs)(x)
    np.testing.assert_allclose(total, one + other, atol=1e-6)
    np.testing.assert_allclose(doubled, 2 * last, atol=1e-6)


def test_parameters_of_an_input_taken_twice_are_counted_twice() -> None:
    def weights(cell: str) -> int:
        genotype = Genotype.from_text(f"normal={cell} reduction=fixed")
        return count_parameters(build_network(genotype, (8, 8, 1), 3, channels=4, cells=1))

    def norm_and_pointwise(channels: int) -> int:
        return channels * channels + 2 * channels

    # A block each of 4, 8 and 16 channels; a dilated convolution is a depthwise and a pointwise one, a norm.
    dilated = sum(9 * c + norm_and_pointwise(c) for c in (4, 8, 16))
    separable = 2 * dilated
    assert weights("sep3@0+dil3@0") - weights("sep3@0+skip@0") == dilated
    assert weights("sep3@1+sep3@1") - weights("sep3@1+skip@1") == separable


def test_drop_path_drops_both_operations_on_an_input_taken_twice() -> None:
    model = build_network(TWICE, (8, 8, 1), 3, channels=4, cells=1, drop_path=0.3)
    assert model.get_layer("drop_path").paths == 3 * 2 + 2 * 4
    assert sum(isinstance(layer, keras.layers.Multiply) for layer in model.layers) == 3 * 2 + 2 * 4


def test_none_contributes_nothing() -> None:
    def model(cell: list) -> keras.Model:
        return build_network(Genotype(cell, None), (8, 8, 1), 3, channels=4, cells=1, seed=3)

    kept = model([[("none", 0), ("max_pool_3x3", 1)], [("none", 1), ("none", 2)]])
    dropped = model([[("max_pool_3x3", 1), ("none", 0)], [("none", 1), ("none", 1)]])
    dropped.set_weights(kept.get_weights())
    np.testing.assert_array_equal(kept(images((8, 8, 1))), dropped(images((8, 8, 1))))
    cell = keras.Model(kept.input, kept.get_layer("cell0_output").output)(images((8, 8, 1))).numpy()
    assert np.abs(cell[..., :4]).max() > 0
    np.testing.assert_array_equal(cell[..., 4:], 0)


def test_none_in_a_reduction_cell_has_half_the_size() -> None:
    cell = [[("none", 0), ("none", 1)], [("none", 2), ("max_pool_3x3", 1)]]
    model = build_network(Genotype(cell, cell), (9, 8, 1), 3, channels=4, cells=1)
    assert model.get_layer("cell1_output").output.shape[1:] == (5, 4, 16)
    assert np.isfinite(model(images((9, 8, 1)))).all()


def test_grouped_convolution_is_that_of_tensorflow() -> None:
    build = Builder(training=False, seed=0, dtype=None)
    x = keras.Input((6, 7, 16))
    model = keras.Model(x, build.grouped_conv(x, (1, 3), (1, 2), 8, "grouped"))
    values = images((6, 7, 16))
    kernel = np.concatenate(model.get_weights(), -1)
    assert kernel.shape == (1, 3, 2, 16)
    parts = [
        tf.nn.conv2d(values[..., 2 * i : 2 * i + 2], kernel[..., 2 * i : 2 * i + 2], (1, 2), "SAME")
        for i in range(8)
    ]
    np.testing.assert_allclose(model(values), tf.concat(parts, -1), atol=1e-6)


def test_deployed_network_is_made_of_keras_layers_only() -> None:
    for genotype in (GENOTYPES["GDAS_V1"], GENOTYPES["GDAS_GF"]):
        model = build_network(genotype, (8, 8, 1), 10, channels=8, cells=1)
        assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras"}
        assert model.input.name == "image"
        assert model.layers[-1].name == "probabilities"


def test_first_layer_standardizes_by_mean_and_deviation() -> None:
    model = build_network(TINY, (8, 8, 3), 3, channels=4, cells=1, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.2))
    first = keras.Model(model.input, model.get_layer("standardize").output)
    x = images((8, 8, 3))
    np.testing.assert_allclose(first(x), (x - [0.1, 0.2, 0.3]) / [0.5, 0.25, 0.2], rtol=1e-4, atol=1e-5)


def test_seed_decides_the_initial_weights() -> None:
    one, same, other = (
        build_network(TINY, (8, 8, 1), 3, channels=4, cells=1, seed=seed).get_weights() for seed in (1, 1, 2)
    )
    assert all((a == b).all() for a, b in zip(one, same, strict=True))
    kernels = [i for i, weight in enumerate(one) if weight.ndim == 4]
    assert all((one[i] != other[i]).any() for i in kernels)
    assert len({one[i].std() for i in kernels}) == len(kernels)  # no two layers have the same numbers


def initial_weights(initializer: str) -> dict[str, np.ndarray]:
    model = build_network(
        GENOTYPES["GDAS_V1"], (8, 8, 3), 200, channels=32, cells=1, seed=4, initializer=initializer
    )
    return {weight.path: weight.numpy() for weight in model.trainable_variables}


def fan_in(path: str, weight: np.ndarray) -> int:
    shape = weight.shape
    return math.prod(shape[:2]) if "depthwise" in path else math.prod(shape[:-1])


def test_initial_weights_are_those_of_torch() -> None:
    weights = initial_weights("torch")
    bias = weights["logits/bias"]
    bound = 1 / (16 * 32) ** 0.5
    assert 0.9 * bound < np.abs(bias).max() <= bound and abs(bias.mean()) < 0.2 * bound
    kernels = {path: weight for path, weight in weights.items() if path.endswith("kernel")}
    assert len(kernels) > 30
    for path, kernel in kernels.items():
        bound = 1 / fan_in(path, kernel) ** 0.5
        assert 0.9 * bound < np.abs(kernel).max() <= bound * (1 + 1e-6), path
        if kernel.size > 2000:
            assert kernel.std() == pytest.approx(bound / 3**0.5, rel=0.05), path


def test_initial_weights_of_he_are_six_to_the_half_times_those_of_torch() -> None:
    torch, he = (initial_weights(name) for name in ("torch", "he"))
    for path, kernel in he.items():
        if path.endswith("kernel") and kernel.size > 2000:
            factor = 3**0.5 if path.startswith("logits") else 6**0.5
            assert kernel.std() == pytest.approx(factor * torch[path].std(), rel=0.05), path
    np.testing.assert_array_equal(he["logits/bias"], 0)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_has_float32_outputs(policy: str) -> None:
    options = {"channels": 4, "cells": 1, "auxiliary": True, "drop_path": 0.2, "seed": 1}
    mixed = build_network(TINY, (8, 8, 1), 3, dtype=policy, **options)
    assert mixed.get_layer("stem_conv").compute_dtype == policy.removeprefix("mixed_")
    assert all(v.dtype == "float32" for v in mixed.trainable_variables)
    outputs, expected = (
        model(images((8, 8, 1), 16), training=True)
        for model in (mixed, build_network(TINY, (8, 8, 1), 3, **options))
    )
    for name in ("logits", "auxiliary"):
        assert outputs[name].dtype == tf.float32
        np.testing.assert_allclose(outputs[name], expected[name], atol=0.3)


def test_fused_batch_norm_is_that_of_keras() -> None:
    x = tf.constant(images((5, 4, 3), 8) * 3 + 1)
    results = []
    for kind in (FusedBatchNormalization, keras.layers.BatchNormalization):
        norm = kind(momentum=0.9, epsilon=1e-5)
        norm.build(x.shape)
        norm.gamma.assign([1.0, 2.0, 0.5])
        norm.beta.assign([0.0, 1.0, -1.0])
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = norm(x, training=True)
            total = tf.reduce_sum(y**3)
        gradients = tape.gradient(total, [x, norm.gamma.value, norm.beta.value])
        results.append([y, *gradients, norm.moving_mean, norm(x, training=False)])
        count = 8 * 5 * 4
        unbiased = count / (count - 1) if kind is FusedBatchNormalization else 1
        variance = np.var(x, (0, 1, 2)) * unbiased
        np.testing.assert_allclose(norm.moving_variance, 0.9 + 0.1 * variance, rtol=1e-4)
    for fused, composed in zip(*results, strict=True):
        np.testing.assert_allclose(fused, composed, rtol=2e-3, atol=2e-3)


def assert_same_convolution(own: keras.Layer, other: keras.Layer, x: tf.Tensor) -> None:
    """With the same kernel both give the same, and the same gradients by images and kernel."""
    results = []
    for layer in (own, other):
        layer.build(x.shape)
        layer.kernel.assign(np.random.default_rng(1).standard_normal(layer.kernel.shape))
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            total = tf.reduce_sum(y**2)
        results.append([y, *tape.gradient(total, [x, layer.kernel.value])])
    for value, expected in zip(*results, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("size", [(8, 8), (12, 24), (9, 7), (2, 4), (1, 2)])
def test_training_depthwise_convolution_is_that_of_keras(
    size: tuple[int, int], kernel: int, dilation: int
) -> None:
    x = tf.constant(images((*size, 4), 3) - 0.5)
    options = {"dilation_rate": dilation, "padding": "same", "use_bias": False}
    own, other = (kind(kernel, **options) for kind in (TrainingDepthwiseConv2D, keras.layers.DepthwiseConv2D))
    assert_same_convolution(own, other, x)


class EverySecondPixel(keras.layers.Conv2D):
    """A 1x1 convolution of stride 2 as a product of matrices: Keras' own gradient may overwrite memory."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.einsum("bhwi,io->bhwo", inputs[:, ::2, ::2], self.kernel[0, 0])


@pytest.mark.parametrize(
    ("shape", "size", "stride", "reference"),
    [
        ((8, 8, 4), 1, 2, EverySecondPixel),
        ((9, 7, 4), 1, 2, EverySecondPixel),
        ((8, 8, 16), 1, 2, keras.layers.Conv2D),
        ((8, 8, 4), 1, 1, keras.layers.Conv2D),
        ((8, 8, 4), 3, 2, keras.layers.Conv2D),
    ],
)
def test_training_convolution_is_that_of_keras(
    shape: tuple[int, int, int], size: int, stride: int, reference: type[keras.layers.Conv2D]
) -> None:
    x = tf.constant(images(shape, 3) - 0.5)
    options = {"strides": stride, "padding": "same", "use_bias": False}
    own, other = TrainingConv2D(6, size, **options), reference(6, size, **options)
    assert_same_convolution(own, other, x)
    plain = keras.layers.Conv2D(6, size, **options)
    plain.build(x.shape)
    plain.kernel.assign(own.kernel)
    np.testing.assert_allclose(own(x), plain(x), rtol=1e-4, atol=1e-3)


def test_training_convolution_of_few_channels_overwrites_nothing_in_large_images() -> None:
    """In a process of its own: Keras' convolution ends it by signal 6 or 11 where there is AVX-512."""
    code = """if True:
        import sys
        import tensorflow as tf
        from gdas_tf.networks.fast_layers import TrainingConv2D
        layer = TrainingConv2D(4, 1, strides=2, use_bias=False)
        x = tf.random.normal((8, 60, 60, 8))
        for _ in range(20):
            with tf.GradientTape() as tape:
                y = layer(x)
                total = tf.reduce_sum(y * y)
            (gradient,) = tape.gradient(total, layer.trainable_variables)
        wanted = 2 * tf.einsum("bhwi,bhwo->io", x[:, ::2, ::2], y)
        sys.exit(int(tf.reduce_max(abs(gradient[0, 0] - wanted)) > 0.01))
    """
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_drop_path_drops_whole_examples_and_keeps_the_mean() -> None:
    layer = DropPathFactors(paths=3, rate=0.25, seed=5)
    x = images((2, 2, 1), 4000)
    factors = [factor.numpy() for factor in layer(x, training=True)]
    assert [factor.shape for factor in factors] == [(4000, 1, 1, 1)] * 3
    for factor in factors:
        np.testing.assert_allclose(np.unique(factor), [0, 1 / 0.75], rtol=1e-6)
        assert factor.mean() == pytest.approx(1, abs=0.03)
    assert (factors[0] != factors[1]).any()
    again = [factor.numpy() for factor in layer(x, training=True)]
    assert (again[0] != factors[0]).any()
    assert all((factor.numpy() == 1).all() for factor in layer(x, training=False))
    layer.rate.assign(0.0)
    assert all((factor.numpy() == 1).all() for factor in layer(x, training=True))


def test_drop_path_depends_on_seed_and_number_of_the_draw_alone() -> None:
    def draws(layer: DropPathFactors, count: int) -> list[np.ndarray]:
        return [np.stack(layer(images((2, 2, 1), 50), training=True)) for _ in range(count)]

    layer = DropPathFactors(paths=2, rate=0.5, seed=5)
    first = draws(layer, 3)
    state = [variable.numpy() for variable in layer.variables]
    continued = draws(layer, 2)
    assert not (first[0] == first[1]).all()
    resumed = DropPathFactors(paths=2, rate=0.5, seed=99)
    resumed.build((None, 2, 2, 1))
    for variable, value in zip(resumed.variables, state, strict=True):
        variable.assign(value)
    for one, other in zip(continued, draws(resumed, 2), strict=True):
        np.testing.assert_array_equal(one, other)


def test_drop_path_is_saved_with_the_model(tmp_path: Path) -> None:
    model = build_network(TINY, (8, 8, 1), 3, channels=4, cells=1, drop_path=0.3, seed=1)
    model.save(tmp_path / "training.keras")
    loaded = keras.models.load_model(tmp_path / "training.keras")
    assert loaded.get_layer("drop_path").get_config()["rate"] == 0.3
    np.testing.assert_array_equal(
        loaded(images((8, 8, 1)), training=True)["logits"], model(images((8, 8, 1)), training=True)["logits"]
    )


def test_drop_path_is_on_all_edges_but_the_identity() -> None:
    model = build_network(GENOTYPES["GDAS_V1"], (8, 8, 1), 3, channels=4, cells=1, drop_path=0.3)
    dropped = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Multiply)]
    assert len(dropped) == model.get_layer("drop_path").paths == 3 * 4 + 2 * 8
    assert not any("cell0" in name and "skip_connect" in name for name in dropped)
    fixed = build_network(TINY_FIXED, (8, 8, 1), 3, channels=4, cells=1, drop_path=0.3)
    assert fixed.get_layer("drop_path").paths == 3 * 1 + 2 * 4


def test_a_factor_of_drop_path_without_its_path_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = list(builder.droppable_paths(TINY, stack(4, 1), SearchSpace()))
    assert len(paths) == 3 * 1 + 2 * 2
    monkeypatch.setattr(derived, "droppable_paths", lambda *_: [*paths, "cell9_node0_edge0_conv_1x1"])
    with pytest.raises(AssertionError, match="cell9_node0_edge0_conv_1x1"):
        build_network(TINY, (8, 8, 1), 3, channels=4, cells=1, drop_path=0.3)


def test_the_macro_architecture_is_that_of_the_space() -> None:
    def two(channels: int, cells: int, macro: str) -> list[CellPlan]:
        return [CellPlan(channels, False, False), CellPlan(3 * channels, True, False)]

    space = SearchSpace(name="mine", stack=two, stem=2, between="residual", head_norm=True)
    model = build_network(TINY_FIXED, (8, 8, 1), 3, space=space, channels=4, cells=1)
    names = [layer.name for layer in model.layers]
    assert model.get_layer("stem_conv").output.shape[1:] == (8, 8, 8)
    assert model.get_layer("cell1_output").output.shape[1:] == (4, 4, 12)
    assert "cell1_shortcut" in names and "head_bn" in names and not any("cell2" in name for name in names)


@pytest.mark.parametrize("fixed", [False, True])
def test_cells_of_one_input_whose_output_is_the_last_node(fixed: bool) -> None:
    cell = [[("conv_3x3", 0)], [("skip_connect", 0), ("max_pool_3x3", 1)]]
    genotype = Genotype(cell, None if fixed else cell, inputs=1, output="last")
    model = build_network(genotype, (8, 8, 1), 3, channels=4, cells=1, drop_path=0.2, auxiliary=True)
    shapes = {layer.name: layer.output.shape[1:] for layer in model.layers if layer.name.startswith("cell")}
    assert shapes["cell0_node1"] == (8, 8, 4)
    assert shapes["cell1_output" if fixed else "cell1_node1"] == ((4, 4, 16) if fixed else (4, 4, 8))
    assert not any("input1" in name for name in shapes)
    assert model.get_layer("cell1_input0_relu").input is model.get_layer("cell0_node1").output
    assert model.get_layer("drop_path").paths == 3 * 2 + 2 * (2 if fixed else 3)
    outputs = model(images((8, 8, 1)), training=True)
    assert outputs["logits"].shape == (2, 3)


def test_a_node_of_one_input_that_is_the_first_cell_of_a_large_image() -> None:
    genotype = Genotype([[("conv_3x3", 0)]], None, inputs=1)
    model = build_network(genotype, (72, 64, 3), 3, channels=4, cells=1)
    assert model.get_layer("cell0_input0_conv").output.shape[1:] == (9, 8, 4)


class _Flat(Operation):
    name = "flat"

    def compute(self, x, kernels, stride, norm):
        return x[:, ::stride, ::stride]

    def layers(self, build, x, stride, name):
        return keras.layers.GlobalAveragePooling2D(name=name)(x) if stride == 1 else x @ x


@pytest.mark.parametrize(
    ("stride", "message"), [(1, r"layers make \(None, 4\) of"), (2, "layers cannot be built on")]
)
def test_layers_of_an_operation_that_do_not_fit_are_named(stride: int, message: str) -> None:
    build = Builder(training=False, seed=0, dtype=None)
    with pytest.raises(UsageError, match=f"operation flat: its {message}"):
        build.operation(keras.Input((8, 6, 4)), _Flat(), stride, "flat")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_shape": (7, 8, 3)}, "7, 8, 3"),
        ({"image_shape": (8, 8)}, "8, 8"),
        ({"classes": 1}, "classes: found 1"),
        ({"channels": 1}, "channels: found 1"),
        ({"cells": 0}, "cells"),
        ({"macro": "other"}, "'other'"),
        ({"stem": "vgg"}, "'vgg'"),
        ({"initializer": "xavier"}, "initializer: found 'xavier'; accepted: torch, he"),
    ],
)
def test_bad_arguments_are_named(change: dict, message: str) -> None:
    arguments = {"image_shape": (8, 8, 1), "classes": 3, "channels": 4, "cells": 1, **change}
    with pytest.raises(UsageError, match=message):
        build_network(TINY, **arguments)
